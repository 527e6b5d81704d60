//! What readers see: durable heads, the newest records, numbers. The writer replaces it after each sync.
//!
//! Invariants:
//! * everything here is durable;
//! * heads, ring and durable position change together, under one lock;
//! * the ring holds the newest records without gap up to the durable position, within its bytes.

use super::head_map::HeadMap;
use crate::log::LogStats;
use crate::types::{Position, Record, Unavailable};
use std::collections::VecDeque;

/// The newest records, in the batches they were written in: a batch comes and goes as a whole, so that nothing is
/// copied while readers wait.
pub(crate) struct Ring {
    batches: VecDeque<Batch>,
    bytes: usize,
    bytes_max: usize,
}

struct Batch {
    /// At least one.
    records: Vec<Record>,
    /// What it takes, about.
    bytes: usize,
}

impl Ring {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds the records that follow, whose bytes are `encoded_bytes`, and moves those that no longer fit to
    /// `forgotten`: readers need not wait until they are freed.
    pub(crate) fn push(
        &mut self,
        records: Vec<Record>,
        encoded_bytes: usize,
        forgotten: &mut Vec<Vec<Record>>,
    ) {
        assert!(!records.is_empty(), "a batch holds a record");
        let bytes = encoded_bytes + records.capacity() * size_of::<Record>();
        self.bytes += bytes;
        self.batches.push_back(Batch { records, bytes });
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.bytes -= oldest.bytes;
            forgotten.push(oldest.records);
        }
    }

    /// The batch that holds a position, and where in it.
    fn find(&self, position: Position) -> Option<(usize, usize)> {
        let after = self.batches.partition_point(|batch| batch.records[0].position <= position);
        let index = after.checked_sub(1)?;
        let records = &self.batches[index].records;
        let at = usize::try_from(position.get() - records[0].position.get()).ok()?;
        (at < records.len()).then_some((index, at))
    }

    pub(crate) fn get(&self, position: Position) -> Option<&Record> {
        self.find(position).map(|(index, at)| &self.batches[index].records[at])
    }

    /// Records from `from` on, if the ring reaches back to it.
    pub(crate) fn range(&self, from: Position, limit: usize) -> Option<Vec<Record>> {
        let (index, at) = self.find(from)?;
        let batches = self.batches.iter().skip(index);
        Some(batches.flat_map(|batch| &batch.records).skip(at).take(limit).cloned().collect())
    }
}

/// The durable state of a journal.
pub(crate) struct View {
    pub(crate) durable: Position,
    pub(crate) chain: u64,
    pub(crate) heads: HeadMap,
    pub(crate) ring: Ring,
    pub(crate) stats: LogStats,
    /// Why batches are refused at present though the log goes on (no space).
    pub(crate) refusal: Option<Unavailable>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::shape::{append, event, stream};
    use crate::gate::{self, Owned};
    use crate::types::Epoch;

    /// Batches of 1, 2 and 3 records: positions 1, 2 to 3, and 4 to 6.
    fn ring(bytes_max: usize) -> Ring {
        let mut ring = Ring::new(bytes_max);
        let mut first = 1;
        for count in 1..=3u64 {
            let mut records = Vec::with_capacity(count as usize);
            let mut append = append(stream(count), Epoch::ZERO, 0, (0..count).map(event));
            gate::place(&mut append, Owned::default(), Position::new(first), &mut records);
            ring.push(records, 100, &mut Vec::new());
            first += count;
        }
        ring
    }

    fn positions(ring: &Ring, from: u64, limit: usize) -> Option<Vec<u64>> {
        let records = ring.range(Position::new(from), limit)?;
        Some(records.iter().map(|record| record.position.get()).collect())
    }

    #[test]
    fn records_are_found_across_batches() {
        let ring = ring(1 << 20);
        for position in 1..=6 {
            let position = Position::new(position);
            assert_eq!(ring.get(position).map(|record| record.position), Some(position));
        }
        assert!(ring.get(Position::ZERO).is_none() && ring.get(Position::new(7)).is_none());
        let table: [(u64, usize, Option<&[u64]>); 5] = [
            (1, 10, Some(&[1, 2, 3, 4, 5, 6])),
            (3, 3, Some(&[3, 4, 5])),
            (6, 1, Some(&[6])),
            (2, 0, Some(&[])),
            (7, 1, None),
        ];
        for (from, limit, expected) in table {
            assert_eq!(positions(&ring, from, limit).as_deref(), expected, "{limit} from {from}");
        }
    }

    #[test]
    fn the_oldest_batches_go_first_and_whole() {
        let three = 100 + 3 * size_of::<Record>();
        assert_eq!(positions(&ring(three), 4, 9), Some(vec![4, 5, 6]));
        assert_eq!(positions(&ring(three), 3, 9), None, "it does not reach back to it");
        assert_eq!(positions(&ring(three - 1), 4, 9), None, "a batch that does not fit is not kept");
    }
}
