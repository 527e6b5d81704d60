//! An export open for reading in any order: offline replay without a journal.
//!
//! Invariants:
//! * opening reads all of it once and refuses whatever is not whole; a frame is checked again when it is read;
//! * in memory are the heads, one entry per frame, and at most [`FRAMES_HELD`] unpacked frames.

use super::error::Error;
use super::frame::{FRAME_HEADER_BYTES, FrameHeader};
use super::streaming::Streaming;
use super::streams::Streams;
use crate::gate;
use crate::journal::StoreId;
use crate::log::ReadError;
use crate::types::{Head, Position, Record, StreamId, Version};
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Unpacked frames held: some megabytes, and neighbours in a stream are often neighbours in the log.
const FRAMES_HELD: usize = 16;
const INPUT_BYTES: usize = 1 << 20;

struct FrameAt {
    header: FrameHeader,
    offset: u64,
}

type Held = VecDeque<(usize, Arc<Vec<Record>>)>;

/// A whole export, verified when it was opened.
pub struct ExportReader {
    file: File,
    store: StoreId,
    first: Position,
    last: Position,
    streams: Streams,
    frames: Vec<FrameAt>,
    held: Mutex<Held>,
}

impl fmt::Debug for ExportReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportReader")
            .field("store", &self.store)
            .field("first", &self.first)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl ExportReader {
    /// Opens an export and verifies all of it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("opening", path))?;
        let mut streaming = Streaming::start(BufReader::with_capacity(INPUT_BYTES, &file))?;
        let mut frames = Vec::new();
        while let Some(frame) = streaming.next()? {
            frames.push(FrameAt { header: frame.header, offset: frame.offset });
        }
        let (header, streams) = (streaming.header, streaming.streams);
        Ok(Self {
            store: header.store,
            first: header.first,
            last: header.last,
            streams,
            frames,
            held: Mutex::default(),
            file,
        })
    }

    /// Identity of the store it was exported from.
    pub fn store_id(&self) -> StoreId {
        self.store
    }

    /// First position it holds.
    pub fn first(&self) -> Position {
        self.first
    }

    /// Last position it holds; before the first if it holds none.
    pub fn durable(&self) -> Position {
        self.last
    }

    /// Head of a stream (zero if unknown).
    pub fn head(&self, stream: StreamId) -> Head {
        self.streams.head(stream)
    }

    /// Every stream with its head, in order of their names.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, Head)> + '_ {
        self.streams.iter()
    }

    /// Reads the whole log from position `from` (inclusive), at most `limit` records, in order. Empty beyond the
    /// end.
    pub fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        let mut next = from.max(Position::new(1));
        let mut records = Vec::new();
        while next <= self.last && records.len() < limit {
            let frame = self.frame(self.locate(next)?)?;
            let skip = gate::skip_to(frame[0].position, next);
            records.extend(frame.iter().skip(skip).take(limit - records.len()).cloned());
            next = frame[frame.len() - 1].position.next();
        }
        Ok(records)
    }

    /// Reads a stream from version `from` (inclusive), at most `limit` records. Refuses versions that lie
    /// before the first position of the export.
    pub fn read_stream(
        &self,
        stream: StreamId,
        from: Version,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let head = self.head(stream);
        let from = from.max(Version::new(1));
        if from > head.version || limit == 0 {
            return Ok(Vec::new());
        }
        let last = from.get().saturating_add(limit as u64 - 1).min(head.version.get());
        let mut records = VecDeque::new();
        let (mut position, mut version) = (head.position, head.version);
        while version >= from && version > Version::ZERO {
            let frame = self.frame(self.locate(position)?)?;
            let record = &frame[gate::skip_to(frame[0].position, position)];
            assert_eq!((record.stream, record.version), (stream, version), "opening compared back pointers");
            position = record.previous;
            if version.get() <= last {
                records.push_front(record.clone());
            }
            version = Version::new(version.get() - 1);
        }
        Ok(records.into())
    }

    /// Index of the frame that holds a position at or below the end.
    fn locate(&self, position: Position) -> Result<usize, ReadError> {
        if position < self.first {
            return Err(ReadError::Archived { asked: position, oldest: self.first });
        }
        let after = self.frames.partition_point(|frame| frame.header.first <= position);
        Ok(after.checked_sub(1).expect("the first frame starts at the first position"))
    }

    fn frame(&self, index: usize) -> Result<Arc<Vec<Record>>, ReadError> {
        {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, records)) = held.iter().find(|(at, _)| *at == index) {
                return Ok(records.clone());
            }
        }
        let FrameAt { header, offset } = &self.frames[index];
        let mut stored = vec![0u8; header.stored_bytes as usize];
        self.file
            .read_exact_at(&mut stored, offset + FRAME_HEADER_BYTES as u64)
            .map_err(|error| ReadError::Io(error.to_string()))?;
        // It was whole when the export was opened.
        let records = header.unpack(&stored).map_err(|detail| ReadError::Damaged {
            position: header.first,
            last: None,
            streams: Vec::new(),
            detail: format!("frame {}: {detail}", index + 1),
        })?;
        let records = Arc::new(records);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push_front((index, records.clone()));
        held.truncate(FRAMES_HELD);
        Ok(records)
    }
}
