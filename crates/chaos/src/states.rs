//! Distinct abstract states: how much of what can be was met, and whether more seeds meet more.
//!
//! Three measures, from coarse to fine: what is decided in which state, the state of one instance without its
//! numbers, and the states of all instances together, without saying whose is whose. When a measure no longer grows
//! with the seeds, the generator has to change, not the number of seeds.

use crate::draws::mix;
use lifecycle::{Instance, InstanceId, RunState};
use std::collections::{BTreeMap, BTreeSet};

/// What one run met, as hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Met {
    decided: BTreeSet<u64>,
    instances: BTreeSet<u64>,
    fleets: BTreeSet<u64>,
}

/// What a campaign met, each with the smallest seed that met it: so it does not depend on threads.
#[derive(Clone, Debug, Default)]
pub struct States {
    decided: BTreeMap<u64, u64>,
    instances: BTreeMap<u64, u64>,
    fleets: BTreeMap<u64, u64>,
}

/// How much the first seeds of a campaign met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// How many seeds.
    pub seeds: u64,
    /// Distinct pairs of an instance's visible state and an event.
    pub decided: u64,
    /// Distinct states of one instance.
    pub instances: u64,
    /// Distinct multisets of the visible states of all instances.
    pub fleets: u64,
}

const SALT: u64 = 0x6d75_7368;

fn hash(parts: impl IntoIterator<Item = u64>) -> u64 {
    parts.into_iter().fold(SALT, |hash, part| mix(hash ^ part))
}

fn of_text(text: &str) -> u64 {
    hash(text.bytes().map(u64::from))
}

/// An instance without ids, times and sizes.
fn shape(state: &Instance) -> u64 {
    let saga = state.saga.as_ref().map_or(0, |saga| 1 + (saga.kind as u64) * 64 + saga.step as u64);
    let orders =
        [state.stop.is_some(), state.reboot.is_some(), state.failed.is_some(), state.deleted.is_some()];
    let sides = state.linked_migration().map_or(0, |migration| {
        1 + (migration.source.state as u64) * 16
            + (migration.target.state as u64) * 2
            + u64::from(migration.cancelled.is_some())
    });
    let vmm = |vmm: &lifecycle::vmm::Vmm| {
        let place = u64::from(state.active == Some(vmm.id)) + 2 * u64::from(state.refers_to(vmm.id));
        (vmm.state as u64) * 8 + place * 2 + u64::from(vmm.reservation.is_some())
    };
    let mut vmms: Vec<u64> = state.vmms.values().map(vmm).collect();
    vmms.sort_unstable();
    let visible = [of_text(state.run_state().as_str()), state.intent as u64, saga, sides];
    hash(visible.into_iter().chain(orders.map(u64::from)).chain(vmms))
}

impl Met {
    /// An event, by its names, has brought an instance from one state to the next.
    pub(crate) fn step(
        &mut self,
        before: Option<RunState>,
        names: &[&'static str],
        after: &Instance,
        all: &BTreeMap<InstanceId, Instance>,
    ) {
        let from = before.map_or(0, |state| of_text(state.as_str()));
        self.decided.extend(names.iter().map(|name| hash([from, of_text(name)])));
        self.instances.insert(shape(after));
        let others = all.values().filter(|state| state.id != after.id);
        let living = others.chain([after]).filter(|state| state.deleted.is_none());
        let mut fleet: Vec<u64> = living.map(|state| of_text(state.run_state().as_str())).collect();
        fleet.sort_unstable();
        self.fleets.insert(hash(fleet));
    }
}

impl States {
    /// Adds what a seed met.
    pub(crate) fn add(&mut self, seed: u64, met: &Met) {
        let pairs = [
            (&mut self.decided, &met.decided),
            (&mut self.instances, &met.instances),
            (&mut self.fleets, &met.fleets),
        ];
        for (all, new) in pairs {
            for state in new {
                let first = all.entry(*state).or_insert(seed);
                *first = seed.min(*first);
            }
        }
    }

    /// How much the first seeds met, at 1, 2, 5, 10 and so on, and at the end.
    pub fn curve(&self, first: u64, seeds: u64) -> Vec<Point> {
        let decades =
            (0..20).flat_map(|exponent| [1, 2, 5].map(|digit| digit * 10_u64.pow(exponent.min(18))));
        let stops: BTreeSet<u64> = decades.filter(|stop| *stop < seeds).chain([seeds]).collect();
        let within = |all: &BTreeMap<u64, u64>, stop: u64| {
            all.values().filter(|seed| seed.saturating_sub(first) < stop).count() as u64
        };
        let point = |stop| Point {
            seeds: stop,
            decided: within(&self.decided, stop),
            instances: within(&self.instances, stop),
            fleets: within(&self.fleets, stop),
        };
        stops.into_iter().filter(|stop| *stop > 0).map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_counts_what_each_seed_was_the_first_to_meet() {
        let met = |states: &[u64]| Met { instances: states.iter().copied().collect(), ..Met::default() };
        let mut states = States::default();
        // Whoever comes first: the smaller seed counts.
        states.add(12, &met(&[1, 2, 3]));
        states.add(10, &met(&[1]));
        states.add(11, &met(&[1, 2]));
        let counts: Vec<(u64, u64)> =
            states.curve(10, 3).iter().map(|point| (point.seeds, point.instances)).collect();
        assert_eq!(counts, [(1, 1), (2, 2), (3, 3)]);
    }
}
