//! Effects and deadlines: derived after every append, sent until they are no longer wished.

use super::shell::{Given, Shell};
use super::{Answer, InstanceMsg};
use crate::answer::SledFailure;
use crate::convert::VmmRequest;
use journal::Actor as Who;
use lifecycle::input::{EffectResult, Input};
use lifecycle::saga::RETRY;
use lifecycle::{Deadline, Effect, deadlines, effects};
use ractor::ActorProcessingErr;
use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::time::Duration;
use tokio::task::AbortHandle;

/// A wished effect.
pub(crate) struct Sending {
    /// Attempts without a definite answer, in a row.
    attempts: u32,
    /// Position of the event that made it wished.
    cause: u64,
    /// When it is due again, whatever becomes of the call under way.
    due: Option<Timer>,
}

/// A deadline that runs, as it was derived: one that is derived otherwise is another.
pub(crate) struct Armed {
    deadline: Deadline,
    _timer: Timer,
}

/// A pause that ends with a message; dropping it cancels the message.
pub(crate) struct Timer(AbortHandle);

impl Timer {
    /// Cancels the task behind `handle` when dropped.
    pub(crate) fn new(handle: AbortHandle) -> Self {
        Self(handle)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Pause before a deadline's event is tried again after the log refused it.
const DEADLINE_RETRY: Duration = Duration::from_secs(1);

impl Shell {
    /// Compares what is wished with what is being done: sends what is new, forgets what is not wished.
    pub(super) fn derive(&mut self) {
        let Some(state) = &self.state else {
            return;
        };
        let wished: BTreeSet<Effect> = effects(state).into_iter().collect();
        let running: Vec<_> = deadlines(state, &self.env.policy);
        let (cause, now) = (state.head.position, self.env.clock.now());
        self.sending.retain(|effect, _| wished.contains(effect));
        for effect in wished {
            if let Entry::Vacant(entry) = self.sending.entry(effect) {
                entry.insert(Sending { attempts: 0, cause, due: None });
                self.send(effect);
            }
        }
        self.deadlines.retain(|_, armed| running.contains(&armed.deadline));
        for deadline in running {
            if !self.deadlines.contains_key(&deadline.kind) {
                let pause = Duration::from_micros(deadline.span.remaining(deadline.start, now).micros());
                self.arm(deadline, pause);
            }
        }
        self.answer_overtaken();
    }

    fn arm(&mut self, deadline: Deadline, pause: Duration) {
        let passed = move || InstanceMsg::DeadlinePassed(deadline);
        let timer = Timer::new(self.me.send_after(pause, passed).abort_handle());
        self.deadlines.insert(deadline.kind, Armed { deadline, _timer: timer });
    }

    /// Hands the effect to its sled, which answers in time or says that it did not. A call that is lost with the
    /// sled's actor is made up for by sending it again later.
    fn send(&mut self, effect: Effect) {
        let state = self.state.as_ref().expect("effects are derived from a state");
        let request = VmmRequest::new(state, effect, self.env.clock.now());
        self.sleds.call(request, self.me.clone(), self.saga_span.of_call(self.id, effect));
        let pause =
            self.env.jittered(self.env.limits.effect_recheck + self.env.limits.sled_call.longest() * 4);
        let due = self.me.send_after(pause, move || InstanceMsg::SendAgain(effect)).abort_handle();
        if let Some(sending) = self.sending.get_mut(&effect) {
            sending.due = Some(Timer::new(due));
        }
    }

    pub(super) fn on_send_again(&mut self, effect: Effect) {
        if self.sending.contains_key(&effect) {
            self.send(effect);
        }
    }

    /// A definite answer is an input; an unknown outcome is not: the effect is sent again until something
    /// definite, a report, or the deadline makes it unwished.
    pub(super) async fn on_answer(
        &mut self,
        effect: Effect,
        answer: Answer,
    ) -> Result<(), ActorProcessingErr> {
        // Who waits is answered with the state after the answer is folded, and with the answer itself: the
        // fold alone could only say that the order is over.
        let waiting = self.who_waits_for(effect);
        let given = match answer {
            Answer::Definite(result) => {
                let cause = self.sending.get(&effect).map(|sending| sending.cause);
                let context = self.context(Who::Sled(effect.sled()), cause);
                self.give(Input::Outcome { effect, result }, context).await
            }
            Answer::Unknown(failure) => {
                tracing::debug!(instance = %self.id, effect = effect.name(), sled = %effect.sled(), ?failure, "no answer");
                Ok(Given::Nothing)
            }
        };
        self.answer_by(waiting, answer);
        self.send_later(effect, answer);
        self.go_on(given)?;
        self.note_failure(effect).await
    }

    /// A step that has failed often enough is held by the rules; whether it is enough is theirs to say.
    async fn note_failure(&mut self, effect: Effect) -> Result<(), ActorProcessingErr> {
        let failures = self.sending.get(&effect).map_or(0, |sending| sending.attempts);
        if failures == 0 {
            return Ok(());
        }
        let context = self.context(Who::Sled(effect.sled()), None);
        let given = self.give(Input::StepFailed { effect, failures }, context).await;
        self.go_on(given)
    }

    /// Sends everything that is wished at once, as if nothing had failed.
    pub(super) fn send_all_now(&mut self) {
        let wished: Vec<Effect> = self.sending.keys().copied().collect();
        for effect in wished {
            if let Some(sending) = self.sending.get_mut(&effect) {
                sending.attempts = 0;
            }
            self.send(effect);
        }
    }

    /// Plans the next attempt of an effect that is still wished after its answer.
    fn send_later(&mut self, effect: Effect, answer: Answer) {
        let Some(sending) = self.sending.get_mut(&effect) else {
            return;
        };
        let pause = if matches!(answer, Answer::Definite(EffectResult::Done(_))) {
            sending.attempts = 0;
            self.env.limits.effect_recheck
        } else {
            sending.attempts = sending.attempts.saturating_add(1);
            let pause = backoff(sending.attempts);
            // What was held back goes out as soon as it may: it loads nobody.
            let is_held_back = answer == Answer::Unknown(SledFailure::NotSent);
            if is_held_back { pause.min(self.env.limits.sled_probe) } else { pause }
        };
        let pause = self.env.jittered(pause);
        let due = self.me.send_after(pause, move || InstanceMsg::SendAgain(effect)).abort_handle();
        if let Some(sending) = self.sending.get_mut(&effect) {
            sending.due = Some(Timer::new(due));
        }
    }

    pub(super) async fn on_deadline(&mut self, deadline: Deadline) -> Result<(), ActorProcessingErr> {
        let kind = deadline.kind;
        // It may have passed while something else was being done that ended it, and another of its kind may have
        // begun since: that one is not over.
        if self.deadlines.get(&kind).is_none_or(|armed| armed.deadline != deadline) {
            return Ok(());
        }
        let context = self.context(Who::Timer("deadline".to_owned()), None);
        let given = match self.give(Input::Deadline(kind), context.clone()).await {
            Ok(Given::AskForRoom(wanted)) => self.restart(wanted, context).await,
            given => given,
        };
        if given.is_err()
            && let Some(deadline) = self.deadlines.get(&kind).map(|armed| armed.deadline)
        {
            self.arm(deadline, DEADLINE_RETRY);
        }
        self.go_on(given)
    }
}

/// Doubled from the first pause up to the cap.
fn backoff(attempts: u32) -> Duration {
    let first = Duration::from_micros(RETRY.first.micros());
    let cap = Duration::from_micros(RETRY.cap.micros());
    first.saturating_mul(1 << (attempts - 1).min(20)).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_never_beyond() {
        let pauses: Vec<u128> = (1..=12).map(|n| backoff(n).as_millis()).collect();
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1_600]);
        assert_eq!(pauses[11], 30_000);
        assert_eq!(backoff(u32::MAX).as_millis(), 30_000);
    }
}
