//! What came of a request, from the log alone.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod world;

use eventlog::Log;
use lifecycle::RequestId;
use replay::trace::{Because, Node, find_request, otlp, trace};
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;
use world::{World, id};

fn source(world: &World) -> Arc<dyn Log> {
    Arc::clone(&world.log)
}

/// The requests that the log holds, oldest first.
fn requests(source: &Arc<dyn Log>) -> Vec<RequestId> {
    let records = source.read_all(eventlog::Position::new(1), usize::MAX).unwrap();
    let ids = records.iter().filter_map(|record| record.context.as_ref()?.request);
    ids.map(|id| RequestId::new(Uuid::from_bytes(id))).collect()
}

fn shape(nodes: &[Node], depth: usize, into: &mut Vec<String>) {
    for node in nodes {
        into.push(format!("{}{} {:?}", "  ".repeat(depth), node.event, node.because));
        shape(&node.children, depth + 1, into);
    }
}

#[test]
fn a_life_is_two_requests_and_what_came_of_each() {
    let mut world = World::simulated();
    world.live(id(1));
    let source = source(&world);
    let [created, stopped] = requests(&source)[..] else {
        panic!("a create and a stop");
    };
    let mut shown = Vec::new();
    for request in [created, stopped] {
        let trace = trace(&source, request).unwrap().unwrap();
        assert_eq!((trace.actor.as_str(), trace.stream), ("user demo", format!("instance/{}", id(1))));
        assert!(!trace.is_under_way && !trace.is_cut_off);
        shape(&trace.events, 0, &mut shown);
    }
    let expected = [
        "Created Request",
        "  StartBegan Together",
        "    VmmReported Vmm",
        "      SagaAdvanced Together",
        "    VmmReported Vmm",
        "      SagaEnded Together",
        "  SagaAdvanced Together",
        "StopRequested Request",
        "  VmmReported Vmm",
        "  VmmReported Vmm",
        "    VmmGone Together",
        "    Updated Together",
        "    VmmReaped Together",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn what_happens_by_itself_belongs_to_no_request() {
    let mut world = World::simulated();
    world.create(id(1), true);
    world.says(id(1), 1, lifecycle::VmmState::Starting);
    let source = source(&world);
    let request = requests(&source)[0];
    assert!(trace(&source, request).unwrap().unwrap().is_under_way);
    world.says(id(1), 2, lifecycle::VmmState::Running);
    let whole = trace(&source, request).unwrap().unwrap();
    world.says(id(1), 3, lifecycle::VmmState::Failed);
    assert_eq!(trace(&source, request).unwrap().unwrap(), whole, "the guest crashed later");
}

fn flat<'a>(nodes: &'a [Node], above: Option<&Node>, into: &mut Vec<&'a Node>) {
    assert!(nodes.is_sorted_by_key(|node| node.position), "siblings stand in the order of the log");
    for node in nodes {
        if let Some(above) = above {
            assert!(node.position > above.position && node.time_us == above.time_us + node.after_us);
        }
        assert_eq!(above.is_none(), node.because == Because::Request);
        into.push(node);
        flat(&node.children, Some(node), into);
    }
}

#[test]
fn every_event_comes_of_at_most_one_request() {
    for seed in 0..20 {
        let mut world = World::simulated();
        world.walk(seed, 3, 300);
        let source = source(&world);
        let mut seen = std::collections::BTreeSet::new();
        let all = requests(&source);
        assert!(all.len() > 10, "{}", all.len());
        for request in all {
            let trace = trace(&source, request).unwrap().unwrap();
            let mut nodes = Vec::new();
            flat(&trace.events, None, &mut nodes);
            for node in &nodes {
                assert!(seen.insert(node.position), "seed {seed}: position {} twice", node.position);
            }
            assert_eq!(trace.text().lines().count(), nodes.len() + 1);
            let spans = otlp(&trace)["resourceSpans"][0]["scopeSpans"][0]["spans"].clone();
            assert_eq!(spans.as_array().unwrap().len(), nodes.len() + 1);
            let last = nodes.iter().map(|node| node.time_us).max().unwrap();
            assert_eq!(trace.duration_us, last - nodes[0].time_us);
        }
    }
}

#[test]
fn a_trace_reads_back_from_its_json_and_as_lines() {
    let mut world = World::simulated();
    world.live(id(1));
    let source = source(&world);
    let trace = trace(&source, requests(&source)[1]).unwrap().unwrap();
    let json = serde_json::to_string(&trace).unwrap();
    assert_eq!(serde_json::from_str::<replay::trace::Trace>(&json).unwrap(), trace);
    let text = trace.text();
    assert!(text.starts_with(&format!("request {} by user demo in instance/", trace.request_id)), "{text}");
    assert!(text.contains("├─ +1000.0 ms VmmReported #9 by sled "), "{text}");
    assert!(text.contains("   ├─ +1 us VmmGone #11: VMM a0000004 on sled sim-0 is gone"), "{text}");
    let export = otlp(&trace);
    let spans = &export["resourceSpans"][0]["scopeSpans"][0]["spans"];
    assert_eq!((&spans[0]["name"], &spans[0]["kind"]), (&json!("request"), &json!(2)));
    assert_eq!(spans[1]["parentSpanId"], spans[0]["spanId"]);
    let nanos = |span: usize, end: &str| spans[span][end].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(nanos(2, "endTimeUnixNano") - nanos(2, "startTimeUnixNano"), 1_000_000_000);
}

#[test]
fn a_request_is_found_on_whatever_page_of_the_log_it_is() {
    let mut world = World::simulated();
    for n in 0..100 {
        world.create(id(n), false);
    }
    let source = source(&world);
    let all = requests(&source);
    for n in 0..100 {
        // Some forty events each: three pages in all.
        for _ in 0..20 {
            world.start(id(n));
            world.says(id(n), 1, lifecycle::VmmState::Starting);
            world.says(id(n), 2, lifecycle::VmmState::Failed);
        }
    }
    assert!(source.durable().get() > 8_192, "{}", source.durable());
    for request in all {
        assert!(find_request(&source, request).unwrap().is_some());
    }
    assert_eq!(find_request(&source, RequestId::new(Uuid::from_u128(1))).unwrap(), None);
}
