//! A fleet that writes history: moves go in, the rules decide, a simulated log keeps what was decided.

#![allow(dead_code, clippy::unwrap_used, reason = "a stage for tests; each uses its own part")]

use eventlog::{AppendOutcome, Log, Position, Record, SimLog, Version};
use futures::FutureExt;
use journal::{Actor, Context, Event, StreamName};
use lifecycle::input::{EffectResult, Refusal, StartGrant, VmmReport};
use lifecycle::instance::Instance;
use lifecycle::project::Project;
use lifecycle::{
    Address, BootId, Command, Decision, Evidence, Generation, Input, InstanceEvent, InstanceId, InstanceSpec,
    OpId, Policy, ProjectEvent, ProjectId, SagaId, Size, SledEvent, SledId, SystemEvent, Timestamp, VmmId,
    VmmState, decide, effects,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use uuid::Uuid;

/// One thing that happens to the fleet. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub enum Move {
    Project(usize),
    Rename(usize),
    DropProject(usize),
    Boot(usize),
    Cordon(usize, bool),
    Expunge(usize),
    Create { project: usize, name: usize, on: Option<usize> },
    Start { instance: usize, on: usize },
    Stop(usize),
    Reboot(usize),
    Delete(usize),
    Report { instance: usize, generation: u64, state: usize },
    Answer { instance: usize, answer: usize },
    Gone { instance: usize, evidence: usize },
    Daemon,
}

pub fn any_move() -> impl Strategy<Value = Move> {
    let n = 0..8usize;
    prop_oneof![
        2 => (0..3usize).prop_map(Move::Project),
        1 => (0..3usize).prop_map(Move::Rename),
        1 => (0..3usize).prop_map(Move::DropProject),
        2 => (0..3usize).prop_map(Move::Boot),
        1 => (0..3usize, any::<bool>()).prop_map(|(sled, open)| Move::Cordon(sled, open)),
        1 => (0..3usize).prop_map(Move::Expunge),
        5 => (0..3usize, 0..4usize, prop::option::of(0..3usize))
            .prop_map(|(project, name, on)| Move::Create { project, name, on }),
        4 => (n.clone(), 0..3usize).prop_map(|(instance, on)| Move::Start { instance, on }),
        3 => n.clone().prop_map(Move::Stop),
        1 => n.clone().prop_map(Move::Reboot),
        3 => n.clone().prop_map(Move::Delete),
        9 => (n.clone(), 1..9u64, 0..VmmState::ALL.len())
            .prop_map(|(instance, generation, state)| Move::Report { instance, generation, state }),
        6 => (n.clone(), 0..6usize).prop_map(|(instance, answer)| Move::Answer { instance, answer }),
        2 => (n, 0..3usize).prop_map(|(instance, evidence)| Move::Gone { instance, evidence }),
        1 => Just(Move::Daemon),
    ]
}

/// The fleet as its writers know it.
pub struct Fleet {
    pub log: SimLog,
    pub instances: BTreeMap<InstanceId, Instance>,
    pub projects: BTreeMap<ProjectId, Project>,
    minted: u128,
    clock: u64,
}

pub fn project_id(n: usize) -> ProjectId {
    ProjectId::new(Uuid::from_u128(0x9000 + n as u128))
}

pub fn sled_id(n: usize) -> SledId {
    SledId::new(Uuid::from_u128(0x5000 + n as u128))
}

/// The name that instance number `n` of a project asks for.
pub fn name(n: usize) -> String {
    format!("web-{n}")
}

const EVIDENCE: [Evidence; 3] = [Evidence::SledRebooted, Evidence::LeaseExpired, Evidence::Asserted];

impl Fleet {
    pub fn new() -> Self {
        let (instances, projects) = (BTreeMap::new(), BTreeMap::new());
        Self { log: SimLog::new(), instances, projects, minted: 0, clock: 1_000_000 }
    }

    /// A fleet with two projects and three sleds.
    pub fn founded() -> Self {
        let mut fleet = Self::new();
        for step in [Move::Project(0), Move::Project(1), Move::Boot(0), Move::Boot(1), Move::Boot(2)] {
            fleet.act(&step);
        }
        fleet
    }

    pub fn records(&self) -> Vec<Record> {
        self.log.read_all(Position::new(1), usize::MAX).unwrap()
    }

    pub fn mint(&mut self) -> Uuid {
        self.minted += 1;
        Uuid::from_u128((self.minted << 64) | 0xabc)
    }

    /// Appends events as their stream's owner.
    pub fn append(&mut self, stream: StreamName, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let claim = self.log.claim(stream.id()).now_or_never().unwrap().unwrap();
        let last = self.log.read_stream(stream.id(), claim.head.version, 1).unwrap();
        let last = Timestamp::from_micros(last.first().map_or(0, |record| record.time_us));
        self.clock += 500;
        let now = Timestamp::from_micros(self.clock);
        let context = Context::of(Actor::Daemon);
        let append =
            journal::append(stream, claim.epoch, claim.head.version, &events, &context, now, last, "test");
        let outcome = self.log.append(append.unwrap()).now_or_never().unwrap();
        assert!(matches!(outcome, AppendOutcome::Appended { .. }), "{outcome:?}");
    }

    fn refold(&mut self, stream: StreamName) {
        let records = self.log.read_stream(stream.id(), Version::new(1), usize::MAX).unwrap();
        match stream {
            StreamName::Instance(id) => {
                self.instances.insert(id, journal::fold_instance(&records).unwrap().unwrap());
            }
            StreamName::Project(id) => {
                self.projects.insert(id, journal::fold_project(&records).unwrap().unwrap());
            }
            StreamName::Sled(_) | StreamName::System => {}
        }
    }

    /// Decides an input of an instance and appends the outcome; a refusal leaves no trace.
    pub fn give(&mut self, id: InstanceId, input: &Input) {
        if let Ok(Decision::Events(events)) = decide(self.instances.get(&id), input, &Policy::default())
            && !events.is_empty()
        {
            self.append(StreamName::Instance(id), events.into_iter().map(Event::from).collect());
            self.refold(StreamName::Instance(id));
        }
    }

    pub fn project(&mut self, n: usize, event: ProjectEvent) {
        let stream = StreamName::Project(project_id(n));
        self.append(stream, vec![event.into()]);
        self.refold(stream);
    }

    pub fn grant(&mut self, on: usize) -> StartGrant {
        StartGrant { saga: SagaId::new(self.mint()), vmm: VmmId::new(self.mint()), sled: sled_id(on) }
    }

    /// Creates an instance, which must be possible.
    pub fn create(&mut self, project: usize, name: &str, on: Option<usize>) -> InstanceId {
        let id = InstanceId::new(self.mint());
        let start = on.map(|on| Ok(self.grant(on)));
        let spec = Box::new(InstanceSpec {
            project: project_id(project),
            name: name.to_owned(),
            description: "of the test fleet".to_owned(),
            hostname: name.to_owned(),
            size: Size { ncpus: 2, memory: 4 << 30 },
            auto_restart: None,
        });
        let address =
            Address { virtual_ip: Ipv4Addr::new(172, 16, 0, 5), mac: [0xa8, 0x40, 172, 16, 0, 5], vni: 1024 };
        self.give(id, &Input::Command(Command::Create { id, spec, address, start }));
        assert!(self.instances.contains_key(&id));
        id
    }

    pub fn delete(&mut self, id: InstanceId) {
        self.give(id, &Input::Command(Command::Delete));
        assert!(self.instances[&id].deleted.is_some());
    }

    fn holds_name(&self, project: ProjectId, name: &str) -> bool {
        let is_it = |i: &Instance| i.spec.project == project && i.spec.name == name && i.deleted.is_none();
        self.instances.values().any(is_it)
    }

    fn nth(&self, n: usize) -> Option<InstanceId> {
        self.instances.keys().nth(n % self.instances.len().max(1)).copied()
    }

    pub fn newest_vmm(&self, id: InstanceId) -> Option<(VmmId, SledId)> {
        let records =
            self.log.read_stream(StreamName::Instance(id).id(), Version::new(1), usize::MAX).unwrap();
        records.iter().rev().find_map(|record| match journal::read(record).unwrap().event {
            Event::Instance(InstanceEvent::StartBegan { vmm, sled, .. }) => Some((vmm, sled)),
            _ => None,
        })
    }

    pub fn report(&mut self, id: InstanceId, generation: u64, state: VmmState) {
        if let Some((vmm, sled)) = self.newest_vmm(id) {
            let report = VmmReport {
                state,
                generation: Generation::new(generation),
                migration_in: None,
                migration_out: None,
            };
            self.give(id, &Input::Report { sled, vmm, report });
        }
    }

    fn sled_exists(&self, n: usize) -> bool {
        self.log.head(StreamName::Sled(sled_id(n)).id()).version != Version::ZERO
    }

    fn boot(&mut self, n: usize) {
        let stream = StreamName::Sled(sled_id(n));
        let records = self.log.read_stream(stream.id(), Version::new(1), usize::MAX).unwrap();
        let sled = journal::fold_sled(&records).unwrap();
        let registration = lifecycle::sled::Registration {
            id: sled_id(n),
            properties: lifecycle::sled::SledProperties {
                name: format!("sled-{n}"),
                threads: 64,
                memory: 256 << 30,
                cpu_family: "sim".to_owned(),
                address: String::new(),
            },
            boot: BootId::new(self.mint()),
        };
        if let Ok(events) = lifecycle::sled::register(sled.as_ref(), &registration) {
            self.append(stream, events.into_iter().map(Event::from).collect());
        }
    }

    /// Makes the move, if it is possible.
    pub fn act(&mut self, step: &Move) {
        match *step {
            Move::Project(_) | Move::Rename(_) | Move::DropProject(_) => self.act_on_project(step),
            Move::Boot(n) => self.boot(n),
            Move::Cordon(n, provisionable) if self.sled_exists(n) => {
                let event = SledEvent::ProvisionableChanged { provisionable, reason: "test".to_owned() };
                self.append(StreamName::Sled(sled_id(n)), vec![event.into()]);
            }
            Move::Expunge(n) if self.sled_exists(n) => {
                let event = SledEvent::Expunged { reason: "test".to_owned() };
                self.append(StreamName::Sled(sled_id(n)), vec![event.into()]);
            }
            Move::Cordon(..) | Move::Expunge(_) => {}
            Move::Create { project, name: n, on } => {
                let is_open = self.projects.get(&project_id(project)).is_some_and(|p| p.deleted.is_none());
                if is_open && !self.holds_name(project_id(project), &name(n)) {
                    self.create(project, &name(n), on);
                }
            }
            Move::Daemon => self.append(StreamName::System, vec![SystemEvent::DaemonStopped.into()]),
            Move::Start { instance, .. }
            | Move::Stop(instance)
            | Move::Reboot(instance)
            | Move::Delete(instance)
            | Move::Report { instance, .. }
            | Move::Answer { instance, .. }
            | Move::Gone { instance, .. } => {
                if let Some(id) = self.nth(instance) {
                    self.act_on_instance(id, step);
                }
            }
        }
    }

    fn act_on_project(&mut self, step: &Move) {
        let (Move::Project(n) | Move::Rename(n) | Move::DropProject(n)) = *step else {
            return;
        };
        let id = project_id(n);
        let is_open = self.projects.get(&id).map(|project| project.deleted.is_none());
        let is_empty = !self.instances.values().any(|i| i.spec.project == id && i.deleted.is_none());
        let description = String::new();
        match (step, is_open) {
            (Move::Project(_), None) => {
                self.project(
                    n,
                    ProjectEvent::Created { id, name: format!("project-{n}"), description, vni: 1024 },
                );
            }
            (Move::Rename(_), Some(true)) => {
                let renamed = format!("project-{n}-{}", self.clock);
                self.project(n, ProjectEvent::Changed { name: renamed, description });
            }
            (Move::DropProject(_), Some(true)) if is_empty => self.project(n, ProjectEvent::Deleted),
            _ => {}
        }
    }

    fn act_on_instance(&mut self, id: InstanceId, step: &Move) {
        let input = match *step {
            Move::Start { on, .. } => {
                let grant = Some(self.grant(on));
                Input::Command(Command::Start { grant })
            }
            Move::Stop(_) => Input::Command(Command::Stop { op: OpId::new(self.mint()) }),
            Move::Reboot(_) => Input::Command(Command::Reboot { op: OpId::new(self.mint()) }),
            Move::Delete(_) => Input::Command(Command::Delete),
            Move::Report { generation, state, .. } => {
                return self.report(id, generation, VmmState::ALL[state]);
            }
            Move::Answer { answer, .. } => {
                let Some(effect) = effects(&self.instances[&id]).first().copied() else {
                    return;
                };
                let result = match answer {
                    0..4 => EffectResult::Done(None),
                    4 => EffectResult::Refused(Refusal::NoRoom),
                    _ => EffectResult::Refused(Refusal::NoSuchVmm),
                };
                Input::Outcome { effect, result }
            }
            Move::Gone { evidence, .. } => {
                let Some((vmm, _)) = self.newest_vmm(id) else {
                    return;
                };
                Input::Gone { vmm, evidence: EVIDENCE[evidence] }
            }
            _ => return,
        };
        self.give(id, &input);
    }
}
