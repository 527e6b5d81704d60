//! What an instance can be told: commands, reports, outcomes of effects, evidence, deadlines.
//!
//! Everything unpredictable is a field here: ids are minted and capacity is granted before an input is
//! decided. The input is journaled with the events, so that history can be decided again.

use crate::effects::{DeadlineKind, Effect};
use crate::ids::{Generation, InstanceId, MigrationId, OpId, SagaId, SledId, VmmId};
use crate::migration::SideState;
use crate::rejected::Shortage;
use crate::spec::{Address, InstanceSpec};
use crate::vmm::{Evidence, VmmState};
use serde::{Deserialize, Serialize};

/// One input to `decide`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Somebody asks for something.
    Command(Command),
    /// A sled says what a VMM is doing.
    Report {
        /// The sled that speaks.
        sled: SledId,
        /// The VMM.
        vmm: VmmId,
        /// What it says.
        report: VmmReport,
    },
    /// A sled answered an effect for good.
    Outcome {
        /// The effect.
        effect: Effect,
        /// The answer.
        result: EffectResult,
    },
    /// A VMM is known to be gone from its sled.
    Gone {
        /// The VMM.
        vmm: VmmId,
        /// How that is known.
        evidence: Evidence,
    },
    /// A VMM is gone from its sled if it was registered by `asked_at`: an inventory does not list it, or its
    /// sled has booted.
    Absent {
        /// The VMM.
        vmm: VmmId,
        /// Durable log position when the inventory was asked for, or of the boot: it says nothing about a
        /// VMM that was not known to be registered by then.
        asked_at: u64,
        /// How that is known.
        evidence: Evidence,
    },
    /// A deadline has passed.
    Deadline(DeadlineKind),
    /// Look again: after activation, or because a reaper thinks that something is due.
    Reconsider,
}

/// Something that may be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Create the instance.
    Create {
        /// Its id.
        id: InstanceId,
        /// What the user configured.
        spec: Box<InstanceSpec>,
        /// Granted by the ledger, as are name and membership.
        address: Address,
        /// Start it too, if asked: with the grant, or with what was short.
        start: Option<Result<StartGrant, Shortage>>,
    },
    /// Start it. Without a grant the decision is to ask for one, or that none is needed.
    Start {
        /// Granted by the ledger.
        grant: Option<StartGrant>,
    },
    /// Stop it.
    Stop {
        /// Makes repeats act once.
        op: OpId,
    },
    /// Reboot it.
    Reboot {
        /// Makes repeats act once.
        op: OpId,
    },
    /// Delete it.
    Delete,
}

/// Leave to start a VMM: capacity that the ledger holds until this is journaled or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartGrant {
    /// The saga's id.
    pub saga: SagaId,
    /// The VMM's id.
    pub vmm: VmmId,
    /// The picked sled.
    pub sled: SledId,
}

/// Everything a sled says about one VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmReport {
    /// State of the VMM.
    pub state: VmmState,
    /// Generation of that state.
    pub generation: Generation,
    /// The migration into it, if there was one.
    pub migration_in: Option<SideReport>,
    /// The migration out of it, if there was one.
    pub migration_out: Option<SideReport>,
}

/// What a VMM says about its side of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideReport {
    /// Which migration.
    pub migration: MigrationId,
    /// State of this side.
    pub state: SideState,
    /// Generation of that state.
    pub generation: Generation,
}

/// A definite answer to an effect. An unknown outcome is not an answer: the effect is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectResult {
    /// Done; with the VMM's state if the sled said it.
    Done(Option<VmmReport>),
    /// Refused for good.
    Refused(Refusal),
}

/// Why a sled refuses for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It does not know the VMM.
    NoSuchVmm,
    /// It knows the VMM as dead.
    Tombstoned,
    /// The lease epoch is not its own.
    StaleEpoch,
    /// It has no room.
    NoRoom,
    /// The VMM belongs to another instance.
    OtherInstance,
    /// Not possible from the VMM's state.
    NotPossible,
    /// It cannot make sense of the request.
    Malformed,
}
