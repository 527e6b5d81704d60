//! The state of a stream after any of its versions, from anchors that are kept on the way.
//!
//! Invariants:
//! * a state is reached by `evolve` alone, from the first event or from an anchor that was;
//! * a stream has at most [`ANCHORS_MAX`] anchors: when there are more, every other is given up and they come half
//!   as often; at most [`STREAMS_HELD`] streams have any.

use crate::diff::state_fields;
use crate::error::Error;
use crate::source::{PAGE_RECORDS, Source, stream_page};
use journal::{Recorded, StreamName, apply_instance, apply_project, apply_sled, read};
use lifecycle::Instance;
use lifecycle::project::Project;
use lifecycle::sled::Sled;
use serde_json::Value;

/// States kept of a stream.
const ANCHORS_MAX: usize = 64;

/// Events between two anchors at first.
const ANCHOR_EVERY: u64 = 32;

/// Streams that have anchors.
const STREAMS_HELD: usize = 4;

/// The fold of a stream, of whatever sort.
#[derive(Clone, Debug, PartialEq)]
pub enum Folded {
    /// Before the first event, or of a stream without a state.
    Nothing,
    /// Of an instance.
    Instance(Box<Instance>),
    /// Of a project.
    Project(Box<Project>),
    /// Of a sled.
    Sled(Box<Sled>),
}

impl Folded {
    /// The instance, if it is one.
    pub fn instance(&self) -> Option<&Instance> {
        match self {
            Self::Instance(state) => Some(state),
            Self::Nothing | Self::Project(_) | Self::Sled(_) => None,
        }
    }

    /// The state as people look at it.
    pub fn fields(&self) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Instance(state) => state_fields(state),
            Self::Project(state) => without_head(serde_json::to_value(state)),
            Self::Sled(state) => without_head(serde_json::to_value(state)),
        }
    }

    fn apply(self, recorded: &Recorded) -> Result<Self, Error> {
        Ok(match (self, recorded.stream) {
            (state, StreamName::Instance(_)) => {
                let mut state = match state {
                    Self::Instance(state) => Some(*state),
                    Self::Nothing | Self::Project(_) | Self::Sled(_) => None,
                };
                apply_instance(&mut state, recorded)?;
                state.map_or(Self::Nothing, |state| Self::Instance(Box::new(state)))
            }
            (state, StreamName::Project(_)) => {
                let mut state = match state {
                    Self::Project(state) => Some(*state),
                    Self::Nothing | Self::Instance(_) | Self::Sled(_) => None,
                };
                apply_project(&mut state, recorded)?;
                state.map_or(Self::Nothing, |state| Self::Project(Box::new(state)))
            }
            (state, StreamName::Sled(_)) => {
                let mut state = match state {
                    Self::Sled(state) => Some(*state),
                    Self::Nothing | Self::Instance(_) | Self::Project(_) => None,
                };
                apply_sled(&mut state, recorded)?;
                state.map_or(Self::Nothing, |state| Self::Sled(Box::new(state)))
            }
            (_, StreamName::System) => Self::Nothing,
        })
    }
}

fn without_head(fields: serde_json::Result<Value>) -> Value {
    let mut fields = fields.unwrap_or(Value::Null);
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("head");
    }
    fields
}

/// One stream's anchors, and where it was last looked at.
struct Walk {
    stream: StreamName,
    every: u64,
    anchors: Vec<(u64, Folded)>,
    last: (u64, Folded),
}

/// States of streams.
pub struct Folds<'a> {
    source: &'a dyn Source,
    walks: Vec<Walk>,
}

impl<'a> Folds<'a> {
    /// None yet.
    pub const fn new(source: &'a dyn Source) -> Self {
        Self { source, walks: Vec::new() }
    }

    /// The state after a version; version zero is before the first event.
    pub fn at(&mut self, stream: StreamName, version: u64) -> Result<Folded, Error> {
        match self.walks.iter().position(|walk| walk.stream == stream) {
            Some(nth) => self.walks.swap(0, nth),
            None => {
                let walk =
                    Walk { stream, every: ANCHOR_EVERY, anchors: Vec::new(), last: (0, Folded::Nothing) };
                self.walks.insert(0, walk);
                self.walks.truncate(STREAMS_HELD);
            }
        }
        self.walks[0].at(self.source, version)
    }

    /// States held in memory.
    pub fn states_held(&self) -> usize {
        self.walks.iter().map(|walk| walk.anchors.len() + 1).sum()
    }
}

impl Walk {
    fn at(&mut self, source: &dyn Source, version: u64) -> Result<Folded, Error> {
        let before = self.anchors.partition_point(|(anchor, _)| *anchor <= version);
        let anchor = before.checked_sub(1).map(|nth| &self.anchors[nth]);
        let (mut at, mut state) = match anchor {
            Some((anchor, _)) if self.last.0 <= version && self.last.0 > *anchor => self.last.clone(),
            Some(anchor) => anchor.clone(),
            None if self.last.0 <= version => self.last.clone(),
            None => (0, Folded::Nothing),
        };
        while at < version {
            let wanted = usize::try_from(version - at).unwrap_or(usize::MAX).min(PAGE_RECORDS);
            let page = stream_page(source, self.stream, at + 1, wanted)?;
            if page.is_empty() {
                break;
            }
            for mut record in page {
                record.context = None;
                state = state.apply(&read(&record)?)?;
                at += 1;
                self.keep(at, &state);
            }
        }
        self.last = (at, state.clone());
        Ok(state)
    }

    fn keep(&mut self, version: u64, state: &Folded) {
        let is_newer = self.anchors.last().is_none_or(|(anchor, _)| *anchor < version);
        if !version.is_multiple_of(self.every) || !is_newer {
            return;
        }
        self.anchors.push((version, state.clone()));
        if self.anchors.len() > ANCHORS_MAX {
            self.every *= 2;
            let every = self.every;
            self.anchors.retain(|(anchor, _)| anchor.is_multiple_of(every));
        }
    }
}
