//! Files of one stream: what comes back, what is refused, and what an interruption leaves.

use super::*;
use crate::portable::{read_stream_file, sweep_stream_files, verify_stream_file, write_stream_file};
use crate::types::Version;

const ONE: u64 = 3;

async fn grown(appends: u64) -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    grow(&journal, appends).await;
    (dir, journal)
}

#[tokio::test]
async fn a_stream_reads_back_from_its_file_as_from_the_log() {
    let (_dir, journal) = grown(60).await;
    // More than one frame holds.
    for number in 0..8 {
        let claim = journal.claim(stream(ONE)).await.unwrap();
        let append = Append {
            stream: stream(ONE),
            epoch: claim.epoch,
            expected: claim.head.version,
            events: vec![noise(number, 90_000), event(number)],
            context: context(number),
        };
        assert!(matches!(journal.append(append).await, AppendOutcome::Appended { .. }));
    }
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("one.arc");
    let report = write_stream_file(&journal, STORE, stream(ONE), &path).unwrap();
    let head = journal.head(stream(ONE));
    assert_eq!((report.records, report.last), (head.version.get(), head.position));
    assert_eq!(report.bytes, std::fs::metadata(&path).unwrap().len());
    assert_eq!(report.checksum, crc32c::crc32c(&std::fs::read(&path).unwrap()));
    assert_eq!(verify_stream_file(&path).unwrap(), report);
    for (from, limit) in [(1, usize::MAX), (2, 3), (report.records, 1), (report.records + 1, 9), (1, 0)] {
        let from = Version::new(from);
        let read = read_stream_file(&path, from, limit).unwrap();
        assert_eq!(read, journal.read_stream(stream(ONE), from, limit).unwrap());
    }
}

#[tokio::test]
async fn a_file_that_is_whole_is_left_and_any_other_is_replaced() {
    let (_dir, journal) = grown(60).await;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("one.arc");
    // What an earlier writing left when it was interrupted is overwritten.
    std::fs::write(path.with_extension("tmp"), b"half of it").unwrap();
    let report = write_stream_file(&journal, STORE, stream(ONE), &path).unwrap();
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(write_stream_file(&journal, STORE, stream(ONE), &path).unwrap(), report);
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written, "it is not written again");
    let other = write_stream_file(&journal, STORE, stream(ONE + 1), &path).unwrap();
    assert_eq!((other.stream, verify_stream_file(&path).unwrap()), (stream(ONE + 1), other));
    std::fs::write(&path, b"no file of ours").unwrap();
    assert_eq!(write_stream_file(&journal, STORE, stream(ONE), &path).unwrap(), report);
}

#[tokio::test]
async fn an_interrupted_writing_leaves_only_what_is_swept() {
    let (_dir, journal) = grown(60).await;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("one.arc");
    write_stream_file(&journal, STORE, stream(ONE), &path).unwrap();
    std::fs::write(place.path().join("other.tmp"), b"half of it").unwrap();
    assert_eq!(sweep_stream_files(place.path()).unwrap(), 1);
    assert_eq!(sweep_stream_files(place.path()).unwrap(), 0);
    assert!(verify_stream_file(&path).is_ok());
}

#[tokio::test]
async fn an_empty_stream_has_no_file() {
    let (_dir, journal) = grown(10).await;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("none.arc");
    assert!(write_stream_file(&journal, STORE, stream(999), &path).is_err());
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn every_changed_or_missing_byte_is_noticed() {
    let (_dir, journal) = grown(40).await;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("one.arc");
    write_stream_file(&journal, STORE, stream(ONE), &path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        std::fs::write(&path, changed).unwrap();
        assert!(verify_stream_file(&path).is_err(), "byte {at} was changed");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(verify_stream_file(&path).is_err(), "it was cut at byte {at}");
    }
    std::fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert!(verify_stream_file(&path).is_err(), "a byte was added");
    let other = export(&journal, Position::new(1), std::fs::File::create(&path).unwrap()).unwrap();
    assert!(other.records > 0 && verify_stream_file(&path).is_err(), "an export is no stream's file");
}
