//! What lies in a journal's directory, before any batch is read.
//!
//! Invariants:
//! * nothing is written or removed here;
//! * a file whose name is not the journal's stops the opening: it may be half of a wrong restore;
//! * every segment's header is read and belongs to one store.

use super::error::{Damage, OpenError, StoreId};
use super::files::{Files, Handle, read_full};
use super::format::{
    BadHeader, FORMAT, Named, SEGMENT_HEADER_BYTES, SegmentHeader, WITNESS_NAME, chain_origin, classify,
};
use super::heads::HeadsCheckpoint;
use super::packed::unpack;
use super::witness::{self, Testimony};
use crate::types::Position;
use std::path::Path;
use std::sync::Arc;

/// A segment file with a valid header.
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    pub(crate) header: SegmentHeader,
    pub(crate) bytes: u64,
    pub(crate) is_packed: bool,
}

/// State of the witness file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WitnessFound {
    Missing,
    Unreadable,
    Valid(Testimony),
}

/// Everything found in the directory.
pub(crate) struct Survey {
    /// In order of position; may be empty.
    pub(crate) segments: Vec<SegmentFile>,
    /// Positions named by heads checkpoints, newest first.
    pub(crate) heads: Vec<(Position, String)>,
    pub(crate) witness: WitnessFound,
    /// Leftovers of an interrupted preparation.
    pub(crate) temporaries: Vec<String>,
    /// Whether an earlier opening or reading has met damage.
    pub(crate) is_suspect: bool,
    /// Heads at the end of what was archived, if something was.
    pub(crate) base: Option<HeadsCheckpoint>,
    /// What is to be told of it.
    pub(crate) notes: Vec<String>,
}

impl Survey {
    /// The store all of it belongs to, if there is a segment or a testimony.
    pub(crate) fn store(&self) -> Option<StoreId> {
        match (self.segments.first(), self.witness) {
            (Some(segment), _) => Some(segment.header.store),
            (None, WitnessFound::Valid(testimony)) => Some(testimony.store),
            (None, _) => None,
        }
    }

    /// Whether no segment was ever put in place: creating the store may start, or start again.
    pub(crate) fn is_empty(&self) -> bool {
        let was_used = matches!(self.witness, WitnessFound::Valid(Testimony { position, .. }) if position > Position::ZERO);
        self.segments.is_empty() && self.heads.is_empty() && !was_used
    }
}

/// Looks through the directory.
pub(crate) fn survey(files: &dyn Files, dir: &Path, expect: Option<StoreId>) -> Result<Survey, OpenError> {
    let mut names = files.list(dir).map_err(|source| OpenError::io("listing", dir, source))?;
    names.sort();
    let mut found = Survey {
        segments: vec![],
        heads: vec![],
        witness: WitnessFound::Missing,
        temporaries: vec![],
        is_suspect: false,
        base: None,
        notes: vec![],
    };
    let mut firsts = Vec::new();
    let mut bases = Vec::new();
    for name in names {
        match classify(&name) {
            Named::Segment(first) => firsts.push((first, name, false)),
            Named::Packed(first) => firsts.push((first, name, true)),
            Named::Base(position) => bases.push((position, name)),
            Named::Heads(position) => found.heads.insert(0, (position, name)),
            Named::Witness => found.witness = read_witness(files, dir)?,
            Named::Damaged => found.is_suspect = true,
            Named::Ballast => {}
            Named::Temporary => found.temporaries.push(name),
            Named::Foreign => return Err(OpenError::Foreign { path: dir.join(name) }),
        }
    }
    // The original of a compressed segment comes first, by its name.
    firsts.sort();
    for (first, name, is_packed) in firsts {
        let segment = read_segment(files, dir, first, name, is_packed)?;
        let expected = expect.or_else(|| found.store());
        if let Some(expected) = expected.filter(|expected| *expected != segment.header.store) {
            return Err(OpenError::WrongStore {
                segment: segment.name,
                expected,
                found: segment.header.store,
            });
        }
        match found.segments.last() {
            Some(before) if before.header.first == first && before.header == segment.header => {
                // An interrupted compression: the original is the truth, and will be compressed again.
                found.temporaries.push(segment.name);
            }
            Some(before) if before.header.first == first => {
                let detail = format!("{} has the same name and is another segment", before.name);
                return Err(damaged_header(segment.name, first, &detail));
            }
            _ => found.segments.push(segment),
        }
    }
    rest_on_base(files, dir, bases, &mut found)?;
    check_start(&found)?;
    if let Some(last) = found.segments.last().filter(|last| last.is_packed) {
        let detail = "the journal ends with a compressed segment: the one it went on in is missing";
        return Err(damaged_header(last.name.clone(), last.header.first, detail));
    }
    Ok(found)
}

/// The segments that lie in a directory, by their names: where each starts, whether it is compressed, and its name.
/// None if there is no such directory; what else lies there is not looked at.
fn segments_in(files: &dyn Files, dir: &Path) -> Result<Vec<(Position, bool, String)>, OpenError> {
    let names = match files.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(OpenError::io("listing", dir, source)),
    };
    let segment = |name: String| match classify(&name) {
        Named::Segment(first) => Some((first, false, name)),
        Named::Packed(first) => Some((first, true, name)),
        _ => None,
    };
    Ok(names.into_iter().filter_map(segment).collect())
}

/// The name of a segment in a directory that starts at `from` or behind it, if there is one.
pub(crate) fn segment_from(
    files: &dyn Files,
    dir: &Path,
    from: Position,
) -> Result<Option<String>, OpenError> {
    let found = segments_in(files, dir)?.into_iter().find(|(first, ..)| *first >= from);
    Ok(found.map(|(.., name)| name))
}

/// First positions of the store's segments in a directory that start before `before`, in order.
pub(crate) fn segments_before(
    files: &dyn Files,
    dir: &Path,
    before: Position,
    store: StoreId,
) -> Result<Vec<Position>, OpenError> {
    let mut firsts = Vec::new();
    for (first, is_packed, name) in segments_in(files, dir)? {
        if first < before {
            let segment = read_segment(files, dir, first, name, is_packed)?;
            if segment.header.store != store {
                let (segment, found) = (segment.name, segment.header.store);
                return Err(OpenError::WrongStore { segment, expected: store, found });
            }
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    firsts.dedup();
    Ok(firsts)
}

/// Takes the newest readable base, and leaves out the segments that it stands for.
fn rest_on_base(
    files: &dyn Files,
    dir: &Path,
    mut bases: Vec<(Position, String)>,
    found: &mut Survey,
) -> Result<(), OpenError> {
    bases.sort();
    for (position, name) in bases.into_iter().rev() {
        let path = dir.join(&name);
        let io = |source| OpenError::io("reading", &path, source);
        let file = files.open_read(&path).map_err(io)?;
        match HeadsCheckpoint::read(&*file).map_err(io)? {
            Ok(base) if base.position == position && Some(base.store) == found.store() => {
                found.segments.retain(|segment| segment.header.first > position);
                found.base = Some(base);
                return Ok(());
            }
            _ if found.segments.first().is_some_and(|first| first.header.first <= Position::new(1)) => {
                found.notes.push(format!("{name} is unreadable; nothing is archived, so it is not needed"));
            }
            _ => {
                let detail = "the heads of what was archived are unreadable";
                return Err(damaged_header(name, position, detail));
            }
        }
    }
    Ok(())
}

fn check_start(found: &Survey) -> Result<(), OpenError> {
    let origin = found.base.as_ref().map_or(Position::new(1), |base| base.position.next());
    let Some(first) = found.segments.first() else {
        return match (found.is_empty(), found.heads.first()) {
            (true, _) => Ok(()),
            (false, Some((_, name))) => {
                Err(OpenError::MissingSegment { expected: origin, found: name.clone(), after: None })
            }
            (false, None) => {
                let found = WITNESS_NAME.into();
                Err(OpenError::MissingSegment { expected: origin, found, after: None })
            }
        };
    };
    if first.header.first != origin {
        let found = first.name.clone();
        return Err(OpenError::MissingSegment { expected: origin, found, after: None });
    }
    let chain = found.base.as_ref().map_or_else(|| chain_origin(first.header.store), |base| base.chain);
    if first.header.chain != chain {
        return Err(damaged_header(
            first.name.clone(),
            origin,
            "the first segment does not go on from the start of the store, or from what was archived",
        ));
    }
    Ok(())
}

fn read_witness(files: &dyn Files, dir: &Path) -> Result<WitnessFound, OpenError> {
    let path = dir.join(WITNESS_NAME);
    let io = |source| OpenError::io("reading", &path, source);
    let file = files.open_read(&path).map_err(io)?;
    let testimony = witness::read(&*file).map_err(io)?;
    Ok(testimony.map_or(WitnessFound::Unreadable, WitnessFound::Valid))
}

fn read_segment(
    files: &dyn Files,
    dir: &Path,
    first: Position,
    name: String,
    is_packed: bool,
) -> Result<SegmentFile, OpenError> {
    let path = dir.join(&name);
    let io = |source| OpenError::io("reading", &path, source);
    let mut file = files.open_read(&path).map_err(io)?;
    if is_packed {
        file = match unpack(file) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(damaged_header(name, first, &error.to_string()));
            }
            opened => opened.map_err(io)?,
        };
    }
    let mut bytes = [0u8; SEGMENT_HEADER_BYTES];
    let read = read_full(&*file, &mut bytes, 0).map_err(io)?;
    match SegmentHeader::decode(&bytes[..read]) {
        Ok(header) if header.first == first => {
            Ok(SegmentFile { name, header, bytes: file.size().map_err(io)?, is_packed })
        }
        Ok(_) => {
            Err(damaged_header(name, first, "the segment's header names another position than its file name"))
        }
        Err(BadHeader::Newer(found)) => Err(OpenError::NewerFormat { segment: name, found, known: FORMAT }),
        Err(BadHeader::Damaged(detail)) => Err(damaged_header(name, first, detail)),
    }
}

fn damaged_header(segment: String, first: Position, detail: &str) -> OpenError {
    let streams = Vec::new();
    OpenError::Damaged(Damage { segment, offset: 0, first, last: None, streams, detail: detail.into() })
}

/// A heads checkpoint; `None` if the file is none of this store, which is then told in `notes`.
pub(crate) fn read_checkpoint(
    files: &dyn Files,
    dir: &Path,
    found: &Survey,
    (position, name): &(Position, String),
    notes: &mut Vec<String>,
) -> Result<Option<HeadsCheckpoint>, OpenError> {
    let path = dir.join(name);
    let io = |source| OpenError::io("reading", &path, source);
    let file = files.open_read(&path).map_err(io)?;
    match HeadsCheckpoint::read(&*file).map_err(io)? {
        Ok(checkpoint) if checkpoint.position == *position && Some(checkpoint.store) == found.store() => {
            return Ok(Some(checkpoint));
        }
        Ok(_) => notes.push(format!("{name} is not a checkpoint of this store at that position; not used")),
        Err(error) => notes.push(format!("{name} is unreadable ({error}); not used")),
    }
    Ok(None)
}

/// The valid heads checkpoints, newest first, and what is to be told of the others.
pub(crate) fn read_checkpoints(
    files: &dyn Files,
    dir: &Path,
    found: &Survey,
    notes: &mut Vec<String>,
) -> Result<Vec<HeadsCheckpoint>, OpenError> {
    let read = found.heads.iter().map(|named| read_checkpoint(files, dir, found, named, notes).transpose());
    read.flatten().collect()
}

/// Opens a segment for reading.
pub(crate) fn open_segment(
    files: &dyn Files,
    dir: &Path,
    segment: &SegmentFile,
) -> Result<Arc<dyn Handle>, OpenError> {
    let path = dir.join(&segment.name);
    let opened =
        files.open_read(&path).and_then(|file| if segment.is_packed { unpack(file) } else { Ok(file) });
    opened.map_err(|source| OpenError::io("opening", &path, source))
}
