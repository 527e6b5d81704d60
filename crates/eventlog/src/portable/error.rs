//! Why an export, import, backup or restore was not done.

use crate::journal::{OpenError, StoreId};
use crate::log::ReadError;
use crate::types::Position;
use std::io;
use std::path::PathBuf;

/// Why nothing came of it. What was written before is left under a temporary name, never under the final one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    /// The bytes of an export could not be written or read.
    #[error("{doing} the export failed: {source}")]
    Stream {
        /// What was tried, as a participle.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The source could not be read.
    #[error("reading the log to export it failed: {0}")]
    Read(#[from] ReadError),
    /// The journal could not be opened or listed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The target holds something.
    #[error("{} is not empty; name an empty or a new directory", path.display())]
    NotEmpty {
        /// The target.
        path: PathBuf,
    },
    /// The file to write exists.
    #[error("{} exists; name a new file", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// An earlier run was interrupted.
    #[error("{} was left by an interrupted run; remove it and try again", path.display())]
    Leftover {
        /// The temporary directory.
        path: PathBuf,
    },
    /// The bytes do not start as an export does.
    #[error("this is not an export of a musher log")]
    NotAnExport,
    /// A later release wrote this.
    #[error("the {what} has format {found}, this build reads up to {known}; use the release that wrote it")]
    NewerFormat {
        /// `export` or `backup`.
        what: &'static str,
        /// Its format version.
        found: u32,
        /// Newest format version this build knows.
        known: u32,
    },
    /// The export ends before its trailer.
    #[error(
        "the export is cut off in frame {frame}: position {position} and all later ones are missing; copy it again"
    )]
    Truncated {
        /// Number of the frame that is not whole, from 1.
        frame: u64,
        /// First position that is not there.
        position: Position,
    },
    /// The export is not as it was written.
    #[error(
        "the export is damaged in frame {frame}, at position {position} or after it: {detail}; copy it again"
    )]
    Damaged {
        /// Number of the frame, from 1.
        frame: u64,
        /// First position that cannot be believed.
        position: Position,
        /// What is wrong.
        detail: String,
    },
    /// The export starts later than the log did.
    #[error("the export starts at position {first}; only one from position 1 can be imported")]
    NotFromStart {
        /// Its first position.
        first: Position,
    },
    /// The position to start from lies beyond the end.
    #[error("position {asked} is beyond the end of the log, which is {durable}")]
    BeyondEnd {
        /// What was asked for.
        asked: Position,
        /// Last position of the log.
        durable: Position,
    },
    /// A segment of the journal is damaged, and is not copied into a backup.
    #[error(
        "segment {segment} is damaged at offset {offset}, position {position}: {detail}; nothing was backed up"
    )]
    SegmentDamaged {
        /// File name of the segment.
        segment: String,
        /// Bytes from its start.
        offset: u64,
        /// First position that cannot be read.
        position: Position,
        /// What is wrong.
        detail: &'static str,
    },
    /// The journal ends before the position to back up.
    #[error("the journal ends at position {found}, the backup was to reach {asked}")]
    JournalShort {
        /// What was asked for.
        asked: Position,
        /// Last position found.
        found: Position,
    },
    /// The backup directory belongs to another store.
    #[error("{} holds backups of store {found}, not of {expected}; name another directory", path.display())]
    OtherStore {
        /// The backup directory.
        path: PathBuf,
        /// The store it belongs to.
        found: StoreId,
        /// The store to back up.
        expected: StoreId,
    },
    /// The backup is ahead of the journal, or remembers another history.
    #[error("{} holds a backup up to position {found}, the journal has {journal}; name another directory", path.display())]
    OtherHistory {
        /// The backup directory.
        path: PathBuf,
        /// Position of the backup.
        found: Position,
        /// Position of the journal.
        journal: Position,
    },
    /// There is no backup.
    #[error("{} holds no backup: its manifest is missing", path.display())]
    NoBackup {
        /// The directory.
        path: PathBuf,
    },
    /// The manifest is not as it was written.
    #[error("the manifest {} is damaged in line {line}: {detail}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        detail: &'static str,
    },
    /// A file of the backup is not as it was written.
    #[error("{} holds positions {first} to {last} and is not as it was written: {detail}", path.display())]
    BackupDamaged {
        /// The file.
        path: PathBuf,
        /// First position in it.
        first: Position,
        /// Last position in it.
        last: Position,
        /// What is wrong.
        detail: String,
    },
    /// What was written does not verify.
    #[error("what was written to {} is not what was to be written: {problem}", path.display())]
    NotVerified {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
