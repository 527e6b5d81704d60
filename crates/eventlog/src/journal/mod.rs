//! The journal: the log as append-only segment files, written by one thread with group commit.
//!
//! ```text
//! callers ─▶ queue ─▶ writer ─▶ segment files          keeper: zero-fills the next segment, writes heads
//!    ▲                  │
//!    └──── herald ◀─────┴─▶ view (heads, newest records, durable position) ─▶ readers, followers
//! ```
//!
//! Files in the directory: `<first position>.seg`, `heads-<position>.chk`, `witness`; see the crate's README
//! for their bytes.
//!
//! Invariants:
//! * one process writes: the caller holds a [`StoreLock`] while a [`Journal`] is open;
//! * readers and followers see what is durable and nothing else;
//! * after a failed sync, and after a panic of the writer, nothing is appended until the journal is opened
//!   again; whoever waited is told `Unknown`.

mod ballast;
mod catalog;
mod config;
mod decided;
mod error;
pub(crate) mod files;
pub(crate) mod format;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod head_map;
mod heads;
mod herald;
mod keeper;
mod lock;
mod losses;
mod offline;
mod overlay;
mod packed;
mod parts;
mod queue;
mod reading;
mod recovery;
mod scan;
mod seek;
mod survey;
pub(crate) mod transfer;
mod upkeep;
mod view;
mod window;
mod witness;
mod writer;

#[cfg(test)]
mod tests;

pub use config::{
    FIRST_SEGMENT_BYTES_MAX, JournalConfig, Recovery, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, TailLoss, Trimmed,
};
pub use error::{Damage, OpenError, StoreId};
pub use lock::StoreLock;
pub use offline::{JournalReader, VerifyReport};
pub use upkeep::{Archived, Compacted, UpkeepError};

use crate::cache::Cache;
use crate::failpoints::{Point, pass};
use crate::gate;
use crate::log::{Follower, Log, LogFuture, LogStats, ReadError};
use crate::types::{
    Append, AppendOutcome, Claim, Epoch, Head, Position, Record, StreamId, Unavailable, Version,
};
use crate::waiting::{self, Progress};
use catalog::Catalog;
use decided::Decided;
use files::Files;
use futures::FutureExt;
use heads::HeadsAt;
use herald::Board;
use losses::Losses;
use queue::{Queue, Request};
use reading::PointReader;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use view::{Ring, View};
use writer::Writer;

/// Records behind a stream's head that are reached by back pointers even if a cache is attached: fewer than
/// these are mostly in memory, or in one batch.
const WALK_RECORDS_MAX: u64 = 64;

/// What the writer and the readers share.
struct Shared {
    store_id: StoreId,
    view: RwLock<View>,
    queue: Queue,
    board: Arc<Board>,
    progress: level::Sender<Progress>,
    catalog: Catalog,
    /// What opening could not read.
    losses: Losses,
    /// Set once a reading has met damage that opening had not.
    is_suspect: AtomicBool,
    files: Arc<dyn Files>,
    dir: PathBuf,
    /// Held while segments are compressed or moved.
    upkeep: Mutex<()>,
    cache: OnceLock<Arc<dyn Cache>>,
}

impl Shared {
    // The view is changed by moves and inserts that do not panic, so a poisoned lock holds a whole view.
    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, reason: Unavailable) {
        self.progress.send_modify(|progress| {
            progress.end.get_or_insert(reason);
        });
    }

    /// The heads that readers see, as a checkpoint's bytes: a copy of the map would take more room.
    fn encoded_heads(&self) -> (Position, Vec<u8>) {
        let view = self.view();
        let heads = HeadsAt {
            store: self.store_id,
            position: view.durable,
            chain: view.chain,
            bytes: view.stats.bytes,
            heads: &view.heads,
        };
        (view.durable, heads.encode())
    }

    fn get(&self, points: &mut PointReader<'_>, position: Position) -> Result<Record, ReadError> {
        if let Some(record) = self.view().ring.get(position) {
            return Ok(record.clone());
        }
        points.get(position)
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        let from = from.max(Position::new(1));
        let durable = {
            let view = self.view();
            if from > view.durable {
                return Ok(Vec::new());
            }
            if let Some(records) = view.ring.range(from, limit) {
                return Ok(records);
            }
            view.durable
        };
        let durable = reading::readable(&self.losses, from, durable)?;
        reading::range(&self.catalog, from, durable, limit).inspect_err(|error| self.suspect(error))
    }

    /// Remembers that there is damage which opening did not look at: the next opening looks at everything.
    fn suspect(&self, error: &ReadError) {
        let ReadError::Damaged { last: None, .. } = error else { return };
        if self.is_suspect.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::error!(%error, "the journal is damaged; open it again to find out what is lost");
        if let Err(error) = Decided::on(&self.losses).write(&*self.files, &self.dir, self.store_id) {
            tracing::error!(%error, "that there is damage could not be written down");
        }
    }

    fn refuse_quarantined(&self, stream: StreamId) -> Result<(), Unavailable> {
        if self.losses.has(stream) { Err(Unavailable::Quarantined(stream)) } else { Ok(()) }
    }

    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        reading::check_stream(&self.losses, stream)?;
        let head = self.view().heads.get(&stream).map_or_else(Head::default, |owned| owned.head);
        let from = from.max(Version::new(1));
        if from > head.version || limit == 0 {
            return Ok(Vec::new());
        }
        let last = from.get().saturating_add(limit as u64 - 1).min(head.version.get());
        let last = Version::new(last);
        if head.version.get() - from.get() >= WALK_RECORDS_MAX
            && let Some(cache) = self.cache.get()
        {
            match self.read_indexed(&**cache, stream, head, from, last) {
                Ok(Some(records)) => return Ok(records),
                Ok(None) => cache.distrust("its stream index contradicts the journal"),
                // Whether the record or the cache is at fault shows on the way back from the head.
                Err(_) => {}
            }
        }
        let mut points = PointReader::new(&self.catalog);
        let records = reading::walk(stream, head, from, last, |position| self.get(&mut points, position))
            .inspect_err(|error| self.suspect(error))?;
        assert!(gate::contiguous(&records, from), "versions of stream {stream} are gapless");
        Ok(records)
    }

    /// Reads through the cache's positions; `None` if they are not the stream's.
    fn read_indexed(
        &self,
        cache: &dyn Cache,
        stream: StreamId,
        head: Head,
        from: Version,
        last: Version,
    ) -> Result<Option<Vec<Record>>, ReadError> {
        let wanted = (last.get() - from.get() + 1) as usize;
        let Ok(positions) = cache.positions(stream, from, wanted) else { return Ok(None) };
        let mut points = PointReader::new(&self.catalog);
        let mut records = Vec::with_capacity(wanted);
        for position in positions {
            if position > head.position || position == Position::ZERO {
                return Ok(None);
            }
            let record = self.get(&mut points, position)?;
            if record.stream != stream {
                return Ok(None);
            }
            records.push(record);
        }
        let reached = Version::new(from.get() + records.len() as u64);
        if reached <= last {
            // The cache is behind; the rest is near the head.
            let rest =
                reading::walk(stream, head, reached, last, |position| self.get(&mut points, position))?;
            records.extend(rest);
        }
        Ok(gate::contiguous(&records, from).then_some(records))
    }
}

/// The log on disk. Dropping it without [`Log::close`] is like killing the process: nothing durable is lost.
/// The drop waits for the sync under way, so that the directory can be opened again at once.
pub struct Journal {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the journal in `dir`, creating it if the directory is empty or absent, and says what was found.
    /// The caller holds the [`StoreLock`].
    pub fn open(dir: &Path, config: JournalConfig) -> Result<(Self, Recovery), OpenError> {
        Self::open_on(files::of_the_system(), dir, config)
    }

    fn open_on(
        files: Arc<dyn Files>,
        dir: &Path,
        config: JournalConfig,
    ) -> Result<(Self, Recovery), OpenError> {
        let mut ready = recovery::open(&*files, dir, &config)?;
        pass(Point::JournalRepaired);
        let recovered = &mut ready.recovered;
        let durable = recovered.last();
        let report = recovered.report.clone();
        let stats = LogStats { streams: report.streams, bytes: recovered.scan.bytes, ..LogStats::default() };
        let view = View {
            durable,
            chain: recovered.scan.chain,
            heads: std::mem::take(&mut recovered.scan.heads),
            ring: Ring::new(config.ring_bytes_max),
            stats,
            refusal: None,
        };
        let shared = Arc::new(Shared {
            store_id: recovered.store,
            view: RwLock::new(view),
            queue: Queue::new(config.queue_requests_max, config.queue_bytes_max),
            board: Arc::default(),
            progress: level::Sender::new(Progress { durable, end: None }),
            catalog: Catalog::new(
                files.clone(),
                dir.into(),
                std::mem::take(&mut recovered.firsts),
                std::mem::take(&mut recovered.scan.losses.jumps),
            ),
            losses: std::mem::take(&mut recovered.scan.losses),
            is_suspect: AtomicBool::new(false),
            files: files.clone(),
            dir: dir.into(),
            upkeep: Mutex::new(()),
            cache: OnceLock::new(),
        });
        let start = || {
            let writer = Writer::new(shared.clone(), files, dir.into(), config, ready)?;
            let guarded = shared.clone();
            std::thread::Builder::new().name("journal-writer".into()).spawn(move || guard(&guarded, writer))
        };
        let writer = start().map_err(|source| OpenError::io("starting the threads for", dir, source))?;
        Ok((Self { shared, writer: Some(writer) }, report))
    }

    /// Identity of the store.
    pub fn store_id(&self) -> StoreId {
        self.shared.store_id
    }

    /// Lets long streams be read through the cache's index. What the cache says is checked against the
    /// records. Only the first cache attached counts; answers whether this was it.
    pub fn attach_cache(&self, cache: Arc<dyn Cache>) -> bool {
        self.shared.cache.set(cache).is_ok()
    }

    /// Tells callers what became of their appends, until the journal ends. To be spawned where those callers run:
    /// one of their tasks wakes the others at a tenth of what it costs the writer's thread. Without it the writer
    /// tells them, between one sync and the next; nothing is told later or twice for the want of it.
    pub fn herald(&self) -> impl Future<Output = ()> + Send + 'static {
        self.shared.board.clone().herald()
    }

    #[cfg(test)]
    fn panic_in_writer(&self) {
        drop(self.shared.queue.push(Request::Panic));
    }
}

/// Runs the writer; a panic in it poisons the log and leaves whoever waits with `Unknown`.
fn guard(shared: &Shared, writer: Writer) {
    let reason = match catch_unwind(AssertUnwindSafe(|| writer.run())) {
        Ok(()) => Unavailable::Closed,
        Err(_) => Unavailable::Poisoned("the writer panicked".into()),
    };
    shared.board.finish();
    // Dropping a request answers `Unknown`.
    drop(shared.queue.end(reason.clone()));
    shared.end(reason);
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let durable = self.shared.view().durable;
        f.debug_struct("Journal")
            .field("store_id", &self.shared.store_id)
            .field("durable", &durable)
            .finish_non_exhaustive()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.queue.abandon();
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has been turned into an answer by its guard.
            drop(writer.join());
        }
    }
}

impl Log for Journal {
    fn claim(&self, stream: StreamId) -> LogFuture<Result<Claim, Unavailable>> {
        let (reply, answer) = oneshot::channel();
        let claim = Request::Claim { stream, reply };
        match self.shared.refuse_quarantined(stream).and_then(|()| self.shared.queue.push(claim)) {
            Ok(()) => waiting::claim_answer(answer),
            Err(refusal) => futures::future::ready(Err(refusal)).boxed(),
        }
    }

    fn append(&self, append: Append) -> LogFuture<AppendOutcome> {
        let (reply, answer) = oneshot::channel();
        let queued = gate::admit(&append)
            .and_then(|bytes| self.shared.refuse_quarantined(append.stream).map(|()| bytes))
            .and_then(|bytes| self.shared.queue.push(Request::Append { append, bytes, reply }));
        match queued {
            Ok(()) => waiting::append_answer(answer),
            Err(refusal) => futures::future::ready(AppendOutcome::Unavailable(refusal)).boxed(),
        }
    }

    fn head(&self, stream: StreamId) -> Head {
        self.shared.view().heads.get(&stream).map_or_else(Head::default, |owned| owned.head)
    }

    fn epoch(&self, stream: StreamId) -> Epoch {
        self.shared.view().heads.get(&stream).map_or(Epoch::ZERO, |owned| owned.epoch)
    }

    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.shared.read_stream(stream, from, limit)
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.shared.read_all(from, limit)
    }

    fn follow(&self, from: Position) -> Follower {
        let shared = self.shared.clone();
        waiting::follow(from, self.shared.progress.subscribe(), move |from, limit| {
            shared.read_all(from, limit)
        })
    }

    fn durable(&self) -> Position {
        self.shared.view().durable
    }

    fn wait_durable(&self, position: Position) -> LogFuture<Result<(), Unavailable>> {
        waiting::wait_durable(position, self.shared.progress.subscribe())
    }

    fn stats(&self) -> LogStats {
        let view = self.shared.view();
        LogStats {
            durable: view.durable,
            segments: self.shared.catalog.len(),
            waiting: self.shared.queue.waiting(),
            ..view.stats.clone()
        }
    }

    fn refusal(&self) -> Option<Unavailable> {
        self.shared.queue.ended().or_else(|| self.shared.view().refusal.clone())
    }

    fn quarantined(&self) -> Vec<(StreamId, String)> {
        let losses = &self.shared.losses;
        losses.streams().map(|stream| (stream, losses.detail(stream))).collect()
    }

    fn close(&self) -> LogFuture<()> {
        // Refused means that it is closed, being closed or poisoned: either way it ends.
        drop(self.shared.queue.push(Request::Close));
        let mut progress = self.shared.progress.subscribe();
        async move {
            // An error means that the journal is gone, and closed with it.
            drop(progress.wait_for(|progress| progress.end.is_some()).await);
        }
        .boxed()
    }
}
