//! A long history, written the way the control plane writes it: decided by the rules, in the journal's layouts,
//! streams interleaved. No clock and no dice: the same numbers make the same history.

use bytes::Bytes;
use eventlog::portable::Source;
use eventlog::{Append, Cause, Epoch, Position, ReadError, Record, StoreId, StreamId, Version};
use journal::{Actor, Context, Event, StreamName, append};
use lifecycle::input::StartGrant;
use lifecycle::{
    Address, BootId, Command, Decision, EventMeta, Generation, Input, Instance, InstanceId, InstanceSpec,
    LeaseEpoch, OpId, Policy, ProjectEvent, ProjectId, RequestId, SagaId, Size, SledEvent, SledId, Timestamp,
    VmmId, VmmReport, VmmState, decide, evolve,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use uuid::Uuid;

const SLEDS: u128 = 16;
const SIZE: Size = Size { ncpus: 2, memory: 4 << 30 };
/// Between two appends, microseconds.
const TICK_US: u64 = 1_000;

/// Records of a log, in memory.
pub struct History {
    /// All of them, from position 1.
    pub records: Vec<Record>,
    heads: BTreeMap<StreamId, (Version, Position, Timestamp)>,
    folds: Vec<Option<Instance>>,
    clock: u64,
    minted: u128,
}

impl Source for History {
    fn store_id(&self) -> StoreId {
        StoreId([7; 16])
    }

    fn durable(&self) -> Position {
        Position::new(self.records.len() as u64)
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        let first = usize::try_from(from.get()).unwrap_or(usize::MAX).saturating_sub(1);
        Ok(self.records.iter().skip(first).take(limit).cloned().collect())
    }
}

impl History {
    /// At least `events` events of so many instances, each living in turns with the others.
    pub fn of(events: usize, instances: usize) -> Self {
        let mut history = Self {
            records: Vec::with_capacity(events + 64),
            heads: BTreeMap::new(),
            folds: vec![None; instances],
            clock: 1_700_000_000_000_000,
            minted: 0,
        };
        history.found();
        while history.records.len() < events {
            for nth in 0..instances {
                history.live_on(nth);
            }
        }
        history
    }

    fn mint(&mut self) -> Uuid {
        self.minted += 1;
        // Spread like real ids, so that neighbours in the log are none in maps.
        Uuid::from_u128(self.minted.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    fn found(&mut self) {
        let project = ProjectEvent::Created {
            id: project_id(),
            name: "demo".to_owned(),
            description: String::new(),
            vni: 1_024,
        };
        self.write(StreamName::Project(project_id()), &[project.into()], &Context::of(Actor::Daemon));
        for nth in 0..SLEDS {
            let id = sled(nth);
            let registered = SledEvent::Registered {
                id,
                name: format!("sled-{nth}"),
                threads: 1 << 16,
                memory: 1 << 50,
                cpu_family: "sim".to_owned(),
                address: String::new(),
            };
            let booted = SledEvent::Booted { boot: BootId::new(self.mint()), epoch: LeaseEpoch::new(1) };
            self.write(
                StreamName::Sled(id),
                &[registered.into(), booted.into()],
                &Context::of(Actor::Sled(id)),
            );
        }
    }

    /// The next thing that happens in a life of starts and stops.
    fn live_on(&mut self, nth: usize) {
        let input = match self.folds[nth].as_ref() {
            None => self.creation(nth),
            Some(state) => match state.active_vmm() {
                None => Input::Command(Command::Start { grant: Some(self.grant(nth)) }),
                Some(vmm) => {
                    let next = match vmm.state {
                        VmmState::Creating => VmmState::Starting,
                        VmmState::Starting => VmmState::Running,
                        VmmState::Stopping => VmmState::Destroyed,
                        _ if state.stop.is_some() => VmmState::Stopping,
                        _ => {
                            let op = OpId::new(self.mint());
                            return self.give(nth, Input::Command(Command::Stop { op }));
                        }
                    };
                    let report = VmmReport {
                        state: next,
                        generation: Generation::new(vmm.generation.get() + 1),
                        migration_in: None,
                        migration_out: None,
                    };
                    Input::Report { sled: vmm.sled, vmm: vmm.id, report }
                }
            },
        };
        self.give(nth, input);
    }

    fn creation(&mut self, nth: usize) -> Input {
        let name = format!("vm-{nth}");
        let number = u32::try_from(nth).unwrap_or(u32::MAX);
        let spec = InstanceSpec {
            project: project_id(),
            name: name.clone(),
            description: String::new(),
            hostname: name,
            size: SIZE,
            auto_restart: None,
            cpu_platform: None,
            boot_disk: None,
            jumbo_frames: false,
        };
        let address =
            Address { virtual_ip: Ipv4Addr::from_bits(0x0a00_0005 + number), mac: [2; 6], vni: 1_024 };
        let start = Some(Ok(self.grant(nth)));
        Input::Command(Command::Create { id: instance(nth), spec: Box::new(spec), address, start })
    }

    fn grant(&mut self, nth: usize) -> StartGrant {
        StartGrant {
            saga: SagaId::new(self.mint()),
            vmm: VmmId::new(self.mint()),
            sled: sled(nth as u128 % SLEDS),
        }
    }

    /// Decides, writes and folds.
    fn give(&mut self, nth: usize, input: Input) {
        let decided = decide(self.folds[nth].as_ref(), &input, &Policy::default());
        let Ok(Decision::Events(events)) = decided else {
            panic!("every input of this life is possible: {decided:?}");
        };
        let (actor, request) = match &input {
            Input::Report { sled, .. } => (Actor::Sled(*sled), None),
            _ => (Actor::User("bench".to_owned()), Some(RequestId::new(self.mint()))),
        };
        let context = Context { request, input: Some(input), ..Context::of(actor) };
        let stored: Vec<Event> = events.iter().cloned().map(Event::from).collect();
        let metas = self.write(StreamName::Instance(instance(nth)), &stored, &context);
        for (event, meta) in events.iter().zip(metas) {
            evolve(&mut self.folds[nth], event, meta);
        }
    }

    fn write(&mut self, stream: StreamName, events: &[Event], context: &Context) -> Vec<EventMeta> {
        self.clock += TICK_US;
        let (version, _, last) = self.heads.get(&stream.id()).copied().unwrap_or_default();
        let now = Timestamp::from_micros(self.clock);
        let built = append(stream, Epoch::default(), version, events, context, now, last, "bench");
        self.keep(built.expect("every event of this history is small"))
    }

    fn keep(&mut self, append: Append) -> Vec<EventMeta> {
        let first = Position::new(self.records.len() as u64 + 1);
        let count = append.events.len() as u16;
        let mut context = Some(append.context);
        let mut metas = Vec::with_capacity(append.events.len());
        for (index, event) in (0..).zip(append.events) {
            let (version, previous, _) = self.heads.get(&append.stream).copied().unwrap_or_default();
            let position = Position::new(self.records.len() as u64 + 1);
            let version = version.next();
            let time = Timestamp::from_micros(event.time_us);
            self.heads.insert(append.stream, (version, position, time));
            metas.push(EventMeta { version: version.get(), position: position.get(), time });
            self.records.push(Record {
                position,
                stream: append.stream,
                version,
                previous,
                cause: match event.cause {
                    Cause::None => Position::ZERO,
                    Cause::Position(position) => position,
                    Cause::InAppend(nth) => Position::new(first.get() + u64::from(nth)),
                },
                kind: event.kind,
                schema: event.schema,
                codec: event.codec,
                time_us: event.time_us,
                index: (index, count),
                context: context.take(),
                payload: Bytes::copy_from_slice(&event.payload),
            });
        }
        metas
    }
}

fn project_id() -> ProjectId {
    ProjectId::new(Uuid::from_u128(9))
}

fn sled(nth: u128) -> SledId {
    SledId::new(Uuid::from_u128(0x5000_0000_0000_0000_0000_0000_0000_0000 + nth))
}

fn instance(nth: usize) -> InstanceId {
    InstanceId::new(Uuid::from_u128(
        (nth as u128 + 1).wrapping_mul(0xd134_2543_de82_ef95_2545_f491_4f6c_dd1d),
    ))
}
