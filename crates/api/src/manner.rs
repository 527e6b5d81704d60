//! How a command is meant: for real or as a rehearsal, and why. Said in the query, on whatever decides.
//!
//! Invariants:
//! * a rehearsal takes the way of the command itself up to the log, and nothing is recorded;
//! * where there is nothing to rehearse, because nothing is decided, a rehearsal is refused and never done.

use crate::error::ApiError;
use crate::query::Params;
use axum::http::{Method, Uri};
use journal::{Event, event_name};
use lifecycle::spec::validate_reason;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// What is done at once, without a decision that could be shown before.
const UNDECIDED: &[&str] =
    &["/ops/v1/timers/{timer}/activate", "/ops/v1/log/snapshot", "/ops/v1/log/compact"];

/// Whether a method of a route records a decision.
pub(crate) fn decides(method: &Method, route: &str) -> bool {
    let changes = [Method::POST, Method::PUT, Method::DELETE].contains(method);
    // What sleds send is a fact, whoever decided it.
    let is_for_clients = route.starts_with("/v1/") || route.starts_with("/ops/v1/");
    changes && is_for_clients && !UNDECIDED.contains(&route)
}

/// How a command is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Whether it is to be decided only.
    pub(crate) is_rehearsal: bool,
    /// Why, for those who read the history.
    pub(crate) reason: Option<String>,
}

impl Manner {
    /// Reads `dry_run` and `reason`; where nothing is decided they mean nothing, except that a rehearsal is
    /// refused where something would be done.
    pub(crate) fn read(
        method: &Method,
        route: Option<&str>,
        uri: &Uri,
        has_key: bool,
    ) -> Result<Self, ApiError> {
        let is_read = [Method::GET, Method::HEAD].contains(method);
        let Some(route) = route.filter(|_| !is_read) else {
            return Ok(Self::default());
        };
        let params = Params::parse(uri.query().unwrap_or_default())?;
        let is_rehearsal = match params.get("dry_run")? {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(refused("dry_run", "it is \"true\" or \"false\"")),
        };
        if is_rehearsal && !decides(method, route) {
            return Err(refused("dry_run", "nothing is decided here that could be shown without doing it"));
        }
        if is_rehearsal && has_key {
            let problem = "nothing is recorded by which a repeat could be told; send it without a key";
            return Err(refused("dry_run", problem));
        }
        let reason = params.get("reason")?.map(str::to_owned);
        if let Some(reason) = &reason {
            validate_reason(reason).map_err(|invalid| refused("reason", &invalid.problem))?;
        }
        Ok(Self { is_rehearsal, reason })
    }
}

fn refused(parameter: &str, problem: &str) -> ApiError {
    ApiError::invalid_request(format!("query parameter \"{parameter}\": {problem}"))
}

/// What would be recorded, and was not.
#[derive(Serialize, ToSchema)]
#[schema(as = DryRun)]
pub(crate) struct DryRunView {
    /// Always true.
    dry_run: bool,
    /// None if nothing would change.
    events: Vec<PlannedView>,
}

/// One event that would be recorded.
#[derive(Serialize, ToSchema)]
#[schema(as = PlannedEvent)]
struct PlannedView {
    event: &'static str,
    #[schema(value_type = Object)]
    data: Value,
}

impl DryRunView {
    pub(crate) fn new(events: &[Event]) -> Self {
        let events = events.iter().map(|event| PlannedView { event: event_name(event), data: data(event) });
        Self { dry_run: true, events: events.collect() }
    }
}

/// The whole event, as a history shows it.
pub(crate) fn data(event: &Event) -> Value {
    let data = match event {
        Event::Instance(event) => serde_json::to_value(event),
        Event::Project(event) => serde_json::to_value(event),
        Event::Sled(event) => serde_json::to_value(event),
        Event::System(event) => serde_json::to_value(event),
    };
    data.unwrap_or(Value::Null)
}
