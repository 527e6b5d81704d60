//! Everything that is not deterministic, as fields: the clock, ids and dice, the log, the sleds.

use eventlog::{Cache, Log};
use lifecycle::{Policy, Retention, SledId, Timestamp};
use sled_protocol::{CallCount, Producers, SledClient, Switch};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// Wall clock for recorded times. Waiting is done on tokio's clock, which a simulation pauses.
pub trait Clock: Send + Sync {
    /// Now. May stand still or go back; recorded times do not.
    fn now(&self) -> Timestamp;
}

/// Source of ids and dice.
pub trait IdSource: Send + Sync {
    /// A fresh id.
    fn uuid(&self) -> Uuid;

    /// A fresh number, for ties and jitter.
    fn dice(&self) -> u64;

    /// How many turns all other tasks have before an actor looks at its next message. Only a simulation draws
    /// them: a runtime of one thread knows one order, and these make others.
    fn turns(&self) -> u32 {
        0
    }
}

/// Finds the agent of a sled.
pub trait SledConnector: Send + Sync {
    /// A client for the sled, whose agent listens at `address` (empty if it lives in this process); none if
    /// it cannot be reached from here at present.
    fn connect(&self, sled: SledId, address: &str) -> Option<Arc<dyn SledClient>>;

    /// What sleds have answered so far over HTTP; nothing where none is reached that way.
    fn calls(&self) -> Vec<CallCount> {
        Vec::new()
    }
}

/// Bounds of the shells, from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Inputs that may wait for one instance.
    pub instance_queue_max: usize,
    /// Client commands in flight over all instances.
    pub commands_max: usize,
    /// Calls to one sled at a time.
    pub sled_calls_max: usize,
    /// How long a stop or reboot waits for its sled before it answers "recorded, not confirmed".
    pub order_answer: Duration,
    /// How long one call to a sled may take.
    pub sled_call: CallTimes,
    /// Calls in a row without an answer after which a sled is sent nothing but inventories until it is heard from.
    pub sled_unanswered_max: u32,
    /// How often at least a sled that does not answer is asked for its inventory.
    pub sled_probe: Duration,
    /// How long a sled of another process may go without a renewal before it kills its VMMs, in seconds; none
    /// means for ever.
    pub sled_lease: Option<u64>,
    /// How much longer a lease is waited for here than it lasts, at least: see [`crate::sled::lease_wait`].
    pub sled_lease_grace: Duration,
    /// How often a sled's inventory is compared with the log.
    pub inventory_period: Duration,
    /// When an effect that was acknowledged and has not been seen to act is sent again.
    pub effect_recheck: Duration,
    /// How often a drain looks for guests that can move.
    pub drain_period: Duration,
    /// Guests that move away from one draining sled at a time.
    pub drain_parallel: usize,
    /// How long an instance must have been left alone to leave memory.
    pub passivate_after: Duration,
    /// When instances that were deleted are archived, if they are.
    pub retention: Option<Retention>,
    /// How often each reaper runs.
    pub timers: TimerPeriods,
    /// Bounds of the pushes to the network.
    pub push: PushLimits,
    /// First pause before a panicked actor restarts; doubled each time.
    pub restart_pause: Duration,
    /// Panics in a row after which an instance is quarantined.
    pub restarts_max: u32,
}

/// How long one call to a sled may take, by its kind. A call that lasts longer is given up; what it asked for may
/// still have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTimes {
    /// Making a VMM, and asking whether one is there.
    pub ensure: Duration,
    /// Ending a VMM rudely.
    pub destroy: Duration,
    /// Telling a VMM to run, stop, reboot, migrate.
    pub set_state: Duration,
    /// Asking for a VMM's state.
    pub get_state: Duration,
    /// Asking for everything that the sled holds.
    pub inventory: Duration,
    /// Pushing or comparing its table of addresses; a comparison of many is several requests.
    pub network: Duration,
    /// Reading what a VMM has written.
    pub serial: Duration,
}

impl CallTimes {
    /// The longest of them.
    pub fn longest(&self) -> Duration {
        let Self { ensure, destroy, set_state, get_state, inventory, network, serial } = *self;
        [ensure, destroy, set_state, get_state, inventory, network, serial]
            .into_iter()
            .max()
            .unwrap_or_default()
    }
}

impl Default for CallTimes {
    fn default() -> Self {
        let usual = Duration::from_secs(5);
        Self {
            ensure: usual,
            destroy: usual,
            set_state: usual,
            get_state: usual,
            inventory: usual,
            network: Duration::from_secs(10),
            serial: usual,
        }
    }
}

/// Periods of the reapers. Each run is drawn between half a period and a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerPeriods {
    /// Looks for instances that need an update and have not had it.
    pub instance_updater: Duration,
    /// Looks for VMMs that nothing refers to.
    pub vmm_reaper: Duration,
    /// Looks for failed instances that are to be started again.
    pub reincarnation: Duration,
    /// Looks for sagas past their deadlines.
    pub stuck_saga: Duration,
    /// Lets instances that are left alone leave memory.
    pub passivation: Duration,
    /// Archives instances that were deleted long ago.
    pub retention: Duration,
}

impl Default for TimerPeriods {
    fn default() -> Self {
        Self {
            instance_updater: Duration::from_secs(30),
            vmm_reaper: Duration::from_mins(1),
            reincarnation: Duration::from_mins(1),
            stuck_saga: Duration::from_secs(30),
            passivation: Duration::from_mins(1),
            retention: Duration::from_hours(1),
        }
    }
}

/// Bounds of the pushes to sleds, switch and producer registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushLimits {
    /// How long a change waits at most for others to share its request.
    pub gather: Duration,
    /// How long one request to the switch or the registry may take; [`CallTimes::network`] is the sleds' own.
    pub call: Duration,
    /// First pause after a failure; doubled for each that follows.
    pub pause: Duration,
    /// Longest pause between two tries.
    pub pause_max: Duration,
    /// How often a sled is asked for everything it holds; it also is whenever it was away or has booted.
    pub sled_compare: Duration,
    /// How often switch and registry are, which can come back empty without saying so.
    pub device_compare: Duration,
}

impl Default for PushLimits {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(100),
            call: Duration::from_secs(10),
            pause: Duration::from_millis(200),
            pause_max: Duration::from_secs(30),
            sled_compare: Duration::from_mins(10),
            device_compare: Duration::from_mins(1),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instance_queue_max: 256,
            commands_max: 8_192,
            sled_calls_max: 32,
            order_answer: Duration::from_secs(5),
            sled_call: CallTimes::default(),
            sled_unanswered_max: 5,
            sled_probe: Duration::from_secs(5),
            sled_lease: None,
            sled_lease_grace: Duration::from_secs(5),
            inventory_period: Duration::from_secs(30),
            effect_recheck: Duration::from_secs(30),
            drain_period: Duration::from_secs(1),
            drain_parallel: 4,
            passivate_after: Duration::from_mins(5),
            retention: None,
            timers: TimerPeriods::default(),
            push: PushLimits::default(),
            restart_pause: Duration::from_millis(100),
            restarts_max: 5,
        }
    }
}

/// Why the process must end, once it must: set at most once, seen by whoever runs it.
#[derive(Clone, Debug)]
pub struct Fatal {
    reason: watch::Sender<Option<String>>,
}

impl Default for Fatal {
    fn default() -> Self {
        Self { reason: watch::Sender::new(None) }
    }
}

impl Fatal {
    /// Asks the process to end. The first reason stays.
    pub fn raise(&self, reason: impl Into<String>) {
        self.reason.send_if_modified(|current| {
            let is_first = current.is_none();
            if is_first {
                *current = Some(reason.into());
            }
            is_first
        });
    }

    /// The reason, if there is one.
    pub fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Waits until there is one.
    pub async fn raised(&self) -> String {
        let mut reason = self.reason.subscribe();
        let seen = reason.wait_for(Option::is_some).await.expect("this handle keeps the sender alive");
        seen.clone().expect("waited for")
    }
}

/// The outside world of all actors.
pub struct Env {
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Ids and dice.
    pub ids: Arc<dyn IdSource>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where snapshots are kept, if anywhere. Losing them costs time only.
    pub cache: Option<Arc<dyn Cache>>,
    /// The sleds.
    pub connector: Arc<dyn SledConnector>,
    /// The switch that translates external addresses, if there is one.
    pub switch: Option<Arc<dyn Switch>>,
    /// The registry of metrics producers, if there is one.
    pub producers: Option<Arc<dyn Producers>>,
    /// Limits that decisions use.
    pub policy: Policy,
    /// Bounds of the shells.
    pub limits: Limits,
    /// Build version, journaled with every append.
    pub build: String,
    /// Where a reason to end the process goes.
    pub fatal: Fatal,
}

impl Env {
    /// Lets others go first as often as [`IdSource::turns`] says.
    pub(crate) async fn let_others_go_first(&self) {
        for _ in 0..self.ids.turns() {
            tokio::task::yield_now().await;
        }
    }

    /// A pause drawn between half of `span` and all of it, so that retries spread.
    pub fn jittered(&self, span: Duration) -> Duration {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let half = micros / 2;
        Duration::from_micros(half + self.ids.dice() % (half + 1))
    }
}
