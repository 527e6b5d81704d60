//! Fold and replay, as properties of real histories (`docs/conformance.md`).

#![allow(missing_docs, reason = "each test is named by its sentence")]

use conformance::properties;

macro_rules! properties {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            let property = properties::ALL.iter().find(|property| property.name == stringify!($name));
            (property.unwrap().check)();
        })*
    };
}

properties! {
    f01_every_input_on_every_state
    f02_every_prefix_replays
    f03_every_snapshot_and_its_tail
    f04_every_decision_again
    f05_every_visible_step
}
