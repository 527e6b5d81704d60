//! A guest's memory while a migration copies it, round by round, from under a guest that goes on writing.
//!
//! The first round copies everything. What the guest dirties meanwhile is a share of what the round copied,
//! and is the work of the next round; a round takes time in proportion to its work. Once a round's work is
//! small enough the guest is paused after it. A guest that dirties as much as is copied never comes to that:
//! its migration goes on until it fails or is cancelled.
//!
//! Invariants:
//! * A repeated question is answered alike: a round's work is worked out once.
//! * No round has more work than the guest has memory.

use serde::{Deserialize, Serialize};
use sled_protocol::PropolisId;

use super::{Dice, Sled};

/// The guest is paused after a round of at most this part of its memory.
const PAUSE_PART: u64 = 16;

/// How much of what a round copied the guest has dirtied by its end, in thousandths. Each guest has a rate of
/// its own, drawn once; 1000 or more never converges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirtyRate {
    /// Smallest.
    pub min_per_mille: u32,
    /// Largest; anything below `min_per_mille` counts as `min_per_mille`.
    pub max_per_mille: u32,
}

impl DirtyRate {
    /// The same for every guest.
    pub const fn of(per_mille: u32) -> Self {
        Self { min_per_mille: per_mille, max_per_mille: per_mille }
    }

    fn drawn(self, dice: Dice, guest: PropolisId) -> u32 {
        let width = u64::from(self.max_per_mille.saturating_sub(self.min_per_mille)) + 1;
        self.min_per_mille + (dice.draw("dirty", guest.as_uuid(), 0) % width) as u32
    }
}

impl Default for DirtyRate {
    /// A guest at rest: three rounds.
    fn default() -> Self {
        Self::of(250)
    }
}

/// How far a source has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copied {
    pub(crate) round: u32,
    pub(crate) bytes: u64,
}

/// Whether a round of so many bytes is the last before the pause.
pub(super) const fn is_last_round(bytes: u64, memory: u64) -> bool {
    bytes <= memory / PAUSE_PART
}

impl Sled {
    /// From here on this guest dirties its memory at this rate, in thousandths, whatever was drawn for it.
    pub fn set_dirty_rate(&mut self, id: PropolisId, per_mille: u32) {
        if let Some(vmm) = self.vmm_mut(id) {
            vmm.dirty_per_mille = Some(per_mille);
        }
    }

    /// The work of this round, in bytes; zero without such a VMM.
    pub(super) fn copy_round(&mut self, id: PropolisId, round: u32) -> u64 {
        let (dice, rate) = (Dice::new(self.config.seed), self.config.dirty_rate);
        let Some(vmm) = self.vmm_mut(id) else { return 0 };
        let memory = vmm.resources().memory;
        let bytes = match vmm.copied {
            None => memory,
            Some(before) if before.round >= round => before.bytes,
            Some(before) => {
                let per_mille = vmm.dirty_per_mille.unwrap_or_else(|| rate.drawn(dice, id));
                let dirtied = u128::from(before.bytes) * u128::from(per_mille) / 1000;
                u64::try_from(dirtied).unwrap_or(u64::MAX).min(memory)
            }
        };
        let round = vmm.copied.map_or(round, |before| before.round.max(round));
        vmm.copied = Some(Copied { round, bytes });
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_drawn_once_per_guest_and_stays_within_its_bounds() {
        let rate = DirtyRate { min_per_mille: 100, max_per_mille: 900 };
        let guests = (1..200).map(|n| PropolisId::from_uuid(uuid::Uuid::from_u128(n)));
        let drawn: Vec<u32> = guests.clone().map(|guest| rate.drawn(Dice::new(7), guest)).collect();
        assert!(drawn.iter().all(|per_mille| (100..=900).contains(per_mille)));
        assert!(drawn.iter().any(|per_mille| *per_mille != drawn[0]));
        assert_eq!(drawn, guests.map(|guest| rate.drawn(Dice::new(7), guest)).collect::<Vec<_>>());
        let upside_down = DirtyRate { min_per_mille: 5, max_per_mille: 1 };
        assert_eq!(upside_down.drawn(Dice::new(7), PropolisId::from_uuid(uuid::Uuid::from_u128(1))), 5);
    }
}
