//! A saga that is held at its step: nothing is sent for it and its time stands still, while what sleds say is
//! folded and what its user wants still ends it.

mod stage;

use lifecycle::input::{EffectResult, Refusal};
use lifecycle::instance::{Pause, PauseCause};
use lifecycle::migration::SideState;
use lifecycle::{
    Command, DeadlineKind, Effect, Input, InstanceEvent, Intent, Policy, Rejected, RunState, SagaId, Span,
    Step, VmmState, deadlines,
};
use stage::Stage;
use std::num::NonZeroU32;

fn saga(stage: &Stage) -> SagaId {
    stage.now().saga.as_ref().expect("a saga is under way").id
}

fn pause(stage: &mut Stage) -> Vec<InstanceEvent> {
    let saga = saga(stage);
    stage.must(Input::Command(Command::PauseSaga { saga }))
}

fn resume(stage: &mut Stage) -> Vec<InstanceEvent> {
    let saga = saga(stage);
    stage.must(Input::Command(Command::ResumeSaga { saga }))
}

fn retry(stage: &mut Stage) -> Vec<InstanceEvent> {
    let saga = saga(stage);
    stage.must(Input::Command(Command::RetrySaga { saga }))
}

/// When the saga's deadline passes, counted from the newest event; none if it does not count.
fn time_left(stage: &Stage) -> Option<Span> {
    let deadline = deadlines(stage.now(), &stage.policy).into_iter().find(|it| {
        matches!(it.kind, DeadlineKind::Saga(_)) || matches!(it.kind, DeadlineKind::Migration(_))
    })?;
    Some(deadline.span.remaining(deadline.start, stage.now().head.time))
}

#[test]
fn a_paused_start_sends_nothing_and_has_no_deadline_until_it_is_resumed() {
    let mut stage = Stage::created();
    stage.start(0);
    assert!(matches!(stage.effects()[..], [Effect::Register { .. }]));
    stage.wait(Span::from_secs(100));
    let (id, step) = (saga(&stage), Step::Register);
    let cause = PauseCause::Requested;
    assert_eq!(pause(&mut stage), [InstanceEvent::SagaPaused { saga: id, step, cause }]);
    let since = stage.now().head.time;
    assert_eq!(stage.now().saga.as_ref().unwrap().pause, Some(Pause { since, cause }));
    assert_eq!((stage.effects(), time_left(&stage)), (Vec::new(), None));
    assert_eq!(stage.run_state(), RunState::Starting);
    let overtaken = Input::Deadline(DeadlineKind::Saga(id));
    assert_eq!(stage.must(overtaken), [], "a deadline that had passed already is not acted on");
    stage.wait(Span::from_secs(3_600));
    assert_eq!(resume(&mut stage), [InstanceEvent::SagaResumed { saga: id }]);
    assert_eq!(time_left(&stage), Some(Span::from_secs(120)), "all of its time again");
    assert!(matches!(stage.effects()[..], [Effect::Register { .. }]));
}

#[test]
fn pausing_resuming_and_retrying_twice_is_as_good_as_once_and_only_the_saga_under_way_is_meant() {
    let mut stage = Stage::created();
    stage.start(0);
    let id = saga(&stage);
    assert_eq!(resume(&mut stage), [], "it goes on");
    assert_eq!(pause(&mut stage).len(), 1);
    assert_eq!(pause(&mut stage), [], "it is paused");
    assert_eq!(retry(&mut stage), [InstanceEvent::SagaResumed { saga: id }], "a retry lets it go on");
    let (before, step) = (time_left(&stage), Step::Register);
    assert_eq!(retry(&mut stage), [InstanceEvent::SagaRetried { saga: id, step }]);
    assert!(time_left(&stage) < before, "a retry alone gives it no more time");
    let other = SagaId::new(stage.mint());
    for command in [
        Command::PauseSaga { saga: other },
        Command::ResumeSaga { saga: other },
        Command::RetrySaga { saga: other },
    ] {
        assert_eq!(stage.give(Input::Command(command)), Err(Rejected::NoSuchSaga(other)));
    }
}

#[test]
fn what_a_sled_says_of_a_paused_saga_counts_and_its_next_step_waits() {
    let mut stage = Stage::created();
    stage.start(0);
    pause(&mut stage);
    // The register that was under way has arrived all the same.
    stage.report(1, VmmState::Starting);
    assert_eq!(stage.now().saga.as_ref().unwrap().step, Step::Register);
    assert_eq!(stage.effects(), []);
    let events = resume(&mut stage);
    let went_on =
        |event: &InstanceEvent| matches!(event, InstanceEvent::SagaAdvanced { step: Step::SetRunning, .. });
    assert!(events.iter().any(went_on), "{events:?}");
    assert!(matches!(stage.effects()[..], [Effect::SetRunning { .. }]));
    pause(&mut stage);
    // And so has the order to run: its goal is reached.
    stage.report(2, VmmState::Running);
    assert_eq!((stage.run_state(), &stage.now().saga), (RunState::Running, &None));
}

#[test]
fn a_paused_saga_is_undone_by_cancel_stop_and_force_stop() {
    let paused = || {
        let mut stage = Stage::created();
        stage.start(0);
        pause(&mut stage);
        stage
    };
    let mut cancelled = paused();
    let saga = saga(&cancelled);
    cancelled.must(Input::Command(Command::CancelSaga { saga }));
    let mut stopped = paused();
    stopped.stop().unwrap();
    let mut forced = paused();
    forced.must(Input::Command(Command::ForceStop { assert_dead: false, reason: "x".to_owned() }));
    for (how, stage) in [("cancel", cancelled), ("stop", stopped), ("force-stop", forced)] {
        let now = stage.now();
        assert_eq!((now.saga.is_none(), now.intent), (true, Intent::Stopped), "{how}");
        assert_eq!(now.charge, None, "{how}");
        assert!(matches!(stage.effects()[..], [Effect::Unregister { .. }]), "{how}: the undo is sent");
    }
}

#[test]
fn a_refusal_that_arrives_late_takes_a_paused_saga_back() {
    let mut stage = Stage::created();
    stage.start(0);
    let effect = stage.effects()[0];
    pause(&mut stage);
    stage.must(Input::Outcome { effect, result: EffectResult::Refused(Refusal::NoRoom) });
    assert_eq!((stage.run_state(), &stage.now().saga), (RunState::Stopped, &None));
}

#[test]
fn a_migration_has_all_of_its_time_from_the_end_of_the_pause() {
    for ends_by_itself in [false, true] {
        let mut stage = Stage::running();
        stage.migrate(1);
        let (_, target) = stage.sides();
        stage.says(target, 1, VmmState::Migrating, Some((1, SideState::Pending)));
        let effect = stage.effects()[0];
        assert!(matches!(effect, Effect::MigrationTarget { .. }), "{effect:?}");
        pause(&mut stage);
        assert_eq!((stage.effects(), time_left(&stage)), (Vec::new(), None));
        stage.wait(Span::from_secs(600));
        if !ends_by_itself {
            resume(&mut stage);
            assert_eq!(stage.effects(), [effect]);
        }
        stage.must(Input::Outcome { effect, result: EffectResult::Done(None) });
        assert!(stage.now().saga.is_none(), "the target has accepted");
        let left = time_left(&stage).unwrap();
        assert!(left >= Span::from_secs(59), "{ends_by_itself}: {left:?}");
    }
}

#[test]
fn a_step_that_has_failed_often_enough_is_held_and_only_that() {
    let policy = Policy { pause_after_failures: NonZeroU32::new(3), ..Policy::default() };
    let mut stage = Stage { policy, ..Stage::default() };
    stage.create(true);
    let effect = stage.effects()[0];
    let failed = |failures| Input::StepFailed { effect, failures };
    assert_eq!(stage.must(failed(2)), []);
    let (id, cause) = (saga(&stage), PauseCause::Failures { count: 3 });
    assert_eq!(stage.must(failed(3)), [InstanceEvent::SagaPaused { saga: id, step: Step::Register, cause }]);
    assert_eq!(stage.must(failed(4)), [], "it is held");
    resume(&mut stage);
    let InstanceEvent::SagaPaused { .. } = stage.must(failed(5))[0] else {
        panic!("it is held again");
    };
    // What takes something back is sent until it acts.
    stage.must(Input::Command(Command::CancelSaga { saga: id }));
    let effect = stage.effects()[0];
    assert!(matches!(effect, Effect::Unregister { .. }), "{effect:?}");
    assert_eq!(stage.must(Input::StepFailed { effect, failures: 1_000 }), []);

    let mut never = Stage::default();
    never.create(true);
    let effect = never.effects()[0];
    assert_eq!(never.must(Input::StepFailed { effect, failures: u32::MAX }), [], "off if it is not set");
}
