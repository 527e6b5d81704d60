//! Damage enumerated: every torn write, every flipped bit, every lost sector of a small journal, and seeded
//! holes in a larger one. After each, what is served is exactly a prefix of what was written, or the place is
//! named. There is no third case.

use super::damage::batches;
use super::disk::Disk;
use super::{heads, large, open_with, put, segment, witness};
use crate::Log;
use crate::conformance::shape::{everything, sized_event, stream};
use crate::journal::format::{Named, classify};
use crate::journal::offline::verify_on;
use crate::journal::{Damage, JournalConfig, OpenError};
use crate::types::{Position, Record};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

const SECTOR_BYTES: usize = 512;
const HOLE_BYTES: usize = 4 << 10;
const PLACES: u64 = 200;

/// What became of a damaged journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Nothing that counts was hit.
    Whole,
    /// The torn end is gone, and said to be.
    Prefix,
    /// Opening refused, and named the place.
    Named,
    /// Opening did not look there; reading refuses and verification names the place.
    NamedWhenRead,
}

fn config() -> JournalConfig {
    JournalConfig { ring_bytes_max: 0, segment_bytes: 24 << 10, ..large() }
}

/// Appends of one to three events over `segments` segments or more.
async fn filled(appends: u64, is_closed: bool) -> (Disk, Vec<Record>) {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, config()).unwrap();
    for number in 0..appends {
        let events =
            (0..=number % 3).map(|event| sized_event(number + event, 100 + (number as usize * 37) % 700));
        put(&journal, stream(number % 5), events).await;
    }
    let all = everything(&journal);
    if is_closed {
        journal.close().await;
    }
    (disk, all)
}

/// Whether a named place is where `range` of a segment was damaged: in the same batch, or right behind it.
fn is_there(whole: &Disk, damage: &Damage, name: &str, range: &Range<usize>) -> bool {
    if damage.segment != name {
        return false;
    }
    let edges = batches(whole, &Path::new("/journal").join(name));
    let from = edges.iter().rfind(|edge| **edge <= range.start).copied().unwrap_or(0);
    (from..=range.end).contains(&(damage.offset as usize))
}

/// Damages a copy and judges it. Panics if it is neither a prefix nor named.
fn judge(
    whole: &Disk,
    all: &[Record],
    path: &Path,
    range: Range<usize>,
    damage: impl FnOnce(&mut Vec<u8>),
) -> Verdict {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let what = format!("{name} {range:?}");
    let rotten = whole.copy();
    let is_changed = rotten.change(path, |bytes| {
        let before = bytes.clone();
        damage(bytes);
        *bytes != before
    });
    let report = verify_on(&rotten, Path::new("/journal")).unwrap();
    let before = rotten.snapshot();
    let (journal, recovery) = match open_with(&rotten, config()) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(is_changed && report.problem.is_some(), "{what}: refused for nothing: {error}");
            let is_named = match &error {
                OpenError::Damaged(damage) => is_there(whole, damage, &name, &range),
                OpenError::TailLost { found, .. } => found.get() < all.len() as u64,
                OpenError::MissingSegment { after: Some((segment, offset)), .. } => {
                    *segment == name && *offset as usize <= range.end
                }
                OpenError::WitnessLost { .. } => name == "witness",
                _ => false,
            };
            assert!(is_named, "{what}: the wrong place: {error}");
            assert_eq!(rotten.snapshot(), before, "{what}: a refusal writes nothing");
            return Verdict::Named;
        }
    };
    let durable = recovery.durable.get() as usize;
    assert!(recovery.lost.is_none() && recovery.damaged.is_empty(), "{what}");
    let everything = journal.read_all(Position::new(1), usize::MAX);
    let is_read = everything.is_ok();
    if let Ok(read) = everything {
        assert!(read == all[..durable], "{what}: a lie");
    } else {
        for position in (1..=durable).step_by(3) {
            if let Ok(read) = journal.read_all(Position::new(position as u64), 1) {
                assert!(read == all[position - 1..position], "{what}: a lie at {position}");
            }
        }
    }
    if !is_read {
        let named = report.damage.unwrap_or_else(|| panic!("{what}: verification passes over it"));
        assert!(is_there(whole, &named, &name, &range), "{what}: the wrong place: {named}");
        return Verdict::NamedWhenRead;
    }
    if durable == all.len() {
        return Verdict::Whole;
    }
    assert!(
        report.torn.is_some() || is_end_zero(&rotten, durable),
        "{what}: {durable} records without a word"
    );
    Verdict::Prefix
}

/// Whether nothing at all is left behind the records found: a lost write and a missing one look alike.
fn is_end_zero(disk: &Disk, durable: usize) -> bool {
    let (journal, recovery) = open_with(disk, config()).unwrap();
    drop(journal);
    recovery.durable.get() as usize == durable && recovery.trimmed.is_none()
}

fn count(counts: &mut BTreeMap<Verdict, u64>, verdict: Verdict) {
    *counts.entry(verdict).or_default() += 1;
}

#[tokio::test]
async fn every_torn_byte_sector_and_bit_of_the_journal_is_a_prefix_or_named() {
    for is_closed in [false, true] {
        let (disk, all) = filled(8, is_closed).await;
        let path = segment(1);
        let edges = batches(&disk, &path);
        let (last, end) = (edges[edges.len() - 2], edges[edges.len() - 1]);
        let mut counts = BTreeMap::new();
        for at in last..end {
            count(&mut counts, judge(&disk, &all, &path, at..end, |bytes| bytes[at..end].fill(0)));
            count(&mut counts, judge(&disk, &all, &path, at..end, |bytes| bytes.truncate(at)));
            count(&mut counts, judge(&disk, &all, &path, at..at + 1, |bytes| bytes[at] = !bytes[at]));
        }
        let three = edges[edges.len() - 4];
        for from in (three / SECTOR_BYTES * SECTOR_BYTES..end).step_by(SECTOR_BYTES) {
            let range = from.max(three)..(from + SECTOR_BYTES).min(end);
            for byte in [0x00, 0xff] {
                let verdict =
                    judge(&disk, &all, &path, range.clone(), |bytes| bytes[range.clone()].fill(byte));
                count(&mut counts, verdict);
            }
        }
        // The first record of the middle batch, header and all.
        let batch = edges[edges.len() / 2];
        for bit in batch * 8..(batch + 40 + 100) * 8 {
            let verdict =
                judge(&disk, &all, &path, bit / 8..bit / 8 + 1, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            assert_ne!(verdict, Verdict::Whole, "bit {bit}");
            count(&mut counts, verdict);
        }
        let named = counts.get(&Verdict::Named).copied().unwrap_or(0);
        let prefix = counts.get(&Verdict::Prefix).copied().unwrap_or(0);
        eprintln!("closed {is_closed}: {counts:?}");
        assert!(named > 1_000, "{counts:?}");
        assert_eq!(prefix > 0, !is_closed, "{counts:?}");
    }
}

#[tokio::test]
async fn every_bit_and_every_cut_of_a_heads_checkpoint_costs_time_and_nothing_else() {
    let (disk, all) = filled(8, true).await;
    let checkpoint = heads(all.len() as u64);
    let bytes = disk.snapshot()[&checkpoint].len();
    for bit in 0..bytes * 8 {
        let at = bit / 8;
        let verdict = judge(&disk, &all, &checkpoint, at..at + 1, |bytes| bytes[at] ^= 1 << (bit % 8));
        assert_eq!(verdict, Verdict::Whole, "bit {bit}");
    }
    for at in 0..bytes {
        let verdict = judge(&disk, &all, &checkpoint, at..bytes, |bytes| bytes.truncate(at));
        assert_eq!(verdict, Verdict::Whole, "cut at {at}");
    }
}

#[tokio::test]
async fn every_bit_and_every_cut_of_the_witness_is_covered_by_its_other_slot_or_refused() {
    let (disk, all) = filled(8, true).await;
    let end = 2 * SECTOR_BYTES;
    for bit in 0..end * 8 {
        let at = bit / 8;
        let verdict = judge(&disk, &all, &witness(), at..at + 1, |bytes| bytes[at] ^= 1 << (bit % 8));
        assert_eq!(verdict, Verdict::Whole, "one slot is enough: bit {bit}");
    }
    for bit in 0..SECTOR_BYTES * 8 {
        let both = |bytes: &mut Vec<u8>| {
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes[bit / 8 + SECTOR_BYTES] ^= 1 << (bit % 8);
        };
        assert_eq!(judge(&disk, &all, &witness(), 0..end, both), Verdict::Named, "bit {bit} of both slots");
    }
    for at in 0..end {
        let verdict = judge(&disk, &all, &witness(), at..end, |bytes| bytes.truncate(at));
        let expected = if at < SECTOR_BYTES { Verdict::Named } else { Verdict::Whole };
        assert_eq!(verdict, expected, "cut at {at}");
    }
}

/// Draws that are the same for the same seed.
fn draw(seed: u64, below: usize) -> usize {
    let mut word = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^= word >> 29;
    word = word.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((word ^ (word >> 32)) % below as u64) as usize
}

#[tokio::test]
async fn a_cut_or_a_hole_anywhere_is_a_prefix_or_named() {
    for (is_closed, keeps_checkpoint) in [(false, false), (true, true), (true, false)] {
        let (disk, all) = filled(160, is_closed).await;
        let paths: Vec<PathBuf> = disk.snapshot().into_keys().collect();
        let is_named = |path: &&PathBuf, wanted: fn(Named) -> bool| {
            wanted(classify(&path.file_name().unwrap().to_string_lossy()))
        };
        let segments: Vec<_> =
            paths.iter().filter(|path| is_named(path, |named| matches!(named, Named::Segment(_)))).collect();
        assert!(segments.len() > 3, "{}", segments.len());
        if !keeps_checkpoint {
            for path in paths.iter().filter(|path| is_named(path, |named| matches!(named, Named::Heads(_)))) {
                disk.change(path, Vec::clear);
            }
        }
        let mut counts = BTreeMap::new();
        for seed in 0..PLACES {
            let path = segments[draw(seed, segments.len())];
            let length = disk.snapshot()[path].len();
            let at = draw(seed + 10_000, length);
            let hole = at..(at + HOLE_BYTES).min(length);
            let verdict = judge(&disk, &all, path, hole.clone(), |bytes| bytes[hole.clone()].fill(0));
            count(&mut counts, verdict);
            count(&mut counts, judge(&disk, &all, path, at..length, |bytes| bytes.truncate(at)));
        }
        eprintln!("closed {is_closed}, with checkpoint {keeps_checkpoint}: {counts:?}");
        assert_eq!(counts.values().sum::<u64>(), 2 * PLACES);
        let named = [Verdict::Named, Verdict::NamedWhenRead].map(|it| counts.get(&it).copied().unwrap_or(0));
        assert!(named[usize::from(keeps_checkpoint)] > 200, "{counts:?}");
    }
}
