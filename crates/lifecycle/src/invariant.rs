//! What must hold after every event, as functions: tests, the simulator and `replay --verify` all call
//! these (`docs/lifecycle.md`, invariants). Each violation carries the number of its sentence there.

use crate::instance::{Instance, Intent};
use crate::ledger::{Ledger, Room};
use crate::quota::Totals;
use crate::saga::{SagaKind, is_before_return};
use crate::vmm::{Reservation, Vmm, VmmState};
use std::collections::BTreeMap;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invariant {number} broken: {detail}")]
pub struct Violation {
    /// Number of the sentence.
    pub number: u8,
    /// What was found.
    pub detail: String,
}

fn ensure(number: u8, holds: bool, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { number, detail: detail() }) }
}

/// Invariants of one instance's state, between appends.
pub fn check(state: &Instance) -> Result<(), Violation> {
    guests(state)?;
    slots(state)?;
    reservations(state)?;
    charge(state)?;
    network(state)?;
    saga(state)?;
    deleted(state)?;
    rest(state)
}

/// 1: at most one VMM lives outside a migration; two during; never three.
fn guests(state: &Instance) -> Result<(), Violation> {
    let living = state.vmms.values().filter(|vmm| vmm.state.is_live() && state.refers_to(vmm.id)).count();
    let most = if state.migration.is_some() { 2 } else { 1 };
    ensure(1, living <= most, || format!("{living} VMMs of {} live, at most {most} may", state.id))
}

/// 2: a slot refers to a VMM of this instance; the target slot is taken iff a migration is linked.
fn slots(state: &Instance) -> Result<(), Violation> {
    for slot in [state.active, state.target].into_iter().flatten() {
        ensure(2, state.vmms.contains_key(&slot), || {
            format!("slot of {} refers to unknown VMM {slot}", state.id)
        })?;
    }
    ensure(2, state.target.is_some() == state.migration.is_some(), || {
        format!("{} has target slot {:?} but migration {:?}", state.id, state.target, state.migration)
    })?;
    let linked = state.migration.is_none_or(|id| state.migrations.contains_key(&id));
    ensure(2, linked, || format!("{} links a migration it does not know", state.id))
}

/// 3: a reservation exists iff its VMM may still be on its sled; at most one active and one target.
fn reservations(state: &Instance) -> Result<(), Violation> {
    for vmm in state.vmms.values() {
        ensure(3, vmm.reservation.is_some() == vmm.gone.is_none(), || {
            format!("VMM {} holds {:?} but is gone by {:?}", vmm.id, vmm.reservation, vmm.gone)
        })?;
        let expected = expected_reservation(state, vmm);
        ensure(3, vmm.reservation.is_none() || vmm.reservation == Some(expected), || {
            format!("VMM {} holds {:?}, should be {expected:?}", vmm.id, vmm.reservation)
        })?;
    }
    let count = |kind| state.vmms.values().filter(|vmm| vmm.reservation == Some(kind)).count();
    let (active, target) = (count(Reservation::Active), count(Reservation::Target));
    ensure(3, active <= 1 && target <= 1, || {
        format!("{} holds {active} active and {target} target reservations", state.id)
    })
}

fn expected_reservation(state: &Instance, vmm: &Vmm) -> Reservation {
    if state.target == Some(vmm.id) {
        Reservation::Target
    } else if state.refers_to(vmm.id) {
        Reservation::Active
    } else {
        Reservation::Tombstoned
    }
}

/// 4: provisioning is charged iff the instance has a VMM, with its size.
fn charge(state: &Instance) -> Result<(), Violation> {
    let expected = state.active_vmm().filter(|vmm| vmm.state != VmmState::SagaUnwound).map(|vmm| vmm.size);
    ensure(4, state.charge == expected, || {
        format!("{} is charged {:?}, should be {expected:?}", state.id, state.charge)
    })
}

/// 6: the network points at the active VMM's sled, and exists iff there is one.
fn network(state: &Instance) -> Result<(), Violation> {
    let expected = state.active_vmm().filter(|vmm| vmm.state != VmmState::SagaUnwound).map(|vmm| vmm.sled);
    ensure(6, state.network.sled == expected, || {
        format!("network of {} points at {:?}, should be {expected:?}", state.id, state.network.sled)
    })?;
    let producer = state.producer.is_none_or(|vmm| state.active == Some(vmm));
    ensure(6, producer, || format!("{} has the producer of a VMM that is not active", state.id))
}

/// 13: the saga under way works on a VMM of this instance that has not ended.
fn saga(state: &Instance) -> Result<(), Violation> {
    let Some(saga) = &state.saga else {
        return Ok(());
    };
    let vmm = state.vmms.get(&saga.vmm);
    ensure(13, vmm.is_some_and(|vmm| vmm.state.is_live()), || {
        format!("saga {} of {} works on a VMM that is over", saga.id, state.id)
    })?;
    let is_told = vmm.is_some_and(|vmm| vmm.run_may_be_sent);
    ensure(13, is_told != is_before_return(saga.kind, saga.step), || {
        format!("saga {} is at {:?} but its VMM may have been told to run: {is_told}", saga.id, saga.step)
    })?;
    ensure(13, saga.kind != SagaKind::Migrate || state.target == Some(saga.vmm), || {
        format!("migrate saga {} works on {}, not on the target", saga.id, saga.vmm)
    })
}

/// 5, 11: a deleted instance holds nothing but what its VMMs that are not gone hold, and stays deleted.
fn deleted(state: &Instance) -> Result<(), Violation> {
    ensure(5, state.archived.is_none() || state.is_over(), || {
        format!("{} is archived and not over", state.id)
    })?;
    if state.deleted.is_none() {
        return ensure(11, state.intent != Intent::Destroyed, || format!("{} is not deleted", state.id));
    }
    let is_bare = state.active.is_none() && state.saga.is_none() && state.charge.is_none();
    ensure(5, is_bare, || format!("deleted {} still holds something", state.id))?;
    ensure(11, state.intent == Intent::Destroyed, || format!("deleted {} wants {:?}", state.id, state.intent))
}

/// 10: between appends nothing is due, and every transitional state has an owner.
fn rest(state: &Instance) -> Result<(), Violation> {
    let due = crate::decide::settle(state);
    ensure(10, due.is_none(), || format!("{} is not at rest: {due:?} is due", state.id))?;
    let waits =
        state.active_vmm().is_some_and(|vmm| matches!(vmm.state, VmmState::Creating | VmmState::Starting));
    ensure(10, !waits || state.saga.is_some() || state.stop.is_some(), || {
        format!("{} is starting and nobody is starting it", state.id)
    })
}

/// Invariants of one append: `before` and `after` are the states around it.
pub fn check_step(before: Option<&Instance>, after: &Instance) -> Result<(), Violation> {
    let Some(before) = before else {
        return Ok(());
    };
    for (id, was) in &before.vmms {
        if let Some(is) = after.vmms.get(id) {
            ensure(9, was.state.is_live() || was.state == is.state, || {
                format!("VMM {id} went from {:?} to {:?}", was.state, is.state)
            })?;
            ensure(8, is.generation >= was.generation, || format!("generation of VMM {id} fell"))?;
            ensure(5, was.gone.is_none() || was.gone == is.gone, || format!("VMM {id} came back"))?;
        }
    }
    fence(before, after)?;
    for (id, was) in &before.migrations {
        if let Some(is) = after.migrations.get(id) {
            for (was, is) in [(was.source, is.source), (was.target, is.target)] {
                ensure(9, !was.state.is_terminal() || was.state == is.state, || {
                    format!("a side of migration {id} went from {:?} to {:?}", was.state, is.state)
                })?;
            }
        }
    }
    let (was, is) = (before.run_state(), after.run_state());
    ensure(15, was == is || was.may_become(is), || format!("{} went from {was} to {is}", after.id))?;
    let moved = after.time_run_state_updated > before.time_run_state_updated;
    ensure(15, was == is || moved, || format!("{} went from {was} to {is} at the same time", after.id))?;
    ensure(11, before.deleted.is_none() || after.deleted == before.deleted, || {
        format!("deleted {} came back", after.id)
    })
}

/// 1: a VMM is told to run only when no other may; a migration's target, when none but its source may.
fn fence(before: &Instance, after: &Instance) -> Result<(), Violation> {
    let was_told = |id| before.vmms.get(&id).is_some_and(|vmm: &Vmm| vmm.run_may_be_sent);
    for told in after.vmms.values().filter(|vmm| vmm.run_may_be_sent && !was_told(vmm.id)) {
        let other = after.blocks_fence(told.id);
        ensure(1, other.is_none(), || {
            format!("VMM {} of {} may run while {other:?} may", told.id, after.id)
        })?;
    }
    Ok(())
}

/// Invariants 3 and 4 between instances and what they share. `ledger` must hold no open grants.
pub fn check_ledger(
    ledger: &Ledger,
    instances: &BTreeMap<crate::ids::InstanceId, Instance>,
) -> Result<(), Violation> {
    let mut held: BTreeMap<_, Room> = BTreeMap::new();
    let mut charged: BTreeMap<_, Totals> = BTreeMap::new();
    for instance in instances.values() {
        for vmm in instance.vmms.values().filter(|vmm| vmm.reservation.is_some()) {
            let room = held.entry(vmm.sled).or_default();
            room.threads += u32::from(vmm.size.ncpus);
            room.memory += vmm.size.memory;
        }
        if let Some(size) = instance.charge {
            let totals = charged.entry(instance.spec.project).or_default();
            totals.cpus += u64::from(size.ncpus);
            totals.memory += size.memory;
        }
        if instance.deleted.is_none() {
            let named = ledger.instance_by_name(instance.spec.project, &instance.spec.name);
            ensure(11, named == Some(instance.id), || {
                format!("name \"{}\" leads to {named:?}, not to {}", instance.spec.name, instance.id)
            })?;
        }
    }
    for sled in ledger.sleds() {
        let expected = held.remove(&sled.id).unwrap_or_default();
        ensure(3, sled.held == expected, || {
            format!("sled {} counts {:?} held, its VMMs hold {expected:?}", sled.name, sled.held)
        })?;
        let fits = sled.held.threads <= sled.room.threads && sled.held.memory <= sled.room.memory;
        ensure(4, fits || sled.is_shrunk, || {
            format!("sled {} holds {:?} of {:?}", sled.name, sled.held, sled.room)
        })?;
    }
    ensure(2, held.is_empty(), || format!("VMMs are placed on unknown sleds: {:?}", held.keys()))?;
    for (project, expected) in charged {
        let counted = ledger.charged(project);
        ensure(4, counted == expected, || {
            format!("project {project} is charged {counted:?}, its instances add up to {expected:?}")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::action::{Action, Permit, permit};
    use crate::visible::RunState;

    #[test]
    fn what_may_be_done_leads_along_a_visible_edge() {
        for state in RunState::ALL {
            for (action, to) in [
                (Action::Start, RunState::Starting),
                (Action::Delete, RunState::Destroyed),
                (Action::Stop, RunState::Stopped),
            ] {
                let is_allowed = permit(action, state) != Permit::Do || state.may_become(to);
                assert!(is_allowed, "{action} of what is {state}");
            }
        }
    }
}
