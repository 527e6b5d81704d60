//! The sled itself: registration, leases, restarts, reboots, power, and the pieces a shell stores.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use sim_sled::machine::{Change, Mode, Output, Request, Sled, Vmm};
use sled_protocol::{LeaseEpoch, RequestedState, SledLease, VmmState};
use support::{EPOCH, SECOND, body, boot, config, in_state, op, register, set_op, sled, status, vmm};

fn lease(epoch: u64, seconds: u64) -> SledLease {
    SledLease { lease_epoch: LeaseEpoch::new(epoch), lease_seconds: Some(seconds), store_id: None }
}

/// A sled with a lease of ten seconds from time zero, and one VMM running.
fn leased() -> Sled {
    let mut sled = Sled::new(config(1, Mode::Explicit), boot(1));
    sled.registered(0, 0, boot(1), lease(3, 10));
    sled.handle(0, register(vmm(1), body(1, None))).unwrap();
    sled.handle(0, set_op(vmm(1), op(1), RequestedState::Running)).unwrap();
    sled.step(0, vmm(1));
    sled.poll(0);
    sled
}

#[test]
fn a_lapsed_lease_kills_every_vmm_and_refuses_every_change_until_registered_anew() {
    let mut sled = leased();
    assert_eq!(sled.next_wake(), Some(10 * SECOND));
    assert!(sled.poll(10 * SECOND - 1).is_empty());
    let [Output::Report { state, .. }] = &sled.poll(10 * SECOND)[..] else { panic!() };
    assert_eq!(state.vmm_state.state, VmmState::Failed);
    assert!(sled.vmms().all(|vmm| !vmm.guest_running()));
    assert_eq!(status(&sled.handle(10 * SECOND, register(vmm(2), body(2, None)))), 412);
    assert!(sled.registration().is_some());
    sled.registered(11 * SECOND, 11 * SECOND, boot(1), lease(4, 10));
    let mut anew = body(2, None);
    assert_eq!(status(&sled.handle(11 * SECOND, register(vmm(2), anew.clone()))), 412, "the older epoch");
    anew.lease_epoch = LeaseEpoch::new(4);
    assert_eq!(status(&sled.handle(11 * SECOND, register(vmm(2), anew))), 200);
}

#[test]
fn a_lease_counts_from_when_its_renewal_was_sent_not_from_its_answer() {
    let mut sled = leased();
    let (due, request) = sled.renewal().unwrap();
    assert_eq!((due, request.lease_epoch), (10 * SECOND / 3, EPOCH));
    sled.renewed(9 * SECOND, 4 * SECOND, EPOCH);
    assert_eq!(sled.host().lease_lapses_at(), Some(14 * SECOND));
    sled.renewed(9 * SECOND, 2 * SECOND, EPOCH);
    assert_eq!(sled.host().lease_lapses_at(), Some(14 * SECOND), "a reordered answer takes nothing away");
    sled.renewed(9 * SECOND, 9 * SECOND, LeaseEpoch::new(2));
    assert_eq!(sled.host().lease_lapses_at(), Some(14 * SECOND), "another epoch is another lease");
    sled.renewed(15 * SECOND, 9 * SECOND, EPOCH);
    assert_eq!(in_state(&sled, vmm(1)), Some(VmmState::Failed), "an answer after the lapse saves nobody");
    assert_eq!(sled.renewal(), None);
}

#[test]
fn stale_answers_to_a_registration_are_ignored() {
    let mut sled = Sled::new(config(1, Mode::Explicit), boot(1));
    sled.registered(0, 0, boot(2), lease(3, 10));
    assert_eq!(sled.host().lease_epoch(), None, "an answer to another boot");
    sled.registered(20 * SECOND, 5 * SECOND, boot(1), lease(3, 10));
    assert_eq!(sled.host().lease_epoch(), None, "its lease is over already");
    sled.registered(20 * SECOND, 20 * SECOND, boot(1), lease(3, 0));
    assert_eq!(sled.host().lease_epoch(), None, "no lease lasts nothing");
    sled.registered(20 * SECOND, 20 * SECOND, boot(1), lease(3, 10));
    sled.registered(20 * SECOND, 20 * SECOND, boot(1), lease(2, 10));
    assert_eq!(sled.host().lease_epoch(), Some(EPOCH), "an epoch never falls");
}

#[test]
fn a_sled_without_a_lease_asks_now_and_then_whether_it_is_still_known() {
    let mut config = config(1, Mode::Explicit);
    config.idle_renewal_seconds = Some(30);
    let mut sled = Sled::new(config, boot(1));
    assert_eq!(sled.renewal(), None, "there is nothing to renew yet");
    let without_lease = SledLease { lease_epoch: EPOCH, lease_seconds: None, store_id: None };
    sled.registered(5 * SECOND, 4 * SECOND, boot(1), without_lease);
    let (due, request) = sled.renewal().unwrap();
    assert_eq!((due, request.lease_epoch), (34 * SECOND, EPOCH));
    sled.renewed(40 * SECOND, 35 * SECOND, EPOCH);
    assert_eq!(sled.renewal().unwrap().0, 65 * SECOND);
    assert_eq!(sled.host().lease_lapses_at(), None, "nothing lapses");
    sled.registered(50 * SECOND, 50 * SECOND, boot(1), lease(3, 12));
    assert_eq!(sled.renewal().unwrap().0, 54 * SECOND, "a lease is renewed in its own time");
}

#[test]
fn an_agent_restart_keeps_vmms_epoch_and_lease_and_announces_itself_and_repeats_every_picture() {
    let mut sled = leased();
    let picture = sled.vmm(vmm(1)).unwrap().state().clone();
    sled.report_accepted(0, vmm(1), &picture);
    assert_eq!(sled.pending_reports().count(), 0);
    sled.agent_restart(SECOND);
    assert_eq!(status(&sled.handle(SECOND, register(vmm(2), body(2, None)))), 200, "its epoch still holds");
    assert_eq!(sled.pending_reports().next(), Some((vmm(1), &picture)), "with the generation it had");
    assert_eq!(sled.host().lease_lapses_at(), Some(10 * SECOND));
    assert!(sled.registration().is_some());
    sled.registered(2 * SECOND, 2 * SECOND, boot(1), lease(3, 10));
    assert_eq!(sled.registration(), None);
    assert!(sled.vmm(vmm(1)).is_some_and(Vmm::guest_running));
    assert_eq!(status(&sled.handle(2 * SECOND, set_op(vmm(1), op(2), RequestedState::Stopped))), 200);
}

#[test]
fn an_expunged_sled_kills_its_vmms_and_never_registers_again() {
    let mut sled = leased();
    sled.expunged(SECOND);
    assert_eq!(in_state(&sled, vmm(1)), Some(VmmState::Failed));
    assert_eq!((sled.registration(), sled.renewal()), (None, None));
    sled.registered(SECOND, SECOND, boot(1), lease(9, 10));
    assert_eq!(sled.host().lease_epoch(), None);
    sled.reboot(2 * SECOND, boot(2));
    assert_eq!(sled.registration(), None, "a reboot does not undo it");
}

#[test]
fn no_epoch_below_one_that_was_held_is_taken_not_even_in_a_later_boot() {
    let held = |sled: &Sled| sled.registration().unwrap().held_epoch.map(LeaseEpoch::get);
    assert_eq!(held(&Sled::new(config(1, Mode::Explicit), boot(1))), None);
    let mut sled = leased();
    sled.unregistered(SECOND);
    assert_eq!(held(&sled), Some(3));
    sled.registered(SECOND, SECOND, boot(1), lease(2, 10));
    assert_eq!(sled.host().lease_epoch(), None, "what was sent under it may still be on its way");
    sled.reboot(2 * SECOND, boot(2));
    assert_eq!(held(&sled), Some(3));
    sled.registered(2 * SECOND, 2 * SECOND, boot(2), lease(2, 10));
    assert_eq!(sled.host().lease_epoch(), None);
    sled.registered(2 * SECOND, 2 * SECOND, boot(2), lease(4, 10));
    assert_eq!(sled.host().lease_epoch(), Some(LeaseEpoch::new(4)));
    assert_eq!(status(&sled.handle(2 * SECOND, register(vmm(7), body(7, None)))), 412, "the third");
}

#[test]
fn a_reboot_starts_empty_and_refuses_what_was_sent_before_it() {
    let mut sled = leased();
    sled.handle(0, Request::Unregister { vmm: vmm(7), lease_epoch: EPOCH }).unwrap();
    sled.reboot(SECOND, boot(2));
    assert_eq!((sled.vmms().count(), sled.tombstones_len(), sled.host().boot_id()), (0, 0, boot(2)));
    assert_eq!(status(&sled.handle(SECOND, register(vmm(7), body(7, None)))), 412, "the epoch stands in");
    sled.registered(SECOND, SECOND, boot(2), lease(4, 10));
    assert_eq!(status(&sled.handle(SECOND, register(vmm(7), body(7, None)))), 412);
}

#[test]
fn a_sled_without_power_answers_nothing_and_wakes_for_nothing() {
    let mut sled = leased();
    sled.power_off(SECOND);
    let answer = sled.handle(SECOND, Request::Inventory);
    assert!(answer.is_err_and(|error| !error.is_definite()));
    assert_eq!((sled.next_wake(), sled.registration()), (None, None));
    sled.reboot(9 * SECOND, boot(2));
    assert_eq!(status(&sled.handle(9 * SECOND, Request::Inventory)), 200);
    assert!(sled.registration().is_some());
}

#[test]
fn the_changes_a_shell_stores_rebuild_the_machine_through_json() {
    let mut sled = sled(1, Mode::Auto);
    let mut stored: Option<Sled> = None;
    let mut store = |sled: &mut Sled| {
        for change in sled.take_changes() {
            let json = serde_json::to_string(&change).unwrap();
            match (serde_json::from_str(&json).unwrap(), &mut stored) {
                (Change::All(whole), _) => stored = Some(*whole),
                (change, Some(stored)) => stored.apply(change),
                (_, None) => panic!("the first change is the whole machine"),
            }
        }
        // What was not yet said is said again after a restart, so only what is stored is compared.
        let kept = serde_json::to_value(stored.as_ref().unwrap()).unwrap();
        let mut truth = serde_json::to_value(&*sled).unwrap();
        truth["host"]["clock"] = kept["host"]["clock"].clone();
        assert_eq!(kept, truth);
    };
    store(&mut sled);
    for n in 1..=3 {
        sled.handle(n, register(vmm(n.into()), body(n.into(), None))).unwrap();
        sled.handle(n, set_op(vmm(n.into()), op(n.into()), RequestedState::Running)).unwrap();
        store(&mut sled);
    }
    sled.poll(5 * SECOND);
    store(&mut sled);
    sled.handle(5 * SECOND, set_op(vmm(1), op(9), RequestedState::Stopped)).unwrap();
    sled.poll(10 * SECOND);
    let ended = sled.vmm(vmm(1)).unwrap().state().clone();
    sled.report_accepted(10 * SECOND, vmm(1), &ended);
    sled.handle(10 * SECOND, Request::Unregister { vmm: vmm(2), lease_epoch: EPOCH }).unwrap();
    store(&mut sled);
    let reopened = stored.unwrap().reopened(config(1, Mode::Auto), boot(1), 20 * SECOND);
    assert_eq!((reopened.vmms().count(), reopened.tombstones_len()), (1, 2));
    assert!(reopened.vmm(vmm(3)).is_some_and(Vmm::guest_running));
}

#[test]
fn what_was_due_stays_due_over_a_restart_and_a_clock_set_back_cannot_postpone_it_for_long() {
    let mut sled = sled(1, Mode::Auto);
    sled.handle(1000 * SECOND, register(vmm(1), body(1, None))).unwrap();
    sled.handle(1000 * SECOND, set_op(vmm(1), op(1), RequestedState::Running)).unwrap();
    let image = sled.clone();
    let later = image.clone().reopened(config(1, Mode::Auto), boot(1), 2000 * SECOND);
    assert_eq!(in_state(&later, vmm(1)), Some(VmmState::Running));
    let earlier = image.clone().reopened(config(1, Mode::Auto), boot(1), SECOND);
    let longest = config(1, Mode::Auto).timing.stop_grace.longest();
    let mut polled = earlier.clone();
    polled.poll(SECOND);
    assert!(polled.next_wake().is_some_and(|wake| wake <= SECOND + longest));
    let rebooted = image.reopened(config(1, Mode::Auto), boot(2), 2000 * SECOND);
    assert_eq!(rebooted.vmms().count(), 0);
}
