//! A migration: two VMMs, each reporting its own side (`docs/lifecycle.md`, migration).
//!
//! Invariants:
//! * `completed` and `failed` are absorbing on each side;
//! * the outcome is a function of both sides and both VMMs, so the order of reports does not matter.

use crate::ids::{Generation, MigrationId, VmmId};
use crate::time::{Span, Timestamp};
use crate::vmm::{Vmm, VmmState};
use serde::{Deserialize, Serialize};

/// State of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SideState {
    /// Nothing has moved.
    Pending,
    /// Memory is moving.
    InProgress,
    /// The guest has moved.
    Completed,
    /// It will not move.
    Failed,
}

/// One side, as folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Its VMM.
    pub vmm: VmmId,
    /// Folded state.
    pub state: SideState,
    /// Generation of the newest report folded.
    pub generation: Generation,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Its id.
    pub id: MigrationId,
    /// Where the guest is at the start.
    pub source: Side,
    /// Where it shall go.
    pub target: Side,
    /// When it began.
    pub started: Timestamp,
    /// From when its time counts: its beginning, or the end of its saga's last pause.
    pub deadline_from: Timestamp,
    /// How long it may take; and how long a target may be asked for a guest whose source has failed.
    pub deadline: Span,
    /// Why both sides are told to give up, if they are.
    pub cancelled: Option<CancelReason>,
    /// When its source failed while the target may have the guest.
    pub undecided_since: Option<Timestamp>,
    /// Whether the target was asked for the guest for long enough.
    pub is_given_up: bool,
}

/// Why a migration is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// Somebody asked for it.
    Requested,
    /// It took too long.
    Deadline,
    /// The target's sled refused to take the guest over.
    Refused,
}

/// Migrations remembered per instance: one that failed is kept until its source has said how it ended there, or
/// until so many later ones have begun.
pub const MIGRATIONS_MAX: usize = 16;

/// What the two sides and their VMMs add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Neither side has decided.
    UnderWay,
    /// The target says it has the guest.
    Succeeded,
    /// The source says the guest has left; the target has not ended.
    HandedOver,
    /// The guest left the source and did not survive in the target.
    Lost,
    /// The guest is, or ended, in the source.
    Failed,
    /// The source failed while the target may have the guest: the target must be asked.
    Undecided,
}

impl SideState {
    /// Absorbing.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    /// Whether a newer report may lead to `to`. A side that jumps to its end is believed: reports get lost.
    pub const fn reaches(self, to: Self) -> bool {
        match self {
            Self::Pending => !matches!(to, Self::Pending),
            Self::InProgress => to.is_terminal(),
            Self::Completed | Self::Failed => false,
        }
    }
}

impl Migration {
    /// The side that a VMM reports, if it takes part.
    pub fn side_of(&mut self, vmm: VmmId) -> Option<&mut Side> {
        if self.source.vmm == vmm {
            Some(&mut self.source)
        } else if self.target.vmm == vmm {
            Some(&mut self.target)
        } else {
            None
        }
    }

    /// The first rule that fits decides.
    pub fn outcome(&self, source: Option<&Vmm>, target: Option<&Vmm>) -> Outcome {
        let ended = |vmm: Option<&Vmm>| vmm.is_none_or(|vmm| vmm.state.is_destroyable());
        if self.target.state == SideState::Completed {
            return Outcome::Succeeded;
        }
        if self.source.state == SideState::Completed {
            let dead = ended(target) || self.target.state == SideState::Failed;
            return if dead { Outcome::Lost } else { Outcome::HandedOver };
        }
        let source_state = source.map_or(VmmState::Destroyed, |vmm| vmm.state);
        let source_side_failed_alive = self.source.state == SideState::Failed && source_state.is_live();
        if self.target.state == SideState::Failed
            || source_side_failed_alive
            || source_state == VmmState::Destroyed
        {
            return Outcome::Failed;
        }
        if source_state == VmmState::Failed { Outcome::Undecided } else { Outcome::UnderWay }
    }
}
