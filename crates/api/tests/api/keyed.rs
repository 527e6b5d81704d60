//! `Idempotency-Key`.

use crate::stack::{Answer, Stack, new_instance};
use api::ApiConfig;
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;
use std::time::Duration;

const KEY: &str = "order-66";

const OTHER: (u16, &str, &str) =
    (400, "InvalidRequest", "header idempotency-key: this key was used for another request; use a fresh one");

fn same(a: &Answer, b: &Answer) {
    assert_eq!((a.status, &a.body), (b.status, &b.body));
    for name in ["x-request-id", "x-log-position"] {
        assert_eq!(a.headers[name], b.headers[name], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_that_is_sent_again_creates_nothing_and_answers_the_same() {
    let mut stack = Stack::start(1).await;
    stack.project("demo").await;
    let (path, body) = ("/v1/instances?project=demo", new_instance("web"));
    let first = stack.post_once(KEY, path, &body).await;
    assert_eq!(first.status, 201, "{}", first.body);
    let id = first.text("id");
    same(&first, &stack.post_once(KEY, path, &body).await);
    // Whatever has become of it since, and also for an HTTP layer that starts anew.
    stack.until_run_state(&id, "running").await;
    same(&first, &stack.post_once(KEY, path, &body).await);
    stack.again(ApiConfig::default());
    same(&first, &stack.post_once(KEY, path, &body).await);
    assert_eq!(stack.call(Method::POST, &format!("/v1/instances/{id}/stop"), "").await.status, 202);
    stack.until_run_state(&id, "stopped").await;
    assert_eq!(stack.call(Method::DELETE, &format!("/v1/instances/{id}"), "").await.status, 204);
    same(&first, &stack.post_once(KEY, path, &body).await);
    assert!(stack.get(path).await.names().is_empty(), "nothing was created");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_comes_with_another_request_is_refused() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    stack.project("other").await;
    let path = "/v1/instances?project=demo";
    let first = stack.post_once(KEY, path, &new_instance("web")).await;
    let id = first.text("id");
    let mut bodies = vec![new_instance("web-2")];
    for (field, value) in [
        ("description", json!("another")),
        ("hostname", json!("another")),
        ("ncpus", json!(3)),
        ("memory", json!(3_u64 << 30)),
        ("start", json!(false)),
        ("auto_restart_policy", json!("never")),
    ] {
        let mut body = new_instance("web");
        body[field] = value;
        bodies.push(body);
    }
    for body in &bodies {
        assert_eq!(stack.post_once(KEY, path, body).await.refusal(), OTHER, "{body}");
    }
    let elsewhere = "/v1/instances?project=other";
    assert_eq!(stack.post_once(KEY, elsewhere, &new_instance("web")).await.refusal(), OTHER);
    let stop = format!("/v1/instances/{id}/stop");
    assert_eq!(stack.post_once(KEY, &stop, &json!({})).await.refusal(), OTHER);
    let project = json!({"name": "web", "description": ""});
    assert_eq!(stack.post_once(KEY, "/v1/projects", &project).await.refusal(), OTHER);
    // What means the same is the same.
    let mut body = new_instance("web");
    body["start"] = json!(true);
    body["unknown"] = json!([1]);
    same(&first, &stack.post_once(KEY, path, &body).await);
}

#[tokio::test(start_paused = true)]
async fn a_project_is_created_once_per_key() {
    let stack = Stack::start(0).await;
    let body = json!({"name": "demo", "description": "of a test"});
    let first = stack.post_once(KEY, "/v1/projects", &body).await;
    assert_eq!(first.status, 201, "{}", first.body);
    let renamed = json!({"name": "renamed", "description": ""});
    let path = format!("/v1/projects/{}", first.text("id"));
    assert_eq!(stack.call(Method::PUT, &path, renamed.to_string()).await.status, 200);
    same(&first, &stack.post_once(KEY, "/v1/projects", &body).await);
    assert_eq!(stack.post_once(KEY, "/v1/projects", &renamed).await.refusal(), OTHER);
    assert_eq!(stack.get("/v1/projects").await.names(), ["renamed"]);
}

#[tokio::test(start_paused = true)]
async fn an_order_acts_once_per_key_by_name_and_by_id() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let id = stack.stopped("demo", "web").await;
    let other = stack.stopped("demo", "db").await;
    let (by_id, by_name) = (format!("/v1/instances/{id}"), "/v1/instances/web");
    let empty = json!({});
    let started = stack.post_once("start", &format!("{by_id}/start"), &empty).await;
    assert_eq!((started.status.as_u16(), started.text("run_state").as_str()), (202, "starting"));
    stack.until_run_state(&id, "running").await;
    let stopped = stack.post_once("stop", &format!("{by_name}/stop?project=demo"), &empty).await;
    assert_eq!(stopped.status, 202, "{}", stopped.body);
    stack.until_run_state(&id, "stopped").await;
    let before = stack.durable();
    same(&started, &stack.post_once("start", &format!("{by_id}/start"), &empty).await);
    same(&started, &stack.post_once("start", &format!("{by_name}/start?project=demo"), &empty).await);
    let repeated = stack.post_once("stop", &format!("{by_id}/stop"), &empty).await;
    assert_eq!((repeated.status, repeated.text("id")), (stopped.status, id.clone()));
    assert_eq!(stack.durable(), before, "nothing was recorded");
    for path in [
        format!("/v1/instances/{other}/start"),
        "/v1/instances/db/start?project=demo".to_owned(),
        format!("{by_id}/stop"),
        format!("{by_id}/reboot"),
    ] {
        assert_eq!(stack.post_once("start", &path, &empty).await.refusal(), OTHER, "{path}");
    }
    assert_eq!(stack.call(Method::DELETE, &by_id, "").await.status, 204);
    same(&started, &stack.post_once("start", &format!("{by_name}/start?project=demo"), &empty).await);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_decided_again() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let taken = stack.stopped("demo", "web").await;
    let (path, body) = ("/v1/instances?project=demo", new_instance("web"));
    let refused = stack.post_once(KEY, path, &body).await;
    assert_eq!(refused.refusal(), (400, "ObjectAlreadyExists", "already exists: instance \"web\""));
    assert_eq!(stack.call(Method::DELETE, &format!("/v1/instances/{taken}"), "").await.status, 204);
    let created = stack.post_once(KEY, path, &body).await;
    assert_eq!(created.status, 201, "{}", created.body);
    assert_eq!(created.headers["x-request-id"], refused.headers["x-request-id"], "it is one request");
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_overtakes_the_first_waits_for_it() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let (path, body) = ("/v1/instances?project=demo", new_instance("web"));
    let (one, two, three) = tokio::join!(
        stack.post_once(KEY, path, &body),
        stack.post_once(KEY, path, &body),
        stack.post_once(KEY, path, &body),
    );
    assert_eq!(one.status, 201, "{}", one.body);
    same(&one, &two);
    same(&one, &three);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_finds_what_it_began() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let (path, body) = ("/v1/instances?project=demo", new_instance("web"));
    for _ in 0..3 {
        // Polled so often that the command is under way, and then dropped.
        let hung_up = tokio::time::timeout(Duration::ZERO, stack.post_once(KEY, path, &body)).await;
        drop(hung_up);
    }
    let answer = stack.post_once(KEY, path, &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(stack.get(path).await.names(), ["web"]);
}

#[tokio::test(start_paused = true)]
async fn ids_made_of_keys_are_not_taken_from_outside() {
    let stack = Stack::start(0).await;
    let made = stack.post_once(KEY, "/v1/projects", &json!({"name": "demo", "description": ""})).await;
    let id = made.headers["x-request-id"].clone();
    let request = Request::builder().uri("/v1/ping").header("x-request-id", &id);
    let answer = stack.send(request.body(Body::empty()).unwrap()).await;
    assert_ne!(answer.headers["x-request-id"], id);
    let bad = stack.post_once("two words", "/v1/projects", &json!({})).await;
    assert_eq!(bad.status, 400);
    assert!(bad.refusal().2.starts_with("header idempotency-key must be given once"), "{}", bad.body);
}
