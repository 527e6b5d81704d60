//! What clients and operators can ask of the control plane.

use crate::faults::Side;
use serde::{Deserialize, Serialize};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Create it, with so many virtual CPUs.
    Create {
        /// Start it at once.
        start: bool,
        /// Virtual CPUs; it gets as many GiB of memory.
        ncpus: u16,
    },
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Reboot it.
    Reboot,
    /// Delete it.
    Delete,
    /// Move its guest.
    Migrate {
        /// To this sled; else the ledger picks one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u16>,
    },
    /// Give up its migration.
    CancelMigration,
    /// Take back its saga.
    CancelSaga,
    /// Hold its saga at its step.
    PauseSaga,
    /// Let its saga go on.
    ResumeSaga,
    /// Send what its saga waits for at once.
    RetrySaga,
    /// Force it to stop.
    ForceStop {
        /// Whether the operator vouches for its VMMs being dead; only done if they are.
        assert_dead: bool,
    },
    /// Force one of its VMMs to stop: refused if it has none there.
    ForceStopOf {
        /// Which: the active one, or the target of its migration.
        side: Side,
        /// Whether the operator vouches for its being dead; only done if it is.
        assert_dead: bool,
    },
    /// Change its size.
    Resize {
        /// Virtual CPUs; it gets as many GiB of memory.
        ncpus: u16,
    },
    /// Change whether it is restarted when it has failed.
    SetRestarts {
        /// Whether it is.
        on: bool,
    },
    /// Place no new VMMs on a sled.
    Cordon {
        /// Which.
        sled: u16,
    },
    /// Place new VMMs on a sled again.
    Uncordon {
        /// Which.
        sled: u16,
    },
    /// Move every guest away from a sled, and place no new VMMs on it. The core tier has nobody who moves them.
    Drain {
        /// Which.
        sled: u16,
    },
    /// A sled is gone: the operator, who has switched it off, takes it out for good.
    Expunge {
        /// Which.
        sled: u16,
    },
    /// Limit the virtual CPUs charged.
    SetQuota {
        /// Of the silo; else of the project.
        of_silo: bool,
        /// The limit; none is no limit.
        cpus: Option<u64>,
    },
    /// Create an anti-affinity group.
    CreateGroup {
        /// Its number.
        group: u16,
        /// Whether a placement fails rather than put two members on one sled.
        is_hard: bool,
    },
    /// Take the instance into a group.
    JoinGroup {
        /// Its number.
        group: u16,
    },
    /// Let the instance out of a group.
    LeaveGroup {
        /// Its number.
        group: u16,
    },
    /// Delete a group.
    DeleteGroup {
        /// Its number.
        group: u16,
    },
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Instance,
    Sled(u16),
    Project,
    System,
}

impl Verb {
    /// What people read. Verbs that make one command have one name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reboot => "reboot",
            Self::Delete => "delete",
            Self::Migrate { .. } => "migrate",
            Self::CancelMigration => "cancel_migration",
            Self::CancelSaga => "cancel_saga",
            Self::PauseSaga => "pause_saga",
            Self::ResumeSaga => "resume_saga",
            Self::RetrySaga => "retry_saga",
            Self::ForceStop { .. } | Self::ForceStopOf { .. } => "force_stop",
            Self::Resize { .. } | Self::SetRestarts { .. } => "update",
            Self::Cordon { .. } => "cordon",
            Self::Uncordon { .. } => "uncordon",
            Self::Drain { .. } => "drain",
            Self::Expunge { .. } => "expunge",
            Self::SetQuota { .. } => "set_quota",
            Self::CreateGroup { .. } => "create_group",
            Self::JoinGroup { .. } => "join_group",
            Self::LeaveGroup { .. } => "leave_group",
            Self::DeleteGroup { .. } => "delete_group",
        }
    }

    pub(crate) const fn about(self) -> About {
        match self {
            Self::Create { .. }
            | Self::Start
            | Self::Stop
            | Self::Reboot
            | Self::Delete
            | Self::Migrate { .. }
            | Self::CancelMigration
            | Self::CancelSaga
            | Self::PauseSaga
            | Self::ResumeSaga
            | Self::RetrySaga
            | Self::ForceStop { .. }
            | Self::ForceStopOf { .. }
            | Self::Resize { .. }
            | Self::SetRestarts { .. } => About::Instance,
            Self::Cordon { sled }
            | Self::Uncordon { sled }
            | Self::Drain { sled }
            | Self::Expunge { sled } => About::Sled(sled),
            Self::SetQuota { of_silo: true, .. } => About::System,
            Self::SetQuota { of_silo: false, .. }
            | Self::CreateGroup { .. }
            | Self::JoinGroup { .. }
            | Self::LeaveGroup { .. }
            | Self::DeleteGroup { .. } => About::Project,
        }
    }

    /// The sled that it names.
    pub(crate) const fn sled(self) -> Option<u16> {
        match self {
            Self::Migrate { to } => to,
            Self::Cordon { sled }
            | Self::Uncordon { sled }
            | Self::Drain { sled }
            | Self::Expunge { sled } => Some(sled),
            _ => None,
        }
    }
}
