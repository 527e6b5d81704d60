//! What operators do: refusals by table, with nothing written.

use crate::refusals::{NO_ID, Row, bad, check, missing};
use crate::stack::{Stack, sled_id};
use api::ApiConfig;
use axum::http::Method;
use serde_json::{Value, json};
use sim_sled::machine::Mode;

fn post<'a>(path: &'a str, body: Value, status: u16, code: &'a str, message: &str) -> Row<'a> {
    (Method::POST, path, body.to_string(), status, code, message.to_owned())
}

fn put<'a>(path: &'a str, body: Value, status: u16, code: &'a str, message: &str) -> Row<'a> {
    (Method::PUT, path, body.to_string(), status, code, message.to_owned())
}

fn unparsed(rest: &str) -> String {
    format!("unable to parse the request body: {rest}")
}

fn gone(what: &str, how: &str) -> String {
    format!("not found: {what} with {how}")
}

const REQUEST: &str = "InvalidRequest";
const VALUE: &str = "InvalidValue";
const SHORT: &str = "InsufficientCapacity";

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_of_an_instance_is_refused() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    stack.stopped("demo", "db").await;
    let (_, home) = stack.active(&web).await;
    let other = [sled_id(0), sled_id(1)].map(|id| id.to_string()).into_iter().find(|id| *id != home).unwrap();
    let path = |instance: &str, verb: &str| format!("/ops/v1/instances/{instance}/{verb}");
    let (migrate, cancel, force) =
        (path(&web, "migrate"), path(&web, "migrate/cancel"), path(&web, "force-stop"));
    let unknown = [path(NO_ID, "migrate"), path(NO_ID, "migrate/cancel"), path(NO_ID, "force-stop")];
    let by_both = format!("{}?project=demo", path(&web, "explain"));
    let id = format!("id \"{NO_ID}\"");
    let neither = "instance should either be UUID or project should be specified";
    let both = "when providing instance as an ID project should not be specified";
    let why = json!({"reason": "hung"});
    let long = json!({"reason": "x".repeat(513)});
    let of_stopped = "cannot migrate instance: instance is stopped";
    let too_long = "reason: reason may contain at most 512 characters";
    let blank = "reason: reason must say why, for those who read the history";
    let none = Value::Null;
    let empty = "the request body is empty; send a JSON object".to_owned();
    let explain_unknown = path(NO_ID, "explain");
    let mut table = vec![
        post("/ops/v1/instances/db/migrate?project=demo", json!({}), 400, REQUEST, of_stopped),
        post(
            &migrate,
            json!({"dst_sled": NO_ID}),
            507,
            SHORT,
            "insufficient capacity: that sled is not known",
        ),
        post(
            &migrate,
            json!({"dst_sled": home}),
            507,
            SHORT,
            "insufficient capacity: that sled is the one where the instance runs",
        ),
        post(&migrate, json!({"dst_sled": "sim-1"}), 400, REQUEST, "dst_sled: \"sim-1\" is not a UUID"),
        post(
            &migrate,
            json!({"dst_sled": 7}),
            400,
            REQUEST,
            &unparsed("field \"dst_sled\" must be a string, not a number"),
        ),
        post(&cancel, json!({}), 400, REQUEST, "cannot cancel migration: no migration is under way"),
        post(&force, json!({}), 400, REQUEST, &unparsed("field \"reason\" is missing")),
        post(&force, json!({"reason": null}), 400, REQUEST, &unparsed("field \"reason\" must not be null")),
        post(&force, json!({"reason": " "}), 400, VALUE, blank),
        post(&force, long, 400, VALUE, too_long),
        post(
            &force,
            json!({"reason": "x", "assert_dead": "yes"}),
            400,
            REQUEST,
            &unparsed("field \"assert_dead\" must be true or false, not a string"),
        ),
        (Method::POST, &force, String::new(), 400, REQUEST, empty),
        post("/ops/v1/instances/web/migrate", json!({}), 400, REQUEST, neither),
        post("/ops/v1/instances/web/force-stop", why.clone(), 400, REQUEST, neither),
        bad(Method::GET, "/ops/v1/instances/web/explain", String::new(), neither),
        bad(Method::GET, &by_both, String::new(), both),
        missing(Method::GET, &explain_unknown, String::new(), gone("instance", &id)),
        missing(
            Method::POST,
            "/ops/v1/instances/nope/migrate?project=demo",
            String::new(),
            gone("instance", "name \"nope\""),
        ),
    ];
    table.extend(
        unknown.iter().map(|path| missing(Method::POST, path, why.to_string(), gone("instance", &id))),
    );
    check(&stack, table).await;
    assert_eq!(stack.post(&format!("/ops/v1/sleds/{other}/cordon"), &none_body()).await.status, 200);
    let cordoned = "insufficient capacity: that sled does not accept new instances";
    let alone = "insufficient capacity: no other sled accepts new instances";
    let table = vec![
        post(&migrate, json!({"dst_sled": other}), 507, SHORT, cordoned),
        post(
            &migrate,
            none,
            400,
            REQUEST,
            "unable to parse the request body as JSON: invalid type: null, expected an object at line 1 column 4",
        ),
        post(&migrate, json!({}), 507, SHORT, alone),
    ];
    check(&stack, table).await;
}

fn none_body() -> Value {
    json!({})
}

#[tokio::test(start_paused = true)]
async fn a_change_follows_the_contract_and_is_refused_by_field() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let db = stack.stopped("demo", "db").await;
    let (of_web, of_db) = (format!("/v1/instances/{web}"), "/v1/instances/db?project=demo");
    let gib = 1_u64 << 30;
    let same = json!({"ncpus": 2, "memory": 2 * gib});
    let with = |field: &str, value: Value| {
        let mut body = same.clone();
        body[field] = value;
        body
    };
    let bigger = json!({
        "ncpus": 4, "memory": 8 * gib, "auto_restart_policy": "never", "cpu_platform": "sim-x86",
        "boot_disk": NO_ID, "enable_jumbo_frames": true,
    });
    let changed = stack.put(of_db, &bigger).await;
    assert_eq!((changed.status.as_u16(), changed.text("id")), (200, db.clone()), "{}", changed.body);
    for (field, value) in [
        ("ncpus", json!(4)),
        ("memory", json!(8 * gib)),
        ("auto_restart_policy", json!("never")),
        ("auto_restart_enabled", json!(false)),
        ("cpu_platform", json!("sim-x86")),
        ("boot_disk_id", json!(NO_ID)),
        ("enable_jumbo_frames", json!(true)),
    ] {
        assert_eq!(changed.body[field], value, "{field}");
    }
    assert_eq!(changed.position(), stack.durable());
    assert_eq!(stack.get(of_db).await.body, changed.body);
    let again = stack.put(of_db, &bigger).await;
    assert_eq!((again.status.as_u16(), again.position()), (200, stack.durable()), "nothing changes");
    let bare = stack.put(of_db, &same).await;
    assert_eq!((&bare.body["auto_restart_policy"], &bare.body["cpu_platform"]), (&Value::Null, &Value::Null));
    // What is not of its VMM changes while it runs.
    let policy = stack.put(&of_web, &with("auto_restart_policy", json!("never"))).await;
    assert_eq!((policy.status.as_u16(), policy.text("run_state").as_str()), (200, "running"));

    let must_stop = "instance must be stopped to change CPU or memory";
    let ncpus = "ncpus: ncpus must be between 1 and 254";
    let platform = "cpu_platform: cpu_platform must be 1 to 64 letters, digits, \"-\", \"_\" or \".\"";
    let disk = "boot_disk: boot_disk must be a disk's UUID: musher keeps it, and has no disks";
    let restart = "auto_restart_policy: auto_restart_policy must be \"never\" or \"best_effort\"";
    let whole = "memory: memory must be a whole number of GiB";
    let unknown = format!("/v1/instances/{NO_ID}");
    let neither = "instance should either be UUID or project should be specified";
    check(
        &stack,
        vec![
            put(&of_web, with("ncpus", json!(3)), 409, "Conflict", must_stop),
            put(&of_web, with("memory", json!(3 * gib)), 409, "Conflict", must_stop),
            put(&of_web, with("cpu_platform", json!("other")), 409, "Conflict", must_stop),
            put(of_db, json!({"memory": gib}), 400, REQUEST, &unparsed("field \"ncpus\" is missing")),
            put(of_db, json!({"ncpus": 1}), 400, REQUEST, &unparsed("field \"memory\" is missing")),
            put(
                of_db,
                with("ncpus", Value::Null),
                400,
                REQUEST,
                &unparsed("field \"ncpus\" must not be null"),
            ),
            put(of_db, with("ncpus", json!(0)), 400, VALUE, ncpus),
            put(of_db, with("ncpus", json!(255)), 400, VALUE, ncpus),
            put(of_db, with("ncpus", json!(70_000)), 400, VALUE, ncpus),
            put(of_db, with("memory", json!(gib + 1)), 400, VALUE, whole),
            put(of_db, with("cpu_platform", json!("two words")), 400, VALUE, platform),
            put(of_db, with("cpu_platform", json!("")), 400, VALUE, platform),
            put(of_db, with("boot_disk", json!("disk-1")), 400, VALUE, disk),
            put(of_db, with("auto_restart_policy", json!("always")), 400, VALUE, restart),
            put("/v1/instances/db", same.clone(), 400, REQUEST, neither),
            (
                Method::PUT,
                &unknown,
                same.to_string(),
                404,
                "ObjectNotFound",
                gone("instance", &format!("id \"{NO_ID}\"")),
            ),
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_of_sleds_is_refused() {
    let stack = Stack::start(2).await;
    let (here, burnt) = (sled_id(0).to_string(), sled_id(1).to_string());
    let why = json!({"reason": "burnt"});
    let expunged = stack.post(&format!("/ops/v1/sleds/{burnt}/expunge"), &why).await;
    assert_eq!((expunged.status.as_u16(), &expunged.body["expunged"]), (200, &json!(true)));
    let path = |sled: &str, verb: &str| format!("/ops/v1/sleds/{sled}/{verb}");
    let policy = |sled: &str| format!("/v1/system/hardware/sleds/{sled}/provision-policy");
    let verbs = ["cordon", "uncordon", "drain"];
    let dead = verbs.map(|verb| (path(&burnt, verb), format!("cannot {verb} sled: it was expunged")));
    let unknown = verbs.map(|verb| path(NO_ID, verb));
    let (expunge, cordon) = (path(&here, "expunge"), path(&here, "cordon"));
    let (of_here, of_burnt, of_none) = (policy(&here), policy(&burnt), policy(NO_ID));
    let none = gone("sled", &format!("id \"{NO_ID}\""));
    let blank = "reason: reason must say why, for those who read the history";
    let word = "state: state must be \"provisionable\" or \"non_provisionable\"";
    let view = format!("/ops/v1/sleds/{NO_ID}");
    let instances = format!("/v1/system/hardware/sleds/{NO_ID}/instances");
    let mut table = vec![
        post(&expunge, json!({}), 400, REQUEST, &unparsed("field \"reason\" is missing")),
        post(&expunge, json!({"reason": ""}), 400, VALUE, blank),
        post(
            &cordon,
            json!({"reason": "x".repeat(513)}),
            400,
            VALUE,
            "reason: reason may contain at most 512 characters",
        ),
        post(
            &cordon,
            json!({"reason": 1}),
            400,
            REQUEST,
            &unparsed("field \"reason\" must be a string, not a number"),
        ),
        post("/ops/v1/sleds/sim-0/cordon", json!({}), 400, REQUEST, "sled: \"sim-0\" is not a UUID"),
        bad(Method::GET, "/ops/v1/sleds/sim-0", String::new(), "sled: \"sim-0\" is not a UUID"),
        missing(Method::GET, &view, String::new(), none.clone()),
        missing(Method::GET, &instances, String::new(), none.clone()),
        put(&of_here, json!({}), 400, REQUEST, &unparsed("field \"state\" is missing")),
        put(&of_here, json!({"state": "cordoned"}), 400, VALUE, word),
        put(
            &of_burnt,
            json!({"state": "provisionable"}),
            409,
            "Conflict",
            "cannot uncordon sled: it was expunged",
        ),
        put(&of_none, json!({"state": "provisionable"}), 404, "ObjectNotFound", &none),
    ];
    table.extend(dead.iter().map(|(path, message)| post(path, json!({}), 409, "Conflict", message)));
    table.extend(unknown.iter().map(|path| missing(Method::POST, path, String::new(), none.clone())));
    check(&stack, table).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_a_quota_a_group_or_a_place_in_a_list_is_refused() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    stack.project("other").await;
    stack.stopped("demo", "web").await;
    let elsewhere = stack.stopped("other", "elsewhere").await;
    let groups = "/ops/v1/anti-affinity-groups?project=demo";
    assert_eq!(stack.post(groups, &json!({"name": "apart"})).await.status, 201);
    let of = |member: &str| format!("/ops/v1/anti-affinity-groups/apart/members/{member}?project=demo");
    let (foreign, nobody) = (of(&elsewhere), of(NO_ID));
    let (migration, saga) = (format!("/ops/v1/migrations/{NO_ID}"), format!("/ops/v1/sagas/{NO_ID}"));
    let cancel = format!("/ops/v1/sagas/{NO_ID}/cancel");
    let number = |what: &str| unparsed(&format!("field \"cpus\" must be a whole number, not {what}"));
    let required = "query parameter \"project\" is required: the project's name or id";
    let policy = "policy: policy \"soft\" is neither \"allow\" nor \"fail\"";
    let begin = "name: name must begin with an ASCII lowercase character";
    let taken = "already exists: anti-affinity-group \"apart\"";
    let no_group = gone("anti-affinity-group", "name \"nope\"");
    let get = || Method::GET;
    let none = String::new;
    check(
        &stack,
        vec![
            missing(get(), "/ops/v1/quotas/rack", none(), gone("quota", "name \"rack\"")),
            missing(Method::PUT, "/ops/v1/quotas/rack", "{}".to_owned(), gone("quota", "name \"rack\"")),
            put("/ops/v1/quotas/fleet", json!({"cpus": -1}), 400, REQUEST, &number("a negative number")),
            put(
                "/ops/v1/quotas/fleet",
                json!({"cpus": 1.5}),
                400,
                REQUEST,
                &number("a fraction or a number out of range"),
            ),
            put(
                "/ops/v1/quotas/silo",
                json!({"cpus": 1e30}),
                400,
                REQUEST,
                &number("a fraction or a number out of range"),
            ),
            put("/ops/v1/quotas/silo", json!({"cpus": "4"}), 400, REQUEST, &number("a string")),
            put("/ops/v1/quotas/project", json!({"cpus": 4}), 400, REQUEST, required),
            bad(get(), "/ops/v1/quotas/project", none(), required),
            missing(get(), "/ops/v1/quotas/project?project=nope", none(), gone("project", "name \"nope\"")),
            bad(get(), "/ops/v1/anti-affinity-groups", none(), required),
            post(groups, json!({}), 400, REQUEST, &unparsed("field \"name\" is missing")),
            post(groups, json!({"name": "apart"}), 400, "ObjectAlreadyExists", taken),
            post(groups, json!({"name": "Apart"}), 400, VALUE, begin),
            post(groups, json!({"name": "b", "policy": "soft"}), 400, VALUE, policy),
            post(
                groups,
                json!({"name": "b", "description": "x".repeat(513)}),
                400,
                VALUE,
                "description: description may contain at most 512 characters",
            ),
            missing(get(), "/ops/v1/anti-affinity-groups/nope?project=demo", none(), no_group.clone()),
            missing(
                Method::DELETE,
                "/ops/v1/anti-affinity-groups/nope?project=demo",
                none(),
                no_group.clone(),
            ),
            missing(
                Method::POST,
                "/ops/v1/anti-affinity-groups/nope/members/web?project=demo",
                none(),
                no_group,
            ),
            missing(
                Method::POST,
                "/ops/v1/anti-affinity-groups/apart/members/db?project=demo",
                none(),
                gone("instance", "name \"db\""),
            ),
            missing(Method::POST, &nobody, none(), gone("instance", &format!("id \"{NO_ID}\""))),
            missing(Method::POST, &foreign, none(), gone("instance", &format!("id \"{elsewhere}\""))),
            missing(get(), &migration, none(), gone("migration", &format!("id \"{NO_ID}\""))),
            bad(get(), "/ops/v1/migrations/web", none(), "migration: \"web\" is not a UUID"),
            missing(get(), &saga, none(), gone("saga", &format!("id \"{NO_ID}\""))),
            missing(Method::POST, &cancel, none(), gone("saga", &format!("id \"{NO_ID}\""))),
            bad(Method::POST, "/ops/v1/sagas/web/cancel", none(), "saga: \"web\" is not a UUID"),
            bad(get(), "/ops/v1/sagas?limit=0", none(), "query parameter \"limit\" must be at least 1"),
            bad(get(), "/ops/v1/migrations?after=7", none(), "after: \"7\" is not a UUID"),
            bad(
                get(),
                "/ops/v1/sagas?state=over",
                none(),
                "query parameter \"state\": \"over\" is neither \"all\" nor \"under_way\"",
            ),
            missing(Method::POST, "/ops/v1/timers/alarm/activate", none(), gone("timer", "name \"alarm\"")),
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_migration_under_way_is_not_begun_again_and_a_saga_past_its_return_goes_on() {
    let stack = Stack::start_with(2, Mode::Explicit, ApiConfig::default()).await;
    stack.project("demo").await;
    let web = stack.stepped_up("demo", "web").await;
    let migrate = format!("/ops/v1/instances/{web}/migrate");
    let began = stack.post(&migrate, &json!({})).await;
    assert_eq!((began.status.as_u16(), began.text("run_state").as_str()), (202, "migrating"));
    let again = "cannot migrate instance: instance is migrating";
    check(&stack, vec![post(&migrate, json!({}), 409, "Conflict", again)]).await;

    let db = stack.create("demo", "db", true).await.text("id");
    let of_db = lifecycle::InstanceId::new(db.parse().unwrap());
    let at = |model: &projections::ReadModel| {
        let saga = model.instance_state(of_db)?.saga.clone()?;
        (saga.step == lifecycle::Step::SetRunning).then_some(saga.id)
    };
    stack.until(|model| at(model).is_some()).await;
    let saga = stack.projections.read(|model| at(model)).unwrap();
    let cancel = format!("/ops/v1/sagas/{saga}/cancel");
    let past = "cannot cancel saga: it is past its point of no return; stop the instance instead";
    check(&stack, vec![post(&cancel, json!({}), 409, "Conflict", past)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_method_that_a_route_does_not_have_is_refused_with_a_body() {
    let stack = Stack::start(1).await;
    let (instance, sled) = (format!("/ops/v1/instances/{NO_ID}"), format!("/ops/v1/sleds/{NO_ID}"));
    let group = "/ops/v1/anti-affinity-groups/apart";
    for (method, path) in [
        (Method::PATCH, format!("/v1/instances/{NO_ID}")),
        (Method::GET, format!("{instance}/migrate")),
        (Method::PUT, format!("{instance}/migrate")),
        (Method::DELETE, format!("{instance}/migrate/cancel")),
        (Method::GET, format!("{instance}/force-stop")),
        (Method::POST, format!("{instance}/explain")),
        (Method::POST, "/ops/v1/migrations".to_owned()),
        (Method::DELETE, format!("/ops/v1/sagas/{NO_ID}")),
        (Method::GET, format!("/ops/v1/sagas/{NO_ID}/cancel")),
        (Method::POST, "/ops/v1/quotas/fleet".to_owned()),
        (Method::PUT, group.to_owned()),
        (Method::GET, format!("{group}/members/web")),
        (Method::POST, "/ops/v1/timers".to_owned()),
        (Method::GET, "/ops/v1/timers/sled-watch/activate".to_owned()),
        (Method::POST, sled.clone()),
        (Method::GET, format!("{sled}/drain")),
        (Method::PUT, format!("{sled}/cordon")),
        (Method::POST, format!("/v1/system/hardware/sleds/{NO_ID}/provision-policy")),
        (Method::POST, format!("/v1/system/hardware/sleds/{NO_ID}/instances")),
        (Method::PUT, "/v1/utilization".to_owned()),
        (Method::POST, "/v1/system/utilization/silos".to_owned()),
    ] {
        let answer = stack.call(method.clone(), &path, "").await;
        assert_eq!(answer.refusal(), (405, "", "Method Not Allowed"), "{method} {path}");
        assert!(answer.headers.contains_key("allow"), "{method} {path}");
    }
}
