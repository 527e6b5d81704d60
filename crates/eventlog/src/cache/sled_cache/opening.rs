//! Opening the cache: what is damaged, of another store, or ahead of the log is moved aside.
//!
//! Invariants:
//! * a cache that opens belongs to this store and is not ahead of its log;
//! * what is moved aside takes the place of what was moved aside before, and nothing else.

use super::{Changes, SledCache, guard, position};
use crate::cache::{Cache, CacheError, sealed};
use crate::journal::StoreId;
use crate::types::Position;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize};

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
            let (unwritten_bytes, distrusted) = (AtomicUsize::new(0), AtomicU64::new(0));
            Ok(Self { tree, db, store, writing: Mutex::new(()), unwritten_bytes, distrusted })
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

    pub(super) fn begin(&self) -> Result<(), CacheError> {
        let mut changes = Changes::default();
        changes.put(&sealed::identity(), &self.identity());
        self.commit(changes)
    }
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
    // Without the slash that a directory may be named with: behind it, the name would be one inside.
    let mut name = dir.components().collect::<PathBuf>().into_os_string();
    name.push(".damaged");
    let aside = PathBuf::from(name);
    if aside.exists() {
        std::fs::remove_dir_all(&aside)?;
    }
    std::fs::rename(dir, aside)
}
