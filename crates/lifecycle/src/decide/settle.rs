//! What follows from the state itself: saga steps, the update, confirmation, reaping.

use super::unwound;
use crate::event::InstanceEvent;
use crate::instance::{Instance, SagaProgress, UnwindReason};
use crate::migration::SideState;
use crate::saga::{SagaKind, Step};
use crate::update::update;
use crate::vmm::{Evidence, FailureReason, Vmm, VmmState};

/// The next thing that follows from the state itself; none if it is at rest.
pub fn settle(state: &Instance) -> Option<InstanceEvent> {
    confirm(state)
        .or_else(|| {
            state.saga.as_ref().and_then(|saga| advance(state, saga).filter(|next| may_follow(saga, next)))
        })
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
    match saga.kind {
        SagaKind::Start => advance_start(state, saga),
        SagaKind::Migrate => advance_migrate(state, saga),
        SagaKind::Create | SagaKind::Update | SagaKind::Delete => {
            unreachable!("a saga of one append is never under way")
        }
    }
}

/// A saga that is paused takes no further step. What its VMMs do, and what its user wants, still ends it.
fn may_follow(saga: &SagaProgress, next: &InstanceEvent) -> bool {
    saga.pause.is_none() || !matches!(next, InstanceEvent::SagaAdvanced { .. })
}

fn step_to(saga: &SagaProgress, step: Step) -> InstanceEvent {
    InstanceEvent::SagaAdvanced { saga: saga.id, step }
}

fn advance_start(state: &Instance, saga: &SagaProgress) -> Option<InstanceEvent> {
    let vmm = &state.vmms[&saga.vmm];
    let is_before_return = saga.step < Step::SetRunning;
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
        VmmState::Creating | VmmState::Starting if saga.step == Step::Fence => pass_fence(state, saga),
        VmmState::Starting if saga.step == Step::Register => Some(step_to(saga, Step::SetRunning)),
        VmmState::Creating | VmmState::Starting => None,
    }
}

fn pass_fence(state: &Instance, saga: &SagaProgress) -> Option<InstanceEvent> {
    state.blocks_fence(saga.vmm).is_none().then(|| step_to(saga, Step::Register))
}

/// Until the target is told to take the guest over, anything that makes moving it pointless takes the saga
/// back. From then on only the two sides decide, and the saga ends as soon as they have begun to.
fn advance_migrate(state: &Instance, saga: &SagaProgress) -> Option<InstanceEvent> {
    let migration = state.linked_migration().expect("a migrate saga has its migration linked");
    let (source, target) = (&state.vmms[&migration.source.vmm], &state.vmms[&saga.vmm]);
    if saga.step == Step::MigrationTarget {
        let has_begun = matches!(migration.target.state, SideState::InProgress | SideState::Completed);
        let is_called_off = migration.cancelled.is_some() || state.stop.is_some();
        let is_over =
            !target.state.is_live() || !source.state.is_live() || migration.target.state.is_terminal();
        return (has_begun || is_called_off || is_over)
            .then_some(InstanceEvent::SagaEnded { saga: saga.id, done: has_begun });
    }
    let source_runs = matches!(source.state, VmmState::Running | VmmState::Rebooting);
    if !source_runs || !target.state.is_live() {
        return Some(unwound(saga, UnwindReason::VmmEnded));
    }
    if state.stop.is_some() {
        return Some(unwound(saga, UnwindReason::StopRequested));
    }
    match (saga.step, target.state) {
        (Step::Fence, _) => pass_fence(state, saga),
        (Step::Register, VmmState::Migrating) => Some(step_to(saga, Step::MigrationTarget)),
        _ => None,
    }
}

/// A VMM that is over, gone, and referred to by nothing.
fn reap(state: &Instance) -> Option<InstanceEvent> {
    let is_due = |vmm: &&Vmm| vmm.state.is_destroyable() && vmm.gone.is_some() && !state.refers_to(vmm.id);
    state.vmms.values().find(is_due).map(|vmm| InstanceEvent::VmmReaped { vmm: vmm.id })
}
