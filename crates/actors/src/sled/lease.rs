//! The lease: until when a sled's VMMs may run without a renewal, as this side counts it.
//!
//! The sled counts from when it *sent* the last renewal that was agreed to, and kills its VMMs at the end. This side
//! counts from when it *handled* that renewal, which is later, waits longer by the grace, and only then calls them
//! dead. After a start it counts from the start.
//!
//! Invariants:
//! * Both clocks may be off by [`CLOCK_OFF_PPM_MAX`] in rate, in opposite directions: whatever ran on the lease is
//!   dead before it is called dead (`lease_wait`).
//! * The end of the lease is durable before any VMM is told of it; a renewal that is handled later is refused, and one
//!   that comes in between is put off ([`super::standing`]).
//! * A sled whose epoch has no lease never loses it.

use super::{Shell, SledMsg};
use crate::instance::Timer;
use journal::{Actor as Who, Context};
use lifecycle::Timestamp;
use lifecycle::sled::{Sled, expire};
use ractor::ActorProcessingErr;
use std::time::Duration;
use tokio::time::Instant;

/// How far the rate of either clock may be off, in millionths: a hundred times what quartz is.
pub const CLOCK_OFF_PPM_MAX: u64 = 10_000;

/// How long a sled may take from the end of its lease to the end of its last VMM.
const KILL_TIME_MAX: Duration = Duration::from_secs(1);

/// How soon an end that could not be journaled is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

const MILLION: u64 = 1_000_000;

/// The least grace for a lease of `seconds`. A slow sled takes `1 / (1 - off)` of its length, a fast control plane
/// waits `1 / (1 + off)` of what it means to; the kill is waited for by the same fast clock.
pub fn lease_grace_min(seconds: u64) -> Duration {
    let stretched = |micros: u64| {
        let (fast, slow) = (MILLION + CLOCK_OFF_PPM_MAX, MILLION - CLOCK_OFF_PPM_MAX);
        u128::from(micros) * u128::from(fast) / u128::from(slow) + 1
    };
    let kill = u64::try_from(KILL_TIME_MAX.as_micros()).unwrap_or(u64::MAX);
    let lease = seconds.saturating_mul(MILLION);
    let micros = stretched(lease) - u128::from(lease) + stretched(kill);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// How long after the last renewal a lease of `seconds` is over, for sure. A grace that was configured for shorter
/// leases than this one is not believed.
pub fn lease_wait(seconds: u64, grace: Duration) -> Duration {
    Duration::from_secs(seconds).saturating_add(grace.max(lease_grace_min(seconds)))
}

/// The timer that looks whether the lease has expired.
#[derive(Default)]
pub(super) struct Clock {
    timer: Option<Timer>,
}

/// A sled's lease, as far as this daemon knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Its length in seconds.
    pub seconds: u64,
    /// When it was last renewed here, or when this daemon began to count.
    pub renewed: Timestamp,
    /// When it was found expired, if it was and the sled has not registered since.
    pub expired: Option<Timestamp>,
}

impl Shell {
    /// The lease counts from here.
    pub(super) fn lease_renewed(&mut self) {
        let Some(seconds) = self.state.as_ref().and_then(Sled::running_lease) else {
            self.lease = Clock::default();
            self.standing.count_from(None);
            return;
        };
        self.standing.count_from(Some((Instant::now(), self.env.clock.now())));
        if self.lease.timer.is_none() {
            self.look_at_lease(lease_wait(seconds, self.env.limits.sled_lease_grace));
        }
    }

    fn look_at_lease(&mut self, after: Duration) {
        let due = self.me.send_after(after, || SledMsg::LeaseDue).abort_handle();
        self.lease.timer = Some(Timer::new(due));
    }

    /// Ends the lease if it was not renewed since the timer was set; looks again later if it was.
    pub(super) async fn on_lease_due(&mut self) -> Result<(), ActorProcessingErr> {
        self.lease.timer = None;
        let state = self.state.as_ref();
        let running = state.and_then(Sled::running_lease).zip(state.and_then(expire));
        let (Some((seconds, expired)), Some(_)) = (running, self.standing.renewed()) else {
            return Ok(());
        };
        let wait = lease_wait(seconds, self.env.limits.sled_lease_grace);
        if let Err(left) = self.standing.begin_end(wait) {
            self.look_at_lease(left);
            return Ok(());
        }
        if let Err(error) = self.append(&[expired], &Context::of(Who::Daemon)).await {
            tracing::warn!(sled = %self.id, %error, "the end of a lease could not be recorded");
            if error.ends_owner() {
                return Err(error.into());
            }
            self.standing.end_refused();
            self.look_at_lease(TRY_AGAIN);
            return Ok(());
        }
        self.network.lost(self.id);
        self.tell_of_fence().await;
        Ok(())
    }

    pub(super) fn lease_status(&self) -> Option<LeaseStatus> {
        let sled = self.state.as_ref()?;
        let (seconds, began) = (sled.lease?, sled.time_created);
        let renewed = self.standing.renewed().map_or(began, |(_, renewed)| renewed);
        Some(LeaseStatus { seconds, renewed, expired: sled.lapsed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Real time that a clock takes to show `shown`, at a rate that is off by `ppm`, in microseconds, rounded
    /// against the rule.
    fn real(shown: Duration, fast_by_ppm: i64) -> u128 {
        let rate = u128::try_from(1_000_000 + fast_by_ppm).unwrap();
        shown.as_micros() * 1_000_000 / rate
    }

    #[test]
    fn whatever_ran_on_a_lease_is_dead_before_it_is_called_dead() {
        let most = i64::try_from(CLOCK_OFF_PPM_MAX).unwrap();
        for seconds in [1, 2, 10, 30, 600, 3_600, 86_400] {
            for sled in [-most, -most / 2, 0, most] {
                for control in [-most, 0, most / 2, most] {
                    let killed = real(Duration::from_secs(seconds), sled) + KILL_TIME_MAX.as_micros();
                    let called = real(lease_wait(seconds, Duration::ZERO), control);
                    assert!(called >= killed, "{seconds} s, sled {sled} ppm, control plane {control} ppm");
                }
            }
            let waste = lease_grace_min(seconds).saturating_sub(Duration::from_secs(seconds) / 40);
            assert!(waste <= Duration::from_secs(2), "{seconds} s: waits in vain");
        }
    }

    #[test]
    fn a_grace_for_shorter_leases_is_not_believed() {
        assert_eq!(lease_wait(30, Duration::from_secs(5)), Duration::from_secs(35));
        assert_eq!(
            lease_wait(3_600, Duration::from_secs(5)),
            Duration::from_hours(1) + lease_grace_min(3_600)
        );
    }
}
