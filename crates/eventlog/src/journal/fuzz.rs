//! The decoders by themselves, for fuzzing: each takes any bytes, asserts what holds for them, and answers
//! whether they were accepted.
//!
//! Invariants:
//! * nothing here panics on any input; an assertion that fails is a defect of the decoder.
//! * what is signed has right checksums wherever its lengths allow, and is changed nowhere else: chance would
//!   not get behind a checksum.

use super::error::StoreId;
use super::files::Handle;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, HeaderRead};
use super::heads::HeadsCheckpoint;
use super::packed;
use super::window::{Batch, Piece};
use crate::portable;
use crate::record::{self, Fields};
use crate::types::Position;
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Decodes records one after the other to the end. What is accepted encodes to the same bytes.
pub fn records(bytes: &[u8]) -> bool {
    let buffer = Bytes::copy_from_slice(bytes);
    let mut at = 0;
    while let Ok((record, length)) = record::decode(&buffer, at) {
        let mut again = Vec::new();
        record::encode(&mut again, &record);
        assert_eq!(again, buffer[at..at + length], "one record has one encoding");
        at += length;
    }
    at > 0 && at == buffer.len()
}

/// Decodes a batch and takes from it what is whole, as recovery does.
pub fn batch(bytes: &[u8]) -> bool {
    let HeaderRead::Batch(header) = BatchHeader::decode(bytes.get(..BATCH_HEADER_BYTES).unwrap_or(bytes))
    else {
        return false;
    };
    let body = &bytes[BATCH_HEADER_BYTES..];
    let body = &body[..body.len().min(header.body_bytes as usize)];
    let batch = Batch { offset: 0, header, body: Bytes::copy_from_slice(body) };
    // A count that a forged checksum vouches for is bounded by what the body can hold.
    let (mut at, mut next) = (0, header.first);
    while next <= header.last() {
        match batch.piece(at, next) {
            Piece::Whole(record, next_at) => {
                assert_eq!(record.position, next);
                assert_eq!(batch.find(next), (at, Piece::Whole(record, next_at)), "both ways lead there");
                (at, next) = (next_at, next.next());
            }
            Piece::Bad { last, next_at, .. } => {
                assert!(last >= next && last <= header.last());
                assert!(next_at > at || last == header.last(), "it gets on");
                (at, next) = (next_at, last.next());
            }
        }
    }
    batch.is_intact()
}

/// Decodes a heads checkpoint. What is accepted encodes to the same bytes.
pub fn heads(bytes: &[u8]) -> bool {
    let Ok(Ok(checkpoint)) = HeadsCheckpoint::read(&InMemory(bytes.to_vec())) else { return false };
    assert_eq!(checkpoint.heads.len(), checkpoint.heads.iter().count());
    let again = HeadsCheckpoint::read(&InMemory(checkpoint.encode()));
    assert_eq!(again.ok(), Some(Ok(checkpoint)), "a checkpoint reads back as it was");
    true
}

/// Opens a compressed segment and reads all of it. What it says it holds is what it gives.
pub fn packed(bytes: &[u8]) -> bool {
    /// Segments larger than this are not read to their end.
    const READ_BYTES_MAX: u64 = 16 << 20;
    let Ok(segment) = packed::unpack(Arc::new(InMemory(bytes.to_vec()))) else { return false };
    let Ok(size) = segment.size() else { return false };
    let wanted = size.min(READ_BYTES_MAX) as usize;
    let mut buffer = vec![0u8; wanted];
    let read = super::files::read_full(&*segment, &mut buffer, 0);
    assert_eq!(read.ok(), Some(wanted), "a segment is as long as it says");
    true
}

/// Reads an export to its end. What it says it holds is what stands there.
pub fn export(bytes: &[u8]) -> bool {
    let Ok(report) = portable::verify_export(bytes) else { return false };
    assert_eq!(report.bytes, bytes.len() as u64, "an export has nothing behind its trailer");
    let records = report.last.get() + 1 - report.first.get();
    assert_eq!(report.records, records, "positions are gapless");
    true
}

/// Gives the `range` of bytes a right checksum at `at`, if both are there.
fn sign(bytes: &mut [u8], range: Range<usize>, at: usize) {
    let Some(crc) = bytes.get(range).map(crc32c::crc32c) else { return };
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Gives each record its checksum, as far as their lengths lead.
pub fn sign_records(bytes: &mut [u8]) {
    let mut rest = bytes;
    while let Ok(length) = record::length_at(rest, 0) {
        let (record, behind) = rest.split_at_mut(length);
        record::sign(record);
        rest = behind;
    }
}

/// Gives a batch and its records their checksums.
pub fn sign_batch(bytes: &mut [u8]) {
    let Some(length) = word(bytes, 4) else { return };
    let end = BATCH_HEADER_BYTES.saturating_add(length).min(bytes.len());
    if let Some(body) = bytes.get_mut(BATCH_HEADER_BYTES..end) {
        sign_records(body);
    }
    sign(bytes, BATCH_HEADER_BYTES..end, 32);
    sign(bytes, 0..36, 36);
}

/// Gives a heads checkpoint its checksum.
pub fn sign_heads(bytes: &mut [u8]) {
    if let Some(end) = bytes.len().checked_sub(4) {
        sign(bytes, 0..end, end);
    }
}

/// Gives the table of a compressed segment, and the blocks it names, their checksums.
pub fn sign_packed(bytes: &mut [u8]) {
    const TABLE: usize = 56;
    let Some(blocks) = word(bytes, 48).filter(|blocks| *blocks <= bytes.len() / 8) else { return };
    let (end, mut at) = (TABLE + blocks * 8, TABLE + blocks * 8 + 4);
    for entry in (TABLE..end).step_by(8) {
        let Some(length) = word(bytes, entry) else { break };
        sign(bytes, at..at.saturating_add(length), entry + 4);
        at = at.saturating_add(length);
    }
    sign(bytes, 0..end, end);
}

/// Gives the headers of an export, the stored bytes of its frames and its trailer their checksums. What sums up
/// several of them stays as it is.
pub fn sign_export(bytes: &mut [u8]) {
    const HEADER: usize = 128;
    const FRAME: usize = 40;
    sign(bytes, 0..HEADER - 4, HEADER - 4);
    let mut at = HEADER;
    while bytes.get(at..at + 4).is_some_and(|magic| magic == b"FRME") {
        let Some(length) = word(bytes, at + 4) else { return };
        let Some(end) = (at + FRAME).checked_add(length).filter(|end| *end <= bytes.len()) else { return };
        sign(bytes, at + FRAME..end, at + 32);
        sign(bytes, at..at + 36, at + 36);
        at = end;
    }
    sign(bytes, at..at + 52, at + 52);
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Fields(bytes).u32(at).ok().map(|word| word as usize)
}

/// A small compressed segment to start from.
pub fn packed_example() -> Vec<u8> {
    let raw = InMemory((0..300_000u32).map(|at| (at / 100) as u8).collect());
    packed::pack(&raw, 300_000, StoreId([3; 16]), Position::new(9)).unwrap_or_default()
}

/// A file in memory that is only read.
pub(crate) struct InMemory(pub(crate) Vec<u8>);

impl Handle for InMemory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
