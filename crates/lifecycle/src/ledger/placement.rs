//! Placement: which sled a VMM goes to, and what is short if none takes it.
//!
//! Invariants:
//! * quotas are asked first: what may not be charged needs no sled;
//! * of the sleds that fit, the least loaded is taken; those that share no soft group with it, and those
//!   that answer, come first; dice break ties;
//! * a refusal names what was short at the sleds that came closest.

use super::{Ledger, Room, SledEntry, VmmEntry};
use crate::decide::Purpose;
use crate::group::GroupPolicy;
use crate::ids::{InstanceId, SledId, VmmId};
use crate::quota::{QuotaResource, QuotaScope};
use crate::rejected::{Shortage, SledUnfit};
use crate::spec::Size;
use std::collections::BTreeSet;

/// A wish for room.
#[derive(Clone, Copy, Debug)]
pub struct RoomAsk<'a> {
    /// Whose VMM.
    pub instance: InstanceId,
    /// Its id.
    pub vmm: VmmId,
    /// How much it needs.
    pub size: Size,
    /// What for.
    pub purpose: &'a Purpose,
    /// The sled that it must be, if one was named.
    pub to: Option<SledId>,
    /// Breaks ties.
    pub dice: u64,
    /// Sleds that do not answer at present: taken only if no other fits.
    pub avoid: &'a BTreeSet<SledId>,
    /// Sleds that hold more than the log can tell: none is taken.
    pub shut: &'a BTreeSet<SledId>,
}

/// Sleds where other members of the instance's groups are.
#[derive(Default)]
struct Neighbours {
    hard: BTreeSet<SledId>,
    soft: BTreeSet<SledId>,
    /// Name of a group that must be kept apart.
    group: String,
}

impl Ledger {
    /// Grants room for a VMM.
    pub fn grant_room(&mut self, ask: &RoomAsk<'_>) -> Result<SledId, Shortage> {
        let is_charging = matches!(ask.purpose, Purpose::Start { .. });
        if is_charging {
            self.quota_short(ask.instance, ask.size)?;
        }
        let sled = self.place(ask)?;
        let (instance, size) = (ask.instance, ask.size);
        if is_charging {
            self.promise(instance, size, true);
        }
        self.hold(
            ask.vmm,
            VmmEntry { instance, sled, size, is_journaled: false, is_held: true, is_charging, heard: 0 },
        );
        Ok(sled)
    }

    fn quota_short(&self, instance: InstanceId, size: Size) -> Result<(), Shortage> {
        let Some(project) = self.instances.get(&instance).map(|entry| entry.project) else {
            return Ok(());
        };
        let mut in_project = self.charged(project);
        if let Some(promised) = self.promised.get(&project) {
            in_project.cpus += promised.cpus;
            in_project.memory += promised.memory;
        }
        let mut in_all = self.charged_in_all;
        in_all.cpus += self.promised_in_all.cpus;
        in_all.memory += self.promised_in_all.memory;
        for (scope, quota, used) in [
            (QuotaScope::Project, self.project_quota(project), in_project),
            (QuotaScope::Silo, self.silo_quota, in_all),
            (QuotaScope::Fleet, self.fleet_quota, in_all),
        ] {
            if let Some((resource, limit, used)) = quota.short(used, size) {
                let wanted = match resource {
                    QuotaResource::Cpus => u64::from(size.ncpus),
                    QuotaResource::Memory => size.memory,
                };
                return Err(Shortage::Quota { scope, resource, limit, used, wanted });
            }
        }
        Ok(())
    }

    fn place(&self, ask: &RoomAsk<'_>) -> Result<SledId, Shortage> {
        let near = self.neighbours(ask.instance);
        if let Some(to) = ask.to {
            let Some(sled) = self.sleds.get(&to) else {
                return Err(Shortage::ThatSled { why: SledUnfit::Unknown });
            };
            return match self.unfit(to, sled, ask, &near) {
                Some(why) => Err(Shortage::ThatSled { why }),
                None => Ok(to),
            };
        }
        let rank = |id: &SledId, sled: &SledEntry| {
            (near.soft.contains(id), ask.avoid.contains(id), load_with(sled, ask.size))
        };
        let fitting: Vec<_> = self
            .sleds
            .iter()
            .filter(|(id, sled)| self.unfit(**id, sled, ask, &near).is_none())
            .map(|(id, sled)| (rank(id, sled), *id))
            .collect();
        let Some(best) = fitting.iter().map(|(rank, _)| *rank).min() else {
            return Err(self.shortage(ask, &near));
        };
        let tied: Vec<SledId> = fitting.iter().filter(|(rank, _)| *rank == best).map(|(_, id)| *id).collect();
        Ok(tied[usize::try_from(ask.dice % tied.len() as u64).expect("below the number of sleds")])
    }

    /// The first reason why a sled does not take it.
    fn unfit(&self, id: SledId, sled: &SledEntry, ask: &RoomAsk<'_>, near: &Neighbours) -> Option<SledUnfit> {
        let is_open = sled.is_provisionable && !sled.is_expunged && sled.boot.is_some() && !sled.is_lapsed;
        if !is_open || ask.shut.contains(&id) {
            return Some(SledUnfit::NotProvisionable);
        }
        if matches!(ask.purpose, Purpose::Migrate { source } if *source == id) {
            return Some(SledUnfit::IsSource);
        }
        if let Purpose::Migrate { source } = ask.purpose
            && self.sleds.get(source).is_some_and(|source| is_remote(source) != is_remote(sled))
        {
            return Some(SledUnfit::OtherFabric);
        }
        if self.family_wanted(ask.purpose).is_some_and(|family| family != sled.cpu_family) {
            return Some(SledUnfit::CpuFamily);
        }
        if near.hard.contains(&id) {
            return Some(SledUnfit::Spread);
        }
        if !sled.room.free(sled.held).fits(ask.size) {
            return Some(SledUnfit::Room);
        }
        None
    }

    /// A guest that moves keeps the family that it has been running on.
    fn family_wanted<'a>(&'a self, purpose: &'a Purpose) -> Option<&'a str> {
        match purpose {
            Purpose::Start { cpu_family } => cpu_family.as_deref(),
            Purpose::Migrate { source } => self.sleds.get(source).map(|sled| sled.cpu_family.as_str()),
        }
    }

    /// What was short at the sleds that came closest.
    fn shortage(&self, ask: &RoomAsk<'_>, near: &Neighbours) -> Shortage {
        let reasons = || self.sleds.iter().filter_map(|(id, sled)| self.unfit(*id, sled, ask, near));
        match reasons().max() {
            None | Some(SledUnfit::Unknown | SledUnfit::NotProvisionable) => Shortage::NoSled,
            Some(SledUnfit::IsSource | SledUnfit::OtherFabric) => Shortage::NoOtherSled,
            Some(SledUnfit::CpuFamily) => {
                let wanted = self.family_wanted(ask.purpose).unwrap_or_default().to_owned();
                Shortage::CpuFamily { wanted }
            }
            Some(SledUnfit::Spread) => Shortage::Spread { group: near.group.clone() },
            Some(SledUnfit::Room) => {
                let full = self
                    .sleds
                    .iter()
                    .filter(|(id, sled)| self.unfit(**id, sled, ask, near) == Some(SledUnfit::Room))
                    .map(|(_, sled)| sled.room.free(sled.held));
                Shortage::Room {
                    wanted: ask.size,
                    threads_free_max: full.clone().map(|room: Room| room.threads).max().unwrap_or(0),
                    memory_free_max: full.map(|room| room.memory).max().unwrap_or(0),
                }
            }
        }
    }

    fn neighbours(&self, id: InstanceId) -> Neighbours {
        let mut near = Neighbours::default();
        let Some(entry) = self.instances.get(&id) else {
            return near;
        };
        let Some(project) = self.projects.get(&entry.project) else {
            return near;
        };
        for group in entry.groups.iter().filter_map(|group| project.groups.get(group)) {
            let others = group.members.iter().filter(|member| **member != id);
            let vmms = others.filter_map(|member| self.instances.get(member)).flat_map(|member| &member.vmms);
            let sleds = vmms.map(|vmm| &self.vmms[vmm]).filter(|vmm| vmm.is_held).map(|vmm| vmm.sled);
            match group.policy {
                GroupPolicy::Allow => near.soft.extend(sleds),
                GroupPolicy::Fail => {
                    near.hard.extend(sleds);
                    near.group.clone_from(&group.name);
                }
            }
        }
        near
    }
}

/// Whether its agent listens on a network: one in this process goes by its name.
fn is_remote(sled: &SledEntry) -> bool {
    sled.address.contains(':')
}

/// How full a sled would be with one more, in millionths of the scarcer resource.
fn load_with(sled: &SledEntry, size: Size) -> u64 {
    let share = |held: u64, more: u64, all: u64| (held + more).saturating_mul(1_000_000) / all.max(1);
    let threads = share(u64::from(sled.held.threads), u64::from(size.ncpus), u64::from(sled.room.threads));
    // In MiB, so that the product stays far from overflow.
    let memory = share(sled.held.memory >> 20, size.memory >> 20, sled.room.memory >> 20);
    threads.max(memory)
}
