//! Cases about ending and opening again.

use super::Harness;
use super::shape::{append, assert_sound, claim, event, everything, extend, history, stream};
use crate::types::{AppendOutcome, Position, Unavailable};
use futures::future::join_all;

pub(super) async fn a_reopened_log_is_equal(harness: &mut dyn Harness) {
    for number in 0..30 {
        extend(&*harness.log(), stream(number % 7), [event(number), event(number + 1)]).await;
    }
    let before = everything(&*harness.log());
    harness.reopen().await;
    assert_eq!(everything(&*harness.log()), before);
    assert_eq!(harness.log().durable(), Position::new(60));
    assert_sound(&*harness.log());
}

pub(super) async fn a_crashed_log_keeps_everything_answered(harness: &mut dyn Harness) {
    for number in 0..30 {
        extend(&*harness.log(), stream(number % 7), [event(number)]).await;
    }
    let before = everything(&*harness.log());
    harness.crash();
    assert_eq!(everything(&*harness.log())[..30], before);
    assert_sound(&*harness.log());
}

pub(super) async fn appending_goes_on_after_reopening(harness: &mut dyn Harness) {
    extend(&*harness.log(), stream(1), [event(1)]).await;
    harness.reopen().await;
    extend(&*harness.log(), stream(1), [event(2)]).await;
    harness.crash();
    let (first, _) = extend(&*harness.log(), stream(1), [event(3)]).await;
    assert_eq!(first, Position::new(3));
    assert_eq!(history(&*harness.log(), stream(1)).len(), 3);
    assert_sound(&*harness.log());
}

pub(super) async fn a_closed_log_refuses(harness: &mut dyn Harness) {
    let log = harness.log();
    let epoch = claim(&*log, stream(1)).await;
    log.append(append(stream(1), epoch, 0, [event(1)])).await;
    log.close().await;
    let refused = log.append(append(stream(1), epoch, 1, [event(2)])).await;
    assert_eq!(refused, AppendOutcome::Unavailable(Unavailable::Closed));
    assert_eq!(log.claim(stream(1)).await, Err(Unavailable::Closed));
    assert_eq!(log.refusal(), Some(Unavailable::Closed));
    assert_eq!(history(&*log, stream(1)).len(), 1, "what is durable stays readable");
}

pub(super) async fn closing_twice_is_closing_once(harness: &mut dyn Harness) {
    let log = harness.log();
    extend(&*log, stream(1), [event(1)]).await;
    log.close().await;
    log.close().await;
    drop(log);
    harness.reopen().await;
    assert_eq!(harness.log().durable(), Position::new(1));
}

pub(super) async fn appends_in_flight_at_a_crash_are_there_whole_or_not_at_all(harness: &mut dyn Harness) {
    let waiting: Vec<_> = {
        let log = harness.log();
        let mut waiting = Vec::new();
        for number in 1..=10 {
            let epoch = claim(&*log, stream(number)).await;
            waiting.push(log.append(append(stream(number), epoch, 0, [event(1), event(2), event(3)])));
        }
        waiting
    };
    harness.crash();
    let log = harness.log();
    for (outcome, number) in join_all(waiting).await.into_iter().zip(1..) {
        let length = history(&*log, stream(number)).len();
        match outcome {
            AppendOutcome::Appended { .. } => assert_eq!(length, 3),
            AppendOutcome::Unavailable(_) => assert_eq!(length, 0),
            AppendOutcome::Unknown => assert!(length == 0 || length == 3, "{length} of 3 events"),
            other => panic!("the only owner neither conflicts nor is fenced: {other:?}"),
        }
    }
    assert_sound(&*log);
}

pub(super) async fn many_reopenings_keep_history_gapless(harness: &mut dyn Harness) {
    for round in 0..8 {
        extend(&*harness.log(), stream(round % 3), [event(round)]).await;
        if round % 2 == 0 {
            harness.reopen().await;
        } else {
            harness.crash();
        }
        assert_eq!(harness.log().durable(), Position::new(round + 1));
    }
    assert_sound(&*harness.log());
}
