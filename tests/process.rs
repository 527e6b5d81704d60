//! The process campaign, as a user runs it.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{musher, stderr, stdout};

#[test]
fn a_few_kills_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = musher();
    command.args(["chaos", "process", "--kills", "4", "--seed", "3", "--keep"]).arg(dir.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let said = stdout(&output);
    assert!(said.starts_with("4 rounds"), "{said}");
    assert!(said.contains("request ids with one outcome each"), "{said}");
    let verified = said.lines().find(|line| line.contains("verified without a daemon")).unwrap();
    assert_eq!(verified.split_whitespace().last(), Some("4"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing failed, so nothing is kept");
}

#[test]
fn arguments_of_the_process_campaign_are_bounded() {
    for args in
        [["--kills", "0"], ["--load", "65"], ["--for", "soon"], ["--mode", "some"], ["--daemon", "/nowhere"]]
    {
        let output = musher().args(["chaos", "process"]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_full_disk_puts_work_off_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = musher();
    command
        .args(["chaos", "process", "--mode", "full", "--kills", "3", "--seed", "2", "--keep"])
        .arg(dir.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let said = stdout(&output);
    // Where nothing can be mounted that is said, and no round is played.
    let is_skipped = stderr(&output).contains("a small one cannot be mounted here");
    assert_eq!(said.starts_with("3 rounds"), !is_skipped, "{said}{}", stderr(&output));
}
