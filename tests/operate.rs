//! What operators do, by command against a real daemon: moving guests, emptying sleds, limits, groups, and
//! looking at what is under way.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, musher, scratch, stderr, stdout};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let output = daemon.cli(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

fn json(daemon: &Daemon, args: &[&str]) -> Value {
    let said = ok(daemon, &[args, &["-o", "json"]].concat());
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{args:?}: {said}"))
}

/// Names of the sleds on which something is held.
fn held(daemon: &Daemon) -> Vec<String> {
    let sleds = json(daemon, &["sled", "list"]);
    let sleds = sleds.as_array().unwrap().iter().filter(|sled| sled["held"]["threads"] != 0);
    sleds.map(|sled| sled["name"].as_str().unwrap().to_owned()).collect()
}

/// The one sled on which something is held.
fn home(daemon: &Daemon) -> String {
    let [sled] = &held(daemon)[..] else { panic!("{:?}", held(daemon)) };
    sled.clone()
}

/// Waits until the source of a migration has given back what it held.
fn until_home(daemon: &Daemon) -> String {
    for _ in 0..1_000 {
        if held(daemon).len() == 1 {
            break;
        }
        std::thread::yield_now();
    }
    home(daemon)
}

#[test]
fn a_guest_moves_by_command_and_is_explained() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    ok(&daemon, &["instance", "create", "web-1", "--wait"]);
    let told = ok(&daemon, &["instance", "explain", "web-1"]);
    assert!(told.starts_with("web-1 is running, since "), "{told}");
    for word in ["\n  because   ", "\n  holds     2 vCPU + 4 GiB on sim-", "\n  you can   musher instance "] {
        assert!(told.contains(word), "{word:?} in {told}");
    }
    assert_eq!(json(&daemon, &["instance", "explain", "web-1"])["run_state"], "running");

    let before = home(&daemon);
    let moved = json(&daemon, &["instance", "migrate", "web-1", "--wait"]);
    assert_eq!(moved["run_state"], "running");
    let after = until_home(&daemon);
    assert_ne!(before, after);
    ok(&daemon, &["instance", "migrate", "web-1", "--to", &before, "--wait"]);
    assert_eq!(until_home(&daemon), before);
    let migrations = json(&daemon, &["migration", "list"]);
    let [first, second] = &migrations.as_array().unwrap()[..] else { panic!("{migrations}") };
    assert_eq!((&first["outcome"], &second["outcome"]), (&"succeeded".into(), &"succeeded".into()));
    assert!(first["time_started"].as_str() < second["time_started"].as_str(), "{migrations}");
    let shown = ok(&daemon, &["migration", "show", first["id"].as_str().unwrap()]);
    assert!(shown.contains("completed on sled ") && shown.contains("succeeded"), "{shown}");
    assert_eq!(json(&daemon, &["migration", "list", "--under-way"]), Value::Array(Vec::new()));

    let sagas = json(&daemon, &["saga", "list"]);
    let kinds: Vec<_> = sagas.as_array().unwrap().iter().map(|saga| saga["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["start", "migrate", "migrate"]);
    let shown = ok(&daemon, &["saga", "show", sagas[1]["id"].as_str().unwrap()]);
    assert!(shown.starts_with("migrate of instance ") && shown.contains(": done\n"), "{shown}");
    assert!(shown.contains("complete"), "{shown}");
}

#[test]
fn an_instance_is_changed_and_stopped_by_force() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    ok(&daemon, &["instance", "create", "web-1", "--wait"]);
    let changed = json(&daemon, &["instance", "update", "web-1", "--auto-restart-policy", "never"]);
    assert_eq!((&changed["auto_restart_policy"], &changed["ncpus"]), (&"never".into(), &2.into()));
    let forced = ["instance", "force-stop", "web-1", "--reason", "hung for an hour"];
    let unasked = daemon.cli(&forced);
    assert_eq!(unasked.status.code(), Some(2), "{}", stderr(&unasked));
    assert!(stderr(&unasked).contains("say --yes"), "{}", stderr(&unasked));
    let stopped = json(&daemon, &[&forced[..], &["--yes"]].concat());
    assert!(["failed", "stopped"].contains(&stopped["run_state"].as_str().unwrap()), "{stopped}");
    let history = ok(&daemon, &["instance", "history", "web-1"]);
    assert!(history.contains("ForceStopRequested") && history.contains("hung for an hour"), "{history}");

    ok(&daemon, &["instance", "create", "db-1", "--no-start"]);
    let size = ["--ncpus", "4", "--memory", "8GiB", "--cpu-platform", "sim-x86"];
    let changed = json(&daemon, &[&["instance", "update", "db-1"][..], &size].concat());
    assert_eq!((&changed["ncpus"], &changed["memory"]), (&4.into(), &(8_u64 << 30).into()));
    assert_eq!(changed["cpu_platform"], "sim-x86");
    let back = ["instance", "update", "db-1", "--cpu-platform", "none", "--auto-restart-policy", "default"];
    let back = json(&daemon, &back);
    assert_eq!((&back["cpu_platform"], &back["auto_restart_policy"]), (&Value::Null, &Value::Null));
    assert_eq!(back["ncpus"], 4, "what is not given stays");
}

#[test]
fn a_sled_is_emptied_opened_again_and_given_up() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    for name in ["web-1", "web-2"] {
        ok(&daemon, &["instance", "create", name, "--wait"]);
    }
    let sled = held(&daemon).remove(0);
    let drained = ok(&daemon, &["sled", "drain", &sled, "--reason", "firmware", "--wait"]);
    assert!(drained.contains(&sled), "{drained}");
    assert!(!held(&daemon).contains(&sled), "{:?}", held(&daemon));
    let shown = ok(&daemon, &["sled", "show", &sled]);
    assert!(shown.contains("cordoned") && shown.contains("0 threads"), "{shown}");
    assert_eq!(json(&daemon, &["sled", "uncordon", &sled])["provisionable"], true);
    assert_eq!(json(&daemon, &["sled", "cordon", &sled])["provisionable"], false);
    let expunge = ["sled", "expunge", &sled, "--reason", "caught fire"];
    assert_eq!(daemon.cli(&expunge).status.code(), Some(2), "nobody is there to ask");
    assert_eq!(json(&daemon, &[&expunge[..], &["--yes"]].concat())["expunged"], true);
    let refused = daemon.cli(&["sled", "uncordon", &sled]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("cannot uncordon sled: it was expunged"), "{}", stderr(&refused));

    // With every other sled closed there is nowhere to go.
    let sled = held(&daemon).remove(0);
    for other in json(&daemon, &["sled", "list"]).as_array().unwrap() {
        let name = other["name"].as_str().unwrap();
        if name != sled && other["expunged"] == false {
            ok(&daemon, &["sled", "cordon", name]);
        }
    }
    let waited = daemon.cli(&["sled", "drain", &sled, "--wait", "--timeout", "3s"]);
    assert_eq!(waited.status.code(), Some(3), "{}", stderr(&waited));
    assert!(stderr(&waited).contains("still on the sled"), "{}", stderr(&waited));
    assert!(stderr(&waited).contains("no sled accepts new instances"), "{}", stderr(&waited));
}

#[test]
fn limits_and_groups_are_set_and_shown() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    ok(&daemon, &["instance", "create", "web-1", "--wait"]);
    assert!(ok(&daemon, &["quota", "show"]).contains("2 of none"));
    let set = ["quota", "set", "project", "--cpus", "3", "--memory", "64GiB"];
    assert!(ok(&daemon, &set).contains("2 of 3"));
    let short = daemon.cli(&["instance", "create", "web-2", "--wait"]);
    assert_eq!(short.status.code(), Some(1), "{}", stderr(&short));
    let started = daemon.cli(&["instance", "start", "web-2"]);
    let said = stderr(&started);
    assert!(said.contains("project quota of 3 vCPU: 2 are in use, 2 more are needed"), "{said}");
    assert!(said.contains("\n  hint: "), "{said}");
    let lifted = json(&daemon, &["quota", "set", "project", "--cpus", "none"]);
    assert_eq!(
        (&lifted["cpus"], &lifted["memory"]),
        (&Value::Null, &(64_u64 << 30).into()),
        "what is not given stays"
    );
    assert_eq!(json(&daemon, &["quota", "show", "fleet"])["scope"], "fleet");

    let created = json(&daemon, &["group", "create", "apart", "--policy", "fail"]);
    assert_eq!(created["policy"], "fail");
    for name in ["web-1", "web-2"] {
        assert_eq!(ok(&daemon, &["group", "add", "apart", name]), format!("{name} is in apart\n"));
    }
    ok(&daemon, &["instance", "start", "web-2", "--wait"]);
    assert_eq!(held(&daemon).len(), 2, "they are kept apart");
    assert_eq!(json(&daemon, &["group", "list"])[0]["members"].as_array().unwrap().len(), 2);
    ok(&daemon, &["group", "remove", "apart", "web-1"]);
    assert_eq!(json(&daemon, &["group", "show", "apart"])["members"].as_array().unwrap().len(), 1);
    ok(&daemon, &["group", "delete", "apart", "--yes"]);
    assert_eq!(ok(&daemon, &["group", "list", "--no-headers"]).trim(), "");
}

#[test]
fn a_watched_instance_is_shown_and_then_every_event_of_it_as_it_comes() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    ok(&daemon, &["instance", "create", "web-1", "--wait"]);
    let mut watching = musher()
        .args(["instance", "watch", "web-1"])
        .env("MUSHER_SERVER", &daemon.url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|line| line.starts_with("state") && line.contains("running")));
    // Somebody else's events are not shown.
    ok(&daemon, &["instance", "create", "web-2", "--no-start"]);
    ok(&daemon, &["instance", "stop", "web-1", "--wait"]);
    let first = lines.find(|line| line.contains("  by ")).unwrap();
    assert!(first.contains("StopRequested"), "{first}");
    assert!(lines.any(|line| line.contains("VmmReported")));
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn reapers_are_listed_and_run_at_once() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let timers = ok(&daemon, &["timer", "list", "-o", "name"]);
    assert_eq!(timers.lines().count(), 8);
    let settings = ok(&daemon, &["config", "show", "-o", "name"]);
    for timer in timers.lines() {
        let told = json(&daemon, &["timer", "explain", timer]);
        assert!(settings.lines().any(|setting| told["setting"] == setting), "{told}");
        let shown = ok(&daemon, &["timer", "explain", timer]);
        let has = |word: &str| shown.contains(&format!("\n  {word}"));
        assert!(
            shown.starts_with(timer) && has("because") && has("owner") && has("next") && has("you can"),
            "{shown}"
        );
    }
    assert_eq!(ok(&daemon, &["timer", "activate", "vmm-reaper"]), "vmm-reaper runs\n");
    let runs = || {
        let timers = json(&daemon, &["timer", "list"]);
        let timer = timers.as_array().unwrap().iter().find(|timer| timer["name"] == "vmm-reaper").unwrap();
        timer["runs"].as_u64().unwrap()
    };
    assert!((0..1_000).any(|_| runs() > 0), "it never ran");
}

#[test]
fn what_is_refused_says_why_and_what_to_do() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    ok(&daemon, &["instance", "create", "web-1", "--wait"]);
    ok(&daemon, &["instance", "create", "db-1", "--no-start"]);
    let here = home(&daemon);
    let no_id = "a0b1c2d3-0000-4000-8000-000000000001";
    for (code, args, says) in [
        (1, vec!["instance", "migrate", "db-1"], "cannot migrate instance: instance is stopped"),
        (1, vec!["instance", "migrate", "web-1", "--cancel"], "no migration is under way"),
        (1, vec!["instance", "migrate", "web-1", "--to", "sim-9"], "not found: sled \"sim-9\""),
        (1, vec!["instance", "migrate", "web-1", "--to", "sim-9"], "hint: musher sled list shows them"),
        (
            1,
            vec!["instance", "migrate", "web-1", "--to", &here],
            "that sled is the one where the instance runs",
        ),
        (2, vec!["instance", "migrate", "web-1", "--to", "sim-1", "--cancel"], "cannot be used with"),
        (1, vec!["instance", "update", "web-1", "--ncpus", "3"], "must be stopped to change CPU or memory"),
        (
            1,
            vec!["instance", "update", "db-1", "--auto-restart-policy", "often"],
            "\"never\" or \"best_effort\"",
        ),
        (1, vec!["instance", "explain", "nope"], "not found: instance with name \"nope\""),
        (2, vec!["instance", "force-stop", "web-1", "--yes"], "--reason"),
        (1, vec!["sled", "show", "sim-9"], "not found: sled \"sim-9\""),
        (1, vec!["sled", "expunge", "sim-1", "--yes"], "field \"reason\" is missing"),
        (1, vec!["quota", "show", "rack"], "not found: quota with name \"rack\""),
        (2, vec!["quota", "set", "fleet", "--cpus=-1"], "must be a whole number, or \"none\""),
        (1, vec!["quota", "show", "-p", "nope"], "not found: project with name \"nope\""),
        (1, vec!["group", "create", "b", "--policy", "soft"], "neither \"allow\" nor \"fail\""),
        (1, vec!["group", "add", "nope", "web-1"], "not found: anti-affinity-group with name \"nope\""),
        (2, vec!["group", "delete", "nope"], "say --yes"),
        (1, vec!["migration", "show", no_id], "not found: migration"),
        (1, vec!["saga", "show", "x"], "saga: \"x\" is not a UUID"),
        (1, vec!["saga", "cancel", no_id], "not found: saga"),
        (1, vec!["timer", "activate", "alarm"], "not found: timer with name \"alarm\""),
        (4, vec!["timer", "list", "--server", "http://127.0.0.1:1"], "does not answer"),
    ] {
        let output = daemon.cli(&args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?} should say {says:?}: {said}");
        assert!(output.stdout.is_empty(), "errors go to stderr: {args:?}");
    }
}

#[test]
fn a_dry_run_shows_the_plan_and_a_reason_is_kept() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "create", "web-1", "--wait"]).status.code(), Some(0));
    let plans: [(&[&str], &str); 5] = [
        (&["instance", "stop", "web-1", "--dry-run", "--wait"], "StopRequested"),
        (&["instance", "create", "web-2", "--dry-run"], "Created"),
        (&["sled", "cordon", "sim-0", "--dry-run"], "ProvisionableChanged"),
        (&["project", "create", "p", "--dry-run", "-o", "json"], "\"dry_run\": true"),
        (&["quota", "set", "fleet", "--cpus", "64", "--dry-run"], "QuotaSet"),
    ];
    for (args, says) in plans {
        let output = daemon.cli(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        assert!(stdout(&output).contains(says), "{args:?}: {}", stdout(&output));
        assert!(stderr(&output).is_empty(), "{args:?}: {}", stderr(&output));
    }
    let refused = daemon.cli(&["instance", "delete", "web-1", "--dry-run"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
    assert!(stdout(&daemon.cli(&["instance", "list"])).contains("running"));
    let stopped = daemon.cli(&["instance", "stop", "web-1", "--reason", "end of sale", "--wait"]);
    assert_eq!(stopped.status.code(), Some(0), "{}", stderr(&stopped));
    let history = stdout(&daemon.cli(&["instance", "history", "web-1"]));
    assert!(history.contains("(reason: end of sale)"), "{history}");
    let told = stdout(&daemon.cli(&["instance", "explain", "web-1"]));
    assert!(told.contains("because \"end of sale\""), "{told}");
    let nothing = daemon.cli(&["instance", "stop", "web-1", "--dry-run"]);
    assert!(stdout(&nothing).contains("nothing would change"), "{}{}", stdout(&nothing), stderr(&nothing));
}
