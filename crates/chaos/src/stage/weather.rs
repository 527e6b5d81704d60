//! What becomes of a message between the control plane and a sled: late, lost, twice, as in the core tier.

use super::state::Stage;
use crate::draws::{hash, within};
use crate::faults::{Direction, Fault};
use std::time::Duration;

/// Shortest and longest way of an ordinary message, microseconds.
const WAY_US: (u64, u64) = (200, 5_000);
/// One message in so many is late, even when nothing is wrong.
const LATE_ONE_IN: u64 = 16;
/// Longest delay of a late message, microseconds.
const LATE_US_MAX: u64 = 2_000_000;

impl Stage {
    /// Whether a link between a sled and the control plane is cut.
    fn is_cut(&self, of: u16, direction: Direction) -> bool {
        self.scenario.faults.iter().any(|fault| {
            matches!(fault, Fault::Partition { at, lasts, sled, direction: way }
                if *sled == of
                    && (*way == Direction::Both || *way == direction)
                    && self.is_active(*at, *lasts))
        })
    }

    /// When copies of a message about a sled arrive: none if it is lost, two if it is doubled.
    pub(super) fn ways(&self, sled: u16, direction: Direction, key: (&'static str, u128)) -> Vec<Duration> {
        let draw = self.lock().draws.next(key.0, key.1 ^ u128::from(sled));
        if self.is_cut(sled, direction) {
            return Vec::new();
        }
        let dice = |purpose: &str| hash(draw, purpose, 0, 0);
        let happens = |purpose: &str, per_mille: u16| dice(purpose) % 1_000 < u64::from(per_mille);
        let mut delay = within(dice("way"), WAY_US.0, WAY_US.1);
        if dice("is_late").is_multiple_of(LATE_ONE_IN) {
            delay += within(dice("late"), 0, LATE_US_MAX);
        }
        let mut copies = 1;
        for fault in &self.scenario.faults {
            match fault {
                Fault::Drop { at, lasts, per_mille }
                    if self.is_active(*at, *lasts) && happens("drop", *per_mille) =>
                {
                    return Vec::new();
                }
                Fault::Duplicate { at, lasts, per_mille }
                    if self.is_active(*at, *lasts) && happens("duplicate", *per_mille) =>
                {
                    copies = 2;
                }
                Fault::Reorder { at, lasts, by } if self.is_active(*at, *lasts) => {
                    delay += within(dice("reorder"), 0, by * 1_000);
                }
                Fault::DelayTail { at, lasts, per_mille, by }
                    if self.is_active(*at, *lasts) && happens("tail", *per_mille) =>
                {
                    delay += within(dice("tail_by"), 0, by * 1_000);
                }
                Fault::SlowSled { at, lasts, sled: slow, by }
                    if *slow == sled && direction != Direction::ToSled && self.is_active(*at, *lasts) =>
                {
                    delay += by * 1_000;
                }
                _ => {}
            }
        }
        let again = within(dice("again"), 0, LATE_US_MAX);
        (0..copies).map(|nth| Duration::from_micros(delay + nth * again)).collect()
    }
}
