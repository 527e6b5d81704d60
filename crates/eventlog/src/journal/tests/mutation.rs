//! Seeded mutation of everything that is decoded: whatever the bytes, an answer and no panic.

use crate::conformance::shape::stream;
use crate::gate::Owned;
use crate::journal::StoreId;
use crate::journal::decided::Decided;
use crate::journal::format::{BatchHeader, SegmentHeader};
use crate::journal::fuzz;
use crate::journal::head_map::HeadMap;
use crate::journal::heads::HeadsCheckpoint;
use crate::record;
use crate::types::{AppendContext, CodecId, Epoch, Head, Position, Record, TraceContext, Version};
use bytes::Bytes;
use std::path::Path;

const ROUNDS: u64 = 20_000;

/// Draws that are the same for the same seed.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Flips, overwrites, cuts, repeats and inserts.
fn mutate(bytes: &mut Vec<u8>, draw: &mut Draw) {
    const NUMBERS: [u32; 6] = [0, 1, 0x7f, 0xffff, u32::MAX, 1 << 31];
    for _ in 0..=draw.below(4) {
        if bytes.is_empty() {
            bytes.push(draw.next() as u8);
        }
        let at = draw.below(bytes.len());
        match draw.below(6) {
            0 => bytes[at] ^= 1 << draw.below(8),
            1 => bytes[at] = draw.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, draw.next() as u8),
            4 => {
                let number = NUMBERS[draw.below(NUMBERS.len())].to_le_bytes();
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            _ => {
                let end = (at + draw.below(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.extend_from_slice(&piece);
            }
        }
    }
}

fn records() -> Bytes {
    let mut out = Vec::new();
    for number in 1..6u64 {
        let context = AppendContext {
            actor: Bytes::from_static(b"user:ada"),
            request: Some([number as u8; 16]),
            saga: Some(([2; 16], 3)),
            trace: Some(TraceContext { trace_id: [4; 16], span_id: [5; 8], flags: 1 }),
            build: Bytes::from_static(b"0.1.0"),
            input: Bytes::from_static(b"start"),
        };
        let record = Record {
            position: Position::new(number),
            stream: stream(1),
            version: Version::new(number),
            previous: Position::new(number - 1),
            cause: Position::ZERO,
            kind: 3,
            schema: 1,
            codec: CodecId(1),
            time_us: 9,
            index: if number % 2 == 1 { (0, 2) } else { (1, 2) },
            context: (number % 2 == 1).then_some(context),
            payload: Bytes::from(vec![number as u8; number as usize * 11]),
        };
        record::encode(&mut out, &record);
    }
    Bytes::from(out)
}

fn checkpoint() -> Vec<u8> {
    let head = |number| Head { version: Version::new(number), position: Position::new(number) };
    let heads: HeadMap =
        (1..30).map(|number| (stream(number), Owned { head: head(number), epoch: Epoch::ZERO })).collect();
    HeadsCheckpoint { store: StoreId([3; 16]), position: Position::new(40), chain: 7, bytes: 99, heads }
        .encode()
}

fn batch() -> Vec<u8> {
    let body = records();
    let header = BatchHeader {
        body_bytes: body.len() as u32,
        count: 5,
        first: Position::new(1),
        chain: 4,
        body_crc: crc32c::crc32c(&body),
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&body);
    bytes
}

/// Runs a decoder over mutations of what it reads; half of them get a right checksum at their end.
fn storm(seed: u64, original: &[u8], decode: impl Fn(&[u8]) -> bool) -> u64 {
    let mut draw = Draw(seed);
    assert!(decode(original), "the original is read");
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let mut bytes = original.to_vec();
        mutate(&mut bytes, &mut draw);
        if round % 2 == 0 && bytes.len() >= 4 {
            let end = bytes.len() - 4;
            let crc = crc32c::crc32c(&bytes[..end]);
            bytes[end..].copy_from_slice(&crc.to_le_bytes());
        }
        accepted += u64::from(bytes != original && decode(&bytes));
    }
    accepted
}

#[test]
fn mutated_records_are_refused_or_whole() {
    let accepted = storm(1, &records(), fuzz::records);
    // Cutting between two records leaves those before it whole.
    assert!(accepted < ROUNDS / 20, "{accepted}");
}

#[test]
fn mutated_batches_are_refused_or_salvaged() {
    storm(2, &batch(), fuzz::batch);
}

#[test]
fn mutated_heads_checkpoints_are_refused_or_read_back_the_same() {
    let accepted = storm(3, &checkpoint(), fuzz::heads);
    assert!(accepted > 0, "some keep their shape under a right checksum: {accepted}");
}

#[test]
fn every_seed_of_the_fuzz_targets_is_accepted() {
    let seeds = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds"));
    type Decode = fn(&[u8]) -> bool;
    let table: [(&str, Decode, Vec<u8>); 4] = [
        ("record", fuzz::records, records().to_vec()),
        ("batch", fuzz::batch, batch()),
        ("heads", fuzz::heads, checkpoint()),
        ("packed", fuzz::packed, fuzz::packed_example()),
    ];
    for (name, decode, example) in table {
        assert!(decode(&example), "{name}");
        let path = seeds.join(name).join("example");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &example).unwrap();
        }
        assert!(decode(&std::fs::read(&path).unwrap()), "{name}: the seed is of another format");
    }
}

#[test]
fn signing_gives_back_the_checksums_that_were_there() {
    type Sign = fn(&mut [u8]);
    let (records, batch, heads) = (records().to_vec(), batch(), checkpoint());
    let (last_of_records, last_of_batch, last_of_heads) =
        (records.len() - 1, batch.len() - 1, heads.len() - 1);
    let table: [(&str, Sign, Vec<u8>, &[usize]); 4] = [
        ("record", fuzz::sign_records, records, &[last_of_records]),
        ("batch", fuzz::sign_batch, batch, &[32, 36, last_of_batch]),
        ("heads", fuzz::sign_heads, heads, &[last_of_heads]),
        ("packed", fuzz::sign_packed, fuzz::packed_example(), &[60, 68]),
    ];
    for (name, sign, example, checksums) in table {
        let mut signed = example.clone();
        for &at in checksums {
            signed[at] ^= 0xff;
        }
        sign(&mut signed);
        assert!(signed == example, "{name}");
    }
}

#[test]
fn mutated_headers_decisions_and_compressed_segments_are_refused_or_read() {
    let store = StoreId([3; 16]);
    let header = SegmentHeader { store, first: Position::new(9), chain: 5 }.encode();
    storm(4, &header, |bytes| SegmentHeader::decode(bytes).is_ok());
    storm(5, &Decided::default().encode(store), |bytes| Decided::decode(bytes, store).is_some());
    storm(6, &fuzz::packed_example(), fuzz::packed);
}
