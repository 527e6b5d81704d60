//! What came of one request: the causal tree, from the log alone.
//!
//! A request is one append. What follows from it says so in one of three ways, looked for in this order: it
//! names the event that caused it (answers of sleds), it belongs to a saga that the request began (steps,
//! reports on the way, deadlines), or it is what a sled reports of a VMM that the request is starting, stopping
//! or rebooting. What happens later by itself, such as a guest that crashes, belongs to no request.
//!
//! Invariants:
//! * every event of the tree is an event of the request's stream, once, in the order of the log among its
//!   siblings, and never before what caused it;
//! * no more than [`EVENTS_MAX`] events of the stream are looked at: a longer story says that it is cut off.

mod find;
mod otlp;
mod text;
mod tree;

pub use find::find_request;
pub use otlp::otlp;

use crate::error::Error;
use crate::source::Source;
use lifecycle::RequestId;
use serde::{Deserialize, Serialize};

/// Most events behind a request that are looked at: a migration has about thirty.
pub const EVENTS_MAX: usize = 16_384;

/// Deepest nesting: readers of JSON take about twice as much. What would be deeper stands beside its cause.
const DEPTH_MAX: usize = 48;

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The request.
    pub request_id: String,
    /// Who asked.
    pub actor: String,
    /// The stream that it was recorded in, such as `instance/<id>`.
    pub stream: String,
    /// Build that recorded it.
    pub build: String,
    /// W3C trace that it came with.
    pub trace: Option<TraceParent>,
    /// Recorded time of its first event, RFC 3339 in UTC.
    pub time: String,
    /// From its first event to the newest that followed from it, microseconds.
    pub duration_us: u64,
    /// Whether something that it began has not ended.
    pub is_under_way: bool,
    /// Whether there may be more than was looked at.
    pub is_cut_off: bool,
    /// Its own events, each with what followed from it.
    pub events: Vec<Node>,
}

/// The trace that a request came with, in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceParent {
    /// Trace id, 32 digits.
    pub trace_id: String,
    /// Span id of the caller, 16 digits.
    pub span_id: String,
}

/// One event, and what followed from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Position in the log.
    pub position: u64,
    /// Version in the stream.
    pub version: u64,
    /// Recorded time, RFC 3339 in UTC.
    pub time: String,
    /// The same, microseconds since the Unix epoch.
    pub time_us: u64,
    /// Time since what it followed from, microseconds.
    pub after_us: u64,
    /// How it is known to follow.
    pub because: Because,
    /// What the event is called.
    pub event: String,
    /// One sentence for people.
    pub summary: String,
    /// Who caused it.
    pub actor: String,
    /// The saga it belongs to.
    pub saga_id: Option<String>,
    /// The step of that saga.
    pub saga_step: Option<String>,
    /// What followed from it.
    pub children: Vec<Node>,
}

/// How an event is known to follow from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// It is the request's own.
    Request,
    /// It was decided together with it.
    Together,
    /// It names it.
    Cause,
    /// It belongs to the saga that it began.
    Saga,
    /// It is about the VMM that it is starting, stopping or rebooting.
    Vmm,
}

/// What came of a request; none if the log does not hold it.
pub fn trace(source: &dyn Source, request: RequestId) -> Result<Option<Trace>, Error> {
    match find_request(source, request)? {
        None => Ok(None),
        Some(record) => tree::build(source, request, &record).map(Some),
    }
}

impl Trace {
    /// As a tree of lines, for people.
    pub fn text(&self) -> String {
        text::render(self)
    }
}
