//! The state that users see: a pure function of the fold, total, in the order of the table in
//! `docs/lifecycle.md` (visible state).

use crate::instance::Instance;
use crate::vmm::VmmState;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Externally visible state. Exactly the strings that existing clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Being created. Never seen: creation is one append, and before it there is nothing to see.
    Creating,
    /// A VMM comes up.
    Starting,
    /// The guest runs.
    Running,
    /// A VMM goes down.
    Stopping,
    /// No VMM.
    Stopped,
    /// The guest reboots.
    Rebooting,
    /// A migration is linked.
    Migrating,
    /// Known to clients; not used.
    Repairing,
    /// The guest was lost.
    Failed,
    /// Deleted.
    Destroyed,
}

impl RunState {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Creating,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Stopped,
        Self::Rebooting,
        Self::Migrating,
        Self::Repairing,
        Self::Failed,
        Self::Destroyed,
    ];

    /// The string that clients see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Rebooting => "rebooting",
            Self::Migrating => "migrating",
            Self::Repairing => "repairing",
            Self::Failed => "failed",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether something is under way that will end by itself.
    pub const fn is_transitional(self) -> bool {
        matches!(self, Self::Creating | Self::Starting | Self::Stopping | Self::Rebooting | Self::Migrating)
    }

    /// Whether a step from here to `to` may be seen from outside, between two appends.
    pub const fn may_become(self, to: Self) -> bool {
        use RunState::{
            Creating, Destroyed, Failed, Migrating, Rebooting, Repairing, Running, Starting, Stopped,
            Stopping,
        };
        match self {
            Creating => matches!(to, Starting | Stopped | Failed),
            Starting => matches!(to, Running | Rebooting | Migrating | Stopping | Stopped | Failed),
            Running => matches!(to, Rebooting | Migrating | Stopping | Stopped | Failed),
            Rebooting => matches!(to, Running | Migrating | Stopping | Stopped | Failed),
            Migrating => matches!(to, Running | Rebooting | Stopping | Stopped | Failed),
            Stopping => matches!(to, Stopped | Failed),
            Stopped => matches!(to, Starting | Destroyed),
            Failed => matches!(to, Starting | Stopped | Destroyed),
            Destroyed | Repairing => false,
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first row that fits.
pub fn run_state(instance: &Instance) -> RunState {
    if instance.deleted.is_some() {
        return RunState::Destroyed;
    }
    let Some(active) = instance.active_vmm() else {
        return if instance.failed.is_some() { RunState::Failed } else { RunState::Stopped };
    };
    // Also when the source has failed and the target is being asked: the guest may be there, and a stop that is
    // asked for now must reach it.
    if instance.migration.is_some() {
        return RunState::Migrating;
    }
    match active.state {
        VmmState::Creating | VmmState::Starting => RunState::Starting,
        VmmState::Running => RunState::Running,
        VmmState::Rebooting => RunState::Rebooting,
        VmmState::Migrating => RunState::Migrating,
        VmmState::Stopping | VmmState::Stopped | VmmState::Destroyed | VmmState::Failed => RunState::Stopping,
        VmmState::SagaUnwound => RunState::Stopped,
    }
}
