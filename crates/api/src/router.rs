//! What is where: one router for people and their tools, one for sleds.

use crate::config::ApiConfig;
use crate::error::ApiError;
use crate::frame::frame;
use crate::openapi::openapi_json;
use crate::state::{ApiState, App};
use crate::{health, metrics, ops, sled_intake, v1};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;

/// The router of the external API: `/v1`, `/ops/v1`, the probes and the metrics. On a runtime: it follows the log.
pub fn router(state: ApiState, config: ApiConfig) -> Router {
    let routes = Router::new()
        .nest("/v1", v1::routes())
        .nest("/ops/v1", ops::routes())
        .route("/healthz", get(health::up))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::scrape))
        .route("/openapi.json", get(openapi));
    framed(routes, App::for_clients(state, config))
}

/// The router that sleds call.
pub fn sled_router(state: ApiState, config: ApiConfig) -> Router {
    framed(sled_intake::routes(), App::for_sleds(state, config))
}

fn framed(routes: Router<Arc<App>>, app: Arc<App>) -> Router {
    routes
        .fallback(|| async { not_found() })
        // The frame has bounded the body already.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(&app), frame))
        .with_state(app)
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json())
}

fn not_found() -> impl IntoResponse {
    let mut error = ApiError::new(StatusCode::NOT_FOUND, "ObjectNotFound", "Not Found");
    error.code = None;
    error
}
