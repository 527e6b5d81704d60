//! Tokens from the binary: made, listed, revoked; a daemon that needs them, and one that refuses to go without.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, musher, scratch, serve, stderr, stdout};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

fn token(file: &Path, args: &[&str]) -> Output {
    musher().arg("token").args(args).arg("--file").arg(file).output().unwrap()
}

fn make(file: &Path, name: &str, role: &str) -> String {
    let made = token(file, &["create", "--name", name, "--role", role]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    stdout(&made).trim().to_owned()
}

fn as_holder(daemon: &Daemon, token: &str, args: &[&str]) -> Output {
    musher().args(args).env("MUSHER_SERVER", &daemon.url).env("MUSHER_TOKEN", token).output().unwrap()
}

#[test]
fn a_listener_that_others_reach_does_not_start_without_tokens() {
    let (_dir, data) = scratch();
    let mut command = musher();
    let output = command.args(["serve", "--listen", "0.0.0.0:0", "--data"]).arg(&data).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("0.0.0.0:0 can be reached from elsewhere"), "{}", stderr(&output));
    assert!(stderr(&output).contains("musher token create"), "{}", stderr(&output));
    assert!(!data.exists());
    let missing = serve(&data).args(["--tokens", "/nowhere/tokens"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("token file /nowhere/tokens: No such file"), "{}", stderr(&missing));
}

#[tokio::test]
async fn tokens_are_made_used_and_revoked_by_command() {
    let (dir, data) = scratch();
    let file = dir.path().join("tokens");
    let (vera, otto) = (make(&file, "vera", "viewer"), make(&file, "otto", "operator"));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(&vera) && !text.contains(&otto), "{text}");
    let again = token(&file, &["create", "--name", "vera", "--role", "admin"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("there is a token by the name \"vera\""), "{}", stderr(&again));
    assert_eq!(token(&file, &["create", "--name", "x", "--role", "root"]).status.code(), Some(2));
    assert!(stdout(&token(&file, &["list"])).contains("otto"));

    let tokens = file.display().to_string();
    let daemon = Daemon::start_with(&data, &["--tokens", &tokens]);
    let stranger = daemon.cli(&["instance", "list"]);
    assert_eq!(stranger.status.code(), Some(1));
    assert!(stderr(&stranger).contains("credentials missing or invalid"), "{}", stderr(&stranger));
    assert!(stderr(&stranger).contains("--token-file"), "{}", stderr(&stranger));
    assert_eq!(daemon.cli(&["ping"]).status.code(), Some(0), "a probe needs none");
    let low = as_holder(&daemon, &vera, &["instance", "create", "web-1", "--no-start"]);
    assert_eq!(low.status.code(), Some(1));
    assert!(
        stderr(&low).contains("vera has the role viewer; this needs the role operator"),
        "{}",
        stderr(&low)
    );
    let own = dir.path().join("otto");
    std::fs::write(&own, format!("{otto}\n")).unwrap();
    let own = own.display().to_string();
    let created = daemon.cli(&["instance", "create", "web-1", "--no-start", "--token-file", &own]);
    assert_eq!(created.status.code(), Some(0), "{}", stderr(&created));
    let history = as_holder(&daemon, &vera, &["instance", "history", "web-1", "-o", "json"]);
    assert!(stdout(&history).contains("user otto"), "{}{}", stdout(&history), stderr(&history));
    let feed = as_holder(&daemon, &vera, &["events", "--after", "0"]);
    assert!(stdout(&feed).contains("Created"), "{}", stderr(&feed));

    assert_eq!(token(&file, &["revoke", "nobody"]).status.code(), Some(1));
    assert_eq!(token(&file, &["revoke", "vera"]).status.code(), Some(0));
    assert_eq!(as_holder(&daemon, &vera, &["instance", "list"]).status.code(), Some(0), "not yet read again");
    let hangup = Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status().unwrap();
    assert!(hangup.success());
    let mut code = None;
    for _ in 0..500 {
        code = as_holder(&daemon, &vera, &["instance", "list"]).status.code();
        if code == Some(1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(code, Some(1), "the token still counts");
    assert_eq!(as_holder(&daemon, &otto, &["instance", "list"]).status.code(), Some(0));
    assert_eq!(daemon.signal("-TERM"), 0);
}
