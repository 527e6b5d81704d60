//! Sagas as data: named steps, each with its forward effect, its undo, whether there is a way back, and
//! the bounds of the whole (`docs/lifecycle.md`, sagas).
//!
//! Progress is a field of the instance's fold ([`crate::instance::SagaProgress`]): a crash needs no
//! recovery code, because the next `effects(state)` is the recovery. Steps without an effect ride on the
//! append of the step before. Undo is one append for all steps that ran: what cannot be confirmed outside
//! is finished by the reaper, which is an effect derived from the VMM's state, with its resources held.

use crate::time::Span;
use serde::{Deserialize, Serialize};

/// Which saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SagaKind {
    /// Makes the instance exist. One append.
    Create,
    /// Brings up a VMM.
    Start,
    /// Brings up a second VMM on another sled and tells it to take the guest over.
    Migrate,
    /// Makes the instance match what its VMMs have done. One append.
    Update,
    /// Ends the instance. One append.
    Delete,
}

/// Who asked for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A user's start.
    User,
    /// The creation asked for it.
    Creation,
    /// The restart policy did.
    Automatic,
}

/// Steps of all sagas, in the order in which start and migrate take theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Charge provisioning, reserve on the picked sled.
    Reserve,
    /// Allocate the VMM and link it.
    Allocate,
    /// Point the desired network at the sled.
    Network,
    /// Wait until no other VMM of the instance may run.
    Fence,
    /// Register the VMM on its sled.
    Register,
    /// Desire a metrics producer.
    Producer,
    /// Tell the sled to run it: the point of no return.
    SetRunning,
    /// Tell the target to take the guest over: the point of no return of a migrate.
    MigrationTarget,
    /// Write the instance.
    Journal,
    /// Change slots, intent, reservations, provisioning and desired state together.
    Commit,
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct StepDef {
    /// Which.
    pub step: Step,
    /// What people read.
    pub name: &'static str,
    /// What it does outside, if anything.
    pub forward: Option<&'static str>,
    /// What takes it back, if anything need be.
    pub undo: Option<&'static str>,
    /// Whether an unknown outcome can no longer be undone but only be followed by a stop.
    pub is_point_of_no_return: bool,
}

/// One saga.
#[derive(Clone, Copy, Debug)]
pub struct SagaDef {
    /// Which.
    pub kind: SagaKind,
    /// What people read.
    pub name: &'static str,
    /// Its steps, in order.
    pub steps: &'static [StepDef],
    /// How long it usually takes on an idle fleet.
    pub usual: Span,
}

/// How an effect that has no definite answer is sent again: from `first`, doubled up to `cap`, with
/// jitter, until a definite answer, a report, or the saga's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Wait before the second attempt.
    pub first: Span,
    /// Longest wait.
    pub cap: Span,
}

/// The retry policy of every effect: quick enough that a lost packet does not show, rare enough that a
/// dead sled costs nothing.
pub const RETRY: Retry = Retry { first: Span::from_millis(100), cap: Span::from_secs(30) };

const fn step(step: Step, name: &'static str, undo: Option<&'static str>) -> StepDef {
    StepDef { step, name, forward: None, undo, is_point_of_no_return: false }
}

const START: SagaDef = SagaDef {
    kind: SagaKind::Start,
    name: "start",
    steps: &[
        step(Step::Reserve, "charge provisioning and reserve on a sled", Some("release both")),
        step(Step::Allocate, "allocate the VMM and link it", Some("VMM becomes saga_unwound")),
        step(Step::Network, "point the network at the sled", Some("delete the network configuration")),
        step(Step::Fence, "wait until no other VMM may run", None),
        StepDef {
            step: Step::Register,
            name: "register the VMM on its sled",
            forward: Some("register"),
            undo: Some("unregister"),
            is_point_of_no_return: false,
        },
        step(Step::Producer, "assign the metrics producer", Some("unassign it")),
        StepDef {
            step: Step::SetRunning,
            name: "tell the sled to run it",
            forward: Some("set running"),
            undo: Some("stop"),
            is_point_of_no_return: true,
        },
    ],
    usual: Span::from_secs(2),
};

const MIGRATE: SagaDef = SagaDef {
    kind: SagaKind::Migrate,
    name: "migrate",
    steps: &[
        step(Step::Reserve, "reserve on another sled", Some("release it")),
        step(
            Step::Allocate,
            "allocate the target VMM and the migration, and link both",
            Some("VMM becomes saga_unwound, both sides failed"),
        ),
        step(Step::Fence, "wait until no VMM but the source may run", None),
        StepDef {
            step: Step::Register,
            name: "register the target on its sled",
            forward: Some("register"),
            undo: Some("unregister"),
            is_point_of_no_return: false,
        },
        StepDef {
            step: Step::MigrationTarget,
            name: "tell the target to take the guest over",
            forward: Some("migration_target"),
            undo: Some("migration_cancel"),
            is_point_of_no_return: true,
        },
    ],
    usual: Span::from_secs(2),
};

const CREATE: SagaDef = SagaDef {
    kind: SagaKind::Create,
    name: "create",
    steps: &[
        step(Step::Reserve, "grant name, addresses and membership", Some("drop the grant")),
        step(Step::Journal, "write the instance", None),
    ],
    usual: ONE_APPEND,
};

const UPDATE: SagaDef = SagaDef {
    kind: SagaKind::Update,
    name: "update",
    steps: &[step(Step::Commit, "commit what the VMMs and the migration have already done", None)],
    usual: ONE_APPEND,
};

const DELETE: SagaDef = SagaDef {
    kind: SagaKind::Delete,
    name: "delete",
    steps: &[step(Step::Commit, "mark it deleted and free its name", None)],
    usual: ONE_APPEND,
};

/// What a saga of one append usually takes.
const ONE_APPEND: Span = Span::from_millis(50);

/// The saga's definition.
pub const fn definition(kind: SagaKind) -> SagaDef {
    match kind {
        SagaKind::Create => CREATE,
        SagaKind::Start => START,
        SagaKind::Migrate => MIGRATE,
        SagaKind::Update => UPDATE,
        SagaKind::Delete => DELETE,
    }
}

/// Whether every step up to `current` can still be undone: the point of no return lies ahead.
pub fn is_before_return(kind: SagaKind, current: Step) -> bool {
    definition(kind).steps.iter().any(|def| def.is_point_of_no_return && current < def.step)
}

/// The steps of a saga that ran or may have run when `current` is its current step, newest first: what an
/// unwind undoes, in that order.
pub fn undone_from(kind: SagaKind, current: Step) -> Vec<Step> {
    let steps = definition(kind).steps;
    let index = steps.iter().position(|def| def.step == current).map_or(steps.len(), |index| index + 1);
    steps[..index].iter().rev().filter(|def| def.undo.is_some()).map(|def| def.step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_takes_back_in_reverse_what_ran_or_may_have_run() {
        use Step::{Allocate, Network, Register, Reserve};
        assert_eq!(undone_from(SagaKind::Start, Step::Fence), [Network, Allocate, Reserve]);
        assert_eq!(undone_from(SagaKind::Start, Register), [Register, Network, Allocate, Reserve]);
        assert_eq!(undone_from(SagaKind::Migrate, Step::Fence), [Allocate, Reserve]);
        assert_eq!(undone_from(SagaKind::Migrate, Register), [Register, Allocate, Reserve]);
    }

    #[test]
    fn a_saga_has_one_point_of_no_return_at_most_and_it_is_last() {
        for kind in [SagaKind::Create, SagaKind::Start, SagaKind::Migrate, SagaKind::Update, SagaKind::Delete]
        {
            let steps = definition(kind).steps;
            assert!(!steps.is_empty(), "{kind:?}");
            let early = steps.iter().rev().skip(1).any(|step| step.is_point_of_no_return);
            assert!(!early, "{kind:?}");
        }
    }
}
