//! One incarnation of the control plane: its journal, and how it dies.
//!
//! A death shuts every way out for ever: the journal is dropped without a clean stop mark, calls to sleds and
//! to the log never answer, reports are not taken. What is left of its actors waits and can do nothing.
//!
//! Invariant: while an append is in flight the paused clock stands still, because the runtime's thread waits
//! for the disk; other tasks had their turn before.

use super::plan::{Fate, Plan, Unanswered};
use eventlog::{
    Append, AppendOutcome, Claim, Epoch, Follower, Head, Journal, Log, LogFuture, LogStats, Position,
    ReadError, Record, StoreLock, StreamId, Unavailable, Version,
};
use futures::executor::block_on;
use futures::{FutureExt, StreamExt, stream};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Turns that other tasks have while an append is on its way to the disk.
const TURNS_IN_FLIGHT: usize = 3;

/// The one who holds the journal.
pub(super) struct Life {
    held: Mutex<Option<Held>>,
    is_dead: watch::Sender<bool>,
    pub(super) plan: Arc<Plan>,
}

struct Held {
    journal: Arc<Journal>,
    _lock: StoreLock,
}

impl Life {
    pub(super) fn new(journal: Journal, lock: StoreLock, plan: Arc<Plan>) -> Self {
        let held = Held { journal: Arc::new(journal), _lock: lock };
        Self { held: Mutex::new(Some(held)), is_dead: watch::Sender::new(false), plan }
    }

    pub(super) fn is_dead(&self) -> bool {
        *self.is_dead.borrow()
    }

    /// From here on nothing leaves and nothing comes in.
    pub(super) fn die(&self) {
        self.is_dead.send_replace(true);
    }

    /// Resolves once it is dead.
    pub(super) async fn died(&self) {
        let mut is_dead = self.is_dead.subscribe();
        // The sender lives as long as `self`.
        let _ = is_dead.wait_for(|is_dead| *is_dead).await;
    }

    /// Gives the directory back: what was durable is there, and nothing else.
    pub(super) fn bury(&self) {
        self.die();
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Held { journal, _lock }) = held {
            let journal = Arc::into_inner(journal).expect("nobody appends between two turns of the runtime");
            drop(journal);
        }
    }

    /// The journal, while it lives.
    pub(super) fn journal(&self) -> Option<Arc<Journal>> {
        if self.is_dead() {
            return None;
        }
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(|held| Arc::clone(&held.journal))
    }

    /// The journal for whoever looks at it from outside, also between a death and a burial.
    pub(super) fn remains(&self) -> Option<Arc<Journal>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(|held| Arc::clone(&held.journal))
    }

    /// `answer`, unless it died in the meantime: then for ever nothing.
    pub(super) async fn unless_dead<T>(&self, answer: T) -> T {
        if self.is_dead() {
            return futures::future::pending().await;
        }
        answer
    }

    /// It dies here.
    pub(super) async fn end<T>(&self) -> T {
        self.die();
        futures::future::pending().await
    }
}

/// The log as one incarnation sees it.
pub(super) struct MortalLog(pub(super) Arc<Life>);

impl MortalLog {
    fn look<T>(&self, look: impl FnOnce(&Journal) -> T, otherwise: impl FnOnce() -> T) -> T {
        match self.0.journal() {
            Some(journal) => look(&journal),
            None => otherwise(),
        }
    }
}

impl Log for MortalLog {
    fn claim(&self, stream: StreamId) -> LogFuture<Result<Claim, Unavailable>> {
        let life = Arc::clone(&self.0);
        async move {
            tokio::task::yield_now().await;
            let Some(journal) = life.journal() else {
                return futures::future::pending().await;
            };
            block_on(journal.claim(stream))
        }
        .boxed()
    }

    fn append(&self, append: Append) -> LogFuture<AppendOutcome> {
        let life = Arc::clone(&self.0);
        async move {
            for _ in 0..TURNS_IN_FLIGHT {
                tokio::task::yield_now().await;
            }
            life.unless_dead(()).await;
            let fate = life.plan.append();
            if fate == Fate::DieBefore {
                return life.end().await;
            }
            let Some(journal) = life.journal() else {
                return futures::future::pending().await;
            };
            match life.plan.takes_unanswered() {
                Some(Unanswered::NotWritten) => return AppendOutcome::Unknown,
                Some(Unanswered::Written) => {
                    block_on(journal.append(append));
                    return AppendOutcome::Unknown;
                }
                None => {}
            }
            let outcome = block_on(journal.append(append));
            drop(journal);
            if fate == Fate::DieAfter {
                return life.end().await;
            }
            outcome
        }
        .boxed()
    }

    fn head(&self, stream: StreamId) -> Head {
        self.look(|journal| journal.head(stream), Head::default)
    }

    fn epoch(&self, stream: StreamId) -> Epoch {
        self.look(|journal| journal.epoch(stream), || Epoch::ZERO)
    }

    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.look(|journal| journal.read_stream(stream, from, limit), || Err(ReadError::Closed))
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.look(|journal| journal.read_all(from, limit), || Err(ReadError::Closed))
    }

    fn follow(&self, from: Position) -> Follower {
        let life = Arc::clone(&self.0);
        let followed = self.look(|journal| journal.follow(from), || stream::pending().boxed());
        let plan = Arc::clone(&self.0.plan);
        let followed = followed.filter(move |_| futures::future::ready(!plan.takes_record_skipped()));
        let until_death = followed.take_until(async move { life.died().await }.boxed());
        until_death.chain(stream::pending()).boxed()
    }

    fn durable(&self) -> Position {
        self.look(Log::durable, || Position::ZERO)
    }

    fn wait_durable(&self, position: Position) -> LogFuture<Result<(), Unavailable>> {
        self.look(
            |journal| journal.wait_durable(position),
            || futures::future::ready(Err(Unavailable::Closed)).boxed(),
        )
    }

    fn stats(&self) -> LogStats {
        self.look(Log::stats, LogStats::default)
    }

    fn refusal(&self) -> Option<Unavailable> {
        self.look(Log::refusal, || Some(Unavailable::Closed))
    }

    fn quarantined(&self) -> Vec<(StreamId, String)> {
        self.look(Log::quarantined, Vec::new)
    }

    fn close(&self) -> LogFuture<()> {
        self.look(Log::close, || futures::future::ready(()).boxed())
    }
}
