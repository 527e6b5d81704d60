//! Anti-affinity groups: instances of a project that shall not share a sled.

use serde::{Deserialize, Serialize};

/// What happens if no sled is free of the group's other members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupPolicy {
    /// They share one (soft).
    Allow,
    /// The placement fails (hard).
    Fail,
}

/// Most groups of a project.
pub const GROUPS_MAX: usize = 1_000;
/// Most members of a group.
pub const GROUP_MEMBERS_MAX: usize = 1_000;
