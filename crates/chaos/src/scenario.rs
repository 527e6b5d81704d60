//! A scenario: everything that a run depends on, as data.
//!
//! The generator makes it from a seed; JSON carries it; the run takes it. A change of the generator therefore
//! invalidates no saved failure. The seed inside is the seed of the run's own draws (delays above all), which
//! are keyed by what they decide.

use crate::bug::Bug;
use crate::faults::Fault;
use serde::{Deserialize, Serialize};

/// Version of the format that this build reads and writes.
pub const FORMAT: u32 = 1;

/// Most sleds of a scenario.
pub const SLEDS_MAX: usize = 64;
/// Most requests of a scenario.
pub const REQUESTS_MAX: usize = 10_000;
/// Most faults of a scenario.
pub const FAULTS_MAX: usize = 10_000;
/// Longest safety phase, milliseconds: a day.
pub const SAFETY_MS_MAX: u64 = 86_400_000;

/// Longest deadline of a start, milliseconds: less than what is granted for coming to rest.
pub const START_DEADLINE_MS_MAX: u64 = 120_000;

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// [`FORMAT`] of the build that wrote it.
    pub format: u32,
    /// Seed of the run's draws.
    pub seed: u64,
    /// The profile that generated it.
    pub profile: String,
    /// A mistake that the shell makes on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bug: Option<Bug>,
    /// The sleds, by number.
    pub sleds: Vec<SledShape>,
    /// Shortest and longest sync, microseconds.
    pub sync_us: (u64, u64),
    /// How long a start may take, milliseconds.
    pub start_deadline_ms: u64,
    /// Length of the safety phase in milliseconds; afterwards everything is healed.
    pub safety_ms: u64,
    /// What clients ask for.
    pub requests: Vec<Request>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// Size of a sled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SledShape {
    /// Hardware threads.
    pub threads: u32,
    /// Memory, GiB.
    pub memory_gib: u64,
}

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its id, unique in the scenario; faults refer to it.
    pub id: u32,
    /// When it is first sent, milliseconds.
    pub at: u64,
    /// About which instance.
    pub instance: u16,
    /// What it asks.
    pub verb: Verb,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Create it, with so many virtual CPUs.
    Create {
        /// Start it at once.
        start: bool,
        /// Virtual CPUs; it gets as many GiB of memory.
        ncpus: u16,
    },
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Reboot it.
    Reboot,
    /// Delete it.
    Delete,
}

impl Verb {
    /// What people read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reboot => "reboot",
            Self::Delete => "delete",
        }
    }
}

/// Why a file is not a scenario that this build can run.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON of the right shape.
    #[error("not a scenario: {0}; write one with `chaos run --keep`")]
    Malformed(#[from] serde_json::Error),
    /// It comes from another version.
    #[error("the scenario has format {0}, this build reads {FORMAT}; run it with the build that wrote it")]
    Format(u32),
    /// A list or a time is out of bounds, or a number refers to nothing.
    #[error("the scenario is out of bounds: {0}; correct it")]
    OutOfBounds(String),
}

impl Scenario {
    /// Reads a scenario and checks its bounds.
    pub fn from_json(text: &str) -> Result<Self, Unreadable> {
        let scenario: Self = serde_json::from_str(text)?;
        scenario.validate()?;
        Ok(scenario)
    }

    /// Writes it, for people to read and change.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a scenario holds nothing that JSON cannot")
    }

    /// Number of things that the shrinker can take away.
    pub const fn items(&self) -> usize {
        self.faults.len() + self.requests.len()
    }

    /// Checks that nothing is out of bounds.
    pub fn validate(&self) -> Result<(), Unreadable> {
        if self.format != FORMAT {
            return Err(Unreadable::Format(self.format));
        }
        let refuse = |what: String| Err(Unreadable::OutOfBounds(what));
        if self.sleds.is_empty() || self.sleds.len() > SLEDS_MAX {
            return refuse(format!("{} sleds; 1 to {SLEDS_MAX} are allowed", self.sleds.len()));
        }
        if self.requests.len() > REQUESTS_MAX || self.faults.len() > FAULTS_MAX {
            return refuse(format!("more than {REQUESTS_MAX} requests or {FAULTS_MAX} faults"));
        }
        if self.start_deadline_ms == 0 || self.start_deadline_ms > START_DEADLINE_MS_MAX {
            return refuse(format!("a start deadline of {} ms", self.start_deadline_ms));
        }
        if self.safety_ms > SAFETY_MS_MAX {
            return refuse(format!("a safety phase of {} ms; at most {SAFETY_MS_MAX}", self.safety_ms));
        }
        if self.sync_us.0 > self.sync_us.1 || self.sync_us.1 > 60_000_000 {
            return refuse(format!("syncs of {:?} us; at most a minute", self.sync_us));
        }
        if let Some(shape) = self.sleds.iter().find(|s| s.threads > 65_536 || s.memory_gib > 65_536) {
            return refuse(format!("a sled of {shape:?}"));
        }
        let mut ids: Vec<u32> = self.requests.iter().map(|request| request.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != self.requests.len() {
            return refuse("two requests have one id".to_owned());
        }
        self.validate_faults()
    }

    fn validate_faults(&self) -> Result<(), Unreadable> {
        for fault in &self.faults {
            let mut copy = fault.clone();
            let lengths = copy.durations_mut().into_iter().map(|length| *length);
            for time in fault.at().into_iter().chain(lengths) {
                if time > SAFETY_MS_MAX {
                    return Err(Unreadable::OutOfBounds(format!("{} has a time of {time} ms", fault.kind())));
                }
            }
            if let Fault::ClockJump { by, .. } = fault
                && by.unsigned_abs() > 400 * SAFETY_MS_MAX
            {
                return Err(Unreadable::OutOfBounds(format!("a clock jump of {by} ms")));
            }
            if let Fault::SledReboot { sled, .. }
            | Fault::AgentRestart { sled, .. }
            | Fault::SlowSled { sled, .. }
            | Fault::Partition { sled, .. } = fault
                && usize::from(*sled) >= self.sleds.len()
            {
                return Err(Unreadable::OutOfBounds(format!("{} names sled {sled}", fault.kind())));
            }
        }
        Ok(())
    }
}
