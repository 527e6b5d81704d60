//! The order within one stream: versions, times, appends, causes.

use crate::source::ends_append;
use journal::{Recorded, RecordedContext};

/// The newest event of a stream, as far as order is concerned.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    version: u64,
    position: u64,
    time: u64,
    /// Index within its append, and the number of events in it.
    index: (u16, u16),
    /// Who wrote the append that is being read.
    pub(super) by: String,
}

impl Order {
    /// Takes the next event; answers what is out of order about it, if anything is.
    pub(super) fn take(&mut self, recorded: &Recorded) -> Option<String> {
        if let Some(context) = &recorded.context {
            self.by = who(context);
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
        if meta.version != self.version + 1 {
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
        let continues = self.index == (index - 1, count) && recorded.meta.position == self.position + 1;
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
