//! Cases about what an append may do.

use super::Harness;
use super::shape::{append, assert_sound, claim, event, everything, extend, history, sized_event, stream};
use crate::types::{
    AppendContext, AppendOutcome, Cause, CodecId, Head, LIMITS, NewEvent, Position, StreamId, StreamKind,
    TraceContext, Unavailable, Version,
};
use bytes::Bytes;
use futures::future::join_all;

pub(super) async fn an_empty_log_has_neither_head_nor_records(harness: &mut dyn Harness) {
    let log = harness.log();
    assert_eq!(log.durable(), Position::ZERO);
    assert_eq!(log.head(stream(1)), Head::default());
    assert_eq!(everything(&*log), []);
    assert_eq!(history(&*log, stream(1)), []);
    assert_eq!(log.refusal(), None);
    assert_eq!(log.quarantined(), []);
}

pub(super) async fn positions_and_versions_run_gapless_from_one(harness: &mut dyn Harness) {
    let log = harness.log();
    for round in 0..5 {
        for number in 1..=3 {
            let (first, last) = extend(&*log, stream(number), [event(round)]).await;
            assert_eq!(first, last);
            assert_eq!(first.get(), round * 3 + number);
        }
    }
    assert_eq!(log.head(stream(2)).version, Version::new(5));
    assert_sound(&*log);
}

pub(super) async fn an_append_of_many_events_is_one_run_of_positions(harness: &mut dyn Harness) {
    let log = harness.log();
    extend(&*log, stream(1), [event(0)]).await;
    let events = (0..LIMITS.append_events_max as u64).map(event);
    let (first, last) = extend(&*log, stream(2), events).await;
    assert_eq!((first, last), (Position::new(2), Position::new(1 + LIMITS.append_events_max as u64)));
    let count = LIMITS.append_events_max as u16;
    for (record, index) in history(&*log, stream(2)).iter().zip(0u16..) {
        assert_eq!(record.index, (index, count));
    }
    assert_sound(&*log);
}

pub(super) async fn a_wrong_expected_version_conflicts_and_leaves_no_trace(harness: &mut dyn Harness) {
    let log = harness.log();
    extend(&*log, stream(1), [event(1), event(2)]).await;
    let before = everything(&*log);
    let epoch = log.epoch(stream(1));
    let outcome = log.append(append(stream(1), epoch, 1, [event(3)])).await;
    assert_eq!(outcome, AppendOutcome::Conflict { actual: Version::new(2) });
    assert_eq!(everything(&*log), before);
    assert_eq!(log.head(stream(1)).version, Version::new(2));
    assert_sound(&*log);
}

pub(super) async fn an_expected_version_ahead_of_the_head_conflicts(harness: &mut dyn Harness) {
    let log = harness.log();
    let epoch = claim(&*log, stream(1)).await;
    for ahead in [1, 7, u64::MAX] {
        let outcome = log.append(append(stream(1), epoch, ahead, [event(1)])).await;
        assert_eq!(outcome, AppendOutcome::Conflict { actual: Version::ZERO });
    }
    assert_eq!(log.durable(), Position::ZERO);
}

fn full_context() -> AppendContext {
    AppendContext {
        actor: Bytes::from(vec![7; LIMITS.actor_bytes_max]),
        request: Some([1; 16]),
        saga: Some(([2; 16], 3)),
        trace: Some(TraceContext { trace_id: [4; 16], span_id: [5; 8], flags: 1 }),
        build: Bytes::from(vec![8; LIMITS.build_bytes_max]),
        input: Bytes::from_static(b"what was decided on"),
    }
}

pub(super) async fn a_record_comes_back_as_it_was_appended(harness: &mut dyn Harness) {
    let stream = StreamId::new(StreamKind(255), [0xab; 16]);
    {
        let log = harness.log();
        extend(&*log, super::shape::stream(9), [event(1)]).await;
        let epoch = claim(&*log, stream).await;
        let event = NewEvent {
            kind: u16::MAX,
            schema: 513,
            codec: CodecId(9),
            time_us: u64::MAX,
            cause: Cause::Position(Position::new(1)),
            payload: Bytes::from_static(&[0, 255, 1, 254]),
        };
        log.append(crate::Append { context: full_context(), ..append(stream, epoch, 0, [event]) }).await;
    }
    harness.reopen().await;
    let read = history(&*harness.log(), stream);
    assert_eq!(read.len(), 1);
    let record = &read[0];
    assert_eq!((record.position, record.previous), (Position::new(2), Position::ZERO));
    assert_eq!((record.stream, record.version), (stream, Version::new(1)));
    assert_eq!((record.kind, record.schema, record.codec), (u16::MAX, 513, CodecId(9)));
    assert_eq!((record.time_us, record.cause, record.index), (u64::MAX, Position::new(1), (0, 1)));
    assert_eq!(record.context, Some(full_context()));
    assert_eq!(record.payload, Bytes::from_static(&[0, 255, 1, 254]));
}

pub(super) async fn the_context_is_kept_with_the_first_event_only(harness: &mut dyn Harness) {
    let log = harness.log();
    let epoch = claim(&*log, stream(1)).await;
    let events = [event(1), event(2), event(3)];
    log.append(crate::Append { context: full_context(), ..append(stream(1), epoch, 0, events) }).await;
    let contexts: Vec<_> = history(&*log, stream(1)).into_iter().map(|record| record.context).collect();
    assert_eq!(contexts, [Some(full_context()), None, None]);
}

pub(super) async fn a_cause_in_the_same_append_becomes_its_position(harness: &mut dyn Harness) {
    let log = harness.log();
    extend(&*log, stream(2), [event(0)]).await;
    let caused = |number, cause| NewEvent { cause, ..event(number) };
    let events = [
        caused(1, Cause::Position(Position::new(1))),
        caused(2, Cause::InAppend(0)),
        caused(3, Cause::InAppend(1)),
        caused(4, Cause::None),
    ];
    extend(&*log, stream(1), events).await;
    let causes: Vec<u64> = history(&*log, stream(1)).iter().map(|record| record.cause.get()).collect();
    assert_eq!(causes, [1, 2, 3, 0]);
}

pub(super) async fn a_cause_that_is_not_before_its_event_is_refused(harness: &mut dyn Harness) {
    let log = harness.log();
    let epoch = claim(&*log, stream(1)).await;
    for cause in [0, 1, 9] {
        let own = NewEvent { cause: Cause::InAppend(cause), ..event(1) };
        let outcome = log.append(append(stream(1), epoch, 0, [own, event(2)])).await;
        assert!(matches!(outcome, AppendOutcome::Unavailable(Unavailable::TooLarge(_))), "{outcome:?}");
    }
    assert_eq!(log.durable(), Position::ZERO);
}

pub(super) async fn limits_refuse_without_trace(harness: &mut dyn Harness) {
    let log = harness.log();
    let epoch = claim(&*log, stream(1)).await;
    let with = |context| crate::Append { context, ..append(stream(1), epoch, 0, [event(1)]) };
    let too_long = |bytes: usize| Bytes::from(vec![0; bytes + 1]);
    let reserved = StreamId::new(StreamKind(0), [1; 16]);
    let table = [
        append(stream(1), epoch, 0, []),
        append(stream(1), epoch, 0, (0..=LIMITS.append_events_max as u64).map(event)),
        append(stream(1), epoch, 0, [sized_event(1, LIMITS.record_bytes_max)]),
        append(stream(1), epoch, 0, (0..5).map(|n| sized_event(n, LIMITS.record_bytes_max - 500))),
        append(reserved, epoch, 0, [event(1)]),
        with(AppendContext { actor: too_long(LIMITS.actor_bytes_max), ..AppendContext::default() }),
        with(AppendContext { build: too_long(LIMITS.build_bytes_max), ..AppendContext::default() }),
        with(AppendContext { input: too_long(LIMITS.record_bytes_max), ..AppendContext::default() }),
    ];
    for (row, append) in table.into_iter().enumerate() {
        let outcome = log.append(append).await;
        assert!(
            matches!(outcome, AppendOutcome::Unavailable(Unavailable::TooLarge(_))),
            "row {row}: {outcome:?}"
        );
        assert_eq!(log.durable(), Position::ZERO, "row {row}");
    }
    extend(&*log, stream(1), [event(1)]).await;
    assert_sound(&*log);
}

pub(super) async fn the_largest_record_and_append_are_accepted(harness: &mut dyn Harness) {
    // 92 bytes: envelope, checksum and an empty context.
    let largest = LIMITS.record_bytes_max - 92;
    {
        let log = harness.log();
        extend(&*log, stream(1), [sized_event(1, largest)]).await;
        extend(&*log, stream(1), (0..4).map(|number| sized_event(number, largest))).await;
        extend(&*log, stream(2), [event(1)]).await;
        assert_sound(&*log);
    }
    harness.crash();
    assert_sound(&*harness.log());
    assert_eq!(history(&*harness.log(), stream(1)).len(), 5);
}

pub(super) async fn appends_to_one_stream_in_flight_together_see_each_other(harness: &mut dyn Harness) {
    let log = harness.log();
    let epoch = claim(&*log, stream(1)).await;
    // All are queued before any is awaited: they may share one group commit.
    let in_order = (0..20).map(|version| log.append(append(stream(1), epoch, version, [event(version)])));
    let twice = [log.append(append(stream(1), epoch, 0, [event(99)]))];
    let outcomes = join_all(twice.into_iter().chain(in_order)).await;
    let conflicts =
        outcomes.iter().filter(|outcome| matches!(outcome, AppendOutcome::Conflict { .. })).count();
    assert_eq!(conflicts, 1, "two named version 0; one of them lost");
    assert_eq!(log.head(stream(1)).version, Version::new(20));
    assert_sound(&*log);
}

pub(super) async fn an_empty_payload_is_an_event(harness: &mut dyn Harness) {
    let empty = NewEvent { payload: Bytes::new(), ..event(1) };
    extend(&*harness.log(), stream(1), [empty.clone(), empty]).await;
    harness.reopen().await;
    let read = history(&*harness.log(), stream(1));
    assert_eq!(read.len(), 2);
    assert!(read.iter().all(|record| record.payload.is_empty()));
}
