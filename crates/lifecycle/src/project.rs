//! A project: owner of instance names and of a virtual network. Small enough that rules and fold share a
//! page.

use crate::event::{EventMeta, ProjectEvent};
use crate::ids::ProjectId;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// When it was created.
    pub time_created: Timestamp,
    /// When it last changed.
    pub time_modified: Timestamp,
    /// When it was deleted, if it was.
    pub deleted: Option<Timestamp>,
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
        ProjectEvent::Deleted => {
            let project = state.as_mut().expect("only what exists is deleted");
            assert!(project.deleted.is_none(), "a project is deleted once");
            project.deleted = Some(meta.time);
        }
    }
}
