//! Exports, imports, backups and restores of journals on real files.

mod backups;
mod exports;
mod mutations;
mod stream_files;

use super::{Error, ExportReader, export};
use crate::conformance::shape::{event, sized_event, stream};
use crate::types::{Append, AppendContext, AppendOutcome, NewEvent, Position, Record, TraceContext};
use crate::{Journal, JournalConfig, JournalReader, Log, StoreId};
use bytes::Bytes;
use std::path::Path;

const STORE: StoreId = StoreId([0x5b; 16]);
const STREAMS: u64 = 7;

fn config() -> JournalConfig {
    JournalConfig { segment_bytes: 4 << 10, ring_bytes_max: 8 << 10, ..JournalConfig::new(STORE) }
}

fn open(dir: &Path) -> Journal {
    Journal::open(dir, config()).unwrap().0
}

fn context(number: u64) -> AppendContext {
    AppendContext {
        actor: Bytes::from(format!("user:{number}")),
        request: Some([number as u8; 16]),
        saga: Some(([9; 16], 3)),
        trace: Some(TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 }),
        build: Bytes::from_static(b"0.1.0"),
        input: Bytes::from(vec![number as u8; 20]),
    }
}

/// Bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> NewEvent {
    let mut state = seed;
    let payload: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        })
        .collect();
    NewEvent { payload: Bytes::from(payload), ..event(seed) }
}

/// Appends `count` times to the streams in turn: one to three events each.
async fn grow(log: &dyn Log, count: u64) {
    for number in 0..count {
        let stream = stream(number % STREAMS);
        let claim = log.claim(stream).await.unwrap();
        let mut events = vec![event(number), sized_event(number, 300), noise(number, 100)];
        events.truncate(1 + number as usize % 3);
        let context = context(number);
        let append = Append { stream, epoch: claim.epoch, expected: claim.head.version, events, context };
        assert!(matches!(log.append(append).await, AppendOutcome::Appended { .. }));
    }
}

fn all(read: impl Fn(Position, usize) -> Result<Vec<Record>, crate::ReadError>) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let next = records.last().map_or(Position::new(1), |record| record.position.next());
        let more = read(next, 10).unwrap();
        if more.is_empty() {
            return records;
        }
        records.extend(more);
    }
}

fn all_of(log: &dyn Log) -> Vec<Record> {
    all(|from, limit| log.read_all(from, limit))
}

/// What a stopped journal holds, after it was verified.
fn all_in(dir: &Path) -> Vec<Record> {
    let reader = JournalReader::open(dir).unwrap();
    assert_eq!(reader.verify().unwrap().problem, None);
    all(|from, limit| reader.read_all(from, limit))
}

/// An export of a journal with some records, and these.
async fn exported(appends: u64) -> (Vec<u8>, Vec<Record>) {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    grow(&journal, appends).await;
    let mut bytes = Vec::new();
    export(&journal, Position::ZERO, &mut bytes).unwrap();
    (bytes, all_of(&journal))
}

/// Reads an export through a file.
fn read_export(bytes: &[u8]) -> Result<Vec<Record>, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let reader = ExportReader::open(file.path())?;
    Ok(all(|from, limit| reader.read_all(from, limit)))
}

/// The message of a refusal, which is one line.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}
