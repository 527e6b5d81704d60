//! A history as daemons write it: every instance is created, started and stopped, and the rules decide what
//! that leaves in the log.

use crate::Failure;
use eventlog::{AppendOutcome, Epoch, Journal, JournalConfig, Log, StoreId, Version};
use journal::{Actor, Context, Event, StreamName};
use lifecycle::input::{StartGrant, VmmReport};
use lifecycle::{
    Address, BootId, Command, Decision, EventMeta, Generation, Input, Instance, InstanceId, InstanceSpec,
    LeaseEpoch, OpId, Policy, ProjectEvent, ProjectId, SagaId, Size, SledEvent, SledId, Timestamp, VmmId,
    VmmState, decide, evolve,
};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Instances that are brought about at once.
const HANDS: u32 = 256;
const VNI: u32 = 1_024;
/// First address of every project's subnet that is not the network's own.
const SUBNET_FIRST: u32 = 0xac10_0005;
/// Recorded time of the first event, microseconds.
const BEGAN_US: u64 = 1_700_000_000_000_000;

fn project() -> ProjectId {
    ProjectId::new(Uuid::from_u128(0x9))
}

fn sled() -> SledId {
    SledId::new(Uuid::from_u128(0x5))
}

/// Who writes one stream.
struct Owner {
    log: Arc<dyn Log>,
    stream: StreamName,
    epoch: Epoch,
    version: Version,
    time: Timestamp,
}

impl Owner {
    async fn claim(log: Arc<dyn Log>, stream: StreamName) -> Result<Self, Failure> {
        let claim = log.claim(stream.id()).await?;
        let time = Timestamp::from_micros(BEGAN_US);
        Ok(Self { log, stream, epoch: claim.epoch, version: claim.head.version, time })
    }

    /// Appends; answers the place of each event.
    async fn append(&mut self, events: &[Event], context: &Context) -> Result<Vec<EventMeta>, Failure> {
        let (epoch, expected) = (self.epoch, self.version);
        let append =
            journal::append(self.stream, epoch, expected, events, context, self.time, self.time, "bench")?;
        let times: Vec<u64> = append.events.iter().map(|event| event.time_us).collect();
        let AppendOutcome::Appended { first, version, .. } = self.log.append(append).await else {
            return Err("an append was not accepted".into());
        };
        self.version = version;
        self.time = Timestamp::from_micros(times.last().copied().unwrap_or_default());
        let places = (first.get()..).zip(expected.get() + 1..).zip(times);
        Ok(places
            .map(|((position, version), time)| EventMeta {
                version,
                position,
                time: Timestamp::from_micros(time),
            })
            .collect())
    }
}

/// Writes the history of so many instances into a new journal; answers how many events it has.
pub async fn write(dir: &Path, instances: u32) -> Result<u64, Failure> {
    std::fs::create_dir_all(dir)?;
    let (journal, _) = Journal::open(dir, JournalConfig::new(StoreId([9; 16])))?;
    let log: Arc<dyn Log> = Arc::new(journal);
    found(&log).await?;
    let mut hands = Vec::new();
    for hand in 0..HANDS {
        let log = Arc::clone(&log);
        hands.push(tokio::spawn(async move {
            for number in (hand..instances).step_by(HANDS as usize) {
                live(Arc::clone(&log), number).await?;
            }
            Ok::<(), Failure>(())
        }));
    }
    for hand in hands {
        hand.await??;
    }
    let events = log.durable().get();
    log.close().await;
    Ok(events)
}

/// A project and a sled that holds everything.
async fn found(log: &Arc<dyn Log>) -> Result<(), Failure> {
    let daemon = Context::of(Actor::Daemon);
    let created = ProjectEvent::Created {
        id: project(),
        name: "bench".to_owned(),
        description: String::new(),
        vni: VNI,
    };
    let mut owner = Owner::claim(Arc::clone(log), StreamName::Project(project())).await?;
    owner.append(&[Event::from(created)], &daemon).await?;
    let registered = SledEvent::Registered {
        id: sled(),
        name: "bench".to_owned(),
        threads: 1 << 20,
        memory: 1 << 50,
        cpu_family: "sim-x86".to_owned(),
        // Nobody listens there; nothing is left on it either.
        address: "http://127.0.0.1:9".to_owned(),
    };
    let booted = SledEvent::Booted { boot: BootId::new(Uuid::from_u128(0x6)), epoch: LeaseEpoch::new(1) };
    let mut owner = Owner::claim(Arc::clone(log), StreamName::Sled(sled())).await?;
    owner.append(&[Event::from(registered), Event::from(booted)], &daemon).await?;
    Ok(())
}

/// Creates, starts and stops one instance.
async fn live(log: Arc<dyn Log>, number: u32) -> Result<(), Failure> {
    let minted = |tag: u128| {
        Uuid::from_u128((u128::from(number.wrapping_mul(0x9e37_79b1)) << 96) | tag << 32 | u128::from(number))
    };
    let id = InstanceId::new(minted(1));
    let (saga, vmm, op) = (SagaId::new(minted(2)), VmmId::new(minted(3)), OpId::new(minted(4)));
    let spec = Box::new(InstanceSpec {
        project: project(),
        name: format!("vm-{number}"),
        description: "measured".to_owned(),
        hostname: format!("vm-{number}"),
        size: Size { ncpus: 2, memory: 4 << 30 },
        auto_restart: None,
        cpu_platform: None,
        boot_disk: None,
        jumbo_frames: false,
    });
    let virtual_ip = Ipv4Addr::from(SUBNET_FIRST + number);
    let [a, b, c, d] = virtual_ip.octets();
    let address = Address { virtual_ip, mac: [0xa8, 0x40, a, b, c, d], vni: VNI };
    let report = |generation, state| Input::Report {
        sled: sled(),
        vmm,
        report: VmmReport {
            state,
            generation: Generation::new(generation),
            migration_in: None,
            migration_out: None,
        },
    };
    let grant = StartGrant { saga, vmm, sled: sled() };
    let inputs = [
        Input::Command(Command::Create { id, spec, address, start: None }),
        Input::Command(Command::Start { grant: Some(grant) }),
        report(1, VmmState::Starting),
        report(2, VmmState::Running),
        Input::Command(Command::Stop { op }),
        report(3, VmmState::Stopping),
        report(4, VmmState::Destroyed),
    ];
    let mut owner = Owner::claim(log, StreamName::Instance(id)).await?;
    let mut state: Option<Instance> = None;
    for input in inputs {
        let Decision::Events(events) = decide(state.as_ref(), &input, &Policy::default())? else {
            return Err("the rules ask for room that was given".into());
        };
        if events.is_empty() {
            continue;
        }
        let context = Context { input: Some(input), ..Context::of(Actor::Sled(sled())) };
        let recorded: Vec<Event> = events.iter().cloned().map(Event::from).collect();
        let metas = owner.append(&recorded, &context).await?;
        for (event, meta) in events.iter().zip(metas) {
            evolve(&mut state, event, meta);
        }
    }
    match state {
        Some(state) if state.is_quiesced() && state.vmms.is_empty() => Ok(()),
        _ => Err("an instance is not at rest at the end of its history".into()),
    }
}
