//! Histories that no rule wrote: every question is answered or refused, and none ends the process. What fuzzing
//! found is kept in `fuzz/seeds/events` and asked again here.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

#[path = "../../../fuzz/fuzz_targets/questions/mod.rs"]
mod questions;

use bytes::Bytes;
use eventlog::Position;
use eventlog::portable::unpack;
use questions::Held;
use std::path::Path;

#[test]
fn what_fuzzing_found_is_answered() {
    let seeds = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/events"));
    let mut asked = 0;
    for entry in std::fs::read_dir(seeds).unwrap() {
        let path = entry.unwrap().path();
        let mut records = unpack(&Bytes::from(std::fs::read(&path).unwrap())).unwrap();
        for (nth, record) in records.iter_mut().enumerate() {
            record.position = Position::new(nth as u64 + 1);
        }
        println!("{}", path.display());
        questions::ask(&Held(records));
        asked += 1;
    }
    assert!(asked >= 4, "the seeds are gone");
}
