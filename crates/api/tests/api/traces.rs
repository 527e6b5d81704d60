//! `/ops/v1/trace`.

use crate::stack::{Stack, new_instance};
use axum::body::Body;
use axum::http::{Method, Request};
use replay::trace::{Because, Node, Trace, otlp};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn flat<'a>(nodes: &'a [Node], into: &mut Vec<&'a Node>) {
    for node in nodes {
        into.push(node);
        assert!(node.children.iter().all(|child| child.position > node.position), "causes come first");
        flat(&node.children, into);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_followed_through_steps_answers_and_reports() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let request = Request::builder().method(Method::POST).uri("/v1/instances?project=demo");
    let request = request.header("traceparent", CALLER).body(Body::from(new_instance("web").to_string()));
    let created = stack.send(request.unwrap()).await;
    let id = created.text("id");
    stack.until_run_state(&id, "running").await;
    let trace_of = |request: axum::http::HeaderValue| {
        let path = format!("/ops/v1/trace/{}", request.to_str().unwrap());
        let stack = &stack;
        async move { stack.get(&path).await }
    };
    let answer = trace_of(created.headers["x-request-id"].clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let trace: Trace = serde_json::from_value(answer.body).unwrap();
    assert_eq!((trace.actor.as_str(), trace.stream), ("user operator", format!("instance/{id}")));
    assert!(!trace.is_under_way && !trace.is_cut_off);
    let mut nodes = Vec::new();
    flat(&trace.events, &mut nodes);
    let events: Vec<&str> = nodes.iter().map(|node| node.event.as_str()).collect();
    for event in ["Created", "StartBegan", "SagaAdvanced", "VmmReported", "SagaEnded"] {
        assert!(events.contains(&event), "{event} in {events:?}");
    }
    // Everything that has happened to it so far came of this request.
    let history = stack.get(&format!("/ops/v1/instances/{id}/history")).await;
    let mut positions: Vec<u64> = nodes.iter().map(|node| node.position).collect();
    positions.sort_unstable();
    let recorded: Vec<_> =
        history.body["items"].as_array().unwrap().iter().map(|it| it["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, recorded);

    let stopped = stack.call(Method::POST, &format!("/v1/instances/{id}/stop"), "").await;
    stack.until_run_state(&id, "stopped").await;
    let answer = trace_of(stopped.headers["x-request-id"].clone()).await;
    let trace: Trace = serde_json::from_value(answer.body).unwrap();
    let mut nodes = Vec::new();
    flat(&trace.events, &mut nodes);
    assert_eq!(nodes[0].event, "StopRequested");
    assert!(nodes.iter().any(|node| node.event == "VmmReaped"), "{}", trace.text());
    assert!(!trace.is_under_way, "{}", trace.text());
    assert!(nodes.iter().any(|node| node.because == Because::Vmm), "{}", trace.text());
}

#[tokio::test(start_paused = true)]
async fn a_request_under_the_trace_of_its_caller_is_exported_under_it() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let request = Request::builder().method(Method::POST).uri("/v1/instances?project=demo");
    let request = request.header("traceparent", CALLER).body(Body::from(new_instance("web").to_string()));
    let created = stack.send(request.unwrap()).await;
    let path = format!("/ops/v1/trace/{}", created.headers["x-request-id"].to_str().unwrap());
    let trace: Trace = serde_json::from_value(stack.get(&path).await.body).unwrap();
    let export = otlp(&trace);
    let spans = export["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans[0]["parentSpanId"], "b7ad6b7169203331");
    let ids: Vec<_> = spans.iter().map(|span| span["spanId"].as_str().unwrap()).collect();
    for (nth, span) in spans.iter().enumerate() {
        assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
        assert!(ids[nth].len() == 16 && ids[..nth].iter().all(|other| *other != ids[nth]));
        if nth > 0 {
            assert!(ids[..nth].contains(&span["parentSpanId"].as_str().unwrap()), "parents come first");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_recorded_has_no_trace() {
    let stack = Stack::start(0).await;
    let unknown = "a0b1c2d3-0000-4000-8000-000000000001";
    let message = format!("not found: recorded request with id \"{unknown}\"");
    let answer = stack.get(&format!("/ops/v1/trace/{unknown}")).await;
    assert_eq!(answer.refusal(), (404, "ObjectNotFound", message.as_str()));
    assert_eq!(stack.get("/ops/v1/trace/x").await.refusal().0, 400);
}
