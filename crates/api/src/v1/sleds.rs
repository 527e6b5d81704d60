//! Sleds, as inventory.

use super::recorded;
use crate::body::{Fields, not_allowed};
use crate::error::ApiError;
use crate::frame::Caller;
use crate::fresh::Arrived;
use crate::page::{Key, List, PageRequest, PageView, Place, SortBy};
use crate::query::Params;
use crate::refusal::command_error;
use crate::selector::{self, RawPath};
use crate::state::App;
use crate::views::{SILO_NAME, SledView};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use lifecycle::sled::SledCommand;
use lifecycle::{InstanceId, MigrationId, RunState, SledId};
use projections::{Order, Scan, SledRow};
use replay::time::rfc3339;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Sleds are listed by id only.
const SORTS: &[SortBy] = &[SortBy::IdAscending];

pub(super) async fn list(arrived: Arrived, params: Params) -> Result<Json<PageView<SledView>>, ApiError> {
    let PageRequest { resumed, limit } = PageRequest::read(List::Sleds, &params)?;
    let place = match resumed {
        Some(place) => place,
        None => Place::start(List::Sleds, None, SORTS, &params)?,
    };
    let after = match place.scan(SledId::new)? {
        Scan::ById { after, .. } => after,
        Scan::ByName { .. } => None,
    };
    let page = arrived.fresh().await?.read(|model| model.sleds(Order::Ascending, after, limit));
    let key = |row: &SledRow| Key { name: row.properties.name.clone(), id: row.id.uuid() };
    Ok(Json(place.page(page, key, SledView::from)))
}

pub(super) async fn view(arrived: Arrived, path: RawPath) -> Result<Json<SledView>, ApiError> {
    let id = selector::sled(path)?;
    let row = arrived.fresh().await?.read(|model| model.sled(id));
    row.map(|row| Json(row.into())).ok_or_else(|| ApiError::not_found("sled", &format!("id \"{id}\"")))
}

/// An instance on a sled: its visible state, never its VMM's.
#[derive(Serialize, ToSchema)]
#[schema(as = SledInstance)]
pub(crate) struct SledInstanceView {
    #[schema(value_type = uuid::Uuid)]
    id: InstanceId,
    #[schema(value_type = uuid::Uuid)]
    active_sled_id: SledId,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<uuid::Uuid>)]
    migration_id: Option<MigrationId>,
    name: String,
    project_name: String,
    silo_name: &'static str,
    ncpus: u16,
    memory: u64,
    #[schema(value_type = String)]
    state: RunState,
    time_created: String,
    time_modified: String,
}

pub(super) async fn instances(
    arrived: Arrived,
    params: Params,
    path: RawPath,
) -> Result<Json<PageView<SledInstanceView>>, ApiError> {
    let sled = selector::sled(path)?;
    let PageRequest { resumed, limit } = PageRequest::read(List::SledInstances, &params)?;
    let place = match resumed {
        Some(place) => place,
        None => Place::start(List::SledInstances, Some(sled.uuid()), SORTS, &params)?,
    };
    let sled = SledId::new(place.within.unwrap_or(sled.uuid()));
    let after = match place.scan(InstanceId::new)? {
        Scan::ById { after, .. } => after,
        Scan::ByName { .. } => None,
    };
    let page = arrived.fresh().await?.read(|model| {
        model.sled(sled)?;
        let page = model.instances_on(sled, Order::Ascending, after, limit);
        Some(page.map(|row| {
            let project_name = model.project(row.spec.project).map(|p| p.name.clone()).unwrap_or_default();
            let migration_id = model.instance_state(row.id).and_then(|state| state.migration);
            SledInstanceView {
                id: row.id,
                active_sled_id: sled,
                migration_id,
                name: row.spec.name,
                project_name,
                silo_name: SILO_NAME,
                ncpus: row.spec.size.ncpus,
                memory: row.spec.size.memory,
                state: row.run_state,
                time_created: rfc3339(row.time_created),
                time_modified: rfc3339(row.time_modified),
            }
        }))
    });
    let page = page.ok_or_else(|| ApiError::not_found("sled", &format!("id \"{sled}\"")))?;
    let key = |row: &SledInstanceView| Key { name: row.name.clone(), id: row.id.uuid() };
    Ok(Json(place.page(page, key, |row| row)))
}

/// What a provision policy was, and is.
#[derive(Serialize, ToSchema)]
#[schema(as = SledProvisionPolicy)]
pub(crate) struct ProvisionPolicyView {
    old_state: &'static str,
    new_state: &'static str,
}

/// Cordons or uncordons, in the words of the field.
pub(super) async fn provision_policy(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    path: RawPath,
    body: Bytes,
) -> Result<Response, ApiError> {
    let id = selector::sled(path)?;
    let fields = Fields::parse(&body, &["state"])?;
    let reason = "set by the provision policy".to_owned();
    let command = match fields.text("state")? {
        "provisionable" => SledCommand::Uncordon(reason),
        "non_provisionable" => SledCommand::Cordon(reason),
        _ => {
            let problem = "state must be \"provisionable\" or \"non_provisionable\"";
            return Err(not_allowed("state", problem));
        }
    };
    let not_found = || ApiError::not_found("sled", &format!("id \"{id}\""));
    let before = app.control.sled(id).await.map_err(|error| command_error(error, not_found))?;
    let asked = app.control.ask_sled(id, command, caller).await;
    let (after, position) = asked.map_err(|error| command_error(error, not_found))?;
    let word = |provisionable| if provisionable { "provisionable" } else { "non_provisionable" };
    let view = ProvisionPolicyView {
        old_state: word(before.is_provisionable),
        new_state: word(after.provisionable),
    };
    Ok(recorded(position, Json(view)))
}
