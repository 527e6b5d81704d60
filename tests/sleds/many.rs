//! Sixty sleds behind one daemon, each with a listener and connections of its own: what a fleet of a thousand does, in
//! small. What is asked of them per period grows with them and not with what they hold.

use super::{Fleet, until};
use crate::daemon::instance_body;
use crate::process::sled_command;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

const SLEDS: usize = 60;
const GUESTS: usize = 90;

/// Many sleds in one process.
struct Herd {
    child: Child,
}

impl Herd {
    fn start(fleet: &Fleet) -> Self {
        let mut command = sled_command(fleet.scratch.path(), "s", &fleet.daemon.sled_url);
        command.args(["--count", &SLEDS.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = Vec::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        while !said.last().is_some_and(|line: &String| line.trim_start().starts_with("try ")) {
            said.push(lines.next().unwrap_or_else(|| panic!("not ready: {said:?}")).unwrap());
        }
        // It says only errors from here on, and few of them.
        drop(lines);
        Self { child }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers of sleds so far, and their bytes, by what they were asked.
async fn answered(fleet: &Fleet, call: &str) -> (u64, u64) {
    let page = fleet.daemon.http.get(format!("{}/metrics", fleet.daemon.url)).send().await.unwrap();
    let page = page.text().await.unwrap();
    let sample = |name: &str| {
        let line = format!("{name}{{call=\"{call}\"}} ");
        page.lines().find_map(|it| it.strip_prefix(&line)?.parse().ok()).unwrap()
    };
    (sample("musher_sled_answers_total"), sample("musher_sled_answer_bytes_total"))
}

/// Waits for two whole rounds of inventories that carry nothing: everything is as it was said before.
async fn until_nothing_is_new(fleet: &Fleet) {
    until_quiet(fleet, "inventories carry nothing", "inventory", |(_, bytes)| bytes).await;
}

/// Waits for two whole rounds of inventories in which this number of a call does not move.
async fn until_quiet(fleet: &Fleet, what: &str, call: &str, number: impl Fn((u64, u64)) -> u64) {
    let mut since = None;
    until(what, async || {
        let rounds = answered(fleet, "inventory").await.0;
        let now = number(answered(fleet, call).await);
        match since {
            Some((began, then)) if now == then => (rounds >= began + 2 * SLEDS as u64).then_some(()),
            _ => {
                since = Some((rounds, now));
                None
            }
        }
    })
    .await;
}

async fn in_service(fleet: &Fleet) -> usize {
    fleet.sleds().await.iter().filter(|sled| super::is_in_service(sled)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_sleds_of_one_process_hold_guests_and_what_is_asked_of_them_does_not_grow_with_those() {
    let fleet = Fleet::start();
    let herd = Herd::start(&fleet);
    until("all sleds are in service", async || (in_service(&fleet).await == SLEDS).then_some(())).await;
    until_nothing_is_new(&fleet).await;

    let mut ids = Vec::new();
    for n in 0..GUESTS {
        let body = instance_body(&format!("web-{n}"), true);
        let (status, body) = fleet.daemon.post("/v1/instances?project=demo", Some(body)).await;
        assert_eq!(status, 201, "{body}");
        ids.push(body["id"].as_str().unwrap().to_owned());
    }
    fleet.until_all(&ids, "running").await;
    // With guests everywhere, too, an inventory that says nothing new has no bytes.
    until_nothing_is_new(&fleet).await;
    // What a busy machine answered late may have been asked after; once that is over, nobody is by itself.
    until_quiet(&fleet, "no VMM is asked after by itself", "get_state", |(answers, _)| answers).await;

    herd.kill();
    until("all sleds are missed", async || (in_service(&fleet).await == 0).then_some(())).await;
    let _herd = Herd::start(&fleet);
    until("all sleds are back", async || (in_service(&fleet).await == SLEDS).then_some(())).await;
    until_nothing_is_new(&fleet).await;
    for id in &ids {
        let history = fleet.history(id).await;
        let starts = history.iter().filter(|item| item["event"] == "StartBegan").count();
        assert_eq!((starts, fleet.daemon.state(id).await.as_str()), (1, "running"), "{id}");
    }
}
