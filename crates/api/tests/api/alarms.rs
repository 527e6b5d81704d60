//! `/ops/v1/attention`: one line for each thing that needs somebody.

use crate::stack::Stack;
use api::ApiConfig;
use axum::http::Method;
use lifecycle::restart::RestartPolicy;
use lifecycle::{InstanceId, Policy, RunState};
use serde_json::{Value, json};
use sim_sled::faults::{Fault, Faults};
use sim_sled::machine::{Mode, RequestKind};
use std::time::Duration;

/// Seconds, on the tests' clock, that a line may take to appear.
const PATIENCE_S: u32 = 600;

/// The first line of a kind, as soon as there is one.
async fn line(stack: &Stack, kind: &str) -> Value {
    for _ in 0..PATIENCE_S {
        let attention = stack.get("/ops/v1/attention").await;
        let items = attention.body["items"].as_array().unwrap();
        assert_eq!(attention.body["total"], items.len());
        if let Some(line) = items.iter().find(|line| line["kind"] == kind) {
            for key in ["subject", "reason", "since"] {
                assert!(line[key].is_string(), "{key}: {line}");
            }
            return line.clone();
        }
        // On the tests' clock: it passes once everybody else waits.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{kind} never needed attention: {}", stack.get("/ops/v1/attention").await.body);
}

fn says(line: &Value, part: &str) {
    assert!(line["reason"].as_str().unwrap().contains(part), "{line} should say {part:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_whose_guest_cannot_move_needs_attention_until_it_is_called_off() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let (_, sled) = stack.active(&web).await;
    let path = |verb: &str| format!("/ops/v1/sleds/{sled}/{verb}");
    assert_eq!(stack.call(Method::POST, &path("drain"), "").await.status, 200);
    let found = line(&stack, "drain_blocked").await;
    assert_eq!((&found["subject"], &found["name"]), (&json!(format!("sled/{sled}")), &json!("sim-0")));
    says(&found, &format!("instance {web}: insufficient capacity: no sled accepts new instances"));
    assert_eq!(stack.call(Method::POST, &path("uncordon"), "").await.status, 200);
    assert_eq!(stack.get("/ops/v1/attention").await.body, json!({"items": [], "total": 0}));
}

#[tokio::test(start_paused = true)]
async fn a_sled_that_is_away_with_guests_on_it_has_one_line() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let (_, sled) = stack.active(&web).await;
    let mut faults = Faults::default();
    for kind in [
        RequestKind::Inventory,
        RequestKind::PutV2p,
        RequestKind::ListV2p,
        RequestKind::GetState,
        RequestKind::SetStopped,
    ] {
        faults = faults.always(kind, Fault::LoseRequest);
    }
    stack.misbehave(&faults);
    let found = line(&stack, "sled_unreachable").await;
    assert_eq!(found["subject"], format!("sled/{sled}"), "the other sled is empty");
    says(&found, "it cannot be reached, and VMMs with 2 thread(s) are on it: ");
    let all = stack.get("/ops/v1/attention").await;
    let of_sled = all.body["items"].as_array().unwrap().iter().filter(|it| it["subject"] == found["subject"]);
    assert_eq!(of_sled.count(), 1, "{}", all.body);
}

#[tokio::test(start_paused = true)]
async fn a_sled_whose_circuit_is_open_says_so_wherever_one_looks() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let (_, sled) = stack.active(&web).await;
    let path = format!("/ops/v1/sleds/{sled}");
    assert_eq!(stack.get(&path).await.body["circuit"], json!(null));
    let lost = [RequestKind::Inventory, RequestKind::PutV2p, RequestKind::ListV2p, RequestKind::SetStopped];
    let lose = |faults: Faults, kind| faults.always(kind, Fault::LoseRequest);
    stack.misbehave(&lost.into_iter().fold(Faults::default(), lose));
    let stop = stack.call(Method::POST, &format!("/v1/instances/{web}/stop"), "").await;
    assert_eq!(stop.status, 502, "{}", stop.body);
    let circuit = async || stack.get(&path).await.body["circuit"].clone();
    let mut open = circuit().await;
    for _ in 0..600 {
        if open["next_probe"].is_string() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        open = circuit().await;
    }
    let (since, next) = (open["open_since"].as_str().unwrap(), open["next_probe"].as_str().unwrap());
    assert!(since < next && open["unanswered"].as_u64() >= Some(5), "{open}");
    let found = line(&stack, "sled_unreachable").await;
    says(&found, &format!("requests are held back since {since}, and it is asked again "));
    let explained = stack.get(&format!("/ops/v1/instances/{web}/explain")).await.body;
    let contact = &explained["waits"][0]["contact"];
    assert_eq!(contact["held_back"]["since"], since, "{explained}");
    let mut counted = (0.0, 0.0);
    for _ in 0..600 {
        let all = crate::metrics::scrape(&stack).await;
        counted = (all["musher_sled_circuits_open"], all["musher_sled_calls_held_back_total"]);
        if counted.0 >= 1.0 && counted.1 >= 1.0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(counted.0 >= 1.0 && counted.1 >= 1.0, "{counted:?}");
    stack.misbehave(&Faults::default());
    stack.until(|model| model.instance_states().all(|it| it.run_state() == RunState::Stopped)).await;
    assert_eq!(circuit().await, json!(null));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_not_pushed_to_needs_attention() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    let faults = Faults::default().always(RequestKind::PutV2p, Fault::LoseRequest);
    stack.misbehave(&faults.always(RequestKind::ListV2p, Fault::LoseRequest));
    stack.running("demo", "web").await;
    let found = line(&stack, "network_peer").await;
    assert!(found["subject"].as_str().unwrap().starts_with("sled/"), "{found}");
    says(&found, "it cannot be pushed to, ");
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_restarts_are_spent_says_so() {
    let restart = RestartPolicy { budget: 1, ..RestartPolicy::default() };
    let policy = Policy { restart, ..Policy::default() };
    let stack = Stack::start_under(policy, 1, Mode::Auto, ApiConfig::default()).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let id = InstanceId::new(web.parse().unwrap());
    let (first, _) = stack.active(&web).await;
    stack.crash_guest(&first);
    stack
        .until(|model| {
            let state = model.instance_state(id).unwrap();
            state.run_state() == RunState::Running && state.restarts.attempts == 1
        })
        .await;
    let (second, _) = stack.active(&web).await;
    stack.crash_guest(&second);
    let found = line(&stack, "restarts_spent").await;
    assert_eq!((&found["subject"], &found["name"]), (&json!(format!("instance/{web}")), &json!("web")));
    says(&found, "it was restarted 1 time(s) in a row, and will not be again");
    assert_eq!(stack.get("/ops/v1/attention").await.body["total"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_takes_longer_than_its_deadline_needs_attention() {
    let stack = Stack::start_with(2, Mode::Explicit, ApiConfig::default()).await;
    stack.project("demo").await;
    let web = stack.stepped_up("demo", "web").await;
    stack.misbehave(&Faults::default().always(RequestKind::MigrationCancel, Fault::LoseRequest));
    let path = format!("/ops/v1/instances/{web}/migrate");
    assert_eq!(stack.call(Method::POST, &path, "").await.status, 202);
    let found = line(&stack, "migration_overdue").await;
    assert_eq!(found["subject"], format!("instance/{web}"));
    says(&found, "has taken longer than its deadline of 60 s: its source is ");
}
