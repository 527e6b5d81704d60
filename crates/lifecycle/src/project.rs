//! A project: owner of instance names and of a virtual network. Small enough that rules and fold share a
//! page.

use crate::event::{EventMeta, ProjectEvent};
use crate::group::{GROUP_MEMBERS_MAX, GROUPS_MAX, GroupPolicy};
use crate::ids::{GroupId, InstanceId, ProjectId};
use crate::quota::Quota;
use crate::rejected::Rejected;
use crate::spec::{validate_description, validate_name};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Fold of one project's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Name, unique among projects.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Its virtual network identifier.
    pub vni: u32,
    /// What its instances may be charged together.
    pub quota: Quota,
    /// Its anti-affinity groups.
    pub groups: BTreeMap<GroupId, Group>,
    /// When it was created.
    pub time_created: Timestamp,
    /// When it last changed.
    pub time_modified: Timestamp,
    /// When it was deleted, if it was.
    pub deleted: Option<Timestamp>,
}

/// An anti-affinity group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Name, unique among the project's groups.
    pub name: String,
    /// Free text.
    pub description: String,
    /// What happens if its members cannot be kept apart.
    pub policy: GroupPolicy,
    /// Its members; those that are deleted count no more, and leave at the next change.
    pub members: BTreeSet<InstanceId>,
    /// When it was created.
    pub time_created: Timestamp,
    /// When it last changed.
    pub time_modified: Timestamp,
}

/// Something asked of a project's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupCommand {
    /// Create one.
    Create {
        /// Its id.
        group: GroupId,
        /// Its name.
        name: String,
        /// Free text.
        description: String,
        /// What happens if its members cannot be kept apart.
        policy: GroupPolicy,
    },
    /// Take an instance of the project in.
    Join {
        /// The group.
        group: GroupId,
        /// The instance.
        instance: InstanceId,
    },
    /// Let an instance go.
    Leave {
        /// The group.
        group: GroupId,
        /// The instance.
        instance: InstanceId,
    },
    /// Delete it.
    Delete {
        /// The group.
        group: GroupId,
    },
}

/// Decides. `exists` says whether a member still does: those that do not leave with the next join.
pub fn decide_group(
    state: &Project,
    command: &GroupCommand,
    exists: impl Fn(InstanceId) -> bool,
) -> Result<Vec<ProjectEvent>, Rejected> {
    let find = |id: &GroupId| state.groups.get(id).ok_or(Rejected::NoSuchGroup(*id));
    match command {
        GroupCommand::Create { group, name, description, policy } => {
            if state.groups.contains_key(group) {
                // A repeat of what has been done.
                return Ok(Vec::new());
            }
            validate_name("name", name)?;
            validate_description(description)?;
            if state.groups.values().any(|other| other.name == *name) {
                return Err(Rejected::NameTaken { what: "anti-affinity-group", name: name.clone() });
            }
            if state.groups.len() >= GROUPS_MAX {
                return Err(Rejected::TooMany { what: "anti-affinity groups of a project", max: GROUPS_MAX });
            }
            let (group, policy) = (*group, *policy);
            let (name, description) = (name.clone(), description.clone());
            Ok(vec![ProjectEvent::GroupCreated { group, name, description, policy }])
        }
        GroupCommand::Join { group, instance } => {
            let members = &find(group)?.members;
            if members.contains(instance) {
                return Ok(Vec::new());
            }
            let gone: Vec<InstanceId> = members.iter().copied().filter(|member| !exists(*member)).collect();
            if members.len() - gone.len() >= GROUP_MEMBERS_MAX {
                return Err(Rejected::TooMany {
                    what: "members of an anti-affinity group",
                    max: GROUP_MEMBERS_MAX,
                });
            }
            let left = gone.into_iter().map(|instance| ProjectEvent::GroupLeft { group: *group, instance });
            let joined = ProjectEvent::GroupJoined { group: *group, instance: *instance };
            Ok(left.chain([joined]).collect())
        }
        GroupCommand::Leave { group, instance } => {
            let is_member = find(group)?.members.contains(instance);
            let left = ProjectEvent::GroupLeft { group: *group, instance: *instance };
            Ok(if is_member { vec![left] } else { Vec::new() })
        }
        GroupCommand::Delete { group } => {
            find(group)?;
            Ok(vec![ProjectEvent::GroupDeleted { group: *group }])
        }
    }
}

fn evolve_groups(groups: &mut BTreeMap<GroupId, Group>, event: &ProjectEvent, meta: EventMeta) {
    match event {
        ProjectEvent::GroupCreated { group, name, description, policy } => {
            let created = Group {
                name: name.clone(),
                description: description.clone(),
                policy: *policy,
                members: BTreeSet::new(),
                time_created: meta.time,
                time_modified: meta.time,
            };
            let replaced = groups.insert(*group, created);
            assert!(replaced.is_none(), "a group is created once");
        }
        ProjectEvent::GroupJoined { group, instance } => {
            let group = groups.get_mut(group).expect("only what exists is joined");
            group.members.insert(*instance);
            group.time_modified = meta.time;
        }
        ProjectEvent::GroupLeft { group, instance } => {
            let group = groups.get_mut(group).expect("only what exists is left");
            group.members.remove(instance);
            group.time_modified = meta.time;
        }
        ProjectEvent::GroupDeleted { group } => {
            groups.remove(group).expect("a group is deleted once");
        }
        ProjectEvent::Created { .. }
        | ProjectEvent::Changed { .. }
        | ProjectEvent::QuotaSet { .. }
        | ProjectEvent::Deleted => unreachable!("no event of a group"),
    }
}

/// Applies a fact.
pub fn evolve(state: &mut Option<Project>, event: &ProjectEvent, meta: EventMeta) {
    match event {
        ProjectEvent::Created { id, name, description, vni } => {
            assert!(state.is_none(), "a project is created once");
            *state = Some(Project {
                id: *id,
                name: name.clone(),
                description: description.clone(),
                vni: *vni,
                quota: Quota::default(),
                groups: BTreeMap::new(),
                time_created: meta.time,
                time_modified: meta.time,
                deleted: None,
            });
        }
        ProjectEvent::Changed { name, description } => {
            let project = state.as_mut().expect("only what exists changes");
            project.name.clone_from(name);
            project.description.clone_from(description);
            project.time_modified = meta.time;
        }
        ProjectEvent::QuotaSet { quota } => {
            let project = state.as_mut().expect("only what exists changes");
            project.quota = *quota;
            project.time_modified = meta.time;
        }
        ProjectEvent::GroupCreated { .. }
        | ProjectEvent::GroupJoined { .. }
        | ProjectEvent::GroupLeft { .. }
        | ProjectEvent::GroupDeleted { .. } => {
            let project = state.as_mut().expect("only what exists changes");
            evolve_groups(&mut project.groups, event, meta);
        }
        ProjectEvent::Deleted => {
            let project = state.as_mut().expect("only what exists is deleted");
            assert!(project.deleted.is_none(), "a project is deleted once");
            project.deleted = Some(meta.time);
        }
    }
}
