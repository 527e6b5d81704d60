//! Who did it and why: recorded once per append.

use eventlog::TraceContext;
use lifecycle::{Input, RequestId, SagaId, SledId, Step};
use std::fmt;

/// Longest name of a user or a timer that is stored, bytes; longer ones are cut at a character. Leaves
/// room for the rest of an actor in [`eventlog::Limits::actor_bytes_max`].
pub const ACTOR_NAME_BYTES_MAX: usize = 200;

/// Who caused an append.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// A user, by name; at most [`ACTOR_NAME_BYTES_MAX`] bytes are stored.
    User(String),
    /// A sled's report or answer.
    Sled(SledId),
    /// A saga, at a step.
    Saga {
        /// The saga.
        saga: SagaId,
        /// The step.
        step: Step,
    },
    /// A timer or reaper, by name; at most [`ACTOR_NAME_BYTES_MAX`] bytes are stored.
    Timer(String),
    /// The daemon itself, starting or stopping.
    Daemon,
    /// One that this build does not know, as its bytes (at most [`eventlog::Limits::actor_bytes_max`] are
    /// stored).
    Other(Vec<u8>),
}

/// What goes into the log once per append, beside the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Who.
    pub actor: Actor,
    /// The request from outside, if there was one.
    pub request: Option<RequestId>,
    /// The saga and its step, if one did it.
    pub saga: Option<(SagaId, Step)>,
    /// W3C trace context, as it came in.
    pub trace: Option<TraceContext>,
    /// Position of the event that caused it, if one did.
    pub cause: Option<u64>,
    /// What was decided on.
    pub input: Option<Input>,
    /// Why, in the words of who asked; bounded where it comes in.
    pub reason: Option<String>,
    /// Whether this is a rehearsal: everything is decided, and nothing may be appended.
    pub is_rehearsal: bool,
}

/// What came out of the log, on the first event of each append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedContext {
    /// Who.
    pub actor: Actor,
    /// The request from outside, if there was one.
    pub request: Option<RequestId>,
    /// The saga and its step, if one did it.
    pub saga: Option<(SagaId, Step)>,
    /// W3C trace context, as it came in.
    pub trace: Option<TraceContext>,
    /// Build that wrote it.
    pub build: String,
    /// What was decided on.
    pub input: Option<Input>,
    /// Why, in the words of who asked.
    pub reason: Option<String>,
}

impl Context {
    /// The context of an append that only its actor explains.
    pub const fn of(actor: Actor) -> Self {
        Self {
            actor,
            request: None,
            saga: None,
            trace: None,
            cause: None,
            input: None,
            reason: None,
            is_rehearsal: false,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user {name}"),
            Self::Sled(id) => write!(f, "sled {id}"),
            Self::Saga { saga, step } => write!(f, "saga {saga} at {step:?}"),
            Self::Timer(name) => write!(f, "timer {name}"),
            Self::Daemon => f.write_str("daemon"),
            Self::Other(_) => f.write_str("unknown"),
        }
    }
}
