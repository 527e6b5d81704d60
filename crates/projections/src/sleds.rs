//! Sleds as they are read: what they are, and what is held on them.
//!
//! Invariant: a sled's load is the sum over the reservations of all instances. It is never stored: it is
//! counted again when rows are loaded.

use lifecycle::instance::Instance;
use lifecycle::sled::{Sled, SledProperties};
use lifecycle::{BootId, LeaseEpoch, SledId, Timestamp};

/// What is held on a sled by VMMs that may still be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SledLoad {
    /// VMMs.
    pub vmms: u64,
    /// Hardware threads.
    pub threads: u64,
    /// Memory, bytes.
    pub memory: u64,
}

/// A sled as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SledRow {
    /// Its id.
    pub id: SledId,
    /// Its properties, as last registered.
    pub properties: SledProperties,
    /// Its boot and lease epoch; none until it booted.
    pub boot: Option<(BootId, LeaseEpoch)>,
    /// Whether new VMMs may be placed on it.
    pub provisionable: bool,
    /// Since when its guests are being moved away, if they are.
    pub draining: Option<Timestamp>,
    /// When an operator took it out for good, if one did.
    pub expunged: Option<Timestamp>,
    /// What is held on it.
    pub load: SledLoad,
    /// When it first registered.
    pub time_created: Timestamp,
    /// When it last changed.
    pub time_modified: Timestamp,
    /// Version of its stream.
    pub version: u64,
}

impl SledRow {
    pub(crate) fn new(sled: &Sled, load: SledLoad) -> Self {
        Self {
            id: sled.id,
            properties: sled.properties.clone(),
            boot: sled.boot,
            provisionable: sled.provisionable,
            draining: sled.draining,
            expunged: sled.expunged,
            load,
            time_created: sled.time_created,
            time_modified: sled.time_modified,
            version: sled.version,
        }
    }
}

impl SledLoad {
    /// What an instance holds, per VMM.
    pub(crate) fn held_by(instance: &Instance) -> impl Iterator<Item = (SledId, Self)> + '_ {
        let held = instance.vmms.values().filter(|vmm| vmm.reservation.is_some());
        let load = |threads: u16, memory| Self { vmms: 1, threads: u64::from(threads), memory };
        held.map(move |vmm| (vmm.sled, load(vmm.size.ncpus, vmm.size.memory)))
    }

    /// Sums saturate: a log that holds more than there can be is shown, not obeyed.
    pub(crate) const fn add(&mut self, other: Self) {
        self.vmms = self.vmms.saturating_add(other.vmms);
        self.threads = self.threads.saturating_add(other.threads);
        self.memory = self.memory.saturating_add(other.memory);
    }

    pub(crate) const fn remove(&mut self, other: Self) {
        self.vmms = self.vmms.saturating_sub(other.vmms);
        self.threads = self.threads.saturating_sub(other.threads);
        self.memory = self.memory.saturating_sub(other.memory);
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}
