//! What an instance was at any moment of the past: the fold of its stream up to there.

use crate::at::At;
use crate::error::Error;
use crate::source::{PAGE_RECORDS, Source, ends_append, stream_page};
use crate::time::rfc3339;
use journal::{Recorded, StreamName, apply_instance, read};
use lifecycle::{Effect, Instance, InstanceId, RunState, effects};
use serde::Serialize;

/// An instance at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceState {
    /// Version of the newest event folded.
    pub version: u64,
    /// Its position.
    pub position: u64,
    /// Its recorded time, RFC 3339 in UTC.
    pub time: String,
    /// The state that users saw.
    pub run_state: RunState,
    /// Whether an append ended here. Between the events of one append nobody ever saw the instance.
    pub is_append_end: bool,
    /// What should have been true outside and was not known to be.
    pub effects: Vec<Effect>,
    /// The whole fold.
    pub state: Instance,
}

/// The instance as it was at `at`.
pub fn state_at(source: &dyn Source, instance: InstanceId, at: At) -> Result<InstanceState, Error> {
    if let At::Position(position) = at
        && position > source.durable().get()
    {
        return Err(Error::NoSuchPosition { position, durable: source.durable().get() });
    }
    let stream = StreamName::Instance(instance);
    let mut state = None;
    let mut newest: Option<Recorded> = None;
    loop {
        let from = newest.as_ref().map_or(1, |recorded| recorded.meta.version.saturating_add(1));
        let page = stream_page(source, stream, from, PAGE_RECORDS)?;
        let is_last = page.len() < PAGE_RECORDS;
        for record in &page {
            let recorded = read(record)?;
            if !at.includes(&recorded) {
                return answer(instance, at, state, newest, Some(&recorded));
            }
            apply_instance(&mut state, &recorded)?;
            newest = Some(recorded);
        }
        if is_last {
            return answer(instance, at, state, newest, None);
        }
    }
}

fn answer(
    instance: InstanceId,
    at: At,
    state: Option<Instance>,
    newest: Option<Recorded>,
    next: Option<&Recorded>,
) -> Result<InstanceState, Error> {
    let (Some(state), Some(newest)) = (state, newest) else {
        return Err(match next {
            None => Error::NoSuchInstance(instance),
            Some(first) => Error::NotYetCreated {
                instance,
                asked: at.to_string(),
                position: first.meta.position,
                created: rfc3339(first.meta.time),
            },
        });
    };
    if let At::Version(version) = at
        && version > newest.meta.version
    {
        return Err(Error::NoSuchVersion { instance, version, head: newest.meta.version });
    }
    Ok(InstanceState {
        version: newest.meta.version,
        position: newest.meta.position,
        time: rfc3339(newest.meta.time),
        run_state: state.run_state(),
        is_append_end: ends_append(newest.index),
        effects: effects(&state),
        state,
    })
}
