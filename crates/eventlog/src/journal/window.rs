//! Reading batches from a segment: a window of bytes that moves forward.
//!
//! Invariants:
//! * no length from the disk is used before its header's checksum has matched;
//! * a window never reads more than the largest batch and its read-ahead at once.

use super::files::{Handle, read_full};
use super::format::{BATCH_HEADER_BYTES, BatchHeader, HeaderRead};
use crate::record;
use crate::types::{Position, Record};
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// Read-ahead of a scan over whole segments.
pub(crate) const SCAN_BYTES: usize = 1 << 20;
/// Read-ahead of a read of many records.
pub(crate) const RANGE_BYTES: usize = 128 << 10;
/// Read-ahead of a read of single records.
pub(crate) const POINT_BYTES: usize = 8 << 10;

/// A batch with its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) offset: u64,
    pub(crate) header: BatchHeader,
    pub(crate) body: Bytes,
}

impl Batch {
    /// Offset in the segment of a place in the body.
    pub(crate) fn offset_of(&self, at: usize) -> u64 {
        self.offset + BATCH_HEADER_BYTES as u64 + at as u64
    }

    /// Whether the body is as it was written.
    pub(crate) fn is_intact(&self) -> bool {
        self.body.len() == self.header.body_bytes as usize
            && crc32c::crc32c(&self.body) == self.header.body_crc
    }

    /// What stands at `at`, where the record of `position` belongs: the record, or damage up to the next
    /// record that is whole. Going from piece to piece, starting at zero with the batch's first position,
    /// covers every position of the batch once.
    pub(crate) fn piece(&self, at: usize, position: Position) -> Piece {
        let cause = match record::decode(&self.body, at) {
            Ok((record, length)) if record.position == position => return Piece::Whole(record, at + length),
            Ok(_) => "another record stands there".to_owned(),
            Err(error) => error.to_string(),
        };
        let last = self.header.last();
        for next_at in at + 1..(self.body.len() + 1).saturating_sub(record::RECORD_BYTES_MIN) {
            // The position is compared first: it is cheap, and wrong almost everywhere.
            if let Ok(found) = record::position_at(&self.body, next_at)
                && found > position
                && found <= last
                && record::decode(&self.body, next_at).is_ok_and(|(record, _)| record.position == found)
            {
                return Piece::Bad { last: Position::new(found.get() - 1), next_at, cause };
            }
        }
        Piece::Bad { last, next_at: self.body.len(), cause }
    }

    /// What stands where the record of `position` belongs, and where that is. Records before it are passed
    /// over by their lengths; if that leads to nothing whole, each is looked at, as recovery does.
    pub(crate) fn find(&self, position: Position) -> (usize, Piece) {
        assert!((self.header.first..=self.header.last()).contains(&position), "the batch holds the position");
        let (mut at, mut next) = (0, self.header.first);
        while let Some(next_at) = self.passed(at, next).filter(|_| next < position) {
            (at, next) = (next_at, next.next());
        }
        if next == position
            && let whole @ Piece::Whole(..) = self.piece(at, position)
        {
            return (at, whole);
        }
        let (mut at, mut next) = (0, self.header.first);
        loop {
            match self.piece(at, next) {
                Piece::Whole(_, next_at) if next < position => (at, next) = (next_at, next.next()),
                Piece::Bad { last, next_at, .. } if last < position => (at, next) = (next_at, last.next()),
                found => return (at, found),
            }
        }
    }

    /// Where the record behind the one at `at` starts, if both stand where they belong.
    fn passed(&self, at: usize, position: Position) -> Option<usize> {
        let next_at = at + record::length_at(&self.body, at).ok()?;
        let fits = |at, position| record::position_at(&self.body, at) == Ok(position);
        (fits(at, position) && fits(next_at, position.next())).then_some(next_at)
    }
}

/// What stands in a batch where a record belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The record, and where the next one starts.
    Whole(Record, usize),
    /// Nothing readable up to the record after `last`, which starts at `next_at`.
    Bad { last: Position, next_at: usize, cause: String },
}

/// A moving view of a file.
pub(crate) struct Window {
    file: Arc<dyn Handle>,
    start: u64,
    data: Bytes,
    ahead_bytes: usize,
}

impl Window {
    pub(crate) fn new(file: Arc<dyn Handle>, ahead_bytes: usize) -> Self {
        Self { file, start: 0, data: Bytes::new(), ahead_bytes }
    }

    /// Up to `length` bytes at `offset`; fewer only at the end of the file.
    pub(crate) fn get(&mut self, offset: u64, length: usize) -> io::Result<Bytes> {
        if let Some(held) = self.held(offset, length) {
            return Ok(held);
        }
        let mut buffer = vec![0u8; length.max(self.ahead_bytes)];
        let read = read_full(&*self.file, &mut buffer, offset)?;
        buffer.truncate(read);
        self.start = offset;
        self.data = Bytes::from(buffer);
        Ok(self.data.slice(..length.min(read)))
    }

    fn held(&self, offset: u64, length: usize) -> Option<Bytes> {
        let skip = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let end = skip.checked_add(length)?;
        (end <= self.data.len()).then(|| self.data.slice(skip..end))
    }

    /// What stands at a batch boundary.
    pub(crate) fn header(&mut self, offset: u64) -> io::Result<HeaderRead> {
        Ok(BatchHeader::decode(&self.get(offset, BATCH_HEADER_BYTES)?))
    }

    /// The batch behind a header read at `offset`. The body is shorter than the header says if the file ends.
    pub(crate) fn batch(&mut self, offset: u64, header: BatchHeader) -> io::Result<Batch> {
        let body = self.get(offset + BATCH_HEADER_BYTES as u64, header.body_bytes as usize)?;
        Ok(Batch { offset, header, body })
    }
}
