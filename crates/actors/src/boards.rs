//! What there is to say of each timer: how often it ran, when last, what it found.
//!
//! Most run in one place; a sled's watch and its drain run once per sled, and count here all the same.

use crate::env::Env;
use crate::timers::TimerName;
use lifecycle::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How a timer is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerStatus {
    /// Which.
    pub name: TimerName,
    /// Mean pause between two runs is three quarters of it.
    pub period: Duration,
    /// Whether it does anything: only retention can be off.
    pub is_on: bool,
    /// How often it ran.
    pub runs: u64,
    /// What it found in all runs.
    pub found: u64,
    /// When it last ran.
    pub last_run: Option<Timestamp>,
    /// What its last run found.
    pub last_found: u64,
    /// What its last run could not do, if there was something.
    pub last_trouble: Option<String>,
}

struct Board {
    status: Mutex<TimerStatus>,
    activate: Notify,
}

/// One board per timer. Clones share them.
#[derive(Clone)]
pub(crate) struct Boards {
    env: Arc<Env>,
    boards: Arc<Vec<Board>>,
}

impl Boards {
    pub(crate) fn new(env: &Arc<Env>) -> Self {
        let board = |name| Board {
            status: Mutex::new(TimerStatus {
                name,
                period: period(env, name),
                is_on: name != TimerName::Retention || env.limits.retention.is_some(),
                runs: 0,
                found: 0,
                last_run: None,
                last_found: 0,
                last_trouble: None,
            }),
            activate: Notify::new(),
        };
        let boards = TimerName::ALL.into_iter().map(board).collect();
        Self { env: Arc::clone(env), boards: Arc::new(boards) }
    }

    /// The timer ran, and found so much.
    pub(crate) fn ran(&self, name: TimerName, found: usize, trouble: Option<String>) {
        let board = &self.boards[name as usize];
        let mut status = board.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.runs += 1;
        status.last_found = found as u64;
        status.found += found as u64;
        status.last_run = Some(self.env.clock.now());
        status.last_trouble = trouble;
    }

    /// Runs one as soon as it is not running.
    pub(crate) fn activate(&self, name: TimerName) {
        self.boards[name as usize].activate.notify_one();
    }

    /// Waits for the timer's next turn; answers whether it was activated rather than due.
    pub(crate) async fn is_activated_before_due(&self, name: TimerName) -> bool {
        let pause = self.env.jittered(period(&self.env, name));
        let activated = self.boards[name as usize].activate.notified();
        tokio::time::timeout(pause, activated).await.is_ok()
    }

    /// How each is doing.
    pub(crate) fn list(&self) -> Vec<TimerStatus> {
        let status = |board: &Board| board.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.boards.iter().map(status).collect()
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
        TimerName::Retention => periods.retention,
    }
}
