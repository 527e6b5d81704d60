//! Which rare states an append meets.

use super::{World, names};
use crate::coverage::Sometimes;
use crate::faults::Phase;
use lifecycle::instance::{PauseCause, UnwindReason};
use lifecycle::migration::{CancelReason, Migration, Outcome, SideState};
use lifecycle::{EventMeta, Evidence, Instance, InstanceEvent, InstanceId, Intent, Origin, SagaKind, Step};

impl World {
    /// Notes what the events of an append, on top of the instance's state, amount to.
    pub(super) fn note_events(&mut self, id: InstanceId, events: &[InstanceEvent]) {
        let mut state = self.shell(id).state.clone();
        for event in events {
            let state_before = state.clone();
            self.note_event(state_before.as_ref(), event);
            let head = state.as_ref().map(|state| state.head);
            let meta = EventMeta {
                version: head.map_or(1, |head| head.version + 1),
                position: head.map_or(1, |head| head.position + 1),
                time: head.map_or_else(Default::default, |head| head.time),
            };
            super::planted::evolve(&mut state, event, meta, self.scenario.bug);
        }
        let begins = events.iter().find_map(|event| match event {
            InstanceEvent::StartBegan { .. } => Some(Sometimes::FenceWaited),
            InstanceEvent::MigrateBegan { .. } => Some(Sometimes::MigrateFenceWaited),
            _ => None,
        });
        let advances = events.iter().any(|event| matches!(event, InstanceEvent::SagaAdvanced { .. }));
        let waits = state.as_ref().is_some_and(|state| state.saga.is_some());
        if let (Some(begins), false, true) = (begins, advances, waits) {
            self.note(begins);
        }
    }

    fn note_event(&mut self, state: Option<&Instance>, event: &InstanceEvent) {
        match event {
            InstanceEvent::SagaUnwound { step, reason, .. } => {
                let kind = state.and_then(|state| state.saga.as_ref()).map(|saga| saga.kind);
                if is_held(state) {
                    self.note(Sometimes::PausedUnwound);
                }
                self.note_unwound(kind, *step, *reason);
            }
            InstanceEvent::Updated(update) => {
                if update.intent == Intent::GuestShutdown {
                    self.note(Sometimes::GuestEnded);
                }
                if let Some(migration) = state.and_then(Instance::linked_migration) {
                    let state = state.expect("it has a migration");
                    let is_cleared = update.migration.is_none();
                    self.note_migration(state, migration, is_cleared);
                }
            }
            InstanceEvent::VmmReported { vmm, .. } => {
                let is_asked = state.is_some_and(|state| is_undecided_target(state, *vmm));
                if is_asked {
                    self.note(Sometimes::UndecidedTargetSpoke);
                }
            }
            InstanceEvent::RestartTried { attempt } => {
                self.note(Sometimes::RestartMade);
                if *attempt > 1 {
                    self.note(Sometimes::RestartBackedOff);
                }
                if self.scenario.restart.is_some_and(|restart| restart.budget == *attempt) {
                    self.note(Sometimes::RestartBudgetSpent);
                }
            }
            InstanceEvent::StartNotPlaced { origin, short } => {
                self.note_shortage(short);
                if *origin == Origin::Automatic {
                    self.note(Sometimes::RestartNotPlaced);
                }
            }
            _ => self.note_plain(state, event),
        }
    }

    fn note_plain(&mut self, state: Option<&Instance>, event: &InstanceEvent) {
        let met = match event {
            InstanceEvent::StopWithdrawn { .. } => Sometimes::StopWithdrawn,
            InstanceEvent::SagaPaused { cause: PauseCause::Requested, .. } => Sometimes::SagaPaused,
            InstanceEvent::SagaPaused { .. } => Sometimes::PausedByFailures,
            InstanceEvent::SagaResumed { .. } => Sometimes::SagaResumed,
            InstanceEvent::SagaRetried { .. } => Sometimes::SagaRetried,
            InstanceEvent::SagaEnded { .. } if is_held(state) => Sometimes::PausedEnded,
            InstanceEvent::Archived(_) => Sometimes::Archived,
            InstanceEvent::MigrationCancelled { reason, .. } => match reason {
                CancelReason::Requested => Sometimes::CancelledByUser,
                CancelReason::Deadline => Sometimes::CancelledByDeadline,
                CancelReason::Refused => Sometimes::CancelledByRefusal,
            },
            InstanceEvent::MigrationGivenUp { .. } => Sometimes::UndecidedGivenUp,
            InstanceEvent::StopRequested { .. } if state.is_some_and(|state| state.migration.is_some()) => {
                Sometimes::CancelledByStop
            }
            InstanceEvent::ForceStopRequested { assert_dead: false, .. } => Sometimes::ForceStopped,
            InstanceEvent::ForceStopRequested { assert_dead: true, .. } => Sometimes::AssertedDead,
            InstanceEvent::Reconfigured { .. } => Sometimes::Reconfigured,
            InstanceEvent::VmmGone { evidence, .. } => match evidence {
                Evidence::SledRebooted => Sometimes::GoneByReboot,
                Evidence::AbsentFromInventory => Sometimes::AbsentByInventory,
                Evidence::SledExpunged => Sometimes::GoneByExpunge,
                _ => return,
            },
            _ => return,
        };
        self.note(met);
    }

    fn note_unwound(&mut self, kind: Option<SagaKind>, step: Step, reason: UnwindReason) {
        match (kind, step) {
            (Some(SagaKind::Migrate), Step::Fence) => self.note(Sometimes::MigrateUndoAtFence),
            (Some(SagaKind::Migrate), _) => self.note(Sometimes::MigrateUndoAtRegister),
            (_, Step::Fence) => self.note(Sometimes::UndoAtFence),
            (_, Step::Register) => self.note(Sometimes::UndoAtRegister),
            _ => {}
        }
        match (kind, reason) {
            (Some(SagaKind::Start), UnwindReason::StopRequested) => self.note(Sometimes::StopUnwoundStart),
            (_, UnwindReason::Cancelled) => self.note(Sometimes::SagaCancelled),
            _ => {}
        }
    }

    /// What an update says of the migration that is linked.
    fn note_migration(&mut self, state: &Instance, migration: &Migration, is_cleared: bool) {
        match state.outcome_of(migration) {
            Outcome::HandedOver => self.note(Sometimes::HandedOverSeen),
            Outcome::Succeeded if is_cleared => {
                self.note(Sometimes::MigrationSucceeded);
                if migration.source.state == SideState::Completed {
                    self.note(Sometimes::SourceFirst);
                } else {
                    self.note(Sometimes::TargetFirst);
                }
                if migration.undecided_since.is_some() {
                    self.note(Sometimes::UndecidedArrived);
                }
            }
            Outcome::Lost => self.note(Sometimes::GuestLost),
            Outcome::Failed if is_cleared => {
                let id = sled_protocol::MigrationId::from_uuid(migration.id.uuid());
                let phase = self.moves.get(&id).map(|seen| seen.phase);
                self.note(match phase {
                    None => Sometimes::FailedUnbegun,
                    Some(Phase::Begin) => Sometimes::FailedAtBegin,
                    Some(Phase::Copy) => Sometimes::FailedAtCopy,
                    Some(Phase::Pause) => Sometimes::FailedAtPause,
                    Some(Phase::Finish | Phase::HandedOver | Phase::Arrived) => Sometimes::FailedAtFinish,
                });
            }
            _ => {}
        }
    }

    /// A sled is taken out, maybe from under VMMs.
    pub(super) fn note_expunged(&mut self, sled: u16) {
        let id = names::sled(sled);
        let is_used = self.control().ledger.vmms_on(id).next().is_some();
        if is_used {
            self.note(Sometimes::ExpungedUnderVmm);
        }
    }
}

fn is_held(state: Option<&Instance>) -> bool {
    state.and_then(|state| state.saga.as_ref()).is_some_and(|saga| saga.pause.is_some())
}

fn is_undecided_target(state: &Instance, vmm: lifecycle::VmmId) -> bool {
    state.linked_migration().is_some_and(|migration| {
        migration.target.vmm == vmm && state.outcome_of(migration) == Outcome::Undecided
    })
}
