//! Making a directory appear whole or not at all.
//!
//! ```text
//! <target>.partial ── filled, verified, synced ──▶ renamed to <target>
//! ```
//!
//! Invariants:
//! * the target is absent or empty when it is replaced;
//! * a failure leaves the target as it was, and no trace; a crash may leave a `.partial`, which the next run
//!   refuses to touch.

use super::error::Error;
use crate::journal::{JournalReader, VerifyReport};
use crate::types::Position;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A directory in the making.
pub(crate) struct Place {
    target: PathBuf,
    partial: PathBuf,
    is_finished: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be removed is refused by name the next time.
            drop(std::fs::remove_dir_all(&self.partial));
        }
    }
}

impl Place {
    /// Checks that the target may be made and creates the partial directory.
    pub(crate) fn begin(target: &Path) -> Result<Self, Error> {
        match std::fs::read_dir(target) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Error::NotEmpty { path: target.into() });
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("listing", target)(error)),
        }
        // Without the slash that a directory may be named with: behind it, the name would be one inside.
        let target: PathBuf = target.components().collect();
        let mut name = target.clone().into_os_string();
        name.push(".partial");
        let partial = PathBuf::from(name);
        if let Some(parent) = partial.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io("creating", parent))?;
        }
        // Only one of several runs makes it: the others leave it alone.
        match std::fs::create_dir(&partial) {
            Ok(()) => Ok(Self { target, partial, is_finished: false }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::Leftover { path: partial })
            }
            Err(error) => Err(Error::io("creating", &partial)(error)),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.partial
    }

    /// Verifies that the journal made is whole and ends at `last`, then gives it its name, durably.
    pub(crate) fn finish(mut self, last: Position) -> Result<VerifyReport, Error> {
        let not_verified = |problem| Error::NotVerified { path: self.target.clone(), problem };
        let report = JournalReader::verify_dir(&self.partial)?;
        if let Some(problem) = report.problem {
            return Err(not_verified(problem));
        }
        if report.durable != last {
            return Err(not_verified(format!("it ends at position {}, not at {last}", report.durable)));
        }
        sync_dir(&self.partial)?;
        std::fs::rename(&self.partial, &self.target).map_err(Error::io("renaming", &self.partial))?;
        self.is_finished = true;
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))?;
        Ok(report)
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("syncing", dir))
}
