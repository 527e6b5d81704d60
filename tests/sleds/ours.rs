//! A sled belongs to the control plane that took it: another one, with another log, would end its guests. And it takes no
//! epoch below one that it has held, so that whoever is left behind, with another log or an old copy of the same, is
//! refused.

use super::{Fleet, is_in_service};
use crate::daemon::{Daemon, instance_body, scratch};
use crate::process::{Sled, sled_command, until};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

/// Starts the sled, reads what it says until it is refused as another one's, and kills it.
fn refused_as_another_ones(dir: &Path, name: &str, control_plane: &str) {
    let mut command = sled_command(dir, name, control_plane);
    command.env("RUST_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.contains("--adopt")).collect();
    let is_over = child.try_wait().unwrap().is_some();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!is_over, "it asks again and again, and does not end: {said:?}");
    assert!(!said.iter().any(|line| line.contains("registered; lease epoch")), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sled_is_not_taken_by_another_control_plane_until_it_is_told_to_belong_to_it() {
    let fleet = Fleet::start();
    let a = fleet.sled("a", &[]);
    fleet.until_in_service(&[&a]).await;
    let ids = fleet.run_instances(&["web-1"]).await;
    let (http, dir) = (fleet.daemon.http.clone(), fleet.scratch.path());
    let held = a.held(&http).await;
    assert_eq!(held.keys().collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    a.kill();

    let (_scratch, data) = scratch();
    let other = Daemon::start_with(&data, &["--no-embedded-sleds"]);
    refused_as_another_ones(dir, "a", &other.sled_url);
    assert_eq!(other.get("/ops/v1/sleds").await.1["items"].as_array().unwrap().len(), 0);

    // Its own takes it back as if nothing had been.
    let a = fleet.sled("a", &[]);
    fleet.until_in_service(&[&a]).await;
    assert_eq!(a.held(&http).await, held);
    a.kill();

    let a = Sled::start(dir, "a", &other.sled_url, &["--adopt"]);
    until("the other one has it", async || {
        let (_, body) = other.get("/ops/v1/sleds").await;
        body["items"].as_array()?.iter().any(is_in_service).then_some(())
    })
    .await;
    assert!(a.held(&http).await.is_empty(), "in a new boot it holds nothing of the last");
    // It may be killed before it has read the answer: then it belongs to nobody yet.
    let bound = async || {
        let identity: Value =
            serde_json::from_slice(&std::fs::read(dir.join("a/sled.json")).unwrap()).unwrap();
        identity["store_id"].is_string().then_some(())
    };
    until("it belongs to the other one", bound).await;
    // The first one still runs, and knows where the sled is: what it wants there is refused.
    assert_eq!(
        other.get("/ops/v1/sleds").await.1["items"][0]["epoch"],
        2,
        "above what the first one granted"
    );
    let ours = other.create("web-9", true).await;
    other.until_state(&ours, "running").await;
    let held = a.held(&http).await;
    assert_eq!(held.keys().collect::<Vec<_>>(), [&ours]);
    // Recorded, and confirmed by nobody.
    let (status, body) = fleet.daemon.post(&format!("/v1/instances/{}/stop", ids[0]), None).await;
    assert_eq!(status, 500, "{body}");
    let (_, theirs) =
        fleet.daemon.post("/v1/instances?project=demo", Some(instance_body("web-2", true))).await;
    let looked = fleet.until_sled("a", "is looked at", |sled| !sled["last_contact"].is_null()).await;
    fleet.until_sled("a", "is looked at again", |sled| sled["last_contact"] != looked["last_contact"]).await;
    let theirs = theirs["id"].as_str().unwrap();
    assert_ne!(fleet.daemon.state(theirs).await, "running");
    assert_eq!(a.held(&http).await, held, "nothing ended, nothing came");
    a.kill();
    refused_as_another_ones(dir, "a", &fleet.daemon.sled_url);
}

/// A copy of a data directory, as a backup of the whole disk would be.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_restored_grants_its_sleds_epochs_above_those_that_it_has_forgotten() {
    let fleet = Fleet::start();
    let a = fleet.sled("a", &[]);
    fleet.until_in_service(&[&a]).await;
    a.kill();
    let Fleet { scratch, data, config, daemon } = fleet;
    assert_eq!(daemon.signal("-TERM"), 0);
    let restored = scratch.path().join("restored");
    copy(&data, &restored);

    let daemon = Fleet::daemon(&data, &config);
    let fleet = Fleet { scratch, data, config, daemon };
    for epoch in [2, 3] {
        let a = fleet.sled("a", &["--reboot"]);
        fleet.until_sled("a", "has booted", |sled| sled["epoch"] == epoch).await;
        a.until_it_knows_its_epoch(&fleet.daemon.http).await;
        a.kill();
    }

    // The one that was left behind goes on, with the boot that the sled is in.
    let left_behind = fleet;
    let daemon = Fleet::daemon(&restored, &left_behind.config);
    let a = Sled::start(left_behind.scratch.path(), "a", &daemon.sled_url, &[]);
    until("it is in service above what it has held", async || {
        let (_, body) = daemon.get("/ops/v1/sleds").await;
        body["items"].as_array()?.iter().any(|sled| is_in_service(sled) && sled["epoch"] == 4).then_some(())
    })
    .await;
    let id = daemon.create("web-1", true).await;
    daemon.until_state(&id, "running").await;
    let held = a.held(&daemon.http).await;
    assert_eq!(held.keys().collect::<Vec<_>>(), [&id]);
    for _ in 0..2 {
        let looked =
            left_behind.until_sled("a", "is looked at", |sled| !sled["last_contact"].is_null()).await;
        let seen = looked["last_contact"].clone();
        left_behind.until_sled("a", "is looked at again", |sled| sled["last_contact"] != seen).await;
    }
    assert_eq!(
        a.held(&daemon.http).await,
        held,
        "an orphan of the one that was left behind is not its to end"
    );
    let (status, body) = daemon.post(&format!("/v1/instances/{id}/stop"), None).await;
    assert_eq!(status, 202, "{body}");
    daemon.until_state(&id, "stopped").await;
}
