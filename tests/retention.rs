//! What was deleted long ago: its history is in a file of its own, and nothing else remembers it.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, musher, scratch, stderr, stdout};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: &[(&str, &str)] = &[("MUSHER_RETENTION__DELETED_S", "1"), ("MUSHER_RETENTION__BATCH", "2")];

fn files(data: &Path, part: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(data.join("archive").join(part)) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

async fn history(daemon: &Daemon, id: &str) -> Value {
    let (status, body) = daemon.get(&format!("/ops/v1/instances/{id}/history?limit=1000")).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Runs retention until it has archived the instance.
async fn until_archived(daemon: &Daemon, id: &str) -> Value {
    for _ in 0..600 {
        let told = history(daemon, id).await;
        if told["archived_in"].is_string() {
            return told;
        }
        assert_eq!(daemon.post("/ops/v1/timers/retention/activate", None).await.0, 202);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{id} was not archived: {}", timer(daemon).await);
}

async fn timer(daemon: &Daemon) -> Value {
    let (_, body) = daemon.get("/ops/v1/timers").await;
    let items = body["items"].as_array().unwrap();
    items.iter().find(|timer| timer["name"] == "retention").unwrap().clone()
}

/// Runs, is stopped, is deleted, and nothing of it is left on a sled.
async fn lived(daemon: &Daemon, name: &str) -> String {
    let id = daemon.create(name, true).await;
    daemon.until_state(&id, "running").await;
    assert_eq!(daemon.post(&format!("/v1/instances/{id}/stop"), None).await.0, 202);
    daemon.until_state(&id, "stopped").await;
    assert_eq!(daemon.delete(&format!("/v1/instances/{id}")).await.0, 204);
    id
}

#[tokio::test]
async fn a_deleted_instance_is_archived_and_its_history_stays_readable_by_id() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start_where(&data, SOON);
    let mut deleted = Vec::new();
    for n in 0..3 {
        deleted.push(lived(&daemon, &format!("web-{n}")).await);
    }
    let kept = daemon.create("kept", true).await;
    daemon.until_state(&kept, "running").await;
    for id in &deleted {
        let told = until_archived(&daemon, id).await;
        let events: Vec<&str> =
            told["items"].as_array().unwrap().iter().map(|entry| entry["event"].as_str().unwrap()).collect();
        assert_eq!((events[0], *events.last().unwrap()), ("Created", "Archived"), "{events:?}");
        let archived = told["items"].as_array().unwrap().last().unwrap();
        assert_eq!(archived["actor"], "timer retention");
        assert_eq!(archived["data"]["events"], events.len() - 1);
        let file = data.join("archive").join(told["archived_in"].as_str().unwrap());
        assert_eq!(std::fs::metadata(file).unwrap().len(), archived["data"]["bytes"].as_u64().unwrap());
        assert_eq!(daemon.get(&format!("/v1/instances/{id}")).await.0, 404);
        assert_eq!(daemon.get(&format!("/ops/v1/instances/{id}")).await.0, 200);
        let why = stdout(&daemon.cli(&["instance", "explain", id]));
        assert!(why.contains("it was deleted") && why.contains("was archived in streams/"), "{why}");
        let shown = daemon.cli(&["instance", "history", id]);
        assert!(stdout(&shown).contains("archived in streams/instance-"), "{}", stderr(&shown));
    }
    assert_eq!(files(&data, "streams").len(), 3, "only what is deleted");
    let timer = timer(&daemon).await;
    assert_eq!((&timer["on"], &timer["found"]), (&true.into(), &3.into()), "{timer}");
    daemon.kill();

    // The rest of a file that a crash cut off goes away; what was archived stays so.
    let rest = data.join("archive/streams/instance-cut.tmp");
    std::fs::write(&rest, b"half of it").unwrap();
    let daemon = Daemon::start_where(&data, SOON);
    assert!(!rest.exists());
    for id in &deleted {
        assert!(history(&daemon, id).await["archived_in"].is_string());
    }
    assert_eq!(daemon.state(&kept).await, "running");
    assert_eq!(daemon.signal("-TERM"), 0);
    let verified = musher().args(["replay", "--verify", "--data"]).arg(&data).output().unwrap();
    assert!(verified.status.success(), "{}{}", stdout(&verified), stderr(&verified));
}

#[tokio::test]
async fn another_stores_file_under_its_name_is_replaced() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start_where(&data, SOON);
    let id = lived(&daemon, "web").await;
    let told = until_archived(&daemon, &id).await;
    let other = std::fs::read(data.join("archive").join(told["archived_in"].as_str().unwrap())).unwrap();
    daemon.kill();

    let (_other, elsewhere) = scratch();
    let daemon = Daemon::start_where(&elsewhere, SOON);
    let id = lived(&daemon, "web").await;
    let path = elsewhere.join("archive/streams").join(format!("instance-{id}.stream"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &other).unwrap();
    until_archived(&daemon, &id).await;
    assert_ne!(std::fs::read(&path).unwrap(), other);
}

#[tokio::test]
async fn a_daemon_that_is_killed_while_it_archives_goes_on_where_it_was() {
    let (_dir, data) = scratch();
    let mut daemon = Daemon::start_where(&data, SOON);
    let mut deleted = Vec::new();
    for n in 0..6 {
        let id = daemon.create(&format!("web-{n}"), false).await;
        assert_eq!(daemon.delete(&format!("/v1/instances/{id}")).await.0, 204);
        deleted.push(id);
    }
    for _ in 0..4 {
        assert_eq!(daemon.post("/ops/v1/timers/retention/activate", None).await.0, 202);
        daemon.kill();
        daemon = Daemon::start_where(&data, SOON);
    }
    for id in &deleted {
        let told = until_archived(&daemon, id).await;
        let events: Vec<&str> =
            told["items"].as_array().unwrap().iter().map(|entry| entry["event"].as_str().unwrap()).collect();
        assert_eq!(events, ["Created", "Deleted", "Archived"], "once, whatever came between");
    }
    assert_eq!(files(&data, "streams").len(), deleted.len());
}

#[tokio::test]
async fn retention_that_is_off_archives_nothing_and_says_so() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start_where(&data, &[("MUSHER_RETENTION__DELETED_S", "0")]);
    let id = lived(&daemon, "web").await;
    assert_eq!(daemon.post("/ops/v1/timers/retention/activate", None).await.0, 202);
    let timer = timer(&daemon).await;
    assert_eq!((&timer["on"], &timer["runs"]), (&false.into(), &0.into()));
    assert!(
        stdout(&daemon.cli(&["timer", "list"]))
            .lines()
            .any(|line| line.contains("retention") && line.contains("off"))
    );
    assert_eq!(history(&daemon, &id).await["archived_in"], Value::Null);
    assert!(files(&data, "streams").is_empty());
}

#[tokio::test]
async fn segments_are_moved_and_read_where_they_are() {
    let (_dir, data) = scratch();
    let settings: Vec<(&str, &str)> = SOON
        .iter()
        .copied()
        .chain([
            ("MUSHER_RETENTION__SEGMENTS", "true"),
            ("MUSHER_LOG__SEGMENT_BYTES", "1048576"),
            ("MUSHER_CHECKPOINT__EVENTS", "256"),
            ("MUSHER_CHECKPOINT__PAUSE_S", "0"),
        ])
        .collect();
    let daemon = Daemon::start_where(&data, &settings);
    let first = daemon.create("first", true).await;
    daemon.until_state(&first, "running").await;
    let gone = lived(&daemon, "gone").await;
    until_archived(&daemon, &gone).await;
    // The very first segment has 4 MiB, or what a segment has if that is less.
    let long = "x".repeat(400);
    let mut n = 0;
    while files(&data, "journal").is_empty() {
        n += 1;
        assert!(n < 200, "no segment was moved: {}", timer(&daemon).await);
        for m in 0..20 {
            let body = serde_json::json!({
                "name": format!("filler-{n}-{m}"), "description": long, "hostname": "h",
                "ncpus": 1, "memory": 1_u64 << 30, "start": false,
            });
            let (status, body) = daemon.post("/v1/instances?project=demo", Some(body)).await;
            assert_eq!(status, 201, "{body}");
        }
        assert_eq!(daemon.post("/ops/v1/timers/retention/activate", None).await.0, 202);
    }
    let told = history(&daemon, &first).await;
    assert_eq!(told["items"][0]["event"], "Created", "{told}");
    assert_eq!(daemon.post(&format!("/v1/instances/{first}/reboot"), None).await.0, 202);
    daemon.kill();

    let daemon = Daemon::start_where(&data, &settings);
    assert_eq!(history(&daemon, &first).await["items"][0]["event"], "Created");
    assert_eq!(history(&daemon, &gone).await["items"][0]["event"], "Created");
    let moved = lived(&daemon, "after").await;
    until_archived(&daemon, &moved).await;
    assert_eq!(daemon.signal("-TERM"), 0);
    for arguments in [["replay", "--verify"], ["log", "verify"], ["log", "stats"]] {
        let done = musher().args(arguments).arg("--data").arg(&data).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}{}", stdout(&done), stderr(&done));
    }

    // An export holds what was moved; a backup needs the archive beside it.
    let run = |arguments: &[&str], paths: &[&Path]| {
        let done = musher().args(arguments).args(paths).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}{}", stdout(&done), stderr(&done));
    };
    let (export, imported) = (data.with_extension("export"), data.with_extension("imported"));
    run(&["log", "export", "--data"], &[&data, Path::new("--to"), &export]);
    run(&["log", "import"], &[&export, Path::new("--data"), &imported]);
    let daemon = Daemon::start_where(&imported, &settings);
    assert_eq!(history(&daemon, &first).await["items"][0]["event"], "Created");
    daemon.kill();
    let (backup, restored) = (data.with_extension("backup"), data.with_extension("restored"));
    run(&["log", "backup", "--data"], &[&data, Path::new("--to"), &backup]);
    run(&["log", "restore", "--from"], &[&backup, Path::new("--data"), &restored]);
    let refused = daemon::serve(&restored).envs(settings.iter().copied()).output().unwrap();
    assert!(stderr(&refused).contains("was moved to an archive"), "{}", stderr(&refused));
    let archive = ("MUSHER_RETENTION__ARCHIVE", data.join("archive"));
    let mut serve = daemon::serve(&restored);
    serve.envs(settings.iter().copied()).env(archive.0, &archive.1);
    let daemon = Daemon::run(serve);
    assert_eq!(history(&daemon, &first).await["items"][0]["event"], "Created");
    daemon.kill();

    // Without its archive the log is not whole: nothing starts on a part of it.
    let away = data.join("archive-away");
    std::fs::rename(data.join("archive"), &away).unwrap();
    let refused = daemon::serve(&data).envs(settings.iter().copied()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("was moved to an archive"), "{}", stderr(&refused));
    std::fs::rename(&away, data.join("archive")).unwrap();
    let daemon = Daemon::start_where(&data, &settings);
    assert_eq!(history(&daemon, &first).await["items"][0]["event"], "Created");
}
