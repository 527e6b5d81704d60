//! Nouns of the log: streams, versions, positions, events as appended and records as read.

use bytes::Bytes;
use std::cmp::Ordering;
use std::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Before the first.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw number, for decoders and tests.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The raw number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The one that follows.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

counter! {
    /// Place in the whole log, gapless, from 1. Zero means "before the first".
    Position
}
counter! {
    /// Place in one stream, gapless, from 1. Zero means "the stream is empty".
    Version
}
counter! {
    /// Incarnation of a stream's owner. A larger one fences every smaller one.
    Epoch
}

/// What sort of entity a stream belongs to. The log gives it no meaning; 0 is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKind(pub u8);

/// Name of a stream: the events of one entity, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// Sort of entity.
    pub kind: StreamKind,
    /// The entity, as 16 opaque bytes (a UUID in practice).
    pub id: [u8; 16],
}

impl StreamId {
    /// Names a stream.
    pub const fn new(kind: StreamKind, id: [u8; 16]) -> Self {
        Self { kind, id }
    }
}

/// By kind, then by bytes. Every append looks its stream up several times: the bytes are compared as one number,
/// which is several times faster than a byte by byte comparison.
impl Ord for StreamId {
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |stream: &Self| u128::from_be_bytes(stream.id);
        self.kind.cmp(&other.kind).then_with(|| number(self).cmp(&number(other)))
    }
}

impl PartialOrd for StreamId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.kind.0)?;
        self.id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which codec wrote a payload, so that another can take over per event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodecId(pub u8);

/// Which event caused this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing in the log did (a request from outside).
    None,
    /// The event at this position.
    Position(Position),
    /// The event with this index in the same append; resolved to its position when it is written.
    InAppend(u16),
}

/// One event to append. `kind` and `schema` name the layout of `payload`; the log does not look inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Type of the event.
    pub kind: u16,
    /// Schema version of that type.
    pub schema: u16,
    /// Codec of the payload.
    pub codec: CodecId,
    /// Recorded time, microseconds since the Unix epoch, from the caller's clock.
    pub time_us: u64,
    /// What caused it.
    pub cause: Cause,
    /// The encoded event.
    pub payload: Bytes,
}

/// W3C trace context, as it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace id.
    pub trace_id: [u8; 16],
    /// Parent span id.
    pub span_id: [u8; 8],
    /// Trace flags.
    pub flags: u8,
}

/// What is recorded once per append: who, on whose behalf, and the input that was decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendContext {
    /// Who did it, encoded by the caller. At most [`Limits::actor_bytes_max`].
    pub actor: Bytes,
    /// Request id.
    pub request: Option<[u8; 16]>,
    /// Saga id and step, if a saga did it.
    pub saga: Option<([u8; 16], u16)>,
    /// Trace context.
    pub trace: Option<TraceContext>,
    /// Build version of the writer. At most [`Limits::build_bytes_max`].
    pub build: Bytes,
    /// The input that was decided on, encoded by the caller, so that history can be decided again.
    pub input: Bytes,
}

/// One append: events of one stream, all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// The writer's incarnation, from [`crate::Log::claim`].
    pub epoch: Epoch,
    /// The version the writer believes to be the head.
    pub expected: Version,
    /// One to [`Limits::append_events_max`] events.
    pub events: Vec<NewEvent>,
    /// Recorded with the first of the events.
    pub context: AppendContext,
}

/// Why an append was refused without being written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The append breaks a limit of [`Limits`]; trying again will not help.
    #[error("append refused: {0}")]
    TooLarge(String),
    /// The bounded queue of the writer is full; try again later.
    #[error("append refused: the log's queue is full")]
    QueueFull,
    /// There is no space for another batch. Recovers by itself when there is.
    #[error("append refused: no space left for the log ({0})")]
    NoSpace(String),
    /// A sync failed: what is on disk is unknown. Only opening the log again helps.
    #[error("append refused: the log is poisoned ({0})")]
    Poisoned(String),
    /// The stream's records are damaged; it can be neither folded nor extended.
    #[error("append refused: stream {0} is quarantined")]
    Quarantined(StreamId),
    /// The log is closed.
    #[error("append refused: the log is closed")]
    Closed,
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Durable. The events have positions `first..=last`; the stream's head is `version`.
    Appended {
        /// Position of the first event.
        first: Position,
        /// Position of the last event.
        last: Position,
        /// New head of the stream.
        version: Version,
    },
    /// The stream's head is another version. Nothing was written.
    Conflict {
        /// The head.
        actual: Version,
    },
    /// A younger owner has claimed the stream. Nothing was written.
    Fenced {
        /// The owner's epoch.
        current: Epoch,
    },
    /// The writer died between write and answer: it may or may not be there. Reload; never assume.
    Unknown,
    /// Refused; nothing was written.
    Unavailable(Unavailable),
}

/// Answer to [`crate::Log::claim`]: the caller owns the stream from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Epoch to append under. Every earlier claim of the stream is fenced.
    pub epoch: Epoch,
    /// Head of the stream at the claim, after everything queued before it has been decided.
    pub head: Head,
}

/// Newest event of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its version; zero if the stream is empty.
    pub version: Version,
    /// Its position; zero if the stream is empty.
    pub position: Position,
}

/// An event as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Place in the log.
    pub position: Position,
    /// The stream.
    pub stream: StreamId,
    /// Place in the stream.
    pub version: Version,
    /// Place of the previous event of the same stream; zero for the first.
    pub previous: Position,
    /// Place of the event that caused it; zero if none.
    pub cause: Position,
    /// Type of the event.
    pub kind: u16,
    /// Schema version of that type.
    pub schema: u16,
    /// Codec of the payload.
    pub codec: CodecId,
    /// Recorded time, microseconds since the Unix epoch.
    pub time_us: u64,
    /// Index within its append, and the number of events in that append.
    pub index: (u16, u16),
    /// Present on the first event of each append.
    pub context: Option<AppendContext>,
    /// The encoded event.
    pub payload: Bytes,
}

/// Bounds of the format. Everything that comes off a disk or a wire is checked against them first.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest record, envelope included.
    pub record_bytes_max: usize,
    /// Largest batch (one group commit).
    pub batch_bytes_max: usize,
    /// Most events in one append.
    pub append_events_max: usize,
    /// Largest encoded actor.
    pub actor_bytes_max: usize,
    /// Longest build version.
    pub build_bytes_max: usize,
}

/// The bounds of this format version.
pub const LIMITS: Limits = Limits {
    record_bytes_max: 1 << 20,
    batch_bytes_max: 4 << 20,
    append_events_max: 256,
    actor_bytes_max: 255,
    build_bytes_max: 64,
};
