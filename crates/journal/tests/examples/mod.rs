//! Fixed examples of everything that is stored: each event and input, with every variant of every value
//! inside at least once. What they encode to is frozen in `tests/golden`, so a new example comes last of its
//! event or input: what an older schema had, it had in the same order.

#![allow(dead_code, clippy::unwrap_used, reason = "examples for tests; each uses its own part")]

use journal::Event;
use lifecycle::event::Update;
use lifecycle::input::{MigrateGrant, Refusal, SideReport, StartGrant, VmmReport};
use lifecycle::instance::{Intent, PauseCause, UnwindReason};
use lifecycle::migration::{CancelReason, SideState};
use lifecycle::quota::QuotaResource;
use lifecycle::rejected::SledUnfit;
use lifecycle::{
    Address, ArchiveFile, AutoRestartPolicy, BootId, Command, DeadlineKind, Effect, EffectResult, Evidence,
    FailureReason, Generation, GroupId, GroupPolicy, Input, InstanceEvent, InstanceId, InstanceSpec,
    LeaseEpoch, MigrationId, OpId, Origin, ProjectEvent, ProjectId, Quota, QuotaScope, SagaId, Shortage,
    Size, SledEvent, SledId, Span, SpecChange, Step, SystemEvent, VmmId, VmmState,
};
use std::net::Ipv4Addr;
use uuid::Uuid;

pub const STEPS: [Step; 10] = [
    Step::Reserve,
    Step::Allocate,
    Step::Network,
    Step::Fence,
    Step::Register,
    Step::Producer,
    Step::SetRunning,
    Step::Journal,
    Step::Commit,
    Step::MigrationTarget,
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

pub const CANCEL_REASONS: [CancelReason; 3] =
    [CancelReason::Requested, CancelReason::Deadline, CancelReason::Refused];

pub const GROUP_POLICIES: [GroupPolicy; 2] = [GroupPolicy::Allow, GroupPolicy::Fail];

pub const QUOTA_SCOPES: [QuotaScope; 3] = [QuotaScope::Project, QuotaScope::Silo, QuotaScope::Fleet];

pub const QUOTA_RESOURCES: [QuotaResource; 2] = [QuotaResource::Cpus, QuotaResource::Memory];

pub const SLEDS_UNFIT: [SledUnfit; 6] = [
    SledUnfit::Unknown,
    SledUnfit::NotProvisionable,
    SledUnfit::IsSource,
    SledUnfit::CpuFamily,
    SledUnfit::Spread,
    SledUnfit::Room,
];

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

fn group() -> GroupId {
    GroupId::new(uuid(11))
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
        cpu_platform: None,
        boot_disk: None,
        jumbo_frames: false,
    }
}

/// A specification with everything set.
fn full_spec() -> InstanceSpec {
    InstanceSpec {
        cpu_platform: Some("amd_milan".to_owned()),
        boot_disk: Some(uuid(12)),
        jumbo_frames: true,
        ..spec(Some(AutoRestartPolicy::BestEffort))
    }
}

fn changes() -> [SpecChange; 2] {
    [spec(None).changeable(), full_spec().changeable()]
}

fn quotas() -> [Quota; 3] {
    let full = Quota { cpus: Some(300), memory: Some(1 << 41) };
    [full, Quota { cpus: None, ..full }, Quota { memory: None, ..full }]
}

fn address() -> Address {
    Address { virtual_ip: Ipv4Addr::new(172, 30, 0, 5), mac: [0xa8, 0x40, 0x25, 1, 2, 3], vni: 0x00ab_cdef }
}

fn grant() -> StartGrant {
    StartGrant { saga: saga(), vmm: vmm(), sled: sled() }
}

fn migrate_grant() -> MigrateGrant {
    MigrateGrant { saga: saga(), migration: migration(), vmm: vmm(), sled: sled() }
}

pub fn shortages() -> Vec<Shortage> {
    let room = Shortage::Room { wanted: SIZE, threads_free_max: 3, memory_free_max: (1 << 40) + (1 << 30) };
    let mut shortages = vec![Shortage::NoSled, room, Shortage::Addresses];
    shortages.push(Shortage::CpuFamily { wanted: "amd_turin".to_owned() });
    shortages.push(Shortage::Spread { group: "spread-1".to_owned() });
    shortages.push(Shortage::NoOtherSled);
    shortages.extend(SLEDS_UNFIT.map(|why| Shortage::ThatSled { why }));
    for scope in QUOTA_SCOPES {
        shortages.extend(QUOTA_RESOURCES.map(|resource| Shortage::Quota {
            scope,
            resource,
            limit: 300,
            used: 298,
            wanted: 4,
        }));
    }
    shortages.push(Shortage::ThatSled { why: SledUnfit::OtherFabric });
    shortages
}

fn unwind_reasons() -> Vec<UnwindReason> {
    let others = [
        UnwindReason::Deadline,
        UnwindReason::StopRequested,
        UnwindReason::VmmEnded,
        UnwindReason::Cancelled,
    ];
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
    let created = |spec, intent| E::Created {
        id: InstanceId::new(uuid(1)),
        spec: Box::new(spec),
        address: address(),
        intent,
    };
    let mut events = vec![
        created(spec(None), Intent::Running),
        created(spec(Some(AutoRestartPolicy::Never)), Intent::Stopped),
        created(spec(Some(AutoRestartPolicy::BestEffort)), Intent::Stopped),
        created(full_spec(), Intent::Stopped),
    ];
    events.extend(shortages().into_iter().map(|short| E::StartNotPlaced { origin: Origin::Creation, short }));
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
    let causes = [PauseCause::Requested, PauseCause::Failures { count: 5 }];
    events.extend(causes.map(|cause| E::SagaPaused { saga: saga(), step: Step::Register, cause }));
    events.push(E::SagaResumed { saga: saga() });
    events.push(E::SagaRetried { saga: saga(), step: Step::SetRunning });
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
    events.push(E::Archived(archive_file()));
    events.extend(migration_events());
    events.push(E::RestartTried { attempt: 3 });
    let reason = "host lost power, größer".to_owned();
    events.extend(
        [true, false].map(|assert_dead| E::ForceStopRequested { assert_dead, reason: reason.clone() }),
    );
    events.extend(changes().map(|change| E::Reconfigured { change: Box::new(change) }));
    events
}

fn archive_file() -> ArchiveFile {
    ArchiveFile {
        file: "00000000-0000-0000-0000-00000000002a.arc".to_owned(),
        bytes: 70_000,
        checksum: 0x89ab_cdef,
        events: 300,
        first: 17,
        last: 77_000,
    }
}

fn migration_events() -> Vec<InstanceEvent> {
    use InstanceEvent as E;
    let mut events = vec![E::MigrateBegan {
        saga: saga(),
        migration: migration(),
        vmm: vmm(),
        sled: sled(),
        size: SIZE,
        deadline: Span::from_secs(600),
    }];
    events.extend(CANCEL_REASONS.map(|reason| E::MigrationCancelled { migration: migration(), reason }));
    events.push(E::MigrationGivenUp { migration: migration() });
    events
}

fn later_events() -> Vec<Event> {
    let (group, instance) = (group(), InstanceId::new(uuid(1)));
    let created = |policy| {
        let (name, description) = ("spread-1".to_owned(), "replicas".to_owned());
        ProjectEvent::GroupCreated { group, name, description, policy }
    };
    let mut events: Vec<Event> = quotas().map(|quota| ProjectEvent::QuotaSet { quota }.into()).into();
    events.extend(GROUP_POLICIES.map(|policy| created(policy).into()));
    events.push(ProjectEvent::GroupJoined { group, instance }.into());
    events.push(ProjectEvent::GroupLeft { group, instance }.into());
    events.push(ProjectEvent::GroupDeleted { group }.into());
    events.push(SledEvent::DrainBegan { reason: "firmware".to_owned() }.into());
    events.extend([true, false].map(|done| SledEvent::DrainEnded { done }.into()));
    let epoch = LeaseEpoch::new(4);
    events.extend([Some(30), None].map(|seconds| SledEvent::LeaseBegan { epoch, seconds }.into()));
    events.push(SledEvent::LeaseExpired { epoch }.into());
    for scope in QUOTA_SCOPES {
        events.extend(quotas().map(|quota| SystemEvent::QuotaSet { scope, quota }.into()));
    }
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
    instance_events().into_iter().map(Event::Instance).chain(other_events()).chain(later_events()).collect()
}

fn commands() -> Vec<(&'static str, Command)> {
    let create_of = |spec, start| Command::Create {
        id: InstanceId::new(uuid(1)),
        spec: Box::new(spec),
        address: address(),
        start,
    };
    let create = |start| create_of(spec(Some(AutoRestartPolicy::Never)), start);
    let mut commands = vec![("Create", create(None)), ("Create", create(Some(Ok(grant()))))];
    commands.extend(shortages().into_iter().map(|short| ("Create", create(Some(Err(short))))));
    commands.push(("Create", create_of(full_spec(), None)));
    commands.extend([
        ("Start", Command::Start { grant: None }),
        ("Start", Command::Start { grant: Some(grant()) }),
        ("Stop", Command::Stop { op: op() }),
        ("Reboot", Command::Reboot { op: op() }),
        ("Delete", Command::Delete),
        ("Migrate", Command::Migrate { grant: None }),
        ("Migrate", Command::Migrate { grant: Some(migrate_grant()) }),
        ("CancelMigration", Command::CancelMigration),
        ("CancelSaga", Command::CancelSaga { saga: saga() }),
        ("PauseSaga", Command::PauseSaga { saga: saga() }),
        ("ResumeSaga", Command::ResumeSaga { saga: saga() }),
        ("RetrySaga", Command::RetrySaga { saga: saga() }),
        ("ForceStop", Command::ForceStop { assert_dead: true, reason: "it hangs".to_owned() }),
        (
            "ForceStopOf",
            Command::ForceStopOf { vmm: vmm(), assert_dead: true, reason: "it hangs".to_owned() },
        ),
        ("ForceStop", Command::ForceStop { assert_dead: false, reason: "it hangs".to_owned() }),
    ]);
    commands.extend(changes().map(|change| ("Update", Command::Update { change: Box::new(change) })));
    commands
}

fn outcomes() -> Vec<(&'static str, Input)> {
    let (vmm, sled, op, migration) = (vmm(), sled(), op(), migration());
    let effects = [
        Effect::Register { vmm, sled },
        Effect::SetRunning { vmm, sled },
        Effect::Stop { vmm, sled, op },
        Effect::Reboot { vmm, sled, op },
        Effect::Unregister { vmm, sled },
        Effect::MigrationTarget { vmm, sled, migration },
        Effect::MigrationCancel { vmm, sled, migration },
        Effect::Ask { vmm, sled },
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
    let deadlines = [
        DeadlineKind::Saga(saga()),
        DeadlineKind::Migration(migration()),
        DeadlineKind::Undecided(migration()),
        DeadlineKind::Restart,
    ];
    inputs.extend(deadlines.map(|kind| ("Deadline", Input::Deadline(kind))));
    let effect = Effect::Register { vmm, sled };
    inputs.push(("StepFailed", Input::StepFailed { effect, failures: 5 }));
    inputs.push(("Reconsider", Input::Reconsider));
    inputs.push(("Archived", Input::Archived(archive_file())));
    inputs.push(("Restart", Input::Restart(Ok(grant()))));
    inputs.extend(shortages().into_iter().map(|short| ("Restart", Input::Restart(Err(short)))));
    inputs
}
