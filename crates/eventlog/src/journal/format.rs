//! Headers and names: what a segment and a batch look like from outside.
//!
//! ```text
//! segment  0 magic 8 | 8 format u32 | 12 header length u32 | 16 store id 16 | 32 first position u64
//!         40 chain u64 | 48 zeros | 124 crc32c u32
//! batch    0 magic u32 | 4 body length u32 | 8 count u32 | 12 flags u32 | 16 first position u64
//!         24 chain u64 | 32 crc32c of the body u32 | 36 crc32c of the header u32 | 40 records | zeros to 8
//! ```
//!
//! Invariants:
//! * batches start at multiples of eight, so that one can be found again behind damage;
//! * the header's checksum covers the body's checksum: one header vouches for the whole batch, and can be
//!   trusted for its length even where the body is damaged;
//! * `chain` sums up everything before: a batch fits only behind the one it was written behind;
//! * zeros where a batch would start are the end of the segment.

use super::error::StoreId;
use crate::record::Fields;
use crate::types::{LIMITS, Position};

/// Newest format this build reads and the one it writes.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"MUSHSEG\n";
pub(crate) const SEGMENT_HEADER_BYTES: usize = 128;
pub(crate) const BATCH_HEADER_BYTES: usize = 40;
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"BTCH");
const BATCH_ALIGN: u64 = 8;

pub(crate) const WITNESS_NAME: &str = "witness";
pub(crate) const SEGMENT_TEMP_NAME: &str = "segment.tmp";
pub(crate) const HEADS_TEMP_NAME: &str = "heads.tmp";
pub(crate) const BALLAST_NAME: &str = "ballast";
pub(crate) const DAMAGED_NAME: &str = "damaged";
pub(crate) const DAMAGED_TEMP_NAME: &str = "damaged.tmp";
pub(crate) const PACKED_TEMP_NAME: &str = "packed.tmp";
pub(crate) const BASE_TEMP_NAME: &str = "base.tmp";
const PACKED_SUFFIX: &str = ".zst";
const POSITION_DIGITS: usize = 20;

pub(crate) fn segment_name(first: Position) -> String {
    format!("{:020}.seg", first.get())
}

pub(crate) fn heads_name(position: Position) -> String {
    format!("heads-{:020}.chk", position.get())
}

/// Name of a compressed segment.
pub(crate) fn packed_name(first: Position) -> String {
    format!("{}{PACKED_SUFFIX}", segment_name(first))
}

/// Name of the heads at the end of what was archived.
pub(crate) fn base_name(position: Position) -> String {
    format!("base-{:020}.chk", position.get())
}

/// What a file name in the journal's directory says the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Segment(Position),
    Packed(Position),
    Heads(Position),
    Base(Position),
    Witness,
    Damaged,
    Ballast,
    Temporary,
    Foreign,
}

pub(crate) fn classify(name: &str) -> Named {
    let position = |digits: &str| {
        let is_padded = digits.len() == POSITION_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_padded.then(|| digits.parse().ok()).flatten().map(Position::new)
    };
    if let Some(first) = name.strip_suffix(".seg").and_then(position) {
        return Named::Segment(first);
    }
    let unpacked = name.strip_suffix(PACKED_SUFFIX).and_then(|rest| rest.strip_suffix(".seg"));
    if let Some(first) = unpacked.and_then(position) {
        return Named::Packed(first);
    }
    if let Some(at) = name.strip_prefix("base-").and_then(|rest| rest.strip_suffix(".chk")).and_then(position)
    {
        return Named::Base(at);
    }
    if let Some(at) =
        name.strip_prefix("heads-").and_then(|rest| rest.strip_suffix(".chk")).and_then(position)
    {
        return Named::Heads(at);
    }
    match name {
        WITNESS_NAME => Named::Witness,
        DAMAGED_NAME => Named::Damaged,
        BALLAST_NAME => Named::Ballast,
        SEGMENT_TEMP_NAME | HEADS_TEMP_NAME | DAMAGED_TEMP_NAME | PACKED_TEMP_NAME | BASE_TEMP_NAME => {
            Named::Temporary
        }
        _ => Named::Foreign,
    }
}

/// Header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store: StoreId,
    pub(crate) first: Position,
    /// Chain up to the end of the segment before.
    pub(crate) chain: u64,
}

/// Why bytes are no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Newer(u32),
    Damaged(&'static str),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0u8; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&(SEGMENT_HEADER_BYTES as u32).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.store.0);
        bytes[32..40].copy_from_slice(&self.first.get().to_le_bytes());
        bytes[40..48].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..124]);
        bytes[124..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let cut_off = |_| BadHeader::Damaged("the segment's header is cut off");
        let fields = Fields(bytes);
        if fields.array(0).map_err(cut_off)? != SEGMENT_MAGIC {
            return Err(BadHeader::Damaged("the file does not start as a segment does"));
        }
        // Before the checksum: a later format may keep it elsewhere.
        let format = fields.u32(8).map_err(cut_off)?;
        let is_intact = fields.u32(124).map_err(cut_off)? == crc32c::crc32c(&bytes[..124]);
        if format > FORMAT && (is_intact || format < 1 << 16) {
            return Err(BadHeader::Newer(format));
        }
        if !is_intact || format == 0 || fields.u32(12).map_err(cut_off)? as usize != SEGMENT_HEADER_BYTES {
            return Err(BadHeader::Damaged("the segment header's checksum does not match"));
        }
        Ok(Self {
            store: StoreId(fields.array(16).map_err(cut_off)?),
            first: Position::new(fields.u64(32).map_err(cut_off)?),
            chain: fields.u64(40).map_err(cut_off)?,
        })
    }
}

/// Chain before the first batch of a store.
pub(crate) fn chain_origin(store: StoreId) -> u64 {
    let (high, low) = store.0.split_at(8);
    let word = |bytes: &[u8]| bytes.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    mix(mix(word(high)) ^ word(low))
}

/// Spreads every bit over all bits. It tells mix-ups apart; it is no defence against forgery.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) body_bytes: u32,
    pub(crate) count: u32,
    pub(crate) first: Position,
    /// Chain up to the batch before.
    pub(crate) chain: u64,
    pub(crate) body_crc: u32,
}

/// What stands where a batch would start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderRead {
    Batch(BatchHeader),
    /// Zeros, or the end of the file.
    Empty,
    Bad(&'static str),
}

impl BatchHeader {
    pub(crate) fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0u8; BATCH_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.chain.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads what stands at a batch boundary. Fewer bytes than a header are the end of the file.
    pub(crate) fn decode(bytes: &[u8]) -> HeaderRead {
        if bytes.iter().all(|byte| *byte == 0) {
            return HeaderRead::Empty;
        }
        let Some(bytes) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return HeaderRead::Bad("the batch's header is cut off");
        };
        Self::decode_whole(bytes).unwrap_or(HeaderRead::Bad("the batch's header is cut off"))
    }

    fn decode_whole(bytes: &[u8; BATCH_HEADER_BYTES]) -> Result<HeaderRead, crate::record::Malformed> {
        let fields = Fields(bytes);
        if fields.u32(0)? != BATCH_MAGIC {
            return Ok(HeaderRead::Bad("no batch starts where one should"));
        }
        if fields.u32(36)? != crc32c::crc32c(&bytes[..36]) {
            return Ok(HeaderRead::Bad("the batch header's checksum does not match"));
        }
        let header = Self {
            body_bytes: fields.u32(4)?,
            count: fields.u32(8)?,
            first: Position::new(fields.u64(16)?),
            chain: fields.u64(24)?,
            body_crc: fields.u32(32)?,
        };
        let is_possible = fields.u32(12)? == 0
            && header.count > 0
            && header.body_bytes as usize <= LIMITS.batch_bytes_max
            && header.body_bytes as usize >= header.count as usize * crate::record::RECORD_BYTES_MIN
            && header.first.get().checked_add(u64::from(header.count)).is_some();
        Ok(if is_possible {
            HeaderRead::Batch(header)
        } else {
            HeaderRead::Bad("the batch's header is impossible")
        })
    }

    /// Last position in the batch.
    pub(crate) fn last(&self) -> Position {
        Position::new(self.first.get() + u64::from(self.count) - 1)
    }

    /// Chain up to and including this batch.
    pub(crate) fn chain_after(&self) -> u64 {
        let sums = u64::from(self.body_crc) << 32 | u64::from(self.body_bytes);
        mix(mix(self.chain ^ sums) ^ self.first.get() ^ u64::from(self.count) << 48)
    }

    /// Offset of the batch after this one, which starts at `offset`.
    pub(crate) fn next_offset(&self, offset: u64) -> u64 {
        aligned(offset + BATCH_HEADER_BYTES as u64 + u64::from(self.body_bytes))
    }
}

/// The batch boundary at or after an offset.
pub(crate) fn aligned(offset: u64) -> u64 {
    offset.next_multiple_of(BATCH_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: BatchHeader =
        BatchHeader { body_bytes: 900, count: 3, first: Position::new(77), chain: 5, body_crc: 9 };

    #[test]
    fn headers_read_back_as_written() {
        assert_eq!(BatchHeader::decode(&HEADER.encode()), HeaderRead::Batch(HEADER));
        let segment = SegmentHeader { store: StoreId([7; 16]), first: Position::new(9), chain: 11 };
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_noticed() {
        for bit in 0..BATCH_HEADER_BYTES * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(BatchHeader::decode(&bytes), HeaderRead::Bad(_)), "batch bit {bit}");
        }
        let segment = SegmentHeader { store: StoreId([7; 16]), first: Position::new(9), chain: 11 };
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut bytes = segment.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "segment bit {bit}");
        }
    }

    #[test]
    fn the_chain_depends_on_every_field() {
        let table = [
            BatchHeader { body_bytes: 901, ..HEADER },
            BatchHeader { count: 4, ..HEADER },
            BatchHeader { first: Position::new(78), ..HEADER },
            BatchHeader { chain: 6, ..HEADER },
            BatchHeader { body_crc: 10, ..HEADER },
        ];
        assert!(table.iter().all(|other| other.chain_after() != HEADER.chain_after()));
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let segment = SegmentHeader { store: StoreId([7; 16]), first: Position::new(9), chain: 11 };
        let mut bytes = segment.encode();
        bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Newer(2)));
    }

    #[test]
    fn names_are_classified() {
        let table = [
            ("00000000000000000001.seg", Named::Segment(Position::new(1))),
            ("heads-00000000000000000042.chk", Named::Heads(Position::new(42))),
            ("witness", Named::Witness),
            ("segment.tmp", Named::Temporary),
            ("1.seg", Named::Foreign),
            ("0000000000000000000x.seg", Named::Foreign),
            ("99999999999999999999.seg", Named::Foreign),
            ("notes.txt", Named::Foreign),
        ];
        for (name, expected) in table {
            assert_eq!(classify(name), expected, "{name}");
        }
        assert_eq!(classify(&segment_name(Position::new(7))), Named::Segment(Position::new(7)));
        assert_eq!(classify(&heads_name(Position::new(7))), Named::Heads(Position::new(7)));
    }
}
