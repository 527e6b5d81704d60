//! Time as data: microseconds, carried in by inputs and events. Nothing here reads a clock.

use serde::{Deserialize, Serialize};

/// A moment, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

/// A length of time, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(u64);

impl Timestamp {
    /// Wraps microseconds since the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// This moment, or the first after `last` if the clock stands still or goes back. Recorded times of
    /// a stream rise strictly because of this.
    #[must_use]
    pub const fn strictly_after(self, last: Self) -> Self {
        if self.0 > last.0 { self } else { Self(last.0.saturating_add(1)) }
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Span> for Timestamp {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Span {
    /// Wraps microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Wraps milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Wraps seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// What is left of a deadline that began at `start` with this length, at `now`: between zero and the
    /// whole length, whatever the wall clock did meanwhile.
    #[must_use]
    pub const fn remaining(self, start: Timestamp, now: Timestamp) -> Self {
        let elapsed = now.0.saturating_sub(start.0);
        Self(self.0.saturating_sub(elapsed))
    }
}
