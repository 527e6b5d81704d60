//! Every scenario of the lifecycle, as tables: what is given, what happens, what must be so afterwards
//! (`docs/conformance.md`).
//!
//! The one idea: **a scenario is written once and played in every way that a fleet can go wrong.** The parts
//! are the real ones: the actors, the journal in a directory, the sleds' machines. Time is tokio's paused
//! clock, so that a minute costs nothing and a run repeats.
//!
//! Reading order: [`runner`] (the ways), [`stage::World`] (what a scenario can do and see), [`scenarios`].
//!
//! Invariants:
//! * nothing waits for time to pass: it waits for a level, with a bound;
//! * the invariants of the core are checked at every append of every run, and that no guest runs twice at
//!   every look at the sleds.

#![allow(clippy::unwrap_used, reason = "a stage for tests: what fails here fails the test")]

pub mod properties;
pub mod runner;
pub mod scenarios;
pub mod stage;
