//! The data directory's parts: the journal and who keeps its files, the cache and its stream index.

use crate::archive;
use crate::config::Config;
use crate::exit::{Exit, Failure, Outcome};
use crate::real::SystemIds;
use actors::IdSource as _;
use api::{KeepError, LogKeeper};
use eventlog::cache::{Cache, CatchUpError, SledCache, catch_up};
use eventlog::journal::{
    Compacted, Journal, JournalConfig, OpenError, Recovery, StoreId, StoreLock, UpkeepError,
};
use eventlog::portable::{self, BackupReport};
use eventlog::{Log, Position, StreamId};
use journal::StreamName;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Segments compressed in one go.
const SEGMENTS_AT_A_TIME: usize = 4;
/// Steps of the stream index in one go.
const INDEX_STEPS: usize = 4;
/// How long records wait to be indexed together: what is not indexed yet is only read slower.
const INDEX_PAUSE: Duration = Duration::from_secs(1);

/// The journal comes first: what is built from it without it means that it is gone.
pub fn must_be_whole(data: &Path) -> Outcome {
    let has = |name: &str| data.join(name).exists();
    let is_begun = std::fs::read_dir(data.join("journal")).is_ok_and(|mut entries| entries.next().is_some());
    if is_begun || !(has("cache") || has("checkpoints") || has("sleds") || has("archive")) {
        return Ok(());
    }
    Err(Failure::new(Exit::Damaged, format!("{} has lost its journal", data.display()))
        .hint("restore it with `musher log restore`, or start with another directory"))
}

/// Opens the journal. A loss is accepted only if it is there and the operator said so; then it is recorded.
pub fn open_journal(config: &Config, accept_loss: bool) -> Result<(Journal, Recovery, bool), Failure> {
    let dir = config.server.data.join("journal");
    match Journal::open(&dir, journal_config(config, false)) {
        Ok((journal, recovery)) => Ok((journal, recovery, false)),
        Err(OpenError::TailLost { .. } | OpenError::WitnessLost { .. }) if accept_loss => {
            let (journal, recovery) =
                Journal::open(&dir, journal_config(config, true)).map_err(open_failure)?;
            let is_shared_lost = recovery.quarantined.iter().any(|stream| is_critical(*stream));
            if is_shared_lost || recovery.nameless > 0 {
                return Err(Failure::new(
                    Exit::Damaged,
                    "besides its end the log has lost records that all instances share; that cannot be accepted",
                )
                .hint("restore a backup with `musher log restore`"));
            }
            Ok((journal, recovery, true))
        }
        Err(error) => Err(open_failure(error)),
    }
}

fn journal_config(config: &Config, accept_loss: bool) -> JournalConfig {
    let defaults = JournalConfig::new(StoreId(SystemIds.uuid().into_bytes()));
    JournalConfig {
        segment_bytes: config.log.segment_bytes,
        queue_requests_max: config.log.queue_requests_max,
        queue_bytes_max: config.log.queue_bytes_max,
        ring_bytes_max: config.log.ring_bytes_max,
        accept_loss,
        ballast_bytes: config.log.ballast_bytes,
        critical: is_critical,
        ..defaults
    }
}

/// Opens the journal of a stopped directory for work on its files.
pub fn stopped_journal(data: &Path) -> Result<(StoreLock, Journal), Failure> {
    let dir = data.join("journal");
    if !dir.is_dir() {
        return Err(Failure::new(
            Exit::Refused,
            format!("{} is not a data directory of musher", data.display()),
        )
        .hint("name it with --data"));
    }
    let lock = StoreLock::acquire(data).map_err(open_failure)?;
    let config = JournalConfig { critical: is_critical, ..JournalConfig::new(StoreId([0; 16])) };
    let (journal, _) = Journal::open(&dir, config).map_err(open_failure)?;
    journal.attach_archive(&archive::segments_in(&archive::beside(data))).map_err(open_failure)?;
    Ok((lock, journal))
}

/// An instance can be quarantined; what all of them share cannot.
pub fn is_critical(stream: StreamId) -> bool {
    !matches!(StreamName::parse(stream), Some(StreamName::Instance(_)))
}

/// The journal's files, for the HTTP layer.
pub struct Keeper {
    /// The journal.
    pub journal: Arc<Journal>,
    /// The data directory.
    pub data: PathBuf,
    /// Held by the one backup under way: two into one directory would write over each other.
    pub backing_up: Mutex<()>,
}

/// Whether a path, as far as it exists, leads into the data directory.
pub fn is_inside(data: &Path, path: &Path) -> bool {
    let existing = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    match (data.canonicalize(), existing) {
        (Ok(data), Some(existing)) => existing.starts_with(data),
        _ => false,
    }
}

impl LogKeeper for Keeper {
    fn store_id(&self) -> StoreId {
        self.journal.store_id()
    }

    fn backup(&self, position: Position, to: &Path) -> Result<BackupReport, KeepError> {
        if is_inside(&self.data, to) {
            return Err(KeepError::Refused(format!(
                "{} lies inside the data directory; name one elsewhere",
                to.display()
            )));
        }
        let _alone = self.backing_up.lock().unwrap_or_else(PoisonError::into_inner);
        portable::backup(&self.data.join("journal"), position, to).map_err(|error| match error {
            portable::Error::NotEmpty { .. }
            | portable::Error::OtherStore { .. }
            | portable::Error::OtherHistory { .. } => KeepError::Refused(error.to_string()),
            error => KeepError::Failed(error.to_string()),
        })
    }

    fn compact(&self, segments_max: usize) -> Result<Compacted, UpkeepError> {
        self.journal.compact(segments_max)
    }
}

/// Damage is one exit code, everything else another.
pub fn open_failure(error: OpenError) -> Failure {
    let exit = match &error {
        OpenError::InUse { .. }
        | OpenError::Io { .. }
        | OpenError::NoJournal { .. }
        | OpenError::Config(_) => Exit::Refused,
        OpenError::Foreign { .. }
        | OpenError::NewerFormat { .. }
        | OpenError::WrongStore { .. }
        | OpenError::MissingSegment { .. }
        | OpenError::Damaged(_)
        | OpenError::TailLost { .. }
        | OpenError::WitnessLost { .. } => Exit::Damaged,
    };
    let failure = Failure::new(exit, error.to_string());
    match error {
        OpenError::TailLost { .. } | OpenError::WitnessLost { .. } => {
            failure.hint("`musher serve --accept-loss` opens it as it is, and records that")
        }
        _ => failure,
    }
}

/// Says what opening found.
pub fn tell(recovery: &Recovery) {
    if let Some(trimmed) = &recovery.trimmed {
        tracing::warn!(?trimmed, "an incomplete last batch was cut off; nobody was told that it was durable");
    }
    if let Some(lost) = &recovery.lost {
        tracing::error!(?lost, "durable records are gone, as accepted");
    }
    for stream in &recovery.quarantined {
        let name = StreamName::parse(*stream).map_or_else(|| stream.to_string(), |name| name.to_string());
        tracing::error!(stream = name, "quarantined: it is neither read nor extended");
    }
    for damage in &recovery.damaged {
        tracing::error!(%damage, "the log is damaged; the streams that lost a record there are quarantined");
    }
    for note in &recovery.notes {
        tracing::warn!(note, "log");
    }
}

/// Without a cache everything works, slower.
pub fn open_cache(dir: &Path, store: StoreId, journal: &Arc<Journal>, bytes: u64) -> Option<Arc<dyn Cache>> {
    match SledCache::open(dir, store, journal.durable(), bytes) {
        Ok((cache, report)) => {
            if let Some(why) = report.rebuilt {
                tracing::warn!(why, "the cache is built again from the log");
            }
            Some(Arc::new(cache))
        }
        Err(error) => {
            tracing::error!(%error, "no cache: starting takes longer");
            None
        }
    }
}

/// Keeps the stream index behind the log, until the log closes.
pub async fn keep_index(log: Arc<dyn Log>, cache: Option<Arc<dyn Cache>>) {
    let Some(cache) = cache else {
        return;
    };
    let mut reached = None;
    loop {
        let indexed = match index_aside(Arc::clone(&log), Arc::clone(&cache)).await {
            Ok(indexed) => indexed,
            Err(error) => {
                tracing::error!(%error, "keeping the stream index failed; long histories are read slower");
                return;
            }
        };
        match indexed {
            Ok(indexed) if indexed < log.durable() => {
                if reached.replace(indexed) == Some(indexed) {
                    tracing::warn!(%indexed, "the stream index ends where the log cannot be read; long histories are read slower");
                    return;
                }
                tokio::task::yield_now().await;
            }
            Ok(indexed) => {
                if log.wait_durable(indexed.next()).await.is_err() {
                    return;
                }
                // Waits, and not for the end of a log that is being closed: no record has this position.
                let _ = tokio::time::timeout(INDEX_PAUSE, log.wait_durable(Position::new(u64::MAX))).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the stream index is not kept; long histories are read slower");
                return;
            }
        }
    }
}

/// On a thread of its own: a step takes as long as many requests.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing simulated waits for it, and its order does not matter"
)]
fn index_aside(
    log: Arc<dyn Log>,
    cache: Arc<dyn Cache>,
) -> tokio::task::JoinHandle<Result<Position, CatchUpError>> {
    tokio::task::spawn_blocking(move || catch_up(&*log, &*cache, INDEX_STEPS))
}

/// Writes the cache out, on a thread of its own: a disk that stalls must not hold up whoever watches the stop.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing simulated waits for it, and it is the last of its kind"
)]
pub async fn write_out(cache: Arc<dyn Cache>) {
    let written = tokio::task::spawn_blocking(move || cache.flush()).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(%error, "the cache was not written out; what is missing is built again from the log");
    }
}

/// Compresses sealed segments now and then, a few at a time, until it is aborted.
pub async fn keep_small(keeper: Arc<dyn LogKeeper>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match compact_aside(Arc::clone(&keeper)).await {
            Ok(Ok(done)) if done.segments > 0 => tracing::info!(?done, "sealed segments compressed"),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "sealed segments are not compressed"),
            Err(error) => tracing::error!(%error, "compressing segments failed"),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing simulated waits for it, and its order does not matter"
)]
fn compact_aside(keeper: Arc<dyn LogKeeper>) -> tokio::task::JoinHandle<Result<Compacted, UpkeepError>> {
    tokio::task::spawn_blocking(move || keeper.compact(SEGMENTS_AT_A_TIME))
}
