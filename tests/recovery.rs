//! kill -9 at random moments, again and again on one directory, under clients that record what was
//! acknowledged. After each restart everything acknowledged is there, every saga ends, capacity adds up.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, answer, instance_body, musher, scratch, serve, stderr, stdout};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Rounds by default; `MUSHER_KILL_ROUNDS` asks for more.
const ROUNDS: u64 = 50;
/// Clients at work in each round.
const CLIENTS: u64 = 4;
/// How soon after a restart nothing may be under way any more.
const QUIESCENCE_MAX: Duration = Duration::from_secs(20);
/// Most instances at a time: a quarter of what the sleds have room for.
const INSTANCES_MAX: usize = 16;

/// What the clients know. A request whose answer was lost may or may not have happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// Whether a delete was sent, and whether it was acknowledged.
    delete: Option<bool>,
    /// Where the last acknowledged wish leads, unless another may have come after it.
    wish: Option<&'static str>,
    /// Wishes under way.
    in_flight: u32,
    /// Whether two of them overlap: nobody knows which of them came last.
    is_contested: bool,
}

impl Known {
    fn begin(&mut self) {
        self.is_contested |= self.in_flight > 0;
        self.in_flight += 1;
    }

    fn end(&mut self, answer: Answered) {
        self.in_flight -= 1;
        match answer {
            _ if self.is_contested => self.wish = None,
            Answered::Accepted(Some(goal)) => self.wish = Some(goal),
            Answered::Accepted(None) | Answered::Refused => {}
            Answered::Lost => self.wish = None,
        }
        self.is_contested &= self.in_flight > 0;
    }
}

/// How a wish was answered.
#[derive(Clone, Copy)]
enum Answered {
    /// Recorded; where it leads, if anywhere else.
    Accepted(Option<&'static str>),
    /// Nothing was written.
    Refused,
    /// Nobody knows.
    Lost,
}

type Ledger = Arc<Mutex<BTreeMap<String, Known>>>;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// Checkpoints are made all the time, so that kills meet every step of it, and starts use them.
const CHECKPOINTS: [(&str, &str); 2] =
    [("MUSHER_CHECKPOINT__EVENTS", "64"), ("MUSHER_CHECKPOINT__PAUSE_S", "0")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_in_fifty_kills() {
    let rounds = std::env::var("MUSHER_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let (_dir, data) = scratch();
    let ledger = Ledger::default();
    let mut acknowledged = 0;
    for round in 0..rounds {
        let daemon = Daemon::start_where(&data, &CHECKPOINTS);
        check(&daemon, &ledger, round).await;
        let mut dice = Dice(round);
        let (http, url) = (daemon.http.clone(), daemon.url.clone());
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                tokio::spawn(client(
                    http.clone(),
                    url.clone(),
                    Arc::clone(&ledger),
                    Dice(round * 31 + n),
                    (round, n),
                ))
            })
            .collect();
        sleep(Duration::from_millis(30 + dice.roll(300))).await;
        daemon.kill();
        for client in clients {
            acknowledged += client.await.unwrap();
        }
    }
    let daemon = Daemon::start(&data);
    check(&daemon, &ledger, rounds).await;
    assert_eq!(daemon.signal("-TERM"), 0);
    println!(
        "{rounds} kills, {acknowledged} acknowledged requests, {} instances",
        ledger.lock().unwrap().len()
    );
    assert!(acknowledged > rounds, "the clients hardly worked: {acknowledged} requests");
    verify(&data);
}

#[tokio::test]
async fn a_first_start_that_is_killed_is_made_up_for() {
    for round in 0..8 {
        let (_dir, data) = scratch();
        for n in 0..3 {
            let mut child = serve(&data).stderr(std::process::Stdio::null()).spawn().unwrap();
            sleep(Duration::from_millis(5 + Dice(round * 3 + n).roll(150))).await;
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let daemon = Daemon::start(&data);
        let id = daemon.create("web-1", true).await;
        daemon.until_state(&id, "running").await;
    }
}

/// Asks for this and that until the daemon is gone. Answers how many requests were acknowledged.
async fn client(http: reqwest::Client, url: String, ledger: Ledger, mut dice: Dice, name: (u64, u64)) -> u64 {
    let mut acknowledged = 0;
    for n in 0_u64.. {
        let mine = pick(&ledger, &mut dice);
        let done = match (mine, dice.roll(8)) {
            (None, _) | (Some(_), 0) => {
                create(&http, &url, &ledger, &format!("i-{}-{}-{n}", name.0, name.1)).await
            }
            (Some(id), 1..=3) => wish(&http, &url, &ledger, &id, "stop").await,
            (Some(id), 4 | 5) => wish(&http, &url, &ledger, &id, "start").await,
            (Some(id), 6) => wish(&http, &url, &ledger, &id, "reboot").await,
            (Some(id), _) => delete(&http, &url, &ledger, &id).await,
        };
        match done {
            Some(true) => acknowledged += 1,
            Some(false) => {}
            None => return acknowledged,
        }
    }
    acknowledged
}

/// An instance of anybody's; none while there are few.
fn pick(ledger: &Ledger, dice: &mut Dice) -> Option<String> {
    let known = ledger.lock().unwrap();
    let alive: Vec<&String> =
        known.iter().filter(|(_, known)| known.delete.is_none()).map(|(id, _)| id).collect();
    let may_grow = alive.len() < INSTANCES_MAX && dice.roll(3) == 0;
    (!may_grow && !alive.is_empty())
        .then(|| alive[usize::try_from(dice.roll(alive.len() as u64)).unwrap()].clone())
}

/// None: the daemon is gone. Some(false): refused.
async fn create(http: &reqwest::Client, url: &str, ledger: &Ledger, name: &str) -> Option<bool> {
    if ledger.lock().unwrap().values().filter(|known| known.delete.is_none()).count() >= INSTANCES_MAX {
        sleep(Duration::from_millis(1)).await;
        return Some(false);
    }
    let sent =
        http.post(format!("{url}/v1/instances?project=demo")).json(&instance_body(name, true)).send().await;
    let (status, body) = answer(sent.ok()?).await;
    let id = body["id"].as_str().filter(|_| status == 201)?.to_owned();
    ledger.lock().unwrap().insert(id, Known { wish: Some("running"), ..Known::default() });
    Some(true)
}

async fn wish(
    http: &reqwest::Client,
    url: &str,
    ledger: &Ledger,
    id: &str,
    action: &'static str,
) -> Option<bool> {
    let goal = match action {
        "start" => Some("running"),
        "stop" => Some("stopped"),
        _ => None,
    };
    ledger.lock().unwrap().get_mut(id)?.begin();
    let sent = http.post(format!("{url}/v1/instances/{id}/{action}")).send().await;
    let status = match sent {
        Ok(response) => Some(answer(response).await.0),
        Err(_) => None,
    };
    let outcome = match status {
        Some(202) => Answered::Accepted(goal),
        Some(400..500 | 507) => Answered::Refused,
        _ => Answered::Lost,
    };
    ledger.lock().unwrap().get_mut(id)?.end(outcome);
    status.map(|status| status == 202)
}

async fn delete(http: &reqwest::Client, url: &str, ledger: &Ledger, id: &str) -> Option<bool> {
    let was_sent =
        ledger.lock().unwrap().get_mut(id).is_some_and(|known| known.delete.replace(false).is_some());
    let sent = http.delete(format!("{url}/v1/instances/{id}")).send().await;
    let (status, _) = answer(sent.ok()?).await;
    let mut known = ledger.lock().unwrap();
    let known = known.get_mut(id)?;
    match status {
        204 | 404 => known.delete = Some(true),
        400..500 if !was_sent => known.delete = None,
        _ => {}
    }
    Some(status == 204)
}

/// Everything acknowledged is there; everything comes to rest; what is held adds up.
async fn check(daemon: &Daemon, ledger: &Ledger, round: u64) {
    let known = ledger.lock().unwrap().clone();
    for (id, known) in &known {
        let (status, body) = daemon.get(&format!("/v1/instances/{id}")).await;
        match known.delete {
            None => assert_eq!(status, 200, "round {round}: {id} is lost: {body}"),
            Some(true) => assert_eq!(status, 404, "round {round}: deleted {id} is back: {body}"),
            Some(false) => assert!(status == 200 || status == 404, "round {round}: {id}: {body}"),
        }
        // What happened to a delete whose answer was lost is known by looking.
        if known.delete == Some(false) {
            let settled = (status == 404).then_some(true);
            ledger.lock().unwrap().get_mut(id).unwrap().delete = settled;
        }
    }
    let instances = quiesce(daemon, round).await;
    let mut threads = 0;
    for instance in &instances {
        let id = instance["id"].as_str().unwrap();
        let state = instance["run_state"].as_str().unwrap();
        if state == "running" {
            threads += instance["ncpus"].as_u64().unwrap();
        }
        let mut known = ledger.lock().unwrap();
        // An answer that was lost may have made one more than is known.
        let known = known.entry(id.to_owned()).or_default();
        if let Some(wish) = known.wish {
            assert_eq!(state, wish, "round {round}: {id} is not where it was acknowledged to go");
        }
        *known = Known { delete: known.delete, ..Known::default() };
        known.wish = Some(if state == "running" { "running" } else { "stopped" });
    }
    let held = until_held_is(daemon, threads).await;
    assert_eq!(held, threads, "round {round}: capacity does not add up");
}

async fn quiesce(daemon: &Daemon, round: u64) -> Vec<Value> {
    let since = Instant::now();
    loop {
        let (status, page) = daemon.get("/v1/instances?project=demo&limit=10000").await;
        assert_eq!(status, 200, "{page}");
        let instances = page["items"].as_array().unwrap().clone();
        let moving = instances.iter().find(|instance| !is_at_rest(instance["run_state"].as_str().unwrap()));
        let Some(moving) = moving else {
            return instances;
        };
        assert!(since.elapsed() < QUIESCENCE_MAX, "round {round}: still under way: {moving}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn is_at_rest(state: &str) -> bool {
    matches!(state, "running" | "stopped" | "failed")
}

/// Room of a VMM that has ended is free when its sled has confirmed it.
async fn until_held_is(daemon: &Daemon, threads: u64) -> u64 {
    let since = Instant::now();
    loop {
        let (_, sleds) = daemon.get("/ops/v1/sleds").await;
        let sleds = sleds["items"].as_array().unwrap();
        let held = sleds.iter().map(|sled| sled["held"]["threads"].as_u64().unwrap()).sum();
        if held == threads || since.elapsed() > QUIESCENCE_MAX {
            return held;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The log of all of it, offline: every byte, every decision, and what starts and stops cost.
fn verify(data: &std::path::Path) {
    let verified = musher().args(["replay", "--verify", "--data"]).arg(data).output().unwrap();
    assert!(verified.status.success(), "{}{}", stdout(&verified), stderr(&verified));
    let verified = musher().args(["log", "verify", "--data"]).arg(data).output().unwrap();
    assert!(verified.status.success(), "{}{}", stdout(&verified), stderr(&verified));
    let stats = musher().args(["log", "stats", "-o", "json", "--data"]).arg(data).output().unwrap();
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    println!("costs {}", stats["costs"]);
    let most = |what: &str| stats["costs"][what]["appends_max"].as_u64().unwrap_or_else(|| panic!("{stats}"));
    assert!(most("start") <= 8, "a start cost {} appends", most("start"));
    assert!(most("stop") <= 3, "a stop cost {} appends", most("stop"));
}
