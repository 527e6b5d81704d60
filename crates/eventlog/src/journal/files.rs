//! The few file operations the journal makes, behind a trait, so that failing disks and power cuts can be
//! put under it.
//!
//! Invariants:
//! * nothing above this module opens, writes or syncs a file in another way;
//! * `write_at` and `read_at` may be short, as the system's are; callers loop;
//! * a created or renamed name is durable only after `sync_dir` of its directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// An open file.
pub(crate) trait Handle: Send + Sync {
    /// Reads at an offset; fewer bytes than asked for at the end or whenever the system likes.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset; answers how many bytes were taken.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize>;
    /// Forces contents and length to disk.
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
}

/// A directory tree.
pub(crate) trait Files: Send + Sync {
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates an empty file or empties an existing one, for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn Handle>>;
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn Handle>>;
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn Handle>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The operating system's files.
pub(crate) struct OsFiles;

/// What a journal is opened on: the system's files, in a build with failpoints under their rules.
pub(crate) fn of_the_system() -> Arc<dyn Files> {
    #[cfg(feature = "failpoints")]
    return Arc::new(crate::failpoints::files::Failing::new());
    #[cfg(not(feature = "failpoints"))]
    Arc::new(OsFiles)
}

impl Handle for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl Files for OsFiles {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn Handle>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(file))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn Handle>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn Handle>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// Reads until the buffer is full or the file ends; answers how much there was.
pub(crate) fn read_full(handle: &dyn Handle, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match handle.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A write that failed, and whether any byte of it may be in the file.
#[derive(Debug)]
pub(crate) struct WriteFailure {
    pub(crate) error: io::Error,
    pub(crate) is_partial: bool,
}

/// Writes the whole buffer.
pub(crate) fn write_full(handle: &dyn Handle, buffer: &[u8], offset: u64) -> Result<(), WriteFailure> {
    let mut done = 0;
    while done < buffer.len() {
        let error = match handle.write_at(&buffer[done..], offset + done as u64) {
            Ok(0) => io::Error::from(io::ErrorKind::WriteZero),
            Ok(written) => {
                done += written;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        return Err(WriteFailure { error, is_partial: done > 0 });
    }
    Ok(())
}

/// Fills a range with zeros.
pub(crate) fn write_zeros(handle: &dyn Handle, from: u64, to: u64) -> io::Result<()> {
    const CHUNK_BYTES: usize = 1 << 20;
    let zeros = vec![0u8; CHUNK_BYTES.min(to.saturating_sub(from) as usize)];
    let mut at = from;
    while at < to {
        let bytes = zeros.len().min((to - at) as usize);
        write_full(handle, &zeros[..bytes], at).map_err(|failure| failure.error)?;
        at += bytes as u64;
    }
    Ok(())
}

/// Whether an error says that there is no room, rather than that the disk is ill.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
