//! The read model: the fold of all streams, with the indexes that lists and searches need.
//!
//! Invariants:
//! * positions are applied one by one, without gap;
//! * rows (instances, projects, sleds, VMMs, quarantined streams) are the state; every index is derived
//!   from rows alone, so a model that is loaded from rows equals one that was folded;
//! * an event that cannot be applied leaves the rows of its stream as they were, and the stream
//!   quarantined: its later events are counted and ignored.

use crate::directory::{Directory, Order, Page, Scan, behind, ordered};
use crate::instances::{InstanceEntry, InstanceRow};
use crate::rows::RowKey;
use crate::sleds::{SledLoad, SledRow};
use eventlog::{Position, Record, StreamId};
use journal::{Event, FoldError, Recorded, StreamName};
use lifecycle::instance::Instance;
use lifecycle::project::Project;
use lifecycle::sled::Sled;
use lifecycle::{InstanceEvent, InstanceId, ProjectId, SledId, VmmId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use uuid::Uuid;

/// Where a VMM belongs, for ever.
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
    instances: BTreeMap<InstanceId, InstanceEntry>,
    projects: BTreeMap<ProjectId, Project>,
    sleds: BTreeMap<SledId, Sled>,
    vmms: BTreeMap<VmmId, VmmPlace>,
    quarantined: BTreeMap<StreamId, String>,
    // Derived from the rows above.
    members: BTreeMap<ProjectId, Directory<InstanceId>>,
    project_directory: Directory<ProjectId>,
    guests: BTreeSet<(SledId, InstanceId)>,
    loads: BTreeMap<SledId, SledLoad>,
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
            (StreamName::Project(id), _) => self.apply_project(id, recorded),
            (StreamName::Sled(id), _) => self.apply_sled(id, recorded),
            (StreamName::Instance(_) | StreamName::System, _) => Ok(Vec::new()),
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
        // A copy, because an event that cannot be applied must leave the row as it was.
        let before = self.instances.get(&id);
        let mut state = before.map(|entry| entry.state.clone());
        journal::apply_instance(&mut state, recorded)?;
        let state = state.expect("an event that was applied leaves an instance");
        let time_last_auto_restarted = before.and_then(|entry| entry.time_last_auto_restarted);
        let mut entry = InstanceEntry { state, time_last_auto_restarted };
        entry.note(event, recorded.meta.time);
        let mut changed = vec![RowKey::Instance(id)];
        if let InstanceEvent::StartBegan { vmm, sled, .. } = event {
            self.vmms.insert(*vmm, VmmPlace { instance: id, sled: *sled });
            changed.push(RowKey::Vmm(*vmm));
        }
        // Most events change nothing that is indexed.
        if before.is_some_and(|before| before.indexed().eq(entry.indexed())) && !entry.is_over() {
            self.instances.insert(id, entry);
        } else {
            self.remove_instance(id);
            if !entry.is_over() {
                self.insert_instance(id, entry);
            }
        }
        Ok(changed)
    }

    fn apply_project(&mut self, id: ProjectId, recorded: &Recorded) -> Result<Vec<RowKey>, FoldError> {
        let mut state = self.projects.get(&id).cloned();
        journal::apply_project(&mut state, recorded)?;
        self.remove_project(id);
        if let Some(project) = state.filter(|project| project.deleted.is_none()) {
            self.insert_project(id, project);
        }
        Ok(vec![RowKey::Project(id)])
    }

    fn apply_sled(&mut self, id: SledId, recorded: &Recorded) -> Result<Vec<RowKey>, FoldError> {
        let mut state = self.sleds.get(&id).cloned();
        journal::apply_sled(&mut state, recorded)?;
        if let Some(sled) = state {
            self.sleds.insert(id, sled);
        }
        Ok(vec![RowKey::Sled(id)])
    }
}

/// Rows and the indexes derived from them. Inserting answers false if the row contradicts another.
impl ReadModel {
    pub(crate) fn insert_instance(&mut self, id: InstanceId, entry: InstanceEntry) -> bool {
        for (sled, load) in SledLoad::held_by(&entry.state) {
            self.loads.entry(sled).or_default().add(load);
        }
        if let Some(sled) = entry.active_sled() {
            self.guests.insert((sled, id));
        }
        let mut is_alone = true;
        if entry.is_listed() {
            let spec = &entry.state.spec;
            is_alone = self.members.entry(spec.project).or_default().insert(&spec.name, id).is_none();
        }
        self.instances.insert(id, entry).is_none() && is_alone
    }

    fn remove_instance(&mut self, id: InstanceId) {
        let Some(entry) = self.instances.remove(&id) else {
            return;
        };
        for (sled, load) in SledLoad::held_by(&entry.state) {
            let sum = self.loads.entry(sled).or_default();
            sum.remove(load);
            if sum.is_empty() {
                self.loads.remove(&sled);
            }
        }
        if let Some(sled) = entry.active_sled() {
            self.guests.remove(&(sled, id));
        }
        let spec = &entry.state.spec;
        if let Some(members) = self.members.get_mut(&spec.project) {
            members.remove(&spec.name, id);
            if members.is_empty() {
                self.members.remove(&spec.project);
            }
        }
    }

    pub(crate) fn insert_project(&mut self, id: ProjectId, project: Project) -> bool {
        let is_alone = self.project_directory.insert(&project.name, id).is_none();
        self.projects.insert(id, project).is_none() && is_alone
    }

    fn remove_project(&mut self, id: ProjectId) {
        if let Some(project) = self.projects.remove(&id) {
            self.project_directory.remove(&project.name, id);
        }
    }

    pub(crate) fn insert_sled(&mut self, id: SledId, sled: Sled) -> bool {
        self.sleds.insert(id, sled).is_none()
    }

    pub(crate) fn insert_vmm(&mut self, id: VmmId, place: VmmPlace) -> bool {
        self.vmms.insert(id, place).is_none()
    }

    pub(crate) fn insert_quarantined(&mut self, stream: StreamId, why: String) -> bool {
        self.quarantined.insert(stream, why).is_none()
    }

    pub(crate) const fn set_position(&mut self, position: u64) {
        self.position = position;
    }

    pub(crate) fn entry(&self, id: InstanceId) -> Option<&InstanceEntry> {
        self.instances.get(&id)
    }

    pub(crate) fn sled_state(&self, id: SledId) -> Option<&Sled> {
        self.sleds.get(&id)
    }

    pub(crate) fn quarantine_of(&self, stream: StreamId) -> Option<&str> {
        self.quarantined.get(&stream).map(String::as_str)
    }

    /// Every row there is.
    pub(crate) fn row_keys(&self) -> impl Iterator<Item = RowKey> + '_ {
        let instances = self.instances.keys().copied().map(RowKey::Instance);
        let projects = self.projects.keys().copied().map(RowKey::Project);
        let sleds = self.sleds.keys().copied().map(RowKey::Sled);
        let vmms = self.vmms.keys().copied().map(RowKey::Vmm);
        let quarantined = self.quarantined.keys().copied().map(RowKey::Quarantined);
        instances.chain(projects).chain(sleds).chain(vmms).chain(quarantined)
    }

    /// How many rows there are.
    pub(crate) fn row_count(&self) -> u64 {
        let rows = self.instances.len()
            + self.projects.len()
            + self.sleds.len()
            + self.vmms.len()
            + self.quarantined.len();
        rows as u64
    }
}

/// What readers ask.
impl ReadModel {
    /// The last position folded in; zero before the first.
    pub const fn position(&self) -> Position {
        Position::new(self.position)
    }

    /// The instance, unless it is deleted or never was.
    pub fn instance(&self, id: InstanceId) -> Option<InstanceRow> {
        self.instances.get(&id).filter(|entry| entry.is_listed()).map(InstanceEntry::row)
    }

    /// The instance's whole fold; also of a deleted one whose VMMs are not all reaped.
    pub fn instance_state(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(&id).map(|entry| &entry.state)
    }

    /// Every fold that is kept, by id: what is not here has nothing under way.
    pub fn instance_states(&self) -> impl Iterator<Item = &Instance> + '_ {
        self.instances.values().map(|entry| &entry.state)
    }

    /// The instance that has this name now.
    pub fn instance_by_name(&self, project: ProjectId, name: &str) -> Option<InstanceId> {
        self.members.get(&project).and_then(|members| members.find(name))
    }

    /// A page of a project's instances.
    pub fn instances(&self, project: ProjectId, scan: &Scan<InstanceId>, limit: usize) -> Page<InstanceRow> {
        let page = self.members.get(&project).map_or_else(Page::empty, |members| members.page(scan, limit));
        page.map(|id| self.instances[&id].row())
    }

    /// How many instances a project has.
    pub fn instance_count(&self, project: ProjectId) -> usize {
        self.members.get(&project).map_or(0, Directory::len)
    }

    /// A page of the instances whose guest is on a sled, by id.
    pub fn instances_on(
        &self,
        sled: SledId,
        order: Order,
        after: Option<InstanceId>,
        limit: usize,
    ) -> Page<InstanceRow> {
        let first = Bound::Included((sled, InstanceId::new(Uuid::nil())));
        let last = Bound::Included((sled, InstanceId::new(Uuid::max())));
        let cursor = after.map(|after| Bound::Excluded((sled, after)));
        let range = match order {
            Order::Ascending => (cursor.unwrap_or(first), last),
            Order::Descending => (first, cursor.unwrap_or(last)),
        };
        let ids = self.guests.range(range).map(|(_, id)| *id);
        Page::of(ordered(order, ids), limit).map(|id| self.instances[&id].row())
    }

    /// The project, unless it is deleted or never was.
    pub fn project(&self, id: ProjectId) -> Option<&Project> {
        self.projects.get(&id)
    }

    /// The project that has this name now.
    pub fn project_by_name(&self, name: &str) -> Option<ProjectId> {
        self.project_directory.find(name)
    }

    /// A page of projects.
    pub fn projects(&self, scan: &Scan<ProjectId>, limit: usize) -> Page<Project> {
        self.project_directory.page(scan, limit).map(|id| self.projects[&id].clone())
    }

    /// The sled, unless it never registered.
    pub fn sled(&self, id: SledId) -> Option<SledRow> {
        self.sleds.get(&id).map(|sled| SledRow::new(sled, self.load(id)))
    }

    /// A page of sleds, by id; expunged ones too.
    pub fn sleds(&self, order: Order, after: Option<SledId>, limit: usize) -> Page<SledRow> {
        let sleds = self.sleds.range(behind(order, after));
        let rows = ordered(order, sleds).map(|(id, sled)| SledRow::new(sled, self.load(*id)));
        Page::of(rows, limit)
    }

    /// What is held on a sled.
    pub fn load(&self, sled: SledId) -> SledLoad {
        self.loads.get(&sled).copied().unwrap_or_default()
    }

    /// Where a VMM belongs, however long it has been gone; none if it was never heard of.
    pub fn vmm(&self, id: VmmId) -> Option<VmmPlace> {
        self.vmms.get(&id).copied()
    }

    /// Streams that hold an event which cannot be read or applied, each with the reason.
    pub fn quarantined(&self) -> impl Iterator<Item = (StreamId, &str)> + '_ {
        self.quarantined.iter().map(|(stream, why)| (*stream, why.as_str()))
    }
}
