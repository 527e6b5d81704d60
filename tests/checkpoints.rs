//! A start from a checkpoint is a start: what it answers is what folding the whole log answers.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, musher, scratch, serve, stderr, stdout};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn checkpoints(data: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(data.join("checkpoints")) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// With a checkpoint at every stop.
fn start(data: &Path) -> Daemon {
    Daemon::start_where(data, &[("MUSHER_CHECKPOINT__EVENTS", "16"), ("MUSHER_CHECKPOINT__PAUSE_S", "0")])
}

fn is_from_checkpoint(daemon: &Daemon) -> bool {
    daemon.said.iter().any(|line| line.contains("from the checkpoint at position"))
}

/// What users and operators see of what is folded from the log.
async fn seen(daemon: &Daemon) -> Vec<Value> {
    let mut seen = Vec::new();
    for path in [
        "/v1/instances?project=demo",
        "/v1/projects",
        "/v1/system/hardware/sleds",
        "/v1/utilization",
        "/ops/v1/migrations",
        "/ops/v1/sagas",
    ] {
        let (status, body) = daemon.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        seen.push(body);
    }
    seen
}

async fn until_seen(daemon: &Daemon, wanted: &[Value]) {
    let mut now = Vec::new();
    for _ in 0..500 {
        now = seen(daemon).await;
        if now == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(now, wanted);
}

#[tokio::test]
async fn a_start_from_a_checkpoint_answers_what_a_whole_fold_answers() {
    let (_dir, data) = scratch();
    let daemon = start(&data);
    assert!(!is_from_checkpoint(&daemon));
    for n in 0..6 {
        let id = daemon.create(&format!("web-{n}"), n % 2 == 0).await;
        daemon.until_state(&id, if n % 2 == 0 { "running" } else { "stopped" }).await;
    }
    let gone = daemon.create("gone", false).await;
    assert_eq!(daemon.delete(&format!("/v1/instances/{gone}")).await.0, 204);
    let before = seen(&daemon).await;
    assert_eq!(daemon.signal("-TERM"), 0);
    assert!(!checkpoints(&data).is_empty());

    let daemon = start(&data);
    assert!(is_from_checkpoint(&daemon), "{:?}", daemon.said);
    until_seen(&daemon, &before).await;
    let more = daemon.create("more", true).await;
    daemon.until_state(&more, "running").await;
    let before = seen(&daemon).await;
    daemon.kill();

    let daemon = start(&data);
    assert!(is_from_checkpoint(&daemon));
    until_seen(&daemon, &before).await;
    assert_eq!(daemon.signal("-TERM"), 0);
    let verified = musher().args(["replay", "--verify", "--data"]).arg(&data).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
    assert!(stdout(&verified).contains("each is the fold of the log at its position"), "{verified:?}");

    for dir in ["checkpoints", "cache"] {
        std::fs::remove_dir_all(data.join(dir)).unwrap();
    }
    let daemon = start(&data);
    assert!(!is_from_checkpoint(&daemon));
    until_seen(&daemon, &before).await;
    assert_eq!(daemon.signal("-TERM"), 0);
}

#[tokio::test]
async fn damaged_checkpoints_cost_time_and_nothing_else() {
    let (_dir, data) = scratch();
    let daemon = start(&data);
    for n in 0..3 {
        let id = daemon.create(&format!("web-{n}"), true).await;
        daemon.until_state(&id, "running").await;
    }
    let before = seen(&daemon).await;
    assert_eq!(daemon.signal("-TERM"), 0);
    let found = checkpoints(&data);
    assert!(!found.is_empty());
    for path in &found {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    let daemon = start(&data);
    assert!(!is_from_checkpoint(&daemon));
    until_seen(&daemon, &before).await;
    assert_eq!(daemon.signal("-TERM"), 0);
    let daemon = start(&data);
    assert!(is_from_checkpoint(&daemon), "a new one was made: {:?}", daemon.said);
    until_seen(&daemon, &before).await;
}

/// A journal directory holds files only.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_log_that_ends_before_a_checkpoint_of_it_has_lost_its_end() {
    let (dir, data) = scratch();
    let daemon = start(&data);
    let early = daemon.create("early", false).await;
    assert_eq!(daemon.signal("-TERM"), 0);
    // Whole, with a witness of its own: only the checkpoint knows that there was more.
    let (journal, old) = (data.join("journal"), dir.path().join("old"));
    copy_files(&journal, &old);
    let daemon = start(&data);
    for n in 0..8 {
        daemon.create(&format!("late-{n}"), false).await;
    }
    assert_eq!(daemon.signal("-TERM"), 0);
    std::fs::remove_dir_all(&journal).unwrap();
    copy_files(&old, &journal);

    let before = checkpoints(&data);
    let refused = serve(&data).output().unwrap();
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(said.contains("its end is lost") && said.contains("--accept-loss"), "{said}");
    assert_eq!(checkpoints(&data), before, "a refusal changes nothing");

    let daemon = Daemon::start_with(&data, &["--accept-loss"]);
    assert!(!is_from_checkpoint(&daemon), "everything that rests on the loss is looked at");
    assert_eq!(daemon.get(&format!("/v1/instances/{early}")).await.0, 200);
    assert_eq!(daemon.signal("-TERM"), 0);
    let tail = musher().args(["log", "tail", "-n", "1000", "--data"]).arg(&data).output().unwrap();
    assert!(stdout(&tail).contains("LossAccepted"), "{}", stdout(&tail));

    let daemon = start(&data);
    assert_eq!(daemon.get(&format!("/v1/instances/{early}")).await.0, 200, "accepted once is accepted");
    assert_eq!(daemon.signal("-TERM"), 0);
}
