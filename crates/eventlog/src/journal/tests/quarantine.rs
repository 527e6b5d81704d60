//! Damage before the tail: the streams it hit are named and left alone, everything else is served.

use super::damage::batches;
use super::disk::Disk;
use super::{heads, large, open_with, put, segment, small};
use crate::conformance::shape::{append, event, everything, history, sized_event, stream};
use crate::journal::files::Files;
use crate::journal::offline::{JournalReader, verify_on};
use crate::journal::recovery::Policy;
use crate::journal::{Journal, JournalConfig, OpenError, Recovery};
use crate::types::{AppendOutcome, Epoch, Position, Record, StreamId, Unavailable};
use crate::{Log, ReadError};
use futures::StreamExt;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Lives with damage to any stream but number 9.
fn lenient(config: JournalConfig) -> JournalConfig {
    JournalConfig { critical: |it| it == stream(9), ring_bytes_max: 0, ..config }
}

fn open_lenient(disk: &Disk) -> Result<(Journal, Recovery), OpenError> {
    open_with(disk, lenient(large()))
}

/// Five appends of two events to streams 1, 2, 3, 1, 2, killed: every stream but 3 goes on behind its first.
async fn five_batches() -> (Disk, Vec<Record>) {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, large()).unwrap();
    for number in [1, 2, 3, 1, 2] {
        put(&journal, stream(number), [event(number), event(number + 10)]).await;
    }
    let all = everything(&journal);
    drop(journal);
    (disk, all)
}

/// What a follower from the start answers up to the durable end.
async fn followed(journal: &Journal) -> Vec<Result<Record, ReadError>> {
    let mut follower = journal.follow(Position::new(1));
    let mut items = Vec::new();
    let mut reached = Position::ZERO;
    while reached < journal.durable() {
        let item = follower.next().await.expect("the log is open");
        reached = match &item {
            Ok(record) => record.position,
            Err(ReadError::Damaged { last: Some(last), .. }) => *last,
            Err(other) => panic!("a follower ends with {other}"),
        };
        items.push(item);
    }
    items
}

/// Asserts that a journal serves `all` but what it names as damaged, and answers the streams it quarantined.
async fn assert_honest(journal: &Journal, recovery: &Recovery, all: &[Record]) -> BTreeSet<StreamId> {
    let gone = |position: Position| {
        recovery.damaged.iter().any(|gap| (gap.first..=gap.last.unwrap()).contains(&position))
    };
    let left: Vec<&Record> = all.iter().filter(|record| !gone(record.position)).collect();
    let items = followed(journal).await;
    let read: Vec<&Record> = items.iter().filter_map(|item| item.as_ref().ok()).collect();
    assert_eq!(read, left, "{items:?}: what is not named as damaged is there as it was");
    assert_eq!(items.iter().filter(|item| item.is_err()).count(), recovery.damaged.len(), "one item per gap");
    let quarantined: BTreeSet<StreamId> =
        journal.quarantined().into_iter().map(|(stream, _)| stream).collect();
    let hit: BTreeSet<StreamId> = all.iter().filter(|it| gone(it.position)).map(|it| it.stream).collect();
    assert_eq!(quarantined, hit, "exactly the streams that lost a record");
    assert_eq!(recovery.quarantined.iter().copied().collect::<BTreeSet<_>>(), hit);
    for stream in all.iter().map(|record| record.stream).filter(|stream| !hit.contains(stream)) {
        let own: Vec<Record> = all.iter().filter(|record| record.stream == stream).cloned().collect();
        assert_eq!(history(journal, stream), own, "other streams are whole");
    }
    hit
}

#[tokio::test]
async fn any_damaged_byte_is_refused_by_name_or_quarantines_exactly_its_streams() {
    let (disk, all) = five_batches().await;
    let edges = batches(&disk, &segment(1));
    let (mut served, mut refused) = (0, 0);
    for at in edges[0]..edges[4] {
        let rotten = disk.copy();
        rotten.change(&segment(1), |bytes| bytes[at] ^= 0x20);
        match open_lenient(&rotten) {
            Ok((journal, recovery)) => {
                let hit = assert_honest(&journal, &recovery, &all).await;
                served += usize::from(!hit.is_empty());
                let is_padding = edges.iter().any(|edge| *edge > at && edge - at < 8);
                assert!(!hit.is_empty() || is_padding, "byte {at}");
            }
            Err(OpenError::Damaged(damage)) => {
                assert!(damage.detail.contains("that nothing names any more"), "byte {at}: {damage}");
                assert!(
                    (5..=8).contains(&damage.first.get()),
                    "streams 3 and 1 have nothing behind their last append: {damage}"
                );
                refused += 1;
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(served > 600 && refused > 100, "{served} served, {refused} refused");
}

#[tokio::test]
async fn a_quarantined_stream_is_neither_read_nor_extended_and_stays_so() {
    let (disk, all) = five_batches().await;
    let edges = batches(&disk, &segment(1));
    disk.change(&segment(1), |bytes| bytes[edges[0] + 60] ^= 1);
    let rotten = disk.snapshot()[&segment(1)][edges[0]..edges[1]].to_vec();
    for round in 0..3u64 {
        let (journal, recovery) = open_lenient(&disk).unwrap();
        let old: Vec<Record> = everything_readable(&journal).await;
        assert_eq!(recovery.quarantined, [stream(1)], "round {round}");
        assert!(matches!(
            journal.read_stream(stream(1), crate::Version::new(1), 10),
            Err(ReadError::Quarantined { stream: it, .. }) if it == stream(1)
        ));
        let refused = AppendOutcome::Unavailable(Unavailable::Quarantined(stream(1)));
        assert_eq!(journal.append(append(stream(1), Epoch::ZERO, 4, [event(1)])).await, refused);
        assert_eq!(journal.claim(stream(1)).await, Err(Unavailable::Quarantined(stream(1))));
        let reason = &journal.quarantined()[0].1;
        assert!(reason.contains("00000000000000000001.seg at offset"), "{reason}");
        put(&journal, stream(2), [event(50 + round)]).await;
        assert_eq!(everything_readable(&journal).await.len(), old.len() + 1);
        journal.close().await;
        assert_eq!(disk.snapshot()[&segment(1)][edges[0]..edges[1]], rotten, "damaged bytes are left alone");
    }
    let (journal, recovery) = open_lenient(&disk).unwrap();
    assert_eq!(journal.durable().get(), all.len() as u64 + 3);
    assert_eq!(recovery.damaged.len(), 1);
}

async fn everything_readable(journal: &Journal) -> Vec<Record> {
    followed(journal).await.into_iter().filter_map(Result::ok).collect()
}

#[tokio::test]
async fn a_follower_names_the_range_and_its_streams_and_goes_on() {
    let (disk, all) = five_batches().await;
    let edges = batches(&disk, &segment(1));
    disk.change(&segment(1), |bytes| bytes[edges[1]] ^= 1);
    let (journal, _) = open_lenient(&disk).unwrap();
    let items = followed(&journal).await;
    assert_eq!(items.len(), 9);
    let Err(ReadError::Damaged { position, last, streams, .. }) = &items[2] else { panic!("{:?}", items[2]) };
    assert_eq!((position.get(), last.unwrap().get(), &streams[..]), (3, 4, &[stream(2)][..]));
    assert_eq!(items[3].as_ref().unwrap(), &all[4]);
    assert_eq!(journal.read_all(Position::new(1), 100).unwrap().len(), 2, "a read ends before the range");
    assert!(matches!(journal.read_all(Position::new(4), 100), Err(ReadError::Damaged { .. })));
    assert_eq!(journal.read_all(Position::new(5), 3).unwrap(), all[4..7]);
}

#[tokio::test]
async fn a_heads_checkpoint_names_streams_that_nothing_points_back_to() {
    let (disk, all) = five_batches().await;
    open_with(&disk, large()).unwrap().0.close().await;
    assert!(disk.snapshot().contains_key(&heads(10)));
    let edges = batches(&disk, &segment(1));
    disk.change(&segment(1), |bytes| bytes[edges[2] + 60] ^= 1);
    let (journal, recovery) = open_lenient(&disk).unwrap();
    assert_eq!(assert_honest(&journal, &recovery, &all).await, BTreeSet::from([stream(3)]));
    assert_eq!(journal.head(stream(3)).version.get(), 2, "the checkpoint knows how far it went");
}

#[tokio::test]
async fn damage_to_a_critical_stream_refuses_unless_the_loss_is_accepted() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, large()).unwrap();
    for number in [9, 1, 9] {
        put(&journal, stream(number), [event(number)]).await;
    }
    drop(journal);
    let edges = batches(&disk, &segment(1));
    disk.change(&segment(1), |bytes| bytes[edges[0] + 60] ^= 1);
    let before = disk.snapshot();
    let Err(OpenError::Damaged(damage)) = open_lenient(&disk) else { panic!("it is critical") };
    assert_eq!(damage.streams, [stream(9)]);
    assert!(damage.detail.contains("nothing goes on without"), "{damage}");
    assert_eq!(disk.snapshot(), before, "a refusal changes nothing");
    let accepting = JournalConfig { accept_loss: true, ..lenient(large()) };
    let (journal, recovery) = open_with(&disk, accepting).unwrap();
    assert_eq!((recovery.quarantined, recovery.nameless), (vec![stream(9)], 0));
    put(&journal, stream(1), [event(7)]).await;
    drop(journal);
    let (_, recovery) = open_lenient(&disk).expect("accepting is done once");
    assert_eq!(recovery.quarantined, [stream(9)]);
}

#[tokio::test]
async fn damage_that_only_a_reading_meets_is_looked_at_by_the_next_opening() {
    let disk = Disk::default();
    let config = || lenient(small());
    let (journal, _) = open_with(&disk, config()).unwrap();
    for number in 0..12 {
        put(&journal, stream(number % 3), [sized_event(number, 900)]).await;
    }
    journal.close().await;
    disk.change(&segment(1), |bytes| bytes[128 + 40 + 100] ^= 1);
    let (journal, recovery) = open_with(&disk, config()).unwrap();
    assert!(recovery.damaged.is_empty(), "sealed segments before the checkpoint are not read");
    assert!(matches!(journal.read_all(Position::new(1), 5), Err(ReadError::Damaged { last: None, .. })));
    journal.close().await;
    let (journal, recovery) = open_with(&disk, config()).unwrap();
    assert_eq!(recovery.quarantined, [stream(0)]);
    assert_eq!(followed(&journal).await.len(), 12);
    journal.close().await;
    disk.change(&segment(1), |bytes| bytes[128 + 40 + 100] ^= 1);
    let (journal, recovery) = open_with(&disk, config()).unwrap();
    assert!(recovery.quarantined.is_empty(), "a restored segment ends the quarantine");
    assert_eq!(everything(&journal).len(), 12);
    drop(journal);
    assert!(!disk.snapshot().contains_key(Path::new("/journal/damaged")));
}

#[tokio::test]
async fn a_lost_end_of_a_sealed_segment_names_where_it_ended() {
    let disk = Disk::default();
    let (journal, _) = open_with(&disk, small()).unwrap();
    for number in 0..12 {
        put(&journal, stream(number % 3), [sized_event(number, 900)]).await;
    }
    drop(journal);
    let edges = batches(&disk, &segment(1));
    let at = edges[edges.len() - 2];
    disk.change(&segment(1), |bytes| bytes[at..].fill(0));
    let Err(error) = open_with(&disk, lenient(small())) else { panic!("positions are missing") };
    let text = error.to_string();
    assert!(matches!(error, OpenError::MissingSegment { .. }), "{text}");
    assert!(text.contains(&format!("00000000000000000001.seg and ends at offset {at}")), "{text}");
    let accepting = JournalConfig { accept_loss: true, ..lenient(small()) };
    let (journal, recovery) = open_with(&disk, accepting).unwrap();
    assert_eq!(recovery.quarantined.len(), recovery.damaged.iter().map(|it| it.streams.len()).sum::<usize>());
    assert_eq!(followed(&journal).await.iter().filter(|item| item.is_err()).count(), 1);
}

#[tokio::test]
async fn the_offline_reader_and_verification_see_the_same_damage() {
    let (disk, all) = five_batches().await;
    let edges = batches(&disk, &segment(1));
    disk.change(&segment(1), |bytes| {
        bytes[edges[0] + 60] ^= 1;
        bytes[edges[1] + 60] ^= 1;
    });
    let report = verify_on(&disk, Path::new("/journal")).unwrap();
    assert_eq!(report.damaged.len(), 2, "{report:?}");
    assert_eq!((report.damage.as_ref(), report.durable.get()), (report.damaged.first(), 10));
    let open = |policy| {
        JournalReader::open_on(Arc::new(disk.clone()) as Arc<dyn Files>, Path::new("/journal"), policy)
    };
    assert!(matches!(open(Policy::STRICT), Err(OpenError::Damaged(_))));
    let reader = open(Policy { critical: |_| false, ..Policy::STRICT }).unwrap();
    assert_eq!(reader.quarantined().len(), 2);
    assert_eq!(reader.read_all(Position::new(5), 100).unwrap(), all[4..]);
    drop(open_lenient(&disk).unwrap());
    assert!(open(Policy::STRICT).is_ok(), "a journal that was served with its damage can be replayed");
}

/// Draws that are the same for the same seed.
fn draw(seed: u64, below: usize) -> usize {
    let mut word = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^= word >> 29;
    word = word.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((word ^ (word >> 32)) % below as u64) as usize
}

#[tokio::test]
async fn many_damages_at_once_are_each_named_and_no_stream_is_served_with_a_hole() {
    let whole = Disk::default();
    let config = || JournalConfig { critical: |_| false, ..lenient(small()) };
    let (journal, _) = open_with(&whole, config()).unwrap();
    for number in 0..60u64 {
        let events = (0..=number % 3).map(|it| sized_event(number + it, 60 + (number as usize * 53) % 300));
        put(&journal, stream(number % 7), events).await;
    }
    let all = everything(&journal);
    journal.close().await;
    let paths: Vec<_> =
        whole.snapshot().into_keys().filter(|path| path.to_string_lossy().ends_with(".seg")).collect();
    assert!(paths.len() > 4);
    let (mut served, mut refused) = (0, 0);
    for seed in 0..120u64 {
        let disk = whole.copy();
        // An earlier reading has met damage: everything is looked at.
        disk.create(Path::new("/journal/damaged")).unwrap();
        if seed % 3 == 0 {
            disk.change(&heads(all.len() as u64), Vec::clear);
        }
        for damage in 0..=seed % 4 {
            let path = &paths[draw(seed * 31 + damage, paths.len())];
            let end = whole.snapshot()[path].iter().rposition(|byte| *byte != 0).unwrap();
            let at = 128 + draw(seed * 77 + damage, end - 128);
            let length = [1, 40, 600][draw(seed * 13 + damage, 3)];
            disk.change(path, |bytes| {
                let to = (at + length).min(end);
                bytes[at..to].iter_mut().for_each(|byte| *byte ^= 0x5a);
            });
        }
        match open_with(&disk, config()) {
            Ok((journal, recovery)) => {
                assert_honest(&journal, &recovery, &all).await;
                assert_eq!(recovery.nameless, 0, "seed {seed}");
                served += 1;
            }
            Err(OpenError::Damaged(_) | OpenError::MissingSegment { .. }) => refused += 1,
            Err(other) => panic!("seed {seed}: {other}"),
        }
        let accepting = JournalConfig { accept_loss: true, ..config() };
        let Ok((journal, recovery)) = open_with(&disk, accepting) else { continue };
        let is_gone = |it: &&Record| {
            recovery.damaged.iter().any(|gap| (gap.first..=gap.last.unwrap()).contains(&it.position))
        };
        let tail = recovery.durable.get() as usize;
        let hit: BTreeSet<StreamId> = all.iter().filter(is_gone).map(|record| record.stream).collect();
        let named: BTreeSet<StreamId> = recovery.quarantined.iter().copied().collect();
        assert!(named.is_subset(&hit), "seed {seed}: nobody is quarantined for nothing");
        assert!(named == hit || recovery.nameless > 0, "seed {seed}: whoever is not named is counted");
        for item in followed(&journal).await.into_iter().flatten() {
            assert_eq!(item, all[item.position.get() as usize - 1], "seed {seed}");
        }
        assert!(tail <= all.len());
    }
    eprintln!("{served} served, {refused} refused");
    assert!(served > 30 && refused > 10, "{served} served, {refused} refused");
}

#[tokio::test]
async fn a_checkpoint_written_without_lost_records_is_gone_once_they_are_back() {
    let (disk, all) = five_batches().await;
    let whole = disk.snapshot()[&segment(1)].clone();
    let edges = batches(&disk, &segment(1));
    disk.change(&segment(1), |bytes| bytes[edges[2] + 40..edges[3]].fill(0xee));
    let (journal, recovery) = open_with(&disk, JournalConfig { accept_loss: true, ..large() }).unwrap();
    assert_eq!(recovery.nameless, 2, "nothing else names stream 3");
    // Its checkpoint fits the journal's chain, and does not know the stream.
    journal.close().await;
    drop(journal);
    disk.change(&segment(1), |bytes| *bytes = whole);
    for opening in 1..=3 {
        let (journal, recovery) = open_with(&disk, large()).unwrap();
        assert!(recovery.damaged.is_empty(), "opening {opening}");
        assert_eq!(history(&journal, stream(3)), all[4..6], "opening {opening}: a silent gap");
    }
}
