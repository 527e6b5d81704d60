//! Heads of streams while records pass by in order.
//!
//! Invariant: versions of a stream are gapless and each record points back at the one before, from the first
//! record of the stream that passes.

use crate::types::{Head, Position, Record, StreamId, Version};
use std::collections::BTreeMap;

/// Heads so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams {
    heads: BTreeMap<StreamId, Head>,
}

impl Streams {
    /// Takes the next record. `start` is the first position of all that pass.
    pub(crate) fn add(&mut self, record: &Record, start: Position) -> Result<(), String> {
        let before = self.heads.get(&record.stream).copied().unwrap_or_default();
        // The first record seen may follow others that lie before the start.
        let is_first = before.version == Version::ZERO;
        let follows = if is_first {
            record.previous < start
        } else {
            record.version == before.version.next() && record.previous == before.position
        };
        if !follows {
            let (stream, position) = (record.stream, record.position);
            return Err(format!(
                "position {position} does not follow the record before it in stream {stream}"
            ));
        }
        self.heads.insert(record.stream, Head { version: record.version, position: record.position });
        Ok(())
    }

    pub(crate) fn head(&self, stream: StreamId) -> Head {
        self.heads.get(&stream).copied().unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (StreamId, Head)> + '_ {
        self.heads.iter().map(|(&stream, &head)| (stream, head))
    }

    pub(crate) fn len(&self) -> u64 {
        self.heads.len() as u64
    }
}
