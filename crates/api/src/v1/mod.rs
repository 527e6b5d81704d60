//! `/v1`: the API that clients of the field know, one file per noun.

mod instances;
mod me;
mod projects;
mod sleds;

use crate::page::PageView;
use crate::state::App;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use std::sync::Arc;

const LOG_POSITION: HeaderName = HeaderName::from_static("x-log-position");

#[derive(Serialize)]
struct PingView {
    status: &'static str,
}

/// Every route below `/v1`.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/ping", get(|| async { Json(PingView { status: "ok" }) }))
        .route("/me", get(me::view))
        .route("/projects", get(projects::list).post(projects::create))
        .route("/projects/{project}", get(projects::view).put(projects::update).delete(projects::delete))
        .route("/instances", get(instances::list).post(instances::create))
        .route("/instances/{instance}", get(instances::view).delete(instances::delete))
        .route("/instances/{instance}/start", post(instances::start))
        .route("/instances/{instance}/stop", post(instances::stop))
        .route("/instances/{instance}/reboot", post(instances::reboot))
        .route("/instances/{instance}/disks", get(instances::nothing))
        .route("/instances/{instance}/external-ips", get(instances::nothing))
        .route("/instances/{instance}/anti-affinity-groups", get(instances::nothing))
        .route("/system/hardware/sleds", get(sleds::list))
        .route("/system/hardware/sleds/{sled}", get(sleds::view))
        .route("/me/groups", get(nothing))
        .route("/network-interfaces", get(nothing))
        .route("/anti-affinity-groups", get(nothing))
}

/// A list of what there is none of.
async fn nothing() -> Json<PageView<()>> {
    Json(PageView::empty())
}

/// An answer to something that was recorded: says where in the log it, or what made it unnecessary, is.
fn recorded(position: u64, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    response.headers_mut().insert(LOG_POSITION, HeaderValue::from(position));
    response
}
