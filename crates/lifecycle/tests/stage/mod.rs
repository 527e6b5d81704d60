//! A stage for one instance: inputs go in, events are folded, invariants are checked after every append,
//! and the sleds' side is played by the test.

#![allow(dead_code, clippy::unwrap_used, reason = "a stage for tests; each uses its own part")]

use lifecycle::event::EventMeta;
use lifecycle::input::{EffectResult, MigrateGrant, SideReport, StartGrant, VmmReport};
use lifecycle::migration::{Migration, SideState};
use lifecycle::network::NetworkBook;
use lifecycle::{
    Address, Command, Decision, Effect, Generation, Input, Instance, InstanceEvent, InstanceId, InstanceSpec,
    MigrationId, OpId, Policy, ProjectId, Purpose, Rejected, RunState, SagaId, Size, SledId, Timestamp,
    VmmId, VmmState, decide, effects, evolve, invariant,
};
use std::net::Ipv4Addr;
use uuid::Uuid;

pub const SLEDS: [u128; 3] = [0x51, 0x52, 0x53];

#[derive(Clone, Default)]
pub struct Stage {
    pub state: Option<Instance>,
    pub history: Vec<InstanceEvent>,
    pub appends: usize,
    pub book: NetworkBook,
    /// Microseconds that pass between two events.
    pub tick: u64,
    /// Limits that its decisions use.
    pub policy: Policy,
    pub minted: u128,
}

pub fn sled(n: usize) -> SledId {
    SledId::new(Uuid::from_u128(SLEDS[n]))
}

pub fn spec() -> InstanceSpec {
    InstanceSpec {
        project: ProjectId::new(Uuid::from_u128(0x9)),
        name: "web-1".to_owned(),
        description: String::new(),
        hostname: "web-1".to_owned(),
        size: Size { ncpus: 2, memory: 4 << 30 },
        auto_restart: None,
        cpu_platform: None,
        boot_disk: None,
        jumbo_frames: false,
    }
}

pub fn address() -> Address {
    Address { virtual_ip: Ipv4Addr::new(172, 16, 0, 5), mac: [0xa8, 0x40, 172, 16, 0, 5], vni: 1024 }
}

impl Stage {
    pub fn created() -> Self {
        let mut stage = Self::default();
        stage.create(false);
        stage
    }

    pub fn create(&mut self, start: bool) {
        let grant = self.grant(0);
        let id = InstanceId::new(Uuid::from_u128(0x1));
        let start = start.then_some(Ok(grant));
        self.must(Input::Command(Command::Create { id, spec: Box::new(spec()), address: address(), start }));
    }

    pub fn running() -> Self {
        let mut stage = Self::created();
        stage.start(0);
        stage.report(1, VmmState::Starting);
        stage.report(2, VmmState::Running);
        assert_eq!(stage.run_state(), RunState::Running);
        stage
    }

    pub fn mint(&mut self) -> Uuid {
        self.minted += 1;
        Uuid::from_u128(0x1000 + self.minted)
    }

    pub fn grant(&mut self, on: usize) -> StartGrant {
        StartGrant { saga: SagaId::new(self.mint()), vmm: VmmId::new(self.mint()), sled: sled(on) }
    }

    /// Decides, folds, checks. Answers the events of the append.
    pub fn give(&mut self, input: Input) -> Result<Vec<InstanceEvent>, Rejected> {
        let events = match decide(self.state.as_ref(), &input, &self.policy)? {
            Decision::Events(events) => events,
            Decision::AskForRoom(wanted) => {
                let grant = self.grant(0);
                return self.give(match (&wanted.purpose, &input) {
                    (Purpose::Start { .. }, Input::Deadline(_)) => Input::Restart(Ok(grant)),
                    (Purpose::Start { .. }, _) => Input::Command(Command::Start { grant: Some(grant) }),
                    (Purpose::Migrate { .. }, _) => panic!("the stage grants targets by itself"),
                });
            }
        };
        if events.is_empty() {
            return Ok(events);
        }
        self.appends += 1;
        let before = self.state.clone();
        for event in &events {
            let n = self.history.len() as u64 + 1;
            let last = self.state.as_ref().map_or(0, |state| state.head.time.micros());
            let time = Timestamp::from_micros(last + self.tick.max(1));
            let meta = EventMeta { version: n, position: n, time };
            evolve(&mut self.state, event, meta);
            let id = self.state.as_ref().unwrap().id;
            self.book.apply(id, event, meta);
            self.history.push(event.clone());
        }
        let after = self.state.as_ref().unwrap();
        invariant::check(after).unwrap_or_else(|v| panic!("{v}\nafter {input:?}\nevents {events:?}"));
        if after.deleted.is_none() {
            assert_eq!(self.book.of(after.id), Some((after.network.sled, after.producer)), "{events:?}");
        }
        invariant::check_step(before.as_ref(), after).unwrap_or_else(|v| panic!("{v}\nafter {input:?}"));
        Ok(events)
    }

    pub fn must(&mut self, input: Input) -> Vec<InstanceEvent> {
        self.give(input).unwrap()
    }

    pub fn start(&mut self, on: usize) -> Vec<InstanceEvent> {
        let grant = self.grant(on);
        self.must(Input::Command(Command::Start { grant: Some(grant) }))
    }

    /// Lets time pass before the next event.
    pub fn wait(&mut self, span: lifecycle::Span) {
        let state = self.state.as_mut().unwrap();
        state.head.time = state.head.time + span;
    }

    pub fn migrate_grant(&mut self, on: usize) -> MigrateGrant {
        MigrateGrant {
            saga: SagaId::new(self.mint()),
            migration: MigrationId::new(self.mint()),
            vmm: VmmId::new(self.mint()),
            sled: sled(on),
        }
    }

    pub fn try_migrate(&mut self, on: usize) -> Result<Vec<InstanceEvent>, Rejected> {
        let grant = self.migrate_grant(on);
        self.give(Input::Command(Command::Migrate { grant: Some(grant) }))
    }

    pub fn migrate(&mut self, on: usize) -> Vec<InstanceEvent> {
        self.try_migrate(on).unwrap()
    }

    /// The newest migration.
    pub fn migration(&self) -> MigrationId {
        let began = |event: &InstanceEvent| match event {
            InstanceEvent::MigrateBegan { migration, .. } => Some(*migration),
            _ => None,
        };
        self.history.iter().rev().find_map(began).expect("a migration began")
    }

    /// The newest migration's record.
    pub fn record(&self) -> &Migration {
        &self.now().migrations[&self.migration()]
    }

    /// Source and target of the newest migration.
    pub fn sides(&self) -> (VmmId, VmmId) {
        let began = self.history.iter().rposition(|e| matches!(e, InstanceEvent::MigrateBegan { .. }));
        let InstanceEvent::MigrateBegan { vmm: target, .. } = &self.history[began.unwrap()] else {
            unreachable!()
        };
        let mut active = None;
        for event in &self.history[..began.unwrap()] {
            match event {
                InstanceEvent::StartBegan { vmm, .. } => active = Some(*vmm),
                InstanceEvent::Updated(update) => active = update.active,
                _ => {}
            }
        }
        (active.unwrap(), *target)
    }

    fn sled_of(&self, id: VmmId) -> SledId {
        let placed = |event: &InstanceEvent| match event {
            InstanceEvent::StartBegan { vmm, sled, .. } | InstanceEvent::MigrateBegan { vmm, sled, .. }
                if *vmm == id =>
            {
                Some(*sled)
            }
            _ => None,
        };
        self.history.iter().find_map(placed).expect("it was placed")
    }

    /// What a VMM says of itself, and of its side of the newest migration.
    pub fn says(
        &mut self,
        vmm: VmmId,
        generation: u64,
        state: VmmState,
        side: Option<(u64, SideState)>,
    ) -> Vec<InstanceEvent> {
        let input = self.words(vmm, generation, state, side);
        self.must(input)
    }

    pub fn words(
        &self,
        vmm: VmmId,
        generation: u64,
        state: VmmState,
        side: Option<(u64, SideState)>,
    ) -> Input {
        let mut said = report(generation, state);
        if let Some((generation, state)) = side {
            let generation = Generation::new(generation);
            let part = SideReport { migration: self.migration(), state, generation };
            if self.sides().1 == vmm {
                said.migration_in = Some(part);
            } else {
                said.migration_out = Some(part);
            }
        }
        Input::Report { sled: self.sled_of(vmm), vmm, report: said }
    }

    /// A migration whose target has accepted.
    pub fn migrating() -> Self {
        let mut stage = Self::running();
        stage.migrate(1);
        let (_, target) = stage.sides();
        stage.says(target, 1, VmmState::Migrating, Some((1, SideState::Pending)));
        let effect = stage.effects()[0];
        assert!(matches!(effect, Effect::MigrationTarget { .. }), "{effect:?}");
        stage.must(Input::Outcome { effect, result: EffectResult::Done(None) });
        assert!(stage.now().saga.is_none());
        stage
    }

    pub fn stop(&mut self) -> Result<Vec<InstanceEvent>, Rejected> {
        let op = OpId::new(self.mint());
        self.give(Input::Command(Command::Stop { op }))
    }

    pub fn reboot(&mut self) -> Result<Vec<InstanceEvent>, Rejected> {
        let op = OpId::new(self.mint());
        self.give(Input::Command(Command::Reboot { op }))
    }

    pub fn delete(&mut self) -> Result<Vec<InstanceEvent>, Rejected> {
        self.give(Input::Command(Command::Delete))
    }

    /// The newest VMM allocated.
    pub fn vmm(&self) -> VmmId {
        let allocated = |event: &InstanceEvent| match event {
            InstanceEvent::StartBegan { vmm, .. } => Some(*vmm),
            _ => None,
        };
        self.history.iter().rev().find_map(allocated).expect("a start began")
    }

    pub fn report(&mut self, generation: u64, state: VmmState) -> Vec<InstanceEvent> {
        let vmm = self.vmm();
        let sled = self.history.iter().rev().find_map(|event| match event {
            InstanceEvent::StartBegan { sled, .. } => Some(*sled),
            _ => None,
        });
        self.must(Input::Report { sled: sled.unwrap(), vmm, report: report(generation, state) })
    }

    pub fn answer(&mut self, result: EffectResult) -> Vec<InstanceEvent> {
        let effect = self.effects()[0];
        self.must(Input::Outcome { effect, result })
    }

    pub fn effects(&self) -> Vec<Effect> {
        self.state.as_ref().map(effects).unwrap_or_default()
    }

    pub fn now(&self) -> &Instance {
        self.state.as_ref().unwrap()
    }

    pub fn run_state(&self) -> RunState {
        self.now().run_state()
    }
}

pub fn report(generation: u64, state: VmmState) -> VmmReport {
    VmmReport { state, generation: Generation::new(generation), migration_in: None, migration_out: None }
}
