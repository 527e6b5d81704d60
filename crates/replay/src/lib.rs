//! Time travel over the log: what happened, what was true at any moment, and whether it holds together.
//!
//! The one idea: **the past is a fold, so it can be looked at without being disturbed.** Everything here
//! only reads, from a journal that nobody writes or from the log of a running daemon alike
//! ([`source::Source`]).
//!
//! Invariants:
//! * nothing is written, claimed or sent;
//! * a state of the past is reached by the same `evolve` that reached it then, and by nothing else;
//! * whatever the log holds is answered or named by place; nothing in it makes this code panic;
//! * memory follows the number of instances, never the length of the log.
//!
//! Reading order: [`source`] and [`at`] (where and when), [`mod@history`], [`mod@lanes`], [`state`], [`diff`] and
//! [`fleet`] (what was), [`find`], [`mod@grep`] and [`mod@until`] (where it was), [`session`] and [`browse`] (walking through it), [`mod@explain`] (why it is as it is), [`mod@trace`] (what came of a request), [`mod@verify`] (whether it may
//! have been), [`whatif`] and [`upgrade`] (what others would make of it), [`mod@stats`] and [`costs`] (how much of it there is).

pub mod archived;
pub mod at;
pub mod browse;
pub mod complete;
pub mod costs;
pub mod diff;
pub mod error;
pub mod explain;
pub mod find;
pub mod fleet;
pub mod grep;
mod guard;
pub mod history;
pub mod incident;
pub mod lanes;
mod names;
pub mod session;
pub mod source;
pub mod state;
pub mod stats;
mod summary;
pub mod table;
pub mod time;
pub mod trace;
pub mod until;
pub mod upgrade;
pub mod verify;
pub mod whatif;

pub use archived::WithArchive;
pub use at::{At, AtError};
pub use complete::completions;
pub use costs::{AppendCosts, Cost, append_costs};
pub use diff::{Change, StateDiff, changes, state_diff};
pub use error::Error;
pub use explain::{Explanation, explain};
pub use find::{Found, find_instance};
pub use fleet::{Fleet, FleetInstance, FleetSled, fleet_at};
pub use grep::{Hit, Hits, grep};
pub use history::{Entry, history, last_asked};
pub use incident::{Incident, incident};
pub use lanes::{Lanes, lanes};
pub use session::Session;
pub use source::Source;
pub use state::{InstanceState, state_at};
pub use stats::{Stats, stats};
pub use table::history_table;
pub use until::{Condition, Reached, until, until_of_any};
pub use upgrade::{Upgrade, check_upgrade};
pub use verify::{Finding, FindingKind, Options, Progress, Scope, VerifyReport, verify, verify_read_model};
