//! Full disks, failing syncs, short writes, a dying writer.

use super::disk::Disk;
use super::{large, open, open_with, put, small};
use crate::conformance::shape::{append, assert_sound, claim, event, everything, sized_event, stream};
use crate::journal::files::Files;
use crate::journal::{JournalConfig, OpenError};
use crate::types::{AppendOutcome, Epoch, Position, Unavailable, Version};
use crate::{Log, ReadError};
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use std::path::Path;

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
async fn what_a_failed_sync_left_in_memory_only_is_on_disk_before_it_is_handed_out() {
    for seed in 0..8 {
        let disk = Disk::default();
        let (journal, _) = open_with(&disk, large()).unwrap();
        put(&journal, stream(1), [event(1)]).await;
        let epoch = journal.epoch(stream(1));
        disk.fail_sync_after(0);
        let unknown = journal.append(append(stream(1), epoch, 1, [event(2), event(3)])).await;
        assert_eq!(unknown, AppendOutcome::Unknown);
        drop(journal);
        disk.heal();
        let (journal, recovery) = open_with(&disk, large()).unwrap();
        assert_eq!(recovery.durable, Position::new(3), "the system still shows it");
        let all = everything(&journal);
        drop(journal);
        disk.power_cut(seed);
        let (journal, _) = open_with(&disk, large()).unwrap();
        assert_eq!(everything(&journal), all, "seed {seed}: somebody may have acted on it");
    }
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
async fn closing_on_a_full_disk_writes_its_checkpoint_into_the_ballast() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, large()).unwrap();
    for number in 0..40 {
        put(&journal, stream(number), [event(number)]).await;
    }
    let ballast = Path::new("/journal/ballast");
    assert_eq!(disk.snapshot()[ballast].len() as u64, large().ballast_bytes);
    disk.fill_up_to(0);
    journal.close().await;
    assert!(!disk.snapshot().contains_key(ballast), "its room is used");
    let (journal, recovery) = open_with(&disk, large()).expect("a full disk is no reason not to open");
    assert_eq!((recovery.checkpoint, recovery.scanned), (Some(Position::new(40)), 0));
    assert_sound(&journal);
    drop(journal);
    disk.fill_up_to(0);
    let (journal, recovery) = open_with(&disk, large()).unwrap();
    assert!(recovery.notes.iter().any(|note| note.contains("no ballast")), "{:?}", recovery.notes);
    drop(journal);
    disk.heal();
    let (journal, recovery) = open_with(&disk, large()).unwrap();
    assert_eq!(recovery.notes, Vec::<String>::new());
    assert_eq!(disk.snapshot()[ballast].len() as u64, large().ballast_bytes, "it is made again");
    put(&journal, stream(1), [event(1)]).await;
}

#[tokio::test]
async fn a_witness_without_room_waits_and_gets_the_ballast_when_closing() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, JournalConfig { witness_every_ms: 0, ..large() }).unwrap();
    disk.fill_up_for("witness");
    for number in 0..5 {
        put(&journal, stream(number), [event(number)]).await;
    }
    assert_eq!(journal.refusal(), None, "appends do not depend on it");
    journal.close().await;
    assert!(!disk.snapshot().contains_key(Path::new("/journal/ballast")));
    disk.heal();
    disk.remove(&super::heads(5)).unwrap();
    disk.change(&super::segment(1), |bytes| bytes[128..].fill(0));
    assert!(matches!(open_with(&disk, large()), Err(OpenError::TailLost { .. })), "it was witnessed");
}

#[tokio::test]
async fn a_full_disk_refuses_and_accepts_many_times_over() {
    let disk = Disk::default();
    let journal = open(&disk);
    let mut refusals = 0;
    for round in 0..6 {
        disk.fill_up_to(0);
        for number in 0..8 {
            let claim = journal.claim(stream(number)).await.unwrap();
            let expected = claim.head.version.get();
            let outcome = journal
                .append(append(stream(number), claim.epoch, expected, [sized_event(round, 900)]))
                .await;
            match outcome {
                AppendOutcome::Appended { .. } => {}
                AppendOutcome::Unavailable(Unavailable::NoSpace(_)) => refusals += 1,
                other => panic!("{other:?}"),
            }
            assert_sound(&journal);
        }
        disk.heal();
        put(&journal, stream(1), [sized_event(round, 900)]).await;
        assert_eq!(journal.refusal(), None);
    }
    assert!(refusals > 10, "{refusals}");
    let durable = journal.durable();
    drop(journal);
    assert_eq!(open(&disk).durable(), durable);
}

#[tokio::test]
async fn a_slow_sync_gathers_what_comes_meanwhile_into_one_batch_within_the_queue() {
    let disk = Disk::default();
    let config = JournalConfig { queue_requests_max: 20, ..large() };
    let (journal, _) = open_with(&disk, config).unwrap();
    let mut epochs = Vec::new();
    for number in 0..30 {
        epochs.push(claim(&journal, stream(number)).await);
    }
    disk.hold_syncs();
    let first = journal.append(append(stream(0), epochs[0], 0, [event(0)]));
    disk.wait_for_held_sync();
    let waiting: Vec<_> = (1..30)
        .map(|number| journal.append(append(stream(number), epochs[number as usize], 0, [event(number)])))
        .collect();
    assert_eq!(journal.durable(), Position::ZERO, "nothing is visible before its sync");
    let batches = journal.stats().batches;
    disk.release_syncs();
    assert!(matches!(first.await, AppendOutcome::Appended { .. }));
    let outcomes = join_all(waiting).await;
    let full = AppendOutcome::Unavailable(Unavailable::QueueFull);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == full).count(), 9, "twenty fit into the queue");
    assert_eq!(journal.durable(), Position::new(21));
    assert_eq!(journal.stats().batches - batches, 2, "what waited was one batch");
}

#[tokio::test]
async fn an_unreadable_disk_is_an_error_of_its_own_and_no_damage() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, JournalConfig { ring_bytes_max: 0, ..large() }).unwrap();
    put(&journal, stream(1), [event(1)]).await;
    disk.fail_reads_of(".seg");
    assert!(matches!(journal.read_all(Position::new(1), 9), Err(ReadError::Io(_))));
    disk.heal();
    assert_eq!(everything(&journal).len(), 1);
    drop(journal);
    for suffix in [".seg", "witness"] {
        disk.fail_reads_of(suffix);
        let before = disk.snapshot();
        assert!(matches!(open_with(&disk, large()), Err(OpenError::Io { .. })), "{suffix}");
        assert_eq!(disk.snapshot(), before);
        disk.heal();
    }
    assert_eq!(open_with(&disk, large()).unwrap().0.durable(), Position::new(1));
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

#[tokio::test]
async fn everybody_in_a_large_batch_has_been_told_when_the_journal_is_closed() {
    const WRITERS: u64 = 100;
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, large()).unwrap();
    let mut epochs = Vec::new();
    for number in 0..WRITERS {
        epochs.push(journal.claim(stream(number)).await.unwrap().epoch);
    }
    disk.hold_syncs();
    let mut answers = Vec::new();
    for (number, &epoch) in (0..).zip(&epochs) {
        // Every other one expects a version that is not there.
        answers.push(journal.append(append(stream(number), epoch, number % 2, [event(number)])));
    }
    disk.wait_for_held_sync();
    let closing = journal.close();
    disk.release_syncs();
    closing.await;
    for (number, answer) in (0u64..).zip(answers) {
        // A task that found a hundred things ready without once waiting is told to wait by the runtime.
        let answer = tokio::task::unconstrained(answer).now_or_never();
        let outcome = answer.expect("nobody waits for a journal that is closed");
        let is_right = match number % 2 {
            0 => matches!(outcome, AppendOutcome::Appended { .. }),
            _ => matches!(outcome, AppendOutcome::Conflict { actual: Version::ZERO }),
        };
        assert!(is_right, "writer {number}: {outcome:?}");
    }
    assert_eq!(journal.durable().get(), WRITERS / 2);
}
