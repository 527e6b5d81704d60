//! Cases about reading.

use super::Harness;
use super::shape::{assert_sound, event, everything, extend, history, stream};
use crate::types::{Position, Version};

pub(super) async fn a_stream_is_read_from_any_version_up_to_any_limit(harness: &mut dyn Harness) {
    for number in 0..12 {
        extend(&*harness.log(), stream(1 + number % 2), [event(number), event(number)]).await;
    }
    // Once from what is fresh, once from what was stored.
    for _ in 0..2 {
        let log = harness.log();
        let all = history(&*log, stream(1));
        assert_eq!(all.len(), 12);
        for from in 0..=14u64 {
            for limit in [0, 1, 2, 5, 12, 99] {
                let read = log.read_stream(stream(1), Version::new(from), limit).expect("readable");
                let skip = from.max(1) as usize - 1;
                let expected: Vec<_> = all.iter().skip(skip).take(limit).cloned().collect();
                assert_eq!(read, expected, "from {from} limit {limit}");
            }
        }
        harness.reopen().await;
    }
}

pub(super) async fn the_log_is_read_from_any_position_up_to_any_limit(harness: &mut dyn Harness) {
    for number in 0..6 {
        extend(&*harness.log(), stream(1 + number % 3), [event(number), event(number)]).await;
    }
    for _ in 0..2 {
        let log = harness.log();
        let all = everything(&*log);
        for from in 0..=14u64 {
            for limit in [0, 1, 3, 12, 99] {
                let read = log.read_all(Position::new(from), limit).expect("readable");
                let expected: Vec<_> =
                    all.iter().skip(from.max(1) as usize - 1).take(limit).cloned().collect();
                assert_eq!(read, expected, "from {from} limit {limit}");
            }
        }
        harness.reopen().await;
    }
}

pub(super) async fn reading_beyond_the_end_is_empty(harness: &mut dyn Harness) {
    let log = harness.log();
    extend(&*log, stream(1), [event(1)]).await;
    for beyond in [2, 3, u64::MAX] {
        assert_eq!(log.read_all(Position::new(beyond), 10), Ok(vec![]));
        assert_eq!(log.read_stream(stream(1), Version::new(beyond), 10), Ok(vec![]));
    }
    assert_eq!(log.read_stream(stream(7), Version::new(1), 10), Ok(vec![]));
}

pub(super) async fn back_pointers_lead_through_the_stream(harness: &mut dyn Harness) {
    let log = harness.log();
    for number in 0..9 {
        extend(&*log, stream(number % 3), [event(number)]).await;
    }
    let mut position = log.head(stream(2)).position;
    let mut visited = vec![];
    while position != Position::ZERO {
        let read = log.read_all(position, 1).expect("readable");
        assert_eq!(read[0].stream, stream(2));
        visited.push(position.get());
        position = read[0].previous;
    }
    assert_eq!(visited, [9, 6, 3]);
}

pub(super) async fn streams_do_not_see_each_other(harness: &mut dyn Harness) {
    let log = harness.log();
    extend(&*log, stream(1), [event(1)]).await;
    extend(&*log, stream(2), [event(2), event(3)]).await;
    assert_eq!(history(&*log, stream(1)).len(), 1);
    assert_eq!(history(&*log, stream(2)).len(), 2);
    assert!(history(&*log, stream(2)).iter().all(|record| record.stream == stream(2)));
    assert_sound(&*log);
}

pub(super) async fn statistics_count_what_happened(harness: &mut dyn Harness) {
    let log = harness.log();
    extend(&*log, stream(1), [event(1), event(2)]).await;
    extend(&*log, stream(2), [event(3)]).await;
    let stats = log.stats();
    assert_eq!((stats.durable, stats.streams, stats.appends), (Position::new(3), 2, 2));
    assert!(stats.segments >= 1);
    assert!(stats.syncs >= 1 && stats.batches >= 1);
    assert!(stats.bytes >= 3 * 24, "at least the payloads: {}", stats.bytes);
}
