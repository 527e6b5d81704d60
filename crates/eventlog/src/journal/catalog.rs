//! Which segment holds a position, and where in it.
//!
//! Invariants:
//! * at most [`OPEN_SEGMENTS_MAX`] segments are held open, the least recently used is let go;
//! * segments that were moved into the attached archive are read there; each is in one list or the other;
//! * marks are found by reading headers on demand, never beyond the position asked for, which is durable:
//!   a batch that is still being written is never looked at.

use super::files::{Files, Handle};
use super::format::{HeaderRead, SEGMENT_HEADER_BYTES, segment_name};
use super::losses::Jump;
use super::packed::open_either;
use super::window::{POINT_BYTES, Window};
use crate::log::ReadError;
use crate::types::Position;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Segments held open at once: 4 GiB of default segments, far below any limit on open files.
const OPEN_SEGMENTS_MAX: usize = 64;
/// Bytes between marks: at most this much is skipped over to find a batch.
const MARK_EVERY_BYTES: u64 = 16 << 10;

/// Where a batch starts: its first position, counted from the segment's, and its offset.
#[derive(Clone, Copy)]
struct Mark {
    position: u32,
    offset: u32,
}

struct Marks {
    list: Vec<Mark>,
    /// Start of the first batch that has not been looked at.
    offset: u64,
    /// Its first position.
    next: Position,
}

/// A segment open for reading.
pub(crate) struct Segment {
    pub(crate) first: Position,
    pub(crate) file: Arc<dyn Handle>,
    /// Where its damaged headers are passed over.
    jumps: Vec<Jump>,
    marks: Mutex<Marks>,
}

impl Segment {
    fn new(first: Position, file: Arc<dyn Handle>, jumps: Vec<Jump>) -> Self {
        let marks = Marks { list: Vec::new(), offset: SEGMENT_HEADER_BYTES as u64, next: first };
        Self { first, file, jumps, marks: Mutex::new(marks) }
    }

    /// The damage at an offset that reading passes over.
    pub(crate) fn jump(&self, offset: u64) -> Option<&Jump> {
        self.jumps.iter().find(|jump| jump.from == offset)
    }

    pub(crate) fn name(&self) -> String {
        segment_name(self.first)
    }

    /// Offset of a batch at or not far before the one that holds `position`, and its first position.
    pub(crate) fn locate(&self, position: Position) -> Result<(u64, Position), ReadError> {
        assert!(position >= self.first, "the catalog picks the segment");
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.next <= position {
            self.look_on(&mut marks, position)?;
        }
        let after =
            marks.list.partition_point(|mark| self.first.get() + u64::from(mark.position) <= position.get());
        let mark = marks.list[after.checked_sub(1).expect("the first batch is marked")];
        Ok((u64::from(mark.offset), Position::new(self.first.get() + u64::from(mark.position))))
    }

    fn look_on(&self, marks: &mut Marks, position: Position) -> Result<(), ReadError> {
        let mut window = Window::new(self.file.clone(), POINT_BYTES);
        while marks.next <= position {
            if let Some(jump) = self.jump(marks.offset) {
                (marks.offset, marks.next) = (jump.to, jump.next);
            }
            let header = window.header(marks.offset).map_err(|error| ReadError::Io(error.to_string()))?;
            let detail = match header {
                HeaderRead::Batch(header) if header.first == marks.next => {
                    let is_due = |last: &Mark| marks.offset - u64::from(last.offset) >= MARK_EVERY_BYTES;
                    if marks.list.last().is_none_or(is_due) {
                        let position = (header.first.get() - self.first.get()) as u32;
                        marks.list.push(Mark { position, offset: marks.offset as u32 });
                    }
                    marks.offset = header.next_offset(marks.offset);
                    marks.next = header.last().next();
                    continue;
                }
                HeaderRead::Batch(_) => "the batch starts at another position than expected",
                HeaderRead::Empty => "the batch is gone",
                HeaderRead::Bad(detail) => detail,
            };
            let detail = format!("{} at offset {}: {detail}", self.name(), marks.offset);
            let (last, streams) = (None, Vec::new());
            return Err(ReadError::Damaged { position: marks.next, last, streams, detail });
        }
        Ok(())
    }
}

struct Open {
    segment: Arc<Segment>,
    used: u64,
}

struct State {
    /// Segments of the archive, before all of the journal's own.
    archived: Vec<Position>,
    firsts: Vec<Position>,
    open: BTreeMap<Position, Open>,
    clock: u64,
}

/// All segments of a journal.
pub(crate) struct Catalog {
    files: Arc<dyn Files>,
    dir: PathBuf,
    archive: OnceLock<PathBuf>,
    jumps: Vec<Jump>,
    state: Mutex<State>,
}

impl Catalog {
    pub(crate) fn new(files: Arc<dyn Files>, dir: PathBuf, firsts: Vec<Position>, jumps: Vec<Jump>) -> Self {
        let state = State { archived: Vec::new(), firsts, open: BTreeMap::new(), clock: 0 };
        Self { files, dir, archive: OnceLock::new(), jumps, state: Mutex::new(state) }
    }

    /// From here on segments that are not in the journal's directory are looked for in `archive`, which holds
    /// those that start at `firsts`. Only the first one counts.
    pub(crate) fn attach(&self, archive: &Path, firsts: Vec<Position>) {
        if self.archive.set(archive.to_owned()).is_ok() {
            self.state().archived = firsts;
        }
    }

    /// First position that can be read, wherever it is.
    pub(crate) fn reaches_back_to(&self) -> Position {
        let state = self.state();
        state.archived.first().or(state.firsts.first()).copied().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> u64 {
        self.state().firsts.len() as u64
    }

    /// Adds the segment that the writer goes on in.
    pub(crate) fn add(&self, first: Position) {
        let mut state = self.state();
        assert!(state.firsts.last().is_none_or(|last| *last < first), "segments are added in order");
        state.firsts.push(first);
    }

    /// First position of each segment.
    pub(crate) fn firsts(&self) -> Vec<Position> {
        self.state().firsts.clone()
    }

    /// Lets go of a segment's file: another one has taken its place.
    pub(crate) fn reopen(&self, first: Position) {
        self.state().open.remove(&first);
    }

    /// Takes out the segments before `oldest`, which starts one.
    pub(crate) fn forget_before(&self, oldest: Position) {
        let mut state = self.state();
        assert!(state.firsts.contains(&oldest), "whole segments are taken out");
        let moved: Vec<Position> = state.firsts.iter().copied().filter(|first| *first < oldest).collect();
        if self.archive.get().is_some() {
            state.archived.extend(moved);
        }
        state.firsts.retain(|first| *first >= oldest);
        state.open.retain(|first, _| *first >= oldest);
    }

    /// Opens a segment where it is; one that is being moved is in one of the two places.
    fn open(&self, first: Position) -> io::Result<Arc<dyn Handle>> {
        match (open_either(&*self.files, &self.dir, first), self.archive.get()) {
            (Err(error), Some(archive)) if error.kind() == io::ErrorKind::NotFound => {
                open_either(&*self.files, archive, first)
            }
            (opened, _) => opened,
        }
    }

    /// The segment that holds `position`.
    pub(crate) fn segment(&self, position: Position) -> Result<Arc<Segment>, ReadError> {
        let mut state = self.state();
        let oldest = state.firsts.first().copied().unwrap_or_default();
        let list = if position < oldest { &state.archived } else { &state.firsts };
        let after = list.partition_point(|first| *first <= position);
        let first = after.checked_sub(1).map(|index| list[index]);
        let first = first.ok_or(ReadError::Archived { asked: position, oldest })?;
        state.clock += 1;
        let clock = state.clock;
        if let Some(open) = state.open.get_mut(&first) {
            open.used = clock;
            return Ok(open.segment.clone());
        }
        let file = self
            .open(first)
            .map_err(|error| ReadError::Io(format!("opening {} failed: {error}", segment_name(first))))?;
        let jumps = self.jumps.iter().filter(|jump| jump.segment == first).copied().collect();
        let segment = Arc::new(Segment::new(first, file, jumps));
        state.open.insert(first, Open { segment: segment.clone(), used: clock });
        if state.open.len() > OPEN_SEGMENTS_MAX {
            let oldest = state.open.iter().min_by_key(|(_, open)| open.used).map(|(first, _)| *first);
            state.open.remove(&oldest.expect("more than the limit is more than none"));
        }
        Ok(segment)
    }
}
