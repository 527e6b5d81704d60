//! Backups of journals in use, and what comes back from them.

use super::*;
use crate::portable::{backup, restore};
use std::sync::Arc;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_the_log_up_to_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to) = (dir.path().join("journal"), dir.path().join("backup"));
    let journal = Arc::new(open(&source));
    let load = tokio::spawn({
        let journal = journal.clone();
        async move { grow(&*journal, 600).await }
    });
    let mut positions = vec![];
    let mut wanted = 50;
    while !load.is_finished() && positions.len() < 4 {
        if journal.wait_durable(Position::new(wanted)).await.is_err() {
            break;
        }
        let position = journal.durable();
        let report = backup(&source, position, &to).unwrap();
        assert_eq!(report.position, position);
        let target = dir.path().join(format!("restored-{}", positions.len()));
        assert_eq!(restore(&to, &target).unwrap().position, position);
        positions.push(position);
        let restored = all_in(&target);
        assert_eq!(restored.len() as u64, position.get());
        assert_eq!(restored, all_of(&*journal)[..restored.len()]);
        wanted = position.get() + 100;
    }
    load.await.unwrap();
    assert!(!positions.is_empty());
}

#[tokio::test]
async fn a_second_backup_copies_only_what_has_grown() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to) = (dir.path().join("journal"), dir.path().join("backup"));
    let journal = open(&source);
    grow(&journal, 200).await;
    let first = backup(&source, journal.durable(), &to).unwrap();
    assert_eq!(first.copied, first.segments);
    let again = backup(&source, journal.durable(), &to).unwrap();
    assert_eq!(again.copied, 1, "the last segment may have grown");
    grow(&journal, 100).await;
    let second = backup(&source, journal.durable(), &to).unwrap();
    assert_eq!(second.copied, second.segments - first.segments + 1);
    assert!(second.bytes < first.bytes);
    let parts = names(&to).iter().filter(|name| name.contains(".part")).count();
    assert_eq!(parts, 1, "cut segments of earlier backups are gone: {:?}", names(&to));
    let target = dir.path().join("restored");
    restore(&to, &target).unwrap();
    assert_eq!(all_in(&target), all_of(&journal));
}

#[tokio::test]
async fn a_restored_journal_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to, target) =
        (dir.path().join("journal"), dir.path().join("backup"), dir.path().join("restored"));
    let journal = open(&source);
    grow(&journal, 80).await;
    backup(&source, journal.durable(), &to).unwrap();
    let report = restore(&to, &target).unwrap();
    assert_eq!((report.store, report.position, report.streams), (STORE, journal.durable(), STREAMS));
    let restored = open(&target);
    grow(&restored, 80).await;
    grow(&journal, 80).await;
    assert_eq!(all_of(&restored), all_of(&journal));
    drop(restored);
    assert_eq!(all_in(&target), all_of(&journal));
}

#[tokio::test]
async fn an_empty_journal_is_backed_up_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to, target) =
        (dir.path().join("journal"), dir.path().join("backup"), dir.path().join("restored"));
    let journal = open(&source);
    assert_eq!(backup(&source, journal.durable(), &to).unwrap().segments, 1);
    assert_eq!(restore(&to, &target).unwrap().position, Position::ZERO);
    grow(&open(&target), 3).await;
    grow(&journal, 3).await;
    backup(&source, journal.durable(), &to).unwrap();
}

#[tokio::test]
async fn a_damaged_backup_is_not_restored_and_the_next_backup_heals_it() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to, target) =
        (dir.path().join("journal"), dir.path().join("backup"), dir.path().join("restored"));
    let journal = open(&source);
    grow(&journal, 100).await;
    backup(&source, journal.durable(), &to).unwrap();
    for name in names(&to).iter().filter(|name| *name != "manifest") {
        let path = to.join(name);
        let bytes = std::fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        let table = [flipped, bytes[..bytes.len() - 1].to_vec(), vec![]];
        for damaged in table {
            std::fs::write(&path, damaged).unwrap();
            let refused = refusal(restore(&to, &target));
            assert!(refused.contains(name) && refused.contains("holds positions"), "{refused}");
            assert!(!target.exists());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(refusal(restore(&to, &target)).contains(name));
        backup(&source, journal.durable(), &to).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name} is back");
    }
    restore(&to, &target).unwrap();
    assert_eq!(all_in(&target), all_of(&journal));
}

#[tokio::test]
async fn an_interrupted_backup_leaves_the_one_before_it_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to) = (dir.path().join("journal"), dir.path().join("backup"));
    let journal = open(&source);
    grow(&journal, 50).await;
    let before = journal.durable();
    backup(&source, before, &to).unwrap();
    let manifest = std::fs::read(to.join("manifest")).unwrap();
    let kept: Vec<(String, Vec<u8>)> =
        names(&to).into_iter().map(|name| (name.clone(), std::fs::read(to.join(&name)).unwrap())).collect();
    grow(&journal, 50).await;
    backup(&source, journal.durable(), &to).unwrap();
    // As if the second run had died before its manifest: everything it copied is there, nothing removed.
    for (name, bytes) in &kept {
        std::fs::write(to.join(name), bytes).unwrap();
    }
    assert_eq!(std::fs::read(to.join("manifest")).unwrap(), manifest);
    let target = dir.path().join("restored");
    assert_eq!(restore(&to, &target).unwrap().position, before);
    assert_eq!(all_in(&target), all_of(&journal)[..before.get() as usize]);
}

#[tokio::test]
async fn what_is_no_backup_of_this_store_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to) = (dir.path().join("journal"), dir.path().join("backup"));
    let journal = open(&source);
    grow(&journal, 30).await;
    assert!(refusal(backup(&dir.path().join("absent"), Position::new(1), &to)).contains("absent"));
    assert!(
        refusal(restore(dir.path(), &dir.path().join("r")))
            .contains("holds no backup: its manifest is missing")
    );
    assert!(refusal(backup(&source, journal.durable(), dir.path())).contains("is not empty"));
    assert!(refusal(backup(&source, Position::new(1_000), &to)).contains("the journal ends at position"));
    backup(&source, journal.durable(), &to).unwrap();
    let older = Position::new(journal.durable().get() - 5);
    assert!(refusal(backup(&source, older, &to)).contains("holds a backup up to position"));
    assert!(refusal(restore(&to, &source)).contains("is not empty"));
    let other = dir.path().join("other");
    let config = JournalConfig { create_as: StoreId([1; 16]), ..config() };
    let (other_journal, _) = Journal::open(&other, config).unwrap();
    grow(&other_journal, 40).await;
    assert!(refusal(backup(&other, other_journal.durable(), &to)).contains("holds backups of store"));
}

#[tokio::test]
async fn a_damaged_journal_is_not_backed_up() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to) = (dir.path().join("journal"), dir.path().join("backup"));
    let journal = open(&source);
    grow(&journal, 30).await;
    let segment = source.join("00000000000000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let refused = refusal(backup(&source, journal.durable(), &to));
    assert!(refused.contains("00000000000000000001.seg is damaged at offset"), "{refused}");
    assert!(!to.join("manifest").exists());
}

#[tokio::test]
async fn compressed_and_archived_segments_are_backed_up_as_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to) = (dir.path().join("journal"), dir.path().join("backup"));
    let journal = open(&source);
    grow(&journal, 200).await;
    backup(&source, journal.durable(), &to).unwrap();
    journal.compact(3).unwrap();
    let again = backup(&source, journal.durable(), &to).unwrap();
    assert_eq!(again.copied, 1, "a compressed segment is the one that was backed up");
    let archive = dir.path().join("archive");
    std::fs::create_dir(&archive).unwrap();
    let whole = all_of(&journal);
    journal.archive(Position::new(100), &archive).unwrap();
    let oldest = journal.oldest();
    assert!(oldest > Position::new(1));
    grow(&journal, 30).await;
    // A backup from before still has what was archived; one from after starts where the journal does.
    for (to, first) in [(to, Position::new(1)), (dir.path().join("other"), oldest)] {
        for _ in 0..2 {
            backup(&source, journal.durable(), &to).unwrap();
        }
        let target = dir.path().join("restored");
        restore(&to, &target).unwrap();
        let restored = open(&target);
        assert_eq!(restored.oldest(), first);
        let expected = whole[first.get() as usize - 1..oldest.get() as usize - 1].to_vec();
        let kept = journal.read_all(oldest, usize::MAX).unwrap();
        assert_eq!(restored.read_all(first, usize::MAX).unwrap(), [expected, kept].concat());
        assert_eq!(restored.head(stream(1)), journal.head(stream(1)));
        drop(restored);
        std::fs::remove_dir_all(target).unwrap();
    }
}

#[tokio::test]
async fn a_target_may_be_named_with_a_slash_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to) = (dir.path().join("journal"), dir.path().join("backup"));
    let journal = open(&source);
    grow(&journal, 20).await;
    backup(&source, journal.durable(), &to).unwrap();
    for (name, is_there) in [("absent/", false), ("deep/er/", false), ("empty/", true)] {
        let target = dir.path().join(name);
        if is_there {
            std::fs::create_dir(&target).unwrap();
        }
        assert_eq!(restore(&to, &target).unwrap().position, journal.durable(), "{name}");
        assert_eq!(all_in(&target), all_of(&journal), "{name}");
    }
}

#[tokio::test]
async fn of_two_restores_at_once_one_leaves_the_other_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to, target) =
        (dir.path().join("journal"), dir.path().join("backup"), dir.path().join("restored"));
    let journal = open(&source);
    grow(&journal, 200).await;
    backup(&source, journal.durable(), &to).unwrap();
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = || restore(&to, &target);
        let running = [scope.spawn(run), scope.spawn(run), scope.spawn(run)];
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let done = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(done, 1, "{results:?}");
    for refused in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(matches!(refused, Error::Leftover { .. } | Error::NotEmpty { .. }), "{refused}");
    }
    assert_eq!(all_in(&target), all_of(&journal));
}
