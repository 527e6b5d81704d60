//! Any log against the simplest one: a vector.

use super::Harness;
use super::shape::{append, assert_sound, event, everything, stream};
use crate::types::{AppendOutcome, Epoch, Position, StreamId, Version};
use std::collections::BTreeMap;

/// One step of a generated history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Claim a stream.
    Claim {
        /// Number of the stream.
        stream: u8,
    },
    /// Append under the newest claim of the stream, or under one before it.
    Append {
        /// Number of the stream.
        stream: u8,
        /// Number of events.
        events: u8,
        /// Added to the expected version: zero is right.
        ahead: i8,
        /// Whether it comes from the owner before the newest claim.
        is_late: bool,
    },
    /// Close and open again.
    Reopen,
    /// End without closing and open again.
    Crash,
}

#[derive(Default)]
struct Model {
    records: Vec<(StreamId, u64, u64)>,
    heads: BTreeMap<StreamId, u64>,
    epochs: BTreeMap<StreamId, (Epoch, Epoch)>,
    written: u64,
}

/// Runs the steps on the log and on a vector, and compares every answer and, at the end, everything.
pub async fn run_model(harness: &mut dyn Harness, steps: &[Step]) {
    let mut model = Model::default();
    for step in steps {
        match *step {
            Step::Claim { stream: number } => {
                let id = stream(u64::from(number));
                let claim = harness.log().claim(id).await.expect("the log accepts claims");
                assert_eq!(claim.head.version.get(), model.heads.get(&id).copied().unwrap_or(0));
                let epochs = model.epochs.entry(id).or_default();
                assert!(claim.epoch > epochs.0);
                *epochs = (claim.epoch, epochs.0);
            }
            Step::Append { stream: number, events, ahead, is_late } => {
                model.append(harness, stream(u64::from(number)), events, ahead, is_late).await;
            }
            Step::Reopen => {
                harness.reopen().await;
                model.epochs.clear();
            }
            Step::Crash => {
                harness.crash();
                model.epochs.clear();
            }
        }
    }
    let log = harness.log();
    let read: Vec<_> = everything(&*log)
        .iter()
        .map(|record| (record.stream, record.version.get(), record.time_us - 1_000_000))
        .collect();
    assert_eq!(read, model.records);
    assert_sound(&*log);
}

impl Model {
    async fn append(&mut self, harness: &dyn Harness, id: StreamId, events: u8, ahead: i8, is_late: bool) {
        let (newest, before) = self.epochs.get(&id).copied().unwrap_or_default();
        let head = self.heads.get(&id).copied().unwrap_or(0);
        let expected = head.saturating_add_signed(i64::from(ahead));
        let epoch = if is_late { before } else { newest };
        let batch: Vec<_> = (0..u64::from(events)).map(|index| event(self.written + index)).collect();
        let outcome = harness.log().append(append(id, epoch, expected, batch)).await;
        let right = if events == 0 {
            assert!(matches!(outcome, AppendOutcome::Unavailable(_)), "{outcome:?}");
            return;
        } else if epoch != newest {
            AppendOutcome::Fenced { current: newest }
        } else if expected != head {
            AppendOutcome::Conflict { actual: Version::new(head) }
        } else {
            let first = self.records.len() as u64 + 1;
            for index in 0..u64::from(events) {
                self.records.push((id, head + 1 + index, self.written + index));
            }
            self.written += u64::from(events);
            let version = head + u64::from(events);
            self.heads.insert(id, version);
            AppendOutcome::Appended {
                first: Position::new(first),
                last: Position::new(self.records.len() as u64),
                version: Version::new(version),
            }
        };
        assert_eq!(outcome, right);
    }
}

/// Histories of up to `max` steps over five streams.
#[cfg(test)]
pub(crate) fn steps(max: usize) -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let append =
        (0u8..5, 0u8..5, prop_oneof![8 => Just(0i8), 1 => Just(1), 1 => Just(-1)], prop::bool::weighted(0.1));
    let step = prop_oneof![
        3 => (0u8..5).prop_map(|stream| Step::Claim { stream }),
        10 => append.prop_map(|(stream, events, ahead, is_late)| Step::Append { stream, events, ahead, is_late }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 0..max)
}
