//! The order within one stream: versions, times, appends, causes.

use crate::source::ends_append;
use journal::{Recorded, RecordedContext};
use std::rc::Rc;

/// The newest event of a stream, as far as order is concerned.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    version: u64,
    position: u64,
    time: u64,
    /// Index within its append, and the number of events in it.
    index: (u16, u16),
    /// Who wrote the append that is being read.
    pub(super) by: Rc<str>,
}

impl Order {
    /// Takes the next event; answers what is out of order about it, if anything is.
    pub(super) fn take(&mut self, recorded: &Recorded) -> Option<String> {
        if let Some(context) = &recorded.context {
            self.by = who(context).into();
        }
        let problem = self.problem(recorded);
        self.version = recorded.meta.version;
        self.position = recorded.meta.position;
        self.time = recorded.meta.time.micros();
        self.index = recorded.index;
        problem
    }

    /// Whether an append has begun and not ended.
    pub(super) const fn is_open(&self) -> bool {
        self.index.1 > 0 && !ends_append(self.index)
    }

    fn problem(&self, recorded: &Recorded) -> Option<String> {
        let meta = recorded.meta;
        if Some(meta.version) != self.version.checked_add(1) {
            return Some(format!("version {} follows version {}", meta.version, self.version));
        }
        if meta.position <= self.position {
            return Some(format!("position {} follows position {}", meta.position, self.position));
        }
        if self.version > 0 && meta.time.micros() <= self.time {
            return Some(format!(
                "its recorded time {} us does not lie after {} us, that of the event before it",
                meta.time.micros(),
                self.time
            ));
        }
        self.append_problem(recorded).or_else(|| cause_problem(recorded))
    }

    fn append_problem(&self, recorded: &Recorded) -> Option<String> {
        let (index, count) = recorded.index;
        if index >= count {
            return Some(format!("it is event {index} of an append of {count}"));
        }
        if index == 0 {
            if self.is_open() {
                return Some(format!(
                    "the append before it ends at event {} of {}",
                    self.index.0.saturating_add(1),
                    self.index.1
                ));
            }
            return recorded.context.is_none().then(|| "its append does not say who wrote it".to_owned());
        }
        let continues =
            self.index == (index - 1, count) && Some(recorded.meta.position) == self.position.checked_add(1);
        (!continues).then(|| {
            format!(
                "it is event {} of {count}, after event {} of {}",
                index + 1,
                self.index.0.saturating_add(1),
                self.index.1
            )
        })
    }
}

fn cause_problem(recorded: &Recorded) -> Option<String> {
    if recorded.cause >= recorded.meta.position {
        return Some(format!("its cause, position {}, does not lie before it", recorded.cause));
    }
    (recorded.index.0 > 0 && recorded.cause == 0).then(|| "it follows from nothing".to_owned())
}

fn who(context: &RecordedContext) -> String {
    match context.request {
        Some(request) => format!("{}, request {request}", context.actor),
        None => context.actor.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal::{Actor, Event, StreamName};
    use lifecycle::{EventMeta, SystemEvent, Timestamp};

    /// The event `index` of `count` at this place, caused as given.
    fn event(version: u64, position: u64, time: u64, index: (u16, u16), cause: u64) -> Recorded {
        let context = RecordedContext {
            actor: Actor::Daemon,
            request: None,
            saga: None,
            trace: None,
            build: String::new(),
            input: None,
            reason: None,
        };
        Recorded {
            stream: StreamName::System,
            meta: EventMeta { version, position, time: Timestamp::from_micros(time) },
            cause,
            index,
            event: Event::System(SystemEvent::DaemonStopped),
            context: (index.0 == 0).then_some(context),
        }
    }

    /// What is out of order about the last of these.
    fn last_problem(events: &[Recorded]) -> Option<String> {
        let mut order = Order::default();
        events.iter().map(|event| order.take(event)).last().flatten()
    }

    #[test]
    fn what_is_in_order_passes_and_what_is_not_is_told() {
        let first = || event(1, 10, 100, (0, 1), 0);
        let opened = || event(1, 10, 100, (0, 2), 0);
        let table = [
            (vec![first()], None),
            (vec![first(), event(2, 15, 101, (0, 1), 10)], None),
            (vec![opened(), event(2, 11, 101, (1, 2), 10)], None),
            (vec![event(2, 10, 100, (0, 1), 0)], Some("version 2 follows version 0")),
            (vec![first(), event(3, 15, 101, (0, 1), 0)], Some("version 3 follows version 1")),
            (vec![first(), event(2, 10, 101, (0, 1), 0)], Some("position 10 follows position 10")),
            (vec![first(), event(2, 15, 100, (0, 1), 0)], Some("recorded time")),
            (vec![opened(), event(2, 15, 101, (0, 1), 0)], Some("ends at event 1 of 2")),
            (vec![first(), event(2, 11, 101, (1, 2), 10)], Some("event 2 of 2, after event 1 of 1")),
            (vec![opened(), event(2, 12, 101, (1, 2), 10)], Some("event 2 of 2")),
            (vec![opened(), event(2, 11, 101, (1, 3), 10)], Some("event 2 of 3")),
            (vec![event(1, 10, 100, (2, 2), 0)], Some("event 2 of an append of 2")),
            (vec![event(1, 10, 100, (0, 0), 0)], Some("event 0 of an append of 0")),
            (vec![event(1, 10, 100, (0, 1), 10)], Some("does not lie before it")),
            (vec![event(1, 10, 100, (0, 1), 99)], Some("does not lie before it")),
            (vec![opened(), event(2, 11, 101, (1, 2), 0)], Some("follows from nothing")),
            (vec![Recorded { context: None, ..first() }], Some("does not say who")),
        ];
        for (events, expected) in table {
            let found = last_problem(&events);
            match expected {
                None => assert_eq!(found, None),
                Some(expected) => {
                    assert!(
                        found.as_ref().is_some_and(|found| found.contains(expected)),
                        "{expected}: {found:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_append_is_open_until_its_last_event() {
        let mut order = Order::default();
        assert!(!order.is_open());
        order.take(&event(1, 10, 100, (0, 2), 0));
        assert!(order.is_open());
        order.take(&event(2, 11, 101, (1, 2), 10));
        assert!(!order.is_open());
    }
}
