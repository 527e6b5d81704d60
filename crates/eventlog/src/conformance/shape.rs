//! Short constructors for tests over a log.

use crate::log::Log;
use crate::types::{
    Append, AppendContext, AppendOutcome, Cause, CodecId, Epoch, NewEvent, Position, Record, StreamId,
    StreamKind, Version,
};
use bytes::Bytes;

/// Stream number `number` of kind 1.
pub fn stream(number: u64) -> StreamId {
    let mut id = [0u8; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    StreamId::new(StreamKind(1), id)
}

/// A small event whose payload tells `number`.
pub fn event(number: u64) -> NewEvent {
    sized_event(number, 24)
}

/// An event whose payload tells `number` and has `bytes` bytes (at least 8).
pub fn sized_event(number: u64, bytes: usize) -> NewEvent {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(bytes.max(8), number as u8);
    NewEvent {
        kind: 1,
        schema: 1,
        codec: CodecId(1),
        time_us: 1_000_000 + number,
        cause: Cause::None,
        payload: Bytes::from(payload),
    }
}

/// An append without context.
pub fn append(
    stream: StreamId,
    epoch: Epoch,
    expected: u64,
    events: impl IntoIterator<Item = NewEvent>,
) -> Append {
    Append {
        stream,
        epoch,
        expected: Version::new(expected),
        events: events.into_iter().collect(),
        context: AppendContext::default(),
    }
}

/// Claims a stream of a log that accepts claims.
pub async fn claim(log: &dyn Log, stream: StreamId) -> Epoch {
    log.claim(stream).await.expect("the log accepts claims").epoch
}

/// Appends `events` at the head under a fresh claim and answers their first and last position.
pub async fn extend(
    log: &dyn Log,
    stream: StreamId,
    events: impl IntoIterator<Item = NewEvent>,
) -> (Position, Position) {
    let claim = log.claim(stream).await.expect("the log accepts claims");
    match log.append(append(stream, claim.epoch, claim.head.version.get(), events)).await {
        AppendOutcome::Appended { first, last, .. } => (first, last),
        other => panic!("an append at the head under a fresh claim succeeds, got {other:?}"),
    }
}

/// Every record of a log.
pub fn everything(log: &dyn Log) -> Vec<Record> {
    log.read_all(Position::new(1), usize::MAX).expect("the log is readable")
}

/// Every record of a stream.
pub fn history(log: &dyn Log, stream: StreamId) -> Vec<Record> {
    log.read_stream(stream, Version::new(1), usize::MAX).expect("the stream is readable")
}

/// Asserts what holds for every log at any time: gapless positions, gapless versions, back pointers, heads.
pub fn assert_sound(log: &dyn Log) {
    let records = everything(log);
    assert_eq!(records.len() as u64, log.durable().get(), "every durable position can be read");
    let mut heads = std::collections::BTreeMap::<StreamId, (Version, Position)>::new();
    for (record, position) in records.iter().zip(1u64..) {
        let head = heads.entry(record.stream).or_default();
        assert_eq!(record.position.get(), position, "positions are gapless");
        assert_eq!(record.version, head.0.next(), "versions of {} are gapless", record.stream);
        assert_eq!(record.previous, head.1, "back pointers of {} lead back", record.stream);
        assert_eq!(record.context.is_some(), record.index.0 == 0, "the first event carries the context");
        *head = (record.version, record.position);
    }
    for (stream, (version, position)) in heads {
        assert_eq!(log.head(stream), crate::types::Head { version, position });
        let own: Vec<&Record> = records.iter().filter(|record| record.stream == stream).collect();
        assert_eq!(history(log, stream).iter().collect::<Vec<_>>(), own, "both ways of reading agree");
    }
}
