//! Migration: the saga, what calls it off, and orders that meet it under way.

mod stage;

use lifecycle::input::{EffectResult, Refusal};
use lifecycle::instance::{Intent, TroubleCause, UnwindReason};
use lifecycle::migration::{CancelReason, SideState};
use lifecycle::vmm::{Evidence, Reservation};
use lifecycle::{
    Command, DeadlineKind, Effect, Input, InstanceEvent, Policy, Rejected, RunState, Step, VmmId, VmmState,
    deadlines,
};
use stage::{Stage, sled};

fn cancels(stage: &Stage) -> Vec<VmmId> {
    let cancelled = |effect| match effect {
        Effect::MigrationCancel { vmm, .. } => Some(vmm),
        _ => None,
    };
    stage.effects().into_iter().filter_map(cancelled).collect()
}

fn pass_deadline(stage: &mut Stage) -> DeadlineKind {
    let kind = deadlines(stage.now(), &Policy::default())[0].kind;
    stage.must(Input::Deadline(kind));
    kind
}

#[test]
fn s08_the_guest_moves_and_its_source_is_reaped() {
    let mut stage = Stage::running();
    let charged = stage.now().charge;
    let events = stage.migrate(1);
    assert_eq!(events.len(), 2, "began, and past the fence, in one append: {events:?}");
    let (source, target) = stage.sides();
    assert_eq!(stage.run_state(), RunState::Migrating);
    assert_eq!(stage.effects(), [Effect::Register { vmm: target, sled: sled(1) }]);
    stage.says(target, 1, VmmState::Migrating, Some((1, SideState::Pending)));
    let migration = stage.migration();
    assert_eq!(stage.effects(), [Effect::MigrationTarget { vmm: target, sled: sled(1), migration }]);
    stage.answer(EffectResult::Done(None));
    assert!(stage.now().saga.is_none(), "the saga ends when the target has accepted");
    stage.says(source, 3, VmmState::Migrating, Some((2, SideState::InProgress)));
    stage.says(target, 2, VmmState::Migrating, Some((2, SideState::InProgress)));
    stage.says(source, 4, VmmState::Stopping, Some((3, SideState::Completed)));
    assert_eq!(stage.run_state(), RunState::Migrating, "kept until the target says completed");
    assert_eq!(stage.now().active, Some(target));
    assert_eq!(stage.now().network.sled, Some(sled(1)));
    stage.says(target, 3, VmmState::Running, Some((3, SideState::Completed)));
    assert_eq!(stage.run_state(), RunState::Running);
    assert_eq!(stage.now().vmms[&source].reservation, Some(Reservation::Tombstoned));
    assert_eq!(stage.now().vmms[&target].reservation, Some(Reservation::Active));
    stage.says(source, 5, VmmState::Destroyed, Some((3, SideState::Completed)));
    assert_eq!(stage.now().vmms.len(), 1);
    assert!(stage.now().migrations.contains_key(&migration), "kept while its target lives");
    assert_eq!(stage.now().charge, charged);
}

#[test]
fn a_register_that_is_refused_takes_the_migration_back_and_another_may_begin_at_once() {
    let mut stage = Stage::running();
    stage.migrate(1);
    stage.answer(EffectResult::Refused(Refusal::NoRoom));
    assert_eq!(stage.run_state(), RunState::Running);
    let refused = UnwindReason::Refused(Refusal::NoRoom);
    let cause = TroubleCause::MigrateUnwound { step: Step::Register, reason: refused };
    assert_eq!(stage.now().last_trouble.as_ref().unwrap().cause, cause);
    let (_, unwound) = stage.sides();
    assert_eq!(stage.now().vmms[&unwound].reservation, Some(Reservation::Tombstoned), "it may be there");
    stage.migrate(2);
    assert_eq!(stage.run_state(), RunState::Migrating);
    let (_, target) = stage.sides();
    let register = Effect::Register { vmm: target, sled: sled(2) };
    assert!(stage.effects().contains(&register), "what never ran blocks no fence: {:?}", stage.effects());
}

#[test]
fn a_target_that_refuses_to_take_the_guest_is_called_off_and_its_own_word_decides() {
    let mut stage = Stage::running();
    stage.migrate(1);
    let (source, target) = stage.sides();
    stage.says(target, 1, VmmState::Migrating, Some((1, SideState::Pending)));
    stage.answer(EffectResult::Refused(Refusal::NotPossible));
    assert_eq!(stage.record().cancelled, Some(CancelReason::Refused));
    assert_eq!(cancels(&stage), [source, target]);
    stage.says(target, 2, VmmState::Failed, Some((2, SideState::Failed)));
    assert_eq!(stage.run_state(), RunState::Running);
    assert_eq!(stage.effects(), [], "the source was never part of it");
}

#[test]
fn s11_a_deadline_tells_both_sides_and_a_late_completion_still_wins() {
    for arrives in [false, true] {
        let mut stage = Stage::migrating();
        let (source, target) = stage.sides();
        assert_eq!(pass_deadline(&mut stage), DeadlineKind::Migration(stage.migration()));
        assert_eq!(cancels(&stage), [source, target]);
        assert_eq!(stage.run_state(), RunState::Migrating);
        if arrives {
            stage.says(target, 5, VmmState::Running, Some((5, SideState::Completed)));
            assert_eq!(stage.now().active, Some(target));
        } else {
            stage.says(source, 5, VmmState::Running, Some((5, SideState::Failed)));
            assert_eq!(stage.now().active, Some(source));
            let trouble = &stage.now().last_trouble.as_ref().unwrap().cause;
            assert!(matches!(
                trouble,
                TroubleCause::MigrationFailed { cancelled: Some(CancelReason::Deadline), .. }
            ));
        }
        assert_eq!(stage.run_state(), RunState::Running);
    }
}

#[test]
fn a_cancel_before_the_target_is_told_unwinds_and_one_without_migration_is_refused() {
    let mut stage = Stage::running();
    assert_eq!(stage.give(Input::Command(Command::CancelMigration)), Err(Rejected::NoMigration));
    stage.migrate(1);
    stage.must(Input::Command(Command::CancelMigration));
    assert_eq!(stage.run_state(), RunState::Running);
    let (_, target) = stage.sides();
    assert_eq!(stage.now().vmms[&target].state, VmmState::SagaUnwound);
}

#[test]
fn s13_a_stop_calls_the_migration_off_and_reaches_whoever_holds_the_guest() {
    for arrives in [false, true] {
        let mut stage = Stage::migrating();
        let (source, target) = stage.sides();
        stage.stop().unwrap();
        assert_eq!(cancels(&stage), [target]);
        let is_told = |effect: &Effect| matches!(effect, Effect::Stop { vmm, .. } if *vmm == source);
        assert!(stage.effects().iter().any(is_told), "a source that has not joined is told itself");
        assert_eq!(stage.run_state(), RunState::Migrating);
        let holder = if arrives {
            stage.says(target, 5, VmmState::Running, Some((5, SideState::Completed)));
            target
        } else {
            stage.says(target, 5, VmmState::Failed, Some((5, SideState::Failed)));
            source
        };
        let is_stop = |effect: &&Effect| matches!(effect, Effect::Stop { vmm, .. } if *vmm == holder);
        assert_eq!(stage.effects().iter().filter(is_stop).count(), 1, "{:?}", stage.effects());
        stage.says(holder, 9, VmmState::Destroyed, None);
        assert_eq!((stage.run_state(), stage.now().intent), (RunState::Stopped, Intent::Stopped));
    }
}

#[test]
fn a_stop_reaches_a_source_that_never_heard_of_the_migration_though_its_target_is_silent() {
    let mut stage = Stage::migrating();
    let (source, _) = stage.sides();
    stage.stop().unwrap();
    pass_deadline_if_any(&mut stage);
    stage.says(source, 5, VmmState::Destroyed, None);
    assert_eq!((stage.run_state(), stage.now().intent), (RunState::Stopped, Intent::Stopped));
}

fn pass_deadline_if_any(stage: &mut Stage) {
    for deadline in deadlines(stage.now(), &Policy::default()) {
        stage.must(Input::Deadline(deadline.kind));
    }
}

#[test]
fn a_stop_before_the_target_is_told_unwinds_the_saga_and_stops_the_source() {
    let mut stage = Stage::running();
    stage.migrate(1);
    let (source, _) = stage.sides();
    let events = stage.stop().unwrap();
    assert!(events.iter().any(|event| matches!(event, InstanceEvent::SagaUnwound { .. })), "{events:?}");
    let stops = |stage: &Stage| {
        stage.effects().iter().any(|effect| matches!(effect, Effect::Stop { vmm, .. } if *vmm == source))
    };
    assert!(stops(&stage), "{:?}", stage.effects());
}

#[test]
fn a_reboot_while_migrating_waits_for_the_outcome_and_then_reaches_the_guest() {
    let mut stage = Stage::migrating();
    let (_, target) = stage.sides();
    stage.reboot().unwrap();
    assert_eq!(stage.effects(), [], "nobody is told while the guest is between two VMMs");
    stage.says(target, 5, VmmState::Running, Some((5, SideState::Completed)));
    let is_reboot = |effect: &Effect| matches!(effect, Effect::Reboot { vmm, .. } if *vmm == target);
    assert!(stage.effects().iter().any(is_reboot), "{:?}", stage.effects());
}

#[test]
fn u13_a_source_that_crashes_makes_the_target_be_asked_and_its_word_decides() {
    let mut stage = Stage::migrating();
    let (source, target) = stage.sides();
    stage.must(Input::Gone { vmm: source, evidence: Evidence::SledRebooted });
    assert_eq!(stage.run_state(), RunState::Migrating, "a stop asked for now must reach the guest");
    assert_eq!(stage.effects(), [Effect::Ask { vmm: target, sled: sled(1) }]);
    stage.says(target, 5, VmmState::Running, Some((5, SideState::Completed)));
    assert_eq!((stage.run_state(), stage.now().active), (RunState::Running, Some(target)));
}

#[test]
fn u13_a_target_silent_until_the_deadline_is_stopped_and_fences_the_restart() {
    let mut stage = Stage::migrating();
    let (source, target) = stage.sides();
    stage.must(Input::Gone { vmm: source, evidence: Evidence::SledRebooted });
    assert_eq!(pass_deadline(&mut stage), DeadlineKind::Undecided(stage.migration()));
    assert_eq!(stage.run_state(), RunState::Failed);
    let stops = stage.effects().iter().any(|e| matches!(e, Effect::Stop { vmm, .. } if *vmm == target));
    assert!(stops, "{:?}", stage.effects());
    pass_deadline(&mut stage);
    assert_eq!(stage.run_state(), RunState::Starting, "the restart policy acts");
    assert_eq!(stage.now().saga.as_ref().unwrap().step, Step::Fence, "but waits for the target's end");
    stage.says(target, 6, VmmState::Running, Some((6, SideState::Completed)));
    assert_eq!(stage.now().saga.as_ref().unwrap().step, Step::Fence, "its late word changes nothing");
    stage.says(target, 7, VmmState::Destroyed, None);
    assert_eq!(stage.now().saga.as_ref().unwrap().step, Step::Register);
}

#[test]
fn a_guest_that_shuts_down_while_migrating_is_not_restarted() {
    let mut stage = Stage::migrating();
    let (source, target) = stage.sides();
    stage.says(source, 5, VmmState::Destroyed, Some((5, SideState::Failed)));
    assert_eq!((stage.run_state(), stage.now().intent), (RunState::Stopped, Intent::GuestShutdown));
    let stops = stage.effects().iter().any(|e| matches!(e, Effect::Stop { vmm, .. } if *vmm == target));
    assert!(stops, "the target is told to stop: {:?}", stage.effects());
    assert_eq!(deadlines(stage.now(), &Policy::default()), []);
}

#[test]
fn a_source_that_speaks_of_a_later_migration_has_kept_its_guest_in_the_earlier_one() {
    let mut stage = Stage::migrating();
    let first = stage.migration();
    let (source, target) = stage.sides();
    stage.says(target, 5, VmmState::Failed, Some((5, SideState::Failed)));
    assert_eq!(stage.now().migrations[&first].source.state, SideState::Pending, "its word is awaited");
    stage.migrate(2);
    let (_, second) = stage.sides();
    stage.says(second, 1, VmmState::Migrating, Some((1, SideState::Pending)));
    stage.says(source, 6, VmmState::Migrating, Some((2, SideState::InProgress)));
    assert!(!stage.now().migrations.contains_key(&first), "settled, and forgotten");
}

#[test]
fn a_word_of_a_side_before_the_target_was_told_is_recorded_and_not_believed() {
    let mut stage = Stage::running();
    stage.migrate(1);
    let (source, _) = stage.sides();
    let events = stage.says(source, 3, VmmState::Stopped, Some((9, SideState::Completed)));
    assert_eq!(stage.record().source.state, SideState::Failed, "{events:?}");
    assert_eq!(stage.now().active, Some(source));
}

#[test]
fn migrating_is_for_what_runs_and_has_no_stop_under_way() {
    let mut stage = Stage::created();
    let refusal = |state, is_conflict| {
        Err(Rejected::NotPossible { action: lifecycle::Action::Migrate, state, is_conflict })
    };
    assert_eq!(stage.try_migrate(1), refusal(RunState::Stopped, false));
    let mut stage = Stage::migrating();
    assert_eq!(stage.try_migrate(2), refusal(RunState::Migrating, true));
    let mut stage = Stage::running();
    stage.stop().unwrap();
    assert_eq!(stage.try_migrate(1), refusal(RunState::Stopping, false));
}
