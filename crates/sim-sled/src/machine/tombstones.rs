//! Which VMMs have ended here, so that a late register starts nothing.
//!
//! A bounded memory: beyond the limit the oldest are forgotten. They die with the host's boot, after which
//! the lease epoch refuses what was sent before.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use sled_protocol::PropolisId;

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<PropolisId>", into = "Vec<PropolisId>")]
pub(crate) struct Tombstones {
    order: VecDeque<PropolisId>,
    set: BTreeSet<PropolisId>,
}

impl Tombstones {
    pub(crate) fn insert(&mut self, vmm: PropolisId, max: usize) {
        if !self.set.insert(vmm) {
            return;
        }
        self.order.push_back(vmm);
        while self.order.len() > max.max(1) {
            let oldest = self.order.pop_front().expect("it holds more than one");
            self.set.remove(&oldest);
        }
        assert_eq!(self.order.len(), self.set.len());
    }

    pub(crate) fn contains(&self, vmm: PropolisId) -> bool {
        self.set.contains(&vmm)
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }
}

impl From<Vec<PropolisId>> for Tombstones {
    fn from(ids: Vec<PropolisId>) -> Self {
        let mut tombstones = Self::default();
        for id in ids {
            tombstones.insert(id, usize::MAX);
        }
        tombstones
    }
}

impl From<Tombstones> for Vec<PropolisId> {
    fn from(tombstones: Tombstones) -> Self {
        tombstones.order.into()
    }
}
