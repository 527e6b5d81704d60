//! The same in this process: the control plane on a journal of its own, asked by calls instead of over HTTP.
//!
//! ```text
//! tasks (this process) ── calls ──▶ ControlPlane ──▶ Journal
//!                                        └──▶ simulated sleds in memory, which take no time
//! ```
//!
//! Invariants:
//! * as over HTTP every answer was durable before it counted, and fewer appends than answers end the measurement;
//! * processor time is the whole process's: callers, control plane, journal and sleds together. There are no read
//!   models and nobody is asked who he is, so this is no daemon without HTTP, but what lies below it.

use crate::Failure;
use crate::args::StackOptions;
use crate::clock::now;
use crate::machine::processor_nanoseconds;
use crate::report::Report;
use crate::stack::fleet::{LOOK_EVERY, LOOKS_MAX};
use crate::stack::load::row;
use crate::stack::{Plan, Question};
use crate::statistics::{count, median, percentile, range};
use actors::instance::Ask;
use actors::projects::ProjectAsk;
use actors::{Clock, ControlPlane, Env, Fatal, IdSource, Limits, NewInstance, RequestContext, SledConnector};
use eventlog::{Journal, JournalConfig, StoreId};
use journal::Actor;
use lifecycle::{
    InstanceId, InstanceSpec, Policy, ProjectId, RequestId, RunState, Size, SledId, SpecChange, Timestamp,
};
use serde_json::{Value, json};
use sim_sled::embedded::{EmbeddedSled, Fabric, Options};
use sim_sled::machine::{Config, Span, Timing};
use sled_protocol::{BootId, SledClient, SledResources};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Simulated sleds, as many as a daemon has by default, each with room for everybody.
const SLEDS: u128 = 4;
const ROOM: SledResources = SledResources { threads: 65_536, memory: 65_536 << 30 };
/// Recorded before everything that happens.
const OPENED_AT_MICROS: u64 = 1_700_000_000_000_000;
/// How often and how long it is waited for sleds to register.
const REGISTER_LOOKS_MAX: u32 = 5_000;
const REGISTER_PAUSE: Duration = Duration::from_millis(2);
const SIZE: Size = Size { ncpus: 1, memory: 1 << 30 };
/// Callers that bring instances about before anything is measured.
const CREATORS: usize = 64;

struct RealClock;

impl Clock for RealClock {
    #[expect(clippy::disallowed_methods, reason = "what is measured stamps what it records")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

/// Ids that are spread as random ones are, and the same in every run.
struct Spread(AtomicU64);

impl Spread {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl IdSource for Spread {
    fn uuid(&self) -> Uuid {
        let both = (u128::from(self.next()) << 64) | u128::from(self.next());
        uuid::Builder::from_random_bytes(both.to_be_bytes()).into_uuid()
    }

    fn dice(&self) -> u64 {
        self.next()
    }
}

#[derive(Default)]
struct Switchboard(Mutex<BTreeMap<SledId, Arc<dyn SledClient>>>);

impl SledConnector for Switchboard {
    fn connect(&self, sled: SledId, _: &str) -> Option<Arc<dyn SledClient>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&sled).cloned()
    }
}

/// A control plane with sleds and a project.
#[derive(Clone)]
struct Stage {
    control: ControlPlane,
    project: ProjectId,
    /// Each ends with its last handle.
    sleds: Vec<EmbeddedSled>,
}

fn context() -> RequestContext {
    RequestContext::of(Actor::User("bench".to_owned()), RequestId::new(Uuid::from_u128(0xbe)))
}

fn zero() -> Span {
    Span::millis(0, 0)
}

impl Stage {
    async fn set(dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)?;
        let (log, _) = Journal::open(dir, JournalConfig::new(StoreId([9; 16])))?;
        let switchboard = Arc::new(Switchboard::default());
        let env = Env {
            clock: Arc::new(RealClock),
            ids: Arc::new(Spread(AtomicU64::new(1))),
            log: Arc::new(log),
            cache: None,
            connector: Arc::clone(&switchboard) as Arc<dyn SledConnector>,
            switch: None,
            producers: None,
            policy: Policy::default(),
            limits: Limits::default(),
            build: "bench".to_owned(),
            fatal: Fatal::default(),
        };
        let (control, _) = ControlPlane::start(env).await?;
        let (fabric, mut sleds) = (Fabric::default(), Vec::new());
        for n in 0..SLEDS {
            let id = Uuid::from_u128(0x51_0000 + n);
            let name = format!("sim-{n}");
            let mut config = Config::new(sled_protocol::SledId::from_uuid(id), &name, &name, 7);
            config.resources = ROOM;
            config.timing = Timing { boot: zero(), halt: zero(), ..config.timing };
            let sled = EmbeddedSled::open(Options {
                config,
                boot_id: BootId::from_uuid(Uuid::from_u128(0xb0)),
                state_file: None,
                opened_at_micros: OPENED_AT_MICROS,
                control_plane: control.intake(),
                fabric: fabric.clone(),
            })?;
            let client: Arc<dyn SledClient> = Arc::new(sled.clone());
            switchboard.0.lock().unwrap_or_else(PoisonError::into_inner).insert(SledId::new(id), client);
            sleds.push(sled);
        }
        let create = ProjectAsk::Create { name: "bench".to_owned(), description: String::new() };
        let (project, _) = control.ask_project(None, create, context()).await?;
        let stage = Self { control, project: project.id, sleds };
        stage.until_registered().await?;
        Ok(stage)
    }

    async fn until_registered(&self) -> Result<(), Failure> {
        for _ in 0..REGISTER_LOOKS_MAX {
            let known = self.control.sleds().await?;
            if known.iter().filter(|(load, _)| load.boot.is_some()).count() == self.sleds.len() {
                return Ok(());
            }
            tokio::time::sleep(REGISTER_PAUSE).await;
        }
        Err("the simulated sleds do not register".into())
    }

    /// Creates and starts an instance, and waits until it runs.
    async fn start(&self, name: &str) -> Result<InstanceId, Failure> {
        let spec = InstanceSpec {
            project: self.project,
            name: name.to_owned(),
            description: String::new(),
            hostname: name.to_owned(),
            size: SIZE,
            auto_restart: None,
            cpu_platform: None,
            boot_disk: None,
            jumbo_frames: false,
        };
        let id =
            self.control.create_instance(NewInstance { spec, start: true }, context()).await?.instance.id;
        for _ in 0..LOOKS_MAX {
            match self.control.instance(id).await?.run_state() {
                RunState::Running => return Ok(id),
                RunState::Creating | RunState::Starting => tokio::time::sleep(LOOK_EVERY).await,
                other => return Err(format!("instance {id} is {other} instead of running").into()),
            }
        }
        Err(format!("instance {id} does not come up").into())
    }

    /// Sets a boot disk that it did not have before.
    async fn change(&self, id: InstanceId, disk: Uuid) -> Result<(), Failure> {
        let change = SpecChange {
            size: SIZE,
            auto_restart: None,
            cpu_platform: None,
            boot_disk: Some(disk),
            jumbo_frames: false,
        };
        self.control.ask(id, Ask::Update { change: Box::new(change) }, context()).await?;
        Ok(())
    }
}

/// One who asks, and waits for each answer.
struct Caller {
    stage: Stage,
    question: Question,
    name: String,
    instances: Vec<InstanceId>,
    /// The first of the disks that nobody else names.
    disks: u128,
    steps: usize,
}

impl Caller {
    async fn step(&mut self) -> Result<(), Failure> {
        self.steps += 1;
        match self.question {
            Question::Sagas => self.stage.start(&format!("{}-{}", self.name, self.steps)).await.map(drop),
            Question::Transitions => {
                let id = self.instances[self.steps % self.instances.len()];
                self.stage.change(id, Uuid::from_u128(self.disks + self.steps as u128)).await
            }
        }
    }

    async fn work(mut self, length: Duration) -> Result<(Self, Vec<u32>), Failure> {
        let (mut nanoseconds, mut before) = (Vec::new(), now());
        let until = before + length;
        while before < until {
            self.step().await?;
            let after = now();
            nanoseconds.push(u32::try_from((after - before).as_nanos()).unwrap_or(u32::MAX));
            before = after;
        }
        Ok((self, nanoseconds))
    }
}

#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
    appends: f64,
    appends_per_sync: f64,
}

async fn round(callers: &mut Vec<Caller>, length: Duration) -> Result<Round, Failure> {
    let log = Arc::clone(callers[0].stage.control.log());
    let (stats, used, began) = (log.stats(), processor_nanoseconds("self"), now());
    let mut tasks: JoinSet<_> = callers.drain(..).map(|caller| caller.work(length)).collect();
    let mut nanoseconds = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (caller, times) = done??;
        callers.push(caller);
        nanoseconds.extend(times);
    }
    let (seconds, after) = (began.elapsed().as_secs_f64(), log.stats());
    let used = used.zip(processor_nanoseconds("self")).map_or(0, |(before, after)| after - before);
    let steps = count(nanoseconds.len() as u64);
    let (appends, syncs) = (count(after.appends - stats.appends), count(after.syncs - stats.syncs));
    Ok(Round {
        per_second: steps / seconds,
        p50_us: percentile(&mut nanoseconds, 500) / 1e3,
        p99_us: percentile(&mut nanoseconds, 990) / 1e3,
        cpu_us: count(used) / 1e3 / steps,
        appends: appends / steps,
        appends_per_sync: appends / syncs.max(1.0),
    })
}

async fn rounds(mut callers: Vec<Caller>, plan: Plan, appends_min: f64) -> Result<Value, Failure> {
    let mut done = Vec::new();
    for _ in 0..plan.rounds {
        let round = round(&mut callers, plan.round).await?;
        if round.appends < appends_min {
            let appends = round.appends;
            return Err(format!("{appends} durable appends for each answer; at least {appends_min}").into());
        }
        done.push(round);
    }
    let each = |field: fn(&Round) -> f64| done.iter().map(field).collect::<Vec<_>>();
    let (lowest, highest) = range(&each(|it| it.per_second));
    Ok(json!({
        "clients": callers.len(),
        "rounds": plan.rounds,
        "per_second": median(&each(|it| it.per_second)),
        "per_second_lowest": lowest,
        "per_second_highest": highest,
        "p50_us": median(&each(|it| it.p50_us)),
        "p99_us": median(&each(|it| it.p99_us)),
        "process_cpu_us": median(&each(|it| it.cpu_us)),
        "appends_each": median(&each(|it| it.appends)),
        "appends_per_sync": median(&each(|it| it.appends_per_sync)),
    }))
}

async fn instances(stage: &Stage, number: usize) -> Result<Vec<InstanceId>, Failure> {
    let mut tasks: JoinSet<_> = (0..CREATORS)
        .map(|creator| {
            let stage = stage.clone();
            async move {
                let mut made = Vec::new();
                for index in (creator..number).step_by(CREATORS) {
                    made.push(stage.start(&format!("bench-{index}")).await?);
                }
                Ok::<_, Failure>(made)
            }
        })
        .collect();
    let mut all = Vec::with_capacity(number);
    while let Some(made) = tasks.join_next().await {
        all.extend(made??);
    }
    Ok(all)
}

/// Measures; each row is printed as it is there, if there is a report to print it in.
pub async fn measure(
    question: Question,
    options: &StackOptions,
    plan: Plan,
    (dir, mut report): (&Path, Option<&mut Report>),
) -> Result<Vec<Value>, Failure> {
    let stage = Stage::set(dir).await?;
    let most = options.clients.iter().copied().max().unwrap_or(1) as usize;
    let (bench, what, appends_min) = match question {
        Question::Transitions => ("transitions", "another boot disk, in process", 1.0),
        Question::Sagas => ("sagas", "a start until running, seen every 2 ms, in process", 3.0),
    };
    let all = match question {
        Question::Transitions => instances(&stage, (options.instances as usize).max(most)).await?,
        Question::Sagas => Vec::new(),
    };
    let mut rows = Vec::new();
    for &clients in &options.clients {
        let callers = (0..clients as usize).map(|nth| Caller {
            stage: stage.clone(),
            question,
            name: format!("saga-{clients}-{nth}"),
            instances: all.iter().copied().skip(nth).step_by(clients as usize).collect(),
            disks: (u128::from(clients) << 96) | ((nth as u128) << 64),
            steps: 0,
        });
        let numbers = rounds(callers.collect(), plan, appends_min).await?;
        let row = row(bench, what, numbers);
        if let Some(report) = &mut report {
            report.row(&row);
        }
        rows.push(row);
    }
    stage.control.shutdown().await;
    Ok(rows)
}
