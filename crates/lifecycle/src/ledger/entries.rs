//! The entries, and how they come and go: used by grants and by facts alike.

use super::{
    Entry, InstanceEntry, Ledger, ProjectEntry, REAPED_MAX, Room, SUBNET_FIRST, SUBNET_LAST, SledEntry,
    VmmEntry,
};
use crate::ids::{InstanceId, ProjectId, SledId, VmmId};
use crate::quota::{Quota, Totals};
use crate::spec::Size;
use std::collections::{BTreeMap, BTreeSet};

impl Ledger {
    pub(super) fn insert_project(&mut self, id: ProjectId, name: &str, vni: u32, state: Entry) {
        let addresses = BTreeSet::new();
        let next_address = SUBNET_FIRST;
        let entry = ProjectEntry {
            name: name.to_owned(),
            vni,
            state,
            instances: 0,
            addresses,
            next_address,
            quota: Quota::default(),
            groups: BTreeMap::new(),
        };
        let replaced = self.projects.insert(id, entry);
        assert!(replaced.is_none(), "a project is granted once");
        self.project_names.insert(name.to_owned(), id);
        self.vnis.insert(vni);
    }

    pub(super) fn remove_project(&mut self, id: ProjectId) {
        let project = self.projects.remove(&id).expect("only what exists is removed");
        self.project_names.remove(&project.name);
        if project.addresses.is_empty() {
            self.vnis.remove(&project.vni);
        } else {
            // A deleted instance may still have a VMM on its network.
            self.retired.insert(id, (project.vni, project.addresses));
        }
        self.charged.remove(&id);
    }

    pub(super) fn insert_instance(
        &mut self,
        id: InstanceId,
        project: ProjectId,
        name: &str,
        address: u32,
        is_journaled: bool,
    ) {
        let Some(owner) = self.projects.get_mut(&project) else {
            assert!(is_journaled, "only a fact can name a project that is gone");
            return;
        };
        owner.instances += 1;
        owner.addresses.insert(address);
        owner.next_address = if address >= SUBNET_LAST { SUBNET_FIRST } else { address + 1 };
        let name = name.to_owned();
        let taken = self.instance_names.insert((project, name.clone()), id);
        assert!(taken.is_none() || is_journaled, "a name is granted once");
        let entry = InstanceEntry {
            project,
            name,
            address,
            is_journaled,
            is_deleted: false,
            charge: None,
            vmms: Vec::new(),
            groups: BTreeSet::new(),
            reaped: Vec::new(),
        };
        self.instances.insert(id, entry);
    }

    pub(super) fn free_name(&mut self, id: InstanceId) {
        let Some(entry) = self.instances.get(&id) else {
            return;
        };
        let key = (entry.project, entry.name.clone());
        let groups = entry.groups.clone();
        if self.instance_names.get(&key) == Some(&id) {
            self.instance_names.remove(&key);
        }
        if let Some(project) = self.projects.get_mut(&key.0) {
            project.instances = project.instances.saturating_sub(1);
            for group in groups {
                if let Some(group) = project.groups.get_mut(&group) {
                    group.members.remove(&id);
                }
            }
        }
    }

    /// The last that is held of an instance.
    pub(super) fn free_address(&mut self, id: InstanceId) {
        let Some(entry) = self.instances.remove(&id) else {
            return;
        };
        if let Some(project) = self.projects.get_mut(&entry.project) {
            project.addresses.remove(&entry.address);
        } else if let Some((vni, addresses)) = self.retired.get_mut(&entry.project) {
            addresses.remove(&entry.address);
            if addresses.is_empty() {
                self.vnis.remove(vni);
                self.retired.remove(&entry.project);
            }
        }
        for vmm in entry.reaped {
            self.vmms.remove(&vmm);
        }
    }

    pub(super) fn hold(&mut self, vmm: VmmId, entry: VmmEntry) {
        let sled = self.sled_mut(entry.sled);
        sled.held.add(Room::of(entry.size));
        sled.vmms.insert(vmm);
        if let Some(instance) = self.instances.get_mut(&entry.instance) {
            instance.vmms.push(vmm);
        }
        let replaced = self.vmms.insert(vmm, entry);
        assert!(replaced.is_none(), "a VMM is granted once");
    }

    pub(super) fn release(&mut self, vmm: VmmId) {
        let entry = self.vmms.get_mut(&vmm).expect("only what is held is released");
        assert!(entry.is_held, "released once");
        entry.is_held = false;
        let (sled, size) = (entry.sled, entry.size);
        let sled = self.sled_mut(sled);
        sled.held.remove(Room::of(size));
        sled.is_shrunk &= !sled.room.holds(sled.held);
        sled.vmms.remove(&vmm);
    }

    /// Takes back a VMM that was granted and never journaled.
    pub(super) fn forget(&mut self, vmm: VmmId) {
        let entry = self.vmms.remove(&vmm).expect("forgotten once");
        if let Some(instance) = self.instances.get_mut(&entry.instance) {
            instance.vmms.retain(|id| *id != vmm);
        }
    }

    /// Keeps a VMM that is over among the last few of its instance.
    pub(super) fn retire(&mut self, vmm: VmmId) {
        let owner = self.vmms.get(&vmm).expect("only what was held is reaped").instance;
        let Some(instance) = self.instances.get_mut(&owner) else {
            return;
        };
        instance.vmms.retain(|id| *id != vmm);
        instance.reaped.push(vmm);
        if instance.reaped.len() > REAPED_MAX {
            let oldest = instance.reaped.remove(0);
            self.vmms.remove(&oldest);
        }
    }

    pub(super) fn charge(&mut self, id: InstanceId, charge: Option<Size>) {
        let Some(entry) = self.instances.get_mut(&id) else {
            return;
        };
        let totals = self.charged.entry(entry.project).or_default();
        if let Some(before) = std::mem::replace(&mut entry.charge, charge) {
            totals.remove(before);
            self.charged_in_all.remove(before);
        }
        if let Some(size) = charge {
            totals.add(size);
            self.charged_in_all.add(size);
        }
        if *totals == Totals::default() {
            let project = entry.project;
            self.charged.remove(&project);
        }
    }

    pub(super) fn sled_mut(&mut self, id: SledId) -> &mut SledEntry {
        self.sleds.get_mut(&id).expect("a sled registers first")
    }

    /// Counts a grant that will charge against quotas, or no longer, because it was journaled or dropped.
    pub(super) fn promise(&mut self, instance: InstanceId, size: Size, is_open: bool) {
        let Some(project) = self.instances.get(&instance).map(|entry| entry.project) else {
            return;
        };
        let totals = self.promised.entry(project).or_default();
        if is_open {
            totals.add(size);
            self.promised_in_all.add(size);
        } else {
            totals.remove(size);
            self.promised_in_all.remove(size);
        }
        if *totals == Totals::default() {
            self.promised.remove(&project);
        }
    }
}
