//! A map in which, per key, the larger generation wins for ever: the rule of V2P, NAT and producers.
//!
//! Invariants:
//! * The generation of a key never falls; a deletion leaves its generation behind, so that a late put of an
//!   address's former owner changes nothing.
//! * A put must be newer than what is held; a deletion at least as new, because the deletion of an entry may
//!   be named by the entry's own generation.
//! * At most `DELETED_MAX` deletions are remembered. Beyond that the oldest half is dropped: a put delayed by
//!   that many deletions would return, and the control plane's next comparison removes it again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sled_protocol::Generation;

/// Most remembered deletions: hours of them at any rate a fleet reaches, in a few megabytes.
const DELETED_MAX: usize = 65_536;

/// What is held for one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot<V> {
    /// The largest generation seen.
    pub generation: Generation,
    /// The value, or nothing once deleted.
    pub value: Option<V>,
}

/// See the module's head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(K, Slot<V>)>", into = "Vec<(K, Slot<V>)>")]
#[serde(bound(serialize = "K: Clone + Ord + Serialize, V: Clone + Serialize"))]
#[serde(bound(deserialize = "K: Ord + Deserialize<'de>, V: Deserialize<'de>"))]
pub(crate) struct Newest<K: Ord, V> {
    slots: BTreeMap<K, Slot<V>>,
    deleted: usize,
}

impl<K: Ord, V> Default for Newest<K, V> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), deleted: 0 }
    }
}

impl<K: Ord + Clone, V> Newest<K, V> {
    /// Sets the value unless what is held is as new; answers whether anything changed.
    pub(crate) fn put(&mut self, key: K, generation: Generation, value: V) -> bool {
        if self.slots.get(&key).is_some_and(|held| held.generation >= generation) {
            return false;
        }
        self.set(key, Slot { generation, value: Some(value) });
        true
    }

    /// Deletes the value unless what is held is newer; answers whether anything changed.
    pub(crate) fn delete(&mut self, key: K, generation: Generation) -> bool {
        let blocks = |held: &Slot<V>| {
            held.generation > generation || (held.generation == generation && held.value.is_none())
        };
        if self.slots.get(&key).is_some_and(blocks) {
            return false;
        }
        self.set(key, Slot { generation, value: None });
        self.drop_old_deletions();
        true
    }

    /// Sets a slot as it was stored.
    pub(crate) fn set(&mut self, key: K, slot: Slot<V>) {
        self.deleted += usize::from(slot.value.is_none());
        if let Some(before) = self.slots.insert(key, slot) {
            self.deleted -= usize::from(before.value.is_none());
        }
    }

    pub(crate) fn slot(&self, key: &K) -> Option<&Slot<V>> {
        self.slots.get(key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.slots.values().filter_map(|slot| slot.value.as_ref())
    }

    /// How many keys have a value.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.deleted
    }

    fn drop_old_deletions(&mut self) {
        if self.deleted <= DELETED_MAX {
            return;
        }
        let mut generations: Vec<Generation> =
            self.slots.values().filter(|slot| slot.value.is_none()).map(|slot| slot.generation).collect();
        generations.sort_unstable();
        let keep_from = generations[generations.len() / 2];
        self.slots.retain(|_, slot| slot.value.is_some() || slot.generation >= keep_from);
        self.deleted = self.slots.values().filter(|slot| slot.value.is_none()).count();
    }
}

impl<K: Ord, V> From<Vec<(K, Slot<V>)>> for Newest<K, V> {
    fn from(pairs: Vec<(K, Slot<V>)>) -> Self {
        let slots: BTreeMap<K, Slot<V>> = pairs.into_iter().collect();
        let deleted = slots.values().filter(|slot| slot.value.is_none()).count();
        Self { slots, deleted }
    }
}

impl<K: Ord, V> From<Newest<K, V>> for Vec<(K, Slot<V>)> {
    fn from(newest: Newest<K, V>) -> Self {
        newest.slots.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_generation_wins_in_whatever_order_it_comes() {
        let mut map: Newest<u8, char> = Newest::default();
        let g = Generation::new;
        assert!(map.put(1, g(5), 'a'));
        assert!(!map.put(1, g(5), 'b'), "the same generation is the same fact");
        assert!(!map.put(1, g(4), 'c'));
        assert!(!map.delete(1, g(4)));
        assert!(map.delete(1, g(6)));
        assert!(!map.put(1, g(6), 'd'), "a late put of the address's former owner");
        assert_eq!((map.values().count(), map.len()), (0, 0));
        assert!(map.put(1, g(7), 'e'));
        assert!(map.delete(1, g(7)), "an entry may be deleted by its own generation");
        assert!(!map.delete(1, g(7)));
    }

    #[test]
    fn remembered_deletions_are_bounded_and_the_newest_are_kept() {
        let mut map: Newest<u64, ()> = Newest::default();
        map.put(0, Generation::FIRST, ());
        let last = 2 * DELETED_MAX as u64;
        for key in 1..=last {
            map.delete(key, Generation::new(key));
            assert!(map.deleted <= DELETED_MAX);
        }
        assert_eq!(map.len(), 1);
        assert!(!map.put(last, Generation::new(last), ()));
    }
}
