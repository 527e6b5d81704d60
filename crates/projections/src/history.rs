//! Things that begin and end: all that are under way, and the last [`ENDED_MAX`] that are over.
//!
//! Invariants:
//! * what is under way is never dropped;
//! * of what has ended, the one that ended first is dropped first: what is kept is a function of the log.

use crate::directory::{Order, Page, behind, ordered};
use std::collections::{BTreeMap, BTreeSet};

/// Most ended ones that are kept of each sort. The log has them all.
pub const ENDED_MAX: usize = 10_000;

/// Which of them to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    /// All that are kept.
    All,
    /// Those that are under way.
    UnderWay,
}

/// Something that ends once.
pub(crate) trait Ends {
    /// Log position of its end, if it has ended.
    fn ended_at(&self) -> Option<u64>;
}

/// Rows by id, with what is derived from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History<Id, Row> {
    rows: BTreeMap<Id, Row>,
    under_way: BTreeSet<Id>,
    ended: BTreeMap<u64, Id>,
}

impl<Id, Row> Default for History<Id, Row> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), under_way: BTreeSet::new(), ended: BTreeMap::new() }
    }
}

impl<Id: Copy + Ord, Row: Ends + Clone> History<Id, Row> {
    /// Puts a row in its place; answers the one that is dropped for it, if one is.
    pub(crate) fn put(&mut self, id: Id, row: Row) -> Option<Id> {
        self.insert(id, row);
        if self.ended.len() <= ENDED_MAX {
            return None;
        }
        let (_, oldest) = self.ended.pop_first()?;
        self.rows.remove(&oldest);
        Some(oldest)
    }

    /// Adds a row as it was kept; answers false if there is one already.
    pub(crate) fn insert(&mut self, id: Id, row: Row) -> bool {
        match row.ended_at() {
            Some(position) => {
                self.under_way.remove(&id);
                self.ended.insert(position, id);
            }
            None => {
                self.under_way.insert(id);
            }
        }
        self.rows.insert(id, row).is_none()
    }

    pub(crate) fn get(&self, id: Id) -> Option<&Row> {
        self.rows.get(&id)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Id> + '_ {
        self.rows.keys().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn page(&self, among: Among, order: Order, after: Option<Id>, limit: usize) -> Page<Row> {
        match among {
            Among::All => {
                let rows = self.rows.range(behind(order, after));
                Page::of(ordered(order, rows.map(|(_, row)| row.clone())), limit)
            }
            Among::UnderWay => {
                let ids = self.under_way.range(behind(order, after));
                Page::of(ordered(order, ids.map(|id| self.rows[id].clone())), limit)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Thing(Option<u64>);

    impl Ends for Thing {
        fn ended_at(&self) -> Option<u64> {
            self.0
        }
    }

    #[test]
    fn what_ended_first_is_dropped_first_and_what_is_under_way_never() {
        let mut history = History::default();
        let count = u64::try_from(ENDED_MAX).unwrap();
        assert_eq!(history.put(0, Thing(None)), None);
        for n in 1..=count + 3 {
            assert_eq!(history.put(n, Thing(None)), None);
        }
        // They end in the reverse order of their ids.
        for n in 1..=count {
            assert_eq!(history.put(n, Thing(Some(1_000_000 - n))), None);
        }
        let dropped: Vec<_> = (1..=3).map(|n| history.put(count + n, Thing(Some(2_000_000 + n)))).collect();
        assert_eq!(dropped, [Some(count), Some(count - 1), Some(count - 2)]);
        assert_eq!((history.len(), history.get(0)), (ENDED_MAX + 1, Some(&Thing(None))));
        assert_eq!(history.get(count), None);
    }

    #[test]
    fn pages_list_all_or_what_is_under_way() {
        let mut history = History::default();
        for (id, ended) in [(1, None), (2, Some(7)), (3, None), (4, Some(5))] {
            history.put(id, Thing(ended));
        }
        history.put(3, Thing(Some(9)));
        let (up, down) = (Order::Ascending, Order::Descending);
        assert_eq!(history.page(Among::UnderWay, up, None, 9).rows, [Thing(None)]);
        assert_eq!(
            history.page(Among::All, down, None, 3).rows,
            [Thing(Some(5)), Thing(Some(9)), Thing(Some(7))]
        );
        let rest = history.page(Among::All, up, Some(2), 2);
        assert_eq!((rest.rows, rest.is_last), (vec![Thing(Some(9)), Thing(Some(5))], true));
    }
}
