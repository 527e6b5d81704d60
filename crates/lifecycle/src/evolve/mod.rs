//! `evolve(state, event)`: applies a fact. It may not refuse; what cannot be is an assertion.
//!
//! Everything derived from a fact is derived here and nowhere else: slots, reservations, charge, desired
//! state and the times of visible changes. `decide` runs the same function on its scratch state.

mod saga;

use crate::decide::{accepts_side, accepts_state};
use crate::event::{EventMeta, InstanceEvent, Update};
use crate::ids::{MigrationId, SledId, VmmId};
use crate::input::{SideReport, VmmReport};
use crate::instance::{
    DesiredNetwork, FoldHead, Instance, Intent, Pause, RebootOrder, Restarts, StopOrder, Trouble,
    TroubleCause,
};
use crate::migration::{Migration, Outcome, SideState};
use crate::saga::Origin;
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
    note_undecided(instance, meta);
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
        restarts: Restarts::default(),
        running_since: None,
        last_trouble: None,
        time_created: meta.time,
        time_modified: meta.time,
        time_run_state_updated: meta.time,
        deleted: None,
        archived: None,
    }
}

fn apply(state: &mut Instance, event: &InstanceEvent, meta: EventMeta) {
    match event {
        InstanceEvent::Created { .. } => unreachable!("handled by the caller"),
        InstanceEvent::StartNotPlaced { origin, short } => {
            // What the restart policy tried stays failed, and wanted: it tries again.
            if *origin != Origin::Automatic {
                state.intent = Intent::Stopped;
            }
            let cause = TroubleCause::NoCapacity { short: short.clone() };
            state.last_trouble = Some(Trouble { cause, at: meta.time });
        }
        InstanceEvent::StartBegan { .. } => saga::start_began(state, event, meta),
        InstanceEvent::MigrateBegan { .. } => saga::migrate_began(state, event, meta),
        InstanceEvent::MigrationCancelled { migration, reason } => {
            migration_mut(state, *migration).cancelled = Some(*reason);
        }
        InstanceEvent::MigrationGivenUp { migration } => migration_mut(state, *migration).is_given_up = true,
        InstanceEvent::RestartTried { attempt } => {
            state.restarts = Restarts { attempts: *attempt, last: Some(meta.time) };
            state.running_since = None;
        }
        InstanceEvent::ForceStopRequested { .. } => {
            state.intent = Intent::Stopped;
            state.stop = None;
            state.reboot = None;
        }
        InstanceEvent::Reconfigured { change } => {
            state.spec.change(change);
            state.time_modified = meta.time;
        }
        InstanceEvent::SagaAdvanced { saga, step } => saga::saga_advanced(state, *saga, *step, meta),
        InstanceEvent::SagaUnwound { saga, step, reason, undone } => {
            saga::saga_unwound(state, *saga, *step, *reason, undone, meta);
        }
        InstanceEvent::SagaPaused { saga, cause, .. } => {
            saga::saga_paused(state, *saga, Pause { since: meta.time, cause: *cause });
        }
        InstanceEvent::SagaResumed { saga } => saga::saga_resumed(state, *saga, meta),
        InstanceEvent::SagaRetried { saga, .. } => {
            assert!(state.saga.as_ref().is_some_and(|under_way| under_way.id == *saga), "it is under way");
        }
        InstanceEvent::SagaEnded { saga, .. } => saga::saga_ended(state, *saga, meta),
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
            forget_migrations(state);
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
        InstanceEvent::Archived(file) => {
            assert!(state.is_over(), "only what is over is archived");
            assert!(state.archived.is_none(), "an instance is archived once");
            state.archived = Some(file.clone());
        }
    }
}

/// A migration is remembered while its target may be on its sled, and while its source has not said that the
/// guest stayed: until then its source's late `completed` counts.
fn forget_migrations(state: &mut Instance) {
    let (vmms, linked) = (&state.vmms, state.migration);
    state.migrations.retain(|id, migration| {
        let awaits_source =
            vmms.contains_key(&migration.source.vmm) && migration.source.state != SideState::Failed;
        linked == Some(*id) || vmms.contains_key(&migration.target.vmm) || awaits_source
    });
}

fn migration_mut(state: &mut Instance, id: MigrationId) -> &mut Migration {
    state.migrations.get_mut(&id).expect("events name migrations of this instance")
}

/// From here on only the target knows where the guest is.
fn note_undecided(state: &mut Instance, meta: EventMeta) {
    let Some(migration) = state.linked_migration() else {
        return;
    };
    if state.outcome_of(migration) == Outcome::Undecided {
        let id = migration.id;
        migration_mut(state, id).undecided_since.get_or_insert(meta.time);
    }
}

fn vmm_mut(state: &mut Instance, id: VmmId) -> &mut Vmm {
    state.vmms.get_mut(&id).expect("events name VMMs of this instance")
}

fn vmm_reported(state: &mut Instance, id: VmmId, report: &VmmReport, meta: EventMeta) {
    let vmm = vmm_mut(state, id);
    let is_news = accepts_state(vmm, report);
    if is_news {
        vmm.generation = report.generation;
        vmm.state = report.state;
        vmm.registered_at.get_or_insert(meta.position);
        if report.state == VmmState::Failed {
            vmm.failure = Some(FailureReason::FromSled);
        }
    }
    for part in [report.migration_in, report.migration_out].into_iter().flatten() {
        side_reported(state, id, part);
    }
    if let Some(out) = report.migration_out {
        fail_earlier_departures(state, id, out.migration);
    }
    // After its own words about them: a report may bring a side's `completed` and the VMM's end together.
    if state.vmms[&id].state.is_terminal() {
        fail_sides(state, id);
    }
    if is_news {
        clear_orders(state, id, report.state);
        if report.state == VmmState::Running && state.active == Some(id) {
            state.running_since.get_or_insert(meta.time);
        }
    }
}

fn side_reported(state: &mut Instance, id: VmmId, part: SideReport) {
    if accepts_side(state, id, &part) {
        let side = migration_mut(state, part.migration).side_of(id).expect("accepted for this side");
        side.state = part.state;
        side.generation = part.generation;
    }
}

/// A source takes part in one migration at a time: one that speaks of a later migration has kept its guest
/// in all earlier ones.
fn fail_earlier_departures(state: &mut Instance, source: VmmId, reported: MigrationId) {
    let Some(began) = state.migrations.get(&reported).map(|migration| migration.started) else {
        return;
    };
    for migration in state.migrations.values_mut() {
        let is_earlier = migration.id != reported && migration.started < began;
        if is_earlier && migration.source.vmm == source && !migration.source.state.is_terminal() {
            migration.source.state = SideState::Failed;
        }
    }
    forget_migrations(state);
}

/// A report that shows an order acted on, or overtaken, ends it. During a migration the guest may be, or may
/// come to be, in the other VMM: an order waits for the outcome.
fn clear_orders(state: &mut Instance, id: VmmId, reported: VmmState) {
    if state.active != Some(id) || state.migration.is_some() {
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
    note_failed_migration(state, update, meta);
    if let Some(closed) = update.closed {
        migration_mut(state, closed).target.state = SideState::Failed;
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
    forget_migrations(state);
}

/// Says that the migration, which the update clears, did not move the guest.
fn note_failed_migration(state: &mut Instance, update: &Update, meta: EventMeta) {
    let Some(migration) = state.linked_migration().filter(|_| update.migration.is_none()) else {
        return;
    };
    if matches!(state.outcome_of(migration), Outcome::Failed | Outcome::Lost | Outcome::Undecided) {
        let cause = TroubleCause::MigrationFailed { migration: migration.id, cancelled: migration.cancelled };
        state.last_trouble = Some(Trouble { cause, at: meta.time });
    }
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

fn point_network(state: &mut Instance, sled: Option<SledId>, meta: EventMeta) {
    if state.network.sled != sled {
        state.network = DesiredNetwork { sled, generation: meta.position };
    }
}
