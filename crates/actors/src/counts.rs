//! What came in and what was turned away, counted for people on call. Nothing is decided by it.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often something happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that wait for their instance, or are being worked on by it.
    pub waiting: u64,
    /// Requests and reports that were turned away at the door: a bound on what waits was reached.
    pub turned_away: u64,
    /// Reports of sleds that were news, and are durable.
    pub reports_accepted: u64,
    /// Reports that said nothing new.
    pub reports_stale: u64,
    /// Reports that were refused, or could not be recorded.
    pub reports_refused: u64,
}

/// The same, as it grows.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    turned_away: AtomicU64,
    reports_accepted: AtomicU64,
    reports_stale: AtomicU64,
    reports_refused: AtomicU64,
}

/// What became of a report.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reported {
    Accepted,
    Stale,
    Refused,
}

impl Tally {
    pub(crate) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reported(&self, how: Reported) {
        let counter = match how {
            Reported::Accepted => &self.reports_accepted,
            Reported::Stale => &self.reports_stale,
            Reported::Refused => &self.reports_refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self, waiting: usize) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            waiting: waiting as u64,
            turned_away: read(&self.turned_away),
            reports_accepted: read(&self.reports_accepted),
            reports_stale: read(&self.reports_stale),
            reports_refused: read(&self.reports_refused),
        }
    }
}
