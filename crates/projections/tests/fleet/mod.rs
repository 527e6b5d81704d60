//! A fleet that writes history: moves go in, the rules decide, a simulated log keeps what was decided.

#![allow(dead_code, clippy::unwrap_used, reason = "a stage for tests; each uses its own part")]

use eventlog::{AppendOutcome, Log, Position, Record, SimLog, Version};
use futures::FutureExt;
use journal::{Actor, Context, Event, StreamName};
use lifecycle::input::{EffectResult, MigrateGrant, Refusal, SideReport, StartGrant, VmmReport};
use lifecycle::instance::Instance;
use lifecycle::migration::SideState;
use lifecycle::project::{GroupCommand, Project};
use lifecycle::{
    Address, BootId, Command, Deadline, Decision, Evidence, Generation, GroupId, GroupPolicy, Input,
    InstanceEvent, InstanceId, InstanceSpec, MigrationId, OpId, Policy, ProjectEvent, ProjectId, Quota,
    QuotaScope, SagaId, Size, SledEvent, SledId, SystemEvent, Timestamp, VmmId, VmmState, deadlines, decide,
    effects,
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
    Migrate { instance: usize, on: usize },
    CancelMigration(usize),
    Side { instance: usize, is_source: bool, state: usize, generation: u64 },
    Deadline(usize),
    ForceStop(usize),
    Resize(usize, u16),
    Quota { scope: usize, cpus: u64 },
    Group { project: usize, group: usize, act: usize, instance: usize },
    Drain(usize, bool),
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
        2 => (0..3usize, any::<bool>()).prop_map(|(sled, begins)| Move::Drain(sled, begins)),
        2 => (0..4usize, 0..100u64).prop_map(|(scope, cpus)| Move::Quota { scope, cpus }),
        6 => (0..3usize, 0..3usize, 0..6usize, 0..8usize)
            .prop_map(|(project, group, act, instance)| Move::Group { project, group, act, instance }),
        22 => any_migrating_move(),
    ]
}

fn any_migrating_move() -> impl Strategy<Value = Move> {
    let n = 0..4usize;
    prop_oneof![
        // A way to run, and there to a migration that has begun.
        3 => n.clone().prop_map(|instance| Move::Report { instance, generation: 1, state: 3 }),
        4 => (n.clone(), 0..3usize).prop_map(|(instance, on)| Move::Migrate { instance, on }),
        4 => n.clone().prop_map(|instance| Move::Answer { instance, answer: 0 }),
        1 => n.clone().prop_map(Move::CancelMigration),
        6 => (n.clone(), any::<bool>(), 0..4usize, 1..9u64).prop_map(
            |(instance, is_source, state, generation)| Move::Side { instance, is_source, state, generation }
        ),
        2 => n.clone().prop_map(Move::Deadline),
        1 => n.clone().prop_map(Move::ForceStop),
        1 => (n, 1..9u16).prop_map(|(instance, ncpus)| Move::Resize(instance, ncpus)),
    ]
}

/// The fleet as its writers know it.
pub struct Fleet {
    pub log: SimLog,
    pub instances: BTreeMap<InstanceId, Instance>,
    pub projects: BTreeMap<ProjectId, Project>,
    pub quotas: BTreeMap<QuotaScope, Quota>,
    minted: u128,
    clock: u64,
}

pub fn project_id(n: usize) -> ProjectId {
    ProjectId::new(Uuid::from_u128(0x9000 + n as u128))
}

/// Group number `n` of a project.
pub fn group_id(project: usize, n: usize) -> GroupId {
    GroupId::new(Uuid::from_u128(0x7000 + (project * 16 + n) as u128))
}

pub fn sled_id(n: usize) -> SledId {
    SledId::new(Uuid::from_u128(0x5000 + n as u128))
}

/// The name that instance number `n` of a project asks for.
pub fn name(n: usize) -> String {
    format!("web-{n}")
}

const SIDE_STATES: [SideState; 4] =
    [SideState::Pending, SideState::InProgress, SideState::Completed, SideState::Failed];

const EVIDENCE: [Evidence; 3] = [Evidence::SledRebooted, Evidence::LeaseExpired, Evidence::Asserted];

impl Fleet {
    pub fn new() -> Self {
        let (instances, projects, quotas) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { log: SimLog::new(), instances, projects, quotas, minted: 0, clock: 1_000_000 }
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
            cpu_platform: None,
            boot_disk: None,
            jumbo_frames: false,
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
            Event::Instance(
                InstanceEvent::StartBegan { vmm, sled, .. } | InstanceEvent::MigrateBegan { vmm, sled, .. },
            ) => Some((vmm, sled)),
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

    /// Lets one side of the linked migration report its state.
    pub fn side(&mut self, id: InstanceId, is_source: bool, state: SideState, generation: u64) {
        let instance = &self.instances[&id];
        let Some(migration) = instance.linked_migration() else {
            return;
        };
        let vmm = &instance.vmms[&if is_source { migration.source.vmm } else { migration.target.vmm }];
        let generation = Generation::new(generation);
        let part = Some(SideReport { migration: migration.id, state, generation });
        let (migration_in, migration_out) = if is_source { (None, part) } else { (part, None) };
        let report = VmmReport { state: vmm.state, generation: vmm.generation, migration_in, migration_out };
        self.give(id, &Input::Report { sled: vmm.sled, vmm: vmm.id, report });
    }

    pub fn migrate_grant(&mut self, on: usize) -> MigrateGrant {
        let StartGrant { saga, vmm, sled } = self.grant(on);
        MigrateGrant { saga, migration: MigrationId::new(self.mint()), vmm, sled }
    }

    /// Creates an instance, which runs.
    pub fn running(&mut self, project: usize, name: &str, on: usize) -> InstanceId {
        let id = self.create(project, name, Some(on));
        self.report(id, 1, VmmState::Starting);
        self.report(id, 2, VmmState::Running);
        assert_eq!(self.instances[&id].saga, None);
        id
    }

    /// Begins a migration, which must be possible, and takes it past its point of no return.
    pub fn migrating(&mut self, id: InstanceId, on: usize) -> MigrationId {
        let grant = self.migrate_grant(on);
        self.give(id, &Input::Command(Command::Migrate { grant: Some(grant) }));
        self.report(id, 1, VmmState::Migrating);
        assert_eq!(self.instances[&id].migration, Some(grant.migration));
        grant.migration
    }

    /// The deadlines that run for an instance.
    pub fn deadlines(&self, id: InstanceId) -> Vec<Deadline> {
        deadlines(&self.instances[&id], &Policy::default())
    }

    pub fn set_quota(&mut self, scope: QuotaScope, quota: Quota) {
        self.append(StreamName::System, vec![SystemEvent::QuotaSet { scope, quota }.into()]);
        self.quotas.insert(scope, quota);
    }

    /// Asks something of a project's groups; a refusal leaves no trace.
    pub fn group(&mut self, project: usize, command: &GroupCommand) {
        let state = &self.projects[&project_id(project)];
        let exists = |id| self.instances.get(&id).is_some_and(|it: &Instance| it.deleted.is_none());
        if let Ok(events) = lifecycle::project::decide_group(state, command, exists) {
            self.append(
                StreamName::Project(project_id(project)),
                events.into_iter().map(Event::from).collect(),
            );
            self.refold(StreamName::Project(project_id(project)));
        }
    }

    fn act_on_group(&mut self, project: usize, n: usize, act: usize, instance: usize) {
        let Some(state) = self.projects.get(&project_id(project)).filter(|it| it.deleted.is_none()) else {
            return;
        };
        let group = group_id(project, n);
        // Ids are minted, so none is asked for twice while it is there.
        let is_new = !state.groups.contains_key(&group);
        let member = self.nth(instance);
        let command = match (act, member) {
            (0 | 1, _) if is_new => GroupCommand::Create {
                group,
                name: format!("spread-{}", (n + act) % 3),
                description: String::new(),
                policy: if act == 0 { GroupPolicy::Allow } else { GroupPolicy::Fail },
            },
            (2 | 3, Some(instance)) => GroupCommand::Join { group, instance },
            (0 | 1 | 4, Some(instance)) => GroupCommand::Leave { group, instance },
            _ => GroupCommand::Delete { group },
        };
        self.group(project, &command);
    }

    fn drain(&mut self, n: usize, begins: bool) {
        let stream = StreamName::Sled(sled_id(n));
        let records = self.log.read_stream(stream.id(), Version::new(1), usize::MAX).unwrap();
        let command = if begins {
            lifecycle::sled::SledCommand::Drain("test".to_owned())
        } else {
            lifecycle::sled::SledCommand::Drained
        };
        if let Some(sled) = journal::fold_sled(&records).unwrap()
            && let Ok(events) = lifecycle::sled::decide(&sled, &command)
        {
            self.append(stream, events.into_iter().map(Event::from).collect());
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
            held: None,
        };
        if let Ok(events) = lifecycle::sled::register(sled.as_ref(), &registration, None) {
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
            Move::Drain(n, begins) => self.drain(n, begins),
            Move::Quota { scope, cpus } => {
                let quota = Quota { cpus: Some(cpus), memory: None };
                match scope {
                    0 => self.set_quota(QuotaScope::Silo, quota),
                    1 => self.set_quota(QuotaScope::Fleet, Quota::default()),
                    _ if self.projects.get(&project_id(0)).is_some_and(|it| it.deleted.is_none()) => {
                        self.project(0, ProjectEvent::QuotaSet { quota });
                    }
                    _ => {}
                }
            }
            Move::Group { project, group, act, instance } => self.act_on_group(project, group, act, instance),
            Move::Daemon => self.append(StreamName::System, vec![SystemEvent::DaemonStopped.into()]),
            Move::Start { instance, .. }
            | Move::Stop(instance)
            | Move::Reboot(instance)
            | Move::Delete(instance)
            | Move::Report { instance, .. }
            | Move::Answer { instance, .. }
            | Move::Gone { instance, .. }
            | Move::Migrate { instance, .. }
            | Move::CancelMigration(instance)
            | Move::Side { instance, .. }
            | Move::Deadline(instance)
            | Move::ForceStop(instance)
            | Move::Resize(instance, _) => {
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
            Move::Migrate { on, .. } => {
                let grant = Some(self.migrate_grant(on));
                Input::Command(Command::Migrate { grant })
            }
            Move::CancelMigration(_) => Input::Command(Command::CancelMigration),
            Move::Side { is_source, state, generation, .. } => {
                return self.side(id, is_source, SIDE_STATES[state], generation);
            }
            Move::Deadline(_) => {
                let Some(deadline) = self.deadlines(id).first().copied() else {
                    return;
                };
                Input::Deadline(deadline.kind)
            }
            Move::ForceStop(_) => {
                Input::Command(Command::ForceStop { assert_dead: false, reason: "test".to_owned() })
            }
            Move::Resize(_, ncpus) => {
                let mut change = Box::new(self.instances[&id].spec.changeable());
                change.size.ncpus = ncpus;
                Input::Command(Command::Update { change })
            }
            _ => return,
        };
        self.give(id, &input);
    }
}
