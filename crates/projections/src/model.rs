//! The read model: the fold of all streams, with the indexes that lists and searches need.
//!
//! Invariants:
//! * positions are applied one by one, without gap;
//! * rows (instances, what is left of ended ones, projects, sleds, VMMs, migrations, sagas, quotas, quarantined streams) are the state; every
//!   index is derived from rows alone, so a model that is loaded from rows equals one that was folded;
//! * an event that cannot be applied leaves the rows of its stream as they were, and the stream
//!   quarantined: its later events are counted and ignored.

mod ask;
mod keep;

use crate::directory::Directory;
use crate::ended::{Ended, Waiting};
use crate::history::History;
use crate::instances::InstanceEntry;
use crate::migrations::{self, MigrationRow};
use crate::rows::RowKey;
use crate::sagas::{self, SagaRow};
use crate::sleds::SledLoad;
use eventlog::{Record, StreamId};
use journal::{Event, FoldError, Recorded, StreamName};
use lifecycle::project::Project;
use lifecycle::sled::Sled;
use lifecycle::{
    GroupId, InstanceEvent, InstanceId, MigrationId, ProjectEvent, ProjectId, Quota, QuotaScope, SagaId,
    SledId, SystemEvent, Totals, VmmId,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Where a VMM belongs, until its instance is archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmPlace {
    /// Its instance.
    pub instance: InstanceId,
    /// Its sled.
    pub sled: SledId,
}

/// A record that is not the next one. The model is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "position {found} was given to a read model that waits for {expected}: the log must be followed without gap"
)]
pub struct OutOfOrder {
    /// The position that comes next.
    pub expected: u64,
    /// The position that came.
    pub found: u64,
}

/// The fold of the log up to a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadModel {
    position: u64,
    /// Boxed: ids come in no order, so a third of the room in the map's nodes is empty, and an entry is large.
    instances: BTreeMap<InstanceId, Box<InstanceEntry>>,
    projects: BTreeMap<ProjectId, Project>,
    sleds: BTreeMap<SledId, Sled>,
    vmms: BTreeMap<VmmId, VmmPlace>,
    ended: Waiting,
    migrations: History<MigrationId, MigrationRow>,
    sagas: History<SagaId, SagaRow>,
    quotas: BTreeMap<QuotaScope, Quota>,
    quarantined: BTreeMap<StreamId, String>,
    // Derived from the rows above.
    members: BTreeMap<ProjectId, Directory<InstanceId>>,
    project_directory: Directory<ProjectId>,
    guests: BTreeSet<(SledId, InstanceId)>,
    vmms_of: BTreeSet<(InstanceId, VmmId)>,
    loads: BTreeMap<SledId, SledLoad>,
    groups: BTreeSet<(GroupId, ProjectId)>,
    group_names: BTreeMap<ProjectId, Directory<GroupId>>,
    charged: BTreeMap<ProjectId, Totals>,
    charged_in_all: Totals,
}

/// The fold.
impl ReadModel {
    /// Applies the next record; answers the rows it changed. A record that cannot be read quarantines its
    /// stream.
    pub fn apply_record(&mut self, record: &Record) -> Result<Vec<RowKey>, OutOfOrder> {
        match journal::read(record) {
            Ok(recorded) => self.apply(&recorded),
            Err(error) => {
                self.advance(record.position.get())?;
                Ok(self.quarantine(record.stream, error.to_string()))
            }
        }
    }

    /// Applies the next event; answers the rows it changed.
    pub fn apply(&mut self, recorded: &Recorded) -> Result<Vec<RowKey>, OutOfOrder> {
        self.advance(recorded.meta.position)?;
        let stream = recorded.stream.id();
        if self.quarantined.contains_key(&stream) {
            return Ok(Vec::new());
        }
        let applied = match (recorded.stream, &recorded.event) {
            (StreamName::Instance(id), Event::Instance(event)) => self.apply_instance(id, event, recorded),
            (StreamName::Project(id), Event::Project(event)) => self.apply_project(id, event, recorded),
            (StreamName::Sled(id), _) => self.apply_sled(id, recorded),
            (StreamName::System, Event::System(event)) => Ok(self.apply_system(event)),
            (StreamName::Instance(_) | StreamName::Project(_) | StreamName::System, _) => Ok(Vec::new()),
        };
        Ok(applied.unwrap_or_else(|error| self.quarantine(stream, error.to_string())))
    }

    /// Passes over positions that cannot be read any more, up to `last`: the streams that lost a record there
    /// stay as they were before it. Answers the rows that changed.
    pub fn pass_over(&mut self, last: u64, streams: &[StreamId], why: &str) -> Vec<RowKey> {
        self.position = self.position.max(last);
        streams.iter().flat_map(|stream| self.quarantine(*stream, why.to_owned())).collect()
    }

    fn advance(&mut self, position: u64) -> Result<(), OutOfOrder> {
        let expected = self.position + 1;
        if position != expected {
            return Err(OutOfOrder { expected, found: position });
        }
        self.position = position;
        Ok(())
    }

    fn quarantine(&mut self, stream: StreamId, why: String) -> Vec<RowKey> {
        self.quarantined.entry(stream).or_insert(why);
        vec![RowKey::Quarantined(stream)]
    }

    fn apply_instance(
        &mut self,
        id: InstanceId,
        event: &InstanceEvent,
        recorded: &Recorded,
    ) -> Result<Vec<RowKey>, FoldError> {
        if let InstanceEvent::Archived(_) = event {
            return self.forget_instance(id, recorded);
        }
        // A copy, because an event that cannot be applied must leave the row as it was.
        let before = self.instances.get(&id);
        let mut state = before.map(|entry| entry.state.clone());
        journal::apply_instance(&mut state, recorded)?;
        let state = state.expect("an event that was applied leaves an instance");
        let time_last_auto_restarted = before.and_then(|entry| entry.time_last_auto_restarted);
        let mut entry = InstanceEntry { state, time_last_auto_restarted };
        entry.note(event, recorded.meta.time);
        let mut changed = vec![RowKey::Instance(id)];
        let migrations = migrations::follow(
            &mut self.migrations,
            before.map(|b| &b.state),
            &entry.state,
            event,
            recorded.meta,
        );
        changed.extend(migrations.into_iter().map(RowKey::Migration));
        let sagas =
            sagas::follow(&mut self.sagas, before.map(|b| &b.state), &entry.state, event, recorded.meta);
        changed.extend(sagas.into_iter().map(RowKey::Saga));
        if let InstanceEvent::StartBegan { vmm, sled, .. } | InstanceEvent::MigrateBegan { vmm, sled, .. } =
            event
        {
            self.vmms.insert(*vmm, VmmPlace { instance: id, sled: *sled });
            self.vmms_of.insert((id, *vmm));
            changed.push(RowKey::Vmm(*vmm));
        }
        // Most events change nothing that is indexed.
        let over = entry.state.deleted.filter(|_| entry.state.is_over());
        if before.is_some_and(|before| before.indexed().eq(entry.indexed())) && over.is_none() {
            self.instances.insert(id, Box::new(entry));
        } else if let Some(deleted) = over {
            self.remove_instance(id);
            self.ended.insert(id, Ended { deleted, version: recorded.meta.version });
            changed.push(RowKey::Ended(id));
        } else {
            self.remove_instance(id);
            self.insert_instance(id, entry);
        }
        Ok(changed)
    }

    /// Everything of it is in a file: where its VMMs were is not remembered any longer.
    fn forget_instance(&mut self, id: InstanceId, recorded: &Recorded) -> Result<Vec<RowKey>, FoldError> {
        let is_next = self.ended.get(id).is_some_and(|ended| ended.version + 1 == recorded.meta.version);
        if !is_next {
            return Err(FoldError::Poison {
                stream: recorded.stream,
                version: recorded.meta.version,
                position: recorded.meta.position,
                event: journal::event_name(&recorded.event),
                detail: "only what is over is archived".to_owned(),
            });
        }
        self.ended.remove(id);
        let (first, last) = ((id, VmmId::new(Uuid::nil())), (id, VmmId::new(Uuid::max())));
        let vmms: Vec<VmmId> = self.vmms_of.range(first..=last).map(|(_, vmm)| *vmm).collect();
        for vmm in &vmms {
            self.vmms.remove(vmm);
            self.vmms_of.remove(&(id, *vmm));
        }
        Ok(vmms.into_iter().map(RowKey::Vmm).chain([RowKey::Ended(id)]).collect())
    }

    fn apply_project(
        &mut self,
        id: ProjectId,
        event: &ProjectEvent,
        recorded: &Recorded,
    ) -> Result<Vec<RowKey>, FoldError> {
        let before = self.projects.get(&id);
        let mut state = before.cloned();
        journal::apply_project(&mut state, recorded)?;
        let changed = changed_by(id, event, before);
        self.remove_project(id);
        if let Some(project) = state.filter(|project| project.deleted.is_none()) {
            self.insert_project(id, project);
        }
        Ok(changed)
    }

    fn apply_sled(&mut self, id: SledId, recorded: &Recorded) -> Result<Vec<RowKey>, FoldError> {
        let mut state = self.sleds.get(&id).cloned();
        journal::apply_sled(&mut state, recorded)?;
        if let Some(sled) = state {
            self.sleds.insert(id, sled);
        }
        Ok(vec![RowKey::Sled(id)])
    }

    fn apply_system(&mut self, event: &SystemEvent) -> Vec<RowKey> {
        match event {
            SystemEvent::QuotaSet { scope, quota } => {
                self.quotas.insert(*scope, *quota);
                vec![RowKey::Quota(*scope)]
            }
            SystemEvent::DaemonStarted { .. }
            | SystemEvent::DaemonStopped
            | SystemEvent::LossAccepted { .. } => Vec::new(),
        }
    }
}

/// The rows of a project that an event changes: its groups and their members have rows of their own, because
/// there may be many.
fn changed_by(id: ProjectId, event: &ProjectEvent, before: Option<&Project>) -> Vec<RowKey> {
    let group_rows = |group: GroupId| {
        let members =
            before.and_then(|project| project.groups.get(&group)).into_iter().flat_map(|g| &g.members);
        let members = members.map(move |member| RowKey::Member(id, group, *member));
        members.chain([RowKey::Group(id, group)])
    };
    match event {
        ProjectEvent::Created { .. } | ProjectEvent::Changed { .. } | ProjectEvent::QuotaSet { .. } => {
            vec![RowKey::Project(id)]
        }
        ProjectEvent::GroupCreated { group, .. } => vec![RowKey::Group(id, *group)],
        ProjectEvent::GroupJoined { group, instance } | ProjectEvent::GroupLeft { group, instance } => {
            vec![RowKey::Group(id, *group), RowKey::Member(id, *group, *instance)]
        }
        ProjectEvent::GroupDeleted { group } => group_rows(*group).collect(),
        ProjectEvent::Deleted => {
            let groups = before.into_iter().flat_map(|project| project.groups.keys().copied());
            groups.flat_map(group_rows).chain([RowKey::Project(id)]).collect()
        }
    }
}
