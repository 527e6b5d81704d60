//! Packed runs of positions: a stream's index in small pieces.
//!
//! A run holds the positions of consecutive versions, as the first position and the distances that follow,
//! each in as few bytes as it needs (seven bits per byte).
//!
//! Invariants:
//! * positions rise strictly within a run;
//! * a run has at most [`RUN_POSITIONS_MAX`] positions, so that extending one is cheap and its bytes stay far
//!   below what the database keeps inline.

use crate::types::Position;

/// Positions in one run: at worst 10 bytes each, in practice two to four.
pub(crate) const RUN_POSITIONS_MAX: usize = 512;

/// Packs positions that rise strictly.
pub(crate) fn pack(positions: &[Position]) -> Vec<u8> {
    assert!(positions.len() <= RUN_POSITIONS_MAX, "runs are cut before they are packed");
    let mut out = Vec::with_capacity(positions.len() * 3);
    let mut last = 0;
    for position in positions {
        let mut distance = position.get().checked_sub(last).expect("positions rise");
        last = position.get();
        while distance >= 0x80 {
            out.push(distance as u8 | 0x80);
            distance >>= 7;
        }
        out.push(distance as u8);
    }
    out
}

/// Unpacks a run; `None` if the bytes are none.
pub(crate) fn unpack(bytes: &[u8]) -> Option<Vec<Position>> {
    let mut positions = Vec::new();
    let mut last = 0u64;
    let mut rest = bytes.iter();
    while let Some(first) = rest.next() {
        let mut distance = u64::from(first & 0x7f);
        let mut byte = *first;
        let mut shift = 7;
        while byte & 0x80 != 0 {
            byte = *rest.next()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || bits << shift >> shift != bits {
                return None;
            }
            distance |= bits << shift;
            shift += 7;
        }
        if distance == 0 || positions.len() == RUN_POSITIONS_MAX {
            return None;
        }
        last = last.checked_add(distance)?;
        positions.push(Position::new(last));
    }
    Some(positions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_run_unpacks_to_what_was_packed(distances in proptest::collection::vec(1u64..1 << 50, 0..500)) {
            let mut at = 0;
            let positions: Vec<_> = distances.iter().map(|distance| { at += distance; Position::new(at) }).collect();
            prop_assert_eq!(unpack(&pack(&positions)), Some(positions));
        }

        #[test]
        fn arbitrary_bytes_unpack_to_rising_positions_or_nothing(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            if let Some(positions) = unpack(&bytes) {
                prop_assert!(positions.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }

    #[test]
    fn the_largest_position_fits() {
        let positions = [Position::new(1), Position::new(u64::MAX)];
        assert_eq!(unpack(&pack(&positions)), Some(positions.to_vec()));
        assert_eq!(unpack(&[0xff; 11]), None);
    }
}
