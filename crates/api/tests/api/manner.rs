//! Dry runs and reasons: what would be recorded is shown and is not; why it was done stands in the history.

use crate::stack::{Stack, new_instance};
use api::openapi_json;
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

fn names(plan: &Value) -> Vec<&str> {
    assert_eq!(plan["dry_run"], true, "{plan}");
    plan["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_would_be_recorded_and_records_nothing() {
    let stack = Stack::start(2).await;
    let project = stack.project("demo").await;
    let (web, idle) = (stack.running("demo", "web").await, stack.stopped("demo", "idle").await);
    let sled = stack.active(&web).await.1;
    let size = json!({"ncpus": 4, "memory": 4_u64 << 30});
    let group = json!({"name": "apart"});
    let reason = json!({"reason": "hung"});
    let durable = stack.durable();
    let (ops, gone) = (format!("/ops/v1/instances/{web}"), format!("/v1/instances/{idle}"));
    let rows: Vec<(Method, String, Value, &[&str])> = vec![
        (
            Method::POST,
            "/v1/instances?project=demo&".to_owned(),
            new_instance("new"),
            &["Created", "StartBegan"],
        ),
        (Method::POST, format!("{gone}/start?"), Value::Null, &["StartBegan"]),
        (Method::POST, format!("/v1/instances/{web}/stop?"), Value::Null, &["StopRequested"]),
        (Method::POST, format!("/v1/instances/{web}/reboot?"), Value::Null, &["RebootRequested"]),
        (Method::PUT, format!("{gone}?"), size, &["Reconfigured"]),
        (Method::DELETE, format!("{gone}?"), Value::Null, &["Deleted"]),
        (Method::POST, format!("/v1/instances/{idle}/stop?"), Value::Null, &[]),
        (Method::POST, format!("{ops}/migrate?"), Value::Null, &["MigrateBegan"]),
        (Method::POST, format!("{ops}/force-stop?"), reason.clone(), &["ForceStopRequested"]),
        (Method::POST, "/v1/projects?".to_owned(), json!({"name": "p", "description": ""}), &["Created"]),
        (Method::PUT, format!("/v1/projects/{project}?"), json!({"name": "other"}), &["Changed"]),
        (Method::PUT, "/ops/v1/quotas/fleet?".to_owned(), json!({"cpus": 9}), &["QuotaSet"]),
        (Method::PUT, "/ops/v1/quotas/project?project=demo&".to_owned(), json!({"cpus": 9}), &["QuotaSet"]),
        (Method::POST, "/ops/v1/anti-affinity-groups?project=demo&".to_owned(), group, &["GroupCreated"]),
        (Method::POST, format!("/ops/v1/sleds/{sled}/cordon?"), Value::Null, &["ProvisionableChanged"]),
        (Method::POST, format!("/ops/v1/sleds/{sled}/expunge?"), reason, &["Expunged"]),
    ];
    for (method, path, body, expected) in rows {
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        let answer = stack.call(method.clone(), &format!("{path}dry_run=true"), sent).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        let found = names(&answer.body);
        assert_eq!(found.get(..expected.len()), Some(expected), "{method} {path}: {found:?}");
        assert_eq!(found.is_empty(), expected.is_empty(), "{method} {path}: {found:?}");
        assert!(!answer.headers.contains_key("x-log-position"), "{method} {path}");
        assert_eq!(stack.durable(), durable, "{method} {path}: nothing was recorded");
    }
    // What it held for a moment is free: the same can be done for real.
    assert_eq!(stack.create("demo", "new", true).await.status, 201);
    assert_eq!(stack.call(Method::DELETE, &gone, Body::empty()).await.status, 204);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_is_refused_as_the_command_would_be_and_never_done_instead() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let durable = stack.durable();
    let refused =
        stack.call(Method::DELETE, &format!("/v1/instances/{web}?dry_run=true"), Body::empty()).await;
    assert_eq!(
        refused.refusal(),
        (400, "InvalidRequest", "cannot delete instance: instance is running or has not yet fully stopped")
    );
    let twice = stack.post("/v1/instances?project=demo&dry_run=true", &new_instance("web")).await;
    assert_eq!(twice.refusal().1, "ObjectAlreadyExists");
    let path = format!("/v1/instances/{web}/stop");
    for bad in ["dry_run=yes", "dry_run=", "dry_run=true&dry_run=true", "reason=", "reason=%20"] {
        let answer = stack.post(&format!("{path}?{bad}"), &Value::Null).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.body);
    }
    let keyed = stack.post_once("k", &format!("{path}?dry_run=true"), &Value::Null).await;
    assert!(keyed.refusal().2.contains("send it without a key"), "{}", keyed.body);
    for undecided in ["/ops/v1/timers/vmm_reaper/activate", "/ops/v1/log/compact", "/ops/v1/log/snapshot"] {
        let answer = stack.post(&format!("{undecided}?dry_run=true"), &json!({"to": "/tmp/x"})).await;
        assert!(answer.refusal().2.contains("nothing is decided here"), "{undecided}: {}", answer.body);
    }
    assert_eq!(stack.durable(), durable);
    assert_eq!(stack.get(&format!("/v1/instances/{web}")).await.text("run_state"), "running");
}

#[tokio::test(start_paused = true)]
async fn whatever_is_described_with_dry_run_records_nothing_with_it() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let durable = stack.durable();
    let document: Value = serde_json::from_str(&openapi_json()).unwrap();
    let body = json!({
        "name": "other", "description": "", "hostname": "h", "ncpus": 2, "memory": 2_u64 << 30, "reason": "r",
        "state": "non_provisionable",
    });
    let mut tried = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().unwrap();
            if !parameters.iter().any(|parameter| parameter["name"] == "dry_run") {
                continue;
            }
            let sled = stack.active(&web).await.1;
            let filled = path.replace("{instance}", &web).replace("{sled}", &sled);
            let filled = filled.replace("{project}", "demo").replace("{scope}", "fleet");
            let project = if filled.contains(&web) { "" } else { "&project=demo" };
            let target = format!("{filled}?dry_run=true{project}");
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let request = Request::builder().method(method).uri(&target);
            let answer = stack.send(request.body(Body::from(body.to_string())).unwrap()).await;
            assert!(answer.status != 500, "{target}: {}", answer.body);
            assert_eq!(stack.durable(), durable, "{target}: {}", answer.body);
            tried += 1;
        }
    }
    assert!(tried >= 20, "{tried}");
}

#[tokio::test(start_paused = true)]
async fn a_reason_stands_in_the_history_and_in_the_explanation() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let path = format!("/ops/v1/instances/{web}/migrate?reason=firmware%20%C3%A9");
    assert_eq!(stack.call(Method::POST, &path, Body::empty()).await.status, 202);
    stack.until_run_state(&web, "running").await;
    let history = stack.get(&format!("/ops/v1/instances/{web}/history")).await;
    let items = history.body["items"].as_array().unwrap();
    let began = items.iter().find(|item| item["event"] == "MigrateBegan").unwrap();
    assert_eq!(began["reason"], "firmware \u{e9}");
    assert!(items.iter().any(|item| item["reason"].is_null()), "only where one was given");
    let told = stack.get(&format!("/ops/v1/instances/{web}/explain")).await;
    let asked = &told.body["asked_by"];
    assert_eq!((&asked["event"], &asked["reason"]), (&json!("MigrateBegan"), &json!("firmware \u{e9}")));
    assert_eq!(asked["actor"], "user operator");
}
