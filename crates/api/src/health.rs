//! Probes: whether the process is up, and whether it takes requests.

use crate::error::ApiError;
use crate::state::{App, Phase};
use axum::Json;
use axum::extract::State;
use projections::Stage;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// That the process is up.
#[derive(Serialize, ToSchema)]
#[schema(as = Up)]
pub(crate) struct UpView {
    status: &'static str,
    build: String,
}

/// Answers as long as the process can.
pub(crate) async fn up(State(app): State<Arc<App>>) -> Json<UpView> {
    Json(UpView { status: "ok", build: app.build.clone() })
}

/// That it takes requests.
#[derive(Serialize, ToSchema)]
#[schema(as = Ready)]
pub(crate) struct ReadyView {
    status: &'static str,
}

/// 503 with the reason unless commands and reads are expected to succeed.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Json<ReadyView>, ApiError> {
    match app.ready.phase() {
        Phase::Starting => return Err(ApiError::unavailable("the daemon is starting")),
        Phase::ShuttingDown => return Err(ApiError::unavailable("the daemon is shutting down")),
        Phase::Failed(why) => return Err(ApiError::unavailable(format!("the daemon must end: {why}"))),
        Phase::Ready => {}
    }
    if let Some(refusal) = app.control.log().refusal() {
        return Err(ApiError::unavailable(refusal.to_string()));
    }
    match app.projections.health().stage {
        Stage::CatchingUp => Err(ApiError::unavailable("the read model is catching up with the log")),
        Stage::Stopped(why) => Err(ApiError::unavailable(format!("the read model has stopped: {why}"))),
        Stage::Following => Ok(Json(ReadyView { status: "ready" })),
    }
}
