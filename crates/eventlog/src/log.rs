//! The `Log` trait: small enough that a replicated engine can stand behind it.

use crate::types::{
    Append, AppendOutcome, Claim, Epoch, Head, Position, Record, StreamId, Unavailable, Version,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// A boxed future of the log. It completes when the writer answers; dropping it does not undo the request.
pub type LogFuture<T> = BoxFuture<'static, T>;

/// Records in position order, waiting at the durable end for more. Ends only when the log closes or
/// with an error.
pub type Follower = BoxStream<'static, Result<Record, ReadError>>;

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Records of the stream are damaged. The message names segment, offset and positions.
    #[error("stream {stream} is quarantined: {detail}")]
    Quarantined {
        /// The stream.
        stream: StreamId,
        /// Where and what.
        detail: String,
    },
    /// A record between the asked ones is damaged. A follower that answers this with `last` goes on behind
    /// it; whoever folds must take `streams` out of what it folds, or stop.
    #[error("the log is damaged at position {position}: {detail}")]
    Damaged {
        /// First position that cannot be read.
        position: Position,
        /// Last position that cannot be read. `None` if nobody has established it: only opening the log
        /// again does, and reading cannot go on.
        last: Option<Position>,
        /// Streams that lost a record there, all that are known; with `last` they are quarantined.
        streams: Vec<StreamId>,
        /// Where and what.
        detail: String,
    },
    /// The position lies before the oldest record kept.
    #[error("position {asked} is archived; the oldest here is {oldest}")]
    Archived {
        /// What was asked for.
        asked: Position,
        /// What is there.
        oldest: Position,
    },
    /// The operating system refused.
    #[error("reading the log failed: {0}")]
    Io(String),
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

/// Numbers about a log, for people and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Last durable position.
    pub durable: Position,
    /// Number of streams.
    pub streams: u64,
    /// Number of segments.
    pub segments: u64,
    /// Bytes of records written since the start of the store.
    pub bytes: u64,
    /// Group commits since opening.
    pub batches: u64,
    /// Appends answered `Appended` since opening.
    pub appends: u64,
    /// Syncs since opening.
    pub syncs: u64,
    /// How long these took together, microseconds; zero where no disk is.
    pub sync_micros: u64,
    /// Appends that wait for the writer.
    pub waiting: u64,
}

/// A durable, ordered log of streams.
///
/// All methods may be called from any task. `append` and `claim` go through the writer's queue in order.
pub trait Log: Send + Sync + 'static {
    /// Takes ownership of a stream: mints an epoch above every earlier one and answers the head as it is
    /// once everything queued before has been decided. It is the barrier read of a new incarnation: an
    /// append still in flight from a dead predecessor is either visible in `head`, or will be `Fenced`.
    fn claim(&self, stream: StreamId) -> LogFuture<Result<Claim, Unavailable>>;

    /// Appends all of `append.events`, or nothing. Resolves when that is durable or refused.
    fn append(&self, append: Append) -> LogFuture<AppendOutcome>;

    /// Durable head of a stream (zero if unknown).
    fn head(&self, stream: StreamId) -> Head;

    /// Owner epoch of a stream (zero if never claimed since opening).
    fn epoch(&self, stream: StreamId) -> Epoch;

    /// Reads a stream from version `from` (inclusive; 1 is the first), at most `limit` records, proving
    /// that versions are contiguous.
    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError>;

    /// Reads the whole log from position `from` (inclusive), at most `limit` records, in order. An
    /// empty answer means that `from` lies beyond the durable end. Where positions are damaged, the answer
    /// ends before them, and reading from the first of them is [`ReadError::Damaged`], which names the last.
    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError>;

    /// Follows the whole log from position `from` (inclusive). A damaged range whose end is known is one
    /// [`ReadError::Damaged`] item; the records behind it follow. Every other error is the last item.
    fn follow(&self, from: Position) -> Follower;

    /// Last durable position.
    fn durable(&self) -> Position;

    /// Resolves once the position is durable, or with the reason why it never will be.
    fn wait_durable(&self, position: Position) -> LogFuture<Result<(), Unavailable>>;

    /// Numbers for people.
    fn stats(&self) -> LogStats;

    /// Why the log refuses appends at present, if it does.
    fn refusal(&self) -> Option<Unavailable>;

    /// Streams that are quarantined, with the reason of each.
    fn quarantined(&self) -> Vec<(StreamId, String)>;

    /// Finishes what is queued, writes heads checkpoint and tail witness, refuses from then on.
    fn close(&self) -> LogFuture<()>;
}
