//! Segments as other modules of the crate make and copy them: for imports, backups and restores.
//!
//! Invariants:
//! * what is made here is what the writer would have made, save for the zeros behind the last batch;
//! * a directory becomes a journal with its witness, which comes last;
//! * what is copied out is checked batch by batch, and never reaches beyond the position asked for.

use super::error::{OpenError, StoreId};
use super::files::{Files, Handle, OsFiles, write_full};
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, HeaderRead, SEGMENT_HEADER_BYTES, SEGMENT_TEMP_NAME, SegmentHeader,
    WITNESS_NAME, aligned, chain_origin,
};
use super::packed::open_either;
use super::recovery::place_segment;
use super::survey::{SegmentFile, survey};
use super::window::{SCAN_BYTES, Window};
use super::witness::{Testimony, Witness};
use crate::record;
use crate::types::{LIMITS, Position, Record};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the file that holds the heads at the end of what was archived.
pub(crate) fn base_name(position: Position) -> String {
    super::format::base_name(position)
}

/// Writes the witness that makes a directory of segments a journal, durably.
pub(crate) fn write_witness(dir: &Path, store: StoreId, position: Position, chain: u64) -> io::Result<()> {
    let files = OsFiles;
    let origin = Testimony { store, sequence: 0, position: Position::ZERO, chain };
    Witness::new(files.create(&dir.join(WITNESS_NAME))?, origin).testify(position, chain)?;
    files.sync_dir(dir)
}

/// Makes the segments of a store that starts with position 1.
pub(crate) struct SegmentMaker {
    dir: PathBuf,
    store: StoreId,
    segment_bytes: u64,
    segment: Option<Arc<dyn Handle>>,
    first: Position,
    first_chain: u64,
    offset: u64,
    chain: u64,
    next: Position,
    buffer: Vec<u8>,
}

impl SegmentMaker {
    pub(crate) fn new(dir: &Path, store: StoreId, segment_bytes: u64) -> Self {
        let chain = chain_origin(store);
        Self {
            dir: dir.into(),
            store,
            segment_bytes,
            segment: None,
            first: Position::new(1),
            first_chain: chain,
            offset: SEGMENT_HEADER_BYTES as u64,
            chain,
            next: Position::new(1),
            buffer: Vec::new(),
        }
    }

    /// Adds one batch: whole appends, whose positions go on where the last batch ended.
    pub(crate) fn batch(&mut self, records: &[Record]) -> io::Result<()> {
        assert!(!records.is_empty(), "a batch holds a record");
        assert_eq!(records[0].position, self.next, "positions are gapless");
        self.buffer.clear();
        self.buffer.resize(BATCH_HEADER_BYTES, 0);
        for record in records {
            record::encode(&mut self.buffer, record);
        }
        let body = &self.buffer[BATCH_HEADER_BYTES..];
        assert!(body.len() <= LIMITS.batch_bytes_max, "the caller keeps to the largest batch");
        let header = BatchHeader {
            body_bytes: body.len() as u32,
            count: records.len() as u32,
            first: self.next,
            chain: self.chain,
            body_crc: crc32c::crc32c(body),
        };
        self.buffer[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
        self.buffer.resize(aligned(self.buffer.len() as u64) as usize, 0);
        let is_full = self.offset + self.buffer.len() as u64 > self.segment_bytes;
        if is_full && self.offset > SEGMENT_HEADER_BYTES as u64 {
            self.finish_segment()?;
        }
        let segment = self.open()?;
        write_full(&*segment, &self.buffer, self.offset).map_err(|failure| failure.error)?;
        self.offset += self.buffer.len() as u64;
        self.chain = header.chain_after();
        self.next = header.last().next();
        Ok(())
    }

    fn open(&mut self) -> io::Result<Arc<dyn Handle>> {
        if let Some(segment) = &self.segment {
            return Ok(segment.clone());
        }
        let segment = OsFiles.create(&self.dir.join(SEGMENT_TEMP_NAME))?;
        self.segment = Some(segment.clone());
        Ok(segment)
    }

    fn finish_segment(&mut self) -> io::Result<()> {
        let segment = self.open()?;
        let header = SegmentHeader { store: self.store, first: self.first, chain: self.first_chain };
        place_segment(&OsFiles, &self.dir, &*segment, header)?;
        self.segment = None;
        self.first = self.next;
        self.first_chain = self.chain;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }

    /// Puts the last segment in place and makes the directory a journal.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.finish_segment()?;
        write_witness(&self.dir, self.store, Position::new(self.next.get() - 1), self.chain)
    }
}

/// A segment in a journal's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentAt {
    pub(crate) first: Position,
    /// Chain up to the end of the segment before.
    pub(crate) chain: u64,
}

/// What of a journal is carried away, without reading any batch.
pub(crate) struct Parts {
    pub(crate) store: StoreId,
    /// In order; there is at least one.
    pub(crate) segments: Vec<SegmentAt>,
    /// Last position of what was archived, if something was.
    pub(crate) base: Option<Position>,
}

/// Looks through a journal that may be in use.
pub(crate) fn parts(dir: &Path) -> Result<Parts, OpenError> {
    let found = survey(&OsFiles, dir, None)?;
    let store = found.store().filter(|_| !found.segments.is_empty());
    let store = store.ok_or_else(|| OpenError::NoJournal { dir: dir.into() })?;
    let at = |segment: &SegmentFile| SegmentAt { first: segment.header.first, chain: segment.header.chain };
    let segments = found.segments.iter().map(at).collect();
    Ok(Parts { store, segments, base: found.base.map(|base| base.position) })
}

/// Where copying a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Last position copied; before the segment's first if it holds none.
    pub(crate) last: Position,
    /// Chain up to there.
    pub(crate) chain: u64,
}

/// Why a segment was not copied.
#[derive(Debug)]
pub(crate) enum CopyStop {
    Read(io::Error),
    Write(io::Error),
    Damaged { position: Position, offset: u64, detail: &'static str },
}

/// Hands the segment's bytes to `out`, up to the batch that ends at `until` or the end of its data. Every
/// batch is compared with its checksums and its place first.
pub(crate) fn copy_segment(
    dir: &Path,
    store: StoreId,
    segment: SegmentAt,
    until: Position,
    mut out: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<Copied, CopyStop> {
    let file = open_either(&OsFiles, dir, segment.first).map_err(CopyStop::Read)?;
    let mut window = Window::new(file, SCAN_BYTES);
    let header = SegmentHeader { store, first: segment.first, chain: segment.chain };
    out(&header.encode()).map_err(CopyStop::Write)?;
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    let (mut next, mut chain) = (segment.first, segment.chain);
    while next <= until {
        let damaged = |detail| Err(CopyStop::Damaged { position: next, offset, detail });
        let header = match window.header(offset).map_err(CopyStop::Read)? {
            HeaderRead::Batch(header) => header,
            HeaderRead::Empty => break,
            HeaderRead::Bad(detail) => return damaged(detail),
        };
        if header.first != next || header.chain != chain {
            return damaged("the batch does not follow the one before it");
        }
        if header.last() > until {
            return damaged("the position asked for lies inside a batch");
        }
        let batch = window.batch(offset, header).map_err(CopyStop::Read)?;
        if !batch.is_intact() {
            return damaged("a checksum of the batch does not match");
        }
        let after = header.next_offset(offset);
        let padding = after - batch.offset_of(batch.body.len());
        out(&header.encode()).map_err(CopyStop::Write)?;
        out(&batch.body).map_err(CopyStop::Write)?;
        out(&[0; 8][..padding as usize]).map_err(CopyStop::Write)?;
        offset = after;
        chain = header.chain_after();
        next = header.last().next();
    }
    Ok(Copied { last: Position::new(next.get() - 1), chain })
}
