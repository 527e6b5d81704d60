//! Sleds that prove who they are, and a control plane that proves it to them.

use super::{Fleet, is_in_service};
use crate::daemon::{Scratch, answer, musher, stderr};
use crate::process::sled_command;
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A file with the key of a new sled; answers its id too.
fn key(scratch: &Scratch, secret: &Path, name: &str) -> (PathBuf, String) {
    let output = musher().args(["sled", "key", "--secret"]).arg(secret).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let line = String::from_utf8(output.stdout).unwrap();
    let id = line.split(' ').nth(1).unwrap().to_owned();
    let path = scratch.path().join(format!("{name}.key"));
    write(&path, &line);
    (path, id)
}

fn showing(request: reqwest::RequestBuilder, token: Option<&str>) -> reqwest::RequestBuilder {
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

fn fleet() -> (Fleet, PathBuf) {
    let dir = tempfile::tempdir().unwrap().keep();
    let secret = dir.join("secret");
    write(&secret, "a secret that is long enough to be one\n");
    let fleet = Fleet::start_with(&format!("secret_file = \"{}\"\n", secret.display()));
    // It was read at the start; what keys are made from stays with the scratch directory.
    let kept = fleet.scratch.path().join("secret");
    std::fs::copy(&secret, &kept).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    (fleet, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn sleds_with_keys_serve_and_guests_move_between_them() {
    let (fleet, secret) = fleet();
    let start = |name: &str| {
        let (key, id) = key(&fleet.scratch, &secret, name);
        (fleet.sled(name, &["--key", key.to_str().unwrap()]), id)
    };
    let ((a, id), (b, _)) = (start("a"), start("b"));
    let in_service = fleet.until_sled("a", "is in service", is_in_service).await;
    assert_eq!(in_service["id"], json!(id), "the key says who it is");
    fleet.until_sled("b", "is in service", is_in_service).await;
    let ids = fleet.run_instances(&["web-1", "web-2"]).await;
    for instance in &ids {
        let path = format!("/ops/v1/instances/{instance}/migrate");
        let (status, body) = fleet.daemon.post(&path, Some(json!({}))).await;
        assert_eq!(status, 202, "{body}");
    }
    super::until("the guests have moved, by messages of their sleds to each other", async || {
        let (_, list) = fleet.daemon.get("/ops/v1/migrations").await;
        let done = list["items"].as_array()?.iter().filter(|it| it["outcome"] == "succeeded").count();
        (done == ids.len()).then_some(())
    })
    .await;
    fleet.until_all(&ids, "running").await;

    // Nobody without the right token is listened to, by either side, for anything.
    let http = &fleet.daemon.http;
    for (token, expected) in [(None, 401), (Some("wrong"), 403)] {
        for path in ["/inventory", "/v2p", "/peer", "/nothing"] {
            let request = http.get(format!("{}{path}", a.url));
            let request = showing(request, token);
            let (status, said) = answer(request.send().await.unwrap()).await;
            assert_eq!(status, expected, "{path}: {said}");
        }
        for path in [format!("/vmms/{id}"), "/sleds/register".to_owned(), format!("/sleds/{id}/renew")] {
            let method = if path.starts_with("/vmms") { reqwest::Method::PUT } else { reqwest::Method::POST };
            let request =
                http.request(method, format!("{}{path}", fleet.daemon.sled_url)).header("x-sled-id", &id);
            let request = showing(request, token);
            let (status, said) = answer(request.json(&json!({})).send().await.unwrap()).await;
            assert_eq!(status, expected, "{path}: {said}");
        }
    }
    drop(b);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sled_cannot_speak_for_another_and_one_of_another_fleet_for_none() {
    let (fleet, secret) = fleet();
    let (own, _) = key(&fleet.scratch, &secret, "a");
    let a = fleet.sled("a", &["--key", own.to_str().unwrap()]);
    fleet.until_sled("a", "is in service", is_in_service).await;
    let position = async || fleet.daemon.get("/ops/v1/log/stats").await.1["durable"].clone();

    // A key of another secret, and no key at all.
    let other = fleet.scratch.path().join("other");
    write(&other, &"another secret, just as long as it should be".repeat(2));
    let (stranger, _) = key(&fleet.scratch, &other, "x");
    let strangers = [fleet.sled("x", &["--key", stranger.to_str().unwrap()]), fleet.sled("y", &[])];
    let before = position().await;
    let renewed = fleet.until_sled("a", "is in service", is_in_service).await["last_contact"].clone();
    fleet.until_sled("a", "is heard from", |sled| sled["last_contact"] != renewed).await;
    assert_eq!(fleet.sleds().await.len(), 1, "neither has come in");
    assert_eq!(position().await, before, "and nothing of them is recorded");

    // One process's key does not open another's directory.
    drop(a);
    let (foreign, _) = key(&fleet.scratch, &secret, "b");
    let output = sled_command(fleet.scratch.path(), "a", &fleet.daemon.sled_url)
        .args(["--key", foreign.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("the key is of sled"), "{}", stderr(&output));
    drop(strangers);
}

#[test]
fn listeners_that_others_reach_do_not_open_without_a_secret() {
    let (scratch, data) = crate::daemon::scratch();
    let output = musher()
        .args(["serve", "--listen", "127.0.0.1:0", "--sled-listen", "0.0.0.0:0", "--data"])
        .arg(&data)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("sleds.secret_file"), "{}", stderr(&output));
    let agent =
        |more: &[&str]| sled_command(scratch.path(), "a", "http://127.0.0.1:1").args(more).output().unwrap();
    let output = agent(&["--listen", "0.0.0.0:0", "--advertise", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--key"), "{}", stderr(&output));
    let file = scratch.path().join("key");
    let path = file.to_str().unwrap();
    for (text, mode, says) in
        [("no key\n", 0o600, "holds no key"), ("no key\n", 0o640, "chmod 600"), ("", 0o600, "holds no key")]
    {
        write(&file, text);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let output = agent(&["--key", path]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
    write(&file, "short");
    let output = musher().args(["sled", "key", "--secret", path]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_huge_or_never_come_hold_nothing_up() {
    let (fleet, secret) = fleet();
    let (own, id) = key(&fleet.scratch, &secret, "a");
    let a = fleet.sled("a", &["--key", own.to_str().unwrap()]);
    fleet.until_sled("a", "is in service", is_in_service).await;
    let mut stuck = Vec::new();
    for url in [&fleet.daemon.sled_url, &a.url] {
        let address = url.strip_prefix("http://").unwrap();
        // Refused by its head alone: not a byte of the body is waited for.
        let mut huge = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "PUT /vmms/{id} HTTP/1.1\r\nhost: x\r\nx-sled-id: {id}\r\ncontent-length: 99999999999\r\n\r\n"
        );
        huge.write_all(head.as_bytes()).await.unwrap();
        let mut said = [0; 12];
        huge.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 401", "{address}");
        for _ in 0..32 {
            let mut slow = TcpStream::connect(address).await.unwrap();
            slow.write_all(b"PUT /vmms/x HTTP/1.1\r\nhost: x\r\ncontent-le").await.unwrap();
            stuck.push(slow);
        }
    }
    // With all of them stuck, everybody else is served.
    let ids = fleet.run_instances(&["web-1"]).await;
    fleet.order(&ids[0], "stop").await;
    fleet.until_all(&ids, "stopped").await;
    drop(stuck);
}
