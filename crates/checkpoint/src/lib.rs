//! Checkpoints: everything that is folded from the log, kept in a file at a position, so that a start folds
//! only what follows.
//!
//! The one idea: **a checkpoint is a fold made beforehand, apart from those that serve.** It is made from the
//! checkpoint before it and the records since, on a thread of its own; nobody who writes or reads is stopped
//! for it. What that costs is memory for a second copy of the state while it is made.
//!
//! Invariants:
//! * a checkpoint at position p equals the fold of events 1..=p; [`compare()`] proves it;
//! * it is used only if its checksums hold, if this build folds as the one that made it did, and if the log
//!   holds at p the very record that it ends with;
//! * losing it, whole or in part, costs time and nothing else, for as long as the log is whole;
//! * at every moment of writing one, the one that it was made from is whole on disk.
//!
//! Reading order: [`state`] (what is kept), [`file`](mod@file) (its bytes), [`directory`] (its names, and the
//! order of writing), [`make`] (a new one), [`compare`](mod@compare) (whether one is right).

pub mod compare;
pub mod directory;
pub mod error;
pub mod file;
pub mod make;
pub mod past;
pub mod state;

pub use compare::{Compared, Verdict, compare};
pub use directory::{Found, Step, beyond_end, newest, positions, set_beyond_aside, sweep};
pub use error::{MakeError, Unusable};
pub use make::{Made, advance};
pub use past::Past;
pub use state::State;
