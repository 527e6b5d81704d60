//! The tree as OpenTelemetry spans, in the JSON that collectors read (`ExportTraceServiceRequest`).
//!
//! The request is one span, and so is every event: from what it followed from to when it was recorded, which
//! is what was waited for.

use super::{Node, Trace};
use serde_json::{Value, json};

/// Kinds of spans by their number in the format.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;

/// One export of one trace. With a trace of its own the request hangs under its caller's span; without one the
/// request's id is the trace's.
pub fn otlp(trace: &Trace) -> Value {
    let plain: String = trace.request_id.chars().filter(char::is_ascii_hexdigit).collect();
    let trace_id = trace.trace.as_ref().map_or_else(|| plain.clone(), |parent| parent.trace_id.clone());
    // Ids of events are their positions, which are small: the request's own never is.
    let root_id = format!("f{}", plain.get(..15).unwrap_or("000000000000000"));
    let begin = trace.events.first().map_or(0, |node| node.time_us);
    let mut root = span(&trace_id, &root_id, "request", SERVER, begin, begin + trace.duration_us);
    if let Some(parent) = &trace.trace {
        root["parentSpanId"] = json!(parent.span_id);
    }
    root["attributes"] = attributes(&[
        ("musher.request_id", &trace.request_id),
        ("musher.actor", &trace.actor),
        ("musher.stream", &trace.stream),
    ]);
    let mut spans = vec![root];
    for node in &trace.events {
        add(node, &trace_id, &root_id, &mut spans);
    }
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(&[("service.name", "musher"), ("service.version", &trace.build)])},
        "scopeSpans": [{"scope": {"name": "musher"}, "spans": spans}],
    }]})
}

fn add(node: &Node, trace_id: &str, parent: &str, spans: &mut Vec<Value>) {
    let id = format!("{:016x}", node.position);
    let begin = node.time_us.saturating_sub(node.after_us);
    let mut one = span(trace_id, &id, &node.event, INTERNAL, begin, node.time_us);
    one["parentSpanId"] = json!(parent);
    let (position, version) = (node.position.to_string(), node.version.to_string());
    one["attributes"] = attributes(&[
        ("musher.summary", &node.summary),
        ("musher.actor", &node.actor),
        ("musher.position", &position),
        ("musher.version", &version),
        ("musher.saga_id", node.saga_id.as_deref().unwrap_or_default()),
        ("musher.saga_step", node.saga_step.as_deref().unwrap_or_default()),
    ]);
    spans.push(one);
    for child in &node.children {
        add(child, trace_id, &id, spans);
    }
}

fn span(trace_id: &str, id: &str, name: &str, kind: u8, begin_us: u64, end_us: u64) -> Value {
    let nanos = |micros: u64| micros.saturating_mul(1_000).to_string();
    json!({
        "traceId": trace_id, "spanId": id, "name": name, "kind": kind,
        "startTimeUnixNano": nanos(begin_us), "endTimeUnixNano": nanos(end_us),
    })
}

/// Those that say something.
fn attributes(pairs: &[(&str, &str)]) -> Value {
    let said = pairs.iter().filter(|(_, value)| !value.is_empty());
    said.map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect()
}
