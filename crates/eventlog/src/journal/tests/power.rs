//! Power cuts: whatever was answered is there, whatever was not is there whole or not at all.

use super::disk::Disk;
use super::{open_with, small};
use crate::Log;
use crate::conformance::shape::{append, assert_sound, claim, event, history, sized_event, stream};
use crate::journal::{Journal, JournalConfig};
use crate::types::AppendOutcome;
use futures::future::join_all;
use std::collections::BTreeMap;

const STREAMS: u64 = 4;
const EVENTS: u64 = 3;

fn eager() -> JournalConfig {
    JournalConfig { witness_every_ms: 0, heads_every_bytes: 2 << 10, ..small() }
}

/// Appends of three events per stream until the disk fails; answers how many per stream are certain, and how
/// many more may be there.
async fn append_until_it_fails(journal: &Journal) -> BTreeMap<u64, (u64, u64)> {
    let mut counts = BTreeMap::<u64, (u64, u64)>::new();
    let mut epochs = BTreeMap::new();
    for number in 0..STREAMS {
        epochs.insert(number, claim(journal, stream(number)).await);
    }
    for round in 0..12 {
        let batch = (0..STREAMS).map(|number| {
            let bytes = 40 + (round * 97 + number * 31) as usize % 400;
            let expected = journal.head(stream(number)).version.get();
            let events = (0..EVENTS).map(|event| sized_event(event, bytes));
            journal.append(append(stream(number), epochs[&number], expected, events))
        });
        for (number, outcome) in (0..STREAMS).zip(join_all(batch).await) {
            let (certain, possible) = counts.entry(number).or_default();
            match outcome {
                AppendOutcome::Appended { .. } => *certain += EVENTS,
                AppendOutcome::Unknown => *possible += EVENTS,
                AppendOutcome::Unavailable(_) => {}
                other => panic!("the only owner neither conflicts nor is fenced: {other:?}"),
            }
        }
        if journal.refusal().is_some() {
            break;
        }
    }
    counts
}

#[tokio::test]
async fn a_power_cut_at_any_sync_loses_nothing_answered_and_tears_nothing() {
    for syncs in 0..60 {
        for seed in 0..6 {
            let disk = Disk::default();
            let (journal, _) = open_with(&disk, eager()).unwrap();
            disk.fail_sync_after(syncs);
            let counts = append_until_it_fails(&journal).await;
            drop(journal);
            disk.power_cut(seed * 1_000 + syncs);
            let (journal, recovery) = open_with(&disk, eager()).unwrap();
            assert_eq!(recovery.lost, None);
            assert_sound(&journal);
            for (number, (certain, possible)) in counts {
                let there = history(&journal, stream(number)).len() as u64;
                let is_right = there == certain || there == certain + possible;
                assert!(
                    is_right,
                    "sync {syncs} seed {seed}: {there} there, {certain} answered, {possible} possible"
                );
            }
            let head = journal.head(stream(0)).version.get();
            let epoch = claim(&journal, stream(0)).await;
            let outcome = journal.append(append(stream(0), epoch, head, [event(1)])).await;
            assert!(matches!(outcome, AppendOutcome::Appended { .. }), "{outcome:?}");
            journal.close().await;
        }
    }
}

#[tokio::test]
async fn a_power_cut_while_the_store_is_created_leaves_one_that_opens() {
    for syncs in 0..6 {
        for seed in 0..20 {
            let disk = Disk::default();
            disk.fail_sync_after(syncs);
            drop(open_with(&disk, small()));
            disk.power_cut(seed);
            let (journal, recovery) = open_with(&disk, small()).unwrap();
            assert_eq!(recovery.durable.get(), 0, "sync {syncs} seed {seed}");
            assert_sound(&journal);
        }
    }
}

#[tokio::test]
async fn a_power_cut_during_recovery_recovers_again() {
    for seed in 0..20 {
        let disk = Disk::default();
        let (journal, _) = open_with(&disk, small()).unwrap();
        disk.fail_sync_after(5);
        let counts = append_until_it_fails(&journal).await;
        drop(journal);
        disk.power_cut(seed);
        for syncs in 0..4 {
            disk.fail_sync_after(syncs);
            drop(open_with(&disk, small()));
            disk.power_cut(seed + syncs * 77);
        }
        let (journal, _) = open_with(&disk, small()).unwrap();
        assert_sound(&journal);
        for (number, (certain, possible)) in counts {
            let there = history(&journal, stream(number)).len() as u64;
            assert!(there == certain || there == certain + possible, "seed {seed} stream {number}");
        }
    }
}

#[tokio::test]
async fn what_recovery_found_in_memory_only_is_synced_before_it_is_served() {
    for seed in 0..20 {
        let disk = Disk::default();
        let (journal, _) = open_with(&disk, small()).unwrap();
        let epoch = claim(&journal, stream(1)).await;
        disk.fail_sync_after(0);
        let outcome = journal.append(append(stream(1), epoch, 0, [sized_event(1, 2_000)])).await;
        assert_eq!(outcome, AppendOutcome::Unknown);
        drop(journal);
        disk.heal();
        // The process is gone, the machine is not: the batch is whole.
        let (journal, recovery) = open_with(&disk, small()).unwrap();
        assert_eq!(recovery.durable.get(), 1);
        drop(journal);
        disk.power_cut(seed);
        let (journal, recovery) = open_with(&disk, small()).unwrap();
        assert_eq!(recovery.durable.get(), 1, "seed {seed}");
        assert_sound(&journal);
    }
}
