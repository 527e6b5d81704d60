//! Why a checkpoint is of no use, and why none could be made.

use eventlog::{Position, ReadError};

/// Why a checkpoint is of no use. Never an error for users: an older one is used, or the log folded from its
/// beginning.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The operating system refused.
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// Its bytes are not what was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Another build wrote it, in a layout or with a fold that this one does not have.
    #[error("another build made it: {0}")]
    OtherBuild(String),
    /// It belongs to another store.
    #[error("it belongs to another store")]
    OtherStore,
    /// The log ends before it.
    #[error("it is at position {position}, and the log ends at {durable}")]
    BeyondEnd {
        /// Where it is.
        position: Position,
        /// Where the log ends.
        durable: Position,
    },
    /// The log holds another record at its position, or cannot say which.
    #[error("the log does not hold the record that it ends with")]
    OtherHistory,
}

/// Why no checkpoint was made. Those that are there stay.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The log cannot be read up to there.
    #[error("the log cannot be folded: {0}")]
    Read(#[from] ReadError),
    /// An event cannot be understood.
    #[error("the log cannot be folded: {0}")]
    Decode(#[from] journal::DecodeError),
    /// A record is not the next one.
    #[error("the log cannot be folded: {0}")]
    OutOfOrder(#[from] projections::OutOfOrder),
    /// The file cannot be written.
    #[error("the checkpoint cannot be written: {0}")]
    Io(#[from] std::io::Error),
}
