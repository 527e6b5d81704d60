//! What readers see: durable heads, the newest records, numbers. The writer replaces it after each sync.
//!
//! Invariants:
//! * everything here is durable;
//! * heads, ring and durable position change together, under one lock;
//! * the ring holds the newest records without gap up to the durable position, within its bytes.

use super::head_map::HeadMap;
use crate::log::LogStats;
use crate::record;
use crate::types::{Position, Record, Unavailable};
use std::collections::VecDeque;

/// The newest records.
pub(crate) struct Ring {
    records: VecDeque<Record>,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { records: VecDeque::new(), bytes: 0, bytes_max }
    }

    fn cost(record: &Record) -> usize {
        record::encoded_len(record.payload.len(), record.context.as_ref()) + size_of::<Record>()
    }

    pub(crate) fn extend(&mut self, records: impl Iterator<Item = Record>) {
        for record in records {
            self.bytes += Self::cost(&record);
            self.records.push_back(record);
        }
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= Self::cost(&oldest);
        }
    }

    pub(crate) fn get(&self, position: Position) -> Option<&Record> {
        let first = self.records.front()?.position;
        let index = position.get().checked_sub(first.get())?;
        self.records.get(usize::try_from(index).ok()?)
    }

    /// Records from `from` on, if the ring reaches back to it.
    pub(crate) fn range(&self, from: Position, limit: usize) -> Option<Vec<Record>> {
        self.get(from)?;
        let skip = (from.get() - self.records.front()?.position.get()) as usize;
        Some(self.records.iter().skip(skip).take(limit).cloned().collect())
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
