//! The conformance scenarios of sleds and their answers, over a bad network between real processes: whatever is lost,
//! late, halved or repeated, nobody runs twice, nothing is declared dead that lives, and what was asked for comes.

use super::proxy::Proxy;
use super::{Fleet, until};
use crate::daemon::answer;
use crate::process::Sled;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A sled, and the ways to it and from it.
struct Behind {
    sled: Sled,
    inward: Proxy,
    outward: Proxy,
}

struct Stage {
    fleet: Fleet,
    sleds: Vec<Behind>,
}

impl Stage {
    async fn set(count: u64, settings: &str, seed: u64) -> Self {
        let fleet = Fleet::start_with(settings);
        let mut sleds = Vec::new();
        for n in 0..count {
            let name = ["a", "b", "c"][usize::try_from(n).unwrap()];
            let (inward, outward) =
                (Proxy::start(seed * 10 + n).await, Proxy::start(seed * 10 + n + 5).await);
            outward.turn_to(&fleet.daemon.sled_url);
            let reached = inward.url.strip_prefix("http://").unwrap();
            let sled = Sled::start(fleet.scratch.path(), name, &outward.url, &["--advertise", reached]);
            inward.turn_to(&sled.url);
            sleds.push(Behind { sled, inward, outward });
        }
        let stage = Self { fleet, sleds };
        stage.fleet.until_in_service(&stage.sleds.iter().map(|it| &it.sled).collect::<Vec<_>>()).await;
        stage
    }

    /// Bad weather everywhere, or nowhere.
    fn storm(&self, share: u64) {
        for behind in &self.sleds {
            behind.inward.storm(share);
            behind.outward.storm(share);
        }
    }

    fn cut(&self, n: usize, is_cut: bool) {
        self.sleds[n].inward.cut(is_cut);
        self.sleds[n].outward.cut(is_cut);
    }

    async fn create(&self, name: &str, policy: &str) -> String {
        let mut body = crate::daemon::instance_body(name, true);
        body["auto_restart_policy"] = json!(policy);
        let (status, body) = self.fleet.daemon.post("/v1/instances?project=demo", Some(body)).await;
        assert_eq!(status, 201, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    async fn held(&self, n: usize) -> BTreeMap<String, String> {
        self.sleds[n].sled.held(&self.fleet.daemon.http).await
    }

    /// On which sled it is, by the sleds' own word; it must be on one at most.
    async fn place(&self, id: &str) -> Option<(usize, String)> {
        let mut places = Vec::new();
        for n in 0..self.sleds.len() {
            places.extend(self.held(n).await.remove(id).map(|vmm| (n, vmm)));
        }
        assert!(places.len() < 2, "{id} is in two places: {places:?}");
        places.pop()
    }

    /// Guests that execute at this moment, by the sleds' own word.
    async fn executing(&self) -> Vec<(String, String)> {
        let mut guests = Vec::new();
        for behind in &self.sleds {
            let inventory = behind.sled.get(&self.fleet.daemon.http, "/inventory").await;
            let runs =
                |vmm: &&Value| matches!(vmm["vmm_state"]["state"].as_str(), Some("running" | "rebooting"));
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let running = inventory["vmms"].as_array().unwrap().iter().filter(runs);
            guests.extend(running.map(|vmm| (text(&vmm["instance_id"]), text(&vmm["propolis_id"]))));
        }
        guests.sort();
        guests
    }

    /// The sleds are asked one after the other: a guest that moves meanwhile is seen twice once, not twice.
    async fn nobody_executes_twice(&self) {
        let twice = async || {
            let guests = self.executing().await;
            guests.windows(2).filter(|two| two[0].0 == two[1].0).map(<[_]>::to_vec).collect::<Vec<_>>()
        };
        let first = twice().await;
        if !first.is_empty() {
            let second = twice().await;
            assert!(second.iter().all(|two| !first.contains(two)), "two guests of one instance: {second:?}");
        }
    }

    /// Waits until the daemon has looked at every sled it reaches twice more.
    async fn two_looks(&self, name: &str) {
        for _ in 0..2 {
            let seen =
                self.fleet.until_sled(name, "answers", super::is_in_service).await["last_contact"].clone();
            self.fleet.until_sled(name, "is heard from again", |sled| sled["last_contact"] != seen).await;
        }
    }

    async fn state(&self, id: &str) -> String {
        self.fleet.daemon.state(id).await
    }

    async fn until_state(&self, id: &str, state: &str) {
        self.fleet.until_all(std::slice::from_ref(&id.to_owned()), state).await;
    }

    async fn order(&self, id: &str, verb: &str) -> u16 {
        self.fleet.daemon.post(&format!("/v1/instances/{id}/{verb}"), None).await.0
    }

    async fn told(&self, id: &str) -> String {
        Value::Array(self.fleet.history(id).await).to_string()
    }

    async fn epoch(&self, n: usize) -> u64 {
        let inventory = self.sleds[n].sled.get(&self.fleet.daemon.http, "/inventory").await;
        inventory["lease_epoch"].as_u64().unwrap()
    }
}

/// Many looks, and calls short enough for lost ones to be noticed.
const NIMBLE: &str =
    "\n[instances]\nrestart_base_s = 1\nstart_deadline_s = 30\n[timers]\nreincarnation_s = 1\n";

/// Rounds of orders in a storm, and how many ways and sorts of misfortune must have been met together by its end.
const ROUNDS_MIN: usize = 4;
const ROUNDS_MAX: usize = 200;
const SORTS_MIN: usize = 20;

/// Everything at once, from a seed: s01, s03, s11, s19, t04 and t05 in one.
async fn storm(seed: u64) {
    let stage = Stage::set(3, NIMBLE, seed).await;
    stage.storm(25);
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(stage.create(&format!("web-{n}"), "best_effort").await);
    }
    let struck = || -> usize {
        stage.sleds.iter().map(|it| it.inward.sorts_struck() + it.outward.sorts_struck()).sum()
    };
    let mut round = 0;
    while round < ROUNDS_MIN || struck() < SORTS_MIN {
        assert!(round < ROUNDS_MAX, "only {} sorts of misfortune were met", struck());
        for (n, id) in ids.iter().enumerate() {
            match (n + round) % 6 {
                0 => drop(stage.order(id, "stop").await),
                1 => drop(stage.order(id, "start").await),
                2 => drop(stage.order(id, "reboot").await),
                3 => drop(
                    stage
                        .fleet
                        .daemon
                        .post(&format!("/ops/v1/instances/{id}/migrate"), Some(json!({})))
                        .await,
                ),
                _ => {}
            }
            stage.nobody_executes_twice().await;
        }
        round += 1;
    }
    stage.storm(0);
    // A stop that was recorded in the storm may still come true: whoever is down is started again.
    until(&format!("seed {seed}: everybody runs, each in one place"), async || {
        stage.nobody_executes_twice().await;
        let mut up = 0;
        for id in &ids {
            let state = stage.state(id).await;
            if matches!(state.as_str(), "stopped" | "failed") {
                stage.order(id, "start").await;
            }
            up += usize::from(state == "running");
        }
        let held: Vec<String> = {
            let mut held = Vec::new();
            for n in 0..stage.sleds.len() {
                held.extend(stage.held(n).await.into_keys());
            }
            held
        };
        (up == ids.len() && super::sorted(&held) == super::sorted(&ids)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_storm_nobody_runs_twice_and_after_it_everybody_runs() {
    storm(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_in_another() {
    storm(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_an_inventory_finds_what_is_missing_ends_what_is_unknown_and_leaves_the_rest() {
    let stage = Stage::set(1, "", 4).await;
    let (kept, lost) = (stage.create("kept", "never").await, stage.create("lost", "never").await);
    stage.until_state(&kept, "running").await;
    stage.until_state(&lost, "running").await;
    stage.storm(25);
    let (http, url) = (&stage.fleet.daemon.http, &stage.sleds[0].sled.url);
    let (epoch, vmm) = (stage.epoch(0).await, stage.held(0).await[&lost].clone());
    // Behind the daemon's back: one VMM goes, and another comes.
    let gone = http.delete(format!("{url}/vmms/{vmm}?lease_epoch={epoch}")).send().await.unwrap();
    assert_eq!(gone.status(), 200);
    let orphan = "00000000-0000-4000-8000-000000000077";
    let body = json!({
        "instance_id": orphan, "vmm_runtime": {"state": "starting", "gen": 1, "time_updated": "2026-01-01T00:00:00Z"},
        "resources": {"ncpus": 2, "memory": 4_u64 << 30},
        "network": {"virtual_ip": "10.0.0.5", "mac": "A8:40:25:00:00:01", "vni": 100},
        "metadata": {"project_id": orphan}, "lease_epoch": epoch,
    });
    let (status, said) =
        answer(http.put(format!("{url}/vmms/{orphan}")).json(&body).send().await.unwrap()).await;
    assert_eq!(status, 200, "{said}");
    stage.until_state(&lost, "failed").await;
    assert!(stage.told(&lost).await.contains("no_such_vmm"));
    until("the orphan is ended", async || (!stage.held(0).await.contains_key(orphan)).then_some(())).await;
    assert_eq!(stage.held(0).await.keys().collect::<Vec<_>>(), [&kept]);
    assert_eq!(stage.state(&kept).await, "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_a_sled_that_does_not_answer_is_not_dead() {
    let stage = Stage::set(2, NIMBLE, 5).await;
    let ids = [stage.create("web-0", "best_effort").await, stage.create("web-1", "best_effort").await];
    for id in &ids {
        stage.until_state(id, "running").await;
    }
    let before = [stage.held(0).await, stage.held(1).await];
    stage.cut(0, true);
    stage.fleet.until_sled("a", "is unreachable", |sled| !sled["unreachable"].is_null()).await;
    for _ in 0..3 {
        stage.two_looks("b").await;
    }
    for id in &ids {
        assert_eq!(stage.state(id).await, "running");
    }
    stage.cut(0, false);
    stage.fleet.until_sled("a", "is back", super::is_in_service).await;
    stage.two_looks("a").await;
    assert_eq!([stage.held(0).await, stage.held(1).await], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sled_that_cannot_be_reached_is_only_asked_whether_it_is_there_and_work_goes_on_when_it_is() {
    let stage = Stage::set(1, "", 11).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(stage.create(&format!("web-{n}"), "never").await);
        stage.until_state(&ids[n], "running").await;
    }
    for round in ["stop", "start", "stop"] {
        stage.fleet.until_sled("a", "is sent requests", |sled| sled["circuit"].is_null()).await;
        stage.sleds[0].inward.cut(true);
        for id in &ids {
            stage.order(id, round).await;
        }
        let open =
            stage.fleet.until_sled("a", "has an open circuit", |sled| !sled["circuit"].is_null()).await;
        assert!(open["circuit"]["unanswered"].as_u64() >= Some(5), "{open}");
        let shown = crate::daemon::stdout(&stage.fleet.daemon.cli(&["sled", "show", "a"]));
        let since = open["circuit"]["open_since"].as_str().unwrap();
        assert!(shown.contains(&format!("open since {since}")), "{shown}");
        stage.sleds[0].inward.cut(false);
        let wanted = if round == "stop" { "stopped" } else { "running" };
        for id in &ids {
            stage.until_state(id, wanted).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t06_what_is_on_an_expunged_sled_is_over_without_a_word_to_it() {
    let stage = Stage::set(2, NIMBLE, 6).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(stage.create(&format!("web-{n}"), if n < 2 { "never" } else { "best_effort" }).await);
        stage.until_state(&ids[n], "running").await;
    }
    let on_a = stage.held(0).await;
    stage.cut(0, true);
    let sleds = stage.fleet.sleds().await;
    let a = sleds.iter().find(|sled| sled["name"] == "a").unwrap()["id"].as_str().unwrap();
    let path = format!("/ops/v1/sleds/{a}/expunge");
    let (status, body) = stage.fleet.daemon.post(&path, Some(json!({"reason": "burnt"}))).await;
    assert_eq!(status, 200, "{body}");
    for (n, id) in ids.iter().enumerate() {
        let expected = if n < 2 && on_a.contains_key(id) { "failed" } else { "running" };
        let is_told = async || stage.told(id).await.contains("sled_expunged").then_some(());
        if on_a.contains_key(id) {
            // It ran before, too: that it runs says nothing of its end.
            until("it is told of the end of its VMM", is_told).await;
        }
        stage.until_state(id, expected).await;
        assert_eq!(is_told().await.is_some(), on_a.contains_key(id), "{id}");
    }
    assert_eq!(stage.held(0).await, on_a, "nobody told the sled");
    // When it hears of it, it kills.
    stage.cut(0, false);
    until("its guests are over", async || stage.held(0).await.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s03_a_start_whose_messages_are_lost_or_doubled_runs_once_or_not_at_all() {
    let stage = Stage::set(2, NIMBLE, 3).await;
    stage.storm(50);
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(stage.create(&format!("web-{n}"), "never").await);
    }
    for id in &ids {
        until(&format!("{id} has come to an end of its start"), async || {
            stage.nobody_executes_twice().await;
            matches!(stage.state(id).await.as_str(), "running" | "stopped" | "failed").then_some(())
        })
        .await;
    }
    stage.storm(0);
    for id in &ids {
        until(&format!("{id} is where the daemon says"), async || {
            let runs = stage.state(id).await == "running";
            (runs == stage.place(id).await.is_some()).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s04_while_the_sled_of_an_undone_start_is_away_commands_are_taken_and_a_start_waits_for_it() {
    let stage = Stage::set(1, "\n[instances]\nstart_deadline_s = 4\n", 7).await;
    let id = stage.create("web", "never").await;
    // The order to run is on its way or has arrived; nothing comes back.
    until("it is on its sled", async || stage.place(&id).await.map(drop)).await;
    stage.cut(0, true);
    until("its start is given up", async || {
        matches!(stage.state(&id).await.as_str(), "stopped" | "failed").then_some(())
    })
    .await;
    assert_eq!(stage.order(&id, "stop").await, 202);
    let started = stage.order(&id, "start").await;
    assert!(
        matches!(started, 202 | 507),
        "taken, or there is no room while the old one may be there: {started}"
    );
    stage.nobody_executes_twice().await;
    stage.cut(0, false);
    until("it runs, once", async || {
        stage.nobody_executes_twice().await;
        let state = stage.state(&id).await;
        if matches!(state.as_str(), "stopped" | "failed") {
            stage.order(&id, "start").await;
        }
        (state == "running").then_some(())
    })
    .await;
    assert!(stage.place(&id).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn s18_a_stop_of_what_its_sled_does_not_know_fails_it_and_it_stays_down() {
    let stage = Stage::set(1, &format!("unanswered_max = 1000\n{NIMBLE}"), 8).await;
    let id = stage.create("web", "best_effort").await;
    stage.until_state(&id, "running").await;
    let (http, url) = (&stage.fleet.daemon.http, &stage.sleds[0].sled.url);
    let (epoch, vmm) = (stage.epoch(0).await, stage.held(0).await[&id].clone());
    // No inventory shall be faster than the stop.
    stage.sleds[0].inward.cut(true);
    stage.fleet.until_sled("a", "is unreachable", |sled| !sled["unreachable"].is_null()).await;
    let gone = http.delete(format!("{url}/vmms/{vmm}?lease_epoch={epoch}")).send().await.unwrap();
    assert_eq!(gone.status(), 200);
    let first = stage.order(&id, "stop").await;
    assert!(matches!(first, 502..=504), "{first}");
    stage.sleds[0].inward.cut(false);
    until("it is down", async || {
        matches!(stage.state(&id).await.as_str(), "failed" | "stopped").then_some(())
    })
    .await;
    stage.two_looks("a").await;
    assert!(matches!(stage.state(&id).await.as_str(), "failed" | "stopped"), "the user asked to stop");
    assert!(stage.told(&id).await.contains("no_such_vmm"));
    assert_eq!(stage.place(&id).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn s19_a_stop_that_nobody_answers_is_recorded_and_comes_true_later() {
    let stage = Stage::set(1, "", 9).await;
    let id = stage.create("web", "never").await;
    stage.until_state(&id, "running").await;
    stage.sleds[0].inward.cut(true);
    let status = stage.order(&id, "stop").await;
    assert!(matches!(status, 502 | 504), "{status}");
    assert_eq!(stage.state(&id).await, "running", "recorded, not confirmed");
    assert!(stage.told(&id).await.contains("StopRequested"));
    stage.sleds[0].inward.cut(false);
    stage.until_state(&id, "stopped").await;
    until("it is gone from its sled", async || stage.place(&id).await.is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s20_a_stop_repeated_past_its_end_leaves_stopped_and_never_failed() {
    let stage = Stage::set(1, "", 10).await;
    // Whatever arrives arrives twice, late, or again when it is over.
    stage.storm(60);
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(stage.create(&format!("web-{n}"), "never").await);
    }
    for id in &ids {
        stage.until_state(id, "running").await;
    }
    for id in &ids {
        let status = stage.order(id, "stop").await;
        assert!(matches!(status, 202 | 500..=504), "{status}");
    }
    for id in &ids {
        stage.until_state(id, "stopped").await;
        assert!(!stage.told(id).await.contains("no_such_vmm"), "{id}");
    }
}
