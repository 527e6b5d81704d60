//! Whether the log holds together: every event is folded again, and what must hold is checked where it
//! must hold.
//!
//! For every stream: versions are gapless, recorded times rise strictly, appends are whole and say who
//! wrote them, causes lie in the past. For every instance, after every append: the invariants of the
//! rules, before-and-after; the recorded input decides to the recorded events; folding again from the
//! snapshot of the state before gives the same bytes. For all together, at the end and at up to
//! [`CHECKPOINTS_MAX`] places on the way: reservations, charges and names add up, and the network book leads
//! every address to where its instance is. Quotas need not hold of the past: they bound what is placed next.
//!
//! Invariants:
//! * findings come in log order; the first is the one to look at;
//! * a stream that cannot be followed is given up where it breaks, and the others are followed on;
//! * nothing that the log holds makes this panic.

mod finding;
mod follow;
mod models;
mod order;
mod pass;
mod shared;

pub use finding::{Finding, FindingKind};
pub(crate) use follow::policy_of;
pub use models::verify_read_model;

use crate::error::Error;
use crate::source::Source;
use eventlog::Cache;
use lifecycle::{InstanceId, Policy};
use pass::Pass;
use serde::Serialize;

/// Places on the way at which what instances share is checked: each costs a look at every instance.
pub const CHECKPOINTS_MAX: u64 = 64;

/// Findings that are kept; the rest are counted. The first matters, the others show how far it reaches.
pub const FINDINGS_MAX: usize = 100;

/// What to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One instance: its stream alone.
    One(InstanceId),
    /// The whole log.
    All,
}

/// What verification is given besides the log.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Limits that decisions used. What they said of a start, a migration or a restart is taken from the record
    /// itself.
    pub policy: Policy,
    /// Snapshots to compare with the fold, if there are any.
    pub cache: Option<&'a dyn Cache>,
}

/// How far verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Positions (of one instance: versions) done.
    pub done: u64,
    /// Positions to do; for one instance the newest version seen, since its end is not known before.
    pub total: u64,
}

/// What was checked and what was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    /// Last position that was verified; zero for one instance.
    pub durable: u64,
    /// Events read.
    pub events: u64,
    /// Appends read.
    pub appends: u64,
    /// Streams seen.
    pub streams: u64,
    /// Instances folded.
    pub instances: u64,
    /// Inputs that were decided again.
    pub inputs_decided: u64,
    /// Appends to instances that kept no input.
    pub inputs_missing: u64,
    /// Snapshots in the cache that were compared.
    pub snapshots: u64,
    /// Times at which what instances share was checked.
    pub checkpoints: u64,
    /// Rows of read models that were compared with folds.
    pub rows: u64,
    /// Instances whose live state was compared with the fold.
    pub live: u64,
    /// What is wrong, in log order, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more findings there were.
    pub findings_dropped: u64,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// The first thing that is wrong, in log order.
    pub fn first(&self) -> Option<&Finding> {
        self.findings.first()
    }

    /// Adds something that was found besides.
    pub fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_dropped += 1;
        }
    }
}

/// Verifies. `progress` is called once per page read. Damage is in the report; an error means that the
/// log could not be asked.
pub fn verify(
    source: &dyn Source,
    scope: Scope,
    options: &Options<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, Error> {
    match scope {
        Scope::All => Pass::new(options).over_log(source, progress),
        Scope::One(id) => Pass::new(options).over_stream(source, id, progress),
    }
}
