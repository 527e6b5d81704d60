//! Exports: what comes back, and what is refused.

use super::*;
use crate::portable::{LogSource, export_file, import, import_file, verify_export};
use crate::types::Version;
use crate::{ReadError, SimLog};

#[tokio::test]
async fn an_export_reads_back_the_log_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    grow(&journal, 200).await;
    let path = dir.path().with_extension("export");
    let report = export_file(&journal, Position::new(1), &path).unwrap();
    let reader = ExportReader::open(&path).unwrap();
    assert_eq!(verify_export(std::fs::File::open(&path).unwrap()).unwrap(), report);
    std::fs::remove_file(&path).unwrap();
    assert_eq!((report.first, report.last), (reader.first(), journal.durable()));
    assert_eq!(reader.store_id(), STORE);
    assert_eq!(all(|from, limit| reader.read_all(from, limit)), all_of(&journal));
    assert_eq!(reader.streams().count() as u64, STREAMS);
    for (stream, head) in reader.streams() {
        assert_eq!(head, journal.head(stream));
        for (from, limit) in [(1, usize::MAX), (3, 4), (head.version.get(), 1), (head.version.get() + 1, 5)] {
            let from = Version::new(from);
            assert_eq!(reader.read_stream(stream, from, limit), journal.read_stream(stream, from, limit));
        }
    }
}

#[tokio::test]
async fn stopped_journals_and_other_logs_export_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    grow(&journal, 60).await;
    let mut live = Vec::new();
    export(&journal, Position::ZERO, &mut live).unwrap();
    journal.close().await;
    drop(journal);
    let mut stopped = Vec::new();
    export(&JournalReader::open(dir.path()).unwrap(), Position::ZERO, &mut stopped).unwrap();
    assert_eq!(live, stopped);
    let simulated = SimLog::new();
    grow(&simulated, 60).await;
    let mut other = Vec::new();
    export(&LogSource { log: &simulated, store: STORE }, Position::ZERO, &mut other).unwrap();
    assert_eq!(live, other);
}

#[tokio::test]
async fn an_imported_journal_holds_the_same_records_and_goes_on() {
    let (bytes, records) = exported(200).await;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    let report = import(&bytes[..], &dir, 4 << 10).unwrap();
    assert_eq!(
        (report.store, report.last, report.streams),
        (STORE, records[records.len() - 1].position, STREAMS)
    );
    assert!(report.segments > 3, "several segments: {report:?}");
    assert_eq!(all_in(&dir), records);
    let journal = open(&dir);
    grow(&journal, 50).await;
    let grown = all_of(&journal);
    assert_eq!(grown[..records.len()], records);
    drop(journal);
    assert_eq!(all_in(&dir), grown);
}

#[tokio::test]
async fn an_empty_log_goes_out_and_in() {
    let (bytes, records) = exported(0).await;
    assert_eq!(records, []);
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("journal");
    assert_eq!(import(&bytes[..], &dir, 4 << 10).unwrap().last, Position::ZERO);
    let journal = open(&dir);
    grow(&journal, 3).await;
    assert_eq!(journal.store_id(), STORE);
}

#[tokio::test]
async fn records_of_the_largest_size_pass() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let claim = journal.claim(stream(1)).await.unwrap();
    let events = (0..3).map(|seed| noise(seed, (1 << 20) - 200)).collect();
    let append = Append {
        stream: stream(1),
        epoch: claim.epoch,
        expected: Version::ZERO,
        events,
        context: context(1),
    };
    assert!(matches!(journal.append(append).await, AppendOutcome::Appended { .. }));
    let mut bytes = Vec::new();
    export(&journal, Position::ZERO, &mut bytes).unwrap();
    let target = dir.path().join("imported");
    import(&bytes[..], &target, 4 << 10).unwrap();
    assert_eq!(all_in(&target), all_of(&journal));
}

#[tokio::test]
async fn an_export_of_the_end_only_is_read_but_not_imported() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    grow(&journal, 60).await;
    let from = Position::new(40);
    let path = dir.path().with_extension("tail");
    export_file(&journal, from, &path).unwrap();
    let reader = ExportReader::open(&path).unwrap();
    assert_eq!(reader.read_all(from, usize::MAX), journal.read_all(from, usize::MAX));
    let archived = Err(ReadError::Archived { asked: Position::new(39), oldest: from });
    assert_eq!(reader.read_all(Position::new(39), 1), archived);
    let stream = stream(1);
    let head = reader.head(stream).version;
    assert_eq!(reader.read_stream(stream, head, 9), journal.read_stream(stream, head, 9));
    assert!(matches!(reader.read_stream(stream, Version::new(1), 9), Err(ReadError::Archived { .. })));
    let text = refusal(import_file(&path, &dir.path().join("target"), 4 << 10));
    assert_eq!(text, "the export starts at position 40; only one from position 1 can be imported");
    std::fs::remove_file(&path).unwrap();
    let beyond = export(&journal, journal.durable().next().next(), Vec::new());
    assert!(refusal(beyond).contains("is beyond the end of the log"));
}

#[tokio::test]
async fn nothing_is_written_over_what_is_there() {
    let (bytes, _) = exported(10).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(refusal(import(&bytes[..], dir.path(), 4 << 10)).contains("is not empty"));
    let journal = open(&dir.path().join("journal"));
    assert!(refusal(export_file(&journal, Position::ZERO, &file)).contains("exists; name a new file"));
    std::fs::create_dir(dir.path().join("target.partial")).unwrap();
    let refused = refusal(import(&bytes[..], &dir.path().join("target"), 4 << 10));
    assert!(refused.contains("was left by an interrupted run"), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn a_failed_import_leaves_no_trace() {
    let (mut bytes, _) = exported(30).await;
    bytes.truncate(bytes.len() - 1);
    let parent = tempfile::tempdir().unwrap();
    let refused = refusal(import(&bytes[..], &parent.path().join("journal"), 4 << 10));
    assert!(refused.contains("is cut off in frame"), "{refused}");
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn foreign_and_later_bytes_are_told_apart() {
    let (bytes, _) = exported(3).await;
    let mut later = bytes.clone();
    later[8..12].copy_from_slice(&7u32.to_le_bytes());
    let table = [
        (&b""[..], "this is not an export of a musher log"),
        (&b"short"[..], "this is not an export of a musher log"),
        (&[0; 500][..], "this is not an export of a musher log"),
        (&later[..], "the export has format 7, this build reads up to 1; use the release that wrote it"),
        (
            &bytes[..100],
            "the export is cut off in frame 0: position 1 and all later ones are missing; copy it again",
        ),
    ];
    for (bytes, expected) in table {
        assert_eq!(refusal(read_export(bytes)), expected);
    }
}
