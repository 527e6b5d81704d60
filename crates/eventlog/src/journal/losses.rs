//! What cannot be read any more, and which streams it belonged to.
//!
//! A stream's versions are gapless. Where one goes on behind a damaged range with version 9 after version 6,
//! two of its records lay in the range; where a heads checkpoint knows its head inside the range, the
//! difference tells as much. So every lost position can be given to a stream, or is counted as nobody's.
//!
//! Invariants:
//! * gaps are in order and do not overlap; a gap has at least one position;
//! * a stream loses records only in a gap that something intact points into.

use super::error::Damage;
use crate::types::{Position, StreamId};
use std::collections::BTreeMap;

/// A range of positions that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Where it is; its last position is known.
    pub(crate) place: Damage,
    pub(crate) last: Position,
    /// The next segment, if the positions are missing between two segments rather than damaged in one.
    pub(crate) found: Option<String>,
}

impl Gap {
    pub(crate) fn positions(&self) -> u64 {
        self.last.get() - self.place.first.get() + 1
    }

    fn holds(&self, position: Position) -> bool {
        (self.place.first..=self.last).contains(&position)
    }
}

/// Where reading goes on behind a batch header that cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Jump {
    /// First position of the segment.
    pub(crate) segment: Position,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// First position of the batch at `to`.
    pub(crate) next: Position,
}

/// All that a scan could not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    gaps: Vec<Gap>,
    streams: BTreeMap<StreamId, u64>,
    pub(crate) jumps: Vec<Jump>,
    /// Bytes that are not as they were written though no record is lost.
    pub(crate) scars: Vec<Damage>,
}

impl Losses {
    pub(crate) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The gap that holds a position.
    pub(crate) fn gap_at(&self, position: Position) -> Option<&Gap> {
        let index = self.gaps.partition_point(|gap| gap.last < position);
        self.gaps.get(index).filter(|gap| gap.holds(position))
    }

    /// The first gap at or after a position.
    pub(crate) fn gap_from(&self, position: Position) -> Option<&Gap> {
        self.gaps.get(self.gaps.partition_point(|gap| gap.last < position))
    }

    pub(crate) fn add(&mut self, mut place: Damage, last: Position, found: Option<String>) {
        assert!(place.first <= last, "a gap has a position");
        assert!(self.gaps.last().is_none_or(|gap| gap.last < place.first), "gaps are found in order");
        place.last = Some(last);
        self.gaps.push(Gap { place, last, found });
    }

    /// Gives `count` lost records to a stream that is known to have had one at `position`.
    pub(crate) fn give(&mut self, stream: StreamId, position: Position, count: u64) {
        let index = self.gaps.partition_point(|gap| gap.last < position);
        let gap = self.gaps.get_mut(index).filter(|gap| gap.holds(position));
        let gap = gap.expect("records are lost in gaps only");
        if let Err(at) = gap.place.streams.binary_search(&stream) {
            gap.place.streams.insert(at, stream);
        }
        *self.streams.entry(stream).or_default() += count;
    }

    /// Streams that lost a record.
    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.streams.keys().copied()
    }

    pub(crate) fn has(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    pub(crate) fn positions(&self) -> u64 {
        self.gaps.iter().map(Gap::positions).sum()
    }

    /// Lost positions that no stream is known for. `None` if streams lost more than there was.
    pub(crate) fn nameless(&self) -> Option<u64> {
        self.positions().checked_sub(self.streams.values().sum())
    }

    /// Where a stream lost records, for people.
    pub(crate) fn detail(&self, stream: StreamId) -> String {
        let own = self.gaps.iter().filter(|gap| gap.place.streams.binary_search(&stream).is_ok());
        let places: Vec<String> = own
            .map(|gap| {
                let place = &gap.place;
                format!(
                    "{} at offset {}, positions {} to {}: {}",
                    place.segment, place.offset, place.first, gap.last, place.detail
                )
            })
            .collect();
        format!(
            "{} records are damaged ({})",
            self.streams.get(&stream).copied().unwrap_or(0),
            places.join("; ")
        )
    }
}
