//! What surrounds every request: ids, traces, unknown routes, positions, probes.

use crate::stack::Stack;
use api::{ApiConfig, Phase};
use axum::body::Body;
use axum::http::{Method, Request};
use eventlog::{AppendOutcome, Log, Position, Version};
use futures::FutureExt;
use journal::{Actor, Context, Event, StreamName};
use lifecycle::{ProjectEvent, ProjectId, Timestamp};
use sim_sled::machine::Mode;
use std::time::Duration;
use uuid::Uuid;

fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_id_is_taken_if_it_is_a_uuid_and_minted_otherwise() {
    let stack = Stack::start(0).await;
    let good = "a0b1c2d3-0000-4000-8000-000000000001";
    for path in ["/v1/ping", "/v1/nothing-here"] {
        let answer = stack.send(request(Method::GET, path, &[("x-request-id", good)])).await;
        assert_eq!(answer.headers["x-request-id"], good);
    }
    let mut minted = Vec::new();
    for bad in ["", "7", "not a uuid", "00000000-0000-0000-0000-000000000000", &"a".repeat(500)] {
        let answer = stack.send(request(Method::GET, "/v1/ping", &[("x-request-id", bad)])).await;
        minted.push(answer.headers["x-request-id"].clone());
        assert_ne!(answer.headers["x-request-id"], bad);
    }
    minted.dedup();
    assert_eq!(minted.len(), 5, "each is its own");
}

#[tokio::test(start_paused = true)]
async fn request_and_trace_are_recorded_with_the_command() {
    let stack = Stack::start(0).await;
    let id = "a0b1c2d3-0000-4000-8000-000000000001";
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut asked = request(Method::POST, "/v1/projects", &[("x-request-id", id), ("traceparent", trace)]);
    *asked.body_mut() = Body::from(r#"{"name":"demo","description":""}"#);
    let answer = stack.send(asked).await;
    assert_eq!(answer.status, 201);
    let record = stack.log.read_all(Position::new(answer.position()), 1).unwrap().remove(0);
    let context = record.context.unwrap();
    assert_eq!(context.request, Some(*id.parse::<Uuid>().unwrap().as_bytes()));
    assert_eq!(context.trace.unwrap().span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
}

#[tokio::test(start_paused = true)]
async fn unknown_routes_and_wrong_methods_answer_like_everything_else() {
    let stack = Stack::start(0).await;
    for path in
        ["/", "/v1", "/v1/", "/v1/nothing", "/v2/instances", "/ops/v1/nothing", "/v1/instances/a/b/c", "/💥"]
    {
        let encoded = path.replace('💥', "%F0%9F%92%A5");
        let answer = stack.get(&encoded).await;
        assert_eq!(answer.refusal(), (404, "", "Not Found"), "{path}");
    }
    for (method, path, allow) in [
        (Method::DELETE, "/v1/ping", "GET,HEAD"),
        (Method::PATCH, "/v1/projects", "GET,HEAD,POST"),
        (Method::GET, "/v1/instances/web/start", "POST"),
        (Method::POST, "/readyz", "GET,HEAD"),
    ] {
        let answer = stack.call(method, path, "").await;
        assert_eq!(answer.refusal(), (405, "", "Method Not Allowed"), "{path}");
        assert_eq!(answer.headers["allow"], allow, "{path}");
    }
    let head = stack.call(Method::HEAD, "/v1/ping", "").await;
    assert_eq!(head.status, 200);
}

/// A project that somebody else has recorded, without letting anybody else run.
fn record_project(stack: &Stack, name: &str) {
    let id = ProjectId::new(Uuid::from_u128(0x9999));
    let stream = StreamName::Project(id);
    let epoch = stack.log.claim(stream.id()).now_or_never().unwrap().unwrap().epoch;
    let created = ProjectEvent::Created { id, name: name.to_owned(), description: String::new(), vni: 77 };
    let (now, context) = (Timestamp::from_micros(1), Context::of(Actor::Daemon));
    let events = [Event::Project(created)];
    let append = journal::append(stream, epoch, Version::ZERO, &events, &context, now, now, "test").unwrap();
    let outcome = stack.log.append(append).now_or_never().unwrap();
    assert!(matches!(outcome, AppendOutcome::Appended { .. }), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_read_sees_what_was_durable_when_it_came_though_the_read_model_lags() {
    let stack = Stack::start(0).await;
    for path in ["/v1/projects", "/v1/projects/late"] {
        let stack = Stack::start(0).await;
        record_project(&stack, "late");
        assert!(stack.projections.position() < stack.log.durable(), "the read model has not run");
        let answer = stack.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.to_string().contains("\"late\""), "{path}: {}", answer.body);
    }
    record_project(&stack, "late");
    let ready = stack.get("/readyz").await;
    assert_eq!(ready.status, 200, "to lag a little is not to be unready");
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_the_position_it_is_given_and_no_longer_than_it_may() {
    let stack = Stack::start(0).await;
    stack.project("demo").await;
    let durable = stack.durable();
    let at = |position: String| request(Method::GET, "/v1/projects", &[("x-min-position", &position)]);
    assert_eq!(stack.send(at(durable.to_string())).await.names(), ["demo"]);

    let began = tokio::time::Instant::now();
    let (early, ()) = tokio::join!(stack.send(at((durable + 1).to_string())), async {
        stack.project("later").await;
    });
    assert_eq!(early.names(), ["demo", "later"], "it waited for what came");
    let never = stack.send(at((durable + 100).to_string())).await;
    assert_eq!((never.status.as_u16(), never.refusal().1), (503, "ServiceNotAvailable"));
    let waited = began.elapsed();
    assert!(
        waited >= ApiConfig::default().fresh_wait && waited < 2 * ApiConfig::default().fresh_wait,
        "{waited:?}"
    );

    for bad in ["", "x", "-1", "1.5", "99999999999999999999999"] {
        let message = format!("header x-min-position: \"{bad}\" is not a log position");
        assert_eq!(stack.send(at(bad.to_owned())).await.refusal(), (400, "InvalidRequest", message.as_str()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_large_is_refused_in_the_same_words() {
    let config = ApiConfig { body_bytes_max: 1_000, uri_bytes_max: 200, ..ApiConfig::default() };
    let stack = Stack::start_with(0, Mode::Auto, config).await;
    let fits = format!(r#"{{"name":"demo","description":"","pad":"{}"}}"#, "x".repeat(900));
    assert!(fits.len() <= 1_000);
    assert_eq!(stack.call(Method::POST, "/v1/projects", fits).await.status, 201);
    let durable = stack.durable();
    let body = stack.call(Method::POST, "/v1/projects", "x".repeat(1_001)).await;
    let message = "request body exceeds the maximum of 1000 bytes; send a smaller one";
    assert_eq!(body.refusal(), (400, "InvalidRequest", message));
    let uri = stack.get(&format!("/v1/projects?page_token={}", "a".repeat(200))).await;
    let message = "the request target has 223 bytes; at most 200 are read";
    assert_eq!(uri.refusal(), (400, "InvalidRequest", message));
    assert_eq!(stack.durable(), durable);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up() {
    let stack = Stack::start(0).await;
    let endless = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let answer = stack.call(Method::POST, "/v1/projects", endless).await;
    let message = "the request body did not arrive within 10 seconds";
    assert_eq!(answer.refusal(), (400, "InvalidRequest", message));
    let broken = futures::stream::iter([Err::<bytes::Bytes, _>(std::io::Error::other("hung up"))]);
    let answer = stack.call(Method::POST, "/v1/projects", Body::from_stream(broken)).await;
    let message = "the request body could not be read; send it again, whole";
    assert_eq!(answer.refusal(), (400, "InvalidRequest", message));
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_phase_the_log_and_nothing_else() {
    let stack = Stack::start(0).await;
    assert_eq!(stack.get("/readyz").await.status, 200);
    for (phase, message) in
        [(Phase::Starting, "the daemon is starting"), (Phase::ShuttingDown, "the daemon is shutting down")]
    {
        stack.ready.enter(phase);
        assert_eq!(stack.get("/readyz").await.refusal(), (503, "ServiceNotAvailable", message));
        assert_eq!(stack.get("/healthz").await.body, serde_json::json!({"status": "ok", "build": "test"}));
    }
    stack.ready.enter(Phase::Ready);
    assert_eq!(stack.get("/readyz").await.status, 200);

    stack.log.with_store(|store| store.fail_next_sync("I/O error"));
    let failed = stack.post("/v1/projects", &serde_json::json!({"name": "demo", "description": ""})).await;
    assert_eq!((failed.status.as_u16(), failed.refusal().1), (503, "ServiceNotAvailable"));
    let poisoned = stack.get("/readyz").await;
    assert_eq!(poisoned.status, 503);
    assert!(poisoned.refusal().2.contains("poisoned"), "{}", poisoned.body);
    assert_eq!(stack.get("/healthz").await.status, 200);
    stack.ready.enter(Phase::Failed("a core actor has failed".to_owned()));
    let message = "the daemon must end: a core actor has failed";
    assert_eq!(stack.get("/readyz").await.refusal(), (503, "ServiceNotAvailable", message));
}

#[tokio::test(start_paused = true)]
async fn commands_are_refused_during_shutdown() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let id = stack.stopped("demo", "web").await;
    stack.control.shutdown().await;
    let refused = stack.call(Method::POST, &format!("/v1/instances/{id}/start"), "").await;
    assert_eq!((refused.status.as_u16(), refused.refusal().1), (503, "ServiceNotAvailable"));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_in_time_and_the_work_at_hand_is_bounded() {
    let config = ApiConfig { fresh_wait: Duration::from_mins(1), requests_max: 1, ..ApiConfig::default() };
    let stack = Stack::start_with(0, Mode::Auto, config.clone()).await;
    let began = tokio::time::Instant::now();
    let stuck = request(Method::GET, "/v1/projects", &[("x-min-position", "1000")]);
    let (stuck, ping) = tokio::join!(stack.send(stuck), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        (stack.get("/v1/ping").await, began.elapsed())
    });
    let message =
        "the request was not finished in time; a command may have been recorded: look before trying again";
    assert_eq!(stuck.refusal(), (503, "ServiceNotAvailable", message));
    assert_eq!(ping.0.status, 200);
    assert!(ping.1 >= config.request_time, "it waited for the one permit: {:?}", ping.1);
}

#[tokio::test(start_paused = true)]
async fn every_read_waits_for_the_position_that_the_client_names() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let durable = stack.durable();
    let (now, next) = (durable.to_string(), (durable + 1).to_string());
    for path in [
        "/v1/projects",
        "/v1/instances?project=demo",
        "/v1/system/hardware/sleds",
        "/v1/me",
        "/ops/v1/sleds",
        "/ops/v1/attention",
        "/ops/v1/log/stats",
        "/ops/v1/log/tail",
        "/ops/v1/events?follow=false",
    ] {
        let named = |position: &str| request(Method::GET, path, &[("x-min-position", position)]);
        assert_eq!(stack.raw(named(&now)).await.status(), 200, "{path}");
        let refused = stack.send(named(&next)).await;
        assert_eq!((refused.status.as_u16(), refused.refusal().1), (503, "ServiceNotAvailable"), "{path}");
        assert!(refused.refusal().2.contains(&format!("has not reached {next} in time")), "{path}");
        assert_eq!(stack.send(named("x")).await.status, 400, "{path}");
    }
    // What becomes durable meanwhile is waited for.
    let named = request(Method::GET, "/v1/instances?project=demo", &[("x-min-position", &next)]);
    let (listed, _) = tokio::join!(stack.send(named), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stack.stopped("demo", "web").await
    });
    assert_eq!((listed.status.as_u16(), listed.names()), (200, vec!["web".to_owned()]));
}
