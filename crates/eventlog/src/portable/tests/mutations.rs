//! Damaged exports and manifests: every byte, and seeded mutations. Nothing passes silently, nothing panics.

use super::*;
use crate::portable::frame::{FRAME_HEADER_BYTES, HEADER_BYTES};
use crate::portable::manifest::{Entry, Manifest};
use crate::portable::streaming::Streaming;

/// Records of an export read as a stream.
fn stream_through(bytes: &[u8]) -> Result<Vec<Record>, Error> {
    let mut streaming = Streaming::start(bytes)?;
    let mut records = Vec::new();
    while let Some(frame) = streaming.next()? {
        records.extend(frame.records);
    }
    Ok(records)
}

#[tokio::test]
async fn an_export_cut_anywhere_is_refused() {
    let (bytes, records) = exported(8).await;
    assert_eq!(stream_through(&bytes).unwrap(), records);
    for end in 0..bytes.len() {
        refusal(stream_through(&bytes[..end]));
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(refusal(stream_through(&longer)).contains("there are bytes behind the trailer"));
}

#[tokio::test]
async fn any_flipped_bit_of_an_export_is_noticed() {
    let (bytes, _) = exported(8).await;
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        refusal(stream_through(&damaged));
    }
}

#[tokio::test]
async fn the_seed_of_the_fuzz_target_is_accepted_and_signing_restores_its_checksums() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/export/example"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, exported(20).await.0).unwrap();
    }
    let seed = std::fs::read(path).unwrap();
    assert!(crate::journal::fuzz::export(&seed), "the seed is of another format");
    let mut signed = seed.clone();
    let last = seed.len() - 1;
    for at in [HEADER_BYTES - 1, HEADER_BYTES + 32, HEADER_BYTES + 36, last] {
        signed[at] ^= 0xff;
    }
    crate::journal::fuzz::sign_export(&mut signed);
    assert!(signed == seed);
}

/// The next number of a small generator; equal seeds give equal runs.
fn draw(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    (*state >> 33) as usize % below.max(1)
}

/// Puts the right checksum over the first frame's header, as a forger would.
fn sign(bytes: &mut [u8]) {
    let Some(header) = bytes.get_mut(HEADER_BYTES..HEADER_BYTES + FRAME_HEADER_BYTES) else { return };
    let crc = crc32c::crc32c(&header[..36]);
    header[36..].copy_from_slice(&crc.to_le_bytes());
}

fn mutate(bytes: &mut Vec<u8>, state: &mut u64) {
    let at = draw(state, bytes.len());
    let length = draw(state, 64).min(bytes.len() - at);
    match draw(state, 7) {
        0 => bytes[at] = draw(state, 256) as u8,
        1 => bytes[at] ^= 1 << draw(state, 8),
        2 => bytes.truncate(at),
        3 => bytes[at..at + length].fill(0),
        4 => {
            let piece = bytes[at..at + length].to_vec();
            let to = draw(state, bytes.len());
            bytes.splice(to..to, piece);
        }
        5 => drop(bytes.drain(at..at + length)),
        _ => {
            let at = HEADER_BYTES + draw(state, 36);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = draw(state, 256) as u8;
            }
            sign(bytes);
        }
    }
}

#[tokio::test]
async fn mutated_exports_never_panic_and_never_pass_as_something_else() {
    const RUNS: u64 = 20_000;
    let (bytes, records) = exported(20).await;
    let mut refused = 0;
    for seed in 1..=RUNS {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut mutated = bytes.clone();
        for _ in 0..=draw(&mut state, 3) {
            mutate(&mut mutated, &mut state);
            if mutated.is_empty() {
                break;
            }
        }
        let is_accepted = crate::journal::fuzz::export(&mutated);
        assert!(!is_accepted || mutated == bytes, "seed {seed}: another export under right checksums");
        match stream_through(&mutated) {
            Ok(read) => assert_eq!(read, records, "seed {seed}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > RUNS / 2, "most mutations change something: {refused}");
}

#[test]
fn a_manifest_reads_back_and_any_changed_byte_of_it_is_noticed() {
    let entry = |name: &str, first, last| Entry {
        name: name.into(),
        first: Position::new(first),
        last: Position::new(last),
        bytes: 4_000,
        crc: 0x89ab_cdef,
        chain: last,
    };
    let segments = vec![entry("00000000000000000001.seg", 1, 10), entry("b.part", 11, 15)];
    let manifest = Manifest { store: STORE, position: Position::new(15), chain: 15, base: None, segments };
    let text = manifest.encode();
    let path = Path::new("manifest");
    assert_eq!(Manifest::decode(&text, path).unwrap(), manifest);
    for at in 0..text.len() {
        assert!(Manifest::decode(&text[..at], path).is_err(), "cut at {at}");
        for bit in 0..7 {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1 << bit;
            let changed = String::from_utf8(changed).unwrap();
            assert!(Manifest::decode(&changed, path).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_manifest_names_no_file_outside_its_directory() {
    for name in ["../secret", "/etc/passwd", "a/b", "..", "."] {
        let entry = Entry {
            name: name.into(),
            first: Position::new(1),
            last: Position::new(1),
            bytes: 1,
            crc: 0,
            chain: 0,
        };
        let manifest = Manifest {
            store: STORE,
            position: Position::new(1),
            chain: 0,
            base: None,
            segments: vec![entry],
        };
        let refused = refusal(Manifest::decode(&manifest.encode(), Path::new("manifest")));
        assert!(refused.contains("line 4: this is no segment"), "{refused}");
    }
}
