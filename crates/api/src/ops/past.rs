//! The past of more than one moment, or of more than one instance: what differs between two moments, and the
//! whole fleet at one.
//!
//! Invariants:
//! * the fleet is folded from the log, off the threads that serve, and never twice at a time: whoever looks at it
//!   costs a daemon no more than one slow reader;
//! * an answer names the position that it is of, so that further pages are of the same moment; the newest fold is
//!   kept, so that they cost no other.

use super::instances::{moment, past_error, past_error_of};
use super::keep::aside;
use crate::error::ApiError;
use crate::fresh::Arrived;
use crate::query::Params;
use crate::selector::{RawPath, instance};
use crate::state::App;
use axum::Json;
use axum::extract::State;
use replay::fleet::{FleetInstance, FleetSled, Unfoldable};
use replay::{At, StateDiff};
use serde::Serialize;
use std::sync::{Arc, PoisonError};
use uuid::Uuid;

/// Instances of a page if the client does not say.
const INSTANCES_DEFAULT: usize = 100;
/// Most instances of a page.
const INSTANCES_MAX: usize = 10_000;

/// What differs between `from` (default: its first event) and `to` (default: now).
pub(super) async fn diff(
    State(app): State<Arc<App>>,
    arrived: Arrived,
    params: Params,
    path: RawPath,
) -> Result<Json<StateDiff>, ApiError> {
    let from = moment(&app, &params, "from")?.unwrap_or(At::Version(1));
    let to = moment(&app, &params, "to")?.unwrap_or(At::Now);
    let found = instance(path, &params, &arrived).await?;
    let (log, id) = (app.past.clone(), found.id);
    let diff = aside(move || replay::state_diff(&log, id, from, to)).await?;
    diff.map(Json).map_err(|error| past_error(error, &found))
}

/// A piece of the fleet at one moment. Sleds, and what cannot be read, are in every piece.
#[derive(Serialize)]
pub(super) struct FleetView {
    position: u64,
    time: Option<String>,
    items: Vec<FleetInstance>,
    next_after: Option<Uuid>,
    total: usize,
    deleted: u64,
    sleds: Vec<FleetSled>,
    unreadable: Vec<Unfoldable>,
}

/// The fleet as it was at `at` (default: as it is).
pub(super) async fn fleet(State(app): State<Arc<App>>, params: Params) -> Result<Json<FleetView>, ApiError> {
    let at = moment(&app, &params, "at")?.unwrap_or(At::Now);
    if let At::Version(_) = at {
        let problem = "a version belongs to one stream; name a position such as @1234, or a time";
        return Err(ApiError::invalid_request(format!("query parameter \"at\": {problem}")));
    }
    let after = after(&params)?;
    let limit = match params.number("limit")? {
        None => INSTANCES_DEFAULT,
        Some(0) => return Err(ApiError::invalid_request("query parameter \"limit\" must be at least 1")),
        Some(wanted) => usize::try_from(wanted).unwrap_or(usize::MAX).min(INSTANCES_MAX),
    };
    if let Some(fleet) = kept(&app, at) {
        let page = page(&fleet, after, limit)?;
        if page.next_after.is_none() {
            keep(&app, None);
        }
        return Ok(Json(page));
    }
    let Ok(turn) = Arc::clone(&app.folding).try_acquire_owned() else {
        return Err(ApiError::unavailable("the fleet of another moment is being folded; one is at a time"));
    };
    let log = Arc::clone(app.control.log());
    let folded = aside(move || {
        let folded = replay::fleet_at(&log, at, &mut |_| {});
        drop(turn);
        folded
    });
    let fleet = folded
        .await?
        .map_err(|error| past_error_of(error, || ApiError::internal("the fleet is no instance")))?;
    let fleet = Arc::new(fleet);
    let page = page(&fleet, after, limit)?;
    if page.next_after.is_some() && matches!(at, At::Now | At::Position(_)) && fleet.unreadable.is_empty() {
        keep(&app, Some(fleet));
    }
    Ok(Json(page))
}

/// Keeps a fold for its further pages, or none after the last: a whole fleet takes room.
fn keep(app: &App, fleet: Option<Arc<replay::Fleet>>) {
    *app.fleet.lock().unwrap_or_else(PoisonError::into_inner) = fleet;
}

/// The fold that was made last, if it is of this very position: the past does not change. One that was made by
/// time is never kept, because events of later positions may have earlier times.
fn kept(app: &App, at: At) -> Option<Arc<replay::Fleet>> {
    let At::Position(position) = at else {
        return None;
    };
    let kept = app.fleet.lock().unwrap_or_else(PoisonError::into_inner);
    kept.as_ref().filter(|fleet| fleet.position == position).map(Arc::clone)
}

fn after(params: &Params) -> Result<Option<Uuid>, ApiError> {
    let Some(text) = params.get("after")? else {
        return Ok(None);
    };
    let id = Uuid::try_parse(text).map_err(|_| {
        ApiError::invalid_request("query parameter \"after\": it is not the id of an instance")
    })?;
    Ok(Some(id))
}

/// In the order of projects and names: what was there stays in its place, because the past does not change.
fn page(fleet: &replay::Fleet, after: Option<Uuid>, limit: usize) -> Result<FleetView, ApiError> {
    let total = fleet.instances.len();
    let skipped =
        match after {
            None => 0,
            Some(id) => 1 + fleet.instances.iter().position(|row| row.id.uuid() == id).ok_or_else(|| {
                let problem =
                    "no instance of that moment has this id; give the `at` of the first page as @POSITION";
                ApiError::invalid_request(format!("query parameter \"after\": {problem}"))
            })?,
        };
    let items: Vec<FleetInstance> = fleet.instances.iter().skip(skipped).take(limit).cloned().collect();
    let next_after = items.last().filter(|_| skipped + items.len() < total).map(|row| row.id.uuid());
    Ok(FleetView {
        position: fleet.position,
        time: fleet.time.clone(),
        items,
        next_after,
        total,
        deleted: fleet.deleted,
        sleds: fleet.sleds.clone(),
        unreadable: fleet.unreadable.clone(),
    })
}
