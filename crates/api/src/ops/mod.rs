//! `/ops/v1`: what operators ask, one file per noun. Ours; nobody else's clients depend on it.

mod attention;
mod instances;
mod keep;
mod log;
mod sleds;

use crate::state::App;
use axum::Router;
use axum::routing::{get, post};
use std::sync::Arc;

/// Every route below `/ops/v1`.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/instances/{instance}", get(instances::view))
        .route("/instances/{instance}/history", get(instances::history))
        .route("/sleds", get(sleds::list))
        .route("/log/stats", get(log::stats))
        .route("/log/tail", get(keep::tail))
        .route("/log/export", get(keep::export_log))
        .route("/log/snapshot", post(keep::snapshot))
        .route("/log/compact", post(keep::compact))
        .route("/attention", get(attention::list))
}
