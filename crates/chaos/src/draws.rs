//! Draws keyed by what they decide.
//!
//! The one idea: **never one shared stream.** A draw is a hash of the seed, the purpose, the identity and how
//! many there were before it of the same kind, so that taking a fault or a request out of a scenario leaves
//! every other draw alone. That is what lets failures shrink.

use std::collections::BTreeMap;

/// Dice of one run.
#[derive(Clone, Debug)]
pub(crate) struct Draws {
    seed: u64,
    counted: BTreeMap<(&'static str, u128), u64>,
}

impl Draws {
    /// Dice of one seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed, counted: BTreeMap::new() }
    }

    /// The `nth` draw for a purpose and an identity.
    pub(crate) fn at(&self, purpose: &str, identity: u128, nth: u64) -> u64 {
        hash(self.seed, purpose, identity, nth)
    }

    /// The next draw for a purpose and an identity; the count is kept here.
    pub(crate) fn next(&mut self, purpose: &'static str, identity: u128) -> u64 {
        let nth = self.counted.entry((purpose, identity)).or_insert(0);
        let drawn = hash(self.seed, purpose, identity, *nth);
        *nth += 1;
        drawn
    }

    /// The next draw within a range, both ends included.
    pub(crate) fn next_within(&mut self, purpose: &'static str, identity: u128, min: u64, max: u64) -> u64 {
        within(self.next(purpose, identity), min, max)
    }
}

/// Folds a draw into a range, both ends included; an empty range gives its lower end.
pub(crate) const fn within(draw: u64, min: u64, max: u64) -> u64 {
    if max <= min { min } else { min + draw % (max - min + 1) }
}

/// A number that depends on nothing but its key.
pub(crate) fn hash(seed: u64, purpose: &str, identity: u128, nth: u64) -> u64 {
    let named = purpose.bytes().fold(mix(seed), |hash, byte| mix(hash ^ u64::from(byte)));
    [(identity >> 64) as u64, identity as u64, nth].into_iter().fold(named, |hash, word| mix(hash ^ word))
}

/// One step of splitmix64: our own, so that no library's next release changes what a seed means.
pub(crate) const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_every_part_of_its_key_and_on_nothing_else() {
        let base = hash(1, "delay", 2, 3);
        assert_eq!(base, hash(1, "delay", 2, 3));
        for other in [
            hash(2, "delay", 2, 3),
            hash(1, "drop", 2, 3),
            hash(1, "delay", 3, 3),
            hash(1, "delay", 2 << 64, 3),
            hash(1, "delay", 2, 4),
        ] {
            assert_ne!(base, other);
        }
        let mut draws = Draws::new(1);
        draws.next("other", 2);
        for nth in 0..4 {
            assert_eq!(draws.next("delay", 2), hash(1, "delay", 2, nth), "other purposes do not count");
        }
    }

    #[test]
    fn draws_stay_within_their_range() {
        let mut draws = Draws::new(7);
        for _ in 0..1_000 {
            assert!((3..=5).contains(&draws.next_within("x", 1, 3, 5)));
        }
        assert_eq!(within(9, 4, 2), 4);
    }
}
