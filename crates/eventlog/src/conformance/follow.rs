//! Cases about followers and the durable edge.

use super::Harness;
use super::shape::{event, everything, extend, sized_event, stream};
use crate::types::{Position, Record, Unavailable};
use futures::{FutureExt, StreamExt};

async fn take(follower: &mut crate::Follower, count: usize) -> Vec<Record> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(follower.next().await.expect("the log is open").expect("the log is readable"));
    }
    taken
}

pub(super) async fn a_follower_starts_at_any_position(harness: &mut dyn Harness) {
    for number in 0..10 {
        extend(&*harness.log(), stream(number % 2), [event(number)]).await;
    }
    for _ in 0..2 {
        let log = harness.log();
        let all = everything(&*log);
        for from in 0..=10u64 {
            let skip = from.max(1) as usize - 1;
            let taken = take(&mut log.follow(Position::new(from)), 10 - skip).await;
            assert_eq!(taken, all[skip..], "from {from}");
        }
        harness.reopen().await;
    }
}

pub(super) async fn a_follower_crosses_the_durable_edge_without_gap(harness: &mut dyn Harness) {
    let log = harness.log();
    let mut follower = log.follow(Position::new(1));
    assert!(follower.next().now_or_never().is_none(), "there is nothing yet");
    let mut seen = Vec::new();
    for number in 0..50u64 {
        extend(&*log, stream(number % 4), (0..=number % 3).map(|n| sized_event(n, 2_000))).await;
        let fresh = 1 + (number % 3) as usize;
        seen.extend(take(&mut follower, fresh).await);
        assert!(follower.next().now_or_never().is_none(), "nothing lies beyond the durable end");
    }
    assert_eq!(seen, everything(&*log));
}

pub(super) async fn a_follower_ends_when_the_log_closes(harness: &mut dyn Harness) {
    let log = harness.log();
    extend(&*log, stream(1), [event(1)]).await;
    let mut late = log.follow(Position::new(5));
    let mut follower = log.follow(Position::new(1));
    log.close().await;
    assert_eq!(take(&mut follower, 1).await.len(), 1, "what is durable is still told");
    assert_eq!(follower.next().await, None);
    assert_eq!(late.next().await, None);
}

pub(super) async fn two_followers_see_the_same(harness: &mut dyn Harness) {
    let log = harness.log();
    let mut early = log.follow(Position::new(1));
    for number in 0..20 {
        extend(&*log, stream(number), [event(number)]).await;
    }
    let mut late = log.follow(Position::new(1));
    assert_eq!(take(&mut early, 20).await, take(&mut late, 20).await);
}

pub(super) async fn waiting_for_a_durable_position_resolves(harness: &mut dyn Harness) {
    let log = harness.log();
    let waiting = log.wait_durable(Position::new(2));
    extend(&*log, stream(1), [event(1), event(2)]).await;
    assert_eq!(waiting.await, Ok(()));
    assert_eq!(log.wait_durable(Position::new(1)).await, Ok(()));
    assert_eq!(log.wait_durable(Position::ZERO).await, Ok(()));
}

pub(super) async fn waiting_for_a_position_that_never_comes_ends_with_the_log(harness: &mut dyn Harness) {
    let log = harness.log();
    let waiting = log.wait_durable(Position::new(1));
    log.close().await;
    assert_eq!(waiting.await, Err(Unavailable::Closed));
}
