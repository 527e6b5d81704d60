//! The reapers: when each last ran, and what it found.

use crate::error::{ApiError, echo};
use crate::keyed::Once;
use crate::selector::{RawPath, path_text};
use crate::state::App;
use actors::{TimerName, TimerStatus};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use replay::time::rfc3339;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = Timers)]
pub(super) struct TimersView {
    items: Vec<TimerView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Timer)]
struct TimerView {
    name: &'static str,
    does: &'static str,
    /// Seconds; each pause is drawn between half of it and all of it.
    period_s: f64,
    /// False if it is switched off by the configuration.
    on: bool,
    runs: u64,
    found: u64,
    last_run: Option<String>,
    last_found: u64,
    /// What the last run could not do, if there was something.
    last_trouble: Option<String>,
}

impl From<TimerStatus> for TimerView {
    fn from(status: TimerStatus) -> Self {
        Self {
            name: status.name.as_str(),
            does: status.name.purpose(),
            period_s: status.period.as_secs_f64(),
            on: status.is_on,
            runs: status.runs,
            found: status.found,
            last_run: status.last_run.map(rfc3339),
            last_found: status.last_found,
            last_trouble: status.last_trouble,
        }
    }
}

pub(super) async fn list(State(app): State<Arc<App>>) -> Json<TimersView> {
    Json(TimersView { items: app.control.timers().into_iter().map(TimerView::from).collect() })
}

/// Accepted: it runs as soon as it is not running.
pub(super) async fn activate(
    State(app): State<Arc<App>>,
    once: Once,
    path: RawPath,
) -> Result<StatusCode, ApiError> {
    once.must_have_no_key("activating a timer")?;
    let name = path_text(path)?;
    let timer = TimerName::parse(&name)
        .ok_or_else(|| ApiError::not_found("timer", &format!("name \"{}\"", echo(&name))))?;
    app.control.activate_timer(timer);
    Ok(StatusCode::ACCEPTED)
}
