//! The cache on the embedded database.
//!
//! Invariants:
//! * the database is never believed: every value carries a checksum over its key and its bytes;
//! * one tree, so that one batch changes rows and checkpoint together; a key's first byte says what it is;
//! * no stored value exceeds [`PIECE_BYTES_MAX`] and its frame: larger ones would go into files that the
//!   database never syncs;
//! * every call into the database is under `catch_unwind`: damage to its files is mostly a panic.

use super::runs::{RUN_POSITIONS_MAX, pack, unpack};
use super::sealed::{self, Key};
use super::{
    Cache, CacheError, Row, Rows, Snapshot, check_continues, check_projection, check_rows, check_value,
};
use crate::journal::StoreId;
use crate::record::Fields;
use crate::types::{Position, Record, StreamId, Version};
use bytes::Bytes;
use sled_db::{Batch, Db, Tree};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Largest piece of a value stored under one key.
pub(crate) const PIECE_BYTES_MAX: usize = 6 << 10;
/// Layout of keys and values; another one is thrown away.
const LAYOUT: u32 = 2;
/// How often the database writes out what is in memory, in milliseconds. Without it, it frees no space.
const WRITE_OUT_EVERY_MS: u64 = 500;

/// What opening the cache found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// Why the cache starts empty though there was one; it was moved to the path with `.damaged` appended.
    pub rebuilt: Option<String>,
}

/// The cache on disk.
pub struct SledCache {
    // Dropped before the database it belongs to.
    tree: Tree,
    db: Db,
    store: StoreId,
    /// Index and rows are read, changed and written back.
    writing: Mutex<()>,
    distrusted: AtomicU64,
}

fn guard<T>(work: impl FnOnce() -> Result<T, sled_db::Error>) -> Result<T, CacheError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(CacheError::Engine(error.to_string())),
        Err(_) => Err(CacheError::Engine("it panicked".into())),
    }
}

impl SledCache {
    /// Opens the cache in `dir` for a store whose last durable position is `durable`, using about
    /// `memory_bytes` of memory. A cache that is damaged, belongs to another store or is ahead of the log is
    /// moved aside, and an empty one takes its place. Fails only if even that does not open.
    pub fn open(
        dir: &Path,
        store: StoreId,
        durable: Position,
        memory_bytes: u64,
    ) -> Result<(Self, CacheReport), CacheError> {
        let mut report = CacheReport::default();
        match Self::open_checked(dir, store, durable, memory_bytes) {
            Ok(cache) => Ok((cache, report)),
            Err(why) => {
                tracing::warn!(%why, dir = %dir.display(), "the cache is moved aside and built again from the log");
                move_aside(dir)
                    .map_err(|error| CacheError::Engine(format!("moving it aside failed: {error}")))?;
                report.rebuilt = Some(why.to_string());
                Ok((Self::open_checked(dir, store, durable, memory_bytes)?, report))
            }
        }
    }

    fn open_checked(
        dir: &Path,
        store: StoreId,
        durable: Position,
        memory_bytes: u64,
    ) -> Result<Self, CacheError> {
        remove_leftovers(dir).map_err(|error| CacheError::Engine(error.to_string()))?;
        let cache = guard(|| {
            let config = sled_db::Config::new()
                .path(dir)
                .cache_capacity(memory_bytes)
                .flush_every_ms(Some(WRITE_OUT_EVERY_MS));
            let db = config.open()?;
            let tree = db.open_tree("cache")?;
            Ok(Self { tree, db, store, writing: Mutex::new(()), distrusted: AtomicU64::new(0) })
        })?;
        cache.check(durable)?;
        Ok(cache)
    }

    fn check(&self, durable: Position) -> Result<(), CacheError> {
        let contradiction = |why: String| Err(CacheError::Contradiction(why));
        if guard(|| Ok(self.tree.is_empty()))? {
            return self.begin();
        }
        let Some(identity) = self.get(&sealed::identity())? else {
            return contradiction("it does not say which store it belongs to".into());
        };
        if identity[..] != self.identity()[..] {
            return contradiction("it belongs to another store or has another layout".into());
        }
        let indexed = self.indexed()?;
        if indexed > durable {
            return contradiction(format!("its index has position {indexed}, the log ends at {durable}"));
        }
        let checkpoints = self.tree.scan_prefix([sealed::CHECKPOINT]);
        for entry in checkpoints {
            let (key, value) = guard(|| entry)?;
            let reached = position(&sealed::open(&key, &value)?)?;
            if reached > durable {
                return contradiction(format!(
                    "a projection is at position {reached}, the log ends at {durable}"
                ));
            }
        }
        Ok(())
    }

    fn identity(&self) -> [u8; 20] {
        let mut bytes = [0u8; 20];
        bytes[..4].copy_from_slice(&LAYOUT.to_le_bytes());
        bytes[4..].copy_from_slice(&self.store.0);
        bytes
    }

    fn begin(&self) -> Result<(), CacheError> {
        let mut batch = Batch::default();
        put(&mut batch, &sealed::identity(), &self.identity());
        guard(|| self.tree.apply_batch(batch))
    }

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

    fn extend_runs(&self, batch: &mut Batch, stream: StreamId, fresh: &[&Record]) -> Result<(), CacheError> {
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
                put(batch, &sealed::run(stream, first), &pack(&run));
                first = record.version;
                run.clear();
            }
            run.push(record.position);
        }
        put(batch, &sealed::run(stream, first), &pack(&run));
        Ok(())
    }

    /// Keeps the first position of each request.
    fn index_requests(&self, batch: &mut Batch, records: &[Record]) -> Result<(), CacheError> {
        let mut fresh = BTreeMap::<[u8; 16], Position>::new();
        for record in records {
            if let Some(request) = record.context.as_ref().and_then(|context| context.request) {
                fresh.entry(request).or_insert(record.position);
            }
        }
        for (request, position) in fresh {
            let key = sealed::request(request);
            if self.get(&key)?.is_none() {
                put(batch, &key, &position.get().to_le_bytes());
            }
        }
        Ok(())
    }

    /// Stores a value under a head key, in pieces if it is large. `prefix` goes before it in the head.
    fn put_pieces(
        &self,
        batch: &mut Batch,
        head: &Key,
        prefix: &[u8],
        value: &[u8],
    ) -> Result<(), CacheError> {
        self.remove_pieces(batch, head, prefix.len())?;
        let mut bytes = prefix.to_vec();
        if value.len() <= PIECE_BYTES_MAX {
            bytes.push(0);
            bytes.extend_from_slice(value);
        } else {
            bytes.push(1);
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&crc32c::crc32c(value).to_le_bytes());
            for (piece, number) in value.chunks(PIECE_BYTES_MAX).zip(0u32..) {
                put(batch, &sealed::piece(head, number), piece);
            }
        }
        put(batch, head, &bytes);
        Ok(())
    }

    fn remove_pieces(&self, batch: &mut Batch, head: &Key, prefix_bytes: usize) -> Result<(), CacheError> {
        if let Some(bytes) = self.get(head)?
            && bytes.get(prefix_bytes) == Some(&1)
        {
            let (length, _) = piece_fields(&bytes[prefix_bytes + 1..])?;
            for number in 0..length.div_ceil(PIECE_BYTES_MAX) as u32 {
                batch.remove(sealed::piece(head, number));
            }
        }
        Ok(())
    }

    fn put_together(
        tree: &Tree,
        head: &Key,
        bytes: &Bytes,
        prefix_bytes: usize,
    ) -> Result<Bytes, CacheError> {
        let rest = bytes.slice(prefix_bytes.min(bytes.len())..);
        match rest.first() {
            Some(0) => Ok(rest.slice(1..)),
            Some(1) => {
                let (length, crc) = piece_fields(&rest[1..])?;
                let mut value = Vec::with_capacity(length);
                for number in 0..length.div_ceil(PIECE_BYTES_MAX) as u32 {
                    let key = sealed::piece(head, number);
                    let piece = guard(|| tree.get(&key))?;
                    let piece =
                        piece.ok_or_else(|| CacheError::Contradiction("a piece is missing".into()))?;
                    value.extend_from_slice(&sealed::open(&key, &piece)?);
                }
                if value.len() != length || crc32c::crc32c(&value) != crc {
                    return Err(CacheError::Contradiction("pieces do not make their value".into()));
                }
                Ok(Bytes::from(value))
            }
            _ => Err(CacheError::Contradiction("a value of no known kind".into())),
        }
    }
}

fn put(batch: &mut Batch, key: &Key, value: &[u8]) {
    batch.insert(key.clone(), sealed::seal(key, value));
}

fn malformed(error: crate::record::Malformed) -> CacheError {
    CacheError::Contradiction(error.to_string())
}

fn position(value: &[u8]) -> Result<Position, CacheError> {
    Fields(value).u64(0).map(Position::new).map_err(malformed)
}

/// Length and checksum of a value in pieces.
fn piece_fields(bytes: &[u8]) -> Result<(usize, u32), CacheError> {
    let fields = Fields(bytes);
    let length = fields.u32(0).map_err(malformed)? as usize;
    check_length(length)?;
    Ok((length, fields.u32(4).map_err(malformed)?))
}

fn check_length(length: usize) -> Result<(), CacheError> {
    if length > super::VALUE_BYTES_MAX {
        return Err(CacheError::Contradiction(format!("a value of {length} bytes")));
    }
    Ok(())
}

fn decode_run(key: &[u8], value: &[u8]) -> Result<(Version, Vec<Position>), CacheError> {
    let first = key.last_chunk().map(|bytes| Version::new(u64::from_be_bytes(*bytes)));
    let positions = unpack(&sealed::open(key, value)?);
    let run =
        first.zip(positions).filter(|(first, positions)| *first != Version::ZERO && !positions.is_empty());
    run.ok_or_else(|| CacheError::Contradiction("a run of positions is none".into()))
}

/// Removes snapshots that an interrupted opening left unfinished: the database never looks at them again.
fn remove_leftovers(dir: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Moves the directory to the same path with `.damaged` appended, in place of an earlier one.
fn move_aside(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let mut name = dir.as_os_str().to_owned();
    name.push(".damaged");
    let aside = PathBuf::from(name);
    if aside.exists() {
        std::fs::remove_dir_all(&aside)?;
    }
    std::fs::rename(dir, aside)
}

impl Cache for SledCache {
    fn indexed(&self) -> Result<Position, CacheError> {
        self.position_at(&sealed::indexed())
    }

    fn index(&self, records: &[Record]) -> Result<(), CacheError> {
        let _writing = self.lock();
        check_continues(self.indexed()?, records)?;
        let Some(last) = records.last() else { return Ok(()) };
        let mut streams = BTreeMap::<StreamId, Vec<&Record>>::new();
        for record in records {
            streams.entry(record.stream).or_default().push(record);
        }
        let mut batch = Batch::default();
        for (stream, fresh) in streams {
            self.extend_runs(&mut batch, stream, &fresh)?;
        }
        self.index_requests(&mut batch, records)?;
        put(&mut batch, &sealed::indexed(), &last.position.get().to_le_bytes());
        guard(|| self.tree.apply_batch(batch))
    }

    fn positions(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Position>, CacheError> {
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
        let mut batch = Batch::default();
        self.put_pieces(&mut batch, &sealed::snapshot(stream), &prefix, &snapshot.state)?;
        guard(|| self.tree.apply_batch(batch))
    }

    fn remove_snapshot(&self, stream: StreamId) -> Result<(), CacheError> {
        let _writing = self.lock();
        let head = sealed::snapshot(stream);
        let mut batch = Batch::default();
        self.remove_pieces(&mut batch, &head, sealed::SNAPSHOT_PREFIX_BYTES)?;
        batch.remove(head);
        guard(|| self.tree.apply_batch(batch))
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
        let mut batch = Batch::default();
        for key in deletes {
            let head = sealed::row(projection, key);
            self.remove_pieces(&mut batch, &head, 0)?;
            batch.remove(head);
        }
        for (key, value) in puts {
            self.put_pieces(&mut batch, &sealed::row(projection, key), &[], value)?;
        }
        put(&mut batch, &sealed::checkpoint(projection), &checkpoint.get().to_le_bytes());
        guard(|| self.tree.apply_batch(batch))
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
                guard(|| self.tree.remove(key))?;
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
}

impl Drop for SledCache {
    fn drop(&mut self) {
        if let Err(error) = guard(|| self.db.flush()) {
            tracing::warn!(%error, "the cache was not written out; what is missing is built again from the log");
        }
    }
}
