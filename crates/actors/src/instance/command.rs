//! Commands: what is asked, what is minted and granted for it, and when it is answered.

use super::shell::{Given, NotDone, Shell, Waiter, command_error};
use super::{Answer, InstanceMsg};
use crate::answer::{CommandError, RequestContext, SledFailure};
use crate::ledger::GrantAsk;
use journal::Context;
use lifecycle::input::{Command, EffectResult, Input, MigrateGrant, Refusal, StartGrant};
use lifecycle::{
    Effect, InstanceSpec, MigrationId, OpId, Purpose, Rejected, RoomWanted, SagaId, Shortage, SledId,
    SpecChange, VmmId, effects,
};
use ractor::ActorProcessingErr;

/// What a client asks of an instance. Ids and grants are added by the shell.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Create it, and start it if so wished.
    Create {
        /// What the user configured.
        spec: Box<InstanceSpec>,
        /// Whether to start it.
        start: bool,
    },
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Reboot it.
    Reboot,
    /// Delete it.
    Delete,
    /// Move its guest to another sled.
    Migrate {
        /// The sled, if one is named.
        to: Option<SledId>,
    },
    /// Give up the migration under way.
    CancelMigration,
    /// Take back the saga under way.
    CancelSaga {
        /// The saga.
        saga: SagaId,
    },
    /// Hold the saga under way at its step.
    PauseSaga {
        /// The saga.
        saga: SagaId,
    },
    /// Let the saga that is paused go on.
    ResumeSaga {
        /// The saga.
        saga: SagaId,
    },
    /// Send what the saga under way waits for at once; resumes it if it is paused.
    RetrySaga {
        /// The saga.
        saga: SagaId,
    },
    /// Fail its VMMs, whatever they do.
    ForceStop {
        /// Whether the operator vouches for their being dead.
        assert_dead: bool,
        /// Why.
        reason: String,
    },
    /// The same for the one VMM that was looked at; refused if the instance does not have it any more.
    ForceStopOf {
        /// The VMM.
        vmm: VmmId,
        /// Whether the operator vouches for its being dead.
        assert_dead: bool,
        /// Why.
        reason: String,
    },
    /// Change its configuration.
    Update {
        /// Everything that may change, as it shall be.
        change: Box<SpecChange>,
    },
}

impl Ask {
    /// What people call it.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reboot => "reboot",
            Self::Delete => "delete",
            Self::Migrate { .. } => "migrate",
            Self::CancelMigration => "cancel migration",
            Self::CancelSaga { .. } => "cancel saga",
            Self::PauseSaga { .. } => "pause saga",
            Self::ResumeSaga { .. } => "resume saga",
            Self::RetrySaga { .. } => "retry saga",
            Self::ForceStop { .. } | Self::ForceStopOf { .. } => "force-stop",
            Self::Update { .. } => "update",
        }
    }
}

impl Shell {
    pub(super) async fn on_command(
        &mut self,
        ask: Ask,
        context: &RequestContext,
        reply: Waiter,
    ) -> Result<(), ActorProcessingErr> {
        let context = context.recorded();
        let op = OpId::new(self.env.ids.uuid());
        let given = match ask {
            Ask::Create { spec, start } => self.create(*spec, start, context).await,
            Ask::Start => self.start(context).await,
            Ask::Stop => self.give(Input::Command(Command::Stop { op }), context).await,
            Ask::Reboot => self.give(Input::Command(Command::Reboot { op }), context).await,
            Ask::Delete => self.give(Input::Command(Command::Delete), context).await,
            Ask::Migrate { to } => self.migrate(to, context).await,
            Ask::CancelMigration => self.give(Input::Command(Command::CancelMigration), context).await,
            Ask::CancelSaga { saga } => {
                self.give(Input::Command(Command::CancelSaga { saga }), context).await
            }
            Ask::PauseSaga { saga } => self.give(Input::Command(Command::PauseSaga { saga }), context).await,
            Ask::ResumeSaga { saga } => {
                self.give(Input::Command(Command::ResumeSaga { saga }), context).await
            }
            Ask::RetrySaga { saga } => self.retry(saga, context).await,
            Ask::ForceStop { assert_dead, reason } => {
                self.give(Input::Command(Command::ForceStop { assert_dead, reason }), context).await
            }
            Ask::ForceStopOf { vmm, assert_dead, reason } => {
                let command = Command::ForceStopOf { vmm, assert_dead, reason };
                self.give(Input::Command(command), context).await
            }
            Ask::Update { change } => self.give(Input::Command(Command::Update { change }), context).await,
        };
        match &given {
            Ok(_) if self.is_wished(op) => self.await_sled(op, reply),
            // A caller that hung up finds the outcome by looking.
            Ok(_) => drop(reply.send(Ok(self.accepted()))),
            Err(not_done) => drop(reply.send(Err(command_error(not_done)))),
        }
        self.go_on(given)
    }

    async fn create(&mut self, spec: InstanceSpec, start: bool, context: Context) -> Result<Given, NotDone> {
        if self.state.is_some() {
            return Err(Rejected::IdTaken(self.id).into());
        }
        spec.validate().map_err(Rejected::from)?;
        let granted = self.ledger.grant_instance(self.id, spec.project, spec.name.clone()).await;
        let address = granted.map_err(|_| self.ledger_gone())??;
        let wanted =
            RoomWanted { size: spec.size, purpose: Purpose::Start { cpu_family: spec.cpu_platform.clone() } };
        let start = if start { Some(self.grant_start(wanted).await?) } else { None };
        let room = start.as_ref().and_then(|grant| grant.as_ref().ok()).map(|grant| grant.vmm);
        let command = Command::Create { id: self.id, spec: Box::new(spec), address, start };
        let given = self.give(Input::Command(command), context).await;
        if nothing_was_written(&given) {
            if let Some(vmm) = room {
                self.ledger.drop_room(vmm);
            }
            self.ledger.drop_instance(self.id);
        }
        given
    }

    async fn start(&mut self, context: Context) -> Result<Given, NotDone> {
        let asked = self.give(Input::Command(Command::Start { grant: None }), context.clone()).await?;
        let Given::AskForRoom(wanted) = asked else {
            return Ok(asked);
        };
        let grant = self.grant_start(wanted).await?.map_err(Rejected::Short)?;
        let given = self.give(Input::Command(Command::Start { grant: Some(grant) }), context).await;
        if nothing_was_written(&given) {
            self.ledger.drop_room(grant.vmm);
        }
        given
    }

    async fn migrate(&mut self, to: Option<SledId>, context: Context) -> Result<Given, NotDone> {
        let asked = self.give(Input::Command(Command::Migrate { grant: None }), context.clone()).await?;
        let Given::AskForRoom(wanted) = asked else {
            return Ok(asked);
        };
        let (saga, migration) = (SagaId::new(self.env.ids.uuid()), MigrationId::new(self.env.ids.uuid()));
        let (vmm, sled) = self.grant_room(wanted, to).await?;
        let sled = sled.map_err(Rejected::Short)?;
        let grant = MigrateGrant { saga, migration, vmm, sled };
        let given = self.give(Input::Command(Command::Migrate { grant: Some(grant) }), context).await;
        if nothing_was_written(&given) {
            self.ledger.drop_room(vmm);
        }
        given
    }

    /// Recorded first. A crash behind that loses nothing: whoever activates sends everything at once.
    async fn retry(&mut self, saga: SagaId, context: Context) -> Result<Given, NotDone> {
        let given = self.give(Input::Command(Command::RetrySaga { saga }), context).await?;
        self.send_all_now();
        Ok(given)
    }

    /// The restart policy's attempt: with the grant, or with what was short, which counts as one too.
    pub(super) async fn restart(&mut self, wanted: RoomWanted, context: Context) -> Result<Given, NotDone> {
        let grant = self.grant_start(wanted).await?;
        let vmm = grant.as_ref().ok().map(|grant| grant.vmm);
        let given = self.give(Input::Restart(grant), context).await;
        if let Some(vmm) = vmm.filter(|_| nothing_was_written(&given)) {
            self.ledger.drop_room(vmm);
        }
        given
    }

    async fn grant_start(&self, wanted: RoomWanted) -> Result<Result<StartGrant, Shortage>, NotDone> {
        let saga = SagaId::new(self.env.ids.uuid());
        let (vmm, sled) = self.grant_room(wanted, None).await?;
        Ok(sled.map(|sled| StartGrant { saga, vmm, sled }))
    }

    /// Room for a VMM whose id is minted for it.
    async fn grant_room(
        &self,
        wanted: RoomWanted,
        to: Option<SledId>,
    ) -> Result<(VmmId, Result<SledId, Shortage>), NotDone> {
        let vmm = VmmId::new(self.env.ids.uuid());
        let owner = (self.writer.epoch(), self.writer.position());
        let ask = GrantAsk { instance: self.id, vmm, wanted, to, dice: self.env.ids.dice() };
        let granted = self.ledger.grant_room(ask, owner).await;
        Ok((vmm, granted.map_err(|_| self.ledger_gone())?))
    }

    fn ledger_gone(&self) -> NotDone {
        self.env.fatal.raise("the ledger has failed");
        NotDone::Append(crate::writer::AppendError::Refused(eventlog::Unavailable::Closed))
    }

    /// Whether a sled is being asked for this order.
    fn is_wished(&self, op: OpId) -> bool {
        self.state
            .as_ref()
            .is_some_and(|state| effects(state).into_iter().any(|effect| op_of(effect) == Some(op)))
    }

    fn await_sled(&mut self, op: OpId, reply: Waiter) {
        self.waiters.entry(op).or_default().push(reply);
        let me = self.me.clone();
        me.send_after(self.env.limits.order_answer, move || InstanceMsg::WaitIsOver(op));
    }

    /// Answers those who wait for an order that is not wished any more: a report overtook the answer.
    pub(super) fn answer_overtaken(&mut self) {
        let waiting: Vec<OpId> = self.waiters.keys().copied().collect();
        for op in waiting {
            if !self.is_wished(op) {
                self.answer(op, &Ok(()));
            }
        }
    }

    /// Takes out those who wait for the order behind an effect.
    pub(super) fn who_waits_for(&mut self, effect: Effect) -> Vec<Waiter> {
        op_of(effect).and_then(|op| self.waiters.remove(&op)).unwrap_or_default()
    }

    /// Answers those who waited for an order with what its sled said of it.
    pub(super) fn answer_by(&self, waiting: Vec<Waiter>, answer: Answer) {
        let not_confirmed = |failure, reason: &str| {
            Err(CommandError::NotConfirmed { failure, reason: format!("the sled {reason}") })
        };
        let result = match answer {
            Answer::Definite(EffectResult::Done(_)) => Ok(()),
            Answer::Definite(EffectResult::Refused(Refusal::NoSuchVmm)) => Err(CommandError::VmmMissing),
            Answer::Definite(EffectResult::Refused(refusal)) => {
                not_confirmed(SledFailure::Server, &format!("refused for now ({refusal:?})"))
            }
            Answer::Unknown(SledFailure::Timeout) => {
                not_confirmed(SledFailure::Timeout, "did not answer in time")
            }
            Answer::Unknown(SledFailure::Transport) => {
                not_confirmed(SledFailure::Transport, "cannot be reached")
            }
            Answer::Unknown(SledFailure::NotSent) => {
                not_confirmed(SledFailure::NotSent, "was not asked, because it does not answer")
            }
            Answer::Unknown(SledFailure::Busy) => not_confirmed(SledFailure::Busy, "is busy"),
            Answer::Unknown(SledFailure::Server) => not_confirmed(SledFailure::Server, "failed"),
        };
        self.answer_all(waiting, &result);
    }

    pub(super) fn on_wait_is_over(&mut self, op: OpId) {
        let reason = "the sled has not answered yet".to_owned();
        self.answer(op, &Err(CommandError::NotConfirmed { failure: SledFailure::Timeout, reason }));
    }

    fn answer(&mut self, op: OpId, result: &Result<(), CommandError>) {
        let waiting = self.waiters.remove(&op).unwrap_or_default();
        self.answer_all(waiting, result);
    }

    fn answer_all(&self, waiting: Vec<Waiter>, result: &Result<(), CommandError>) {
        for waiter in waiting {
            let answer = result.clone().map(|()| self.accepted());
            // A caller that hung up finds the outcome by looking.
            let _ = waiter.send(answer);
        }
    }
}

/// A grant may be taken back only if it is certain that the log does not hold it. What is uncertain is
/// settled by the next incarnation's barrier.
fn nothing_was_written(given: &Result<Given, NotDone>) -> bool {
    match given {
        Ok(given) => *given != Given::Written,
        Err(NotDone::Rejected(_)) => true,
        Err(NotDone::Append(error)) => !error.ends_owner(),
    }
}

fn op_of(effect: Effect) -> Option<OpId> {
    match effect {
        Effect::Stop { op, .. } | Effect::Reboot { op, .. } => Some(op),
        Effect::Register { .. }
        | Effect::SetRunning { .. }
        | Effect::MigrationTarget { .. }
        | Effect::MigrationCancel { .. }
        | Effect::Ask { .. }
        | Effect::Unregister { .. } => None,
    }
}
