//! The whole stack in one process, and a client that checks of every answer what must hold of every answer.

use actors::{Clock, ControlPlane, Env, Fatal, IdSource, Limits, SledConnector};
use api::{Access, ApiConfig, ApiState, Phase, Readiness, router, sled_router};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use eventlog::{Log, SimLog};
use lifecycle::{Policy, SledId, Timestamp};
use projections::{Projections, ReadModel};
use serde_json::{Value, json};
use sim_sled::embedded::{EmbeddedSled, Fabric, Options};
use sim_sled::faults::Faults;
use sim_sled::machine::{Config, Mode};
use sled_protocol::{self as wire, SledClient};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;
use uuid::Uuid;

/// Where the tests' clock begins: 2026-01-01T00:00:00Z.
const EPOCH_MICROS: u64 = 1_767_225_600_000_000;

/// Largest body of an answer that the client reads, bytes.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// How long, on the tests' clock, a level is waited for.
const PATIENCE: Duration = Duration::from_mins(5);

struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(EPOCH_MICROS + u64::try_from(self.0.elapsed().as_micros()).unwrap())
    }
}

/// Ids that count, spread over the whole range so that their order says nothing about their age.
#[derive(Default)]
struct TestIds(AtomicU64);

impl IdSource for TestIds {
    fn uuid(&self) -> Uuid {
        let nth = u128::from(self.0.fetch_add(1, Ordering::Relaxed) + 1);
        Uuid::from_u128(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    fn dice(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[derive(Default)]
struct TestSleds(Mutex<BTreeMap<SledId, EmbeddedSled>>);

impl SledConnector for TestSleds {
    fn connect(&self, sled: SledId, _: &str) -> Option<Arc<dyn SledClient>> {
        let sled = self.0.lock().unwrap().get(&sled).cloned()?;
        Some(Arc::new(sled))
    }
}

/// The whole stack.
pub struct Stack {
    pub log: SimLog,
    pub control: ControlPlane,
    pub projections: Projections,
    pub ready: Arc<Readiness>,
    pub state: ApiState,
    router: Router,
    sled_router: Router,
    sleds: Vec<EmbeddedSled>,
}

/// An answer, checked.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Stack {
    /// A control plane with so many sleds, all registered, in auto mode.
    pub async fn start(sleds: u128) -> Self {
        Self::start_with(sleds, Mode::Auto, ApiConfig::default()).await
    }

    /// A control plane with so many sleds, all registered.
    pub async fn start_with(sleds: u128, mode: Mode, config: ApiConfig) -> Self {
        Self::start_under(Policy::default(), sleds, mode, config).await
    }

    /// A control plane with rules of its own and so many sleds, all registered.
    pub async fn start_under(policy: Policy, sleds: u128, mode: Mode, config: ApiConfig) -> Self {
        let log = SimLog::new();
        let connector = Arc::new(TestSleds::default());
        let env = Env {
            clock: Arc::new(TestClock(Instant::now())),
            ids: Arc::new(TestIds::default()),
            log: Arc::new(log.clone()),
            cache: None,
            connector: Arc::clone(&connector) as Arc<dyn SledConnector>,
            switch: None,
            producers: None,
            policy,
            limits: Limits::default(),
            build: "test".to_owned(),
            fatal: Fatal::default(),
        };
        let (control, _) = ControlPlane::start(env).await.unwrap();
        let (projections, _) = projections::spawn(Arc::new(log.clone()), None);
        let ready = Arc::new(Readiness::default());
        ready.enter(Phase::Ready);
        let state = ApiState {
            control: control.clone(),
            projections: projections.clone(),
            ready: Arc::clone(&ready),
            build: "test".to_owned(),
            keeper: None,
            archive: None,
            spans: Arc::default(),
            sled_access: api::Access::Anybody,
            access: Access::Anybody,
        };
        let mut stack = Self {
            log,
            control,
            projections,
            ready,
            router: router(state.clone(), config.clone()),
            sled_router: sled_router(state.clone(), config),
            state,
            sleds: Vec::new(),
        };
        let fabric = Fabric::default();
        for nth in 0..sleds {
            let sled = stack.open_sled(nth, mode, &fabric);
            connector.0.lock().unwrap().insert(sled_id(nth), sled.clone());
            stack.sleds.push(sled);
        }
        let expected = usize::try_from(sleds).unwrap();
        stack.until(|model| all_sleds(model) == expected).await;
        stack.control.resume([]).await;
        stack
    }

    fn open_sled(&self, nth: u128, mode: Mode, fabric: &Fabric) -> EmbeddedSled {
        let name = format!("sim-{nth}");
        let id = wire::SledId::from_uuid(sled_id(nth).uuid());
        let config = Config { mode, ..Config::new(id, &name, &name, 7) };
        EmbeddedSled::open(Options {
            config,
            boot_id: wire::BootId::from_uuid(Uuid::from_u128(0xb007)),
            state_file: None,
            opened_at_micros: EPOCH_MICROS,
            control_plane: self.control.intake(),
            fabric: fabric.clone(),
        })
        .unwrap()
    }

    /// Lets a VMM on a sled in explicit mode take its next step, as soon as it has one.
    pub async fn step(&self, nth: usize, vmm: Uuid) {
        let vmm = wire::PropolisId::from_uuid(vmm);
        let stepped = async {
            while !self.sleds[nth].with_machine(|machine, now| machine.step(now, vmm)).unwrap() {
                // On the tests' clock: it passes once everybody else waits.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, stepped).await.expect("the VMM never had a step to take");
    }

    /// Makes every sled misbehave from here on, or behave again.
    pub fn misbehave(&self, faults: &Faults) {
        self.sleds.iter().for_each(|sled| sled.set_faults(faults.clone()));
    }

    /// Crashes a guest, wherever it runs.
    pub fn crash_guest(&self, vmm: &str) {
        let vmm = wire::PropolisId::from_uuid(vmm.parse().unwrap());
        let crashes =
            self.sleds.iter().map(|sled| sled.with_machine(|machine, now| machine.guest_crash(now, vmm)));
        assert_eq!(crashes.filter(|crashed| *crashed == Some(true)).count(), 1, "it runs on one sled");
    }

    /// Waits until the read model is as wanted.
    pub async fn until(&self, wanted: impl Fn(&ReadModel) -> bool) {
        let reached = async {
            loop {
                let position = self.projections.position();
                if self.projections.read(&wanted) {
                    return;
                }
                self.projections.wait_for(position.next()).await.unwrap();
            }
        };
        timeout(PATIENCE, reached).await.expect("the read model never got there");
    }

    /// Waits until the instance is seen in a state.
    pub async fn until_run_state(&self, instance: &str, wanted: &str) {
        let id = lifecycle::InstanceId::new(instance.parse().unwrap());
        self.until(|model| model.instance(id).is_some_and(|row| row.run_state.as_str() == wanted)).await;
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, Body::from(body.to_string())).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, Body::from(body.to_string())).await
    }

    /// The id of the VMM that an instance runs in, and of its sled.
    pub async fn active(&self, instance: &str) -> (String, String) {
        let state = self.get(&format!("/ops/v1/instances/{instance}")).await;
        let vmm = state.body["state"]["active"].as_str().unwrap().to_owned();
        let sled = state.body["state"]["vmms"][&vmm]["sled"].as_str().unwrap().to_owned();
        (vmm, sled)
    }

    /// An instance by this name that runs; answers its id.
    pub async fn running(&self, project: &str, name: &str) -> String {
        let answer = self.create(project, name, true).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let id = answer.text("id");
        self.until_run_state(&id, "running").await;
        id
    }

    /// The same on a sled in explicit mode.
    pub async fn stepped_up(&self, project: &str, name: &str) -> String {
        let id = self.create(project, name, true).await.text("id");
        let (vmm, sled) = self.active(&id).await;
        let nth =
            (0_u128..).zip(0_usize..self.sleds.len()).find(|(nth, _)| sled_id(*nth).to_string() == sled);
        self.step(nth.unwrap().1, vmm.parse().unwrap()).await;
        self.until_run_state(&id, "running").await;
        id
    }

    pub async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        self.send(request).await
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        checked(self.router.clone().oneshot(request).await.unwrap()).await
    }

    /// An answer as it comes, for what is no JSON.
    pub async fn raw(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// POST with a key that makes repeats of it one request.
    pub async fn post_once(&self, key: &str, path: &str, body: &Value) -> Answer {
        let request = Request::builder().method(Method::POST).uri(path).header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// The same log, control plane and read model behind another router, as after a restart of the HTTP layer.
    pub fn again(&mut self, config: ApiConfig) {
        self.router = router(self.state.clone(), config);
    }

    /// Speaks to what sleds call.
    pub async fn send_as_sled(&self, request: Request<Body>) -> Answer {
        checked(self.sled_router.clone().oneshot(request).await.unwrap()).await
    }

    /// A project by this name; answers its id.
    pub async fn project(&self, name: &str) -> String {
        let answer = self.post("/v1/projects", &json!({"name": name, "description": "of a test"})).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.text("id")
    }

    /// An instance by this name that is not started; answers its id.
    pub async fn stopped(&self, project: &str, name: &str) -> String {
        let answer = self.create(project, name, false).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.text("id")
    }

    pub async fn create(&self, project: &str, name: &str, start: bool) -> Answer {
        let mut body = new_instance(name);
        body["start"] = json!(start);
        self.post(&format!("/v1/instances?project={project}"), &body).await
    }

    pub fn durable(&self) -> u64 {
        self.log.durable().get()
    }
}

/// The body of a create that is in order.
pub fn new_instance(name: &str) -> Value {
    json!({"name": name, "description": "", "hostname": name, "ncpus": 2, "memory": 2_u64 << 30})
}

pub fn sled_id(nth: u128) -> SledId {
    SledId::new(Uuid::from_u128(0x51ed_0000 + nth))
}

fn all_sleds(model: &ReadModel) -> usize {
    model.sleds(projections::Order::Ascending, None, 100).rows.iter().filter(|row| row.boot.is_some()).count()
}

/// What must hold of every answer, whoever gave it.
async fn checked(response: axum::response::Response) -> Answer {
    let (parts, body) = response.into_parts();
    let (status, headers) = (parts.status, parts.headers);
    let bytes = to_bytes(body, ANSWER_BYTES_MAX).await.unwrap();
    let id = headers["x-request-id"].to_str().unwrap();
    assert!(Uuid::try_parse(id).is_ok(), "{id}");
    let body: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    if !body.is_null() {
        assert_eq!(headers["content-type"], "application/json");
    }
    if status.is_client_error() || status.is_server_error() {
        assert_eq!(body["request_id"], id, "{status}");
        assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{status}");
        assert_eq!(headers.contains_key("retry-after"), status == 503, "{status}");
        assert!(!headers.contains_key("x-log-position"), "{status}");
        assert!(![408, 411, 413, 414, 415, 422].contains(&status.as_u16()), "{status} breaks clients");
    }
    Answer { status, headers, body }
}

impl Answer {
    pub fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("{field} in {}", self.body)).to_owned()
    }

    /// Status, error code and message.
    pub fn refusal(&self) -> (u16, &str, &str) {
        let code = self.body["error_code"].as_str().unwrap_or_default();
        (self.status.as_u16(), code, self.body["message"].as_str().unwrap_or_default())
    }

    pub fn position(&self) -> u64 {
        self.headers["x-log-position"].to_str().unwrap().parse().unwrap()
    }

    /// The names of a page, in order.
    pub fn names(&self) -> Vec<String> {
        let items = self.body["items"].as_array().expect("a page has items");
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }

    pub fn next_page(&self) -> Option<String> {
        self.body["next_page"].as_str().map(str::to_owned)
    }
}
