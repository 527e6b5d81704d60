//! What recovery reads, what it trusts, what it cleans up.

use super::disk::Disk;
use super::{STORE, dir, files, heads, large, open, open_with, put, segment, small};
use crate::Log;
use crate::conformance::shape::{assert_sound, event, everything, sized_event, stream};
use crate::journal::files::Files;
use crate::journal::format::{Named, classify};
use crate::journal::{Journal, JournalConfig, OpenError, SEGMENT_BYTES_MIN};
use crate::types::Position;

async fn fill(journal: &Journal, appends: u64) {
    for number in 0..appends {
        put(journal, stream(number % 5), [sized_event(number, 500)]).await;
    }
}

#[tokio::test]
async fn opening_says_what_was_created_and_what_was_found() {
    let disk = Disk::default();
    let (journal, recovery) = open_with(&disk, small()).unwrap();
    assert!(recovery.is_created);
    assert_eq!((recovery.durable, recovery.streams, recovery.segments), (Position::ZERO, 0, 1));
    assert_eq!(journal.store_id(), STORE);
    fill(&journal, 20).await;
    let segments = journal.stats().segments;
    assert!(segments > 2);
    drop(journal);
    let (_, recovery) = open_with(&disk, small()).unwrap();
    assert!(!recovery.is_created);
    assert_eq!((recovery.durable, recovery.streams, recovery.segments), (Position::new(20), 5, segments));
    assert_eq!((recovery.checkpoint, recovery.scanned), (None, 20), "a killed process wrote no checkpoint");
}

#[tokio::test]
async fn after_a_clean_close_no_record_is_read_again() {
    let disk = Disk::default();
    let journal = open(&disk);
    fill(&journal, 20).await;
    let stats = journal.stats();
    let all = everything(&journal);
    journal.close().await;
    let (journal, recovery) = open_with(&disk, small()).unwrap();
    assert_eq!((recovery.checkpoint, recovery.scanned), (Some(Position::new(20)), 0));
    assert_eq!((journal.stats().bytes, journal.stats().streams), (stats.bytes, stats.streams));
    assert_eq!(everything(&journal), all);
    assert_sound(&journal);
}

#[tokio::test]
async fn the_tail_behind_a_checkpoint_is_read() {
    let disk = Disk::default();
    let journal = open(&disk);
    fill(&journal, 20).await;
    journal.close().await;
    let journal = open(&disk);
    fill(&journal, 7).await;
    let bytes = journal.stats().bytes;
    drop(journal);
    let (journal, recovery) = open_with(&disk, small()).unwrap();
    assert_eq!((recovery.checkpoint, recovery.scanned), (Some(Position::new(20)), 7));
    assert_eq!(journal.stats().bytes, bytes);
    assert_sound(&journal);
}

#[tokio::test]
async fn damaged_checkpoints_cost_time_and_nothing_else() {
    let disk = Disk::default();
    for _ in 0..3 {
        let journal = open(&disk);
        fill(&journal, 10).await;
        journal.close().await;
    }
    assert!(!disk.snapshot().contains_key(&heads(10)), "only the newest two are kept");
    disk.change(&heads(30), |bytes| bytes[70] ^= 1);
    let (journal, recovery) = open_with(&disk, small()).unwrap();
    assert_eq!((recovery.checkpoint, recovery.scanned), (Some(Position::new(20)), 10));
    assert_eq!(recovery.notes.len(), 1, "{:?}", recovery.notes);
    assert_sound(&journal);
    drop(journal);
    disk.change(&heads(20), Vec::clear);
    let (journal, recovery) = open_with(&disk, small()).unwrap();
    assert_eq!((recovery.checkpoint, recovery.scanned), (None, 30));
    assert_sound(&journal);
}

#[tokio::test]
async fn a_checkpoint_of_another_history_is_not_believed() {
    let [disk, other] = [0, 100].map(|_| Disk::default());
    for (disk, offset) in [(&disk, 0), (&other, 100)] {
        let journal = open(disk);
        for number in 0..10 {
            put(&journal, stream(number % 5), [event(number + offset)]).await;
        }
        journal.close().await;
    }
    let bytes = other.snapshot()[&heads(10)].clone();
    disk.change(&heads(10), |target| *target = bytes);
    let (journal, recovery) = open_with(&disk, small()).unwrap();
    assert_eq!((recovery.checkpoint, recovery.scanned), (None, 10));
    assert!(recovery.notes[0].contains("another history"), "{:?}", recovery.notes);
    assert_sound(&journal);
}

#[tokio::test]
async fn heads_are_written_down_under_load() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, JournalConfig { heads_every_bytes: 2 << 10, ..small() }).unwrap();
    fill(&journal, 60).await;
    drop(journal);
    let (journal, recovery) = open_with(&disk, small()).unwrap();
    let checkpoint = recovery.checkpoint.expect("there was one long before");
    assert_eq!(recovery.scanned, 60 - checkpoint.get());
    assert_sound(&journal);
}

#[tokio::test]
async fn leftovers_of_a_preparation_are_removed() {
    let disk = Disk::default();
    drop(open(&disk));
    for name in ["segment.tmp", "heads.tmp"] {
        disk.create(&dir().join(name)).unwrap().write_at(b"half", 0).unwrap();
    }
    drop(open(&disk));
    assert!(disk.snapshot().keys().all(|path| !path.to_string_lossy().ends_with(".tmp")));
}

#[tokio::test]
async fn segments_are_named_by_their_first_position_and_never_overlap() {
    let disk = Disk::default();
    let journal = open(&disk);
    fill(&journal, 40).await;
    journal.close().await;
    let names = files(&disk).list(&dir()).unwrap();
    let segments = names.iter().filter(|name| matches!(classify(name), Named::Segment(_))).count() as u64;
    assert_eq!(segments, journal.stats().segments);
    assert!(disk.snapshot()[&segment(1)].len() as u64 == SEGMENT_BYTES_MIN);
}

#[tokio::test]
async fn the_witness_follows_the_journal_under_load() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, JournalConfig { witness_every_ms: 0, ..large() }).unwrap();
    for number in 0..5 {
        // The witness of one batch is written before the next one is taken.
        put(&journal, stream(number), [event(number)]).await;
    }
    drop(journal);
    disk.change(&segment(1), |bytes| bytes[128..].fill(0));
    match open_with(&disk, large()) {
        Err(OpenError::TailLost { witnessed, found }) => {
            assert!(witnessed.get() >= 4, "{witnessed}");
            assert_eq!(found, Position::ZERO);
        }
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test]
async fn senseless_configurations_are_refused() {
    let table = [
        JournalConfig { segment_bytes: SEGMENT_BYTES_MIN - 1, ..large() },
        JournalConfig { segment_bytes: u64::MAX, ..large() },
        JournalConfig { queue_requests_max: 0, ..large() },
        JournalConfig { queue_bytes_max: 1 << 20, ..large() },
    ];
    for config in table {
        assert!(matches!(open_with(&Disk::default(), config), Err(OpenError::Config(_))));
    }
}

#[tokio::test]
async fn asking_for_heads_all_the_time_keeps_no_segment_from_being_prepared() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, JournalConfig { heads_every_bytes: 1, ..small() }).unwrap();
    // Many heads, so that writing them down takes longer than a batch.
    for number in 0..2_000 {
        journal.claim(stream(number)).await.unwrap();
    }
    fill(&journal, 200).await;
    assert!(journal.stats().segments > 20);
    assert_sound(&journal);
}
