//! The bytes of format 1, as a journal in `fixtures/format-1`: read by every later build, and written alike
//! for as long as format 1 is what is written. `UPDATE_FIXTURES=1` writes the fixture again; the difference
//! is then reviewed like a change of the format.

#![expect(clippy::unwrap_used, reason = "tests may unwrap, their helpers too")]

use bytes::Bytes;
use eventlog::journal::{Journal, JournalConfig, JournalReader, StoreId};
use eventlog::{
    Append, AppendContext, AppendOutcome, Cause, CodecId, Log, NewEvent, Position, Record, StreamId,
    StreamKind, TraceContext, Version,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const STORE: StoreId = StoreId(*b"store of format1");

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

fn stream(number: u8) -> StreamId {
    StreamId::new(StreamKind(number), [number; 16])
}

fn event(number: u64, cause: Cause, payload: usize) -> NewEvent {
    NewEvent {
        kind: 10 + number as u16,
        schema: 2,
        codec: CodecId(1),
        time_us: 1_700_000_000_000_000 + number,
        cause,
        payload: (0..payload).map(|at| at as u8).collect(),
    }
}

fn context() -> AppendContext {
    AppendContext {
        actor: Bytes::from_static(b"user:ada"),
        request: Some([1; 16]),
        saga: Some(([2; 16], 3)),
        trace: Some(TraceContext { trace_id: [4; 16], span_id: [5; 8], flags: 1 }),
        build: Bytes::from_static(b"0.1.0"),
        input: Bytes::from_static(b"what was decided on"),
    }
}

/// Stream, events, context of each append. The fourth does not fit into the first segment.
fn appends() -> Vec<(StreamId, Vec<NewEvent>, AppendContext)> {
    vec![
        (stream(1), vec![event(1, Cause::None, 20), event(2, Cause::InAppend(0), 0)], context()),
        (stream(2), vec![event(3, Cause::Position(Position::new(1)), 300)], AppendContext::default()),
        (stream(1), vec![event(4, Cause::None, 1_000)], AppendContext::default()),
        (stream(1), vec![event(5, Cause::None, 3_000)], context()),
        (stream(2), vec![event(6, Cause::None, 7)], AppendContext::default()),
    ]
}

async fn write(dir: &Path) {
    let config = JournalConfig {
        segment_bytes: 4 << 10,
        // Only opening and closing write a witness: their number must not depend on time.
        witness_every_ms: 3_600_000,
        ..JournalConfig::new(STORE)
    };
    let (journal, _) = Journal::open(dir, config).unwrap();
    for (stream, events, context) in appends() {
        let claim = journal.claim(stream).await.unwrap();
        let append = Append { stream, epoch: claim.epoch, expected: claim.head.version, events, context };
        assert!(matches!(journal.append(append).await, AppendOutcome::Appended { .. }));
    }
    journal.close().await;
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let named =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()));
    // Neither a segment prepared ahead nor the ballast is part of the journal.
    named.filter(|(name, _)| name != "segment.tmp" && name != "ballast").collect()
}

fn check_records(records: &[Record]) {
    let positions: Vec<u64> = records.iter().map(|record| record.position.get()).collect();
    assert_eq!(positions, [1, 2, 3, 4, 5, 6]);
    let versions: Vec<(u8, u64, u64)> =
        records.iter().map(|it| (it.stream.kind.0, it.version.get(), it.previous.get())).collect();
    assert_eq!(versions, [(1, 1, 0), (1, 2, 1), (2, 1, 0), (1, 3, 2), (1, 4, 4), (2, 2, 3)]);
    let causes: Vec<u64> = records.iter().map(|record| record.cause.get()).collect();
    assert_eq!(causes, [0, 1, 1, 0, 0, 0]);
    let expected = appends().into_iter().flat_map(|(_, events, context)| {
        let mut context = Some(context);
        events.into_iter().map(move |event| (event, context.take()))
    });
    for (record, (event, context)) in records.iter().zip(expected) {
        assert_eq!((record.kind, record.schema, record.codec), (event.kind, event.schema, event.codec));
        assert_eq!((record.time_us, &record.payload), (event.time_us, &event.payload));
        assert_eq!(record.context, context);
    }
}

#[test]
fn a_journal_of_format_1_is_read() {
    let reader = JournalReader::open(&fixture()).unwrap();
    assert_eq!(reader.store_id(), STORE);
    check_records(&reader.read_all(Position::new(1), 100).unwrap());
    assert_eq!(reader.read_stream(stream(1), Version::new(1), 100).unwrap().len(), 4);
    let report = reader.verify().unwrap();
    assert_eq!((report.problem, report.torn, report.segments, report.batches), (None, None, 2, 5));
}

#[tokio::test]
async fn format_1_is_written_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path()).await;
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::create_dir_all(fixture()).unwrap();
        for (name, bytes) in files(dir.path()) {
            std::fs::write(fixture().join(name), bytes).unwrap();
        }
    }
    let (written, expected) = (files(dir.path()), files(&fixture()));
    assert_eq!(written.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &written {
        let differs = bytes.iter().zip(&expected[name]).position(|(left, right)| left != right);
        assert_eq!(
            (differs, bytes.len()),
            (None, expected[name].len()),
            "{name}: first different byte and length"
        );
    }
}

#[tokio::test]
async fn a_journal_of_format_1_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files(&fixture()) {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let (journal, recovery) = Journal::open(dir.path(), JournalConfig::new(StoreId([0; 16]))).unwrap();
    assert_eq!((recovery.durable, recovery.scanned), (Position::new(6), 0));
    let claim = journal.claim(stream(2)).await.unwrap();
    let (stream, expected) = (stream(2), claim.head.version);
    let events = vec![event(7, Cause::None, 9)];
    let append = Append { stream, epoch: claim.epoch, expected, events, context: AppendContext::default() };
    let outcome = journal.append(append).await;
    let (first, version) = (Position::new(7), Version::new(3));
    assert_eq!(outcome, AppendOutcome::Appended { first, last: first, version });
    journal.close().await;
    assert_eq!(JournalReader::verify_dir(dir.path()).unwrap().problem, None);
}
