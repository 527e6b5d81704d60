//! Every error of the command line says what to do, with a daemon and without one.

use super::daemon::{Daemon, musher, scratch, stderr, stdout};
use std::process::Stdio;

const NOWHERE: &str = "http://127.0.0.1:1";
const NO_ID: &str = "00000000-0000-4000-8000-000000000000";

/// Refused by a daemon that has `web-1`, running, and `db-1`, stopped.
const BY_A_DAEMON: &[(i32, &[&str])] = &[
    (1, &["instance", "show", "nobody"]),
    (1, &["instance", "show", NO_ID]),
    (1, &["instance", "create", "web-1"]),
    (1, &["instance", "create", "Bad_Name"]),
    (1, &["instance", "create", "big", "--ncpus", "255"]),
    (1, &["instance", "create", "big", "--memory", "1537GiB"]),
    (1, &["instance", "create", "zero", "--ncpus", "0"]),
    (1, &["instance", "create", "odd", "--auto-restart-policy", "sometimes"]),
    (1, &["instance", "create", "stray", "-p", "nowhere"]),
    (1, &["instance", "delete", "web-1", "--yes"]),
    (2, &["instance", "delete", "db-1"]),
    (1, &["instance", "reboot", "db-1"]),
    (1, &["instance", "migrate", "db-1"]),
    (1, &["instance", "migrate", "web-1", "--to", "nowhere"]),
    (1, &["instance", "migrate", "web-1", "--cancel"]),
    (1, &["instance", "update", "web-1", "--ncpus", "4"]),
    (1, &["instance", "update", "nobody", "--ncpus", "4"]),
    (1, &["instance", "history", "nobody"]),
    (1, &["instance", "explain", "nobody"]),
    (1, &["instance", "diff", "web-1", "--from", "#4711"]),
    (1, &["instance", "diff", "web-1", "--from", "yesterday"]),
    (1, &["instance", "serial", "nobody"]),
    (3, &["instance", "start", "web-1", "--wait=stopped", "--timeout", "1s"]),
    (2, &["instance", "force-stop", "web-1", "--reason", "gone"]),
    (1, &["project", "show", "nowhere"]),
    (1, &["project", "create", "demo"]),
    (1, &["project", "delete", "demo", "--yes"]),
    (1, &["quota", "show", "galaxy"]),
    (1, &["group", "show", "nobody"]),
    (1, &["group", "add", "nobody", "web-1"]),
    (1, &["migration", "show", NO_ID]),
    (1, &["saga", "show", NO_ID]),
    (1, &["saga", "cancel", NO_ID]),
    (1, &["timer", "explain", "alarm"]),
    (1, &["timer", "activate", "alarm"]),
    (1, &["sled", "show", "nobody"]),
    (1, &["sled", "explain", "nobody"]),
    (1, &["sled", "cordon", NO_ID]),
    (1, &["trace", NO_ID]),
    (2, &["trace", "no-id"]),
    (1, &["whatis", NO_ID]),
    (2, &["whatis", "xyz"]),
    (1, &["events", "--kind", "nonsense"]),
    (1, &["log", "backup", "--to", "/proc/nowhere"]),
    (1, &["log", "export", "--to", "/dev/null"]),
];

/// Refused without any daemon.
const BY_ITSELF: &[(i32, &[&str])] = &[
    (4, &["ping"]),
    (4, &["instance", "list"]),
    (4, &["sled", "list"]),
    (4, &["timer", "explain", "sled-watch"]),
    (4, &["log", "stats"]),
    (4, &["events"]),
    (4, &["replay", "web-1", "--live"]),
    (2, &["ping", "--server", "https://127.0.0.1"]),
    (2, &["ping", "--token-file", "nowhere"]),
    (2, &["instance"]),
    (2, &["instance", "strat", "web-1"]),
    (2, &["instance", "create", "web-1", "--memory", "many"]),
    (2, &["config", "check", "--config", "nowhere.toml"]),
    (2, &["serve", "--config", "nowhere.toml"]),
    (1, &["log", "verify", "--data", "nowhere"]),
    (1, &["log", "stats", "--data", "nowhere"]),
    (1, &["log", "stats", "--file", "nowhere"]),
    (1, &["log", "import", "nowhere", "--data", "new"]),
    (1, &["log", "restore", "--from", "nowhere", "--data", "new"]),
    (1, &["replay", "web-1", "--data", "nowhere"]),
    (1, &["replay", "web-1", "--file", "nowhere"]),
    (1, &["replay", "web-1", "--backup", "nowhere"]),
    (1, &["upgrade", "check", "--data", "nowhere"]),
    (1, &["replay", "--tui", "--data", "nowhere"]),
    (2, &["token", "list"]),
    (2, &["sled", "run", "--name", "a", "--control-plane", "ftp://nowhere"]),
    (2, &["completions", "klingon"]),
];

/// What is wrong with an error; nothing if it has its code and says what to do.
fn complaint(args: &[&str], code: i32, server: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let output = musher()
        .args(args)
        .env("MUSHER_SERVER", server)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = stderr(&output);
    // The parser of the command line has words of its own for it.
    let has_hint =
        ["\n  hint: ", "For more information, try", "\nUsage: "].iter().any(|it| said.contains(it));
    let is_right = output.status.code() == Some(code) && has_hint;
    (!is_right).then(|| {
        format!(
            "{args:?}: code {:?}, not {code}, or no hint:\n{said}{}",
            output.status.code(),
            stdout(&output)
        )
    })
}

fn check(table: &[(i32, &[&str])], server: &str) {
    let complaints: Vec<String> =
        table.iter().filter_map(|(code, args)| complaint(args, *code, server)).collect();
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), table.len(), complaints.join("\n"));
}

#[test]
fn every_refusal_of_a_daemon_says_what_to_do() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "create", "web-1", "--wait"]).status.code(), Some(0));
    assert_eq!(daemon.cli(&["instance", "create", "db-1", "--no-start"]).status.code(), Some(0));
    check(BY_A_DAEMON, &daemon.url);
}

#[test]
fn every_error_without_a_daemon_says_what_to_do() {
    check(BY_ITSELF, NOWHERE);
}
