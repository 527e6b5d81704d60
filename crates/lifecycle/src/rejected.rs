//! Refusals: `decide`'s and the ledger's answer when a command may not be done. Not errors; each names
//! the reason in the words that users see (`docs/external-api.md`, errors), and leaves no trace.

use crate::action::Action;
use crate::ids::{InstanceId, ProjectId};
use crate::spec::{InvalidValue, Size};
use crate::visible::RunState;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a command was refused. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is no such instance, or it is deleted.
    #[error("not found: instance with id \"{0}\"")]
    NoSuchInstance(InstanceId),
    /// There is no such project, or it is deleted.
    #[error("not found: project with id \"{0}\"")]
    NoSuchProject(ProjectId),
    /// The action is not possible in this state.
    #[error("{}", not_possible(*.action, *.state))]
    NotPossible {
        /// What was asked.
        action: Action,
        /// The visible state.
        state: RunState,
        /// Whether it is a conflict (may become possible by waiting) rather than an invalid request.
        is_conflict: bool,
    },
    /// A value is not allowed.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    /// The name is taken.
    #[error("already exists: {what} \"{name}\"")]
    NameTaken {
        /// `instance` or `project`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A project that has instances cannot be deleted.
    #[error("project to be deleted contains {instances} instance(s); delete them first")]
    ProjectNotEmpty {
        /// How many.
        instances: usize,
    },
    /// Capacity is short.
    #[error("{0}")]
    Short(Shortage),
    /// A sled reported for a VMM that it does not host.
    #[error("the VMM is not on that sled")]
    WrongSled,
    /// Never heard of it.
    #[error("no such VMM")]
    NoSuchVmm,
    /// An instance with this id exists.
    #[error("already exists: instance with id \"{0}\"")]
    IdTaken(InstanceId),
}

/// What is short, so that an operator knows what to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortage {
    /// No sled takes new VMMs.
    NoSled,
    /// No provisionable sled has room for this size.
    Room {
        /// What was asked for.
        wanted: Size,
        /// Most free threads on any one of them.
        threads_free_max: u32,
        /// Most free memory on any one of them, bytes.
        memory_free_max: u64,
    },
    /// The project's subnet has no free address.
    Addresses,
}

const GIB: u64 = 1 << 30;

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSled => f.write_str("insufficient capacity: no sled accepts new instances"),
            Self::Room { wanted, threads_free_max, memory_free_max } => write!(
                f,
                "insufficient capacity: no sled has room for {} vCPU and {} GiB; the most free on one sled is {} \
                 threads, and {} GiB of memory",
                wanted.ncpus,
                wanted.memory / GIB,
                threads_free_max,
                memory_free_max / GIB
            ),
            Self::Addresses => f.write_str("insufficient capacity: the project's subnet has no free address"),
        }
    }
}

/// Fixed texts that clients know, else one built from external names only.
fn not_possible(action: Action, state: RunState) -> String {
    match (action, state) {
        (Action::Delete, _) => {
            "cannot delete instance: instance is running or has not yet fully stopped".to_owned()
        }
        (Action::Start, RunState::Stopping) => {
            "instance must finish stopping before it can be started".to_owned()
        }
        _ => format!("cannot {action} instance: instance is {state}"),
    }
}
