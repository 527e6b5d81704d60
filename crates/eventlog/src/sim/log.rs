//! `SimLog`: the `Log` trait over a `SimStore`.
//!
//! Invariants:
//! * every answer that rests on an unsynced append waits for the sync that makes it durable, as in the
//!   journal: conflicts and claims included;
//! * answers come in the order of the requests;
//! * a crash answers `Unknown` to whoever still waits for a sync.

use crate::log::{Follower, Log, LogFuture, LogStats, ReadError};
use crate::sim::store::{CrashReport, SimStore, Survival};
use crate::types::{
    Append, AppendOutcome, Claim, Epoch, Head, Position, Record, StreamId, Unavailable, Version,
};
use crate::waiting::{self, Progress};
use futures::FutureExt;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// When a `SimLog` syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Within each append: it is durable when the call returns.
    Immediate,
    /// Only in [`SimLog::sync`]: the test decides.
    Manual,
}

enum Waiting {
    Append(oneshot::Sender<AppendOutcome>, AppendOutcome),
    Claim(oneshot::Sender<Result<Claim, Unavailable>>, Claim),
}

struct State {
    store: SimStore,
    waiting: Vec<Waiting>,
}

struct Shared {
    state: Mutex<State>,
    progress: level::Sender<Progress>,
    mode: SyncMode,
}

/// The simulated log. Clones share one store, like handles of one process.
#[derive(Clone)]
pub struct SimLog {
    shared: Arc<Shared>,
}

impl SimLog {
    /// An empty log that syncs within each append.
    pub fn new() -> Self {
        Self::over(SimStore::new(), SyncMode::Immediate)
    }

    /// A log over a store, such as one that survived [`SimLog::crash`].
    pub fn over(store: SimStore, mode: SyncMode) -> Self {
        let progress = Progress { durable: store.durable(), end: None };
        let state = Mutex::new(State { store, waiting: Vec::new() });
        Self { shared: Arc::new(Shared { state, progress: level::Sender::new(progress), mode }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave the store half changed: its methods assert before they write.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything written durable and answers whoever waits for it.
    pub fn sync(&self) -> Result<Position, Unavailable> {
        self.settle(&mut self.state())
    }

    fn settle(&self, state: &mut State) -> Result<Position, Unavailable> {
        let synced = state.store.sync();
        self.shared.progress.send_modify(|progress| match &synced {
            Ok(position) => progress.durable = *position,
            Err(refusal) => progress.end = Some(refusal.clone()),
        });
        // A dropped receiver gave up waiting; what it asked for stands all the same.
        for waiting in state.waiting.drain(..) {
            match (waiting, &synced) {
                (Waiting::Append(reply, outcome), Ok(_)) => drop(reply.send(outcome)),
                (Waiting::Append(reply, AppendOutcome::Appended { .. }), Err(_)) => {
                    drop(reply.send(AppendOutcome::Unknown));
                }
                (Waiting::Append(reply, _), Err(refusal)) => {
                    drop(reply.send(AppendOutcome::Unavailable(refusal.clone())));
                }
                (Waiting::Claim(reply, claim), Ok(_)) => drop(reply.send(Ok(claim))),
                (Waiting::Claim(reply, _), Err(refusal)) => drop(reply.send(Err(refusal.clone()))),
            }
        }
        synced
    }

    /// Ends the process this log belongs to: whoever waits for a sync is answered `Unknown`, this log is
    /// closed, and the store is handed out as the next process finds it.
    pub fn crash(&self, survival: Survival) -> (SimStore, CrashReport) {
        let mut state = self.state();
        state.waiting.clear();
        let mut store = state.store.clone();
        let report = store.crash(survival);
        self.end(&mut state);
        (store, report)
    }

    fn end(&self, state: &mut State) {
        state.store.refuse(Unavailable::Closed);
        self.shared.progress.send_modify(|progress| progress.end = Some(Unavailable::Closed));
    }

    /// Runs `change` on the store underneath, to inject failures or look at the unsynced half.
    pub fn with_store<T>(&self, change: impl FnOnce(&mut SimStore) -> T) -> T {
        change(&mut self.state().store)
    }
}

impl fmt::Debug for SimLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (durable, unsynced) = self.with_store(|store| (store.durable(), store.unsynced()));
        f.debug_struct("SimLog")
            .field("durable", &durable)
            .field("unsynced", &unsynced)
            .finish_non_exhaustive()
    }
}

impl Default for SimLog {
    fn default() -> Self {
        Self::new()
    }
}

impl Log for SimLog {
    fn claim(&self, stream: StreamId) -> LogFuture<Result<Claim, Unavailable>> {
        let mut state = self.state();
        let claim = match state.store.claim(stream) {
            Ok(claim) => claim,
            Err(refusal) => return futures::future::ready(Err(refusal)).boxed(),
        };
        if state.store.unsynced() == 0 {
            return futures::future::ready(Ok(claim)).boxed();
        }
        let (reply, answer) = oneshot::channel();
        state.waiting.push(Waiting::Claim(reply, claim));
        waiting::claim_answer(answer)
    }

    fn append(&self, append: Append) -> LogFuture<AppendOutcome> {
        let mut state = self.state();
        let outcome = state.store.append(append);
        if state.store.unsynced() == 0 || matches!(outcome, AppendOutcome::Unavailable(_)) {
            return futures::future::ready(outcome).boxed();
        }
        let (reply, answer) = oneshot::channel();
        state.waiting.push(Waiting::Append(reply, outcome));
        if self.shared.mode == SyncMode::Immediate {
            // A failure reaches the caller through its answer.
            drop(self.settle(&mut state));
        }
        waiting::append_answer(answer)
    }

    fn head(&self, stream: StreamId) -> Head {
        self.state().store.head(stream)
    }

    fn epoch(&self, stream: StreamId) -> Epoch {
        self.state().store.epoch(stream)
    }

    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.state().store.read_stream(stream, from, limit)
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        let state = self.state();
        let limit = state.store.readable(from, limit)?;
        Ok(state.store.read_all(from, limit))
    }

    fn follow(&self, from: Position) -> Follower {
        let log = self.clone();
        waiting::follow(from, self.shared.progress.subscribe(), move |from, limit| log.read_all(from, limit))
    }

    fn durable(&self) -> Position {
        self.state().store.durable()
    }

    fn wait_durable(&self, position: Position) -> LogFuture<Result<(), Unavailable>> {
        waiting::wait_durable(position, self.shared.progress.subscribe())
    }

    fn stats(&self) -> LogStats {
        self.state().store.stats()
    }

    fn refusal(&self) -> Option<Unavailable> {
        self.state().store.refusal()
    }

    fn quarantined(&self) -> Vec<(StreamId, String)> {
        self.state().store.quarantined()
    }

    fn close(&self) -> LogFuture<()> {
        let mut state = self.state();
        if !matches!(state.store.refusal(), Some(Unavailable::Poisoned(_) | Unavailable::Closed)) {
            // Whoever waits learns of a failure; closing goes on either way.
            drop(self.settle(&mut state));
            self.end(&mut state);
        }
        futures::future::ready(()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::shape::{append, event, stream};
    use futures::StreamExt;

    fn manual() -> SimLog {
        SimLog::over(SimStore::new(), SyncMode::Manual)
    }

    #[test]
    fn nothing_is_answered_or_visible_before_the_sync() {
        let log = manual();
        let epoch = log.claim(stream(1)).now_or_never().unwrap().unwrap().epoch;
        let mut first = log.append(append(stream(1), epoch, 0, [event(1)]));
        let mut stale = log.append(append(stream(1), epoch, 0, [event(2)]));
        let mut claim = log.claim(stream(1));
        let mut follower = log.follow(Position::new(1));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut stale).now_or_never().is_none(), "the conflict would reveal an append that may vanish");
        assert!((&mut claim).now_or_never().is_none());
        assert!(follower.next().now_or_never().is_none());
        assert_eq!(log.head(stream(1)), Head::default());
        log.sync().unwrap();
        assert!(matches!(first.now_or_never(), Some(AppendOutcome::Appended { .. })));
        assert_eq!(stale.now_or_never(), Some(AppendOutcome::Conflict { actual: Version::new(1) }));
        assert_eq!(claim.now_or_never().unwrap().unwrap().head.version, Version::new(1));
        assert!(follower.next().now_or_never().is_some());
    }

    #[test]
    fn a_follower_names_a_damaged_range_and_goes_on_behind_it() {
        let log = SimLog::new();
        for number in 1..=3u64 {
            let epoch = log.claim(stream(number)).now_or_never().unwrap().unwrap().epoch;
            let events = [event(number), event(number)];
            drop(log.append(append(stream(number), epoch, 0, events)).now_or_never());
        }
        log.with_store(|store| store.damage(Position::new(2), Position::new(3), "a test says so"));
        let mut follower = log.follow(Position::new(1));
        let items: Vec<_> = std::iter::from_fn(|| follower.next().now_or_never().flatten()).collect();
        let told = ReadError::Damaged {
            position: Position::new(2),
            last: Some(Position::new(3)),
            streams: vec![stream(1), stream(2)],
            detail: "a test says so".into(),
        };
        assert_eq!(items[1], Err(told));
        let read: Vec<u64> = items.iter().flatten().map(|record| record.position.get()).collect();
        assert_eq!(read, [1, 4, 5, 6]);
        assert_eq!(log.quarantined().len(), 2);
        assert_eq!(log.read_all(Position::new(1), 9).unwrap().len(), 1);
        assert_eq!(log.read_all(Position::new(5), 9).unwrap().len(), 2);
        assert!(log.read_stream(stream(2), Version::new(1), 9).is_err());
    }

    #[test]
    fn a_crash_answers_unknown_and_closes_the_old_handle() {
        let log = manual();
        let epoch = log.claim(stream(1)).now_or_never().unwrap().unwrap().epoch;
        let waiting = log.append(append(stream(1), epoch, 0, [event(1)]));
        let (store, report) = log.crash(Survival::All);
        assert_eq!(report.survived, 1);
        assert_eq!(waiting.now_or_never(), Some(AppendOutcome::Unknown));
        assert_eq!(log.refusal(), Some(Unavailable::Closed));
        let reopened = SimLog::over(store, SyncMode::Immediate);
        assert_eq!(reopened.head(stream(1)).version, Version::new(1));
    }

    #[test]
    fn a_failed_sync_answers_unknown_and_ends_followers_with_an_error() {
        let log = manual();
        let epoch = log.claim(stream(1)).now_or_never().unwrap().unwrap().epoch;
        let waiting = log.append(append(stream(1), epoch, 0, [event(1)]));
        log.with_store(|store| store.fail_next_sync("injected"));
        assert!(log.sync().is_err());
        assert_eq!(waiting.now_or_never(), Some(AppendOutcome::Unknown));
        let mut follower = log.follow(Position::new(1));
        assert!(matches!(follower.next().now_or_never(), Some(Some(Err(_)))));
        assert!(matches!(follower.next().now_or_never(), Some(None)));
    }
}
