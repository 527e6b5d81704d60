//! The archive: what was deleted long ago is wholly in its file, and answers its history from there.
//!
//! The shelf stands for the archive directory of a daemon. Both tiers put on it what they archive; what the log says
//! of a file is compared with what is there, byte for byte and fold for fold.

use super::Broken;
use crate::bug::Bug;
use crate::world::names;
use bytes::Bytes;
use eventlog::{Record, SimStore, Version};
use journal::{Event, StreamName};
use lifecycle::{ArchiveFile, Instance, InstanceId};
use std::collections::BTreeMap;

/// How many of its newest events a planted bug loses.
const LOST: usize = 1;

/// Most events of one stream that a run writes.
const EVENTS_MAX: usize = 1_000_000;

/// Files of archived instances, which outlive every control plane.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    files: BTreeMap<InstanceId, Vec<Record>>,
}

impl Shelf {
    /// All events of an instance, as a log has them.
    pub(crate) fn stream_of(store: &SimStore, id: InstanceId) -> Vec<Record> {
        let stream = StreamName::Instance(id).id();
        store.read_stream(stream, Version::new(1), EVENTS_MAX).unwrap_or_default()
    }

    /// Puts a file there, whole and durable; another of the same instance is replaced.
    pub(crate) fn put(&mut self, id: InstanceId, mut records: Vec<Record>, bug: Option<Bug>) {
        if bug == Some(Bug::LoseArchived) {
            records.truncate(records.len().saturating_sub(LOST));
        }
        self.files.insert(id, records);
    }

    /// I36: whatever the log says is archived is there, all of it, and folds to what the log's own events fold to.
    pub(crate) fn answers<'a>(
        &self,
        states: impl Iterator<Item = &'a Instance>,
        store: &SimStore,
    ) -> Result<(), Broken> {
        let broken = |id, what: String| Err(Broken::new("I36", format!("{}: {what}", names::entity(id))));
        for state in states {
            let Some(file) = &state.archived else { continue };
            let Some(records) = self.files.get(&state.id) else {
                return broken(state.id, "it is archived, and there is no file".to_owned());
            };
            let found = described(state.id, records);
            if found != *file {
                return broken(state.id, format!("its archive is {found:?}, and the log says {file:?}"));
            }
            let before: Vec<Record> =
                Self::stream_of(store, state.id).into_iter().take(records.len()).collect();
            if fold(records) != fold(&before) {
                return broken(state.id, "its archive folds to another state than its events".to_owned());
            }
        }
        Ok(())
    }
}

/// What an archive's file holds, as the log records it.
pub(crate) fn described(id: InstanceId, records: &[Record]) -> ArchiveFile {
    let bytes: u64 = records.iter().map(|record| record.payload.len() as u64).sum();
    let mix = |sum: u64, byte: &u8| crate::draws::mix(sum ^ u64::from(*byte));
    let sum = records.iter().flat_map(|record| record.payload.iter()).fold(bytes, mix);
    let place = |record: Option<&Record>| record.map_or(0, |record| record.position.get());
    ArchiveFile {
        file: StreamName::Instance(id).archive_file(),
        bytes,
        checksum: (sum >> 32) as u32,
        events: records.len() as u64,
        first: place(records.first()),
        last: place(records.last()),
    }
}

fn fold(records: &[Record]) -> Option<Bytes> {
    let mut state = None;
    for recorded in records.iter().filter_map(|record| journal::read(record).ok()) {
        if let Event::Instance(event) = &recorded.event {
            lifecycle::evolve(&mut state, event, recorded.meta);
        }
    }
    state.as_ref().map(journal::encode_snapshot)
}
