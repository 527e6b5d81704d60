//! Keeping the model in the cache, and getting it back.
//!
//! Invariants:
//! * rows, head and checkpoint change in one step, so the cache holds a model of one position or none;
//! * rows that have not been written since they changed are remembered until they are;
//! * when the cache forgets everything (by itself or because somebody distrusts it), all rows are written
//!   again: never a part under a newer checkpoint;
//! * no trouble with the cache reaches a reader: after [`FAILURES_MAX`] in a row it is not used any more.

use crate::model::ReadModel;
use crate::rows::{HEAD, Loading, RowError, RowKey, head_row, is_head_of, row_value};
use bytes::Bytes;
use eventlog::cache::{CacheError, Row};
use eventlog::{Cache, Position};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The projection's name in the cache.
pub(crate) const NAME: &str = "read-model";

/// Failures in a row after which the cache is not written any more: it costs time and gains none.
const FAILURES_MAX: u32 = 3;

/// The cache, and which of its rows are out of date.
pub(crate) struct Checkpoints {
    cache: Option<Arc<dyn Cache>>,
    dirty: BTreeSet<RowKey>,
    is_all_dirty: bool,
    /// How often the cache had been distrusted when its rows were last known to be ours.
    distrusted: u64,
    failures: u32,
    trouble: Option<String>,
}

/// The read model that a cache holds; none if it holds none that this build can use. `durable` is the end of the
/// log. The cache is not written.
pub fn stored_model(cache: &dyn Cache, durable: Position) -> Option<ReadModel> {
    let checkpoint = cache.checkpoint(NAME).ok().filter(|it| *it != Position::ZERO && *it <= durable)?;
    load_rows(cache, checkpoint).ok()
}

/// What to write: taken from the model under its lock, written without it.
pub(crate) struct Writing {
    position: Position,
    puts: Vec<Row>,
    deletes: Vec<Bytes>,
    is_all: bool,
    /// How often the cache had been distrusted when this was prepared: later means that it forgot since.
    distrusted: u64,
}

impl Checkpoints {
    /// Opens the checkpoint and answers the model it holds: an empty one if there is none to be used.
    /// `durable` is the end of the log.
    pub(crate) fn open(cache: Option<Arc<dyn Cache>>, durable: Position) -> (Self, ReadModel) {
        let mut checkpoints = Self {
            distrusted: cache.as_ref().map_or(0, |cache| cache.distrusted()),
            cache,
            dirty: BTreeSet::new(),
            is_all_dirty: false,
            failures: 0,
            trouble: None,
        };
        let model = checkpoints.load(durable).unwrap_or_default();
        (checkpoints, model)
    }

    /// Opens the checkpoint beside a model that comes from elsewhere, at `start`. Answers the position from which
    /// on the cache may be written: rows that it holds of a later position stay as they are until the model is
    /// there too, and all are written if what changed since is not known.
    pub(crate) fn beside(
        cache: Option<Arc<dyn Cache>>,
        start: Position,
        durable: Position,
    ) -> (Self, Position) {
        let mut checkpoints = Self {
            distrusted: cache.as_ref().map_or(0, |cache| cache.distrusted()),
            cache,
            dirty: BTreeSet::new(),
            is_all_dirty: false,
            failures: 0,
            trouble: None,
        };
        match checkpoints.held().filter(|held| *held >= start && *held <= durable) {
            Some(held) => (checkpoints, held),
            None => {
                checkpoints.is_all_dirty = true;
                (checkpoints, start)
            }
        }
    }

    /// Position of the rows in the cache, if this build can go on from them.
    fn held(&self) -> Option<Position> {
        let cache = self.cache.as_ref()?;
        let held = cache.checkpoint(NAME).ok()?;
        let head = cache.row(NAME, &[HEAD]).ok()??;
        is_head_of(&head, held.get()).then_some(held)
    }

    /// Why the cache is not as it should be, if it is not.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn load(&mut self, durable: Position) -> Option<ReadModel> {
        let cache = self.cache.clone()?;
        let loaded = cache.checkpoint(NAME).map_err(Unusable::Cache).and_then(|checkpoint| {
            if checkpoint > durable {
                let why = format!("the checkpoint is {checkpoint}, the log ends at {durable}");
                return Err(Unusable::Rows(RowError::Contradiction(why)));
            }
            if checkpoint == Position::ZERO { Ok(None) } else { load_rows(&*cache, checkpoint).map(Some) }
        });
        match loaded {
            Ok(Some(model)) => return Some(model),
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(%why, "the read model is built again from the log");
                if matches!(why, Unusable::Cache(CacheError::Contradiction(_))) {
                    cache.distrust(&why.to_string());
                }
            }
        }
        self.is_all_dirty = true;
        None
    }

    /// Remembers rows that changed.
    pub(crate) fn note(&mut self, changed: Vec<RowKey>) {
        if self.cache.is_some() && !self.is_all_dirty {
            self.dirty.extend(changed);
        }
    }

    /// What is to be written for the model as it is; none if there is no cache.
    pub(crate) fn prepare(&mut self, model: &ReadModel) -> Option<Writing> {
        let distrusted = self.cache.as_ref()?.distrusted();
        if distrusted != self.distrusted {
            self.is_all_dirty = true;
        }
        let mut writing = Writing {
            position: model.position(),
            puts: vec![head_row(model)],
            deletes: Vec::new(),
            is_all: self.is_all_dirty,
            distrusted,
        };
        let keys = if self.is_all_dirty { model.row_keys().collect() } else { self.dirty.clone() };
        for key in keys {
            match row_value(model, key) {
                Some(value) => writing.puts.push((key.encode(), value)),
                None => writing.deletes.push(key.encode()),
            }
        }
        Some(writing)
    }

    /// Writes it. What could not be written is tried again with the next.
    pub(crate) fn write(&mut self, writing: &Writing) {
        let Some(cache) = self.cache.clone() else {
            return;
        };
        // Rows of another version or another life of the cache go first. A crash in between leaves none.
        let cleared = if writing.is_all { cache.clear(NAME) } else { Ok(()) };
        let written =
            cleared.and_then(|()| cache.apply(NAME, writing.position, &writing.puts, &writing.deletes));
        match written {
            Ok(()) => {
                self.dirty.clear();
                self.is_all_dirty = false;
                self.distrusted = writing.distrusted;
                self.failures = 0;
                self.trouble = None;
            }
            Err(error) => self.failed(&*cache, &error),
        }
    }

    fn failed(&mut self, cache: &dyn Cache, error: &CacheError) {
        self.failures += 1;
        self.is_all_dirty = true;
        self.dirty.clear();
        self.trouble = Some(error.to_string());
        if matches!(error, CacheError::Contradiction(_)) {
            cache.distrust(&error.to_string());
        }
        if self.failures >= FAILURES_MAX {
            tracing::warn!(%error, "the read model is no longer kept in the cache: the next start folds the log");
            self.cache = None;
        }
    }
}

/// Why a checkpoint is of no use.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Cache(CacheError),
    #[error(transparent)]
    Rows(RowError),
}

fn load_rows(cache: &dyn Cache, checkpoint: Position) -> Result<ReadModel, Unusable> {
    let mut loading = Loading::new();
    for row in cache.rows(NAME).map_err(Unusable::Cache)? {
        let (key, value) = row.map_err(Unusable::Cache)?;
        loading.take(&key, &value).map_err(Unusable::Rows)?;
    }
    loading.finish(checkpoint.get()).map_err(Unusable::Rows)
}

#[cfg(test)]
#[path = "../tests/fleet/mod.rs"]
mod fleet;

#[cfg(test)]
mod tests {
    use super::fleet::{Fleet, any_move};
    use super::*;
    use eventlog::cache::{Rows, Snapshot};
    use eventlog::{MemCache, Record, StreamId, Version};
    use proptest::prelude::*;
    use std::sync::Mutex;

    /// A cache whose writes fail as often as it is told, with the given error.
    struct Failing {
        inner: MemCache,
        failures: Mutex<Vec<CacheError>>,
    }

    impl Failing {
        fn new(failures: Vec<CacheError>) -> Arc<Self> {
            Arc::new(Self { inner: MemCache::new(), failures: Mutex::new(failures) })
        }
    }

    impl Cache for Failing {
        fn indexed(&self) -> Result<Position, CacheError> {
            self.inner.indexed()
        }
        fn index(&self, records: &[Record]) -> Result<(), CacheError> {
            self.inner.index(records)
        }
        fn positions(
            &self,
            stream: StreamId,
            from: Version,
            max: usize,
        ) -> Result<Vec<Position>, CacheError> {
            self.inner.positions(stream, from, max)
        }
        fn snapshot(&self, stream: StreamId) -> Result<Option<Snapshot>, CacheError> {
            self.inner.snapshot(stream)
        }
        fn put_snapshot(&self, stream: StreamId, snapshot: &Snapshot) -> Result<(), CacheError> {
            self.inner.put_snapshot(stream, snapshot)
        }
        fn remove_snapshot(&self, stream: StreamId) -> Result<(), CacheError> {
            self.inner.remove_snapshot(stream)
        }
        fn apply(
            &self,
            projection: &str,
            checkpoint: Position,
            puts: &[Row],
            deletes: &[Bytes],
        ) -> Result<(), CacheError> {
            match self.failures.lock().unwrap().pop() {
                Some(error) => Err(error),
                None => self.inner.apply(projection, checkpoint, puts, deletes),
            }
        }
        fn row(&self, projection: &str, key: &[u8]) -> Result<Option<Bytes>, CacheError> {
            self.inner.row(projection, key)
        }
        fn rows(&self, projection: &str) -> Result<Rows, CacheError> {
            self.inner.rows(projection)
        }
        fn checkpoint(&self, projection: &str) -> Result<Position, CacheError> {
            self.inner.checkpoint(projection)
        }
        fn clear(&self, projection: &str) -> Result<(), CacheError> {
            self.inner.clear(projection)
        }
        fn distrust(&self, why: &str) {
            self.inner.distrust(why);
        }
        fn distrusted(&self) -> u64 {
            self.inner.distrusted()
        }
    }

    fn step(checkpoints: &mut Checkpoints, model: &mut ReadModel, record: &Record) {
        checkpoints.note(model.apply_record(record).unwrap());
    }

    fn save(checkpoints: &mut Checkpoints, model: &ReadModel) {
        if let Some(writing) = checkpoints.prepare(model) {
            checkpoints.write(&writing);
        }
    }

    fn loaded(cache: &Arc<MemCache>, durable: Position) -> ReadModel {
        Checkpoints::open(Some(Arc::clone(cache) as Arc<dyn Cache>), durable).1
    }

    fn folded(records: &[Record]) -> ReadModel {
        let mut model = ReadModel::default();
        for record in records {
            model.apply_record(record).unwrap();
        }
        model
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        #[test]
        fn checkpoint_and_tail_make_the_same_model_at_every_position(
            walk in prop::collection::vec(any_move(), 1..60),
            every in 1usize..5,
        ) {
            let mut fleet = Fleet::founded();
            for step in &walk {
                fleet.act(step);
            }
            let records = fleet.records();
            let whole = folded(&records);
            let cache = Arc::new(MemCache::new());
            let (mut checkpoints, mut model) =
                Checkpoints::open(Some(Arc::clone(&cache) as Arc<dyn Cache>), Position::ZERO);
            for (at, record) in records.iter().enumerate() {
                step(&mut checkpoints, &mut model, record);
                if at % every == 0 {
                    save(&mut checkpoints, &model);
                    let mut again = loaded(&cache, whole.position());
                    prop_assert_eq!(&again, &model);
                    for record in &records[at + 1..] {
                        again.apply_record(record).unwrap();
                    }
                    prop_assert_eq!(&again, &whole);
                }
            }
        }
    }

    fn history() -> Vec<Record> {
        let mut fleet = Fleet::founded();
        for n in 0..4 {
            fleet.create(0, &super::fleet::name(n), Some(0));
        }
        fleet.records()
    }

    #[test]
    fn what_a_cache_forgets_is_written_again_whole() {
        let records = history();
        let cache = Arc::new(MemCache::new());
        let shared = || Some(Arc::clone(&cache) as Arc<dyn Cache>);
        let (mut checkpoints, mut model) = Checkpoints::open(shared(), Position::ZERO);
        for (at, record) in records.iter().enumerate() {
            step(&mut checkpoints, &mut model, record);
            if at % 3 == 1 {
                cache.distrust("test");
            }
            save(&mut checkpoints, &model);
            assert_eq!(loaded(&cache, model.position()), model, "at {at}");
        }
    }

    #[test]
    fn a_cache_that_forgets_while_it_is_written_holds_no_part_of_a_model() {
        let records = history();
        let cache = Arc::new(MemCache::new());
        let (mut checkpoints, mut model) =
            Checkpoints::open(Some(Arc::clone(&cache) as Arc<dyn Cache>), Position::ZERO);
        for record in &records[..records.len() - 1] {
            step(&mut checkpoints, &mut model, record);
        }
        save(&mut checkpoints, &model);
        step(&mut checkpoints, &mut model, records.last().unwrap());
        let writing = checkpoints.prepare(&model).unwrap();
        cache.distrust("between the two");
        checkpoints.write(&writing);
        assert_eq!(loaded(&cache, model.position()), ReadModel::default(), "a part is not a model");
        save(&mut checkpoints, &model);
        assert_eq!(loaded(&cache, model.position()), model);
    }

    #[test]
    fn a_failed_write_is_reported_and_made_good_by_the_next() {
        let failures =
            vec![CacheError::Engine("disk".to_owned()), CacheError::Contradiction("checksum".to_owned())];
        let cache = Failing::new(failures);
        let (mut checkpoints, mut model) =
            Checkpoints::open(Some(Arc::clone(&cache) as Arc<dyn Cache>), Position::ZERO);
        let records = history();
        step(&mut checkpoints, &mut model, &records[0]);
        save(&mut checkpoints, &model);
        assert_eq!(checkpoints.trouble(), Some("the cache contradicts itself: checksum"));
        assert_eq!(cache.distrusted(), 1);
        step(&mut checkpoints, &mut model, &records[1]);
        save(&mut checkpoints, &model);
        assert_eq!(checkpoints.trouble(), Some("the cache's database failed: disk"));
        step(&mut checkpoints, &mut model, &records[2]);
        save(&mut checkpoints, &model);
        assert_eq!(checkpoints.trouble(), None);
        let (_, again) = Checkpoints::open(Some(cache), model.position());
        assert_eq!(again, model);
    }

    #[test]
    fn a_cache_that_keeps_failing_is_given_up_and_holds_nothing_wrong() {
        let failures = vec![CacheError::Engine("disk".to_owned()); FAILURES_MAX as usize];
        let cache = Failing::new(failures);
        let (mut checkpoints, mut model) =
            Checkpoints::open(Some(Arc::clone(&cache) as Arc<dyn Cache>), Position::ZERO);
        for record in &history() {
            step(&mut checkpoints, &mut model, record);
            save(&mut checkpoints, &model);
        }
        assert!(checkpoints.prepare(&model).is_none(), "given up");
        assert_eq!(checkpoints.trouble(), Some("the cache's database failed: disk"));
        let (_, again) = Checkpoints::open(Some(cache), model.position());
        assert_eq!(again, ReadModel::default());
    }
}
