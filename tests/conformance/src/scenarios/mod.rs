//! The scenarios, as tables (`docs/conformance.md` tells them for people).

mod late;
mod limits;
mod orders;
mod recovery;
mod saga;
mod table;
mod timers;
mod update;

use crate::runner::Scenario;

/// Every scenario, in the order of their ids.
pub fn all() -> Vec<Scenario> {
    let parts = [
        update::scenarios(),
        late::scenarios(),
        saga::scenarios(),
        timers::scenarios(),
        recovery::scenarios(),
    ];
    parts.into_iter().flatten().collect()
}

/// The scenario of this name.
pub fn named(name: &str) -> Scenario {
    all().into_iter().find(|scenario| scenario.name == name).expect("every test has its row in the tables")
}
