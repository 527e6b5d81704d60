//! Provisioning and capacity of the one silo there is, in the words of the field.

use crate::error::ApiError;
use crate::page::PageView;
use crate::refusal::command_error;
use crate::state::App;
use crate::views::{SILO_ID, SILO_NAME};
use actors::QuotaUse;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// Clients want numbers, and no limit is a large one that every client can hold.
const NO_LIMIT: u64 = (1 << 53) - 1;

#[derive(Serialize, ToSchema)]
#[schema(as = ResourceCounts)]
struct CountsView {
    cpus: u64,
    memory: u64,
    storage: u64,
}

/// What the silo may use, and what is charged.
#[derive(Serialize, ToSchema)]
#[schema(as = Utilization)]
pub(crate) struct UtilizationView {
    capacity: CountsView,
    provisioned: CountsView,
}

/// A silo: what it may use, and what is charged.
#[derive(Serialize, ToSchema)]
#[schema(as = SiloUtilization)]
pub(crate) struct SiloUtilizationView {
    silo_id: Uuid,
    silo_name: &'static str,
    allocated: CountsView,
    provisioned: CountsView,
}

async fn silo(app: &App) -> Result<(CountsView, CountsView), ApiError> {
    let never = || ApiError::internal("a silo was not found");
    let quotas = app.control.quotas().await.map_err(|error| command_error(error, never))?;
    let QuotaUse { quota, used } = quotas.silo;
    let limit = |limit: Option<u64>| limit.unwrap_or(NO_LIMIT).min(NO_LIMIT);
    let allowed = CountsView { cpus: limit(quota.cpus), memory: limit(quota.memory), storage: 0 };
    Ok((allowed, CountsView { cpus: used.cpus, memory: used.memory, storage: 0 }))
}

pub(super) async fn view(State(app): State<Arc<App>>) -> Result<Json<UtilizationView>, ApiError> {
    let (capacity, provisioned) = silo(&app).await?;
    Ok(Json(UtilizationView { capacity, provisioned }))
}

pub(super) async fn silos(
    State(app): State<Arc<App>>,
) -> Result<Json<PageView<SiloUtilizationView>>, ApiError> {
    let (allocated, provisioned) = silo(&app).await?;
    let view = SiloUtilizationView { silo_id: SILO_ID, silo_name: SILO_NAME, allocated, provisioned };
    Ok(Json(PageView::one(view)))
}
