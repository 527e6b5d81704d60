//! Instances with everything the log knows of them, deleted ones included.

use crate::error::ApiError;
use crate::fresh::Arrived;
use crate::query::Params;
use crate::selector::{FoundInstance, RawPath, instance};
use crate::state::App;
use axum::Json;
use axum::extract::State;
use eventlog::ReadError;
use journal::{Event, StreamName};
use lifecycle::{InstanceEvent, InstanceId};
use replay::{At, Entry, InstanceState, Source as _};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa::openapi::Ref;
use utoipa::openapi::schema::{Array, ArrayBuilder};

/// Entries of a history page if the client does not say.
const ENTRIES_DEFAULT: usize = 100;

/// Most entries of one answer: it is read in one go, on a thread that others wait for.
const ENTRIES_MAX: usize = 1_000;

/// A piece of an instance's history.
#[derive(Serialize, ToSchema)]
#[schema(as = History)]
pub(super) struct HistoryView {
    #[schema(schema_with = entries)]
    items: Vec<Entry>,
    /// What to give as `after` to go on; none at the end.
    next_after: Option<u64>,
    /// From where on the history is kept.
    complete_since: &'static str,
    /// File of the archive directory that holds all of it but the last event, if it was archived.
    archived_in: Option<String>,
}

/// What an entry is, another crate says.
fn entries() -> Array {
    ArrayBuilder::new().items(Ref::from_schema_name("HistoryEntry")).build()
}

/// The fold as it was at `at` (default: as it is).
pub(super) async fn view(
    State(app): State<Arc<App>>,
    arrived: Arrived,
    params: Params,
    path: RawPath,
) -> Result<Json<InstanceState>, ApiError> {
    let at = moment(&app, &params, "at")?.unwrap_or(At::Now);
    let found = instance(path, &params, &arrived).await?;
    let state = replay::state_at(&app.past, found.id, at);
    state.map(Json).map_err(|error| past_error(error, &found))
}

/// What happened, event by event.
pub(super) async fn history(
    State(app): State<Arc<App>>,
    arrived: Arrived,
    params: Params,
    path: RawPath,
) -> Result<Json<HistoryView>, ApiError> {
    let after = params.number("after")?.unwrap_or(0);
    let limit = match params.number("limit")? {
        None => ENTRIES_DEFAULT,
        Some(0) => return Err(ApiError::invalid_request("query parameter \"limit\" must be at least 1")),
        Some(wanted) => usize::try_from(wanted).unwrap_or(usize::MAX).min(ENTRIES_MAX),
    };
    let found = instance(path, &params, &arrived).await?;
    let items = replay::history(&app.past, found.id, after, limit + 1);
    let mut items = items.map_err(|error| past_error(error, &found))?;
    let is_last = items.len() <= limit;
    items.truncate(limit);
    let next_after = items.last().filter(|_| !is_last).map(|entry| entry.version);
    let archived_in = archived_in(&app, found.id);
    Ok(Json(HistoryView { items, next_after, complete_since: "creation", archived_in }))
}

/// The file that holds a deleted instance's events, if its newest event says so.
fn archived_in(app: &App, id: InstanceId) -> Option<String> {
    let stream = StreamName::Instance(id).id();
    let newest = app.past.read_stream(stream, app.control.log().head(stream).version, 1).ok()?;
    match journal::read(newest.last()?).ok()?.event {
        Event::Instance(InstanceEvent::Archived(file)) => Some(file.file),
        _ => None,
    }
}

/// The moment that a parameter names; none if it is not there.
pub(super) fn moment(app: &App, params: &Params, name: &str) -> Result<Option<At>, ApiError> {
    let Some(text) = params.get(name)? else {
        return Ok(None);
    };
    let at = At::parse(text, app.control.now());
    at.map(Some).map_err(|error| ApiError::invalid_request(format!("query parameter \"{name}\": {error}")))
}

pub(super) fn past_error(error: replay::Error, found: &FoundInstance) -> ApiError {
    past_error_of(error, || found.not_found())
}

/// Why a question about the past has no answer; `not_found` says that there is no such thing.
pub(super) fn past_error_of(error: replay::Error, not_found: impl FnOnce() -> ApiError) -> ApiError {
    match error {
        replay::Error::NoSuchInstance(_) => not_found(),
        error @ (replay::Error::NotYetCreated { .. }
        | replay::Error::NoSuchVersion { .. }
        | replay::Error::NoSuchPosition { .. }) => ApiError::invalid_request(error.to_string()),
        // Operators ask here, and what is wrong with the log is theirs to repair.
        error @ replay::Error::Read {
            source: ReadError::Quarantined { .. } | ReadError::Damaged { .. },
            ..
        } => ApiError::unavailable(error.to_string()),
        error @ (replay::Error::Read { .. } | replay::Error::Decode(_) | replay::Error::Fold(_)) => {
            ApiError::internal(error.to_string())
        }
    }
}
