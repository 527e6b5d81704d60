//! A daemon without sleds of its own, and sleds that are processes: they register over HTTP, are killed, come
//! back, boot anew, misbehave; and the daemon is killed while they live.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;
#[path = "sleds/faulty.rs"]
mod faulty;
#[path = "sleds/keys.rs"]
mod keys;
#[path = "sleds/lease.rs"]
mod lease;
#[path = "sleds/many.rs"]
mod many;
#[path = "sleds/migration.rs"]
mod migration;
#[path = "sleds/ours.rs"]
mod ours;
#[path = "sleds/paused.rs"]
mod paused;
#[path = "sleds/process.rs"]
mod process;
#[path = "sleds/proxy.rs"]
mod proxy;
#[path = "sleds/script.rs"]
mod script;

use daemon::{Daemon, Scratch, answer, instance_body, scratch, stderr};
use process::{Sled, sled_command, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// A daemon without sleds of its own that looks at its sleds every second.
struct Fleet {
    scratch: Scratch,
    data: PathBuf,
    config: String,
    daemon: Daemon,
}

/// Seconds that calls may take here: the tests wait for some of them to be given up.
const CALLS: &str = "ensure_s = 2, destroy_s = 2, state_s = 2, get_s = 2, inventory_s = 2, network_s = 2";

impl Fleet {
    fn start() -> Self {
        Self::start_with("")
    }

    /// With more settings of `[sleds]`.
    fn start_with(settings: &str) -> Self {
        let (scratch, data) = scratch();
        let config = scratch.path().join("config.toml");
        std::fs::write(&config, format!("[sleds]\ninventory_s = 1\ncall = {{ {CALLS} }}\n{settings}"))
            .unwrap();
        let config = config.to_str().unwrap().to_owned();
        let daemon = Self::daemon(&data, &config);
        Self { scratch, data, config, daemon }
    }

    fn daemon(data: &Path, config: &str) -> Daemon {
        Daemon::start_with(data, &["--no-embedded-sleds", "--config", config])
    }

    fn sled(&self, name: &str, more: &[&str]) -> Sled {
        Sled::start(self.scratch.path(), name, &self.daemon.sled_url, more)
    }

    async fn sleds(&self) -> Vec<Value> {
        let (status, body) = self.daemon.get("/ops/v1/sleds").await;
        assert_eq!(status, 200, "{body}");
        body["items"].as_array().unwrap().clone()
    }

    async fn until_sled(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(&format!("sled {name} {what}"), async || {
            self.sleds().await.into_iter().find(|sled| sled["name"] == name && holds(sled))
        })
        .await
    }

    async fn until_in_service(&self, sleds: &[&Sled]) {
        for sled in sleds {
            self.until_sled(&sled.name, "is in service", is_in_service).await;
            sled.until_it_knows_its_epoch(&self.daemon.http).await;
        }
    }

    /// Creates and starts instances that stay as they end.
    async fn run_instances(&self, names: &[&str]) -> Vec<String> {
        let mut ids = Vec::new();
        for name in names {
            let mut body = instance_body(name, true);
            body["auto_restart_policy"] = json!("never");
            let (status, body) = self.daemon.post("/v1/instances?project=demo", Some(body)).await;
            assert_eq!(status, 201, "{body}");
            ids.push(body["id"].as_str().unwrap().to_owned());
        }
        self.until_all(&ids, "running").await;
        ids
    }

    async fn until_all(&self, ids: &[String], state: &str) {
        for id in ids {
            until(&format!("{id} is {state}"), async || (self.daemon.state(id).await == state).then_some(()))
                .await;
        }
    }

    async fn order(&self, id: &str, verb: &str) {
        let (status, body) = self.daemon.post(&format!("/v1/instances/{id}/{verb}"), None).await;
        assert_eq!(status, 202, "{verb}: {body}");
    }

    /// As `order`, of a sled that may not answer: then it is recorded, and confirmed later.
    async fn wish(&self, id: &str, verb: &str) {
        let (status, body) = self.daemon.post(&format!("/v1/instances/{id}/{verb}"), None).await;
        assert!(matches!(status, 202 | 502 | 503 | 504), "{verb}: {status} {body}");
    }

    async fn history(&self, id: &str) -> Vec<Value> {
        let (status, body) = self.daemon.get(&format!("/ops/v1/instances/{id}/history?limit=1000")).await;
        assert_eq!(status, 200, "{body}");
        body["items"].as_array().unwrap().clone()
    }
}

fn is_in_service(sled: &Value) -> bool {
    sled["unreachable"].is_null() && !sled["last_contact"].is_null() && !sled["epoch"].is_null()
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_live_on_sleds_that_are_processes() {
    let fleet = Fleet::start();
    let sleds =
        [fleet.sled("a", &[]), fleet.sled("b", &[]), fleet.sled("c", &["--threads", "4", "--ram", "8"])];
    fleet.until_in_service(&sleds.each_ref()).await;
    let ids = fleet.run_instances(&["web-1", "web-2", "web-3", "web-4"]).await;
    let http = &fleet.daemon.http;
    let mut held = BTreeMap::new();
    for sled in &sleds {
        held.append(&mut sled.held(http).await);
    }
    assert_eq!(held.keys().cloned().collect::<Vec<_>>(), sorted(&ids), "each once");

    let first = ids[0].as_str();
    fleet.order(first, "reboot").await;
    let vmm = held[first].as_str();
    until("the guest has booted twice", async || {
        for sled in &sleds {
            if sled.held(http).await.values().any(|held| held == vmm) {
                let serial = sled.get(http, &format!("/vmms/{vmm}/serial")).await;
                let bytes: Vec<u8> = serde_json::from_value(serial["data"].clone()).unwrap();
                let text = String::from_utf8(bytes).unwrap();
                return (text.matches("login: ").count() == 2).then_some(());
            }
        }
        None
    })
    .await;
    fleet.until_all(&ids, "running").await;
    for id in &ids {
        fleet.order(id, "stop").await;
    }
    fleet.until_all(&ids, "stopped").await;
    fleet.order(first, "start").await;
    fleet.until_all(&ids[..1], "running").await;
    for (sled, signal) in sleds.into_iter().zip(["-TERM", "-INT", "-TERM"]) {
        assert_eq!(sled.signal(signal), Some(0), "{signal}");
    }
}

fn sorted(ids: &[String]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_and_restarted_loses_no_guest_and_nothing_restarts() {
    let fleet = Fleet::start();
    let (a, b) = (fleet.sled("a", &[]), fleet.sled("b", &[]));
    fleet.until_in_service(&[&a, &b]).await;
    let ids = fleet.run_instances(&["web-1", "web-2", "web-3", "web-4"]).await;
    let http = &fleet.daemon.http;
    let before = a.held(http).await;
    assert!(!before.is_empty(), "placement spreads");
    let mut lengths = Vec::new();
    for id in &ids {
        lengths.push(fleet.history(id).await.len());
    }
    let url = a.url.clone();
    a.kill();
    fleet.until_sled("a", "is unreachable", |sled| !sled["unreachable"].is_null()).await;
    fleet.until_all(&ids, "running").await;

    let a = fleet.sled("a", &[]);
    assert_eq!(a.url, url, "it listens where it did");
    let back = fleet.until_sled("a", "is back", is_in_service).await;
    assert_eq!(back["epoch"], 1, "the host has not booted");
    // Two more looks at everything: whatever was to be concluded has been by then.
    for _ in 0..2 {
        let seen = back["last_contact"].clone();
        fleet.until_sled("a", "is heard from again", |sled| sled["last_contact"] != seen).await;
    }
    assert_eq!(a.held(http).await, before);
    for (id, length) in ids.iter().zip(lengths) {
        let history = fleet.history(id).await;
        assert_eq!(history.len(), length, "nothing happened to {id}: {:?}", history.last());
    }
    for id in &ids {
        fleet.order(id, "stop").await;
    }
    fleet.until_all(&ids, "stopped").await;
    drop(b);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_boots_anew_has_lost_its_guests_and_their_history_says_why() {
    let fleet = Fleet::start();
    let (a, b) = (fleet.sled("a", &[]), fleet.sled("b", &[]));
    fleet.until_in_service(&[&a, &b]).await;
    let ids = fleet.run_instances(&["web-1", "web-2", "web-3", "web-4"]).await;
    let http = &fleet.daemon.http;
    let lost: Vec<String> = a.held(http).await.into_keys().collect();
    assert!(!lost.is_empty() && lost.len() < ids.len(), "placement spreads: {lost:?}");
    a.kill();
    let a = fleet.sled("a", &["--reboot"]);
    fleet.until_sled("a", "has booted", |sled| sled["epoch"] == 2).await;
    a.until_it_knows_its_epoch(&fleet.daemon.http).await;
    fleet.until_all(&lost, "failed").await;
    assert_eq!(a.held(http).await, BTreeMap::new());
    for id in &lost {
        let history = fleet.history(id).await;
        let text = Value::Array(history).to_string();
        assert!(text.contains("sled_rebooted"), "{text}");
    }
    let kept: Vec<String> = ids.iter().filter(|id| !lost.contains(id)).cloned().collect();
    fleet.until_all(&kept, "running").await;
    // What failed can be started again, and the sled takes guests again.
    for id in &lost {
        fleet.order(id, "start").await;
    }
    fleet.until_all(&ids, "running").await;
    drop(b);
}

/// A port that stays while what is behind it changes.
struct Relay {
    url: String,
    to: Arc<Mutex<SocketAddr>>,
}

impl Relay {
    async fn start(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            to: Arc::new(Mutex::new(socket(url))),
        };
        let to = Arc::clone(&relay.to);
        tokio::spawn(async move {
            while let Ok((mut incoming, _)) = listener.accept().await {
                let to = *to.lock().unwrap();
                tokio::spawn(async move {
                    if let Ok(mut outgoing) = TcpStream::connect(to).await {
                        let _ = copy_bidirectional(&mut incoming, &mut outgoing).await;
                    }
                });
            }
        });
        relay
    }

    fn turn_to(&self, url: &str) {
        *self.to.lock().unwrap() = socket(url);
    }
}

fn socket(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_killed_finds_its_sleds_and_their_guests_again() {
    let mut fleet = Fleet::start();
    let relay = Relay::start(&fleet.daemon.sled_url).await;
    let start = |name| Sled::start(fleet.scratch.path(), name, &relay.url, &[]);
    let sleds = [start("a"), start("b")];
    fleet.until_in_service(&sleds.each_ref()).await;
    let ids = fleet.run_instances(&["web-1", "web-2", "web-3"]).await;
    let http = reqwest::Client::new();
    let held = async |sleds: &[Sled; 2]| {
        let mut held = sleds[0].held(&http).await;
        held.append(&mut sleds[1].held(&http).await);
        held
    };
    let before = held(&sleds).await;
    // One guest ends while nobody hears of it.
    fleet.order(&ids[2], "stop").await;
    fleet.daemon.kill();
    until("the sled has ended the guest", async || (held(&sleds).await.len() < 3).then_some(())).await;
    fleet.daemon = Fleet::daemon(&fleet.data, &fleet.config);
    relay.turn_to(&fleet.daemon.sled_url);
    fleet.until_in_service(&sleds.each_ref()).await;
    fleet.until_all(&ids[..2], "running").await;
    fleet.until_all(&ids[2..], "stopped").await;
    for sled in fleet.sleds().await {
        assert_eq!(sled["epoch"], 1, "no host has booted: {sled}");
    }
    let after = held(&sleds).await;
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|(id, vmm)| before[id] == *vmm), "{after:?}");
    fleet.order(&ids[2], "start").await;
    fleet.until_all(&ids, "running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sled_that_loses_every_fifth_message_serves_its_instances_all_the_same() {
    let fleet = Fleet::start();
    let bad = fleet.sled("bad", &["--fail-rate", "0.2", "--latency", "10", "--seed", "7"]);
    fleet.until_in_service(&[&bad]).await;
    let ids = fleet.run_instances(&["web-1", "web-2", "web-3"]).await;
    for id in &ids {
        fleet.wish(id, "stop").await;
    }
    fleet.until_all(&ids, "stopped").await;
    for id in &ids {
        fleet.wish(id, "start").await;
    }
    fleet.until_all(&ids, "running").await;
    until("every instance has one VMM", async || {
        let (status, body) =
            answer(fleet.daemon.http.get(format!("{}/inventory", bad.url)).send().await.ok()?).await;
        let live =
            body["vmms"].as_array()?.iter().filter(|vmm| vmm["vmm_state"]["state"] == "running").count();
        (status == 200 && live == ids.len()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sleds_in_the_daemon_and_sleds_that_are_processes_are_one_fleet() {
    let (scratch, data) = scratch();
    let daemon = Daemon::start(&data);
    let own = Sled::start(scratch.path(), "large", &daemon.sled_url, &["--threads", "64"]);
    let fleet = Fleet { scratch, data, config: String::new(), daemon };
    fleet.until_in_service(&[&own]).await;
    for name in ["sim-0", "sim-1", "sim-2", "sim-3"] {
        fleet.until_sled(name, "is in service", is_in_service).await;
    }
    // More threads than a sled in the daemon has.
    let mut body = instance_body("wide", true);
    body["ncpus"] = json!(48);
    let (status, created) = fleet.daemon.post("/v1/instances?project=demo", Some(body)).await;
    assert_eq!(status, 201, "{created}");
    let wide = created["id"].as_str().unwrap().to_owned();
    let mut ids = fleet.run_instances(&["web-1", "web-2"]).await;
    ids.push(wide.clone());
    fleet.until_all(&ids, "running").await;
    assert!(own.held(&fleet.daemon.http).await.contains_key(&wide));
    for id in &ids {
        fleet.order(id, "stop").await;
    }
    fleet.until_all(&ids, "stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_with_the_id_of_one_that_lives_is_refused_and_harms_nobody() {
    let fleet = Fleet::start();
    let a = fleet.sled("a", &[]);
    fleet.until_in_service(&[&a]).await;
    let ids = fleet.run_instances(&["web-1", "web-2"]).await;
    let before = a.held(&fleet.daemon.http).await;
    // The same identity on another host: another boot, another address.
    let dir = fleet.scratch.path();
    std::fs::create_dir(dir.join("copy")).unwrap();
    std::fs::copy(dir.join("a/sled.json"), dir.join("copy/sled.json")).unwrap();
    let copy = fleet.sled("copy", &["--reboot"]);
    let inventory = copy.get(&fleet.daemon.http, "/inventory").await;
    let body = json!({
        "sled_id": inventory["sled_id"], "name": "copy", "boot_id": inventory["boot_id"],
        "resources": {"threads": 32, "memory": 1 << 30}, "cpu_family": "sim-x86", "api_addr": copy.url,
    });
    let url = format!("{}/sleds/register", fleet.daemon.sled_url);
    let (status, refused) = answer(fleet.daemon.http.post(url).json(&body).send().await.unwrap()).await;
    assert_eq!((status, refused["error_code"].as_str()), (409, Some("CONFLICT")), "{refused}");
    let inventory = copy.get(&fleet.daemon.http, "/inventory").await;
    assert!(inventory["lease_epoch"].is_null(), "it was refused the same: {inventory}");
    fleet.until_all(&ids, "running").await;
    assert_eq!(a.held(&fleet.daemon.http).await, before);
    assert_eq!(fleet.sleds().await[0]["epoch"], 1);
    // Once the first is gone for good the second may take its place.
    a.kill();
    copy.until_it_knows_its_epoch(&fleet.daemon.http).await;
    fleet.until_all(&ids, "failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_leads_nowhere_is_refused_and_says_so() {
    let fleet = Fleet::start();
    let id = "5ed00000-0000-4000-8000-000000000001";
    for address in ["nowhere", "http://a:1/b", "https://a:1", "0.0.0.0:1", "a:0", ""] {
        let body = json!({
            "sled_id": id, "name": "x", "boot_id": id, "resources": {"threads": 1, "memory": 1 << 30},
            "cpu_family": "sim-x86", "api_addr": address,
        });
        let url = format!("{}/sleds/register", fleet.daemon.sled_url);
        let (status, refused) = answer(fleet.daemon.http.post(url).json(&body).send().await.unwrap()).await;
        assert_eq!(status, 400, "{address}: {refused}");
        assert!(refused["message"].as_str().unwrap().contains("host:port"), "{address}: {refused}");
    }
    assert_eq!(fleet.sleds().await, Vec::<Value>::new());
}

#[test]
fn a_sled_that_cannot_run_says_why_and_keeps_what_it_has() {
    let (scratch, _) = scratch();
    let dir = scratch.path();
    for (more, code, says) in [
        (&["--fail-rate", "1.5"][..], 2, "--fail-rate"),
        (&["--fail-rate", "nan"], 2, "--fail-rate"),
        (&["--latency", "60001"], 2, "--latency"),
        (&["--threads", "0"], 2, "threads"),
        (&["--ram", "0"], 2, "memory"),
        (&["--ram", "99999999999"], 2, "memory"),
        (&["--cpu-family", ""], 2, "cpu_family"),
        (&["--listen", "0.0.0.0:0"], 2, "--key"),
        (&["--advertise", "nowhere"], 2, "--advertise"),
    ] {
        let output = sled_command(dir, "x", "http://127.0.0.1:1").args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{more:?}: {}", stderr(&output));
    }
    assert!(!dir.join("x/sled.json").exists(), "a refusal is no start");
    let output = sled_command(dir, "x", "ftp://127.0.0.1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--control-plane"), "{}", stderr(&output));
    let output = sled_command(dir, "../x", "http://127.0.0.1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));

    // Nobody answers there: it runs, and registers for ever.
    let held = Sled::start(dir, "held", "http://127.0.0.1:1", &[]);
    let output = sled_command(dir, "held", "http://127.0.0.1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("one process per sled"), "{}", stderr(&output));
    assert_eq!(held.signal("-TERM"), Some(0));
    std::fs::write(dir.join("held/sled.json"), "{").unwrap();
    let output = sled_command(dir, "held", "http://127.0.0.1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
}
