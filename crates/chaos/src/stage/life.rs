//! One life of the control plane: its log, and how it dies.
//!
//! A death takes what is not synced, as the scenario says, and shuts every way out for ever: calls to the log
//! and to sleds never answer, reports are not taken.

use super::panics;
use super::state::{Stage, entity_of};
use crate::bug::Bug;
use crate::coverage::Sometimes;
use crate::faults::{Entity, Fault, LoseUnsynced, Window};
use crate::world::labels_of;
use actors::{ControlPlane, Fatal};
use eventlog::{
    Append, AppendOutcome, Claim, Epoch, Follower, Head, Log, LogFuture, LogStats, Position, ReadError,
    Record, SimLog, SimStore, StreamId, Survival, SyncMode, Unavailable, Version,
};
use futures::{FutureExt, StreamExt, stream};
use journal::StreamName;
use lifecycle::instance::PauseCause;
use lifecycle::{Command, Input, InstanceEvent, InstanceId, RequestId, SledEvent};
use projections::Projections;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use tokio::time::sleep;
use uuid::Uuid;

/// See the module's head.
pub(super) struct Life {
    pub(super) nth: u32,
    stage: Weak<Stage>,
    log: SimLog,
    is_dead: level::Sender<bool>,
    is_syncing: AtomicBool,
    remains: Mutex<Option<SimStore>>,
    /// Crashes that wait for the next call of an instance's effect.
    traps: Mutex<BTreeMap<InstanceId, (Window, LoseUnsynced)>>,
    pub(super) fatal: Fatal,
    up: OnceLock<Up>,
}

/// What serves, once it has started.
pub(super) struct Up {
    pub(super) control: ControlPlane,
    pub(super) projections: Projections,
}

impl Life {
    pub(super) fn new(stage: &Arc<Stage>, nth: u32, store: SimStore) -> Self {
        Self {
            nth,
            stage: Arc::downgrade(stage),
            log: SimLog::over(store, SyncMode::Manual),
            is_dead: level::Sender::new(false),
            is_syncing: AtomicBool::new(false),
            remains: Mutex::new(None),
            traps: Mutex::new(BTreeMap::new()),
            fatal: Fatal::default(),
            up: OnceLock::new(),
        }
    }

    fn stage(&self) -> Arc<Stage> {
        self.stage.upgrade().expect("the stage outlives the runtime's tasks")
    }

    /// It serves from here on.
    pub(super) fn serve(&self, control: ControlPlane, projections: Projections) {
        let is_first = self.up.set(Up { control, projections }).is_ok();
        assert!(is_first, "a life begins once");
    }

    /// What serves; none before the start is over, and none after the end.
    pub(super) fn up(&self) -> Option<&Up> {
        self.up.get().filter(|_| !self.is_dead())
    }

    pub(super) fn is_dead(&self) -> bool {
        *self.is_dead.borrow()
    }

    /// Resolves once it is dead.
    pub(super) async fn died(&self) {
        let mut is_dead = self.is_dead.subscribe();
        // The sender lives as long as `self`.
        drop(is_dead.wait_for(|is_dead| *is_dead).await);
    }

    /// It dies here: nothing leaves any more, and of what is not synced so much survives.
    pub(super) fn die(&self, lose: LoseUnsynced) {
        if self.is_dead.send_replace(true) {
            return;
        }
        let stage = self.stage();
        let before = self.log.durable();
        let (store, report) = self.log.crash(match lose {
            LoseUnsynced::All => Survival::None,
            LoseUnsynced::None => Survival::All,
            LoseUnsynced::AfterPrefix(kept) => Survival::Prefix(usize::from(kept)),
            LoseUnsynced::Torn(kept) => Survival::Torn(usize::from(kept)),
        });
        let durable = store.durable();
        stage.line("crash", &"", format_args!("p{:04} lost {}", durable.get(), report.lost));
        for (state, is_met) in [
            (Sometimes::UnsyncedTailLost, report.lost > 0),
            (Sometimes::UnacknowledgedSurvived, report.survived > 0),
            (Sometimes::TornTailTrimmed, report.torn.is_some()),
        ] {
            if is_met {
                stage.note(state);
            }
        }
        stage.lock().written.retain(|_, position| *position <= durable.get());
        stage.check(|checks, now| {
            checks.crashed(durable);
            checks.durable(now, &store.records()[before.get() as usize..]);
            checks.log_after_crash(now, &store);
        });
        *self.remains.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
    }

    /// What the next life finds.
    pub(super) fn take_remains(&self) -> SimStore {
        let remains = self.remains.lock().unwrap_or_else(PoisonError::into_inner).take();
        remains.expect("it has died, and has one heir")
    }

    /// The log as it is, or was.
    pub(super) fn store(&self) -> SimStore {
        let remains = self.remains.lock().unwrap_or_else(PoisonError::into_inner).clone();
        remains.unwrap_or_else(|| self.log.with_store(|store| store.clone()))
    }

    pub(super) fn log(&self) -> &SimLog {
        &self.log
    }

    /// `answer`, unless it died in the meantime: then for ever nothing.
    pub(super) async fn unless_dead<T>(&self, answer: T) -> T {
        if self.is_dead() {
            return futures::future::pending().await;
        }
        answer
    }

    /// It dies here, and whoever calls is not answered.
    pub(super) async fn end<T>(&self, lose: LoseUnsynced) -> T {
        self.die(lose);
        futures::future::pending().await
    }

    /// Whether a crash waits for this instance's next effect, before or after it has happened.
    pub(super) fn springs(&self, instance: InstanceId, window: Window) -> Option<LoseUnsynced> {
        let mut traps = self.traps.lock().unwrap_or_else(PoisonError::into_inner);
        match traps.get(&instance) {
            Some((at, lose)) if *at == window => {
                let lose = *lose;
                traps.remove(&instance);
                Some(lose)
            }
            _ => None,
        }
    }

    /// Sees to it that a sync follows.
    fn sync_begins(self: &Arc<Self>) {
        if self.is_syncing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (life, takes) = (Arc::clone(self), self.stage().sync_takes(self.log.durable().get()));
        tokio::spawn(async move {
            sleep(takes).await;
            life.is_syncing.store(false, Ordering::Relaxed);
            if !life.is_dead() {
                life.sync_ends();
            }
        });
    }

    /// What is written is durable, and whoever waited for that goes on; or the sync fails, and the log is
    /// poisoned.
    fn sync_ends(&self) {
        let stage = self.stage();
        if stage.lock().fails_with.is_some() {
            self.log.with_store(|store| store.fail_next_sync("injected"));
            stage.note(Sometimes::Poisoned);
            stage.line("poison", &"", format_args!("a sync fails"));
        }
        let before = self.log.durable();
        if let Ok(durable) = self.log.sync() {
            let records = self.log.with_store(|store| store.records()[before.get() as usize..].to_vec());
            stage.line("sync", &"", format_args!("p{:04}", durable.get()));
            note_events(&stage, &records);
            stage.check(|checks, now| checks.durable(now, &records));
        }
    }

    /// Writes an append, as the checkers shall see it.
    fn write(self: &Arc<Self>, append: Append) -> LogFuture<AppendOutcome> {
        let stage = self.stage();
        let (stream, expected) = (append.stream, append.expected);
        let request = append.context.request.map(|id| RequestId::new(Uuid::from_bytes(id)));
        let (head, end) = self.log.with_store(|store| (store.written_head(stream), store.written()));
        let answer = self.log.append(append);
        let last = self.log.with_store(|store| store.written());
        if last > end {
            let first = end.next();
            if let Some(request) = request {
                stage.lock().written.insert(request, first.get());
            }
            stage.check(|checks, now| {
                checks.appended(now, stream, expected, head.version, (first, last));
                if let Some(request) = request {
                    checks.written_for(request, first.get());
                }
            });
            self.sync_begins();
        }
        answer
    }
}

/// Notes what durable records say that is rare.
fn note_events(stage: &Stage, records: &[Record]) {
    for recorded in records.iter().filter_map(|record| journal::read(record).ok()) {
        if recorded.index.0 == 0
            && let Some(Some(Input::Command(Command::ForceStopOf { .. }))) =
                recorded.context.as_ref().map(|context| &context.input)
        {
            stage.note(Sometimes::ForceStoppedOne);
        }
        if let journal::Event::Instance(event) = &recorded.event {
            note_saga_event(stage, recorded.stream, event);
        }
        let journal::Event::Sled(event) = recorded.event else { continue };
        match event {
            SledEvent::LeaseExpired { .. } => stage.note(Sometimes::LeaseExpired),
            SledEvent::DrainBegan { .. } => stage.note(Sometimes::DrainBegan),
            SledEvent::DrainEnded { done: true } => stage.note(Sometimes::DrainEnded),
            _ => {}
        }
    }
}

fn note_saga_event(stage: &Stage, stream: StreamName, event: &InstanceEvent) {
    let StreamName::Instance(id) = stream else { return };
    let is_held = {
        let state = stage.lock();
        let known = state.checks.log.instances.get(&id).and_then(|known| known.saga.as_ref());
        known.is_some_and(|saga| saga.pause.is_some())
    };
    stage.note(match event {
        InstanceEvent::SagaPaused { cause: PauseCause::Requested, .. } => Sometimes::SagaPaused,
        InstanceEvent::SagaPaused { .. } => Sometimes::PausedByFailures,
        InstanceEvent::SagaResumed { .. } => Sometimes::SagaResumed,
        InstanceEvent::SagaRetried { .. } => Sometimes::SagaRetried,
        InstanceEvent::SagaUnwound { .. } if is_held => Sometimes::PausedUnwound,
        InstanceEvent::SagaEnded { .. } if is_held => Sometimes::PausedEnded,
        InstanceEvent::Archived(_) => Sometimes::Archived,
        _ => return,
    });
}

/// What the events of an append are called, as crashes name them.
fn names_of(append: &Append) -> Vec<&'static str> {
    let count = append.events.len() as u16;
    let events = append.events.iter().enumerate().filter_map(|(nth, event)| {
        let record = Record {
            position: Position::new(1),
            stream: append.stream,
            version: Version::new(1),
            previous: Position::ZERO,
            cause: Position::ZERO,
            kind: event.kind,
            schema: event.schema,
            codec: event.codec,
            time_us: event.time_us,
            index: (nth as u16, count),
            context: None,
            payload: event.payload.clone(),
        };
        journal::read(&record).ok().map(|recorded| recorded.event)
    });
    events.flat_map(|event| labels_of(&event)).collect()
}

/// The log as one life sees it.
pub(super) struct MortalLog(pub(super) Arc<Life>);

/// An append that is about to be made: whose it is, and what it is called.
struct Coming {
    whose: Entity,
    names: Vec<&'static str>,
}

impl Coming {
    fn crash(&self, stage: &Stage, window: Window) -> Option<LoseUnsynced> {
        stage.crash_at(&self.names, self.whose, window)
    }

    /// Whether the actor is to panic here.
    fn panics(&self, stage: &Stage, when_written: bool) -> bool {
        let found = stage.takes(|fault| {
            matches!(fault, Fault::ActorPanic { event, entity, is_written }
                if *entity == self.whose && *is_written == when_written
                    && self.names.contains(&event.as_str()))
        });
        if found.is_some() {
            stage.line("PANIC", &self.whose, format_args!("{}", self.names.join(" ")));
            stage.note(Sometimes::ActorPanicked);
            // What all others need is only reproducible by a start.
            if matches!(self.whose, Entity::Project) {
                stage.lock().is_end_wanted = true;
            }
        }
        found.is_some()
    }

    /// Whether the log is to say that it does not know, and whether it writes.
    fn unknown(&self, stage: &Stage) -> Option<bool> {
        let found = stage.takes(|fault| {
            matches!(fault, Fault::UnknownAppend { event, entity, .. }
                if *entity == self.whose && self.names.contains(&event.as_str()))
        })?;
        let Fault::UnknownAppend { is_written, .. } = found else { return None };
        stage.line("UNKNOWN", &self.whose, format_args!("{}", self.names.join(" ")));
        stage.note(Sometimes::OutcomeUnknown);
        Some(is_written)
    }
}

impl MortalLog {
    async fn appends(life: Arc<Life>, append: Append) -> AppendOutcome {
        let stage = life.stage();
        let coming = Coming { whose: entity_of(append.stream), names: names_of(&append) };
        stage.let_others_go_first("append_turns", u128::from_be_bytes(append.stream.id)).await;
        life.unless_dead(()).await;
        if let Some(lose) = coming.crash(&stage, Window::BeforeAppend) {
            return life.end(lose).await;
        }
        if coming.panics(&stage, false) {
            panics::wanted();
        }
        let unknown = coming.unknown(&stage);
        if unknown == Some(false) {
            return AppendOutcome::Unknown;
        }
        let (whose, called) = (coming.whose, coming.names.join(" "));
        let stream = append.stream;
        let answer = life.write(append);
        if let Some(lose) = coming.crash(&stage, Window::AppendedUnsynced) {
            return life.end(lose).await;
        }
        stage.line("append", &whose, format_args!("{called}"));
        let outcome = if stage.scenario.bug == Some(Bug::AcknowledgeBeforeSync) && stage.lock().is_begun {
            life.log.with_store(|store| unsynced_answer(store, stream))
        } else {
            answer.await
        };
        life.unless_dead(()).await;
        if coming.panics(&stage, true) {
            panics::wanted();
        }
        if unknown.is_some() {
            return AppendOutcome::Unknown;
        }
        if let AppendOutcome::Appended { .. } = outcome {
            if let Some(lose) = coming.crash(&stage, Window::SyncedUnacknowledged) {
                return life.end(lose).await;
            }
            life.set_traps(&stage, &coming, stream);
        } else if let AppendOutcome::Unavailable(Unavailable::NoSpace(_)) = &outcome {
            stage.note(Sometimes::NoSpace);
        }
        outcome
    }
}

/// The planted bug: the answer that an append will have, before it is durable.
fn unsynced_answer(store: &SimStore, stream: StreamId) -> AppendOutcome {
    let head = store.written_head(stream);
    let newest = store.records().iter().rev().find(|record| record.stream == stream);
    newest.map_or(AppendOutcome::Conflict { actual: head.version }, |record| AppendOutcome::Appended {
        first: Position::new(head.position.get() - u64::from(record.index.0)),
        last: head.position,
        version: head.version,
    })
}

impl Life {
    fn set_traps(&self, stage: &Stage, coming: &Coming, stream: StreamId) {
        let Some(journal::StreamName::Instance(id)) = journal::StreamName::parse(stream) else { return };
        for window in [Window::EffectsUnsent, Window::EffectSent] {
            if let Some(lose) = coming.crash(stage, window) {
                self.traps.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (window, lose));
            }
        }
    }
}

impl Log for MortalLog {
    fn claim(&self, stream: StreamId) -> LogFuture<Result<Claim, Unavailable>> {
        let life = Arc::clone(&self.0);
        async move {
            life.stage().let_others_go_first("claim_turns", 0).await;
            life.unless_dead(()).await;
            let claim = life.log.claim(stream).await;
            life.unless_dead(claim).await
        }
        .boxed()
    }

    fn append(&self, append: Append) -> LogFuture<AppendOutcome> {
        Self::appends(Arc::clone(&self.0), append).boxed()
    }

    fn head(&self, stream: StreamId) -> Head {
        self.0.log.head(stream)
    }

    fn epoch(&self, stream: StreamId) -> Epoch {
        self.0.log.epoch(stream)
    }

    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        let records = self.0.log.read_stream(stream, from, limit)?;
        let stage = self.0.stage();
        let whose = entity_of(stream);
        for recorded in records.iter().filter_map(|record| journal::read(record).ok()) {
            if let Some(lose) = stage.crash_at(&labels_of(&recorded.event), whose, Window::DuringReplay) {
                self.0.die(lose);
                return Err(ReadError::Closed);
            }
        }
        Ok(records)
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.0.log.read_all(from, limit)
    }

    fn follow(&self, from: Position) -> Follower {
        let (life, stage) = (Arc::clone(&self.0), self.0.stage());
        let is_deaf = stage.scenario.bug == Some(Bug::LoseFollowed);
        let seed = stage.scenario.seed;
        let followed = self.0.log.follow(from).filter(move |item| {
            let is_lost = is_deaf
                && item.as_ref().is_ok_and(|record| {
                    crate::draws::hash(seed, "deaf", record.position.get().into(), 0)
                        .is_multiple_of(DEAF_ONE_IN)
                });
            futures::future::ready(!is_lost)
        });
        let paced = followed.then(move |item| {
            let stage = Arc::clone(&stage);
            async move {
                stage.let_others_go_first("follow_turns", 0).await;
                item
            }
        });
        let until_death = paced.take_until(async move { life.died().await }.boxed());
        until_death.chain(stream::pending()).boxed()
    }

    fn durable(&self) -> Position {
        self.0.log.durable()
    }

    fn wait_durable(&self, position: Position) -> LogFuture<Result<(), Unavailable>> {
        self.0.log.wait_durable(position)
    }

    fn stats(&self) -> LogStats {
        self.0.log.stats()
    }

    fn refusal(&self) -> Option<Unavailable> {
        self.0.log.refusal()
    }

    fn quarantined(&self) -> Vec<(StreamId, String)> {
        self.0.log.quarantined()
    }

    fn close(&self) -> LogFuture<()> {
        self.0.log.close()
    }
}

/// The planted bug loses one record in so many on the way to whoever follows.
const DEAF_ONE_IN: u64 = 40;
