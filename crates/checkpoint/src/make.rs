//! Making a checkpoint: from the one before it and the records since.
//!
//! Invariants:
//! * the log is only read; nobody who writes it or serves from it waits;
//! * memory: a second copy of the state, and a page of records, until it is written.

use crate::directory::{Step, TEMP_NAME, keep, newest};
use crate::error::MakeError;
use crate::past::Past;
use crate::state::State;
use eventlog::failpoints::{Point, pass};
use eventlog::{Position, StoreId};
use std::fs;
use std::io;
use std::path::Path;

/// Records read at a time.
const PAGE_RECORDS: usize = 4_096;

/// A checkpoint that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Where it is.
    pub position: Position,
    /// Where the one was that it was made from; zero for none.
    pub base: Position,
    /// Its bytes.
    pub bytes: u64,
}

/// Makes the checkpoint at what is durable; none if the newest is there already. One at a time per directory.
/// It may take seconds and blocks: call it from a thread that may.
pub fn advance(dir: &Path, store: StoreId, past: &dyn Past) -> Result<Option<Made>, MakeError> {
    let made = advance_stepwise(dir, store, past, &mut |step| {
        match step {
            Step::Sync => pass(Point::CheckpointWritten),
            Step::Rename => pass(Point::CheckpointSynced),
            Step::SyncDirectory => pass(Point::CheckpointNamed),
            Step::Create | Step::Write | Step::Remove => {}
        }
        Ok(())
    });
    if let Err(MakeError::Io(_)) = &made {
        // Half a checkpoint is room that a full disk does not have. One that is not there is as well.
        let _ = fs::remove_file(dir.join(TEMP_NAME));
    }
    made
}

/// The same, asked before each step of writing: an error of `before` ends it there, as a crash would.
pub fn advance_stepwise(
    dir: &Path,
    store: StoreId,
    past: &dyn Past,
    before: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<Option<Made>, MakeError> {
    let to = past.durable();
    fs::create_dir_all(dir)?;
    let mut state = newest(dir, store, past).state.unwrap_or_default();
    let base = state.position();
    if base >= to {
        return Ok(None);
    }
    fold_up_to(&mut state, past, to)?;
    let bytes = keep(dir, store, &state, base, before)?;
    Ok(Some(Made { position: to, base, bytes }))
}

/// Folds the records up to `to`, inclusive.
pub(crate) fn fold_up_to(state: &mut State, past: &dyn Past, to: Position) -> Result<(), MakeError> {
    while state.position() < to {
        let left = usize::try_from(to.get() - state.position().get()).unwrap_or(usize::MAX);
        let page = past.read_all(state.position().next(), left.min(PAGE_RECORDS))?;
        assert!(!page.is_empty(), "a log holds what is durable");
        for record in &page {
            state.apply(record)?;
        }
    }
    Ok(())
}
