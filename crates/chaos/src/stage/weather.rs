//! What becomes of a message between the control plane and a sled: late, lost, twice, as in the core tier.

use super::state::Stage;
use crate::faults::{Direction, Fault};
use crate::way::delays;
use std::time::Duration;

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
        let is_to_sled = direction == Direction::ToSled;
        let is_active = |at, lasts| self.is_active(at, lasts);
        let delays = delays(draw, &self.scenario.faults, sled, is_to_sled, is_active);
        delays.into_iter().map(Duration::from_micros).collect()
    }
}
