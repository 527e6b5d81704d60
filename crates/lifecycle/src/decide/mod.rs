//! `decide(state, input) -> events | refusal`: the only place where anything is decided about an instance.
//!
//! A decision is the reaction to the input plus everything that follows from it at once ([`settle()`]): the
//! update after a VMM's end, a saga's next step, the reaping of a VMM that is gone. All of it is one
//! append, so there is no window in which an instance needs an update and has not had it, and nothing
//! that a reaper would have to find.
//!
//! Invariants:
//! * a refused input leaves no trace; an input that changes nothing yields no events;
//! * the same state and input yield the same events;
//! * nothing here fails on any input: what a sled may say is data.

mod command;
mod fact;
mod settle;

pub(crate) use fact::{accepts_side, accepts_state};
pub use settle::settle;

use crate::effects::DeadlineKind;
use crate::event::{EventMeta, InstanceEvent};
use crate::evolve::evolve;
use crate::ids::SledId;
use crate::input::{Input, StartGrant};
use crate::instance::{Instance, SagaProgress, UnwindReason};
use crate::rejected::{Rejected, Shortage};
use crate::restart::{RestartPolicy, restart_due};
use crate::saga::{Origin, undone_from};
use crate::spec::Size;
use crate::time::{Span, Timestamp};
use std::num::NonZeroU32;

/// Limits that decisions use; from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a start may take before it is undone or stopped.
    pub start_deadline: Span,
    /// How long a migration may take before it is called off.
    pub migrate_deadline: Span,
    /// Bounds on automatic restarts.
    pub restart: RestartPolicy,
    /// How often in a row a saga's step may fail before the saga is paused; none means as often as its deadline
    /// allows.
    pub pause_after_failures: Option<NonZeroU32>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            start_deadline: Span::from_secs(120),
            migrate_deadline: Span::from_secs(60),
            restart: RestartPolicy::default(),
            pause_after_failures: None,
        }
    }
}

/// What `decide` decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Append these, in one append; none means that nothing changes.
    Events(Vec<InstanceEvent>),
    /// The input is valid and needs room: ask the ledger, then decide again with its grant.
    AskForRoom(RoomWanted),
}

/// What the ledger is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomWanted {
    /// How much.
    pub size: Size,
    /// What for.
    pub purpose: Purpose,
}

/// What room is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To start; provisioning is charged too.
    Start {
        /// The CPU family that the sled must have, if any.
        cpu_family: Option<String>,
    },
    /// To take a guest over from a sled: another one, of the same CPU family. Provisioning stays as charged.
    Migrate {
        /// Where the guest is.
        source: SledId,
    },
}

/// Most events that may follow from one input, besides two for each VMM: that it is gone, and that it is
/// forgotten. A longer chain is a loop in the rules.
const FOLLOW_UPS_MAX: usize = 32;

/// Decides. `state` is the fold of the stream, none if it is empty.
pub fn decide(state: Option<&Instance>, input: &Input, policy: &Policy) -> Result<Decision, Rejected> {
    let decision = match (state, input) {
        (_, Input::Command(command)) => command::events(state, command, policy)?,
        (None, _) => return Err(Rejected::NoSuchVmm),
        (Some(state), Input::Deadline(DeadlineKind::Restart)) => {
            if restart_due(state, policy).is_some() {
                Decision::AskForRoom(room_to_start(state))
            } else {
                Decision::Events(Vec::new())
            }
        }
        (Some(state), Input::Restart(grant)) => Decision::Events(restart_events(state, grant, policy)),
        (Some(state), Input::Report { sled, vmm, report }) => {
            Decision::Events(fact::report_events(state, *sled, *vmm, report)?)
        }
        (Some(state), Input::Outcome { effect, result }) => {
            Decision::Events(fact::outcome_events(state, *effect, result))
        }
        (Some(state), Input::StepFailed { effect, failures }) => {
            Decision::Events(fact::step_failed_events(state, *effect, *failures, policy))
        }
        (Some(state), Input::Gone { vmm, evidence }) => {
            Decision::Events(fact::gone_events(state, *vmm, *evidence))
        }
        (Some(state), Input::Absent { vmm, asked_at, evidence }) => {
            Decision::Events(fact::absent_events(state, *vmm, *asked_at, *evidence))
        }
        (Some(state), Input::Deadline(kind)) => Decision::Events(fact::deadline_events(state, *kind)),
        (Some(_), Input::Reconsider) => Decision::Events(Vec::new()),
        (Some(state), Input::Archived(file)) => {
            let archived = state.may_be_archived_as(file).then(|| InstanceEvent::Archived(file.clone()));
            Decision::Events(archived.into_iter().collect())
        }
    };
    Ok(match decision {
        Decision::Events(events) => Decision::Events(with_follow_ups(state, events)),
        ask @ Decision::AskForRoom(_) => ask,
    })
}

/// Appends to `events` all that follows from them.
fn with_follow_ups(state: Option<&Instance>, mut events: Vec<InstanceEvent>) -> Vec<InstanceEvent> {
    let mut scratch = state.cloned();
    for event in &events {
        let meta = next_meta(scratch.as_ref());
        evolve(&mut scratch, event, meta);
    }
    let follow_ups_max = FOLLOW_UPS_MAX + 2 * scratch.as_ref().map_or(0, |state| state.vmms.len());
    for _ in 0..follow_ups_max {
        let Some(event) = scratch.as_ref().and_then(settle) else {
            return events;
        };
        let meta = next_meta(scratch.as_ref());
        evolve(&mut scratch, &event, meta);
        events.push(event);
    }
    unreachable!("the rules settle: every follow-up brings the state nearer to rest");
}

/// A stand-in for the place that the log will assign; no decision depends on it.
fn next_meta(state: Option<&Instance>) -> EventMeta {
    let (version, position, time) =
        state.map_or((0, 0, Timestamp::default()), |s| (s.head.version, s.head.position, s.head.time));
    EventMeta {
        version: version + 1,
        position: position + 1,
        time: Timestamp::default().strictly_after(time),
    }
}

fn room_to_start(state: &Instance) -> RoomWanted {
    let purpose = Purpose::Start { cpu_family: state.spec.cpu_platform.clone() };
    RoomWanted { size: state.spec.size, purpose }
}

/// An attempt that is not due any more writes nothing; its grant is dropped.
fn restart_events(
    state: &Instance,
    grant: &Result<StartGrant, Shortage>,
    policy: &Policy,
) -> Vec<InstanceEvent> {
    let Some(due) = restart_due(state, policy) else {
        return Vec::new();
    };
    let tried = InstanceEvent::RestartTried { attempt: due.attempt };
    let then = match grant {
        Ok(grant) => start_began(grant, Origin::Automatic, state.spec.size, policy),
        Err(short) => InstanceEvent::StartNotPlaced { origin: Origin::Automatic, short: short.clone() },
    };
    vec![tried, then]
}

fn start_began(grant: &StartGrant, origin: Origin, size: Size, policy: &Policy) -> InstanceEvent {
    InstanceEvent::StartBegan {
        saga: grant.saga,
        origin,
        vmm: grant.vmm,
        sled: grant.sled,
        size,
        deadline: policy.start_deadline,
    }
}

fn unwound(saga: &SagaProgress, reason: UnwindReason) -> InstanceEvent {
    InstanceEvent::SagaUnwound {
        saga: saga.id,
        step: saga.step,
        reason,
        undone: undone_from(saga.kind, saga.step),
    }
}
