//! The cache in memory, for simulation and tests.

use super::{
    Cache, CacheError, Row, Rows, Snapshot, check_continues, check_projection, check_rows, check_value,
};
use crate::types::{Position, Record, StreamId, Version};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Projection {
    checkpoint: Position,
    rows: BTreeMap<Bytes, Bytes>,
}

#[derive(Default)]
struct State {
    indexed: Position,
    streams: BTreeMap<StreamId, Vec<Position>>,
    requests: BTreeMap<[u8; 16], Position>,
    snapshots: BTreeMap<StreamId, Snapshot>,
    projections: BTreeMap<String, Projection>,
    distrusted: u64,
}

/// A cache that lives as long as the value.
#[derive(Default)]
pub struct MemCache {
    state: Mutex<State>,
}

impl MemCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache for MemCache {
    fn indexed(&self) -> Result<Position, CacheError> {
        Ok(self.state().indexed)
    }

    fn index(&self, records: &[Record]) -> Result<(), CacheError> {
        let mut state = self.state();
        check_continues(state.indexed, records)?;
        for record in records {
            let positions = state.streams.entry(record.stream).or_default();
            if positions.len() as u64 + 1 != record.version.get() {
                return Err(CacheError::Contradiction(format!("stream {} has a gap", record.stream)));
            }
            positions.push(record.position);
            if let Some(request) = record.context.as_ref().and_then(|context| context.request) {
                state.requests.entry(request).or_insert(record.position);
            }
            state.indexed = record.position;
        }
        Ok(())
    }

    fn positions(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Position>, CacheError> {
        let skip = usize::try_from(from.get().saturating_sub(1)).unwrap_or(usize::MAX);
        let state = self.state();
        let positions = state.streams.get(&stream).map_or(&[][..], Vec::as_slice);
        Ok(positions.iter().skip(skip).take(limit).copied().collect())
    }

    fn request(&self, request: [u8; 16]) -> Result<Option<Position>, CacheError> {
        Ok(self.state().requests.get(&request).copied())
    }

    fn snapshot(&self, stream: StreamId) -> Result<Option<Snapshot>, CacheError> {
        Ok(self.state().snapshots.get(&stream).cloned())
    }

    fn put_snapshot(&self, stream: StreamId, snapshot: &Snapshot) -> Result<(), CacheError> {
        check_value(&snapshot.state)?;
        self.state().snapshots.insert(stream, snapshot.clone());
        Ok(())
    }

    fn remove_snapshot(&self, stream: StreamId) -> Result<(), CacheError> {
        self.state().snapshots.remove(&stream);
        Ok(())
    }

    fn apply(
        &self,
        projection: &str,
        checkpoint: Position,
        puts: &[Row],
        deletes: &[Bytes],
    ) -> Result<(), CacheError> {
        check_rows(projection, puts, deletes)?;
        let mut state = self.state();
        let projection = state.projections.entry(projection.to_owned()).or_default();
        for key in deletes {
            projection.rows.remove(key);
        }
        projection.rows.extend(puts.iter().cloned());
        projection.checkpoint = checkpoint;
        Ok(())
    }

    fn row(&self, projection: &str, key: &[u8]) -> Result<Option<Bytes>, CacheError> {
        check_projection(projection)?;
        Ok(self.state().projections.get(projection).and_then(|projection| projection.rows.get(key).cloned()))
    }

    fn rows(&self, projection: &str) -> Result<Rows, CacheError> {
        check_projection(projection)?;
        let rows = self.state().projections.get(projection).map(|projection| projection.rows.clone());
        Ok(Box::new(rows.unwrap_or_default().into_iter().map(Ok)))
    }

    fn checkpoint(&self, projection: &str) -> Result<Position, CacheError> {
        check_projection(projection)?;
        Ok(self
            .state()
            .projections
            .get(projection)
            .map_or(Position::ZERO, |projection| projection.checkpoint))
    }

    fn clear(&self, projection: &str) -> Result<(), CacheError> {
        check_projection(projection)?;
        self.state().projections.remove(projection);
        Ok(())
    }

    fn distrust(&self, why: &str) {
        tracing::warn!(why, "the cache is thrown away and built again from the log");
        let mut state = self.state();
        *state = State { distrusted: state.distrusted + 1, ..State::default() };
    }

    fn distrusted(&self) -> u64 {
        self.state().distrusted
    }
}
