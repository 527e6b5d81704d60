//! The fold: facts, in log order. A fact that was granted before is the same entry, from here on for good.

use super::{Entry, GroupEntry, Ledger, Room, SledEntry, VmmEntry};
use crate::event::{InstanceEvent, ProjectEvent, SledEvent, SystemEvent};
use crate::ids::{GroupId, InstanceId, ProjectId, SledId, VmmId};
use crate::quota::QuotaScope;
use crate::saga::Step;
use crate::spec::Size;
use std::collections::BTreeSet;

impl Ledger {
    /// Applies an event of `instance/<id>`.
    pub fn apply_instance(&mut self, id: InstanceId, event: &InstanceEvent) {
        match event {
            InstanceEvent::Created { spec, address, .. } => {
                if let Some(entry) = self.instances.get_mut(&id) {
                    entry.is_journaled = true;
                } else {
                    self.insert_instance(id, spec.project, &spec.name, u32::from(address.virtual_ip), true);
                }
            }
            InstanceEvent::StartBegan { vmm, sled, size, .. } => {
                self.allocated(id, *vmm, *sled, *size);
                self.charge(id, Some(*size));
            }
            InstanceEvent::MigrateBegan { vmm, sled, size, .. } => {
                self.allocated(id, *vmm, *sled, *size);
            }
            // A start's undo, which is the only one to take the network back, releases its provisioning.
            InstanceEvent::SagaUnwound { undone, .. } if undone.contains(&Step::Network) => {
                self.charge(id, None);
            }
            InstanceEvent::Updated(update) if update.active.is_none() => self.charge(id, None),
            InstanceEvent::VmmReported { vmm, report } => {
                if let Some(entry) = self.vmms.get_mut(vmm) {
                    entry.heard = report.fingerprint();
                }
            }
            InstanceEvent::VmmGone { vmm, .. } => self.release(*vmm),
            InstanceEvent::VmmReaped { vmm } => {
                self.retire(*vmm);
                if self.instances.get(&id).is_some_and(|entry| entry.is_deleted && entry.vmms.is_empty()) {
                    self.free_address(id);
                }
            }
            InstanceEvent::Deleted => {
                self.free_name(id);
                let Some(entry) = self.instances.get_mut(&id) else {
                    return;
                };
                entry.is_deleted = true;
                if entry.vmms.is_empty() {
                    self.free_address(id);
                }
            }
            // What is archived holds nothing any more.
            InstanceEvent::Archived(_)
            | InstanceEvent::StartNotPlaced { .. }
            | InstanceEvent::MigrationCancelled { .. }
            | InstanceEvent::MigrationGivenUp { .. }
            | InstanceEvent::RestartTried { .. }
            | InstanceEvent::ForceStopRequested { .. }
            | InstanceEvent::Reconfigured { .. }
            | InstanceEvent::SagaAdvanced { .. }
            | InstanceEvent::SagaUnwound { .. }
            | InstanceEvent::SagaPaused { .. }
            | InstanceEvent::SagaResumed { .. }
            | InstanceEvent::SagaRetried { .. }
            | InstanceEvent::SagaEnded { .. }
            | InstanceEvent::ReportAnomalous { .. }
            | InstanceEvent::VmmFailed { .. }
            | InstanceEvent::StopRequested { .. }
            | InstanceEvent::StopWithdrawn { .. }
            | InstanceEvent::RebootRequested { .. }
            | InstanceEvent::RebootAnswered { .. }
            | InstanceEvent::Updated(_) => {}
        }
    }

    /// A VMM that was granted is a fact from here on.
    fn allocated(&mut self, instance: InstanceId, vmm: VmmId, sled: SledId, size: Size) {
        let Some(entry) = self.vmms.get_mut(&vmm) else {
            let is_charging = false;
            let entry =
                VmmEntry { instance, sled, size, is_journaled: true, is_held: true, is_charging, heard: 0 };
            self.hold(vmm, entry);
            return;
        };
        entry.is_journaled = true;
        if std::mem::replace(&mut entry.is_charging, false) {
            self.promise(instance, size, false);
        }
    }

    /// Applies an event of `project/<id>`.
    pub fn apply_project(&mut self, id: ProjectId, event: &ProjectEvent) {
        match event {
            ProjectEvent::Created { name, vni, .. } => match self.projects.get_mut(&id) {
                Some(project) => project.state = Entry::Journaled,
                None => self.insert_project(id, name, *vni, Entry::Journaled),
            },
            ProjectEvent::Changed { name, .. } => {
                let project = self.projects.get_mut(&id).expect("only what exists changes");
                self.project_names.remove(&project.name);
                self.project_names.insert(name.clone(), id);
                project.name.clone_from(name);
            }
            ProjectEvent::QuotaSet { quota } => {
                if let Some(project) = self.projects.get_mut(&id) {
                    project.quota = *quota;
                }
            }
            ProjectEvent::GroupCreated { group, name, policy, .. } => {
                if let Some(project) = self.projects.get_mut(&id) {
                    let (name, policy) = (name.clone(), *policy);
                    project.groups.insert(*group, GroupEntry { name, policy, members: BTreeSet::new() });
                }
            }
            ProjectEvent::GroupJoined { group, instance } => self.group_changed(id, *group, *instance, true),
            ProjectEvent::GroupLeft { group, instance } => self.group_changed(id, *group, *instance, false),
            ProjectEvent::GroupDeleted { group } => {
                let removed = self.projects.get_mut(&id).and_then(|project| project.groups.remove(group));
                for member in removed.into_iter().flat_map(|group| group.members) {
                    if let Some(entry) = self.instances.get_mut(&member) {
                        entry.groups.remove(group);
                    }
                }
            }
            ProjectEvent::Deleted => self.remove_project(id),
        }
    }

    /// An instance that is deleted, or of another project, has left already.
    fn group_changed(&mut self, project: ProjectId, group: GroupId, instance: InstanceId, is_member: bool) {
        let Some(entry) = self.instances.get_mut(&instance).filter(|e| e.project == project && !e.is_deleted)
        else {
            return;
        };
        let groups = self.projects.get_mut(&project).map(|project| &mut project.groups);
        let Some(members) = groups.and_then(|groups| groups.get_mut(&group)).map(|group| &mut group.members)
        else {
            return;
        };
        if is_member {
            members.insert(instance);
            entry.groups.insert(group);
        } else {
            members.remove(&instance);
            entry.groups.remove(&group);
        }
    }

    /// Applies an event of `system`.
    pub fn apply_system(&mut self, event: &SystemEvent) {
        match event {
            SystemEvent::QuotaSet { scope: QuotaScope::Silo, quota } => self.silo_quota = *quota,
            SystemEvent::QuotaSet { scope: QuotaScope::Fleet, quota } => self.fleet_quota = *quota,
            SystemEvent::QuotaSet { scope: QuotaScope::Project, .. }
            | SystemEvent::DaemonStarted { .. }
            | SystemEvent::DaemonStopped
            | SystemEvent::LossAccepted { .. } => {}
        }
    }

    /// Applies an event of `sled/<id>`.
    pub fn apply_sled(&mut self, id: SledId, event: &SledEvent) {
        match event {
            SledEvent::Registered { name, threads, memory, cpu_family, address, .. } => {
                let room = Room { threads: *threads, memory: *memory };
                let entry = self.sleds.entry(id).or_insert_with(|| SledEntry {
                    name: name.clone(),
                    room,
                    held: Room::default(),
                    is_shrunk: false,
                    vmms: BTreeSet::new(),
                    cpu_family: cpu_family.clone(),
                    address: address.clone(),
                    is_provisionable: true,
                    is_expunged: false,
                    boot: None,
                    is_lapsed: false,
                });
                entry.name.clone_from(name);
                entry.room = room;
                entry.is_shrunk = !room.holds(entry.held);
                entry.cpu_family.clone_from(cpu_family);
                entry.address.clone_from(address);
            }
            SledEvent::Booted { boot, epoch } => {
                let sled = self.sled_mut(id);
                (sled.boot, sled.is_lapsed) = (Some((*boot, *epoch)), false);
            }
            SledEvent::LeaseBegan { epoch, .. } => {
                let sled = self.sled_mut(id);
                (sled.boot, sled.is_lapsed) = (sled.boot.map(|(boot, _)| (boot, *epoch)), false);
            }
            SledEvent::LeaseExpired { .. } => self.sled_mut(id).is_lapsed = true,
            SledEvent::ProvisionableChanged { provisionable, .. } => {
                self.sled_mut(id).is_provisionable = *provisionable;
            }
            SledEvent::DrainBegan { .. } | SledEvent::DrainEnded { .. } => {}
            SledEvent::Expunged { .. } => self.sled_mut(id).is_expunged = true,
        }
    }
}
