//! A stage for one instance: inputs go in, events are folded, invariants are checked after every append,
//! and the sleds' side is played by the test.

#![allow(dead_code, clippy::unwrap_used, reason = "a stage for tests; each uses its own part")]

use lifecycle::event::EventMeta;
use lifecycle::input::{EffectResult, StartGrant, VmmReport};
use lifecycle::{
    Address, Command, Decision, Effect, Generation, Input, Instance, InstanceEvent, InstanceId, InstanceSpec,
    OpId, Policy, ProjectId, Rejected, RunState, SagaId, Size, SledId, Timestamp, VmmId, VmmState, decide,
    effects, evolve, invariant,
};
use std::net::Ipv4Addr;
use uuid::Uuid;

pub const SLEDS: [u128; 2] = [0x51, 0x52];

#[derive(Clone, Default)]
pub struct Stage {
    pub state: Option<Instance>,
    pub history: Vec<InstanceEvent>,
    pub appends: usize,
    minted: u128,
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
        let events = match decide(self.state.as_ref(), &input, &Policy::default())? {
            Decision::Events(events) => events,
            Decision::AskForRoom(size) => {
                assert_eq!(size, spec().size);
                let grant = self.grant(0);
                return self.give(Input::Command(Command::Start { grant: Some(grant) }));
            }
        };
        if events.is_empty() {
            return Ok(events);
        }
        self.appends += 1;
        let before = self.state.clone();
        for event in &events {
            let n = self.history.len() as u64 + 1;
            evolve(
                &mut self.state,
                event,
                EventMeta { version: n, position: n, time: Timestamp::from_micros(n) },
            );
            self.history.push(event.clone());
        }
        let after = self.state.as_ref().unwrap();
        invariant::check(after).unwrap_or_else(|v| panic!("{v}\nafter {input:?}\nevents {events:?}"));
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
