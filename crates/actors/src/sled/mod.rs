//! The sled's shell: the only writer of `sled/<id>`, bounded calls to its agent, and the watch that
//! compares its inventory with the log.
//!
//! It decides nothing about instances. What it learns of a VMM it passes on as evidence, with the log
//! position from which that evidence counts; the instance's core decides what it proves.

mod calls;
mod drain;
mod inventory;
mod lease;
mod line;
mod registering;
mod standing;

pub(crate) use drain::Asked;
pub use drain::DrainStatus;
pub use lease::{CLOCK_OFF_PPM_MAX, LeaseStatus, lease_grace_min, lease_wait};
pub use line::CircuitStatus;
pub(crate) use standing::Standing;

use crate::answer::{CommandError, RequestContext};
use crate::boards::Boards;
use crate::convert::VmmRequest;
use crate::env::Env;
use crate::instance::InstanceMsg;
use crate::instances::Instances;
use crate::ledger::LedgerHandle;
use crate::network::Network;
use crate::writer::{AppendError, Writer};
use journal::{Context, Event, Recorded, StreamName};
use lifecycle::event::SledEvent;
use lifecycle::input::Input;
use lifecycle::sled::{Registration, Sled, SledCommand, decide, evolve};
use lifecycle::vmm::Evidence;
use lifecycle::{BootId, LeaseEpoch, Rejected, SledId, Timestamp};
use line::Line;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sled_protocol::{self as wire, ControlPlaneError, SledClient, SledLease};
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};
use tracing::Span;

/// What a sled's actor can be told.
pub(crate) enum SledMsg {
    /// Make an effect true.
    Call { request: VmmRequest, asker: ActorRef<InstanceMsg>, span: Span },
    /// It registers.
    Register { registration: Registration, reply: oneshot::Sender<Result<SledLease, ControlPlaneError>> },
    /// It renews its lease.
    Renew { boot: BootId, epoch: LeaseEpoch, reply: oneshot::Sender<Result<(), ControlPlaneError>> },
    /// Its lease may have expired.
    LeaseDue,
    /// Compare its inventory with the log, and go on doing so.
    Watch,
    /// An inventory that was asked for when the log was durable up to `asked_at`.
    Inventoried { asked_at: u64, result: Result<wire::Listing, wire::SledError> },
    /// What became of asking a sled whether it is in the boot that it registers with.
    Witnessed(registering::Witnessed),
    /// It said something.
    Heard,
    /// It did not answer.
    NotHeard(String),
    /// An operator asks for something.
    Command {
        command: SledCommand,
        context: RequestContext,
        reply: oneshot::Sender<Result<(Sled, u64), CommandError>>,
    },
    /// Move guests away, if it drains.
    Drain,
    /// What became of asking instances to move away.
    DrainAsked { since: Timestamp, asked: Vec<Asked> },
    /// What has a VMM written?
    Serial {
        vmm: wire::PropolisId,
        range: wire::SerialRange,
        reply: oneshot::Sender<Result<wire::SerialData, wire::SledError>>,
    },
    /// How is it doing?
    Look(oneshot::Sender<SledStatus>),
}

/// How a sled is doing, as far as this daemon knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SledStatus {
    /// When it was last heard from.
    pub last_contact: Option<Timestamp>,
    /// Why it cannot be reached, and since when, if it cannot.
    pub unreachable: Option<(String, Timestamp)>,
    /// Whether requests to it are held back, because it did not answer so often.
    pub circuit: Option<CircuitStatus>,
    /// Requests that were held back so far.
    pub held_back: u64,
    /// Calls to it that are under way.
    pub calls: usize,
    /// Its lease, if its VMMs run on one.
    pub lease: Option<LeaseStatus>,
    /// How its drain is getting on, if it drains.
    pub drain: Option<DrainStatus>,
}

/// What a sled's actor starts with.
pub(crate) struct SledArgs {
    pub(crate) env: Arc<Env>,
    pub(crate) id: SledId,
    pub(crate) ledger: LedgerHandle,
    pub(crate) instances: Instances,
    pub(crate) network: Network,
    pub(crate) boards: Boards,
    pub(crate) standing: Arc<Standing>,
}

/// Loading happens in the actor's own task, never in its supervisor's.
pub(crate) enum Life {
    Loading(SledArgs),
    Loaded(Box<Shell>),
    Ended,
}

pub(crate) struct SledActor;

/// A sled's actor's memory.
pub(crate) struct Shell {
    env: Arc<Env>,
    id: SledId,
    me: ActorRef<SledMsg>,
    ledger: LedgerHandle,
    instances: Instances,
    network: Network,
    boards: Boards,
    writer: Writer,
    state: Option<Sled>,
    /// Log position of its last boot or of the end of its last lease, and which of the two: what was allocated
    /// before is gone.
    fenced_at: u64,
    fence: Evidence,
    lease: lease::Clock,
    standing: Arc<Standing>,
    client: Option<Arc<dyn SledClient>>,
    circuit: Arc<line::Circuit>,
    permits: Arc<Semaphore>,
    status: SledStatus,
    /// The next look at the inventory; dropping it cancels it.
    watch: Option<(crate::instance::Timer, Timestamp)>,
    is_asking: bool,
    /// What it listed last, if it says when that is still so.
    listed: Option<inventory::Listed>,
    /// Questions whether it is in the boot that it registers with.
    questions: Arc<Semaphore>,
    /// Whether it could not be found when it was last looked for.
    is_missed: bool,
    /// The drain under way.
    drain: Option<drain::Drain>,
}

impl Actor for SledActor {
    type Msg = SledMsg;
    type State = Life;
    type Arguments = SledArgs;

    async fn pre_start(&self, _: ActorRef<SledMsg>, args: SledArgs) -> Result<Life, ActorProcessingErr> {
        Ok(Life::Loading(args))
    }

    async fn post_start(&self, me: ActorRef<SledMsg>, life: &mut Life) -> Result<(), ActorProcessingErr> {
        let Life::Loading(args) = std::mem::replace(life, Life::Ended) else {
            unreachable!("an actor starts once");
        };
        *life = Life::Loaded(Box::new(Shell::load(args, me).await?));
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<SledMsg>,
        message: SledMsg,
        life: &mut Life,
    ) -> Result<(), ActorProcessingErr> {
        let Life::Loaded(shell) = life else {
            unreachable!("messages are handled after the start");
        };
        shell.env.let_others_go_first().await;
        match message {
            SledMsg::Call { request, asker, span } => shell.call(request, asker, span),
            SledMsg::Register { registration, reply } => {
                return shell.on_register(registration, reply).await;
            }
            SledMsg::Renew { boot, epoch, reply } => {
                // A sled that hung up renews again.
                let _ = reply.send(shell.on_renew(boot, epoch));
            }
            SledMsg::LeaseDue => return shell.on_lease_due().await,
            SledMsg::Watch => {
                shell.tell_of_expunge().await;
                if shell.state.as_ref().is_some_and(|sled| sled.lapsed.is_some()) {
                    // A sled that is cut off gives no inventory that would say it again.
                    shell.tell_of_fence().await;
                }
                shell.ask_inventory();
            }
            SledMsg::Inventoried { asked_at, result } => shell.on_inventory(asked_at, result).await,
            SledMsg::Witnessed(witnessed) => return shell.on_witnessed(witnessed).await,
            SledMsg::Command { command, context, reply } => {
                return shell.on_command(&command, &context, reply).await;
            }
            SledMsg::Drain => return shell.on_drain().await,
            SledMsg::DrainAsked { since, asked } => shell.on_drain_asked(since, asked),
            SledMsg::Heard => shell.heard(),
            SledMsg::NotHeard(why) => shell.not_heard(why),
            SledMsg::Serial { vmm, range, reply } => shell.serial(vmm, range, reply),
            SledMsg::Look(reply) => {
                let calls = shell.env.limits.sled_calls_max - shell.permits.available_permits();
                // Whoever asked may have gone.
                let drain = shell.drain.as_ref().map(drain::Drain::status);
                let lease = shell.lease_status();
                let next_probe = shell.watch.as_ref().map(|(_, at)| *at).filter(|_| !shell.is_asking);
                // One that was expunged is asked no more: its circuit has nothing to close it, and nothing to hold back.
                let is_asked = shell.state.as_ref().is_some_and(|sled| sled.expunged.is_none());
                let circuit = shell.circuit.status(next_probe).filter(|_| is_asked);
                let held_back = shell.circuit.held_back();
                let status = SledStatus { circuit, held_back, calls, lease, drain, ..shell.status.clone() };
                let _ = reply.send(status);
            }
        }
        Ok(())
    }
}

impl Shell {
    async fn load(args: SledArgs, me: ActorRef<SledMsg>) -> Result<Self, ActorProcessingErr> {
        let SledArgs { env, id, ledger, instances, network, boards, standing } = args;
        let (writer, records) = Writer::open(Arc::clone(&env), StreamName::Sled(id)).await?;
        let (mut state, mut fenced) = (None, (0, Evidence::SledRebooted));
        for Recorded { event, meta, .. } in &records {
            if let Event::Sled(event) = event {
                evolve(&mut state, event, *meta);
                fenced = fence_of(event).map_or(fenced, |fence| (meta.position, fence));
            }
        }
        let (fenced_at, fence) = fenced;
        let (permits, circuit) = (Arc::new(Semaphore::new(env.limits.sled_calls_max)), standing.circuit());
        let mut shell = Self {
            env,
            id,
            me,
            ledger,
            instances,
            network,
            boards,
            writer,
            state,
            fenced_at,
            fence,
            lease: lease::Clock::default(),
            standing,
            client: None,
            circuit,
            permits,
            status: SledStatus::default(),
            watch: None,
            is_asking: false,
            listed: None,
            questions: Arc::new(Semaphore::new(registering::QUESTIONS_MAX)),
            is_missed: false,
            drain: None,
        };
        shell.connect();
        if shell.state.as_ref().is_some_and(|sled| sled.expunged.is_none()) {
            shell.network.known(id);
        }
        // A crash may have come between the fence's event and the evidence it gives.
        shell.tell_of_fence().await;
        // What was renewed before this start is not known: the lease counts from here.
        shell.lease_renewed();
        shell.standing.publish(shell.state.as_ref());
        shell.ask_inventory();
        shell.plan_drain();
        Ok(shell)
    }

    /// The client, looked for again if there was none: a sled in this process registers before it can be
    /// found.
    fn client(&mut self) -> Option<Arc<dyn SledClient>> {
        if self.client.is_none() {
            self.connect();
        }
        self.client.clone()
    }

    fn connect(&mut self) {
        let client = self
            .state
            .as_ref()
            .filter(|sled| sled.expunged.is_none())
            .and_then(|sled| self.env.connector.connect(self.id, &sled.properties.address));
        let (circuit, env, actor) = (Arc::clone(&self.circuit), Arc::clone(&self.env), self.me.clone());
        self.client =
            client.map(|client| Arc::new(Line { client, circuit, env, actor }) as Arc<dyn SledClient>);
    }

    fn epoch(&self) -> Option<LeaseEpoch> {
        self.state.as_ref().and_then(Sled::epoch)
    }

    /// Decides, appends, and acts on what an operator asked for.
    async fn on_command(
        &mut self,
        command: &SledCommand,
        context: &RequestContext,
        reply: oneshot::Sender<Result<(Sled, u64), CommandError>>,
    ) -> Result<(), ActorProcessingErr> {
        let Some(state) = &self.state else {
            let _ = reply.send(Err(Rejected::NoSuchSled(self.id).into()));
            return Ok(());
        };
        let events = match decide(state, command) {
            Ok(events) => events,
            Err(rejected) => {
                let _ = reply.send(Err(rejected.into()));
                return Ok(());
            }
        };
        if let Err(error) = self.append(&events, &context.recorded()).await {
            let ends_owner = error.ends_owner();
            let _ = reply.send(Err(match &error {
                AppendError::Rehearsed(events) => CommandError::Rehearsed(events.clone()),
                AppendError::Unknown(_) => CommandError::Unknown(error.to_string()),
                AppendError::Refused(_) | AppendError::Lost(_) => {
                    CommandError::Unavailable(error.to_string())
                }
            }));
            return if ends_owner { Err(error.into()) } else { Ok(()) };
        }
        tracing::info!(sled = %self.id, ?events, "sled changed by an operator");
        let state = self.state.clone().expect("it is registered");
        // A caller that hung up finds the outcome by looking.
        let _ = reply.send(Ok((state, self.writer.position())));
        self.plan_drain();
        self.tell_of_expunge().await;
        Ok(())
    }

    /// Appends and folds; nothing if there is nothing.
    async fn append(&mut self, events: &[SledEvent], context: &Context) -> Result<(), AppendError> {
        if events.is_empty() {
            return Ok(());
        }
        let recorded: Vec<Event> = events.iter().cloned().map(Event::from).collect();
        let metas = self.writer.append(&recorded, context).await?;
        for (event, meta) in events.iter().zip(metas) {
            evolve(&mut self.state, event, meta);
            match event {
                SledEvent::Booted { boot, epoch } => {
                    tracing::info!(sled = %self.id, %boot, %epoch, "sled booted");
                }
                SledEvent::LeaseExpired { epoch } => {
                    tracing::warn!(sled = %self.id, %epoch, "sled did not renew its lease: what ran on it is over");
                }
                _ => {}
            }
            if let Some(fence) = fence_of(event) {
                (self.fenced_at, self.fence) = (meta.position, fence);
            }
        }
        self.standing.publish(self.state.as_ref());
        Ok(())
    }

    /// What is on an expunged sled is gone, by the operator's word; the sled is not asked. Told again at every
    /// watch: a VMM may have been placed on it just before.
    async fn tell_of_expunge(&mut self) {
        if self.state.as_ref().is_none_or(|sled| sled.expunged.is_none()) {
            return;
        }
        self.client = None;
        self.network.expunged(self.id);
        let (id, after) = (self.id, self.writer.position());
        let on_sled = self.ledger.look(after, move |ledger| ledger.vmms_on(id).collect::<Vec<_>>()).await;
        for (vmm, instance) in on_sled.unwrap_or_default() {
            let input = Input::Gone { vmm, evidence: Evidence::SledExpunged };
            let _ = self.instances.send(instance, InstanceMsg::Learned(input));
        }
    }

    /// What was allocated before the last boot, or before the last lease ended, is gone with it. Told again at
    /// every start: it is idempotent.
    async fn tell_of_fence(&self) {
        let (id, asked_at, evidence) = (self.id, self.fenced_at, self.fence);
        if asked_at == 0 {
            return;
        }
        let on_sled = self.ledger.look(asked_at, move |ledger| ledger.vmms_on(id).collect::<Vec<_>>()).await;
        for (vmm, instance) in on_sled.unwrap_or_default() {
            let input = Input::Absent { vmm, asked_at, evidence };
            // An instance that restarts is told by the next inventory, in other words, or by the next watch.
            let _ = self.instances.send(instance, InstanceMsg::Learned(input));
        }
    }

    /// It has just answered: the network can be pushed to it.
    fn tell_network(&self) {
        if let (Some(client), Some(epoch)) = (&self.client, self.epoch()) {
            self.network.found(self.id, client, epoch);
        }
    }

    fn heard(&mut self) {
        self.circuit.heard();
        self.status.last_contact = Some(self.env.clock.now());
        if let Some((why, since)) = self.status.unreachable.take() {
            tracing::info!(sled = %self.id, why, since = since.micros(), "sled can be reached again");
            self.ledger.reachable(self.id, true);
            self.ask_inventory();
        }
    }

    fn not_heard(&mut self, why: String) {
        if self.status.unreachable.is_none() {
            tracing::warn!(sled = %self.id, why, "sled cannot be reached");
            self.ledger.reachable(self.id, false);
            self.network.lost(self.id);
            self.status.unreachable = Some((why, self.env.clock.now()));
            // From here on the watch is what finds it again, and it looks more often.
            self.plan_watch();
        }
    }
}

/// What a fact proves of everything that was allocated on the sled before it.
const fn fence_of(event: &SledEvent) -> Option<Evidence> {
    match event {
        SledEvent::Booted { .. } => Some(Evidence::SledRebooted),
        SledEvent::LeaseExpired { .. } => Some(Evidence::LeaseExpired),
        SledEvent::Registered { .. }
        | SledEvent::LeaseBegan { .. }
        | SledEvent::ProvisionableChanged { .. }
        | SledEvent::DrainBegan { .. }
        | SledEvent::DrainEnded { .. }
        | SledEvent::Expunged { .. } => None,
    }
}
