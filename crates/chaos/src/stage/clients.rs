//! Clients: one task per request, which repeats it under the same id until it has an answer, as clients of the
//! HTTP interface do with an idempotency key.
//!
//! The door keeps one request per id under way at a time, and lets it finish when its client hangs up; whether
//! a repeat was recorded is looked up in the durable log. Both are what `musher-api` does with a key.

use super::cloth::named;
use super::revive::context;
use super::state::Stage;
use crate::coverage::Sometimes;
use crate::draws::within;
use crate::faults::{Entity, Fault, Side};
use crate::scenario::Request;
use crate::verb::{About, Verb};
use crate::world::{ClientAnswer as Answer, names, policy, size_of};
use actors::instance::Ask;
use actors::projects::ProjectAsk;
use actors::{CommandError, ControlPlane, NewInstance};
use lifecycle::project::GroupCommand;
use lifecycle::sled::SledCommand;
use lifecycle::{GroupPolicy, InstanceSpec, Quota, QuotaScope};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{sleep, sleep_until, timeout};

/// How long a client waits for an answer before it sends its request again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Shortest and longest wait before it does, microseconds.
const RETRY_US: (u64, u64) = (200_000, 800_000);

/// Starts a client for every request.
pub(super) fn send_all(stage: &Arc<Stage>) {
    for nth in 0..stage.scenario.requests.len() {
        let request = stage.scenario.requests[nth].clone();
        let door = Arc::new(Mutex::new(()));
        for fault in &stage.scenario.faults {
            if let Fault::DuplicateRequest { request: id, after, other_body: false } = fault
                && *id == request.id
            {
                let (stage, request, door) = (Arc::clone(stage), request.clone(), Arc::clone(&door));
                let at = Duration::from_millis(request.at + after);
                tokio::spawn(async move {
                    sleep_until(stage.origin + at).await;
                    let answer = stage.try_once(&request, &door).await;
                    stage.heard(&request, &answer);
                });
            }
        }
        let stage = Arc::clone(stage);
        tokio::spawn(async move { stage.insist(nth, &request, &door).await });
    }
}

impl Stage {
    /// Sends a request until it has an answer.
    async fn insist(self: &Arc<Self>, nth: usize, request: &Request, door: &Arc<Mutex<()>>) {
        sleep_until(self.origin + Duration::from_millis(request.at)).await;
        let gone = self.scenario.faults.iter().find_map(|fault| match fault {
            Fault::ClientGone { request: id, turns } if *id == request.id => Some(*turns),
            _ => None,
        });
        let mut hangs_up_after = gone;
        loop {
            let answer = match hangs_up_after.take() {
                Some(turns) => self.hang_up(request, door, turns).await,
                None => timeout(PATIENCE, self.try_once(request, door)).await.unwrap_or(Answer::Unavailable),
            };
            self.heard(request, &answer);
            if answer != Answer::Unavailable {
                self.lock().answered[nth] = true;
                return;
            }
            let drawn = self.lock().draws.next("client_retry", request.id.into());
            sleep(Duration::from_micros(within(drawn, RETRY_US.0, RETRY_US.1))).await;
            self.note(Sometimes::RequestRetried);
        }
    }

    /// Hangs up after so many turns of the others.
    async fn hang_up(self: &Arc<Self>, request: &Request, door: &Arc<Mutex<()>>, turns: u64) -> Answer {
        let patience = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            answer = self.try_once(request, door) => answer,
            () = patience => {
                self.note(Sometimes::ClientGone);
                Answer::Unavailable
            }
        }
    }

    fn heard(&self, request: &Request, answer: &Answer) {
        let id = request.id;
        self.line("answer", &Entity::Instance(request.instance), format_args!("r{id} {answer:?}"));
        match answer {
            Answer::Accepted(Some(position)) => {
                let durable = self.life().store().durable().get();
                self.check(|checks, now| {
                    if *position > durable {
                        let detail = format!("r{id} was acknowledged at p{position}, durable is p{durable}");
                        checks.broken("I6", now, detail);
                    }
                    checks.acknowledged(now, names::request(id), *position);
                });
            }
            Answer::Refused(_) => self.check(|checks, now| checks.refused(now, names::request(id), false)),
            Answer::Accepted(None) | Answer::Unavailable => {}
        }
    }

    /// One attempt: waits for its turn, looks whether it was recorded, and asks.
    async fn try_once(self: &Arc<Self>, request: &Request, door: &Arc<Mutex<()>>) -> Answer {
        self.let_others_go_first("client_turns", request.id.into()).await;
        let turn = Arc::clone(door).lock_owned().await;
        let life = self.life();
        let Some(up) = life.up() else { return Answer::Unavailable };
        let target = eventlog::Log::durable(life.log());
        if up.projections.wait_for(target).await.is_err() || life.is_dead() {
            return Answer::Unavailable;
        }
        if let Some(position) = self.recorded(request.id) {
            self.note(Sometimes::DuplicateAnswered);
            return Answer::Accepted(Some(position));
        }
        let (stage, request, control) = (Arc::clone(self), request.clone(), up.control.clone());
        // It goes on when its client hangs up, and keeps its repeats out until its outcome is known, or its
        // life is over.
        let asked = tokio::spawn(async move {
            let _turn = turn;
            tokio::select! {
                biased;
                () = life.died() => Answer::Unavailable,
                answer = stage.ask(&control, &request) => answer,
            }
        });
        asked.await.unwrap_or(Answer::Unavailable)
    }

    /// Where the durable log says that a request was carried out.
    fn recorded(&self, id: u32) -> Option<u64> {
        let durable = eventlog::Log::durable(self.life().log()).get();
        self.written(id).filter(|position| *position <= durable)
    }

    /// Where a request was written, durable or not.
    fn written(&self, id: u32) -> Option<u64> {
        self.lock().written.get(&names::request(id)).copied()
    }

    async fn ask(self: &Arc<Self>, control: &ControlPlane, request: &Request) -> Answer {
        let outcome = match request.verb.about() {
            About::Instance => self.ask_instance(control, request).await,
            About::Sled(sled) => self.ask_sled(control, request, sled).await,
            About::Project => self.ask_project(control, request).await,
            About::System => self.ask_system(control, request).await,
        };
        match outcome {
            Ok(()) => Answer::Accepted(self.written(request.id)),
            Err(CommandError::Rejected(rejected)) => Answer::Refused(rejected.to_string()),
            Err(_) => Answer::Unavailable,
        }
    }

    async fn ask_instance(&self, control: &ControlPlane, request: &Request) -> Result<(), CommandError> {
        let (id, context) = (names::instance(request.instance), context(request.id));
        if let Verb::Create { start, ncpus } = request.verb {
            let new = NewInstance { spec: self.spec(request.instance, ncpus), start };
            return named(id.uuid(), control.create_instance(new, context)).await.map(drop);
        }
        let ask = match request.verb {
            Verb::Start => Ask::Start,
            Verb::Stop => Ask::Stop,
            Verb::Reboot => Ask::Reboot,
            Verb::Migrate { to } => Ask::Migrate { to: to.map(names::sled) },
            Verb::CancelMigration => Ask::CancelMigration,
            Verb::CancelSaga | Verb::PauseSaga | Verb::ResumeSaga | Verb::RetrySaga => {
                let state = control.instance(id).await?;
                let saga = state.saga.as_ref().map_or(names::saga(request.instance, 0), |saga| saga.id);
                match request.verb {
                    Verb::PauseSaga => Ask::PauseSaga { saga },
                    Verb::ResumeSaga => Ask::ResumeSaga { saga },
                    Verb::RetrySaga => Ask::RetrySaga { saga },
                    _ => Ask::CancelSaga { saga },
                }
            }
            // Nobody vouches here: between a look at the sleds and the command a restart may begin.
            Verb::ForceStop { .. } => {
                Ask::ForceStop { assert_dead: false, reason: "the scenario wants it so".to_owned() }
            }
            Verb::ForceStopOf { side, .. } => {
                let state = control.instance(id).await?;
                let vmm = if side == Side::Target { state.target } else { state.active };
                let vmm = vmm.unwrap_or_else(|| names::vmm(request.instance, 0));
                Ask::ForceStopOf { vmm, assert_dead: false, reason: "the scenario wants it so".to_owned() }
            }
            Verb::Resize { ncpus } => {
                let mut change = control.instance(id).await?.spec.changeable();
                change.size = size_of(ncpus);
                Ask::Update { change: Box::new(change) }
            }
            Verb::SetRestarts { on } => {
                let mut change = control.instance(id).await?.spec.changeable();
                change.auto_restart = Some(policy(on));
                Ask::Update { change: Box::new(change) }
            }
            _ => Ask::Delete,
        };
        control.ask(id, ask, context).await.map(drop)
    }

    fn spec(&self, instance: u16, ncpus: u16) -> InstanceSpec {
        let name = Entity::Instance(instance).to_string();
        InstanceSpec {
            project: names::project(),
            hostname: name.clone(),
            name,
            description: String::new(),
            size: size_of(ncpus),
            auto_restart: self.scenario.restart.is_none().then(|| policy(false)),
            cpu_platform: None,
            boot_disk: None,
            jumbo_frames: false,
        }
    }

    async fn ask_sled(
        &self,
        control: &ControlPlane,
        request: &Request,
        sled: u16,
    ) -> Result<(), CommandError> {
        let (reason, id) = (|| "the scenario wants it so".to_owned(), names::sled(sled));
        let command = match request.verb {
            Verb::Cordon { .. } => SledCommand::Cordon(reason()),
            Verb::Drain { .. } => SledCommand::Drain(reason()),
            Verb::Uncordon { .. } => SledCommand::Uncordon(reason()),
            _ => {
                // Who takes a sled out vouches for its being gone.
                control.sled(id).await?;
                self.switch_off(sled);
                SledCommand::Expunge(reason())
            }
        };
        control.ask_sled(id, command, context(request.id)).await.map(drop)
    }

    async fn ask_project(&self, control: &ControlPlane, request: &Request) -> Result<(), CommandError> {
        let instance = names::instance(request.instance);
        let ask = match request.verb {
            Verb::SetQuota { cpus, .. } => ProjectAsk::SetQuota { quota: Quota { cpus, memory: None } },
            Verb::CreateGroup { group, is_hard } => ProjectAsk::Group(GroupCommand::Create {
                group: names::group(group),
                name: format!("group-{group}"),
                description: String::new(),
                policy: if is_hard { GroupPolicy::Fail } else { GroupPolicy::Allow },
            }),
            Verb::JoinGroup { group } => {
                ProjectAsk::Group(GroupCommand::Join { group: names::group(group), instance })
            }
            Verb::LeaveGroup { group } => {
                ProjectAsk::Group(GroupCommand::Leave { group: names::group(group), instance })
            }
            Verb::DeleteGroup { group } => {
                ProjectAsk::Group(GroupCommand::Delete { group: names::group(group) })
            }
            other => {
                unreachable!("{} is not about a project", other.name());
            }
        };
        control.ask_project(Some(names::project()), ask, context(request.id)).await.map(drop)
    }

    async fn ask_system(&self, control: &ControlPlane, request: &Request) -> Result<(), CommandError> {
        let Verb::SetQuota { cpus, .. } = request.verb else { return Ok(()) };
        let quota = Quota { cpus, memory: None };
        control.set_quota(QuotaScope::Silo, quota, context(request.id)).await.map(drop)
    }
}
