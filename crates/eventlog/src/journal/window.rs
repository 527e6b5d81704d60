//! Reading batches from a segment: a window of bytes that moves forward.
//!
//! Invariants:
//! * no length from the disk is used before its header's checksum has matched;
//! * a window never reads more than the largest batch and its read-ahead at once.

use super::files::{Handle, read_full};
use super::format::{BATCH_HEADER_BYTES, BatchHeader, HeaderRead};
use crate::record;
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

    /// Where in the body the first record that is not as it was written starts, and its index.
    pub(crate) fn first_bad_record(&self) -> (u32, usize) {
        let mut at = 0;
        for index in 0..self.header.count {
            match record::decode(&self.body, at) {
                Ok((_, length)) => at += length,
                Err(_) => return (index, at),
            }
        }
        // Every record is whole: the damage lies in what the batch says about itself.
        (0, 0)
    }
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
