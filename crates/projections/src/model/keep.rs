//! Rows of the model, and the indexes derived from them.

use super::{ReadModel, VmmPlace};
use crate::ended::Ended;
use crate::instances::InstanceEntry;
use crate::migrations::MigrationRow;
use crate::rows::RowKey;
use crate::sagas::SagaRow;
use crate::sleds::SledLoad;
use eventlog::StreamId;
use lifecycle::project::{Group, Project};
use lifecycle::sled::Sled;
use lifecycle::{
    GroupId, InstanceId, MigrationId, ProjectId, Quota, QuotaScope, SagaId, Size, SledId, Totals, VmmId,
};

/// Rows and the indexes derived from them. Inserting answers false if the row contradicts another.
impl ReadModel {
    pub(crate) fn insert_instance(&mut self, id: InstanceId, entry: InstanceEntry) -> bool {
        for (sled, load) in SledLoad::held_by(&entry.state) {
            self.loads.entry(sled).or_default().add(load);
        }
        if let Some(sled) = entry.active_sled() {
            self.guests.insert((sled, id));
        }
        if let Some(size) = entry.state.charge {
            charge(self.charged.entry(entry.state.spec.project).or_default(), size);
            charge(&mut self.charged_in_all, size);
        }
        let mut is_alone = true;
        if entry.is_listed() {
            let spec = &entry.state.spec;
            is_alone = self.members.entry(spec.project).or_default().insert(&spec.name, id).is_none();
        }
        self.instances.insert(id, Box::new(entry)).is_none() && is_alone
    }

    pub(super) fn remove_instance(&mut self, id: InstanceId) {
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
        if let Some(size) = entry.state.charge {
            release(&mut self.charged_in_all, size);
            let charged = self.charged.entry(spec.project).or_default();
            release(charged, size);
            if *charged == Totals::default() {
                self.charged.remove(&spec.project);
            }
        }
        if let Some(members) = self.members.get_mut(&spec.project) {
            members.remove(&spec.name, id);
            if members.is_empty() {
                self.members.remove(&spec.project);
            }
        }
    }

    pub(crate) fn insert_project(&mut self, id: ProjectId, mut project: Project) -> bool {
        let groups = std::mem::take(&mut project.groups);
        let mut is_alone = self.project_directory.insert(&project.name, id).is_none();
        is_alone &= self.projects.insert(id, project).is_none();
        for (group, value) in groups {
            is_alone &= self.insert_group(id, group, value);
        }
        is_alone
    }

    pub(super) fn remove_project(&mut self, id: ProjectId) {
        if let Some(project) = self.projects.remove(&id) {
            self.project_directory.remove(&project.name, id);
            self.group_names.remove(&id);
            for group in project.groups.keys() {
                self.groups.remove(&(*group, id));
            }
        }
    }

    pub(crate) fn insert_group(&mut self, id: ProjectId, group: GroupId, value: Group) -> bool {
        let Some(project) = self.projects.get_mut(&id) else {
            return false;
        };
        let is_alone = self.group_names.entry(id).or_default().insert(&value.name, group).is_none();
        self.groups.insert((group, id));
        project.groups.insert(group, value).is_none() && is_alone
    }

    pub(crate) fn insert_member(&mut self, id: ProjectId, group: GroupId, member: InstanceId) -> bool {
        let group = self.projects.get_mut(&id).and_then(|project| project.groups.get_mut(&group));
        group.is_some_and(|group| group.members.insert(member))
    }

    pub(crate) fn insert_sled(&mut self, id: SledId, sled: Sled) -> bool {
        self.sleds.insert(id, sled).is_none()
    }

    pub(crate) fn insert_vmm(&mut self, id: VmmId, place: VmmPlace) -> bool {
        self.vmms_of.insert((place.instance, id));
        self.vmms.insert(id, place).is_none()
    }

    pub(crate) fn insert_ended(&mut self, id: InstanceId, ended: Ended) -> bool {
        !self.instances.contains_key(&id) && self.ended.insert(id, ended)
    }

    pub(crate) fn ended_row(&self, id: InstanceId) -> Option<Ended> {
        self.ended.get(id)
    }

    pub(crate) fn insert_migration(&mut self, id: MigrationId, row: MigrationRow) -> bool {
        self.migrations.insert(id, row)
    }

    pub(crate) fn insert_saga(&mut self, id: SagaId, row: SagaRow) -> bool {
        self.sagas.insert(id, row)
    }

    pub(crate) fn insert_quota(&mut self, scope: QuotaScope, quota: Quota) -> bool {
        self.quotas.insert(scope, quota).is_none()
    }

    pub(crate) fn insert_quarantined(&mut self, stream: StreamId, why: String) -> bool {
        self.quarantined.insert(stream, why).is_none()
    }

    pub(crate) const fn set_position(&mut self, position: u64) {
        self.position = position;
    }

    pub(crate) fn entry(&self, id: InstanceId) -> Option<&InstanceEntry> {
        self.instances.get(&id).map(Box::as_ref)
    }

    pub(crate) fn sled_state(&self, id: SledId) -> Option<&Sled> {
        self.sleds.get(&id)
    }

    pub(crate) fn quota_set(&self, scope: QuotaScope) -> Option<Quota> {
        self.quotas.get(&scope).copied()
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
        let migrations = self.migrations.keys().map(RowKey::Migration);
        let sagas = self.sagas.keys().map(RowKey::Saga);
        let quotas = self.quotas.keys().copied().map(RowKey::Quota);
        let quarantined = self.quarantined.keys().copied().map(RowKey::Quarantined);
        let groups = self.groups.iter().map(|(group, project)| RowKey::Group(*project, *group));
        let first = instances.chain(projects).chain(sleds).chain(vmms).chain(migrations).chain(sagas);
        let ended = self.ended.keys().map(RowKey::Ended);
        first.chain(ended).chain(quotas).chain(quarantined).chain(groups).chain(self.member_keys())
    }

    fn member_keys(&self) -> impl Iterator<Item = RowKey> + '_ {
        self.projects.iter().flat_map(|(id, project)| {
            project.groups.iter().flat_map(|(group, value)| {
                value.members.iter().map(|member| RowKey::Member(*id, *group, *member))
            })
        })
    }

    /// How many rows there are.
    pub(crate) fn row_count(&self) -> u64 {
        let rows = self.instances.len()
            + self.projects.len()
            + self.sleds.len()
            + self.vmms.len()
            + self.ended.len()
            + self.migrations.len()
            + self.sagas.len()
            + self.quotas.len()
            + self.groups.len()
            + self.member_keys().count()
            + self.quarantined.len();
        rows as u64
    }
}

/// Sums saturate: a log that charges more than there can be is shown, not obeyed.
const fn charge(totals: &mut Totals, size: Size) {
    totals.cpus = totals.cpus.saturating_add(size.ncpus as u64);
    totals.memory = totals.memory.saturating_add(size.memory);
}

const fn release(totals: &mut Totals, size: Size) {
    totals.cpus = totals.cpus.saturating_sub(size.ncpus as u64);
    totals.memory = totals.memory.saturating_sub(size.memory);
}
