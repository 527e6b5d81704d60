//! Reapers: supervisor timers that find and finish what nobody is finishing.
//!
//! Every decision settles all that follows from it, and every effect is derived again, so a healthy run gives
//! them next to nothing to do. What they find is counted: `instance-updater` and `stuck-saga` finding anything
//! is a defect.
//!
//! Invariants:
//! * a timer decides nothing: it makes instances and sleds look again, and their cores decide;
//! * each runs at a period with jitter, or at once when it is activated; never twice at a time.

use crate::boards::{Boards, TimerStatus};
use crate::env::Env;
use crate::instance::InstanceMsg;
use crate::instances::Instances;
use crate::ledger::LedgerHandle;
use crate::retention::{self, Archive};
use crate::sleds::Sleds;
use lifecycle::decide::settle;
use lifecycle::restart::restart_due;
use lifecycle::{Instance, InstanceId, Retention};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
    /// Instances that were deleted long ago.
    Retention,
}

impl TimerName {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SledWatch,
        Self::InstanceUpdater,
        Self::VmmReaper,
        Self::Reincarnation,
        Self::StuckSaga,
        Self::SledDrain,
        Self::Passivation,
        Self::Retention,
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
            Self::Retention => "retention",
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
            Self::Retention => "archives the histories of instances that were deleted long ago",
        }
    }

    /// The timer of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|timer| timer.as_str() == name)
    }
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
    archive: OnceLock<Arc<dyn Archive>>,
    boards: Boards,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Timers {
    pub(crate) fn new(
        env: Arc<Env>,
        instances: Instances,
        sleds: Sleds,
        ledger: LedgerHandle,
        boards: Boards,
    ) -> Self {
        let (census, archive, tasks) = (OnceLock::new(), OnceLock::new(), Mutex::new(Vec::new()));
        Self { inner: Arc::new(Inner { env, instances, sleds, ledger, census, archive, boards, tasks }) }
    }

    /// Starts them. Once; `census` may lag behind the log, and catches up.
    pub(crate) fn start(&self, census: Arc<dyn Census>) {
        if self.inner.census.set(census).is_err() {
            return;
        }
        let mut tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_on = |name: &TimerName| *name != TimerName::Retention || self.inner.retains().is_some();
        for name in TimerName::ALL.into_iter().filter(is_on) {
            tasks.push(tokio::spawn(run(Arc::clone(&self.inner), name)));
        }
    }

    /// Says where what was deleted long ago is kept. Once; without it nothing is.
    pub(crate) fn archive_into(&self, archive: Arc<dyn Archive>) {
        let is_first = self.inner.archive.set(archive).is_ok();
        assert!(is_first, "there is one archive");
    }

    /// Ends them.
    pub(crate) fn close(&self) {
        for task in self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    /// Runs one as soon as it is not running.
    pub(crate) fn activate(&self, name: TimerName) {
        self.inner.boards.activate(name);
    }

    /// How each is doing.
    pub(crate) fn list(&self) -> Vec<TimerStatus> {
        self.inner.boards.list()
    }
}

async fn run(inner: Arc<Inner>, name: TimerName) {
    loop {
        let is_activated = inner.boards.is_activated_before_due(name).await;
        let (found, trouble) = match name {
            // They go by each sled's own clock, and count what they find there: here they are only hastened.
            TimerName::SledWatch | TimerName::SledDrain => {
                if is_activated {
                    inner.each_sled(name).await;
                }
                continue;
            }
            TimerName::Retention => match inner.retains() {
                Some((archive, retention)) => {
                    retention::run(&inner.env, &inner.instances, archive, retention).await
                }
                None => return,
            },
            TimerName::Passivation => (inner.instances.passivate(), None),
            TimerName::InstanceUpdater
            | TimerName::VmmReaper
            | TimerName::Reincarnation
            | TimerName::StuckSaga => (inner.sweep(name), None),
        };
        inner.boards.ran(name, found, trouble);
    }
}

impl Inner {
    /// What retention needs, if it is on.
    fn retains(&self) -> Option<(&dyn Archive, Retention)> {
        Some((&**self.archive.get()?, self.env.limits.retention?))
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
            TimerName::SledWatch | TimerName::SledDrain | TimerName::Passivation | TimerName::Retention => {
                false
            }
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

    async fn each_sled(&self, name: TimerName) {
        let sleds =
            self.ledger.look(0, |ledger| ledger.sleds().map(|sled| sled.id).collect::<Vec<_>>()).await;
        for sled in sleds.unwrap_or_default() {
            match name {
                TimerName::SledDrain => self.sleds.drain(sled),
                _ => self.sleds.watch(sled),
            }
        }
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
