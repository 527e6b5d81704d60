//! Migration between two machines: success, failure and cancellation on either side at every question, lost,
//! repeated and late messages. `Pair::check` asserts after every message that the guest runs at most once.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use sim_sled::machine::{Mode, Output, PeerBody, PeerMessage, Question, Request};
use sled_protocol::{RequestedState, VmmState};
use support::{
    EPOCH, Pair, S, SECOND, T, addr, boot, in_state, migration, op, set_op, sled, status, target_of, vmm,
};

const QUESTIONS: [Question; 6] = [
    Question::Begin,
    Question::Copy { round: 1 },
    Question::Copy { round: 2 },
    Question::Copy { round: 3 },
    Question::Pause,
    Question::Finish,
];

fn guest_runs_at(pair: &Pair) -> Option<u128> {
    let runs = |sled: &sim_sled::machine::Sled| sled.vmms().any(sim_sled::machine::Vmm::guest_running);
    match (runs(&pair.source), runs(&pair.target)) {
        (true, false) => Some(S),
        (false, true) => Some(T),
        (false, false) => None,
        (true, true) => panic!("the guest runs twice"),
    }
}

/// The target puts its next question; its message is handed out instead of delivered.
fn asked(pair: &mut Pair) -> PeerMessage {
    pair.settle();
    pair.target.step(pair.now, vmm(T));
    let outputs = pair.target.poll(pair.now);
    outputs
        .into_iter()
        .find_map(|output| if let Output::Peer(message) = output { Some(message) } else { None })
        .expect("the target asks")
}

/// What the source answers to a message, not delivered.
fn answered(pair: &mut Pair, message: PeerMessage) -> Vec<PeerMessage> {
    pair.deliver(message);
    let outputs = pair.source.poll(pair.now);
    outputs
        .into_iter()
        .filter_map(|output| if let Output::Peer(message) = output { Some(message) } else { None })
        .collect()
}

#[test]
fn a_migration_carries_the_guest_over_and_reports_every_state_on_the_way() {
    let mut pair = Pair::begun();
    assert_eq!(guest_runs_at(&pair), Some(S));
    pair.finish();
    assert_eq!(guest_runs_at(&pair), Some(T));
    assert_eq!(
        pair.reported(vmm(T)),
        ["migrating in=in_progress", "migrating in=completed", "running in=completed"]
    );
    assert_eq!(
        pair.reported(vmm(S)),
        [
            "migrating out=pending",
            "migrating out=in_progress",
            "migrating out=completed",
            "stopping out=completed",
            "destroyed out=completed"
        ]
    );
}

#[test]
fn in_auto_mode_a_migration_needs_no_poking() {
    let mut pair = Pair::ready_in(Mode::Auto);
    pair.now = 2 * SECOND;
    pair.settle();
    pair.target.handle(pair.now, set_op(vmm(T), op(2), target_of(vmm(S), S))).unwrap();
    for _ in 0..100 {
        pair.settle();
        let wakes = [pair.source.next_wake(), pair.target.next_wake()];
        let Some(wake) = wakes.into_iter().flatten().min() else { break };
        pair.now = pair.now.max(wake);
    }
    assert_eq!(
        (pair.source_shown().as_str(), pair.target_shown().as_str()),
        ("destroyed out=completed", "running in=completed")
    );
}

#[test]
fn a_failure_on_either_side_at_any_question_leaves_the_guest_at_the_source() {
    for question in QUESTIONS {
        for side in [S, T] {
            let mut pair = Pair::begun();
            let sled = if side == S { &mut pair.source } else { &mut pair.target };
            sled.fail_migration_at(vmm(side), question);
            pair.finish();
            assert_eq!(guest_runs_at(&pair), Some(S), "{question:?} fails on {side}");
            assert_eq!(pair.target_shown(), "failed in=failed", "{question:?} fails on {side}");
            // A source that was never asked knows of no migration.
            let expected = if question == Question::Begin { "running" } else { "running out=failed" };
            assert_eq!(pair.source_shown(), expected, "{question:?} fails on {side}");
        }
    }
}

#[test]
fn a_cancel_on_either_side_before_any_question_leaves_the_guest_at_the_source() {
    for question in QUESTIONS {
        for side in [S, T] {
            let mut pair = Pair::about_to_ask(question);
            let cancel = set_op(vmm(side), op(9), RequestedState::MigrationCancel);
            let sled = if side == S { &mut pair.source } else { &mut pair.target };
            let answer = status(&sled.handle(pair.now, cancel));
            // A source that was never asked has nothing to cancel; the target's cancel ends it.
            if side == S && question == Question::Begin {
                assert_eq!(answer, 400);
                continue;
            }
            assert_eq!(answer, 200, "{question:?} {side}");
            pair.settle();
            pair.finish();
            assert_eq!(guest_runs_at(&pair), Some(S), "{question:?} {side}");
            assert_eq!(pair.target_shown(), "failed in=failed", "{question:?} {side}");
        }
    }
}

#[test]
fn once_the_target_has_asked_for_the_guest_only_the_source_can_cancel() {
    let mut pair = Pair::about_to_ask(Question::Finish);
    let finish = asked(&mut pair);
    let cancel = |side| set_op(vmm(side), op(9), RequestedState::MigrationCancel);
    assert_eq!(status(&pair.target.handle(0, cancel(T))), 400, "the guest may already be its own");
    assert_eq!(status(&pair.source.handle(0, cancel(S))), 200);
    pair.deliver(finish);
    pair.settle();
    pair.finish();
    assert_eq!(guest_runs_at(&pair), Some(S));
    assert_eq!(pair.target_shown(), "failed in=failed");
}

#[test]
fn a_cancel_after_the_handover_changes_nothing() {
    let mut pair = Pair::begun();
    pair.finish();
    for (side, n) in [(S, 10), (T, 11)] {
        let sled = if side == S { &mut pair.source } else { &mut pair.target };
        let before = sled.vmm(vmm(side)).cloned();
        assert_eq!(status(&sled.handle(0, set_op(vmm(side), op(n), RequestedState::MigrationCancel))), 400);
        assert_eq!(sled.vmm(vmm(side)).cloned(), before);
    }
}

#[test]
fn the_end_of_either_vmm_at_any_question_fails_its_migration_in_the_same_picture() {
    for question in QUESTIONS {
        let mut pair = Pair::about_to_ask(question);
        pair.target.guest_crash(0, vmm(T));
        pair.settle();
        assert_eq!(pair.reported(vmm(T)).last().unwrap(), "failed in=failed", "{question:?}");
        assert_eq!(guest_runs_at(&pair), Some(S), "{question:?}: the source takes its guest back");

        let mut pair = Pair::about_to_ask(question);
        pair.source.guest_crash(0, vmm(S));
        pair.settle();
        pair.finish();
        assert_eq!(guest_runs_at(&pair), None, "{question:?}");
        assert_eq!(pair.target_shown(), "failed in=failed", "{question:?}");
        let expected = if question == Question::Begin { "failed" } else { "failed out=failed" };
        assert_eq!(pair.reported(vmm(S)).last().unwrap(), expected, "{question:?}");
    }
}

#[test]
fn every_message_may_be_lost_and_every_message_may_come_twice() {
    for repeat in [0, 2] {
        let mut pair = Pair::begun();
        for _ in 0..40 {
            if in_state(&pair.target, vmm(T)) == Some(VmmState::Running) {
                break;
            }
            if matches!(pair.target.vmm(vmm(T)).unwrap().next_step(), Some(sim_sled::machine::Step::Resume)) {
                pair.target.step(0, vmm(T));
                continue;
            }
            // The first asking is lost, or everything comes twice, answers too.
            let lost = asked(&mut pair);
            let asked_again = asked(&mut pair);
            assert_eq!(lost, asked_again);
            let mut answers = Vec::new();
            for _ in 0..=repeat {
                answers.extend(answered(&mut pair, asked_again.clone()));
            }
            assert!(answers.iter().all(support::is_yes), "{answers:?}");
            // The first answer is lost when nothing is repeated: the target asks once more.
            let kept = if repeat == 0 { answered(&mut pair, asked_again) } else { answers };
            for answer in kept {
                pair.deliver(answer);
            }
        }
        pair.finish();
        assert_eq!(guest_runs_at(&pair), Some(T));
        assert_eq!(pair.target_shown(), "running in=completed");
    }
}

#[test]
fn a_late_repeat_after_the_handover_neither_answers_nor_harms() {
    let mut pair = Pair::begun();
    let begin = asked(&mut pair);
    let [yes] = &answered(&mut pair, begin.clone())[..] else { panic!() };
    pair.deliver(yes.clone());
    pair.finish();
    assert_eq!(guest_runs_at(&pair), Some(T));
    assert_eq!(answered(&mut pair, begin), [], "a refusal could reach a target that waits for its guest");
    pair.deliver(yes.clone());
    pair.settle();
    assert_eq!(guest_runs_at(&pair), Some(T));
}

#[test]
fn a_question_that_outlives_its_target_does_not_hold_the_source() {
    let mut pair = Pair::begun();
    let begin = asked(&mut pair);
    pair.target.handle(0, Request::Unregister { vmm: vmm(T), lease_epoch: EPOCH }).unwrap();
    pair.settle();
    pair.deliver(begin);
    pair.settle();
    assert_eq!(pair.source_shown(), "running out=failed");
    assert_eq!(guest_runs_at(&pair), Some(S));
}

#[test]
fn a_lost_handover_loses_the_guest_and_never_doubles_it() {
    let mut pair = Pair::about_to_ask(Question::Finish);
    let finish = asked(&mut pair);
    let [handover] = &answered(&mut pair, finish)[..] else { panic!() };
    assert_eq!(guest_runs_at(&pair), None);
    pair.target.fail_migration(0, vmm(T));
    pair.deliver(handover.clone());
    pair.settle();
    pair.finish();
    assert_eq!(guest_runs_at(&pair), None, "the source has let it go for good");
    assert_eq!(
        (pair.source_shown().as_str(), pair.target_shown().as_str()),
        ("destroyed out=completed", "failed in=failed")
    );
}

#[test]
fn silence_ends_a_migration_on_both_sides_and_the_source_takes_its_guest_back() {
    let mut pair = Pair::ready_in(Mode::Auto);
    pair.now = 2 * SECOND;
    pair.settle();
    pair.target.handle(pair.now, set_op(vmm(T), op(2), target_of(vmm(S), S))).unwrap();
    while in_state(&pair.source, vmm(S)) != Some(VmmState::Migrating) {
        pair.now = pair.target.next_wake().unwrap().max(pair.now);
        pair.settle();
    }
    // From here on nothing is delivered.
    pair.source.poll(pair.now + 30 * SECOND);
    pair.target.poll(pair.now + 30 * SECOND);
    pair.check();
    assert_eq!(
        (pair.source_shown().as_str(), pair.target_shown().as_str()),
        ("running out=failed", "failed in=failed")
    );
    assert_eq!((pair.source.vmm(vmm(S)).unwrap().next_step(), guest_runs_at(&pair)), (None, Some(S)));
}

#[test]
fn a_reboot_of_either_sled_is_told_to_the_other_when_it_asks() {
    for question in QUESTIONS {
        let mut pair = Pair::about_to_ask(question);
        pair.source.reboot(0, boot(9));
        pair.settle();
        pair.finish();
        assert_eq!(pair.target_shown(), "failed in=failed", "{question:?}");
        assert_eq!(guest_runs_at(&pair), None);
    }
}

#[test]
fn a_source_gives_its_guest_to_nobody_else() {
    let mut pair = Pair::about_to_ask(Question::Copy { round: 2 });
    let strangers = [
        PeerMessage { from_vmm: vmm(8), ..asked(&mut pair) },
        PeerMessage { instance_id: support::instance(8), ..asked(&mut pair) },
        PeerMessage { migration_id: migration(8), ..asked(&mut pair) },
        PeerMessage { migration_id: migration(8), body: PeerBody::Ask(Question::Begin), ..asked(&mut pair) },
    ];
    for stranger in strangers {
        let answers = answered(&mut pair, stranger.clone());
        let is_refused = matches!(&answers[..], [PeerMessage { body: PeerBody::Failed(_), .. }]);
        assert!(is_refused, "{stranger:?}: {answers:?}");
        assert_eq!(pair.source_shown(), "migrating out=in_progress");
    }
}

#[test]
fn a_question_out_of_its_order_takes_no_guest() {
    for (before, out_of_order) in [
        (Question::Copy { round: 1 }, Question::Pause),
        (Question::Copy { round: 1 }, Question::Finish),
        (Question::Copy { round: 2 }, Question::Finish),
    ] {
        let mut pair = Pair::about_to_ask(before);
        let message = PeerMessage { body: PeerBody::Ask(out_of_order), ..asked(&mut pair) };
        let source = pair.source.vmm(vmm(S)).unwrap().state().clone();
        let answers = answered(&mut pair, message);
        assert!(matches!(&answers[..], [PeerMessage { body: PeerBody::Failed(_), .. }]), "{answers:?}");
        assert_eq!(pair.source.vmm(vmm(S)).unwrap().state(), &source, "{out_of_order:?}");
        assert_eq!(guest_runs_at(&pair), Some(S), "{out_of_order:?}");
    }
}

#[test]
fn a_vmm_that_arrived_may_leave_again_and_keeps_its_arrival() {
    let mut pair = Pair::begun();
    pair.finish();
    let mut third = sled(3, Mode::Explicit);
    third.handle(0, support::register(vmm(3), support::body(1, Some(migration(2))))).unwrap();
    third.handle(0, set_op(vmm(3), op(3), target_of(vmm(T), T))).unwrap();
    for _ in 0..40 {
        third.step(0, vmm(3));
        for _ in 0..4 {
            for output in third.poll(0) {
                if let Output::Peer(message) = output {
                    assert_eq!(message.to_addr, addr(T));
                    pair.target.handle_peer(0, message);
                }
            }
            for output in pair.target.poll(0) {
                if let Output::Peer(message) = output {
                    third.handle_peer(0, message);
                }
            }
        }
    }
    pair.target.run_script(0, vmm(T));
    assert_eq!(pair.target_shown(), "destroyed in=completed out=completed");
    assert_eq!(in_state(&third, vmm(3)), Some(VmmState::Running));
}
