//! What should be true outside, derived from state alone.
//!
//! Effects are never stored: after a crash the same state derives the same effects, and they are sent
//! again. Each is idempotent at its receiver by VMM id, or by `op` where repeating would act twice. An
//! effect stays derived until a report or an answer makes it untrue.

use crate::decide::Policy;
use crate::ids::{MigrationId, OpId, SagaId, SledId, VmmId};
use crate::instance::{Instance, SagaProgress};
use crate::migration::{Migration, Outcome, Side, SideState};
use crate::restart::restart_due;
use crate::saga::Step;
use crate::time::{Span, Timestamp};
use crate::vmm::{Vmm, VmmState};
use serde::{Deserialize, Serialize};

/// One wish about the outside; it is its own idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Make the VMM exist on its sled.
    Register {
        /// The VMM.
        vmm: VmmId,
        /// Its sled.
        sled: SledId,
    },
    /// Make its guest run.
    SetRunning {
        /// The VMM.
        vmm: VmmId,
        /// Its sled.
        sled: SledId,
    },
    /// Make its guest shut down, then the VMM end.
    Stop {
        /// The VMM.
        vmm: VmmId,
        /// Its sled.
        sled: SledId,
        /// Makes repeats act once.
        op: OpId,
    },
    /// Make its guest reboot, once.
    Reboot {
        /// The VMM.
        vmm: VmmId,
        /// Its sled.
        sled: SledId,
        /// Makes repeats act once.
        op: OpId,
    },
    /// Make it take the guest over from the migration's source.
    MigrationTarget {
        /// The target VMM.
        vmm: VmmId,
        /// Its sled.
        sled: SledId,
        /// The migration.
        migration: MigrationId,
    },
    /// Make its side of the migration fail, unless it has completed.
    MigrationCancel {
        /// The VMM, on either side.
        vmm: VmmId,
        /// Its sled.
        sled: SledId,
        /// The migration.
        migration: MigrationId,
    },
    /// Learn its state.
    Ask {
        /// The VMM.
        vmm: VmmId,
        /// Its sled.
        sled: SledId,
    },
    /// Make it not exist on its sled, now.
    Unregister {
        /// The VMM.
        vmm: VmmId,
        /// Its sled.
        sled: SledId,
    },
}

/// What a deadline ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadlineKind {
    /// The saga has taken too long.
    Saga(SagaId),
    /// The migration has taken too long.
    Migration(MigrationId),
    /// The target has been asked for long enough for the guest of a source that failed.
    Undecided(MigrationId),
    /// The restart policy's next attempt is due.
    Restart,
}

/// A bound on something under way, as a start and a duration: a wall clock that jumps moves it by no more
/// than the duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// What it ends.
    pub kind: DeadlineKind,
    /// When it began to count.
    pub start: Timestamp,
    /// How long from there.
    pub span: Span,
}

impl Effect {
    /// The VMM it is about.
    pub const fn vmm(self) -> VmmId {
        match self {
            Self::Register { vmm, .. }
            | Self::SetRunning { vmm, .. }
            | Self::Stop { vmm, .. }
            | Self::Reboot { vmm, .. }
            | Self::MigrationTarget { vmm, .. }
            | Self::MigrationCancel { vmm, .. }
            | Self::Ask { vmm, .. }
            | Self::Unregister { vmm, .. } => vmm,
        }
    }

    /// The sled it is sent to.
    pub const fn sled(self) -> SledId {
        match self {
            Self::Register { sled, .. }
            | Self::SetRunning { sled, .. }
            | Self::Stop { sled, .. }
            | Self::Reboot { sled, .. }
            | Self::MigrationTarget { sled, .. }
            | Self::MigrationCancel { sled, .. }
            | Self::Ask { sled, .. }
            | Self::Unregister { sled, .. } => sled,
        }
    }

    /// What people and the envelope call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register { .. } => "register",
            Self::SetRunning { .. } => "set_running",
            Self::Stop { .. } => "stop",
            Self::Reboot { .. } => "reboot",
            Self::MigrationTarget { .. } => "migration_target",
            Self::MigrationCancel { .. } => "migration_cancel",
            Self::Ask { .. } => "ask",
            Self::Unregister { .. } => "unregister",
        }
    }
}

/// Everything that should be true outside and is not known to be, in a fixed order.
pub fn effects(state: &Instance) -> Vec<Effect> {
    let mut effects = Vec::new();
    for vmm in state.vmms.values().filter(|vmm| vmm.may_be_on_sled()) {
        effects.extend(effect_for(state, vmm));
    }
    effects
}

/// What tells the order to stop an abandoned VMM from the one that told it to run, which goes by the VMM's own
/// id. Wide, so that it does not lead to a neighbour where ids are counted; the bits of a UUID's version stay.
const ABANDON_TAG: u128 = 0x6162_616e_646f;

/// The order that tells an abandoned VMM to stop: one per VMM.
const fn abandoning_stop(vmm: VmmId) -> OpId {
    OpId::new(uuid::Uuid::from_u128(vmm.uuid().as_u128() ^ ABANDON_TAG))
}

/// At most one effect per VMM at a time: a stop makes starting it untrue, an end makes stopping it untrue.
fn effect_for(state: &Instance, vmm: &Vmm) -> Option<Effect> {
    let (id, sled) = (vmm.id, vmm.sled);
    if !state.refers_to(id) {
        // Given up, or replaced: it is told to end, and reaped when its sled confirms. A live one may hold
        // a guest that deserves its shutdown.
        return Some(if vmm.state.is_destroyable() {
            Effect::Unregister { vmm: id, sled }
        } else {
            Effect::Stop { vmm: id, sled, op: abandoning_stop(id) }
        });
    }
    if let Some(migration) = state.linked_migration()
        && migration_owns(state, migration, vmm)
    {
        return migration_effect(state, migration, vmm);
    }
    match (vmm.state, state.stop) {
        (VmmState::Starting | VmmState::Running | VmmState::Rebooting, Some(stop))
            if vmm.run_may_be_sent && state.active == Some(id) =>
        {
            return Some(Effect::Stop { vmm: id, sled, op: stop.op });
        }
        (VmmState::Running, None) if state.active == Some(id) => {
            return state.reboot.map(|order| Effect::Reboot { vmm: id, sled, op: order.op });
        }
        _ => {}
    }
    let saga = unpaused(state).filter(|saga| saga.vmm == id)?;
    match (saga.step, vmm.state) {
        (Step::Register, VmmState::Creating) => Some(Effect::Register { vmm: id, sled }),
        (Step::SetRunning, VmmState::Starting) => Some(Effect::SetRunning { vmm: id, sled }),
        _ => None,
    }
}

/// The saga under way, unless it is held: then nothing is sent for it.
fn unpaused(state: &Instance) -> Option<&SagaProgress> {
    state.saga.as_ref().filter(|saga| saga.pause.is_none())
}

/// Whether what the VMM is told is a matter of the migration: both of its VMMs, except the target once the
/// guest is in it.
fn migration_owns(state: &Instance, migration: &Migration, vmm: &Vmm) -> bool {
    let takes_part = migration.source.vmm == vmm.id || migration.target.vmm == vmm.id;
    let holds_guest = migration.target.vmm == vmm.id && state.active == Some(vmm.id);
    takes_part && !holds_guest
}

fn migration_effect(state: &Instance, migration: &Migration, vmm: &Vmm) -> Option<Effect> {
    let (id, sled) = (vmm.id, vmm.sled);
    let is_target = migration.target.vmm == id;
    let side = if is_target { migration.target } else { migration.source };
    match state.outcome_of(migration) {
        // Nobody but the target knows whether the guest arrived.
        Outcome::Undecided => is_target.then_some(Effect::Ask { vmm: id, sled }),
        // A source that has not spoken of the migration may never have heard of it, and could not give it up:
        // its guest is told to stop, which ends the migration too if it had joined.
        Outcome::UnderWay
            if let Some(stop) = state.stop.filter(|_| !is_target && has_not_joined(side, vmm)) =>
        {
            Some(Effect::Stop { vmm: id, sled, op: stop.op })
        }
        // A stop cannot be told to a guest that is between two VMMs: the migration is called off first.
        Outcome::UnderWay if migration.cancelled.is_some() || state.stop.is_some() => (!side
            .state
            .is_terminal()
            && vmm.run_may_be_sent)
            .then_some(Effect::MigrationCancel { vmm: id, sled, migration: migration.id }),
        Outcome::UnderWay if is_target => {
            let saga = unpaused(state).filter(|saga| saga.vmm == id)?;
            match (saga.step, vmm.state) {
                (Step::Register, VmmState::Creating) => Some(Effect::Register { vmm: id, sled }),
                (Step::MigrationTarget, VmmState::Migrating) => {
                    Some(Effect::MigrationTarget { vmm: id, sled, migration: migration.id })
                }
                _ => None,
            }
        }
        Outcome::UnderWay | Outcome::HandedOver | Outcome::Succeeded | Outcome::Lost | Outcome::Failed => {
            None
        }
    }
}

/// Whether a source has said nothing of the migration, and runs its guest.
fn has_not_joined(side: Side, source: &Vmm) -> bool {
    side.state == SideState::Pending && matches!(source.state, VmmState::Running | VmmState::Rebooting)
}

/// Every deadline that is running.
pub fn deadlines(state: &Instance, policy: &Policy) -> Vec<Deadline> {
    let saga = unpaused(state).map(|saga| Deadline {
        kind: DeadlineKind::Saga(saga.id),
        start: saga.deadline_from,
        span: saga.deadline,
    });
    let restart = restart_due(state, policy).map(|due| Deadline {
        kind: DeadlineKind::Restart,
        start: due.start,
        span: due.wait,
    });
    [saga, migration_deadline(state), restart].into_iter().flatten().collect()
}

/// While its saga is under way, a migration is bounded by the saga's deadline.
fn migration_deadline(state: &Instance) -> Option<Deadline> {
    let migration = state.linked_migration().filter(|_| state.saga.is_none())?;
    let (kind, start) = match (state.outcome_of(migration), migration.undecided_since) {
        (Outcome::UnderWay, _) if migration.cancelled.is_none() => {
            (DeadlineKind::Migration(migration.id), migration.deadline_from)
        }
        (Outcome::Undecided, Some(since)) => (DeadlineKind::Undecided(migration.id), since),
        _ => return None,
    };
    Some(Deadline { kind, start, span: migration.deadline })
}
