//! The way in: events and context become one append.
//!
//! Invariants:
//! * recorded times of a stream rise strictly, by at least one microsecond;
//! * the first event is caused by what the context says, every following one by the first;
//! * a rehearsal becomes no append;
//! * what is built here is within the limits of the log, or is refused here.

use crate::actor::step_number;
use crate::context::Context;
use crate::event::{Event, encode_event, event_name};
use crate::noted::encode_noted;
use crate::stream::StreamName;
use bytes::Bytes;
use eventlog::{Append, AppendContext, Cause, Epoch, LIMITS, NewEvent, Position, Version};
use lifecycle::{Span, Timestamp};

/// An append that the log would refuse whenever it is tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// There is nothing to append.
    #[error("an append to {0} has no events: append nothing instead")]
    NoEvents(StreamName),
    /// One decision has too many events.
    #[error("an append to {stream} has {events} events, at most {} fit: one input decided too much", LIMITS.append_events_max)]
    Events {
        /// The stream.
        stream: StreamName,
        /// How many there are.
        events: usize,
    },
    /// One event, with the context if it is the first, is too big.
    #[error(
        "{event} to {stream} takes {bytes} bytes, at most {} fit: a text in it is not bounded where it comes in",
        RECORD_BYTES_MAX
    )]
    Event {
        /// The stream.
        stream: StreamName,
        /// What it is called.
        event: &'static str,
        /// Its bytes, envelope excluded.
        bytes: usize,
    },
}

/// Most bytes of an event and its context: a record less generous room for its envelope.
const RECORD_BYTES_MAX: usize = LIMITS.record_bytes_max - ENVELOPE_BYTES_MAX;

/// Fixed fields, checksum and the fixed parts of a context; the log checks the exact sum.
const ENVELOPE_BYTES_MAX: usize = 256;

const TICK: Span = Span::from_micros(1);

/// Builds the append of `events` to `stream`: `last` is the recorded time of the stream's head, `now` the
/// clock; a build name longer than [`eventlog::Limits::build_bytes_max`] is cut.
#[expect(
    clippy::too_many_arguments,
    reason = "an append is these eight facts; a struct would be built to be taken apart"
)]
pub fn append(
    stream: StreamName,
    epoch: Epoch,
    expected: Version,
    events: &[Event],
    context: &Context,
    now: Timestamp,
    last: Timestamp,
    build: &str,
) -> Result<Append, TooLarge> {
    assert!(!context.is_rehearsal, "whoever rehearses does not append");
    if events.is_empty() {
        return Err(TooLarge::NoEvents(stream));
    }
    if events.len() > LIMITS.append_events_max {
        return Err(TooLarge::Events { stream, events: events.len() });
    }
    let recorded = append_context(context, build);
    let mut context_bytes = recorded.actor.len() + recorded.build.len() + recorded.input.len();
    let mut cause = context.cause.map_or(Cause::None, |position| Cause::Position(Position::new(position)));
    let mut time = now.strictly_after(last);
    let mut new_events = Vec::with_capacity(events.len());
    for event in events {
        let encoded = encode_event(event);
        let bytes = encoded.payload.len() + context_bytes;
        if bytes > RECORD_BYTES_MAX {
            return Err(TooLarge::Event { stream, event: event_name(event), bytes });
        }
        new_events.push(NewEvent {
            kind: encoded.kind.kind,
            schema: encoded.kind.schema,
            codec: encoded.codec,
            time_us: time.micros(),
            cause,
            payload: encoded.payload,
        });
        context_bytes = 0;
        cause = Cause::InAppend(0);
        time = time + TICK;
    }
    Ok(Append { stream: stream.id(), epoch, expected, events: new_events, context: recorded })
}

fn append_context(context: &Context, build: &str) -> AppendContext {
    let build = &build[..build.floor_char_boundary(LIMITS.build_bytes_max)];
    AppendContext {
        actor: context.actor.encode(),
        request: context.request.map(|id| id.uuid().into_bytes()),
        saga: context.saga.map(|(id, step)| (id.uuid().into_bytes(), step_number(step))),
        trace: context.trace,
        build: Bytes::copy_from_slice(build.as_bytes()),
        input: encode_noted(context.reason.as_deref(), context.input.as_ref()),
    }
}
