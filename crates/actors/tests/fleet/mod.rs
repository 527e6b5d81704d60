//! A control plane and its simulated sleds in one process, on tokio's paused clock and a simulated log.

#![allow(dead_code, clippy::unwrap_used, reason = "a stage for tests; each uses its own part")]

use actors::{Clock, ControlPlane, Env, Fatal, IdSource, Limits, NewInstance, RequestContext, SledConnector};
use eventlog::{Log, MemCache, Position, SimLog};
use journal::{Actor, Event, Recorded};
use lifecycle::{Instance, InstanceId, InstanceSpec, Policy, ProjectId, RunState, Size, SledId, Timestamp};
use sim_sled::embedded::{EmbeddedSled, Fabric, Options};
use sim_sled::machine::Config;
use sim_sled::network::{SimProducers, SimSwitch};
use sled_protocol::{BootId, ControlPlaneClient, Producers, SledClient, SledResources, Switch};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

pub struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000 + u64::try_from(self.0.elapsed().as_micros()).unwrap())
    }
}

pub struct Counting(AtomicU64);

impl Counting {
    pub fn from(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }
}

impl IdSource for Counting {
    fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::Relaxed)))
    }

    fn dice(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[derive(Default)]
pub struct Switchboard {
    pub clients: Mutex<BTreeMap<SledId, Arc<dyn SledClient>>>,
}

impl SledConnector for Switchboard {
    fn connect(&self, sled: SledId, _: &str) -> Option<Arc<dyn SledClient>> {
        self.clients.lock().unwrap().get(&sled).cloned()
    }
}

/// What is pushed to beside the sleds.
#[derive(Clone, Default)]
pub struct Devices {
    pub switch: Arc<SimSwitch>,
    pub producers: Arc<SimProducers>,
}

pub struct Fleet {
    pub control: ControlPlane,
    pub log: Arc<SimLog>,
    pub cache: Arc<MemCache>,
    pub sleds: Vec<EmbeddedSled>,
    pub project: ProjectId,
    pub fatal: Fatal,
    pub switchboard: Arc<Switchboard>,
    pub fabric: Fabric,
    pub devices: Devices,
}

/// Incarnations of the daemon draw from disjoint ids.
const IDS_PER_LIFE: u64 = 1 << 32;

impl Fleet {
    pub async fn with_sleds(count: u128) -> Self {
        let mut fleet = Self::without_sleds(Limits::default()).await;
        for n in 0..count {
            fleet.add_sled(n);
        }
        fleet.until_sleds_are_up(usize::try_from(count).unwrap()).await;
        fleet
    }

    /// A control plane with a project.
    pub async fn without_sleds(limits: Limits) -> Self {
        Self::over(Arc::new(SimLog::new()), limits).await
    }

    /// The same over a log of the test's.
    pub async fn over(log: Arc<SimLog>, limits: Limits) -> Self {
        let cache = Arc::new(MemCache::default());
        let devices = Devices::default();
        let (control, fatal, switchboard) =
            start_control_in(Arc::clone(&log), Arc::clone(&cache), 1, devices.clone(), limits).await;
        let (sleds, project) = (Vec::new(), ProjectId::new(Uuid::nil()));
        let fabric = Fabric::default();
        let mut fleet = Self { control, log, cache, sleds, project, fatal, switchboard, fabric, devices };
        let ask =
            actors::projects::ProjectAsk::Create { name: "demo".to_owned(), description: String::new() };
        let (project, _) = fleet.control.ask_project(None, ask, context()).await.unwrap();
        fleet.project = project.id;
        fleet
    }

    pub fn add_sled(&mut self, n: u128) {
        let hidden = self.add_sled_hidden(n);
        self.reveal(hidden);
    }

    /// Lets the control plane find a sled.
    pub fn reveal(&self, (id, client): (SledId, Arc<dyn SledClient>)) {
        self.switchboard.clients.lock().unwrap().insert(id, client);
    }

    /// Adds a sled that registers, and that the control plane cannot find.
    pub fn add_sled_hidden(&mut self, n: u128) -> (SledId, Arc<dyn SledClient>) {
        let sled_id = sled_protocol::SledId::from_uuid(Uuid::from_u128(0x51_0000 + n));
        let name = format!("sim-{n}");
        let mut config = Config::new(sled_id, &name, &name, 7 + u64::try_from(n).unwrap());
        config.resources = SledResources { threads: 8, memory: 32 << 30 };
        let sled = self.open_sled(config, self.control.intake());
        let id = SledId::new(sled_id.as_uuid());
        self.sleds.push(sled.clone());
        (id, Arc::new(sled))
    }

    pub fn open_sled(&self, config: Config, control_plane: Arc<dyn ControlPlaneClient>) -> EmbeddedSled {
        EmbeddedSled::open(Options {
            config,
            boot_id: BootId::from_uuid(Uuid::from_u128(0xb0)),
            state_file: None,
            opened_at_micros: 1_700_000_000_000_000,
            control_plane,
            fabric: self.fabric.clone(),
        })
        .unwrap()
    }

    pub async fn until_sleds_are_up(&self, count: usize) {
        self.until("sleds are up", async || {
            let sleds = self.control.sleds().await.unwrap();
            sleds.iter().filter(|(load, _)| load.boot.is_some()).count() == count
        })
        .await;
    }

    pub async fn create(&self, name: &str, start: bool) -> InstanceId {
        let new = NewInstance { spec: spec(self.project, name), start };
        self.control.create_instance(new, context()).await.unwrap().instance.id
    }

    pub async fn state(&self, id: InstanceId) -> Box<Instance> {
        self.control.instance(id).await.unwrap()
    }

    pub async fn until_state(&self, id: InstanceId, wanted: RunState) {
        self.until(&format!("{id} is {wanted}"), async || self.state(id).await.run_state() == wanted).await;
    }

    /// Waits for a level on the paused clock, for at most ten virtual minutes.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        for _ in 0..60_000 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not in ten minutes: {what}");
    }

    pub fn events(&self) -> Vec<Recorded> {
        let records = self.log.read_all(Position::new(1), 1_000_000).unwrap();
        records.iter().map(|record| journal::read(record).unwrap()).collect()
    }

    /// Number of appends on the instance's stream between two of its events, both included.
    pub fn appends_between(
        &self,
        id: InstanceId,
        first: impl Fn(&Event) -> bool,
        last: impl Fn(&Event) -> bool,
    ) -> usize {
        let stream = journal::StreamName::Instance(id);
        let events: Vec<Recorded> =
            self.events().into_iter().filter(|event| event.stream == stream).collect();
        let from = events.iter().rposition(|event| first(&event.event)).unwrap();
        let to = from + events[from..].iter().position(|event| last(&event.event)).unwrap();
        events[from..=to].iter().filter(|event| event.index.0 == 0).count().max(1)
    }
}

pub async fn start_control(
    log: Arc<SimLog>,
    cache: Arc<MemCache>,
    life: u64,
) -> (ControlPlane, Fatal, Arc<Switchboard>) {
    start_control_with(log, cache, life, Devices::default()).await
}

pub async fn start_control_with(
    log: Arc<SimLog>,
    cache: Arc<MemCache>,
    life: u64,
    devices: Devices,
) -> (ControlPlane, Fatal, Arc<Switchboard>) {
    start_control_in(log, cache, life, devices, Limits::default()).await
}

pub async fn start_control_in(
    log: Arc<SimLog>,
    cache: Arc<MemCache>,
    life: u64,
    devices: Devices,
    limits: Limits,
) -> (ControlPlane, Fatal, Arc<Switchboard>) {
    let (fatal, switchboard) = (Fatal::default(), Arc::new(Switchboard::default()));
    let env = Env {
        clock: Arc::new(TestClock(Instant::now())),
        ids: Arc::new(Counting::from(life * IDS_PER_LIFE)),
        log,
        cache: Some(cache),
        connector: Arc::clone(&switchboard) as Arc<dyn SledConnector>,
        switch: Some(devices.switch as Arc<dyn Switch>),
        producers: Some(devices.producers as Arc<dyn Producers>),
        policy: Policy::default(),
        limits,
        build: "test".to_owned(),
        fatal: fatal.clone(),
    };
    let (control, _) = ControlPlane::start(env).await.unwrap();
    (control, fatal, switchboard)
}

pub fn context() -> RequestContext {
    let request = lifecycle::RequestId::new(Uuid::from_u128(0xabc));
    RequestContext::of(Actor::User("test".to_owned()), request)
}

pub fn spec(project: ProjectId, name: &str) -> InstanceSpec {
    InstanceSpec {
        project,
        name: name.to_owned(),
        description: String::new(),
        hostname: name.to_owned(),
        size: Size { ncpus: 2, memory: 4 << 30 },
        auto_restart: None,
        cpu_platform: None,
        boot_disk: None,
        jumbo_frames: false,
    }
}
