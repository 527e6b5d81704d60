//! Who may know whom: the arrows of ARCHITECTURE.md and no others.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

/// Crate, the crates of ours that it may use, and outside crates that it must never use.
const ARROWS: [(&str, &[&str], &[&str]); 14] = [
    ("level", &[], &["ractor", "sled", "axum", "reqwest"]),
    ("lifecycle", &[], &["tokio", "ractor", "sled", "tracing", "rand", "bincode", "axum", "reqwest"]),
    ("eventlog", &["level"], &["ractor", "bincode", "axum", "reqwest"]),
    ("journal", &["lifecycle", "eventlog"], &["tokio", "ractor", "sled", "axum", "reqwest"]),
    ("sled-protocol", &[], &["ractor", "sled", "axum"]),
    ("sim-sled", &["level", "sled-protocol"], &["ractor", "sled", "axum"]),
    ("actors", &["level", "lifecycle", "eventlog", "journal", "sled-protocol"], &["sled", "axum", "reqwest"]),
    ("projections", &["level", "lifecycle", "eventlog", "journal"], &["ractor", "sled", "axum", "reqwest"]),
    (
        "checkpoint",
        &["lifecycle", "eventlog", "journal", "projections"],
        &["tokio", "ractor", "sled", "axum", "reqwest"],
    ),
    ("replay", &["lifecycle", "eventlog", "journal", "projections"], &["ractor", "sled", "axum", "reqwest"]),
    (
        "api",
        &["actors", "projections", "replay", "lifecycle", "eventlog", "journal", "sled-protocol"],
        &["ractor", "sled", "reqwest"],
    ),
    (
        "chaos",
        &[
            "actors",
            "api",
            "eventlog",
            "journal",
            "level",
            "lifecycle",
            "projections",
            "replay",
            "sim-sled",
            "sled-protocol",
        ],
        &[],
    ),
    (
        "conformance",
        &["actors", "eventlog", "journal", "lifecycle", "projections", "sim-sled", "sled-protocol"],
        &["ractor", "sled", "axum", "reqwest"],
    ),
    (
        "bench",
        &[
            "actors",
            "api",
            "eventlog",
            "journal",
            "lifecycle",
            "projections",
            "replay",
            "sim-sled",
            "sled-protocol",
        ],
        &[],
    ),
];

#[test]
fn no_crate_knows_another_that_it_must_not_know() {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec().unwrap();
    let found: BTreeMap<String, BTreeSet<String>> = metadata
        .packages
        .iter()
        .map(|package| {
            let normal = package
                .dependencies
                .iter()
                .filter(|dependency| !matches!(dependency.kind, cargo_metadata::DependencyKind::Development));
            (package.name.to_string(), normal.map(|dependency| dependency.name.clone()).collect())
        })
        .collect();
    let known: BTreeSet<String> = ARROWS.iter().map(|(name, _, _)| format!("musher-{name}")).collect();
    for package in found.keys().filter(|name| *name != "musher") {
        assert!(
            known.contains(package),
            "{package} is not in the picture: add it to ARCHITECTURE.md and here"
        );
    }
    for (name, may_use, must_not_use) in ARROWS {
        let Some(uses) = found.get(&format!("musher-{name}")) else {
            continue;
        };
        let ours = uses.iter().filter_map(|used| used.strip_prefix("musher-"));
        for used in ours {
            assert!(may_use.contains(&used), "{name} must not know {used}");
        }
        for banned in must_not_use {
            assert!(!uses.contains(*banned), "{name} must not use {banned}");
        }
    }
}
