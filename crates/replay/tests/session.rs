//! Walking through a history: wherever one stands, the state is the fold up to there.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

mod world;

use eventlog::Log;
use lifecycle::{Timestamp, VmmState};
use replay::Session;
use std::sync::Arc;
use world::{START, World, id};

fn walked() -> (World, Arc<dyn Log>) {
    let mut world = World::simulated();
    world.walk(5, 2, 500);
    world.live(id(7));
    let source = Arc::clone(&world.log);
    (world, source)
}

fn now() -> Timestamp {
    Timestamp::from_micros(START + 10_000_000_000)
}

fn open(source: &Arc<dyn Log>, n: u128) -> Session<'_> {
    Session::open(source, id(n), now()).unwrap()
}

#[test]
fn every_step_forward_and_back_stands_on_the_fold() {
    let (world, source) = walked();
    for (instance, folds) in &world.folds {
        let mut session = Session::open(&source, *instance, now()).unwrap();
        assert_eq!(session.state(), folds.last().unwrap(), "it begins at the end");
        for fold in folds.iter().rev().skip(1) {
            assert!(!session.run("back").is_refused);
            assert_eq!(session.state(), fold);
        }
        assert!(session.run("back").is_refused, "nothing is before the first");
        for fold in &folds[1..] {
            session.run("n");
            assert_eq!(session.state(), fold);
        }
        assert!(session.run("next").is_refused, "nothing is behind the last");
    }
    let longest = world.folds.values().map(Vec::len).max().unwrap();
    assert!(longest > 64, "no walk is longer than what is kept between two states: {longest}");
}

#[test]
fn moments_conditions_and_breaks_lead_where_they_say() {
    let (_, source) = walked();
    let mut session = open(&source, 7);
    for (line, version) in [
        ("goto first", 1),
        ("until run_state=running", 6),
        ("goto #2", 2),
        ("goto last", 13),
        ("goto #4", 4),
        ("break SagaEnded", 4),
        ("continue", 7),
        ("break stop", 7),
        ("break run_state=stopped", 7),
        ("continue", 8),
        ("c", 9),
        ("break clear", 9),
        ("continue", 13),
        ("back 3", 10),
        ("b 100", 1),
        ("next 2", 3),
    ] {
        let reply = session.run(line);
        assert!(!reply.is_refused && !reply.is_over, "{line}: {}", reply.text);
        assert_eq!(session.entries()[session.at()].version, version, "{line}: {}", reply.text);
    }
    assert!(session.run("quit").is_over);
}

#[test]
fn what_one_sees_is_said_in_words() {
    let (_, source) = walked();
    let mut session = open(&source, 7);
    for (line, said) in [
        ("goto #3", "#3 @"),
        ("effects", "register VMM"),
        ("print saga.step", "\"register\""),
        ("print spec.size.ncpus", "2"),
        ("diff", "saga.step: fence → register"),
        ("diff #1..#3", "run_state: stopped → starting"),
        ("why", "SagaAdvanced was caused by user demo"),
        ("why", "the instance is starting"),
        ("list", "> #3"),
        ("help", "until CONDITION"),
        ("break", "no breaks"),
        ("goto last", "#13"),
        ("effects", "nothing would be sent"),
        ("diff ..", "run_state"),
    ] {
        let reply = session.run(line);
        assert!(!reply.is_refused && reply.text.contains(said), "{line}: {}", reply.text);
    }
}

#[test]
fn what_is_no_command_is_refused_and_changes_nothing() {
    let (_, source) = walked();
    let mut session = open(&source, 7);
    session.run("goto #4");
    for line in [
        "nonsense",
        "next x",
        "back -1",
        "goto #99",
        "goto yesterday",
        "goto @1",
        "until",
        "until x",
        "until C99",
        "until run_state=migrating",
        "print nothing.here",
        "diff #1",
        "diff #1..#99",
        "break Nonsense",
        "goto",
        "\u{0}",
        "break =",
        "print \u{fffd}",
        "n 99999999999999999999999",
    ] {
        let reply = session.run(line);
        assert!(reply.is_refused && !reply.text.is_empty(), "{line}: {}", reply.text);
        assert_eq!(session.entries()[session.at()].version, 4, "{line}");
    }
    assert!(!session.run("").is_refused && session.run("   ").text.is_empty());
}

#[test]
fn an_instance_that_never_was_cannot_be_walked_through() {
    let (mut world, source) = walked();
    assert!(Session::open(&source, id(99), now()).is_err());
    world.create(id(8), true);
    world.says(id(8), 1, VmmState::Starting);
    assert_eq!(open(&source, 8).state(), world.now(id(8)).unwrap());
}
