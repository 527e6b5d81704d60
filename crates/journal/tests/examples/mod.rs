//! Fixed examples of everything that is stored: each event and input, with every variant of every value
//! inside at least once. What they encode to is frozen in `tests/golden`.

#![allow(dead_code, clippy::unwrap_used, reason = "examples for tests; each uses its own part")]

use journal::Event;
use lifecycle::event::Update;
use lifecycle::input::{Refusal, SideReport, StartGrant, VmmReport};
use lifecycle::instance::{Intent, UnwindReason};
use lifecycle::migration::SideState;
use lifecycle::{
    Address, AutoRestartPolicy, BootId, Command, DeadlineKind, Effect, EffectResult, Evidence, FailureReason,
    Generation, Input, InstanceEvent, InstanceId, InstanceSpec, LeaseEpoch, MigrationId, OpId, Origin,
    ProjectEvent, ProjectId, SagaId, Shortage, Size, SledEvent, SledId, Span, Step, SystemEvent, VmmId,
    VmmState,
};
use std::net::Ipv4Addr;
use uuid::Uuid;

pub const STEPS: [Step; 9] = [
    Step::Reserve,
    Step::Allocate,
    Step::Network,
    Step::Fence,
    Step::Register,
    Step::Producer,
    Step::SetRunning,
    Step::Journal,
    Step::Commit,
];

pub const FAILURES: [FailureReason; 8] = [
    FailureReason::FromSled,
    FailureReason::NoSuchVmm,
    FailureReason::SledExpunged,
    FailureReason::SledRebooted,
    FailureReason::SledOff,
    FailureReason::StartTimeout,
    FailureReason::LeaseExpired,
    FailureReason::Operator,
];

pub const EVIDENCES: [Evidence; 8] = [
    Evidence::Reported,
    Evidence::Unregistered,
    Evidence::AbsentFromInventory,
    Evidence::SledRebooted,
    Evidence::SledExpunged,
    Evidence::LeaseExpired,
    Evidence::NeverSent,
    Evidence::Asserted,
];

pub const REFUSALS: [Refusal; 7] = [
    Refusal::NoSuchVmm,
    Refusal::Tombstoned,
    Refusal::StaleEpoch,
    Refusal::NoRoom,
    Refusal::OtherInstance,
    Refusal::NotPossible,
    Refusal::Malformed,
];

pub const INTENTS: [Intent; 4] = [Intent::Running, Intent::Stopped, Intent::GuestShutdown, Intent::Destroyed];

pub const ORIGINS: [Origin; 3] = [Origin::User, Origin::Creation, Origin::Automatic];

pub const SIDE_STATES: [SideState; 4] =
    [SideState::Pending, SideState::InProgress, SideState::Completed, SideState::Failed];

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128((n << 120) | 0x11_2233_4455_6677_8899_aabb_ccdd_eeff)
}

fn vmm() -> VmmId {
    VmmId::new(uuid(2))
}

fn sled() -> SledId {
    SledId::new(uuid(3))
}

fn saga() -> SagaId {
    SagaId::new(uuid(4))
}

fn op() -> OpId {
    OpId::new(uuid(5))
}

fn migration() -> MigrationId {
    MigrationId::new(uuid(6))
}

const SIZE: Size = Size { ncpus: 4, memory: 8 << 30 };

fn spec(auto_restart: Option<AutoRestartPolicy>) -> InstanceSpec {
    InstanceSpec {
        project: ProjectId::new(uuid(7)),
        name: "web-1".to_owned(),
        description: "front end, größer".to_owned(),
        hostname: "web-1.example".to_owned(),
        size: SIZE,
        auto_restart,
    }
}

fn address() -> Address {
    Address { virtual_ip: Ipv4Addr::new(172, 30, 0, 5), mac: [0xa8, 0x40, 0x25, 1, 2, 3], vni: 0x00ab_cdef }
}

fn grant() -> StartGrant {
    StartGrant { saga: saga(), vmm: vmm(), sled: sled() }
}

pub fn shortages() -> [Shortage; 3] {
    let room = Shortage::Room { wanted: SIZE, threads_free_max: 3, memory_free_max: (1 << 40) + (1 << 30) };
    [Shortage::NoSled, room, Shortage::Addresses]
}

fn unwind_reasons() -> Vec<UnwindReason> {
    let others = [UnwindReason::Deadline, UnwindReason::StopRequested, UnwindReason::VmmEnded];
    REFUSALS.into_iter().map(UnwindReason::Refused).chain(others).collect()
}

fn reports() -> Vec<VmmReport> {
    let bare = |state| VmmReport {
        state,
        generation: Generation::new(300),
        migration_in: None,
        migration_out: None,
    };
    let side = |state| SideReport { migration: migration(), state, generation: Generation::new(70_000) };
    let mut reports: Vec<_> = VmmState::ALL.into_iter().map(bare).collect();
    for state in SIDE_STATES {
        let migrating = bare(VmmState::Migrating);
        reports.push(VmmReport { migration_in: Some(side(state)), ..migrating });
        reports.push(VmmReport { migration_out: Some(side(state)), ..migrating });
    }
    reports
}

fn updates() -> Vec<Update> {
    let full = Update {
        active: Some(vmm()),
        target: Some(VmmId::new(uuid(8))),
        migration: Some(migration()),
        intent: Intent::Running,
        network: Some(sled()),
        failed: Some((vmm(), FailureReason::LeaseExpired)),
        closed: Some(MigrationId::new(uuid(9))),
    };
    let bare = |intent| Update {
        active: None,
        target: None,
        migration: None,
        intent,
        network: None,
        failed: None,
        closed: None,
    };
    let mut updates = vec![full];
    updates.extend(INTENTS.map(bare));
    updates
}

fn instance_events() -> Vec<InstanceEvent> {
    use InstanceEvent as E;
    let created = |auto_restart, intent| E::Created {
        id: InstanceId::new(uuid(1)),
        spec: Box::new(spec(auto_restart)),
        address: address(),
        intent,
    };
    let mut events = vec![
        created(None, Intent::Running),
        created(Some(AutoRestartPolicy::Never), Intent::Stopped),
        created(Some(AutoRestartPolicy::BestEffort), Intent::Stopped),
    ];
    events.extend(shortages().map(|short| E::StartNotPlaced { origin: Origin::Creation, short }));
    events.extend(ORIGINS.map(|origin| E::StartBegan {
        saga: saga(),
        origin,
        vmm: vmm(),
        sled: sled(),
        size: SIZE,
        deadline: Span::from_secs(120),
    }));
    events.extend(STEPS.map(|step| E::SagaAdvanced { saga: saga(), step }));
    events.extend(unwind_reasons().into_iter().map(|reason| E::SagaUnwound {
        saga: saga(),
        step: Step::Register,
        reason,
        undone: vec![Step::Register, Step::Network, Step::Allocate, Step::Reserve],
    }));
    events.extend([true, false].map(|done| E::SagaEnded { saga: saga(), done }));
    events.extend(reports().into_iter().map(|report| E::VmmReported { vmm: vmm(), report }));
    events.extend(reports().into_iter().map(|report| E::ReportAnomalous { vmm: vmm(), report }));
    events.extend(FAILURES.map(|reason| E::VmmFailed { vmm: vmm(), reason }));
    events.extend(EVIDENCES.map(|evidence| E::VmmGone { vmm: vmm(), evidence }));
    events.push(E::VmmReaped { vmm: vmm() });
    events.push(E::StopRequested { op: op() });
    events.push(E::StopWithdrawn { op: op() });
    events.push(E::RebootRequested { op: op() });
    events.extend([true, false].map(|accepted| E::RebootAnswered { op: op(), accepted }));
    events.extend(updates().into_iter().map(E::Updated));
    events.push(E::Deleted);
    events
}

fn other_events() -> Vec<Event> {
    let (name, description) = ("demo".to_owned(), "first project".to_owned());
    vec![
        ProjectEvent::Created {
            id: ProjectId::new(uuid(7)),
            name: name.clone(),
            description: description.clone(),
            vni: 1024,
        }
        .into(),
        ProjectEvent::Changed { name, description }.into(),
        ProjectEvent::Deleted.into(),
        SledEvent::Registered {
            id: sled(),
            name: "sled-3".to_owned(),
            threads: 128,
            memory: 1 << 40,
            cpu_family: "amd_milan".to_owned(),
            address: "192.0.2.7:12400".to_owned(),
        }
        .into(),
        SledEvent::Booted { boot: BootId::new(uuid(10)), epoch: LeaseEpoch::new(3) }.into(),
        SledEvent::ProvisionableChanged { provisionable: false, reason: "maintenance".to_owned() }.into(),
        SledEvent::Expunged { reason: "caught fire".to_owned() }.into(),
        SystemEvent::DaemonStarted { build: "0.1.0".to_owned(), after_clean_stop: true }.into(),
        SystemEvent::DaemonStarted { build: "0.1.0".to_owned(), after_clean_stop: false }.into(),
        SystemEvent::DaemonStopped.into(),
        SystemEvent::LossAccepted { durable: 900, found: 700, nameless: 3 }.into(),
    ]
}

/// Every event, several times over.
pub fn events() -> Vec<Event> {
    instance_events().into_iter().map(Event::Instance).chain(other_events()).collect()
}

fn commands() -> Vec<(&'static str, Command)> {
    let create = |start| Command::Create {
        id: InstanceId::new(uuid(1)),
        spec: Box::new(spec(Some(AutoRestartPolicy::Never))),
        address: address(),
        start,
    };
    let mut commands = vec![("Create", create(None)), ("Create", create(Some(Ok(grant()))))];
    commands.extend(shortages().map(|short| ("Create", create(Some(Err(short))))));
    commands.extend([
        ("Start", Command::Start { grant: None }),
        ("Start", Command::Start { grant: Some(grant()) }),
        ("Stop", Command::Stop { op: op() }),
        ("Reboot", Command::Reboot { op: op() }),
        ("Delete", Command::Delete),
    ]);
    commands
}

fn outcomes() -> Vec<(&'static str, Input)> {
    let (vmm, sled, op) = (vmm(), sled(), op());
    let effects = [
        Effect::Register { vmm, sled },
        Effect::SetRunning { vmm, sled },
        Effect::Stop { vmm, sled, op },
        Effect::Reboot { vmm, sled, op },
        Effect::Unregister { vmm, sled },
    ];
    let mut results = vec![EffectResult::Done(None), EffectResult::Done(Some(reports()[0]))];
    results.extend(REFUSALS.map(EffectResult::Refused));
    let first = results.iter().map(|result| Input::Outcome { effect: effects[0], result: *result });
    let others = effects[1..].iter().map(|effect| Input::Outcome { effect: *effect, result: results[0] });
    first.chain(others).map(|input| ("Outcome", input)).collect()
}

/// Every input, several times over, each with the name of its variant.
pub fn inputs() -> Vec<(&'static str, Input)> {
    let (vmm, sled) = (vmm(), sled());
    let mut inputs: Vec<_> =
        commands().into_iter().map(|(name, command)| (name, Input::Command(command))).collect();
    inputs.extend(reports().into_iter().map(|report| ("Report", Input::Report { sled, vmm, report })));
    inputs.extend(outcomes());
    inputs.extend(EVIDENCES.map(|evidence| ("Gone", Input::Gone { vmm, evidence })));
    inputs.extend(EVIDENCES.map(|evidence| ("Absent", Input::Absent { vmm, asked_at: 77_000, evidence })));
    inputs.push(("Deadline", Input::Deadline(DeadlineKind::Saga(saga()))));
    inputs.push(("Reconsider", Input::Reconsider));
    inputs
}
