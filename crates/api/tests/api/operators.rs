//! `/ops/v1`.

use crate::stack::{Stack, new_instance};
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn the_history_of_a_deleted_instance_is_read_by_id_in_pages() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let id = stack.create("demo", "web", true).await.text("id");
    stack.until_run_state(&id, "running").await;
    assert_eq!(stack.call(Method::POST, &format!("/v1/instances/{id}/stop"), "").await.status, 202);
    stack.until_run_state(&id, "stopped").await;
    let by_name = stack.get("/ops/v1/instances/web/history?project=demo").await;
    assert_eq!(stack.call(Method::DELETE, &format!("/v1/instances/{id}"), "").await.status, 204);

    let all = stack.get(&format!("/ops/v1/instances/{id}/history?limit=1000")).await;
    assert_eq!((all.status.as_u16(), &all.body["next_after"]), (200, &json!(null)));
    assert_eq!(all.body["complete_since"], "creation");
    let items = all.body["items"].as_array().unwrap();
    let known = by_name.body["items"].as_array().unwrap();
    assert_eq!(&items[..known.len()], &known[..], "it is the same instance");
    assert_eq!((&items[0]["event"], &items[0]["actor"]), (&json!("Created"), &json!("user operator")));
    assert_eq!(items.last().unwrap()["event"], "Deleted");
    let versions: Vec<_> = items.iter().map(|item| item["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, (1..=items.len() as u64).collect::<Vec<_>>());

    let (mut paged, mut after) = (Vec::new(), 0);
    loop {
        let page = stack.get(&format!("/ops/v1/instances/{id}/history?after={after}&limit=3")).await;
        paged.extend(page.body["items"].as_array().unwrap().clone());
        match page.body["next_after"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(&paged, items);
    for (query, message) in [
        ("limit=0", "query parameter \"limit\" must be at least 1"),
        ("after=x", "query parameter \"after\": \"x\" is not a whole number that fits 64 bits"),
    ] {
        let answer = stack.get(&format!("/ops/v1/instances/{id}/history?{query}")).await;
        assert_eq!(answer.refusal(), (400, "InvalidRequest", message));
    }
    let unknown = "a0b1c2d3-0000-4000-8000-000000000001";
    let message = format!("not found: instance with id \"{unknown}\"");
    for path in [format!("/ops/v1/instances/{unknown}/history"), format!("/ops/v1/instances/{unknown}")] {
        assert_eq!(stack.get(&path).await.refusal(), (404, "ObjectNotFound", message.as_str()));
    }
}

#[tokio::test(start_paused = true)]
async fn the_whole_fold_is_shown_as_it_is_and_as_it_was() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let id = stack.create("demo", "web", true).await.text("id");
    stack.until_run_state(&id, "running").await;
    let now = stack.get(&format!("/ops/v1/instances/{id}")).await;
    assert_eq!(now.body["run_state"], "running");
    assert_eq!(now.body["state"]["spec"]["name"], "web");
    assert_eq!(now.body, stack.get("/ops/v1/instances/web?project=demo").await.body);
    let first = stack.get(&format!("/ops/v1/instances/{id}?at=%231")).await;
    assert_eq!((first.status.as_u16(), &first.body["version"]), (200, &json!(1)));
    let future = stack.get(&format!("/ops/v1/instances/{id}?at=%23999")).await;
    assert_eq!((future.status.as_u16(), future.refusal().1), (400, "InvalidRequest"));
    let garbage = stack.get(&format!("/ops/v1/instances/{id}?at=yesterday")).await;
    assert!(garbage.refusal().2.starts_with("query parameter \"at\": \"yesterday\" is no moment"));
}

#[tokio::test(start_paused = true)]
async fn sleds_the_log_and_what_needs_attention_are_shown() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    let mut body = new_instance("web");
    body["auto_restart_policy"] = json!("never");
    let id = stack.post("/v1/instances?project=demo", &body).await.text("id");
    stack.until_run_state(&id, "running").await;
    let sleds = stack.get("/ops/v1/sleds").await;
    let items = sleds.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    let held: u64 = items.iter().map(|sled| sled["held"]["threads"].as_u64().unwrap()).sum();
    assert_eq!(held, 2, "two threads are held for the instance: {}", sleds.body);
    for sled in items {
        assert_eq!((&sled["provisionable"], &sled["unreachable"]), (&json!(true), &json!(null)));
        assert_eq!((&sled["epoch"], &sled["room"]["threads"]), (&json!(1), &json!(64)));
        assert!(sled["name"].as_str().unwrap().starts_with("sim-"));
        assert!(sled["last_contact"].as_str().unwrap().ends_with('Z'));
    }
    let stats = stack.get("/ops/v1/log/stats").await;
    assert_eq!(stats.body["durable"], stack.durable());
    assert_eq!(stats.body["read_model"]["stage"], "following");
    assert_eq!(stack.get("/ops/v1/attention").await.body, json!({"items": [], "total": 0}));

    let state = stack.get(&format!("/ops/v1/instances/{id}")).await;
    let vmm = state.body["state"]["active"].as_str().unwrap().to_owned();
    stack.crash_guest(&vmm);
    stack.until_run_state(&id, "failed").await;
    let attention = stack.get("/ops/v1/attention").await;
    assert_eq!(attention.body["total"], 1);
    let line = &attention.body["items"][0];
    assert_eq!((&line["kind"], &line["name"]), (&json!("failed"), &json!("web")));
    assert_eq!(line["subject"], format!("instance/{id}"));
    assert!(line["reason"].as_str().unwrap().contains("its VMM failed"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn records_come_in_bounded_pages_as_they_are_stored() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let id = stack.create("demo", "web", true).await.text("id");
    stack.until_run_state(&id, "running").await;
    let page = async |query: &str| {
        let request = Request::get(format!("/ops/v1/log/records?{query}")).body(Body::empty()).unwrap();
        let answer = stack.raw(request).await;
        assert_eq!(answer.status(), 200, "{query}");
        let bytes = axum::body::to_bytes(answer.into_body(), 8 << 20).await.unwrap();
        eventlog::portable::unpack(&bytes).unwrap()
    };
    let all = page("").await;
    let durable = stack.durable();
    assert!(all.len() as u64 >= durable && durable > 5);
    assert!(all.iter().zip(1..).all(|(record, position)| record.position.get() == position));
    assert_eq!(page("from=3&limit=2").await, all[2..4]);
    assert_eq!(page(&format!("from={}", all.len() + 1)).await, []);
    let stream = format!("instance/{id}");
    let own = page(&format!("stream={stream}&from=2&limit=3")).await;
    assert_eq!(own.iter().map(|record| record.version.get()).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(page(&format!("stream=instance/{}", uuid::Uuid::nil())).await, []);
    let refused = stack.get("/ops/v1/log/records?stream=web").await;
    assert_eq!(
        refused.refusal(),
        (400, "InvalidRequest", "query parameter \"stream\": \"web\" names no stream")
    );
}
