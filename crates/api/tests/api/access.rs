//! Tokens and roles: every operation with every role, and whose name is in the log.

use crate::stack::{Answer, Stack, new_instance};
use api::auth::{Access, Holders, Role, Token, TokenHash, Tokens};
use api::{ApiConfig, openapi_json};
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use sim_sled::machine::Mode;
use std::fmt::Write as _;

/// Role by operation, one per line; reviewed as text.
const ROLES: &str = include_str!("../fixtures/roles.txt");

const HOLDERS: [(&str, Role); 3] = [("vera", Role::Viewer), ("otto", Role::Operator), ("anna", Role::Admin)];

fn holders() -> Tokens {
    let mut tokens = Tokens::default();
    for (name, role) in HOLDERS {
        let token = Token { role, hash: TokenHash::of(name), made: "2026-01-01T00:00:00Z".to_owned() };
        tokens.add(name, token).unwrap();
    }
    tokens
}

async fn guarded() -> (Stack, Holders) {
    let mut stack = Stack::start_with(1, Mode::Auto, ApiConfig::default()).await;
    let holders = Holders::new(holders());
    stack.state.access = Access::Holders(holders.clone());
    stack.again(ApiConfig::default());
    (stack, holders)
}

/// The token of a holder is its name.
fn request(method: &str, path: &str, token: Option<&str>, body: &Value) -> Request<Body> {
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::from(if body.is_null() { String::new() } else { body.to_string() })).unwrap()
}

async fn send(stack: &Stack, method: &str, path: &str, token: Option<&str>, body: &Value) -> Answer {
    stack.send(request(method, path, token, body)).await
}

/// Method, path and role of every operation that is described.
fn operations() -> Vec<(String, String, String)> {
    let document: Value = serde_json::from_str(&openapi_json()).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let role = operation["security"][0]["bearer"][0].as_str().unwrap_or("nobody");
            operations.push((method.to_uppercase(), path.clone(), role.to_owned()));
        }
    }
    operations.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    operations
}

#[test]
fn the_role_of_every_operation_is_as_reviewed() {
    let mut table = String::new();
    for (method, path, role) in operations() {
        writeln!(table, "{role:8} {method:6} {path}").unwrap();
    }
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/roles.txt"), &table).unwrap();
    } else {
        assert_eq!(
            table, ROLES,
            "UPDATE_FIXTURES=1 writes tests/fixtures/roles.txt anew; read the difference"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn every_operation_lets_in_who_has_its_role_and_nobody_else() {
    let (stack, _) = guarded().await;
    let mut tried = 0;
    for (method, path, role) in operations() {
        let filled: Vec<&str> =
            path.split('/').map(|it| if it.starts_with('{') { "nope" } else { it }).collect();
        // The feed ends by itself; whatever else is given is refused for another reason.
        let target = format!("{}?follow=false", filled.join("/"));
        let needed = role.parse::<Role>().ok();
        for holder in [None, Some(HOLDERS[0]), Some(HOLDERS[1]), Some(HOLDERS[2])] {
            let request = request(&method, &target, holder.map(|(name, _)| name), &Value::Null);
            let status = stack.raw(request).await.status().as_u16();
            let expected = match (needed, holder) {
                (None, _) => None,
                (Some(_), None) => Some(401),
                (Some(needed), Some((_, role))) => (role < needed).then_some(403),
            };
            let about = format!("{method} {path} as {holder:?}: {status}");
            match expected {
                Some(expected) => assert_eq!(status, expected, "{about}"),
                None => assert!(![401, 403].contains(&status), "{about}"),
            }
            tried += 1;
        }
    }
    assert!(tried > 200, "{tried}");
    assert!(
        ROLES.lines().filter(|line| line.starts_with("nobody")).count() == 3,
        "only probes are for everybody"
    );
}

#[tokio::test(start_paused = true)]
async fn strangers_and_low_roles_are_told_so_and_leave_no_trace() {
    let (stack, _) = guarded().await;
    let durable = stack.durable();
    let project = json!({"name": "demo", "description": ""});
    let stranger = send(&stack, "POST", "/v1/projects", None, &project).await;
    let (status, code, message) = stranger.refusal();
    assert_eq!((status, code), (401, "Unauthorized"));
    assert!(message.starts_with("credentials missing or invalid: a bearer token is needed"), "{message}");
    assert_eq!(stranger.headers["www-authenticate"], "Bearer");
    let viewer = send(&stack, "POST", "/v1/projects", Some("vera"), &project).await;
    assert_eq!(
        viewer.refusal(),
        (403, "Forbidden", "vera has the role viewer; this needs the role operator")
    );
    for path in ["/nowhere", "/v1/nowhere"] {
        assert_eq!(send(&stack, "GET", path, None, &Value::Null).await.status, 401, "{path}");
        assert_eq!(send(&stack, "GET", path, Some("vera"), &Value::Null).await.status, 404, "{path}");
    }
    // A HEAD needs what its GET needs.
    for (token, status) in [(None, 401), (Some("otto"), 403)] {
        let head = stack.raw(request("HEAD", "/ops/v1/log/export", token, &Value::Null)).await;
        assert_eq!(head.status(), status);
    }
    assert_eq!(stack.durable(), durable);
}

#[tokio::test(start_paused = true)]
async fn who_did_it_is_the_name_of_the_token_in_every_event() {
    let (stack, _) = guarded().await;
    let project = json!({"name": "demo", "description": ""});
    assert_eq!(send(&stack, "POST", "/v1/projects", Some("anna"), &project).await.status, 201);
    let created =
        send(&stack, "POST", "/v1/instances?project=demo", Some("otto"), &new_instance("web")).await;
    let id = created.text("id");
    let history =
        send(&stack, "GET", &format!("/ops/v1/instances/{id}/history"), Some("vera"), &Value::Null).await;
    assert_eq!(history.body["items"][0]["actor"], "user otto");
    let me = send(&stack, "GET", "/v1/me", Some("vera"), &Value::Null).await;
    assert_eq!((me.text("display_name").as_str(), &me.body["silo_admin"]), ("vera", &json!(false)));
    let admin = send(&stack, "GET", "/v1/me", Some("anna"), &Value::Null).await;
    assert_eq!(admin.body["silo_admin"], true);
    assert_ne!(me.text("id"), admin.text("id"));
}

#[tokio::test(start_paused = true)]
async fn a_key_counts_for_the_holder_of_the_token() {
    let (stack, _) = guarded().await;
    let make = async |token: &str, name: &str| {
        let mut request =
            request("POST", "/v1/projects", Some(token), &json!({"name": name, "description": ""}));
        request.headers_mut().insert("idempotency-key", "one".parse().unwrap());
        stack.send(request).await
    };
    let (first, repeat) = (make("otto", "a").await, make("otto", "a").await);
    assert_eq!((first.status.as_u16(), repeat.status.as_u16()), (201, 201));
    assert_eq!(first.text("id"), repeat.text("id"));
    assert_eq!(make("anna", "b").await.status, 201, "another's key is another key");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_is_out() {
    let (stack, live) = guarded().await;
    assert_eq!(send(&stack, "GET", "/v1/projects", Some("vera"), &Value::Null).await.status, 200);
    let mut fewer = holders();
    fewer.remove("vera");
    live.replace(fewer);
    assert_eq!(send(&stack, "GET", "/v1/projects", Some("vera"), &Value::Null).await.status, 401);
    assert_eq!(send(&stack, "GET", "/v1/projects", Some("otto"), &Value::Null).await.status, 200);
}
