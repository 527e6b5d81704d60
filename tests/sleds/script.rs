//! A day in the life of a fleet, as docs/sleds.md tells it: three sleds and a daemon, each of them killed, one booted
//! anew, one cut off. What both sides hold is compared all along.

use super::{Fleet, Relay, is_in_service, sorted, until};
use crate::daemon::{instance_body, musher, stderr};
use crate::process::Sled;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

const GUESTS: usize = 30;
const MOVED: usize = 10;

/// Restarts that do not wait: the day has several.
const NIMBLE: &str = "\n[instances]\nrestart_base_s = 1\n[timers]\nreincarnation_s = 1\n";

struct Day {
    fleet: Fleet,
    relay: Relay,
    sleds: Vec<Sled>,
    ids: Vec<String>,
}

impl Day {
    async fn begin(settings: &str) -> Self {
        let fleet = Fleet::start_with(settings);
        let relay = Relay::start(&fleet.daemon.sled_url).await;
        let mut day = Self { fleet, relay, sleds: Vec::new(), ids: Vec::new() };
        for name in ["a", "b", "c"] {
            let sled = day.sled(name, &[]);
            day.sleds.push(sled);
        }
        day.fleet.until_in_service(&day.sleds.iter().collect::<Vec<_>>()).await;
        for n in 0..GUESTS {
            let body = instance_body(&format!("web-{n}"), true);
            let (status, body) = day.fleet.daemon.post("/v1/instances?project=demo", Some(body)).await;
            assert_eq!(status, 201, "{body}");
            day.ids.push(body["id"].as_str().unwrap().to_owned());
        }
        day.fleet.until_all(&day.ids, "running").await;
        day
    }

    fn sled(&self, name: &str, more: &[&str]) -> Sled {
        Sled::start(self.fleet.scratch.path(), name, &self.relay.url, more)
    }

    /// What each sled holds, by its own word.
    async fn held(&self, but: Option<usize>) -> Vec<BTreeMap<String, String>> {
        let mut held = Vec::new();
        for (n, sled) in self.sleds.iter().enumerate() {
            held.push(if but == Some(n) {
                BTreeMap::new()
            } else {
                sled.held(&self.fleet.daemon.http).await
            });
        }
        held
    }

    /// Both sides agree: everybody runs, each on one sled.
    async fn everybody_runs_once(&self, but: Option<usize>) -> Vec<BTreeMap<String, String>> {
        self.fleet.until_all(&self.ids, "running").await;
        let held = until("everybody is on one sled", async || {
            let held = self.held(but).await;
            let places: Vec<&String> = held.iter().flat_map(BTreeMap::keys).collect();
            let distinct: BTreeSet<&&String> = places.iter().collect();
            // The VMM that a guest has left is there for a moment longer.
            (places.len() == GUESTS && distinct.len() == GUESTS).then_some(held)
        })
        .await;
        let all: Vec<String> = held.iter().flat_map(BTreeMap::keys).cloned().collect();
        assert_eq!(sorted(&all), sorted(&self.ids));
        held
    }

    async fn starts(&self) -> BTreeMap<String, usize> {
        let mut starts = BTreeMap::new();
        for id in &self.ids {
            let begun =
                self.fleet.history(id).await.iter().filter(|item| item["event"] == "StartBegan").count();
            starts.insert(id.clone(), begun);
        }
        starts
    }

    async fn two_looks(&self, name: &str) {
        for _ in 0..2 {
            let seen = self.fleet.until_sled(name, "answers", is_in_service).await["last_contact"].clone();
            self.fleet.until_sled(name, "is heard from again", |sled| sled["last_contact"] != seen).await;
        }
    }

    /// Migrations, an agent killed, the daemon killed, a sled booted anew.
    async fn pass(mut self) -> Self {
        for id in &self.ids[..MOVED] {
            let path = format!("/ops/v1/instances/{id}/migrate");
            let (status, body) = self.fleet.daemon.post(&path, Some(json!({}))).await;
            assert_eq!(status, 202, "{body}");
        }
        until("the guests have moved", async || {
            let (_, list) = self.fleet.daemon.get("/ops/v1/migrations").await;
            let done = list["items"].as_array()?.iter().filter(|it| it["outcome"] == "succeeded").count();
            (done == MOVED).then_some(())
        })
        .await;
        let before = self.everybody_runs_once(None).await;

        self.sleds.remove(0).kill();
        self.fleet.until_sled("a", "is unreachable", |sled| !sled["unreachable"].is_null()).await;
        let back = self.sled("a", &[]);
        self.sleds.insert(0, back);
        self.two_looks("a").await;
        assert_eq!(self.everybody_runs_once(None).await, before, "an agent is not its guests");

        self.fleet.daemon.kill();
        self.fleet.daemon = Fleet::daemon(&self.fleet.data, &self.fleet.config);
        self.relay.turn_to(&self.fleet.daemon.sled_url);
        for name in ["a", "b", "c"] {
            self.two_looks(name).await;
        }
        assert_eq!(self.everybody_runs_once(None).await, before, "neither is the daemon");
        assert!(self.starts().await.values().all(|starts| *starts == 1), "nobody was started again");

        self.sleds.remove(1).kill();
        let booted = self.sled("b", &["--reboot"]);
        self.sleds.insert(1, booted);
        self.fleet.until_sled("b", "has booted", |sled| sled["epoch"] == 2).await;
        self.everybody_runs_once(None).await;
        for (id, starts) in self.starts().await {
            assert_eq!(starts, 1 + usize::from(before[1].contains_key(&id)), "{id}");
        }
        self
    }

    /// The log says the same as everything that was seen.
    fn end(self) {
        let Self { fleet, sleds, .. } = self;
        let Fleet { daemon, data, scratch, .. } = fleet;
        drop(sleds);
        assert_eq!(daemon.signal("-TERM"), 0);
        let output = musher().args(["replay", "--verify", "--data"]).arg(&data).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        drop(scratch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_without_leases_ends_with_everybody_where_they_were_when_a_sled_was_cut_off() {
    let day = Day::begin(NIMBLE).await.pass().await;
    let (before, starts) = (day.held(None).await, day.starts().await);
    assert!(!before[2].is_empty(), "{before:?}");
    day.sleds[2].send("-STOP");
    day.fleet.until_sled("c", "is unreachable", |sled| !sled["unreachable"].is_null()).await;
    for _ in 0..3 {
        day.two_looks("a").await;
    }
    day.sleds[2].send("-CONT");
    day.two_looks("c").await;
    assert_eq!(day.everybody_runs_once(None).await, before);
    assert_eq!(day.starts().await, starts);
    day.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_with_leases_ends_with_each_guest_of_the_sled_that_was_cut_off_started_once_elsewhere() {
    let day = Day::begin(&format!("lease_s = 20\nlease_grace_s = 2\n{NIMBLE}")).await.pass().await;
    let (before, starts) = (day.held(None).await, day.starts().await);
    assert!(!before[2].is_empty(), "{before:?}");
    day.sleds[2].send("-STOP");
    day.fleet.until_sled("c", "has lost its lease", |sled| !sled["lease"]["expired"].is_null()).await;
    day.everybody_runs_once(Some(2)).await;
    day.sleds[2].send("-CONT");
    let back = |sled: &serde_json::Value| sled["lease"]["expired"].is_null() && is_in_service(sled);
    day.fleet.until_sled("c", "is back", back).await;
    let after = day.everybody_runs_once(None).await;
    assert_eq!(after[2], BTreeMap::new(), "it killed before it did anything else");
    for (id, started) in day.starts().await {
        assert_eq!(started, starts[&id] + usize::from(before[2].contains_key(&id)), "{id}");
    }
    day.end();
}
