//! The sleds' own truth: what runs where, whatever the control plane thinks.

use super::Broken;
use super::log::LogChecks;
use crate::world::names;
use lifecycle::{Generation, InstanceId, MigrationId, VmmId, VmmState as Known};
use sim_sled::machine::Request;
use sled_protocol::{MigrationRuntime, MigrationState, PropolisId, RequestedState, SledVmmState, VmmState};
use std::collections::{BTreeMap, BTreeSet};

/// A VMM that a sled holds.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) sled: u16,
    pub(crate) instance: InstanceId,
    pub(crate) vmm: VmmId,
    pub(crate) is_live: bool,
    pub(crate) is_guest_running: bool,
    /// Whether it runs, or has been told to.
    pub(crate) is_at_work: bool,
    pub(crate) arrival: Option<MigrationRuntime>,
    pub(crate) departure: Option<MigrationRuntime>,
    pub(crate) ncpus: u32,
    /// Threads of the sled.
    pub(crate) threads: u32,
}

/// What reporters said, and where guests are.
#[derive(Default)]
pub(crate) struct GuestChecks {
    said: BTreeMap<PropolisId, (u64, VmmState)>,
    /// Every state that was said, by VMM and generation.
    states: BTreeMap<(VmmId, u64), VmmState>,
    /// Which instances' guests are where: those that run, are paused, or are under way to the VMM.
    hosts: BTreeSet<VmmId>,
    /// Migrations whose guest has left its source, and has come to its target.
    departed: BTreeSet<MigrationId>,
    arrived: BTreeSet<MigrationId>,
    /// VMMs of which a sled was made to say that it does not know them.
    denied: BTreeSet<VmmId>,
    /// VMMs whose guests have shut themselves down, or were told to.
    shut_down: BTreeSet<VmmId>,
}

fn migration(side: &MigrationRuntime) -> MigrationId {
    MigrationId::new(side.migration_id.as_uuid())
}

impl GuestChecks {
    /// I14: a reporter's generation rises on every change; the same one says the same again.
    pub(super) fn reported(
        &mut self,
        sled: u16,
        vmm: PropolisId,
        state: &SledVmmState,
    ) -> Result<(), Broken> {
        let (generation, is) = (state.vmm_state.generation.get(), state.vmm_state.state);
        let id = VmmId::new(vmm.as_uuid());
        self.states.insert((id, generation), is);
        match self.said.insert(vmm, (generation, is)) {
            Some((before, was)) if generation < before || (generation == before && was != is) => {
                let vmm = names::vmm_text(id);
                let detail =
                    format!("s{sled} reported {vmm} as {is:?} g{generation} after {was:?} g{before}");
                Err(Broken::new("I14", detail))
            }
            _ => Ok(()),
        }
    }

    /// I15: what is recorded as a sled's word is its word.
    pub(super) fn was_said(&self, vmm: VmmId, generation: Generation, state: Known) -> Result<(), Broken> {
        let Some(said) = self.states.get(&(vmm, generation.get())) else {
            return Ok(());
        };
        let said = crate::world::wire::vmm_state(*said);
        if said == state {
            return Ok(());
        }
        let text = names::vmm_text(vmm);
        let detail = format!("{text} said {said:?} as g{generation} and the log says {state:?}");
        Err(Broken::new("I15", detail))
    }

    /// What runs at this moment. I1: of an instance at most one VMM runs, but for both sides of its one
    /// migration. I2: at most one guest of an instance runs. I3: what lives on a sled is counted against it,
    /// and fits.
    pub(super) fn seen(&mut self, seen: &[Seen], log: &LogChecks) -> Result<(), Broken> {
        self.remember(seen);
        let mut running: BTreeMap<InstanceId, VmmId> = BTreeMap::new();
        let mut at_work: BTreeMap<InstanceId, Vec<VmmId>> = BTreeMap::new();
        let mut taken: BTreeMap<u16, u32> = BTreeMap::new();
        for seen in seen.iter().filter(|seen| seen.is_live) {
            let text = names::vmm_text(seen.vmm);
            if seen.is_guest_running
                && let Some(other) = running.insert(seen.instance, seen.vmm)
            {
                let (entity, other) = (names::entity(seen.instance), names::vmm_text(other));
                return Err(Broken::new("I2", format!("guests of {entity} run in {other} and {text}")));
            }
            if seen.is_at_work {
                at_work.entry(seen.instance).or_default().push(seen.vmm);
            }
            let is_held = log.ledger.vmm(seen.vmm).is_some_and(|place| place.is_held);
            if !is_held {
                let detail = format!("{text} lives on s{} and its reservation is free", seen.sled);
                return Err(Broken::new("I3", detail));
            }
            let taken = taken.entry(seen.sled).or_insert(0);
            *taken += seen.ncpus;
            if *taken > seen.threads {
                let detail = format!("s{} has {} threads and its VMMs take {taken}", seen.sled, seen.threads);
                return Err(Broken::new("I3", detail));
            }
        }
        let is_pair = |vmms: &[VmmId]| vmms.len() == 2 && log.migrations.are_sides(vmms[0], vmms[1]);
        match at_work.into_iter().find(|(_, vmms)| vmms.len() > 1 && !is_pair(vmms)) {
            None => Ok(()),
            Some((instance, vmms)) => {
                let vmms: Vec<String> = vmms.into_iter().map(names::vmm_text).collect();
                Err(Broken::new("I1", format!("VMMs of {} run: {vmms:?}", names::entity(instance))))
            }
        }
    }

    fn remember(&mut self, seen: &[Seen]) {
        let is_completed = |side: &&MigrationRuntime| side.state == MigrationState::Completed;
        let ended = |side: fn(&Seen) -> Option<&MigrationRuntime>| {
            seen.iter().filter_map(side).filter(is_completed).map(migration).collect::<Vec<_>>()
        };
        self.departed.extend(ended(|seen| seen.departure.as_ref()));
        self.arrived.extend(ended(|seen| seen.arrival.as_ref()));
        self.hosts.clear();
        for seen in seen.iter().filter(|seen| seen.is_live) {
            let is_open = |side: &MigrationRuntime| !side.state.is_terminal();
            let is_paused = seen.departure.as_ref().is_some_and(is_open);
            let is_awaited = seen
                .arrival
                .as_ref()
                .is_some_and(|side| is_open(side) && self.departed.contains(&migration(side)));
            if seen.is_guest_running || is_paused || is_awaited {
                self.hosts.insert(seen.vmm);
            }
        }
    }

    /// Whether the guest of a migration has come to its target, by its sled's own word.
    pub(super) fn has_arrived(&self, id: MigrationId) -> bool {
        self.arrived.contains(&id)
    }

    pub(super) fn shuts_down(&mut self, vmm: PropolisId) {
        self.shut_down.insert(VmmId::new(vmm.as_uuid()));
    }

    /// A sled was told something: a guest that is stopped because somebody asked for it shuts down.
    pub(super) fn told(&mut self, request: &Request, log: &LogChecks) {
        if let Request::SetState { vmm, body } = request
            && body.state == RequestedState::Stopped
            && log.losses.is_excused(VmmId::new(vmm.as_uuid()))
        {
            self.shuts_down(*vmm);
        }
    }

    pub(super) fn has_shut_down_in(&self, vmms: &[VmmId]) -> bool {
        vmms.iter().any(|vmm| self.shut_down.contains(vmm))
    }

    /// A sled was made to say that it does not know a VMM: what the control plane makes of it is no fault of
    /// its own.
    pub(super) fn denied(&mut self, request: &Request) {
        self.denied.extend(vmm_of(request));
    }

    /// I30: the control plane ends no guest that runs, unless somebody asked for that, or nobody could know of
    /// the guest.
    pub(super) fn may_end(&self, request: &Request, log: &LogChecks) -> Result<(), Broken> {
        let ends = match request {
            Request::Unregister { .. } => true,
            Request::SetState { body, .. } => body.state == RequestedState::Stopped,
            _ => false,
        };
        let Some(vmm) = vmm_of(request).filter(|_| ends) else {
            return Ok(());
        };
        if !self.hosts.contains(&vmm) || self.denied.contains(&vmm) || log.losses.is_excused(vmm) {
            return Ok(());
        }
        let detail = format!("{} holds a guest that nobody asked to end", names::vmm_text(vmm));
        Err(Broken::new("I30", detail))
    }
}

fn vmm_of(request: &Request) -> Option<VmmId> {
    match request {
        Request::Register { vmm, .. }
        | Request::Unregister { vmm, .. }
        | Request::SetState { vmm, .. }
        | Request::GetState { vmm } => Some(VmmId::new(vmm.as_uuid())),
        _ => None,
    }
}
