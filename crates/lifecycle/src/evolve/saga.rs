//! Facts about sagas: how they begin, advance and go back.

use super::{migration_mut, point_network, vmm_mut};
use crate::event::{EventMeta, InstanceEvent};
use crate::ids::{Generation, SagaId, SledId, VmmId};
use crate::instance::{Instance, Intent, Pause, SagaProgress, Trouble, TroubleCause, UnwindReason};
use crate::migration::{MIGRATIONS_MAX, Migration, Side, SideState};
use crate::saga::{Origin, SagaKind, Step};
use crate::spec::Size;
use crate::vmm::{Reservation, Vmm, VmmState};

pub(super) fn start_began(state: &mut Instance, event: &InstanceEvent, meta: EventMeta) {
    let InstanceEvent::StartBegan { saga, origin, vmm, sled, size, deadline } = event else {
        unreachable!("called for `StartBegan` only");
    };
    assert!(state.saga.is_none(), "one saga at a time changes slots");
    assert!(state.charge.is_none(), "an instance is charged once");
    assert!(
        state.active_vmm().is_none_or(|vmm| vmm.state == VmmState::SagaUnwound),
        "a start links its VMM over none or an unwound one"
    );
    allocate(state, *vmm, *sled, *size, Reservation::Active, meta);
    state.active = Some(*vmm);
    state.charge = Some(*size);
    state.intent = Intent::Running;
    state.failed = None;
    state.stop = None;
    state.reboot = None;
    state.running_since = None;
    if *origin != Origin::Automatic {
        state.restarts.attempts = 0;
    }
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
        deadline_from: meta.time,
        pause: None,
    });
}

fn allocate(
    state: &mut Instance,
    id: VmmId,
    sled: SledId,
    size: Size,
    reservation: Reservation,
    meta: EventMeta,
) {
    let allocated = Vmm {
        id,
        sled,
        size,
        state: VmmState::Creating,
        failure: None,
        generation: Generation::ZERO,
        reservation: Some(reservation),
        allocated_at: meta.position,
        register_may_be_sent: false,
        run_may_be_sent: false,
        registered_at: None,
        gone: None,
        anomalies: 0,
    };
    let replaced = state.vmms.insert(id, allocated);
    assert!(replaced.is_none(), "a VMM id is used once");
}

pub(super) fn migrate_began(state: &mut Instance, event: &InstanceEvent, meta: EventMeta) {
    let InstanceEvent::MigrateBegan { saga, migration, vmm, sled, size, deadline } = event else {
        unreachable!("called for `MigrateBegan` only");
    };
    assert!(state.saga.is_none(), "one saga at a time changes slots");
    assert!(state.migration.is_none() && state.target.is_none(), "one migration at a time is linked");
    let source = state.active.expect("what moves has an active VMM");
    allocate(state, *vmm, *sled, *size, Reservation::Target, meta);
    let side = |vmm| Side { vmm, state: SideState::Pending, generation: Generation::ZERO };
    let began = Migration {
        id: *migration,
        source: side(source),
        target: side(*vmm),
        started: meta.time,
        deadline: *deadline,
        deadline_from: meta.time,
        cancelled: None,
        undecided_since: None,
        is_given_up: false,
    };
    make_room_for_migration(state);
    let replaced = state.migrations.insert(*migration, began);
    assert!(replaced.is_none(), "a migration id is used once");
    state.target = Some(*vmm);
    state.migration = Some(*migration);
    state.saga = Some(SagaProgress {
        id: *saga,
        kind: SagaKind::Migrate,
        origin: Origin::User,
        vmm: *vmm,
        step: Step::Fence,
        started: meta.time,
        step_started: meta.time,
        deadline: *deadline,
        deadline_from: meta.time,
        pause: None,
    });
}

/// Records are bounded: the oldest is forgotten for a new one, rather one whose target is gone.
fn make_room_for_migration(state: &mut Instance) {
    while state.migrations.len() >= MIGRATIONS_MAX {
        let has_target = |migration: &Migration| state.vmms.contains_key(&migration.target.vmm);
        let oldest =
            state.migrations.values().min_by_key(|migration| (has_target(migration), migration.started));
        let oldest = oldest.expect("there are many").id;
        state.migrations.remove(&oldest);
    }
}

/// A step's effect may leave as soon as the event that makes it current is durable.
pub(super) fn saga_advanced(state: &mut Instance, id: SagaId, step: Step, meta: EventMeta) {
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
        Step::SetRunning | Step::MigrationTarget => vmm.run_may_be_sent = true,
        _ => {}
    }
}

pub(super) fn saga_paused(state: &mut Instance, id: SagaId, pause: Pause) {
    let saga = under_way(state, id);
    assert!(saga.pause.is_none(), "a saga is paused once at a time");
    saga.pause = Some(pause);
}

/// The time that it was held does not count: saga and migration have all of their time again.
pub(super) fn saga_resumed(state: &mut Instance, id: SagaId, meta: EventMeta) {
    let saga = under_way(state, id);
    assert!(saga.pause.take().is_some(), "only a paused saga is resumed");
    saga.deadline_from = meta.time;
    if let Some(linked) = state.migration {
        migration_mut(state, linked).deadline_from = meta.time;
    }
}

fn under_way(state: &mut Instance, id: SagaId) -> &mut SagaProgress {
    let saga = state.saga.as_mut().expect("only a saga under way is paused or goes on");
    assert!(saga.id == id, "a pause names the saga under way");
    saga
}

/// Its sides may have ended it while it was paused: from here on its migration counts for itself.
pub(super) fn saga_ended(state: &mut Instance, id: SagaId, meta: EventMeta) {
    let ended = state.saga.take().expect("a saga ends once");
    assert!(ended.id == id, "only the saga under way ends");
    if let Some(linked) = state.migration.filter(|_| ended.pause.is_some()) {
        migration_mut(state, linked).deadline_from = meta.time;
    }
}

pub(super) fn saga_unwound(
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
        undo(state, &saga, *step, meta);
    }
    let cause = match saga.kind {
        SagaKind::Migrate => TroubleCause::MigrateUnwound { step, reason },
        _ => TroubleCause::StartUnwound { step, reason },
    };
    let trouble = Trouble { cause, at: meta.time };
    if saga.kind != SagaKind::Migrate {
        match saga.origin {
            Origin::User | Origin::Creation => state.intent = Intent::Stopped,
            Origin::Automatic if reason == UnwindReason::StopRequested => state.intent = Intent::Stopped,
            Origin::Automatic => state.failed = Some(trouble.clone()),
        }
        state.stop = None;
        state.reboot = None;
    }
    if reason != UnwindReason::StopRequested {
        state.last_trouble = Some(trouble);
    }
}

fn undo(state: &mut Instance, saga: &SagaProgress, step: Step, meta: EventMeta) {
    match step {
        Step::Reserve => {
            if saga.kind == SagaKind::Start {
                state.charge = None;
            }
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
            if saga.kind == SagaKind::Migrate {
                unlink_migration(state);
            }
        }
        Step::Network => point_network(state, None, meta),
        Step::Producer => state.producer = None,
        // The effect that unregisters it is derived from its being unwound.
        Step::Register => {}
        Step::Fence | Step::SetRunning | Step::MigrationTarget | Step::Journal | Step::Commit => {
            unreachable!("these steps have no undo in one append");
        }
    }
}

/// The target was never told to take the guest over: neither side can have begun.
fn unlink_migration(state: &mut Instance) {
    state.target = None;
    let linked = state.migration.take().expect("a migrate saga has its migration linked");
    let migration = migration_mut(state, linked);
    migration.source.state = SideState::Failed;
    migration.target.state = SideState::Failed;
}
