//! A build with failpoints, as the process campaign uses it: `cargo test --features failpoints --test failpoints`.
//!
//! Without the feature there is one test: that there are none.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{musher, stdout};

/// What only the rules of failpoints say.
#[cfg(not(feature = "failpoints"))]
const MARK: &[u8] = b"failpoint: dies";

#[cfg(not(feature = "failpoints"))]
#[test]
fn a_build_that_did_not_ask_for_failpoints_has_none() {
    let list = musher().args(["chaos", "list"]).output().unwrap();
    assert!(stdout(&list).contains("no failpoints"), "{}", stdout(&list));
    let binary = std::fs::read(env!("CARGO_BIN_EXE_musher")).unwrap();
    assert!(!binary.windows(MARK.len()).any(|window| window == MARK), "{}", String::from_utf8_lossy(MARK));
    let refused = musher().args(["chaos", "process", "--mode", "points", "--kills", "1"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(daemon::stderr(&refused).contains("--features failpoints"), "{}", daemon::stderr(&refused));
}

#[cfg(feature = "failpoints")]
mod with_failpoints {
    use super::{musher, stdout};
    use crate::daemon::stderr;
    use std::process::Output;

    fn campaign(args: &[&str]) -> (Output, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let mut command = musher();
        command.args(["chaos", "process", "--keep"]).arg(dir.path()).args(args);
        (command.output().unwrap(), dir)
    }

    fn count(table: &str, row: &str) -> u64 {
        // A place at which nothing died has no row.
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix(row));
        line.and_then(|rest| rest.split_whitespace().next()).map_or(0, |count| count.parse().unwrap())
    }

    #[test]
    fn whatever_place_it_dies_at_nothing_acknowledged_is_lost() {
        let (output, _dir) = campaign(&["--mode", "points", "--kills", "15", "--seed", "4"]);
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        let table = stdout(&output);
        assert!(count(&table, "died at a named place while starting") >= 1, "{table}");
        assert!(count(&table, "died at batch.written") >= 1, "{table}");
    }

    #[test]
    fn a_disk_that_fails_ends_the_daemon_and_loses_nothing() {
        let (output, _dir) = campaign(&["--mode", "io", "--kills", "12", "--seed", "4"]);
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        assert!(count(&stdout(&output), "ended by itself after a failed write or sync") >= 1);
    }

    #[test]
    fn acknowledging_before_writing_is_found_within_twenty_kills_and_kept() {
        let (output, dir) = campaign(&["--plant", "early-acknowledgement", "--kills", "20"]);
        let said = format!("{}{}", stdout(&output), stderr(&output));
        // A client's history has what the log has not, or a checkpoint does: then the daemon itself refuses to start.
        match output.status.code() {
            Some(10) => {}
            Some(11) => assert!(said.contains("its end is lost"), "{said}"),
            other => panic!("{other:?}: {said}"),
        }
        let kept = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        for name in ["summary.txt", "history.jsonl", "as-it-was"] {
            assert!(kept.join(name).exists(), "{name}");
        }
    }

    #[test]
    fn rules_that_are_not_understood_are_refused_before_anything_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let mut serve = musher();
        serve.env("MUSHER_FAILPOINTS", "batch.wirtten=die").args(["serve", "--data"]).arg(dir.path());
        let output = serve.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("names no place"), "{}", stderr(&output));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
