//! Reading and verifying a stopped journal.

use super::disk::Disk;
use super::{STORE, dir, heads, open, put, segment, witness};
use crate::Log;
use crate::conformance::shape::{everything, history, sized_event, stream};
use crate::journal::files::Files;
use crate::journal::heads::{self, HeadsCheckpoint};
use crate::journal::offline::{JournalReader, verify_on};
use crate::journal::parts::scan_in_parts;
use crate::journal::recovery::Policy;
use crate::journal::scan::Scanner;
use crate::journal::survey::{read_checkpoints, survey};
use crate::journal::{OpenError, VerifyReport};
use crate::types::{Position, Version};
use std::path::Path;
use std::sync::Arc;

async fn filled() -> (Disk, Vec<crate::Record>) {
    let disk = Disk::default();
    let journal = open(&disk);
    for number in 0..20 {
        put(&journal, stream(number % 3), [sized_event(number, 300), sized_event(number, 40)]).await;
    }
    let all = everything(&journal);
    journal.close().await;
    (disk, all)
}

fn reader(disk: &Disk) -> Result<JournalReader, OpenError> {
    JournalReader::open_on(Arc::new(disk.clone()), &dir(), Policy::STRICT)
}

fn verify(disk: &Disk) -> VerifyReport {
    verify_on(disk, &dir()).unwrap()
}

#[tokio::test]
async fn a_reader_sees_what_the_journal_held_and_changes_nothing() {
    let (disk, all) = filled().await;
    let before = disk.snapshot();
    let reader = reader(&disk).unwrap();
    assert_eq!(reader.store_id(), STORE);
    assert_eq!(reader.read_all(Position::new(1), usize::MAX).unwrap(), all);
    assert_eq!(reader.read_all(Position::new(38), 2).unwrap(), all[37..39]);
    let own: Vec<_> = all.iter().filter(|record| record.stream == stream(2)).cloned().collect();
    assert_eq!(reader.read_stream(stream(2), Version::new(1), usize::MAX).unwrap(), own);
    assert_eq!(reader.read_stream(stream(2), Version::new(3), 4).unwrap(), own[2..6]);
    assert_eq!(reader.streams().count(), 3);
    assert_eq!((reader.stats().durable, reader.stats().streams), (Position::new(40), 3));
    assert_eq!(reader.verify().unwrap().problem, None);
    assert_eq!(disk.snapshot(), before);
}

#[tokio::test]
async fn a_torn_tail_is_neither_served_nor_removed() {
    let disk = Disk::default();
    let journal = open(&disk);
    put(&journal, stream(1), [sized_event(1, 100)]).await;
    put(&journal, stream(1), [sized_event(2, 100)]).await;
    drop(journal);
    disk.change(&segment(1), |bytes| {
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[end - 10..=end].fill(0);
    });
    let before = disk.snapshot();
    let reader = reader(&disk).unwrap();
    assert_eq!(reader.read_all(Position::new(1), 10).unwrap().len(), 1);
    assert_eq!(reader.head(stream(1)).version, Version::new(1));
    let report = reader.verify().unwrap();
    assert_eq!(report.problem, None, "an incomplete last batch was never durable");
    assert_eq!(report.torn.expect("it is reported").place.first, Position::new(2));
    assert_eq!(disk.snapshot(), before);
}

#[tokio::test]
async fn a_whole_journal_verifies() {
    let (disk, all) = filled().await;
    let report = verify(&disk);
    assert_eq!((report.problem, report.damage, report.torn), (None, None, None));
    assert_eq!((report.records, report.streams, report.durable), (40, 3, Position::new(40)));
    assert_eq!(report.records, all.len() as u64);
    assert!(report.segments > 1 && report.batches == 20 && report.bytes > 0);
}

#[tokio::test]
async fn scanning_in_parts_finds_what_one_scan_finds_and_answers_for_nothing_else() {
    let (disk, _) = filled().await;
    let scans = |disk: &Disk| {
        let found = survey(disk, &dir(), None).unwrap();
        let checkpoints = read_checkpoints(disk, &dir(), &found, &mut vec![]).unwrap();
        let dir = dir();
        let mut whole = Scanner::new(disk, &dir, &found, None, &checkpoints);
        whole.run().unwrap();
        let parts = [2, 3, 7].map(|threads| scan_in_parts(disk, &dir, &found, &checkpoints, threads));
        (whole.scan, parts)
    };
    let (whole, parts) = scans(&disk);
    for part in parts {
        let part = part.expect("nothing is wrong");
        assert_eq!((part.next, part.chain, &part.heads), (whole.next, whole.chain, &whole.heads));
        assert_eq!((part.batches, part.records, part.bytes), (whole.batches, whole.records, whole.bytes));
        assert_eq!(part.tail_offset, whole.tail_offset);
    }
    let found = survey(&disk, &dir(), None).unwrap();
    for segment in &found.segments {
        for place in [128 + 10, 128 + 40 + 90] {
            let rotten = disk.copy();
            rotten.change(&dir().join(&segment.name), |bytes| bytes[place] ^= 1);
            let is_last = segment.name == found.segments.last().unwrap().name;
            let (_, parts) = scans(&rotten);
            let answered = parts.iter().flatten().all(|part| is_last && part.leftover.is_some());
            assert!(answered, "{} at {place}", segment.name);
        }
    }
    let wrong = disk.copy();
    let file = wrong.open_read(&heads(40)).unwrap();
    let mut checkpoint = HeadsCheckpoint::read(&*file).unwrap().unwrap();
    checkpoint.heads.get_mut(&stream(1)).unwrap().head.version = Version::new(3);
    heads::write(&wrong, Path::new("/journal"), checkpoint.position, &checkpoint.encode()).unwrap();
    assert!(scans(&wrong).1.iter().all(Option::is_none));
}

#[tokio::test]
async fn verification_names_damage_that_recovery_does_not_look_at() {
    let (disk, _) = filled().await;
    // Recovery starts from the checkpoint and trusts sealed segments before it.
    disk.change(&segment(1), |bytes| bytes[128 + 40 + 100] ^= 1);
    let journal = open(&disk);
    assert_eq!(journal.durable(), Position::new(40));
    assert!(journal.read_all(Position::new(1), 1).is_err(), "reading notices");
    assert_eq!(history(&journal, stream(2)).len(), 12, "streams elsewhere are served");
    journal.close().await;
    let damage = verify(&disk).damage.expect("verification looks at everything");
    assert_eq!((damage.segment.as_str(), damage.first), ("00000000000000000001.seg", Position::new(1)));
    assert_eq!(damage.offset, 128 + 40);
}

#[tokio::test]
async fn verification_compares_checkpoints_and_witness_with_history() {
    let (disk, _) = filled().await;
    let wrong = disk.copy();
    let file = wrong.open_read(&heads(40)).unwrap();
    let mut checkpoint = HeadsCheckpoint::read(&*file).unwrap().unwrap();
    checkpoint.heads.get_mut(&stream(1)).unwrap().head.version = Version::new(3);
    heads::write(&wrong, Path::new("/journal"), checkpoint.position, &checkpoint.encode()).unwrap();
    let problem = verify(&wrong).problem.expect("one head is wrong");
    assert!(problem.contains("heads checkpoint at position 40"), "{problem}");

    let lost = disk.copy();
    lost.remove(&witness()).unwrap();
    let problem = verify(&lost).problem.expect("nothing proves the end");
    assert!(problem.contains("witness") && problem.contains("missing"), "{problem}");

    let cut = disk.copy();
    cut.change(&segment(1), |bytes| bytes[128..].fill(0));
    assert!(verify(&cut).problem.is_some());
}

#[tokio::test]
async fn an_empty_directory_is_no_journal_and_stays_empty() {
    let disk = Disk::default();
    assert!(matches!(reader(&disk), Err(OpenError::NoJournal { .. })));
    assert!(matches!(verify_on(&disk, &dir()), Err(OpenError::NoJournal { .. })));
    assert!(disk.snapshot().is_empty());
}

#[tokio::test]
async fn a_reader_refuses_what_the_journal_would_refuse() {
    let (disk, _) = filled().await;
    disk.remove(&witness()).unwrap();
    assert!(matches!(reader(&disk), Err(OpenError::WitnessLost { .. })));
}
