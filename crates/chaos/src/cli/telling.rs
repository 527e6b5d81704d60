//! How a campaign goes on, for whoever waits for it. It is told on stderr, and decides nothing.

use super::Progress;
use crate::campaign::Findings;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time between two lines on a terminal, and in a file.
const ON_A_TERMINAL: Duration = Duration::from_millis(200);
const IN_A_FILE: Duration = Duration::from_secs(10);

/// When it was last told, and how.
pub(super) struct Telling {
    how: Progress,
    started: Instant,
    /// Milliseconds after the start at which it is told next.
    due_ms: AtomicU64,
}

impl Telling {
    pub(super) fn new(how: Progress, started: Instant) -> Self {
        Self { how, started, due_ms: AtomicU64::new(Self::every(how)) }
    }

    fn every(how: Progress) -> u64 {
        let every = if how == Progress::Lines { IN_A_FILE } else { ON_A_TERMINAL };
        u64::try_from(every.as_millis()).unwrap_or(u64::MAX)
    }

    /// Tells how it stands, if it was not told a moment ago.
    pub(super) fn tell(&self, findings: &Findings) {
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.how == Progress::Silent || elapsed_ms < self.due_ms.load(Ordering::Relaxed) {
            return;
        }
        self.due_ms.store(elapsed_ms + Self::every(self.how), Ordering::Relaxed);
        let text = format!(
            "{} seeds  {} steps/s  {} failed  {} s",
            findings.seeds,
            findings.steps.saturating_mul(1_000) / elapsed_ms.max(1),
            findings.failures.len(),
            elapsed_ms / 1_000
        );
        let mut err = std::io::stderr().lock();
        // Whoever closed stderr does not want to know.
        let _ = if self.how == Progress::Overwritten {
            write!(err, "\r{text:<60}").and_then(|()| err.flush())
        } else {
            writeln!(err, "{text}")
        };
    }

    /// Leaves the terminal as the output expects it.
    pub(super) fn end(&self) {
        if self.how == Progress::Overwritten {
            let _ = write!(std::io::stderr().lock(), "\r{:<60}\r", "");
        }
    }
}
