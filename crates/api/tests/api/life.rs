//! The life of projects and instances, as a client lives it.

use crate::stack::{Stack, new_instance};
use api::ApiConfig;
use axum::http::Method;
use serde_json::json;
use sim_sled::faults::{Fault, Faults};
use sim_sled::machine::{Mode, RequestKind};
use sled_protocol::SledError;
use uuid::Uuid;

#[tokio::test(start_paused = true)]
async fn an_instance_lives_its_whole_life_through_http() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    let created = stack.create("demo", "web", true).await;
    assert_eq!((created.status.as_u16(), created.text("run_state").as_str()), (201, "starting"));
    let id = created.text("id");
    let by_name = |verb: &str| format!("/v1/instances/web{verb}?project=demo");
    let by_id = |verb: &str| format!("/v1/instances/{id}{verb}");
    stack.until_run_state(&id, "running").await;

    let seen = stack.get(&by_name("")).await;
    assert_eq!((seen.text("id"), seen.text("run_state")), (id.clone(), "running".to_owned()));
    assert!(seen.text("time_run_state_updated") > created.text("time_run_state_updated"));
    assert_eq!(seen.body, stack.get(&by_id("")).await.body);

    let mut position = created.position();
    for (path, state) in
        [(by_id("/reboot"), "running"), (by_name("/stop"), "stopped"), (by_name("/start"), "running")]
    {
        let answer = stack.call(Method::POST, &path, "").await;
        assert_eq!(answer.status, 202, "{path}: {}", answer.body);
        assert!(answer.position() > position, "{path}");
        position = answer.position();
        stack.until_run_state(&id, state).await;
    }
    assert_eq!(stack.call(Method::POST, &by_id("/stop"), "").await.status, 202);
    stack.until_run_state(&id, "stopped").await;

    let deleted = stack.call(Method::DELETE, &by_name(""), "").await;
    assert_eq!((deleted.status.as_u16(), deleted.body.is_null()), (204, true));
    assert!(deleted.position() > position);
    for (path, how) in [(by_name(""), "name \"web\"".to_owned()), (by_id(""), format!("id \"{id}\""))] {
        let message = format!("not found: instance with {how}");
        assert_eq!(stack.get(&path).await.refusal(), (404, "ObjectNotFound", message.as_str()));
        let again = stack.call(Method::DELETE, &path, "").await;
        assert_eq!(again.refusal(), (404, "ObjectNotFound", message.as_str()));
    }
    assert_eq!(stack.create("demo", "web", false).await.status, 201, "the name is free at once");
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_read_at_once() {
    let stack = Stack::start(1).await;
    for nth in 0..20 {
        let project = format!("demo-{nth}");
        stack.project(&project).await;
        let id = stack.stopped(&project, "web").await;
        assert_eq!(stack.get(&format!("/v1/instances?project={project}")).await.names(), ["web"]);
        assert_eq!(stack.get(&format!("/v1/instances/web?project={project}")).await.text("id"), id);
        assert_eq!(stack.get("/v1/projects?limit=100").await.names().len(), nth + 1);
        assert_eq!(stack.call(Method::DELETE, &format!("/v1/instances/{id}"), "").await.status, 204);
        assert!(stack.get(&format!("/v1/instances?project={project}")).await.names().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_state_does_not_allow_is_refused_and_leaves_no_trace() {
    let stack = Stack::start_with(1, Mode::Explicit, ApiConfig::default()).await;
    stack.project("demo").await;
    let created = stack.create("demo", "web", true).await;
    let id = created.text("id");
    let vmm = || async {
        let state = stack.get(&format!("/ops/v1/instances/{id}")).await;
        state.body["state"]["active"].as_str().unwrap().parse::<Uuid>().unwrap()
    };
    let undeletable = "cannot delete instance: instance is running or has not yet fully stopped";
    let check = async |state: &str, refusals: &[(&str, u16, &str)]| {
        stack.until_run_state(&id, state).await;
        let durable = stack.durable();
        for (verb, status, message) in refusals {
            let path = format!("/v1/instances/{id}{verb}");
            let method = if verb.is_empty() { Method::DELETE } else { Method::POST };
            let code = if *status == 409 { "Conflict" } else { "InvalidRequest" };
            assert_eq!(stack.call(method, &path, "").await.refusal(), (*status, code, *message), "{state}");
        }
        assert_eq!(stack.durable(), durable, "{state}: nothing was written");
    };

    check("starting", &[("", 400, undeletable)]).await;
    stack.step(0, vmm().await).await;
    check("running", &[("", 400, undeletable)]).await;
    let before = stack.durable();
    let again = stack.call(Method::POST, &format!("/v1/instances/{id}/start"), "").await;
    assert_eq!((again.status.as_u16(), stack.durable()), (202, before), "it runs already");

    assert_eq!(stack.call(Method::POST, &format!("/v1/instances/{id}/stop"), "").await.status, 202);
    let must_finish = "instance must finish stopping before it can be started";
    let no_reboot = "cannot reboot instance: instance is stopping";
    check("stopping", &[("", 400, undeletable), ("/start", 409, must_finish), ("/reboot", 400, no_reboot)])
        .await;
    let active = vmm().await;
    stack.step(0, active).await;
    stack.step(0, active).await;
    check("stopped", &[("/reboot", 400, "cannot reboot instance: instance is stopped")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_without_room_is_507_and_leaves_no_trace() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let mut body = new_instance("huge");
    body["ncpus"] = json!(254);
    let created = stack.post("/v1/instances?project=demo", &body).await;
    assert_eq!((created.status.as_u16(), created.text("run_state").as_str()), (201, "stopped"));
    let durable = stack.durable();
    let started = stack.call(Method::POST, "/v1/instances/huge/start?project=demo", "").await;
    let (status, code, message) = started.refusal();
    assert_eq!((status, code), (507, "InsufficientCapacity"));
    assert!(message.contains("no sled has room for 254 vCPU and 2 GiB"), "{message}");
    assert_eq!(stack.durable(), durable);
}

#[tokio::test(start_paused = true)]
async fn a_project_is_renamed_and_goes_only_when_it_is_empty() {
    let stack = Stack::start(1).await;
    let id = stack.project("demo").await;
    stack.project("other").await;
    let web = stack.stopped("demo", "web").await;

    let refused = stack.call(Method::DELETE, "/v1/projects/demo", "").await;
    let message = "project to be deleted contains 1 instance(s); delete them first";
    assert_eq!(refused.refusal(), (400, "InvalidRequest", message));
    let taken = stack.call(Method::PUT, "/v1/projects/demo", r#"{"name":"other"}"#).await;
    assert_eq!(taken.refusal(), (400, "ObjectAlreadyExists", "already exists: project \"other\""));

    let durable = stack.durable();
    let same = stack.call(Method::PUT, "/v1/projects/demo", r#"{"name":"demo","description":null}"#).await;
    assert_eq!((same.status.as_u16(), stack.durable()), (200, durable), "nothing changes");
    let renamed = stack.call(Method::PUT, "/v1/projects/demo", r#"{"name":"prod"}"#).await;
    assert_eq!(
        (renamed.status.as_u16(), renamed.text("name"), renamed.text("id")),
        (200, "prod".to_owned(), id)
    );
    assert_eq!(renamed.text("description"), "of a test", "what is not given stays");
    assert_eq!(stack.get("/v1/projects/demo").await.status, 404);
    assert_eq!(stack.get("/v1/instances/web?project=prod").await.text("id"), web);

    assert_eq!(stack.call(Method::DELETE, &format!("/v1/instances/{web}"), "").await.status, 204);
    assert_eq!(stack.call(Method::DELETE, "/v1/projects/prod", "").await.status, 204);
    assert_eq!(stack.get("/v1/projects").await.names(), ["other"]);
}

#[tokio::test(start_paused = true)]
async fn names_are_unique_within_a_project_only() {
    let stack = Stack::start(1).await;
    stack.project("one").await;
    stack.project("two").await;
    stack.stopped("one", "web").await;
    stack.stopped("two", "web").await;
    let durable = stack.durable();
    let taken = stack.create("one", "web", true).await;
    assert_eq!(taken.refusal(), (400, "ObjectAlreadyExists", "already exists: instance \"web\""));
    let taken = stack.post("/v1/projects", &json!({"name": "one", "description": ""})).await;
    assert_eq!(taken.refusal(), (400, "ObjectAlreadyExists", "already exists: project \"one\""));
    assert_eq!(stack.durable(), durable);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_its_sled_does_not_confirm_is_recorded_and_comes_true_later() {
    let failing = SledError::ServerError { status: 500, message: "a secret".to_owned() };
    for (fault, status, message) in [
        (Fault::LoseRequest, 502, "recorded, not confirmed: the sled cannot be reached"),
        (Fault::Hang, 504, "recorded, not confirmed: the sled has not answered yet"),
        (Fault::Answer(failing), 500, "Internal Server Error"),
    ] {
        let stack = Stack::start(1).await;
        stack.project("demo").await;
        let id = stack.create("demo", "web", true).await.text("id");
        stack.until_run_state(&id, "running").await;
        let durable = stack.durable();
        stack.misbehave(&Faults::default().always(RequestKind::SetStopped, fault));
        let answer = stack.call(Method::POST, &format!("/v1/instances/{id}/stop"), "").await;
        assert_eq!(answer.refusal(), (status, "Internal", message));
        assert!(stack.durable() > durable, "{status}: it is recorded");
        assert_eq!(stack.get(&format!("/v1/instances/{id}")).await.text("run_state"), "running");
        stack.misbehave(&Faults::default());
        stack.until_run_state(&id, "stopped").await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_creates_with_one_name_one_succeeds() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let answers = futures::future::join_all((0..50).map(|_| stack.create("demo", "web", false))).await;
    let (created, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!((created.len(), refused.len()), (1, 49));
    for answer in refused {
        assert_eq!(answer.refusal(), (400, "ObjectAlreadyExists", "already exists: instance \"web\""));
    }
    assert_eq!(stack.get("/v1/instances?project=demo").await.names(), ["web"]);
}
