//! The daemon on its host: what the service manager is told, what `doctor` finds, the manual, limits as settings.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, instance_body, musher, scratch, serve, stderr, stdout};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

#[test]
fn the_service_manager_hears_that_it_is_ready_alive_and_stopping() {
    let (dir, data) = scratch();
    let path = dir.path().join("notify");
    let listener = UnixDatagram::bind(&path).unwrap();
    listener.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let heard = || {
        let mut bytes = [0; 256];
        let count = listener.recv(&mut bytes).expect("it says something within a minute");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let mut child = serve(&data)
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(heard().starts_with("READY=1"));
    assert_eq!(heard(), "WATCHDOG=1");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let mut said = heard();
    while said == "WATCHDOG=1" {
        said = heard();
    }
    assert!(said.starts_with("STOPPING=1"), "{said}");
    assert!(child.wait().unwrap().success());
}

/// `doctor` with ports that are free and a daemon that nobody is.
fn doctor(dir: &Path, data: &Path, more: &[&str]) -> Output {
    let config = dir.join("config.toml");
    std::fs::write(&config, "[server]\nlisten = \"127.0.0.1:0\"\nsled_listen = \"127.0.0.1:0\"\n").unwrap();
    let mut command = musher();
    command.args(["doctor", "--server", "http://127.0.0.1:1", "--config"]).arg(&config);
    command.arg("--data").arg(data).args(more).output().unwrap()
}

#[test]
fn doctor_finds_what_is_wrong_and_fixes_only_what_is_safe() {
    let (dir, data) = scratch();
    let nothing = doctor(dir.path(), &data, &[]);
    assert_eq!(nothing.status.code(), Some(0), "{}{}", stdout(&nothing), stderr(&nothing));
    assert!(stdout(&nothing).contains("is not there"), "{}", stdout(&nothing));
    let daemon = Daemon::start(&data);
    let held = doctor(dir.path(), &data, &["--server", &daemon.url]);
    assert_eq!(held.status.code(), Some(2), "a flag is given once");
    let running = musher().args(["doctor", "--server", &daemon.url, "--data"]).arg(&data).output().unwrap();
    for says in ["is in use (pid", "answers at", "it takes requests", "nothing is stuck"] {
        assert!(stdout(&running).contains(says), "{says}: {}{}", stdout(&running), stderr(&running));
    }
    assert_eq!(daemon.signal("-TERM"), 0);

    let left = data.join("journal/heads.tmp");
    std::fs::write(&left, "half").unwrap();
    let found = doctor(dir.path(), &data, &[]);
    assert_eq!(found.status.code(), Some(0), "it is harmless: {}", stdout(&found));
    assert!(stdout(&found).contains("heads.tmp was left half written"), "{}", stdout(&found));
    assert!(left.exists());
    let fixed = doctor(dir.path(), &data, &["--fix"]);
    assert!(stdout(&fixed).contains("it has been removed"), "{}", stdout(&fixed));
    assert!(!left.exists());
    assert!(stdout(&doctor(dir.path(), &data, &["-o", "json"])).contains("\"grade\": \"good\""));
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.signal("-TERM"), 0);

    std::fs::remove_dir_all(data.join("journal")).unwrap();
    let lost = doctor(dir.path(), &data, &["--fix"]);
    assert_eq!(lost.status.code(), Some(1));
    assert!(stdout(&lost).contains("has lost its journal"), "{}", stdout(&lost));
    let config = dir.path().join("bad.toml");
    std::fs::write(&config, "[server]\nlissen = 1\n").unwrap();
    let bad = musher()
        .args(["doctor", "--server", "http://127.0.0.1:1", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(bad.status.code(), Some(1));
    assert!(stdout(&bad).contains("did you mean \"listen\""), "{}", stdout(&bad));
}

#[test]
fn the_manual_has_a_page_per_command() {
    let (dir, _) = scratch();
    let to = dir.path().join("man/man1");
    let output = musher().args(["man", "--dir"]).arg(&to).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for page in ["musher.1", "musher-serve.1", "musher-instance-create.1", "musher-token-revoke.1"] {
        let text = std::fs::read_to_string(to.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH NAME"), "{page}");
    }
    std::fs::write(dir.path().join("file"), "").unwrap();
    let refused = musher().args(["man", "--dir"]).arg(dir.path().join("file")).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
}

#[tokio::test]
async fn limits_are_settings_and_hold() {
    let (dir, data) = scratch();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "[limits]\nbody_bytes_max = 4096\nfeeds_max = 1\n").unwrap();
    let daemon = Daemon::start_with(&data, &["--config", &config.display().to_string()]);
    let mut body = instance_body("web-1", false);
    body["ignored"] = serde_json::Value::from("x".repeat(4_096));
    let (status, refused) = daemon.post("/v1/instances?project=demo", Some(body)).await;
    assert_eq!(status, 400);
    assert!(refused["message"].as_str().unwrap().contains("maximum of 4096 bytes"), "{refused}");
    let feed = daemon.http.get(format!("{}/ops/v1/events", daemon.url)).send().await.unwrap();
    assert_eq!(feed.status(), 200);
    assert_eq!(daemon.get("/ops/v1/events").await.0, 503, "one feed is open");
    drop(feed);
    let outside = musher().args(["config", "check"]).env("MUSHER_LIMITS__FEEDS_MAX", "0").output().unwrap();
    assert_eq!(outside.status.code(), Some(2), "{}", stderr(&outside));
    assert!(stderr(&outside).contains("limits.feeds_max is 0; it must be between"), "{}", stderr(&outside));
}
