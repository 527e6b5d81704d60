//! The way of one message between a sled and whoever it talks to: how late each copy of it arrives, as its draw and the
//! faults of the scenario want it. Both tiers ask here, so that a fault means the same in both.

use crate::draws::{hash, within};
use crate::faults::Fault;
use crate::world::{MILLI, SECOND};

/// Shortest and longest way of an ordinary message, microseconds.
const WAY_US: (u64, u64) = (200, 5 * MILLI);

/// One message in so many is late, even when nothing is wrong.
const LATE_ONE_IN: u64 = 16;

/// Longest delay of a late message, microseconds.
const LATE_US_MAX: u64 = 2 * SECOND;

/// How late the copies of a message about a sled arrive, microseconds: none if it is lost, two if it is doubled.
pub(crate) fn delays(
    draw: u64,
    faults: &[Fault],
    sled: u16,
    is_to_sled: bool,
    is_active: impl Fn(u64, u64) -> bool,
) -> Vec<u64> {
    let dice = |purpose: &str| hash(draw, purpose, 0, 0);
    let happens = |purpose: &str, per_mille: u16| dice(purpose) % 1_000 < u64::from(per_mille);
    let mut delay = within(dice("way"), WAY_US.0, WAY_US.1);
    if dice("is_late").is_multiple_of(LATE_ONE_IN) {
        delay += within(dice("late"), 0, LATE_US_MAX);
    }
    let mut copies = 1;
    for fault in faults {
        match fault {
            Fault::Drop { at, lasts, per_mille } if is_active(*at, *lasts) && happens("drop", *per_mille) => {
                return Vec::new();
            }
            Fault::Duplicate { at, lasts, per_mille }
                if is_active(*at, *lasts) && happens("duplicate", *per_mille) =>
            {
                copies = 2;
            }
            Fault::Reorder { at, lasts, by } if is_active(*at, *lasts) => {
                delay += within(dice("reorder"), 0, by * MILLI);
            }
            Fault::DelayTail { at, lasts, per_mille, by }
                if is_active(*at, *lasts) && happens("tail", *per_mille) =>
            {
                delay += within(dice("tail_by"), 0, by * MILLI);
            }
            Fault::SlowSled { at, lasts, sled: slow, by }
                if *slow == sled && !is_to_sled && is_active(*at, *lasts) =>
            {
                delay += by * MILLI;
            }
            _ => {}
        }
    }
    let again = within(dice("again"), 0, LATE_US_MAX);
    (0..copies).map(|nth| delay + nth * again).collect()
}
