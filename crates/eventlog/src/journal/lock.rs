//! One process per store: an advisory lock on a file, held to exit.
//!
//! Invariants:
//! * the lock is taken before anything of the store is read;
//! * the system releases it when the process ends, however it ends: a stale pid in the file locks nobody out.

use super::error::OpenError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Longest text read back from a lock file: a pid and a line end.
const HOLDER_BYTES_MAX: u64 = 32;

/// The exclusive right to a store; released when dropped or when the process ends.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Locks the file `LOCK` in `dir`, which must exist, and writes the process id into it. Fails with
    /// [`OpenError::InUse`] at once if another holder is alive.
    pub fn acquire(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("LOCK");
        let io = |doing, source| OpenError::io(doing, &path, source);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|source| io("opening", source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { holder: holder(&mut file), path });
            }
            Err(TryLockError::Error(source)) => return Err(io("locking", source)),
        }
        file.set_len(0).map_err(|source| io("writing", source))?;
        file.seek(SeekFrom::Start(0)).map_err(|source| io("writing", source))?;
        writeln!(file, "{}", std::process::id()).map_err(|source| io("writing", source))?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(HOLDER_BYTES_MAX).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("pid {pid}"),
        // The holder may be between taking the lock and writing its pid.
        _ => "pid not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_is_refused_and_told_who_holds_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let held = StoreLock::acquire(dir.path()).unwrap();
        let refused = StoreLock::acquire(dir.path()).unwrap_err().to_string();
        let holder = format!("is in use by another musher process (pid {})", std::process::id());
        assert!(refused.contains(&holder), "{refused}");
        drop(held);
        StoreLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_lock_file_left_by_a_dead_process_locks_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("LOCK"), "4000000 and more text than a pid takes").unwrap();
        StoreLock::acquire(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("LOCK")).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = StoreLock::acquire(&dir.path().join("absent")).unwrap_err();
        assert!(error.to_string().contains("absent/LOCK"), "{error}");
    }
}
