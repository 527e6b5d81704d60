//! What can be rebuilt from the log, kept to save time: stream index, snapshots, rows of projections.
//!
//! The one idea: **deleting the cache costs time and nothing else.** Whatever it says is checked against the
//! log or by a checksum; what it gets wrong is thrown away as a whole and built again.
//!
//! Invariants:
//! * rows and checkpoint of a projection change together or not at all;
//! * request ids are indexed in the same step as the streams of their records;
//! * the stream index grows in position order without gap, together with its own checkpoint;
//! * nothing in here is ever needed to accept or to fence an append.

#[cfg(test)]
mod destroyed;
mod mem;
#[cfg(test)]
mod pitfalls;
mod rebuild;
mod runs;
mod sealed;
mod sled_cache;
#[cfg(test)]
mod tests;

pub use mem::MemCache;
pub use rebuild::{CatchUpError, catch_up};
pub use sled_cache::{CacheReport, SledCache};

use crate::types::{Position, Record, StreamId, Version};
use bytes::Bytes;

/// Longest name of a projection.
pub const PROJECTION_BYTES_MAX: usize = 64;
/// Longest key of a row.
pub const ROW_KEY_BYTES_MAX: usize = 1 << 10;
/// Largest value of a row, and largest snapshot.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Why the cache did not answer. None of these is a reason to stop: ask the log instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// What is stored contradicts itself or its checksum. [`Cache::distrust`] it.
    #[error("the cache contradicts itself: {0}")]
    Contradiction(String),
    /// The database underneath failed.
    #[error("the cache's database failed: {0}")]
    Engine(String),
    /// The caller broke a bound or an order; nothing was changed.
    #[error("the cache refused: {0}")]
    Refused(String),
}

/// State of a stream's entity at one version, to shorten replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Version of the stream that is folded in.
    pub version: Version,
    /// Position of that version's record.
    pub position: Position,
    /// Version of the fold that made it; another fold ignores it.
    pub fold: u32,
    /// The state, encoded by the caller. At most [`VALUE_BYTES_MAX`].
    pub state: Bytes,
}

/// A row of a projection: key and value.
pub type Row = (Bytes, Bytes);

/// Rows of a projection in order of their keys. They are read as the caller goes; changes made meanwhile may
/// or may not be seen.
pub type Rows = Box<dyn Iterator<Item = Result<Row, CacheError>> + Send>;

/// A rebuildable store beside the log.
pub trait Cache: Send + Sync + 'static {
    /// Last position in the stream index.
    fn indexed(&self) -> Result<Position, CacheError>;

    /// Adds records to the stream index. They start right behind [`Cache::indexed`] and are without gap.
    fn index(&self, records: &[Record]) -> Result<(), CacheError>;

    /// Positions of a stream's versions from `from` on, at most `limit`; fewer if the index is behind.
    fn positions(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Position>, CacheError>;

    /// Position of the first record that was appended for a request, as far as the stream index reaches. The
    /// caller reads the record there, and believes that one. An implementation that keeps none knows none.
    fn request(&self, request: [u8; 16]) -> Result<Option<Position>, CacheError> {
        let _ = request;
        Ok(None)
    }

    /// The snapshot of a stream, if there is a whole one.
    fn snapshot(&self, stream: StreamId) -> Result<Option<Snapshot>, CacheError>;

    /// Replaces the snapshot of a stream.
    fn put_snapshot(&self, stream: StreamId, snapshot: &Snapshot) -> Result<(), CacheError>;

    /// Forgets the snapshot of a stream.
    fn remove_snapshot(&self, stream: StreamId) -> Result<(), CacheError>;

    /// Changes rows of a projection and moves its checkpoint, in one step. Deletes come before puts.
    fn apply(
        &self,
        projection: &str,
        checkpoint: Position,
        puts: &[Row],
        deletes: &[Bytes],
    ) -> Result<(), CacheError>;

    /// The value of one row.
    fn row(&self, projection: &str, key: &[u8]) -> Result<Option<Bytes>, CacheError>;

    /// All rows of a projection.
    fn rows(&self, projection: &str) -> Result<Rows, CacheError>;

    /// The position a projection has reached; zero if it never was applied.
    fn checkpoint(&self, projection: &str) -> Result<Position, CacheError>;

    /// Forgets a projection.
    fn clear(&self, projection: &str) -> Result<(), CacheError>;

    /// Forgets everything: something in it proved wrong. Everybody builds again from the log.
    fn distrust(&self, why: &str);

    /// How often [`Cache::distrust`] was called since opening.
    fn distrusted(&self) -> u64;

    /// Writes out what it was given. Blocks. A cache that is not asked to does it by itself soon after; what a stop
    /// comes before is built again from the log.
    fn flush(&self) -> Result<(), CacheError> {
        Ok(())
    }
}

/// Checks the bounds every implementation shares.
fn check_rows(projection: &str, puts: &[Row], deletes: &[Bytes]) -> Result<(), CacheError> {
    check_projection(projection)?;
    let keys = puts.iter().map(|(key, _)| key).chain(deletes);
    if let Some(key) = keys.into_iter().find(|key| key.len() > ROW_KEY_BYTES_MAX) {
        return Err(CacheError::Refused(format!(
            "a key of {} bytes; at most {ROW_KEY_BYTES_MAX}",
            key.len()
        )));
    }
    puts.iter().try_for_each(|(_, value)| check_value(value))
}

fn check_projection(projection: &str) -> Result<(), CacheError> {
    if projection.is_empty() || projection.len() > PROJECTION_BYTES_MAX {
        let bytes = projection.len();
        return Err(CacheError::Refused(format!(
            "a projection name of {bytes} bytes; 1 to {PROJECTION_BYTES_MAX}"
        )));
    }
    Ok(())
}

fn check_value(value: &[u8]) -> Result<(), CacheError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(CacheError::Refused(format!(
            "a value of {} bytes; at most {VALUE_BYTES_MAX}",
            value.len()
        )));
    }
    Ok(())
}

/// Checks that records continue the index.
fn check_continues(indexed: Position, records: &[Record]) -> Result<(), CacheError> {
    let is_next = records.iter().zip(indexed.get() + 1..).all(|(record, next)| record.position.get() == next);
    if is_next {
        Ok(())
    } else {
        Err(CacheError::Refused(format!("records that do not continue position {indexed}")))
    }
}
