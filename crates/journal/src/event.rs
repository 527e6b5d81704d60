//! Events of all streams as one type, and their way to and from bytes.

use crate::codec::{CODEC, Malformed};
use crate::error::DecodeProblem;
use crate::events::{instance, project, sled, system};
use crate::upcast::upcast;
use bytes::Bytes;
use eventlog::CodecId;
use lifecycle::{InstanceEvent, ProjectEvent, SledEvent, SystemEvent};

/// An event of any stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Of `instance/<id>`.
    Instance(InstanceEvent),
    /// Of `project/<id>`.
    Project(ProjectEvent),
    /// Of `sled/<id>`.
    Sled(SledEvent),
    /// Of `system`.
    System(SystemEvent),
}

/// One line of the table of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventKind {
    /// Its number, stored with every event; never given to another.
    pub kind: u16,
    /// Its newest schema, from 1: the one that is written.
    pub schema: u16,
    /// What people read.
    pub name: &'static str,
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent {
    /// Kind, newest schema and name.
    pub kind: EventKind,
    /// The codec of the payload.
    pub codec: CodecId,
    /// The bytes.
    pub payload: Bytes,
}

macro_rules! from {
    ($($variant:ident: $event:ident),*) => {$(
        impl From<$event> for Event {
            fn from(event: $event) -> Self {
                Self::$variant(event)
            }
        }
    )*};
}

from!(Instance: InstanceEvent, Project: ProjectEvent, Sled: SledEvent, System: SystemEvent);

impl Event {
    /// Kind, newest schema and name.
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Instance(event) => instance::kind_of(event),
            Self::Project(event) => project::kind_of(event),
            Self::Sled(event) => sled::kind_of(event),
            Self::System(event) => system::kind_of(event),
        }
    }
}

/// What people call the event, such as `StartBegan`.
pub const fn event_name(event: &Event) -> &'static str {
    event.kind().name
}

/// Every event there is, with its newest schema, in order of its number.
pub fn event_kinds() -> impl Iterator<Item = EventKind> {
    [instance::KINDS, project::KINDS, sled::KINDS, system::KINDS].into_iter().flatten().copied()
}

/// The event in the newest layout of its kind.
pub fn encode_event(event: &Event) -> EncodedEvent {
    let payload = match event {
        Event::Instance(event) => instance::encode(event),
        Event::Project(event) => project::encode(event),
        Event::Sled(event) => sled::encode(event),
        Event::System(event) => system::encode(event),
    };
    EncodedEvent { kind: event.kind(), codec: CODEC, payload }
}

/// The event that was stored under these numbers, in whatever released layout.
pub fn decode_event(kind: u16, schema: u16, codec: CodecId, payload: &[u8]) -> Result<Event, DecodeProblem> {
    if codec != CODEC {
        return Err(DecodeProblem::UnknownCodec(codec));
    }
    let known = event_kinds().find(|known| known.kind == kind).ok_or(DecodeProblem::UnknownKind)?.schema;
    if schema > known {
        return Err(DecodeProblem::NewerSchema { known });
    }
    let decoded = if schema == known { newest(kind, payload) } else { upcast(kind, schema, payload) };
    decoded
        .ok_or_else(|| {
            DecodeProblem::Malformed(format!("schema {schema} of kind {kind} was never released"))
        })?
        .map_err(|malformed| DecodeProblem::Malformed(malformed.to_string()))
}

fn newest(kind: u16, payload: &[u8]) -> Option<Result<Event, Malformed>> {
    instance::decode(kind, payload)
        .map(|decoded| decoded.map(Event::from))
        .or_else(|| project::decode(kind, payload).map(|decoded| decoded.map(Event::from)))
        .or_else(|| sled::decode(kind, payload).map(|decoded| decoded.map(Event::from)))
        .or_else(|| system::decode(kind, payload).map(|decoded| decoded.map(Event::from)))
}
