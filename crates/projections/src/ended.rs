//! Instances that are over and wait to be archived: what is left of them once nothing can happen to them.
//!
//! Invariants:
//! * an instance is here from the event that ends it to the one that says that it is archived;
//! * the order is that of their deletions, so that looking for what is due costs what is due.

use lifecycle::{InstanceId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is left of an instance that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// When it was deleted.
    pub(crate) deleted: Timestamp,
    /// Version of its last event.
    pub(crate) version: u64,
}

/// All of them, by id and by age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    rows: BTreeMap<InstanceId, Ended>,
    by_age: BTreeSet<(Timestamp, InstanceId)>,
}

impl Waiting {
    /// Answers false if it is there already.
    pub(crate) fn insert(&mut self, id: InstanceId, ended: Ended) -> bool {
        self.by_age.insert((ended.deleted, id));
        self.rows.insert(id, ended).is_none()
    }

    pub(crate) fn remove(&mut self, id: InstanceId) {
        if let Some(ended) = self.rows.remove(&id) {
            self.by_age.remove(&(ended.deleted, id));
        }
    }

    pub(crate) fn get(&self, id: InstanceId) -> Option<Ended> {
        self.rows.get(&id).copied()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.rows.keys().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Those deleted at `time` or before, the oldest first.
    pub(crate) fn until(&self, time: Timestamp) -> impl Iterator<Item = InstanceId> + '_ {
        self.by_age.iter().take_while(move |(deleted, _)| *deleted <= time).map(|(_, id)| *id)
    }
}
