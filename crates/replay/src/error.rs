//! Why a question about the past has no answer. Always says where.

use eventlog::ReadError;
use journal::{DecodeError, FoldError};
use lifecycle::InstanceId;

/// Why a question about the past has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The log cannot be read there.
    #[error("cannot read {what}: {source}")]
    Read {
        /// What was asked for, with its position or version.
        what: String,
        /// What the log says.
        source: ReadError,
    },
    /// An event cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// An event cannot follow what is before it.
    #[error("{0}")]
    Fold(FoldError),
    /// The log has never heard of the instance.
    #[error("the log holds no instance with id \"{0}\"")]
    NoSuchInstance(InstanceId),
    /// The instance did not exist at that moment.
    #[error("instance {instance} did not exist at {asked}: it was created at position {position}, {created}")]
    NotYetCreated {
        /// The instance.
        instance: InstanceId,
        /// The moment, as people write it.
        asked: String,
        /// Position of its first event.
        position: u64,
        /// Recorded time of its first event, RFC 3339.
        created: String,
    },
    /// The stream does not have that version.
    #[error("instance {instance} has no version {version}: its newest is {head}")]
    NoSuchVersion {
        /// The instance.
        instance: InstanceId,
        /// What was asked for.
        version: u64,
        /// Its newest version.
        head: u64,
    },
    /// The log does not reach that position.
    #[error("the log has no position {position}: its last is {durable}")]
    NoSuchPosition {
        /// What was asked for.
        position: u64,
        /// The last durable position.
        durable: u64,
    },
}

impl From<FoldError> for Error {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Decode(error) => Self::Decode(error),
            poison @ FoldError::Poison { .. } => Self::Fold(poison),
        }
    }
}
