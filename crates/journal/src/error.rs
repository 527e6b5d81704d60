//! Why a record cannot be read. Always names the record, so that an operator can find it.

use eventlog::{CodecId, Position, StreamId};

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the event at position {position} of stream {stream} (kind {kind}, schema {schema}) cannot be read: {problem}"
)]
pub struct DecodeError {
    /// Where it is.
    pub position: Position,
    /// Its stream.
    pub stream: StreamId,
    /// Its kind, as stored.
    pub kind: u16,
    /// Its schema, as stored.
    pub schema: u16,
    /// What is wrong.
    pub problem: DecodeProblem,
}

/// What is wrong with stored bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeProblem {
    /// A newer build wrote it.
    #[error("a newer build wrote it (this build knows schemas up to {known}); run that build or a later one")]
    NewerSchema {
        /// Newest schema known here.
        known: u16,
    },
    /// No event has this kind.
    #[error("no event of this kind is known; a newer build may know it")]
    UnknownKind,
    /// Another codec wrote it.
    #[error("codec {} is not known; a newer build may know it", .0.0)]
    UnknownCodec(CodecId),
    /// The stream is of no known sort.
    #[error("streams of this sort are not known; a newer build may know them")]
    UnknownStream,
    /// The event is of another sort of stream, or about another entity.
    #[error("it does not belong into this stream; verify the log")]
    WrongStream,
    /// The bytes are no such value.
    #[error("its bytes are malformed ({0}); verify the log")]
    Malformed(String),
}
