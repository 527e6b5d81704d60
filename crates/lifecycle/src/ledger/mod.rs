//! What instances share: names, addresses, room on sleds, provisioning. A fold over all streams, plus the
//! grants that have been given and not yet been journaled.
//!
//! A grant is keyed by what it grants (a VMM id, an instance id), and so is the fold: once journaled it is
//! the same entry, so nothing is counted twice or lost between the two, in whatever order the news comes.
//!
//! Grants assert; facts do not. What another stream's facts imply may have been in a part of the log that
//! cannot be read any more, or that came back: the newest owner of a name has it, and
//! [`crate::invariant::check_ledger`] says where two claim one.
//!
//! Invariants:
//! * room held on a sled, by fold and grants together, never exceeds what it has;
//! * a VMM's room is held from its grant until it is confirmed gone; released once, by the fold;
//! * a grant ends by being journaled, by being dropped, or by proof that its stream does not hold it;
//!   never by time;
//! * an instance's name is free once it is deleted, its address once its VMMs are gone too.

mod fold;
mod grants;

use crate::ids::{BootId, InstanceId, LeaseEpoch, ProjectId, SledId, VmmId};
use crate::spec::Size;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// First usable address of every project's subnet, 172.16.0.0/12; the first few are the network's own.
const SUBNET_FIRST: u32 = 0xac10_0005;
/// Last usable address of the subnet.
const SUBNET_LAST: u32 = 0xac1f_fffe;

/// The fold and the open grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    projects: BTreeMap<ProjectId, ProjectEntry>,
    project_names: BTreeMap<String, ProjectId>,
    vnis: BTreeSet<u32>,
    instances: BTreeMap<InstanceId, InstanceEntry>,
    instance_names: BTreeMap<(ProjectId, String), InstanceId>,
    sleds: BTreeMap<SledId, SledEntry>,
    vmms: BTreeMap<VmmId, VmmEntry>,
    charged: BTreeMap<ProjectId, Totals>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ProjectEntry {
    name: String,
    vni: u32,
    state: Entry,
    instances: usize,
    addresses: BTreeSet<u32>,
    /// Where the search for a free address begins: addresses are reused late.
    next_address: u32,
}

/// Whether an entry is a grant or a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Entry {
    Granted,
    Journaled,
    /// A delete has been granted: nothing new may be granted in it.
    Closing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct InstanceEntry {
    project: ProjectId,
    name: String,
    address: u32,
    is_journaled: bool,
    is_deleted: bool,
    charge: Option<Size>,
    vmms: usize,
    /// The last VMMs that were reaped, newest last, so that a late report of one finds out that it is dead.
    reaped: Vec<VmmId>,
}

/// Reaped VMMs remembered per instance: as many as can still have a report under way.
const REAPED_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct VmmEntry {
    instance: InstanceId,
    sled: SledId,
    size: Size,
    is_journaled: bool,
    /// Cleared when it is gone; the entry stays for a while, so that late reports find their way.
    is_held: bool,
}

/// Where a VMM belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmmPlace {
    /// Its instance.
    pub instance: InstanceId,
    /// Its sled.
    pub sled: SledId,
    /// Whether it may still be on its sled.
    pub is_held: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SledEntry {
    name: String,
    room: Room,
    held: Room,
    is_provisionable: bool,
    is_expunged: bool,
    boot: Option<(BootId, LeaseEpoch)>,
}

/// Threads and memory of a sled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Hardware threads.
    pub threads: u32,
    /// Memory, bytes.
    pub memory: u64,
}

/// Provisioning counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Virtual CPUs charged.
    pub cpus: u64,
    /// Memory charged, bytes.
    pub memory: u64,
}

/// One sled's load, for lists and checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SledLoad {
    /// Its id.
    pub id: SledId,
    /// Its name.
    pub name: String,
    /// What it has.
    pub room: Room,
    /// What is held, by fold and grants.
    pub held: Room,
    /// Whether new VMMs may be placed on it.
    pub is_provisionable: bool,
    /// Boot and lease epoch.
    pub boot: Option<(BootId, LeaseEpoch)>,
}

impl Room {
    fn of(size: Size) -> Self {
        Self { threads: u32::from(size.ncpus), memory: size.memory }
    }

    fn fits(self, size: Size) -> bool {
        u32::from(size.ncpus) <= self.threads && size.memory <= self.memory
    }

    fn free(self, held: Self) -> Self {
        Self {
            threads: self.threads.saturating_sub(held.threads),
            memory: self.memory.saturating_sub(held.memory),
        }
    }

    fn add(&mut self, other: Self) {
        self.threads = self.threads.checked_add(other.threads).expect("sizes are bounded");
        self.memory = self.memory.checked_add(other.memory).expect("sizes are bounded");
    }

    fn remove(&mut self, other: Self) {
        self.threads = self.threads.checked_sub(other.threads).expect("released at most once");
        self.memory = self.memory.checked_sub(other.memory).expect("released at most once");
    }
}

/// Look-ups.
impl Ledger {
    /// The project of that name.
    pub fn project_by_name(&self, name: &str) -> Option<ProjectId> {
        let id = self.project_names.get(name).copied()?;
        self.has_project(id).then_some(id)
    }

    /// Whether the project is journaled and not being deleted.
    pub fn has_project(&self, id: ProjectId) -> bool {
        self.projects.get(&id).is_some_and(|project| project.state == Entry::Journaled)
    }

    /// Whether a project of that name exists, is being created or is being deleted.
    pub fn is_project_name_taken(&self, name: &str) -> bool {
        self.project_names.contains_key(name)
    }

    /// Whether the instance exists, is being created, or is deleted and still holds something.
    pub fn has_instance(&self, id: InstanceId) -> bool {
        self.instances.contains_key(&id)
    }

    /// The instance of that name.
    pub fn instance_by_name(&self, project: ProjectId, name: &str) -> Option<InstanceId> {
        let id = self.instance_names.get(&(project, name.to_owned())).copied()?;
        self.instances.get(&id).is_some_and(|entry| entry.is_journaled).then_some(id)
    }

    /// Where a VMM belongs; none if it was never heard of, or died long ago.
    pub fn vmm(&self, id: VmmId) -> Option<VmmPlace> {
        self.vmms.get(&id).map(|entry| VmmPlace {
            instance: entry.instance,
            sled: entry.sled,
            is_held: entry.is_held,
        })
    }

    /// Whether the sled has ever registered.
    pub fn has_sled(&self, id: SledId) -> bool {
        self.sleds.contains_key(&id)
    }

    /// VMMs of a sled that may still be on it.
    pub fn vmms_on(&self, sled: SledId) -> impl Iterator<Item = (VmmId, InstanceId)> + '_ {
        self.vmms
            .iter()
            .filter(move |(_, entry)| entry.sled == sled && entry.is_held)
            .map(|(id, entry)| (*id, entry.instance))
    }

    /// Every sled's load, by id.
    pub fn sleds(&self) -> impl Iterator<Item = SledLoad> + '_ {
        self.sleds.iter().map(|(id, sled)| SledLoad {
            id: *id,
            name: sled.name.clone(),
            room: sled.room,
            held: sled.held,
            is_provisionable: sled.is_provisionable && !sled.is_expunged,
            boot: sled.boot,
        })
    }

    /// Provisioning charged to a project.
    pub fn charged(&self, project: ProjectId) -> Totals {
        self.charged.get(&project).copied().unwrap_or_default()
    }

    /// The fold without the grants: what another fold of the same log must equal.
    #[must_use]
    pub fn without_grants(&self) -> Self {
        let mut fold = self.clone();
        let vmms: Vec<VmmId> = fold.vmms.keys().copied().collect();
        let instances: Vec<InstanceId> = fold.instances.keys().copied().collect();
        let projects: Vec<ProjectId> = fold.projects.keys().copied().collect();
        for id in vmms {
            fold.drop_room(id);
        }
        for id in instances {
            fold.drop_instance(id);
        }
        for id in projects {
            fold.drop_project(id);
        }
        // Where the next address is sought is a hint, not a fact.
        for project in fold.projects.values_mut() {
            project.next_address = SUBNET_FIRST;
        }
        fold
    }
}

impl Ledger {
    fn insert_project(&mut self, id: ProjectId, name: &str, vni: u32, state: Entry) {
        let addresses = BTreeSet::new();
        let next_address = SUBNET_FIRST;
        let entry = ProjectEntry { name: name.to_owned(), vni, state, instances: 0, addresses, next_address };
        let replaced = self.projects.insert(id, entry);
        assert!(replaced.is_none(), "a project is granted once");
        self.project_names.insert(name.to_owned(), id);
        self.vnis.insert(vni);
    }

    fn remove_project(&mut self, id: ProjectId) {
        let project = self.projects.remove(&id).expect("only what exists is removed");
        self.project_names.remove(&project.name);
        self.vnis.remove(&project.vni);
        self.charged.remove(&id);
    }

    fn insert_instance(
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
            vmms: 0,
            reaped: Vec::new(),
        };
        self.instances.insert(id, entry);
    }

    fn free_name(&mut self, id: InstanceId) {
        let Some(entry) = self.instances.get(&id) else {
            return;
        };
        let key = (entry.project, entry.name.clone());
        if self.instance_names.get(&key) == Some(&id) {
            self.instance_names.remove(&key);
        }
        if let Some(project) = self.projects.get_mut(&key.0) {
            project.instances = project.instances.saturating_sub(1);
        }
    }

    /// The last that is held of an instance.
    fn free_address(&mut self, id: InstanceId) {
        let Some(entry) = self.instances.remove(&id) else {
            return;
        };
        if let Some(project) = self.projects.get_mut(&entry.project) {
            project.addresses.remove(&entry.address);
        }
        for vmm in entry.reaped {
            self.vmms.remove(&vmm);
        }
    }

    fn hold(&mut self, vmm: VmmId, entry: VmmEntry) {
        self.sled_mut(entry.sled).held.add(Room::of(entry.size));
        if let Some(instance) = self.instances.get_mut(&entry.instance) {
            instance.vmms += 1;
        }
        let replaced = self.vmms.insert(vmm, entry);
        assert!(replaced.is_none(), "a VMM is granted once");
    }

    fn release(&mut self, vmm: VmmId) {
        let entry = self.vmms.get_mut(&vmm).expect("only what is held is released");
        assert!(entry.is_held, "released once");
        entry.is_held = false;
        let (sled, size) = (entry.sled, entry.size);
        self.sled_mut(sled).held.remove(Room::of(size));
    }

    /// Takes back a VMM that was granted and never journaled.
    fn forget(&mut self, vmm: VmmId) {
        let entry = self.vmms.remove(&vmm).expect("forgotten once");
        if let Some(instance) = self.instances.get_mut(&entry.instance) {
            instance.vmms -= 1;
        }
    }

    /// Keeps a VMM that is over among the last few of its instance.
    fn retire(&mut self, vmm: VmmId) {
        let owner = self.vmms.get(&vmm).expect("only what was held is reaped").instance;
        let Some(instance) = self.instances.get_mut(&owner) else {
            return;
        };
        instance.vmms -= 1;
        instance.reaped.push(vmm);
        if instance.reaped.len() > REAPED_MAX {
            let oldest = instance.reaped.remove(0);
            self.vmms.remove(&oldest);
        }
    }

    fn charge(&mut self, id: InstanceId, charge: Option<Size>) {
        let Some(entry) = self.instances.get_mut(&id) else {
            return;
        };
        let totals = self.charged.entry(entry.project).or_default();
        if let Some(before) = std::mem::replace(&mut entry.charge, charge) {
            totals.cpus = totals.cpus.checked_sub(u64::from(before.ncpus)).expect("released at most once");
            totals.memory = totals.memory.checked_sub(before.memory).expect("released at most once");
        }
        if let Some(size) = charge {
            totals.cpus += u64::from(size.ncpus);
            totals.memory += size.memory;
        }
        if *totals == Totals::default() {
            let project = entry.project;
            self.charged.remove(&project);
        }
    }

    fn sled_mut(&mut self, id: SledId) -> &mut SledEntry {
        self.sleds.get_mut(&id).expect("a sled registers first")
    }
}
