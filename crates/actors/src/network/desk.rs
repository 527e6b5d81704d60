//! The desk between the log and the pushers: what is desired, and what has changed of late.
//!
//! The ledger's pass over the log feeds it, so that the log is read once. Invariants:
//! * book, position and changes belong together: all of it is read and written under one lock, and every
//!   change up to the position is in the book;
//! * per subject at most [`CHANGES_MAX`] changes are remembered, the newest; whoever is further behind compares
//!   everything;
//! * positions whose records cannot be read, or are not believed, are known as such: a decision may have been
//!   there that is not in the book;
//! * nothing waits here: a pusher copies what it needs and lets go.

use lifecycle::network::{Key, Mapping, NetworkBook};
use lifecycle::{EventMeta, InstanceEvent, InstanceId, Ledger, SledId, VmmId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Changes remembered per subject: minutes of them at a rate of hundreds per second, in a few megabytes.
const CHANGES_MAX: usize = 65_536;

/// Which VMM shall be registered as a producer, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Producing {
    /// Log position of the event that set it.
    pub(super) generation: u64,
    /// Its instance and its sled; none means that it shall not be registered.
    pub(super) place: Option<(InstanceId, SledId)>,
}

/// Something read at a log position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReadAt<T> {
    /// The position up to which everything is in it.
    pub(super) position: u64,
    /// What was read.
    pub(super) value: T,
}

/// The newest changes of one subject, oldest first.
struct Changes<K, V> {
    newest: VecDeque<(u64, K, V)>,
    /// Generation of the newest change that is not remembered any more.
    dropped: u64,
}

impl<K: Ord + Copy, V: Copy> Changes<K, V> {
    /// Nothing up to a position is remembered.
    const fn after_position(position: u64) -> Self {
        Self { newest: VecDeque::new(), dropped: position }
    }

    fn push(&mut self, generation: u64, key: K, value: V) {
        if self.newest.len() == CHANGES_MAX
            && let Some((dropped, _, _)) = self.newest.pop_front()
        {
            self.dropped = dropped;
        }
        self.newest.push_back((generation, key, value));
    }

    /// What changed after a generation, the newest per key; none if some of it is not remembered any more.
    fn since(&self, generation: u64) -> Option<BTreeMap<K, V>> {
        (generation >= self.dropped).then(|| {
            let changed = self.newest.range(self.after(generation)..);
            changed.map(|(_, key, value)| (*key, *value)).collect()
        })
    }

    /// How many changes came after a generation, of those that are remembered.
    fn behind(&self, generation: u64) -> usize {
        self.newest.len() - self.after(generation)
    }

    fn after(&self, generation: u64) -> usize {
        self.newest.partition_point(|(changed, _, _)| *changed <= generation)
    }
}

struct State {
    book: NetworkBook,
    position: u64,
    /// Where the producers that shall be are.
    places: BTreeMap<VmmId, (InstanceId, SledId)>,
    mappings: Changes<Key, Mapping>,
    producers: Changes<VmmId, Producing>,
    /// Positions that are not in the book though something was there: first and last of each range.
    unread: BTreeMap<u64, u64>,
}

/// See the module's head.
pub(crate) struct Desk {
    state: Mutex<State>,
    newest_mapping: level::Sender<u64>,
    newest_producer: level::Sender<u64>,
}

impl Desk {
    /// A desk with a book that has been folded up to a position, and the ledger of that position.
    pub(crate) fn at(position: u64, book: NetworkBook, ledger: &Ledger) -> Self {
        // A wished producer's VMM is held: the ledger knows its place for as long.
        let place = |vmm| ledger.vmm(vmm).map(|place| (vmm, (place.instance, place.sled)));
        let places = book.producers().filter_map(|production| place(production.vmm)).collect();
        let state = State {
            book,
            position,
            places,
            mappings: Changes::after_position(position),
            producers: Changes::after_position(position),
            unread: BTreeMap::new(),
        };
        Self {
            state: Mutex::new(state),
            newest_mapping: level::Sender::new(position),
            newest_producer: level::Sender::new(position),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies an event of `instance/<id>`, which the ledger has applied before.
    pub(crate) fn apply(&self, id: InstanceId, event: &InstanceEvent, meta: EventMeta, ledger: &Ledger) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.position = meta.position;
        let changed = state.book.apply(id, event, meta);
        if let Some((key, mapping)) = changed.mapping {
            state.mappings.push(meta.position, key, mapping);
        }
        for production in &changed.producers {
            let place = ledger.vmm(production.vmm).filter(|_| production.is_wished);
            let place = place.map(|place| (place.instance, place.sled));
            match place {
                Some(place) => state.places.insert(production.vmm, place),
                None => state.places.remove(&production.vmm),
            };
            let producing = Producing { generation: production.generation, place };
            state.producers.push(meta.position, production.vmm, producing);
        }
        drop(guard);
        if changed.mapping.is_some() {
            self.newest_mapping.send_replace(meta.position);
        }
        if !changed.producers.is_empty() {
            self.newest_producer.send_replace(meta.position);
        }
    }

    /// Says that the log has been read up to a position.
    pub(crate) fn reached(&self, position: u64) {
        let mut state = self.lock();
        state.position = state.position.max(position);
    }

    /// Says that the records from `first` to `last` cannot be read, or are not believed.
    pub(crate) fn unread(&self, first: u64, last: u64) {
        self.lock().unread.insert(first, last);
    }

    /// Whether what was decided at a position is not known.
    pub(super) fn is_unread(&self, position: u64) -> bool {
        let state = self.lock();
        state.unread.range(..=position).next_back().is_some_and(|(_, last)| position <= *last)
    }

    /// Follows the generation of the newest change of a mapping.
    pub(super) fn follow_mappings(&self) -> level::Receiver<u64> {
        self.newest_mapping.subscribe()
    }

    /// Follows the generation of the newest change of a producer.
    pub(super) fn follow_producers(&self) -> level::Receiver<u64> {
        self.newest_producer.subscribe()
    }

    /// Every mapping that shall be.
    pub(super) fn mappings(&self) -> ReadAt<Vec<(Key, Mapping)>> {
        let state = self.lock();
        ReadAt { position: state.position, value: state.book.mappings().collect() }
    }

    /// Mappings that changed after a position; none if not all of them are remembered.
    pub(super) fn mappings_since(&self, position: u64) -> Option<ReadAt<BTreeMap<Key, Mapping>>> {
        let state = self.lock();
        let value = state.mappings.since(position)?;
        Some(ReadAt { position: state.position, value })
    }

    /// How many changes of mappings came after a position, as far as they are remembered.
    pub(super) fn mappings_behind(&self, position: u64) -> usize {
        self.lock().mappings.behind(position)
    }

    /// Every producer that shall be.
    pub(super) fn producers(&self) -> ReadAt<Vec<(VmmId, Producing)>> {
        let state = self.lock();
        let wished = state.book.producers().map(|production| {
            let place = state.places.get(&production.vmm).copied();
            (production.vmm, Producing { generation: production.generation, place })
        });
        ReadAt { position: state.position, value: wished.collect() }
    }

    /// Producers that changed after a position; none if not all of them are remembered.
    pub(super) fn producers_since(&self, position: u64) -> Option<ReadAt<BTreeMap<VmmId, Producing>>> {
        let state = self.lock();
        let value = state.producers.since(position)?;
        Some(ReadAt { position: state.position, value })
    }

    /// How many changes of producers came after a position, as far as they are remembered.
    pub(super) fn producers_behind(&self, position: u64) -> usize {
        self.lock().producers.behind(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_bounded_and_whoever_is_too_far_behind_is_told_so() {
        let mut changes = Changes::after_position(0);
        let last = CHANGES_MAX as u64 + 10;
        for generation in 1..=last {
            changes.push(generation, generation % 3, generation);
        }
        assert_eq!(changes.newest.len(), CHANGES_MAX);
        assert_eq!(changes.since(9), None, "the change of generation 10 is not remembered");
        assert_eq!(changes.since(10).unwrap().len(), 3);
        assert_eq!(
            changes.since(last - 2).unwrap(),
            BTreeMap::from([((last - 1) % 3, last - 1), (last % 3, last)])
        );
        assert_eq!(changes.since(last).unwrap(), BTreeMap::new());
        assert_eq!((changes.behind(last - 2), changes.behind(0)), (2, CHANGES_MAX));
    }
}
