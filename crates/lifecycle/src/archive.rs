//! Where the events of an instance that was deleted long ago are kept: a file outside of the log.
//!
//! Only what is over is archived: nothing can follow in its stream but the fact that it was. So a file holds
//! the whole life, and is never written a second time with other bytes.

use crate::instance::Instance;
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// The file that holds a deleted instance's events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveFile {
    /// Its name in the archive directory.
    pub file: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// CRC-32C of all of it.
    pub checksum: u32,
    /// Events in it: versions 1 to this.
    pub events: u64,
    /// Position of the first.
    pub first: u64,
    /// Position of the last.
    pub last: u64,
}

impl Instance {
    /// Deleted, and nothing of it is left on any sled: no event can follow but that it was archived.
    pub fn is_over(&self) -> bool {
        self.deleted.is_some() && self.vmms.is_empty()
    }

    /// Whether the file may be recorded as its archive: it is over, has none yet, and the file holds all of it.
    pub(crate) fn may_be_archived_as(&self, file: &ArchiveFile) -> bool {
        let holds_all = (file.events, file.last) == (self.head.version, self.head.position);
        self.is_over() && self.archived.is_none() && holds_all
    }
}

/// How long what was deleted stays in the log's own indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long an instance must have been over to be archived.
    pub keep: Span,
    /// Most instances that one run archives.
    pub batch: usize,
}

impl Retention {
    /// Whatever was over by then is due.
    pub fn due_by(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_micros(now.micros().saturating_sub(self.keep.micros()))
    }
}
