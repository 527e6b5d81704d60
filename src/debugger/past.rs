//! Where the past is read from: a stopped directory, an export, a backup, or a running daemon.
//!
//! Invariant: nothing that is read is changed; a backup is read from a copy, because a journal is more than its
//! segments.

use super::args::PastArgs;
use super::live::Live;
use crate::archive;
use crate::exit::{Exit, Failure};
use crate::log_tools::portable_failure;
use crate::store::{is_critical, open_failure};
use eventlog::portable::{self, ExportReader};
use eventlog::{JournalReader, StoreLock};
use replay::{Found, Source, find_instance};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A stopped data directory.
pub struct Stopped {
    _lock: StoreLock,
    /// Its journal.
    pub reader: JournalReader,
}

/// A copy of a backup, which goes away with this.
pub struct Restored {
    _copy: TempDir,
    /// Its journal.
    pub reader: JournalReader,
}

/// Where the past is read from.
pub enum Past {
    /// A stopped directory, and its path.
    Directory(Stopped, PathBuf),
    /// An export.
    Export(ExportReader),
    /// A backup.
    Backup(Restored),
    /// A running daemon.
    Live(Live),
}

impl Past {
    /// Opens what the flags name.
    pub async fn open(args: &PastArgs) -> Result<Self, Failure> {
        if args.live {
            return Ok(Self::Live(Live::open(&args.server).await?));
        }
        match (&args.file, &args.backup) {
            (Some(file), _) => Self::export(file),
            (None, Some(backup)) => Self::backup(backup),
            (None, None) => Ok(Self::Directory(Stopped::open(&args.data)?, args.data.clone())),
        }
    }

    /// Opens an export that begins where the log does.
    pub fn export(file: &Path) -> Result<Self, Failure> {
        let reader = ExportReader::open(file).map_err(portable_failure)?;
        if reader.first().get() > 1 {
            let what = format!("{} begins at position {}", file.display(), reader.first());
            return Err(Failure::new(Exit::Refused, what).hint(
                "states are folded from position 1: make one with `musher log export` without --from",
            ));
        }
        Ok(Self::Export(reader))
    }

    fn backup(from: &Path) -> Result<Self, Failure> {
        let copy = tempfile::tempdir()
            .map_err(|error| Failure::new(Exit::Refused, format!("no room for a copy: {error}")))?;
        let journal = copy.path().join("journal");
        portable::restore(from, &journal).map_err(portable_failure)?;
        let reader = JournalReader::open_damaged(&journal, is_critical).map_err(open_failure)?;
        Ok(Self::Backup(Restored { _copy: copy, reader }))
    }

    /// What is read.
    pub fn source(&self) -> &dyn Source {
        match self {
            Self::Directory(stopped, _) => &stopped.reader,
            Self::Export(reader) => reader,
            Self::Backup(restored) => &restored.reader,
            Self::Live(live) => live,
        }
    }

    /// The instance that is named: by id, by the beginning of an id, or by name, the newest of that name.
    pub fn find(&self, project: &str, named: &str) -> Result<lifecycle::InstanceId, Failure> {
        match find_instance(self.source(), project, named).map_err(|error| self.failure(error))? {
            Found::One(id) => Ok(id),
            Found::Several => {
                let what = format!("\"{named}\" is the beginning of several ids");
                Err(Failure::new(Exit::Refused, what).hint("give more characters"))
            }
            Found::Nothing => {
                let what = format!("the log holds no instance \"{named}\" in project \"{project}\"");
                let hint = "name the project with --project, or give the instance's id";
                Err(Failure::new(Exit::Refused, what).hint(hint))
            }
        }
    }

    /// A question about the past that has no answer is a refusal; a log that cannot be read is damage; a daemon
    /// that does not answer is out of reach.
    pub fn failure(&self, error: replay::Error) -> Failure {
        if let Self::Live(live) = self
            && let Some(failure) = live.trouble()
        {
            return failure;
        }
        let exit = match &error {
            replay::Error::Read { .. } | replay::Error::Decode(_) | replay::Error::Fold(_) => Exit::Damaged,
            replay::Error::NoSuchInstance(_)
            | replay::Error::NotYetCreated { .. }
            | replay::Error::NoSuchVersion { .. }
            | replay::Error::NoSuchPosition { .. } => Exit::Refused,
        };
        Failure::new(exit, error.to_string()).hint(match exit {
            Exit::Damaged => "`musher log verify` names every damaged place",
            _ => "`--history` shows every version, with its position and time",
        })
    }
}

impl Stopped {
    /// Locks the directory and opens its journal for reading.
    pub fn open(data: &Path) -> Result<Self, Failure> {
        if !data.join("journal").is_dir() {
            return Err(Failure::new(
                Exit::Refused,
                format!("{} is not a data directory of musher", data.display()),
            )
            .hint("name it with --data; an export is read with --file, a running daemon with --live"));
        }
        let lock = StoreLock::acquire(data).map_err(|error| {
            open_failure(error).hint(
                "a running daemon answers for it: `musher replay --live`, `musher instance history`, \
                 `musher log stats`",
            )
        })?;
        let reader = JournalReader::open_damaged(&data.join("journal"), is_critical).map_err(open_failure)?;
        archive::attach_reader(&reader, data)?;
        Ok(Self { _lock: lock, reader })
    }
}
