//! Guests that move between sleds that are processes. The two are told what to do by the test itself, over
//! their own protocol; the control plane is a stub that takes everything down.

use crate::daemon::{Scratch, answer, scratch};
use crate::process::{Sled, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const SOURCE: &str = "00000000-0000-4000-8000-000000000001";
const TARGET: &str = "00000000-0000-4000-8000-000000000002";
const INSTANCE: &str = "00000000-0000-4000-8000-000000000003";
const MIGRATION: &str = "00000000-0000-4000-8000-000000000004";

/// The last picture of each VMM.
type Pictures = Arc<Mutex<BTreeMap<String, Value>>>;

/// Grants every sled epoch 1 and accepts every report.
async fn control_plane() -> (String, Pictures) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let pictures = Pictures::default();
    let told = Arc::clone(&pictures);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_one(stream, Arc::clone(&told)));
        }
    });
    (url, pictures)
}

/// A sled that was killed breaks off in the middle: then there is nothing to answer.
async fn answer_one(mut stream: TcpStream, pictures: Pictures) -> Option<()> {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8(bytes.clone()).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let mut said = String::new();
    if head.starts_with("POST /sleds/register") {
        said = json!({"lease_epoch": 1}).to_string();
    } else if let Some(rest) = head.strip_prefix("PUT /vmms/") {
        let vmm = rest.split(' ').next()?.to_owned();
        pictures.lock().unwrap().insert(vmm, serde_json::from_str(&body).ok()?);
    }
    let length = said.len();
    let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{said}");
    stream.write_all(answer.as_bytes()).await.ok()
}

/// Two sleds, a running VMM on the first, and a VMM on the second that is to fetch its guest.
struct Stage {
    scratch: Scratch,
    control_plane: String,
    pictures: Pictures,
    http: reqwest::Client,
    source: Sled,
    target: Sled,
}

impl Stage {
    async fn set(source_flags: &[&str]) -> Self {
        let (scratch, _) = scratch();
        let (control_plane, pictures) = control_plane().await;
        let source = Sled::start(scratch.path(), "source", &control_plane, source_flags);
        let target = Sled::start(scratch.path(), "target", &control_plane, &[]);
        let stage = Self { scratch, control_plane, pictures, http: reqwest::Client::new(), source, target };
        for sled in [&stage.source, &stage.target] {
            sled.until_it_knows_its_epoch(&stage.http).await;
        }
        stage.put(&stage.source, SOURCE, register("starting", None)).await;
        stage.order(&stage.source, SOURCE, 11, json!({"type": "running"})).await;
        stage.until_pictured(SOURCE, "running", None).await;
        stage.put(&stage.target, TARGET, register("migrating", Some(MIGRATION))).await;
        stage
    }

    async fn begin(&self) {
        let from = json!({"src_propolis_id": SOURCE, "src_addr": self.source.url});
        let state = json!({"type": "migration_target", "value": from});
        self.order(&self.target, TARGET, 12, state).await;
    }

    async fn put(&self, sled: &Sled, path: &str, body: Value) {
        let url = format!("{}/vmms/{path}", sled.url);
        let (status, said) = answer(self.http.put(url).json(&body).send().await.unwrap()).await;
        assert_eq!(status, 200, "{path}: {said}");
    }

    async fn order(&self, sled: &Sled, vmm: &str, op: u32, state: Value) {
        let body = json!({
            "op_id": format!("00000000-0000-4000-8000-0000000000{op}"), "lease_epoch": 1, "state": state,
        });
        self.put(sled, &format!("{vmm}/state"), body).await;
    }

    /// Waits until the VMM was last reported so, with this state of its departure if one is named.
    async fn until_pictured(&self, vmm: &str, state: &str, departure: Option<&str>) {
        until(&format!("{vmm} is {state}, leaving {departure:?}"), async || {
            let pictures = self.pictures.lock().unwrap();
            let picture = pictures.get(vmm)?;
            let leaves = departure.is_none_or(|wanted| picture["migration_out"]["state"] == wanted);
            (picture["vmm_state"]["state"] == state && leaves).then_some(())
        })
        .await;
    }

    fn arrival(&self) -> Value {
        self.pictures.lock().unwrap()[TARGET]["migration_in"]["state"].clone()
    }
}

fn register(state: &str, migration: Option<&str>) -> Value {
    json!({
        "instance_id": INSTANCE, "migration_id": migration,
        "vmm_runtime": {"state": state, "gen": 1, "time_updated": "2026-01-01T00:00:00Z"},
        "resources": {"ncpus": 2, "memory": 4_u64 << 30},
        "network": {"virtual_ip": "10.0.0.5", "mac": "A8:40:25:00:00:01", "vni": 100},
        "metadata": {"project_id": INSTANCE}, "lease_epoch": 1,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_moves_from_one_process_to_another() {
    let stage = Stage::set(&[]).await;
    stage.begin().await;
    stage.until_pictured(TARGET, "running", None).await;
    stage.until_pictured(SOURCE, "destroyed", Some("completed")).await;
    assert_eq!(stage.arrival(), "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_agent_is_killed_while_it_copies_takes_the_migration_up_again() {
    let mut stage = Stage::set(&["--dirty-rate", "100"]).await;
    stage.begin().await;
    stage.until_pictured(SOURCE, "migrating", Some("in_progress")).await;
    stage.source.kill();
    // The guest has calmed down meanwhile.
    stage.source = Sled::start(stage.scratch.path(), "source", &stage.control_plane, &[]);
    stage.until_pictured(TARGET, "running", None).await;
    stage.until_pictured(SOURCE, "destroyed", Some("completed")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_does_not_converge_goes_on_until_it_is_cancelled() {
    let stage = Stage::set(&["--dirty-rate", "100"]).await;
    stage.begin().await;
    stage.until_pictured(SOURCE, "migrating", Some("in_progress")).await;
    stage.order(&stage.target, TARGET, 13, json!({"type": "migration_cancel"})).await;
    stage.until_pictured(SOURCE, "running", Some("failed")).await;
    stage.until_pictured(TARGET, "failed", None).await;
    assert_eq!(stage.arrival(), "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_host_boots_anew_fails_the_migration_on_its_target() {
    let mut stage = Stage::set(&["--dirty-rate", "100"]).await;
    stage.begin().await;
    stage.until_pictured(SOURCE, "migrating", Some("in_progress")).await;
    stage.source.kill();
    stage.source = Sled::start(stage.scratch.path(), "source", &stage.control_plane, &["--reboot"]);
    stage.until_pictured(TARGET, "failed", None).await;
    assert_eq!(stage.arrival(), "failed");
    assert!(stage.source.held(&stage.http).await.is_empty());
}
