//! What should be true outside, derived from state alone.
//!
//! Effects are never stored: after a crash the same state derives the same effects, and they are sent
//! again. Each is idempotent at its receiver by VMM id, or by `op` where repeating would act twice. An
//! effect stays derived until a report or an answer makes it untrue.

use crate::ids::{OpId, SagaId, SledId, VmmId};
use crate::instance::Instance;
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

/// The order that tells an abandoned VMM to stop: one per VMM, and unlike the one that told it to run, which
/// goes by the VMM's own id.
const fn abandoning_stop(vmm: VmmId) -> OpId {
    OpId::new(uuid::Uuid::from_u128(vmm.uuid().as_u128() ^ 1))
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
    let saga = state.saga.as_ref().filter(|saga| saga.vmm == id)?;
    match (saga.step, vmm.state) {
        (Step::Register, VmmState::Creating) => Some(Effect::Register { vmm: id, sled }),
        (Step::SetRunning, VmmState::Starting) => Some(Effect::SetRunning { vmm: id, sled }),
        _ => None,
    }
}

/// Every deadline that is running.
pub fn deadlines(state: &Instance) -> Vec<Deadline> {
    state
        .saga
        .iter()
        .map(|saga| Deadline { kind: DeadlineKind::Saga(saga.id), start: saga.started, span: saga.deadline })
        .collect()
}
