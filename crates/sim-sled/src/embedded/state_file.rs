//! The file that carries a sled over the death of its process.
//!
//! One line per call of the machine: CRC-32C and length of the rest, then the changes as JSON. The first line
//! is a whole machine. Opening folds the lines and starts the file anew; so does growth past a limit.
//!
//! Invariants:
//! * A line is written whole before what it says is shown; only the last can be torn, and it is dropped.
//! * Damage elsewhere is an error, unless the host has rebooted since, when nothing in the file counts.
//! * After a failed write nothing is appended: the next write replaces the file.
//! * Replacing writes beside the file and renames, so that a death in between leaves one of the two.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sled_protocol::BootId;
use thiserror::Error;

use crate::machine::{Change, Sled};

/// Below this size a file is never started anew while open: a few thousand changes.
const COMPACT_BYTES_MIN: u64 = 1 << 20;

/// A file is started anew at this multiple of the size it started with.
const COMPACT_GROWTH: u64 = 4;

/// Largest file read: far above what compaction lets a sled of any size reach.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Why a sled cannot be taken up from its file.
#[derive(Debug, Error)]
pub enum StateFileError {
    /// The file is there and cannot be read.
    #[error("cannot read the sled's state file {path}: {source}; check its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the sled's state file: {0}; check its directory, permissions and the space left")]
    Write(io::Error),
    /// The file is damaged in its middle.
    #[error(
        "line {line} of the sled's state file {path} is damaged and is not the last; \
         remove the file and give the sled another boot id: its VMMs are then gone"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The file is larger than any sled's.
    #[error("the sled's state file {path} has {bytes} bytes, more than any sled writes; it is not one")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

/// An open state file.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// Absent until the first write, and after a failed one.
    file: Option<File>,
    bytes: u64,
    started_bytes: u64,
}

impl StateFile {
    /// Reads the machine, if there is one; the first `append` starts the file anew.
    pub(super) fn open(path: PathBuf, boot_id: BootId) -> Result<(Option<Sled>, Self), StateFileError> {
        let stored = load(&path, boot_id)?;
        Ok((stored, Self { path, file: None, bytes: 0, started_bytes: 0 }))
    }

    /// Stores the changes, or the whole machine if the file is to be started anew.
    pub(super) fn append(&mut self, changes: &[Change], machine: &Sled) -> io::Result<()> {
        let limit = COMPACT_BYTES_MIN.max(self.started_bytes.saturating_mul(COMPACT_GROWTH));
        let Some(file) = self.file.as_mut().filter(|_| self.bytes < limit) else {
            return self.start_anew(machine);
        };
        if changes.is_empty() {
            return Ok(());
        }
        let line = encode(changes)?;
        if let Err(error) = file.write_all(&line) {
            self.file = None;
            return Err(error);
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn start_anew(&mut self, machine: &Sled) -> io::Result<()> {
        self.file = None;
        let line = encode(&[machine.image()])?;
        let beside = self.path.with_extension("new");
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&beside)?;
        file.write_all(&line)?;
        fs::rename(&beside, &self.path)?;
        self.bytes = line.len() as u64;
        self.started_bytes = self.bytes;
        self.file = Some(file);
        Ok(())
    }
}

fn encode(changes: &[Change]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(changes)?;
    assert!(!json.contains(&b'\n'), "compact JSON has no line breaks");
    let mut line = format!("{:08x} {} ", crc32c::crc32c(&json), json.len()).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

fn decode(line: &[u8]) -> Option<Vec<Change>> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let crc = u32::from_str_radix(std::str::from_utf8(parts.next()?).ok()?, 16).ok()?;
    let len: usize = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let json = parts.next()?;
    if json.len() != len || crc32c::crc32c(json) != crc {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn load(path: &Path, boot_id: BootId) -> Result<Option<Sled>, StateFileError> {
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(StateFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut machine: Option<Sled> = None;
    for (place, line) in lines.iter().enumerate() {
        let changes = line.strip_suffix(b"\n").and_then(decode);
        let is_start = matches!(changes.as_deref(), Some([Change::All(_), ..]));
        let (Some(changes), true) = (changes, machine.is_some() || is_start) else {
            let is_last = place + 1 == lines.len();
            let is_of_another_boot = machine.as_ref().is_some_and(|known| known.host().boot_id() != boot_id);
            if is_last && place > 0 {
                tracing::info!(path = %path.display(), bytes = line.len(), "dropped the torn last line");
                break;
            }
            if is_of_another_boot {
                tracing::info!(path = %path.display(), "dropped the damaged state of another boot");
                break;
            }
            return Err(StateFileError::Damaged { path: path.to_owned(), line: place + 1 });
        };
        for change in changes {
            match (&mut machine, change) {
                (_, Change::All(whole)) => machine = Some(*whole),
                (Some(known), change) => known.apply(change),
                (None, _) => unreachable!("the first line starts with a whole machine"),
            }
        }
    }
    Ok(machine)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, StateFileError> {
    let failed = |source| StateFileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        return Err(StateFileError::TooLarge { path: path.to_owned(), bytes: size });
    }
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
