//! Cases about ownership, fencing and writers in competition.

use super::Harness;
use super::shape::{append, assert_sound, claim, event, extend, history, stream};
use crate::types::{AppendOutcome, Epoch, Position, Version};
use futures::future::join_all;

pub(super) async fn a_claim_mints_a_larger_epoch_each_time(harness: &mut dyn Harness) {
    let log = harness.log();
    let mut last = Epoch::ZERO;
    for number in [1, 2, 1, 1, 3] {
        let epoch = claim(&*log, stream(number)).await;
        assert!(epoch > last);
        assert_eq!(log.epoch(stream(number)), epoch);
        last = epoch;
    }
}

pub(super) async fn a_claim_fences_the_owner_before_it(harness: &mut dyn Harness) {
    let log = harness.log();
    let earlier = claim(&*log, stream(1)).await;
    let later = claim(&*log, stream(1)).await;
    let outcome = log.append(append(stream(1), earlier, 0, [event(1)])).await;
    assert_eq!(outcome, AppendOutcome::Fenced { current: later });
    assert_eq!(log.durable(), Position::ZERO);
    let outcome = log.append(append(stream(1), later, 0, [event(1)])).await;
    assert!(matches!(outcome, AppendOutcome::Appended { .. }));
}

pub(super) async fn fencing_comes_before_the_version(harness: &mut dyn Harness) {
    let log = harness.log();
    let earlier = claim(&*log, stream(1)).await;
    extend(&*log, stream(1), [event(1)]).await;
    let outcome = log.append(append(stream(1), earlier, 0, [event(2)])).await;
    assert!(matches!(outcome, AppendOutcome::Fenced { .. }), "a fenced owner learns that first: {outcome:?}");
}

pub(super) async fn an_epoch_that_was_never_minted_owns_nothing(harness: &mut dyn Harness) {
    let log = harness.log();
    let epoch = claim(&*log, stream(1)).await;
    for stranger in [Epoch::ZERO, epoch.next(), Epoch::new(u64::MAX)] {
        let outcome = log.append(append(stream(1), stranger, 0, [event(1)])).await;
        assert_eq!(outcome, AppendOutcome::Fenced { current: epoch });
    }
    assert_eq!(log.durable(), Position::ZERO);
}

pub(super) async fn a_claim_of_one_stream_leaves_others_alone(harness: &mut dyn Harness) {
    let log = harness.log();
    let epoch = claim(&*log, stream(1)).await;
    claim(&*log, stream(2)).await;
    let outcome = log.append(append(stream(1), epoch, 0, [event(1)])).await;
    assert!(matches!(outcome, AppendOutcome::Appended { .. }));
}

pub(super) async fn a_claim_sees_every_append_queued_before_it(harness: &mut dyn Harness) {
    let log = harness.log();
    let dead = claim(&*log, stream(1)).await;
    let in_flight: Vec<_> =
        (0..10).map(|version| log.append(append(stream(1), dead, version, [event(1)]))).collect();
    let barrier = log.claim(stream(1));
    let too_late = log.append(append(stream(1), dead, 10, [event(1)]));
    let claim = barrier.await.expect("the log accepts claims");
    assert_eq!(claim.head.version, Version::new(10));
    assert_eq!(log.head(stream(1)), claim.head, "what a claim answers is durable");
    assert_eq!(too_late.await, AppendOutcome::Fenced { current: claim.epoch });
    for outcome in join_all(in_flight).await {
        assert!(matches!(outcome, AppendOutcome::Appended { .. }));
    }
}

pub(super) async fn of_two_owners_racing_one_wins(harness: &mut dyn Harness) {
    let log = harness.log();
    for version in 0..20u64 {
        let epoch = claim(&*log, stream(1)).await;
        let racing = (0..4).map(|number| log.append(append(stream(1), epoch, version, [event(number)])));
        let outcomes = join_all(racing).await;
        let winners =
            outcomes.iter().filter(|outcome| matches!(outcome, AppendOutcome::Appended { .. })).count();
        let actual = Version::new(version + 1);
        let losers =
            outcomes.iter().filter(|&outcome| *outcome == AppendOutcome::Conflict { actual }).count();
        assert_eq!((winners, losers), (1, 3), "{outcomes:?}");
    }
    assert_sound(&*log);
}

pub(super) async fn many_writers_on_many_streams_interleave_without_gaps(harness: &mut dyn Harness) {
    const WRITERS: u64 = 40;
    const APPENDS: u64 = 25;
    {
        let log = harness.log();
        let writers = (1..=WRITERS).map(|number| {
            let log = log.clone();
            async move {
                let epoch = claim(&*log, stream(number)).await;
                for append_number in 0..APPENDS {
                    let events = [event(append_number), event(append_number)];
                    let outcome = log.append(append(stream(number), epoch, append_number * 2, events)).await;
                    assert!(matches!(outcome, AppendOutcome::Appended { .. }), "{outcome:?}");
                }
            }
        });
        join_all(writers).await;
        assert_eq!(log.durable().get(), WRITERS * APPENDS * 2);
        assert_sound(&*log);
    }
    harness.crash();
    assert_eq!(harness.log().durable().get(), WRITERS * APPENDS * 2);
    assert_sound(&*harness.log());
}

pub(super) async fn epochs_are_forgotten_when_the_log_is_opened_again(harness: &mut dyn Harness) {
    let before = claim(&*harness.log(), stream(1)).await;
    extend(&*harness.log(), stream(2), [event(1)]).await;
    harness.reopen().await;
    let log = harness.log();
    assert_eq!(log.epoch(stream(1)), Epoch::ZERO);
    let late = log.append(append(stream(1), before, 0, [event(1)])).await;
    assert!(matches!(late, AppendOutcome::Fenced { .. }), "{late:?}");
    extend(&*log, stream(1), [event(1)]).await;
    assert_eq!(history(&*log, stream(1)).len(), 1);
}
