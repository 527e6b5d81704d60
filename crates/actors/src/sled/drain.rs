//! The drain: moves every guest to other sleds, a few at a time, until none is left.
//!
//! Nothing of it is stored but that it began: which guests are left is looked up each time, so it goes on
//! after any crash where it was. A guest that cannot move now is asked again later, with the reason shown.

use super::{Shell, SledMsg};
use crate::answer::{CommandError, RequestContext};
use crate::instance::{Ask, InstanceMsg};
use crate::timers::TimerName;
use journal::{Actor as Who, Context};
use lifecycle::sled::{SledCommand, decide};
use lifecycle::{Action, InstanceId, Rejected, RequestId, RunState, Timestamp};
use ractor::ActorProcessingErr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Pause before a guest whose move came to nothing is asked to move again; doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(2);

/// How a drain is getting on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainStatus {
    /// Since when it drains.
    pub since: Timestamp,
    /// Instances that still have a VMM on the sled.
    pub left: usize,
    /// Instances that are moving.
    pub moving: Vec<InstanceId>,
    /// Instances that cannot move at present, with the reason.
    pub blocked: Vec<(InstanceId, String)>,
}

/// What an instance answered.
pub(crate) struct Asked {
    instance: InstanceId,
    result: Result<(), CommandError>,
}

/// The drain under way.
#[derive(Default)]
pub(crate) struct Drain {
    since: Timestamp,
    left: BTreeSet<InstanceId>,
    moving: BTreeSet<InstanceId>,
    blocked: BTreeMap<InstanceId, String>,
    /// How often each was asked in vain, and when it may be asked again.
    tries: BTreeMap<InstanceId, (u32, Instant)>,
    /// The instance that was asked last: the others come first.
    last: Option<InstanceId>,
    is_asking: bool,
    /// The next look; dropping it cancels it.
    next_look: Option<crate::instance::Timer>,
}

impl Drain {
    pub(crate) fn status(&self) -> DrainStatus {
        DrainStatus {
            since: self.since,
            left: self.left.len(),
            moving: self.moving.iter().copied().collect(),
            blocked: self.blocked.iter().map(|(id, why)| (*id, why.clone())).collect(),
        }
    }

    /// Whom to ask: those under way, to see whether they are, and as many others as may move beside them.
    fn next(&mut self, parallel: usize, now: Instant) -> Vec<InstanceId> {
        self.moving.retain(|id| self.left.contains(id));
        self.blocked.retain(|id, _| self.left.contains(id));
        self.tries.retain(|id, _| self.left.contains(id));
        let is_due = |id: &InstanceId| self.tries.get(id).is_none_or(|(_, due)| *due <= now);
        let waits = |id: &&InstanceId| !self.moving.contains(*id) && is_due(id);
        let after = self.left.iter().filter(|id| self.last.is_none_or(|last| **id > last)).filter(waits);
        let before = self.left.iter().filter(|id| self.last.is_some_and(|last| **id <= last)).filter(waits);
        let more = parallel.saturating_sub(self.moving.len());
        let chosen: Vec<InstanceId> = after.chain(before).take(more).copied().collect();
        if let Some(last) = chosen.last() {
            self.last = Some(*last);
        }
        self.moving.iter().copied().filter(|id| is_due(id)).chain(chosen).collect()
    }
}

impl Shell {
    /// Begins or ends draining as the state says; plans the next look.
    pub(super) fn plan_drain(&mut self) {
        let Some(since) = self.state.as_ref().and_then(|sled| sled.draining) else {
            self.drain = None;
            return;
        };
        let pause =
            if self.drain.is_some() { self.env.limits.drain_period } else { std::time::Duration::ZERO };
        let next = self.me.send_after(pause, || SledMsg::Drain).abort_handle();
        let drain = self.drain.get_or_insert_with(|| Drain { since, ..Drain::default() });
        drain.next_look = Some(crate::instance::Timer::new(next));
    }

    pub(super) async fn on_drain(&mut self) -> Result<(), ActorProcessingErr> {
        if self.drain.as_ref().is_none_or(|drain| drain.is_asking) {
            return Ok(());
        }
        let (id, after) = (self.id, self.env.log.durable().get());
        let held = self.ledger.look(after, move |ledger| ledger.vmms_on(id).collect::<Vec<_>>()).await;
        // A ledger that does not answer has not said that nothing is left.
        let Ok(held) = held else {
            self.plan_drain();
            return Ok(());
        };
        let left: BTreeSet<InstanceId> = held.into_iter().map(|(_, instance)| instance).collect();
        if left.is_empty() {
            return self.drained().await;
        }
        let parallel = self.env.limits.drain_parallel;
        let Some(drain) = &mut self.drain else {
            return Ok(());
        };
        drain.left = left;
        let chosen = drain.next(parallel, Instant::now());
        drain.is_asking = true;
        let since = drain.since;
        self.boards.ran(TimerName::SledDrain, chosen.len(), None);
        self.ask_to_move(since, chosen);
        Ok(())
    }

    /// Nothing is left: said once.
    async fn drained(&mut self) -> Result<(), ActorProcessingErr> {
        let state = self.state.as_ref().expect("what drains is registered");
        let events = decide(state, &SledCommand::Drained).unwrap_or_default();
        let context = Context::of(Who::Timer("drain".to_owned()));
        match self.append(&events, &context).await {
            Err(error) if error.ends_owner() => return Err(error.into()),
            Err(error) => tracing::warn!(sled = %self.id, %error, "the end of the drain is not recorded yet"),
            Ok(()) => tracing::info!(sled = %self.id, "sled is drained"),
        }
        self.plan_drain();
        Ok(())
    }

    /// Asks in a task of its own: an answer may take as long as an append.
    fn ask_to_move(&self, since: Timestamp, chosen: Vec<InstanceId>) {
        let (instances, me, env) = (self.instances.clone(), self.me.clone(), self.env.clone());
        tokio::spawn(async move {
            let mut asked = Vec::with_capacity(chosen.len());
            for instance in chosen {
                let request = RequestId::new(env.ids.uuid());
                let context = RequestContext::of(Who::Timer("drain".to_owned()), request);
                let result = match instances.admit(instance) {
                    Err(error) => Err(error),
                    Ok(ticket) => {
                        let (reply, answer) = oneshot::channel();
                        let ask = Ask::Migrate { to: None };
                        let span = tracing::Span::current();
                        let message = InstanceMsg::Command { ask, context, ticket, reply, span };
                        let sent = instances.send(instance, message);
                        match sent {
                            Err(error) => Err(CommandError::Unavailable(error.to_string())),
                            Ok(()) => answer
                                .await
                                .unwrap_or_else(|_| {
                                    Err(CommandError::Unavailable("the instance restarts".to_owned()))
                                })
                                .map(drop),
                        }
                    }
                };
                asked.push(Asked { instance, result });
            }
            // The actor may have ended.
            let _ = me.cast(SledMsg::DrainAsked { since, asked });
        });
    }

    /// The answers of a drain that was called off meanwhile are not this one's.
    pub(super) fn on_drain_asked(&mut self, since: Timestamp, asked: Vec<Asked>) {
        let now = Instant::now();
        let Some(drain) = self.drain.as_mut().filter(|drain| drain.since == since) else {
            return;
        };
        drain.is_asking = false;
        for Asked { instance, result } in asked {
            let is_moving = match &result {
                Ok(()) => true,
                Err(CommandError::Rejected(Rejected::NotPossible { action, state, .. })) => {
                    *action == Action::Migrate && *state == RunState::Migrating
                }
                Err(_) => false,
            };
            if result.is_ok() {
                let (tries, due) = drain.tries.entry(instance).or_insert((0, now));
                *due = now + FIRST_PAUSE.saturating_mul(1 << (*tries).min(16)).min(LONGEST_PAUSE);
                *tries += 1;
            }
            if is_moving {
                drain.blocked.remove(&instance);
                drain.moving.insert(instance);
            } else if let Err(error) = result {
                drain.moving.remove(&instance);
                drain.blocked.insert(instance, error.to_string());
            }
        }
        self.plan_drain();
    }
}
