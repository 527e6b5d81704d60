//! Anti-affinity groups as they are read.

use lifecycle::project::Group;
use lifecycle::{GroupId, GroupPolicy, InstanceId, ProjectId, Timestamp};

/// A group as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// Its id.
    pub id: GroupId,
    /// Its project.
    pub project: ProjectId,
    /// Name, unique among the project's groups.
    pub name: String,
    /// Free text.
    pub description: String,
    /// What happens if its members cannot be kept apart.
    pub policy: GroupPolicy,
    /// Its members that exist, by id.
    pub members: Vec<InstanceId>,
    /// When it was created.
    pub time_created: Timestamp,
    /// When it last changed.
    pub time_modified: Timestamp,
}

impl GroupRow {
    pub(crate) fn new(
        id: GroupId,
        project: ProjectId,
        group: &Group,
        exists: impl Fn(InstanceId) -> bool,
    ) -> Self {
        Self {
            id,
            project,
            name: group.name.clone(),
            description: group.description.clone(),
            policy: group.policy,
            members: group.members.iter().copied().filter(|member| exists(*member)).collect(),
            time_created: group.time_created,
            time_modified: group.time_modified,
        }
    }
}
