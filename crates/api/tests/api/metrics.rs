//! `/metrics`.

use crate::stack::{Stack, new_instance};
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::json;
use std::collections::BTreeMap;

/// The samples of a scrape by name and labels. Fails on what is not in the format.
pub async fn scrape(stack: &Stack) -> BTreeMap<String, f64> {
    let request = Request::builder().uri("/metrics").body(Body::empty()).unwrap();
    let response = stack.raw(request).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap();
    let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{name} is declared once");
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            assert!(types.contains_key(name) || base.is_some_and(|it| types.contains_key(it)), "{line}");
            assert_eq!(samples.insert(sample.to_owned(), value.parse().unwrap()), None, "{sample} twice");
        }
    }
    samples
}

#[tokio::test(start_paused = true)]
async fn what_people_on_call_look_at_is_counted() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    let mut body = new_instance("web");
    body["auto_restart_policy"] = json!("never");
    let id = stack.post("/v1/instances?project=demo", &body).await.text("id");
    stack.until_run_state(&id, "running").await;
    for _ in 0..3 {
        assert_eq!(stack.get(&format!("/v1/instances/{id}")).await.status, 200);
        assert_eq!(stack.get("/v1/instances/nope?project=demo").await.status, 404);
        assert_eq!(stack.get(&format!("/no/such/path/{id}")).await.status, 404);
    }
    let samples = scrape(&stack).await;
    let route = "route=\"/v1/instances/{instance}\",method=\"GET\"";
    for (sample, value) in [
        (format!("musher_http_requests_total{{{route},status=\"200\"}}"), 3.0),
        (format!("musher_http_requests_total{{{route},status=\"404\"}}"), 3.0),
        ("musher_http_requests_total{route=\"none\",method=\"GET\",status=\"404\"}".to_owned(), 3.0),
        (format!("musher_http_request_seconds_count{{{route}}}"), 6.0),
        ("musher_instances{state=\"running\"}".to_owned(), 1.0),
        ("musher_instances{state=\"failed\"}".to_owned(), 0.0),
        ("musher_sleds{reachable=\"true\"}".to_owned(), 2.0),
        ("musher_sleds{reachable=\"false\"}".to_owned(), 0.0),
        ("musher_attention".to_owned(), 0.0),
        ("musher_ready".to_owned(), 1.0),
        ("musher_log_refuses".to_owned(), 0.0),
        ("musher_read_model_following".to_owned(), 1.0),
        ("musher_instances_live".to_owned(), 1.0),
        ("musher_sagas_total{kind=\"start\",outcome=\"done\"}".to_owned(), 1.0),
        ("musher_sagas_total{kind=\"migrate\",outcome=\"unwound\"}".to_owned(), 0.0),
        ("musher_saga_seconds_count{kind=\"start\"}".to_owned(), 1.0),
        ("musher_saga_seconds_bucket{kind=\"start\",le=\"120\"}".to_owned(), 1.0),
        ("musher_reports_total{outcome=\"refused\"}".to_owned(), 0.0),
        ("musher_admission_refusals_total".to_owned(), 0.0),
        ("musher_requests_waiting".to_owned(), 0.0),
        ("musher_timer_found_total{timer=\"stuck-saga\"}".to_owned(), 0.0),
        ("musher_log_waiting".to_owned(), 0.0),
        ("musher_events_total{event=\"StartBegan\",kind=\"102\"}".to_owned(), 1.0),
        ("musher_events_total{event=\"ReportAnomalous\",kind=\"107\"}".to_owned(), 0.0),
    ] {
        assert_eq!(samples.get(&sample).copied(), Some(value), "{sample}");
    }
    assert!(samples["musher_reports_total{outcome=\"accepted\"}"] > 0.0, "sleds report");
    assert!(samples["musher_log_sync_seconds_count"] > 0.0, "what is durable was synced");
    #[expect(clippy::cast_precision_loss, reason = "positions of a test are small")]
    let durable = stack.durable() as f64;
    assert_eq!(samples.get("musher_log_durable_position").copied(), Some(durable));
    let secret = samples.keys().find(|sample| sample.contains(&id));
    assert_eq!(secret, None, "what clients send is no label");
    let vmm = stack.get(&format!("/ops/v1/instances/{id}")).await.body["state"]["active"].clone();
    stack.crash_guest(vmm.as_str().unwrap());
    stack.until_run_state(&id, "failed").await;
    assert_eq!(scrape(&stack).await["musher_attention"].to_string(), "1");
}
