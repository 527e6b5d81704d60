//! What the batch under way makes of streams, until readers may see it.
//!
//! Every append looks its stream up in here and changes it, between two syncs: a table of places in a list,
//! kept from batch to batch, takes a third of the time of a tree that is built for each.
//!
//! Invariants:
//! * streams come out in the order in which they came first, whatever the table looks like;
//! * at most half of the table is taken, so that a search ends;
//! * where a stream falls depends on the store's identity, which those who choose names do not know: they cannot
//!   pile streams up on one place.

use super::error::StoreId;
use super::head_map::Place;
use crate::gate::Owned;
use crate::types::StreamId;

/// Places in the table at first, and what it goes back to after a batch that took more.
const SLOTS_MIN: usize = 1 << 10;

/// What a batch makes of a stream, and where readers' heads have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) owned: Owned,
    pub(crate) place: Option<Place>,
}

/// Streams of the batch under way.
pub(crate) struct Overlay {
    entries: Vec<(StreamId, Pending)>,
    /// Indices of entries, from one; zero is free. A power of two of them.
    slots: Vec<u32>,
    /// Of the store.
    identity: (u64, u64),
}

impl Overlay {
    pub(crate) fn new(store: StoreId) -> Self {
        Self { entries: Vec::new(), slots: vec![0; SLOTS_MIN], identity: halves(store.0) }
    }

    /// Where in the table a stream is, or would be put.
    fn slot(&self, stream: &StreamId) -> usize {
        let (low, high) = halves(stream.id);
        let product =
            u128::from(low ^ self.identity.0) * u128::from(high ^ self.identity.1 ^ u64::from(stream.kind.0));
        let mut slot = (product as u64 ^ (product >> 64) as u64) as usize & (self.slots.len() - 1);
        while let Some(index) = self.slots[slot].checked_sub(1) {
            if self.entries[index as usize].0 == *stream {
                break;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        slot
    }

    pub(crate) fn get(&self, stream: &StreamId) -> Option<Pending> {
        let index = self.slots[self.slot(stream)].checked_sub(1)?;
        Some(self.entries[index as usize].1)
    }

    /// Sets what becomes of a stream.
    pub(crate) fn insert(&mut self, stream: StreamId, pending: Pending) {
        let slot = self.slot(&stream);
        if let Some(index) = self.slots[slot].checked_sub(1) {
            self.entries[index as usize].1 = pending;
            return;
        }
        self.entries.push((stream, pending));
        self.slots[slot] = self.entries.len() as u32;
        if self.entries.len() * 2 > self.slots.len() {
            self.rebuild(self.slots.len() * 2);
        }
    }

    fn rebuild(&mut self, slots: usize) {
        self.slots.clear();
        self.slots.resize(slots, 0);
        for index in 0..self.entries.len() {
            let slot = self.slot(&self.entries[index].0);
            self.slots[slot] = index as u32 + 1;
        }
    }

    /// Takes everything out, in the order in which streams came first, and keeps the room for the next batch.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (StreamId, Pending)> + '_ {
        self.slots.truncate(SLOTS_MIN);
        self.slots.fill(0);
        self.entries.drain(..)
    }
}

fn halves(bytes: [u8; 16]) -> (u64, u64) {
    let number = u128::from_le_bytes(bytes);
    (number as u64, (number >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Head, Position, StreamKind, Version};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn pending(number: u64) -> Pending {
        let head = Head { version: Version::new(number), position: Position::new(number) };
        Pending { owned: Owned { head, epoch: Epoch::ZERO }, place: None }
    }

    fn stream(number: u16) -> StreamId {
        let mut id = [0; 16];
        id[8..10].copy_from_slice(&number.to_le_bytes());
        StreamId::new(StreamKind((number % 2) as u8 + 1), id)
    }

    /// A store in which these streams fall on one place.
    const PILED: StoreId = StoreId([0; 16]);

    #[test]
    fn streams_that_fall_on_one_place_are_still_told_apart() {
        let mut overlay = Overlay::new(PILED);
        for number in 0..2_000 {
            overlay.insert(stream(number), pending(u64::from(number)));
        }
        for number in 0..2_000 {
            assert_eq!(overlay.get(&stream(number)), Some(pending(u64::from(number))));
        }
        assert_eq!(overlay.get(&stream(2_000)), None);
        assert_eq!(overlay.drain().count(), 2_000);
        assert_eq!((overlay.slots.len(), overlay.get(&stream(1))), (SLOTS_MIN, None));
    }

    proptest! {
        #[test]
        fn it_equals_a_tree_and_keeps_the_order_of_arrival(
            store: [u8; 16],
            batches in proptest::collection::vec(proptest::collection::vec(0u16..1_500, 0..2_000), 1..4),
        ) {
            let mut overlay = Overlay::new(StoreId(store));
            for batch in batches {
                let (mut tree, mut order) = (BTreeMap::new(), vec![]);
                for (number, value) in batch.into_iter().zip(1..) {
                    prop_assert_eq!(overlay.get(&stream(number)), tree.get(&number).copied());
                    overlay.insert(stream(number), pending(value));
                    if tree.insert(number, pending(value)).is_none() {
                        order.push(number);
                    }
                }
                let drained: Vec<_> = overlay.drain().collect();
                let expected: Vec<_> = order.iter().map(|number| (stream(*number), tree[number])).collect();
                prop_assert_eq!(drained, expected);
            }
        }
    }
}
