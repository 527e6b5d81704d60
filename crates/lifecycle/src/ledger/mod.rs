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
//! * an instance's name is free once it is deleted, its address once its VMMs are gone too; a project's network
//!   once the last of its addresses is.

mod entries;
mod fold;
mod grants;
mod placement;

pub use placement::RoomAsk;

use crate::group::GroupPolicy;
use crate::ids::{BootId, GroupId, InstanceId, LeaseEpoch, ProjectId, SledId, VmmId};
use crate::quota::{Quota, Totals};
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
    /// Networks of deleted projects on which a VMM may still be: their VNI, and the addresses that are held.
    retired: BTreeMap<ProjectId, (u32, BTreeSet<u32>)>,
    instances: BTreeMap<InstanceId, InstanceEntry>,
    instance_names: BTreeMap<(ProjectId, String), InstanceId>,
    sleds: BTreeMap<SledId, SledEntry>,
    vmms: BTreeMap<VmmId, VmmEntry>,
    charged: BTreeMap<ProjectId, Totals>,
    charged_in_all: Totals,
    /// What open grants will charge, once journaled: quotas count it.
    promised: BTreeMap<ProjectId, Totals>,
    promised_in_all: Totals,
    silo_quota: Quota,
    fleet_quota: Quota,
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
    quota: Quota,
    groups: BTreeMap<GroupId, GroupEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GroupEntry {
    name: String,
    policy: GroupPolicy,
    members: BTreeSet<InstanceId>,
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
    /// Its VMMs, until they are reaped.
    vmms: Vec<VmmId>,
    groups: BTreeSet<GroupId>,
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
    /// Whether its grant, once journaled, charges provisioning: a start's does, a migration target's does not.
    is_charging: bool,
    /// Fingerprint of the newest report that was folded.
    heard: u64,
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
    /// Fingerprint of its newest report that was folded ([`crate::input::VmmReport::fingerprint`]): one that
    /// says the same again is no news.
    pub heard: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SledEntry {
    name: String,
    room: Room,
    held: Room,
    /// Whether it registered with less than is held on it: nothing new fits until enough has gone.
    is_shrunk: bool,
    /// VMMs that may still be on it.
    vmms: BTreeSet<VmmId>,
    cpu_family: String,
    address: String,
    is_provisionable: bool,
    is_expunged: bool,
    boot: Option<(BootId, LeaseEpoch)>,
    is_lapsed: bool,
}

/// Threads and memory of a sled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Hardware threads.
    pub threads: u32,
    /// Memory, bytes.
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
    /// Whether it registered with less than is held on it.
    pub is_shrunk: bool,
    /// Whether new VMMs may be placed on it.
    pub is_provisionable: bool,
    /// Whether an operator took it out for good.
    pub is_expunged: bool,
    /// Its CPU family.
    pub cpu_family: String,
    /// Boot and lease epoch.
    pub boot: Option<(BootId, LeaseEpoch)>,
    /// Whether its lease has expired and it has not registered since.
    pub is_lapsed: bool,
}

impl Room {
    fn of(size: Size) -> Self {
        Self { threads: u32::from(size.ncpus), memory: size.memory }
    }

    fn holds(self, held: Self) -> bool {
        held.threads <= self.threads && held.memory <= self.memory
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
            heard: entry.heard,
        })
    }

    /// Whether the sled has ever registered.
    pub fn has_sled(&self, id: SledId) -> bool {
        self.sleds.contains_key(&id)
    }

    /// VMMs of a sled that may still be on it.
    pub fn vmms_on(&self, sled: SledId) -> impl Iterator<Item = (VmmId, InstanceId)> + '_ {
        let held = self.sleds.get(&sled).into_iter().flat_map(|sled| &sled.vmms);
        held.map(|id| (*id, self.vmms[id].instance))
    }

    /// Where the sled's agent listens; none if it never registered.
    pub fn sled_address(&self, sled: SledId) -> Option<&str> {
        self.sleds.get(&sled).map(|sled| sled.address.as_str())
    }

    /// The project of an instance that is not deleted.
    pub fn project_of(&self, id: InstanceId) -> Option<ProjectId> {
        self.instances.get(&id).filter(|entry| entry.is_journaled && !entry.is_deleted).map(|e| e.project)
    }

    /// Limits of the silo and of the fleet.
    pub fn quotas(&self) -> (Quota, Quota) {
        (self.silo_quota, self.fleet_quota)
    }

    /// Limit of a project.
    pub fn project_quota(&self, id: ProjectId) -> Quota {
        self.projects.get(&id).map(|project| project.quota).unwrap_or_default()
    }

    /// Provisioning charged to the silo, and to the fleet: there is one silo.
    pub fn charged_in_all(&self) -> Totals {
        self.charged_in_all
    }

    /// Every sled's load, by id.
    pub fn sleds(&self) -> impl Iterator<Item = SledLoad> + '_ {
        self.sleds.iter().map(|(id, sled)| load(*id, sled))
    }

    /// One sled's load; none if it never registered.
    pub fn sled(&self, id: SledId) -> Option<SledLoad> {
        self.sleds.get(&id).map(|sled| load(id, sled))
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

fn load(id: SledId, sled: &SledEntry) -> SledLoad {
    SledLoad {
        id,
        name: sled.name.clone(),
        room: sled.room,
        held: sled.held,
        is_shrunk: sled.is_shrunk,
        is_provisionable: sled.is_provisionable && !sled.is_expunged,
        is_expunged: sled.is_expunged,
        cpu_family: sled.cpu_family.clone(),
        boot: sled.boot,
        is_lapsed: sled.is_lapsed,
    }
}
