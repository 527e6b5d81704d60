//! The fold: facts, in log order. A fact that was granted before is the same entry, from here on for good.

use super::{Entry, Ledger, Room, SledEntry, VmmEntry};
use crate::event::{InstanceEvent, ProjectEvent, SledEvent};
use crate::ids::{InstanceId, ProjectId, SledId};
use crate::saga::Step;

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
                if let Some(entry) = self.vmms.get_mut(vmm) {
                    entry.is_journaled = true;
                } else {
                    let (sled, size) = (*sled, *size);
                    self.hold(*vmm, VmmEntry { instance: id, sled, size, is_journaled: true, is_held: true });
                }
                self.charge(id, Some(*size));
            }
            InstanceEvent::SagaUnwound { undone, .. } if undone.contains(&Step::Reserve) => {
                self.charge(id, None);
            }
            InstanceEvent::Updated(update) if update.active.is_none() => self.charge(id, None),
            InstanceEvent::VmmGone { vmm, .. } => self.release(*vmm),
            InstanceEvent::VmmReaped { vmm } => {
                self.retire(*vmm);
                if self.instances.get(&id).is_some_and(|entry| entry.is_deleted && entry.vmms == 0) {
                    self.free_address(id);
                }
            }
            InstanceEvent::Deleted => {
                self.free_name(id);
                let Some(entry) = self.instances.get_mut(&id) else {
                    return;
                };
                entry.is_deleted = true;
                if entry.vmms == 0 {
                    self.free_address(id);
                }
            }
            InstanceEvent::StartNotPlaced { .. }
            | InstanceEvent::SagaAdvanced { .. }
            | InstanceEvent::SagaUnwound { .. }
            | InstanceEvent::SagaEnded { .. }
            | InstanceEvent::VmmReported { .. }
            | InstanceEvent::ReportAnomalous { .. }
            | InstanceEvent::VmmFailed { .. }
            | InstanceEvent::StopRequested { .. }
            | InstanceEvent::StopWithdrawn { .. }
            | InstanceEvent::RebootRequested { .. }
            | InstanceEvent::RebootAnswered { .. }
            | InstanceEvent::Updated(_) => {}
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
            ProjectEvent::Deleted => self.remove_project(id),
        }
    }

    /// Applies an event of `sled/<id>`.
    pub fn apply_sled(&mut self, id: SledId, event: &SledEvent) {
        match event {
            SledEvent::Registered { name, threads, memory, .. } => {
                let room = Room { threads: *threads, memory: *memory };
                let entry = self.sleds.entry(id).or_insert_with(|| SledEntry {
                    name: name.clone(),
                    room,
                    held: Room::default(),
                    is_provisionable: true,
                    is_expunged: false,
                    boot: None,
                });
                entry.name.clone_from(name);
                entry.room = room;
            }
            SledEvent::Booted { boot, epoch } => self.sled_mut(id).boot = Some((*boot, *epoch)),
            SledEvent::ProvisionableChanged { provisionable, .. } => {
                self.sled_mut(id).is_provisionable = *provisionable;
            }
            SledEvent::Expunged { .. } => self.sled_mut(id).is_expunged = true,
        }
    }
}
