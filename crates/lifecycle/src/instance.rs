//! An instance: the fold of its stream, and nothing else.
//!
//! Invariants (checked by [`crate::invariant`]):
//! * slots refer to VMMs in `vmms`; the target slot is taken iff a migration is linked or a migrate saga
//!   unwinds;
//! * a VMM holds a reservation iff it may still be on its sled;
//! * an instance is charged iff it has an active VMM that has not been unwound;
//! * at most one saga changes slots at a time.

use crate::archive::ArchiveFile;
use crate::ids::{InstanceId, MigrationId, OpId, SagaId, SledId, VmmId};
use crate::migration::{CancelReason, Migration, Outcome};
use crate::saga::{Origin, SagaKind, Step};
use crate::spec::{Address, InstanceSpec, Size};
use crate::time::{Span, Timestamp};
use crate::visible::RunState;
use crate::vmm::{FailureReason, Vmm};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// That it runs.
    Running,
    /// That it is stopped.
    Stopped,
    /// The guest shut itself down; it is not restarted.
    GuestShutdown,
    /// That it is gone.
    Destroyed,
}

/// Why the instance is, or last was, in trouble. Kept so that `explain` can say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What happened.
    pub cause: TroubleCause,
    /// When it was recorded.
    pub at: Timestamp,
}

/// Kinds of trouble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleCause {
    /// The VMM that held the guest failed.
    VmmFailed {
        /// The VMM.
        vmm: VmmId,
        /// Why.
        reason: FailureReason,
    },
    /// A start was undone.
    StartUnwound {
        /// The step that failed.
        step: Step,
        /// Why.
        reason: UnwindReason,
    },
    /// A migrate was undone; the guest stayed.
    MigrateUnwound {
        /// The step that failed.
        step: Step,
        /// Why.
        reason: UnwindReason,
    },
    /// A migration failed, or was cancelled; the guest stayed, or ended, in the source.
    MigrationFailed {
        /// The migration.
        migration: MigrationId,
        /// Why it was given up, if it was.
        cancelled: Option<CancelReason>,
    },
    /// A start could not be placed.
    NoCapacity {
        /// What was short.
        short: crate::rejected::Shortage,
    },
}

/// Why a saga goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnwindReason {
    /// The sled refused the step for good.
    Refused(crate::input::Refusal),
    /// The deadline passed before the point of no return.
    Deadline,
    /// The user asked to stop.
    StopRequested,
    /// Its VMM, or the source of the migration, ended before the point of no return.
    VmmEnded,
    /// Somebody cancelled it.
    Cancelled,
}

/// Why a saga was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseCause {
    /// Somebody asked for it.
    Requested,
    /// Its step failed so often in a row.
    Failures {
        /// How often.
        count: u32,
    },
}

/// A pause of a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub cause: PauseCause,
}

/// The one saga under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaProgress {
    /// Its id.
    pub id: SagaId,
    /// Which saga.
    pub kind: SagaKind,
    /// Who asked.
    pub origin: Origin,
    /// The VMM it works on.
    pub vmm: VmmId,
    /// The current step; every step before it is complete.
    pub step: Step,
    /// When it began.
    pub started: Timestamp,
    /// When the current step began.
    pub step_started: Timestamp,
    /// How long it may take.
    pub deadline: Span,
    /// From when that counts: its beginning, or the end of its last pause.
    pub deadline_from: Timestamp,
    /// Set while it is held at its step.
    pub pause: Option<Pause>,
}

/// A stop that has been journaled and not yet been seen to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// Makes repeats act once.
    pub op: OpId,
    /// When it was asked for.
    pub since: Timestamp,
}

/// A reboot that has been journaled and not yet been delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebootOrder {
    /// Makes repeats act once.
    pub op: OpId,
    /// When it was asked for.
    pub since: Timestamp,
}

/// Starts that the restart policy has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// How many in a row.
    pub attempts: u32,
    /// When the last was made.
    pub last: Option<Timestamp>,
}

/// Where NAT entry and V2P mappings shall point. Pushes converge to it on their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNetwork {
    /// The sled to point at; none means delete.
    pub sled: Option<SledId>,
    /// Log position of the event that set it: a reused address is never confused with its predecessor.
    pub generation: u64,
}

/// Place of the newest folded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldHead {
    /// Version in the stream.
    pub version: u64,
    /// Position in the log.
    pub position: u64,
    /// Recorded time.
    pub time: Timestamp,
}

/// Fold of one instance's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Newest folded event.
    pub head: FoldHead,
    /// What the user configured.
    pub spec: InstanceSpec,
    /// Its place on the overlay network.
    pub address: Address,
    /// What the user wants.
    pub intent: Intent,
    /// VMM in the active slot.
    pub active: Option<VmmId>,
    /// VMM in the target slot.
    pub target: Option<VmmId>,
    /// The linked migration.
    pub migration: Option<MigrationId>,
    /// VMMs that are referred to or may still be on a sled.
    pub vmms: BTreeMap<VmmId, Vmm>,
    /// Migrations whose VMMs are not both gone.
    pub migrations: BTreeMap<MigrationId, Migration>,
    /// The saga under way.
    pub saga: Option<SagaProgress>,
    /// The stop under way.
    pub stop: Option<StopOrder>,
    /// The reboot under way.
    pub reboot: Option<RebootOrder>,
    /// Provisioning charged to project, silo and fleet.
    pub charge: Option<Size>,
    /// Desired network configuration.
    pub network: DesiredNetwork,
    /// VMM that shall be registered as a metrics producer.
    pub producer: Option<VmmId>,
    /// Set while the visible state is `failed`.
    pub failed: Option<Trouble>,
    /// Starts by the restart policy since it last ran for long, or was started by hand.
    pub restarts: Restarts,
    /// When its guest was first seen running since the last start.
    pub running_since: Option<Timestamp>,
    /// The last thing that went wrong, also after it was overcome.
    pub last_trouble: Option<Trouble>,
    /// When it was created.
    pub time_created: Timestamp,
    /// When its configuration last changed.
    pub time_modified: Timestamp,
    /// When its visible state last changed.
    pub time_run_state_updated: Timestamp,
    /// When it was deleted, if it was.
    pub deleted: Option<Timestamp>,
    /// Where its events were copied to, if they were.
    pub archived: Option<ArchiveFile>,
}

impl Instance {
    /// The VMM in the active slot.
    pub fn active_vmm(&self) -> Option<&Vmm> {
        self.active.map(|id| &self.vmms[&id])
    }

    /// The VMM in the target slot.
    pub fn target_vmm(&self) -> Option<&Vmm> {
        self.target.map(|id| &self.vmms[&id])
    }

    /// Whether a slot, or a migration that is linked, refers to the VMM.
    pub fn refers_to(&self, vmm: VmmId) -> bool {
        let linked = self.migration.and_then(|id| self.migrations.get(&id));
        self.active == Some(vmm)
            || self.target == Some(vmm)
            || linked.is_some_and(|migration| migration.source.vmm == vmm || migration.target.vmm == vmm)
    }

    /// The linked migration.
    pub fn linked_migration(&self) -> Option<&Migration> {
        self.migration.map(|id| &self.migrations[&id])
    }

    /// What the migration has come to, by both sides and both VMMs.
    pub fn outcome_of(&self, migration: &Migration) -> Outcome {
        migration.outcome(self.vmms.get(&migration.source.vmm), self.vmms.get(&migration.target.vmm))
    }

    /// A VMM that may be running and is in the way of the saga's VMM: what its fence waits for. The source of
    /// a migration is not in the way of its target.
    pub fn blocks_fence(&self, vmm: VmmId) -> Option<&Vmm> {
        let source = self.linked_migration().map(|migration| migration.source.vmm);
        self.vmms.values().find(|other| other.id != vmm && Some(other.id) != source && other.may_run())
    }

    /// The externally visible state.
    pub fn run_state(&self) -> RunState {
        crate::visible::run_state(self)
    }

    /// Whether nothing is under way: no saga, no migration, no order, no VMM to reap, no update due. A quiesced
    /// instance need not be in memory, unless a restart of it is due.
    pub fn is_quiesced(&self) -> bool {
        self.saga.is_none()
            && self.migration.is_none()
            && crate::effects(self).is_empty()
            && crate::decide::settle(self).is_none()
    }
}
