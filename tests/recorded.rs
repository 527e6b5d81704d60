//! Every kind of event, recorded from a real daemon and real sleds, so that the next build has to read it.
//!
//! The test plays the whole day each time. `RECORD=1 cargo test --test recorded` keeps what it recorded in
//! `tests/fixtures/logs/VERSION`; a log that is kept there is never written again.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;
#[allow(dead_code, reason = "another stage uses the rest")]
#[path = "sleds/process.rs"]
mod process;

use daemon::{Daemon, Scratch, instance_body, musher, scratch, stderr, stdout};
use eventlog::portable::ExportReader;
use journal::{event_kinds, read};
use lifecycle::Input;
use process::{Sled, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Everything that waits, waits for seconds.
const NIMBLE: &str = "[sleds]\ninventory_s = 1\nprobe_s = 1\n\
    call = { ensure_s = 1, destroy_s = 1, state_s = 1, get_s = 1, inventory_s = 1, network_s = 1 }\n\
    [instances]\norder_answer_s = 1\nrestart_base_s = 1\npause_after_failures = 2\nstart_deadline_s = 600\n\
    migrate_deadline_s = 5\n[timers]\nreincarnation_s = 1\n[retention]\ndeleted_s = 1\n";

/// The same where sleds have leases.
const LEASED: &str = "lease_s = 5\nlease_grace_s = 2\n";

/// Inputs that no recorded log needs to have, and why. Of events there is none.
const INPUTS_NOT_RECORDED: [(&str, &str); 1] = [(
    "Reconsider",
    "an append carries all that follows from it: reconsidering finds something only where other rules left it undone",
)];

struct Day {
    scratch: Scratch,
    data: PathBuf,
    config: String,
    daemon: Daemon,
    sleds: Vec<Sled>,
}

impl Day {
    fn begin() -> Self {
        let (scratch, data) = scratch();
        let config = scratch.path().join("config.toml");
        std::fs::write(&config, NIMBLE).unwrap();
        let config = config.to_str().unwrap().to_owned();
        let daemon = Daemon::start_with(&data, &["--no-embedded-sleds", "--config", &config]);
        Self { scratch, data, config, daemon, sleds: Vec::new() }
    }

    /// A sled whose guests write as fast as they are copied: they arrive nowhere before somebody gives up.
    async fn sled(&mut self, name: &str, more: &[&str]) {
        let flags = [&["--dirty-rate", "100"], more].concat();
        self.sleds.push(Sled::start(self.scratch.path(), name, &self.daemon.sled_url, &flags));
        self.until_in_service(name).await;
        self.sleds.last().unwrap().until_it_knows_its_epoch(&self.daemon.http).await;
    }

    async fn until_in_service(&self, name: &str) {
        self.until_sled(name, "is in service", |sled| {
            sled["unreachable"].is_null() && !sled["last_contact"].is_null() && !sled["epoch"].is_null()
        })
        .await;
    }

    async fn until_sled(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(&format!("sled {name} {what}"), async || {
            let (_, body) = self.daemon.get("/ops/v1/sleds").await;
            let sleds = body["items"].as_array()?.clone();
            sleds.into_iter().find(|sled| sled["name"] == name && holds(sled))
        })
        .await
    }

    /// The daemon ends as it is told, and another one goes on with the same log.
    fn again(&mut self, more: &str, flags: &[&str], between: impl FnOnce(&Path)) {
        std::fs::write(&self.config, NIMBLE.replace("[instances]", &format!("{more}[instances]"))).unwrap();
        self.end();
        between(&self.data);
        let flags = [&["--no-embedded-sleds", "--config", &self.config], flags].concat();
        self.daemon = Daemon::start_with(&self.data, &flags);
    }

    fn end(&mut self) {
        for sled in self.sleds.drain(..) {
            sled.kill();
        }
        let pid = self.daemon.pid().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.daemon.ends();
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.daemon.cli(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", stdout(&output), stderr(&output));
        stdout(&output)
    }

    fn sleds_stand_still(&self) {
        self.sleds.iter().for_each(|sled| sled.send("-STOP"));
    }

    async fn sleds_go_on(&self) {
        for sled in &self.sleds {
            sled.send("-CONT");
            self.until_in_service(&sled.name).await;
        }
    }

    async fn create(&self, name: &str, policy: &str) -> String {
        let mut body = instance_body(name, true);
        body["auto_restart_policy"] = json!(policy);
        let (status, body) = self.daemon.post("/v1/instances?project=demo", Some(body)).await;
        assert_eq!(status, 201, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    async fn running(&self, name: &str, policy: &str) -> String {
        let id = self.create(name, policy).await;
        self.until_state(&id, &["running"]).await;
        id
    }

    async fn until_state(&self, id: &str, wanted: &[&str]) {
        until(&format!("{id} is {wanted:?}"), async || {
            wanted.contains(&self.daemon.state(id).await.as_str()).then_some(())
        })
        .await;
    }

    /// Names of its events.
    async fn history(&self, id: &str) -> Vec<String> {
        let (status, body) = self.daemon.get(&format!("/ops/v1/instances/{id}/history?limit=1000")).await;
        assert_eq!(status, 200, "{body}");
        let entries = body["items"].as_array().unwrap().iter();
        entries.map(|entry| entry["event"].as_str().unwrap().to_owned()).collect()
    }

    async fn until_told(&self, id: &str, event: &str) {
        until(&format!("{event} of {id}"), async || {
            self.history(id).await.iter().any(|told| told == event).then_some(())
        })
        .await;
    }

    /// Its VMM that counts, and the sled that holds it.
    async fn active(&self, id: &str) -> (String, String) {
        until(&format!("{id} has a VMM"), async || {
            let (_, body) = self.daemon.get(&format!("/ops/v1/instances/{id}")).await;
            let vmm = body["state"]["active"].as_str()?.to_owned();
            let sled = body["state"]["vmms"][&vmm]["sled"].as_str()?.to_owned();
            Some((vmm, sled))
        })
        .await
    }

    /// Asks in the name of nobody in particular, whatever comes of it: a sled that stands still confirms nothing.
    async fn wish(&self, id: &str, verb: &str) {
        let (status, body) = self.daemon.post(&format!("/v1/instances/{id}/{verb}"), None).await;
        assert!(matches!(status, 202 | 502..=504), "{verb}: {status} {body}");
    }

    /// A report in a sled's name, newer than any that it made itself.
    async fn report(&self, (vmm, sled): &(String, String), state: &str) {
        let picture = json!({
            "vmm_state": {"state": state, "gen": 1_000, "time_updated": "2026-01-01T00:00:00Z"},
            "migration_in": null, "migration_out": null,
        });
        let request = self.daemon.http.put(format!("{}/vmms/{vmm}", self.daemon.sled_url));
        let answer = request.header("x-sled-id", sled).json(&picture).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 204, "{state}");
    }

    /// The saga of an instance that is under way.
    async fn saga(&self, id: &str) -> String {
        until(&format!("{id} has a saga"), async || {
            let (_, body) = self.daemon.get(&format!("/ops/v1/instances/{id}")).await;
            body["state"]["saga"]["id"].as_str().map(str::to_owned)
        })
        .await
    }
}

/// Limits, projects, groups: what needs no sled.
async fn papers(day: &Day, member: &str) {
    day.ok(&["quota", "set", "fleet", "--cpus", "1000"]);
    day.ok(&["quota", "set", "project", "--cpus", "500"]);
    day.ok(&["project", "create", "extra"]);
    let changed = json!({"description": "not for long"});
    let changed = day.daemon.http.put(format!("{}/v1/projects/extra", day.daemon.url)).json(&changed);
    assert_eq!(changed.send().await.unwrap().status().as_u16(), 200);
    day.ok(&["project", "delete", "extra", "--yes"]);
    day.ok(&["group", "create", "apart", "--policy", "fail"]);
    day.ok(&["group", "add", "apart", member]);
    day.ok(&["group", "remove", "apart", member]);
    day.ok(&["group", "delete", "apart", "--yes"]);
}

/// One that is rebooted, changed, and one that fits nowhere.
async fn plain_life(day: &Day) {
    let id = day.running("web-1", "never").await;
    papers(day, "web-1").await;
    day.ok(&["instance", "update", "web-1", "--auto-restart-policy", "best_effort"]);
    // A report may overtake the answer, and leaves nothing to be answered.
    until("a reboot is answered", async || {
        day.until_state(&id, &["running"]).await;
        day.wish(&id, "reboot").await;
        day.history(&id).await.contains(&"RebootAnswered".to_owned()).then_some(())
    })
    .await;
    day.until_state(&id, &["running"]).await;
    day.report(&day.active(&id).await, "starting").await;
    day.until_told(&id, "ReportAnomalous").await;
    let mut huge = instance_body("huge", true);
    huge["ncpus"] = json!(64);
    let (status, body) = day.daemon.post("/v1/instances?project=demo", Some(huge)).await;
    assert_eq!((status, &body["run_state"]), (201, &json!("stopped")), "{body}");
}

/// What goes wrong: a guest fails and is started again, others are ended by force, one is over for good.
async fn bad_days(day: &Day) {
    let id = day.running("restarted", "best_effort").await;
    day.report(&day.active(&id).await, "failed").await;
    day.until_told(&id, "RestartTried").await;
    let id = day.running("forced", "never").await;
    day.ok(&["instance", "force-stop", "forced", "--reason", "hung for an hour", "--yes"]);
    day.until_told(&id, "VmmReaped").await;
    let id = day.running("forced-one", "never").await;
    let (vmm, _) = day.active(&id).await;
    day.ok(&["instance", "force-stop", "forced-one", "--vmm", &vmm, "--reason", "it hangs", "--yes"]);
    day.until_told(&id, "ForceStopRequested").await;
    let id = day.running("over", "never").await;
    day.wish(&id, "stop").await;
    day.until_state(&id, &["stopped"]).await;
    until("it can be deleted", async || {
        let (status, _) = day.daemon.delete(&format!("/v1/instances/{id}")).await;
        (status == 204).then_some(())
    })
    .await;
    until("it is archived", async || {
        day.daemon.post("/ops/v1/timers/retention/activate", None).await;
        let (_, body) = day.daemon.get(&format!("/ops/v1/instances/{id}/history?limit=1000")).await;
        body["archived_in"].is_string().then_some(())
    })
    .await;
}

/// What is asked for while no sled answers.
async fn silence(day: &Day) {
    let withdrawn = day.running("withdrawn", "never").await;
    day.sleds_stand_still();
    day.wish(&withdrawn, "stop").await;
    day.wish(&withdrawn, "start").await;
    day.until_told(&withdrawn, "StopWithdrawn").await;
    let paused = day.create("paused", "never").await;
    day.until_told(&paused, "SagaPaused").await;
    let saga = day.saga(&paused).await;
    day.ok(&["saga", "resume", &saga]);
    day.ok(&["saga", "retry", &saga]);
    day.until_told(&paused, "SagaRetried").await;
    day.ok(&["saga", "pause", &saga, "--reason", "until the sleds are back"]);
    let cancelled = day.create("cancelled", "never").await;
    let unwanted = day.saga(&cancelled).await;
    day.ok(&["saga", "cancel", &unwanted]);
    day.until_told(&cancelled, "SagaUnwound").await;
    day.sleds_go_on().await;
    day.ok(&["saga", "resume", &saga]);
    day.until_state(&paused, &["running"]).await;
}

/// Guests that move, or not: one is called back, one takes too long, of one nobody says where it is.
async fn journeys(day: &Day) {
    let called_back = day.running("called-back", "never").await;
    day.ok(&["instance", "migrate", "called-back"]);
    day.until_told(&called_back, "SagaEnded").await;
    day.ok(&["instance", "migrate", "called-back", "--cancel"]);
    day.until_state(&called_back, &["running"]).await;
    day.until_told(&called_back, "Updated").await;
    day.ok(&["instance", "migrate", "called-back"]);
    until("its time is over", async || {
        let told = day.history(&called_back).await;
        (told.iter().filter(|event| *event == "MigrationCancelled").count() == 2).then_some(())
    })
    .await;
    let lost = day.running("lost", "never").await;
    let source = day.active(&lost).await;
    day.ok(&["instance", "migrate", "lost"]);
    until("it is on its way", async || {
        let (_, body) = day.daemon.get(&format!("/ops/v1/instances/{lost}")).await;
        body["state"]["vmms"][&source.0]["state"].as_str().filter(|it| *it == "migrating").map(drop)
    })
    .await;
    day.sleds_stand_still();
    day.report(&source, "failed").await;
    day.until_told(&lost, "MigrationGivenUp").await;
    day.sleds_go_on().await;
}

/// Sleds boot anew with guests on them, are emptied, opened, lose their lease, and are given up.
async fn sleds_change(day: &mut Day) {
    let homeless = day.running("homeless", "never").await;
    day.sleds.drain(..).for_each(Sled::kill);
    for name in ["a", "b"] {
        day.sled(name, &["--reboot"]).await;
    }
    day.until_told(&homeless, "VmmGone").await;
    day.ok(&["sled", "drain", "a", "--reason", "firmware"]);
    day.ok(&["sled", "uncordon", "a"]);
    let given_up = day.running("given-up", "never").await;
    let (_, sled) = day.active(&given_up).await;
    day.ok(&["sled", "expunge", &sled, "--reason", "caught fire", "--yes"]);
    day.until_told(&given_up, "VmmGone").await;
    day.again(LEASED, &[], |_| {});
    // Their processes have ended: nothing is to be placed there. The one that was given up refuses this.
    for gone in ["a", "b"] {
        day.daemon.cli(&["sled", "cordon", gone]);
    }
    day.sled("c", &[]).await;
    let id = day.running("leased", "best_effort").await;
    day.sleds_stand_still();
    day.until_sled("c", "has lost its lease", |sled| !sled["lease"]["expired"].is_null()).await;
    day.until_told(&id, "VmmFailed").await;
    day.again("", &["--accept-loss"], |data| {
        // Without it nobody can say whether this was the end.
        std::fs::remove_file(data.join("journal").join("witness")).unwrap();
    });
    day.sled("d", &[]).await;
}

/// Kind and schema of every event, and the names of all inputs.
fn recorded(export: &Path) -> (BTreeSet<(u16, u16)>, BTreeSet<String>) {
    let reader = ExportReader::open(export).unwrap();
    let (mut kinds, mut inputs) = (BTreeSet::new(), BTreeSet::new());
    for record in reader.read_all(reader.first(), usize::MAX).unwrap() {
        kinds.insert((record.kind, record.schema));
        let input = read(&record).unwrap().context.and_then(|context| context.input);
        inputs.extend(input.map(|input| name_of(&input)));
    }
    (kinds, inputs)
}

/// What an input is called in its golden file: commands by what is commanded.
fn name_of(input: &Input) -> String {
    let shown = match input {
        Input::Command(command) => format!("{command:?}"),
        other => format!("{other:?}"),
    };
    shown.split(|it: char| !it.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// Inputs of the newest schema: each has a golden file.
fn input_names() -> BTreeSet<String> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/journal/tests/golden");
    let names =
        std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let inputs: Vec<(u16, String)> = names
        .filter_map(|name| {
            let (schema, input) = name.strip_prefix("input-")?.strip_suffix(".hex")?.split_once('-')?;
            Some((schema.parse().unwrap(), input.to_owned()))
        })
        .collect();
    let newest = inputs.iter().map(|(schema, _)| *schema).max().unwrap();
    inputs.into_iter().filter(|(schema, _)| *schema == newest).map(|(_, name)| name).collect()
}

/// What none of these logs has, in words.
fn missing(logs: &[PathBuf]) -> Vec<String> {
    let (mut kinds, mut inputs) = (BTreeSet::new(), BTreeSet::new());
    for log in logs {
        let (more, more_inputs) = recorded(log);
        kinds.extend(more);
        inputs.extend(more_inputs);
    }
    let is_excused = |name: &str| INPUTS_NOT_RECORDED.iter().any(|(it, _)| *it == name);
    let events = event_kinds().filter(|it| !kinds.contains(&(it.kind, it.schema)));
    let events = events.map(|it| format!("event {} {} in schema {}", it.kind, it.name, it.schema));
    let inputs = input_names().into_iter().filter(|it| !inputs.contains(it) && !is_excused(it));
    events.chain(inputs.map(|name| format!("input {name}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_a_real_daemon_has_every_kind_of_event_and_holds_together() {
    let mut day = Day::begin();
    for name in ["a", "b"] {
        day.sled(name, &[]).await;
    }
    plain_life(&day).await;
    bad_days(&day).await;
    silence(&day).await;
    journeys(&day).await;
    sleds_change(&mut day).await;
    day.end();
    let export = day.scratch.path().join("every-kind.musher");
    let run = |args: &[&str], paths: [&Path; 3]| {
        let output = musher().args(args).args(paths).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
    };
    run(&["log", "export", "--data"], [&day.data, Path::new("--to"), &export]);
    run(&["replay", "--verify"], [Path::new("--file"), &export, Path::new("--all")]);
    assert_eq!(missing(std::slice::from_ref(&export)), Vec::<String>::new());
    if std::env::var_os("RECORD").is_some() {
        let kept = logs().join(env!("CARGO_PKG_VERSION")).join(export.file_name().unwrap());
        assert!(!kept.exists(), "{} is kept as it is", kept.display());
        std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
        std::fs::copy(&export, &kept).unwrap();
    }
}

fn logs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs")
}

#[test]
fn every_kind_of_event_and_input_that_is_written_now_is_in_a_recorded_log() {
    let versions = std::fs::read_dir(logs()).unwrap().map(|entry| entry.unwrap().path());
    let files = versions.flat_map(|version| std::fs::read_dir(version).unwrap());
    let files = files.map(|entry| entry.unwrap().path());
    let kept: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "musher")).collect();
    assert_eq!(missing(&kept), Vec::<String>::new(), "RECORD=1 cargo test --test recorded records it");
}
