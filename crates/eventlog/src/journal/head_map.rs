//! Every stream's head in memory: sorted chunks, because a tree of nodes takes half as much again.
//!
//! An entry takes 48 bytes. A chunk has room for at most [`GROW`] entries more than it holds, and holds at
//! least half of [`CHUNK_MAX`] unless it is the only one or entries came in order: 53 bytes per stream at
//! worst, which a test counts.
//!
//! Invariants:
//! * chunks are in order, none is empty, and within one the streams rise strictly;
//! * `firsts` holds the first stream of each chunk: a search touches one chunk only;
//! * adding a stream moves at most one chunk's entries.

use crate::gate::Owned;
use crate::types::StreamId;
use std::fmt;

/// Most entries of a chunk: moving half of them is about as much work as finding the place.
const CHUNK_MAX: usize = 256;
/// Entries a full chunk gets room for.
const GROW: usize = 16;

type Entry = (StreamId, Owned);

/// Where a stream's entry is, until another stream is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    chunk: usize,
    at: usize,
}

/// Heads of streams, in order of their names.
#[derive(Clone, Default)]
pub(crate) struct HeadMap {
    firsts: Vec<StreamId>,
    chunks: Vec<Vec<Entry>>,
    len: usize,
}

impl HeadMap {
    /// A map that takes its entries in order, with room for exactly as many.
    pub(crate) fn in_order(entries: usize) -> InOrder {
        let chunks = entries.div_ceil(CHUNK_MAX);
        let map = Self { firsts: Vec::with_capacity(chunks), chunks: Vec::with_capacity(chunks), len: 0 };
        InOrder { map, left: entries }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The chunk that holds a stream if any does.
    fn chunk(&self, stream: &StreamId) -> usize {
        let after = self.firsts.partition_point(|first| first <= stream);
        after.saturating_sub(1)
    }

    /// Where a stream's entry is, if there is one.
    pub(crate) fn find(&self, stream: &StreamId) -> Option<Place> {
        let chunk = self.chunk(stream);
        let at = self.chunks.get(chunk)?.binary_search_by(|(it, _)| it.cmp(stream)).ok()?;
        Some(Place { chunk, at })
    }

    /// The entry at a place that [`HeadMap::find`] has answered since a stream was last added.
    pub(crate) fn at(&self, place: Place) -> &Owned {
        &self.chunks[place.chunk][place.at].1
    }

    pub(crate) fn get(&self, stream: &StreamId) -> Option<&Owned> {
        self.find(stream).map(|place| self.at(place))
    }

    #[cfg(test)]
    pub(crate) fn get_mut(&mut self, stream: &StreamId) -> Option<&mut Owned> {
        self.find(stream).map(|Place { chunk, at }| &mut self.chunks[chunk][at].1)
    }

    /// Sets a stream's entry, which was at `place` once, and answers the one before.
    pub(crate) fn insert_at(
        &mut self,
        place: Option<Place>,
        stream: StreamId,
        owned: Owned,
    ) -> Option<Owned> {
        let entry = place.and_then(|Place { chunk, at }| self.chunks.get_mut(chunk)?.get_mut(at));
        match entry.filter(|(it, _)| *it == stream) {
            Some((_, before)) => Some(std::mem::replace(before, owned)),
            None => self.insert(stream, owned),
        }
    }

    /// Sets a stream's entry and answers the one before.
    pub(crate) fn insert(&mut self, stream: StreamId, owned: Owned) -> Option<Owned> {
        if self.chunks.is_empty() {
            let mut chunk = Vec::with_capacity(GROW);
            chunk.push((stream, owned));
            self.chunks.push(chunk);
            self.firsts.push(stream);
            self.len = 1;
            return None;
        }
        let index = self.chunk(&stream);
        let chunk = &mut self.chunks[index];
        let at = match chunk.binary_search_by(|(it, _)| it.cmp(&stream)) {
            Ok(at) => return Some(std::mem::replace(&mut chunk[at].1, owned)),
            Err(at) => at,
        };
        self.len += 1;
        if chunk.len() < CHUNK_MAX {
            if chunk.len() == chunk.capacity() {
                chunk.reserve_exact(GROW);
            }
            chunk.insert(at, (stream, owned));
            self.firsts[index] = chunk[0].0;
            return None;
        }
        // Streams that come in order leave full chunks behind them.
        let middle = if at == CHUNK_MAX { CHUNK_MAX } else { CHUNK_MAX / 2 };
        let mut upper = Vec::with_capacity(CHUNK_MAX - middle + GROW);
        upper.extend(chunk.drain(middle..));
        chunk.shrink_to(middle + 1);
        let (target, at) = if at >= middle { (&mut upper, at - middle) } else { (chunk, at) };
        target.insert(at, (stream, owned));
        self.firsts[index] = self.chunks[index][0].0;
        self.firsts.insert(index + 1, upper[0].0);
        self.chunks.insert(index + 1, upper);
        None
    }

    /// All entries in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&StreamId, &Owned)> + '_ {
        self.chunks.iter().flatten().map(|(stream, owned)| (stream, owned))
    }

    /// The last stream.
    pub(crate) fn last(&self) -> Option<&StreamId> {
        self.chunks.last().and_then(|chunk| chunk.last()).map(|(stream, _)| stream)
    }

    /// Bytes taken from the allocator.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<Entry>());
        // The allocator adds two words to each piece it hands out.
        let index =
            size_of::<Vec<Entry>>() * self.chunks.capacity() + size_of::<StreamId>() * self.firsts.capacity();
        chunks.sum::<usize>() + self.chunks.len() * 16 + index
    }
}

/// A map on its way: entries come in order, and each chunk is allocated once.
pub(crate) struct InOrder {
    map: HeadMap,
    /// Entries that are still expected.
    left: usize,
}

impl InOrder {
    /// Adds an entry. Answers whether it comes after the one before, as it has to; if not, it is left out.
    pub(crate) fn push(&mut self, stream: StreamId, owned: Owned) -> bool {
        let map = &mut self.map;
        if map.last().is_some_and(|last| *last >= stream) {
            return false;
        }
        match map.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK_MAX) {
            Some(chunk) => chunk.push((stream, owned)),
            None => {
                let mut chunk = Vec::with_capacity(self.left.clamp(1, CHUNK_MAX));
                chunk.push((stream, owned));
                map.chunks.push(chunk);
                map.firsts.push(stream);
            }
        }
        map.len += 1;
        self.left = self.left.saturating_sub(1);
        true
    }

    pub(crate) fn finish(self) -> HeadMap {
        self.map
    }
}

impl FromIterator<Entry> for HeadMap {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut map = Self::default();
        for (stream, owned) in entries {
            map.insert(stream, owned);
        }
        map
    }
}

impl PartialEq for HeadMap {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for HeadMap {}

impl fmt::Debug for HeadMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Head, Position, StreamKind, Version};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn owned(number: u64) -> Owned {
        let head = Head { version: Version::new(number), position: Position::new(number) };
        Owned { head, epoch: Epoch::ZERO }
    }

    fn stream(number: u64) -> StreamId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        StreamId::new(StreamKind((number % 3) as u8), id)
    }

    /// Odd, so that multiples look random and never repeat.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

    #[test]
    fn a_stream_takes_at_most_64_bytes_of_memory() {
        for (what, factor) in [("in order", 1), ("in reverse", u64::MAX), ("in none", SPREAD)] {
            for streams in [1_000, 10_000, 100_000] {
                let map: HeadMap = (0u64..streams)
                    .map(|number| (stream(number.wrapping_mul(factor)), owned(number)))
                    .collect();
                let each = map.bytes() as u64 * 100 / streams;
                assert_eq!(map.len() as u64, streams);
                assert!(each <= 6_400, "{streams} streams {what}: {each} hundredths of a byte each");
            }
        }
    }

    #[test]
    fn a_map_made_in_order_takes_what_its_entries_take() {
        for streams in [0, 1, CHUNK_MAX, 100_000] {
            let mut made = HeadMap::in_order(streams);
            let mut names: Vec<_> = (0..streams as u64).map(stream).collect();
            names.sort();
            assert!(names.iter().all(|&name| made.push(name, owned(1))));
            assert!(names.last().is_none_or(|&name| !made.push(name, owned(2))), "each comes once");
            let map = made.finish();
            assert!(map.iter().map(|(name, _)| *name).eq(names));
            let bytes = streams * 48 + streams.div_ceil(CHUNK_MAX) * 64;
            assert!(map.bytes() <= bytes, "{} bytes for {streams}", map.bytes());
        }
    }

    #[test]
    fn a_stale_place_changes_no_other_stream() {
        let mut map: HeadMap = (10..20).map(|number| (stream(number * 3), owned(number))).collect();
        let place = map.find(&stream(45));
        assert_eq!(map.at(place.unwrap()), &owned(15));
        assert_eq!(map.insert(stream(3), owned(1)), None);
        assert_eq!(map.insert_at(place, stream(45), owned(99)), Some(owned(15)));
        assert_eq!(map.insert_at(place, stream(42), owned(98)), Some(owned(14)), "a place of another stream");
        assert_eq!(map.insert_at(None, stream(6), owned(2)), None);
        let heads: Vec<_> = map.iter().map(|(_, owned)| owned.head.version.get()).collect();
        assert_eq!(heads, [1, 2, 10, 11, 12, 13, 98, 99, 16, 17, 18, 19]);
    }

    proptest! {
        #[test]
        fn streams_are_ordered_by_kind_and_then_by_bytes(one: (u8, [u8; 16]), other: (u8, [u8; 16])) {
            let name = |(kind, id)| StreamId::new(StreamKind(kind), id);
            prop_assert_eq!(name(one).cmp(&name(other)), one.cmp(&other));
        }

        #[test]
        fn it_equals_a_tree(numbers in proptest::collection::vec(0u64..3_000, 0..3_000)) {
            let mut map = HeadMap::default();
            let mut tree = BTreeMap::new();
            for (number, value) in numbers.into_iter().zip(1..) {
                prop_assert_eq!(map.insert(stream(number), owned(value)), tree.insert(stream(number), owned(value)));
            }
            prop_assert_eq!(map.len(), tree.len());
            prop_assert_eq!(map.last(), tree.keys().next_back());
            prop_assert!(map.iter().eq(tree.iter()));
            for number in 0..3_000 {
                prop_assert_eq!(map.get(&stream(number)), tree.get(&stream(number)));
            }
            prop_assert_eq!(&map, &tree.into_iter().collect());
        }
    }
}
