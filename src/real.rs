//! The daemon's real clock, ids and boot: the only places where the outside world is asked for them.

use actors::{Clock, IdSource};
use lifecycle::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// The system's wall clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the real clock")]
    fn now(&self) -> Timestamp {
        // A clock before 1970 counts as 1970; recorded times rise all the same.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX))
    }
}

/// The system's randomness.
pub struct SystemIds;

impl IdSource for SystemIds {
    #[expect(clippy::disallowed_methods, reason = "this is the real source of ids")]
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn dice(&self) -> u64 {
        // The fixed bits of a version 4 UUID lie in different halves.
        let (high, low) = self.uuid().as_u64_pair();
        high.rotate_left(32) ^ low
    }
}

/// The boot of this host, so that a simulated sled's state does not outlive the host's memory. Where the
/// system does not tell, every start is the same boot.
pub fn host_boot() -> Uuid {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(Uuid::from_u128(1))
}

/// Lets this process open as many files and connections as the system allows it at all: a fleet has more than the
/// usual thousand. Where it cannot, it goes on with what it has.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, current = limit.current, "the number of open files stays as it is");
    }
}

/// How long this host has been up, suspended or not; none where the system does not tell. Never set back.
pub fn host_uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
