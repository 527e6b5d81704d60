//! Reapers: supervisor timers that find and finish what nobody is finishing.
//!
//! Every decision settles all that follows from it, and every effect is derived again, so a healthy run gives
//! them next to nothing to do. What they find is counted: `instance-updater` and `stuck-saga` finding anything
//! is a defect.
//!
//! Invariants:
//! * a timer decides nothing: it makes instances and sleds look again, and their cores decide;
//! * each runs at a period with jitter, or at once when it is activated; never twice at a time.

use crate::env::Env;
use crate::instance::InstanceMsg;
use crate::instances::Instances;
use crate::ledger::LedgerHandle;
use crate::sleds::Sleds;
use lifecycle::decide::settle;
use lifecycle::restart::restart_due;
use lifecycle::{Instance, InstanceId, Timestamp};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Finds instances by their folds: a read model of the log.
pub trait Census: Send + Sync {
    /// Ids of the instances that are wanted, deleted ones among them.
    fn find(&self, wanted: &dyn Fn(&Instance) -> bool) -> Vec<InstanceId>;
}

/// The timers, in the order in which they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerName {
    /// Compares each sled's inventory with the log.
    SledWatch,
    /// Instances that need an update and have not had it.
    InstanceUpdater,
    /// VMMs that nothing refers to.
    VmmReaper,
    /// Failed instances that are to be started again.
    Reincarnation,
    /// Sagas past their deadlines.
    StuckSaga,
    /// Guests on draining sleds.
    SledDrain,
    /// Instances that are left alone.
    Passivation,
}

impl TimerName {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SledWatch,
        Self::InstanceUpdater,
        Self::VmmReaper,
        Self::Reincarnation,
        Self::StuckSaga,
        Self::SledDrain,
        Self::Passivation,
    ];

    /// What people call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SledWatch => "sled-watch",
            Self::InstanceUpdater => "instance-updater",
            Self::VmmReaper => "vmm-reaper",
            Self::Reincarnation => "reincarnation",
            Self::StuckSaga => "stuck-saga",
            Self::SledDrain => "sled-drain",
            Self::Passivation => "passivation",
        }
    }

    /// What it does, in a line.
    pub const fn purpose(self) -> &'static str {
        match self {
            Self::SledWatch => "asks every sled for its inventory and compares it with the log",
            Self::InstanceUpdater => "finds instances that need an update; must find none",
            Self::VmmReaper => "finds VMMs that nothing refers to, and sees them ended and gone",
            Self::Reincarnation => "finds failed instances whose restart is due",
            Self::StuckSaga => "finds sagas past their deadlines; must find none",
            Self::SledDrain => "moves guests away from draining sleds",
            Self::Passivation => "lets instances that are left alone leave memory",
        }
    }

    /// The timer of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|timer| timer.as_str() == name)
    }
}

/// How a timer is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerStatus {
    /// Which.
    pub name: TimerName,
    /// Mean pause between two runs is three quarters of it.
    pub period: Duration,
    /// How often it ran.
    pub runs: u64,
    /// What it found in all runs.
    pub found: u64,
    /// When it last ran.
    pub last_run: Option<Timestamp>,
    /// What its last run found.
    pub last_found: u64,
}

/// Handle to the timers.
#[derive(Clone)]
pub(crate) struct Timers {
    inner: Arc<Inner>,
}

struct Inner {
    env: Arc<Env>,
    instances: Instances,
    sleds: Sleds,
    ledger: LedgerHandle,
    census: OnceLock<Arc<dyn Census>>,
    boards: Vec<Board>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Board {
    status: Mutex<TimerStatus>,
    activate: Notify,
}

impl Timers {
    pub(crate) fn new(env: Arc<Env>, instances: Instances, sleds: Sleds, ledger: LedgerHandle) -> Self {
        let boards = TimerName::ALL
            .into_iter()
            .map(|name| Board {
                status: Mutex::new(TimerStatus {
                    name,
                    period: period(&env, name),
                    runs: 0,
                    found: 0,
                    last_run: None,
                    last_found: 0,
                }),
                activate: Notify::new(),
            })
            .collect();
        let (census, tasks) = (OnceLock::new(), Mutex::new(Vec::new()));
        Self { inner: Arc::new(Inner { env, instances, sleds, ledger, census, boards, tasks }) }
    }

    /// Starts them. Once; `census` may lag behind the log, and catches up.
    pub(crate) fn start(&self, census: Arc<dyn Census>) {
        if self.inner.census.set(census).is_err() {
            return;
        }
        let mut tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for name in TimerName::ALL {
            tasks.push(tokio::spawn(run(Arc::clone(&self.inner), name)));
        }
    }

    /// Ends them.
    pub(crate) fn close(&self) {
        for task in self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    /// Runs one as soon as it is not running.
    pub(crate) fn activate(&self, name: TimerName) {
        self.inner.board(name).activate.notify_one();
    }

    /// How each is doing.
    pub(crate) fn list(&self) -> Vec<TimerStatus> {
        let status = |board: &Board| board.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.inner.boards.iter().map(status).collect()
    }
}

fn period(env: &Env, name: TimerName) -> Duration {
    let periods = env.limits.timers;
    match name {
        TimerName::SledWatch => env.limits.inventory_period,
        TimerName::InstanceUpdater => periods.instance_updater,
        TimerName::VmmReaper => periods.vmm_reaper,
        TimerName::Reincarnation => periods.reincarnation,
        TimerName::StuckSaga => periods.stuck_saga,
        TimerName::SledDrain => env.limits.drain_period,
        TimerName::Passivation => periods.passivation,
    }
}

async fn run(inner: Arc<Inner>, name: TimerName) {
    loop {
        let pause = inner.env.jittered(period(&inner.env, name));
        let activated = inner.board(name).activate.notified();
        // Either way it runs; a sled's own watch and drain go by their own clocks, and are only hastened here.
        let is_activated = tokio::time::timeout(pause, activated).await.is_ok();
        let found = match name {
            TimerName::SledWatch if is_activated => inner.each_sled(SledNudge::Watch).await,
            TimerName::SledDrain if is_activated => inner.each_sled(SledNudge::Drain).await,
            TimerName::SledWatch | TimerName::SledDrain => continue,
            TimerName::Passivation => inner.instances.passivate(),
            TimerName::InstanceUpdater
            | TimerName::VmmReaper
            | TimerName::Reincarnation
            | TimerName::StuckSaga => inner.sweep(name),
        };
        inner.ran(name, found);
    }
}

#[derive(Clone, Copy)]
enum SledNudge {
    Watch,
    Drain,
}

impl Inner {
    fn board(&self, name: TimerName) -> &Board {
        &self.boards[name as usize]
    }

    fn ran(&self, name: TimerName, found: usize) {
        let mut status = self.board(name).status.lock().unwrap_or_else(PoisonError::into_inner);
        status.runs += 1;
        status.last_found = found as u64;
        status.found += found as u64;
        status.last_run = Some(self.env.clock.now());
    }

    /// Makes every instance that the timer is for look again; activating it arms its deadlines and derives its
    /// effects.
    fn sweep(&self, name: TimerName) -> usize {
        let (Some(census), now) = (self.census.get(), self.env.clock.now()) else {
            return 0;
        };
        let policy = self.env.policy;
        let found = census.find(&|state| match name {
            TimerName::InstanceUpdater => settle(state).is_some(),
            TimerName::VmmReaper => {
                state.vmms.values().any(|vmm| !state.refers_to(vmm.id) && vmm.may_be_on_sled())
            }
            TimerName::Reincarnation => restart_due(state, &policy).is_some(),
            TimerName::StuckSaga => state
                .saga
                .as_ref()
                .is_some_and(|saga| saga.pause.is_none() && now.since(saga.deadline_from) > saga.deadline),
            TimerName::SledWatch | TimerName::SledDrain | TimerName::Passivation => false,
        });
        for id in &found {
            // One that restarts derives the same by itself.
            let _ = self.instances.send(*id, InstanceMsg::Reconsider);
        }
        if !found.is_empty() && matches!(name, TimerName::InstanceUpdater | TimerName::StuckSaga) {
            tracing::warn!(timer = name.as_str(), found = found.len(), "found what should not be there");
        }
        found.len()
    }

    async fn each_sled(&self, nudge: SledNudge) -> usize {
        let sleds =
            self.ledger.look(0, |ledger| ledger.sleds().map(|sled| sled.id).collect::<Vec<_>>()).await;
        let sleds = sleds.unwrap_or_default();
        for sled in &sleds {
            match nudge {
                SledNudge::Watch => self.sleds.watch(*sled),
                SledNudge::Drain => self.sleds.drain(*sled),
            }
        }
        sleds.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_and_stand_in_the_order_of_their_boards() {
        for (place, name) in TimerName::ALL.into_iter().enumerate() {
            assert_eq!(TimerName::parse(name.as_str()), Some(name));
            assert_eq!(name as usize, place);
        }
        assert_eq!(TimerName::parse("nothing"), None);
    }
}
