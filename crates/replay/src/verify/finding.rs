//! One thing that is wrong: what, where, and who did it.

use eventlog::StreamId;
use journal::StreamName;
use lifecycle::InstanceId;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

/// What sort of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Bytes are damaged, or no event that this build knows.
    Unreadable,
    /// Versions, times, causes or appends of a stream are not in order.
    OutOfOrder,
    /// The rules cannot apply the event to the state before it.
    CannotFollow,
    /// An invariant of the rules does not hold.
    InvariantBroken,
    /// The recorded input does not decide to the recorded events.
    DecidesDifferently,
    /// Folding again gives another state.
    FoldsDifferently,
    /// A snapshot in the cache is not the fold.
    SnapshotDiffers,
    /// The read model is not the fold.
    ReadModelDiffers,
    /// What a running daemon says is not the fold.
    LiveDiffers,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What sort.
    pub kind: FindingKind,
    /// Number of the invariant, if one is broken (`docs/lifecycle.md`, invariants).
    pub invariant: Option<u8>,
    /// The instance, if it concerns one.
    pub instance: Option<InstanceId>,
    /// The stream, such as `instance/<id>`.
    pub stream: String,
    /// Version in the stream.
    pub version: u64,
    /// Position in the log.
    pub position: u64,
    /// What the event is called.
    pub event: String,
    /// Position of the event that caused it; zero if none did.
    pub cause: u64,
    /// Who caused it, with the request if there was one.
    pub by: String,
    /// What was found, in one sentence.
    pub detail: String,
}

/// Where something was found. One is made for every event, and read for hardly any: texts are written only then.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) instance: Option<InstanceId>,
    pub(super) stream: Where,
    pub(super) version: u64,
    pub(super) position: u64,
    pub(super) event: Cow<'static, str>,
    pub(super) cause: u64,
    pub(super) by: Rc<str>,
}

/// What a place is in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Where {
    #[default]
    Log,
    Stream(StreamName),
    /// One of no known sort.
    Unknown(StreamId),
}

impl Where {
    pub(super) fn of(stream: StreamId) -> Self {
        StreamName::parse(stream).map_or(Self::Unknown(stream), Self::Stream)
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("the log"),
            Self::Stream(name) => write!(f, "{name}"),
            Self::Unknown(stream) => write!(f, "{stream}"),
        }
    }
}

impl Place {
    pub(super) fn finding(&self, kind: FindingKind, detail: impl Into<String>) -> Finding {
        Finding {
            kind,
            invariant: None,
            instance: self.instance,
            stream: self.stream.to_string(),
            version: self.version,
            position: self.position,
            event: self.event.to_string(),
            cause: self.cause,
            by: self.by.to_string(),
            detail: detail.into(),
        }
    }

    pub(super) fn violation(&self, violation: &lifecycle::invariant::Violation) -> Finding {
        let finding = self.finding(FindingKind::InvariantBroken, violation.to_string());
        Finding { invariant: Some(violation.number), ..finding }
    }
}

impl Finding {
    /// Something about an instance that holds at its newest event, a version of it and a position in the log.
    pub fn of_instance(
        kind: FindingKind,
        instance: InstanceId,
        (version, position): (u64, u64),
        detail: impl Into<String>,
    ) -> Self {
        let place = Place {
            instance: Some(instance),
            stream: Where::Stream(StreamName::Instance(instance)),
            version,
            position,
            event: "newest event".into(),
            cause: 0,
            by: "unknown".into(),
        };
        place.finding(kind, detail)
    }

    /// Something about the whole log up to a position.
    pub fn of_log(kind: FindingKind, position: u64, detail: impl Into<String>) -> Self {
        let place =
            Place { position, event: "newest event".into(), by: "unknown".into(), ..Place::default() };
        place.finding(kind, detail)
    }
}

impl FindingKind {
    /// What people read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::OutOfOrder => "out of order",
            Self::CannotFollow => "cannot follow",
            Self::InvariantBroken => "invariant broken",
            Self::DecidesDifferently => "decides differently",
            Self::FoldsDifferently => "folds differently",
            Self::SnapshotDiffers => "snapshot differs",
            Self::ReadModelDiffers => "read model differs",
            Self::LiveDiffers => "live state differs",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} #{} (position {}, {}, by {}",
            self.kind, self.stream, self.version, self.position, self.event, self.by
        )?;
        if self.cause != 0 {
            write!(f, ", caused by position {}", self.cause)?;
        }
        write!(f, "): {}", self.detail)
    }
}
