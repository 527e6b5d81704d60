//! A sled belongs to the control plane that took it: another one, with another log, would end its guests.

use super::{Fleet, is_in_service};
use crate::daemon::{Daemon, scratch};
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
    a.kill();
    refused_as_another_ones(dir, "a", &fleet.daemon.sled_url);
}
