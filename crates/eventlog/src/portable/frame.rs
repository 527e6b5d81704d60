//! Bytes of an export.
//!
//! ```text
//! header   0 magic 8 | 8 format u32 | 12 header length u32 | 16 store id 16 | 32 first position u64
//!         40 last position u64 | 48 zeros | 124 crc32c u32
//! frame    0 "FRME" | 4 stored bytes u32 | 8 raw bytes u32 | 12 records u32 | 16 first position u64
//!         24 chain u64 | 32 crc32c of the stored bytes u32 | 36 crc32c of 0..36 u32 | 40 zstd of the records
//! trailer  0 "TAIL" | 4 zero u32 | 8 frames u64 | 16 records u64 | 24 raw bytes u64 | 32 last position u64
//!         40 chain u64 | 48 zero u32 | 52 crc32c of 0..52 u32
//! ```
//!
//! Invariants:
//! * records are encoded as in a segment, each with its own checksum; only whole ones are in a frame;
//! * `chain` sums up every frame before: a frame fits only behind the one it was written behind;
//! * a frame's records take at most [`FRAME_RAW_BYTES_MAX`], and so do its stored bytes: what zstd would make
//!   longer is refused by the reader and cannot come from the writer.

use super::error::Error;
use crate::journal::StoreId;
use crate::record::{self, Fields, Malformed};
use crate::types::{LIMITS, Position, Record};
use bytes::Bytes;

/// Newest format this build reads and the one it writes.
pub(crate) const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"MUSHEXP\n";
pub(crate) const HEADER_BYTES: usize = 128;
const FRAME_MAGIC: [u8; 4] = *b"FRME";
pub(crate) const FRAME_HEADER_BYTES: usize = 40;
const TRAILER_MAGIC: [u8; 4] = *b"TAIL";
pub(crate) const TRAILER_BYTES: usize = 56;
/// A frame is closed once it holds this much: large enough to compress well, small enough to be unpacked for
/// one record.
pub(crate) const FRAME_RAW_BYTES: usize = 256 << 10;
/// One record more than that.
pub(crate) const FRAME_RAW_BYTES_MAX: usize = FRAME_RAW_BYTES + LIMITS.record_bytes_max;
/// zstd adds at most a 256th part and a few bytes to what it cannot compress.
const STORED_BYTES_MAX: usize = FRAME_RAW_BYTES_MAX + FRAME_RAW_BYTES_MAX / 128 + 1_024;
const COMPRESSION_LEVEL: i32 = 3;

/// Header of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExportHeader {
    pub(crate) store: StoreId,
    pub(crate) first: Position,
    pub(crate) last: Position,
}

impl ExportHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.store.0);
        bytes[32..40].copy_from_slice(&self.first.get().to_le_bytes());
        bytes[40..48].copy_from_slice(&self.last.get().to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..124]);
        bytes[124..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Error> {
        Self::decode_fields(bytes).unwrap_or(Err(Error::NotAnExport))
    }

    fn decode_fields(bytes: &[u8; HEADER_BYTES]) -> Result<Result<Self, Error>, Malformed> {
        let fields = Fields(bytes);
        if fields.array(0)? != MAGIC {
            return Ok(Err(Error::NotAnExport));
        }
        let format = fields.u32(8)?;
        let is_intact = fields.u32(124)? == crc32c::crc32c(&bytes[..124]);
        // A later format may keep its checksum elsewhere; a wild number is damage.
        if format > FORMAT && (is_intact || format < 1 << 16) {
            return Ok(Err(Error::NewerFormat { what: "export", found: format, known: FORMAT }));
        }
        let header = Self {
            store: StoreId(fields.array(16)?),
            first: Position::new(fields.u64(32)?),
            last: Position::new(fields.u64(40)?),
        };
        let is_possible = header.first > Position::ZERO
            && header.last < Position::new(u64::MAX)
            && header.first <= header.last.next();
        let is_known = format == FORMAT && fields.u32(12)? as usize == HEADER_BYTES;
        if !is_intact || !is_known || !is_possible {
            let detail = "the header's checksum does not match".to_owned();
            return Ok(Err(Error::Damaged { frame: 0, position: Position::new(1), detail }));
        }
        Ok(Ok(header))
    }
}

/// Chain before the first frame.
pub(crate) fn chain_origin(header: &ExportHeader) -> u64 {
    advance(header.first.get(), &header.encode())
}

/// Chain after `bytes`, a header of a frame or of the export.
pub(crate) fn advance(chain: u64, bytes: &[u8]) -> u64 {
    let sum = u64::from(crc32c::crc32c(bytes)) | u64::from(crc32c::crc32c_append(!0x5a, bytes)) << 32;
    let mut word = chain ^ sum;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) stored_bytes: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) records: u32,
    pub(crate) first: Position,
    pub(crate) chain: u64,
    pub(crate) crc: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0u8; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&FRAME_MAGIC);
        bytes[4..8].copy_from_slice(&self.stored_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.raw_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.records.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.chain.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn chain_after(&self) -> u64 {
        advance(self.chain, &self.encode())
    }

    /// Last position in the frame.
    pub(crate) fn last(&self) -> Position {
        Position::new(self.first.get() + u64::from(self.records) - 1)
    }

    /// Checks the stored bytes and takes the records out of them, which follow each other in the log. The error
    /// says what is wrong.
    pub(crate) fn unpack(&self, stored: &[u8]) -> Result<Vec<Record>, String> {
        let records = self.records(stored)?;
        for (record, position) in records.iter().zip(self.first.get()..) {
            if record.position.get() != position {
                return Err(format!("position {position}: another record stands there"));
            }
        }
        Ok(records)
    }

    /// Checks the stored bytes and takes the records out of them, wherever in the log they are. The error says
    /// what is wrong.
    pub(crate) fn records(&self, stored: &[u8]) -> Result<Vec<Record>, String> {
        if crc32c::crc32c(stored) != self.crc {
            return Err("the frame's checksum does not match".into());
        }
        let raw = zstd::bulk::decompress(stored, self.raw_bytes as usize)
            .map_err(|error| format!("the frame does not unpack ({error}), though its checksum matches"))?;
        if raw.len() != self.raw_bytes as usize {
            return Err("the frame unpacks to another length than it says".into());
        }
        let raw = Bytes::from(raw);
        let mut records = Vec::with_capacity(self.records as usize);
        let mut at = 0;
        for number in 1..=self.records {
            let (record, length) =
                record::decode(&raw, at).map_err(|error| format!("record {number} of the frame: {error}"))?;
            records.push(record);
            at += length;
        }
        if at == raw.len() { Ok(records) } else { Err("the frame is longer than its records".into()) }
    }
}

/// Packs encoded records into a frame: its header and its stored bytes.
pub(crate) fn pack(
    raw: &[u8],
    records: u32,
    first: Position,
    chain: u64,
) -> std::io::Result<(FrameHeader, Vec<u8>)> {
    assert!(raw.len() <= FRAME_RAW_BYTES_MAX, "a frame is closed in time");
    let stored = zstd::bulk::compress(raw, COMPRESSION_LEVEL)?;
    assert!(stored.len() <= STORED_BYTES_MAX, "zstd keeps to its bound");
    let header = FrameHeader {
        stored_bytes: stored.len() as u32,
        raw_bytes: raw.len() as u32,
        records,
        first,
        chain,
        crc: crc32c::crc32c(&stored),
    };
    Ok((header, stored))
}

/// End of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) frames: u64,
    pub(crate) records: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) last: Position,
    pub(crate) chain: u64,
}

impl Trailer {
    pub(crate) fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0u8; TRAILER_BYTES];
        bytes[0..4].copy_from_slice(&TRAILER_MAGIC);
        bytes[8..16].copy_from_slice(&self.frames.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.records.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.raw_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.last.get().to_le_bytes());
        bytes[40..48].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..52]);
        bytes[52..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; TRAILER_BYTES]) -> Result<Self, &'static str> {
        Self::decode_fields(bytes).unwrap_or(Err("the trailer is cut off"))
    }

    fn decode_fields(bytes: &[u8; TRAILER_BYTES]) -> Result<Result<Self, &'static str>, Malformed> {
        let fields = Fields(bytes);
        if fields.u32(52)? != crc32c::crc32c(&bytes[..52]) || fields.u32(4)? != 0 || fields.u32(48)? != 0 {
            return Ok(Err("the trailer's checksum does not match"));
        }
        Ok(Ok(Self {
            frames: fields.u64(8)?,
            records: fields.u64(16)?,
            raw_bytes: fields.u64(24)?,
            last: Position::new(fields.u64(32)?),
            chain: fields.u64(40)?,
        }))
    }
}

/// What the first bytes behind a frame announce.
pub(crate) enum Announced {
    Frame(FrameHeader),
    /// A trailer, of which this is the start.
    Trailer,
    Bad(&'static str),
}

/// Reads what stands where a frame or the trailer starts.
pub(crate) fn announced(bytes: &[u8; FRAME_HEADER_BYTES]) -> Announced {
    let decode = || -> Result<Announced, Malformed> {
        let fields = Fields(bytes);
        if fields.array(0)? == TRAILER_MAGIC {
            return Ok(Announced::Trailer);
        }
        if fields.array(0)? != FRAME_MAGIC {
            return Ok(Announced::Bad("no frame starts where one should"));
        }
        if fields.u32(36)? != crc32c::crc32c(&bytes[..36]) {
            return Ok(Announced::Bad("the frame header's checksum does not match"));
        }
        let header = FrameHeader {
            stored_bytes: fields.u32(4)?,
            raw_bytes: fields.u32(8)?,
            records: fields.u32(12)?,
            first: Position::new(fields.u64(16)?),
            chain: fields.u64(24)?,
            crc: fields.u32(32)?,
        };
        let is_possible = header.records > 0
            && header.raw_bytes as usize <= FRAME_RAW_BYTES_MAX
            && header.stored_bytes as usize <= STORED_BYTES_MAX
            && header.raw_bytes as usize >= header.records as usize * record::RECORD_BYTES_MIN
            && header.first.get().checked_add(u64::from(header.records)).is_some();
        Ok(if is_possible {
            Announced::Frame(header)
        } else {
            Announced::Bad("the frame's header is impossible")
        })
    };
    decode().unwrap_or(Announced::Bad("the frame's header is cut off"))
}
