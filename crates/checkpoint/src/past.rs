//! The log as checkpoints see it: records by position.

use eventlog::{JournalReader, Log, Position, ReadError, Record};
use std::sync::Arc;

/// A log that can be read from any position on: a daemon's, or a stopped directory's.
pub trait Past {
    /// Reads from position `from` (inclusive), at most `limit` records; empty beyond the end.
    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError>;

    /// Last durable position.
    fn durable(&self) -> Position;
}

impl Past for JournalReader {
    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        Self::read_all(self, from, limit)
    }

    fn durable(&self) -> Position {
        Self::durable(self)
    }
}

impl<L: Log + ?Sized> Past for Arc<L> {
    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        (**self).read_all(from, limit)
    }

    fn durable(&self) -> Position {
        (**self).durable()
    }
}
