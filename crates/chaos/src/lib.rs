//! Seeded fault simulation with invariant checkers.
//!
//! The one idea: **the rules, the log and the sleds are pure, so a whole fleet with its failures is one
//! function of a scenario.** A seed makes a scenario; the scenario is data; a run of it is single-threaded, has
//! virtual time, and gives the same trace every time. What breaks is shrunk to a handful of faults and
//! requests and kept as a file that replays for ever (`docs/testing.md`).
//!
//! Invariants:
//! * a run depends on its scenario and on nothing else;
//! * a crash takes all memory and leaves bytes: recovery decodes what the log kept;
//! * checkers learn from what is durable and from the sleds' own truth, never from the shell's word alone;
//! * faults stay within the budget of what the design claims to survive.
//!
//! Reading order: [`scenario`](Scenario) and [`faults`](Fault) (the data), `generate` (seeds), `world` (the
//! simulator), `checks` (the invariants), `shrink`, `campaign`, [`prove`] and [`cli`].

mod bug;
mod campaign;
mod checks;
pub mod cli;
mod coverage;
mod draws;
mod faults;
mod generate;
pub mod prove;
mod recorded;
pub mod report;
mod scenario;
mod shrink;
mod stage;
mod states;
mod trace;
mod verb;
mod way;
mod world;

pub use bug::Bug;
pub use campaign::{
    Campaign, FailedSeed, Findings, JOBS_MAX, TWICE_ONE_IN, is_repeatable, run_caught, scenario_with,
};
pub use checks::{Failure, FailureKind};
pub use coverage::{Coverage, Sometimes};
pub use faults::{
    Direction, EffectKind, Entity, Fault, LoseUnsynced, Mishap, Phase, Refused, Side, Victim, Window,
};
pub use generate::{ACTORS_PROFILE, CORE_PROFILE, NoProfile, PROFILES, Profile, profile, scenario};
pub use recorded::{History, NoScenario, Reenactment, SEEDS_TRIED, reenact};
pub use scenario::{
    FAULTS_MAX, FORMAT, MIGRATE_DEADLINE_MS_MAX, PAUSE_AFTER_MAX, QUEUE_MAX, REQUESTS_MAX, RESTART_MS_MAX,
    RESTARTS_MAX, Request, RestartShape, SAFETY_MS_MAX, SLEDS_MAX, START_DEADLINE_MS_MAX, Scenario,
    SledShape, Tier, Unreadable,
};
pub use shrink::{RUNS_MAX, Shrunk, shrink};
pub use states::{Met, Point, States};
pub use verb::Verb;
pub use world::{Outcome, QUIESCE_MAX_US, STEPS_MAX, decide_with, run};
