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
fn what_the_image_is_made_of_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read_to_string(root.join("packaging/Dockerfile")).unwrap();
    let mut stages = Vec::new();
    for line in file.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match &words[..] {
            ["FROM", image, rest @ ..] => {
                if let Some(version) = image.strip_prefix("rust:") {
                    assert!(version.starts_with(env!("CARGO_PKG_RUST_VERSION")), "{line}");
                }
                stages.extend(rest.get(1).copied());
            }
            ["COPY", from, path, _] if from.starts_with("--from=") => {
                assert!(stages.contains(&&from["--from=".len()..]), "{line}");
                assert_eq!(*path, "/src/target/release/musher", "what the first stage has built");
            }
            ["COPY", path, _] => assert!(root.join(path).exists(), "{line}"),
            _ => {}
        }
    }
    assert_eq!(stages, ["build"], "{file}");
    let command = file.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    let args: Vec<String> = serde_json::from_str(command).unwrap();
    let read = musher().args(args).arg("--help").output().unwrap();
    assert_eq!(read.status.code(), Some(0), "{command}: {}", stderr(&read));
}

#[test]
fn what_the_package_is_made_of_is_there_and_its_daemon_can_read_its_settings() {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec().unwrap();
    let package = metadata.packages.iter().find(|package| package.name.as_str() == "musher").unwrap();
    let deb = &package.metadata["deb"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let assets = deb["assets"].as_array().unwrap();
    assert!(assets.len() > 4, "{assets:?}");
    for asset in assets {
        let path = asset[0].as_str().unwrap();
        // What is built, and written by `musher man`.
        if !path.starts_with("target/") {
            let there = path.strip_suffix("/*.md").unwrap_or(path);
            assert!(root.join(there).exists(), "{path}");
        }
    }
    let unit = root.join(deb["systemd-units"]["unit-scripts"].as_str().unwrap()).join("musher.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/musher ")).unwrap();
    let config = command.split("--config /").nth(1).unwrap();
    let asset =
        assets.iter().find(|asset| asset[1] == config).unwrap_or_else(|| panic!("{config} is not in it"));
    assert_eq!(asset[2], "644", "the unit's user is not its owner");
    assert_eq!(deb["systemd-units"]["start"], false, "without tokens it would not start");
    assert!(root.join(deb["maintainer-scripts"].as_str().unwrap()).join("postinst").exists());
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
