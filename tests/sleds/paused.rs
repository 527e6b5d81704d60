//! A saga whose sled does not answer is paused, stays so across a kill, and goes on when somebody says so.

use crate::daemon::{Daemon, stderr, stdout};
use crate::process::until;
use crate::{Fleet, instance_body};
use serde_json::{Value, json};

fn ok(daemon: &Daemon, args: &[&str]) -> String {
    let output = daemon.cli(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// The lines of `/ops/v1/attention` about sagas that are paused.
async fn paused(daemon: &Daemon) -> Vec<Value> {
    let (status, body) = daemon.get("/ops/v1/attention").await;
    assert_eq!(status, 200, "{body}");
    let lines = body["items"].as_array().unwrap().iter().filter(|line| line["kind"] == "saga_paused");
    lines.cloned().collect()
}

async fn created(daemon: &Daemon) -> String {
    let (status, body) = daemon.post("/v1/instances?project=demo", Some(instance_body("web-1", true))).await;
    assert_eq!(status, 201, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_whose_step_keeps_failing_is_paused_across_a_kill_until_somebody_resumes_it() {
    let mut fleet = Fleet::start_with("\n[instances]\npause_after_failures = 2\nstart_deadline_s = 600\n");
    let sled = fleet.sled("a", &[]);
    fleet.until_in_service(&[&sled]).await;
    sled.send("-STOP");
    let id = created(&fleet.daemon).await;
    let line = until("the saga is paused", async || paused(&fleet.daemon).await.pop()).await;
    assert!(line["reason"].as_str().unwrap().contains("its step failed 2 times in a row"), "{line}");
    let told = ok(&fleet.daemon, &["instance", "explain", "web-1"]);
    assert!(told.contains("its saga is paused since ") && told.contains("musher saga resume "), "{told}");

    // The pause is a fact of the log.
    fleet.daemon.kill();
    fleet.daemon = Fleet::daemon(&fleet.data, &fleet.config);
    assert_eq!(paused(&fleet.daemon).await[0]["since"], line["since"]);
    let sagas: Value = serde_json::from_str(&ok(&fleet.daemon, &["saga", "list", "-o", "json"])).unwrap();
    let saga = &sagas[0];
    assert_eq!(
        (&saga["pause"]["cause"], &saga["pause"]["failures"], &saga["outcome"]),
        (&json!("failures"), &json!(2), &Value::Null)
    );
    let saga = saga["id"].as_str().unwrap();
    assert!(ok(&fleet.daemon, &["saga", "list"]).contains("paused"));
    assert!(ok(&fleet.daemon, &["saga", "show", saga]).contains("its step had failed 2 times"));
    let resumed = ok(&fleet.daemon, &["saga", "resume", saga, "--reason", "the sled is back"]);
    assert!(resumed.contains(saga), "{resumed}");
    sled.send("-CONT");
    // The sled reports to where the daemon was; its answers are enough to go on.
    until("it is registered", async || {
        let (_, instance) = fleet.daemon.get(&format!("/ops/v1/instances/{id}")).await;
        let is_past = matches!(instance["state"]["saga"]["step"].as_str(), None | Some("set_running"));
        is_past.then_some(())
    })
    .await;
    let history = fleet.history(&id).await;
    let of = |event: &str| history.iter().find(|entry| entry["event"] == event).unwrap();
    assert!(of("SagaPaused")["actor"].as_str().unwrap().contains("sled"), "{}", of("SagaPaused"));
    let resumed = of("SagaResumed");
    assert_eq!(resumed["reason"], "the sled is back", "{resumed}");
    assert!(resumed["actor"].as_str().unwrap().contains("operator"), "{resumed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_paused_by_hand_resumed_and_a_retry_does_not_wait_for_its_turn() {
    let fleet = Fleet::start();
    let sled = fleet.sled("a", &[]);
    fleet.until_in_service(&[&sled]).await;
    sled.send("-STOP");
    let id = created(&fleet.daemon).await;
    let (_, list) = fleet.daemon.get("/ops/v1/sagas?state=under_way").await;
    let saga = list["items"][0]["id"].as_str().unwrap().to_owned();
    let rehearsed = ok(&fleet.daemon, &["saga", "pause", &saga, "--dry-run"]);
    assert!(rehearsed.contains("SagaPaused"), "{rehearsed}");
    assert_eq!(paused(&fleet.daemon).await, Vec::<Value>::new(), "a rehearsal pauses nothing");
    ok(&fleet.daemon, &["saga", "pause", &saga, "--reason", "the sled hangs"]);
    ok(&fleet.daemon, &["saga", "pause", &saga]);
    assert_eq!(paused(&fleet.daemon).await.len(), 1);
    sled.send("-CONT");
    fleet.until_sled("a", "is back", |sled| sled["unreachable"].is_null()).await;
    assert_eq!(fleet.daemon.state(&id).await, "starting", "nobody has resumed it");
    ok(&fleet.daemon, &["saga", "retry", &saga]);
    fleet.until_all(std::slice::from_ref(&id), "running").await;
    let told: Vec<Value> = fleet.history(&id).await;
    let events: Vec<_> = told.iter().map(|entry| entry["event"].as_str().unwrap()).collect();
    let count = |event: &str| events.iter().filter(|it| **it == event).count();
    assert_eq!((count("SagaPaused"), count("SagaResumed")), (1, 1), "{events:?}");
    for verb in ["pause", "resume", "retry"] {
        let over = fleet.daemon.cli(&["saga", verb, &saga]);
        assert_eq!(over.status.code(), Some(1), "{verb}");
        assert!(stderr(&over).contains("not found: saga"), "{}", stderr(&over));
    }
}
