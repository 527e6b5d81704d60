//! Folding recorded events into state, so that one impossible event ends one fold and not the process.
//!
//! Invariants:
//! * state is reached by the rules' own `evolve` and by nothing else;
//! * an event that the rules cannot apply is reported by place and name; the state that it was applied to
//!   is given up, never shown half changed.

use crate::error::DecodeError;
use crate::event::{Event, event_name};
use crate::read::{Recorded, read};
use crate::stream::StreamName;
use eventlog::Record;
use lifecycle::instance::Instance;
use lifecycle::project::Project;
use lifecycle::sled::Sled;
use lifecycle::{EventMeta, evolve};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a stream cannot be folded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// A record cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The rules cannot apply an event to the state before it.
    #[error(
        "{event} at version {version} of {stream} (position {position}) cannot follow what is before it: {detail}; \
         the stream must be quarantined"
    )]
    Poison {
        /// The stream.
        stream: StreamName,
        /// Version in the stream.
        version: u64,
        /// Position in the log.
        position: u64,
        /// What the event is called.
        event: &'static str,
        /// What the rules say.
        detail: String,
    },
}

/// Applies one instance event. After an error `state` is none and the stream must not be folded further.
pub fn apply_instance(state: &mut Option<Instance>, recorded: &Recorded) -> Result<(), FoldError> {
    apply(state, recorded, |state| match &recorded.event {
        Event::Instance(event) => {
            evolve(state, event, recorded.meta);
            true
        }
        Event::Project(_) | Event::Sled(_) | Event::System(_) => false,
    })
}

/// Applies one project event. After an error `state` is none and the stream must not be folded further.
pub fn apply_project(state: &mut Option<Project>, recorded: &Recorded) -> Result<(), FoldError> {
    apply(state, recorded, |state| match &recorded.event {
        Event::Project(event) => {
            lifecycle::project::evolve(state, event, recorded.meta);
            true
        }
        Event::Instance(_) | Event::Sled(_) | Event::System(_) => false,
    })
}

/// Applies one sled event. After an error `state` is none and the stream must not be folded further.
pub fn apply_sled(state: &mut Option<Sled>, recorded: &Recorded) -> Result<(), FoldError> {
    apply(state, recorded, |state| match &recorded.event {
        Event::Sled(event) => {
            lifecycle::sled::evolve(state, event, recorded.meta);
            true
        }
        Event::Instance(_) | Event::Project(_) | Event::System(_) => false,
    })
}

/// Folds one instance's records, from version 1; none if there are none.
pub fn fold_instance<'a>(
    records: impl IntoIterator<Item = &'a Record>,
) -> Result<Option<Instance>, FoldError> {
    fold(records, apply_instance)
}

/// Folds one project's records, from version 1; none if there are none.
pub fn fold_project<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Option<Project>, FoldError> {
    fold(records, apply_project)
}

/// Folds one sled's records, from version 1; none if there are none.
pub fn fold_sled<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Option<Sled>, FoldError> {
    fold(records, apply_sled)
}

fn fold<'a, S>(
    records: impl IntoIterator<Item = &'a Record>,
    step: impl Fn(&mut Option<S>, &Recorded) -> Result<(), FoldError>,
) -> Result<Option<S>, FoldError> {
    let mut state = None;
    let mut before: Option<Recorded> = None;
    for record in records {
        let recorded = read(record)?;
        let (stream, version) = before.map_or((recorded.stream, 0), |r| (r.stream, r.meta.version));
        if recorded.stream != stream || Some(recorded.meta.version) != version.checked_add(1) {
            return Err(poison(&recorded, format!("it follows version {version} of {stream}")));
        }
        step(&mut state, &recorded)?;
        before = Some(recorded);
    }
    Ok(state)
}

fn apply<S>(
    state: &mut Option<S>,
    recorded: &Recorded,
    evolve: impl FnOnce(&mut Option<S>) -> bool,
) -> Result<(), FoldError> {
    // Taken out, so that a half-changed state is dropped with the panic; and nothing else is touched,
    // which is what makes the assertion safe to state.
    let mut scratch = state.take();
    let applied = catch_unwind(AssertUnwindSafe(|| evolve(&mut scratch)));
    match applied {
        Ok(true) => {
            *state = scratch;
            Ok(())
        }
        Ok(false) => Err(poison(recorded, "it is of another sort of stream".to_owned())),
        Err(panic) => Err(poison(recorded, said(&*panic))),
    }
}

fn poison(recorded: &Recorded, detail: String) -> FoldError {
    let EventMeta { version, position, .. } = recorded.meta;
    FoldError::Poison {
        stream: recorded.stream,
        version,
        position,
        event: event_name(&recorded.event),
        detail,
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the rules do not say why").to_owned()
}
