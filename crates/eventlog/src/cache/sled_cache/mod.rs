//! The cache on the embedded database.
//!
//! Invariants:
//! * the database is never believed: every value carries a checksum over its key and its bytes;
//! * one tree, so that one batch changes rows and checkpoint together; a key's first byte says what it is;
//! * no stored value exceeds [`pieces::PIECE_BYTES_MAX`] and its frame: larger ones would go into files that the
//!   database never syncs;
//! * every call into the database is under `catch_unwind`: damage to its files is mostly a panic;
//! * what the database has been given and has not written out is bounded: it writes with a few threads, and
//!   stands still for ever if all of them wait for a file to be shortened, which is one of them's work too.

mod indexing;
mod opening;
mod pieces;

use super::sealed::{self, Key};
use super::{Cache, CacheError, Row, Rows, Snapshot, check_projection, check_rows, check_value};
use crate::journal::StoreId;
use crate::record::{Fields, Malformed};
use crate::types::{Position, Record, StreamId, Version};
use bytes::Bytes;
pub use opening::CacheReport;
use sled_db::{Batch, Db, Tree};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of keys and values after which the database has to write out what it was given. It writes several times
/// as much, in pieces of 512 KiB, with seven threads or more.
const UNWRITTEN_BYTES_MAX: usize = 256 << 10;

/// The cache on disk.
pub struct SledCache {
    // Dropped before the database it belongs to.
    tree: Tree,
    db: Db,
    store: StoreId,
    /// Index and rows are read, changed and written back.
    writing: Mutex<()>,
    /// Given to the database since it was last told to write out.
    unwritten_bytes: AtomicUsize,
    distrusted: AtomicU64,
}

fn guard<T>(work: impl FnOnce() -> Result<T, sled_db::Error>) -> Result<T, CacheError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(CacheError::Engine(error.to_string())),
        Err(_) => Err(CacheError::Engine("it panicked".into())),
    }
}

/// What one step changes, and about how much is written for it.
#[derive(Default)]
struct Changes {
    batch: Batch,
    bytes: usize,
}

impl Changes {
    fn put(&mut self, key: &Key, value: &[u8]) {
        self.bytes += key.len() + value.len();
        self.batch.insert(key.clone(), sealed::seal(key, value));
    }

    fn remove(&mut self, key: Key) {
        self.bytes += key.len();
        self.batch.remove(key);
    }
}

impl SledCache {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        let value = guard(|| self.tree.get(key))?;
        value.map(|value| sealed::open(key, &value)).transpose()
    }

    fn position_at(&self, key: &Key) -> Result<Position, CacheError> {
        self.get(key)?.map_or(Ok(Position::ZERO), |value| position(&value))
    }

    /// Makes the changes in one step. The caller holds the lock.
    fn commit(&self, changes: Changes) -> Result<(), CacheError> {
        guard(|| self.tree.apply_batch(changes.batch))?;
        self.count(changes.bytes)
    }

    /// Has everything written out once in a while, and waits for it.
    fn count(&self, bytes: usize) -> Result<(), CacheError> {
        if self.unwritten_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= UNWRITTEN_BYTES_MAX {
            self.unwritten_bytes.store(0, Ordering::Relaxed);
            guard(|| self.tree.flush())?;
        }
        Ok(())
    }
}

fn malformed(error: Malformed) -> CacheError {
    CacheError::Contradiction(error.to_string())
}

fn position(value: &[u8]) -> Result<Position, CacheError> {
    Fields(value).u64(0).map(Position::new).map_err(malformed)
}

impl Cache for SledCache {
    fn indexed(&self) -> Result<Position, CacheError> {
        self.position_at(&sealed::indexed())
    }

    fn index(&self, records: &[Record]) -> Result<(), CacheError> {
        self.index_records(records)
    }

    fn positions(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Position>, CacheError> {
        self.indexed_positions(stream, from, limit)
    }

    fn request(&self, request: [u8; 16]) -> Result<Option<Position>, CacheError> {
        self.get(&sealed::request(request))?.map(|value| position(&value)).transpose()
    }

    fn snapshot(&self, stream: StreamId) -> Result<Option<Snapshot>, CacheError> {
        let head = sealed::snapshot(stream);
        let Some(bytes) = self.get(&head)? else { return Ok(None) };
        let fields = Fields(&bytes);
        let (version, position) = (fields.u64(0).map_err(malformed)?, fields.u64(8).map_err(malformed)?);
        let fold = fields.u32(16).map_err(malformed)?;
        let state = Self::put_together(&self.tree, &head, &bytes, sealed::SNAPSHOT_PREFIX_BYTES)?;
        Ok(Some(Snapshot { version: Version::new(version), position: Position::new(position), fold, state }))
    }

    fn put_snapshot(&self, stream: StreamId, snapshot: &Snapshot) -> Result<(), CacheError> {
        check_value(&snapshot.state)?;
        let mut prefix = [0u8; sealed::SNAPSHOT_PREFIX_BYTES];
        prefix[0..8].copy_from_slice(&snapshot.version.get().to_le_bytes());
        prefix[8..16].copy_from_slice(&snapshot.position.get().to_le_bytes());
        prefix[16..20].copy_from_slice(&snapshot.fold.to_le_bytes());
        let _writing = self.lock();
        let mut changes = Changes::default();
        self.put_pieces(&mut changes, &sealed::snapshot(stream), &prefix, &snapshot.state)?;
        self.commit(changes)
    }

    fn remove_snapshot(&self, stream: StreamId) -> Result<(), CacheError> {
        let _writing = self.lock();
        let head = sealed::snapshot(stream);
        let mut changes = Changes::default();
        self.remove_pieces(&mut changes, &head, sealed::SNAPSHOT_PREFIX_BYTES)?;
        changes.remove(head);
        self.commit(changes)
    }

    fn apply(
        &self,
        projection: &str,
        checkpoint: Position,
        puts: &[Row],
        deletes: &[Bytes],
    ) -> Result<(), CacheError> {
        check_rows(projection, puts, deletes)?;
        let _writing = self.lock();
        // Of several puts of one key the last counts; each is written once.
        let puts: BTreeMap<&Bytes, &Bytes> = puts.iter().map(|(key, value)| (key, value)).collect();
        let mut changes = Changes::default();
        for key in deletes {
            let head = sealed::row(projection, key);
            self.remove_pieces(&mut changes, &head, 0)?;
            changes.remove(head);
        }
        for (key, value) in puts {
            self.put_pieces(&mut changes, &sealed::row(projection, key), &[], value)?;
        }
        changes.put(&sealed::checkpoint(projection), &checkpoint.get().to_le_bytes());
        self.commit(changes)
    }

    fn row(&self, projection: &str, key: &[u8]) -> Result<Option<Bytes>, CacheError> {
        check_projection(projection)?;
        let head = sealed::row(projection, key);
        let bytes = self.get(&head)?;
        bytes.map(|bytes| Self::put_together(&self.tree, &head, &bytes, 0)).transpose()
    }

    fn rows(&self, projection: &str) -> Result<Rows, CacheError> {
        check_projection(projection)?;
        let prefix = sealed::row(projection, &[]);
        let skip = prefix.len();
        let tree = self.tree.clone();
        let mut entries = self.tree.scan_prefix(&prefix);
        Ok(Box::new(std::iter::from_fn(move || {
            let entry = guard(|| entries.next().transpose()).transpose()?;
            Some(entry.and_then(|(head, value)| {
                let bytes = sealed::open(&head, &value)?;
                let value = Self::put_together(&tree, &head.to_vec(), &bytes, 0)?;
                Ok((Bytes::copy_from_slice(&head[skip..]), value))
            }))
        })))
    }

    fn checkpoint(&self, projection: &str) -> Result<Position, CacheError> {
        check_projection(projection)?;
        self.position_at(&sealed::checkpoint(projection))
    }

    fn clear(&self, projection: &str) -> Result<(), CacheError> {
        check_projection(projection)?;
        let _writing = self.lock();
        // The checkpoint goes first: rows without one are overwritten, a checkpoint without rows is a lie.
        guard(|| self.tree.remove(sealed::checkpoint(projection)))?;
        let prefixes = [sealed::row(projection, &[]), sealed::pieces_of_rows(projection)];
        for prefix in prefixes {
            for key in self.tree.scan_prefix(prefix).keys() {
                let key = guard(|| key)?;
                let bytes = key.len();
                guard(|| self.tree.remove(key))?;
                self.count(bytes)?;
            }
        }
        Ok(())
    }

    fn distrust(&self, why: &str) {
        tracing::warn!(why, "the cache is thrown away and built again from the log");
        let _writing = self.lock();
        self.distrusted.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = guard(|| self.tree.clear()).and_then(|()| self.begin()) {
            tracing::error!(%error, "the cache could not be emptied; delete its directory and restart");
        }
    }

    fn distrusted(&self) -> u64 {
        self.distrusted.load(Ordering::Relaxed)
    }

    fn flush(&self) -> Result<(), CacheError> {
        guard(|| self.db.flush()).map(drop)
    }
}

impl Drop for SledCache {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "the cache was not written out; what is missing is built again from the log");
        }
    }
}
