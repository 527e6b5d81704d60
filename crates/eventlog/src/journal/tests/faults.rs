//! Full disks, failing syncs, short writes, a dying writer.

use super::disk::Disk;
use super::{large, open, open_with, put, small};
use crate::Log;
use crate::conformance::shape::{append, assert_sound, claim, event, everything, sized_event, stream};
use crate::journal::JournalConfig;
use crate::types::{AppendOutcome, Epoch, Position, Unavailable, Version};
use futures::StreamExt;
use futures::future::join_all;

#[tokio::test]
async fn one_append_is_one_write_and_one_sync() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, large()).unwrap();
    let epoch = claim(&journal, stream(1)).await;
    let (writes, syncs) = (disk.writes(), disk.syncs());
    for version in 0..5 {
        journal.append(append(stream(1), epoch, version, [event(version)])).await;
    }
    assert_eq!((disk.writes() - writes, disk.syncs() - syncs), (5, 5));
}

#[tokio::test]
async fn a_full_disk_refuses_without_trace_and_recovers() {
    let disk = Disk::default();
    let journal = open(&disk);
    let epoch = claim(&journal, stream(1)).await;
    disk.fill_up_to(2_000);
    let mut version = 0;
    let refused = loop {
        match journal.append(append(stream(1), epoch, version, [sized_event(version, 700)])).await {
            AppendOutcome::Appended { .. } => version += 1,
            other => break other,
        }
        assert!(version < 20, "the disk is full by then");
    };
    assert!(version >= 3, "the segment under way is filled first");
    assert!(matches!(refused, AppendOutcome::Unavailable(Unavailable::NoSpace(_))), "{refused:?}");
    assert!(matches!(journal.refusal(), Some(Unavailable::NoSpace(_))));
    assert_eq!(journal.durable().get(), version);
    let claimed = journal.claim(stream(1)).await.expect("owning needs no space");
    assert_eq!(claimed.head.version, Version::new(version));
    assert_sound(&journal);
    disk.heal();
    let outcome = journal.append(append(stream(1), claimed.epoch, version, [event(1)])).await;
    assert!(matches!(outcome, AppendOutcome::Appended { .. }), "{outcome:?}");
    assert_eq!(journal.refusal(), None);
    journal.close().await;
    let journal = open(&disk);
    assert_eq!(journal.durable().get(), version + 1);
    assert_sound(&journal);
}

#[tokio::test]
async fn requests_that_share_a_batch_with_a_refused_append_are_refused_or_stand_alone() {
    let disk = Disk::default();
    let journal = open(&disk);
    let epoch = claim(&journal, stream(1)).await;
    disk.fill_up_to(0);
    let big = (0..10).map(|number| sized_event(number, 700));
    let first = journal.append(append(stream(1), epoch, 0, big));
    let conflicting = journal.append(append(stream(1), epoch, 0, [sized_event(1, 4_000)]));
    let late = journal.append(append(stream(1), Epoch::new(99), 0, [event(1)]));
    let barrier = journal.claim(stream(1));
    assert!(matches!(first.await, AppendOutcome::Unavailable(Unavailable::NoSpace(_))));
    assert!(matches!(conflicting.await, AppendOutcome::Unavailable(Unavailable::NoSpace(_))));
    assert_eq!(late.await, AppendOutcome::Fenced { current: epoch });
    let claim = barrier.await.expect("owning needs no space");
    assert_eq!(claim.head.version, Version::ZERO);
    assert_eq!(journal.epoch(stream(1)), claim.epoch);
    assert_eq!(journal.durable(), Position::ZERO);
}

#[tokio::test]
async fn a_failed_sync_poisons_the_log() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, large()).unwrap();
    put(&journal, stream(1), [event(1)]).await;
    let epoch = journal.epoch(stream(1));
    let mut follower = journal.follow(Position::new(2));
    disk.fail_sync_after(0);
    let unknown = journal.append(append(stream(1), epoch, 1, [event(2)])).await;
    assert_eq!(unknown, AppendOutcome::Unknown, "its bytes may be on disk");
    disk.heal();
    let poisoned =
        |outcome: &AppendOutcome| matches!(outcome, AppendOutcome::Unavailable(Unavailable::Poisoned(_)));
    let refused = journal.append(append(stream(1), epoch, 1, [event(2)])).await;
    assert!(poisoned(&refused), "no sync is tried again: {refused:?}");
    assert!(matches!(journal.claim(stream(2)).await, Err(Unavailable::Poisoned(_))));
    assert!(matches!(journal.refusal(), Some(Unavailable::Poisoned(_))));
    assert!(matches!(journal.wait_durable(Position::new(2)).await, Err(Unavailable::Poisoned(_))));
    assert!(matches!(follower.next().await, Some(Err(_))), "a follower learns that nothing comes any more");
    assert_eq!(everything(&journal).len(), 1, "what was durable stays readable, what was not stays hidden");
    journal.close().await;
    assert!(matches!(journal.refusal(), Some(Unavailable::Poisoned(_))), "closing does not hide it");
    drop(journal);
    disk.power_cut(3);
    let (journal, _) = open_with(&disk, large()).unwrap();
    put(&journal, stream(1), [event(3)]).await;
    assert_sound(&journal);
}

#[tokio::test]
async fn a_failed_write_poisons_the_log() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, large()).unwrap();
    let epoch = claim(&journal, stream(1)).await;
    disk.fail_writes_to(".seg");
    assert_eq!(journal.append(append(stream(1), epoch, 0, [event(2)])).await, AppendOutcome::Unknown);
    assert!(matches!(journal.refusal(), Some(Unavailable::Poisoned(_))));
}

#[tokio::test]
async fn a_failing_witness_poisons_the_log() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, JournalConfig { witness_every_ms: 0, ..large() }).unwrap();
    let epoch = claim(&journal, stream(1)).await;
    disk.fail_writes_to("witness");
    let outcome = journal.append(append(stream(1), epoch, 0, [event(1)])).await;
    assert!(matches!(outcome, AppendOutcome::Appended { .. }), "the append itself is durable: {outcome:?}");
    let end = journal.wait_durable(Position::new(2)).await;
    assert!(matches!(end, Err(Unavailable::Poisoned(_))), "{end:?}");
}

#[tokio::test]
async fn short_writes_are_completed() {
    let disk = Disk::default();
    let journal = open(&disk);
    disk.limit_writes_to(7);
    for number in 0..10 {
        put(&journal, stream(number % 2), [sized_event(number, 700)]).await;
    }
    journal.close().await;
    disk.heal();
    let journal = open(&disk);
    assert_eq!(journal.durable(), Position::new(10));
    assert_sound(&journal);
}

#[tokio::test]
async fn a_panic_of_the_writer_answers_unknown_and_poisons() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, small()).unwrap();
    let epoch = claim(&journal, stream(1)).await;
    journal.append(append(stream(1), epoch, 0, [event(1)])).await;
    journal.panic_in_writer();
    let waiting = (0..20).map(|_| journal.append(append(stream(1), epoch, 1, [event(2)])));
    for outcome in join_all(waiting).await {
        let is_told =
            matches!(outcome, AppendOutcome::Unknown | AppendOutcome::Unavailable(Unavailable::Poisoned(_)));
        assert!(is_told, "{outcome:?}");
    }
    assert!(matches!(journal.wait_durable(Position::new(2)).await, Err(Unavailable::Poisoned(_))));
    assert!(matches!(journal.refusal(), Some(Unavailable::Poisoned(_))));
    journal.close().await;
    drop(journal);
    let journal = open(&disk);
    assert_eq!(journal.durable(), Position::new(1));
    assert_sound(&journal);
}
