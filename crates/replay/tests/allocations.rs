//! How much the rules and the codec allocate per event, beside what they did when it was last looked at: memory that
//! is asked for is the dearest thing they do, and counts are the same on every machine.
//!
//! `UPDATE_EXPECT=1` writes the counts anew; look at the difference before it is kept.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

mod world;

use allocation_counter::measure;
use eventlog::{Log, Record};
use journal::{Recorded, StreamName, apply_instance, encode_event, read};
use lifecycle::{Instance, decide, effects};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use world::{World, id, version};

/// By how much a count may be above the one that was kept, per cent: compilers differ in what they leave out.
const ABOVE_MAX: u64 = 10;
/// Per 100 events, however few there were: two or three in the whole life are another library's doing.
const SLACK: u64 = 20;

/// Allocations of one task, counted over a whole life: created, started, migrated, stopped, deleted.
fn counts() -> Vec<(&'static str, u64)> {
    let mut world = World::simulated();
    world.live(id(7));
    let source: Arc<dyn Log> = Arc::clone(&world.log);
    let records = source.read_stream(StreamName::Instance(id(7)).id(), version(1), usize::MAX).unwrap();
    let recorded: Vec<Recorded> = records.iter().map(|record| read(record).unwrap()).collect();
    let states = &world.folds[&id(7)];
    let per_event = |name: &'static str, work: &mut dyn FnMut(usize)| {
        // What is built on first use is not built for every event.
        work(0);
        let counted = measure(|| (0..records.len()).for_each(&mut *work));
        (name, counted.count_total * 100 / records.len() as u64)
    };
    let before = |nth: usize| nth.checked_sub(1).map(|nth| &states[nth]);
    let mut folded: Option<Instance> = None;
    vec![
        per_event("encode", &mut |nth| drop(black_box(encode_event(&recorded[nth].event)))),
        per_event("read", &mut |nth| drop(black_box(read(&without_context(&records[nth]))))),
        per_event("evolve", &mut |nth| {
            if nth == 0 {
                folded = None;
            }
            apply_instance(&mut folded, &recorded[nth]).unwrap();
        }),
        per_event("decide", &mut |nth| {
            let input = recorded[nth].context.as_ref().and_then(|context| context.input.as_ref());
            if let Some(input) = input {
                let _ = black_box(decide(before(nth), input, &world.policy));
            }
        }),
        per_event("effects", &mut |nth| drop(black_box(effects(&states[nth])))),
    ]
}

fn without_context(record: &Record) -> Record {
    let mut record = record.clone();
    record.context = None;
    record
}

#[test]
fn the_rules_and_the_codec_allocate_no_more_than_they_did() {
    let found = counts();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/allocations.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let lines = found.iter().map(|(name, count)| format!("{name} {count}\n"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "# allocations per 100 events\n".to_owned() + &lines.collect::<String>())
            .unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    let kept: Vec<(&str, u64)> = kept
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').map(|(name, count)| (name, count.parse().unwrap())).unwrap())
        .collect();
    let names =
        |counts: &[(&str, u64)]| counts.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&kept));
    for ((name, count), (_, kept)) in found.iter().zip(&kept) {
        let most = kept + (kept * ABOVE_MAX / 100).max(SLACK);
        assert!(*count <= most, "{name} allocates {count} times per 100 events, and did {kept} times");
    }
    assert!(found.iter().any(|(_, count)| *count > 0), "nothing is counted");
}
