//! What planted bugs do (`Bug`). Nothing here changes anything unless a scenario asks for it.

use super::World;
use super::instance_shell::{From, Grants, What};
use crate::bug::Bug;
use lifecycle::event::Update;
use lifecycle::migration::{Migration, Outcome, SideState};
use lifecycle::{
    AutoRestartPolicy, Command, DeadlineKind, Decision, Effect, EffectResult, EventMeta, Evidence, Input,
    Instance, InstanceEvent, InstanceId, Intent, MigrationId, Policy, Rejected, RequestId, SagaKind, Step,
    VmmState,
};
use std::collections::BTreeMap;

impl World {
    /// What planted bugs do as soon as an append is written.
    pub(super) fn act_too_early(&mut self, id: InstanceId) {
        match self.scenario.bug {
            Some(Bug::AcknowledgeBeforeSync) => {
                let in_flight = self.shell(id).in_flight.as_mut().expect("it was just written");
                let (from, first) = (in_flight.from.clone(), in_flight.metas[0].position);
                if matches!(from, From::Client { .. }) {
                    in_flight.is_answered = true;
                    self.answer(from, Some(first));
                }
            }
            Some(Bug::EffectBeforeSync) => {
                let shell = self.shell(id);
                let mut ahead = shell.state.clone();
                let in_flight = shell.in_flight.as_ref().expect("it was just written");
                for (event, meta) in in_flight.events.iter().zip(&in_flight.metas) {
                    lifecycle::evolve(&mut ahead, event, *meta);
                }
                if let Some(ahead) = ahead {
                    self.derive_from(id, &ahead);
                }
            }
            _ => {}
        }
    }

    /// The planted zeal: what is found at a start is written anew.
    pub(super) fn rewrite_at_start(&mut self) {
        if self.scenario.bug != Some(Bug::RewriteAtStart) || self.incarnation < 2 {
            return;
        }
        let shells = &self.control().instances;
        let found: Vec<(InstanceId, lifecycle::SpecChange)> = shells
            .iter()
            .filter_map(|(id, shell)| Some((*id, shell.state.as_ref().filter(|it| it.deleted.is_none())?)))
            .map(|(id, state)| (id, state.spec.changeable()))
            .collect();
        for (id, change) in found {
            if self.is_up() && self.shell(id).in_flight.is_none() {
                let change = Box::new(change);
                let input = Input::Command(Command::Update { change: change.clone() });
                let events = vec![InstanceEvent::Reconfigured { change }];
                self.write(id, input, events, None, From::Nobody, Grants::default());
            }
        }
    }

    /// The planted trace: a delete that is refused writes something all the same.
    pub(super) fn leave_a_trace(
        &mut self,
        id: InstanceId,
        what: &What,
        request: Option<(RequestId, &'static str)>,
    ) {
        let is_planted = self.scenario.bug == Some(Bug::RefusedLeavesTrace);
        if !is_planted || !matches!(what, What::Request(_, "delete")) {
            return;
        }
        let Some(state) = self.shell(id).state.as_ref().filter(|state| state.deleted.is_none()) else {
            return;
        };
        let mut change = state.spec.changeable();
        if change.auto_restart != Some(AutoRestartPolicy::Never) {
            change.auto_restart = Some(AutoRestartPolicy::Never);
            let input = Input::Command(Command::Delete);
            let events = vec![InstanceEvent::Reconfigured { change: Box::new(change) }];
            self.write(id, input, events, request, From::Nobody, Grants::default());
        }
    }
}

/// Applies a fact by the rules, and by what a planted bug makes of them.
pub(crate) fn evolve(state: &mut Option<Instance>, event: &InstanceEvent, meta: EventMeta, bug: Option<Bug>) {
    let before: Option<BTreeMap<MigrationId, Migration>> = match bug {
        Some(Bug::SideOutlivesVmm) => state.as_ref().map(|state| state.migrations.clone()),
        _ => None,
    };
    lifecycle::evolve(state, event, meta);
    let Some(state) = state else {
        return;
    };
    match (bug, event) {
        (Some(Bug::SideOutlivesVmm), InstanceEvent::VmmFailed { .. }) => {
            state.migrations = before.unwrap_or_default();
        }
        (Some(Bug::BelieveTheDead), InstanceEvent::VmmReported { vmm, report }) => {
            if let Some(vmm) = state.vmms.get_mut(vmm)
                && vmm.state == VmmState::Failed
                && vmm.gone.is_none()
                && report.generation > vmm.generation
            {
                vmm.state = report.state;
                vmm.generation = report.generation;
            }
        }
        _ => {}
    }
}

/// Decides as a control plane with this bug would: the rules, and what the bug makes of their events.
pub fn decide_with(
    bug: Bug,
    state: Option<&Instance>,
    input: &Input,
    policy: &Policy,
) -> Result<Decision, Rejected> {
    let mut decision = lifecycle::decide(state, input, policy)?;
    if let Decision::Events(events) = &mut decision {
        spoil_events(events, state, input, policy, bug);
    }
    Ok(decision)
}

/// What a planted bug makes of the events that the rules decided.
pub(super) fn spoil_events(
    events: &mut Vec<InstanceEvent>,
    state: Option<&Instance>,
    input: &Input,
    policy: &Policy,
    bug: Bug,
) {
    match bug {
        Bug::LeakOnUndo => keep_what_is_undone(events),
        Bug::PauseForgetsUndo => forget_what_was_before_a_pause(events, state),
        Bug::NeverResume => events.retain(|event| !matches!(event, InstanceEvent::SagaResumed { .. })),
        Bug::OpenFence => pass_the_fence(events),
        Bug::BelieveTheDead => believe_the_dead(events, state, input),
        Bug::LostReadsStopped => lost_reads_stopped(events, state),
        Bug::ThrowGuestAway => throw_guest_away(events, state, policy),
        Bug::FreeOnUndo => free_on_undo(events, state),
        Bug::StopOverwritesEnd => stop_overwrites_end(events, state),
        Bug::BelieveClosed => believe_closed(events, state, input),
        Bug::FreeSourceEarly => free_source_early(events, state),
        _ => {}
    }
}

/// A start that goes back does not give back what it reserved.
fn keep_what_is_undone(events: &mut [InstanceEvent]) {
    for event in events {
        if let InstanceEvent::SagaUnwound { undone, .. } = event {
            undone.retain(|step| *step != Step::Reserve);
        }
    }
}

/// A saga that is taken back from a pause takes nothing back but its newest step.
fn forget_what_was_before_a_pause(events: &mut [InstanceEvent], state: Option<&Instance>) {
    let is_held = state.and_then(|state| state.saga.as_ref()).is_some_and(|saga| saga.pause.is_some());
    for event in events {
        if let InstanceEvent::SagaUnwound { undone, .. } = event
            && is_held
        {
            undone.retain(|step| *step != Step::Reserve);
        }
    }
}

/// A start or a migrate that is to wait goes on.
fn pass_the_fence(events: &mut Vec<InstanceEvent>) {
    if let Some(InstanceEvent::StartBegan { saga, .. } | InstanceEvent::MigrateBegan { saga, .. }) =
        events.last()
    {
        let saga = *saga;
        events.push(InstanceEvent::SagaAdvanced { saga, step: Step::Register });
    }
}

/// A VMM that was declared failed and says that it lives is believed.
fn believe_the_dead(events: &mut Vec<InstanceEvent>, state: Option<&Instance>, input: &Input) {
    if let Input::Report { vmm, report, .. } = input
        && let Some(known) = state.and_then(|state| state.vmms.get(vmm))
        && events.is_empty()
        && known.state == VmmState::Failed
        && known.gone.is_none()
        && report.generation > known.generation
    {
        events.push(InstanceEvent::VmmReported { vmm: *vmm, report: *report });
    }
}

/// The migration that an append clears, and what it had come to.
fn cleared(events: &[InstanceEvent], state: Option<&Instance>) -> Option<(MigrationId, Outcome)> {
    let mut scratch = state.cloned();
    for event in events {
        let linked = scratch.as_ref().and_then(Instance::linked_migration);
        if let (InstanceEvent::Updated(update), Some(linked)) = (event, linked)
            && update.migration.is_none()
        {
            return scratch.as_ref().map(|state| (linked.id, state.outcome_of(linked)));
        }
        apply(&mut scratch, event);
    }
    None
}

/// Applies an event that has no place in the log yet.
pub(super) fn apply(scratch: &mut Option<Instance>, event: &InstanceEvent) {
    let head = scratch.as_ref().map(|state| state.head);
    let meta = EventMeta {
        version: head.map_or(1, |head| head.version + 1),
        position: head.map_or(1, |head| head.position + 1),
        time: head.map_or_else(Default::default, |head| head.time),
    };
    lifecycle::evolve(scratch, event, meta);
}

fn applied(events: &[InstanceEvent], state: Option<&Instance>) -> Option<Instance> {
    let mut scratch = state.cloned();
    for event in events {
        apply(&mut scratch, event);
    }
    scratch
}

/// The guest is in neither side, and nobody says so.
fn lost_reads_stopped(events: &mut [InstanceEvent], state: Option<&Instance>) {
    let is_lost = matches!(cleared(events, state), Some((_, Outcome::Lost | Outcome::Undecided)));
    for event in events {
        if let InstanceEvent::Updated(update) = event
            && is_lost
        {
            update.failed = None;
        }
    }
}

/// The target is given up as soon as the source has failed.
fn throw_guest_away(events: &mut Vec<InstanceEvent>, state: Option<&Instance>, policy: &Policy) {
    let Some(after) = applied(events, state) else {
        return;
    };
    let undecided = after.linked_migration().filter(|linked| after.outcome_of(linked) == Outcome::Undecided);
    if let Some(migration) = undecided {
        let given_up = Input::Deadline(DeadlineKind::Undecided(migration.id));
        if let Ok(Decision::Events(more)) = lifecycle::decide(Some(&after), &given_up, policy) {
            events.extend(more);
        }
    }
}

/// What is undone is taken for gone.
fn free_on_undo(events: &mut Vec<InstanceEvent>, state: Option<&Instance>) {
    let is_start = state
        .and_then(|state| state.saga.as_ref())
        .is_some_and(|saga| saga.kind == SagaKind::Start && saga.step == Step::Register);
    let Some(vmm) = state.and_then(|state| state.saga.as_ref()).map(|saga| saga.vmm) else {
        return;
    };
    let is_unwound = events.iter().any(|event| matches!(event, InstanceEvent::SagaUnwound { .. }));
    let is_gone =
        |event: &InstanceEvent| matches!(event, InstanceEvent::VmmGone { vmm: gone, .. } if *gone == vmm);
    if is_start && is_unwound && !events.iter().any(is_gone) {
        events.push(InstanceEvent::VmmGone { vmm, evidence: Evidence::Unregistered });
        events.push(InstanceEvent::VmmReaped { vmm });
    }
}

/// The end of a VMM that was told to stop is written as a failure.
fn stop_overwrites_end(events: &mut [InstanceEvent], state: Option<&Instance>) {
    let is_stopping = state.is_some_and(|state| state.intent == Intent::Stopped);
    for event in events {
        if let InstanceEvent::VmmReported { report, .. } = event
            && is_stopping
            && report.state == VmmState::Destroyed
        {
            report.state = VmmState::Failed;
        }
    }
}

/// A target that nothing refers to any more says that it has the guest, and is made active.
fn believe_closed(events: &mut Vec<InstanceEvent>, state: Option<&Instance>, input: &Input) {
    let (Some(state), Input::Report { vmm, report, .. }) = (state, input) else {
        return;
    };
    let has_arrived = report.migration_in.is_some_and(|side| side.state == SideState::Completed);
    let is_closed = state.migration.is_none() && state.active.is_none() && state.saga.is_none();
    let known = state.vmms.get(vmm).filter(|known| known.state.is_live() && known.gone.is_none());
    if let Some(known) = known
        && has_arrived
        && is_closed
        && report.state.is_live()
        && state.deleted.is_none()
    {
        events.push(InstanceEvent::Updated(Update {
            active: Some(*vmm),
            target: None,
            migration: None,
            intent: Intent::Running,
            network: Some(known.sled),
            failed: None,
            closed: None,
        }));
    }
}

/// Once the target has the guest the source is taken for gone.
fn free_source_early(events: &mut Vec<InstanceEvent>, state: Option<&Instance>) {
    let Some((migration, Outcome::Succeeded)) = cleared(events, state) else {
        return;
    };
    let Some(after) = applied(events, state) else {
        return;
    };
    let source = state.and_then(|state| state.migrations.get(&migration)).map(|linked| linked.source.vmm);
    if let Some(vmm) = source.and_then(|source| after.vmms.get(&source))
        && vmm.gone.is_none()
        && vmm.state.is_live()
    {
        let vmm = vmm.id;
        let reason = lifecycle::FailureReason::NoSuchVmm;
        events.push(InstanceEvent::VmmFailed { vmm, reason });
        events.push(InstanceEvent::VmmGone { vmm, evidence: Evidence::Unregistered });
        events.push(InstanceEvent::VmmReaped { vmm });
    }
}

/// What a planted bug makes of the effects that are derived.
pub(super) fn spoil_effects(effects: &mut Vec<Effect>, state: &Instance, bug: Option<Bug>) {
    match bug {
        Some(Bug::LeaveAbandoned) => effects.retain(|effect| {
            let is_live = state.vmms.get(&effect.vmm()).is_some_and(|vmm| vmm.state.is_live());
            !is_live || state.refers_to(effect.vmm())
        }),
        Some(Bug::CancelEndsTarget) => {
            for effect in effects {
                if let Effect::MigrationCancel { vmm, sled, .. } = *effect
                    && state.target == Some(vmm)
                {
                    *effect = Effect::Unregister { vmm, sled };
                }
            }
        }
        _ => {}
    }
}

/// What a planted bug makes of a sled's answer.
pub(super) fn spoil_answer(
    effect: Effect,
    result: Option<EffectResult>,
    bug: Option<Bug>,
) -> Option<EffectResult> {
    let is_unknown = matches!(effect, Effect::Unregister { .. }) && result == Some(EffectResult::Done(None));
    result.filter(|_| bug != Some(Bug::UnknownIsNoAnswer) || !is_unknown)
}

/// The planted deafness to generations: every report passes as the newest.
pub(super) fn make_newer(input: &mut Input, state: Option<&Instance>) {
    if let Input::Report { vmm, report, .. } = input
        && let Some(known) = state.and_then(|state| state.vmms.get(vmm))
        && report.generation <= known.generation
    {
        report.generation = known.generation.next();
    }
}
