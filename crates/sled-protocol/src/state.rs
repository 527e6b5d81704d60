//! What a sled says about one VMM, always as the full picture.

use serde::{Deserialize, Serialize};

use crate::error::Invalid;
use crate::ids::{Generation, MigrationId};
use crate::time::Timestamp;

/// State of one VMM as its sled reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmmState {
    /// Registered; the guest has not booted.
    Starting,
    /// The guest runs.
    Running,
    /// The guest is going down, by request or by itself.
    Stopping,
    /// The guest is down and the VMM is being taken apart; treated as `Stopping`.
    Stopped,
    /// The guest restarts within the same VMM.
    Rebooting,
    /// A target waiting for its guest, or a source whose guest is leaving.
    Migrating,
    /// Ended by a fault. Terminal.
    Failed,
    /// Ended in order. Terminal.
    Destroyed,
}

impl VmmState {
    /// Every state, in wire order.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Stopped,
        Self::Rebooting,
        Self::Migrating,
        Self::Failed,
        Self::Destroyed,
    ];

    /// Whether nothing can follow.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Destroyed)
    }
}

/// State of one side of a migration as that side reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationState {
    /// Agreed, nothing copied.
    Pending,
    /// Memory or device state is being copied.
    InProgress,
    /// The guest has left (source) or arrived (target). Terminal.
    Completed,
    /// Given up on this side. Terminal.
    Failed,
}

impl MigrationState {
    /// Whether nothing can follow.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// A VMM's state with the generation that orders it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmRuntime {
    /// The state.
    pub state: VmmState,
    /// Grows on every change of the state, and on change only.
    #[serde(rename = "gen")]
    pub generation: Generation,
    /// When the state was entered, by the clock of whoever reports it.
    pub time_updated: Timestamp,
}

/// One side of a migration with the generation that orders it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationRuntime {
    /// Which migration.
    pub migration_id: MigrationId,
    /// The state of this side.
    pub state: MigrationState,
    /// Grows on every change of this side, and on change only.
    #[serde(rename = "gen")]
    pub generation: Generation,
    /// When the state was entered, by the clock of whoever reports it.
    pub time_updated: Timestamp,
}

/// The full picture of one VMM: its own state and both of its migrations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SledVmmState {
    /// The VMM itself.
    pub vmm_state: VmmRuntime,
    /// The migration by which its guest arrived; kept for the VMM's life.
    pub migration_in: Option<MigrationRuntime>,
    /// The last migration by which its guest was to leave.
    pub migration_out: Option<MigrationRuntime>,
}

impl SledVmmState {
    /// Refuses what no honest sled says: zero generations, nil ids, one migration in both directions, and a
    /// VMM that has ended with a side of a migration still open.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.vmm_state.generation.validate("vmm_state.gen")?;
        for (migration, fields) in [
            (&self.migration_in, ("migration_in.migration_id", "migration_in.gen")),
            (&self.migration_out, ("migration_out.migration_id", "migration_out.gen")),
        ] {
            let Some(migration) = migration else { continue };
            migration.migration_id.validate(fields.0)?;
            migration.generation.validate(fields.1)?;
            if self.vmm_state.state.is_terminal() && !migration.state.is_terminal() {
                return Err(Invalid::OpenMigrationOfEndedVmm);
            }
        }
        match (&self.migration_in, &self.migration_out) {
            (Some(arrival), Some(departure)) if arrival.migration_id == departure.migration_id => {
                Err(Invalid::SourceIsTarget)
            }
            _ => Ok(()),
        }
    }
}
