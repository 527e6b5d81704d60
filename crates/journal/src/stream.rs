//! Names of streams: `instance/<uuid>`, `project/<uuid>`, `sled/<uuid>`, `system`.
//!
//! Invariant: name, id and text of a stream are three spellings of one thing; each converts back.

use eventlog::{StreamId, StreamKind};
use lifecycle::{InstanceId, ProjectId, SledId};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

const INSTANCE: StreamKind = StreamKind(1);
const PROJECT: StreamKind = StreamKind(2);
const SLED: StreamKind = StreamKind(3);
const SYSTEM: StreamKind = StreamKind(4);
/// There is one system.
const SYSTEM_ID: [u8; 16] = [0; 16];

/// Part of an archive directory that holds the streams of what is over, each in a file.
pub const ARCHIVED_STREAMS: &str = "streams";

/// A stream, by the entity whose events it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamName {
    /// `instance/<id>`.
    Instance(InstanceId),
    /// `project/<id>`.
    Project(ProjectId),
    /// `sled/<id>`.
    Sled(SledId),
    /// `system`: the daemon's own events.
    System,
}

/// Text that names no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" names no stream: write instance/<uuid>, project/<uuid>, sled/<uuid>, each with hyphens, or system"
)]
pub struct UnknownStream(pub String);

impl StreamName {
    /// The stream's id in the log.
    pub const fn id(self) -> StreamId {
        match self {
            Self::Instance(id) => StreamId::new(INSTANCE, id.uuid().into_bytes()),
            Self::Project(id) => StreamId::new(PROJECT, id.uuid().into_bytes()),
            Self::Sled(id) => StreamId::new(SLED, id.uuid().into_bytes()),
            Self::System => StreamId::new(SYSTEM, SYSTEM_ID),
        }
    }

    /// Where in an archive directory its events are once it is archived.
    pub fn archive_file(self) -> String {
        let name = self.to_string().replace('/', "-");
        format!("{ARCHIVED_STREAMS}/{name}.stream")
    }

    /// The stream with this id; none if it is of no known sort.
    pub fn parse(id: StreamId) -> Option<Self> {
        let uuid = Uuid::from_bytes(id.id);
        match id.kind {
            INSTANCE => Some(Self::Instance(InstanceId::new(uuid))),
            PROJECT => Some(Self::Project(ProjectId::new(uuid))),
            SLED => Some(Self::Sled(SledId::new(uuid))),
            SYSTEM if id.id == SYSTEM_ID => Some(Self::System),
            _ => None,
        }
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => write!(f, "instance/{id}"),
            Self::Project(id) => write!(f, "project/{id}"),
            Self::Sled(id) => write!(f, "sled/{id}"),
            Self::System => f.write_str("system"),
        }
    }
}

impl FromStr for StreamName {
    type Err = UnknownStream;

    fn from_str(text: &str) -> Result<Self, UnknownStream> {
        if text == "system" {
            return Ok(Self::System);
        }
        let parsed = text.split_once('/').and_then(|(sort, id)| {
            let uuid = Uuid::try_parse(id).ok()?;
            match sort {
                "instance" => Some(Self::Instance(InstanceId::new(uuid))),
                "project" => Some(Self::Project(ProjectId::new(uuid))),
                "sled" => Some(Self::Sled(SledId::new(uuid))),
                _ => None,
            }
        });
        // One spelling only: the parser of ids knows others.
        parsed.filter(|name| name.to_string() == text).ok_or_else(|| UnknownStream(shortened(text)))
    }
}

/// Enough to recognise what was typed, however much of it there was.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    text.chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_from_id_and_text() {
        let uuid = Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
        for (name, kind) in [
            (StreamName::Instance(InstanceId::new(uuid)), 1),
            (StreamName::Project(ProjectId::new(uuid)), 2),
            (StreamName::Sled(SledId::new(uuid)), 3),
            (StreamName::System, 4),
        ] {
            assert_eq!(name.id().kind, StreamKind(kind));
            assert_eq!(StreamName::parse(name.id()), Some(name));
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn what_names_no_stream_is_refused() {
        for text in ["", "system/", "instance", "instance/", "instance/7", "vmm/0", "Instance/x"] {
            assert_eq!(text.parse::<StreamName>(), Err(UnknownStream(text.to_owned())));
        }
        let braced = "instance/{12345678-9abc-def0-1234-56789abcdef0}";
        assert!(braced.parse::<StreamName>().is_err());
        for id in [StreamId::new(StreamKind(0), [0; 16]), StreamId::new(StreamKind(5), [1; 16])] {
            assert_eq!(StreamName::parse(id), None);
        }
        assert_eq!(StreamName::parse(StreamId::new(SYSTEM, [1; 16])), None, "there is one system");
    }
}
