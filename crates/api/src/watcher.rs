//! What follows the log on behalf of the HTTP layer: which requests with a key it holds, and how often each
//! event happens.
//!
//! Invariants:
//! * what is known is a fold of the log from `KEYS_AGE` before the start: a restart forgets nothing younger;
//! * a request is answered "not there" only after everything that was durable has been looked through;
//! * memory is bounded: of more than `KEYS_MAX` the oldest are forgotten.

use crate::error::ApiError;
use crate::keyed::is_keyed;
use crate::saga_book::{SagaBook, SagasOfKind};
use eventlog::{Log, Position, ReadError, Record};
use futures::StreamExt;
use lifecycle::{Span, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

/// How long a key is remembered at least, as far as `KEYS_MAX` allows: a client that repeats later than a day
/// does not repeat.
pub(crate) const KEYS_AGE: Span = Span::from_secs(86_400);

/// Most keys that are remembered: 20 MiB.
const KEYS_MAX: usize = 1 << 18;

/// Records looked at in one go, before others run.
const BATCH_RECORDS: usize = 256;

/// What was seen in the log.
#[derive(Default)]
struct Seen {
    requests: BTreeMap<Uuid, Position>,
    /// The same, oldest first.
    order: VecDeque<Uuid>,
    /// Events since the start of the process, by kind.
    events: BTreeMap<u16, u64>,
    /// Sagas that have ended since then.
    sagas: SagaBook,
}

impl Seen {
    fn note(&mut self, record: &Record, counts_from: Position) {
        self.sagas.note(record, record.position > counts_from);
        if record.position > counts_from {
            *self.events.entry(record.kind).or_default() += 1;
        }
        let request = record.context.as_ref().and_then(|context| context.request).map(Uuid::from_bytes);
        let Some(request) = request.filter(|request| is_keyed(*request)) else {
            return;
        };
        if self.requests.contains_key(&request) {
            return;
        }
        self.requests.insert(request, record.position);
        self.order.push_back(request);
        if self.order.len() > KEYS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.requests.remove(&oldest);
        }
    }
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reached {
    position: Position,
    /// Why it goes no further.
    stopped: Option<String>,
}

/// Handle to what was seen. Dropping it ends the following.
pub(crate) struct Watcher {
    seen: Arc<Mutex<Seen>>,
    reached: watch::Receiver<Reached>,
    _task: JoinSet<()>,
}

impl Watcher {
    /// Starts following on the current runtime.
    pub(crate) fn start(log: Arc<dyn Log>, now: Timestamp) -> Self {
        let begin =
            first_since(&*log, Timestamp::from_micros(now.micros().saturating_sub(KEYS_AGE.micros())));
        let before = Position::new(begin.get().saturating_sub(1));
        let (progress, reached) = watch::channel(Reached { position: before, stopped: None });
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let mut task = JoinSet::new();
        let counts_from = log.durable();
        task.spawn(follow(log, begin, counts_from, Arc::clone(&seen), progress));
        Self { seen, reached, _task: task }
    }

    /// Position of the first event recorded for a request, once everything up to `durable` has been looked
    /// through; 503 if that takes longer than `patience`.
    pub(crate) async fn request(
        &self,
        request: Uuid,
        durable: Position,
        patience: Duration,
    ) -> Result<Option<Position>, ApiError> {
        let mut reached = self.reached.clone();
        let is_over = |now: &Reached| now.position >= durable || now.stopped.is_some();
        let waited = timeout(patience, reached.wait_for(is_over)).await;
        let now = match waited {
            Ok(Ok(now)) => now.clone(),
            Ok(Err(_)) | Err(_) => self.reached.borrow().clone(),
        };
        if now.position >= durable {
            return Ok(lock(&self.seen).requests.get(&request).copied());
        }
        let why = now.stopped.unwrap_or_else(|| format!("position {} of {durable}", now.position));
        Err(ApiError::unavailable(format!(
            "the index of requests with a key is not there yet ({why}); try again, or send the request without a key"
        )))
    }

    /// Sagas that have ended since the start of the process, by kind.
    pub(crate) fn sagas(&self) -> BTreeMap<&'static str, SagasOfKind> {
        lock(&self.seen).sagas.by_kind()
    }

    /// How often each kind of event happened since the start of the process.
    pub(crate) fn events(&self) -> BTreeMap<u16, u64> {
        lock(&self.seen).events.clone()
    }
}

/// What is kept is changed in single steps: a panic elsewhere cannot leave half of one.
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first position that was recorded at or after a time and is still here; recorded times rise with positions
/// but for the clock's own steps.
fn first_since(log: &dyn Log, since: Timestamp) -> Position {
    let (mut low, mut high) = (1, log.durable().get().saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        match time_from(log, Position::new(middle)) {
            Ok(Some(time)) if time < since => low = middle + 1,
            Ok(_) => high = middle,
            Err(ReadError::Archived { oldest, .. }) => low = oldest.get().max(middle + 1),
            // Whoever follows the log from there says why.
            Err(_) => break,
        }
    }
    Position::new(low)
}

/// Recorded time of the first record at or behind a position that can be read; none beyond the end.
fn time_from(log: &dyn Log, mut position: Position) -> Result<Option<Timestamp>, ReadError> {
    loop {
        match log.read_all(position, 1) {
            Ok(records) => return Ok(records.first().map(|record| Timestamp::from_micros(record.time_us))),
            Err(ReadError::Damaged { last: Some(last), .. }) => position = position.max(last).next(),
            Err(error) => return Err(error),
        }
    }
}

async fn follow(
    log: Arc<dyn Log>,
    begin: Position,
    counts_from: Position,
    seen: Arc<Mutex<Seen>>,
    progress: watch::Sender<Reached>,
) {
    let mut batches = log.follow(begin).ready_chunks(BATCH_RECORDS);
    let mut stopped = "the log is closed".to_owned();
    'log: while let Some(batch) = batches.next().await {
        let mut position = progress.borrow().position;
        for item in batch {
            match item {
                Ok(record) => {
                    lock(&seen).note(&record, counts_from);
                    position = record.position;
                }
                Err(ReadError::Damaged { last: Some(last), .. }) => position = position.max(last),
                Err(error) => {
                    stopped = error.to_string();
                    break 'log;
                }
            }
        }
        progress.send_modify(|reached| reached.position = position);
        // A long way to catch up lets others run.
        tokio::task::yield_now().await;
    }
    progress.send_modify(|reached| reached.stopped = Some(stopped));
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventlog::journal::{Journal, JournalConfig, StoreId};
    use eventlog::{Append, AppendContext, Cause, CodecId, NewEvent, SimLog, StreamId, StreamKind, Version};

    const PATIENCE: Duration = Duration::from_secs(1);

    async fn append(log: &dyn Log, request: Option<Uuid>, time: Timestamp) {
        let stream = StreamId::new(StreamKind(9), [7; 16]);
        let epoch = log.claim(stream).await.unwrap().epoch;
        let event = NewEvent {
            kind: 1,
            schema: 1,
            codec: CodecId(1),
            time_us: time.micros(),
            cause: Cause::None,
            payload: bytes::Bytes::from(vec![0; 16 << 10]),
        };
        let context = AppendContext { request: request.map(Uuid::into_bytes), ..AppendContext::default() };
        let expected = Version::new(log.head(stream).version.get());
        log.append(Append { stream, epoch, expected, events: vec![event], context }).await;
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_micros(secs * 1_000_000)
    }

    fn keyed(n: u8) -> Uuid {
        Uuid::new_v5(&Uuid::nil(), &[n])
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_found_by_their_first_event_and_only_those_with_a_key() {
        let log = SimLog::new();
        let plain = Uuid::from_u128(0x1234_5678_9abc_4ef0_8234_5678_9abc_def0);
        append(&log, Some(keyed(1)), at(1)).await;
        append(&log, Some(plain), at(2)).await;
        let watcher = Watcher::start(Arc::new(log.clone()), at(3));
        append(&log, Some(keyed(2)), at(4)).await;
        append(&log, Some(keyed(1)), at(5)).await;
        for (request, position) in [(keyed(1), Some(1)), (keyed(2), Some(3)), (keyed(3), None), (plain, None)]
        {
            let found = watcher.request(request, log.durable(), PATIENCE).await.unwrap();
            assert_eq!(found.map(Position::get), position, "{request}");
        }
        assert_eq!(watcher.events(), BTreeMap::from([(1, 2)]), "those since the start are counted");
    }

    #[tokio::test(start_paused = true)]
    async fn until_everything_has_been_looked_through_nothing_is_said() {
        let log = SimLog::new();
        append(&log, Some(keyed(1)), at(1)).await;
        let watcher = Watcher::start(Arc::new(log.clone()), at(2));
        let refused = watcher.request(keyed(1), Position::new(2), PATIENCE).await.unwrap_err();
        assert_eq!(refused.status.as_u16(), 503);
        assert!(refused.message.contains("position 1 of 2"), "{}", refused.message);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_a_day_at_the_start_is_not_looked_at() {
        let log = SimLog::new();
        for hour in 0..48_u8 {
            append(&log, Some(keyed(hour)), at(u64::from(hour) * 3_600)).await;
        }
        let watcher = Watcher::start(Arc::new(log.clone()), at(48 * 3_600));
        let mut known = Vec::new();
        for hour in 0..48 {
            known.push(watcher.request(keyed(hour), log.durable(), PATIENCE).await.unwrap().is_some());
        }
        assert_eq!(known, (0..48).map(|hour| hour >= 24).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_is_archived_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (log, archive) = (dir.path().join("log"), dir.path().join("archive"));
        std::fs::create_dir(&archive).unwrap();
        // Nothing in memory: what is moved away is gone.
        let config = JournalConfig {
            segment_bytes: 256 << 10,
            ring_bytes_max: 0,
            ..JournalConfig::new(StoreId([7; 16]))
        };
        let (journal, _) = Journal::open(&log, config).unwrap();
        for n in 0..100 {
            append(&journal, Some(keyed(n)), at(1)).await;
        }
        let moved = journal.archive(Position::new(60), &archive).unwrap();
        assert!(moved.segments > 0, "{moved:?}");
        let oldest = journal.oldest().get();
        let log: Arc<dyn Log> = Arc::new(journal);
        let watcher = Watcher::start(Arc::clone(&log), at(1));
        for n in 0..100 {
            let found = watcher.request(keyed(n), log.durable(), PATIENCE).await.unwrap();
            assert_eq!(found.is_some(), u64::from(n) + 1 >= oldest, "{n}");
        }
        log.close().await;
    }

    #[test]
    fn the_oldest_are_forgotten_beyond_the_bound() {
        let mut seen = Seen::default();
        let stream = StreamId::new(StreamKind(9), [7; 16]);
        for position in 1..=KEYS_MAX as u64 + 2 {
            let mut bytes = u128::from(position).to_be_bytes();
            bytes[6] = 0x50;
            let context = AppendContext { request: Some(bytes), ..AppendContext::default() };
            seen.note(
                &Record {
                    position: Position::new(position),
                    stream,
                    version: Version::new(position),
                    previous: Position::ZERO,
                    cause: Position::ZERO,
                    kind: 1,
                    schema: 1,
                    codec: CodecId(1),
                    time_us: 1,
                    index: (0, 1),
                    context: Some(context),
                    payload: bytes::Bytes::new(),
                },
                Position::ZERO,
            );
        }
        assert_eq!((seen.requests.len(), seen.order.len()), (KEYS_MAX, KEYS_MAX));
        assert_eq!(seen.requests.values().min(), Some(&Position::new(3)));
    }
}
