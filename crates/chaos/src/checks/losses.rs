//! Which VMMs may be ended although their guests run: somebody asked for it, or the rules gave them up after
//! the wait that they owe.

use super::restarts::When;
use crate::scenario::Scenario;
use lifecycle::{FailureReason, Instance, InstanceEvent, MigrationId, VmmId};
use std::collections::{BTreeMap, BTreeSet};

/// See the module's head.
#[derive(Default)]
pub(crate) struct Losses {
    excused: BTreeSet<VmmId>,
    /// When the source of each migration was seen to have failed.
    undecided: BTreeMap<MigrationId, When>,
}

impl Losses {
    pub(super) fn is_excused(&self, vmm: VmmId) -> bool {
        self.excused.contains(&vmm)
    }

    /// An event is to be applied to the state.
    pub(super) fn event(
        &mut self,
        state: Option<&Instance>,
        event: &InstanceEvent,
        when: When,
        scenario: &Scenario,
    ) {
        let Some(state) = state else {
            return;
        };
        match event {
            InstanceEvent::StopRequested { .. }
            | InstanceEvent::ForceStopRequested { .. }
            | InstanceEvent::Deleted => self.excused.extend(state.vmms.keys()),
            InstanceEvent::VmmFailed {
                vmm,
                reason: FailureReason::StartTimeout | FailureReason::Operator,
            } => {
                self.excused.insert(*vmm);
            }
            InstanceEvent::MigrationGivenUp { migration } => {
                let wait = scenario.policy().migrate_deadline;
                let has_waited =
                    self.undecided.get(migration).is_some_and(|since| when.is_after(*since, wait));
                if let Some(given_up) = state.migrations.get(migration).filter(|_| has_waited) {
                    self.excused.insert(given_up.target.vmm);
                }
            }
            _ => {}
        }
    }

    /// The state after an event.
    pub(super) fn reached(&mut self, state: &Instance, when: When) {
        if let Some(migration) = state.linked_migration()
            && migration.undecided_since.is_some()
        {
            self.undecided.entry(migration.id).or_insert(when);
        }
    }
}
