//! The way out: a record becomes an event with its place, time and context.

use crate::actor::step_of;
use crate::context::{Actor, RecordedContext};
use crate::error::{DecodeError, DecodeProblem};
use crate::event::{Event, decode_event};
use crate::noted::decode_noted;
use crate::stream::StreamName;
use eventlog::{AppendContext, Record};
use lifecycle::{EventMeta, InstanceEvent, ProjectEvent, RequestId, SagaId, SledEvent, Timestamp};
use uuid::Uuid;

/// An event as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its stream.
    pub stream: StreamName,
    /// Place and time.
    pub meta: EventMeta,
    /// Position of the event that caused it; zero if none did.
    pub cause: u64,
    /// Index within its append, and the number of events in that append.
    pub index: (u16, u16),
    /// What happened.
    pub event: Event,
    /// Who and why; present on the first event of each append.
    pub context: Option<RecordedContext>,
}

/// Reads a record; an error names it.
pub fn read(record: &Record) -> Result<Recorded, DecodeError> {
    parts(record).map_err(|problem| DecodeError {
        position: record.position,
        stream: record.stream,
        kind: record.kind,
        schema: record.schema,
        problem,
    })
}

fn parts(record: &Record) -> Result<Recorded, DecodeProblem> {
    let stream = StreamName::parse(record.stream).ok_or(DecodeProblem::UnknownStream)?;
    let event = decode_event(record.kind, record.schema, record.codec, &record.payload)?;
    if !belongs(&event, stream) {
        return Err(DecodeProblem::WrongStream);
    }
    let meta = EventMeta {
        version: record.version.get(),
        position: record.position.get(),
        time: Timestamp::from_micros(record.time_us),
    };
    let context = record.context.as_ref().map(read_context).transpose()?;
    Ok(Recorded { stream, meta, cause: record.cause.get(), index: record.index, event, context })
}

/// Whether the event is of the stream's sort, and about its entity where it says so.
fn belongs(event: &Event, stream: StreamName) -> bool {
    match (event, stream) {
        (Event::Instance(InstanceEvent::Created { id, .. }), StreamName::Instance(of)) => *id == of,
        (Event::Project(ProjectEvent::Created { id, .. }), StreamName::Project(of)) => *id == of,
        (Event::Sled(SledEvent::Registered { id, .. }), StreamName::Sled(of)) => *id == of,
        (Event::Instance(_), StreamName::Instance(_))
        | (Event::Project(_), StreamName::Project(_))
        | (Event::Sled(_), StreamName::Sled(_))
        | (Event::System(_), StreamName::System) => true,
        (Event::Instance(_) | Event::Project(_) | Event::Sled(_) | Event::System(_), _) => false,
    }
}

fn read_context(context: &AppendContext) -> Result<RecordedContext, DecodeProblem> {
    let malformed = |what: &str| DecodeProblem::Malformed(format!("context: {what}"));
    let saga = match context.saga {
        None => None,
        Some((id, step)) => {
            let step = step_of(step).ok_or_else(|| malformed("its saga step has no such number"))?;
            Some((SagaId::new(Uuid::from_bytes(id)), step))
        }
    };
    let build = std::str::from_utf8(&context.build).map_err(|_| malformed("its build is not UTF-8"))?;
    let (reason, input) = decode_noted(&context.input)?;
    Ok(RecordedContext {
        actor: Actor::decode(&context.actor),
        request: context.request.map(|id| RequestId::new(Uuid::from_bytes(id))),
        saga,
        trace: context.trace,
        build: build.to_owned(),
        input,
        reason,
    })
}
