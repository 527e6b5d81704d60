//! A VMM: one incarnation of an instance on one sled, and which states follow which
//! (`docs/lifecycle.md`, VMM states).
//!
//! ```text
//!            ┌──────────────► rebooting ◄──┐
//! creating ─► starting ─┐        │  ▲      │        any live ─► failed{reason}
//!     │                 ├─► running ─┘     │        any live ─► stopping ─► destroyed
//!     └────► migrating ─┘     │            │        any live ─► destroyed
//!               ▲             ▼ (source)   │        creating, starting, migrating ─► saga_unwound
//!               └─────────────┘
//! ```
//!
//! Invariants:
//! * `destroyed`, `failed` and `saga_unwound` are absorbing: no report, of any generation, leaves them;
//! * a report may skip states, because newest wins and some are lost, but only along edges;
//! * `saga_unwound` is never reported by a sled.

use crate::ids::{Generation, SledId, VmmId};
use crate::spec::Size;
use serde::{Deserialize, Serialize};

/// State of a VMM, as folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmmState {
    /// Allocated; the sled has not confirmed it.
    Creating,
    /// Registered; the guest boots.
    Starting,
    /// Registered as a migration target, or a source whose guest is leaving.
    Migrating,
    /// The guest runs.
    Running,
    /// The guest reboots.
    Rebooting,
    /// The guest shuts down.
    Stopping,
    /// The guest has ended, the VMM not yet. Shown and treated as stopping.
    Stopped,
    /// The VMM has ended.
    Destroyed,
    /// The VMM has ended badly, or was declared dead.
    Failed,
    /// An unwinding saga gave it up before the guest ran.
    SagaUnwound,
}

/// Why a VMM is `failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The sled reported it.
    FromSled,
    /// The sled does not know the VMM.
    NoSuchVmm,
    /// An operator expunged the sled.
    SledExpunged,
    /// The sled has another boot id.
    SledRebooted,
    /// The sled is powered off.
    SledOff,
    /// The guest did not run before the start's deadline.
    StartTimeout,
    /// The sled's lease lapsed.
    LeaseExpired,
    /// An operator forced it.
    Operator,
}

/// How the control plane knows that a VMM is no longer on its sled (`confirmed_gone`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Its own terminal report.
    Reported,
    /// Unregister was answered.
    Unregistered,
    /// Absent from an inventory that was asked for after its register was acknowledged.
    AbsentFromInventory,
    /// Its sled's boot id changed.
    SledRebooted,
    /// Its sled was expunged.
    SledExpunged,
    /// Its lease expired.
    LeaseExpired,
    /// The sled was never told of it.
    NeverSent,
    /// An operator vouched for it.
    Asserted,
}

/// What a reservation is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reservation {
    /// The active VMM.
    Active,
    /// A migration target.
    Target,
    /// A VMM that nothing refers to, but that may still be on its sled.
    Tombstoned,
}

/// One VMM of an instance, kept until it is gone from its sled and nothing refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vmm {
    /// The propolis id.
    pub id: VmmId,
    /// Where it runs.
    pub sled: SledId,
    /// What it reserves there.
    pub size: Size,
    /// Folded state.
    pub state: VmmState,
    /// Set with `failed`.
    pub failure: Option<FailureReason>,
    /// Generation of the newest report folded.
    pub generation: Generation,
    /// Held iff it may still be on its sled.
    pub reservation: Option<Reservation>,
    /// Log position of the event that allocated it: it belongs to the boot that its sled was in there.
    pub allocated_at: u64,
    /// Whether a register may have been sent.
    pub register_may_be_sent: bool,
    /// Whether `set running` (or `migration_target`) may have been sent.
    pub run_may_be_sent: bool,
    /// Log position of the event that showed it registered.
    pub registered_at: Option<u64>,
    /// How it is known to be gone, once it is.
    pub gone: Option<Evidence>,
    /// Anomalous reports recorded, up to [`ANOMALIES_MAX`].
    pub anomalies: u8,
}

/// Anomalous reports journaled per VMM: enough to diagnose a confused sled, too few for it to fill a disk.
pub const ANOMALIES_MAX: u8 = 8;

impl VmmState {
    /// All states, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::Creating,
        Self::Starting,
        Self::Migrating,
        Self::Running,
        Self::Rebooting,
        Self::Stopping,
        Self::Stopped,
        Self::Destroyed,
        Self::Failed,
        Self::SagaUnwound,
    ];

    /// Ended for good, by its own end or by declaration.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Destroyed | Self::Failed)
    }

    /// May be reaped once nothing refers to it and it is gone from its sled.
    pub const fn is_destroyable(self) -> bool {
        self.is_terminal() || matches!(self, Self::SagaUnwound)
    }

    /// May hold or come to hold a guest.
    pub const fn is_live(self) -> bool {
        !self.is_destroyable()
    }

    /// States that directly follow this one in reports.
    const fn edges(self) -> &'static [Self] {
        use VmmState::{
            Creating, Destroyed, Failed, Migrating, Rebooting, Running, SagaUnwound, Starting, Stopped,
            Stopping,
        };
        match self {
            Creating => &[Starting, Migrating, Stopping, Destroyed, Failed],
            Starting => &[Running, Rebooting, Stopping, Destroyed, Failed],
            Migrating => &[Running, Stopping, Destroyed, Failed],
            Running => &[Rebooting, Migrating, Stopping, Destroyed, Failed],
            Rebooting => &[Running, Stopping, Destroyed, Failed],
            // The sled's `stopped` is reported as `stopping`: the same state with a newer generation.
            Stopping => &[Stopping, Stopped, Destroyed, Failed],
            Stopped => &[Destroyed, Failed],
            Destroyed | Failed | SagaUnwound => &[],
        }
    }

    /// Whether a report may lead from here to `to`, by one or more edges.
    pub fn reaches(self, to: Self) -> bool {
        let mut seen = [false; Self::ALL.len()];
        let mut open = vec![self];
        while let Some(state) = open.pop() {
            for &next in state.edges() {
                if next == to {
                    return true;
                }
                if !seen[next as usize] {
                    seen[next as usize] = true;
                    open.push(next);
                }
            }
        }
        false
    }
}

impl Vmm {
    /// Whether its guest may be running, whatever the fold says: from the first send of `set running`
    /// until it is confirmed gone.
    pub const fn may_run(&self) -> bool {
        self.run_may_be_sent && self.gone.is_none()
    }

    /// Whether the sled may know of it.
    pub const fn may_be_on_sled(&self) -> bool {
        self.register_may_be_sent && self.gone.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::VmmState::{self, *};

    /// Rows: folded state; columns: reported state, in the order of `VmmState::ALL`. `+` accepts.
    const REACHES: [(VmmState, &str); 10] = [
        (Creating, "-++++++++-"),
        (Starting, "--+++++++-"),
        (Migrating, "--+++++++-"),
        (Running, "--+++++++-"),
        (Rebooting, "--+++++++-"),
        (Stopping, "-----++++-"),
        (Stopped, "-------++-"),
        (Destroyed, "----------"),
        (Failed, "----------"),
        (SagaUnwound, "----------"),
    ];

    #[test]
    fn a_report_is_accepted_exactly_along_the_table() {
        for (from, row) in REACHES {
            let row: Vec<bool> = row.chars().map(|c| c == '+').collect();
            for (to, expected) in VmmState::ALL.into_iter().zip(row) {
                assert_eq!(from.reaches(to), expected, "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn every_live_state_can_end_and_no_ended_state_can_live() {
        for state in VmmState::ALL {
            assert_eq!(state.reaches(Destroyed), state.is_live(), "{state:?}");
            assert_eq!(state.reaches(Failed), state.is_live(), "{state:?}");
            assert!(!state.reaches(SagaUnwound), "{state:?}");
            assert!(!state.reaches(Creating), "{state:?}");
        }
    }
}
