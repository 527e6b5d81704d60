//! Both caches against one set of cases, and the cache on disk against damage.

use super::{
    Cache, CacheError, MemCache, PROJECTION_BYTES_MAX, ROW_KEY_BYTES_MAX, Row, SledCache, Snapshot,
    VALUE_BYTES_MAX, catch_up,
};
use crate::conformance::shape::{event, extend, history, stream};
use crate::journal::{Journal, JournalConfig, StoreId};
use crate::types::{Position, Record, Version};
use crate::{Log, SimLog};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

const STORE: StoreId = StoreId([0x5a; 16]);
const MEMORY_BYTES: u64 = 8 << 20;
const FAR: Position = Position::new(1 << 40);

fn open(dir: &Path) -> SledCache {
    let (cache, report) = SledCache::open(&dir.join("cache"), STORE, FAR, MEMORY_BYTES).unwrap();
    assert_eq!(report.rebuilt, None);
    cache
}

/// Runs a case on both; what it asserts holds for either.
fn check(case: impl Fn(&dyn Cache)) {
    case(&MemCache::new());
    let dir = tempfile::tempdir().unwrap();
    case(&open(dir.path()));
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn rows(cache: &dyn Cache, projection: &str) -> Vec<Row> {
    cache.rows(projection).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Records of a log with two streams, the first of them long.
async fn records(appends: u64) -> (SimLog, Vec<Record>) {
    let log = SimLog::new();
    for number in 0..appends {
        let target = if number % 10 == 9 { stream(2) } else { stream(1) };
        extend(&log, target, [event(number)]).await;
    }
    let all = log.read_all(Position::new(1), usize::MAX).unwrap();
    (log, all)
}

#[tokio::test]
async fn the_stream_index_answers_positions_from_any_version() {
    let (_, all) = records(1_500).await;
    check(|cache| {
        for piece in all.chunks(97) {
            cache.index(piece).unwrap();
        }
        assert_eq!(cache.indexed().unwrap(), Position::new(1_500));
        let own =
            |number| all.iter().filter(move |record| record.stream == stream(number)).map(|it| it.position);
        for (number, from, limit) in
            [(1, 1, 9_999), (1, 500, 30), (1, 512, 2), (1, 513, 2), (1, 1_350, 5), (2, 3, 4)]
        {
            let expected: Vec<_> = own(number).skip(from as usize - 1).take(limit).collect();
            assert_eq!(
                cache.positions(stream(number), Version::new(from), limit).unwrap(),
                expected,
                "from {from}"
            );
        }
        assert_eq!(cache.positions(stream(1), Version::new(1_351), 5).unwrap(), []);
        assert_eq!(cache.positions(stream(3), Version::new(1), 5).unwrap(), []);
    });
}

#[tokio::test]
async fn a_request_leads_to_its_first_record() {
    let (_, mut all) = records(40).await;
    for (number, record) in all.iter_mut().enumerate() {
        record.context.as_mut().unwrap().request = (number % 4 != 3).then_some([(number % 7) as u8; 16]);
    }
    check(|cache| {
        for piece in all.chunks(9) {
            cache.index(piece).unwrap();
        }
        for request in 0..7u8 {
            let first = all.iter().find(|it| it.context.as_ref().unwrap().request == Some([request; 16]));
            assert_eq!(cache.request([request; 16]), Ok(first.map(|record| record.position)));
        }
        assert_eq!(cache.request([9; 16]), Ok(None));
        cache.distrust("a test says so");
        assert_eq!(cache.request([1; 16]), Ok(None));
    });
}

#[tokio::test]
async fn the_index_refuses_gaps_and_repetitions() {
    let (_, all) = records(20).await;
    check(|cache| {
        cache.index(&all[..10]).unwrap();
        assert!(matches!(cache.index(&all[11..]), Err(CacheError::Refused(_))));
        assert!(matches!(cache.index(&all[9..]), Err(CacheError::Refused(_))));
        assert_eq!(cache.index(&[]), Ok(()));
        assert_eq!(cache.indexed().unwrap(), Position::new(10));
        cache.index(&all[10..]).unwrap();
        assert_eq!(cache.positions(stream(2), Version::new(1), 9).unwrap().len(), 2);
    });
}

#[tokio::test]
async fn catching_up_follows_the_log_in_bounded_steps() {
    let (log, all) = records(9_000).await;
    check(|cache| {
        assert_eq!(catch_up(&log, cache, 1), Ok(Position::new(8_192)));
        assert_eq!(catch_up(&log, cache, 100), Ok(Position::new(9_000)));
        assert_eq!(catch_up(&log, cache, 100), Ok(Position::new(9_000)));
        let shorter = SimLog::new();
        assert_eq!(
            catch_up(&shorter, cache, 1),
            Ok(Position::ZERO),
            "an index beyond the log is thrown away"
        );
        assert_eq!(cache.distrusted(), 1);
        cache.index(&all[..5]).unwrap();
    });
}

#[test]
fn snapshots_of_any_size_are_replaced_and_removed() {
    check(|cache| {
        let snapshot = |bytes: usize, fold| Snapshot {
            version: Version::new(7),
            position: Position::new(9),
            fold,
            state: (0..bytes).map(|at| at as u8).collect(),
        };
        assert_eq!(cache.snapshot(stream(1)), Ok(None));
        for (bytes, fold) in [(0, 1), (6_144, 2), (6_145, 3), (100_000, 4), (20_000, 5), (3, 6)] {
            cache.put_snapshot(stream(1), &snapshot(bytes, fold)).unwrap();
            assert_eq!(cache.snapshot(stream(1)), Ok(Some(snapshot(bytes, fold))), "{bytes} bytes");
        }
        assert_eq!(cache.snapshot(stream(2)), Ok(None));
        cache.remove_snapshot(stream(1)).unwrap();
        assert_eq!(cache.snapshot(stream(1)), Ok(None));
        let refused = cache.put_snapshot(stream(1), &snapshot(VALUE_BYTES_MAX + 1, 1));
        assert!(matches!(refused, Err(CacheError::Refused(_))));
    });
}

#[test]
fn rows_and_checkpoint_of_a_projection_change_together() {
    check(|cache| {
        assert_eq!(cache.checkpoint("fleet"), Ok(Position::ZERO));
        let large = Bytes::from(vec![7; 50_000]);
        let puts = [(bytes("b"), bytes("1")), (bytes("a"), large.clone()), (bytes(""), bytes("empty key"))];
        cache.apply("fleet", Position::new(5), &puts, &[]).unwrap();
        cache.apply("flee", Position::new(6), &[(bytes("t"), bytes("other"))], &[]).unwrap();
        let expected = [(bytes(""), bytes("empty key")), (bytes("a"), large), (bytes("b"), bytes("1"))];
        assert_eq!(rows(cache, "fleet"), expected);
        assert_eq!(cache.row("fleet", b"b"), Ok(Some(bytes("1"))));
        assert_eq!(cache.row("fleet", b"c"), Ok(None));
        let again = [(bytes("a"), bytes("small")), (bytes("b"), bytes("2"))];
        cache.apply("fleet", Position::new(8), &again, &[bytes("b"), bytes("")]).unwrap();
        let expected = [(bytes("a"), bytes("small")), (bytes("b"), bytes("2"))];
        assert_eq!(rows(cache, "fleet"), expected, "deletes come before puts");
        assert_eq!(cache.checkpoint("fleet"), Ok(Position::new(8)));
        cache.clear("fleet").unwrap();
        assert_eq!((rows(cache, "fleet"), cache.checkpoint("fleet")), (vec![], Ok(Position::ZERO)));
        assert_eq!(rows(cache, "flee"), [(bytes("t"), bytes("other"))], "another name is another projection");
    });
}

#[test]
fn bounds_are_refused() {
    check(|cache| {
        let long = "x".repeat(PROJECTION_BYTES_MAX + 1);
        let key = Bytes::from(vec![0; ROW_KEY_BYTES_MAX + 1]);
        for projection in ["", &long] {
            assert!(matches!(cache.checkpoint(projection), Err(CacheError::Refused(_))));
            assert!(matches!(cache.apply(projection, FAR, &[], &[]), Err(CacheError::Refused(_))));
        }
        assert!(matches!(cache.apply("p", FAR, &[], &[key]), Err(CacheError::Refused(_))));
        assert_eq!(cache.checkpoint("p"), Ok(Position::ZERO));
    });
}

#[test]
fn distrust_forgets_everything() {
    check(|cache| {
        cache.apply("p", Position::new(1), &[(bytes("k"), bytes("v"))], &[]).unwrap();
        cache.distrust("a test says so");
        assert_eq!((rows(cache, "p"), cache.checkpoint("p")), (vec![], Ok(Position::ZERO)));
        assert_eq!((cache.indexed(), cache.distrusted()), (Ok(Position::ZERO), 1));
        cache.apply("p", Position::new(1), &[(bytes("k"), bytes("v"))], &[]).unwrap();
    });
}

#[test]
fn the_cache_on_disk_is_there_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let large = Bytes::from(vec![9; 40_000]);
    {
        let cache = open(dir.path());
        cache.apply("p", Position::new(4), &[(bytes("k"), large.clone())], &[]).unwrap();
    }
    let cache = open(dir.path());
    assert_eq!(rows(&cache, "p"), [(bytes("k"), large)]);
    assert_eq!(cache.checkpoint("p"), Ok(Position::new(4)));
}

#[test]
fn a_cache_that_cannot_be_right_is_moved_aside() {
    let table: [(&str, StoreId, Position); 3] = [
        ("another store", StoreId([1; 16]), FAR),
        ("ahead of the log", STORE, Position::new(3)),
        ("the right one", STORE, Position::new(4)),
    ];
    for (what, store, durable) in table {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).apply("p", Position::new(4), &[(bytes("k"), bytes("v"))], &[]).unwrap();
        let (cache, report) =
            SledCache::open(&dir.path().join("cache"), store, durable, MEMORY_BYTES).unwrap();
        let is_kept = what == "the right one";
        assert_eq!(report.rebuilt.is_none(), is_kept, "{what}: {report:?}");
        assert_eq!(dir.path().join("cache.damaged").exists(), !is_kept, "{what}");
        assert_eq!(rows(&cache, "p").is_empty(), !is_kept, "{what}");
    }
}

#[test]
fn a_damaged_cache_never_answers_wrongly() {
    let filled = tempfile::tempdir().unwrap();
    let expected: Vec<Row> =
        (0..200).map(|number| (bytes(&format!("key {number:03}")), bytes("value"))).collect();
    open(filled.path()).apply("p", Position::new(4), &expected, &[]).unwrap();
    let files: Vec<_> =
        std::fs::read_dir(filled.path().join("cache")).unwrap().map(|it| it.unwrap().path()).collect();
    let mut is_noticed = false;
    for file in files.iter().filter(|path| path.is_file()) {
        let name = file.file_name().unwrap();
        let whole = std::fs::read(file).unwrap();
        for step in 0..6 {
            let dir = tempfile::tempdir().unwrap();
            let copy = dir.path().join("cache");
            std::fs::create_dir(&copy).unwrap();
            for file in files.iter().filter(|path| path.is_file()) {
                std::fs::copy(file, copy.join(file.file_name().unwrap())).unwrap();
            }
            let mut bytes = whole.clone();
            let from = bytes.len() * step / 6;
            let to = (from + 64).min(bytes.len());
            bytes[from..to].iter_mut().for_each(|byte| *byte ^= 0xa5);
            std::fs::write(copy.join(name), bytes).unwrap();
            let (cache, report) = SledCache::open(&copy, STORE, FAR, MEMORY_BYTES).unwrap();
            is_noticed |= report.rebuilt.is_some();
            let read: Result<Vec<Row>, _> = cache.rows("p").and_then(Iterator::collect);
            let is_honest = match (&read, cache.checkpoint("p")) {
                (Err(_), _) | (_, Err(_)) => true,
                (Ok(rows), Ok(Position::ZERO)) => rows.is_empty() || *rows == expected,
                (Ok(rows), Ok(checkpoint)) => *rows == expected && checkpoint == Position::new(4),
            };
            assert!(is_honest, "{} step {step}: {read:?}", name.display());
        }
    }
    assert!(is_noticed, "some of the damage was in something that matters");
}

#[tokio::test]
async fn a_journal_answers_alike_with_without_and_against_its_cache() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { segment_bytes: 64 << 10, ring_bytes_max: 0, ..JournalConfig::new(STORE) };
    let (journal, _) = Journal::open(&dir.path().join("journal"), config.clone()).unwrap();
    for number in 0..200 {
        extend(&journal, stream(1 + number % 3 / 2), [event(number), event(number)]).await;
    }
    let plain = history(&journal, stream(1));
    assert!(plain.len() > 200);
    journal.close().await;
    let reads = |journal: &Journal| {
        let part = journal.read_stream(stream(1), Version::new(20), 100).unwrap();
        (history(journal, stream(1)), part)
    };
    // Caches that are complete, behind, empty, and lying about where the stream is.
    let lying: Vec<Record> = (1..=400)
        .map(|position| Record {
            position: Position::new(position),
            version: Version::new(position),
            previous: Position::new(position - 1),
            ..plain[0].clone()
        })
        .collect();
    for (what, indexed, is_trusted) in [("complete", 400, true), ("behind", 150, true), ("lying", 0, false)] {
        let (journal, _) = Journal::open(&dir.path().join("journal"), config.clone()).unwrap();
        let (cache, report) =
            SledCache::open(&dir.path().join(what), STORE, journal.durable(), MEMORY_BYTES).unwrap();
        assert_eq!(report.rebuilt, None);
        let cache = Arc::new(cache);
        if is_trusted {
            cache.index(&journal.read_all(Position::new(1), indexed).unwrap()).unwrap();
        } else {
            cache.index(&lying).unwrap();
        }
        assert!(journal.attach_cache(cache.clone()));
        assert_eq!(reads(&journal), (plain.clone(), plain[19..119].to_vec()), "{what}");
        assert_eq!(cache.distrusted() > 0, !is_trusted, "{what}");
        journal.close().await;
    }
}
