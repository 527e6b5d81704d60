//! The update: makes the instance match what its VMMs and its migration have already done
//! (`docs/lifecycle.md`, the update).
//!
//! A pure function of state. There is no lock to lose and no window: it is evaluated in every decision.
//! While a saga is in a step that can fail, facts are folded at once and the update waits for its end.

use crate::event::Update;
use crate::ids::VmmId;
use crate::instance::{Instance, Intent};
use crate::migration::{Migration, Outcome};
use crate::vmm::{FailureReason, Vmm, VmmState};

/// The update that is due; none if the instance matches.
pub fn update(state: &Instance) -> Option<Update> {
    if state.saga.is_some() || state.deleted.is_some() {
        return None;
    }
    let before = Update {
        active: state.active,
        target: state.target,
        migration: state.migration,
        intent: state.intent,
        network: state.network.sled,
        failed: None,
        closed: None,
    };
    let mut after = before;
    let linked = state.migration.map(|id| &state.migrations[&id]);
    if let Some(migration) = linked
        && !follow_migration(state, migration, &mut after)
    {
        return None;
    }
    end_active(state, &mut after);
    if after.migration.is_none() && after.target.is_some_and(|id| state.vmms[&id].state.is_destroyable()) {
        after.target = None;
    }
    after.network = after.active.map(|id| state.vmms[&id].sled);
    (after != before).then_some(after)
}

/// Moves the slots as the migration's outcome says. Answers false if nothing may be decided yet.
fn follow_migration(state: &Instance, migration: &Migration, after: &mut Update) -> bool {
    let source = state.vmms.get(&migration.source.vmm);
    let target = state.vmms.get(&migration.target.vmm);
    match migration.outcome(source, target) {
        Outcome::UnderWay | Outcome::Undecided => return false,
        Outcome::HandedOver => after.active = Some(migration.target.vmm),
        Outcome::Succeeded => {
            after.active = Some(migration.target.vmm);
            after.target = None;
            after.migration = None;
        }
        Outcome::Lost => {
            let reason = target.and_then(|vmm| vmm.failure).unwrap_or(FailureReason::FromSled);
            after.failed = Some((migration.target.vmm, reason));
            after.active = None;
            after.target = None;
            after.migration = None;
        }
        Outcome::Failed => {
            after.target = None;
            after.migration = None;
            after.closed = (!migration.target.state.is_terminal()).then_some(migration.id);
        }
    }
    true
}

/// Unlinks an active VMM that has ended, and says what that makes of the instance.
fn end_active(state: &Instance, after: &mut Update) {
    let Some(active) = after.active.map(|id: VmmId| -> &Vmm { &state.vmms[&id] }) else {
        return;
    };
    match active.state {
        VmmState::Destroyed => {
            after.active = None;
            if after.intent == Intent::Running {
                after.intent = Intent::GuestShutdown;
            }
        }
        VmmState::Failed => {
            after.active = None;
            after.failed = Some((active.id, active.failure.unwrap_or(FailureReason::FromSled)));
        }
        VmmState::SagaUnwound => after.active = None,
        VmmState::Creating
        | VmmState::Starting
        | VmmState::Migrating
        | VmmState::Running
        | VmmState::Rebooting
        | VmmState::Stopping
        | VmmState::Stopped => {}
    }
}
