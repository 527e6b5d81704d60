//! Grants: given in memory, counted at once, and taken back only by name.

use super::{Entry, Ledger, SUBNET_FIRST, SUBNET_LAST};
use crate::ids::{InstanceId, ProjectId, VmmId};
use crate::rejected::{Rejected, Shortage};
use crate::spec::Address;
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

    /// Ends a room grant without its having been journaled.
    pub fn drop_room(&mut self, vmm: VmmId) {
        let open = self.vmms.get(&vmm).filter(|entry| !entry.is_journaled);
        if let Some((instance, size, is_charging)) = open.map(|e| (e.instance, e.size, e.is_charging)) {
            if is_charging {
                self.promise(instance, size, false);
            }
            self.release(vmm);
            self.forget(vmm);
        }
    }

    /// Grants that are neither journaled nor dropped: instances and VMMs of the given instance.
    pub fn open_grants(&self, id: InstanceId) -> (bool, Vec<VmmId>) {
        let Some(entry) = self.instances.get(&id) else {
            return (false, Vec::new());
        };
        let is_open = |vmm: &&VmmId| !self.vmms[*vmm].is_journaled;
        (!entry.is_journaled, entry.vmms.iter().filter(is_open).copied().collect())
    }
}

/// A locally administered address that is unique within the project because the virtual IP is.
fn mac_of(address: u32) -> [u8; 6] {
    let [a, b, c, d] = address.to_be_bytes();
    [0xa8, 0x40, a, b, c, d]
}
