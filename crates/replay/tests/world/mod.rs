//! A world that writes history the way the control plane does: decide, append through the journal's
//! layouts, fold. Sleds are played by the test; every draw is seeded.

#![allow(dead_code, clippy::unwrap_used, reason = "a world for tests; each uses its own part")]

use eventlog::{Append, AppendOutcome, Log, Version};
use futures::FutureExt;
use journal::{Actor, Context, Event, StreamName, append};
use lifecycle::event::EventMeta;
use lifecycle::input::{EffectResult, MigrateGrant, Refusal, SideReport, StartGrant, VmmReport};
use lifecycle::migration::SideState;
use lifecycle::vmm::Evidence;
use lifecycle::{
    Address, BootId, Command, DeadlineKind, Decision, Generation, Input, Instance, InstanceEvent, InstanceId,
    InstanceSpec, LeaseEpoch, MigrationId, OpId, Policy, ProjectEvent, ProjectId, Rejected, RequestId,
    SagaId, SagaKind, Shortage, Size, SledEvent, SledId, Step, Timestamp, VmmId, VmmState, deadlines, decide,
    effects, evolve,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use uuid::Uuid;

pub const SIDE_STATES: [SideState; 4] =
    [SideState::Pending, SideState::InProgress, SideState::Completed, SideState::Failed];

pub const START: u64 = 1_700_000_000_000_000;

pub fn id(n: u128) -> InstanceId {
    InstanceId::new(Uuid::from_u128(0x1000_0000_0000_0000_0000_0000_0000_0000 + n))
}

pub fn sled(n: u128) -> SledId {
    SledId::new(Uuid::from_u128(0x5000_0000_0000_0000_0000_0000_0000_0000 + n))
}

pub fn project() -> ProjectId {
    ProjectId::new(Uuid::from_u128(0x9))
}

pub fn report(generation: u64, state: VmmState) -> VmmReport {
    VmmReport { state, generation: Generation::new(generation), migration_in: None, migration_out: None }
}

pub struct World {
    pub log: Arc<dyn Log>,
    /// Every instance's fold after each of its events, as it was folded when it was written.
    pub folds: BTreeMap<InstanceId, Vec<Instance>>,
    /// What decisions use.
    pub policy: Policy,
    times: BTreeMap<StreamName, Timestamp>,
    minted: u128,
    clock: u64,
}

impl World {
    /// A project and two sleds with this many threads each.
    pub fn new(log: Arc<dyn Log>, threads: u32) -> Self {
        let (folds, times) = (BTreeMap::new(), BTreeMap::new());
        let policy = Policy::default();
        let mut world = Self { log, folds, policy, times, minted: 0, clock: START };
        let created = ProjectEvent::Created {
            id: project(),
            name: "demo".to_owned(),
            description: String::new(),
            vni: 1024,
        };
        world.write(
            StreamName::Project(project()),
            &[created.into()],
            &Context::of(Actor::User("demo".into())),
        );
        for n in 0..2 {
            let registered = SledEvent::Registered {
                id: sled(n),
                name: format!("sim-{n}"),
                threads,
                memory: 4096 << 30,
                cpu_family: "sim".to_owned(),
                address: String::new(),
            };
            let booted = SledEvent::Booted { boot: BootId::new(world.mint()), epoch: LeaseEpoch::new(1) };
            let context = Context::of(Actor::Sled(sled(n)));
            world.write(StreamName::Sled(sled(n)), &[registered.into(), booted.into()], &context);
        }
        world
    }

    pub fn simulated() -> Self {
        Self::new(Arc::new(eventlog::SimLog::new()), 4_096)
    }

    pub fn mint(&mut self) -> Uuid {
        self.minted += 1;
        Uuid::from_u128(0xa000_0000_0000_0000_0000_0000_0000_0000 + (self.minted << 96) + self.minted)
    }

    pub fn grant(&mut self, on: u128) -> StartGrant {
        StartGrant { saga: SagaId::new(self.mint()), vmm: VmmId::new(self.mint()), sled: sled(on) }
    }

    /// The append as the control plane would build it; the clock moves on by a second.
    pub fn build(&mut self, stream: StreamName, events: &[Event], context: &Context) -> Append {
        self.clock += 1_000_000;
        let claim = self.log.claim(stream.id()).now_or_never().unwrap().unwrap();
        let last = self.times.get(&stream).copied().unwrap_or_default();
        let now = Timestamp::from_micros(self.clock);
        append(stream, claim.epoch, claim.head.version, events, context, now, last, "0.1.0-test").unwrap()
    }

    pub fn send(&mut self, append: Append) -> u64 {
        match self.log.append(append).now_or_never().expect("the log is simulated") {
            AppendOutcome::Appended { first, .. } => first.get(),
            other => panic!("{other:?}"),
        }
    }

    /// Appends and answers where each event went.
    pub fn write(&mut self, stream: StreamName, events: &[Event], context: &Context) -> Vec<EventMeta> {
        let append = self.build(stream, events, context);
        let (version, times) = (append.expected.get(), append.events.iter().map(|e| e.time_us));
        let times: Vec<Timestamp> = times.map(Timestamp::from_micros).collect();
        let first = self.send(append);
        self.times.insert(stream, *times.last().unwrap());
        let meta = |(n, time): (usize, &Timestamp)| EventMeta {
            version: version + 1 + n as u64,
            position: first + n as u64,
            time: *time,
        };
        times.iter().enumerate().map(meta).collect()
    }

    /// The wall clock jumps back.
    pub fn turn_back(&mut self, secs: u64) {
        self.clock -= secs * 1_000_000;
    }

    pub fn now(&self, id: InstanceId) -> Option<&Instance> {
        self.folds.get(&id).and_then(|folds| folds.last())
    }

    /// Writes what the input decides to. Nothing if it decides to nothing.
    pub fn give(&mut self, id: InstanceId, input: Input) -> Result<(), Rejected> {
        let Decision::Events(events) = decide(self.now(id), &input, &self.policy)? else {
            panic!("grants come with the inputs");
        };
        if !events.is_empty() {
            self.record(id, &events, input);
        }
        Ok(())
    }

    /// Writes these events, and folds them.
    pub fn record(&mut self, id: InstanceId, events: &[InstanceEvent], input: Input) {
        let metas = self.plant(id, events, input);
        let mut state = self.now(id).cloned();
        for (event, meta) in events.iter().zip(metas) {
            evolve(&mut state, event, meta);
            self.folds.entry(id).or_default().push(state.clone().unwrap());
        }
    }

    /// Writes these events, possible or not.
    pub fn plant(&mut self, id: InstanceId, events: &[InstanceEvent], input: Input) -> Vec<EventMeta> {
        let context = self.context(input);
        let events: Vec<Event> = events.iter().cloned().map(Event::from).collect();
        self.write(StreamName::Instance(id), &events, &context)
    }

    pub fn context(&mut self, input: Input) -> Context {
        let (actor, request) = match &input {
            Input::Command(_) => (Actor::User("demo".to_owned()), Some(RequestId::new(self.mint()))),
            Input::Report { sled, .. } => (Actor::Sled(*sled), None),
            Input::Outcome { effect, .. } => (Actor::Sled(effect.sled()), None),
            _ => (Actor::Timer("sled watch".to_owned()), None),
        };
        Context { request, input: Some(input), ..Context::of(actor) }
    }

    pub fn creation(&mut self, id: InstanceId, start: bool) -> Input {
        let n = u8::try_from(id.uuid().as_u128() & 0xff).unwrap();
        let spec = InstanceSpec {
            project: project(),
            name: format!("web-{n}"),
            description: String::new(),
            hostname: format!("web-{n}"),
            size: Size { ncpus: 2, memory: 4 << 30 },
            auto_restart: None,
            cpu_platform: None,
            boot_disk: None,
            jumbo_frames: false,
        };
        let address = Address {
            virtual_ip: Ipv4Addr::new(172, 16, 0, 5 + n),
            mac: [0xa8, 0x40, 172, 16, 0, 5 + n],
            vni: 1024,
        };
        let grant = self.grant(0);
        Input::Command(Command::Create {
            id,
            spec: Box::new(spec),
            address,
            start: start.then_some(Ok(grant)),
        })
    }

    pub fn create(&mut self, id: InstanceId, start: bool) {
        let input = self.creation(id, start);
        self.give(id, input).unwrap();
    }

    pub fn start(&mut self, id: InstanceId) {
        let grant = self.grant(0);
        self.give(id, Input::Command(Command::Start { grant: Some(grant) })).unwrap();
    }

    pub fn stop(&mut self, id: InstanceId) {
        let op = OpId::new(self.mint());
        self.give(id, Input::Command(Command::Stop { op })).unwrap();
    }

    /// A report of the active VMM.
    pub fn says(&mut self, id: InstanceId, generation: u64, state: VmmState) {
        let vmm = self.now(id).unwrap().active_vmm().unwrap();
        let (vmm, sled) = (vmm.id, vmm.sled);
        self.give(id, Input::Report { sled, vmm, report: report(generation, state) }).unwrap();
    }

    pub fn migrate_grant(&mut self, on: u128) -> MigrateGrant {
        let StartGrant { saga, vmm, sled } = self.grant(on);
        MigrateGrant { saga, migration: MigrationId::new(self.mint()), vmm, sled }
    }

    /// What one side of the linked migration would report.
    pub fn side(&self, id: InstanceId, is_source: bool, state: SideState, generation: u64) -> Option<Input> {
        let instance = self.now(id)?;
        let migration = instance.linked_migration()?;
        let vmm = &instance.vmms[&if is_source { migration.source.vmm } else { migration.target.vmm }];
        let generation = Generation::new(generation);
        let part = Some(SideReport { migration: migration.id, state, generation });
        let (migration_in, migration_out) = if is_source { (None, part) } else { (part, None) };
        let report = VmmReport { state: vmm.state, generation: vmm.generation, migration_in, migration_out };
        Some(Input::Report { sled: vmm.sled, vmm: vmm.id, report })
    }

    /// Moves a running instance to another sled, as far as its target having been told to take the guest over.
    pub fn migrate(&mut self, id: InstanceId, to: u128) -> MigrateGrant {
        let grant = self.migrate_grant(to);
        self.give(id, Input::Command(Command::Migrate { grant: Some(grant) })).unwrap();
        let report = report(1, VmmState::Migrating);
        self.give(id, Input::Report { sled: grant.sled, vmm: grant.vmm, report }).unwrap();
        grant
    }

    /// Created and started, run, stopped by a user.
    pub fn live(&mut self, id: InstanceId) {
        self.create(id, true);
        self.says(id, 1, VmmState::Starting);
        self.says(id, 2, VmmState::Running);
        self.stop(id);
        self.says(id, 3, VmmState::Stopping);
        self.says(id, 4, VmmState::Destroyed);
    }

    /// Instances that do, and to which is done, whatever the seed says.
    pub fn walk(&mut self, seed: u64, instances: u128, steps: usize) {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for n in 0..instances {
            self.create(id(n), dice.below(2) == 0);
        }
        for _ in 0..steps {
            let id = id(u128::from(dice.below(u64::try_from(instances).unwrap())));
            if let Some(input) = self.draw(id, &mut dice) {
                // A refusal is fine: it writes nothing.
                let _ = self.give(id, input);
            }
        }
    }

    fn draw(&mut self, id: InstanceId, dice: &mut Dice) -> Option<Input> {
        let op = OpId::new(self.mint());
        let state = self.now(id)?;
        let vmm =
            state.vmms.values().nth(usize::try_from(dice.below(2)).unwrap()).map(|vmm| (vmm.id, vmm.sled));
        Some(match dice.below(40) {
            0..3 => Input::Command(Command::Start { grant: Some(self.grant(0)) }),
            3 => Input::Command(Command::Stop { op }),
            4 => Input::Command(Command::Reboot { op }),
            // Rare, because nothing comes after it.
            5 if dice.below(10) == 0 => Input::Command(Command::Delete),
            5 => Input::Reconsider,
            6..12 => {
                let (vmm, sled) = vmm?;
                let state = VmmState::ALL[usize::try_from(dice.below(10)).unwrap()];
                Input::Report { sled, vmm, report: report(dice.below(12), state) }
            }
            12..17 => {
                let effect = *effects(state).first()?;
                let is_target = state.target == Some(effect.vmm());
                let result = match dice.below(5) {
                    2.. if is_target => EffectResult::Done(Some(report(1, VmmState::Migrating))),
                    0 => EffectResult::Refused(Refusal::NoRoom),
                    1 => EffectResult::Refused(Refusal::NoSuchVmm),
                    2 => EffectResult::Done(None),
                    3 => EffectResult::Done(Some(report(1, VmmState::Starting))),
                    _ => EffectResult::Done(Some(report(2, VmmState::Running))),
                };
                Input::Outcome { effect, result }
            }
            17 => Input::Gone { vmm: vmm?.0, evidence: Evidence::SledRebooted },
            18 | 19 => match deadlines(state, &self.policy).first()?.kind {
                // The ledger is asked first, and answers with the attempt.
                DeadlineKind::Restart => {
                    Input::Restart(if dice.below(4) == 0 { Err(Shortage::NoSled) } else { Ok(self.grant(0)) })
                }
                kind => Input::Deadline(kind),
            },
            20..24 => {
                let source = state.active_vmm()?.sled;
                let grant = self.migrate_grant(u128::from(source == sled(0)));
                Input::Command(Command::Migrate { grant: Some(grant) })
            }
            24 => Input::Command(Command::CancelMigration),
            33..39 => awaited(state)?,
            25 if dice.below(4) == 0 => {
                let assert_dead = dice.below(2) == 0;
                Input::Command(Command::ForceStop { assert_dead, reason: "it hangs".to_owned() })
            }
            26 => {
                let mut change = Box::new(state.spec.changeable());
                change.jumbo_frames = !change.jumbo_frames;
                Input::Command(Command::Update { change })
            }
            27..33 => {
                let side = SIDE_STATES[usize::try_from(dice.below(4)).unwrap()];
                self.side(id, dice.below(2) == 0, side, dice.below(12))?
            }
            _ => Input::Reconsider,
        })
    }
}

/// What moves the saga on: without it walks would hardly get anywhere.
fn awaited(state: &Instance) -> Option<Input> {
    let saga = state.saga.as_ref()?;
    let vmm = &state.vmms[&saga.vmm];
    let (next, sled) = (vmm.generation.next().get(), vmm.sled);
    let to = match (saga.kind, saga.step) {
        (SagaKind::Migrate, _) => VmmState::Migrating,
        (_, Step::SetRunning) => VmmState::Running,
        _ => VmmState::Starting,
    };
    Some(Input::Report { sled, vmm: vmm.id, report: report(next, to) })
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

pub fn version(n: u64) -> Version {
    Version::new(n)
}
