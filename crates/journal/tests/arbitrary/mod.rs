//! Strategies for arbitrary events and inputs, whether or not the rules would ever produce them.

#![allow(clippy::unwrap_used, reason = "strategies for tests")]

use crate::examples::{
    CANCEL_REASONS, EVIDENCES, FAILURES, GROUP_POLICIES, INTENTS, ORIGINS, QUOTA_RESOURCES, QUOTA_SCOPES,
    REFUSALS, SIDE_STATES, SLEDS_UNFIT, STEPS,
};
use journal::Event;
use lifecycle::event::Update;
use lifecycle::input::{MigrateGrant, SideReport, StartGrant, VmmReport};
use lifecycle::instance::{PauseCause, UnwindReason};
use lifecycle::{
    Address, ArchiveFile, AutoRestartPolicy, BootId, Command, DeadlineKind, Effect, EffectResult, Generation,
    GroupId, Input, InstanceEvent, InstanceId, InstanceSpec, LeaseEpoch, MigrationId, OpId, ProjectEvent,
    ProjectId, Quota, SagaId, Shortage, Size, SledEvent, SledId, Span, SpecChange, SystemEvent, VmmId,
    VmmState,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

fn id<T: std::fmt::Debug>(wrap: fn(Uuid) -> T) -> impl Strategy<Value = T> {
    any::<u128>().prop_map(move |n| wrap(Uuid::from_u128(n)))
}

fn size() -> impl Strategy<Value = Size> {
    (any::<u16>(), any::<u64>()).prop_map(|(ncpus, memory)| Size { ncpus, memory })
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter)
}

fn change() -> impl Strategy<Value = SpecChange> {
    let policy = option::of(select(&[AutoRestartPolicy::Never, AutoRestartPolicy::BestEffort][..]));
    (size(), policy, option::of(text()), option::of(any::<u128>().prop_map(Uuid::from_u128)), any::<bool>())
        .prop_map(|(size, auto_restart, cpu_platform, boot_disk, jumbo_frames)| SpecChange {
            size,
            auto_restart,
            cpu_platform,
            boot_disk,
            jumbo_frames,
        })
}

fn spec() -> impl Strategy<Value = Box<InstanceSpec>> {
    (id(ProjectId::new), text(), text(), text(), change()).prop_map(
        |(project, name, description, hostname, change)| {
            let SpecChange { size, auto_restart, cpu_platform, boot_disk, jumbo_frames } = change;
            Box::new(InstanceSpec {
                project,
                name,
                description,
                hostname,
                size,
                auto_restart,
                cpu_platform,
                boot_disk,
                jumbo_frames,
            })
        },
    )
}

fn quota() -> impl Strategy<Value = Quota> {
    any::<(Option<u64>, Option<u64>)>().prop_map(|(cpus, memory)| Quota { cpus, memory })
}

fn address() -> impl Strategy<Value = Address> {
    (any::<u32>(), any::<[u8; 6]>(), any::<u32>()).prop_map(|(ip, mac, vni)| Address {
        virtual_ip: ip.into(),
        mac,
        vni,
    })
}

fn shortage() -> impl Strategy<Value = Shortage> {
    prop_oneof![
        Just(Shortage::NoSled),
        (size(), any::<u32>(), any::<u64>()).prop_map(|(wanted, threads_free_max, memory_free_max)| {
            Shortage::Room { wanted, threads_free_max, memory_free_max }
        }),
        Just(Shortage::Addresses),
        text().prop_map(|wanted| Shortage::CpuFamily { wanted }),
        text().prop_map(|group| Shortage::Spread { group }),
        Just(Shortage::NoOtherSled),
        select(&SLEDS_UNFIT[..]).prop_map(|why| Shortage::ThatSled { why }),
        (select(&QUOTA_SCOPES[..]), select(&QUOTA_RESOURCES[..]), any::<(u64, u64, u64)>()).prop_map(
            |(scope, resource, (limit, used, wanted))| Shortage::Quota {
                scope,
                resource,
                limit,
                used,
                wanted
            }
        ),
    ]
}

fn side() -> impl Strategy<Value = SideReport> {
    (id(MigrationId::new), select(&SIDE_STATES[..]), any::<u64>()).prop_map(
        |(migration, state, generation)| SideReport {
            migration,
            state,
            generation: Generation::new(generation),
        },
    )
}

fn report() -> impl Strategy<Value = VmmReport> {
    (select(&VmmState::ALL[..]), any::<u64>(), option::of(side()), option::of(side())).prop_map(
        |(state, generation, migration_in, migration_out)| VmmReport {
            state,
            generation: Generation::new(generation),
            migration_in,
            migration_out,
        },
    )
}

fn unwind_reason() -> impl Strategy<Value = UnwindReason> {
    prop_oneof![
        select(&REFUSALS[..]).prop_map(UnwindReason::Refused),
        Just(UnwindReason::Deadline),
        Just(UnwindReason::StopRequested),
        Just(UnwindReason::VmmEnded),
        Just(UnwindReason::Cancelled),
    ]
}

fn update() -> impl Strategy<Value = Update> {
    (
        option::of(id(VmmId::new)),
        option::of(id(VmmId::new)),
        option::of(id(MigrationId::new)),
        select(&INTENTS[..]),
        option::of(id(SledId::new)),
        option::of((id(VmmId::new), select(&FAILURES[..]))),
        option::of(id(MigrationId::new)),
    )
        .prop_map(|(active, target, migration, intent, network, failed, closed)| Update {
            active,
            target,
            migration,
            intent,
            network,
            failed,
            closed,
        })
}

fn start_began() -> impl Strategy<Value = InstanceEvent> {
    (id(SagaId::new), select(&ORIGINS[..]), id(VmmId::new), id(SledId::new), size(), any::<u64>()).prop_map(
        |(saga, origin, vmm, sled, size, deadline)| InstanceEvent::StartBegan {
            saga,
            origin,
            vmm,
            sled,
            size,
            deadline: Span::from_micros(deadline),
        },
    )
}

fn saga_event() -> impl Strategy<Value = InstanceEvent> {
    use InstanceEvent as E;
    let step = || select(&STEPS[..]);
    prop_oneof![
        (select(&ORIGINS[..]), shortage()).prop_map(|(origin, short)| E::StartNotPlaced { origin, short }),
        start_began(),
        (id(SagaId::new), step()).prop_map(|(saga, step)| E::SagaAdvanced { saga, step }),
        (id(SagaId::new), step(), unwind_reason(), prop::collection::vec(step(), 0..12))
            .prop_map(|(saga, step, reason, undone)| E::SagaUnwound { saga, step, reason, undone }),
        (id(SagaId::new), any::<bool>()).prop_map(|(saga, done)| E::SagaEnded { saga, done }),
        (id(SagaId::new), step(), option::of(any::<u32>())).prop_map(|(saga, step, count)| {
            let cause = count.map_or(PauseCause::Requested, |count| PauseCause::Failures { count });
            E::SagaPaused { saga, step, cause }
        }),
        id(SagaId::new).prop_map(|saga| E::SagaResumed { saga }),
        (id(SagaId::new), step()).prop_map(|(saga, step)| E::SagaRetried { saga, step }),
    ]
}

fn migration_event() -> impl Strategy<Value = InstanceEvent> {
    use InstanceEvent as E;
    let migration = || id(MigrationId::new);
    prop_oneof![
        (id(SagaId::new), migration(), id(VmmId::new), id(SledId::new), size(), any::<u64>()).prop_map(
            |(saga, migration, vmm, sled, size, deadline)| E::MigrateBegan {
                saga,
                migration,
                vmm,
                sled,
                size,
                deadline: Span::from_micros(deadline),
            }
        ),
        (migration(), select(&CANCEL_REASONS[..]))
            .prop_map(|(migration, reason)| E::MigrationCancelled { migration, reason }),
        migration().prop_map(|migration| E::MigrationGivenUp { migration }),
    ]
}

fn vmm_event() -> impl Strategy<Value = InstanceEvent> {
    use InstanceEvent as E;
    let vmm = || id(VmmId::new);
    prop_oneof![
        (vmm(), report()).prop_map(|(vmm, report)| E::VmmReported { vmm, report }),
        (vmm(), report()).prop_map(|(vmm, report)| E::ReportAnomalous { vmm, report }),
        (vmm(), select(&FAILURES[..])).prop_map(|(vmm, reason)| E::VmmFailed { vmm, reason }),
        (vmm(), select(&EVIDENCES[..])).prop_map(|(vmm, evidence)| E::VmmGone { vmm, evidence }),
        vmm().prop_map(|vmm| E::VmmReaped { vmm }),
    ]
}

fn instance_event() -> impl Strategy<Value = InstanceEvent> {
    use InstanceEvent as E;
    let op = || id(OpId::new);
    prop_oneof![
        (id(InstanceId::new), spec(), address(), select(&INTENTS[..]))
            .prop_map(|(id, spec, address, intent)| E::Created { id, spec, address, intent }),
        saga_event(),
        vmm_event(),
        migration_event(),
        any::<u32>().prop_map(|attempt| E::RestartTried { attempt }),
        (any::<bool>(), text())
            .prop_map(|(assert_dead, reason)| E::ForceStopRequested { assert_dead, reason }),
        change().prop_map(|change| E::Reconfigured { change: Box::new(change) }),
        op().prop_map(|op| E::StopRequested { op }),
        op().prop_map(|op| E::StopWithdrawn { op }),
        op().prop_map(|op| E::RebootRequested { op }),
        (op(), any::<bool>()).prop_map(|(op, accepted)| E::RebootAnswered { op, accepted }),
        update().prop_map(E::Updated),
        Just(E::Deleted),
        archive_file().prop_map(E::Archived),
    ]
}

fn archive_file() -> impl Strategy<Value = ArchiveFile> {
    (text(), any::<(u64, u32, u64, u64, u64)>()).prop_map(|(file, (bytes, checksum, events, first, last))| {
        ArchiveFile { file, bytes, checksum, events, first, last }
    })
}

fn project_event() -> impl Strategy<Value = ProjectEvent> {
    use ProjectEvent as E;
    prop_oneof![
        (id(ProjectId::new), text(), text(), any::<u32>())
            .prop_map(|(id, name, description, vni)| E::Created { id, name, description, vni }),
        (text(), text()).prop_map(|(name, description)| E::Changed { name, description }),
        quota().prop_map(|quota| E::QuotaSet { quota }),
        (id(GroupId::new), text(), text(), select(&GROUP_POLICIES[..])).prop_map(
            |(group, name, description, policy)| E::GroupCreated { group, name, description, policy }
        ),
        (id(GroupId::new), id(InstanceId::new))
            .prop_map(|(group, instance)| E::GroupJoined { group, instance }),
        (id(GroupId::new), id(InstanceId::new))
            .prop_map(|(group, instance)| E::GroupLeft { group, instance }),
        id(GroupId::new).prop_map(|group| E::GroupDeleted { group }),
        Just(E::Deleted),
    ]
}

fn sled_event() -> impl Strategy<Value = SledEvent> {
    use SledEvent as E;
    prop_oneof![
        (id(SledId::new), text(), any::<u32>(), any::<u64>(), text(), text()).prop_map(
            |(id, name, threads, memory, cpu_family, address)| E::Registered {
                id,
                name,
                threads,
                memory,
                cpu_family,
                address,
            }
        ),
        (id(BootId::new), any::<u64>())
            .prop_map(|(boot, epoch)| E::Booted { boot, epoch: LeaseEpoch::new(epoch) }),
        (any::<bool>(), text())
            .prop_map(|(provisionable, reason)| E::ProvisionableChanged { provisionable, reason }),
        text().prop_map(|reason| E::Expunged { reason }),
        text().prop_map(|reason| E::DrainBegan { reason }),
        any::<bool>().prop_map(|done| E::DrainEnded { done }),
        any::<(u64, Option<u64>)>()
            .prop_map(|(epoch, seconds)| E::LeaseBegan { epoch: LeaseEpoch::new(epoch), seconds }),
        any::<u64>().prop_map(|epoch| E::LeaseExpired { epoch: LeaseEpoch::new(epoch) }),
    ]
}

/// Any event of any stream.
pub fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => instance_event().prop_map(Event::from),
        2 => project_event().prop_map(Event::from),
        2 => sled_event().prop_map(Event::from),
        1 => (text(), any::<bool>()).prop_map(|(build, after_clean_stop)| {
            Event::from(SystemEvent::DaemonStarted { build, after_clean_stop })
        }),
        1 => Just(Event::from(SystemEvent::DaemonStopped)),
        1 => any::<(u64, u64, u64)>().prop_map(|(durable, found, nameless)| {
            Event::from(SystemEvent::LossAccepted { durable, found, nameless })
        }),
        1 => (select(&QUOTA_SCOPES[..]), quota())
            .prop_map(|(scope, quota)| Event::from(SystemEvent::QuotaSet { scope, quota })),
    ]
}

fn grant() -> impl Strategy<Value = StartGrant> {
    (id(SagaId::new), id(VmmId::new), id(SledId::new)).prop_map(|(saga, vmm, sled)| StartGrant {
        saga,
        vmm,
        sled,
    })
}

fn migrate_grant() -> impl Strategy<Value = MigrateGrant> {
    (grant(), id(MigrationId::new)).prop_map(|(StartGrant { saga, vmm, sled }, migration)| MigrateGrant {
        saga,
        migration,
        vmm,
        sled,
    })
}

fn deadline() -> impl Strategy<Value = DeadlineKind> {
    prop_oneof![
        id(SagaId::new).prop_map(DeadlineKind::Saga),
        id(MigrationId::new).prop_map(DeadlineKind::Migration),
        id(MigrationId::new).prop_map(DeadlineKind::Undecided),
        Just(DeadlineKind::Restart),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let placement = prop_oneof![grant().prop_map(Ok), shortage().prop_map(Err)];
    prop_oneof![
        (id(InstanceId::new), spec(), address(), option::of(placement))
            .prop_map(|(id, spec, address, start)| Command::Create { id, spec, address, start }),
        option::of(grant()).prop_map(|grant| Command::Start { grant }),
        id(OpId::new).prop_map(|op| Command::Stop { op }),
        id(OpId::new).prop_map(|op| Command::Reboot { op }),
        Just(Command::Delete),
        option::of(migrate_grant()).prop_map(|grant| Command::Migrate { grant }),
        Just(Command::CancelMigration),
        id(SagaId::new).prop_map(|saga| Command::CancelSaga { saga }),
        id(SagaId::new).prop_map(|saga| Command::PauseSaga { saga }),
        id(SagaId::new).prop_map(|saga| Command::ResumeSaga { saga }),
        id(SagaId::new).prop_map(|saga| Command::RetrySaga { saga }),
        (any::<bool>(), text()).prop_map(|(assert_dead, reason)| Command::ForceStop { assert_dead, reason }),
        (id(VmmId::new), any::<bool>(), text()).prop_map(|(vmm, assert_dead, reason)| Command::ForceStopOf {
            vmm,
            assert_dead,
            reason
        }),
        change().prop_map(|change| Command::Update { change: Box::new(change) }),
    ]
}

fn effect() -> impl Strategy<Value = Effect> {
    (0..8usize, id(VmmId::new), id(SledId::new), id(OpId::new), id(MigrationId::new)).prop_map(
        |(n, vmm, sled, op, migration)| match n {
            0 => Effect::Register { vmm, sled },
            1 => Effect::SetRunning { vmm, sled },
            2 => Effect::Stop { vmm, sled, op },
            3 => Effect::Reboot { vmm, sled, op },
            4 => Effect::MigrationTarget { vmm, sled, migration },
            5 => Effect::MigrationCancel { vmm, sled, migration },
            6 => Effect::Ask { vmm, sled },
            _ => Effect::Unregister { vmm, sled },
        },
    )
}

/// Any input.
pub fn input() -> impl Strategy<Value = Input> {
    let result = prop_oneof![
        option::of(report()).prop_map(EffectResult::Done),
        select(&REFUSALS[..]).prop_map(EffectResult::Refused),
    ];
    prop_oneof![
        command().prop_map(Input::Command),
        (id(SledId::new), id(VmmId::new), report()).prop_map(|(sled, vmm, report)| Input::Report {
            sled,
            vmm,
            report
        }),
        (effect(), result).prop_map(|(effect, result)| Input::Outcome { effect, result }),
        (id(VmmId::new), select(&EVIDENCES[..])).prop_map(|(vmm, evidence)| Input::Gone { vmm, evidence }),
        (id(VmmId::new), any::<u64>(), select(&EVIDENCES[..]))
            .prop_map(|(vmm, asked_at, evidence)| Input::Absent { vmm, asked_at, evidence }),
        deadline().prop_map(Input::Deadline),
        (effect(), any::<u32>()).prop_map(|(effect, failures)| Input::StepFailed { effect, failures }),
        prop_oneof![grant().prop_map(Ok), shortage().prop_map(Err)].prop_map(Input::Restart),
        Just(Input::Reconsider),
        archive_file().prop_map(Input::Archived),
    ]
}
