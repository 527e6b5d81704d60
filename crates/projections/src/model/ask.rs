//! What readers ask of the model.

use super::{ReadModel, VmmPlace};
use crate::directory::{Directory, Order, Page, Scan, behind, ordered};
use crate::groups::GroupRow;
use crate::history::Among;
use crate::instances::InstanceRow;
use crate::migrations::MigrationRow;
use crate::sagas::SagaRow;
use crate::sleds::{SledLoad, SledRow};
use eventlog::{Position, StreamId};
use lifecycle::instance::Instance;
use lifecycle::project::Project;
use lifecycle::{
    GroupId, InstanceId, MigrationId, ProjectId, Quota, QuotaScope, SagaId, SledId, Timestamp, Totals, VmmId,
};
use std::ops::Bound;
use uuid::Uuid;

/// What readers ask.
impl ReadModel {
    /// The last position folded in; zero before the first.
    pub const fn position(&self) -> Position {
        Position::new(self.position)
    }

    /// The instance, unless it is deleted or never was.
    pub fn instance(&self, id: InstanceId) -> Option<InstanceRow> {
        self.instances.get(&id).filter(|entry| entry.is_listed()).map(|entry| entry.row())
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

    /// Instances that are over, were deleted at `time` or before and are not archived, the oldest first; at most
    /// `limit`.
    pub fn ended_until(&self, time: Timestamp, limit: usize) -> Vec<InstanceId> {
        self.ended.until(time).take(limit).collect()
    }

    /// Where a VMM belongs, however long it has been gone; none if it was never heard of, or its instance is
    /// archived.
    pub fn vmm(&self, id: VmmId) -> Option<VmmPlace> {
        self.vmms.get(&id).copied()
    }

    /// The migration; none if it never began, or ended longer ago than is kept.
    pub fn migration(&self, id: MigrationId) -> Option<&MigrationRow> {
        self.migrations.get(id)
    }

    /// A page of migrations, by id.
    pub fn migrations(
        &self,
        among: Among,
        order: Order,
        after: Option<MigrationId>,
        limit: usize,
    ) -> Page<MigrationRow> {
        self.migrations.page(among, order, after, limit)
    }

    /// The saga; none if it never began, is of one append, or ended longer ago than is kept.
    pub fn saga(&self, id: SagaId) -> Option<&SagaRow> {
        self.sagas.get(id)
    }

    /// A page of sagas of more than one append, by id.
    pub fn sagas(&self, among: Among, order: Order, after: Option<SagaId>, limit: usize) -> Page<SagaRow> {
        self.sagas.page(among, order, after, limit)
    }

    /// What all instances of the silo, or of the fleet, may be charged together. A project's quota is in
    /// [`Project::quota`].
    pub fn quota(&self, scope: QuotaScope) -> Quota {
        self.quotas.get(&scope).copied().unwrap_or_default()
    }

    /// What a project's instances are charged.
    pub fn charged(&self, project: ProjectId) -> Totals {
        self.charged.get(&project).copied().unwrap_or_default()
    }

    /// What all instances are charged: those of the silo, and of the fleet, because there is one silo.
    pub const fn charged_in_all(&self) -> Totals {
        self.charged_in_all
    }

    /// The group, unless it is deleted or never was.
    pub fn group(&self, id: GroupId) -> Option<GroupRow> {
        let first = (id, ProjectId::new(Uuid::nil()));
        let (_, project) = self.groups.range(first..).next().filter(|(group, _)| *group == id)?;
        self.group_row(*project, id)
    }

    /// The project's group that has this name now.
    pub fn group_by_name(&self, project: ProjectId, name: &str) -> Option<GroupId> {
        self.group_names.get(&project).and_then(|names| names.find(name))
    }

    /// A page of a project's groups.
    pub fn groups(&self, project: ProjectId, scan: &Scan<GroupId>, limit: usize) -> Page<GroupRow> {
        let page = self.group_names.get(&project).map_or_else(Page::empty, |names| names.page(scan, limit));
        let rows = page.rows.into_iter().filter_map(|id| self.group_row(project, id)).collect();
        Page { rows, is_last: page.is_last }
    }

    /// The groups that an instance is in, by id.
    pub fn groups_of(&self, instance: InstanceId) -> Vec<GroupId> {
        let project = self.instances.get(&instance).map(|entry| entry.state.spec.project);
        let groups = project.and_then(|id| self.projects.get(&id)).into_iter().flat_map(|p| &p.groups);
        groups.filter(|(_, group)| group.members.contains(&instance)).map(|(id, _)| *id).collect()
    }

    fn group_row(&self, project: ProjectId, id: GroupId) -> Option<GroupRow> {
        let exists = |member| self.instances.get(&member).is_some_and(|entry| entry.is_listed());
        let group = self.projects.get(&project)?.groups.get(&id)?;
        Some(GroupRow::new(id, project, group, exists))
    }

    /// Streams that hold an event which cannot be read or applied, each with the reason.
    pub fn quarantined(&self) -> impl Iterator<Item = (StreamId, &str)> + '_ {
        self.quarantined.iter().map(|(stream, why)| (*stream, why.as_str()))
    }
}
