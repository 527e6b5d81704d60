//! What has changed since a shell last stored the machine, in pieces small enough to append to a file.
//!
//! Invariant: a machine to which every change was applied in order equals the one they were taken from,
//! except for messages and reports not yet sent.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sled_protocol::{PropolisId, V2pMapping};

use super::{Host, Sled, Slot, V2pKey, Vmm};

/// One piece of a machine's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Everything.
    All(Box<Sled>),
    /// Boot, epoch, lease.
    Host(Host),
    /// A VMM as it is.
    Vmm(Box<Vmm>),
    /// A VMM is no longer held.
    Forgotten(PropolisId),
    /// A VMM ended here.
    Tombstone(PropolisId),
    /// An overlay mapping or its deletion.
    V2p(V2pKey, Slot<V2pMapping>),
}

/// Which pieces have changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Touched {
    all: bool,
    host: bool,
    vmms: BTreeSet<PropolisId>,
    tombstones: Vec<PropolisId>,
    v2p: BTreeSet<V2pKey>,
}

impl Touched {
    pub(super) fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    pub(super) fn host(&mut self) {
        self.host = true;
    }

    pub(super) fn vmm(&mut self, propolis_id: PropolisId) {
        self.vmms.insert(propolis_id);
    }

    pub(super) fn tombstone(&mut self, propolis_id: PropolisId) {
        self.tombstones.push(propolis_id);
    }

    pub(super) fn v2p(&mut self, key: V2pKey) {
        self.v2p.insert(key);
    }
}

impl Sled {
    /// What has changed since the last call. A shell stores it before it answers or publishes anything.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let touched = std::mem::take(&mut self.touched);
        if touched.all {
            return vec![Change::All(Box::new(self.clone()))];
        }
        let mut changes = Vec::new();
        if touched.host {
            changes.push(Change::Host(self.host.clone()));
        }
        for id in touched.vmms {
            changes.push(match self.vmms.get(&id) {
                Some(vmm) => Change::Vmm(Box::new(vmm.clone())),
                None => Change::Forgotten(id),
            });
        }
        changes.extend(touched.tombstones.into_iter().map(Change::Tombstone));
        for key in touched.v2p {
            if let Some(slot) = self.v2p.slot(&key) {
                changes.push(Change::V2p(key, slot.clone()));
            }
        }
        changes
    }

    /// The whole machine as one change, for a file that starts anew.
    pub fn image(&self) -> Change {
        let mut image = self.clone();
        image.touched = Touched::default();
        Change::All(Box::new(image))
    }

    /// Applies a stored change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::All(sled) => *self = *sled,
            Change::Host(host) => self.host = host,
            Change::Vmm(vmm) => {
                self.vmms.insert(vmm.propolis_id(), *vmm);
            }
            Change::Forgotten(id) => {
                self.vmms.remove(&id);
            }
            Change::Tombstone(id) => self.tombstones.insert(id, self.config.tombstones_max),
            Change::V2p(key, slot) => self.v2p.set(key, slot),
        }
    }
}
