//! Retention through the real actors: what a crash at each of its steps leaves, and what comes too late.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

mod fleet;

use actors::instance::Ask;
use actors::timers::{Census, TimerName};
use actors::{Archive, Limits, TimerPeriods};
use eventlog::{Log as _, LogFuture, Position, SimLog};
use fleet::{Fleet, context};
use journal::{Event, StreamName};
use lifecycle::{
    ArchiveFile, Instance, InstanceEvent, InstanceId, Retention, RunState, Span, Timestamp, evolve,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An archive in memory, and the folds of the log.
struct Memory {
    log: Arc<SimLog>,
    files: Mutex<BTreeMap<InstanceId, ArchiveFile>>,
    /// How many more attempts to write a file fail.
    failures: AtomicU64,
}

impl Memory {
    fn over(log: &Arc<SimLog>) -> Arc<Self> {
        let (files, failures) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { log: Arc::clone(log), files, failures })
    }

    fn folds(&self) -> BTreeMap<InstanceId, Instance> {
        let mut folds: BTreeMap<InstanceId, Option<Instance>> = BTreeMap::new();
        for record in self.log.read_all(Position::new(1), 1_000_000).unwrap() {
            let recorded = journal::read(&record).unwrap();
            if let (StreamName::Instance(id), Event::Instance(event)) = (recorded.stream, &recorded.event) {
                evolve(folds.entry(id).or_default(), event, recorded.meta);
            }
        }
        folds.into_iter().filter_map(|(id, fold)| Some((id, fold?))).collect()
    }
}

impl Census for Memory {
    fn find(&self, wanted: &dyn Fn(&Instance) -> bool) -> Vec<InstanceId> {
        self.folds().into_values().filter(|state| wanted(state)).map(|state| state.id).collect()
    }
}

impl Archive for Memory {
    fn due(&self, until: Timestamp, limit: usize) -> Vec<InstanceId> {
        let is_due = |state: &Instance| {
            state.is_over() && state.archived.is_none() && state.deleted.is_some_and(|at| at <= until)
        };
        self.find(&is_due).into_iter().take(limit).collect()
    }

    fn keep(&self, instance: InstanceId) -> LogFuture<Result<ArchiveFile, String>> {
        let fails = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if fails.is_ok() {
            return Box::pin(std::future::ready(Err("no space".to_owned())));
        }
        let head = self.log.head(StreamName::Instance(instance).id());
        let (events, last) = (head.version.get(), head.position.get());
        let file = StreamName::Instance(instance).archive_file();
        let kept = ArchiveFile { file, bytes: 1, checksum: 2, events, first: 1, last };
        self.files.lock().unwrap().insert(instance, kept.clone());
        Box::pin(std::future::ready(Ok(kept)))
    }

    fn trim(&self) -> LogFuture<Result<u64, String>> {
        Box::pin(std::future::ready(Ok(0)))
    }
}

const DAY: u64 = 86_400;

async fn fleet() -> Fleet {
    let retention = Some(Retention { keep: Span::from_secs(DAY), batch: 2 });
    let timers = TimerPeriods { retention: Duration::from_mins(1), ..TimerPeriods::default() };
    let mut fleet = Fleet::without_sleds(Limits { retention, timers, ..Limits::default() }).await;
    fleet.add_sled(0);
    fleet.until_sleds_are_up(1).await;
    fleet
}

async fn deleted(fleet: &Fleet, name: &str) -> InstanceId {
    let id = fleet.create(name, true).await;
    fleet.until_state(id, RunState::Running).await;
    fleet.control.ask(id, Ask::Stop, context()).await.unwrap();
    fleet.until_state(id, RunState::Stopped).await;
    fleet.control.ask(id, Ask::Delete, context()).await.unwrap();
    id
}

fn archived(fleet: &Fleet) -> Vec<InstanceId> {
    let is_it = |event: &Event| matches!(event, Event::Instance(InstanceEvent::Archived(_)));
    let recorded = fleet.events().into_iter().filter(|recorded| is_it(&recorded.event));
    let id = |stream| match stream {
        StreamName::Instance(id) => id,
        other => panic!("{other} was archived"),
    };
    recorded.map(|recorded| id(recorded.stream)).collect()
}

fn status(fleet: &Fleet) -> actors::TimerStatus {
    fleet.control.timers().into_iter().find(|timer| timer.name == TimerName::Retention).unwrap()
}

/// One run, to its end.
async fn run(fleet: &Fleet) {
    let before = status(fleet).runs;
    fleet.control.activate_timer(TimerName::Retention);
    fleet.until("it ran", async || status(fleet).runs > before).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_long_ago_is_archived_once_and_a_few_at_a_time() {
    let fleet = fleet().await;
    let memory = Memory::over(&fleet.log);
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(deleted(&fleet, &format!("web-{n}")).await);
    }
    let kept = fleet.create("kept", true).await;
    fleet.until_state(kept, RunState::Running).await;
    fleet.control.archive_into(Arc::clone(&memory) as Arc<dyn Archive>);
    fleet.control.start_timers(Arc::clone(&memory) as Arc<dyn Census>);
    run(&fleet).await;
    assert_eq!(archived(&fleet), [], "it was deleted just now");
    tokio::time::advance(Duration::from_secs(DAY)).await;
    fleet.until("all are archived", async || archived(&fleet).len() == 3).await;
    assert!(status(&fleet).found >= 3, "{:?}", status(&fleet));
    let events = fleet.log.durable();
    run(&fleet).await;
    assert_eq!((status(&fleet).last_found, fleet.log.durable()), (0, events), "nothing is left to do");
    let mut found = archived(&fleet);
    found.sort_unstable();
    assert_eq!(found, ids);
    assert_eq!(fleet.state(kept).await.run_state(), RunState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_file_without_its_event_is_taken_by_the_next_run_and_one_that_fails_is_named() {
    let fleet = fleet().await;
    let memory = Memory::over(&fleet.log);
    let first = deleted(&fleet, "first").await;
    let second = deleted(&fleet, "second").await;
    // A crash came after the file and before the event.
    let left = memory.keep(first).await.unwrap();
    memory.failures.store(1, Ordering::Relaxed);
    tokio::time::advance(Duration::from_secs(DAY)).await;
    fleet.control.archive_into(Arc::clone(&memory) as Arc<dyn Archive>);
    fleet.control.start_timers(Arc::clone(&memory) as Arc<dyn Census>);
    run(&fleet).await;
    let trouble = status(&fleet).last_trouble.unwrap();
    assert!(trouble.contains("no space"), "{trouble}");
    fleet
        .until("both are archived", async || {
            fleet.control.activate_timer(TimerName::Retention);
            archived(&fleet).len() == 2
        })
        .await;
    assert_eq!(memory.folds()[&first].archived, Some(left));
    assert!(memory.folds()[&second].archived.is_some());
    run(&fleet).await;
    assert_eq!(status(&fleet).last_trouble, None);
    assert_eq!(fleet.control.quarantined(), []);
}
