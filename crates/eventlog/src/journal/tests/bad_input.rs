//! Directories and files that are no journal of ours: one clear line each, and nothing written.

use super::disk::Disk;
use super::{STORE, heads, large, open_with, put, segment};
use crate::Log;
use crate::conformance::shape::{event, stream};
use crate::journal::files::Files;
use crate::journal::format::{BATCH_HEADER_BYTES, BatchHeader, HeaderRead, SEGMENT_HEADER_BYTES};
use crate::journal::{JournalConfig, OpenError, StoreId};
use crate::types::Position;
use std::path::Path;

async fn closed() -> Disk {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, large()).unwrap();
    for number in 0..6 {
        put(&journal, stream(number % 2), [event(number)]).await;
    }
    journal.close().await;
    disk
}

/// Opens what must not open: answers the line it is refused with.
fn refusal(disk: &Disk, config: JournalConfig) -> String {
    let before = disk.snapshot();
    let Err(error) = open_with(disk, config) else { panic!("it opened") };
    assert_eq!(disk.snapshot(), before, "a refusal writes nothing");
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 400, "one line: {text}");
    text
}

#[tokio::test]
async fn every_bad_directory_is_refused_in_one_clear_line() {
    type Case = (&'static str, Box<dyn Fn(&Disk)>, JournalConfig, &'static str);
    let expecting = JournalConfig { expect: Some(StoreId([1; 16])), ..large() };
    let cases: Vec<Case> = vec![
        (
            "foreign",
            Box::new(|disk| drop(disk.create(Path::new("/journal/photo.jpg")).unwrap())),
            large(),
            "photo.jpg is not part of a journal",
        ),
        (
            "newer",
            Box::new(|disk| disk.change(&segment(1), |bytes| bytes[8] = 7)),
            large(),
            "has format 7, this build reads up to 1",
        ),
        ("another store", Box::new(|_| {}), expecting, "belongs to store 5a5a"),
        (
            "headless",
            Box::new(|disk| disk.change(&segment(1), |bytes| bytes[..128].fill(0))),
            large(),
            "does not start as a segment does",
        ),
        (
            "empty segment",
            Box::new(|disk| disk.change(&segment(1), Vec::clear)),
            large(),
            "the segment's header is cut off",
        ),
        (
            "without segments",
            Box::new(|disk| disk.remove(&segment(1)).unwrap()),
            large(),
            "the segment that starts at position 1 is missing",
        ),
        (
            "renamed segment",
            Box::new(|disk| disk.rename(&segment(1), &segment(3)).unwrap()),
            large(),
            "names another position than its file name",
        ),
    ];
    for (what, spoil, config, expected) in cases {
        let disk = closed().await;
        spoil(&disk);
        let text = refusal(&disk, config);
        assert!(text.contains(expected), "{what}: {text}");
    }
}

#[tokio::test]
async fn a_disk_that_takes_no_writes_is_an_error_of_its_own() {
    let empty = Disk::default();
    empty.fill_up_to(100);
    let Err(OpenError::Io { doing, .. }) = open_with(&empty, large()) else { panic!("there is no room") };
    assert_eq!(doing, "creating a journal in");
    empty.heal();
    assert!(open_with(&empty, large()).is_ok(), "half a creation is started again");
    for is_new in [true, false] {
        let disk = if is_new { Disk::default() } else { closed().await };
        disk.make_read_only();
        let text = refusal(&disk, large());
        assert!(text.contains("failed") && text.to_lowercase().contains("read-only"), "{text}");
    }
}

/// Rewrites the header of the first batch, with a right checksum.
fn forge(disk: &Disk, change: impl FnOnce(&mut BatchHeader)) {
    disk.change(&segment(1), |bytes| {
        let at = SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES;
        let HeaderRead::Batch(mut header) = BatchHeader::decode(&bytes[at.clone()]) else {
            panic!("a batch")
        };
        change(&mut header);
        bytes[at].copy_from_slice(&header.encode());
    });
}

/// Puts a right checksum at the end of a changed file.
fn reseal(bytes: &mut [u8]) {
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
}

#[tokio::test]
async fn absurd_lengths_under_right_checksums_are_refused_without_taking_memory() {
    let forgeries: [fn(&mut BatchHeader); 5] = [
        |header| header.body_bytes = u32::MAX,
        |header| header.body_bytes = 4 << 20,
        |header| header.count = u32::MAX,
        |header| header.first = Position::new(u64::MAX),
        |header| (header.body_bytes, header.count) = (0, 0),
    ];
    for (number, forgery) in forgeries.into_iter().enumerate() {
        let disk = closed().await;
        disk.remove(&heads(6)).unwrap();
        forge(&disk, forgery);
        let text = refusal(&disk, large());
        assert!(text.contains("00000000000000000001.seg at offset"), "forgery {number}: {text}");
    }
    for (at, absurd) in [(48, u64::MAX), (48, 1 << 60), (48, 0), (56, u64::MAX), (32, u64::MAX)] {
        let disk = closed().await;
        disk.change(&heads(6), |bytes| {
            bytes[at..at + 8].copy_from_slice(&absurd.to_le_bytes());
            reseal(bytes);
        });
        let opened = open_with(&disk, large());
        let (journal, recovery) = opened.expect("a checkpoint is not needed");
        assert_eq!(journal.durable(), Position::new(6));
        assert!(at == 56 || recovery.checkpoint.is_none(), "field {at}");
    }
    for count in [u32::MAX, 1 << 20] {
        let disk = closed().await;
        let file = disk.create(Path::new("/journal/damaged")).unwrap();
        let mut bytes = crate::journal::decided::Decided::default().encode(STORE);
        bytes[12..16].copy_from_slice(&count.to_le_bytes());
        reseal(&mut bytes);
        file.write_at(&bytes, 0).unwrap();
        assert_eq!(
            open_with(&disk, large()).unwrap().1.scanned,
            6,
            "it decides nothing, and everything is read"
        );
    }
}

#[tokio::test]
async fn absurd_lengths_in_a_compressed_segment_are_refused() {
    let small = || JournalConfig { segment_bytes: 4 << 10, ..large() };
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, small()).unwrap();
    for number in 0..40 {
        put(&journal, stream(number % 2), [event(number)]).await;
    }
    journal.compact(1).unwrap();
    journal.close().await;
    let packed = segment(1).with_extension("seg.zst");
    for (at, bytes) in [(40, 8), (48, 4), (12, 4), (56, 4), (60, 4)] {
        for fill in [0xff, 0x7f, 0x00] {
            for is_resealed in [true, false] {
                let rotten = disk.copy();
                rotten.change(&packed, |file| {
                    file[at..at + bytes].fill(fill);
                    if is_resealed {
                        let crc = crc32c::crc32c(&file[..64]);
                        file[64..68].copy_from_slice(&crc.to_le_bytes());
                    }
                });
                let report = crate::journal::offline::verify_on(&rotten, Path::new("/journal")).unwrap();
                let problem = report.problem.expect("it is noticed");
                assert!(problem.contains("00000000000000000001.seg"), "field {at}: {problem}");
            }
        }
    }
}
