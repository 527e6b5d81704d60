//! What operators do: what is answered when it is done, and repeats with a key.

use crate::refusals::NO_ID;
use crate::stack::{Answer, Stack, new_instance, sled_id};
use api::ApiConfig;
use axum::http::Method;
use lifecycle::{InstanceId, SagaId, Step};
use projections::{Among, Order, ReadModel};
use serde_json::{Value, json};
use sim_sled::faults::{Fault, Faults};
use sim_sled::machine::{Mode, RequestKind};
use std::time::Duration;

pub const OTHER: (u16, &str, &str) =
    (400, "InvalidRequest", "header idempotency-key: this key was used for another request; use a fresh one");

/// The keys of an object, in order.
fn keys(of: &Value) -> Vec<&str> {
    of.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Creates and starts an instance whose sled is not reached: its start stays at its first step.
pub async fn start_held_at_register(stack: &Stack) -> (InstanceId, SagaId) {
    stack.misbehave(&Faults::default().always(RequestKind::Register, Fault::LoseRequest));
    let created = stack.create("demo", "web", true).await;
    let id = InstanceId::new(created.text("id").parse().unwrap());
    let under_way = |model: &ReadModel| {
        let saga = model.instance_state(id)?.saga.clone()?;
        (saga.step == Step::Register).then_some(saga.id)
    };
    stack.until(|model| under_way(model).is_some()).await;
    (id, stack.projections.read(under_way).unwrap())
}

fn is_quiet(model: &ReadModel) -> bool {
    model.migrations(Among::UnderWay, Order::Ascending, None, 1).rows.is_empty()
        && model.sagas(Among::UnderWay, Order::Ascending, None, 1).rows.is_empty()
}

pub fn same(a: &Answer, b: &Answer) {
    assert_eq!((a.status, &a.body), (b.status, &b.body));
    for name in ["x-request-id", "x-log-position"] {
        assert_eq!(a.headers[name], b.headers[name], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_moves_and_every_way_of_looking_says_so() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let (_, home) = stack.active(&web).await;
    let moved = stack.call(Method::POST, "/ops/v1/instances/web/migrate?project=demo", "").await;
    assert_eq!((moved.status.as_u16(), moved.text("run_state").as_str()), (202, "migrating"));
    assert_eq!(keys(&moved.body), ["id", "migration_id", "name", "run_state", "saga_id"]);
    let (migration, saga) = (moved.text("migration_id"), moved.text("saga_id"));
    let told = stack.get(&format!("/ops/v1/instances/{web}/explain")).await;
    for key in ["because", "can", "holds", "instance", "name", "next", "owner", "run_state", "since", "waits"]
    {
        assert!(!told.body[key].is_null(), "{key}: {}", told.body);
    }
    assert_eq!(
        (told.body["holds"].as_array().unwrap().len(), told.text("run_state").as_str()),
        (2, "migrating")
    );
    assert!(moved.position() <= stack.durable());

    stack.until(is_quiet).await;
    stack.until_run_state(&web, "running").await;
    let (_, away) = stack.active(&web).await;
    assert_ne!(home, away);
    let one = stack.get(&format!("/ops/v1/migrations/{migration}")).await;
    assert_eq!(
        keys(&one.body),
        [
            "cancelled",
            "deadline_s",
            "id",
            "instance_id",
            "outcome",
            "saga_id",
            "source",
            "target",
            "time_ended",
            "time_started",
            "took_s"
        ]
    );
    assert_eq!(
        (one.text("outcome"), one.text("saga_id"), &one.body["cancelled"]),
        ("succeeded".to_owned(), saga.clone(), &Value::Null)
    );
    assert_eq!(keys(&one.body["source"]), ["generation", "sled_id", "state", "vmm_id"]);
    assert_eq!(
        (&one.body["source"]["sled_id"], &one.body["target"]["sled_id"]),
        (&json!(home), &json!(away))
    );
    let all = stack.get("/ops/v1/migrations").await;
    assert_eq!(all.body, json!({"items": [one.body], "next_after": null}));
    assert_eq!(stack.get("/ops/v1/migrations?state=under_way").await.body["items"], json!([]));

    let one = stack.get(&format!("/ops/v1/sagas/{saga}")).await;
    assert_eq!(
        (one.text("kind"), one.text("outcome"), one.text("instance_id")),
        ("migrate".to_owned(), "done".to_owned(), web.clone())
    );
    assert_eq!(keys(&one.body["steps"][0]), ["does", "is_point_of_no_return", "since", "state", "step"]);
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = stack.get(&format!("/ops/v1/sagas?limit=1{after}")).await;
        found.extend(page.body["items"].as_array().unwrap().iter().map(|it| it["id"].clone()));
        match page.body["next_after"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!((found.len(), found.contains(&json!(saga))), (2, true), "the start and the migrate");

    let on = |sled: &str| format!("/v1/system/hardware/sleds/{sled}/instances");
    assert_eq!(stack.get(&on(&home)).await.body, json!({"items": [], "next_page": null}));
    let there = stack.get(&on(&away)).await;
    let item = &there.body["items"][0];
    assert_eq!(
        keys(item),
        [
            "active_sled_id",
            "id",
            "memory",
            "name",
            "ncpus",
            "project_name",
            "silo_name",
            "state",
            "time_created",
            "time_modified"
        ]
    );
    assert_eq!(
        (&item["id"], &item["state"], &item["project_name"]),
        (&json!(web), &json!("running"), &json!("demo"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_migration_is_called_off_and_what_hangs_is_stopped_by_force() {
    let stack = Stack::start_with(2, Mode::Explicit, ApiConfig::default()).await;
    stack.project("demo").await;
    let web = stack.stepped_up("demo", "web").await;
    let path = |verb: &str| format!("/ops/v1/instances/{web}/{verb}");
    let migration = stack.post(&path("migrate"), &json!({})).await.text("migration_id");
    let cancelled = stack.call(Method::POST, &path("migrate/cancel"), "").await;
    assert_eq!((cancelled.status.as_u16(), cancelled.text("id")), (202, web.clone()), "{}", cancelled.body);
    let one = stack.get(&format!("/ops/v1/migrations/{migration}")).await;
    assert!(one.body["cancelled"] == "requested" || one.body["outcome"] == "unwound", "{}", one.body);

    let why = json!({"reason": "hung", "assert_dead": true});
    let forced = stack.post(&path("force-stop"), &why).await;
    assert_eq!(forced.status, 202, "{}", forced.body);
    let history = stack.get(&format!("/ops/v1/instances/{web}/history?limit=1000")).await;
    let events = history.body["items"].as_array().unwrap();
    let event = events.iter().find(|entry| entry["event"] == "ForceStopRequested").unwrap();
    assert_eq!(
        (&event["actor"], &event["request_id"]),
        (&json!("user operator"), &json!(forced.headers["x-request-id"].to_str().unwrap()))
    );
    assert!(event["data"].to_string().contains("hung"), "{event}");
}

#[tokio::test(start_paused = true)]
async fn a_saga_is_taken_back_before_its_point_of_no_return() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let (_, saga) = start_held_at_register(&stack).await;
    let path = format!("/ops/v1/sagas/{saga}/cancel");
    let cancelled = stack.post_once("back", &path, &json!({})).await;
    assert_eq!(
        (cancelled.status.as_u16(), &cancelled.body["saga_id"]),
        (202, &Value::Null),
        "{}",
        cancelled.body
    );
    same(&cancelled, &stack.post_once("back", &path, &json!({})).await);
    let other = format!("/ops/v1/sagas/{NO_ID}/cancel");
    assert_eq!(stack.post_once("back", &other, &json!({})).await.refusal(), OTHER);
    let one = stack.get(&format!("/ops/v1/sagas/{saga}")).await;
    assert_eq!((one.text("outcome"), one.text("reason")), ("unwound".to_owned(), "cancelled".to_owned()));
    assert!(
        one.body["steps"].as_array().unwrap().iter().any(|step| step["state"] == "undone"),
        "{}",
        one.body
    );
}

#[tokio::test(start_paused = true)]
async fn a_sled_is_cordoned_drained_opened_again_and_expunged() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let (_, home) = stack.active(&web).await;
    let path = |verb: &str| format!("/ops/v1/sleds/{home}/{verb}");
    let cordoned = stack.call(Method::POST, &path("cordon"), "").await;
    assert_eq!((cordoned.status.as_u16(), &cordoned.body["provisionable"]), (200, &json!(false)));
    assert_eq!(
        keys(&cordoned.body),
        [
            "calls",
            "circuit",
            "cpu_family",
            "drain",
            "epoch",
            "expunged",
            "held",
            "id",
            "last_contact",
            "lease",
            "name",
            "provisionable",
            "room",
            "unreachable"
        ]
    );
    assert_eq!(cordoned.position(), stack.durable());
    let policy = format!("/v1/system/hardware/sleds/{home}/provision-policy");
    let (open, closed) = ("provisionable", "non_provisionable");
    for (asked, old) in [(closed, closed), (open, closed), (closed, open)] {
        let set = stack.put(&policy, &json!({"state": asked})).await;
        assert_eq!((set.status.as_u16(), &set.body), (200, &json!({"old_state": old, "new_state": asked})));
        let sled = stack.get(&format!("/v1/system/hardware/sleds/{home}")).await;
        assert_eq!(sled.body["policy"]["provision_policy"], asked);
    }
    let drained = stack.post(&path("drain"), &json!({"reason": "firmware"})).await;
    assert_eq!((drained.status.as_u16(), drained.body["drain"].is_object()), (200, true), "{}", drained.body);
    let empty = |model: &ReadModel| {
        let sled = lifecycle::SledId::new(home.parse().unwrap());
        is_quiet(model) && model.instances_on(sled, Order::Ascending, None, 1).rows.is_empty()
    };
    stack.until(empty).await;
    let (_, away) = stack.active(&web).await;
    assert_ne!(home, away);
    let opened = stack.call(Method::POST, &path("uncordon"), "").await;
    assert_eq!((&opened.body["provisionable"], &opened.body["drain"]), (&json!(true), &Value::Null));
    assert_eq!(stack.get(&format!("/ops/v1/sleds/{home}")).await.body["provisionable"], true);
    let gone = stack.post(&path("expunge"), &json!({"reason": "burnt"})).await;
    assert_eq!((gone.status.as_u16(), &gone.body["expunged"]), (200, &json!(true)));
    let sled = stack.get(&format!("/v1/system/hardware/sleds/{home}")).await;
    assert_eq!(
        (&sled.body["state"], &sled.body["policy"]),
        (&json!("decommissioned"), &json!({"kind": "expunged"}))
    );
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_set_shown_and_kept_to() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let gib = 1_u64 << 30;
    let none = json!({"cpus": 0, "memory": 0});
    for (path, scope) in [("fleet", "fleet"), ("silo", "silo"), ("project?project=demo", "project")] {
        let path = format!("/ops/v1/quotas/{path}");
        let free = stack.get(&path).await;
        assert_eq!(free.body, json!({"scope": scope, "cpus": null, "memory": null, "used": none}));
        let set = stack.put(&path, &json!({"cpus": 3, "memory": 64 * gib})).await;
        assert_eq!((set.status.as_u16(), set.position()), (200, stack.durable()), "{}", set.body);
        assert_eq!(set.body, json!({"scope": scope, "cpus": 3, "memory": 64 * gib, "used": none}));
        assert_eq!(stack.get(&path).await.body, set.body);
    }
    stack.running("demo", "web").await;
    let utilization = stack.get("/v1/utilization").await.body;
    let counts = |cpus: u64, memory: u64| json!({"cpus": cpus, "memory": memory, "storage": 0});
    assert_eq!(utilization, json!({"capacity": counts(3, 64 * gib), "provisioned": counts(2, 2 * gib)}));
    let silos = stack.get("/v1/system/utilization/silos").await.body;
    let silo = &silos["items"][0];
    assert_eq!(keys(silo), ["allocated", "provisioned", "silo_id", "silo_name"]);
    assert_eq!((&silo["allocated"], &silos["next_page"]), (&counts(3, 64 * gib), &Value::Null));

    stack.stopped("demo", "db").await;
    let short = stack.call(Method::POST, "/v1/instances/db/start?project=demo", "").await;
    let message = "insufficient capacity: project quota of 3 vCPU: 2 are in use, 2 more are needed";
    assert_eq!(short.refusal(), (507, "InsufficientCapacity", message));
    let lifted = stack.put("/ops/v1/quotas/project?project=demo", &json!({"cpus": u64::MAX})).await;
    assert_eq!((&lifted.body["cpus"], &lifted.body["memory"]), (&json!(u64::MAX), &Value::Null));
    assert_eq!(stack.put("/ops/v1/quotas/silo", &json!({"cpus": u64::MAX})).await.status, 200);
    let most = (1_u64 << 53) - 1;
    let utilization = stack.get("/v1/utilization").await.body;
    assert_eq!(utilization["capacity"], counts(most, most), "numbers that every client can hold");
}

#[tokio::test(start_paused = true)]
async fn a_group_is_made_joined_left_and_deleted() {
    let stack = Stack::start(1).await;
    let project = stack.project("demo").await;
    let web = stack.stopped("demo", "web").await;
    let groups = "/ops/v1/anti-affinity-groups?project=demo";
    let created = stack.post(groups, &json!({"name": "apart", "policy": "fail"})).await;
    assert_eq!((created.status.as_u16(), created.position()), (201, stack.durable()), "{}", created.body);
    assert_eq!(
        keys(&created.body),
        [
            "description",
            "failure_domain",
            "id",
            "members",
            "name",
            "policy",
            "project_id",
            "time_created",
            "time_modified"
        ]
    );
    assert_eq!((created.text("project_id"), created.text("policy")), (project, "fail".to_owned()));
    let one = "/ops/v1/anti-affinity-groups/apart?project=demo";
    assert_eq!(stack.get(one).await.body, created.body);
    let by_id = format!("/ops/v1/anti-affinity-groups/{}/members/{web}?project=demo", created.text("id"));
    let by_name = "/ops/v1/anti-affinity-groups/apart/members/web?project=demo";
    for (method, path, members, is_news) in [
        (Method::POST, by_name, json!([web]), true),
        (Method::POST, by_id.as_str(), json!([web]), false),
        (Method::DELETE, by_id.as_str(), json!([]), true),
        (Method::DELETE, by_name, json!([]), false),
    ] {
        let durable = stack.durable();
        let answer = stack.call(method.clone(), path, "").await;
        assert_eq!((answer.status.as_u16(), answer.body.is_null()), (204, true), "{method} {path}");
        assert_eq!(stack.durable() > durable, is_news, "{method} {path}");
        assert_eq!(stack.get(one).await.body["members"], members, "{method} {path}");
    }
    let all = stack.get(groups).await;
    assert_eq!((&all.body["items"][0]["name"], &all.body["is_cut_off"]), (&json!("apart"), &json!(false)));
    assert_eq!(stack.call(Method::DELETE, one, "").await.status, 204);
    assert_eq!(stack.get(groups).await.body["items"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn reapers_are_listed_and_run_when_asked() {
    let stack = Stack::start(1).await;
    let timers = stack.get("/ops/v1/timers").await;
    let items = timers.body["items"].as_array().unwrap();
    assert_eq!(
        keys(&items[0]),
        ["does", "found", "last_found", "last_run", "last_trouble", "name", "on", "period_s", "runs"]
    );
    for item in items {
        let name = item["name"].as_str().unwrap();
        let told = stack.get(&format!("/ops/v1/timers/{name}")).await.body;
        assert_eq!((&told["timer"]["name"], &told["timer"]["does"]), (&item["name"], &item["does"]));
        for list in ["because", "next", "can"] {
            assert!(told[list].as_array().is_some_and(|list| !list.is_empty()), "{name} {list}: {told}");
        }
        assert!(told["owner"].as_str().is_some_and(|owner| owner.len() > 10), "{told}");
        let ran = told["timer"]["on"] == true && !told["timer"]["last_run"].is_null();
        let is_each_sleds_own = matches!(name, "sled-watch" | "sled-drain");
        assert_eq!(told["next_by"].is_string(), ran && !is_each_sleds_own, "{told}");
        let path = format!("/ops/v1/timers/{name}/activate");
        let answer = stack.call(Method::POST, &path, "").await;
        assert_eq!((answer.status.as_u16(), answer.body.is_null()), (202, true), "{path}");
        let keyed = stack.post_once("twice", &path, &json!({})).await;
        let message = "header idempotency-key: activating a timer leaves nothing in the log by which a repeat could be \
                       told; send it without a key";
        assert_eq!(keyed.refusal(), (400, "InvalidRequest", message));
    }
}

#[tokio::test(start_paused = true)]
async fn what_operators_do_is_done_once_per_key() {
    let mut stack = Stack::start(2).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let db = stack.running("demo", "db").await;
    let (_, home) = stack.active(&web).await;
    let other = [sled_id(0), sled_id(1)].map(|id| id.to_string()).into_iter().find(|id| *id != home).unwrap();
    let path = |id: &str, verb: &str| format!("/ops/v1/instances/{id}/{verb}");
    let to = json!({"dst_sled": other});
    let moved = stack.post_once("move", &path(&web, "migrate"), &to).await;
    assert_eq!(moved.status, 202, "{}", moved.body);
    stack.until(is_quiet).await;
    stack.again(ApiConfig::default());
    same(&moved, &stack.post_once("move", &path(&web, "migrate"), &to).await);
    same(&moved, &stack.post_once("move", "/ops/v1/instances/web/migrate?project=demo", &to).await);
    for (path, body) in [
        (path(&web, "migrate"), json!({"dst_sled": home})),
        (path(&db, "migrate"), to.clone()),
        (path(&web, "migrate/cancel"), json!({})),
        (path(&web, "force-stop"), json!({"reason": "hung"})),
        (format!("/v1/instances/{web}/stop"), json!({})),
        (format!("/ops/v1/sleds/{other}/cordon"), json!({})),
        ("/ops/v1/anti-affinity-groups?project=demo".to_owned(), json!({"name": "apart"})),
        ("/v1/instances?project=demo".to_owned(), new_instance("new")),
    ] {
        assert_eq!(stack.post_once("move", &path, &body).await.refusal(), OTHER, "{path} {body}");
    }

    let why = json!({"reason": "hung"});
    let forced = stack.post_once("force", &path(&db, "force-stop"), &why).await;
    assert_eq!(forced.status, 202, "{}", forced.body);
    same(&forced, &stack.post_once("force", &path(&db, "force-stop"), &why).await);
    for body in [json!({"reason": "dead"}), json!({"reason": "hung", "assert_dead": true})] {
        assert_eq!(
            stack.post_once("force", &path(&db, "force-stop"), &body).await.refusal(),
            OTHER,
            "{body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_is_called_off_once_per_key() {
    let stack = Stack::start_with(2, Mode::Explicit, ApiConfig::default()).await;
    stack.project("demo").await;
    let web = stack.stepped_up("demo", "web").await;
    let path = |verb: &str| format!("/ops/v1/instances/{web}/{verb}");
    assert_eq!(stack.post(&path("migrate"), &json!({})).await.status, 202);
    let first = stack.post_once("off", &path("migrate/cancel"), &json!({})).await;
    assert_eq!(first.status, 202, "{}", first.body);
    let durable = stack.durable();
    same(&first, &stack.post_once("off", &path("migrate/cancel"), &json!({})).await);
    assert_eq!(stack.durable(), durable);
    assert_eq!(stack.post_once("off", &path("migrate"), &json!({})).await.refusal(), OTHER);
}

#[tokio::test(start_paused = true)]
async fn sleds_and_groups_take_keys() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    stack.project("other").await;
    let web = stack.stopped("demo", "web").await;
    stack.stopped("demo", "db").await;
    let sled = |nth: u128, verb: &str| format!("/ops/v1/sleds/{}/{verb}", sled_id(nth));
    let why = json!({"reason": "firmware"});
    for verb in ["cordon", "uncordon", "drain", "expunge"] {
        let first = stack.post_once(verb, &sled(0, verb), &why).await;
        assert_eq!(first.status, 200, "{}", first.body);
        // A drain of a sled without guests ends by itself.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let durable = stack.durable();
        let again = stack.post_once(verb, &sled(0, verb), &why).await;
        assert_eq!(
            (again.status.as_u16(), again.position(), stack.durable()),
            (200, first.position(), durable),
            "{verb}"
        );
        assert_eq!(
            stack.post_once(verb, &sled(0, verb), &json!({"reason": "x"})).await.refusal(),
            OTHER,
            "{verb}"
        );
        assert_eq!(stack.post_once(verb, &sled(1, verb), &why).await.refusal(), OTHER, "{verb}");
        let another = if verb == "drain" { "cordon" } else { "drain" };
        assert_eq!(stack.post_once(verb, &sled(0, another), &why).await.refusal(), OTHER, "{verb}");
    }

    let groups = "/ops/v1/anti-affinity-groups?project=demo";
    let body = json!({"name": "apart", "policy": "fail", "description": "d"});
    let first = stack.post_once("group", groups, &body).await;
    assert_eq!(first.status, 201, "{}", first.body);
    let member = |name: &str| format!("/ops/v1/anti-affinity-groups/apart/members/{name}?project=demo");
    let joined = stack.post_once("join", &member("web"), &json!({})).await;
    assert_eq!(joined.status, 204, "{}", joined.body);
    same(&joined, &stack.post_once("join", &member(&web), &json!({})).await);
    assert_eq!(stack.post_once("join", &member("db"), &json!({})).await.refusal(), OTHER);
    same(&first, &stack.post_once("group", groups, &body).await);
    for (field, value) in [("name", "b"), ("policy", "allow"), ("description", "")] {
        let mut body = body.clone();
        body[field] = json!(value);
        assert_eq!(stack.post_once("group", groups, &body).await.refusal(), OTHER, "{field}");
    }
    let elsewhere = "/ops/v1/anti-affinity-groups?project=other";
    assert_eq!(stack.post_once("group", elsewhere, &body).await.refusal(), OTHER);
}
