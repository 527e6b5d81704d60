//! What the README shows is what one sees: the demo's text is compared with a run, numbers and ids aside.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{musher, stderr, stdout};

#[test]
fn the_demo_shows_what_the_readme_says_it_shows() {
    let readme = include_str!("../README.md");
    let shown = readme.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let output = musher().arg("demo").output().unwrap();
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    assert_eq!(plain(&stdout(&output)), plain(shown), "run `musher demo` and paste what it prints");
}

/// Leaves out what differs from run to run: numbers, ids, paths, which sled; and how far start and migration
/// got before the kill, which on a slow machine is farther, and decides what came after.
fn plain(text: &str) -> Vec<String> {
    let depends_on_the_kill = |line: &str| {
        let line = line.trim_start();
        ["#", "|", "acknowledged, then dead", "resuming", "the migration"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    text.trim().lines().filter(|line| !depends_on_the_kill(line)).map(plain_line).collect()
}

fn plain_line(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let is_number = word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).parse::<u64>().is_ok();
        let varies = is_number || word.contains("/data") || word.starts_with("http://");
        if varies { "N" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}
