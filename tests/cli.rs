//! The command line against a real daemon: the whole life of an instance, exit codes, refusals, and how
//! a daemon starts and ends.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, musher, scratch, serve, stderr, stdout};
use serde_json::Value;
use std::collections::BTreeMap;

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
    let output = musher()
        .args(["serve", "--listen", &address, "--sled-listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .output()
        .unwrap();
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
    let second = serve(&data).output().unwrap();
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

fn first_segment(data: &std::path::Path) -> std::path::PathBuf {
    std::fs::read_dir(data.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .min()
        .unwrap()
}

/// Flips a bit in the first batch behind the one in which `needle` stands first.
fn damage_after(data: &std::path::Path, needle: &[u8]) {
    let segment = first_segment(data);
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    let next = at + bytes[at..].windows(4).position(|window| window == b"BTCH").unwrap();
    // Behind the batch's header, in its record.
    bytes[next + 60] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
}

/// Flips a bit of the place in the first segment where `needle` stands first.
fn damage(data: &std::path::Path, needle: &[u8]) {
    let segment = first_segment(data);
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
}

#[test]
fn damage_to_what_all_share_is_refused_by_place_and_with_its_own_code() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "create", "one", "--wait"]).status.code(), Some(0));
    assert_eq!(daemon.signal("-TERM"), 0);
    // The event that created the first project.
    damage(&data, b"made with the store");
    for args in [
        vec!["serve", "--listen", "127.0.0.1:0", "--sled-listen", "127.0.0.1:0"],
        vec!["log", "verify"],
        vec!["replay", "--verify"],
    ] {
        let output = musher().args(&args).arg("--data").arg(&data).output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(".seg"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn damage_to_one_instance_quarantines_it_and_the_others_serve() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let create = |name: &str| json(&daemon.cli(&["instance", "create", name, "--wait", "-o", "json"]));
    let hit = create("hit-by-a-cosmic-ray");
    create("well");
    assert_eq!(daemon.signal("-TERM"), 0);
    // Its creation can be read: that is what is known of it last.
    damage_after(&data, b"hit-by-a-cosmic-ray");
    let daemon = Daemon::start(&data);
    let id = hit["id"].as_str().unwrap();
    let refused = daemon.cli(&["instance", "stop", id]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("quarantined") && stderr(&refused).contains(".seg"),
        "{}",
        stderr(&refused)
    );
    let explained = daemon.cli(&["instance", "explain", id]);
    assert!(
        stdout(&explained).contains("it is quarantined, "),
        "{}{}",
        stdout(&explained),
        stderr(&explained)
    );
    assert!(stdout(&explained).contains("musher log stats"), "{}", stdout(&explained));
    assert_eq!(daemon.cli(&["instance", "stop", "well", "--wait"]).status.code(), Some(0));
    // Until a sled has said what it holds there is no room.
    let is_started = || daemon.cli(&["instance", "start", "well", "--wait"]).status.code() == Some(0);
    assert!((0..100).any(|_| is_started()), "the others are as they were");
    assert_eq!(daemon.cli(&["instance", "create", "newcomer", "--wait"]).status.code(), Some(0));
    assert_eq!(daemon.signal("-TERM"), 0);
    let verified = musher().args(["replay", "--verify", "--data"]).arg(&data).output().unwrap();
    assert_eq!(verified.status.code(), Some(5), "{}{}", stdout(&verified), stderr(&verified));
}

/// The instances on each sled, by the sleds' ids.
async fn on_sleds(daemon: &Daemon) -> BTreeMap<String, Vec<String>> {
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    };
    let mut found = BTreeMap::new();
    for sled in ids(&daemon.get("/v1/system/hardware/sleds").await.1) {
        let (_, page) = daemon.get(&format!("/v1/system/hardware/sleds/{sled}/instances")).await;
        found.insert(sled, ids(&page));
    }
    found
}

#[tokio::test]
async fn a_sled_with_a_vmm_of_a_quarantined_instance_that_the_log_cannot_tell_of_takes_no_other() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let hit = daemon.create("hit-by-a-cosmic-ray", true).await;
    daemon.until_state(&hit, "running").await;
    let taken = on_sleds(&daemon).await.into_iter().find(|(_, held)| held.contains(&hit)).unwrap().0;
    assert_eq!(daemon.signal("-TERM"), 0);
    // Its creation is lost, and with it everything that it held.
    damage(&data, b"hit-by-a-cosmic-ray");
    let daemon = Daemon::start(&data);
    let mut placed = 0;
    for n in 0..600 {
        if placed == 8 {
            break;
        }
        // Until the sleds have said what they hold there is no room anywhere.
        let newcomer = daemon.create(&format!("newcomer-{n}"), false).await;
        let (status, answer) = daemon.post(&format!("/v1/instances/{newcomer}/start"), None).await;
        assert!(status == 202 || status == 507, "{status} {answer}");
        placed += usize::from(status == 202);
        if status == 507 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        } else {
            daemon.until_state(&newcomer, "running").await;
        }
    }
    let held = on_sleds(&daemon).await;
    let others: usize = held.iter().filter(|(sled, _)| **sled != taken).map(|(_, held)| held.len()).sum();
    assert_eq!((placed, others), (8, 8), "least loaded first would have taken {taken} too: {held:?}");
    assert_eq!(daemon.signal("-TERM"), 0);
}

#[test]
fn a_quarantined_instance_that_was_deleted_stands_in_nobodys_way() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let ok = |args: &[&str]| {
        let output = daemon.cli(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    };
    ok(&["instance", "create", "web", "--no-start", "--description", "hit-by-a-cosmic-ray"]);
    ok(&["instance", "delete", "web", "--yes"]);
    ok(&["instance", "create", "web", "--wait"]);
    ok(&["project", "create", "passing"]);
    ok(&["instance", "create", "lost", "-p", "passing", "--no-start", "--description", "hit-by-another"]);
    ok(&["instance", "delete", "lost", "-p", "passing", "--yes"]);
    ok(&["project", "delete", "passing", "--yes"]);
    assert_eq!(daemon.signal("-TERM"), 0);
    // Both creations can be read; what followed them cannot.
    damage_after(&data, b"hit-by-a-cosmic-ray");
    damage_after(&data, b"hit-by-another");
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "stop", "web", "--wait"]).status.code(), Some(0));
    assert_eq!(daemon.cli(&["project", "create", "passing"]).status.code(), Some(0));
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

#[test]
fn the_log_is_carried_away_from_a_running_daemon_and_comes_back() {
    let (dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let ok = |args: &[&str]| {
        let output = daemon.cli(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    ok(&["instance", "create", "one", "--wait"]);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (export, backup) = (path("all.musher"), path("backup"));
    ok(&["log", "export", "--to", &export]);
    ok(&["log", "backup", "--to", &backup]);
    ok(&["instance", "create", "two", "--wait"]);
    let grown = ok(&["log", "backup", "--to", &backup]);
    assert!(grown.contains("position"), "{grown}");
    assert!(ok(&["log", "tail", "-n", "3"]).lines().count() == 3);
    ok(&["log", "compact"]);
    let inside = daemon.cli(&["log", "backup", "--to", &data.join("journal/bk").display().to_string()]);
    assert_eq!(inside.status.code(), Some(1));
    assert!(stderr(&inside).contains("inside the data directory"), "{}", stderr(&inside));
    assert_ne!(daemon.cli(&["log", "export", "--to", &export]).status.code(), Some(0), "never over a file");
    let live = ok(&["instance", "list", "-o", "json"]);
    assert_eq!(daemon.signal("-TERM"), 0);

    let run = |args: &[&str]| musher().args(args).output().unwrap();
    let (imported, restored) = (path("imported"), path("restored"));
    for (args, code) in [
        (vec!["log", "verify", "--file", &export], 0),
        (vec!["replay", "one", "--file", &export, "--history"], 0),
        (vec!["replay", "--verify", "--file", &export], 0),
        (vec!["log", "stats", "--file", &export], 0),
        (vec!["log", "import", &export, "--data", &imported], 0),
        (vec!["replay", "--verify", "--data", &imported], 0),
        (vec!["log", "import", &export, "--data", &imported], 1),
        (vec!["log", "restore", "--from", &backup, "--data", &restored], 0),
        (vec!["replay", "--verify", "--data", &restored], 0),
        (vec!["log", "restore", "--from", &backup, "--data", &restored], 1),
        (vec!["log", "tail", "-n", "2", "--data", &restored], 0),
        (vec!["log", "verify", "--data", &restored], 0),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}{}", stdout(&output), stderr(&output));
    }
    // What was running when the backup was made had no simulated host there: it is asked for, and failed.
    let back = Daemon::start(std::path::Path::new(&restored));
    let names = |json: &str| {
        let list: Value = serde_json::from_str(json).unwrap();
        list.as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&stdout(&back.cli(&["instance", "list", "-o", "json"]))), names(&live));
    // A damaged export is noticed by place.
    let mut bytes = std::fs::read(&export).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&export, bytes).unwrap();
    for args in [vec!["log", "verify", "--file", &export], vec!["replay", "one", "--file", &export]] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(5), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("frame"), "{}", stderr(&output));
    }
}

#[test]
fn a_lost_tail_is_opened_only_when_told_to_and_that_is_recorded() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "create", "one", "--wait"]).status.code(), Some(0));
    assert_eq!(daemon.signal("-TERM"), 0);
    std::fs::remove_file(data.join("journal").join("witness")).unwrap();
    let refused = serve(&data).output().unwrap();
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("--accept-loss"), "{}", stderr(&refused));
    let daemon = Daemon::start_with(&data, &["--accept-loss"]);
    assert_eq!(daemon.cli(&["instance", "show", "one"]).status.code(), Some(0));
    assert_eq!(daemon.signal("-TERM"), 0);
    let tail = musher().args(["log", "tail", "-n", "1000", "--data"]).arg(&data).output().unwrap();
    assert!(stdout(&tail).contains("LossAccepted"), "{}", stdout(&tail));
}

#[test]
fn a_data_directory_that_has_lost_its_journal_does_not_start_as_new() {
    let (_dir, data) = scratch();
    assert_eq!(Daemon::start(&data).signal("-TERM"), 0);
    std::fs::remove_dir_all(data.join("journal")).unwrap();
    // Like a volume that is not mounted.
    std::fs::create_dir(data.join("journal")).unwrap();
    let refused = serve(&data).output().unwrap();
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("has lost its journal"), "{}", stderr(&refused));
}
