//! Lists by name and by id, in pages.
//!
//! Invariants:
//! * a page starts right behind its cursor, whatever was added or removed meanwhile: what is there all
//!   along is listed exactly once;
//! * a name belongs to one entry at a time, and is free as soon as that entry is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Most rows of one page; larger limits are clamped.
pub const PAGE_ROWS_MAX: usize = 10_000;

/// Which way a list goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// A list's sort key, its way, and the cursor: the last row of the page before, none at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan<Id> {
    /// By name, in byte order.
    ByName {
        /// Which way.
        order: Order,
        /// Name of the last row seen.
        after: Option<String>,
    },
    /// By id.
    ById {
        /// Which way.
        order: Order,
        /// Id of the last row seen.
        after: Option<Id>,
    },
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, at most as many as were asked for.
    pub rows: Vec<T>,
    /// Whether nothing follows them.
    pub is_last: bool,
}

impl<T> Page<T> {
    /// A page without rows, and none after it.
    pub const fn empty() -> Self {
        Self { rows: Vec::new(), is_last: true }
    }

    /// The same page of something else.
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> Page<U> {
        Page { rows: self.rows.into_iter().map(make).collect(), is_last: self.is_last }
    }

    /// The first `limit` of `all` (clamped to 1..=[`PAGE_ROWS_MAX`]).
    pub(crate) fn of(mut all: impl Iterator<Item = T>, limit: usize) -> Self {
        let rows: Vec<T> = all.by_ref().take(limit.clamp(1, PAGE_ROWS_MAX)).collect();
        let is_last = all.next().is_none();
        Self { rows, is_last }
    }
}

/// What lies behind a cursor.
pub(crate) const fn behind<T>(order: Order, after: Option<T>) -> (Bound<T>, Bound<T>)
where
    T: Copy,
{
    let bound = match after {
        Some(after) => Bound::Excluded(after),
        None => Bound::Unbounded,
    };
    match order {
        Order::Ascending => (bound, Bound::Unbounded),
        Order::Descending => (Bound::Unbounded, bound),
    }
}

/// Runs `all` in the given order.
pub(crate) fn ordered<I: DoubleEndedIterator>(order: Order, all: I) -> impl Iterator<Item = I::Item> {
    let (ahead, back) = match order {
        Order::Ascending => (Some(all), None),
        Order::Descending => (None, Some(all.rev())),
    };
    ahead.into_iter().flatten().chain(back.into_iter().flatten())
}

/// Names and ids of one scope, such as the instances of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory<Id> {
    names: BTreeMap<String, Id>,
    ids: BTreeSet<Id>,
}

impl<Id> Default for Directory<Id> {
    fn default() -> Self {
        Self { names: BTreeMap::new(), ids: BTreeSet::new() }
    }
}

impl<Id: Copy + Ord> Directory<Id> {
    /// Adds an entry; answers the one that had the name, if another did.
    pub(crate) fn insert(&mut self, name: &str, id: Id) -> Option<Id> {
        self.ids.insert(id);
        self.names.insert(name.to_owned(), id).filter(|before| *before != id)
    }

    /// Removes an entry; its name only if it is still its own.
    pub(crate) fn remove(&mut self, name: &str, id: Id) {
        self.ids.remove(&id);
        if self.names.get(name) == Some(&id) {
            self.names.remove(name);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn find(&self, name: &str) -> Option<Id> {
        self.names.get(name).copied()
    }

    pub(crate) fn page(&self, scan: &Scan<Id>, limit: usize) -> Page<Id> {
        match scan {
            Scan::ByName { order, after } => {
                let names = self.names.range::<str, _>(behind(*order, after.as_deref()));
                Page::of(ordered(*order, names.map(|(_, id)| *id)), limit)
            }
            Scan::ById { order, after } => {
                let ids = self.ids.range(behind(*order, *after));
                Page::of(ordered(*order, ids.copied()), limit)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pages(directory: &Directory<u32>, start: &Scan<u32>, limit: usize) -> Vec<u32> {
        let name_of = |id| directory.names.iter().find(|(_, of)| **of == id).unwrap().0.clone();
        let (mut scan, mut all) = (start.clone(), Vec::new());
        for _ in 0..=directory.len() {
            let page = directory.page(&scan, limit);
            assert!(page.rows.len() <= limit);
            all.extend(&page.rows);
            if page.is_last {
                return all;
            }
            let last = *page.rows.last().expect("a page that is not the last has rows");
            match &mut scan {
                Scan::ByName { after, .. } => *after = Some(name_of(last)),
                Scan::ById { after, .. } => *after = Some(last),
            }
        }
        panic!("a list of {} entries has no end", directory.len());
    }

    proptest! {
        #[test]
        fn pages_of_any_size_add_up_to_the_whole_list(
            entries in prop::collection::btree_map("[a-z]{1,3}", any::<u32>(), 0..40),
            limit in 1usize..12,
        ) {
            let mut directory = Directory::default();
            let mut by_name = Vec::new();
            for (name, id) in &entries {
                if directory.ids.contains(id) {
                    continue;
                }
                directory.insert(name, *id);
                by_name.push(*id);
            }
            let mut by_id = by_name.clone();
            by_id.sort_unstable();
            for order in [Order::Ascending, Order::Descending] {
                let named = pages(&directory, &Scan::ByName { order, after: None }, limit);
                prop_assert_eq!(&named, &by_name);
                let numbered = pages(&directory, &Scan::ById { order, after: None }, limit);
                prop_assert_eq!(&numbered, &by_id);
                by_name.reverse();
                by_id.reverse();
            }
        }
    }

    #[test]
    fn a_cursor_that_has_been_removed_keeps_its_place() {
        let mut directory = Directory::default();
        for (name, id) in [("a", 1), ("b", 2), ("c", 3)] {
            directory.insert(name, id);
        }
        directory.remove("b", 2);
        let page = |scan| directory.page(&scan, 5).rows;
        let after = || Some("b".to_owned());
        assert_eq!(page(Scan::ByName { order: Order::Ascending, after: after() }), [3]);
        assert_eq!(page(Scan::ByName { order: Order::Descending, after: after() }), [1]);
        assert_eq!(page(Scan::ById { order: Order::Ascending, after: Some(2) }), [3]);
        assert_eq!(page(Scan::ById { order: Order::Descending, after: Some(2) }), [1]);
    }

    #[test]
    fn limits_are_clamped_and_an_empty_list_is_its_last_page() {
        let mut directory = Directory::default();
        let scan = Scan::ById { order: Order::Ascending, after: None };
        assert_eq!(directory.page(&scan, 0), Page::empty());
        directory.insert("a", 1);
        directory.insert("b", 2);
        assert_eq!(directory.page(&scan, 0), Page { rows: vec![1], is_last: false });
        assert_eq!(directory.page(&scan, usize::MAX), Page { rows: vec![1, 2], is_last: true });
    }
}
