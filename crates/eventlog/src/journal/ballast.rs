//! A file that only takes up room: given up so that the last writes of a close fit on a full disk.
//!
//! Invariants:
//! * it is given up only for a heads checkpoint; appends never get its room;
//! * that it cannot be made is no reason not to open: a disk that full refuses appends anyway.

use super::files::{Files, write_zeros};
use super::format::BALLAST_NAME;
use std::io;
use std::path::Path;

/// Sees to it that the file is there and has its size; zero removes it.
pub(crate) fn ensure(files: &dyn Files, dir: &Path, bytes: u64) -> io::Result<()> {
    let path = dir.join(BALLAST_NAME);
    let held = match files.open_read(&path) {
        Ok(file) => Some(file.size()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    match (held, bytes) {
        (None, 0) => Ok(()),
        (Some(_), 0) => files.remove(&path),
        (Some(held), _) if held == bytes => Ok(()),
        _ => {
            let file = files.create(&path)?;
            let made = write_zeros(&*file, 0, bytes).and_then(|()| file.sync());
            made.inspect_err(|_| {
                // Half of it would look like room to give up.
                drop(files.remove(&path));
            })
        }
    }
}

/// Gives its room back.
pub(crate) fn release(files: &dyn Files, dir: &Path) -> io::Result<()> {
    files.remove(&dir.join(BALLAST_NAME))?;
    files.sync_dir(dir)
}
