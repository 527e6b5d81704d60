//! The restart policy: whether and when an instance that failed is started again (`docs/lifecycle.md`,
//! restarts).
//!
//! Invariants:
//! * only what is visibly failed and wanted running is restarted;
//! * the first attempt is made at once; each further one in a row waits longer, up to a cap, and there is a
//!   last one;
//! * having run for long, or a start by hand, begins the count anew.

use crate::decide::Policy;
use crate::instance::{Instance, Intent, Restarts};
use crate::time::{Span, Timestamp};
use crate::visible::RunState;

/// Bounds on automatic restarts; from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Wait before the second attempt in a row; doubled for each that follows.
    pub base: Span,
    /// Longest wait.
    pub cap: Span,
    /// Attempts in a row; after the last the instance stays failed.
    pub budget: u32,
    /// How long it must have run for the count to begin anew.
    pub stable: Span,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            base: Span::from_secs(300),
            cap: Span::from_secs(3_600),
            budget: 16,
            stable: Span::from_secs(600),
        }
    }
}

/// The next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartDue {
    /// Which one it is, counted from 1.
    pub attempt: u32,
    /// When the wait began.
    pub start: Timestamp,
    /// How long it is.
    pub wait: Span,
}

/// Whether the policy would restart it, if it fails or has failed.
pub fn is_wanted(state: &Instance) -> bool {
    state.deleted.is_none() && state.intent == Intent::Running && state.spec.restarts()
}

/// The attempt that is due, now or later; none if there is nothing to restart, or the budget is spent.
pub fn restart_due(state: &Instance, policy: &Policy) -> Option<RestartDue> {
    let failed = state.failed.as_ref()?;
    if state.run_state() != RunState::Failed || state.saga.is_some() || !is_wanted(state) {
        return None;
    }
    let restart = policy.restart;
    let ran_for = state.running_since.map_or(Span::default(), |since| failed.at.since(since));
    let made = if ran_for >= restart.stable { 0 } else { state.restarts.attempts };
    if made >= restart.budget {
        return None;
    }
    let (start, wait) = match (made, state.restarts.last) {
        (0, _) | (_, None) => (failed.at, Span::default()),
        (made, Some(last)) => (last, backoff(restart, made)),
    };
    Some(RestartDue { attempt: made + 1, start, wait })
}

/// Until when an instance that fails would wait to be restarted; none if it would be restarted at once, or
/// is never restarted.
pub fn cooldown_end(
    restarts: &Restarts,
    running_since: Option<Timestamp>,
    policy: &Policy,
    now: Timestamp,
) -> Option<Timestamp> {
    let restart = policy.restart;
    let is_stable = running_since.is_some_and(|since| now.since(since) >= restart.stable);
    let last = restarts.last.filter(|_| restarts.attempts > 0 && !is_stable)?;
    Some(last + backoff(restart, restarts.attempts)).filter(|end| *end > now)
}

fn backoff(restart: RestartPolicy, made: u32) -> Span {
    let doubled = restart.base.micros().saturating_mul(1 << (made - 1).min(32));
    Span::from_micros(doubled.min(restart.cap.micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_never_beyond() {
        let restart = RestartPolicy::default();
        let waits: Vec<u64> = (1..=6).map(|made| backoff(restart, made).micros() / 60_000_000).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        assert_eq!(backoff(restart, u32::MAX), restart.cap);
    }

    #[test]
    fn a_cooldown_ends_with_the_wait_or_with_a_stable_run() {
        let policy = Policy::default();
        let at = |seconds| Timestamp::from_micros(seconds * 1_000_000);
        let end = |attempts, running_since: Option<u64>, now| {
            let restarts = Restarts { attempts, last: (attempts > 0).then(|| at(1_000)) };
            cooldown_end(&restarts, running_since.map(at), &policy, at(now))
        };
        assert_eq!(end(0, Some(0), 1_001), None, "the first is made at once");
        assert_eq!(end(1, None, 1_001), Some(at(1_300)));
        assert_eq!(end(1, None, 1_300), None);
        assert_eq!(end(2, Some(1_010), 1_500), Some(at(1_600)));
        assert_eq!(end(3, Some(1_010), 1_609), Some(at(2_200)));
        assert_eq!(end(3, Some(1_010), 1_610), None, "it has run for ten minutes");
    }
}
