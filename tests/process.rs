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
    assert!(said.starts_with("4 kills"), "{said}");
    assert!(said.contains("4 times verified offline"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing failed, so nothing is kept");
}

#[test]
fn arguments_of_the_process_campaign_are_bounded() {
    for args in [["--kills", "0"], ["--load", "65"], ["--for", "soon"]] {
        let output = musher().args(["chaos", "process"]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    }
}
