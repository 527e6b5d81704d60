//! The cache destroyed in every way that came to mind: the answers stay what they are without one.

use super::{Cache, CacheError, SledCache, catch_up};
use crate::conformance::shape::{append, claim, history, sized_event, stream};
use crate::journal::{Journal, JournalConfig, StoreId};
use crate::types::{AppendContext, AppendOutcome, Position, Record, Version};
use crate::{Append, Log};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const STORE: StoreId = StoreId([0x5a; 16]);
const OTHER: StoreId = StoreId([0x77; 16]);
const MEMORY_BYTES: u64 = 8 << 20;
const PROJECTION: &str = "payloads";
const STEPS_MAX: usize = 100;

fn config() -> JournalConfig {
    JournalConfig { segment_bytes: 256 << 10, ring_bytes_max: 0, ..JournalConfig::new(STORE) }
}

async fn fill(journal: &Journal, appends: u64) {
    for number in 0..appends {
        let stream = stream(1 + number % 2);
        let epoch = claim(journal, stream).await;
        let expected = journal.head(stream).version.get();
        let context = AppendContext { request: Some([number as u8; 16]), ..AppendContext::default() };
        let append = Append { context, ..append(stream, epoch, expected, [sized_event(number, 300)]) };
        assert!(matches!(journal.append(append).await, AppendOutcome::Appended { .. }));
    }
}

/// Everything that is asked of a log and its cache.
#[derive(Debug, PartialEq)]
struct Answers {
    histories: Vec<Vec<Record>>,
    parts: Vec<Vec<Record>>,
    rows: BTreeMap<Bytes, Bytes>,
    requests: Vec<Option<Position>>,
}

/// The rows of a projection as the log makes them: the last payload of each remainder of the position.
fn fold(rows: &mut BTreeMap<Bytes, Bytes>, record: &Record) -> (Bytes, Bytes) {
    let key = Bytes::from((record.position.get() % 37).to_be_bytes().to_vec());
    rows.insert(key.clone(), record.payload.clone());
    (key, record.payload.clone())
}

fn expected(journal: &Journal) -> Answers {
    let all = journal.read_all(Position::new(1), usize::MAX).unwrap();
    let mut rows = BTreeMap::new();
    for record in &all {
        fold(&mut rows, record);
    }
    let first = |request: u8| {
        let is_its = |it: &&Record| it.context.as_ref().is_some_and(|it| it.request == Some([request; 16]));
        all.iter().find(is_its).map(|record| record.position)
    };
    let own = |number| all.iter().filter(|it| it.stream == stream(number)).cloned().collect::<Vec<_>>();
    Answers {
        histories: [1, 2].map(own).to_vec(),
        parts: [1, 2].map(|number| own(number)[10..30].to_vec()).to_vec(),
        rows,
        requests: (0..40).map(first).collect(),
    }
}

/// Brings the projection up to the log and reads it.
fn project(journal: &Journal, cache: &dyn Cache) -> Result<BTreeMap<Bytes, Bytes>, CacheError> {
    let from = cache.checkpoint(PROJECTION)?;
    if from == Position::ZERO {
        cache.clear(PROJECTION)?;
    }
    let mut fresh = BTreeMap::new();
    for record in journal.read_all(from.next(), usize::MAX).unwrap() {
        fold(&mut fresh, &record);
    }
    let puts: Vec<_> = fresh.into_iter().collect();
    cache.apply(PROJECTION, journal.durable(), &puts, &[])?;
    cache.rows(PROJECTION)?.collect()
}

/// Asks everything as a daemon does after a start: what the cache gets wrong is thrown away, once.
fn ask(journal: &Arc<Journal>, dir: &Path) -> Answers {
    // A cache that does not open at all is done without.
    let opened = SledCache::open(dir, STORE, journal.durable(), MEMORY_BYTES).ok();
    let cache = opened.map(|(cache, _)| Arc::new(cache));
    let Some(cache) = cache else { return expected(journal) };
    let (mut rows, mut requests) = (None, None);
    for _ in 0..2 {
        let indexed = catch_up(&**journal, &*cache, STEPS_MAX);
        rows = project(journal, &*cache).ok();
        requests = (0..40).map(|request| cache.request([request; 16]).ok()).collect::<Option<Vec<_>>>();
        if indexed.is_ok() && rows.is_some() && requests.is_some() {
            break;
        }
        cache.distrust("it contradicts itself");
    }
    assert!(journal.attach_cache(cache));
    Answers {
        histories: [1, 2].map(|number| history(&**journal, stream(number))).to_vec(),
        parts: [1, 2]
            .map(|number| journal.read_stream(stream(number), Version::new(11), 20).unwrap())
            .to_vec(),
        rows: rows.expect("an empty cache does not contradict itself"),
        requests: requests.expect("an empty cache does not contradict itself"),
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn change(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = dir.join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
}

fn snapshots(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("snap.")).collect()
}

/// Draws that are the same for the same seed.
fn draw(seed: u64, below: usize) -> usize {
    let mut word = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^= word >> 29;
    word = word.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((word ^ (word >> 32)) % below as u64) as usize
}

type Way = (&'static str, Box<dyn Fn(&Path)>);

fn ways(older: &Path, newer: &Path, other: &Path, half: &Path) -> Vec<Way> {
    let replace = |with: &Path| {
        let with = with.to_owned();
        Box::new(move |dir: &Path| {
            std::fs::remove_dir_all(dir).unwrap();
            copy_dir(&with, dir);
        })
    };
    let mut ways: Vec<Way> = vec![
        ("deleted", Box::new(|dir| std::fs::remove_dir_all(dir).unwrap())),
        ("emptied", Box::new(|dir| change(dir, "db", Vec::clear))),
        ("zeroed", Box::new(|dir| change(dir, "db", |bytes| bytes.fill(0)))),
        ("without configuration", Box::new(|dir| change(dir, "conf", Vec::clear))),
        (
            "a file",
            Box::new(|dir| {
                std::fs::remove_dir_all(dir).unwrap();
                std::fs::write(dir, b"no directory").unwrap();
            }),
        ),
        (
            "with leftovers",
            Box::new(|dir| {
                std::fs::write(dir.join("snap.0000000000000F00.generating"), b"half").unwrap();
            }),
        ),
        (
            "without snapshots",
            Box::new(|dir| {
                for name in snapshots(dir) {
                    std::fs::remove_file(dir.join(name)).unwrap();
                }
            }),
        ),
        (
            "with flipped snapshots",
            Box::new(|dir| {
                for name in snapshots(dir) {
                    change(dir, &name, |bytes| bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x40));
                }
            }),
        ),
        (
            "read-only",
            Box::new(|dir| {
                for name in ["db", "conf"] {
                    let mut permissions = std::fs::metadata(dir.join(name)).unwrap().permissions();
                    permissions.set_readonly(true);
                    std::fs::set_permissions(dir.join(name), permissions).unwrap();
                }
            }),
        ),
        ("older", replace(older)),
        ("newer", replace(newer)),
        ("another store's", replace(other)),
        ("half-written", replace(half)),
    ];
    for seed in 0..8u64 {
        ways.push((
            "truncated",
            Box::new(move |dir| {
                change(dir, "db", |bytes| bytes.truncate(draw(seed, bytes.len())));
            }),
        ));
        ways.push((
            "with flipped bits",
            Box::new(move |dir| {
                change(dir, "db", |bytes| {
                    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
                    for flip in 0..20 {
                        let at = draw(seed * 100 + flip, end);
                        bytes[at] ^= 1 << (flip % 8);
                    }
                });
            }),
        ));
        ways.push((
            "with zeroed pages",
            Box::new(move |dir| {
                change(dir, "db", |bytes| {
                    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
                    let at = draw(seed + 5_000, end);
                    let to = (at + 4_096).min(bytes.len());
                    bytes[at..to].fill(0);
                });
            }),
        ));
    }
    ways
}

#[tokio::test]
async fn a_destroyed_cache_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (journal, _) = Journal::open(&at("journal"), config()).unwrap();
    fill(&journal, 200).await;
    let journal = Arc::new(journal);
    drop(ask(&journal, &at("older")));
    drop(journal);
    let (journal, _) = Journal::open(&at("journal"), config()).unwrap();
    fill(&journal, 200).await;
    let journal = Arc::new(journal);
    let right = expected(&journal);
    assert_eq!(ask(&journal, &at("whole")), right, "an empty cache is filled");
    copy_dir(&at("whole"), &at("half"));
    drop(journal);
    let newer = SledCache::open(&at("newer"), STORE, Position::new(1 << 40), MEMORY_BYTES).unwrap().0;
    newer.apply(PROJECTION, Position::new(5_000), &[(Bytes::from_static(b"k"), Bytes::new())], &[]).unwrap();
    drop(newer);
    let other = SledCache::open(&at("other"), OTHER, Position::new(1 << 40), MEMORY_BYTES).unwrap().0;
    other.apply(PROJECTION, Position::new(300), &[(Bytes::from_static(b"k"), Bytes::new())], &[]).unwrap();
    drop(other);
    let ways = ways(&at("older"), &at("newer"), &at("other"), &at("half"));
    assert!(ways.len() > 30);
    for (number, (what, destroy)) in ways.iter().enumerate() {
        let cache = at(&format!("cache-{number}"));
        copy_dir(&at("whole"), &cache);
        destroy(&cache);
        let (journal, _) = Journal::open(&at("journal"), config()).unwrap();
        assert_eq!(ask(&Arc::new(journal), &cache), right, "{number}: {what}");
        std::fs::remove_dir_all(&cache).ok();
    }
}
