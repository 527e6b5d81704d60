//! Sagas by kind, outcome and time, as they end in the log.
//!
//! Invariants:
//! * what is remembered of a saga is forgotten at its end, so memory is bounded by the instances;
//! * a saga whose beginning was not seen is counted, and its time is not.

use eventlog::Record;
use journal::{Event, decode_event};
use lifecycle::{InstanceEvent, SagaId, SagaKind, Step};
use std::collections::BTreeMap;

/// Upper bounds of the times that sagas take, milliseconds; beyond the last is "more".
pub(crate) const SAGA_BOUNDS_MS: [u64; 10] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000];

/// How sagas of one kind went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SagasOfKind {
    /// By `done`, `not_done`, `unwound`.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
    /// Those up to each bound, not cumulative; the last is "more".
    pub(crate) took: [u64; SAGA_BOUNDS_MS.len() + 1],
    /// All of it together, microseconds.
    pub(crate) micros: u64,
}

/// What was seen of sagas.
#[derive(Clone, Debug, Default)]
pub(crate) struct SagaBook {
    under_way: BTreeMap<SagaId, (SagaKind, u64)>,
    ended: BTreeMap<&'static str, SagasOfKind>,
}

impl SagaBook {
    /// Takes an event in. `is_counted` is false for what happened before the start.
    pub(crate) fn note(&mut self, record: &Record, is_counted: bool) {
        // Only what begins or ends a saga is worth decoding.
        if !matches!(record.kind, START_BEGAN | MIGRATE_BEGAN | SAGA_UNWOUND | SAGA_ENDED) {
            return;
        }
        let decoded = decode_event(record.kind, record.schema, record.codec, &record.payload);
        let Ok(Event::Instance(event)) = decoded else {
            return;
        };
        match event {
            InstanceEvent::StartBegan { saga, .. } => {
                self.under_way.insert(saga, (SagaKind::Start, record.time_us));
            }
            InstanceEvent::MigrateBegan { saga, .. } => {
                self.under_way.insert(saga, (SagaKind::Migrate, record.time_us));
            }
            InstanceEvent::SagaUnwound { saga, undone, .. } => {
                // Every start undoes its network; a migration has none of its own.
                let kind = if undone.contains(&Step::Network) { SagaKind::Start } else { SagaKind::Migrate };
                self.ended(saga, kind, "unwound", record.time_us, is_counted);
            }
            InstanceEvent::SagaEnded { saga, done } => {
                let outcome = if done { "done" } else { "not_done" };
                self.ended(saga, SagaKind::Start, outcome, record.time_us, is_counted);
            }
            _ => {}
        }
    }

    fn ended(&mut self, saga: SagaId, assumed: SagaKind, outcome: &'static str, at: u64, is_counted: bool) {
        let began = self.under_way.remove(&saga);
        if !is_counted {
            return;
        }
        let kind = began.map_or(assumed, |(kind, _)| kind);
        let of_kind = self.ended.entry(word(kind)).or_default();
        *of_kind.outcomes.entry(outcome).or_default() += 1;
        if let Some((_, began_at)) = began {
            let micros = at.saturating_sub(began_at);
            let bucket = SAGA_BOUNDS_MS.iter().position(|bound| micros <= bound * 1_000);
            of_kind.took[bucket.unwrap_or(SAGA_BOUNDS_MS.len())] += 1;
            of_kind.micros = of_kind.micros.saturating_add(micros);
        }
    }

    /// Those that have ended since the start, by kind. Kinds that never did are there with nothing.
    pub(crate) fn by_kind(&self) -> BTreeMap<&'static str, SagasOfKind> {
        let kinds = [SagaKind::Start, SagaKind::Migrate].map(word);
        kinds.into_iter().map(|kind| (kind, self.ended.get(kind).cloned().unwrap_or_default())).collect()
    }
}

const START_BEGAN: u16 = 102;
const SAGA_UNWOUND: u16 = 104;
const SAGA_ENDED: u16 = 105;
const MIGRATE_BEGAN: u16 = 117;

const fn word(kind: SagaKind) -> &'static str {
    lifecycle::saga::definition(kind).name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_events_that_are_meant() {
        for (number, name) in [
            (START_BEGAN, "StartBegan"),
            (MIGRATE_BEGAN, "MigrateBegan"),
            (SAGA_UNWOUND, "SagaUnwound"),
            (SAGA_ENDED, "SagaEnded"),
        ] {
            let known = journal::event_kinds().find(|kind| kind.kind == number).map(|kind| kind.name);
            assert_eq!(known, Some(name));
        }
    }

    #[test]
    fn a_saga_counts_by_its_kind_and_time_and_one_of_which_only_the_end_was_seen_without() {
        let mut book = SagaBook::default();
        let id = |n| SagaId::new(uuid::Uuid::from_u128(n));
        book.under_way.insert(id(1), (SagaKind::Migrate, 1_000_000));
        book.under_way.insert(id(2), (SagaKind::Start, 1_000_000));
        book.ended(id(1), SagaKind::Start, "done", 1_300_000, true);
        book.ended(id(2), SagaKind::Start, "done", 2_000_000, false);
        book.ended(id(3), SagaKind::Start, "unwound", 9_000_000, true);
        let by_kind = book.by_kind();
        let (start, migrate) = (&by_kind["start"], &by_kind["migrate"]);
        assert_eq!(
            start.outcomes,
            BTreeMap::from([("unwound", 1)]),
            "what ended before the start is not counted"
        );
        assert_eq!((start.took.iter().sum::<u64>(), start.micros), (0, 0));
        assert_eq!((migrate.outcomes["done"], migrate.took[2], migrate.micros), (1, 1, 300_000));
        assert!(book.under_way.is_empty());
    }
}
