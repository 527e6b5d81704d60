//! What a command is answered, and on whose behalf it was given.

use eventlog::{TraceContext, Unavailable};
use journal::{Actor, Context, Event};
use lifecycle::{Instance, Rejected, RequestId};

/// Who asks, as far as the log wants to know.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Who.
    pub actor: Actor,
    /// The request.
    pub request: RequestId,
    /// Its trace, if it came with one.
    pub trace: Option<TraceContext>,
    /// Why, in the words of who asks.
    pub reason: Option<String>,
    /// Whether to decide only: what would be appended is the answer ([`CommandError::Rehearsed`]).
    pub is_rehearsal: bool,
}

impl RequestContext {
    /// A request for real, without a trace and without a reason.
    pub const fn of(actor: Actor, request: RequestId) -> Self {
        Self { actor, request, trace: None, reason: None, is_rehearsal: false }
    }

    /// What the log is told of an append that this request asked for.
    pub(crate) fn recorded(&self) -> Context {
        Context {
            request: Some(self.request),
            trace: self.trace,
            reason: self.reason.clone(),
            is_rehearsal: self.is_rehearsal,
            ..Context::of(self.actor.clone())
        }
    }
}

/// A command that was accepted: durable, and the state after it.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The instance afterwards.
    pub instance: Box<Instance>,
    /// Log position of its newest event.
    pub position: u64,
}

/// Why a command was not done, or not confirmed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommandError {
    /// Refused; nothing was written.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It was to be decided only: these events would be appended, and were not.
    #[error("it was rehearsed: {} events would be appended", .0.len())]
    Rehearsed(Vec<Event>),
    /// It cannot be taken at present; nothing was written. Try again later.
    #[error("{0}")]
    Unavailable(String),
    /// The writer went away in between: it may have been recorded. Look before trying again.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// Recorded; the sled has not confirmed it yet, and will be asked until it does.
    #[error("recorded, not confirmed: {reason}")]
    NotConfirmed {
        /// How the sled failed to answer.
        failure: SledFailure,
        /// What happened, for people.
        reason: String,
    },
    /// Recorded; the sled does not know the VMM, which is therefore failed.
    #[error("the sled no longer knows the instance's VMM; the instance has failed")]
    VmmMissing,
}

/// How a sled failed to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SledFailure {
    /// Not in time.
    Timeout,
    /// It could not be reached.
    Transport,
    /// It was not asked, because nobody answers there: it certainly did nothing.
    NotSent,
    /// It answered with a failure of its own.
    Server,
    /// It takes no requests for the moment.
    Busy,
}

impl From<Unavailable> for CommandError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable.to_string())
    }
}
