//! Rot, cuts and wrong files: noticed and named, never skipped.

use super::disk::Disk;
use super::{STORE, heads, large, open, open_with, put, segment, small, witness};
use crate::Log;
use crate::conformance::shape::{assert_sound, event, everything, history, sized_event, stream};
use crate::journal::files::Files;
use crate::journal::{Damage, Journal, JournalConfig, OpenError, StoreId};
use crate::types::Position;
use std::path::Path;

const BATCH_MAGIC: &[u8] = b"BTCH";

/// Three appends of two events each to streams 1, 2, 1: positions 1 to 6, each append a batch.
async fn three_batches() -> (Disk, Journal) {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, large()).unwrap();
    for number in [1, 2, 1] {
        put(&journal, stream(number), [event(number), event(number)]).await;
    }
    (disk, journal)
}

async fn closed() -> Disk {
    let (disk, journal) = three_batches().await;
    journal.close().await;
    disk
}

async fn killed() -> Disk {
    let (disk, journal) = three_batches().await;
    drop(journal);
    disk
}

/// Where each batch of a segment starts, and where the last one ends.
pub(super) fn batches(disk: &Disk, path: &Path) -> Vec<usize> {
    disk.change(path, |bytes| {
        let starts = bytes.windows(4).enumerate().filter(|(_, window)| *window == BATCH_MAGIC);
        let mut edges: Vec<usize> = starts.map(|(at, _)| at).collect();
        edges.push(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        edges
    })
}

fn damage(disk: &Disk) -> Damage {
    match open_with(disk, large()) {
        Err(OpenError::Damaged(damage)) => damage,
        Err(other) => panic!("expected damage, got {other}"),
        Ok(_) => panic!("expected damage, it opened"),
    }
}

#[tokio::test]
async fn a_batch_torn_at_any_byte_is_cut_off_and_reported() {
    let disk = killed().await;
    let edges = batches(&disk, &segment(1));
    let whole = disk.snapshot()[&segment(1)].clone();
    for is_cut_short in [false, true] {
        for cut in edges[2] + 1..=edges[3] {
            let torn = disk.copy();
            torn.change(
                &segment(1),
                |bytes| if is_cut_short { bytes.truncate(cut) } else { bytes[cut..].fill(0) },
            );
            let is_whole = !is_cut_short && torn.snapshot()[&segment(1)] == whole || cut == edges[3];
            let (journal, recovery) = open_with(&torn, large()).unwrap();
            assert_eq!(recovery.trimmed.is_none(), is_whole, "cut at {cut}");
            assert_eq!(recovery.durable.get(), if is_whole { 6 } else { 4 }, "cut at {cut}");
            if let Some(trimmed) = recovery.trimmed {
                assert_eq!(trimmed.place.segment, "00000000000000000001.seg");
                assert!(
                    (edges[2] as u64..=cut as u64).contains(&trimmed.place.offset),
                    "{:?}",
                    trimmed.place
                );
                assert!(trimmed.bytes > 0 && trimmed.bytes <= (cut - edges[2]) as u64);
            }
            put(&journal, stream(3), [sized_event(9, 10)]).await;
            assert_sound(&journal);
            drop(journal);
            let (again, recovery) = open_with(&torn, large()).unwrap();
            assert_eq!(recovery.trimmed, None, "nothing of the torn batch is left behind the next one");
            assert_sound(&again);
        }
    }
}

#[tokio::test]
async fn sectors_of_a_torn_batch_in_any_order_are_cut_off() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, large()).unwrap();
    put(&journal, stream(1), [event(1)]).await;
    put(&journal, stream(1), (1..5).map(|number| sized_event(number, 900))).await;
    drop(journal);
    let edges = batches(&disk, &segment(1));
    let sectors: Vec<usize> = (edges[1] / 512..=edges[2] / 512).collect();
    assert!((7..=10).contains(&sectors.len()), "few enough to try every subset");
    for lost in 1u32..1 << sectors.len() {
        let torn = disk.copy();
        torn.change(&segment(1), |bytes| {
            for (_, sector) in sectors.iter().enumerate().filter(|(index, _)| lost >> index & 1 == 1) {
                let from = (sector * 512).max(edges[1]);
                bytes[from..(sector + 1) * 512].fill(0);
            }
        });
        let (journal, recovery) = open_with(&torn, large()).unwrap();
        assert_eq!(recovery.durable, Position::new(1), "lost {lost:b}");
        let is_gone = lost == (1 << sectors.len()) - 1;
        assert_eq!(recovery.trimmed.is_none(), is_gone, "lost {lost:b}");
        put(&journal, stream(1), [event(7)]).await;
        assert_sound(&journal);
    }
}

#[tokio::test]
async fn any_flipped_byte_before_the_last_batch_is_named() {
    for disk in [closed().await, killed().await] {
        let edges = batches(&disk, &segment(1));
        // A checkpoint would spare recovery the look; rot is looked for without it.
        if disk.snapshot().contains_key(&heads(6)) {
            disk.remove(&heads(6)).unwrap();
        }
        for at in edges[1]..edges[2] {
            let rotten = disk.copy();
            let is_padding = rotten.change(&segment(1), |bytes| {
                bytes[at] ^= 0x20;
                bytes[at] == 0x20 && edges[2] - at < 8
            });
            if is_padding {
                continue;
            }
            let damage = damage(&rotten);
            assert_eq!(damage.segment, "00000000000000000001.seg");
            assert!((edges[1] as u64..=at as u64).contains(&damage.offset), "byte {at}: {damage}");
            assert!((3..=4).contains(&damage.first.get()), "byte {at}: {damage}");
            let last = damage.last.expect("a whole batch follows").get();
            assert!((damage.first.get()..=4).contains(&last), "byte {at}: {damage}");
        }
    }
}

#[tokio::test]
async fn a_batch_whose_header_is_zeros_is_not_the_end_if_another_follows() {
    let disk = killed().await;
    let edges = batches(&disk, &segment(1));
    disk.change(&segment(1), |bytes| bytes[edges[1]..edges[2]].fill(0));
    let damage = damage(&disk);
    assert_eq!((damage.first.get(), damage.last), (3, Some(Position::new(4))), "{damage}");
}

#[tokio::test]
async fn damage_names_the_record_and_the_streams_that_point_into_it() {
    let disk = closed().await;
    let edges = batches(&disk, &segment(1));
    // The last byte of the first batch belongs to position 2; position 5 points back at it.
    disk.change(&segment(1), |bytes| bytes[edges[1] - 9] ^= 1);
    let damage = damage(&disk);
    assert_eq!((damage.first.get(), damage.last), (2, Some(Position::new(2))), "{damage}");
    assert_eq!(damage.streams, [stream(1)], "{damage}");
    let text = OpenError::Damaged(damage).to_string();
    assert!(text.contains("00000000000000000001.seg at offset") && text.contains("position 2"), "{text}");
}

#[tokio::test]
async fn a_damaged_last_batch_that_was_witnessed_is_damage_not_a_torn_tail() {
    let disk = closed().await;
    let edges = batches(&disk, &segment(1));
    disk.change(&segment(1), |bytes| bytes[edges[3] - 9] ^= 1);
    let damage = damage(&disk);
    assert_eq!(damage.first, Position::new(6));
}

#[tokio::test]
async fn a_lost_tail_is_refused_unless_the_loss_is_accepted() {
    for is_cut_short in [false, true] {
        let disk = closed().await;
        let edges = batches(&disk, &segment(1));
        let from = edges[2];
        disk.change(
            &segment(1),
            |bytes| if is_cut_short { bytes.truncate(from) } else { bytes[from..].fill(0) },
        );
        let Err(OpenError::TailLost { witnessed, found }) = open_with(&disk, large()) else {
            panic!("the witness knows better");
        };
        assert_eq!((witnessed.get(), found.get()), (6, 4));
        let before = disk.snapshot();
        let accepting = JournalConfig { accept_loss: true, ..large() };
        assert_eq!(disk.snapshot(), before, "a refusal changes nothing");
        let (journal, recovery) = open_with(&disk, accepting).unwrap();
        let lost = recovery.lost.expect("the loss is reported");
        assert_eq!((lost.witnessed.get(), lost.found.get()), (6, 4));
        put(&journal, stream(1), [event(9)]).await;
        assert_sound(&journal);
        drop(journal);
        let (journal, recovery) = open_with(&disk, large()).unwrap();
        assert_eq!(recovery.lost, None, "accepting is done once");
        assert_eq!(history(&journal, stream(1)).len(), 3);
    }
}

#[tokio::test]
async fn a_lost_witness_is_refused_unless_accepted_and_one_slot_suffices() {
    let disk = closed().await;
    for slot in [0, 512] {
        let one = disk.copy();
        one.change(&witness(), |bytes| bytes[slot + 40] ^= 1);
        assert_eq!(open_with(&one, large()).unwrap().0.durable(), Position::new(6), "slot {slot}");
    }
    let unreadable = disk.copy();
    unreadable.change(&witness(), |bytes| bytes.fill(7));
    let missing = disk.copy();
    missing.remove(&witness()).unwrap();
    for (disk, expected) in [(unreadable, "unreadable"), (missing, "missing")] {
        let Err(OpenError::WitnessLost { state, .. }) = open_with(&disk, large()) else {
            panic!("{expected}")
        };
        assert_eq!(state, expected);
        let accepting = JournalConfig { accept_loss: true, ..large() };
        assert_eq!(open_with(&disk, accepting).unwrap().0.durable(), Position::new(6));
        assert!(open_with(&disk, large()).is_ok(), "there is a witness again");
    }
}

/// A closed journal of several segments.
async fn segments() -> (Disk, Vec<u64>) {
    let disk = Disk::default();
    let journal = open(&disk);
    for number in 0..12 {
        put(&journal, stream(number % 3), [sized_event(number, 900)]).await;
    }
    journal.close().await;
    let names = disk.snapshot();
    let firsts =
        names.keys().filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".seg")?.parse().ok());
    let firsts: Vec<u64> = firsts.collect();
    assert!(firsts.len() >= 3, "{firsts:?}");
    (disk, firsts)
}

#[tokio::test]
async fn missing_and_misplaced_segments_are_named() {
    let (disk, firsts) = segments().await;
    let (first, middle, last) = (firsts[0], firsts[1], firsts[firsts.len() - 1]);
    for path in disk.snapshot().into_keys().filter(|path| path.to_string_lossy().contains("heads-")) {
        disk.remove(&path).unwrap();
    }
    for (gone, expected) in [(first, 1), (middle, middle)] {
        let damaged = disk.copy();
        damaged.remove(&segment(gone)).unwrap();
        match open_with(&damaged, small()) {
            Err(OpenError::MissingSegment { expected: named, .. }) => assert_eq!(named.get(), expected),
            other => panic!("without segment {gone}: {:?}", other.err()),
        }
    }
    let beheaded = disk.copy();
    beheaded.remove(&segment(last)).unwrap();
    assert!(matches!(open_with(&beheaded, small()), Err(OpenError::TailLost { .. })));
    let swapped = disk.copy();
    let bytes = disk.snapshot()[&segment(middle)].clone();
    swapped.change(&segment(last), |target| *target = bytes);
    assert!(matches!(open_with(&swapped, small()), Err(OpenError::Damaged(damage)) if damage.offset == 0));
}

#[tokio::test]
async fn a_segment_of_another_history_does_not_fit() {
    let (disk, firsts) = segments().await;
    let other = {
        let disk = Disk::default();
        let journal = open(&disk);
        for number in 0..12 {
            put(&journal, stream(number % 3), [sized_event(number + 100, 900)]).await;
        }
        journal.close().await;
        disk
    };
    let bytes = other.snapshot()[&segment(firsts[1])].clone();
    disk.change(&segment(firsts[1]), |target| *target = bytes);
    for path in disk.snapshot().into_keys().filter(|path| path.to_string_lossy().contains("heads-")) {
        disk.remove(&path).unwrap();
    }
    assert!(matches!(open_with(&disk, small()), Err(OpenError::Damaged(damage)) if damage.offset == 0));
}

#[tokio::test]
async fn foreign_newer_and_damaged_files_are_told_apart() {
    let disk = closed().await;
    let foreign = disk.copy();
    foreign.create(Path::new("/journal/notes.txt")).unwrap();
    assert!(matches!(open_with(&foreign, large()), Err(OpenError::Foreign { .. })));

    let newer = disk.copy();
    newer.change(&segment(1), |bytes| bytes[8] = 9);
    assert!(matches!(open_with(&newer, large()), Err(OpenError::NewerFormat { found: 9, known: 1, .. })));

    let header = disk.copy();
    header.change(&segment(1), |bytes| bytes[60] = 1);
    assert_eq!(damage(&header).offset, 0);

    let other = JournalConfig { expect: Some(StoreId([1; 16])), ..large() };
    let Err(OpenError::WrongStore { expected, found, .. }) = open_with(&disk, other) else {
        panic!("wrong store")
    };
    assert_eq!((expected, found), (StoreId([1; 16]), STORE));
}

#[tokio::test]
async fn rot_under_an_open_journal_is_noticed_when_it_is_read() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, JournalConfig { ring_bytes_max: 0, ..large() }).unwrap();
    for number in [1, 2, 1] {
        put(&journal, stream(number), [event(number), event(number)]).await;
    }
    let edges = batches(&disk, &segment(1));
    let whole = everything(&journal);
    for at in edges[1]..edges[2] {
        disk.change(&segment(1), |bytes| bytes[at] ^= 0x10);
        let read = journal.read_all(Position::new(1), 100);
        // The batch's own checksums are not needed to read a record, only to recover.
        assert!(read.is_err() || read == Ok(whole.clone()), "byte {at}");
        let is_record = at >= edges[1] + 40 && at < edges[2] - 8;
        assert!(read.is_err() || !is_record, "byte {at} of a record");
        if is_record {
            assert_eq!(history(&journal, stream(1)).len(), 4, "other batches stay readable");
        }
        disk.change(&segment(1), |bytes| bytes[at] ^= 0x10);
    }
    assert_eq!(everything(&journal), whole);
}
