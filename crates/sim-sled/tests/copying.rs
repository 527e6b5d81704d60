//! What a migration meets on its way: guests that dirty memory faster than it is copied, requests to stop,
//! and sleds that die at any phase.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use sim_sled::machine::{DirtyRate, Mode, Output, Question, Sled, Step, Vmm};
use sled_protocol::{RequestedState, VmmState};
use support::{Pair, S, SECOND, T, boot, in_state, op, set_op, status, target_of, vmm};

const QUESTIONS: [Question; 6] = [
    Question::Begin,
    Question::Copy { round: 1 },
    Question::Copy { round: 2 },
    Question::Copy { round: 3 },
    Question::Pause,
    Question::Finish,
];

fn runs(sled: &Sled) -> bool {
    sled.vmms().any(Vmm::guest_running)
}

/// A pair in auto mode whose source runs, at a time when it does.
fn auto_pair(rate: u32) -> Pair {
    let mut pair = Pair::ready_in(Mode::Auto);
    pair.now = 2 * SECOND;
    pair.settle();
    pair.source.set_dirty_rate(vmm(S), rate);
    pair.target.handle(pair.now, set_op(vmm(T), op(2), target_of(vmm(S), S))).unwrap();
    pair
}

/// Lets time pass until this holds, and answers the microseconds that it took; `None` after an hour.
fn pass_until(pair: &mut Pair, holds: impl Fn(&Pair) -> bool) -> Option<u64> {
    let (began, end) = (pair.now, pair.now + 3600 * SECOND);
    while pair.now < end {
        pair.settle();
        if holds(pair) {
            return Some(pair.now - began);
        }
        let wakes = [pair.source.next_wake(), pair.target.next_wake()];
        pair.now = wakes.into_iter().flatten().min()?.max(pair.now);
    }
    None
}

fn rounds_of(rate: u32) -> Option<u32> {
    let mut pair = Pair::begun();
    pair.source.set_dirty_rate(vmm(S), rate);
    let mut last = 0;
    for _ in 0..200 {
        match pair.target.vmm(vmm(T)).and_then(Vmm::next_step) {
            Some(Step::Ask(Question::Copy { round })) => last = round,
            Some(Step::Ask(Question::Pause)) => return Some(last),
            _ => {}
        }
        pair.target.step(0, vmm(T));
        pair.settle();
    }
    None
}

#[test]
fn the_faster_a_guest_dirties_its_memory_the_more_rounds_it_takes() {
    for (rate, rounds) in
        [(0, Some(2)), (250, Some(3)), (500, Some(5)), (900, Some(28)), (1000, None), (4000, None)]
    {
        assert_eq!(rounds_of(rate), rounds, "{rate} per mille");
    }
}

#[test]
fn rounds_take_time_in_proportion_to_what_they_copy() {
    // The default span of a whole copy is 50 to 200 ms: 1 + 1/4 + 1/16 of it, against 1 + 0.9 + 0.81 + ...
    let arrived = |pair: &Pair| in_state(&pair.target, vmm(T)) == Some(VmmState::Running);
    let calm = pass_until(&mut auto_pair(250), arrived).unwrap();
    let busy = pass_until(&mut auto_pair(900), arrived).unwrap();
    assert!((85_000..470_000).contains(&calm), "{calm}");
    assert!((470_000..2_000_000).contains(&busy), "{busy}");
}

#[test]
fn a_guest_that_outpaces_the_copying_migrates_until_it_is_cancelled_and_runs_all_along() {
    for side in [S, T] {
        let mut pair = auto_pair(1000);
        let given_up = |pair: &Pair| in_state(&pair.target, vmm(T)) != Some(VmmState::Migrating);
        assert_eq!(pass_until(&mut pair, given_up), None, "an hour is not enough");
        assert!(runs(&pair.source));
        assert_eq!(pair.source_shown(), "migrating out=in_progress");
        let sled = if side == S { &mut pair.source } else { &mut pair.target };
        assert_eq!(
            status(&sled.handle(pair.now, set_op(vmm(side), op(9), RequestedState::MigrationCancel))),
            200
        );
        pass_until(&mut pair, given_up).unwrap();
        assert_eq!(
            (pair.source_shown().as_str(), pair.target_shown().as_str()),
            ("running out=failed", "failed in=failed")
        );
        assert!(runs(&pair.source));
    }
}

#[test]
fn a_guest_that_calms_down_arrives_after_all() {
    let mut pair = auto_pair(1000);
    assert_eq!(pass_until(&mut pair, |pair| runs(&pair.target)), None);
    pair.source.set_dirty_rate(vmm(S), 250);
    pass_until(&mut pair, |pair| in_state(&pair.target, vmm(T)) == Some(VmmState::Running)).unwrap();
}

#[test]
fn the_rate_of_a_guest_without_one_of_its_own_is_the_sleds() {
    let mut pair = Pair::about_to_ask(Question::Begin);
    let mut config = pair.source.config().clone();
    config.dirty_rate = DirtyRate::of(1000);
    pair.source = pair.source.clone().reopened(config, boot(S), 0);
    for _ in 0..100 {
        pair.target.step(0, vmm(T));
        pair.settle();
    }
    assert_eq!(pair.source_shown(), "migrating out=in_progress");
}

#[test]
fn a_repeated_round_is_answered_alike() {
    let mut pair = Pair::about_to_ask(Question::Copy { round: 2 });
    pair.target.step(0, vmm(T));
    let [Output::Peer(asked)] = &pair.target.poll(0)[..] else { panic!() };
    let mut answers = Vec::new();
    for _ in 0..3 {
        pair.source.handle_peer(0, asked.clone());
        answers.extend(pair.source.poll(0));
    }
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[test]
fn a_stopped_target_that_has_not_asked_for_the_guest_is_destroyed_and_the_source_goes_on() {
    for question in QUESTIONS {
        let mut pair = Pair::about_to_ask(question);
        let answer = pair.target.handle(0, set_op(vmm(T), op(9), RequestedState::Stopped));
        assert_eq!(support::shown(&support::state_of(answer)), "destroyed in=failed", "{question:?}");
        pair.settle();
        pair.finish();
        assert_eq!(pair.reported(vmm(T)).last().unwrap(), "destroyed in=failed", "{question:?}");
        assert!(runs(&pair.source), "{question:?}");
        assert_eq!(in_state(&pair.source, vmm(S)), Some(VmmState::Running), "{question:?}");
    }
}

#[test]
fn a_stopped_target_that_has_asked_for_the_guest_shuts_it_down_when_it_comes() {
    let mut pair = Pair::about_to_ask(Question::Finish);
    pair.target.step(0, vmm(T));
    let answer = pair.target.handle(0, set_op(vmm(T), op(9), RequestedState::Stopped));
    assert_eq!(support::shown(&support::state_of(answer)), "migrating in=in_progress");
    pair.settle();
    pair.finish();
    assert_eq!(
        pair.reported(vmm(T)).split_off(1),
        ["stopping in=completed", "destroyed in=completed"],
        "{:?}",
        pair.reported(vmm(T))
    );
    assert_eq!(pair.source_shown(), "destroyed out=completed");
    assert!(!runs(&pair.source) && !runs(&pair.target));
}

#[test]
fn a_stopped_target_whose_source_refuses_the_guest_fails_as_it_would_have() {
    let mut pair = Pair::about_to_ask(Question::Finish);
    pair.target.step(0, vmm(T));
    pair.target.handle(0, set_op(vmm(T), op(9), RequestedState::Stopped)).unwrap();
    pair.source.fail_migration(0, vmm(S));
    pair.settle();
    pair.finish();
    assert_eq!(pair.target_shown(), "failed in=failed");
    assert_eq!(pair.source_shown(), "running out=failed");
}

#[test]
fn a_stopped_source_gives_up_its_migration_and_shuts_its_guest_down() {
    for question in QUESTIONS.into_iter().skip(1) {
        let mut pair = Pair::about_to_ask(question);
        let answer = pair.source.handle(0, set_op(vmm(S), op(9), RequestedState::Stopped));
        assert_eq!(support::shown(&support::state_of(answer)), "stopping out=failed", "{question:?}");
        pair.settle();
        pair.finish();
        assert_eq!(pair.source_shown(), "destroyed out=failed", "{question:?}");
        assert_eq!(pair.target_shown(), "failed in=failed", "{question:?}");
        assert!(!runs(&pair.source) && !runs(&pair.target));
    }
}

#[test]
fn a_stop_that_comes_to_a_source_after_its_guest_has_left_changes_nothing() {
    let mut pair = Pair::about_to_ask(Question::Finish);
    pair.target.step(0, vmm(T));
    pair.settle();
    let before = pair.source.vmm(vmm(S)).unwrap().state().clone();
    let answer = pair.source.handle(0, set_op(vmm(S), op(9), RequestedState::Stopped));
    assert_eq!(support::state_of(answer), before);
    pair.finish();
    assert_eq!(pair.source_shown(), "destroyed out=completed");
    assert!(runs(&pair.target), "the guest has left and lives on");
}

#[test]
fn either_sled_may_die_at_any_phase_and_the_other_side_comes_to_rest() {
    // The first round is asked for as soon as the source has agreed: nothing comes in between.
    for question in QUESTIONS.into_iter().filter(|asked| *asked != Question::Copy { round: 1 }) {
        for (side, is_back) in [(S, true), (S, false), (T, true), (T, false)] {
            let mut pair = auto_pair(250);
            pass_until(&mut pair, |pair| {
                pair.target.vmm(vmm(T)).and_then(Vmm::next_step) == Some(Step::Ask(question))
            })
            .unwrap();
            let dead = if side == S { &mut pair.source } else { &mut pair.target };
            if is_back {
                dead.reboot(pair.now, boot(9));
            } else {
                dead.power_off(pair.now);
            }
            let case = format!("{question:?}, sled {side} dies, back: {is_back}");
            let rests = |pair: &Pair| pair.source.next_wake().or(pair.target.next_wake()).is_none();
            let rested = pass_until(&mut pair, rests);
            assert!(rested.is_some_and(|micros| micros < 30 * SECOND), "{case}: {rested:?}");
            if side == S {
                assert_eq!(pair.source_shown(), "gone", "{case}");
                assert_eq!(pair.target_shown(), "failed in=failed", "{case}");
            } else {
                assert_eq!(pair.target_shown(), "gone", "{case}");
                assert!(runs(&pair.source), "{case}: {}", pair.source_shown());
                assert_eq!(in_state(&pair.source, vmm(S)), Some(VmmState::Running), "{case}");
            }
        }
    }
}

#[test]
fn in_explicit_mode_a_migration_moves_only_when_it_is_poked() {
    let mut pair = Pair::begun();
    pair.now = 3600 * SECOND;
    pair.settle();
    assert_eq!(pair.target_shown(), "migrating in=pending");
    assert_eq!((pair.source.next_wake(), pair.target.next_wake()), (None, None));
    let mut pokes = 0;
    while in_state(&pair.target, vmm(T)) != Some(VmmState::Running) {
        assert!(pair.target.run_script(pair.now, vmm(T)) > 0);
        pair.settle();
        pokes += 1;
    }
    assert_eq!(pokes, QUESTIONS.len() + 1, "one for each question, and one to resume");
    assert!(pair.source.run_script(pair.now, vmm(S)) > 0);
    assert_eq!(pair.source_shown(), "destroyed out=completed");
}
