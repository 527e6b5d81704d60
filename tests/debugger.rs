//! The debugger on the command line: one history, asked of a running daemon, of a stopped directory, of an
//! export and of a backup, answers the same; and what is damaged is refused by place.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, musher, scratch, stderr, stdout};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

fn replay(args: &[&str], place: &[&str]) -> Output {
    musher().arg("replay").args(args).args(place).output().unwrap()
}

fn ok(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

#[test]
fn one_history_answers_the_same_from_wherever_it_is_read() {
    let (dir, data) = scratch();
    let daemon = Daemon::start(&data);
    for args in [
        vec!["instance", "create", "web-1", "--wait"],
        vec!["instance", "stop", "web-1", "--wait"],
        vec!["instance", "create", "web-2", "--wait"],
    ] {
        assert_eq!(daemon.cli(&args).status.code(), Some(0), "{args:?}");
    }
    let url = daemon.url.clone();
    let live = ["--live", "--server", url.as_str()];
    let history = ok(&replay(&["web-1", "--history", "-o", "json"], &live));
    let history: Value = serde_json::from_str(&history).unwrap();
    let request = history[0]["request_id"].as_str().unwrap().to_owned();
    let durable = history.as_array().unwrap().last().unwrap()["position"].to_string();
    let questions: Vec<Vec<&str>> = vec![
        vec!["web-1"],
        vec!["web-1", "--at", "#2"],
        vec!["web-1", "--diff", "#2..#3"],
        vec!["web-1", "--diff", "#1..", "-o", "json"],
        vec!["web-1", "--history"],
        vec!["web-1", "--history", "--lanes"],
        vec!["web-1", "--history", "--lanes", "-o", "json"],
        vec!["web-1", "--until", "run_state=running"],
        vec!["--until", "saga.step=set_running"],
        vec!["web-1", "--grep", "stoprequested"],
        vec!["web-1", "--stats"],
        vec!["--fleet", "--at", &durable],
        vec!["--trace", &request],
    ];
    let answers: Vec<String> = questions.iter().map(|args| ok(&replay(args, &live))).collect();
    for (nth, said) in [
        (0, "web-1 is stopped at #"),
        (1, "web-1 is starting at #2"),
        (2, "saga.step: fence → register"),
        (5, "VMM "),
        (7, "VmmReported by sled"),
        (8, "saga.step is set_running"),
        (9, "asked to stop"),
        (11, "demo     web-1  stopped"),
        (12, "saga reached its goal"),
    ] {
        assert!(answers[nth].contains(said), "{:?}: {}", questions[nth], answers[nth]);
    }
    let verified = ok(&replay(&["--all", "--verify"], &live));
    assert!(verified.contains("\n2 live instances compared with what the daemon shows\n"), "{verified}");
    let locked = replay(&["web-1"], &["--data", data.to_str().unwrap()]);
    assert_eq!(locked.status.code(), Some(1));
    assert!(stderr(&locked).contains("musher replay --live"), "{}", stderr(&locked));

    let path = |name: &str| dir.path().join(name).display().to_string();
    let (export, backup) = (path("all.musher"), path("backup"));
    assert_eq!(daemon.cli(&["log", "export", "--to", &export]).status.code(), Some(0));
    assert_eq!(daemon.cli(&["log", "backup", "--to", &backup]).status.code(), Some(0));
    assert_eq!(daemon.signal("-TERM"), 0);
    let gone = replay(&["web-1"], &live);
    assert_eq!(gone.status.code(), Some(4), "{}", stderr(&gone));
    let places: [&[&str]; 3] =
        [&["--file", &export], &["--backup", &backup], &["--data", data.to_str().unwrap()]];
    for place in places {
        for (args, expected) in questions.iter().zip(&answers) {
            assert_eq!(&ok(&replay(args, place)), expected, "{args:?} of {place:?}");
        }
        let verified = ok(&replay(&["--all", "--verify", "-o", "json"], place));
        let report: Value = serde_json::from_str(&verified).unwrap();
        assert!(report["rows"].as_u64() >= Some(2), "{report}");
        let never = replay(&["web-1", "--until", "invariant"], place);
        assert_eq!(never.status.code(), Some(1));
        assert!(stderr(&never).contains("never comes true"), "{}", stderr(&never));
    }
    let stored = ok(&replay(&["--verify", "-o", "json"], places[2]));
    let stored: Value = serde_json::from_str(&stored).unwrap();
    assert!(stored["rows"].as_u64() >= Some(4), "the directory's own read model is compared too: {stored}");
}

#[test]
fn a_question_that_makes_no_sense_is_refused_with_what_to_write() {
    let (_dir, data) = scratch();
    assert_eq!(Daemon::start(&data).signal("-TERM"), 0);
    let place = ["--data", data.to_str().unwrap()];
    for (args, code, said) in [
        (vec![], 2, "which instance?"),
        (vec!["nobody"], 1, "holds no instance \"nobody\""),
        (vec!["--fleet", "--at", "#3"], 2, "a version belongs to one stream"),
        (vec!["--fleet", "--at", "yesterday"], 2, "is no moment"),
        (vec!["--fleet", "--at", "@999"], 1, "the log has no position 999"),
        (vec!["--until", "running"], 2, "is no condition"),
        (vec!["--until", "C4"], 1, "no invariant is broken anywhere"),
        (vec!["--until", "run_state=running"], 1, "never comes true"),
        (vec!["nobody", "--diff", "3"], 1, "holds no instance"),
        (vec!["00000000-0000-4000-8000-000000000000", "--diff", "3"], 2, "is no pair of moments"),
        (vec!["00000000-0000-4000-8000-000000000000", "--history", "--lanes"], 1, "no instance with id"),
        (vec!["--trace", "00000000-0000-4000-8000-000000000000"], 1, "has no request"),
        (vec!["--fleet", "--history"], 2, "cannot be used with"),
        (vec!["x", "--lanes"], 2, "--history"),
    ] {
        let output = replay(&args, &place);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{args:?}: {}", stderr(&output));
    }
}

/// Changes a copy of the export, asks of it, and wants to be refused with this.
fn refused(dir: &Path, bytes: &[u8], said: &str) {
    let file = dir.join("changed.musher");
    std::fs::write(&file, bytes).unwrap();
    for args in [vec!["web-1", "--history"], vec!["--verify"], vec!["--fleet"]] {
        let output = replay(&args, &["--file", file.to_str().unwrap()]);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(5), "{args:?}: {told}");
        assert!(told.contains(said) && !told.contains("panicked"), "{args:?}, {said}: {told}");
    }
}

#[test]
fn a_damaged_export_is_refused_by_place() {
    let (dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "create", "web-1", "--wait"]).status.code(), Some(0));
    assert_eq!(daemon.signal("-TERM"), 0);
    let export = dir.path().join("all.musher");
    let made =
        musher().args(["log", "export", "--data"]).arg(&data).arg("--to").arg(&export).output().unwrap();
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let whole = std::fs::read(&export).unwrap();
    // Header, header of the first frame, its records, the trailer.
    for (at, said) in [(20, "position 1"), (140, "frame 1, at position 1"), (200, "frame 1, at position 1")] {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        refused(dir.path(), &bytes, said);
    }
    let mut bytes = whole.clone();
    let last = bytes.len() - 10;
    bytes[last] ^= 4;
    refused(dir.path(), &bytes, "position");
    for cut in [0, 5, 127] {
        refused(dir.path(), &whole[..cut], "");
    }
    for cut in [130, 300, whole.len() - 1] {
        refused(dir.path(), &whole[..cut], "cut off in frame");
    }
    refused(dir.path(), b"PK\x03\x04 this is something else altogether, and long enough to be a header, which takes one hundred and twenty-eight bytes to write", "not an export");
    let mut newer = whole;
    newer[8] = 2;
    refused(dir.path(), &newer, "has format 2, this build reads up to 1");
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn a_damaged_directory_or_backup_is_answered_or_refused_by_place() {
    let (dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "create", "web-1", "--wait"]).status.code(), Some(0));
    let backup = dir.path().join("backup");
    assert_eq!(daemon.cli(&["log", "backup", "--to", backup.to_str().unwrap()]).status.code(), Some(0));
    assert_eq!(daemon.signal("-TERM"), 0);
    for (flag, place, root) in
        [("--backup", &backup, backup.clone()), ("--data", &data, data.join("journal"))]
    {
        let ask = || replay(&["--verify"], &[flag, place.to_str().unwrap()]);
        ok(&ask());
        let mut refused = 0;
        for file in files(&root) {
            let whole = std::fs::read(&file).unwrap();
            // Behind what was written a segment is zeros, where a flipped bit says nothing.
            let written = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            for change in 0..6 {
                let mut bytes = whole.clone();
                match change {
                    0 => bytes.truncate(written / 2),
                    1 => bytes.clear(),
                    _ if written == 0 => continue,
                    nth => bytes[(written - 1) * (nth - 2) / 3] ^= 0x10,
                }
                std::fs::write(&file, bytes).unwrap();
                let answer = ask();
                let (code, told) = (answer.status.code(), stderr(&answer));
                let what = format!("{}, change {change}: {code:?} {told}", file.display());
                assert!(matches!(code, Some(0 | 5)) && !told.contains("panicked"), "{what}");
                assert!(code == Some(0) || told.starts_with("error: "), "{what}");
                refused += u32::from(code == Some(5));
            }
            std::fs::write(&file, whole).unwrap();
        }
        assert!(refused >= 4, "{flag}: {refused} refused");
        ok(&ask());
    }
}

/// A program that runs `musher rules` with a planted bug, as a build with that bug would.
fn build_with(dir: &Path, name: &str, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn another_build_is_compared_and_a_changed_rule_named_at_its_event() {
    let (dir, data) = scratch();
    let daemon = Daemon::start(&data);
    for args in [
        vec!["instance", "create", "web-1", "--wait"],
        vec!["instance", "create", "web-2", "--no-start"],
        vec!["instance", "stop", "web-1", "--wait"],
    ] {
        assert_eq!(daemon.cli(&args).status.code(), Some(0), "{args:?}");
    }
    assert_eq!(daemon.signal("-TERM"), 0);
    let data_arg = data.display().to_string();
    let place = ["--data", data_arg.as_str()];
    let this = env!("CARGO_BIN_EXE_musher");
    let same = ok(&replay(&["--with", this], &place));
    assert!(same.ends_with("appends of 2 instance(s) compared; 0 differ\n"), "{same}");

    let planted =
        build_with(dir.path(), "planted", &format!("exec {this} \"$@\" --planted stop_overwrites_end"));
    let differs = replay(&["--with", &planted], &place);
    let told = stdout(&differs);
    assert_eq!(differs.status.code(), Some(1), "{told}{}", stderr(&differs));
    let history: Value =
        serde_json::from_str(&ok(&replay(&["web-1", "--history", "-o", "json"], &place))).unwrap();
    let ended =
        history.as_array().unwrap().iter().find(|entry| entry["data"]["report"]["state"] == "destroyed");
    let ended = format!(") #{} (position {}", ended.unwrap()["append"], ended.unwrap()["position"]);
    for said in ["web-1 (", &ended, "this build (", "that build (", "decides", "1 differ"] {
        assert!(told.contains(said), "{said}: {told}");
    }
    assert!(!told.contains("web-2 ("), "what was never stopped meets no such rule: {told}");
    let json: Value =
        serde_json::from_str(&stdout(&replay(&["web-1", "--with", &planted, "-o", "json"], &place))).unwrap();
    let of = |side: &str| json["differences"][0][side]["decided"]["events"].clone();
    assert_eq!(json["differences"].as_array().unwrap().len(), 1);
    assert_eq!(of("ours"), json["differences"][0]["recorded"]);
    assert_ne!(of("ours"), of("theirs"));

    for (name, script, said) in [
        (
            "old",
            "echo \"error: unrecognized subcommand 'rules'\" >&2; exit 2",
            "unrecognized subcommand 'rules'",
        ),
        ("other", "echo hello", "is no musher that can be compared with"),
        (
            "newer",
            "echo '{\"musher_rules\":2,\"build\":\"9.0.0\"}'; cat >/dev/null",
            "(9.0.0) speaks version 2, this build 1",
        ),
        ("dying", "echo '{\"musher_rules\":1,\"build\":\"0.0.1\"}'; read line; exit 3", "stopped answering"),
        (
            "babbling",
            "echo '{\"musher_rules\":1,\"build\":\"0.0.1\"}'; read line; echo '[1,2]'",
            "stopped answering",
        ),
    ] {
        let refused = replay(&["--with", &build_with(dir.path(), name, script)], &place);
        assert_eq!(refused.status.code(), Some(1), "{name}");
        assert!(stderr(&refused).contains(said), "{name}: {}", stderr(&refused));
    }
    let missing = replay(&["--with", "/nowhere/musher"], &place);
    assert!(stderr(&missing).contains("cannot be run"), "{}", stderr(&missing));

    let config = dir.path().join("short.toml");
    std::fs::write(&config, "[instances]\nstart_deadline_s = 7\n").unwrap();
    let config = config.display().to_string();
    let under = replay(&["--with-config", &config], &place);
    assert_eq!(under.status.code(), Some(1), "{}", stderr(&under));
    assert!(stdout(&under).contains("\"deadline\":7000000"), "{}", stdout(&under));
    let wrong = replay(&["--with-config", "/nowhere.toml"], &place);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
}

#[test]
fn an_upgrade_is_checked_before_anything_is_written() {
    let (dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "create", "web-1", "--wait"]).status.code(), Some(0));
    let check = |args: &[&str]| musher().args(["upgrade", "check"]).args(args).output().unwrap();
    let running = check(&["--data", data.to_str().unwrap()]);
    assert_eq!(running.status.code(), Some(1), "{}", stderr(&running));
    let export = dir.path().join("all.musher").display().to_string();
    assert_eq!(daemon.cli(&["log", "export", "--to", &export]).status.code(), Some(0));
    assert_eq!(daemon.signal("-TERM"), 0);
    for args in [["--data", data.to_str().unwrap()], ["--from", &export]] {
        let said = ok(&check(&args));
        assert!(said.ends_with("this build can go on from here\n"), "{said}");
    }
    let json: Value = serde_json::from_str(&ok(&check(&["--from", &export, "-o", "json"]))).unwrap();
    assert_eq!((&json["instances"], json["blocked"].as_array().unwrap().len()), (&1.into(), 0));
    let mut bytes = std::fs::read(&export).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&export, bytes).unwrap();
    assert_eq!(check(&["--from", &export]).status.code(), Some(5));
}

#[test]
fn a_history_becomes_a_scenario_that_goes_the_same_way() {
    let (dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "create", "web-1", "--wait"]).status.code(), Some(0));
    daemon.kill();
    let daemon = Daemon::start(&data);
    for args in [vec!["instance", "migrate", "web-1", "--wait"], vec!["instance", "stop", "web-1", "--wait"]]
    {
        assert_eq!(daemon.cli(&args).status.code(), Some(0), "{args:?}");
    }
    assert_eq!(daemon.signal("-TERM"), 0);
    let file = dir.path().join("incident.json").display().to_string();
    let data_arg = data.display().to_string();
    let make = || replay(&["web-1", "--simulate", "--to", &file, "-o", "json"], &["--data", &data_arg]);
    let made: Value = serde_json::from_str(&ok(&make())).unwrap();
    assert_eq!((&made["requests"], &made["left_out"]), (&3.into(), &Value::Array(Vec::new())), "{made}");
    // Which delays the sleds drew decides how far it goes the same way; creation, start and commands always do.
    assert!(made["followed"].as_u64() >= Some(7), "{made}");
    let scenario: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let verbs: Vec<String> =
        scenario["requests"].as_array().unwrap().iter().map(|it| it["verb"].to_string()).collect();
    assert!(
        verbs[0].contains("create") && verbs[1].contains("migrate") && verbs[2].contains("stop"),
        "{verbs:?}"
    );
    assert!(scenario["faults"].to_string().contains("crash_time"), "the kill is a fault: {scenario}");
    let run = musher().args(["chaos", "replay", &file]).output().unwrap();
    assert!(ok(&run).contains("nothing was broken"), "{}", stdout(&run));
    let again = make();
    assert_eq!(again.status.code(), Some(1), "never over a file");
}

#[test]
fn a_history_is_walked_through_by_a_script() {
    use std::io::Write as _;
    use std::process::Stdio;
    let export = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/logs/0.1.0/crash-in-mid-start.musher");
    let walk = |more: &[&str], script: &str| {
        let mut command = musher();
        command.args(["replay", "web-1", "--step", "--file", export]).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A walk that has ended takes no more commands.
        let _ = child.stdin.take().unwrap().write_all(script.as_bytes());
        child.wait_with_output().unwrap()
    };
    let script = "goto first\nuntil run_state=starting\neffects\nbreak SagaAdvanced\ncontinue\ncontinue\neffects\nwhy\nquit\nnever";
    let walked = ok(&walk(&[], script));
    for said in [
        "#7 @",
        "#1 @",
        "run_state is starting",
        "nothing would be sent",
        "break at SagaAdvanced",
        "set_running VMM",
        "the instance is starting",
    ] {
        assert!(walked.contains(said), "{said}: {walked}");
    }
    assert!(ok(&walk(&["--at", "#5"], "")).starts_with("#5 @18 "), "it begins where it is told to");
    let refused = walk(&[], "goto #99\n");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("the newest is #7"), "{}", stderr(&refused));
    assert_eq!(walk(&["--at", "#99"], "").status.code(), Some(1));
}
