//! Starting, stopping, rebooting and deleting one instance, told as short stories.

mod stage;

use lifecycle::input::{EffectResult, Refusal};
use lifecycle::instance::{Intent, TroubleCause, UnwindReason};
use lifecycle::rejected::Shortage;
use lifecycle::vmm::{Evidence, FailureReason, Reservation};
use lifecycle::{
    Command, Deadline, DeadlineKind, Effect, Input, InstanceEvent, Rejected, RunState, Step, VmmState,
    deadlines,
};
use stage::{Stage, report, sled};

#[test]
fn a_start_takes_three_appends_and_one_effect_at_a_time() {
    let mut stage = Stage::created();
    let before = stage.appends;
    stage.start(0);
    assert_eq!(stage.run_state(), RunState::Starting);
    assert!(matches!(stage.effects()[..], [Effect::Register { .. }]));
    stage.answer(EffectResult::Done(Some(report(1, VmmState::Starting))));
    assert!(matches!(stage.effects()[..], [Effect::SetRunning { .. }]));
    stage.answer(EffectResult::Done(None));
    stage.report(2, VmmState::Running);
    assert_eq!(stage.run_state(), RunState::Running);
    assert_eq!(stage.effects(), []);
    assert_eq!(stage.appends - before, 3);
    assert!(stage.now().is_quiesced());
}

#[test]
fn a_stop_is_stopped_in_the_append_of_the_destroyed_report() {
    let mut stage = Stage::running();
    stage.stop().unwrap();
    assert!(matches!(stage.effects()[..], [Effect::Stop { .. }]));
    assert_eq!(stage.run_state(), RunState::Running, "not confirmed yet");
    stage.report(3, VmmState::Stopping);
    assert_eq!(stage.run_state(), RunState::Stopping);
    assert_eq!(stage.effects(), [], "the report shows that it acted");
    let appends = stage.appends;
    stage.report(4, VmmState::Destroyed);
    assert_eq!(stage.appends - appends, 1);
    let now = stage.now();
    assert_eq!((now.run_state(), now.intent), (RunState::Stopped, Intent::Stopped));
    assert!(
        now.vmms.is_empty() && now.charge.is_none() && now.network.sled.is_none() && now.producer.is_none()
    );
}

#[test]
fn a_guest_that_shuts_itself_down_is_not_the_users_stop() {
    let mut stage = Stage::running();
    stage.report(3, VmmState::Destroyed);
    assert_eq!((stage.run_state(), stage.now().intent), (RunState::Stopped, Intent::GuestShutdown));
}

#[test]
fn a_vmm_that_fails_leaves_the_instance_failed_and_says_why() {
    let mut stage = Stage::running();
    let vmm = stage.vmm();
    stage.report(3, VmmState::Failed);
    let now = stage.now();
    assert_eq!(now.run_state(), RunState::Failed);
    let expected = TroubleCause::VmmFailed { vmm, reason: FailureReason::FromSled };
    assert_eq!(now.failed.as_ref().unwrap().cause, expected);
    assert!(now.vmms.is_empty(), "its own report proves it gone");
    stage.stop().unwrap();
    assert_eq!(stage.run_state(), RunState::Stopped);
}

#[test]
fn a_register_refused_for_good_unwinds_to_stopped_with_nothing_held_once_gone() {
    let mut stage = Stage::created();
    stage.start(0);
    let vmm = stage.vmm();
    stage.answer(EffectResult::Refused(Refusal::NoRoom));
    let now = stage.now();
    assert_eq!((now.run_state(), now.intent), (RunState::Stopped, Intent::Stopped));
    assert!(now.charge.is_none() && now.network.sled.is_none());
    assert_eq!(now.vmms[&vmm].reservation, Some(Reservation::Tombstoned), "held until confirmed gone");
    let expected =
        TroubleCause::StartUnwound { step: Step::Register, reason: UnwindReason::Refused(Refusal::NoRoom) };
    assert_eq!(now.last_trouble.as_ref().unwrap().cause, expected);
    assert!(matches!(stage.effects()[..], [Effect::Unregister { .. }]));
    stage.answer(EffectResult::Done(None));
    assert!(stage.now().vmms.is_empty());
}

#[test]
fn an_undo_that_cannot_reach_its_sled_holds_up_nothing() {
    let mut stage = Stage::created();
    stage.start(0);
    stage.answer(EffectResult::Refused(Refusal::NoRoom));
    stage.start(1);
    assert_eq!(stage.run_state(), RunState::Starting);
    let kinds: Vec<_> = stage.effects().into_iter().map(Effect::name).collect();
    assert_eq!(kinds, ["unregister", "register"], "set running was never sent: the fence is open");
}

#[test]
fn a_start_waits_at_the_fence_while_another_vmm_may_run() {
    let mut stage = Stage::running();
    let lost = stage.vmm();
    // The sled denies knowing it, which is no proof that nothing runs.
    stage.stop().unwrap();
    stage.answer(EffectResult::Refused(Refusal::NoSuchVmm));
    assert_eq!(stage.run_state(), RunState::Failed);
    stage.start(1);
    assert_eq!(stage.now().saga.as_ref().unwrap().step, Step::Fence);
    assert_eq!(stage.effects(), [Effect::Unregister { vmm: lost, sled: sled(0) }]);
    stage.must(Input::Gone { vmm: lost, evidence: Evidence::Unregistered });
    assert_eq!(stage.now().saga.as_ref().unwrap().step, Step::Register);
}

#[test]
fn the_deadline_undoes_a_start_before_the_point_of_no_return_and_fails_it_after() {
    let pass = |stage: &mut Stage| {
        let [Deadline { kind: DeadlineKind::Saga(saga), .. }] =
            deadlines(stage.now(), &lifecycle::Policy::default())[..]
        else {
            panic!("one deadline runs");
        };
        stage.must(Input::Deadline(DeadlineKind::Saga(saga)));
    };
    let mut early = Stage::created();
    early.start(0);
    pass(&mut early);
    assert_eq!((early.run_state(), early.now().intent), (RunState::Stopped, Intent::Stopped));

    let mut late = Stage::created();
    late.start(0);
    late.report(1, VmmState::Starting);
    pass(&mut late);
    assert_eq!(late.run_state(), RunState::Failed);
    let failed = &late.now().failed.as_ref().unwrap().cause;
    assert!(matches!(failed, TroubleCause::VmmFailed { reason: FailureReason::StartTimeout, .. }));
    assert!(matches!(late.effects()[..], [Effect::Unregister { .. }]), "it is told to die");
    assert_eq!(late.report(7, VmmState::Running), [], "what was declared dead stays dead");
}

#[test]
fn a_stop_while_starting_unwinds_before_set_running_and_stops_after() {
    let mut before = Stage::created();
    before.start(0);
    before.stop().unwrap();
    assert_eq!(before.run_state(), RunState::Stopped);
    assert!(before.now().last_trouble.is_none(), "the user asked for it: nothing went wrong");

    let mut after = Stage::created();
    after.start(0);
    after.report(1, VmmState::Starting);
    after.stop().unwrap();
    assert!(matches!(after.effects()[..], [Effect::Stop { .. }]));
    after.report(2, VmmState::Destroyed);
    assert_eq!((after.run_state(), after.now().intent), (RunState::Stopped, Intent::Stopped));
}

#[test]
fn a_start_supersedes_a_stop_that_was_not_confirmed() {
    let mut stage = Stage::running();
    stage.stop().unwrap();
    let events = stage.give(Input::Command(Command::Start { grant: None })).unwrap();
    assert!(matches!(events[..], [InstanceEvent::StopWithdrawn { .. }]));
    assert_eq!((stage.effects(), stage.now().intent), (vec![], Intent::Running));
}

#[test]
fn a_reboot_while_starting_waits_for_running_and_a_stop_drops_it() {
    let mut stage = Stage::created();
    stage.start(0);
    stage.report(1, VmmState::Starting);
    stage.reboot().unwrap();
    assert!(matches!(stage.effects()[..], [Effect::SetRunning { .. }]));
    stage.report(2, VmmState::Running);
    assert!(matches!(stage.effects()[..], [Effect::Reboot { .. }]));
    stage.stop().unwrap();
    assert!(matches!(stage.effects()[..], [Effect::Stop { .. }]));
}

#[test]
fn a_reboot_is_over_when_the_sled_has_answered_it() {
    let mut stage = Stage::running();
    stage.reboot().unwrap();
    stage.answer(EffectResult::Done(None));
    assert_eq!(stage.effects(), []);
    stage.report(3, VmmState::Rebooting);
    assert_eq!(stage.run_state(), RunState::Rebooting);
    stage.report(4, VmmState::Running);
    assert_eq!(stage.run_state(), RunState::Running);
}

#[test]
fn reports_that_are_late_repeated_or_from_elsewhere_change_nothing() {
    let mut stage = Stage::running();
    let vmm = stage.vmm();
    assert_eq!(stage.report(2, VmmState::Running), []);
    assert_eq!(stage.report(1, VmmState::Starting), []);
    let elsewhere = Input::Report { sled: sled(1), vmm, report: report(9, VmmState::Destroyed) };
    assert_eq!(stage.give(elsewhere), Err(Rejected::WrongSled));
    stage.report(3, VmmState::Destroyed);
    assert_eq!(stage.report(9, VmmState::Running), [], "the dead stay dead");
}

#[test]
fn an_impossible_report_is_kept_for_diagnosis_a_few_times_and_changes_nothing() {
    let mut stage = Stage::running();
    let before = (stage.run_state(), stage.effects());
    let kept =
        (10..100).filter(|generation| !stage.report(*generation, VmmState::Starting).is_empty()).count();
    assert_eq!(kept, usize::from(lifecycle::vmm::ANOMALIES_MAX));
    assert_eq!((stage.run_state(), stage.effects()), before);
}

#[test]
fn an_inventory_proves_absence_only_if_it_was_asked_for_after_the_register() {
    let mut stage = Stage::running();
    let vmm = stage.vmm();
    let registered_at = stage.now().vmms[&vmm].registered_at.unwrap();
    let absent = |asked_at| Input::Absent { vmm, asked_at, evidence: Evidence::AbsentFromInventory };
    assert_eq!(stage.must(absent(registered_at - 1)), []);
    stage.must(absent(registered_at));
    assert_eq!(stage.run_state(), RunState::Failed);
    assert!(stage.now().vmms.is_empty());
}

#[test]
fn a_creation_that_cannot_be_placed_leaves_a_stopped_instance_that_says_why() {
    let mut stage = Stage::default();
    let id = lifecycle::InstanceId::new(stage.mint());
    let start = Some(Err(Shortage::NoSled));
    let create = Command::Create { id, spec: Box::new(stage::spec()), address: stage::address(), start };
    stage.must(Input::Command(create));
    assert_eq!((stage.run_state(), stage.now().intent), (RunState::Stopped, Intent::Stopped));
    assert!(matches!(stage.now().last_trouble.as_ref().unwrap().cause, TroubleCause::NoCapacity { .. }));
}

#[test]
fn a_deleted_instance_is_not_found_and_its_late_reports_change_nothing() {
    let mut stage = Stage::running();
    let refused = stage.delete().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot delete instance: instance is running or has not yet fully stopped"
    );
    stage.stop().unwrap();
    stage.report(3, VmmState::Destroyed);
    stage.delete().unwrap();
    assert_eq!(stage.run_state(), RunState::Destroyed);
    assert!(matches!(stage.stop(), Err(Rejected::NoSuchInstance(_))));
    assert_eq!(stage.report(9, VmmState::Running), []);
}
