//! A scenario: everything that a run depends on, as data.
//!
//! The generator makes it from a seed; JSON carries it; the run takes it. A change of the generator therefore
//! invalidates no saved failure. The seed inside is the seed of the run's own draws (delays above all), which
//! are keyed by what they decide.

use crate::bug::Bug;
use crate::faults::{Fault, Phase};
use crate::verb::Verb;
use lifecycle::restart::RestartPolicy;
use lifecycle::{Policy, Span};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

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

/// Longest deadline of a migration, milliseconds.
pub const MIGRATE_DEADLINE_MS_MAX: u64 = 60_000;

/// Longest wait between two automatic restarts, milliseconds; with [`RESTARTS_MAX`] of them, less than what is
/// granted for coming to rest.
pub const RESTART_MS_MAX: u64 = 20_000;

/// Most automatic restarts in a row.
pub const RESTARTS_MAX: u32 = 8;

/// Most failures of a step before its saga is paused.
pub const PAUSE_AFTER_MAX: u32 = 1_000;

/// Most requests that may wait for one instance.
pub const QUEUE_MAX: u64 = 100_000;

/// What a scenario is run with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// The rules in a shell of the simulator's own: fast, and every step is the simulator's.
    #[default]
    Core,
    /// The real actors on a paused clock.
    Actors,
}

impl Tier {
    /// What people read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Actors => "actors",
        }
    }

    /// The tier of a name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Core, Self::Actors].into_iter().find(|tier| tier.name() == name)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    const fn is_core(&self) -> bool {
        matches!(self, Self::Core)
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// [`FORMAT`] of the build that wrote it.
    pub format: u32,
    /// Seed of the run's draws.
    pub seed: u64,
    /// The profile that generated it.
    pub profile: String,
    /// What runs it.
    #[serde(default, skip_serializing_if = "Tier::is_core")]
    pub tier: Tier,
    /// A mistake that the shell makes on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bug: Option<Bug>,
    /// The sleds, by number.
    pub sleds: Vec<SledShape>,
    /// Shortest and longest sync, microseconds.
    pub sync_us: (u64, u64),
    /// How long a start may take, milliseconds.
    pub start_deadline_ms: u64,
    /// How long a migration may take, milliseconds.
    #[serde(default = "migrate_deadline_by_default")]
    pub migrate_deadline_ms: u64,
    /// How failed instances are restarted; none means not at all, whatever their policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartShape>,
    /// Length of the sleds' lease in seconds; none means that none is given. Actors tier only, like the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
    /// After how many milliseconds an instance that is left alone leaves memory; none means not within a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passivate_ms: Option<u64>,
    /// After how many failures in a row of a step its saga is paused; none means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_after_failures: Option<NonZeroU32>,
    /// After how many milliseconds an instance that was deleted is archived; none means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_ms: Option<u64>,
    /// How many requests may wait for one instance; none means as many as for a daemon. Actors tier only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_max: Option<u64>,
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
    /// CPU family: guests move within one.
    #[serde(default)]
    pub family: u8,
    /// How much of what a round of a migration copied its guests have dirtied meanwhile, in thousandths: from
    /// 1000 on they write faster than the network carries, and no migration of theirs converges.
    #[serde(default = "dirty_by_default")]
    pub dirty_per_mille: u32,
}

/// Bounds on automatic restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartShape {
    /// Wait before the second attempt in a row, milliseconds; doubled for each that follows.
    pub base_ms: u64,
    /// Longest wait, milliseconds.
    pub cap_ms: u64,
    /// Attempts in a row.
    pub budget: u32,
    /// How long it must have run for the count to begin anew, milliseconds.
    pub stable_ms: u64,
}

const fn migrate_deadline_by_default() -> u64 {
    MIGRATE_DEADLINE_MS_MAX
}

const fn dirty_by_default() -> u32 {
    250
}

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its id, unique in the scenario; faults refer to it.
    pub id: u32,
    /// When it is first sent, milliseconds.
    pub at: u64,
    /// Instead of at a time it is first sent when a migration of the instance comes to this phase, or when the
    /// faults end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// About which instance.
    pub instance: u16,
    /// What it asks.
    pub verb: Verb,
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

    /// What decisions use.
    pub(crate) fn policy(&self) -> Policy {
        let none = RestartShape { base_ms: 0, cap_ms: 0, budget: 0, stable_ms: 0 };
        let shape = self.restart.unwrap_or(none);
        let restart = RestartPolicy {
            base: Span::from_millis(shape.base_ms),
            cap: Span::from_millis(shape.cap_ms),
            budget: shape.budget,
            stable: Span::from_millis(shape.stable_ms),
        };
        Policy {
            start_deadline: Span::from_millis(self.start_deadline_ms),
            migrate_deadline: Span::from_millis(self.migrate_deadline_ms),
            restart,
            pause_after_failures: self.pause_after_failures,
        }
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
        if self.migrate_deadline_ms == 0 || self.migrate_deadline_ms > MIGRATE_DEADLINE_MS_MAX {
            return refuse(format!("a migration deadline of {} ms", self.migrate_deadline_ms));
        }
        if let Some(shape) = &self.restart
            && (shape.base_ms.max(shape.cap_ms) > RESTART_MS_MAX
                || shape.budget > RESTARTS_MAX
                || shape.stable_ms > SAFETY_MS_MAX)
        {
            return refuse(format!("restarts of {shape:?}"));
        }
        if self.pause_after_failures.is_some_and(|most| most.get() > PAUSE_AFTER_MAX)
            || self.retain_ms.is_some_and(|after| after > SAFETY_MS_MAX)
            || self.queue_max.is_some_and(|most| most == 0 || most > QUEUE_MAX)
        {
            return refuse("pauses, retention or queues beyond what a run can show".to_owned());
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
        let is_known = |sled: u16| usize::from(sled) < self.sleds.len();
        let sleds_of = |request: &&Request| request.verb.sled().is_some_and(|sled| !is_known(sled));
        if let Some(request) = self.requests.iter().find(sleds_of) {
            return refuse(format!("r{} names a sled that there is not", request.id));
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
            let sleds: &[u16] = match fault {
                Fault::SledReboot { sled, .. }
                | Fault::AgentRestart { sled, .. }
                | Fault::SlowSled { sled, .. }
                | Fault::Partition { sled, .. } => &[*sled],
                Fault::PeerPartition { one, other, .. } => &[*one, *other],
                _ => &[],
            };
            if let Some(sled) = sleds.iter().find(|sled| usize::from(**sled) >= self.sleds.len()) {
                return Err(Unreadable::OutOfBounds(format!("{} names sled {sled}", fault.kind())));
            }
        }
        Ok(())
    }
}
