//! Named places where a process under test can be made to die, and file operations that can be made to fail.
//!
//! A build without the feature `failpoints` has none of it: [`pass`] is empty there, and the names are not even
//! in the binary (`docs/decisions/0052-failpoints-of-our-own.md`).
//!
//! Invariants:
//! * nothing strikes unless `arm` was called, once, with rules that are all understood;
//! * what strikes is a rule and the how-manieth time its place was passed: no draw, no clock.

#[cfg(feature = "failpoints")]
mod armed;
#[cfg(feature = "failpoints")]
pub(crate) mod files;
#[cfg(feature = "failpoints")]
mod rules;

#[cfg(feature = "failpoints")]
pub use armed::{arm, pass};
#[cfg(feature = "failpoints")]
pub use rules::{Unclear, names};

/// A place between two steps that a crash must not come between unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A batch is decided and encoded; nothing of it is written.
    BatchEncoded,
    /// A batch is written and not synced.
    BatchWritten,
    /// A batch is durable; nobody knows.
    BatchSynced,
    /// Readers see a batch; no caller has been answered.
    BatchPublished,
    /// Opening has cut off what was incomplete.
    JournalRepaired,
    /// An owner has read its stream again after a start.
    OwnerLoaded,
    /// An owner knows that its append is durable and has not folded it.
    OwnerAppended,
    /// An instance has folded its events; none of their effects has left.
    InstanceFolded,
    /// An instance's effects have left; the caller has no answer.
    InstanceDerived,
    /// A checkpoint is written under its temporary name.
    CheckpointWritten,
    /// A checkpoint is synced and has not its name.
    CheckpointSynced,
    /// A checkpoint has its name; older ones are still there.
    CheckpointNamed,
}

/// Nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn pass(_: Point) {}
