//! Automatic restarts, by a count of our own: only of what failed and is wanted running, never sooner than the
//! backoff says, never beyond the budget.

use super::Broken;
use crate::scenario::Scenario;
use crate::world::names;
use lifecycle::{Instance, InstanceEvent, InstanceId, Intent, Origin, RunState, Span, Timestamp};
use std::collections::BTreeMap;

/// A moment, by the wall clock that is recorded and by the clock that does not jump.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    pub(crate) recorded: Timestamp,
    pub(crate) mono_us: u64,
}

impl When {
    /// Whether this is at least so long after another moment by one of the clocks: which one counts depends on
    /// whether the control plane has died in between.
    pub(super) fn is_after(self, earlier: Self, wait: Span) -> bool {
        self.recorded.since(earlier.recorded) >= wait
            || self.mono_us.saturating_sub(earlier.mono_us) >= wait.micros()
    }
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct RestartChecks {
    /// The last attempt in a row of each instance.
    last: BTreeMap<InstanceId, (u32, When)>,
    /// An attempt of which it is not yet known what it came to.
    open: Option<InstanceId>,
}

impl RestartChecks {
    /// An event is to be applied to the state.
    pub(super) fn event(
        &mut self,
        state: Option<&Instance>,
        event: &InstanceEvent,
        when: When,
        scenario: &Scenario,
    ) -> Result<(), Broken> {
        let Some(state) = state else {
            return Ok(());
        };
        match event {
            InstanceEvent::RestartTried { attempt } => self.tried(state, *attempt, when, scenario),
            InstanceEvent::StartBegan { origin: Origin::Automatic, .. }
            | InstanceEvent::StartNotPlaced { origin: Origin::Automatic, .. } => {
                if self.open.take() == Some(state.id) {
                    return Ok(());
                }
                let detail = format!("{} was started by nobody", names::entity(state.id));
                Err(Broken::new("C12", detail))
            }
            InstanceEvent::StartBegan { .. } => {
                self.last.remove(&state.id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// C12: an attempt that found no room takes nothing back: the next one is still wanted.
    pub(super) fn reached(state: &Instance, event: &InstanceEvent) -> Result<(), Broken> {
        let is_unplaced = matches!(event, InstanceEvent::StartNotPlaced { origin: Origin::Automatic, .. });
        if is_unplaced && state.intent != Intent::Running {
            let entity = names::entity(state.id);
            let detail = format!("{entity} shall be {:?} because a restart found no room", state.intent);
            return Err(Broken::new("C12", detail));
        }
        Ok(())
    }

    fn tried(
        &mut self,
        state: &Instance,
        attempt: u32,
        when: When,
        scenario: &Scenario,
    ) -> Result<(), Broken> {
        let entity = names::entity(state.id);
        let broken = |why: &str| Err(Broken::new("C12", format!("restart {attempt} of {entity} {why}")));
        if state.intent != Intent::Running || state.run_state() != RunState::Failed {
            let why = format!("although it is {} and shall be {:?}", state.run_state(), state.intent);
            return broken(&why);
        }
        if !state.spec.restarts() {
            return broken("although its policy is never");
        }
        let restart = scenario.policy().restart;
        if attempt == 0 || attempt > restart.budget {
            return broken("is beyond the budget");
        }
        let ran_for = state
            .running_since
            .zip(state.failed.as_ref())
            .map_or(Span::default(), |(since, failed)| failed.at.since(since));
        let before = self.last.insert(state.id, (attempt, when));
        self.open = Some(state.id);
        match before {
            Some((last, at)) if attempt == last + 1 => {
                let doubled = restart.base.micros().saturating_mul(1 << (last - 1).min(32));
                let wait = Span::from_micros(doubled.min(restart.cap.micros()));
                if when.is_after(at, wait) { Ok(()) } else { broken("came before its backoff was over") }
            }
            Some(_) if attempt == 1 && ran_for >= restart.stable => Ok(()),
            None if attempt == 1 => Ok(()),
            _ => broken("does not follow the last one"),
        }
    }
}
