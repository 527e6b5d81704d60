//! The end of a run: rest, and a clean stop and start on top of it.
//!
//! Invariants that only show here:
//! * I25: at rest nobody waits at the door, and a life holds no more tasks (actors, timers, calls) than its actors
//!   need; what a timer or a call of something that is over left behind would be among them;
//! * I28: a clean stop and a start add their two marks to the log, and nothing else.

use super::state::Stage;
use crate::checks::FailureKind;
use crate::coverage::Sometimes;
use crate::faults::LoseUnsynced;
use crate::world::names;
use actors::instance::Ask;
use eventlog::Log as _;
use journal::Event;
use lifecycle::sled::SledCommand;
use lifecycle::{InstanceEvent, InstanceId, SagaId, SledId, SystemEvent};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

/// How long everything is left alone before tasks are counted: messages that were late arrive, calls give up.
const SETTLE: Duration = Duration::from_mins(3);

/// How long a clean stop may take.
const STOP_MAX: Duration = Duration::from_mins(2);

/// How long what was stopped may take to end.
const AFTER_STOP: Duration = Duration::from_millis(50);

/// How often a run may come to rest and be disturbed again by what was late.
const RESTS_MAX: u32 = 400;

/// Tasks outside of every life and every sled: the run's own.
const TASKS_OUTSIDE_MAX: usize = 8;

/// Tasks of a life at rest that belong to no instance and no sled: supervisors, ledger, projects, timers, network,
/// projector.
const TASKS_OF_LIFE_MAX: usize = 32;
/// Tasks of one instance in memory at rest: its actor.
const TASKS_OF_INSTANCE_MAX: usize = 2;
/// Tasks of one sled at rest: its actor, its watch, its pusher, its calls.
const TASKS_OF_SLED_MAX: usize = 8;

/// One held saga in so many is taken back.
const CANCELS_ONE_IN: u64 = 3;
/// Requests of the operator count from here.
const OPERATOR_REQUESTS: u32 = 0x4000_0000;

impl Stage {
    /// Somebody looks, once nothing goes wrong any more, at the sagas that are held, and lets each go on or takes it
    /// back. Nobody else would.
    pub(super) fn attend_to_held(self: &Arc<Self>) {
        let held: Vec<(InstanceId, SagaId)> = {
            let state = self.lock();
            let states = state.checks.log.instances.values();
            let held = states.filter_map(|state| state.saga.as_ref().map(|saga| (state.id, saga)));
            held.filter(|(_, saga)| saga.pause.is_some()).map(|(id, saga)| (id, saga.id)).collect()
        };
        for (id, saga) in held {
            let request = self.next_request();
            let drawn = self.lock().draws.next("attend", names::instance_number(id).into());
            let (stage, life) = (Arc::clone(self), self.life());
            tokio::spawn(async move {
                let Some(up) = life.up() else { return };
                let is_cancelled = drawn.is_multiple_of(CANCELS_ONE_IN);
                let ask = if is_cancelled { Ask::CancelSaga { saga } } else { Ask::ResumeSaga { saga } };
                // What comes of it is seen in the log; a refusal means that it is over.
                let answer = up.control.ask(id, ask, super::revive::context(request)).await;
                stage.line("attend", &names::entity(id), format_args!("{}", answer.is_ok()));
            });
        }
    }

    /// Everything rests, once more: stops the control plane cleanly, so that the next life begins on that. Where it was
    /// stopped before, nothing but marks may have been written since. Answers whether the run is over.
    pub(super) async fn ends_at_rest(self: &Arc<Self>) -> bool {
        let stopped_at = self.lock().stopped_at;
        if let Some(end) = stopped_at {
            self.nothing_but_marks_since(end);
            return true;
        }
        let life = self.life();
        tokio::select! {
            biased;
            // It ends by itself instead, which is looked at by whoever waits for that.
            _ = life.fatal.raised() => return false,
            () = sleep(SETTLE) => {}
        }
        let Some(up) = life.up().filter(|_| !self.has_failed()) else { return self.has_failed() };
        if self.restless().await.is_some() || self.calls_off_drains() {
            // What came late has begun something, or is over only now.
            self.must_not_rest_for_ever();
            return false;
        }
        self.nobody_waits();
        let tasks = Handle::current().metrics().num_alive_tasks();
        let bound = TASKS_OF_LIFE_MAX
            + TASKS_OF_INSTANCE_MAX * up.control.live_instances()
            + TASKS_OF_SLED_MAX * self.scenario.sleds.len();
        let end = life.log().durable();
        self.line("stop", &"", format_args!("p{:04}", end.get()));
        if timeout(STOP_MAX, up.control.shutdown()).await.is_err() {
            let detail = format!("a clean stop at rest takes longer than {STOP_MAX:?}");
            self.fail(FailureKind::Liveness, "I18", detail);
        }
        sleep(AFTER_STOP).await;
        let left = Handle::current().metrics().num_alive_tasks();
        if tasks.saturating_sub(left) > bound
            || (life.nth == 1 && left > TASKS_OUTSIDE_MAX + TASKS_OF_SLED_MAX * self.scenario.sleds.len())
        {
            let detail = format!(
                "at rest {tasks} tasks were alive, and {left} after the end of a life that may have {bound}; this is \
                 life {}",
                life.nth
            );
            self.fail(FailureKind::Invariant, "I25", detail);
        }
        life.die(LoseUnsynced::None);
        self.lock().stopped_at = Some(end.get());
        self.note(Sometimes::StoppedCleanly);
        false
    }

    /// A drain whose guests cannot move tries again for ever: somebody calls it off. Answers whether there was one.
    pub(super) fn calls_off_drains(self: &Arc<Self>) -> bool {
        let draining: Vec<SledId> = {
            let state = self.lock();
            let sleds = state.checks.log.sleds.values();
            sleds.filter(|sled| sled.draining.is_some()).map(|sled| sled.id).collect()
        };
        for sled in &draining {
            let (sled, request) = (*sled, self.next_request());
            let life = self.life();
            tokio::spawn(async move {
                let Some(up) = life.up() else { return };
                let command = SledCommand::Uncordon("it cannot be drained".to_owned());
                // One that ended by itself is as good.
                let _ = up.control.ask_sled(sled, command, super::revive::context(request)).await;
            });
        }
        !draining.is_empty()
    }

    /// The next request of the operator.
    fn next_request(&self) -> u32 {
        let mut state = self.lock();
        state.attended += 1;
        OPERATOR_REQUESTS + state.attended
    }

    /// I18: rest that is disturbed again and again is none.
    pub(super) fn must_not_rest_for_ever(&self) {
        let rests = {
            let mut state = self.lock();
            state.rests += 1;
            state.rests
        };
        if rests > RESTS_MAX {
            self.fail(
                FailureKind::Liveness,
                "I18",
                format!("it came to rest {rests} times, and never stayed so"),
            );
        }
    }

    /// I25: whoever was let in has been let out.
    fn nobody_waits(&self) {
        let waiting = self.life().up().map_or(0, |up| up.control.counts().waiting);
        if waiting > 0 {
            self.fail(FailureKind::Invariant, "I25", format!("at rest {waiting} requests wait at the door"));
        }
    }

    /// I28. What was due to be archived meanwhile is not the stop's.
    fn nothing_but_marks_since(&self, end: u64) {
        let store = self.life().store();
        let written = store.records()[end as usize..].iter().filter_map(|record| journal::read(record).ok());
        let (mut marks, mut extra) = (Vec::new(), Vec::new());
        for recorded in written {
            match recorded.event {
                Event::System(SystemEvent::DaemonStopped) => {
                    marks.push("stopped");
                }
                Event::System(SystemEvent::DaemonStarted { after_clean_stop: true, .. }) => {
                    marks.push("started");
                }
                Event::Instance(InstanceEvent::Archived(_)) => {}
                event => extra.push(format!("{} of {}", journal::event_name(&event), recorded.stream)),
            }
        }
        // A lease of a few seconds may end while nobody renews it; what follows is the lease's.
        let has_leases = self.scenario.lease_s.is_some();
        if marks != ["stopped", "started"] || !(extra.is_empty() || has_leases) {
            let detail =
                format!("a clean stop and a start at rest are marked {marks:?}, and wrote {extra:?}");
            self.fail(FailureKind::Invariant, "I28", detail);
        }
    }

    /// I36: what is archived answers.
    pub(super) fn check_shelf(&self) {
        let (store, now) = (self.life().store(), self.now());
        let mut state = self.lock();
        let found = state.shelf.answers(state.checks.log.instances.values(), &store);
        state.checks.note(now, found);
    }
}
