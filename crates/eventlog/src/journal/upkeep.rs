//! Work on sealed segments while the journal is open: compressing them, and moving the oldest away.
//!
//! Invariants:
//! * the segment that is written is never touched; segments are compressed and moved whole;
//! * an original is removed only after what replaces it was written, synced and compared with it;
//! * before a segment is moved, the heads at its end are in a base file: a crash between the two leaves
//!   segments that the base stands for, and the next call moves them.

use super::catalog::Catalog;
use super::error::StoreId;
use super::files::{Files, Handle, read_full, write_full};
use super::format::{
    HeaderRead, Named, PACKED_TEMP_NAME, SEGMENT_HEADER_BYTES, classify, packed_name, segment_name,
};
use super::heads::HeadsCheckpoint;
use super::packed::{pack, unpack};
use super::scan::Scanner;
use super::survey::{Survey, segment_from, segments_before, survey};
use super::window::{SCAN_BYTES, Window};
use super::{Journal, OpenError, Shared};
use crate::types::Position;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// Why segments were not compressed or moved. What had been done before stands.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The operating system refused.
    #[error("{doing} segment {segment} failed: {source}")]
    Io {
        /// What was tried, as a participle.
        doing: &'static str,
        /// File name of the segment.
        segment: String,
        /// What the system said.
        source: io::Error,
    },
    /// The segment is not as it was written; it is left where it is.
    #[error("segment {segment} is damaged and stays as it is; verify the journal")]
    Damaged {
        /// File name of the segment.
        segment: String,
    },
    /// The archive holds another file of that name.
    #[error("the archive holds another {segment} already; name another directory, or move that file away")]
    Exists {
        /// File name of the segment.
        segment: String,
    },
    /// The journal's files do not say what they should.
    #[error(transparent)]
    Journal(#[from] OpenError),
}

/// What a compression did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments compressed.
    pub segments: u64,
    /// Bytes they took before.
    pub bytes_before: u64,
    /// Bytes they take now.
    pub bytes_after: u64,
    /// Segments left as they are because they are damaged.
    pub damaged: u64,
}

/// What an archiving did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// Segments moved.
    pub segments: u64,
    /// Oldest position that is still here.
    pub oldest: Position,
}

impl Journal {
    /// Compresses sealed segments, oldest first, at most `segments_max`. It reads and writes whole segments:
    /// call it from a thread that may block. Readers go on meanwhile.
    pub fn compact(&self, segments_max: usize) -> Result<Compacted, UpkeepError> {
        let shared = &self.shared;
        let _alone = shared.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = Compacted::default();
        let firsts = shared.catalog.firsts();
        let sealed = &firsts[..firsts.len().saturating_sub(1)];
        for &first in sealed {
            if done.segments as usize == segments_max {
                break;
            }
            let name = segment_name(first);
            let io = |source| UpkeepError::Io { doing: "compressing", segment: name.clone(), source };
            match shared.files.open_read(&shared.dir.join(&name)) {
                Ok(segment) => compress(shared, first, segment, &mut done).map_err(io)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io(error)),
            }
        }
        Ok(done)
    }

    /// Moves the segments that hold only positions before `before` into the directory `to`, which must exist,
    /// oldest first. Reading a position in them is [`crate::ReadError::Archived`] from then on, unless `to` is
    /// attached ([`Journal::attach_archive`]): then they are read there. It may copy whole segments: call it from a thread that may block.
    pub fn archive(&self, before: Position, to: &Path) -> Result<Archived, UpkeepError> {
        let shared = &self.shared;
        let _alone = shared.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        let firsts = shared.catalog.firsts();
        let kept = firsts.iter().rposition(|first| *first <= before).unwrap_or(0);
        let oldest = firsts[kept];
        if kept > 0 {
            let base = heads_before(shared, oldest)?;
            let io = |source| UpkeepError::Io { doing: "moving", segment: segment_name(firsts[0]), source };
            base.write_base(&*shared.files, &shared.dir).map_err(io)?;
            shared.catalog.forget_before(oldest);
        }
        let segments = move_before(shared, oldest, to)?;
        Ok(Archived { segments, oldest })
    }

    /// Reads positions before the oldest one from the segments in `archive`, which need not exist, from here on.
    /// Only the first archive attached counts; whatever is archived later goes there. Answers the first position
    /// that can be read. Refuses another store's segments, and an archive that goes on where this journal has its
    /// own: it is of another history, such as the one before a backup was restored.
    pub fn attach_archive(&self, archive: &Path) -> Result<Position, OpenError> {
        let shared = &self.shared;
        if let Some(name) = segment_from(&*shared.files, archive, self.oldest())? {
            return Err(OpenError::Foreign { path: archive.join(name) });
        }
        attach(&*shared.files, (&shared.dir, archive), &shared.catalog, shared.store_id)
    }

    /// Oldest position that is here; what was before it is archived.
    pub fn oldest(&self) -> Position {
        self.shared.catalog.firsts().first().copied().unwrap_or_default()
    }
}

/// Finds the segments that were moved away, and those that a crash kept from it.
pub(crate) fn attach(
    files: &dyn Files,
    (dir, archive): (&Path, &Path),
    catalog: &Catalog,
    store: StoreId,
) -> Result<Position, OpenError> {
    let oldest = catalog.firsts().first().copied().unwrap_or_default();
    let mut firsts = segments_before(files, archive, oldest, store)?;
    firsts.extend(segments_before(files, dir, oldest, store)?);
    firsts.sort_unstable();
    firsts.dedup();
    catalog.attach(archive, firsts);
    Ok(catalog.reaches_back_to())
}

/// Offset of the end of a segment's batches, if they are all as they were written.
fn whole_bytes(segment: &Arc<dyn Handle>, first: Position) -> io::Result<Option<u64>> {
    let mut window = Window::new(segment.clone(), SCAN_BYTES);
    let (mut offset, mut next) = (SEGMENT_HEADER_BYTES as u64, first);
    loop {
        match window.header(offset)? {
            HeaderRead::Batch(header) if header.first == next => {
                if !window.batch(offset, header)?.is_intact() {
                    return Ok(None);
                }
                (offset, next) = (header.next_offset(offset), header.last().next());
            }
            HeaderRead::Empty => {
                let size = segment.size()?;
                let rest = super::seek::last_nonzero(&mut window, offset, size)?;
                return Ok(rest.is_none().then_some(offset));
            }
            HeaderRead::Batch(_) | HeaderRead::Bad(_) => return Ok(None),
        }
    }
}

fn compress(
    shared: &Shared,
    first: Position,
    segment: Arc<dyn Handle>,
    done: &mut Compacted,
) -> io::Result<()> {
    let (files, dir) = (&*shared.files, &*shared.dir);
    let Some(bytes) = whole_bytes(&segment, first)? else {
        done.damaged += 1;
        return Ok(());
    };
    let packed = pack(&*segment, bytes, shared.store_id, first)?;
    let temporary = dir.join(PACKED_TEMP_NAME);
    let file = files.create(&temporary)?;
    let written = write_full(&*file, &packed, 0).map_err(|failure| failure.error);
    let compared = written.and_then(|()| file.sync()).and_then(|()| compare(&*segment, file, bytes));
    if let Err(error) = compared {
        drop(files.remove(&temporary));
        return Err(error);
    }
    files.rename(&temporary, &dir.join(packed_name(first)))?;
    files.sync_dir(dir)?;
    done.bytes_before += segment.size()?;
    files.remove(&dir.join(segment_name(first)))?;
    files.sync_dir(dir)?;
    shared.catalog.reopen(first);
    done.segments += 1;
    done.bytes_after += packed.len() as u64;
    Ok(())
}

/// Reads both to the end; an error if they differ.
fn compare(segment: &dyn Handle, packed: Arc<dyn Handle>, bytes: u64) -> io::Result<()> {
    let packed = unpack(packed)?;
    let (mut left, mut right) = (vec![0u8; SCAN_BYTES], vec![0u8; SCAN_BYTES]);
    let mut offset = 0;
    while offset < bytes {
        let wanted = SCAN_BYTES.min((bytes - offset) as usize);
        read_full(segment, &mut left[..wanted], offset)?;
        let read = read_full(&*packed, &mut right[..wanted], offset)?;
        if read != wanted || left[..wanted] != right[..wanted] {
            return Err(io::Error::other("what was compressed does not read back as it was"));
        }
        offset += wanted as u64;
    }
    Ok(())
}

/// Every stream's head at the end of the segments before `oldest`, from reading them.
fn heads_before(shared: &Shared, oldest: Position) -> Result<HeadsCheckpoint, UpkeepError> {
    let (files, dir) = (&*shared.files, &*shared.dir);
    let found = survey(files, dir, Some(shared.store_id))?;
    let segments = found.segments.into_iter().filter(|segment| segment.header.first < oldest).collect();
    let part = Survey { segments, ..found };
    let mut scanner = Scanner::new(files, dir, &part, None, &[]);
    let is_read = scanner.run().is_ok();
    let scan = scanner.scan;
    let is_whole = is_read && scan.losses.gaps().is_empty() && scan.leftover.is_none() && scan.next == oldest;
    if !is_whole {
        let segment = scan.losses.gaps().first().map_or_else(
            || part.segments.first().map(|it| it.name.clone()).unwrap_or_default(),
            |gap| gap.place.segment.clone(),
        );
        return Err(UpkeepError::Damaged { segment });
    }
    let position = Position::new(oldest.get() - 1);
    Ok(HeadsCheckpoint {
        store: shared.store_id,
        position,
        chain: scan.chain,
        bytes: scan.bytes,
        heads: scan.heads,
    })
}

/// Moves every segment file before `oldest`, oldest first; answers how many.
fn move_before(shared: &Shared, oldest: Position, to: &Path) -> Result<u64, UpkeepError> {
    let (files, dir) = (&*shared.files, &*shared.dir);
    let list = |source| UpkeepError::Io { doing: "listing", segment: segment_name(oldest), source };
    let mut names = files.list(dir).map_err(list)?;
    names.sort();
    let is_old = |name: &String| match classify(name) {
        Named::Segment(first) | Named::Packed(first) => first < oldest,
        _ => false,
    };
    let mut moved = 0;
    for name in names.into_iter().filter(is_old) {
        let io = |source| UpkeepError::Io { doing: "moving", segment: name.clone(), source };
        if !move_one(files, dir, to, &name).map_err(io)? {
            return Err(UpkeepError::Exists { segment: name });
        }
        moved += 1;
    }
    Ok(moved)
}

/// Moves one file durably. Answers whether the archive had no other file of that name.
fn move_one(files: &dyn Files, dir: &Path, to: &Path, name: &str) -> io::Result<bool> {
    let (source, target) = (dir.join(name), to.join(name));
    match files.open_read(&target) {
        // An earlier call copied it and did not come to remove the original.
        Ok(held) => {
            if !is_equal(&*files.open_read(&source)?, &*held)? {
                return Ok(false);
            }
            files.sync_dir(to)?;
            files.remove(&source)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match files.rename(&source, &target) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy(files, &source, to, name)?;
                files.remove(&source)?;
            }
            renamed => {
                renamed?;
                files.sync_dir(to)?;
            }
        },
        Err(error) => return Err(error),
    }
    files.sync_dir(dir)?;
    Ok(true)
}

fn copy(files: &dyn Files, source: &Path, to: &Path, name: &str) -> io::Result<()> {
    let temporary = to.join(format!("{name}.tmp"));
    let (from, file) = (files.open_read(source)?, files.create(&temporary)?);
    let mut buffer = vec![0u8; SCAN_BYTES];
    let mut offset = 0;
    loop {
        let read = read_full(&*from, &mut buffer, offset)?;
        if read == 0 {
            break;
        }
        write_full(&*file, &buffer[..read], offset).map_err(|failure| failure.error)?;
        offset += read as u64;
    }
    file.sync()?;
    if !is_equal(&*from, &*file)? {
        return Err(io::Error::other("the copy does not read back as the original"));
    }
    files.rename(&temporary, &to.join(name))?;
    files.sync_dir(to)
}

fn is_equal(left: &dyn Handle, right: &dyn Handle) -> io::Result<bool> {
    if left.size()? != right.size()? {
        return Ok(false);
    }
    let (mut one, mut other) = (vec![0u8; SCAN_BYTES], vec![0u8; SCAN_BYTES]);
    let mut offset = 0;
    loop {
        let read = read_full(left, &mut one, offset)?;
        read_full(right, &mut other[..read], offset)?;
        if one[..read] != other[..read] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
        offset += read as u64;
    }
}
