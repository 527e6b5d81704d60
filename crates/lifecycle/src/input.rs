//! What an instance can be told: commands, reports, outcomes of effects, evidence, deadlines.
//!
//! Everything unpredictable is a field here: ids are minted and capacity is granted before an input is
//! decided. The input is journaled with the events, so that history can be decided again.

use crate::archive::ArchiveFile;
use crate::effects::{DeadlineKind, Effect};
use crate::ids::{Generation, InstanceId, MigrationId, OpId, SagaId, SledId, VmmId};
use crate::migration::SideState;
use crate::rejected::Shortage;
use crate::spec::{Address, InstanceSpec, SpecChange};
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
    /// An effect has been sent so often in a row without being done, as far as this incarnation knows.
    StepFailed {
        /// The effect.
        effect: Effect,
        /// How often.
        failures: u32,
    },
    /// A VMM is known to be gone from its sled.
    Gone {
        /// The VMM.
        vmm: VmmId,
        /// How that is known.
        evidence: Evidence,
    },
    /// A VMM is gone from its sled if it was registered by `asked_at`, and an inventory does not list it; or if
    /// it was allocated before `asked_at`, and its sled booted or lost its lease there.
    Absent {
        /// The VMM.
        vmm: VmmId,
        /// Durable log position when the inventory was asked for, or of the boot or the end of the lease: it says
        /// nothing about a VMM that was not known to be registered by then.
        asked_at: u64,
        /// How that is known.
        evidence: Evidence,
    },
    /// A deadline has passed.
    Deadline(DeadlineKind),
    /// The restart policy's attempt, due by its deadline: with the grant, or with what was short.
    Restart(Result<StartGrant, Shortage>),
    /// Look again: after activation, or because a reaper thinks that something is due.
    Reconsider,
    /// Everything that is in its stream has been copied into a durable file.
    Archived(ArchiveFile),
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
    /// Move its guest to another sled. Without a grant the decision is to ask for one.
    Migrate {
        /// Granted by the ledger.
        grant: Option<MigrateGrant>,
    },
    /// Give up the migration under way.
    CancelMigration,
    /// Take back the saga under way, if it can still be undone.
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
        /// Why, in the operator's words.
        reason: String,
    },
    /// The same for one VMM that the operator has looked at: refused if the instance does not have it any more.
    ForceStopOf {
        /// The VMM; no other is touched.
        vmm: VmmId,
        /// Whether the operator vouches for its being dead.
        assert_dead: bool,
        /// Why, in the operator's words.
        reason: String,
    },
    /// Change its configuration.
    Update {
        /// Everything that may change, as it shall be.
        change: Box<SpecChange>,
    },
}

/// Leave to bring up a migration target: room that the ledger holds until this is journaled or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrateGrant {
    /// The saga's id.
    pub saga: SagaId,
    /// The migration's id.
    pub migration: MigrationId,
    /// The target VMM's id.
    pub vmm: VmmId,
    /// The picked sled.
    pub sled: SledId,
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

impl VmmReport {
    /// A number that is the same for the same report and, but for one chance in 2^64, another for another.
    pub fn fingerprint(&self) -> u64 {
        let side = |side: Option<SideReport>| {
            side.map_or([0; 4], |side| {
                let id = side.migration.uuid().as_u64_pair();
                [id.0, id.1, 1 + side.state as u64, side.generation.get()]
            })
        };
        let words = [self.state as u64, self.generation.get()];
        let words = words.into_iter().chain(side(self.migration_in)).chain(side(self.migration_out));
        // FNV-1a, by words: the same in every build.
        words.fold(0xcbf2_9ce4_8422_2325, |hash, word| {
            let mixed = (hash ^ word).wrapping_mul(0x0100_0000_01b3);
            mixed ^ (mixed >> 29)
        })
    }
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
