//! Planted bugs: mistakes that a shell could make, switched on by name to prove that the harness sees them.
//!
//! Each is one condition at the place where the mistake would be made. They live in the simulator's shell
//! only; the rules in `lifecycle` are never altered.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A mistake to make on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bug {
    /// A client is answered as soon as its events are written, before they are synced.
    AcknowledgeBeforeSync,
    /// Effects leave as soon as their events are written, before they are synced.
    EffectBeforeSync,
    /// An undone start keeps its reservation and its charge.
    LeakOnUndo,
    /// The requests that were carried out are not folded again after a restart.
    ForgetRequests,
    /// Effects are not derived again after a restart.
    ForgetEffects,
    /// A registration of another boot is believed without asking the sled.
    TrustRegistration,
    /// A start does not wait at its fence.
    OpenFence,
    /// An inventory counts as proof of absence whenever it was asked for.
    StaleInventory,
    /// A report counts whatever its generation.
    AcceptStaleReport,
    /// Grants of an append that was refused are not dropped.
    LeakGrant,
    /// Fails every run: shows that a failure turns the pipeline red.
    Canary,
}

impl Bug {
    /// Every bug that `prove` looks for.
    pub const PROVED: [Self; 10] = [
        Self::AcknowledgeBeforeSync,
        Self::EffectBeforeSync,
        Self::LeakOnUndo,
        Self::ForgetRequests,
        Self::ForgetEffects,
        Self::TrustRegistration,
        Self::OpenFence,
        Self::StaleInventory,
        Self::AcceptStaleReport,
        Self::LeakGrant,
    ];

    /// What people read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AcknowledgeBeforeSync => "acknowledge_before_sync",
            Self::EffectBeforeSync => "effect_before_sync",
            Self::LeakOnUndo => "leak_on_undo",
            Self::ForgetRequests => "forget_requests",
            Self::ForgetEffects => "forget_effects",
            Self::TrustRegistration => "trust_registration",
            Self::OpenFence => "open_fence",
            Self::StaleInventory => "stale_inventory",
            Self::AcceptStaleReport => "accept_stale_report",
            Self::LeakGrant => "leak_grant",
            Self::Canary => "canary",
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
