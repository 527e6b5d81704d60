//! One run's world: the control plane that lives at present, the sleds that outlive it, and what a scenario
//! may ask and look at.

use super::begin::{Parts, begin};
use super::book::Book;
use super::env::{EPOCH_MICROS, Outside};
use super::life::Life;
use super::net::Net;
use super::plan::{Plan, Way};
use actors::{ControlPlane, Fatal, Limits, RequestContext};
use eventlog::{Cache as _, Journal, MemCache, Position};
use futures::future::LocalBoxFuture;
use lifecycle::{
    AutoRestartPolicy, Instance, InstanceId, InstanceSpec, Policy, ProjectId, RunState, Size, SledId, VmmId,
};
use sim_sled::embedded::{EmbeddedSled, Fabric, Options};
use sim_sled::machine::{Config, Mode};
use sim_sled::network::{SimProducers, SimSwitch};
use sled_protocol::{BootId, PropolisId, SledResources};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// The run did not go where the scenario leads: what was waited for did not come.
#[derive(Clone, Debug)]
pub struct Diverged(pub String);

/// What a scenario's part answers.
pub type Play<'a> = LocalBoxFuture<'a, Result<(), Diverged>>;

/// Looks at the levels that are waited for: dense at first, then rare; a quarter of an hour in all.
const LOOKS: [(usize, Duration); 3] =
    [(200, Duration::from_millis(10)), (300, Duration::from_millis(100)), (900, Duration::from_secs(1))];

/// One simulated sled.
pub struct Host {
    /// Its id.
    pub id: SledId,
    /// Its address, for the fabric.
    pub addr: String,
    /// The sled.
    pub sled: EmbeddedSled,
}

/// See the module's head.
pub struct World {
    dir: TempDir,
    pub(super) plan: Arc<Plan>,
    pub(super) net: Arc<Net>,
    pub(super) outside: Outside,
    /// How sleds reach each other.
    pub fabric: Fabric,
    /// The sleds.
    pub hosts: Vec<Host>,
    connectable: Arc<Mutex<BTreeMap<SledId, EmbeddedSled>>>,
    pub(super) life: Arc<Life>,
    lives: u64,
    /// The control plane that lives at present.
    pub control: ControlPlane,
    fatal: Fatal,
    book: Arc<Mutex<Book>>,
    /// The project of all instances.
    pub project: ProjectId,
    /// Which of the scenario's variants is played.
    pub variant: usize,
    is_manual: bool,
    is_forgetful: bool,
    pub(super) is_over: bool,
    pub(super) quarantined: Option<InstanceId>,
    /// Highest position that a client was told.
    pub(super) told: u64,
    broken: Option<String>,
}

impl World {
    /// A control plane with `sleds` sleds that have booted, and a project.
    pub async fn open(way: Way, variant: usize, sleds: usize) -> Self {
        Self::open_with(way, variant, sleds, Policy::default(), Limits::default()).await
    }

    /// The same under other limits.
    pub async fn open_with(way: Way, variant: usize, sleds: usize, policy: Policy, limits: Limits) -> Self {
        let (dir, plan) = (TempDir::new().unwrap(), Arc::new(Plan::new(way)));
        let outside = Outside {
            origin: Instant::now(),
            cache: Arc::new(MemCache::default()),
            switch: Arc::new(SimSwitch::default()),
            producers: Arc::new(SimProducers::default()),
            policy,
            limits,
            is_rotten: Arc::default(),
        };
        let (net, book) = (Arc::new(Net::default()), Arc::new(Mutex::new(Book::default())));
        let connectable = Arc::default();
        let parts = Parts {
            dir: dir.path(),
            plan: &plan,
            net: &net,
            sleds: &connectable,
            outside: &outside,
            book: &book,
        };
        let (life, control, fatal) = begin(parts, 1, false).await.unwrap();
        let mut world = Self {
            dir,
            plan,
            net,
            outside,
            fabric: Fabric::default(),
            hosts: Vec::new(),
            connectable,
            life,
            lives: 1,
            control,
            fatal,
            book,
            project: ProjectId::new(Uuid::nil()),
            variant,
            is_manual: false,
            is_forgetful: false,
            is_over: false,
            quarantined: None,
            told: 0,
            broken: None,
        };
        for n in 0..sleds {
            world.add_sled(n);
        }
        let ask =
            actors::projects::ProjectAsk::Create { name: "demo".to_owned(), description: String::new() };
        let (project, _) = world.control.ask_project(None, ask, context()).await.unwrap();
        world.project = project.id;
        world
            .until("every sled has booted", |w| {
                w.book().sleds.values().filter(|sled| sled.boot.is_some()).count() == sleds
            })
            .await
            .unwrap();
        world
    }

    /// Adds a sled of 8 threads and 32 GiB, whose guests do nothing unless stepped.
    pub fn add_sled(&mut self, n: usize) {
        let sled_id = sled_protocol::SledId::from_uuid(Uuid::from_u128(0x51_0000 + n as u128));
        let addr = format!("sim-{n}");
        let mut config = Config::new(sled_id, &addr, &addr, 7 + n as u64);
        config.resources = SledResources { threads: 8, memory: 32 << 30 };
        config.mode = Mode::Explicit;
        let sled = EmbeddedSled::open(Options {
            config,
            boot_id: BootId::from_uuid(Uuid::from_u128(0xb0 + n as u128)),
            state_file: None,
            opened_at_micros: EPOCH_MICROS
                + u64::try_from(self.outside.origin.elapsed().as_micros()).unwrap(),
            control_plane: Arc::clone(&self.net) as _,
            fabric: self.fabric.clone(),
        })
        .unwrap();
        let id = SledId::new(sled_id.as_uuid());
        self.connectable.lock().unwrap().insert(id, sled.clone());
        self.hosts.push(Host { id, addr, sled });
    }

    /// The way of this run.
    pub fn way(&self) -> Way {
        self.plan.way()
    }

    /// From here on things go wrong as the way says.
    pub fn arm(&self) {
        self.plan.arm();
    }

    /// The plan of this run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// From here on guests and VMMs do nothing by themselves.
    pub fn manual(&mut self) {
        self.is_manual = true;
    }

    /// From here on they do what comes next at once.
    pub fn automatic(&mut self) {
        self.is_manual = false;
    }

    /// Everything that is durable, folded.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(journal) = self.life.remains() {
            book.look(&journal);
        }
        book
    }

    /// The instance as the log has it.
    pub fn state(&self, id: InstanceId) -> Instance {
        self.book().instances[&id].clone()
    }

    /// The end of the log, and the instance there.
    pub fn now(&self, id: InstanceId) -> (Position, Instance) {
        let book = self.book();
        (book.position, book.instances[&id].clone())
    }

    /// Its visible state.
    pub fn run_state(&self, id: InstanceId) -> RunState {
        self.book().instances[&id].run_state()
    }

    /// The first invariant that did not hold.
    pub fn broken(&self) -> Option<String> {
        self.broken.clone().or_else(|| self.book().broken.clone())
    }

    /// Says that something is not as it must be, whatever the way.
    pub fn fault(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// What the book could not read was planted.
    pub fn clear_broken(&mut self) {
        self.broken = None;
        self.book().broken = None;
    }

    /// How many control planes there have been.
    pub fn lives(&self) -> u64 {
        self.lives
    }

    /// The directory of the journal.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The simulated switch.
    pub fn switch(&self) -> &SimSwitch {
        &self.outside.switch
    }

    /// The simulated registry of metrics producers.
    pub fn producers(&self) -> &SimProducers {
        &self.outside.producers
    }

    /// One turn: guests step, a dead control plane is followed by the next, the truth is looked at.
    pub async fn tick(&mut self) {
        if self.life.is_dead() {
            self.revive().await;
        }
        if !self.is_manual {
            self.step_all();
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        self.look_at_guests();
    }

    fn step_all(&self) {
        for host in &self.hosts {
            host.sled.with_machine(|machine, now| {
                let due: Vec<PropolisId> = machine
                    .vmms()
                    .filter(|vmm| vmm.next_step().is_some())
                    .map(sim_sled::machine::Vmm::propolis_id)
                    .collect();
                for vmm in due {
                    machine.step(now, vmm);
                }
            });
        }
    }

    /// Never two running guests of one instance, whatever anybody believes.
    fn look_at_guests(&mut self) {
        let mut running: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
        for host in &self.hosts {
            host.sled.with_machine(|machine, _| {
                for vmm in machine.vmms().filter(|vmm| vmm.guest_running()) {
                    let place = format!("{} on {}", vmm.propolis_id(), host.addr);
                    running.entry(vmm.instance_id().as_uuid()).or_default().push(place);
                }
            });
        }
        if let Some((instance, places)) = running.into_iter().find(|(_, places)| places.len() > 1) {
            self.fault(format!("invariant 1 broken: {instance} runs twice: {}", places.join(", ")));
        }
    }

    /// Waits for a level; if it does not come in a quarter of an hour of the paused clock, the run has
    /// diverged.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), Diverged> {
        for (count, pause) in LOOKS {
            for _ in 0..count {
                self.tick().await;
                if let Some(broken) = self.broken() {
                    return Err(Diverged(broken));
                }
                if !self.life.is_dead() && holds(self) {
                    return Ok(());
                }
                sleep(pause).await;
            }
        }
        Err(Diverged(format!("waited in vain: {what}")))
    }

    /// Lets `span` of the paused clock pass, looking as often as `until` does: for what must not happen.
    pub async fn meanwhile(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.tick().await;
            sleep((span / 64).max(Duration::from_millis(10))).await;
        }
    }

    /// Fails unless `is_so`.
    pub fn must(&self, is_so: bool, what: &str) -> Result<(), Diverged> {
        if is_so { Ok(()) } else { Err(Diverged(format!("not so: {what}"))) }
    }

    /// The dead control plane's directory is opened by the next.
    pub(super) async fn revive(&mut self) {
        self.life.bury();
        self.lives += 1;
        let begun = begin(self.parts(), self.lives, self.is_forgetful).await.unwrap();
        (self.life, self.control, self.fatal) = begun;
        let durable = self.book().position.get();
        if durable < self.told {
            self.fault(format!("invariant 7 broken: position {} was told, {durable} is there", self.told));
        }
    }

    /// The process dies now, and is followed by another.
    pub async fn crash(&mut self) {
        self.life.die();
        self.revive().await;
    }

    /// The process dies now; its successor does not know what was unfinished.
    pub async fn crash_and_forget(&mut self) {
        self.life.die();
        self.is_forgetful = true;
        self.revive().await;
        self.is_forgetful = false;
    }

    /// The process dies, and its successor refuses to start for the reason that is answered; nothing lives
    /// afterwards.
    pub async fn crash_for_good(&mut self) -> Option<String> {
        self.life.bury();
        let lives = self.lives + 1;
        begin(self.parts(), lives, false).await.err().map(|error| error.to_string())
    }

    /// The process dies, and nobody opens the journal: its directory is the scenario's.
    pub fn bury(&self) {
        self.life.bury();
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            dir: self.dir.path(),
            plan: &self.plan,
            net: &self.net,
            sleds: &self.connectable,
            outside: &self.outside,
            book: &self.book,
        }
    }

    /// The process ends cleanly, and is followed by another.
    pub async fn restart(&mut self) {
        let control = self.control.clone();
        control.shutdown().await;
        self.revive().await;
    }

    /// The sled's number among the hosts.
    pub fn host_of(&self, sled: SledId) -> &Host {
        self.hosts.iter().find(|host| host.id == sled).unwrap()
    }

    /// Whichever actor next asks for an id panics.
    pub fn rot_ids(&self) {
        self.outside.is_rotten.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// The journal of the control plane that lives.
    pub fn journal(&self) -> Arc<Journal> {
        self.life.remains().expect("one lives between two turns")
    }

    /// Whether there is a snapshot of the instance.
    pub fn has_snapshot(&self, id: InstanceId) -> bool {
        let stream = journal::StreamName::Instance(id).id();
        self.outside.cache.snapshot(stream).is_ok_and(|snapshot| snapshot.is_some())
    }

    /// The instance is quarantined on purpose.
    pub fn expect_quarantine(&mut self, id: InstanceId) {
        self.quarantined = Some(id);
    }

    /// The scenario ends the run by itself: nothing lives that could come to rest.
    pub fn finish(&mut self) {
        self.is_over = true;
    }

    /// From here on snapshots begin anew, as if their directory had been deleted.
    pub fn lose_snapshots(&mut self) {
        self.outside.cache = Arc::new(MemCache::default());
    }

    /// What the daemon says about why it must end, if it must.
    pub fn fatal(&self) -> Option<String> {
        self.fatal.reason()
    }

    /// Every report that reached a control plane, oldest first.
    pub fn sent(&self) -> Vec<(SledId, VmmId, sled_protocol::SledVmmState)> {
        let ids = |(sled, vmm, state): (sled_protocol::SledId, PropolisId, _)| {
            (SledId::new(sled.as_uuid()), VmmId::new(vmm.as_uuid()), state)
        };
        self.net.sent().into_iter().map(ids).collect()
    }
}

/// On whose behalf the scenarios ask.
pub fn context() -> RequestContext {
    let request = lifecycle::RequestId::new(Uuid::from_u128(0xabc));
    RequestContext::of(journal::Actor::User("conformance".to_owned()), request)
}

/// An instance of two CPUs and 4 GiB that is not restarted by itself.
pub fn spec(project: ProjectId, name: &str) -> InstanceSpec {
    InstanceSpec {
        project,
        name: name.to_owned(),
        description: String::new(),
        hostname: name.to_owned(),
        size: Size { ncpus: 2, memory: 4 << 30 },
        auto_restart: Some(AutoRestartPolicy::Never),
        cpu_platform: None,
        boot_disk: None,
        jumbo_frames: false,
    }
}
