//! The gate every append passes, whatever stands behind it: first its size, then its owner, then its version.
//!
//! Invariants:
//! * a refusal leaves no trace: nothing here changes anything;
//! * limits come before ownership, ownership before version, so that equal inputs get equal answers from
//!   every implementation;
//! * only the epoch of the newest claim passes. An epoch the log has not minted for this stream since it
//!   was opened is not an owner's either: whoever holds one must claim again.

use crate::record;
use crate::types::{
    Append, AppendOutcome, Cause, Epoch, Head, LIMITS, Position, Record, StreamKind, Unavailable, Version,
};

/// What the log holds about a stream in memory: 24 bytes beside its 17-byte name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owned {
    /// Newest event.
    pub(crate) head: Head,
    /// Newest claim; zero if there was none since opening.
    pub(crate) epoch: Epoch,
}

/// Checks the limits of the format and answers the number of bytes the append's records will take.
pub(crate) fn admit(append: &Append) -> Result<usize, Unavailable> {
    let refuse = |why: String| Err(Unavailable::TooLarge(why));
    let events = append.events.len();
    if append.stream.kind == StreamKind(0) {
        return refuse("stream kind 0 is reserved; name another".into());
    }
    if events == 0 || events > LIMITS.append_events_max {
        return refuse(format!("{events} events; an append holds 1 to {}", LIMITS.append_events_max));
    }
    let context = &append.context;
    if context.actor.len() > LIMITS.actor_bytes_max {
        return refuse(format!(
            "an actor of {} bytes; at most {}",
            context.actor.len(),
            LIMITS.actor_bytes_max
        ));
    }
    if context.build.len() > LIMITS.build_bytes_max {
        return refuse(format!(
            "a build of {} bytes; at most {}",
            context.build.len(),
            LIMITS.build_bytes_max
        ));
    }
    let mut total = 0usize;
    for (index, event) in append.events.iter().enumerate() {
        if let Cause::InAppend(cause) = event.cause
            && usize::from(cause) >= index
        {
            return refuse(format!("event {index} names event {cause} as its cause, which is not before it"));
        }
        let bytes = record::encoded_len(event.payload.len(), (index == 0).then_some(context));
        if bytes > LIMITS.record_bytes_max {
            let max = LIMITS.record_bytes_max;
            return refuse(format!("event {index} makes a record of {bytes} bytes; at most {max}"));
        }
        total += bytes;
    }
    if total > LIMITS.batch_bytes_max {
        return refuse(format!("{total} bytes in one append; at most {}", LIMITS.batch_bytes_max));
    }
    Ok(total)
}

/// Decides whether an admitted append may follow `owned`; `None` means that it may.
pub(crate) fn judge(owned: Owned, append: &Append) -> Option<AppendOutcome> {
    if append.epoch != owned.epoch {
        return Some(AppendOutcome::Fenced { current: owned.epoch });
    }
    if append.expected != owned.head.version {
        return Some(AppendOutcome::Conflict { actual: owned.head.version });
    }
    None
}

/// Turns an append that passed into records from position `first` on, and answers its outcome and the new
/// head of its stream. Payloads and context are moved out of it, not copied.
pub(crate) fn place(
    append: &mut Append,
    owned: Owned,
    first: Position,
    out: &mut Vec<Record>,
) -> (AppendOutcome, Head) {
    assert!(!append.events.is_empty(), "admitted appends hold an event");
    assert_eq!(append.expected, owned.head.version, "judged appends extend the head");
    let count = u16::try_from(append.events.len()).expect("admitted appends hold at most 256 events");
    let mut context = Some(std::mem::take(&mut append.context));
    let mut head = owned.head;
    for (index, event) in (0u16..).zip(append.events.drain(..)) {
        let position = Position::new(first.get() + u64::from(index));
        let cause = match event.cause {
            Cause::None => Position::ZERO,
            Cause::Position(position) => position,
            Cause::InAppend(earlier) => Position::new(first.get() + u64::from(earlier)),
        };
        let version = head.version.next();
        out.push(Record {
            position,
            stream: append.stream,
            version,
            previous: head.position,
            cause,
            kind: event.kind,
            schema: event.schema,
            codec: event.codec,
            time_us: event.time_us,
            index: (index, count),
            context: context.take(),
            payload: event.payload,
        });
        head = Head { version, position };
    }
    (AppendOutcome::Appended { first, last: head.position, version: head.version }, head)
}

/// Cuts a read to what it asked for: the index of the first record at or after `from` among records whose
/// positions are gapless and start at `first`.
pub(crate) fn skip_to(first: Position, from: Position) -> usize {
    usize::try_from(from.get().saturating_sub(first.get())).unwrap_or(usize::MAX)
}

/// Proves that a stream's records run gapless from version `from`, each pointing back at the one before.
pub(crate) fn contiguous(records: &[Record], from: Version) -> bool {
    records.iter().zip(from.get()..).all(|(record, version)| record.version.get() == version)
        && records.windows(2).all(|pair| pair[1].previous == pair[0].position)
}
