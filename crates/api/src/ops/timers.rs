//! The reapers: when each last ran, and what it found.

use super::timer_words;
use crate::error::{ApiError, echo};
use crate::keyed::Once;
use crate::selector::{RawPath, path_text};
use crate::state::App;
use actors::{TimerName, TimerStatus};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use lifecycle::Span;
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

/// One timer, explained.
#[derive(Serialize, ToSchema)]
#[schema(as = TimerExplanation)]
pub(super) struct ExplainedView {
    timer: TimerView,
    /// Why it is there, and why it does nothing if it does not.
    because: Vec<String>,
    owner: &'static str,
    /// The setting of its period.
    setting: &'static str,
    /// When it runs next at the earliest, and at the latest; none before its first run, where it is off, and where each
    /// sled has its own.
    next_from: Option<String>,
    next_by: Option<String>,
    next: Vec<OutcomeView>,
    can: Vec<String>,
}

/// What follows from what is found.
#[derive(Serialize, ToSchema)]
#[schema(as = TimerOutcome)]
struct OutcomeView {
    when: &'static str,
    then: &'static str,
}

/// Why it is there, how it is doing, what comes next and what can be done.
pub(super) async fn explain(
    State(app): State<Arc<App>>,
    path: RawPath,
) -> Result<Json<ExplainedView>, ApiError> {
    let name = named(path)?;
    let statuses = app.control.timers();
    let status = statuses.into_iter().find(|status| status.name == name).expect("every timer has a board");
    Ok(Json(explained(status)))
}

fn explained(status: TimerStatus) -> ExplainedView {
    let words = timer_words::of(status.name);
    let period = Span::from_micros(u64::try_from(status.period.as_micros()).unwrap_or(u64::MAX));
    // One line stands for every sled's own: when one of them runs next is not known here.
    let is_per_sled = matches!(status.name, TimerName::SledWatch | TimerName::SledDrain);
    let last = status.last_run.filter(|_| status.is_on && !is_per_sled);
    let mut because = vec![words.because.to_owned()];
    if !status.is_on {
        because.insert(0, "it is off: retention.deleted_s is 0".to_owned());
    }
    let mut can = vec![format!("musher timer activate {}", status.name.as_str())];
    can.extend(words.can.iter().map(|command| (*command).to_owned()));
    ExplainedView {
        because,
        owner: words.owner,
        setting: words.setting,
        next_from: last.map(|last| rfc3339(last + Span::from_micros(period.micros() / 2))),
        next_by: last.map(|last| rfc3339(last + period)),
        next: words.next.iter().map(|(when, then)| OutcomeView { when, then }).collect(),
        can,
        timer: TimerView::from(status),
    }
}

fn named(path: RawPath) -> Result<TimerName, ApiError> {
    let name = path_text(path)?;
    TimerName::parse(&name).ok_or_else(|| ApiError::not_found("timer", &format!("name \"{}\"", echo(&name))))
}

/// Accepted: it runs as soon as it is not running.
pub(super) async fn activate(
    State(app): State<Arc<App>>,
    once: Once,
    path: RawPath,
) -> Result<StatusCode, ApiError> {
    once.must_have_no_key("activating a timer")?;
    app.control.activate_timer(named(path)?);
    Ok(StatusCode::ACCEPTED)
}
