//! Where one run goes wrong: a way, and counters of what has passed since the scenario armed it.
//!
//! Invariant: a fault happens once. Which call or append it meets is decided by counting, and the counting is
//! repeatable because the clock is paused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How a scenario is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing goes wrong.
    Basic,
    /// Every call to a sled, and every report, is delivered twice.
    Twice,
    /// The n-th effect is refused for good; the sled never sees it.
    FailAt(usize),
    /// The n-th effect happens; its answer is lost.
    LostAt(usize),
    /// The process dies there, and another opens the same journal.
    CrashAt(Point),
}

/// Where the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The n-th append never reaches the journal.
    BeforeAppend(usize),
    /// The n-th append is durable, and nothing that follows from it has left.
    AfterAppend(usize),
    /// The n-th effect never leaves.
    BeforeEffect(usize),
    /// The n-th effect has happened, and its answer is not heard.
    AfterEffect(usize),
}

/// What becomes of one append or effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Pass,
    Twice,
    Refuse,
    Lose,
    DieBefore,
    DieAfter,
}

/// The way of this run, and how far it has come.
#[derive(Debug)]
pub struct Plan {
    way: Way,
    seen: Mutex<Seen>,
    next_append: Mutex<Option<Unanswered>>,
    is_record_skipped: AtomicBool,
}

/// What becomes of an append whose writer is told that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It is in the journal.
    Written,
    /// It is not.
    NotWritten,
}

/// What has passed since the plan was armed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    is_armed: bool,
    /// Appends.
    pub appends: usize,
    /// Effects, by name, in order.
    pub effects: Vec<&'static str>,
}

impl Plan {
    /// Nothing counts until it is armed.
    pub fn new(way: Way) -> Self {
        let (seen, next_append) = (Mutex::default(), Mutex::default());
        Self { way, seen, next_append, is_record_skipped: AtomicBool::new(false) }
    }

    /// The way.
    pub fn way(&self) -> Way {
        self.way
    }

    /// From here on appends and effects count.
    pub fn arm(&self) {
        self.lock().is_armed = true;
    }

    /// Whether things may go wrong at present.
    pub fn is_armed(&self) -> bool {
        self.lock().is_armed
    }

    /// From here on nothing counts, and nothing goes wrong any more.
    pub fn disarm(&self) {
        self.lock().is_armed = false;
    }

    /// What has passed.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer of the next append is told that its outcome is unknown.
    pub fn lose_next_append(&self, outcome: Unanswered) {
        *self.next_append.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    /// Whether this append's writer is to be told so.
    pub(super) fn takes_unanswered(&self) -> Option<Unanswered> {
        self.next_append.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whoever follows the log does not see the next record.
    pub fn skip_next_record(&self) {
        self.is_record_skipped.store(true, Ordering::Relaxed);
    }

    pub(super) fn takes_record_skipped(&self) -> bool {
        self.is_record_skipped.swap(false, Ordering::Relaxed)
    }

    /// An append is about to be made.
    pub(super) fn append(&self) -> Fate {
        let mut seen = self.lock();
        if !seen.is_armed {
            return Fate::Pass;
        }
        let nth = seen.appends;
        seen.appends += 1;
        match self.way {
            Way::CrashAt(Point::BeforeAppend(at)) if at == nth => Fate::DieBefore,
            Way::CrashAt(Point::AfterAppend(at)) if at == nth => Fate::DieAfter,
            _ => Fate::Pass,
        }
    }

    /// An effect is about to leave.
    pub(super) fn effect(&self, name: &'static str) -> Fate {
        let mut seen = self.lock();
        if !seen.is_armed {
            return self.question();
        }
        let nth = seen.effects.len();
        seen.effects.push(name);
        match self.way {
            Way::FailAt(at) if at == nth => Fate::Refuse,
            Way::LostAt(at) if at == nth => Fate::Lose,
            Way::CrashAt(Point::BeforeEffect(at)) if at == nth => Fate::DieBefore,
            Way::CrashAt(Point::AfterEffect(at)) if at == nth => Fate::DieAfter,
            _ => self.question(),
        }
    }

    /// A call that changes nothing, or a report: it may come twice, and is not counted.
    pub(super) fn question(&self) -> Fate {
        if self.way == Way::Twice { Fate::Twice } else { Fate::Pass }
    }
}
