//! What the embedded database is known to get wrong, and that the cache stays clear of it.

use super::{Cache, SledCache, Snapshot};
use crate::conformance::shape::stream;
use crate::journal::StoreId;
use crate::types::{Position, Version};
use bytes::Bytes;
use std::path::Path;

const STORE: StoreId = StoreId([0x5a; 16]);
const FAR: Position = Position::new(1 << 40);
const MEMORY_BYTES: u64 = 8 << 20;

fn open(dir: &Path) -> SledCache {
    SledCache::open(dir, STORE, FAR, MEMORY_BYTES).unwrap().0
}

fn dir_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let size = |entry: std::fs::DirEntry| {
        if entry.file_type().unwrap().is_dir() {
            dir_bytes(&entry.path())
        } else {
            entry.metadata().unwrap().len()
        }
    };
    entries.map(size).sum()
}

#[test]
fn no_value_moves_into_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    for bytes in [6_000, 7_000, 8_000, 20_000, 3_000_000] {
        let value = Bytes::from(vec![7; bytes]);
        let key = Bytes::from(vec![b'k'; super::ROW_KEY_BYTES_MAX]);
        cache.apply("p", Position::new(1), &[(key, value.clone())], &[]).unwrap();
        let (version, position) = (Version::new(1), Position::new(1));
        cache.put_snapshot(stream(1), &Snapshot { version, position, fold: 1, state: value }).unwrap();
    }
    drop(cache);
    let files = std::fs::read_dir(dir.path().join("blobs")).unwrap().count();
    assert_eq!(files, 0, "such files are never synced");
}

#[test]
fn room_of_replaced_rows_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let rows = |round: u8| -> Vec<_> {
        (0..100u8).map(|key| (Bytes::from(vec![key; 8]), Bytes::from(vec![round; 2_000]))).collect()
    };
    for round in 0..200 {
        cache.apply("p", Position::new(u64::from(round)), &rows(round), &[]).unwrap();
    }
    drop(cache);
    // 40 MB were written, 200 kB are alive.
    let bytes = dir_bytes(dir.path());
    assert!(bytes < 12 << 20, "{bytes} bytes");
}

#[test]
fn leftovers_of_an_interrupted_opening_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let leftover = dir.path().join("snap.00000000000001F4.generating");
    std::fs::write(&leftover, b"half of a snapshot").unwrap();
    drop(open(dir.path()));
    assert!(!leftover.exists());
}

#[test]
fn a_configuration_file_cut_off_by_a_crash_is_survived() {
    for bytes in [0, 5, 40] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let row = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
        open(&path).apply("p", Position::new(1), std::slice::from_ref(&row), &[]).unwrap();
        let conf = std::fs::read(path.join("conf")).unwrap();
        std::fs::write(path.join("conf"), &conf[..bytes.min(conf.len())]).unwrap();
        let (cache, report) = SledCache::open(&path, STORE, FAR, MEMORY_BYTES).unwrap();
        let kept = if report.rebuilt.is_none() { vec![row] } else { vec![] };
        let read: Result<Vec<_>, _> = cache.rows("p").unwrap().collect();
        assert_eq!(read, Ok(kept), "{bytes} bytes of it");
    }
}

#[test]
fn nothing_that_is_known_to_fail_is_called() {
    let sources = [
        include_str!("sled_cache/mod.rs"),
        include_str!("sled_cache/indexing.rs"),
        include_str!("sled_cache/opening.rs"),
        include_str!("sled_cache/pieces.rs"),
        include_str!("sealed.rs"),
        include_str!("rebuild.rs"),
    ];
    for banned in ["flush_async", "watch_prefix", "generate_id", "flush_every_ms(None)", "transaction"] {
        assert!(sources.iter().all(|source| !source.contains(banned)), "{banned}");
    }
    for needed in ["cache_capacity(", "flush_every_ms(Some(", "catch_unwind("] {
        assert!(sources.iter().any(|source| source.contains(needed)), "{needed}");
    }
    let batches: usize = sources.iter().map(|source| source.matches("apply_batch(").count()).sum();
    assert_eq!(batches, 1, "there is one way in, which counts what the database has not written out");
}

#[test]
fn many_threads_write_at_once_without_standing_still() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..32u64 {
            let cache = &cache;
            scope.spawn(move || {
                for round in 0..20 {
                    let key = Bytes::from(thread.to_be_bytes().to_vec());
                    let row = (key, Bytes::from(vec![round; 100]));
                    cache
                        .apply(&format!("p{thread}"), Position::new(u64::from(round) + 1), &[row], &[])
                        .unwrap();
                }
            });
        }
    });
    for thread in 0..32 {
        assert_eq!(cache.checkpoint(&format!("p{thread}")), Ok(Position::new(20)));
    }
}
