//! Quotas of fleet, silo and project, with what is charged against them.

use crate::body::Fields;
use crate::error::{ApiError, echo};
use crate::frame::Caller;
use crate::fresh::Arrived;
use crate::query::Params;
use crate::refusal::command_error;
use crate::selector::{RawPath, path_text, project_in_query};
use crate::state::App;
use crate::v1::recorded;
use actors::QuotaUse;
use actors::projects::ProjectAsk;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use lifecycle::{Quota, QuotaScope};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = Quota)]
pub(super) struct QuotaView {
    /// `fleet`, `silo` or `project`.
    #[schema(value_type = String)]
    scope: QuotaScope,
    /// Virtual CPUs; none is no limit.
    cpus: Option<u64>,
    /// Bytes; none is no limit.
    memory: Option<u64>,
    used: UsedView,
}

#[derive(Serialize, ToSchema)]
#[schema(as = QuotaUsed)]
struct UsedView {
    cpus: u64,
    memory: u64,
}

impl QuotaView {
    fn new(scope: QuotaScope, of: QuotaUse) -> Self {
        let used = UsedView { cpus: of.used.cpus, memory: of.used.memory };
        Self { scope, cpus: of.quota.cpus, memory: of.quota.memory, used }
    }
}

fn scope(path: RawPath) -> Result<QuotaScope, ApiError> {
    match path_text(path)?.as_str() {
        "fleet" => Ok(QuotaScope::Fleet),
        "silo" => Ok(QuotaScope::Silo),
        "project" => Ok(QuotaScope::Project),
        other => Err(ApiError::not_found("quota", &format!("name \"{}\"", echo(other)))),
    }
}

/// The quota of a scope; for `project`, the query names which.
async fn quota(
    app: &App,
    scope: QuotaScope,
    params: &Params,
    arrived: &Arrived,
) -> Result<QuotaUse, ApiError> {
    let never = || ApiError::internal("a quota was not found");
    if scope == QuotaScope::Project {
        let project = project_in_query(params, arrived).await?;
        let of = app.control.project_quota(project.id).await;
        return of.map_err(|error| command_error(error, || project.not_found()));
    }
    let all = app.control.quotas().await.map_err(|error| command_error(error, never))?;
    Ok(if scope == QuotaScope::Silo { all.silo } else { all.fleet })
}

pub(super) async fn view(
    State(app): State<Arc<App>>,
    arrived: Arrived,
    params: Params,
    path: RawPath,
) -> Result<Json<QuotaView>, ApiError> {
    let scope = scope(path)?;
    Ok(Json(QuotaView::new(scope, quota(&app, scope, &params, &arrived).await?)))
}

/// Sets both limits; one that is missing or null is none.
pub(super) async fn set(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    arrived: Arrived,
    params: Params,
    path: RawPath,
    body: Bytes,
) -> Result<Response, ApiError> {
    let scope = scope(path)?;
    let fields = Fields::parse(&body, &["cpus", "memory"])?;
    let wanted = Quota { cpus: fields.optional_number("cpus")?, memory: fields.optional_number("memory")? };
    let position = if scope == QuotaScope::Project {
        let project = project_in_query(&params, &arrived).await?;
        let ask = ProjectAsk::SetQuota { quota: wanted };
        let asked = app.control.ask_project(Some(project.id), ask, caller).await;
        asked.map_err(|error| command_error(error, || project.not_found()))?.1
    } else {
        let never = || ApiError::internal("a quota was not found");
        app.control.set_quota(scope, wanted, caller).await.map_err(|error| command_error(error, never))?
    };
    let now = quota(&app, scope, &params, &arrived).await?;
    Ok(recorded(position, Json(QuotaView::new(scope, QuotaUse { quota: wanted, ..now }))))
}
