//! `decide(state, input) -> events | refusal`: the only place where anything is decided about an instance.
//!
//! A decision is the reaction to the input plus everything that follows from it at once ([`settle`]): the
//! update after a VMM's end, a saga's next step, the reaping of a VMM that is gone. All of it is one
//! append, so there is no window in which an instance needs an update and has not had it, and nothing
//! that a reaper would have to find.
//!
//! Invariants:
//! * a refused input leaves no trace; an input that changes nothing yields no events;
//! * the same state and input yield the same events;
//! * nothing here fails on any input: what a sled may say is data.

use crate::action::{Action, Permit, permit};
use crate::effects::{DeadlineKind, Effect};
use crate::event::{EventMeta, InstanceEvent};
use crate::evolve::evolve;
use crate::ids::{SagaId, SledId, VmmId};
use crate::input::{Command, EffectResult, Input, Refusal, StartGrant, VmmReport};
use crate::instance::{Instance, Intent, SagaProgress, UnwindReason};
use crate::rejected::Rejected;
use crate::saga::{Origin, Step, undone_from};
use crate::spec::Size;
use crate::time::{Span, Timestamp};
use crate::update::update;
use crate::vmm::{ANOMALIES_MAX, Evidence, FailureReason, Reservation, Vmm, VmmState};

/// Limits that decisions use; from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a start may take before it is undone or stopped.
    pub start_deadline: Span,
}

impl Default for Policy {
    fn default() -> Self {
        Self { start_deadline: Span::from_secs(120) }
    }
}

/// What `decide` decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Append these, in one append; none means that nothing changes.
    Events(Vec<InstanceEvent>),
    /// The command is valid and needs room of this size: ask the ledger, then decide again with its grant.
    AskForRoom(Size),
}

/// Most events that may follow from one input. A longer chain is a loop in the rules.
const FOLLOW_UPS_MAX: usize = 32;

/// Decides. `state` is the fold of the stream, none if it is empty.
pub fn decide(state: Option<&Instance>, input: &Input, policy: &Policy) -> Result<Decision, Rejected> {
    let events = match (state, input) {
        (_, Input::Command(command)) => match command_events(state, command, policy)? {
            Decision::Events(events) => events,
            ask @ Decision::AskForRoom(_) => return Ok(ask),
        },
        (None, _) => return Err(Rejected::NoSuchVmm),
        (Some(state), Input::Report { sled, vmm, report }) => report_events(state, *sled, *vmm, report)?,
        (Some(state), Input::Outcome { effect, result }) => outcome_events(state, *effect, result),
        (Some(state), Input::Gone { vmm, evidence }) => gone_events(state, *vmm, *evidence),
        (Some(state), Input::Absent { vmm, asked_at, evidence }) => {
            absent_events(state, *vmm, *asked_at, *evidence)
        }
        (Some(state), Input::Deadline(DeadlineKind::Saga(saga))) => deadline_events(state, *saga),
        (Some(_), Input::Reconsider) => Vec::new(),
    };
    Ok(Decision::Events(with_follow_ups(state, events)))
}

/// Appends to `events` all that follows from them.
fn with_follow_ups(state: Option<&Instance>, mut events: Vec<InstanceEvent>) -> Vec<InstanceEvent> {
    let mut scratch = state.cloned();
    for event in &events {
        let meta = next_meta(scratch.as_ref());
        evolve(&mut scratch, event, meta);
    }
    for _ in 0..FOLLOW_UPS_MAX {
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

fn command_events(
    state: Option<&Instance>,
    command: &Command,
    policy: &Policy,
) -> Result<Decision, Rejected> {
    if let Command::Create { id, spec, address, start } = command {
        if state.is_some() {
            return Err(Rejected::IdTaken(*id));
        }
        spec.validate()?;
        let intent = if matches!(start, Some(Ok(_))) { Intent::Running } else { Intent::Stopped };
        let mut events =
            vec![InstanceEvent::Created { id: *id, spec: spec.clone(), address: *address, intent }];
        match start {
            None => {}
            Some(Ok(grant)) => events.push(start_began(grant, Origin::Creation, spec.size, policy)),
            Some(Err(short)) => {
                events.push(InstanceEvent::StartNotPlaced { origin: Origin::Creation, short: short.clone() });
            }
        }
        return Ok(Decision::Events(events));
    }
    let Some(state) = state else {
        // The shell addresses an instance by the id in the command; an empty stream is one that never was.
        return Err(Rejected::NoSuchVmm);
    };
    let action = match command {
        Command::Create { .. } => unreachable!("handled above"),
        Command::Start { .. } => Action::Start,
        Command::Stop { .. } => Action::Stop,
        Command::Reboot { .. } => Action::Reboot,
        Command::Delete => Action::Delete,
    };
    let run_state = state.run_state();
    let refuse = |is_conflict| Err(Rejected::NotPossible { action, state: run_state, is_conflict });
    match permit(action, run_state) {
        Permit::NotFound => return Err(Rejected::NoSuchInstance(state.id)),
        Permit::Invalid => return refuse(false),
        Permit::Conflict => return refuse(true),
        Permit::NoOp => return Ok(Decision::Events(superseding_start(state, command))),
        Permit::Do => {}
    }
    Ok(Decision::Events(match command {
        Command::Create { .. } => unreachable!("handled above"),
        Command::Start { grant: None } => return Ok(Decision::AskForRoom(state.spec.size)),
        Command::Start { grant: Some(grant) } => {
            vec![start_began(grant, Origin::User, state.spec.size, policy)]
        }
        Command::Stop { .. } if state.stop.is_some() => Vec::new(),
        Command::Stop { op } => vec![InstanceEvent::StopRequested { op: *op }],
        Command::Reboot { .. } if state.stop.is_some() => {
            // The stop is recorded and will be re-sent until it acts: a reboot would be dropped by it.
            return Err(Rejected::NotPossible {
                action,
                state: crate::visible::RunState::Stopping,
                is_conflict: false,
            });
        }
        Command::Reboot { .. } if state.reboot.is_some() => Vec::new(),
        Command::Reboot { op } => vec![InstanceEvent::RebootRequested { op: *op }],
        Command::Delete => vec![InstanceEvent::Deleted],
    }))
}

/// A start of something that runs changes nothing, unless a stop is recorded that has not been seen to
/// act: the later command supersedes it.
fn superseding_start(state: &Instance, command: &Command) -> Vec<InstanceEvent> {
    match (command, state.stop) {
        (Command::Start { .. }, Some(stop)) => vec![InstanceEvent::StopWithdrawn { op: stop.op }],
        _ => Vec::new(),
    }
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

/// A VMM that is not here any more was ours and is dead: its late report changes nothing.
fn report_events(
    state: &Instance,
    sled: SledId,
    id: VmmId,
    report: &VmmReport,
) -> Result<Vec<InstanceEvent>, Rejected> {
    let Some(vmm) = state.vmms.get(&id) else {
        return Ok(Vec::new());
    };
    if vmm.sled != sled {
        return Err(Rejected::WrongSled);
    }
    if accepts_state(vmm, report) || accepts_side(state, vmm, report) {
        return Ok(vec![InstanceEvent::VmmReported { vmm: id, report: *report }]);
    }
    let is_new = report.generation > vmm.generation && vmm.state.is_live();
    if is_new && vmm.anomalies < ANOMALIES_MAX {
        return Ok(vec![InstanceEvent::ReportAnomalous { vmm: id, report: *report }]);
    }
    Ok(Vec::new())
}

/// Whether the report's VMM part is news. `evolve` applies it by the same rule.
pub(crate) fn accepts_state(vmm: &Vmm, report: &VmmReport) -> bool {
    report.generation > vmm.generation && vmm.state.reaches(report.state) && was_asked_for(vmm, report.state)
}

/// Whether the sled can have been asked for this state: a VMM that was never sent cannot be there, and one
/// that was never told to run holds no guest. Believing it would open the fence behind another VMM's back.
fn was_asked_for(vmm: &Vmm, reported: VmmState) -> bool {
    match reported {
        VmmState::Migrating => vmm.run_may_be_sent || vmm.reservation == Some(Reservation::Target),
        VmmState::Running | VmmState::Rebooting => vmm.run_may_be_sent,
        VmmState::Creating
        | VmmState::Starting
        | VmmState::Stopping
        | VmmState::Stopped
        | VmmState::Destroyed
        | VmmState::Failed
        | VmmState::SagaUnwound => vmm.register_may_be_sent,
    }
}

/// Whether either of the report's migration parts is news.
fn accepts_side(state: &Instance, vmm: &Vmm, report: &VmmReport) -> bool {
    [report.migration_in, report.migration_out].into_iter().flatten().any(|part| {
        let Some(migration) = state.migrations.get(&part.migration) else {
            return false;
        };
        let side = if migration.source.vmm == vmm.id { migration.source } else { migration.target };
        side.vmm == vmm.id && part.generation > side.generation && side.state.reaches(part.state)
    })
}

fn outcome_events(state: &Instance, effect: Effect, result: &EffectResult) -> Vec<InstanceEvent> {
    let Some(vmm) = state.vmms.get(&effect.vmm()) else {
        return Vec::new();
    };
    match (effect, result) {
        (Effect::Unregister { .. }, EffectResult::Done(_)) => {
            gone_events(state, vmm.id, Evidence::Unregistered)
        }
        (Effect::Reboot { op, .. }, EffectResult::Done(report)) => {
            let mut events = answered_reboot(state, op, true);
            events.extend(answer_report(state, vmm, *report));
            events
        }
        (_, EffectResult::Done(report)) => answer_report(state, vmm, *report),
        (Effect::Register { .. }, EffectResult::Refused(refusal)) => match &state.saga {
            Some(saga) if saga.vmm == vmm.id && saga.step == Step::Register => {
                vec![unwound(saga, UnwindReason::Refused(*refusal))]
            }
            _ => Vec::new(),
        },
        (Effect::Unregister { .. }, EffectResult::Refused(_)) => Vec::new(),
        (_, EffectResult::Refused(Refusal::NoSuchVmm)) if vmm.state.is_live() => {
            vec![InstanceEvent::VmmFailed { vmm: vmm.id, reason: FailureReason::NoSuchVmm }]
        }
        (Effect::Reboot { op, .. }, EffectResult::Refused(Refusal::NotPossible)) => {
            answered_reboot(state, op, false)
        }
        // Decides nothing: a report, a newer epoch or the deadline will.
        (
            Effect::SetRunning { .. } | Effect::Stop { .. } | Effect::Reboot { .. },
            EffectResult::Refused(_),
        ) => Vec::new(),
    }
}

fn answered_reboot(state: &Instance, op: crate::ids::OpId, accepted: bool) -> Vec<InstanceEvent> {
    match state.reboot {
        Some(order) if order.op == op => vec![InstanceEvent::RebootAnswered { op, accepted }],
        _ => Vec::new(),
    }
}

/// State that came with an answer counts like a report.
fn answer_report(state: &Instance, vmm: &Vmm, report: Option<VmmReport>) -> Vec<InstanceEvent> {
    report.map_or_else(Vec::new, |report| {
        report_events(state, vmm.sled, vmm.id, &report).expect("the VMM is on its own sled")
    })
}

fn gone_events(state: &Instance, id: VmmId, evidence: Evidence) -> Vec<InstanceEvent> {
    let Some(vmm) = state.vmms.get(&id) else {
        return Vec::new();
    };
    if vmm.gone.is_some() {
        return Vec::new();
    }
    let mut events = Vec::with_capacity(2);
    if vmm.state.is_live() {
        events.push(InstanceEvent::VmmFailed { vmm: id, reason: failure_by(evidence) });
    }
    events.push(InstanceEvent::VmmGone { vmm: id, evidence });
    events
}

/// The reason that a piece of evidence gives a VMM that was thought to live.
const fn failure_by(evidence: Evidence) -> FailureReason {
    match evidence {
        Evidence::Reported => FailureReason::FromSled,
        Evidence::Unregistered | Evidence::AbsentFromInventory | Evidence::NeverSent => {
            FailureReason::NoSuchVmm
        }
        Evidence::SledRebooted => FailureReason::SledRebooted,
        Evidence::SledExpunged => FailureReason::SledExpunged,
        Evidence::LeaseExpired => FailureReason::LeaseExpired,
        Evidence::Asserted => FailureReason::Operator,
    }
}

fn absent_events(state: &Instance, id: VmmId, asked_at: u64, evidence: Evidence) -> Vec<InstanceEvent> {
    let was_registered_then =
        state.vmms.get(&id).and_then(|vmm| vmm.registered_at).is_some_and(|position| position <= asked_at);
    if was_registered_then { gone_events(state, id, evidence) } else { Vec::new() }
}

fn deadline_events(state: &Instance, id: SagaId) -> Vec<InstanceEvent> {
    match &state.saga {
        Some(saga) if saga.id == id && saga.step < Step::SetRunning => {
            vec![unwound(saga, UnwindReason::Deadline)]
        }
        // Past the point of no return the guest may run: the VMM is declared failed, and told to die.
        Some(saga) if saga.id == id => {
            vec![InstanceEvent::VmmFailed { vmm: saga.vmm, reason: FailureReason::StartTimeout }]
        }
        _ => Vec::new(),
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

/// The next thing that follows from the state itself; none if it is at rest.
pub fn settle(state: &Instance) -> Option<InstanceEvent> {
    confirm(state)
        .or_else(|| state.saga.as_ref().and_then(|saga| advance(state, saga)))
        .or_else(|| update(state).map(InstanceEvent::Updated))
        .or_else(|| reap(state))
}

/// A VMM whose own last word, or whose never having been sent, proves it gone.
fn confirm(state: &Instance) -> Option<InstanceEvent> {
    state.vmms.values().filter(|vmm| vmm.gone.is_none()).find_map(|vmm| {
        let evidence = match (vmm.state, vmm.failure) {
            (VmmState::Destroyed, _) | (VmmState::Failed, Some(FailureReason::FromSled)) => {
                Evidence::Reported
            }
            (VmmState::SagaUnwound | VmmState::Failed, _) if !vmm.register_may_be_sent => Evidence::NeverSent,
            _ => return None,
        };
        Some(InstanceEvent::VmmGone { vmm: vmm.id, evidence })
    })
}

fn advance(state: &Instance, saga: &SagaProgress) -> Option<InstanceEvent> {
    let vmm = &state.vmms[&saga.vmm];
    let is_before_return = saga.step < Step::SetRunning;
    let step = |step| Some(InstanceEvent::SagaAdvanced { saga: saga.id, step });
    match vmm.state {
        VmmState::Destroyed | VmmState::Failed | VmmState::SagaUnwound if is_before_return => {
            Some(unwound(saga, UnwindReason::VmmEnded))
        }
        VmmState::Destroyed
        | VmmState::Failed
        | VmmState::SagaUnwound
        | VmmState::Stopping
        | VmmState::Stopped => Some(InstanceEvent::SagaEnded { saga: saga.id, done: false }),
        VmmState::Running | VmmState::Rebooting | VmmState::Migrating => {
            Some(InstanceEvent::SagaEnded { saga: saga.id, done: true })
        }
        VmmState::Creating | VmmState::Starting if is_before_return && state.stop.is_some() => {
            Some(unwound(saga, UnwindReason::StopRequested))
        }
        VmmState::Creating | VmmState::Starting if saga.step == Step::Fence => {
            if state.other_that_may_run(vmm.id).is_none() { step(Step::Register) } else { None }
        }
        VmmState::Starting if saga.step == Step::Register => step(Step::SetRunning),
        VmmState::Creating | VmmState::Starting => None,
    }
}

/// A VMM that is over, gone, and referred to by nothing.
fn reap(state: &Instance) -> Option<InstanceEvent> {
    let is_due = |vmm: &&Vmm| vmm.state.is_destroyable() && vmm.gone.is_some() && !state.refers_to(vmm.id);
    state.vmms.values().find(is_due).map(|vmm| InstanceEvent::VmmReaped { vmm: vmm.id })
}
