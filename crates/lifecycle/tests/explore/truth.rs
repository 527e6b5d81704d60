//! What must be true of the world, which the control plane cannot see as a whole.
//!
//! In every situation:
//! * the guest executes in one place at most;
//! * what the fold holds to be gone is not alive on a sled;
//! * the guest is in a VMM that a slot or a linked migration refers to, unless an operator or a deadline doomed
//!   it;
//! * a guest is taken for one that shut itself down only if one did, or a stop may have reached it;
//! * of what lives on a sled, all but the active VMM, and the target during a migration, is being told to end.
//!
//! Of every request: it kills no guest that nobody doomed, and stops none that nobody asked to stop.
//!
//! At rest: fold and sleds agree on every VMM, nothing is on its way, and nothing runs that is not wanted.

use super::fold::Folds;
use super::sled::{Guest, Request};
use super::world::World;
use lifecycle::{Effect, Intent, RunState, VmmState};

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// What must hold in every situation.
pub fn check(world: &World, folds: &Folds) -> Result<(), String> {
    let folded = folds.get(world.fold);
    let state = &folded.state;
    let executing = world.guests().filter(|guest| guest.executes).count();
    ensure(executing <= 1, || format!("{executing} VMMs execute the guest"))?;
    let is_ending = |guest: &Guest| {
        let ends = |effect: &Effect| matches!(effect, Effect::Stop { .. } | Effect::Unregister { .. });
        folded.effects.iter().any(|effect| effect.vmm() == guest.id && ends(effect))
    };
    for guest in world.guests() {
        let held = state.vmms.get(&guest.id).filter(|vmm| vmm.gone.is_none());
        ensure(held.is_some() || !guest.state.is_live(), || format!("{} is gone and lives", guest.id))?;
        let is_cared_for = state.refers_to(guest.id) || world.doomed.contains(&guest.id);
        ensure(!guest.holds_guest() || is_cared_for, || {
            format!("the guest in {} is abandoned without cause", guest.id)
        })?;
    }
    let is_shut_down = state.intent == Intent::GuestShutdown;
    let is_known = world.guest_shut_down || world.stop_was_asked;
    ensure(!is_shut_down || is_known, || {
        "a guest that was lost is taken for one that shut itself down".to_owned()
    })?;
    let living = world.guests().filter(|guest| guest.state.is_live() && !is_ending(guest)).count();
    let most = if state.migration.is_some() { 2 } else { 1 };
    ensure(living <= most, || format!("{living} VMMs live, {most} may"))
}

/// What must hold when a request reaches a sled.
pub fn may_be_asked(world: &World, request: &Request) -> Result<(), String> {
    let id = request.effect.vmm();
    let holds_guest = world.guest(id).is_some_and(Guest::holds_guest);
    if !holds_guest || world.doomed.contains(&id) {
        return Ok(());
    }
    match request.effect {
        Effect::Unregister { .. } => Err(format!("the guest in {id} is killed without cause")),
        Effect::Stop { .. } if !world.stop_was_asked => {
            Err(format!("the guest in {id} is stopped and nobody asked for it"))
        }
        _ => Ok(()),
    }
}

/// What must hold when nothing more happens by itself.
pub fn check_rest(world: &World, folds: &Folds) -> Result<(), String> {
    let folded = folds.get(world.fold);
    let state = &folded.state;
    ensure(folded.effects.is_empty(), || format!("still wished: {:?}", folded.effects))?;
    ensure(folded.deadlines.is_empty(), || format!("still running: {:?}", folded.deadlines))?;
    ensure(state.is_quiesced(), || "the instance is not quiesced".to_owned())?;
    ensure(state.stop.is_none(), || "a stop is under way and nobody does it".to_owned())?;
    ensure(state.reboot.is_none(), || "a reboot is under way and nobody does it".to_owned())?;
    ensure(state.migration.is_none(), || "a migration is linked and nobody ends it".to_owned())?;
    let run_state = state.run_state();
    ensure(!run_state.is_transitional(), || format!("it is {run_state}, for ever"))?;
    for vmm in state.vmms.values() {
        ensure(vmm.reservation.is_none() || world.guest(vmm.id).is_some(), || {
            format!("room is reserved for {}, which is on no sled", vmm.id)
        })?;
        ensure(state.refers_to(vmm.id), || format!("{} is kept and nothing refers to it", vmm.id))?;
    }
    for guest in world.guests() {
        let folded = state.vmms.get(&guest.id).map(|vmm| vmm.state);
        ensure(folded == Some(guest.state), || {
            format!("{} is {:?} and folded as {folded:?}", guest.id, guest.state)
        })?;
        ensure(state.active == Some(guest.id), || format!("{} is on a sled and not active", guest.id))?;
    }
    let is_unwanted = state.intent != Intent::Running;
    ensure(!is_unwanted || run_state != RunState::Running, || {
        format!("it runs, and {:?} is wanted", state.intent)
    })?;
    let executes = world.guests().any(|guest| guest.executes && guest.state == VmmState::Running);
    ensure(executes == (run_state == RunState::Running), || {
        format!("the guest executes: {executes}; the instance is {run_state}")
    })
}
