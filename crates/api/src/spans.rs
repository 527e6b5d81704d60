//! What became of the daemon's spans on their way to a collector, counted for people on call.

use std::sync::atomic::{AtomicU64, Ordering};

/// Spans since the start; all zero where none are exported.
#[derive(Debug, Default)]
pub struct SpanTally {
    exported: AtomicU64,
    lost: AtomicU64,
}

impl SpanTally {
    /// A collector has taken so many.
    pub fn exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// So many were dropped: the queue was full, or no collector took them.
    pub fn lost(&self, spans: usize) {
        self.lost.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// How many were taken, and how many dropped.
    pub fn counts(&self) -> (u64, u64) {
        (self.exported.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }
}
