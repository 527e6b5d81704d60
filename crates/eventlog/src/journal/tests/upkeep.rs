//! Compressed and archived segments: read as before, or refused by name.

use super::disk::Disk;
use super::{open_with, put, segment, small};
use crate::conformance::shape::{append, assert_sound, claim, everything, sized_event, stream};
use crate::journal::files::{Files, write_full};
use crate::journal::format::{Named, classify};
use crate::journal::offline::{JournalReader, verify_on};
use crate::journal::recovery::Policy;
use crate::journal::{Journal, JournalConfig, OpenError, UpkeepError};
use crate::types::{AppendOutcome, Position, Record, Version};
use crate::{Log, ReadError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn config() -> JournalConfig {
    JournalConfig { ring_bytes_max: 0, critical: |_| false, ..small() }
}

fn open(disk: &Disk) -> Journal {
    open_with(disk, config()).unwrap().0
}

fn archive_dir() -> &'static Path {
    Path::new("/archive")
}

fn packed(first: u64) -> PathBuf {
    segment(first).with_extension("seg.zst")
}

/// Twenty appends over five segments; stream 0 has its events in the first of them only.
async fn filled() -> (Disk, Vec<Record>) {
    let disk = Disk::default();
    let journal = open(&disk);
    for number in 0..20 {
        let target = if number < 2 { 0 } else { 1 + number % 3 };
        put(&journal, stream(target), [sized_event(number, 900)]).await;
    }
    let all = everything(&journal);
    journal.close().await;
    (disk, all)
}

fn firsts(disk: &Disk) -> Vec<u64> {
    let names = disk.list(Path::new("/journal")).unwrap();
    let first = |name: &String| match classify(name) {
        Named::Segment(first) | Named::Packed(first) => Some(first.get()),
        _ => None,
    };
    names.iter().filter_map(first).collect()
}

#[tokio::test]
async fn compressed_segments_are_read_as_before_and_take_less_room() {
    let (disk, all) = filled().await;
    let journal = open(&disk);
    assert_eq!(everything(&journal), all, "some segments are open for reading");
    let two = journal.compact(2).unwrap();
    assert_eq!((two.segments, two.damaged), (2, 0));
    assert!(two.bytes_after * 4 < two.bytes_before, "{two:?}");
    assert_eq!(everything(&journal), all);
    let sealed = firsts(&disk).len() as u64 - 1;
    assert_eq!(journal.compact(usize::MAX).unwrap().segments, sealed - 2);
    assert_eq!(journal.compact(usize::MAX).unwrap().segments, 0);
    assert!(disk.snapshot().contains_key(&packed(1)) && !disk.snapshot().contains_key(&segment(1)));
    put(&journal, stream(1), [sized_event(1, 900)]).await;
    assert_sound(&journal);
    drop(journal);
    assert_eq!(verify_on(&disk, Path::new("/journal")).unwrap().problem, None);
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let reader = JournalReader::open_on(files, Path::new("/journal"), Policy::STRICT).unwrap();
    assert_eq!(reader.read_all(Position::new(1), 20).unwrap(), all);
    assert_sound(&open(&disk));
}

#[tokio::test]
async fn any_damage_to_a_compressed_segment_is_noticed_and_named() {
    let (disk, all) = filled().await;
    let journal = open(&disk);
    journal.compact(1).unwrap();
    journal.close().await;
    let bytes = disk.snapshot()[&packed(1)].len();
    for at in 0..bytes {
        let rotten = disk.copy();
        rotten.change(&packed(1), |bytes| bytes[at] ^= 0x11);
        let report = verify_on(&rotten, Path::new("/journal")).unwrap();
        assert!(
            report.problem.is_some_and(|problem| problem.contains("00000000000000000001.seg")),
            "byte {at}"
        );
        // Recovery starts behind it; what it reads of it is right or an error.
        if let Ok((journal, _)) = open_with(&rotten, config()) {
            let read = journal.read_all(Position::new(1), 20);
            assert!(read.is_err() || read == Ok(all.clone()), "byte {at}");
        }
    }
    for cut in [0, 10, 55, 60, bytes / 2, bytes - 1] {
        let cut_off = disk.copy();
        cut_off.change(&packed(1), |bytes| bytes.truncate(cut));
        assert!(verify_on(&cut_off, Path::new("/journal")).unwrap().problem.is_some(), "cut at {cut}");
    }
}

#[tokio::test]
async fn an_interrupted_compression_is_taken_back() {
    let (disk, all) = filled().await;
    let original = disk.snapshot()[&segment(1)].clone();
    let journal = open(&disk);
    journal.compact(1).unwrap();
    journal.close().await;
    disk.create(&segment(1)).unwrap().write_at(&original, 0).unwrap();
    let journal = open(&disk);
    assert!(!disk.snapshot().contains_key(&packed(1)), "the original is the truth");
    assert_eq!(everything(&journal), all);
}

#[tokio::test]
async fn two_segments_with_one_name_are_refused_in_one_line() {
    let (disk, _) = filled().await;
    let second = firsts(&disk)[1];
    let journal = open(&disk);
    journal.compact(1).unwrap();
    journal.close().await;
    let bytes = disk.snapshot()[&packed(1)].clone();
    disk.create(&packed(second)).unwrap().write_at(&bytes, 0).unwrap();
    let Err(error) = open_with(&disk, config()) else { panic!("which of the two is it?") };
    let text = error.to_string();
    assert!(text.contains(".seg.zst") && text.contains("names another position"), "{text}");
    assert!(!text.contains('\n'));
}

#[tokio::test]
async fn a_damaged_segment_is_neither_compressed_nor_archived() {
    let (disk, _) = filled().await;
    disk.change(&segment(1), |bytes| bytes[128 + 40 + 100] ^= 1);
    let journal = open(&disk);
    let done = journal.compact(usize::MAX).unwrap();
    assert_eq!(done.damaged, 1);
    assert!(disk.snapshot().contains_key(&segment(1)));
    let refused = journal.archive(Position::new(20), archive_dir());
    assert!(matches!(refused, Err(UpkeepError::Damaged { .. })), "{refused:?}");
    assert!(disk.snapshot().contains_key(&segment(1)));
}

#[tokio::test]
async fn archived_positions_are_refused_by_name_and_the_rest_goes_on() {
    let (disk, all) = filled().await;
    let firsts_before = firsts(&disk);
    let oldest = firsts_before[2];
    let journal = open(&disk);
    journal.compact(1).unwrap();
    assert_eq!(journal.archive(Position::new(1), archive_dir()).unwrap().segments, 0);
    let done = journal.archive(Position::new(oldest + 1), archive_dir()).unwrap();
    assert_eq!(
        (done.segments, done.oldest, journal.oldest()),
        (2, Position::new(oldest), Position::new(oldest))
    );
    let check = |journal: &Journal| {
        let archived =
            |from| ReadError::Archived { asked: Position::new(from), oldest: Position::new(oldest) };
        assert_eq!(journal.read_all(Position::new(1), 9), Err(archived(1)));
        assert_eq!(
            journal.read_all(Position::new(oldest), 99).unwrap()[..=20 - oldest as usize],
            all[oldest as usize - 1..]
        );
        assert_eq!(
            journal.head(stream(0)).version,
            Version::new(2),
            "a stream may lie in the archive as a whole"
        );
        assert_eq!(journal.read_stream(stream(0), Version::new(1), 9), Err(archived(2)));
        let head = journal.head(stream(1)).version;
        assert_eq!(journal.read_stream(stream(1), head, 9).unwrap().len(), 1);
    };
    check(&journal);
    journal.close().await;
    // From the checkpoint, and from the base.
    for round in 0..2u64 {
        let (journal, recovery) = open_with(&disk, config()).unwrap();
        assert_eq!(recovery.oldest, Position::new(oldest));
        assert_eq!(recovery.scanned, round * (21 - oldest));
        check(&journal);
        drop(journal);
        for path in disk.snapshot().into_keys().filter(|it| it.to_string_lossy().contains("heads-")) {
            disk.remove(&path).unwrap();
        }
    }
    assert_eq!(verify_on(&disk, Path::new("/journal")).unwrap().problem, None);
    let journal = open(&disk);
    let epoch = claim(&journal, stream(0)).await;
    let wrong = journal.append(append(stream(0), epoch, 0, [sized_event(1, 9)])).await;
    assert_eq!(wrong, AppendOutcome::Conflict { actual: Version::new(2) });
    put(&journal, stream(0), [sized_event(1, 9)]).await;
    journal.close().await;
    assert_eq!(disk.list(archive_dir()).unwrap().len(), 2);
}

#[tokio::test]
async fn archived_positions_are_read_where_they_are_if_the_archive_is_attached() {
    let (disk, all) = filled().await;
    let oldest = firsts(&disk)[2];
    let journal = open(&disk);
    journal.compact(1).unwrap();
    assert_eq!(journal.attach_archive(archive_dir()).unwrap(), Position::new(1));
    journal.archive(Position::new(oldest + 1), archive_dir()).unwrap();
    let check = |journal: &Journal| {
        assert_eq!(journal.oldest(), Position::new(oldest));
        assert_eq!(journal.read_all(Position::new(1), 99).unwrap(), all);
        for number in 0..3 {
            let head = journal.head(stream(number));
            let read = journal.read_stream(stream(number), Version::new(1), 99).unwrap();
            assert_eq!(read.len() as u64, head.version.get());
        }
    };
    check(&journal);
    journal.close().await;
    drop(journal);
    let journal = open(&disk);
    assert_eq!(journal.attach_archive(archive_dir()).unwrap(), Position::new(1));
    check(&journal);
    journal.close().await;
    drop(journal);
    let reader =
        JournalReader::open_on(Arc::new(disk.clone()), Path::new("/journal"), Policy::STRICT).unwrap();
    assert!(matches!(reader.read_all(Position::new(1), 9), Err(ReadError::Archived { .. })));
    assert_eq!(reader.attach_archive(archive_dir()).unwrap(), Position::new(1));
    assert_eq!(reader.read_all(Position::new(1), 99).unwrap(), all);
    // A part of the archive reaches back as far as it goes.
    let first = disk.list(archive_dir()).unwrap().into_iter().min().unwrap();
    disk.remove(&archive_dir().join(first)).unwrap();
    let journal = open(&disk);
    assert!(journal.attach_archive(archive_dir()).unwrap() > Position::new(1));
    assert!(matches!(journal.read_all(Position::new(1), 9), Err(ReadError::Archived { .. })));
}

#[tokio::test]
async fn an_archive_that_goes_on_where_the_journal_has_its_own_is_of_another_history() {
    let (disk, _) = filled().await;
    let first = firsts(&disk)[2];
    // As after a backup was restored beside the archive of what came after it.
    let copy = disk.create(&archive_dir().join(segment(first).file_name().unwrap())).unwrap();
    write_full(&*copy, &disk.snapshot()[&segment(first)], 0).unwrap();
    let attached = open(&disk).attach_archive(archive_dir());
    assert!(matches!(attached, Err(OpenError::Foreign { .. })), "{attached:?}");
    let journal = open(&disk);
    disk.remove(&archive_dir().join(segment(first).file_name().unwrap())).unwrap();
    journal.archive(Position::new(first), archive_dir()).unwrap();
    assert_eq!(journal.attach_archive(archive_dir()).unwrap(), Position::new(1), "its own is taken");
}

#[tokio::test]
async fn a_lost_base_is_named_and_one_that_is_not_needed_is_not() {
    let (disk, _) = filled().await;
    let oldest = firsts(&disk)[2];
    let journal = open(&disk);
    journal.archive(Position::new(oldest), archive_dir()).unwrap();
    journal.close().await;
    let base = disk.snapshot().into_keys().find(|path| path.to_string_lossy().contains("base-")).unwrap();
    let rotten = disk.copy();
    rotten.change(&base, |bytes| bytes[70] ^= 1);
    let Err(OpenError::Damaged(damage)) = open_with(&rotten, config()) else { panic!("heads are missing") };
    assert!(damage.segment.starts_with("base-"), "{damage}");
    disk.remove(&base).unwrap();
    let Err(OpenError::MissingSegment { expected, .. }) = open_with(&disk, config()) else {
        panic!("or this")
    };
    assert_eq!(expected, Position::new(1));
}

#[tokio::test]
async fn a_power_cut_while_compressing_or_archiving_loses_nothing() {
    let (filled, all) = filled().await;
    let oldest = firsts(&filled)[2];
    let mut finished = 0;
    for syncs in 0..12 {
        for seed in 0..4 {
            let disk = filled.copy();
            let journal = open(&disk);
            disk.fail_sync_after(syncs);
            let is_done = journal.compact(usize::MAX).is_ok()
                && journal.archive(Position::new(oldest), archive_dir()).is_ok();
            finished += u64::from(is_done);
            drop(journal);
            disk.power_cut(seed * 100 + syncs);
            let (journal, recovery) = open_with(&disk, config()).unwrap();
            assert_eq!((recovery.durable, recovery.damaged.len()), (Position::new(20), 0), "sync {syncs}");
            let from = journal.oldest();
            assert_eq!(journal.read_all(from, 99).unwrap(), all[from.get() as usize - 1..]);
            journal.archive(Position::new(oldest), archive_dir()).unwrap();
            assert_eq!(disk.list(archive_dir()).unwrap().len(), 2, "a second call finishes it");
            put(&journal, stream(2), [sized_event(1, 900)]).await;
        }
    }
    assert!((8..40).contains(&finished), "some were cut and some were not: {finished}");
}

#[tokio::test]
async fn an_archive_on_another_device_gets_copies_and_keeps_what_it_has() {
    let (disk, _) = filled().await;
    let numbers = firsts(&disk);
    let (second, oldest) = (numbers[1], numbers[2]);
    let original = disk.snapshot()[&segment(1)].clone();
    disk.divide();
    let held = |first: u64| archive_dir().join(segment(first).file_name().unwrap());
    // The first was copied by a call that was cut off; under the name of the second lies something else.
    disk.create(&held(1)).unwrap().write_at(&original, 0).unwrap();
    disk.create(&held(second)).unwrap().write_at(b"not ours", 0).unwrap();
    let journal = open(&disk);
    let refused = journal.archive(Position::new(oldest), archive_dir());
    assert!(matches!(refused, Err(UpkeepError::Exists { .. })), "{refused:?}");
    assert!(!disk.snapshot().contains_key(&segment(1)), "the copy was compared, and the original removed");
    assert!(disk.snapshot().contains_key(&segment(second)));
    disk.remove(&held(second)).unwrap();
    assert_eq!(journal.archive(Position::new(oldest), archive_dir()).unwrap().segments, 1);
    assert_eq!(disk.snapshot()[&held(1)], original);
    assert_eq!(disk.list(archive_dir()).unwrap().len(), 2, "no half of a copy is left");
    journal.close().await;
    let (journal, recovery) = open_with(&disk, config()).unwrap();
    assert_eq!((recovery.oldest, journal.durable()), (Position::new(oldest), Position::new(20)));
}
