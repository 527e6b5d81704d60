//! Making a journal from an export.
//!
//! Invariants:
//! * store id, positions, versions, times and contexts are those of the export;
//! * an append stays within one batch, so that it is still visible whole or not at all.

use super::error::Error;
use super::place::Place;
use super::streaming::Streaming;
use crate::journal::transfer::SegmentMaker;
use crate::journal::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, StoreId};
use crate::record;
use crate::types::{LIMITS, Position, Record};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Batches are closed at the end of an append before they hold more than this, or than a quarter of a segment.
const BATCH_BYTES: u64 = 256 << 10;
const INPUT_BYTES: usize = 1 << 20;

/// What was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportReport {
    /// Identity of the store, that of the export.
    pub store: StoreId,
    /// Last position.
    pub last: Position,
    /// Number of streams.
    pub streams: u64,
    /// Number of segments made.
    pub segments: u64,
}

/// Makes a journal in `dir`, which is absent or empty, from an export that starts at position 1. Segments have
/// `segment_bytes`. The journal is durable and verified when this returns.
pub fn import(input: impl Read, dir: &Path, segment_bytes: u64) -> Result<ImportReport, Error> {
    let mut streaming = Streaming::start(input)?;
    let header = streaming.header;
    if header.first != Position::new(1) {
        return Err(Error::NotFromStart { first: header.first });
    }
    let place = Place::begin(dir)?;
    let segment_bytes = segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    let mut batches = Batches {
        maker: SegmentMaker::new(place.dir(), header.store, segment_bytes),
        batch: vec![],
        append: vec![],
        batch_bytes: 0,
        append_bytes: 0,
        bytes_max: BATCH_BYTES.min(segment_bytes / 4) as usize,
    };
    let writing = |source| Error::Io { doing: "writing", path: place.dir().into(), source };
    while let Some(frame) = streaming.next()? {
        for record in frame.records {
            batches.add(record).map_err(writing)?;
        }
    }
    batches.flush().map_err(writing)?;
    if !batches.append.is_empty() {
        let problem = format!("the last append, at position {}, is not whole", batches.append[0].position);
        return Err(Error::NotVerified { path: place.dir().into(), problem });
    }
    batches.maker.finish().map_err(writing)?;
    let verified = place.finish(header.last)?;
    let Streaming { streams, .. } = streaming;
    assert_eq!(verified.streams, streams.len(), "the journal holds the streams of the export");
    Ok(ImportReport {
        store: header.store,
        last: header.last,
        streams: streams.len(),
        segments: verified.segments,
    })
}

/// Imports from a file.
pub fn import_file(path: &Path, dir: &Path, segment_bytes: u64) -> Result<ImportReport, Error> {
    let file = File::open(path).map_err(Error::io("opening", path))?;
    import(BufReader::with_capacity(INPUT_BYTES, file), dir, segment_bytes)
}

/// Records on their way into batches.
struct Batches {
    maker: SegmentMaker,
    /// Whole appends.
    batch: Vec<Record>,
    batch_bytes: usize,
    /// An append that is not yet whole.
    append: Vec<Record>,
    append_bytes: usize,
    /// A batch holds no more than this unless a single append does.
    bytes_max: usize,
}

impl Batches {
    fn add(&mut self, record: Record) -> std::io::Result<()> {
        let (index, count) = record.index;
        if usize::from(index) != self.append.len() {
            return Err(std::io::Error::other(format!(
                "position {}: its append is not whole",
                record.position
            )));
        }
        self.append_bytes += record::encoded_len(record.payload.len(), record.context.as_ref());
        if self.append_bytes > LIMITS.batch_bytes_max {
            return Err(std::io::Error::other(format!(
                "position {}: its append is too large",
                record.position
            )));
        }
        self.append.push(record);
        if index + 1 < count {
            return Ok(());
        }
        if self.batch_bytes + self.append_bytes > self.bytes_max {
            self.flush()?;
        }
        self.batch.append(&mut self.append);
        self.batch_bytes += std::mem::take(&mut self.append_bytes);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if !self.batch.is_empty() {
            self.maker.batch(&self.batch)?;
            self.batch.clear();
            self.batch_bytes = 0;
        }
        Ok(())
    }
}
