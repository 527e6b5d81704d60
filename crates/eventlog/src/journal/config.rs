//! What a journal is told when it opens, and what it says it found.

use super::error::{Damage, OpenError, StoreId};
use crate::types::{LIMITS, Position, StreamId};

/// Smallest segment: tests roll over often; a daemon asks for 1 MiB or more.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// Largest segment: offsets within one are kept in 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The first segment of a store is no larger than this, so that a small store is small.
pub const FIRST_SEGMENT_BYTES_MAX: u64 = 4 << 20;

/// How a journal behaves.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Identity given to a store that does not exist yet.
    pub create_as: StoreId,
    /// Refuse a store with another identity than this.
    pub expect: Option<StoreId>,
    /// Bytes of a segment, [`SEGMENT_BYTES_MIN`] to [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// Most requests that wait for the writer; more are answered `QueueFull`.
    pub queue_requests_max: usize,
    /// Most bytes of records that wait for the writer; more are answered `QueueFull`.
    pub queue_bytes_max: usize,
    /// Bytes of the newest records kept in memory for readers and followers.
    pub ring_bytes_max: usize,
    /// Bytes of journal after which the heads are written down, to shorten recovery.
    pub heads_every_bytes: u64,
    /// Milliseconds after which the tail witness is renewed while there is something to witness.
    pub witness_every_ms: u64,
    /// Bytes of the file that is given up to close on a full disk; zero for none.
    pub ballast_bytes: u64,
    /// Open even though durable records at the tail are gone. What was lost is in [`Recovery::lost`], for
    /// the caller to record.
    pub accept_loss: bool,
    /// Streams that nothing goes on without: damage to one of them refuses the opening. Every stream by
    /// default; a caller that deals with [`crate::ReadError::Damaged`] and quarantined streams names fewer.
    pub critical: fn(StreamId) -> bool,
}

impl JournalConfig {
    /// The defaults, for a store that gets the identity `create_as` if it does not exist yet.
    pub fn new(create_as: StoreId) -> Self {
        Self {
            create_as,
            expect: None,
            segment_bytes: 64 << 20,
            queue_requests_max: 16_384,
            queue_bytes_max: 32 << 20,
            ring_bytes_max: 32 << 20,
            heads_every_bytes: 64 << 20,
            witness_every_ms: 1_000,
            ballast_bytes: 1 << 20,
            accept_loss: false,
            critical: |_| true,
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |why: String| Err(OpenError::Config(why));
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            let bytes = self.segment_bytes;
            return refuse(format!("segments of {bytes} bytes; {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"));
        }
        if self.queue_requests_max == 0 || self.queue_bytes_max < LIMITS.batch_bytes_max {
            return refuse(format!(
                "a queue of {} requests and {} bytes; at least 1 and {}",
                self.queue_requests_max, self.queue_bytes_max, LIMITS.batch_bytes_max
            ));
        }
        Ok(())
    }
}

/// An incomplete batch at the end of the journal, cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Where it was, and what showed that it is incomplete. Nobody was told that it is durable.
    pub place: Damage,
    /// Bytes cut off.
    pub bytes: u64,
}

/// Durable records that are gone from the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailLoss {
    /// Last position known to have been durable.
    pub witnessed: Position,
    /// Last position found.
    pub found: Position,
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the store was created just now.
    pub is_created: bool,
    /// Last durable position.
    pub durable: Position,
    /// Oldest position that is here; what was before it is archived.
    pub oldest: Position,
    /// Number of streams.
    pub streams: u64,
    /// Number of segments.
    pub segments: u64,
    /// Position of the heads checkpoint that recovery started from, if there was a valid one.
    pub checkpoint: Option<Position>,
    /// Number of records read to recover.
    pub scanned: u64,
    /// The incomplete last batch, if there was one.
    pub trimmed: Option<Trimmed>,
    /// Durable records that are gone; only with [`JournalConfig::accept_loss`].
    pub lost: Option<TailLoss>,
    /// Damaged places before the end, with their positions and streams; the bytes are as they were found.
    pub damaged: Vec<Damage>,
    /// Streams that lost a record there: neither read nor extended.
    pub quarantined: Vec<StreamId>,
    /// Lost positions of streams that nothing names; only with [`JournalConfig::accept_loss`], and after it.
    pub nameless: u64,
    /// Anything else worth telling: unreadable checkpoints, leftovers of an interrupted preparation.
    pub notes: Vec<String>,
}
