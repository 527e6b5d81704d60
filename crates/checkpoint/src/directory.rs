//! The directory of checkpoints: names, the order of writing, which one is used.
//!
//! ```text
//! checkpoint.tmp ──write──▶ sync ──rename──▶ <position>.ckp ──sync of the directory──▶ older ones removed
//! ```
//!
//! Invariants:
//! * a file that has its name is whole on disk;
//! * the checkpoint that a new one was made from is removed only when a third has come;
//! * what is refused is left alone until a newer one is durable.

use crate::error::Unusable;
use crate::file;
use crate::past::Past;
use crate::state::{State, anchor};
use eventlog::{Position, StoreId};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

pub(crate) const TEMP_NAME: &str = "checkpoint.tmp";
const EXTENSION: &str = "ckp";
/// Of checkpoints whose log has lost its end, which was accepted.
const ASIDE_EXTENSION: &str = "ckp-lost";
const BUFFER_BYTES: usize = 1 << 20;

/// A step of writing. A crash before or after any of them leaves a checkpoint that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The temporary file is made, over one that a crash left behind.
    Create,
    /// Its bytes are written.
    Write,
    /// It is synced.
    Sync,
    /// It gets its name.
    Rename,
    /// The directory is synced.
    SyncDirectory,
    /// One that is not needed any more is removed.
    Remove,
}

/// What there is in the directory.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest checkpoint that can be used, if there is one.
    pub state: Option<State>,
    /// Newer ones that cannot, each with the reason.
    pub refused: Vec<(PathBuf, Unusable)>,
}

/// Where the checkpoint at a position is kept.
pub(crate) fn path_of(dir: &Path, position: Position) -> PathBuf {
    dir.join(format!("{:020}.{EXTENSION}", position.get()))
}

/// The checkpoints in a directory, oldest first; none if there is no such directory.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(Position, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == EXTENSION)
            && let Ok(position) = stem.parse()
        {
            found.push((Position::new(position), path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Positions of the checkpoints in a directory, oldest first; none if there is no such directory.
pub fn positions(dir: &Path) -> io::Result<Vec<Position>> {
    Ok(list(dir)?.into_iter().map(|(position, _)| position).collect())
}

/// Removes what a crash left of a checkpoint that was being written; answers whether there was something.
pub fn sweep(dir: &Path) -> io::Result<bool> {
    match fs::remove_file(dir.join(TEMP_NAME)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a checkpoint, whatever the log says of it.
pub(crate) fn open(path: &Path, store: StoreId) -> Result<State, Unusable> {
    file::read(store, BufReader::with_capacity(BUFFER_BYTES, File::open(path)?))
}

/// Whether the state is one of this log's past.
fn is_past(state: &State, past: &dyn Past) -> Result<(), Unusable> {
    let (position, durable) = (state.position, past.durable());
    if position > durable {
        return Err(Unusable::BeyondEnd { position, durable });
    }
    match past.read_all(position, 1).ok().and_then(|page| page.into_iter().next()) {
        Some(record) if record.position == position && anchor(&record) == state.anchor => Ok(()),
        _ => Err(Unusable::OtherHistory),
    }
}

/// The last position that a checkpoint of this store says was durable, if the log ends before it: the log has lost
/// its end. Headers tell, also those of another build's.
pub fn beyond_end(dir: &Path, store: StoreId, durable: Position) -> io::Result<Option<Position>> {
    let mut beyond = None;
    for (_, path) in list(dir)?.into_iter().filter(|(position, _)| *position > durable) {
        let told = match file::testimony(store, File::open(path)?) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => None,
            told => told?,
        };
        beyond = beyond.max(told.filter(|position| *position > durable));
    }
    Ok(beyond)
}

/// Finds the newest checkpoint of this log that can be used.
pub fn newest(dir: &Path, store: StoreId, past: &dyn Past) -> Found {
    let mut found = Found::default();
    let listed = match list(dir) {
        Ok(listed) => listed,
        Err(error) => {
            found.refused.push((dir.to_owned(), error.into()));
            return found;
        }
    };
    for (_, path) in listed.into_iter().rev() {
        let opened = open(&path, store).and_then(|state| is_past(&state, past).map(|()| state));
        match opened {
            Ok(state) => {
                found.state = Some(state);
                break;
            }
            Err(why) => found.refused.push((path, why)),
        }
    }
    found
}

/// Sets the checkpoints beyond `durable` aside, under names that no start looks at: the log goes on without what they
/// know, and gives their positions to other events.
pub fn set_beyond_aside(dir: &Path, durable: Position) -> io::Result<()> {
    let beyond: Vec<PathBuf> =
        list(dir)?.into_iter().filter(|(position, _)| *position > durable).map(|(_, path)| path).collect();
    for path in &beyond {
        fs::rename(path, path.with_extension(ASIDE_EXTENSION))?;
    }
    if beyond.is_empty() { Ok(()) } else { File::open(dir)?.sync_all() }
}

/// Writes a state durably beside the one that it was made from (`base`; zero for none), and removes every other.
/// `before` is asked before each step; an error of it ends the writing there. Answers the bytes written.
pub(crate) fn keep(
    dir: &Path,
    store: StoreId,
    state: &State,
    base: Position,
    before: &mut dyn FnMut(Step) -> io::Result<()>,
) -> io::Result<u64> {
    assert!(state.position > base, "a checkpoint is newer than the one it is made from");
    let temporary = dir.join(TEMP_NAME);
    before(Step::Create)?;
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, File::create(&temporary)?);
    before(Step::Write)?;
    let bytes = file::write(state, store, &mut writer)?;
    writer.flush()?;
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    before(Step::Sync)?;
    file.sync_all()?;
    before(Step::Rename)?;
    let path = path_of(dir, state.position);
    fs::rename(&temporary, &path)?;
    before(Step::SyncDirectory)?;
    File::open(dir)?.sync_all()?;
    let kept = [path, path_of(dir, base)];
    for (_, old) in list(dir)?.into_iter().filter(|(_, old)| !kept.contains(old)) {
        before(Step::Remove)?;
        // The new one is durable; an old one that stays is passed over by every start.
        let _ = fs::remove_file(old);
    }
    Ok(bytes)
}
