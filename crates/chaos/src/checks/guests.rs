//! The sleds' own truth: what runs where, whatever the control plane thinks.

use super::{Broken, log::LogChecks};
use crate::world::names;
use lifecycle::{InstanceId, VmmId};
use sled_protocol::{PropolisId, SledVmmState, VmmState};
use std::collections::BTreeMap;

/// A VMM that lives on a sled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) sled: u16,
    pub(crate) instance: InstanceId,
    pub(crate) vmm: VmmId,
    pub(crate) is_guest_running: bool,
    pub(crate) ncpus: u32,
    /// Threads of the sled.
    pub(crate) threads: u32,
}

/// What each reporter said last.
#[derive(Default)]
pub(crate) struct GuestChecks {
    said: BTreeMap<PropolisId, (u64, VmmState)>,
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
        match self.said.insert(vmm, (generation, is)) {
            Some((before, was)) if generation < before || (generation == before && was != is) => {
                let vmm = names::vmm_text(VmmId::new(vmm.as_uuid()));
                let detail =
                    format!("s{sled} reported {vmm} as {is:?} g{generation} after {was:?} g{before}");
                Err(Broken::new("I14", detail))
            }
            _ => Ok(()),
        }
    }
}

/// I1: at most one guest of an instance runs. I3: what lives on a sled is counted against it, and fits.
pub(super) fn check(seen: &[Seen], log: &LogChecks) -> Result<(), Broken> {
    let mut running: BTreeMap<InstanceId, VmmId> = BTreeMap::new();
    let mut taken: BTreeMap<u16, u32> = BTreeMap::new();
    for seen in seen {
        let text = names::vmm_text(seen.vmm);
        if seen.is_guest_running
            && let Some(other) = running.insert(seen.instance, seen.vmm)
        {
            let detail = format!(
                "guests of {} run in {} and {text}",
                names::entity(seen.instance),
                names::vmm_text(other)
            );
            return Err(Broken::new("I1", detail));
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
    Ok(())
}
