//! Recovery (`docs/conformance.md`).

#![allow(missing_docs, reason = "each test is named by its sentence")]

use conformance::{runner, scenarios};

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            runner::run(&scenarios::named(stringify!($name)));
        })*
    };
}

scenarios! {
    r01_death_at_every_append_of_a_life
    r02_finished_sagas_rest_and_steps_repeat
    r03_damaged_files
    r04_an_event_of_a_newer_schema
    r05_a_second_daemon
    r06_a_stale_writer
    r07_panics
    r08_a_poison_event
    r09_snapshots_lost
    r10_projections_lost
}
