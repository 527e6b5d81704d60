//! The archive directory: what was deleted long ago, each instance's history in a file of its own, and the oldest
//! segments of the journal.
//!
//! ```text
//! <archive>/streams/instance-<id>.stream
//! <archive>/journal/<first position>.seg[.zst]
//! ```
//!
//! Invariants:
//! * nothing here is ever removed by this program;
//! * segments that were moved here are still part of the log: a daemon does not start without them;
//! * a file has its name only once it is whole and durable; the log says that it is there only after that.

use crate::checkpoints;
use crate::config::Config;
use crate::exit::{Exit, Failure, Outcome};
use crate::store::open_failure;
use actors::Archive;
use eventlog::journal::{Journal, StoreId};
use eventlog::portable::{sweep_stream_files, write_stream_file};
use eventlog::{JournalReader, Log, LogFuture, Position, StreamId};
use journal::StreamName;
use lifecycle::{ArchiveFile, InstanceId, Retention, Span, Timestamp};
use projections::Projections;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is done with what was deleted long ago.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Seconds that an instance has been deleted before it is archived; 0 for never.
    pub deleted_s: u64,
    /// Seconds between two runs.
    pub period_s: u64,
    /// Most instances that one run archives.
    pub batch: usize,
    /// Whether segments before the older of two checkpoints are moved there, too.
    pub segments: bool,
    /// Where to; empty for `archive` in the data directory.
    pub archive: PathBuf,
}

impl Settings {
    /// When instances are archived, if they are.
    pub fn retention(&self) -> Option<Retention> {
        let keep = Span::from_secs(self.deleted_s);
        (self.deleted_s > 0).then_some(Retention { keep, batch: self.batch })
    }
}

/// The archive directory that a configuration means.
pub fn directory(config: &Config) -> PathBuf {
    let named = &config.retention.archive;
    if named.as_os_str().is_empty() { beside(&config.server.data) } else { named.clone() }
}

/// The archive directory of a data directory, unless the configuration names another.
pub fn beside(data: &Path) -> PathBuf {
    data.join("archive")
}

/// Removes what an interrupted run left. A directory that does not exist yet is made by the first run.
pub fn sweep(archive: &Path) -> Outcome {
    let streams = archive.join(journal::ARCHIVED_STREAMS);
    match sweep_stream_files(&streams) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::new(
            Exit::Refused,
            format!("the archive {} cannot be read: {error}", streams.display()),
        )
        .hint("mend its permissions, or name another with retention.archive")),
    }
}

/// Where an archive holds segments.
pub fn segments_in(archive: &Path) -> PathBuf {
    archive.join("journal")
}

/// Lets the journal read what was moved to the archive. Refuses to go on without what is missing there: everything
/// that is folded from its beginning would be wrong.
pub fn attach(journal: &Journal, archive: &Path) -> Outcome {
    let segments = segments_in(archive);
    let reaches = journal.attach_archive(&segments).map_err(open_failure)?;
    if reaches <= Position::new(1) {
        return Ok(());
    }
    let (before, dir) = (journal.oldest(), segments.display());
    Err(Failure::new(
        Exit::Refused,
        format!(
            "the log before position {before} was moved to an archive; {dir} holds it from {reaches} on only"
        ),
    )
    .hint("bring its segments back there, or name the directory with retention.archive"))
}

/// The same for a stopped directory, whose archive is beside it: what cannot be read is refused where it is asked for.
pub fn attach_reader(reader: &JournalReader, data: &Path) -> Outcome {
    let attached = reader.attach_archive(&segments_in(&beside(data)));
    attached.map(drop).map_err(open_failure)
}

/// The archive of a running daemon.
pub struct Keeping {
    journal: Arc<Journal>,
    projections: Projections,
    archive: PathBuf,
    /// Where checkpoints are, if segments before them are moved.
    checkpoints: Option<PathBuf>,
}

impl Keeping {
    /// Keeps what `projections` say is due, from the journal, in `archive`.
    pub fn new(journal: Arc<Journal>, projections: Projections, config: &Config) -> Self {
        let checkpoints = checkpoints::directory(&config.server.data);
        let checkpoints = config.retention.segments.then_some(checkpoints);
        Self { journal, projections, archive: directory(config), checkpoints }
    }
}

impl Archive for Keeping {
    fn due(&self, until: Timestamp, limit: usize) -> Vec<InstanceId> {
        self.projections.read(|model| model.ended_until(until, limit))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "nothing simulated waits for it, and its order does not matter"
    )]
    fn keep(&self, instance: InstanceId) -> LogFuture<Result<ArchiveFile, String>> {
        let (journal, archive) = (Arc::clone(&self.journal), self.archive.clone());
        let name = StreamName::Instance(instance);
        let kept = tokio::task::spawn_blocking(move || keep(&*journal, journal.store_id(), &archive, name));
        Box::pin(async move { kept.await.map_err(|error| error.to_string())? })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "nothing simulated waits for it, and its order does not matter"
    )]
    fn trim(&self) -> LogFuture<Result<u64, String>> {
        let Some(checkpoints) = self.checkpoints.clone() else {
            return Box::pin(std::future::ready(Ok(0)));
        };
        let (journal, archive) = (Arc::clone(&self.journal), self.archive.clone());
        let moved = tokio::task::spawn_blocking(move || trim(&journal, &archive, &checkpoints));
        Box::pin(async move { moved.await.map_err(|error| error.to_string())? })
    }
}

/// Moves the segments that no kept checkpoint needs, once there are two.
fn trim(journal: &Journal, archive: &Path, checkpoints: &Path) -> Result<u64, String> {
    let kept = checkpoint::positions(checkpoints).map_err(|error| error.to_string())?;
    let [oldest, _, ..] = kept[..] else {
        return Ok(0);
    };
    let segments = segments_in(archive);
    make_durably(&segments).map_err(|error| format!("{} cannot be made: {error}", segments.display()))?;
    let moved = journal.archive(oldest, &segments).map_err(|error| error.to_string())?;
    Ok(moved.segments)
}

/// Copies a stream into its file.
fn keep(log: &dyn Log, store: StoreId, archive: &Path, name: StreamName) -> Result<ArchiveFile, String> {
    let stream: StreamId = name.id();
    let file = name.archive_file();
    let path = archive.join(&file);
    let streams = archive.join(journal::ARCHIVED_STREAMS);
    make_durably(&streams).map_err(|error| format!("{} cannot be made: {error}", streams.display()))?;
    let written = write_stream_file(log, store, stream, &path).map_err(|error| error.to_string())?;
    Ok(ArchiveFile {
        file,
        bytes: written.bytes,
        checksum: written.checksum,
        events: written.records,
        first: written.first.get(),
        last: written.last.get(),
    })
}

/// Makes a directory and every missing one above it, each durable in the one that holds it.
fn make_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_durably(above)?;
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::File::open(above)?.sync_all()
}
