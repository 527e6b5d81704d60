//! What operators and policies do: force-stop, cancelled sagas, restarts, changed configuration.

mod stage;

use lifecycle::instance::{Intent, TroubleCause};
use lifecycle::rejected::Shortage;
use lifecycle::vmm::{Evidence, FailureReason};
use lifecycle::{
    ArchiveFile, AutoRestartPolicy, Command, DeadlineKind, Effect, Input, Instance, InstanceEvent, Policy,
    Rejected, RunState, Span, Step, VmmId, VmmState, deadlines,
};
use stage::{Stage, spec};

fn force(assert_dead: bool) -> Input {
    Input::Command(Command::ForceStop { assert_dead, reason: "hung for an hour".to_owned() })
}

/// What the restart policy waits for: how long from when.
fn restart_wait(stage: &Stage) -> Option<u64> {
    let due =
        deadlines(stage.now(), &Policy::default()).into_iter().find(|d| d.kind == DeadlineKind::Restart)?;
    Some(due.span.micros() / 1_000_000)
}

fn restart(stage: &mut Stage) {
    stage.must(Input::Deadline(DeadlineKind::Restart));
}

fn crash(stage: &mut Stage) {
    let vmm = stage.now().active.expect("it has an active VMM");
    stage.must(Input::Gone { vmm, evidence: Evidence::SledRebooted });
}

fn come_up(stage: &mut Stage) {
    stage.report(1, VmmState::Starting);
    stage.report(2, VmmState::Running);
}

#[test]
fn s21_a_forced_stop_fails_the_vmm_and_the_next_start_waits_until_it_is_gone() {
    let mut stage = Stage::running();
    let old = stage.vmm();
    stage.must(force(false));
    assert_eq!((stage.run_state(), stage.now().intent), (RunState::Failed, Intent::Stopped));
    assert_eq!(restart_wait(&stage), None, "an operator's stop is not undone by a policy");
    assert!(matches!(stage.effects()[..], [Effect::Unregister { vmm, .. }] if vmm == old));
    stage.start(1);
    assert_eq!(stage.now().saga.as_ref().unwrap().step, Step::Fence);
    stage.must(force(true));
    assert!(stage.now().vmms.is_empty(), "vouched for: {:?}", stage.now().vmms);
    stage.start(1);
    assert_eq!(stage.now().saga.as_ref().unwrap().step, Step::Register);
}

fn force_of(vmm: VmmId, assert_dead: bool) -> Input {
    Input::Command(Command::ForceStopOf { vmm, assert_dead, reason: "hung for an hour".to_owned() })
}

#[test]
fn a_forced_stop_that_names_a_vmm_touches_no_other() {
    let mut stage = Stage::running();
    let old = stage.vmm();
    stage.must(force_of(old, false));
    assert_eq!((stage.run_state(), stage.now().intent), (RunState::Failed, Intent::Stopped));
    stage.start(1);
    let new = stage.now().active.unwrap();
    assert_eq!(stage.now().saga.as_ref().unwrap().step, Step::Fence);
    stage.must(force_of(old, true));
    let state = stage.now();
    assert_eq!((state.active, state.intent), (Some(new), Intent::Running), "the start goes on");
    assert_eq!(state.saga.as_ref().unwrap().step, Step::Register, "nothing is in its way any more");
    let refused = stage.give(force_of(old, true));
    assert_eq!(refused, Err(Rejected::OtherVmm { named: old, active: Some(new) }));
    let unexplained = Command::ForceStopOf { vmm: new, assert_dead: true, reason: String::new() };
    assert!(matches!(stage.give(Input::Command(unexplained)), Err(Rejected::Invalid(_))));
}

#[test]
fn a_forced_stop_of_one_side_of_a_migration_leaves_what_the_instance_shall_be_to_the_other() {
    let mut stage = Stage::migrating();
    let (source, target) = stage.sides();
    stage.must(force_of(target, true));
    assert!(!stage.now().vmms.contains_key(&target), "it is over, and vouched for");
    assert!(stage.now().vmms[&source].state.is_live());
    assert_eq!(stage.now().intent, Intent::Running, "the guest goes on where it was");

    let mut stage = Stage::migrating();
    let (_, target) = stage.sides();
    stage.stop().unwrap();
    let asked = stage.now().stop;
    assert!(asked.is_some());
    stage.must(force_of(target, true));
    assert_eq!(stage.now().stop, asked, "a stop that was acknowledged is still carried out");
}

#[test]
fn only_what_is_over_is_archived_and_once() {
    let mut stage = Stage::running();
    let file = |state: &Instance| ArchiveFile {
        file: "streams/one.stream".to_owned(),
        bytes: 900,
        checksum: 7,
        events: state.head.version,
        first: 1,
        last: state.head.position,
    };
    let now = file(stage.now());
    assert_eq!(stage.must(Input::Archived(now)), [], "it runs");
    stage.must(force(false));
    stage.delete().unwrap();
    let now = file(stage.now());
    assert_eq!(stage.must(Input::Archived(now)), [], "its VMM may be on its sled still");
    let vmm = *stage.now().vmms.keys().next().unwrap();
    stage.must(Input::Gone { vmm, evidence: Evidence::SledRebooted });
    assert!(stage.now().is_over());
    let short = ArchiveFile { events: stage.now().head.version - 1, ..file(stage.now()) };
    assert_eq!(stage.must(Input::Archived(short)), [], "the file does not hold all of it");
    let whole = file(stage.now());
    assert_eq!(stage.must(Input::Archived(whole.clone())), [InstanceEvent::Archived(whole.clone())]);
    assert_eq!(stage.now().archived, Some(whole.clone()));
    assert_eq!(stage.must(Input::Archived(whole)), [], "once");
    assert_eq!(
        stage.must(Input::Gone { vmm, evidence: Evidence::SledRebooted }),
        [],
        "a late word changes nothing"
    );
    assert_eq!(stage.must(Input::Reconsider), []);
}

#[test]
fn a_forced_stop_of_what_is_stopped_changes_nothing_and_needs_a_reason() {
    let mut stage = Stage::created();
    assert_eq!(stage.must(force(false)), []);
    assert_eq!(stage.must(force(true)), []);
    let unexplained = Input::Command(Command::ForceStop { assert_dead: false, reason: "  ".to_owned() });
    assert!(matches!(stage.give(unexplained), Err(Rejected::Invalid(_))));
}

#[test]
fn a_forced_stop_of_what_failed_suppresses_its_restart() {
    let mut stage = Stage::running();
    crash(&mut stage);
    assert_eq!(restart_wait(&stage), Some(0));
    stage.must(force(false));
    assert_eq!((stage.run_state(), restart_wait(&stage)), (RunState::Failed, None));
    assert_eq!(stage.must(force(false)), []);
}

#[test]
fn many_vmms_behind_the_fence_are_all_vouched_for_at_once() {
    let mut stage = Stage::created();
    for _ in 0..100 {
        stage.start(0);
        stage.stop().unwrap();
    }
    assert_eq!(stage.now().vmms.len(), 100, "their sled has answered nothing");
    stage.must(force(true));
    assert!(stage.now().vmms.is_empty());
}

#[test]
fn a_forced_stop_ends_a_migration_on_both_sides() {
    let mut stage = Stage::migrating();
    let (source, target) = stage.sides();
    stage.must(force(false));
    assert_eq!(stage.run_state(), RunState::Failed);
    for vmm in [source, target] {
        assert_eq!(stage.now().vmms[&vmm].failure, Some(FailureReason::Operator));
        assert!(stage.effects().iter().any(|e| matches!(e, Effect::Unregister { vmm: v, .. } if *v == vmm)));
    }
}

#[test]
fn t07_restarts_come_at_once_and_then_ever_later_until_the_budget_is_spent() {
    let mut stage = Stage::running();
    let mut waits = Vec::new();
    for _ in 0..Policy::default().restart.budget {
        crash(&mut stage);
        assert_eq!(stage.run_state(), RunState::Failed);
        waits.push(restart_wait(&stage).expect("it is due"));
        restart(&mut stage);
        assert_eq!(stage.run_state(), RunState::Starting);
        come_up(&mut stage);
    }
    assert_eq!(waits[..7], [0, 300, 600, 1_200, 2_400, 3_600, 3_600]);
    crash(&mut stage);
    assert_eq!(restart_wait(&stage), None, "the budget is spent");
    stage.start(0);
    come_up(&mut stage);
    crash(&mut stage);
    assert_eq!(restart_wait(&stage), Some(0), "a start by hand begins the count anew");
}

#[test]
fn t07_a_long_run_begins_the_count_anew() {
    let mut stage = Stage::running();
    crash(&mut stage);
    restart(&mut stage);
    come_up(&mut stage);
    stage.wait(Policy::default().restart.stable);
    crash(&mut stage);
    assert_eq!(restart_wait(&stage), Some(0));
}

#[test]
fn t07_no_capacity_counts_as_an_attempt_and_the_instance_stays_failed_and_wanted() {
    let mut stage = Stage::running();
    stage.wait(Span::from_secs(86_400));
    crash(&mut stage);
    for wait in [0, 300, 600] {
        assert_eq!(restart_wait(&stage), Some(wait));
        stage.must(Input::Restart(Err(Shortage::NoSled)));
        assert_eq!((stage.run_state(), stage.now().intent), (RunState::Failed, Intent::Running));
        let trouble = &stage.now().last_trouble.as_ref().unwrap().cause;
        assert_eq!(*trouble, TroubleCause::NoCapacity { short: Shortage::NoSled });
    }
}

#[test]
fn t07_policy_never_a_stop_and_a_guest_shutdown_suppress_restarts() {
    let mut never = Stage::running();
    let mut change = spec().changeable();
    change.auto_restart = Some(AutoRestartPolicy::Never);
    never.must(Input::Command(Command::Update { change: Box::new(change) }));
    crash(&mut never);
    assert_eq!((never.run_state(), restart_wait(&never)), (RunState::Failed, None));

    let mut stopped = Stage::running();
    stopped.stop().unwrap();
    crash(&mut stopped);
    assert_eq!((stopped.run_state(), restart_wait(&stopped)), (RunState::Failed, None));

    let mut shut_down = Stage::running();
    shut_down.report(3, VmmState::Destroyed);
    assert_eq!((shut_down.run_state(), restart_wait(&shut_down)), (RunState::Stopped, None));
}

#[test]
fn a_stop_of_what_shuts_itself_down_is_remembered_and_suppresses_a_restart() {
    let mut stage = Stage::running();
    stage.report(3, VmmState::Stopping);
    let before = stage.now().time_run_state_updated;
    stage.stop().unwrap();
    assert_eq!((stage.run_state(), stage.now().time_run_state_updated), (RunState::Stopping, before));
    assert_eq!(stage.effects(), [], "the guest is going down already");
    crash(&mut stage);
    assert_eq!((stage.run_state(), restart_wait(&stage)), (RunState::Failed, None));
    assert_eq!(stage.stop().map(|events| events.len()), Ok(1), "asking again makes it stopped");
    assert_eq!(stage.stop(), Ok(Vec::new()));
}

#[test]
fn an_automatic_start_that_unwinds_leaves_it_failed_and_one_that_the_user_stops_leaves_it_stopped() {
    let automatic = || {
        let mut stage = Stage::running();
        crash(&mut stage);
        restart(&mut stage);
        stage
    };
    let mut refused = automatic();
    refused.answer(lifecycle::EffectResult::Refused(lifecycle::Refusal::NoRoom));
    assert_eq!((refused.run_state(), refused.now().intent), (RunState::Failed, Intent::Running));
    assert_eq!(restart_wait(&refused), Some(300));

    let mut stopped = automatic();
    stopped.stop().unwrap();
    assert_eq!((stopped.run_state(), stopped.now().intent), (RunState::Stopped, Intent::Stopped));
}

#[test]
fn a_saga_can_be_cancelled_until_its_point_of_no_return() {
    let mut stage = Stage::created();
    stage.start(0);
    let saga = stage.now().saga.as_ref().unwrap().id;
    stage.must(Input::Command(Command::CancelSaga { saga }));
    assert_eq!(stage.run_state(), RunState::Stopped);
    assert_eq!(stage.give(Input::Command(Command::CancelSaga { saga })), Err(Rejected::NoSuchSaga(saga)));
    stage.start(0);
    stage.report(1, VmmState::Starting);
    let saga = stage.now().saga.as_ref().unwrap().id;
    assert_eq!(stage.give(Input::Command(Command::CancelSaga { saga })), Err(Rejected::PastReturn));
}

#[test]
fn size_changes_only_without_a_vmm_and_the_restart_policy_at_any_time() {
    let resized = |ncpus| {
        let mut change = spec().changeable();
        change.size.ncpus = ncpus;
        Input::Command(Command::Update { change: Box::new(change) })
    };
    let mut stage = Stage::running();
    assert_eq!(stage.give(resized(8)), Err(Rejected::MustBeStopped));
    assert_eq!(stage.must(resized(spec().size.ncpus)), [], "as it is");
    let mut stage = Stage::created();
    stage.must(resized(8));
    assert_eq!(stage.now().spec.size.ncpus, 8);
    assert!(matches!(stage.give(resized(0)), Err(Rejected::Invalid(_))));
}
