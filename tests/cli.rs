//! The command line against a real daemon: the whole life of an instance, exit codes, refusals, and how
//! a daemon starts and ends.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, musher, scratch, stderr, stdout};
use serde_json::Value;

fn json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}{}", stdout(output), stderr(output)))
}

#[test]
fn an_instance_lives_its_whole_life_by_command() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let ok = |args: &[&str]| {
        let output = daemon.cli(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        output
    };
    let state = |args: &[&str]| json(&ok(args))["run_state"].as_str().unwrap().to_owned();
    let created = json(&ok(&["instance", "create", "web-1", "--wait", "-o", "json"]));
    assert_eq!(created["run_state"], "running");
    let id = created["id"].as_str().unwrap();
    assert_eq!(state(&["instance", "stop", "web-1", "--wait", "-o", "json"]), "stopped");
    assert_eq!(state(&["instance", "start", id, "--wait", "-o", "json"]), "running");
    assert_eq!(state(&["instance", "reboot", &id[..8], "--wait", "-o", "json"]), "running");
    assert!(stdout(&ok(&["instance", "list"])).contains("web-1"));
    assert_eq!(json(&ok(&["instance", "list", "-o", "json"]))[0]["id"], id);
    assert!(stdout(&ok(&["sled", "list"])).contains("in service"));
    assert!(stdout(&ok(&["project", "list"])).contains("demo"));
    ok(&["instance", "stop", "web-1", "--wait"]);
    ok(&["instance", "delete", "web-1", "--yes"]);
    let history = stdout(&ok(&["instance", "history", id]));
    for event in ["Created", "StartBegan", "StopRequested", "Updated", "Deleted"] {
        assert!(history.contains(event), "{event} is missing:\n{history}");
    }
    assert_eq!(stdout(&ok(&["instance", "list", "--no-headers"])).trim(), "");
    assert_eq!(stdout(&ok(&["ping"])).trim(), "ok");
    assert_eq!(daemon.signal("-INT"), 0);
    let replayed = musher().args(["replay", "web-1", "--at", "#2", "--data"]).arg(&data).output().unwrap();
    assert!(
        stdout(&replayed).starts_with("web-1 is starting at #2"),
        "{}{}",
        stdout(&replayed),
        stderr(&replayed)
    );
    let verified = musher().args(["replay", "web-1", "--verify", "--data"]).arg(&data).output().unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", stderr(&verified));
}

#[test]
fn a_reboot_that_is_waited_for_has_rebooted() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let created = json(&daemon.cli(&["instance", "create", "web-1", "--wait", "-o", "json"]));
    let rebooted = json(&daemon.cli(&["instance", "reboot", "web-1", "--wait", "-o", "json"]));
    assert_eq!(rebooted["run_state"], "running");
    assert_ne!(rebooted["time_run_state_updated"], created["time_run_state_updated"]);
    let history = stdout(&daemon.cli(&["instance", "history", "web-1"]));
    assert!(history.contains("reported rebooting"), "{history}");
}

#[test]
fn an_address_that_is_taken_is_refused_before_anything_is_made() {
    let (_dir, data) = scratch();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = musher().args(["serve", "--listen", &address, "--data"]).arg(&data).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("cannot listen on {address}")), "{}", stderr(&output));
    assert!(!data.exists());
}

#[test]
fn refusals_say_why_and_exit_with_their_code() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "create", "web-1", "--wait"]).status.code(), Some(0));
    let refused = [
        (1, vec!["instance", "create", "web-1"], "already exists: instance \"web-1\""),
        (1, vec!["instance", "create", "Web"], "name must begin with an ASCII lowercase character"),
        (1, vec!["instance", "create", "größe"], "invalid character"),
        (1, vec!["instance", "create", "big", "--ncpus", "255"], "ncpus"),
        (1, vec!["instance", "create", "big", "--memory", "1MiB"], "at least 1 GiB"),
        (
            1,
            vec!["instance", "create", "big", "--ncpus", "64", "--no-start", "-p", "nope"],
            "not found: project",
        ),
        (1, vec!["instance", "show", "nope"], "not found: instance with name \"nope\""),
        (1, vec!["instance", "show", "00000000-0000-4000-8000-000000000000"], "not found: instance with id"),
        (1, vec!["instance", "delete", "web-1", "--yes"], "running or has not yet fully stopped"),
        (1, vec!["project", "delete", "demo", "--yes"], "instance"),
        (2, vec!["instance", "delete", "web-1"], "--yes"),
        (2, vec!["instance", "create"], "Usage"),
        (2, vec!["nonsense"], "unrecognized subcommand"),
        (2, vec!["instance", "create", "x", "--memory", "4GB"], "unknown unit"),
        (4, vec!["ping", "--server", "http://127.0.0.1:1"], "does not answer"),
    ];
    for (code, args, says) in refused {
        let output = daemon.cli(&args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?} should say {says:?}: {said}");
        assert!(output.stdout.is_empty(), "errors go to stderr: {args:?}");
    }
}

#[test]
fn what_cannot_be_placed_is_refused_by_start_and_recorded_by_create() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let created =
        daemon.cli(&["instance", "create", "huge", "--ncpus", "33", "--memory", "1GiB", "-o", "json"]);
    assert_eq!(json(&created)["run_state"], "stopped", "{}", stderr(&created));
    let started = daemon.cli(&["instance", "start", "huge"]);
    assert_eq!(started.status.code(), Some(1));
    assert!(stderr(&started).contains("no sled has room for 33 vCPU"), "{}", stderr(&started));
    let waited = daemon.cli(&["instance", "create", "huge-2", "--ncpus", "33", "--memory", "1GiB", "--wait"]);
    assert_eq!(waited.status.code(), Some(1), "{}", stderr(&waited));
    assert!(stderr(&waited).contains("stopped, not running"), "{}", stderr(&waited));
}

#[test]
fn a_second_daemon_on_one_directory_is_refused_in_one_line() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let second = musher()
        .args(["serve", "--listen", "127.0.0.1:0", "--sled-listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = stderr(&second);
    assert!(said.contains("in use by another musher process") && said.trim().lines().count() == 1, "{said}");
    let replay = musher().args(["replay", "--verify", "--data"]).arg(&data).output().unwrap();
    assert_eq!(replay.status.code(), Some(1), "{}", stderr(&replay));
    assert_eq!(daemon.cli(&["ping"]).status.code(), Some(0), "the first is not disturbed");
}

#[test]
fn a_daemon_ends_cleanly_on_either_signal_and_finds_everything_again() {
    let (_dir, data) = scratch();
    for (signal, name) in [("-INT", "one"), ("-TERM", "two"), ("-KILL", "three")] {
        let daemon = Daemon::start(&data);
        assert_eq!(daemon.cli(&["instance", "create", name, "--no-start"]).status.code(), Some(0));
        let code = daemon.signal(signal);
        assert_eq!(code, if signal == "-KILL" { -1 } else { 0 }, "{signal}");
    }
    let daemon = Daemon::start(&data);
    assert!(daemon.said.iter().any(|line| line.contains("after a crash")), "{:?}", daemon.said);
    let listed = stdout(&daemon.cli(&["instance", "list", "--no-headers"]));
    assert_eq!(listed.lines().count(), 3, "{listed}");
}

#[test]
fn a_cache_that_is_gone_costs_time_and_nothing_else() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    for name in ["one", "two"] {
        assert_eq!(daemon.cli(&["instance", "create", name, "--wait"]).status.code(), Some(0));
    }
    let before = stdout(&daemon.cli(&["instance", "list", "-o", "json"]));
    assert_eq!(daemon.signal("-TERM"), 0);
    std::fs::remove_dir_all(data.join("cache")).unwrap();
    let daemon = Daemon::start(&data);
    assert_eq!(stdout(&daemon.cli(&["instance", "list", "-o", "json"])), before);
    assert_eq!(daemon.signal("-TERM"), 0);
    // And one that is rubbish.
    for entry in std::fs::read_dir(data.join("cache")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, b"rubbish").unwrap();
        }
    }
    let daemon = Daemon::start(&data);
    assert_eq!(stdout(&daemon.cli(&["instance", "list", "-o", "json"])), before);
}

#[test]
fn a_damaged_log_is_refused_by_place_and_with_its_own_code() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "create", "one", "--wait"]).status.code(), Some(0));
    assert_eq!(daemon.signal("-TERM"), 0);
    let journal = data.join("journal");
    let segment = std::fs::read_dir(&journal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .min()
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[700] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    for args in [vec!["log", "verify"], vec!["replay", "--verify"]] {
        let output = musher().args(&args).arg("--data").arg(&data).output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(".seg"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn what_is_not_a_data_directory_is_refused() {
    let (_dir, data) = scratch();
    for args in [vec!["replay", "x"], vec!["log", "verify"], vec!["log", "stats"]] {
        let output = musher().args(&args).arg("--data").arg(&data).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("not a data directory"), "{args:?}: {}", stderr(&output));
        assert!(!data.exists(), "nothing is made by looking");
    }
}
