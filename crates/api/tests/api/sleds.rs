//! What sleds call.

use crate::stack::{Stack, sled_id};
use api::{ApiConfig, serve_sleds, sled_router};
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use sim_sled::machine::Mode;
use sled_protocol::{
    BootId, ControlPlaneClient, ControlPlaneError, Generation, HttpControlPlaneClient, HttpTimeouts,
    LeaseEpoch, PropolisId, RegisterSled, RenewLease, SledId, SledResources, SledVmmState, Timestamp,
    VmmRuntime, VmmState,
};
use std::time::Duration;
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use uuid::Uuid;

const NO_ID: &str = "a0b1c2d3-0000-4000-8000-000000000001";

fn request(method: Method, path: &str, sled: Option<&str>, body: &Value) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(sled) = sled {
        request = request.header("x-sled-id", sled);
    }
    request.body(Body::from(body.to_string())).unwrap()
}

fn registration(id: &str) -> Value {
    json!({
        "sled_id": id, "name": "sim-9", "boot_id": NO_ID, "resources": {"threads": 8, "memory": 8_u64 << 30},
        "cpu_family": "sim-x86", "api_addr": "127.0.0.1:1",
    })
}

fn picture(state: &str, generation: u64) -> Value {
    let time = "2026-01-01T00:00:01Z";
    json!({
        "vmm_state": {"state": state, "gen": generation, "time_updated": time},
        "migration_in": null, "migration_out": null,
    })
}

#[tokio::test(start_paused = true)]
async fn a_sled_registers_again_without_a_trace_and_renews() {
    let stack = Stack::start(0).await;
    let register = |id: &str| request(Method::POST, "/sleds/register", None, &registration(id));
    let first = stack.send_as_sled(register(NO_ID)).await;
    assert_eq!((first.status.as_u16(), &first.body["lease_epoch"]), (200, &json!(1)), "{}", first.body);
    let durable = stack.durable();
    assert_eq!(stack.send_as_sled(register(NO_ID)).await.body, first.body);
    let renewal = json!({"boot_id": NO_ID, "lease_epoch": 1});
    let renewed =
        stack.send_as_sled(request(Method::POST, &format!("/sleds/{NO_ID}/renew"), None, &renewal)).await;
    assert_eq!((renewed.status.as_u16(), stack.durable()), (204, durable));
}

#[tokio::test(start_paused = true)]
async fn what_a_sled_may_not_say_is_refused_and_leaves_no_trace() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    let id = stack.create("demo", "web", true).await.text("id");
    stack.until_run_state(&id, "running").await;
    let state = stack.get(&format!("/ops/v1/instances/{id}")).await;
    let vmm = state.body["state"]["active"].as_str().unwrap().to_owned();
    let home = state.body["state"]["vmms"][&vmm]["sled"].as_str().unwrap().to_owned();
    let other = [sled_id(0), sled_id(1)].map(|id| id.to_string()).into_iter().find(|id| *id != home).unwrap();
    let (own, unknown) = (format!("/vmms/{vmm}"), format!("/vmms/{NO_ID}"));
    let put = |path: &str, sled: Option<&str>, body: &Value| request(Method::PUT, path, sled, body);
    let post = |path: &str, body: &Value| request(Method::POST, path, None, body);
    let running = picture("running", 99);
    let durable = stack.durable();
    for (asked, status, code) in [
        (put(&own, None, &running), 400, "MALFORMED"),
        (put(&own, Some("sim-0"), &running), 400, "MALFORMED"),
        (put(&own, Some(&other), &running), 400, "MALFORMED"),
        (put("/vmms/web", Some(&home), &running), 400, "MALFORMED"),
        (put(&own, Some(&home), &picture("exploded", 99)), 400, "MALFORMED"),
        (put(&own, Some(&home), &picture("running", 0)), 400, "MALFORMED"),
        (put(&own, Some(&home), &json!([])), 400, "MALFORMED"),
        (put(&unknown, Some(&home), &running), 404, "UNKNOWN"),
        (post("/sleds/register?dry_run=true", &registration(NO_ID)), 400, "InvalidRequest"),
        (put(&format!("{own}?dry_run=true"), Some(&home), &picture("stopping", 9)), 400, "InvalidRequest"),
        (post("/sleds/register", &json!({"sled_id": NO_ID})), 400, "MALFORMED"),
        (post("/sleds/register", &registration(&Uuid::nil().to_string())), 400, "MALFORMED"),
        (post("/sleds/x/renew", &json!({"boot_id": NO_ID, "lease_epoch": 1})), 400, "MALFORMED"),
        (
            post(&format!("/sleds/{NO_ID}/renew"), &json!({"boot_id": NO_ID, "lease_epoch": 0})),
            400,
            "MALFORMED",
        ),
    ] {
        let shown = format!("{} {}", asked.method(), asked.uri());
        let answer = stack.send_as_sled(asked).await;
        assert_eq!((answer.status.as_u16(), answer.refusal().1), (status, code), "{shown}: {}", answer.body);
    }
    let stale = stack.send_as_sled(put(&own, Some(&home), &picture("starting", 1))).await;
    assert_eq!(stale.status, 204, "a stale report is taken and changes nothing");
    assert_eq!(stack.durable(), durable);
    assert_eq!(stack.get(&format!("/v1/instances/{id}")).await.text("run_state"), "running");
    assert_eq!(stack.send_as_sled(request(Method::GET, "/v1/ping", None, &json!(null))).await.status, 404);
}

/// What is wrong with a registration, and the registration.
fn malformed() -> Vec<(String, Value)> {
    let with = |field: &str, value: Value| {
        let mut body = registration(NO_ID);
        body[field] = value;
        (format!("{field}: {}", body[field]), body)
    };
    let mut all: Vec<_> = [
        "",
        "sim-0",
        "host",
        "host:0",
        "host:65536",
        "https://host:80",
        "http://user@host:80",
        "http://host:80/path",
        "0.0.0.0:80",
        "[::]:80",
        "224.0.0.1:80",
        "256.1.1.1:80",
        "host\n:80",
        "host:80\r\nx: y",
    ]
    .map(|address| with("api_addr", json!(address)))
    .to_vec();
    let long = "a".repeat(sled_protocol::limits::TEXT_BYTES_MAX + 1);
    for field in ["name", "cpu_family"] {
        all.extend(["", "a\u{0}", "a\nb", &long].map(|text| with(field, json!(text))));
        all.extend([json!(null), json!(7), json!(["a"])].map(|value| with(field, value)));
    }
    for field in ["sled_id", "boot_id", "store_id"] {
        all.extend(
            ["", "sim-0", "00000000-0000-0000-0000-000000000000"].map(|text| with(field, json!(text))),
        );
    }
    // None, too large for any counter, and far above every epoch that it was ever granted.
    for epoch in
        [json!(0), json!(-1), json!(1.5), json!("1"), json!(1_u64 << 53), json!(u64::MAX), json!(1_u64 << 40)]
    {
        all.push(with("held_epoch", epoch));
    }
    let room = |threads: Value, memory: Value| json!({"threads": threads, "memory": memory});
    for resources in [
        json!(null),
        room(json!(0), json!(1)),
        room(json!(1), json!(0)),
        room(json!(65_537), json!(1)),
        room(json!(-1), json!(1)),
        room(json!(1.5), json!(1)),
        room(json!(1), json!((1_u64 << 46) + 1)),
        room(json!(1), json!(u64::MAX)),
        json!({"threads": 1}),
    ] {
        all.push(with("resources", resources));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn whatever_is_wrong_with_a_registration_or_a_report_is_400_and_leaves_no_trace() {
    let stack = Stack::start(0).await;
    let durable = stack.durable();
    for (what, body) in malformed() {
        let answer = stack.send_as_sled(request(Method::POST, "/sleds/register", None, &body)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.refusal().1),
            (400, "MALFORMED"),
            "{what}: {}",
            answer.body
        );
    }
    let side = |state: &str, generation: u64, id: &str| {
        let time = "2026-01-01T00:00:01Z";
        json!({"migration_id": id, "state": state, "gen": generation, "time_updated": time})
    };
    let nil = Uuid::nil().to_string();
    for (field, value) in [
        ("migration_in", side("begun", 1, NO_ID)),
        ("migration_in", side("pending", 0, NO_ID)),
        ("migration_out", side("pending", 1 << 53, NO_ID)),
        ("migration_out", side("pending", 1, &nil)),
        ("migration_out", json!("x")),
        ("vmm_state", json!(null)),
        ("vmm_state", json!({"state": "running", "gen": 1})),
        ("vmm_state", json!({"state": "running", "gen": 1, "time_updated": "yesterday"})),
        ("vmm_state", json!({"state": "running", "gen": u64::MAX, "time_updated": "2026-01-01T00:00:01Z"})),
    ] {
        let mut body = picture("running", 1);
        body[field] = value.clone();
        let answer =
            stack.send_as_sled(request(Method::PUT, &format!("/vmms/{NO_ID}"), Some(NO_ID), &body)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.refusal().1),
            (400, "MALFORMED"),
            "{field}: {value}: {}",
            answer.body
        );
    }
    let known =
        stack.send_as_sled(request(Method::POST, "/sleds/register", None, &registration(NO_ID))).await;
    assert_eq!(known.status, 200, "the same without what is wrong is taken: {}", known.body);
    assert!(stack.durable() > durable);
}

#[tokio::test(start_paused = true)]
async fn reports_and_registrations_beyond_their_bounds_are_put_off_and_renewals_go_on() {
    let full = ApiConfig { reports_max: 0, registrations_max: 1, ..ApiConfig::default() };
    let stack = Stack::start_with(1, Mode::Auto, full).await;
    let register = request(Method::POST, "/sleds/register", None, &registration(NO_ID));
    assert_eq!(stack.send_as_sled(register).await.status, 200);
    let report = request(Method::PUT, &format!("/vmms/{NO_ID}"), Some(NO_ID), &picture("running", 1));
    let put_off = stack.send_as_sled(report).await;
    assert_eq!((put_off.status.as_u16(), put_off.refusal().1), (503, "UNAVAILABLE"), "{}", put_off.body);
    let renewal = json!({"boot_id": NO_ID, "lease_epoch": 1});
    let renew = request(Method::POST, &format!("/sleds/{NO_ID}/renew"), None, &renewal);
    assert_eq!(stack.send_as_sled(renew).await.status, 204);
    let bounds = ApiConfig::default().for_sleds(8, 100);
    let registrations = bounds.registrations_max + bounds.registrations_known_max;
    assert!(bounds.requests_max > bounds.reports_max + registrations, "places stay free for renewals");
}

#[tokio::test(start_paused = true)]
async fn newcomers_do_not_keep_out_those_who_have_registered_before() {
    let stack = Stack::start(0).await;
    let register = |id: &str| request(Method::POST, "/sleds/register", None, &registration(id));
    assert_eq!(stack.send_as_sled(register(NO_ID)).await.status, 200);
    let newcomer = "a0b1c2d3-0000-4000-8000-000000000002";
    for (registrations_known_max, expected) in [(1, [200, 503]), (0, [503, 503])] {
        let full = ApiConfig { registrations_max: 0, registrations_known_max, ..ApiConfig::default() };
        let full = sled_router(stack.state.clone(), full);
        for (id, status) in [NO_ID, newcomer].into_iter().zip(expected) {
            let answer = full.clone().oneshot(register(id)).await.unwrap();
            assert_eq!(answer.status(), status, "{id} of {registrations_known_max}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sled_is_granted_no_epoch_below_one_that_it_has_held() {
    let stack = Stack::start(0).await;
    let mut body = registration(NO_ID);
    for (held, granted) in [(None, 1), (Some(1), 1), (Some(7), 8), (Some(7), 8), (Some(8), 8)] {
        body["held_epoch"] = json!(held);
        let answer = stack.send_as_sled(request(Method::POST, "/sleds/register", None, &body)).await;
        assert_eq!((answer.status.as_u16(), &answer.body["lease_epoch"]), (200, &json!(granted)), "{held:?}");
    }
    let renewal = json!({"boot_id": NO_ID, "lease_epoch": 8});
    let renew = request(Method::POST, &format!("/sleds/{NO_ID}/renew"), None, &renewal);
    assert_eq!(stack.send_as_sled(renew).await.status, 204);
}

#[tokio::test]
async fn the_protocols_own_client_is_understood() {
    let stack = Stack::start(0).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(serve_sleds(
        listener,
        stack.state.clone(),
        ApiConfig::default(),
        std::future::pending(),
    ));
    let timeouts = HttpTimeouts { connect: Duration::from_secs(5), call: Duration::from_secs(10) };
    let client = HttpControlPlaneClient::new(&base, timeouts).unwrap();
    let sled_id = SledId::from_uuid(Uuid::from_u128(9));
    let boot_id = BootId::from_uuid(Uuid::from_u128(8));
    let asked = RegisterSled {
        sled_id,
        name: "sim-9".to_owned(),
        boot_id,
        resources: SledResources { threads: 8, memory: 8 << 30 },
        cpu_family: "sim-x86".to_owned(),
        api_addr: "127.0.0.1:1".to_owned(),
        store_id: None,
        held_epoch: None,
    };
    let lease = client.register(asked).await.unwrap();
    assert_eq!(lease.lease_epoch, LeaseEpoch::FIRST);
    client.renew(sled_id, RenewLease { boot_id, lease_epoch: lease.lease_epoch }).await.unwrap();
    let time_updated = Timestamp::from_micros(1_767_225_600_000_000);
    let vmm_state = VmmRuntime { state: VmmState::Running, generation: Generation::FIRST, time_updated };
    let state = SledVmmState { vmm_state, migration_in: None, migration_out: None };
    let report = client.report(sled_id, PropolisId::from_uuid(Uuid::from_u128(7)), state).await;
    assert_eq!(report, Err(ControlPlaneError::Unknown));
    server.abort();
}
