//! Sleds, as they are doing.

use super::verbs::optional_fields;
use crate::error::ApiError;
use crate::frame::Caller;
use crate::keyed::{Once, used_otherwise};
use crate::refusal::command_error;
use crate::selector::{self, RawPath};
use crate::state::App;
use crate::v1::recorded;
use crate::v1::repeat::together;
use actors::sled::{CircuitStatus, DrainStatus, LeaseStatus, SledStatus};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use eventlog::Position;
use journal::{Event, StreamName};
use lifecycle::ledger::{Room, SledLoad};
use lifecycle::sled::SledCommand;
use lifecycle::{InstanceId, SledEvent, SledId};
use replay::time::rfc3339;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Serialize)]
pub(super) struct SledsView {
    items: Vec<SledView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SledHealth)]
pub(super) struct SledView {
    #[schema(value_type = uuid::Uuid)]
    id: SledId,
    name: String,
    provisionable: bool,
    epoch: Option<u64>,
    /// None if it was not heard from since this daemon started.
    last_contact: Option<String>,
    unreachable: Option<UnreachableView>,
    /// None while requests are sent to it.
    circuit: Option<CircuitView>,
    calls: usize,
    room: RoomView,
    held: RoomView,
    cpu_family: String,
    expunged: bool,
    drain: Option<DrainView>,
    /// None if its VMMs run without a lease.
    lease: Option<LeaseView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SledLease)]
struct LeaseView {
    seconds: u64,
    /// When it was last renewed, or when this daemon began to count.
    renewed: String,
    /// When it was found expired, if the sled has not registered since: what ran on it is over.
    expired: Option<String>,
}

impl From<LeaseStatus> for LeaseView {
    fn from(lease: LeaseStatus) -> Self {
        Self { seconds: lease.seconds, renewed: rfc3339(lease.renewed), expired: lease.expired.map(rfc3339) }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Drain)]
struct DrainView {
    since: String,
    /// Instances that still have a VMM on it.
    left: usize,
    #[schema(value_type = Vec<uuid::Uuid>)]
    moving: Vec<InstanceId>,
    blocked: Vec<BlockedView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DrainBlocked)]
struct BlockedView {
    #[schema(value_type = uuid::Uuid)]
    instance_id: InstanceId,
    reason: String,
}

impl From<DrainStatus> for DrainView {
    fn from(drain: DrainStatus) -> Self {
        let blocked = |(instance_id, reason)| BlockedView { instance_id, reason };
        Self {
            since: rfc3339(drain.since),
            left: drain.left,
            moving: drain.moving,
            blocked: drain.blocked.into_iter().map(blocked).collect(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Unreachable)]
struct UnreachableView {
    reason: String,
    since: String,
}

/// That the sled is sent nothing but inventories, because it does not answer; it ends once it is heard from.
#[derive(Serialize, ToSchema)]
#[schema(as = SledCircuit)]
struct CircuitView {
    /// Since when.
    open_since: String,
    /// Requests in a row that got no answer.
    unanswered: u32,
    /// When it is asked again; none while it is being asked.
    next_probe: Option<String>,
}

impl From<CircuitStatus> for CircuitView {
    fn from(circuit: CircuitStatus) -> Self {
        Self {
            open_since: rfc3339(circuit.since),
            unanswered: circuit.unanswered,
            next_probe: circuit.next_probe.map(rfc3339),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Room)]
struct RoomView {
    threads: u32,
    memory: u64,
}

impl From<Room> for RoomView {
    fn from(room: Room) -> Self {
        Self { threads: room.threads, memory: room.memory }
    }
}

pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<SledsView>, ApiError> {
    let never = || ApiError::internal("a list of sleds was not found");
    let sleds = app.control.sleds().await.map_err(|error| command_error(error, never))?;
    Ok(Json(SledsView { items: sleds.into_iter().map(|(load, status)| view_of(load, status)).collect() }))
}

pub(super) fn view_of(load: SledLoad, status: Option<SledStatus>) -> SledView {
    let status = status.unwrap_or_default();
    SledView {
        id: load.id,
        name: load.name,
        provisionable: load.is_provisionable,
        epoch: load.boot.map(|(_, epoch)| epoch.get()),
        last_contact: status.last_contact.map(rfc3339),
        unreachable: status
            .unreachable
            .map(|(reason, since)| UnreachableView { reason, since: rfc3339(since) }),
        circuit: status.circuit.map(CircuitView::from),
        calls: status.calls,
        room: load.room.into(),
        held: load.held.into(),
        cpu_family: load.cpu_family,
        expunged: load.is_expunged,
        drain: status.drain.map(DrainView::from),
        lease: status.lease.map(LeaseView::from),
    }
}

async fn one(app: &App, id: SledId) -> Result<SledView, ApiError> {
    let not_found = || ApiError::not_found("sled", &format!("id \"{id}\""));
    let load = app.control.sled(id).await.map_err(|error| command_error(error, not_found))?;
    let status = app.control.sled_status(id).await;
    Ok(view_of(load, status))
}

pub(super) async fn view(State(app): State<Arc<App>>, path: RawPath) -> Result<Json<SledView>, ApiError> {
    one(&app, selector::sled(path)?).await.map(Json)
}

/// What a request about one sled consists of; its body may give a reason.
type About = (State<Arc<App>>, Caller, Once);

pub(super) async fn cordon(about: About, path: RawPath, body: Bytes) -> Result<Response, ApiError> {
    ask(about, path, &body, SledCommand::Cordon).await
}

pub(super) async fn uncordon(about: About, path: RawPath, body: Bytes) -> Result<Response, ApiError> {
    ask(about, path, &body, SledCommand::Uncordon).await
}

pub(super) async fn drain(about: About, path: RawPath, body: Bytes) -> Result<Response, ApiError> {
    ask(about, path, &body, SledCommand::Drain).await
}

pub(super) async fn expunge(about: About, path: RawPath, body: Bytes) -> Result<Response, ApiError> {
    ask(about, path, &body, SledCommand::Expunge).await
}

/// An expunge needs a reason of its own; what can be taken back does not.
async fn ask(
    (State(app), Caller(caller), once): About,
    path: RawPath,
    body: &Bytes,
    command: fn(String) -> SledCommand,
) -> Result<Response, ApiError> {
    let id = selector::sled(path)?;
    let fields = optional_fields(body, &["reason"])?;
    let needs_reason = matches!(command(String::new()), SledCommand::Expunge(_));
    let reason = match fields.optional_text("reason")? {
        Some(reason) => reason.to_owned(),
        None if needs_reason => fields.text("reason")?.to_owned(),
        None => "no reason given".to_owned(),
    };
    let not_found = || ApiError::not_found("sled", &format!("id \"{id}\""));
    let turn = once.turn(&app).await?;
    let position = if let Some(position) = turn.recorded {
        asked_before(&app, position, id, &command(reason))?
    } else {
        let control = app.control.clone();
        let asked = turn.perform(async move { control.ask_sled(id, command(reason), caller).await }).await?;
        asked.map_err(|error| command_error(error, not_found))?.1
    };
    Ok(recorded(position, Json(one(&app, id).await?)))
}

/// Where what an earlier request with the same key asked of the sled was recorded; refused if it asked for
/// something else. The last event of a command is its own: what comes before is what it took along.
fn asked_before(app: &App, position: Position, sled: SledId, command: &SledCommand) -> Result<u64, ApiError> {
    let events = together(app, position)?;
    let last =
        events.last().filter(|last| last.stream == StreamName::Sled(sled)).ok_or_else(used_otherwise)?;
    let Event::Sled(event) = &last.event else {
        return Err(used_otherwise());
    };
    let is_same = match (event, command) {
        (SledEvent::ProvisionableChanged { provisionable: false, reason }, SledCommand::Cordon(asked))
        | (SledEvent::ProvisionableChanged { provisionable: true, reason }, SledCommand::Uncordon(asked))
        | (SledEvent::DrainBegan { reason }, SledCommand::Drain(asked))
        | (SledEvent::Expunged { reason }, SledCommand::Expunge(asked)) => reason == asked,
        _ => false,
    };
    if is_same { Ok(last.meta.position) } else { Err(used_otherwise()) }
}
