//! Grants: given in memory, counted at once, and taken back only by name.

use super::{Entry, Ledger, SUBNET_FIRST, SUBNET_LAST, SledEntry, VmmEntry};
use crate::ids::{InstanceId, ProjectId, SledId, VmmId};
use crate::rejected::{Rejected, Shortage};
use crate::spec::{Address, Size};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// First virtual network identifier for guests; those below are the system's.
const VNI_FIRST: u32 = 1024;
/// Largest virtual network identifier.
const VNI_LAST: u32 = (1 << 24) - 1;

impl Ledger {
    /// Grants a project its name and a virtual network.
    pub fn grant_project(&mut self, id: ProjectId, name: &str) -> Result<u32, Rejected> {
        if self.project_names.contains_key(name) {
            return Err(Rejected::NameTaken { what: "project", name: name.to_owned() });
        }
        let last = self.vnis.last().copied().unwrap_or(VNI_FIRST - 1);
        let vni = if last < VNI_LAST {
            last + 1
        } else {
            (VNI_FIRST..=VNI_LAST)
                .find(|vni| !self.vnis.contains(vni))
                .ok_or(Rejected::Short(Shortage::Addresses))?
        };
        self.insert_project(id, name, vni, Entry::Granted);
        Ok(vni)
    }

    /// Grants the deletion of an empty project: nothing can be created in it until it is journaled or
    /// dropped.
    pub fn grant_project_delete(&mut self, id: ProjectId) -> Result<(), Rejected> {
        let project = self.projects.get_mut(&id).ok_or(Rejected::NoSuchProject(id))?;
        match project.state {
            Entry::Granted | Entry::Closing => Err(Rejected::NoSuchProject(id)),
            Entry::Journaled if project.instances > 0 => {
                Err(Rejected::ProjectNotEmpty { instances: project.instances })
            }
            Entry::Journaled => {
                project.state = Entry::Closing;
                Ok(())
            }
        }
    }

    /// Ends a project's grant without its having been journaled.
    pub fn drop_project(&mut self, id: ProjectId) {
        match self.projects.get_mut(&id).map(|project| &mut project.state) {
            Some(Entry::Granted) => self.remove_project(id),
            Some(state @ Entry::Closing) => *state = Entry::Journaled,
            Some(Entry::Journaled) | None => {}
        }
    }

    /// Whether the project takes new instances and the name is free.
    pub fn may_grant_instance(&self, project: ProjectId, name: &str) -> Result<(), Rejected> {
        let entry = self.projects.get(&project).ok_or(Rejected::NoSuchProject(project))?;
        if entry.state != Entry::Journaled {
            return Err(Rejected::NoSuchProject(project));
        }
        if self.instance_names.contains_key(&(project, name.to_owned())) {
            return Err(Rejected::NameTaken { what: "instance", name: name.to_owned() });
        }
        Ok(())
    }

    /// Grants a new instance its name, its address and its membership.
    pub fn grant_instance(
        &mut self,
        id: InstanceId,
        project: ProjectId,
        name: &str,
    ) -> Result<Address, Rejected> {
        self.may_grant_instance(project, name)?;
        let entry = &self.projects[&project];
        let free = (entry.next_address..=SUBNET_LAST)
            .chain(SUBNET_FIRST..entry.next_address)
            .find(|address| !entry.addresses.contains(address));
        let address = free.ok_or(Rejected::Short(Shortage::Addresses))?;
        let vni = entry.vni;
        self.insert_instance(id, project, name, address, false);
        Ok(Address { virtual_ip: Ipv4Addr::from(address), mac: mac_of(address), vni })
    }

    /// Ends an instance's grant without its having been journaled.
    pub fn drop_instance(&mut self, id: InstanceId) {
        if self.instances.get(&id).is_some_and(|instance| !instance.is_journaled) {
            self.free_name(id);
            self.free_address(id);
        }
    }

    /// Grants room for a VMM on the least loaded sled that has it; `dice` breaks ties.
    pub fn grant_room(
        &mut self,
        instance: InstanceId,
        vmm: VmmId,
        size: Size,
        dice: u64,
    ) -> Result<SledId, Shortage> {
        self.grant_room_rather_off(instance, vmm, size, dice, &BTreeSet::new())
    }

    /// The same, and rather not on the sleds in `avoid`: those that do not answer at present are taken only
    /// if no other has room.
    pub fn grant_room_rather_off(
        &mut self,
        instance: InstanceId,
        vmm: VmmId,
        size: Size,
        dice: u64,
        avoid: &BTreeSet<SledId>,
    ) -> Result<SledId, Shortage> {
        let open: Vec<(SledId, &SledEntry)> = self
            .sleds
            .iter()
            .filter(|(_, sled)| sled.is_provisionable && !sled.is_expunged && sled.boot.is_some())
            .map(|(id, sled)| (*id, sled))
            .collect();
        if open.is_empty() {
            return Err(Shortage::NoSled);
        }
        let fitting: Vec<((bool, u64), SledId)> = open
            .iter()
            .filter(|(_, sled)| sled.room.free(sled.held).fits(size))
            .map(|(id, sled)| ((avoid.contains(id), load_with(sled, size)), *id))
            .collect();
        let Some(best) = fitting.iter().map(|(rank, _)| *rank).min() else {
            let free = open.iter().map(|(_, sled)| sled.room.free(sled.held));
            return Err(Shortage::Room {
                wanted: size,
                threads_free_max: free.clone().map(|room| room.threads).max().unwrap_or(0),
                memory_free_max: free.map(|room| room.memory).max().unwrap_or(0),
            });
        };
        let tied: Vec<SledId> = fitting.iter().filter(|(rank, _)| *rank == best).map(|(_, id)| *id).collect();
        let sled = tied[(dice % tied.len() as u64) as usize];
        self.hold(vmm, VmmEntry { instance, sled, size, is_journaled: false, is_held: true });
        Ok(sled)
    }

    /// Ends a room grant without its having been journaled.
    pub fn drop_room(&mut self, vmm: VmmId) {
        if self.vmms.get(&vmm).is_some_and(|entry| !entry.is_journaled) {
            self.release(vmm);
            self.forget(vmm);
        }
    }

    /// Grants that are neither journaled nor dropped: instances and VMMs of the given instance.
    pub fn open_grants(&self, id: InstanceId) -> (bool, Vec<VmmId>) {
        let instance = self.instances.get(&id).is_some_and(|entry| !entry.is_journaled);
        let is_open = |(_, entry): &(&VmmId, &VmmEntry)| entry.instance == id && !entry.is_journaled;
        (instance, self.vmms.iter().filter(is_open).map(|(vmm, _)| *vmm).collect())
    }
}

/// How full a sled would be with one more, in millionths of the scarcer resource.
fn load_with(sled: &SledEntry, size: Size) -> u64 {
    let share = |held: u64, more: u64, all: u64| (held + more).saturating_mul(1_000_000) / all.max(1);
    let threads = share(u64::from(sled.held.threads), u64::from(size.ncpus), u64::from(sled.room.threads));
    // In MiB, so that the product stays far from overflow.
    let memory = share(sled.held.memory >> 20, size.memory >> 20, sled.room.memory >> 20);
    threads.max(memory)
}

/// A locally administered address that is unique within the project because the virtual IP is.
fn mac_of(address: u32) -> [u8; 6] {
    let [a, b, c, d] = address.to_be_bytes();
    [0xa8, 0x40, a, b, c, d]
}
