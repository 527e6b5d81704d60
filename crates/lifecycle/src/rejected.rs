//! Refusals: `decide`'s and the ledger's answer when a command may not be done. Not errors; each names
//! the reason in the words that users see (`docs/external-api.md`, errors), and leaves no trace.

use crate::action::Action;
use crate::ids::{GroupId, InstanceId, ProjectId, SagaId, SledId, VmmId};
use crate::quota::{QuotaResource, QuotaScope};
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
    /// Its size or its platform cannot change while it has a VMM.
    #[error("instance must be stopped to change CPU or memory")]
    MustBeStopped,
    /// No migration is under way.
    #[error("cannot cancel migration: no migration is under way")]
    NoMigration,
    /// That saga is not under way.
    #[error("not found: saga with id \"{0}\" is not under way")]
    NoSuchSaga(SagaId),
    /// The saga cannot be taken back any more.
    #[error("cannot cancel saga: it is past its point of no return; stop the instance instead")]
    PastReturn,
    /// What was vouched for is not what is there any more.
    #[error("VMM {named} is not this instance's, or not any more: {}; look again", now_active(*.active))]
    OtherVmm {
        /// The VMM that was named.
        named: VmmId,
        /// The VMM that is in the active slot.
        active: Option<VmmId>,
    },
    /// There is no such group.
    #[error("not found: anti-affinity-group with id \"{0}\"")]
    NoSuchGroup(GroupId),
    /// There is no such sled.
    #[error("not found: sled with id \"{0}\"")]
    NoSuchSled(SledId),
    /// What is asked of the sled is not possible in its state.
    #[error("cannot {action} sled: {why}")]
    SledNotPossible {
        /// What was asked.
        action: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// A bound on a number of things is reached.
    #[error("{what}: at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
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
    /// No sled that takes new VMMs has the CPU family.
    CpuFamily {
        /// The family that is needed.
        wanted: String,
    },
    /// Members of a group that must be kept apart are on every sled that could take it.
    Spread {
        /// The group's name.
        group: String,
    },
    /// No other sled takes the guest.
    NoOtherSled,
    /// The sled that was asked for does not take it.
    ThatSled {
        /// Why not.
        why: SledUnfit,
    },
    /// A quota is reached.
    Quota {
        /// Whose.
        scope: QuotaScope,
        /// Of what.
        resource: QuotaResource,
        /// The limit; CPUs or bytes.
        limit: u64,
        /// What is charged.
        used: u64,
        /// What was asked for.
        wanted: u64,
    },
}

/// Why one sled does not take a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SledUnfit {
    /// It never registered.
    Unknown,
    /// It was cordoned or expunged, has not booted, or has not registered since its lease expired.
    NotProvisionable,
    /// The guest is there.
    IsSource,
    /// The sled where the guest is cannot reach it: one lives in the daemon, the other does not.
    OtherFabric,
    /// It has another CPU family.
    CpuFamily,
    /// A member of a group that must be kept apart is on it.
    Spread,
    /// It has too little room.
    Room,
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
            Self::CpuFamily { wanted } => {
                write!(f, "insufficient capacity: no sled with CPU family \"{wanted}\" accepts new instances")
            }
            Self::Spread { group } => write!(
                f,
                "insufficient capacity: every sled with room holds another member of anti-affinity group \"{group}\""
            ),
            Self::NoOtherSled => f.write_str("insufficient capacity: no other sled accepts new instances"),
            Self::ThatSled { why } => write!(f, "insufficient capacity: that sled {why}"),
            Self::Quota { scope, resource: QuotaResource::Cpus, limit, used, wanted } => write!(
                f,
                "insufficient capacity: {scope} quota of {limit} vCPU: {used} are in use, {wanted} more are needed"
            ),
            Self::Quota { scope, resource: QuotaResource::Memory, limit, used, wanted } => write!(
                f,
                "insufficient capacity: {scope} quota of {} GiB of memory: {} are in use, {} more are needed",
                limit / GIB,
                used / GIB,
                wanted / GIB
            ),
        }
    }
}

impl fmt::Display for SledUnfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "is not known",
            Self::NotProvisionable => "does not accept new instances",
            Self::IsSource => "is the one where the instance runs",
            Self::OtherFabric => "cannot be reached from where the instance runs",
            Self::CpuFamily => "has another CPU family",
            Self::Spread => "holds another member of one of its anti-affinity groups",
            Self::Room => "has too little room",
        })
    }
}

/// Fixed texts that clients know, else one built from external names only.
fn now_active(active: Option<VmmId>) -> String {
    active.map_or_else(|| "it has no active one".to_owned(), |active| format!("{active} is active"))
}

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
