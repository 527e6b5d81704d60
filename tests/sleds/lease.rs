//! Agents that are stopped as a whole, with SIGSTOP: they can neither renew nor kill, and their guests stand still
//! with them. What they do first when they go on is what counts.

use super::{Fleet, is_in_service};
use crate::daemon::answer;
use crate::process::Sled;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const LEASE: &str = "lease_s = 8\nlease_grace_s = 2\n";

/// Creates and starts instances that are restarted when they fail.
async fn run_instances(fleet: &Fleet, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let body = crate::daemon::instance_body(&format!("web-{n}"), true);
        let (status, body) = fleet.daemon.post("/v1/instances?project=demo", Some(body)).await;
        assert_eq!(status, 201, "{body}");
        ids.push(body["id"].as_str().unwrap().to_owned());
    }
    fleet.until_all(&ids, "running").await;
    ids
}

async fn starts(fleet: &Fleet, id: &str) -> usize {
    fleet.history(id).await.iter().filter(|item| item["event"] == "StartBegan").count()
}

/// Waits until the daemon has looked at this sled twice from here on.
async fn two_looks(fleet: &Fleet, name: &str) {
    for _ in 0..2 {
        let seen = fleet.until_sled(name, "is in service", is_in_service).await["last_contact"].clone();
        fleet.until_sled(name, "is heard from again", |sled| sled["last_contact"] != seen).await;
    }
}

async fn held_by_both(fleet: &Fleet, sleds: [&Sled; 2]) -> [BTreeMap<String, String>; 2] {
    [sleds[0].held(&fleet.daemon.http).await, sleds[1].held(&fleet.daemon.http).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_stopped_past_its_lease_kills_before_it_does_anything_else_and_its_guests_run_once()
{
    let fleet = Fleet::start_with(LEASE);
    let (a, b) = (fleet.sled("a", &[]), fleet.sled("b", &[]));
    fleet.until_in_service(&[&a, &b]).await;
    let ids = run_instances(&fleet, 4).await;
    let lost = a.held(&fleet.daemon.http).await;
    assert!(!lost.is_empty() && lost.len() < ids.len(), "placement spreads: {lost:?}");
    a.send("-STOP");
    let expired =
        fleet.until_sled("a", "has lost its lease", |sled| !sled["lease"]["expired"].is_null()).await;
    assert_eq!((&expired["epoch"], &expired["lease"]["seconds"]), (&json!(1), &json!(8)));
    super::until("everything runs on the other", async || {
        let held = b.held(&fleet.daemon.http).await;
        ids.iter().all(|id| held.contains_key(id)).then_some(())
    })
    .await;
    fleet.until_all(&ids, "running").await;

    // A call that was made in time and comes late: it waits at the agent's door until the agent goes on.
    let (vmm, late) = (lost.values().next().unwrap(), reqwest::Client::new());
    let order = json!({"op_id": vmm, "lease_epoch": 1, "state": {"type": "reboot"}});
    let url = format!("{}/vmms/{vmm}/state", a.url);
    let late = tokio::spawn(async move { late.put(url).json(&order).send().await });
    a.send("-CONT");
    assert_eq!(
        a.held(&fleet.daemon.http).await,
        BTreeMap::new(),
        "the first thing it says is that nobody lives"
    );
    let (status, refused) = answer(late.await.unwrap().unwrap()).await;
    assert_eq!(status, 412, "{refused}");
    let back = fleet
        .until_sled("a", "is back", |sled| {
            // What the ledger says and what the sled's actor says are not of one moment.
            sled["lease"]["expired"].is_null() && is_in_service(sled) && sled["epoch"] == 2
        })
        .await;
    assert_eq!(back["lease"]["seconds"], 8);
    two_looks(&fleet, "a").await;
    let [on_a, on_b] = held_by_both(&fleet, [&a, &b]).await;
    assert_eq!(on_a, BTreeMap::new());
    assert_eq!(on_b.keys().cloned().collect::<Vec<_>>(), super::sorted(&ids), "each once");
    for id in &ids {
        assert_eq!(starts(&fleet, id).await, 1 + usize::from(lost.contains_key(id)), "{id}");
        let history = Value::Array(fleet.history(id).await).to_string();
        assert_eq!(history.contains("lease"), lost.contains_key(id), "{history}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lease_a_stopped_agent_keeps_its_guests_and_nothing_is_started_elsewhere() {
    let fleet = Fleet::start();
    let (a, b) = (fleet.sled("a", &[]), fleet.sled("b", &[]));
    fleet.until_in_service(&[&a, &b]).await;
    let ids = run_instances(&fleet, 4).await;
    let before = held_by_both(&fleet, [&a, &b]).await;
    a.send("-STOP");
    let away = fleet.until_sled("a", "is unreachable", |sled| !sled["unreachable"].is_null()).await;
    assert!(away["lease"].is_null(), "{away}");
    for _ in 0..3 {
        two_looks(&fleet, "b").await;
    }
    fleet.until_all(&ids, "running").await;
    a.send("-CONT");
    fleet.until_sled("a", "is back", is_in_service).await;
    two_looks(&fleet, "a").await;
    assert_eq!(held_by_both(&fleet, [&a, &b]).await, before);
    for id in &ids {
        assert_eq!(starts(&fleet, id).await, 1, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_outlive_a_daemon_that_is_away_for_less_than_their_lease() {
    let mut fleet = Fleet::start_with("lease_s = 40\nlease_grace_s = 2\n");
    let relay = super::Relay::start(&fleet.daemon.sled_url).await;
    let a = Sled::start(fleet.scratch.path(), "a", &relay.url, &[]);
    fleet.until_in_service(&[&a]).await;
    let ids = run_instances(&fleet, 2).await;
    let before = a.held(&fleet.daemon.http).await;
    fleet.daemon.kill();
    fleet.daemon = Fleet::daemon(&fleet.data, &fleet.config);
    relay.turn_to(&fleet.daemon.sled_url);
    let back = fleet.until_sled("a", "is back", is_in_service).await;
    assert_eq!((&back["epoch"], &back["lease"]["seconds"]), (&json!(1), &json!(40)));
    let renewed = back["lease"]["renewed"].clone();
    fleet.until_sled("a", "renews with the new one", |sled| sled["lease"]["renewed"] != renewed).await;
    fleet.until_all(&ids, "running").await;
    assert_eq!(a.held(&fleet.daemon.http).await, before);
}
