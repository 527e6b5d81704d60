//! The projector keeps up with the log, whatever state the cache is in.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

mod fleet;

use bytes::Bytes;
use eventlog::{Cache, Log, MemCache, Position};
use fleet::{Fleet, Move, name, project_id};
use futures::FutureExt;
use lifecycle::{InstanceEvent, VmmId};
use projections::projector::CHECKPOINT_RECORDS;
use projections::{Projections, ReadModel, Stage, spawn, spawn_from};
use std::sync::Arc;

/// Its name in the cache is part of what an older build left there.
const NAME: &str = "read-model";

fn folded(fleet: &Fleet) -> ReadModel {
    let mut model = ReadModel::default();
    for record in fleet.records() {
        model.apply_record(&record).unwrap();
    }
    model
}

fn of(projections: &Projections) -> ReadModel {
    projections.read(Clone::clone)
}

fn log(fleet: &Fleet) -> Arc<dyn Log> {
    Arc::new(fleet.log.clone())
}

fn busy() -> Fleet {
    let mut fleet = Fleet::founded();
    for n in 0..6 {
        let id = fleet.create(n % 2, &name(n), n.checked_sub(3));
        fleet.report(id, 1, lifecycle::VmmState::Starting);
    }
    fleet.act(&Move::Delete(0));
    fleet
}

/// Runs a projector over the fleet's log until the log is closed, and answers what it read.
async fn run_until_closed(fleet: &Fleet, cache: &Arc<MemCache>) -> ReadModel {
    let (projections, task) = spawn(log(fleet), Some(Arc::clone(cache) as Arc<dyn Cache>));
    projections.caught_up().await.unwrap();
    fleet.log.close().await;
    task.await.unwrap();
    of(&projections)
}

/// The same history in a log that is open.
fn reopened(fleet: Fleet) -> Fleet {
    let store = fleet.log.with_store(|store| store.clone());
    let mut fleet = fleet;
    let (store, _) =
        eventlog::SimLog::over(store, eventlog::SyncMode::Immediate).crash(eventlog::Survival::All);
    fleet.log = eventlog::SimLog::over(store, eventlog::SyncMode::Immediate);
    fleet
}

#[tokio::test]
async fn it_follows_the_log_as_it_grows() {
    let mut fleet = Fleet::founded();
    let (projections, _task) = spawn(log(&fleet), None);
    projections.caught_up().await.unwrap();
    assert_eq!(of(&projections), folded(&fleet));
    for n in 0..5 {
        let id = fleet.create(0, &name(n), Some(n % 3));
        let durable = fleet.log.durable();
        projections.wait_for(durable).await.unwrap();
        assert!(projections.position() >= durable);
        assert_eq!(projections.read(|model| model.instance_by_name(project_id(0), &name(n))), Some(id));
    }
    assert_eq!(of(&projections), folded(&fleet));
    let health = projections.health();
    assert_eq!((health.stage, health.quarantined, health.cache_trouble), (Stage::Following, vec![], None));
}

#[tokio::test]
async fn a_wait_for_a_later_position_waits_and_ends_when_the_log_closes() {
    let fleet = Fleet::founded();
    let (projections, task) = spawn(log(&fleet), None);
    projections.caught_up().await.unwrap();
    let mut wait = projections.wait_for(fleet.log.durable().next());
    assert_eq!((&mut wait).now_or_never(), None);
    fleet.log.close().await;
    let stopped = wait.await.unwrap_err();
    assert_eq!((stopped.position, stopped.why.as_str()), (fleet.log.durable(), "the log is closed"));
    assert_eq!(projections.wait_for(fleet.log.durable()).await, Ok(()), "what was reached stays reached");
    task.await.unwrap();
    assert_eq!(of(&projections), folded(&fleet), "it can still be read");
}

#[tokio::test]
async fn a_wait_ends_when_the_task_is_gone() {
    let fleet = Fleet::founded();
    let (projections, task) = spawn(log(&fleet), None);
    let wait = projections.wait_for(Position::new(1_000));
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(wait.await.unwrap_err().why, "its task ended");
    assert_eq!(projections.health().stage, Stage::Stopped("its task ended".to_owned()));
}

#[tokio::test]
async fn a_restart_goes_on_from_the_checkpoint() {
    let cache = Arc::new(MemCache::new());
    let fleet = busy();
    let before = run_until_closed(&fleet, &cache).await;
    assert_eq!(before, folded(&fleet));
    assert_eq!(cache.checkpoint(NAME), Ok(fleet.log.durable()));
    let mut fleet = reopened(fleet);
    // Nothing is running yet, and the rows are there: they come from the cache.
    let (projections, task) = spawn(log(&fleet), Some(Arc::clone(&cache) as Arc<dyn Cache>));
    assert_eq!(of(&projections), before);
    assert_eq!(projections.health().stage, Stage::Following);
    fleet.create(1, "later", Some(2));
    projections.wait_for(fleet.log.durable()).await.unwrap();
    assert_eq!(of(&projections), folded(&fleet));
    task.abort();
}

#[tokio::test]
async fn a_cache_that_is_lost_older_wrong_or_of_another_log_gives_an_equal_model() {
    type Harm = fn(&MemCache);
    let cases: [(&str, Harm); 7] = [
        ("lost", |cache| cache.clear(NAME).unwrap()),
        ("distrusted", |cache| cache.distrust("test")),
        ("of another version", |cache| harm_row(cache, &[0], &[9, 9, 1, 1])),
        ("unreadable", |cache| harm_row(cache, &[1; 17], &[1, 2, 3])),
        ("with a row too many", |cache| harm_row(cache, &[4; 17], &[0x10; 32])),
        ("with a row too few", |cache| {
            let (key, _) = cache.rows(NAME).unwrap().last().unwrap().unwrap();
            cache.apply(NAME, cache.checkpoint(NAME).unwrap(), &[], &[key]).unwrap();
        }),
        ("ahead of the log", |cache| {
            cache.apply(NAME, Position::new(1_000_000), &[], &[]).unwrap();
        }),
    ];
    for (case, harm) in cases {
        let cache = Arc::new(MemCache::new());
        let fleet = busy();
        run_until_closed(&fleet, &cache).await;
        harm(&cache);
        let fleet = reopened(fleet);
        let again = run_until_closed(&fleet, &cache).await;
        assert_eq!(again, folded(&fleet), "{case}");
        // And the cache is whole again.
        assert_eq!(cache.checkpoint(NAME), Ok(fleet.log.durable()), "{case}");
        let fleet = reopened(fleet);
        let (projections, task) = spawn(log(&fleet), Some(cache as Arc<dyn Cache>));
        assert_eq!(of(&projections), folded(&fleet), "{case}");
        task.abort();
    }
}

fn harm_row(cache: &MemCache, key: &'static [u8], value: &'static [u8]) {
    let checkpoint = cache.checkpoint(NAME).unwrap();
    let row = (Bytes::from_static(key), Bytes::from_static(value));
    cache.apply(NAME, checkpoint, &[row], &[]).unwrap();
}

#[tokio::test]
async fn a_checkpoint_is_written_on_the_way() {
    let mut fleet = Fleet::founded();
    let cache = Arc::new(MemCache::new());
    let (projections, task) = spawn(log(&fleet), Some(Arc::clone(&cache) as Arc<dyn Cache>));
    while fleet.log.durable().get() < CHECKPOINT_RECORDS + 10 {
        fleet.act(&Move::Daemon);
        tokio::task::yield_now().await;
    }
    projections.wait_for(fleet.log.durable()).await.unwrap();
    // Announced first, written after.
    while cache.checkpoint(NAME) == Ok(Position::ZERO) {
        tokio::task::yield_now().await;
    }
    assert!(cache.checkpoint(NAME).unwrap().get() >= CHECKPOINT_RECORDS);
    task.abort();
}

#[tokio::test]
async fn a_quarantined_stream_is_reported_also_after_a_restart() {
    let mut fleet = Fleet::founded();
    let id = fleet.create(0, "bad", None);
    let stream = journal::StreamName::Instance(id);
    let reaped = InstanceEvent::VmmReaped { vmm: VmmId::new(fleet.mint()) };
    fleet.append(stream, vec![reaped.into()]);
    let cache = Arc::new(MemCache::new());
    run_until_closed(&fleet, &cache).await;
    let fleet = reopened(fleet);
    let (projections, task) = spawn(log(&fleet), Some(cache as Arc<dyn Cache>));
    let health = projections.health();
    assert_eq!(health.stage, Stage::Following);
    assert_eq!(health.quarantined.len(), 1);
    assert_eq!(health.quarantined[0].0, stream.id());
    task.abort();
}

#[tokio::test]
async fn a_log_that_fails_stops_it_with_the_reason() {
    let mut fleet = Fleet::founded();
    let (projections, task) = spawn(log(&fleet), None);
    projections.caught_up().await.unwrap();
    fleet.log.with_store(|store| store.fail_next_sync("injected"));
    let unwritten = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fleet.act(&Move::Daemon)));
    assert!(unwritten.is_err(), "the append is not acknowledged");
    task.await.unwrap();
    let Stage::Stopped(why) = projections.health().stage else {
        panic!("it must say that it stopped");
    };
    assert!(why.contains("poisoned"), "{why}");
    assert_eq!(of(&projections), folded(&fleet));
}

#[tokio::test]
async fn a_model_that_is_known_goes_on_beside_a_cache_whether_that_is_ahead_behind_or_empty() {
    for cached in [None, Some(false), Some(true)] {
        let mut fleet = busy();
        let cache = Arc::new(MemCache::new());
        if cached == Some(false) {
            run_until_closed(&fleet, &cache).await;
            fleet = reopened(fleet);
        }
        fleet.create(0, "between", Some(1));
        let known = folded(&fleet);
        fleet.create(1, "later", Some(2));
        fleet.act(&Move::Delete(1));
        if cached == Some(true) {
            run_until_closed(&fleet, &cache).await;
            fleet = reopened(fleet);
        }
        let start = Some(Arc::clone(&cache) as Arc<dyn Cache>);
        let (projections, task) = spawn_from(log(&fleet), start, known);
        projections.caught_up().await.unwrap();
        assert_eq!(of(&projections), folded(&fleet), "{cached:?}");
        fleet.create(0, "last", Some(0));
        projections.wait_for(fleet.log.durable()).await.unwrap();
        fleet.log.close().await;
        task.await.unwrap();
        // What it left in the cache is whole: a start from nothing else says the same.
        assert_eq!(cache.checkpoint(NAME).unwrap(), fleet.log.durable());
        let fleet = reopened(fleet);
        let (projections, _task) = spawn(log(&fleet), Some(Arc::clone(&cache) as Arc<dyn Cache>));
        assert_eq!(projections.position(), fleet.log.durable(), "nothing had to be folded");
        assert_eq!(of(&projections), folded(&fleet), "{cached:?}");
    }
}
