//! `/v1`: the API that clients of the field know, one file per noun.

mod instances;
mod me;
mod projects;
pub(crate) mod repeat;
mod serial;
mod sleds;
mod utilization;

pub(crate) use instances::{About, accepted};

use crate::error::ApiError;
use crate::openapi::schemas_of;
use crate::page::PageView;
use crate::state::App;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

const LOG_POSITION: HeaderName = HeaderName::from_static("x-log-position");

/// That the API answers.
#[derive(Serialize, ToSchema)]
#[schema(as = Ping)]
struct PingView {
    status: &'static str,
}

/// The schema of every view that is of this module alone, with its name.
pub(crate) fn schemas(each: &mut dyn FnMut((String, Value))) {
    schemas_of::<PingView>(each);
    schemas_of::<serial::SerialView>(each);
    schemas_of::<sleds::ProvisionPolicyView>(each);
    schemas_of::<sleds::SledInstanceView>(each);
    schemas_of::<utilization::SiloUtilizationView>(each);
    schemas_of::<utilization::UtilizationView>(each);
}

/// Every route below `/v1`.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/ping", get(|| async { Json(PingView { status: "ok" }) }))
        .route("/me", get(me::view))
        .route("/projects", get(projects::list).post(projects::create))
        .route("/projects/{project}", get(projects::view).put(projects::update).delete(projects::delete))
        .route("/instances", get(instances::list).post(instances::create))
        .route("/instances/{instance}", get(instances::view).put(instances::update).delete(instances::delete))
        .route("/instances/{instance}/start", post(instances::start))
        .route("/instances/{instance}/stop", post(instances::stop))
        .route("/instances/{instance}/reboot", post(instances::reboot))
        .route("/instances/{instance}/serial-console", get(serial::read))
        .route("/instances/{instance}/disks", get(instances::nothing))
        .route("/instances/{instance}/external-ips", get(instances::nothing))
        .route("/instances/{instance}/anti-affinity-groups", get(instances::nothing))
        .route("/system/hardware/sleds", get(sleds::list))
        .route("/system/hardware/sleds/{sled}", get(sleds::view))
        .route("/system/hardware/sleds/{sled}/instances", get(sleds::instances))
        .route("/system/hardware/sleds/{sled}/provision-policy", put(sleds::provision_policy))
        .route("/system/utilization/silos", get(utilization::silos))
        .route("/utilization", get(utilization::view))
        .route("/me/groups", get(nothing))
        .route("/network-interfaces", get(nothing))
        .route("/anti-affinity-groups", get(nothing))
}

/// A list of what there is none of.
async fn nothing() -> Json<PageView<()>> {
    Json(PageView::empty())
}

/// An answer to something that was recorded: says where in the log it, or what made it unnecessary, is.
pub(crate) fn recorded(position: u64, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    response.headers_mut().insert(LOG_POSITION, HeaderValue::from(position));
    response
}

/// That what an earlier request with the same key recorded cannot be read at present.
fn unreadable(error: &impl std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("what this key stands for cannot be read: {error}"))
}
