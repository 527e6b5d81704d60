//! Carrying the log away: an export as one stream of bytes, a backup into a directory of the daemon's host,
//! and compression of what is sealed. All of it while the daemon serves.

use crate::body::Fields;
use crate::error::ApiError;
use crate::query::Params;
use crate::state::{App, KeepError, LogKeeper};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use eventlog::Position;
use eventlog::portable::{LogSource, export};
use futures::stream;
use journal::event_name;
use replay::time::rfc3339;
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use utoipa::ToSchema;

/// Pieces of an export that may wait for a slow client: what it has not taken holds up the export, not the
/// daemon.
const PIECES_MAX: usize = 16;
/// Bytes of a piece.
const PIECE_BYTES: usize = 64 << 10;
/// Records of one answer of the tail.
const TAIL_MAX: u64 = 1_000;

#[derive(Serialize, ToSchema)]
#[schema(as = Snapshot)]
pub(super) struct SnapshotView {
    to: String,
    position: u64,
    segments: u64,
    copied: u64,
    bytes: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Compaction)]
pub(super) struct CompactView {
    segments: u64,
    bytes_before: u64,
    bytes_after: u64,
    damaged: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Tail)]
pub(super) struct TailView {
    items: Vec<TailEntry>,
    /// Last durable position.
    durable: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TailEntry)]
struct TailEntry {
    position: u64,
    time: Option<String>,
    stream: String,
    version: Option<u64>,
    event: String,
}

/// Runs work that blocks on the disk outside of the threads that serve.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing simulated waits for it, and its order does not matter"
)]
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(error.to_string()))
}

fn keeper(app: &App) -> Result<Arc<dyn LogKeeper>, ApiError> {
    app.keeper.clone().ok_or_else(|| ApiError::unavailable("this daemon keeps its log in memory only"))
}

/// The log from `from` on, as one export.
pub(super) async fn export_log(State(app): State<Arc<App>>, params: Params) -> Result<Response, ApiError> {
    let from = Position::new(params.number("from")?.unwrap_or(1).max(1));
    let keeper = keeper(&app)?;
    let durable = app.control.log().durable();
    if from > durable {
        let problem = format!("query parameter \"from\": the log ends at position {durable}");
        return Err(ApiError::invalid_request(problem));
    }
    let (pieces, taken) = mpsc::channel(PIECES_MAX);
    let log = Arc::clone(app.control.log());
    let exporting = aside(move || {
        let mut out = Pieces { pieces, filled: Vec::with_capacity(PIECE_BYTES) };
        let source = LogSource { log: &*log, store: keeper.store_id() };
        let done = export(&source, from, &mut out)
            .map_err(|error| error.to_string())
            .and_then(|_| out.flush().map_err(|error| error.to_string()));
        if let Err(why) = done {
            tracing::warn!(why, "export ended early");
            // Without its trailer an export is none: the client notices by the connection, and by the file.
            let _ = out.pieces.blocking_send(Err(io::Error::other(why)));
        }
    });
    tokio::spawn(exporting);
    let body = Body::from_stream(stream::unfold(taken, async |mut taken| {
        taken.recv().await.map(|piece| (piece, taken))
    }));
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// Hands pieces over to the connection, waiting while it is slow.
struct Pieces {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    filled: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.filled.len());
        self.filled.extend_from_slice(&bytes[..taken]);
        if self.filled.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.filled.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::replace(&mut self.filled, Vec::with_capacity(PIECE_BYTES)));
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// A backup into the directory `to` on the daemon's host, up to what is durable now.
pub(super) async fn snapshot(
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<Json<SnapshotView>, ApiError> {
    let fields = Fields::parse(&body, &["to"])?;
    let to = PathBuf::from(fields.text("to")?);
    if !to.is_absolute() {
        return Err(ApiError::invalid_value(
            "to: must be an absolute path of a directory on the daemon's host",
        ));
    }
    let (keeper, position) = (keeper(&app)?, app.control.log().durable());
    let shown = to.display().to_string();
    let done = aside(move || keeper.backup(position, &to)).await?;
    let report = done.map_err(|error| match error {
        KeepError::Refused(why) => ApiError::invalid_value(format!("to: {why}")),
        KeepError::Failed(why) => ApiError::unavailable(format!("no backup was made: {why}")),
    })?;
    Ok(Json(SnapshotView {
        to: shown,
        position: report.position.get(),
        segments: report.segments,
        copied: report.copied,
        bytes: report.bytes,
    }))
}

/// Compresses every sealed segment.
pub(super) async fn compact(State(app): State<Arc<App>>) -> Result<Json<CompactView>, ApiError> {
    let keeper = keeper(&app)?;
    let done = aside(move || keeper.compact(usize::MAX)).await?;
    let report = done.map_err(|error| ApiError::unavailable(format!("compaction stopped: {error}")))?;
    Ok(Json(CompactView {
        segments: report.segments,
        bytes_before: report.bytes_before,
        bytes_after: report.bytes_after,
        damaged: report.damaged,
    }))
}

/// Events after position `after`, oldest first; without it the last `limit` ones.
pub(super) async fn tail(State(app): State<Arc<App>>, params: Params) -> Result<Json<TailView>, ApiError> {
    let limit = params.number("limit")?.unwrap_or(20).clamp(1, TAIL_MAX);
    let log = app.control.log();
    let durable = log.durable().get();
    let after = params.number("after")?.unwrap_or_else(|| durable.saturating_sub(limit));
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let records = log
        .read_all(Position::new(after.saturating_add(1)), wanted)
        .map_err(|error| ApiError::unavailable(error.to_string()))?;
    let items = records.iter().map(|record| match journal::read(record) {
        Ok(recorded) => TailEntry {
            position: recorded.meta.position,
            time: Some(rfc3339(recorded.meta.time)),
            stream: recorded.stream.to_string(),
            version: Some(recorded.meta.version),
            event: event_name(&recorded.event).to_owned(),
        },
        Err(error) => TailEntry {
            position: record.position.get(),
            time: None,
            stream: record.stream.to_string(),
            version: None,
            event: format!("unreadable: {error}"),
        },
    });
    Ok(Json(TailView { items: items.collect(), durable }))
}
