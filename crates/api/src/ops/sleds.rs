//! Sleds, as they are doing.

use crate::error::ApiError;
use crate::refusal::command_error;
use crate::state::App;
use actors::sled::SledStatus;
use axum::Json;
use axum::extract::State;
use lifecycle::SledId;
use lifecycle::ledger::{Room, SledLoad};
use replay::time::rfc3339;
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
pub(super) struct SledsView {
    items: Vec<SledView>,
}

#[derive(Serialize)]
struct SledView {
    id: SledId,
    name: String,
    provisionable: bool,
    epoch: Option<u64>,
    /// None if it was not heard from since this daemon started.
    last_contact: Option<String>,
    unreachable: Option<UnreachableView>,
    calls: usize,
    room: RoomView,
    held: RoomView,
}

#[derive(Serialize)]
struct UnreachableView {
    reason: String,
    since: String,
}

#[derive(Serialize)]
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
    Ok(Json(SledsView { items: sleds.into_iter().map(|(load, status)| view(load, status)).collect() }))
}

fn view(load: SledLoad, status: Option<SledStatus>) -> SledView {
    let (last_contact, unreachable, calls) = match status {
        None => (None, None, 0),
        Some(status) => (status.last_contact, status.unreachable, status.calls),
    };
    SledView {
        id: load.id,
        name: load.name,
        provisionable: load.is_provisionable,
        epoch: load.boot.map(|(_, epoch)| epoch.get()),
        last_contact: last_contact.map(rfc3339),
        unreachable: unreachable.map(|(reason, since)| UnreachableView { reason, since: rfc3339(since) }),
        calls,
        room: load.room.into(),
        held: load.held.into(),
    }
}
