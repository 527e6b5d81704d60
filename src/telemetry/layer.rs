//! From the daemon's spans to what a collector is told of them.
//!
//! Invariants:
//! * a span is in its parent's trace; one without a parent is in its caller's, if the caller sent one, else it begins
//!   a trace;
//! * what a caller does not want sampled is not exported, and nothing within it is;
//! * closing a span waits for nobody.

use super::exporter::Finished;
use crate::real::{SystemClock, SystemIds};
use actors::{Clock as _, IdSource as _};
use api::SpanTally;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Target of the spans that are meant for collectors.
pub const TARGET: &str = "musher::spans";

/// What a span says of itself if it does not say otherwise: what it is within.
const INHERITED: [&str; 3] = ["request_id", "instance", "saga"];

/// A span that is open.
struct Open {
    trace_id: String,
    span_id: String,
    parent_id: Option<String>,
    is_sampled: bool,
    begin_us: u64,
    /// When it was last left.
    left_us: Option<u64>,
    fields: Fields,
}

/// Hands spans that have ended to the exporter.
pub struct SpanLayer {
    queue: mpsc::Sender<Finished>,
    tally: Arc<SpanTally>,
}

impl SpanLayer {
    /// Spans go into `queue`; those that find it full are counted as lost.
    pub(super) const fn new(queue: mpsc::Sender<Finished>, tally: Arc<SpanTally>) -> Self {
        Self { queue, tally }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let caller = fields.0.remove("traceparent").as_ref().and_then(Value::as_str).and_then(Caller::parse);
        let within = span.parent();
        let within = within.as_ref().map(|parent| parent.extensions());
        let within = within.as_ref().and_then(|extensions| extensions.get::<Open>());
        for name in INHERITED {
            let inherited = within.and_then(|parent| parent.fields.0.get(name));
            if let Some(value) = inherited.filter(|_| !fields.0.contains_key(name)) {
                fields.0.insert(name, value.clone());
            }
        }
        let (trace_id, parent_id, is_sampled) = match (within, caller) {
            (Some(parent), _) => (parent.trace_id.clone(), Some(parent.span_id.clone()), parent.is_sampled),
            (None, Some(caller)) => (caller.trace_id, Some(caller.span_id), caller.is_sampled),
            (None, None) => (SystemIds.uuid().simple().to_string(), None, true),
        };
        // Zero is no id.
        let span_id = format!("{:016x}", SystemIds.dice().max(1));
        let begin_us = SystemClock.now().micros();
        let open = Open { trace_id, span_id, parent_id, is_sampled, begin_us, left_us: None, fields };
        drop(span.extensions_mut().replace(open));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            values.record(&mut open.fields);
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            open.left_us = Some(SystemClock.now().micros());
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else {
            return;
        };
        let Some(open) = span.extensions_mut().remove::<Open>().filter(|open| open.is_sampled) else {
            return;
        };
        let end_us = end_of(&open, span.metadata());
        if self.queue.try_send(finished(open, span.metadata(), end_us)).is_err() {
            self.tally.lost(1);
        }
    }
}

/// A span stays open for as long as one within it is: a request that began a saga was answered long before. So most end
/// when they were last left; a saga, and a call that is waited for, end when they are closed.
fn end_of(open: &Open, metadata: &Metadata<'_>) -> u64 {
    let now = SystemClock.now().micros();
    match metadata.name() {
        "saga" | "sled call" => now,
        _ => open.left_us.unwrap_or(now),
    }
}

/// The span as a collector reads it.
fn finished(open: Open, metadata: &Metadata<'_>, end_us: u64) -> Finished {
    let kind = match metadata.name() {
        "request" => 2,
        "sled call" => 3,
        _ => 1,
    };
    let Fields(mut fields) = open.fields;
    let status = fields.remove("error").map_or_else(|| json!({}), |why| json!({"code": 2, "message": why}));
    let attributes: Vec<Value> = fields.into_iter().map(|(name, value)| attribute(name, value)).collect();
    let nanos = |micros: u64| micros.saturating_mul(1_000).to_string();
    let mut span = json!({
        "traceId": open.trace_id, "spanId": open.span_id, "name": metadata.name(), "kind": kind,
        // A clock that is set back makes no span end before it began.
        "startTimeUnixNano": nanos(open.begin_us), "endTimeUnixNano": nanos(end_us.max(open.begin_us)),
        "attributes": attributes, "status": status,
    });
    if let Some(parent) = open.parent_id {
        span["parentSpanId"] = Value::from(parent);
    }
    Finished(span)
}

fn attribute(name: &str, value: Value) -> Value {
    let value = match value {
        Value::Bool(value) => json!({"boolValue": value}),
        // 64 bits are text in this format.
        Value::Number(value) => json!({"intValue": value.to_string()}),
        value => json!({"stringValue": value}),
    };
    json!({"key": format!("musher.{name}"), "value": value})
}

/// Who sent a request, as its `traceparent` says; what is malformed never gets this far.
struct Caller {
    trace_id: String,
    span_id: String,
    is_sampled: bool,
}

impl Caller {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-').skip(1).map(str::to_owned);
        let (trace_id, span_id) = (parts.next()?, parts.next()?);
        let flags = u8::from_str_radix(&parts.next()?, 16).ok()?;
        Some(Self { trace_id, span_id, is_sampled: flags & 1 == 1 })
    }
}

/// What a span says of itself.
#[derive(Default)]
struct Fields(BTreeMap<&'static str, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").expect("a String takes everything");
        self.0.insert(field.name(), Value::from(text));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name(), Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name(), Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::{Span, debug_span};
    use tracing_subscriber::layer::SubscriberExt as _;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";

    /// What is handed over of what is made.
    fn spans_of(room: usize, made: impl FnOnce()) -> (Vec<Value>, u64) {
        let (queue, mut finished) = mpsc::channel(room);
        let tally = Arc::new(SpanTally::default());
        let layer = SpanLayer::new(queue, Arc::clone(&tally));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), made);
        let spans = std::iter::from_fn(|| finished.try_recv().ok()).map(|Finished(span)| span).collect();
        (spans, tally.counts().1)
    }

    fn request(flags: &str) -> Span {
        let traceparent = format!("{CALLER}{flags}");
        debug_span!(target: TARGET, "request", request_id = "r1", traceparent, status = tracing::field::Empty)
    }

    #[test]
    fn a_span_is_in_its_callers_trace_and_says_what_it_is_within() {
        let (spans, lost) = spans_of(8, || {
            let request = request("1");
            let child = debug_span!(target: TARGET, parent: &request, "sled call", instance = "i1");
            request.record("status", 202_u16);
            drop((child, request));
        });
        let [call, request] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!(request["traceId"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(request["parentSpanId"], "b7ad6b7169203331");
        assert_eq!((&request["kind"], &call["kind"]), (&json!(2), &json!(3)));
        assert_eq!((&call["traceId"], &call["parentSpanId"]), (&request["traceId"], &request["spanId"]));
        let says = |span: &Value, name: &str, value: Value| {
            span["attributes"].as_array().unwrap().contains(&json!({"key": name, "value": value}))
        };
        assert!(says(request, "musher.status", json!({"intValue": "202"})), "{request}");
        assert!(says(call, "musher.request_id", json!({"stringValue": "r1"})), "{call}");
        assert!(says(call, "musher.instance", json!({"stringValue": "i1"})), "{call}");
        assert_eq!(lost, 0);
    }

    #[test]
    fn what_the_caller_does_not_sample_is_not_exported_and_neither_is_anything_within_it() {
        let (spans, lost) = spans_of(8, || {
            let request = request("0");
            drop(debug_span!(target: TARGET, parent: &request, "command"));
        });
        assert_eq!((spans.len(), lost), (0, 0));
    }

    #[test]
    fn a_failure_is_the_spans_status_and_a_span_without_a_caller_begins_a_trace() {
        let (spans, _) = spans_of(8, || drop(debug_span!(target: TARGET, "sled call", error = "it is away")));
        assert_eq!(spans[0]["status"], json!({"code": 2, "message": "it is away"}));
        assert_eq!(spans[0]["traceId"].as_str().unwrap().len(), 32);
        assert_eq!(spans[0]["parentSpanId"], Value::Null);
    }

    #[test]
    fn what_finds_the_queue_full_is_counted_and_waits_for_nobody() {
        let (spans, lost) = spans_of(1, || (0..5).for_each(|_| drop(debug_span!(target: TARGET, "append"))));
        assert_eq!((spans.len(), lost), (1, 4));
    }
}
