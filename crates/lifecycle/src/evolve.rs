//! `evolve(state, event)`: applies a fact. It may not refuse; what cannot be is an assertion.
//!
//! Everything derived from a fact is derived here and nowhere else: slots, reservations, charge, desired
//! state and the times of visible changes. `decide` runs the same function on its scratch state.

use crate::decide::accepts_state;
use crate::event::{EventMeta, InstanceEvent, Update};
use crate::ids::{SagaId, VmmId};
use crate::input::VmmReport;
use crate::instance::{
    DesiredNetwork, FoldHead, Instance, Intent, RebootOrder, SagaProgress, StopOrder, Trouble, TroubleCause,
    UnwindReason,
};
use crate::migration::SideState;
use crate::saga::{Origin, SagaKind, Step};
use crate::vmm::{FailureReason, Reservation, Vmm, VmmState};
use std::collections::BTreeMap;

/// Applies `event`, whose place and time is `meta`, to the fold.
pub fn evolve(state: &mut Option<Instance>, event: &InstanceEvent, meta: EventMeta) {
    if let InstanceEvent::Created { .. } = event {
        assert!(state.is_none(), "an instance is created once");
        *state = Some(created(event, meta));
        return;
    }
    let instance = state.as_mut().expect("the first event of a stream creates the instance");
    assert!(meta.version == instance.head.version + 1, "versions of a stream are contiguous");
    assert!(meta.position > instance.head.position, "positions rise along a stream");
    let visible_before = instance.run_state();
    apply(instance, event, meta);
    instance.head = head(meta);
    if instance.run_state() != visible_before {
        instance.time_run_state_updated = meta.time;
    }
}

const fn head(meta: EventMeta) -> FoldHead {
    FoldHead { version: meta.version, position: meta.position, time: meta.time }
}

fn created(event: &InstanceEvent, meta: EventMeta) -> Instance {
    let InstanceEvent::Created { id, spec, address, intent } = event else {
        unreachable!("called for `Created` only");
    };
    Instance {
        id: *id,
        head: head(meta),
        spec: (**spec).clone(),
        address: *address,
        intent: *intent,
        active: None,
        target: None,
        migration: None,
        vmms: BTreeMap::new(),
        migrations: BTreeMap::new(),
        saga: None,
        stop: None,
        reboot: None,
        charge: None,
        network: DesiredNetwork::default(),
        producer: None,
        failed: None,
        last_trouble: None,
        time_created: meta.time,
        time_modified: meta.time,
        time_run_state_updated: meta.time,
        deleted: None,
    }
}

fn apply(state: &mut Instance, event: &InstanceEvent, meta: EventMeta) {
    match event {
        InstanceEvent::Created { .. } => unreachable!("handled by the caller"),
        InstanceEvent::StartNotPlaced { short, .. } => {
            state.intent = Intent::Stopped;
            let cause = TroubleCause::NoCapacity { short: short.clone() };
            state.last_trouble = Some(Trouble { cause, at: meta.time });
        }
        InstanceEvent::StartBegan { .. } => start_began(state, event, meta),
        InstanceEvent::SagaAdvanced { saga, step } => saga_advanced(state, *saga, *step, meta),
        InstanceEvent::SagaUnwound { saga, step, reason, undone } => {
            saga_unwound(state, *saga, *step, *reason, undone, meta);
        }
        InstanceEvent::SagaEnded { saga, .. } => {
            let ended = state.saga.take().expect("a saga ends once");
            assert!(ended.id == *saga, "only the saga under way ends");
        }
        InstanceEvent::VmmReported { vmm, report } => vmm_reported(state, *vmm, report, meta),
        InstanceEvent::ReportAnomalous { vmm, .. } => {
            let vmm = vmm_mut(state, *vmm);
            vmm.anomalies = vmm.anomalies.saturating_add(1);
        }
        InstanceEvent::VmmFailed { vmm, reason } => fail_vmm(state, *vmm, *reason),
        InstanceEvent::VmmGone { vmm, evidence } => {
            let vmm = vmm_mut(state, *vmm);
            assert!(vmm.gone.is_none(), "a VMM goes once");
            assert!(vmm.state.is_destroyable(), "only what is over is confirmed gone");
            vmm.gone = Some(*evidence);
            vmm.reservation = None;
        }
        InstanceEvent::VmmReaped { vmm } => {
            assert!(!state.refers_to(*vmm), "what is referred to is not reaped");
            let reaped = state.vmms.remove(vmm).expect("a VMM is reaped once");
            assert!(reaped.gone.is_some(), "only what is gone is reaped");
            let vmms = &state.vmms;
            state
                .migrations
                .retain(|_, m| vmms.contains_key(&m.source.vmm) || vmms.contains_key(&m.target.vmm));
        }
        InstanceEvent::StopRequested { op } => stop_requested(state, StopOrder { op: *op, since: meta.time }),
        InstanceEvent::StopWithdrawn { .. } => {
            state.stop = None;
            state.intent = Intent::Running;
        }
        InstanceEvent::RebootRequested { op } => {
            state.reboot = Some(RebootOrder { op: *op, since: meta.time });
        }
        InstanceEvent::RebootAnswered { .. } => state.reboot = None,
        InstanceEvent::Updated(update) => updated(state, update, meta),
        InstanceEvent::Deleted => {
            assert!(
                state.active_vmm().is_none_or(|vmm| !vmm.state.is_live()),
                "nothing that lives is deleted"
            );
            state.deleted = Some(meta.time);
            state.intent = Intent::Destroyed;
            state.failed = None;
            state.active = None;
            point_network(state, None, meta);
        }
    }
}

fn vmm_mut(state: &mut Instance, id: VmmId) -> &mut Vmm {
    state.vmms.get_mut(&id).expect("events name VMMs of this instance")
}

fn start_began(state: &mut Instance, event: &InstanceEvent, meta: EventMeta) {
    let InstanceEvent::StartBegan { saga, origin, vmm, sled, size, deadline } = event else {
        unreachable!("called for `StartBegan` only");
    };
    assert!(state.saga.is_none(), "one saga at a time changes slots");
    assert!(state.charge.is_none(), "an instance is charged once");
    assert!(
        state.active_vmm().is_none_or(|vmm| vmm.state == VmmState::SagaUnwound),
        "a start links its VMM over none or an unwound one"
    );
    let allocated = Vmm {
        id: *vmm,
        sled: *sled,
        size: *size,
        state: VmmState::Creating,
        failure: None,
        generation: crate::ids::Generation::ZERO,
        reservation: Some(Reservation::Active),
        register_may_be_sent: false,
        run_may_be_sent: false,
        registered_at: None,
        gone: None,
        anomalies: 0,
    };
    let replaced = state.vmms.insert(*vmm, allocated);
    assert!(replaced.is_none(), "a VMM id is used once");
    state.active = Some(*vmm);
    state.charge = Some(*size);
    state.intent = Intent::Running;
    state.failed = None;
    state.stop = None;
    state.reboot = None;
    point_network(state, Some(*sled), meta);
    state.saga = Some(SagaProgress {
        id: *saga,
        kind: SagaKind::Start,
        origin: *origin,
        vmm: *vmm,
        step: Step::Fence,
        started: meta.time,
        step_started: meta.time,
        deadline: *deadline,
    });
}

/// A step's effect may leave as soon as the event that makes it current is durable.
fn saga_advanced(state: &mut Instance, id: SagaId, step: Step, meta: EventMeta) {
    let saga = state.saga.as_mut().expect("only a saga under way advances");
    assert!(saga.id == id && saga.step < step, "a saga advances");
    saga.step = step;
    saga.step_started = meta.time;
    let vmm = saga.vmm;
    if step == Step::SetRunning {
        state.producer = Some(vmm);
    }
    let vmm = vmm_mut(state, vmm);
    match step {
        Step::Register => vmm.register_may_be_sent = true,
        Step::SetRunning => vmm.run_may_be_sent = true,
        _ => {}
    }
}

fn saga_unwound(
    state: &mut Instance,
    id: SagaId,
    step: Step,
    reason: UnwindReason,
    undone: &[Step],
    meta: EventMeta,
) {
    let saga = state.saga.take().expect("only a saga under way unwinds");
    assert!(saga.id == id && saga.step == step, "a saga unwinds from its current step");
    for step in undone {
        match step {
            Step::Reserve => {
                state.charge = None;
                let vmm = vmm_mut(state, saga.vmm);
                vmm.reservation = vmm.reservation.map(|_| Reservation::Tombstoned);
            }
            Step::Allocate => {
                let vmm = vmm_mut(state, saga.vmm);
                if vmm.state.is_live() {
                    vmm.state = VmmState::SagaUnwound;
                }
                if state.active == Some(saga.vmm) {
                    state.active = None;
                }
            }
            Step::Network => point_network(state, None, meta),
            Step::Producer => state.producer = None,
            // The effect that unregisters it is derived from its being unwound.
            Step::Register => {}
            Step::Fence | Step::SetRunning | Step::Journal | Step::Commit => {
                unreachable!("these steps have no undo");
            }
        }
    }
    let trouble = Trouble { cause: TroubleCause::StartUnwound { step, reason }, at: meta.time };
    match saga.origin {
        Origin::User | Origin::Creation => state.intent = Intent::Stopped,
        Origin::Automatic => state.failed = Some(trouble.clone()),
    }
    if reason != UnwindReason::StopRequested {
        state.last_trouble = Some(trouble);
    }
    state.stop = None;
    state.reboot = None;
}

fn vmm_reported(state: &mut Instance, id: VmmId, report: &VmmReport, meta: EventMeta) {
    let vmm = vmm_mut(state, id);
    if accepts_state(vmm, report) {
        vmm.generation = report.generation;
        vmm.state = report.state;
        vmm.registered_at.get_or_insert(meta.position);
        if report.state == VmmState::Failed {
            vmm.failure = Some(FailureReason::FromSled);
        }
        clear_orders(state, id, report.state);
    }
    for part in [report.migration_in, report.migration_out].into_iter().flatten() {
        if let Some(side) = state.migrations.get_mut(&part.migration).and_then(|m| m.side_of(id))
            && part.generation > side.generation
            && side.state.reaches(part.state)
        {
            side.state = part.state;
            side.generation = part.generation;
        }
    }
    // After its own words about them: a report may bring a side's `completed` and the VMM's end together.
    if state.vmms[&id].state.is_terminal() {
        fail_sides(state, id);
    }
}

/// A report that shows an order acted on, or overtaken, ends it.
fn clear_orders(state: &mut Instance, id: VmmId, reported: VmmState) {
    if state.active != Some(id) {
        return;
    }
    match reported {
        VmmState::Rebooting => state.reboot = None,
        VmmState::Stopping | VmmState::Stopped | VmmState::Destroyed | VmmState::Failed => {
            state.reboot = None;
            state.stop = None;
        }
        VmmState::Creating
        | VmmState::Starting
        | VmmState::Migrating
        | VmmState::Running
        | VmmState::SagaUnwound => {}
    }
}

fn fail_vmm(state: &mut Instance, id: VmmId, reason: FailureReason) {
    let vmm = vmm_mut(state, id);
    assert!(vmm.state.is_live(), "only what lives fails");
    vmm.state = VmmState::Failed;
    vmm.failure = Some(reason);
    fail_sides(state, id);
    clear_orders(state, id, VmmState::Failed);
}

/// Failing a VMM for any reason fails its side of a migration that has not ended, in the same append.
fn fail_sides(state: &mut Instance, id: VmmId) {
    for migration in state.migrations.values_mut() {
        if let Some(side) = migration.side_of(id)
            && !side.state.is_terminal()
        {
            side.state = SideState::Failed;
        }
    }
}

/// Without a VMM there is nothing to stop: asking is what makes a failed instance stopped.
fn stop_requested(state: &mut Instance, order: StopOrder) {
    state.intent = Intent::Stopped;
    state.failed = None;
    state.reboot = None;
    if state.active.is_some() {
        state.stop = Some(order);
    }
}

fn updated(state: &mut Instance, update: &Update, meta: EventMeta) {
    if let Some(closed) = update.closed {
        let migration = state.migrations.get_mut(&closed).expect("an update closes a known migration");
        migration.target.state = SideState::Failed;
    }
    state.active = update.active;
    state.target = update.target;
    state.migration = update.migration;
    state.intent = update.intent;
    point_network(state, update.network, meta);
    state.producer = update.active;
    if update.active.is_none() {
        state.charge = None;
        state.stop = None;
        state.reboot = None;
    }
    if let Some((vmm, reason)) = update.failed {
        let trouble = Trouble { cause: TroubleCause::VmmFailed { vmm, reason }, at: meta.time };
        state.failed = Some(trouble.clone());
        state.last_trouble = Some(trouble);
    }
    hold_by_slots(state);
}

/// Reservations follow the slots: what no slot refers to stays held, tombstoned, until it is gone.
fn hold_by_slots(state: &mut Instance) {
    let (active, target, source) = (
        state.active,
        state.target,
        state.migration.and_then(|id| state.migrations.get(&id)).map(|migration| migration.source.vmm),
    );
    for vmm in state.vmms.values_mut().filter(|vmm| vmm.reservation.is_some()) {
        let is_target_too = target == Some(vmm.id);
        vmm.reservation = Some(if is_target_too {
            Reservation::Target
        } else if active == Some(vmm.id) || source == Some(vmm.id) {
            Reservation::Active
        } else {
            Reservation::Tombstoned
        });
    }
}

fn point_network(state: &mut Instance, sled: Option<crate::ids::SledId>, meta: EventMeta) {
    if state.network.sled != sled {
        state.network = DesiredNetwork { sled, generation: meta.position };
    }
}
