//! One record as bytes: a fixed envelope, the context of its append (on the first event), the payload, a
//! checksum.
//!
//! ```text
//!  0 length u32 | 4 kind u16 | 6 schema u16 | 8 codec u8 | 9 flags u8 | 10 stream kind u8 | 11 zero
//! 12 index u16 | 14 count u16 | 16 stream id 16 | 32 version u64 | 40 position u64 | 48 previous u64
//! 56 cause u64 | 64 time u64 | 72 context length u32 | 76 payload length u32
//! 80 context | payload | masked crc32c u32 over everything before it
//! ```
//!
//! Invariants:
//! * numbers are little-endian; `length` counts the whole record, itself and the checksum included;
//! * the checksum is compared before any other field is believed;
//! * the checksum is stored masked: the CRC of bytes that end with their own CRC is a constant, so the
//!   batch's checksum over plain ones would depend on nothing but lengths;
//! * unknown flag bits are refused: a later format may give them a meaning this one would misread;
//! * decoding never panics and never allocates by a length it has not checked: payload and context are
//!   slices of the buffer they came in.

use crate::types::{
    AppendContext, CodecId, LIMITS, Position, Record, StreamId, StreamKind, TraceContext, Version,
};
use bytes::Bytes;

/// Bytes of the envelope before context and payload.
pub(crate) const FIXED_BYTES: usize = 80;
/// Bytes of the checksum.
const CRC_BYTES: usize = 4;
/// Smallest record there can be.
pub(crate) const RECORD_BYTES_MIN: usize = FIXED_BYTES + CRC_BYTES;

const FLAG_CONTEXT: u8 = 1;

const CONTEXT_FIXED_BYTES: usize = 8;
const CONTEXT_REQUEST: u8 = 1;
const CONTEXT_SAGA: u8 = 2;
const CONTEXT_TRACE: u8 = 4;

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// Fewer bytes than the record says it has.
    #[error("the record is cut off")]
    CutOff,
    /// The length field is outside the bounds of the format.
    #[error("the record's length is impossible")]
    Length,
    /// The bytes are not those that were written.
    #[error("the record's checksum does not match")]
    Checksum,
    /// The checksum matches and yet the fields contradict each other.
    #[error("the record's fields contradict each other")]
    Fields,
}

/// Turns a CRC into one that is no CRC of what stands before it: neither step is linear over the other.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn context_len(context: &AppendContext) -> usize {
    CONTEXT_FIXED_BYTES
        + context.request.map_or(0, |_| 16)
        + context.saga.map_or(0, |_| 18)
        + context.trace.map_or(0, |_| 25)
        + context.actor.len()
        + context.build.len()
        + context.input.len()
}

/// Bytes a record takes; saturates instead of overflowing, so that a limit check after it holds.
pub(crate) fn encoded_len(payload: usize, context: Option<&AppendContext>) -> usize {
    RECORD_BYTES_MIN.saturating_add(payload).saturating_add(context.map_or(0, context_len))
}

/// Appends the record's bytes to `out`. The record has passed the limits.
pub(crate) fn encode(out: &mut Vec<u8>, record: &Record) {
    let start = out.len();
    let context_bytes = record.context.as_ref().map_or(0, context_len);
    let length = RECORD_BYTES_MIN + context_bytes + record.payload.len();
    assert!(length <= LIMITS.record_bytes_max, "admitted records are within the limit");
    let mut fixed = [0u8; FIXED_BYTES];
    fixed[0..4].copy_from_slice(&(length as u32).to_le_bytes());
    fixed[4..6].copy_from_slice(&record.kind.to_le_bytes());
    fixed[6..8].copy_from_slice(&record.schema.to_le_bytes());
    fixed[8] = record.codec.0;
    fixed[9] = if record.context.is_some() { FLAG_CONTEXT } else { 0 };
    fixed[10] = record.stream.kind.0;
    fixed[12..14].copy_from_slice(&record.index.0.to_le_bytes());
    fixed[14..16].copy_from_slice(&record.index.1.to_le_bytes());
    fixed[16..32].copy_from_slice(&record.stream.id);
    fixed[32..40].copy_from_slice(&record.version.get().to_le_bytes());
    fixed[40..48].copy_from_slice(&record.position.get().to_le_bytes());
    fixed[48..56].copy_from_slice(&record.previous.get().to_le_bytes());
    fixed[56..64].copy_from_slice(&record.cause.get().to_le_bytes());
    fixed[64..72].copy_from_slice(&record.time_us.to_le_bytes());
    fixed[72..76].copy_from_slice(&(context_bytes as u32).to_le_bytes());
    fixed[76..80].copy_from_slice(&(record.payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&fixed);
    if let Some(context) = &record.context {
        encode_context(out, context);
    }
    out.extend_from_slice(&record.payload);
    let crc = masked(crc32c::crc32c(&out[start..]));
    out.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(out.len() - start, length, "a record is as long as it says");
}

fn encode_context(out: &mut Vec<u8>, context: &AppendContext) {
    let bit = |present: bool, bit: u8| if present { bit } else { 0 };
    let present = bit(context.request.is_some(), CONTEXT_REQUEST)
        | bit(context.saga.is_some(), CONTEXT_SAGA)
        | bit(context.trace.is_some(), CONTEXT_TRACE);
    out.extend_from_slice(&[present, context.actor.len() as u8, context.build.len() as u8, 0]);
    out.extend_from_slice(&(context.input.len() as u32).to_le_bytes());
    if let Some(request) = &context.request {
        out.extend_from_slice(request);
    }
    if let Some((saga, step)) = &context.saga {
        out.extend_from_slice(saga);
        out.extend_from_slice(&step.to_le_bytes());
    }
    if let Some(trace) = &context.trace {
        out.extend_from_slice(&trace.trace_id);
        out.extend_from_slice(&trace.span_id);
        out.push(trace.flags);
    }
    out.extend_from_slice(&context.actor);
    out.extend_from_slice(&context.build);
    out.extend_from_slice(&context.input);
}

/// Gives the bytes of a record a right checksum, whatever stands in them.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn sign(record: &mut [u8]) {
    let (body, place) = record.split_at_mut(record.len() - CRC_BYTES);
    place.copy_from_slice(&masked(crc32c::crc32c(body)).to_le_bytes());
}

/// Length of the record that starts at `at`, if it is possible and all there.
pub(crate) fn length_at(buffer: &[u8], at: usize) -> Result<usize, Malformed> {
    let rest = buffer.get(at..).ok_or(Malformed::CutOff)?;
    let length = Fields(rest).u32(0)? as usize;
    if !(RECORD_BYTES_MIN..=LIMITS.record_bytes_max).contains(&length) {
        return Err(Malformed::Length);
    }
    if rest.len() < length {
        return Err(Malformed::CutOff);
    }
    Ok(length)
}

/// Position that the bytes at `at` would have if they were a record; nothing is checked.
pub(crate) fn position_at(buffer: &[u8], at: usize) -> Result<Position, Malformed> {
    Fields(buffer).u64(at.saturating_add(40)).map(Position::new)
}

/// Decodes the record that starts at `at` and answers it with its length.
pub(crate) fn decode(buffer: &Bytes, at: usize) -> Result<(Record, usize), Malformed> {
    let length = length_at(buffer, at)?;
    let bytes = &buffer[at..at + length];
    let fields = Fields(bytes);
    let (body, crc) = bytes.split_at(length - CRC_BYTES);
    if masked(crc32c::crc32c(body)).to_le_bytes() != *crc {
        return Err(Malformed::Checksum);
    }
    let flags = bytes[9];
    let context_bytes = fields.u32(72)? as usize;
    let payload_bytes = fields.u32(76)? as usize;
    let adds_up = context_bytes.checked_add(payload_bytes) == Some(length - RECORD_BYTES_MIN);
    if flags & !FLAG_CONTEXT != 0 || bytes[11] != 0 || !adds_up {
        return Err(Malformed::Fields);
    }
    let context = if flags & FLAG_CONTEXT == 0 {
        if context_bytes != 0 {
            return Err(Malformed::Fields);
        }
        None
    } else {
        let start = at + FIXED_BYTES;
        Some(decode_context(&buffer.slice(start..start + context_bytes))?)
    };
    let payload_start = at + FIXED_BYTES + context_bytes;
    let record = Record {
        position: Position::new(fields.u64(40)?),
        stream: StreamId::new(StreamKind(bytes[10]), fields.array(16)?),
        version: Version::new(fields.u64(32)?),
        previous: Position::new(fields.u64(48)?),
        cause: Position::new(fields.u64(56)?),
        kind: fields.u16(4)?,
        schema: fields.u16(6)?,
        codec: CodecId(bytes[8]),
        time_us: fields.u64(64)?,
        index: (fields.u16(12)?, fields.u16(14)?),
        context,
        payload: buffer.slice(payload_start..payload_start + payload_bytes),
    };
    let (index, count) = record.index;
    let plausible = index < count
        && usize::from(count) <= LIMITS.append_events_max
        && record.context.is_some() == (index == 0)
        && record.previous < record.position
        && (record.version.get() == 1) == (record.previous == Position::ZERO)
        && record.version != Version::ZERO;
    if plausible { Ok((record, length)) } else { Err(Malformed::Fields) }
}

fn decode_context(bytes: &Bytes) -> Result<AppendContext, Malformed> {
    let fields = Fields(bytes);
    let [present, actor_bytes, build_bytes, zero] = fields.array(0)?;
    if present & !(CONTEXT_REQUEST | CONTEXT_SAGA | CONTEXT_TRACE) != 0 || zero != 0 {
        return Err(Malformed::Fields);
    }
    let input_bytes = fields.u32(4)? as usize;
    let mut at = CONTEXT_FIXED_BYTES;
    let mut context = AppendContext::default();
    if present & CONTEXT_REQUEST != 0 {
        context.request = Some(fields.array(at)?);
        at += 16;
    }
    if present & CONTEXT_SAGA != 0 {
        context.saga = Some((fields.array(at)?, fields.u16(at + 16)?));
        at += 18;
    }
    if present & CONTEXT_TRACE != 0 {
        let [flags] = fields.array(at + 24)?;
        context.trace =
            Some(TraceContext { trace_id: fields.array(at)?, span_id: fields.array(at + 16)?, flags });
        at += 25;
    }
    let variable = usize::from(actor_bytes) + usize::from(build_bytes) + input_bytes;
    if at + variable != bytes.len() || usize::from(build_bytes) > LIMITS.build_bytes_max {
        return Err(Malformed::Fields);
    }
    let build_at = at + usize::from(actor_bytes);
    let input_at = build_at + usize::from(build_bytes);
    context.actor = bytes.slice(at..build_at);
    context.build = bytes.slice(build_at..input_at);
    context.input = bytes.slice(input_at..);
    Ok(context)
}

/// Little-endian fields of a byte slice, checked against its end.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Malformed> {
        let end = at.checked_add(N).ok_or(Malformed::CutOff)?;
        self.0.get(at..end).and_then(|bytes| bytes.try_into().ok()).ok_or(Malformed::CutOff)
    }

    pub(crate) fn u16(&self, at: usize) -> Result<u16, Malformed> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&self, at: usize) -> Result<u32, Malformed> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&self, at: usize) -> Result<u64, Malformed> {
        self.array(at).map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn context() -> AppendContext {
        AppendContext {
            actor: Bytes::from_static(b"user:ada"),
            request: Some([7; 16]),
            saga: Some(([9; 16], 3)),
            trace: Some(TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 }),
            build: Bytes::from_static(b"0.1.0"),
            input: Bytes::from_static(b"start"),
        }
    }

    fn record() -> Record {
        Record {
            position: Position::new(42),
            stream: StreamId::new(StreamKind(3), [5; 16]),
            version: Version::new(6),
            previous: Position::new(40),
            cause: Position::new(41),
            kind: 12,
            schema: 2,
            codec: CodecId(1),
            time_us: 1_700_000_000_000_000,
            index: (0, 2),
            context: Some(context()),
            payload: Bytes::from_static(b"payload"),
        }
    }

    fn encoded(record: &Record) -> Bytes {
        let mut out = Vec::new();
        encode(&mut out, record);
        Bytes::from(out)
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let bare = AppendContext::default();
        for context in [Some(context()), Some(bare), None] {
            let index = if context.is_some() { (0, 2) } else { (1, 2) };
            let record = Record { index, context, ..record() };
            let bytes = encoded(&record);
            assert_eq!(bytes.len(), encoded_len(record.payload.len(), record.context.as_ref()));
            assert_eq!(decode(&bytes, 0), Ok((record, bytes.len())));
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = encoded(&record());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&Bytes::from(damaged), 0).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_cut_anywhere_is_refused() {
        let bytes = encoded(&record());
        for end in 0..bytes.len() {
            assert!(decode(&bytes.slice(..end), 0).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_checksum_over_records_depends_on_their_contents() {
        let other = Record { payload: Bytes::from_static(b"PAYLOAD"), ..record() };
        assert_ne!(crc32c::crc32c(&encoded(&record())), crc32c::crc32c(&encoded(&other)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0usize..450) {
            let _ = decode(&Bytes::from(bytes), at);
        }

        #[test]
        fn arbitrary_fields_under_a_right_checksum_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), RECORD_BYTES_MIN..300),
        ) {
            let length = bytes.len();
            bytes[0..4].copy_from_slice(&(length as u32).to_le_bytes());
            bytes[9] &= FLAG_CONTEXT;
            let context = u32::from(bytes[72]) % (length - RECORD_BYTES_MIN + 1) as u32;
            bytes[72..76].copy_from_slice(&context.to_le_bytes());
            bytes[76..80].copy_from_slice(&((length - RECORD_BYTES_MIN) as u32 - context).to_le_bytes());
            sign(&mut bytes);
            let _ = decode(&Bytes::from(bytes), 0);
        }
    }
}
