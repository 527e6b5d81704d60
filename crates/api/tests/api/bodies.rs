//! Bodies: every field that clients fail without, with the type they expect.

use crate::stack::{Stack, new_instance, sled_id};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug)]
enum Is {
    Text,
    Uuid,
    Time,
    Number,
    Flag,
}

fn check(body: &Value, fields: &[(&str, Is)]) {
    for (field, is) in fields {
        let value = &body[*field];
        let fits = match is {
            Is::Text => value.is_string(),
            Is::Uuid => value.as_str().is_some_and(|text| uuid::Uuid::try_parse(text).is_ok()),
            Is::Time => value.as_str().is_some_and(|text| {
                text.ends_with('Z') && text.as_bytes()[10] == b'T' && text.starts_with("2026-01-01")
            }),
            Is::Number => value.is_u64(),
            Is::Flag => value.is_boolean(),
        };
        assert!(fits, "{field} is not {is:?} in {body}");
    }
}

const INSTANCE: &[(&str, Is)] = &[
    ("id", Is::Uuid),
    ("name", Is::Text),
    ("description", Is::Text),
    ("hostname", Is::Text),
    ("ncpus", Is::Number),
    ("memory", Is::Number),
    ("project_id", Is::Uuid),
    ("run_state", Is::Text),
    ("time_created", Is::Time),
    ("time_modified", Is::Time),
    ("time_run_state_updated", Is::Time),
    ("auto_restart_enabled", Is::Flag),
    ("enable_jumbo_frames", Is::Flag),
];

const PROJECT: &[(&str, Is)] = &[
    ("id", Is::Uuid),
    ("name", Is::Text),
    ("description", Is::Text),
    ("time_created", Is::Time),
    ("time_modified", Is::Time),
];

const CURRENT_USER: &[(&str, Is)] = &[
    ("id", Is::Uuid),
    ("display_name", Is::Text),
    ("silo_id", Is::Uuid),
    ("silo_name", Is::Text),
    ("fleet_viewer", Is::Flag),
    ("silo_admin", Is::Flag),
    ("time_created", Is::Time),
    ("time_modified", Is::Time),
];

const SLED: &[(&str, Is)] = &[
    ("id", Is::Uuid),
    ("rack_id", Is::Uuid),
    ("state", Is::Text),
    ("usable_hardware_threads", Is::Number),
    ("usable_physical_ram", Is::Number),
    ("time_created", Is::Time),
    ("time_modified", Is::Time),
];

#[tokio::test(start_paused = true)]
async fn every_body_has_the_fields_that_clients_need() {
    let stack = Stack::start(1).await;
    let project = stack.post("/v1/projects", &json!({"name": "demo", "description": "größe 💥"})).await;
    check(&project.body, PROJECT);
    assert_eq!(project.text("description"), "größe 💥");
    check(&stack.get("/v1/projects/demo").await.body, PROJECT);
    check(&stack.get("/v1/projects").await.body["items"][0], PROJECT);

    let mut body = new_instance("web");
    body["auto_restart_policy"] = json!("never");
    let created = stack.post("/v1/instances?project=demo", &body).await;
    check(&created.body, INSTANCE);
    assert_eq!(created.body["auto_restart_policy"], "never");
    assert_eq!(created.body["auto_restart_enabled"], false);
    assert_eq!(created.body["memory"], 2_u64 << 30);
    assert_eq!(created.body["project_id"], project.body["id"]);
    let id = created.text("id");
    stack.until_run_state(&id, "running").await;
    check(&stack.get(&format!("/v1/instances/{id}")).await.body, INSTANCE);
    check(&stack.get("/v1/instances?project=demo").await.body["items"][0], INSTANCE);
    let rebooted = stack.post(&format!("/v1/instances/{id}/reboot"), &json!({})).await;
    check(&rebooted.body, INSTANCE);

    let plain = stack.create("demo", "db", false).await;
    assert_eq!(plain.body["auto_restart_enabled"], true, "the default policy is best_effort");
    assert!(plain.body.get("auto_restart_policy").is_none(), "and is not claimed to have been chosen");

    check(&stack.get("/v1/me").await.body, CURRENT_USER);
    let sleds = stack.get("/v1/system/hardware/sleds").await;
    check(&sleds.body["items"][0], SLED);
    let sled = stack.get(&format!("/v1/system/hardware/sleds/{}", sled_id(0))).await;
    assert_eq!(sled.body, sleds.body["items"][0]);
    assert_eq!(sled.body["state"], "active");
    assert_eq!(sled.body["policy"], json!({"kind": "in_service", "provision_policy": "provisionable"}));
    assert_eq!(sled.body["baseboard"], json!({"part": "sim-x86", "serial": "sim-0", "revision": 0}));
    assert_eq!(stack.get("/v1/ping").await.body, json!({"status": "ok"}));
}

#[tokio::test(start_paused = true)]
async fn lists_of_what_there_is_none_of_are_empty_pages() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let id = stack.stopped("demo", "web").await;
    let of_instance = |what: &str| format!("/v1/instances/{id}/{what}");
    for path in [
        "/v1/me/groups".to_owned(),
        "/v1/network-interfaces?project=demo".to_owned(),
        "/v1/anti-affinity-groups?project=demo".to_owned(),
        of_instance("disks"),
        of_instance("external-ips"),
        of_instance("anti-affinity-groups"),
    ] {
        let answer = stack.get(&path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body),
            (200, json!({"items": [], "next_page": null})),
            "{path}"
        );
    }
    assert_eq!(stack.get("/v1/instances/nope/disks?project=demo").await.status, 404);
}
