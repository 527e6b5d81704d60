//! The update: makes the instance match what its VMMs and its migration have already done
//! (`docs/lifecycle.md`, the update).
//!
//! A pure function of state. There is no lock to lose and no window: it is evaluated in every decision.
//! While a saga is in a step that can fail, facts are folded at once and the update waits for its end.

use crate::event::Update;
use crate::ids::VmmId;
use crate::instance::{Instance, Intent};
use crate::migration::{Migration, Outcome, SideState};
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
    match state.linked_migration() {
        Some(migration) if !follow_migration(state, migration, &mut after) => return None,
        Some(_) | None => {}
    }
    if after.migration.is_none() {
        miss_guest(state, &mut after);
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
    match state.outcome_of(migration) {
        Outcome::Undecided if migration.is_given_up => {
            after.target = None;
            after.migration = None;
            after.closed = Some(migration.id);
        }
        Outcome::UnderWay | Outcome::Undecided => return false,
        Outcome::HandedOver => after.active = Some(migration.target.vmm),
        Outcome::Succeeded => {
            after.active = Some(migration.target.vmm);
            after.target = None;
            after.migration = None;
        }
        Outcome::Lost => {
            after.failed = Some((migration.target.vmm, end_of(state, migration.target.vmm)));
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

/// A source that says late that the guest had left, when its migration has been cleared as failed: the guest
/// is in neither.
fn miss_guest(state: &Instance, after: &mut Update) {
    let has_left = |migration: &&Migration| {
        after.active == Some(migration.source.vmm) && migration.source.state == SideState::Completed
    };
    if let Some(migration) = state.migrations.values().find(has_left) {
        after.failed = Some((migration.target.vmm, end_of(state, migration.target.vmm)));
        after.active = None;
    }
}

/// Why a target that the guest had gone to is no more.
fn end_of(state: &Instance, vmm: VmmId) -> FailureReason {
    state.vmms.get(&vmm).and_then(|vmm| vmm.failure).unwrap_or(FailureReason::FromSled)
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
