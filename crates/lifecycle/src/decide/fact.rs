//! Facts and answers: what sleds say of their VMMs, how they answer effects, and what the passing of time
//! makes of it.

use super::{Policy, unwound};
use crate::effects::{DeadlineKind, Effect, effects};
use crate::event::InstanceEvent;
use crate::ids::{OpId, SagaId, SledId, VmmId};
use crate::input::{EffectResult, Refusal, SideReport, VmmReport};
use crate::instance::{Instance, PauseCause, UnwindReason};
use crate::migration::{CancelReason, Migration, Outcome};
use crate::rejected::Rejected;
use crate::saga::{SagaKind, Step, is_before_return};
use crate::vmm::{ANOMALIES_MAX, Evidence, FailureReason, Reservation, Vmm, VmmState};

/// A VMM that is not here any more was ours and is dead: its late report changes nothing.
pub(super) fn report_events(
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
    let mut parts = [report.migration_in, report.migration_out].into_iter().flatten();
    if accepts_state(vmm, report) || parts.any(|part| accepts_side(state, id, &part)) {
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

/// Whether a migration part is news. `evolve` applies it by the same rule. Until the target may have been told
/// to take the guest over, neither side can have begun.
pub(crate) fn accepts_side(state: &Instance, id: VmmId, part: &SideReport) -> bool {
    let Some(migration) = state.migrations.get(&part.migration) else {
        return false;
    };
    let target = state.vmms.get(&migration.target.vmm);
    let was_told = target.is_none_or(|target| target.run_may_be_sent);
    let side = if migration.source.vmm == id { migration.source } else { migration.target };
    side.vmm == id && was_told && part.generation > side.generation && side.state.reaches(part.state)
}

pub(super) fn outcome_events(state: &Instance, effect: Effect, result: &EffectResult) -> Vec<InstanceEvent> {
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
        (Effect::MigrationTarget { .. }, EffectResult::Done(report)) => {
            let mut events = answer_report(state, vmm, *report);
            events.extend(accepted_target(state, vmm));
            events
        }
        (_, EffectResult::Done(report)) => answer_report(state, vmm, *report),
        // The sled has not heard which epoch it is in; it will, and is asked again until the deadline.
        (Effect::Register { .. }, EffectResult::Refused(Refusal::StaleEpoch)) => Vec::new(),
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
        // The sled will try again under its new epoch.
        (Effect::MigrationTarget { .. }, EffectResult::Refused(Refusal::StaleEpoch)) => Vec::new(),
        // It may have taken an earlier sending of it: what is there is called off, and reports decide.
        (Effect::MigrationTarget { migration, .. }, EffectResult::Refused(_)) => {
            match state.linked_migration().filter(|linked| linked.id == migration) {
                Some(linked) => called_off(state, linked, CancelReason::Refused),
                None => Vec::new(),
            }
        }
        // Decides nothing: a report, a newer epoch or the deadline will.
        (
            Effect::SetRunning { .. }
            | Effect::Stop { .. }
            | Effect::Reboot { .. }
            | Effect::MigrationCancel { .. }
            | Effect::Ask { .. },
            EffectResult::Refused(_),
        ) => Vec::new(),
    }
}

/// The saga's goal is that the target has accepted. A report in the same answer may have ended it already.
fn accepted_target(state: &Instance, vmm: &Vmm) -> Option<InstanceEvent> {
    let saga = state.saga.as_ref().filter(|saga| saga.vmm == vmm.id && saga.step == Step::MigrationTarget)?;
    Some(InstanceEvent::SagaEnded { saga: saga.id, done: true })
}

/// Both sides are told to give up, unless they have been, or one has decided.
fn called_off(state: &Instance, migration: &Migration, reason: CancelReason) -> Vec<InstanceEvent> {
    if migration.cancelled.is_some() || state.outcome_of(migration) != Outcome::UnderWay {
        return Vec::new();
    }
    vec![InstanceEvent::MigrationCancelled { migration: migration.id, reason }]
}

fn answered_reboot(state: &Instance, op: OpId, accepted: bool) -> Vec<InstanceEvent> {
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

pub(super) fn gone_events(state: &Instance, id: VmmId, evidence: Evidence) -> Vec<InstanceEvent> {
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

/// A boot, or the end of a lease, takes with it whatever was allocated before it: nothing of that is ever sent to
/// the sled again. An inventory only proves the absence of what was known to be registered when it was asked for.
pub(super) fn absent_events(
    state: &Instance,
    id: VmmId,
    asked_at: u64,
    evidence: Evidence,
) -> Vec<InstanceEvent> {
    let Some(vmm) = state.vmms.get(&id) else {
        return Vec::new();
    };
    let is_proof = match evidence {
        Evidence::SledRebooted | Evidence::LeaseExpired => vmm.allocated_at < asked_at,
        _ => vmm.registered_at.is_some_and(|position| position <= asked_at),
    };
    if is_proof { gone_events(state, id, evidence) } else { Vec::new() }
}

/// A step that has failed so often that somebody should look is held. Only what brings the saga forward counts:
/// what takes something back, or ends a guest, is sent until it acts.
pub(super) fn step_failed_events(
    state: &Instance,
    effect: Effect,
    failures: u32,
    policy: &Policy,
) -> Vec<InstanceEvent> {
    let is_forward = matches!(
        effect,
        Effect::Register { .. } | Effect::SetRunning { .. } | Effect::MigrationTarget { .. }
    );
    let is_enough = policy.pause_after_failures.is_some_and(|most| failures >= most.get());
    match &state.saga {
        Some(saga) if is_forward && is_enough && effects(state).contains(&effect) => {
            let cause = PauseCause::Failures { count: failures };
            vec![InstanceEvent::SagaPaused { saga: saga.id, step: saga.step, cause }]
        }
        _ => Vec::new(),
    }
}

/// A deadline that has been overtaken changes nothing.
pub(super) fn deadline_events(state: &Instance, kind: DeadlineKind) -> Vec<InstanceEvent> {
    let linked = |id| state.linked_migration().filter(|migration| migration.id == id);
    match kind {
        DeadlineKind::Saga(id) => saga_deadline_events(state, id),
        DeadlineKind::Migration(id) => {
            linked(id).map_or_else(Vec::new, |migration| called_off(state, migration, CancelReason::Deadline))
        }
        DeadlineKind::Undecided(id) => linked(id)
            .filter(|migration| state.outcome_of(migration) == Outcome::Undecided)
            .map_or_else(Vec::new, |migration| {
                vec![InstanceEvent::MigrationGivenUp { migration: migration.id }]
            }),
        DeadlineKind::Restart => Vec::new(),
    }
}

fn saga_deadline_events(state: &Instance, id: SagaId) -> Vec<InstanceEvent> {
    let Some(saga) = state.saga.as_ref().filter(|saga| saga.id == id && saga.pause.is_none()) else {
        return Vec::new();
    };
    if is_before_return(saga.kind, saga.step) {
        return vec![unwound(saga, UnwindReason::Deadline)];
    }
    match saga.kind {
        SagaKind::Migrate => state
            .linked_migration()
            .map_or_else(Vec::new, |migration| called_off(state, migration, CancelReason::Deadline)),
        // Past the point of no return the guest may run: the VMM is declared failed, and told to die.
        _ => vec![InstanceEvent::VmmFailed { vmm: saga.vmm, reason: FailureReason::StartTimeout }],
    }
}
