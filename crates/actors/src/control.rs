//! The handle to all actors: what the HTTP layer asks, and what sleds report to.

use crate::answer::{Accepted, CommandError, RequestContext};
use crate::boards::Boards;
use crate::convert;
use crate::env::Env;
use crate::instance::{Ask, InstanceMsg};
use crate::instances::Instances;
use crate::ledger::{LedgerHandle, SharedFold};
use crate::network::{Network, NetworkStatus};
use crate::projects::{ProjectAsk, Projects};
use crate::sled::SledStatus;
use crate::sleds::Sleds;
use crate::supervisor::{KILLED, Undeliverable};
use crate::timers::Timers;
use crate::writer::{AppendError, Writer};
use eventlog::{Log, Unavailable};
use futures::FutureExt;
use futures::future::BoxFuture;
use journal::{Actor as Who, Context, Event, StreamName};
use lifecycle::event::SystemEvent;
use lifecycle::ledger::SledLoad;
use lifecycle::project::Project;
use lifecycle::sled::{Registration, SledProperties};
use lifecycle::{BootId, Instance, InstanceId, InstanceSpec, ProjectId, Rejected, SledId, VmmId};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use sled_protocol::{self as wire, ControlPlaneClient, ControlPlaneError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// Why the control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] eventlog::ReadError),
    /// An event cannot be understood.
    #[error(transparent)]
    Decode(#[from] journal::DecodeError),
    /// The log refuses appends.
    #[error("the log cannot be written: {0}")]
    Append(String),
    /// An actor could not be started.
    #[error("an actor could not be started: {0}")]
    Actor(String),
}

/// Looks for the successor of an actor that ended, a restart's pause apart: several restarts in a row.
const SETTLE_ATTEMPTS: usize = 50;

/// What a user asks for when creating an instance.
#[derive(Clone, Debug)]
pub struct NewInstance {
    /// What the user configured.
    pub spec: InstanceSpec,
    /// Whether to start it.
    pub start: bool,
}

/// The control plane of one process. Clones share it.
#[derive(Clone)]
pub struct ControlPlane {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) env: Arc<Env>,
    root: ActorRef<NoMessage>,
    pub(crate) ledger: LedgerHandle,
    pub(crate) projects: Projects,
    pub(crate) instances: Instances,
    pub(crate) sleds: Sleds,
    pub(crate) timers: Timers,
    network: Network,
    /// One writer of the system's stream at a time.
    pub(crate) system: tokio::sync::Mutex<()>,
    is_closing: AtomicBool,
}

/// What is left of the run before this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Predecessor {
    /// Whether it ended cleanly.
    pub ended_cleanly: bool,
}

impl ControlPlane {
    /// Folds what is shared, marks the start in the log, and starts the actors. Nothing is activated yet.
    pub async fn start(env: Env) -> Result<(Self, Predecessor), StartError> {
        Self::start_from(env, SharedFold::default()).await
    }

    /// The same with the beginning of the log folded already: `known` must equal the fold up to its position.
    pub async fn start_from(env: Env, known: SharedFold) -> Result<(Self, Predecessor), StartError> {
        let env = Arc::new(env);
        let predecessor = mark_start(&env).await?;
        let actor_error = |error: ractor::SpawnErr| StartError::Actor(error.to_string());
        let (root, _) = Actor::spawn(None, Root { env: Arc::clone(&env) }, ()).await.map_err(actor_error)?;
        let cell: ActorCell = root.get_cell();
        let (ledger, desk) = LedgerHandle::start(&env, known, cell.clone()).await?;
        let projects =
            Projects::start(Arc::clone(&env), ledger.clone(), cell.clone()).await.map_err(actor_error)?;
        let instances = Instances::start(Arc::clone(&env), cell.clone()).await.map_err(actor_error)?;
        let boards = Boards::new(&env);
        let sleds = Sleds::start(Arc::clone(&env), cell, boards.clone()).await.map_err(actor_error)?;
        instances.connect(ledger.clone(), sleds.clone());
        let network = Network::start(Arc::clone(&env), desk);
        sleds.connect(ledger.clone(), instances.clone(), network.clone());
        let timers = Timers::new(Arc::clone(&env), instances.clone(), sleds.clone(), ledger.clone(), boards);
        let (system, is_closing) = (tokio::sync::Mutex::new(()), AtomicBool::new(false));
        let inner =
            Inner { env, root, ledger, projects, instances, sleds, timers, network, system, is_closing };
        Ok((Self { inner: Arc::new(inner) }, predecessor))
    }

    /// Records that an operator let the log open although durable records were gone: the history says so for
    /// ever.
    pub async fn record_loss(&self, durable: u64, found: u64, nameless: u64) -> Result<(), StartError> {
        let opened = Writer::open(Arc::clone(&self.inner.env), StreamName::System).await;
        let (mut writer, _) = opened.map_err(|error| StartError::Append(error.to_string()))?;
        let accepted = Event::from(SystemEvent::LossAccepted { durable, found, nameless });
        let appended = writer.append(&[accepted], &daemon()).await;
        appended.map(drop).map_err(|error| StartError::Append(error.to_string()))
    }

    /// Wakes instances that have something unfinished, and watches every sled that the log knows.
    pub async fn resume(&self, unfinished: impl IntoIterator<Item = InstanceId>) {
        let sleds = self.inner.ledger.look(0, |ledger| ledger.sleds().collect::<Vec<_>>()).await;
        for sled in sleds.unwrap_or_default() {
            self.inner.sleds.watch(sled.id);
        }
        for id in unfinished {
            if let Err(error) = self.inner.instances.send(id, InstanceMsg::Reconsider) {
                tracing::warn!(instance = %id, %error, "not resumed");
            }
        }
    }

    /// Creates an instance, and starts it if asked.
    pub async fn create_instance(
        &self,
        new: NewInstance,
        context: RequestContext,
    ) -> Result<Accepted, CommandError> {
        self.must_be_open()?;
        self.must_be_creatable(&new.spec)?;
        let id = InstanceId::new(self.inner.env.ids.uuid());
        self.command(id, Ask::Create { spec: Box::new(new.spec), start: new.start }, context).await
    }

    /// Refuses what the instance's actor would refuse, before there is one: a refusal then claims no stream.
    /// The actor asks again; in between the answer may change.
    fn must_be_creatable(&self, spec: &InstanceSpec) -> Result<(), CommandError> {
        spec.validate().map_err(Rejected::from)?;
        Ok(self.inner.ledger.glance(|ledger| ledger.may_grant_instance(spec.project, &spec.name))?)
    }

    /// Does what is asked of an existing instance.
    pub async fn ask(
        &self,
        id: InstanceId,
        ask: Ask,
        context: RequestContext,
    ) -> Result<Accepted, CommandError> {
        self.must_be_open()?;
        self.must_exist(id)?;
        self.command(id, ask, context).await
    }

    async fn command(
        &self,
        id: InstanceId,
        ask: Ask,
        context: RequestContext,
    ) -> Result<Accepted, CommandError> {
        self.must_be_open()?;
        let ticket = self.inner.instances.admit(id)?;
        let (reply, answer) = oneshot::channel();
        self.inner
            .instances
            .send(id, InstanceMsg::Command { ask, context, ticket, reply, span: tracing::Span::current() })
            .map_err(undeliverable)?;
        if let Ok(answer) = answer.await {
            return answer;
        }
        self.settle(id).await;
        Err(CommandError::Unknown("the instance's actor ended before it answered".to_owned()))
    }

    /// Waits until the successor of an actor that ended has loaded its stream: what its predecessor appended is
    /// then durable or will never be, so that a repeat of the request finds it.
    async fn settle(&self, id: InstanceId) {
        for _ in 0..SETTLE_ATTEMPTS {
            let (reply, answer) = oneshot::channel();
            match self.inner.instances.send(id, InstanceMsg::Get(reply)) {
                Ok(()) if answer.await.is_ok() => return,
                Ok(()) | Err(Undeliverable::Restarting(_)) => {}
                Err(Undeliverable::Quarantined(_) | Undeliverable::Closed) => return,
            }
            tokio::time::sleep(self.inner.env.limits.restart_pause).await;
        }
    }

    /// The instance's state, from its actor.
    pub async fn instance(&self, id: InstanceId) -> Result<Box<Instance>, CommandError> {
        self.must_exist(id)?;
        let (reply, answer) = oneshot::channel();
        self.inner.instances.send(id, InstanceMsg::Get(reply)).map_err(undeliverable)?;
        let ended = |_| CommandError::Unavailable("the instance's actor restarts; try again".to_owned());
        let instance = answer.await.map_err(ended)?.filter(|instance| instance.deleted.is_none());
        instance.ok_or_else(|| Rejected::NoSuchInstance(id).into())
    }

    /// Ids that were never created must not activate anything.
    fn must_exist(&self, id: InstanceId) -> Result<(), CommandError> {
        if let Some(why) = self.damaged(id) {
            return Err(CommandError::Unavailable(format!("the instance is quarantined: {why}")));
        }
        let exists = self.inner.ledger.glance(|ledger| ledger.has_instance(id));
        if exists { Ok(()) } else { Err(Rejected::NoSuchInstance(id).into()) }
    }

    pub(crate) fn must_be_open(&self) -> Result<(), CommandError> {
        if self.inner.is_closing.load(Ordering::Acquire) {
            return Err(CommandError::Unavailable("the daemon is shutting down".to_owned()));
        }
        // Nothing can be refused for good any more: what was asked before may be in the log or not, and only the
        // next start knows.
        if let Some(why @ Unavailable::Poisoned(_)) = self.inner.env.log.refusal() {
            return Err(why.into());
        }
        Ok(())
    }

    /// Creates, changes or deletes a project; answers it afterwards and the position of its newest event.
    pub async fn ask_project(
        &self,
        id: Option<ProjectId>,
        ask: ProjectAsk,
        context: RequestContext,
    ) -> Result<(Project, u64), CommandError> {
        self.must_be_open()?;
        let id = id.unwrap_or_else(|| ProjectId::new(self.inner.env.ids.uuid()));
        self.inner.projects.ask(id, ask, context).await
    }

    /// Every sled's load, and how it is doing.
    pub async fn sleds(&self) -> Result<Vec<(SledLoad, Option<SledStatus>)>, CommandError> {
        let loads = self.inner.ledger.look(0, |ledger| ledger.sleds().collect::<Vec<_>>()).await;
        let loads = loads.map_err(|gone| CommandError::Unavailable(gone.to_string()))?;
        let mut sleds = Vec::with_capacity(loads.len());
        for load in loads {
            let status = self.inner.sleds.status(load.id).await;
            sleds.push((load, status));
        }
        Ok(sleds)
    }

    /// What sleds have answered so far over HTTP.
    pub fn sled_calls(&self) -> Vec<wire::CallCount> {
        self.inner.env.connector.calls()
    }

    /// How far the network's peers are.
    pub fn network(&self) -> NetworkStatus {
        self.inner.network.status()
    }

    /// The log, for readers.
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.inner.env.log
    }

    /// A fresh request id.
    pub fn mint_request(&self) -> lifecycle::RequestId {
        lifecycle::RequestId::new(self.inner.env.ids.uuid())
    }

    /// The wall clock.
    pub fn now(&self) -> lifecycle::Timestamp {
        self.inner.env.clock.now()
    }

    /// Why the instance's stream cannot be read, if it cannot.
    fn damaged(&self, id: InstanceId) -> Option<String> {
        let stream = StreamName::Instance(id).id();
        let quarantined = self.inner.env.log.quarantined();
        quarantined.into_iter().find(|(damaged, _)| *damaged == stream).map(|(_, why)| why)
    }

    /// Instances that keep failing, or whose streams are damaged, with the reason.
    pub fn quarantined(&self) -> Vec<(InstanceId, String)> {
        let damaged =
            self.inner.env.log.quarantined().into_iter().filter_map(|(stream, why)| match StreamName::parse(
                stream,
            ) {
                Some(StreamName::Instance(id)) => Some((id, why)),
                _ => None,
            });
        self.inner.instances.quarantined().into_iter().chain(damaged).collect()
    }

    /// What came in and what was turned away since the start.
    pub fn counts(&self) -> crate::counts::Counts {
        self.inner.instances.counts()
    }

    /// Number of instances in memory.
    pub fn live_instances(&self) -> usize {
        self.inner.instances.live()
    }

    /// What sleds report to.
    pub fn intake(&self) -> Arc<dyn ControlPlaneClient> {
        Arc::new(Intake { control: self.clone() })
    }

    /// Refuses what comes, lets appends finish, marks the stop, closes the log.
    pub async fn shutdown(&self) {
        self.inner.is_closing.store(true, Ordering::Release);
        self.inner.timers.close();
        self.inner.projects.close().await;
        self.inner.instances.close().await;
        self.inner.sleds.close().await;
        self.inner.network.close();
        if let Ok((mut writer, _)) = Writer::open(Arc::clone(&self.inner.env), StreamName::System).await
            && let Err(error) = writer.append(&[Event::from(SystemEvent::DaemonStopped)], &daemon()).await
        {
            tracing::warn!(%error, "the stop is not marked in the log");
        }
        self.inner.root.stop(None);
        self.inner.env.log.close().await;
    }
}

fn daemon() -> Context {
    Context::of(Who::Daemon)
}

async fn mark_start(env: &Arc<Env>) -> Result<Predecessor, StartError> {
    let opened = Writer::open(Arc::clone(env), StreamName::System).await;
    let (mut writer, records) = opened.map_err(|error| StartError::Append(error.to_string()))?;
    let last = records.last().map(|record| &record.event);
    let ended_cleanly = matches!(last, Some(Event::System(SystemEvent::DaemonStopped)));
    let predecessor = Predecessor { ended_cleanly };
    let started = SystemEvent::DaemonStarted { build: env.build.clone(), after_clean_stop: ended_cleanly };
    match writer.append(&[Event::from(started)], &daemon()).await {
        // A full disk refuses commands, not reads; the log recovers by itself when there is space.
        Err(AppendError::Refused(why @ Unavailable::NoSpace(_))) => {
            tracing::error!(%why, "commands are refused until there is space; reads go on");
        }
        appended => {
            appended.map_err(|error| StartError::Append(error.to_string()))?;
        }
    }
    Ok(predecessor)
}

fn undeliverable(error: Undeliverable) -> CommandError {
    CommandError::Unavailable(match error {
        Undeliverable::Restarting(why) => {
            format!("the instance is being reloaded after a failure ({why}); try again")
        }
        Undeliverable::Quarantined(why) => format!("the instance is quarantined: {why}"),
        closed @ Undeliverable::Closed => closed.to_string(),
    })
}

/// The top of the tree: a ledger that fails ends the process; rosters are supervisors of their own.
struct Root {
    env: Arc<Env>,
}

/// The root is only a supervisor.
enum NoMessage {}

impl Actor for Root {
    type Msg = NoMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<NoMessage>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<NoMessage>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        // The ledger's grants are only reproducible with every grantee gone; a supervisor that failed
        // supervises nothing. Both are what a start from the log is for.
        match event {
            SupervisionEvent::ActorFailed(_, error) => {
                self.env.fatal.raise(format!("a core actor has failed: {error}"));
            }
            SupervisionEvent::ActorTerminated(_, _, Some(why)) if why == KILLED => {
                self.env.fatal.raise("a core actor was killed");
            }
            SupervisionEvent::ActorTerminated(..)
            | SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

/// The sleds' side of the door.
struct Intake {
    control: ControlPlane,
}

impl Intake {
    async fn take_report(
        &self,
        sled: SledId,
        vmm: VmmId,
        state: &wire::SledVmmState,
    ) -> Result<(), ControlPlaneError> {
        let inner = &self.control.inner;
        let unavailable = |why: String| ControlPlaneError::Unavailable(why);
        state.validate().map_err(|invalid| ControlPlaneError::Malformed(invalid.to_string()))?;
        let place = inner.ledger.glance(|ledger| ledger.vmm(vmm)).ok_or(ControlPlaneError::Unknown)?;
        if place.sled != sled {
            return Err(ControlPlaneError::Malformed(Rejected::WrongSled.to_string()));
        }
        inner.sleds.heard(sled);
        let ticket = inner.instances.admit(place.instance).map_err(|error| unavailable(error.to_string()))?;
        let (reply, answer) = oneshot::channel();
        let report = convert::report(state);
        let message = InstanceMsg::Report { sled, vmm, report, ticket: Some(ticket), reply: Some(reply) };
        inner.instances.send(place.instance, message).map_err(|error| unavailable(error.to_string()))?;
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(CommandError::Rejected(Rejected::NoSuchVmm))) => Err(ControlPlaneError::Unknown),
            Ok(Err(CommandError::Rejected(rejected))) => {
                Err(ControlPlaneError::Malformed(rejected.to_string()))
            }
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(_) => Err(unavailable("the instance's actor restarts".to_owned())),
        }
    }
}

impl ControlPlaneClient for Intake {
    fn report(
        &self,
        sled: wire::SledId,
        vmm: wire::PropolisId,
        state: wire::SledVmmState,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        async move { self.take_report(SledId::new(sled.as_uuid()), VmmId::new(vmm.as_uuid()), &state).await }
            .boxed()
    }

    fn register(
        &self,
        request: wire::RegisterSled,
    ) -> BoxFuture<'_, Result<wire::SledLease, ControlPlaneError>> {
        async move {
            request.validate().map_err(|invalid| ControlPlaneError::Malformed(invalid.to_string()))?;
            let registration = Registration {
                id: SledId::new(request.sled_id.as_uuid()),
                properties: SledProperties {
                    name: request.name,
                    threads: request.resources.threads,
                    memory: request.resources.memory,
                    cpu_family: request.cpu_family,
                    address: request.api_addr,
                },
                boot: BootId::new(request.boot_id.as_uuid()),
                held: request.held_epoch.map(|epoch| lifecycle::LeaseEpoch::new(epoch.get())),
            };
            self.control.inner.sleds.register(registration).await
        }
        .boxed()
    }

    fn renew(
        &self,
        sled: wire::SledId,
        request: wire::RenewLease,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        async move {
            request.validate().map_err(|invalid| ControlPlaneError::Malformed(invalid.to_string()))?;
            let id = SledId::new(sled.as_uuid());
            // Ids that never registered must not activate anything.
            if !self.control.inner.ledger.glance(|ledger| ledger.has_sled(id)) {
                return Err(ControlPlaneError::Unknown);
            }
            let boot = BootId::new(request.boot_id.as_uuid());
            let epoch = lifecycle::LeaseEpoch::new(request.lease_epoch.get());
            self.control.inner.sleds.renew(id, boot, epoch).await
        }
        .boxed()
    }
}
