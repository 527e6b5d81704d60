//! Why a journal does not open.

use crate::types::{Position, StreamId};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Identity of a store: every segment carries it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// A damaged place in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// File name of the segment.
    pub segment: String,
    /// Bytes from the start of the segment to what is damaged.
    pub offset: u64,
    /// First position that cannot be read.
    pub first: Position,
    /// Last position that cannot be read, where it is known.
    pub last: Option<Position>,
    /// Streams known to have had records there; there may be others.
    pub streams: Vec<StreamId>,
    /// What is wrong.
    pub detail: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}, position {}", self.segment, self.offset, self.first)?;
        if let Some(last) = self.last.filter(|last| *last != self.first) {
            write!(f, " to {last}")?;
        }
        write!(f, ": {}", self.detail)?;
        if !self.streams.is_empty() {
            write!(f, "; streams known to be concerned:")?;
            self.streams.iter().try_for_each(|stream| write!(f, " {stream}"))?;
        }
        Ok(())
    }
}

/// Why a store or journal does not open. Nothing was changed, except where a variant says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the store.
    #[error("{} is in use by another musher process ({holder}); stop it, or use another data directory", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// The holder as far as it is known: `pid N`, or that it is not known.
        holder: String,
    },
    /// The operating system refused.
    #[error("{doing} {} failed: {source}", path.display())]
    Io {
        /// What was tried, as a participle.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory holds something that is not the journal's.
    #[error("{} is not part of a journal; move it away, or name the right directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// There is no journal in the directory.
    #[error("{} holds no journal", dir.display())]
    NoJournal {
        /// The directory.
        dir: PathBuf,
    },
    /// A later release wrote this.
    #[error(
        "segment {segment} has format {found}, this build reads up to {known}; use the release that wrote it"
    )]
    NewerFormat {
        /// File name of the segment.
        segment: String,
        /// Its format version.
        found: u32,
        /// Newest format version this build knows.
        known: u32,
    },
    /// A segment of another store lies among these.
    #[error("segment {segment} belongs to store {found}, not to {expected}; restore the files of one store")]
    WrongStore {
        /// File name of the segment.
        segment: String,
        /// The store it should belong to.
        expected: StoreId,
        /// The store it belongs to.
        found: StoreId,
    },
    /// Positions are missing between two segments, or before the first.
    #[error(
        "the segment that starts at position {expected} is missing: the next one is {found}{}; restore it",
        after.as_ref().map(|(name, offset)| format!(", the one before is {name} and ends at offset {offset}")).unwrap_or_default()
    )]
    MissingSegment {
        /// First missing position.
        expected: Position,
        /// File name of the next segment there is.
        found: String,
        /// File name of the segment before, if there is one, and where its records end: what is missing may
        /// be its end.
        after: Option<(String, u64)>,
    },
    /// Something durable cannot be read any more.
    #[error("the journal is damaged: {0}; restore the segment from a backup")]
    Damaged(Damage),
    /// The journal ends before a position that was durable.
    #[error(
        "the journal has lost its tail: position {witnessed} was durable, the last one found is {found}; \
         restore the files, or accept the loss explicitly"
    )]
    TailLost {
        /// Position that was durable.
        witnessed: Position,
        /// Last position found.
        found: Position,
    },
    /// The witness of the tail is missing or unreadable, so that nobody can say whether the tail is whole.
    #[error(
        "the tail witness of the journal is {state}, so nothing proves that its end ({found}) is its end; \
         restore the file, or accept the loss explicitly"
    )]
    WitnessLost {
        /// `missing` or `unreadable`.
        state: &'static str,
        /// Last position found.
        found: Position,
    },
    /// The configuration makes no sense.
    #[error("the journal's configuration is refused: {0}")]
    Config(String),
}

impl OpenError {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { doing, path: path.into(), source }
    }
}
