//! The matrix: which scenario is played in which way, and how often. Printed from the tables that the tests
//! are made of; `docs/conformance.md` shows it.

#![allow(missing_docs, reason = "each test is named by its sentence")]

use conformance::{properties, runner, scenarios};
use std::collections::BTreeSet;

/// Every id of the conformance scenarios.
fn ids() -> BTreeSet<String> {
    let range = |letter: char, last: usize| (1..=last).map(move |n| format!("{letter}{n:02}"));
    [('u', 21), ('s', 23), ('t', 10), ('r', 10), ('f', 6)]
        .into_iter()
        .flat_map(|(letter, last)| range(letter, last))
        .collect()
}

/// What another package proves, and where.
const ELSEWHERE: [(&str, &str); 1] = [("f06", "model check: crates/lifecycle/tests/explore.rs")];

const TESTS: [&str; 5] = [
    include_str!("update.rs"),
    include_str!("sagas.rs"),
    include_str!("timers.rs"),
    include_str!("recovery.rs"),
    include_str!("fold.rs"),
];

#[test]
fn every_id_has_its_row_and_every_row_its_test() {
    let names: Vec<&str> = scenarios::all()
        .iter()
        .map(|scenario| scenario.name)
        .chain(properties::ALL.iter().map(|property| property.name))
        .collect();
    for name in &names {
        let is_listed = TESTS.iter().any(|source| source.lines().any(|line| line.trim() == *name));
        assert!(is_listed, "{name} has no test");
    }
    let here = names.iter().map(|name| name[..3].to_owned());
    let found: BTreeSet<String> = here.chain(ELSEWHERE.iter().map(|(id, _)| (*id).to_owned())).collect();
    assert_eq!(found, ids());
}

#[test]
fn the_matrix() {
    println!(
        "{:<58} {:>5} {:>5} {:>7} {:>7} {:>8}",
        "scenario", "basic", "twice", "fail-at", "lost-at", "crash-at"
    );
    let mut all = 0;
    for scenario in scenarios::all() {
        let counts = runner::count(&scenario);
        all += counts.all();
        println!(
            "{:<58} {:>5} {:>5} {:>7} {:>7} {:>8}",
            scenario.name, counts.basic, counts.twice, counts.fail_at, counts.lost_at, counts.crash_at
        );
    }
    for property in properties::ALL {
        println!("{:<58} over every append of the basic runs", property.name);
    }
    for (id, place) in ELSEWHERE {
        println!("{id:<58} {place}");
    }
    println!("{all} runs");
    assert!(all > 1_000, "the ways are counted: {all}");
}
