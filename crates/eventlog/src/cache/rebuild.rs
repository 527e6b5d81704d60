//! Bringing the stream index up to the log.

use super::{Cache, CacheError};
use crate::log::{Log, ReadError};
use crate::types::Position;

/// Records indexed in one step: one batch of the database. What is new of a stream is written with what was known of
/// it, so the more of it comes at once the less each costs; a step is a few megabytes of records.
pub(super) const STEP_RECORDS: usize = 8_192;

/// Why the index was not brought up to date.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatchUpError {
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The cache could not be written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Indexes what the log has beyond the index, at most `steps_max` steps of 8,192 records, and answers the
/// position reached. An index beyond the log is thrown away first. Where the log
/// is damaged or archived the index ends: streams are then read by their back pointers, which costs time.
pub fn catch_up(log: &dyn Log, cache: &dyn Cache, steps_max: usize) -> Result<Position, CatchUpError> {
    let mut indexed = cache.indexed()?;
    if indexed > log.durable() {
        cache.distrust("its stream index lies beyond the end of the log");
        indexed = cache.indexed()?;
    }
    for _ in 0..steps_max {
        let records = match log.read_all(indexed.next(), STEP_RECORDS) {
            Ok(records) => records,
            Err(ReadError::Damaged { .. } | ReadError::Archived { .. }) => break,
            Err(error) => return Err(error.into()),
        };
        let Some(last) = records.last() else { break };
        cache.index(&records)?;
        indexed = last.position;
    }
    Ok(indexed)
}
