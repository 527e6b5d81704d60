//! The network book: where every address shall lead, folded from all instances. Pushes converge to it.
//!
//! Invariants:
//! * a key (VNI and virtual IP) has the mapping of the newest event about it, and that event's position as its
//!   generation: a reused address is never confused with its predecessor;
//! * a deletion leaves the generation behind for as long as the key is remembered as changed;
//! * the book of an instance equals its fold's `network` and `producer` ([`NetworkBook::of`]).

use crate::event::{EventMeta, InstanceEvent};
use crate::ids::{InstanceId, SledId, VmmId};
use crate::saga::Step;
use crate::spec::Address;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What is found on an overlay network: VNI and virtual IP.
pub type Key = (u32, Ipv4Addr);

/// Where a key shall lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Ethernet address of the instance.
    pub mac: [u8; 6],
    /// Sled to point at; none means that there shall be no mapping.
    pub sled: Option<SledId>,
    /// Log position of the event that set it.
    pub generation: u64,
}

/// Which VMM of an instance shall be registered as a metrics producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Production {
    /// The VMM.
    pub vmm: VmmId,
    /// Log position of the event that set it.
    pub generation: u64,
    /// Whether it shall be registered; else removed.
    pub is_wished: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    address: Address,
    sled: Option<SledId>,
    /// The VMM of the start under way or of the last one.
    started: Option<VmmId>,
    producer: Option<VmmId>,
}

/// Desired network and producers of all instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkBook {
    instances: BTreeMap<InstanceId, Entry>,
    mappings: BTreeMap<Key, Mapping>,
    producers: BTreeMap<VmmId, Production>,
}

/// What one event changed in the book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The key whose mapping changed.
    pub mapping: Option<(Key, Mapping)>,
    /// VMMs whose production changed.
    pub producers: Vec<Production>,
}

impl NetworkBook {
    /// Applies an event of `instance/<id>`.
    pub fn apply(&mut self, id: InstanceId, event: &InstanceEvent, meta: EventMeta) -> Changed {
        if let InstanceEvent::Created { address, .. } = event {
            let entry = Entry { address: *address, sled: None, started: None, producer: None };
            self.instances.insert(id, entry);
        }
        // An instance whose creation cannot be read any more has no address to map.
        let Some(entry) = self.instances.get_mut(&id) else {
            return Changed::default();
        };
        let (sled, producer) = match event {
            InstanceEvent::StartBegan { vmm, sled, .. } => {
                entry.started = Some(*vmm);
                (Some(*sled), entry.producer)
            }
            InstanceEvent::SagaAdvanced { step: Step::SetRunning, .. } => (entry.sled, entry.started),
            InstanceEvent::SagaUnwound { undone, .. } => (
                entry.sled.filter(|_| !undone.contains(&Step::Network)),
                entry.producer.filter(|_| !undone.contains(&Step::Producer)),
            ),
            InstanceEvent::Updated(update) => (update.network, update.active),
            InstanceEvent::Deleted => (None, None),
            _ => return Changed::default(),
        };
        let mut changed = Changed::default();
        if entry.sled != sled {
            entry.sled = sled;
            let key = (entry.address.vni, entry.address.virtual_ip);
            let mapping = Mapping { mac: entry.address.mac, sled, generation: meta.position };
            changed.mapping = Some((key, mapping));
        }
        if entry.producer != producer {
            let was = std::mem::replace(&mut entry.producer, producer);
            let generation = meta.position;
            let removed = was.map(|vmm| Production { vmm, generation, is_wished: false });
            let added = producer.map(|vmm| Production { vmm, generation, is_wished: true });
            changed.producers.extend(removed.into_iter().chain(added));
        }
        if matches!(event, InstanceEvent::Deleted) {
            self.instances.remove(&id);
        }
        self.record(&changed);
        changed
    }

    fn record(&mut self, changed: &Changed) {
        if let Some((key, mapping)) = changed.mapping {
            if mapping.sled.is_some() {
                self.mappings.insert(key, mapping);
            } else {
                self.mappings.remove(&key);
            }
        }
        for production in &changed.producers {
            if production.is_wished {
                self.producers.insert(production.vmm, *production);
            } else {
                self.producers.remove(&production.vmm);
            }
        }
    }

    /// Every mapping that shall be, by key.
    pub fn mappings(&self) -> impl Iterator<Item = (Key, Mapping)> + '_ {
        self.mappings.iter().map(|(key, mapping)| (*key, *mapping))
    }

    /// Every producer that shall be registered, by VMM.
    pub fn producers(&self) -> impl Iterator<Item = Production> + '_ {
        self.producers.values().copied()
    }

    /// Sled and producer of an instance: what its own fold must say too.
    pub fn of(&self, id: InstanceId) -> Option<(Option<SledId>, Option<VmmId>)> {
        self.instances.get(&id).map(|entry| (entry.sled, entry.producer))
    }
}
