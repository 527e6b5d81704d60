//! Which positions a stream's versions have, and where each request is first answered.
//!
//! Invariants:
//! * the index grows in position order without gap, together with its own checkpoint;
//! * positions are handed out only as far as they are gapless in the stream's versions.

use super::{Changes, SledCache, guard};
use crate::cache::runs::{RUN_POSITIONS_MAX, pack, unpack};
use crate::cache::sealed;
use crate::cache::{Cache, CacheError, check_continues};
use crate::types::{Position, Record, StreamId, Version};
use std::collections::BTreeMap;

impl SledCache {
    pub(super) fn index_records(&self, records: &[Record]) -> Result<(), CacheError> {
        let _writing = self.lock();
        check_continues(self.indexed()?, records)?;
        let Some(last) = records.last() else { return Ok(()) };
        let mut streams = BTreeMap::<StreamId, Vec<&Record>>::new();
        for record in records {
            streams.entry(record.stream).or_default().push(record);
        }
        let mut changes = Changes::default();
        for (stream, fresh) in streams {
            self.extend_runs(&mut changes, stream, &fresh)?;
        }
        self.index_requests(&mut changes, records)?;
        changes.put(&sealed::indexed(), &last.position.get().to_le_bytes());
        self.commit(changes)
    }

    pub(super) fn indexed_positions(
        &self,
        stream: StreamId,
        from: Version,
        limit: usize,
    ) -> Result<Vec<Position>, CacheError> {
        let from = from.max(Version::new(1));
        let Some((first, _)) = self.run_at(stream, from)? else { return Ok(Vec::new()) };
        let mut expected = first;
        let mut found = Vec::new();
        for entry in self.tree.range(sealed::run(stream, first)..=sealed::run(stream, Version::new(u64::MAX)))
        {
            let (key, value) = guard(|| entry)?;
            let (first, positions) = decode_run(&key, &value)?;
            if first != expected {
                return Err(CacheError::Contradiction(format!(
                    "the index of stream {stream} has a gap at {expected}"
                )));
            }
            expected = Version::new(first.get() + positions.len() as u64);
            let skip = from.get().saturating_sub(first.get()) as usize;
            found.extend(positions.into_iter().skip(skip).take(limit - found.len()));
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    /// The last run of a stream at or before a version: its first version and its positions.
    fn run_at(
        &self,
        stream: StreamId,
        version: Version,
    ) -> Result<Option<(Version, Vec<Position>)>, CacheError> {
        let first = sealed::run(stream, Version::ZERO);
        let entry = guard(|| self.tree.range(first..=sealed::run(stream, version)).next_back().transpose())?;
        entry.map(|(key, value)| decode_run(&key, &value)).transpose()
    }

    fn extend_runs(
        &self,
        changes: &mut Changes,
        stream: StreamId,
        fresh: &[&Record],
    ) -> Result<(), CacheError> {
        let (mut first, mut run) =
            self.run_at(stream, Version::new(u64::MAX))?.unwrap_or((Version::new(1), vec![]));
        let expected = first.get() + run.len() as u64;
        if fresh.iter().zip(expected..).any(|(record, version)| record.version.get() != version) {
            return Err(CacheError::Contradiction(format!(
                "the index of stream {stream} does not end before {expected}"
            )));
        }
        for record in fresh {
            if run.len() == RUN_POSITIONS_MAX {
                changes.put(&sealed::run(stream, first), &pack(&run));
                first = record.version;
                run.clear();
            }
            run.push(record.position);
        }
        changes.put(&sealed::run(stream, first), &pack(&run));
        Ok(())
    }

    /// Keeps the first position of each request.
    fn index_requests(&self, changes: &mut Changes, records: &[Record]) -> Result<(), CacheError> {
        let mut fresh = BTreeMap::<[u8; 16], Position>::new();
        for record in records {
            if let Some(request) = record.context.as_ref().and_then(|context| context.request) {
                fresh.entry(request).or_insert(record.position);
            }
        }
        for (request, position) in fresh {
            let key = sealed::request(request);
            if self.get(&key)?.is_none() {
                changes.put(&key, &position.get().to_le_bytes());
            }
        }
        Ok(())
    }
}

fn decode_run(key: &[u8], value: &[u8]) -> Result<(Version, Vec<Position>), CacheError> {
    let first = key.last_chunk().map(|bytes| Version::new(u64::from_be_bytes(*bytes)));
    let positions = unpack(&sealed::open(key, value)?);
    let run =
        first.zip(positions).filter(|(first, positions)| *first != Version::ZERO && !positions.is_empty());
    run.ok_or_else(|| CacheError::Contradiction("a run of positions is none".into()))
}
