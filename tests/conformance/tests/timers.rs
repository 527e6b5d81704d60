//! The timers (`docs/conformance.md`).

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
    t01_an_abandoned_vmm_is_reaped
    t02_somebody_else_was_first
    t03_what_lives_is_never_reaped
    t04_an_inventory_is_compared
    t05_a_sled_that_does_not_answer_kills_nothing
    t06_expunged
    t07_restarts
    t08_a_stop_is_not_undone_by_a_restart
    t09_reapers_find_nothing_but_what_was_lost
    t10_drain
}
