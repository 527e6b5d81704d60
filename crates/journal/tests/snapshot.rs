//! A snapshot is of no use to a build that folds otherwise, and nothing in its bytes would show it but the
//! fold version. So the bytes of one fold are pinned: whoever changes the layout of `Instance`, or what
//! `evolve` makes of the same events, raises `FOLD_VERSION` and lets this test write the next file.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

use journal::{FOLD_VERSION, decode_snapshot, encode_snapshot};
use lifecycle::input::{Refusal, VmmReport};
use lifecycle::instance::{Intent, PauseCause, UnwindReason};
use lifecycle::migration::CancelReason;
use lifecycle::{
    Address, AutoRestartPolicy, EventMeta, FailureReason, Generation, Instance, InstanceEvent, InstanceId,
    InstanceSpec, MigrationId, OpId, Origin, ProjectId, SagaId, Size, SledId, Span, SpecChange, Step,
    Timestamp, VmmId, VmmState, evolve,
};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use uuid::Uuid;

const SIZE: Size = Size { ncpus: 2, memory: 4 << 30 };

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn began(saga: SagaId, vmm: VmmId) -> InstanceEvent {
    let (origin, sled) = (Origin::User, SledId::new(uuid(5)));
    InstanceEvent::StartBegan { saga, origin, vmm, sled, size: SIZE, deadline: Span::from_secs(120) }
}

fn reported(vmm: VmmId, generation: u64, state: VmmState) -> InstanceEvent {
    let generation = Generation::new(generation);
    let report = VmmReport { state, generation, migration_in: None, migration_out: None };
    InstanceEvent::VmmReported { vmm, report }
}

fn migration() -> MigrationId {
    MigrationId::new(uuid(12))
}

fn migrate_began() -> InstanceEvent {
    InstanceEvent::MigrateBegan {
        saga: SagaId::new(uuid(4)),
        migration: migration(),
        vmm: VmmId::new(uuid(8)),
        sled: SledId::new(uuid(13)),
        size: SIZE,
        deadline: Span::from_secs(600),
    }
}

fn change() -> SpecChange {
    SpecChange {
        size: SIZE,
        auto_restart: Some(AutoRestartPolicy::Never),
        cpu_platform: Some("amd_milan".to_owned()),
        boot_disk: Some(uuid(14)),
        jumbo_frames: true,
    }
}

/// A start that failed, one that worked, a migration, a reboot and a stop under way, a new configuration, and a
/// failure: most fields are set.
fn events() -> Vec<InstanceEvent> {
    let spec = InstanceSpec {
        project: ProjectId::new(uuid(9)),
        name: "web-1".to_owned(),
        description: "front end".to_owned(),
        hostname: "web-1".to_owned(),
        size: SIZE,
        auto_restart: None,
        cpu_platform: None,
        boot_disk: None,
        jumbo_frames: false,
    };
    let address =
        Address { virtual_ip: Ipv4Addr::new(172, 16, 0, 5), mac: [0xa8, 0x40, 172, 16, 0, 5], vni: 1024 };
    let (id, spec) = (InstanceId::new(uuid(1)), Box::new(spec));
    let (first, second) = (SagaId::new(uuid(2)), SagaId::new(uuid(3)));
    let (lost, vmm) = (VmmId::new(uuid(6)), VmmId::new(uuid(7)));
    let undone = vec![Step::Register, Step::Network, Step::Allocate, Step::Reserve];
    let reason = UnwindReason::Refused(Refusal::NoRoom);
    vec![
        InstanceEvent::Created { id, spec, address, intent: Intent::Stopped },
        began(first, lost),
        InstanceEvent::SagaAdvanced { saga: first, step: Step::Register },
        InstanceEvent::SagaUnwound { saga: first, step: Step::Register, reason, undone },
        began(second, vmm),
        InstanceEvent::SagaAdvanced { saga: second, step: Step::Register },
        reported(vmm, 1, VmmState::Starting),
        InstanceEvent::SagaAdvanced { saga: second, step: Step::SetRunning },
        reported(vmm, 2, VmmState::Running),
        InstanceEvent::SagaEnded { saga: second, done: true },
        InstanceEvent::RestartTried { attempt: 1 },
        InstanceEvent::Reconfigured { change: Box::new(change()) },
        migrate_began(),
        InstanceEvent::SagaAdvanced { saga: SagaId::new(uuid(4)), step: Step::Register },
        InstanceEvent::SagaPaused {
            saga: SagaId::new(uuid(4)),
            step: Step::Register,
            cause: PauseCause::Requested,
        },
        InstanceEvent::SagaResumed { saga: SagaId::new(uuid(4)) },
        InstanceEvent::SagaRetried { saga: SagaId::new(uuid(4)), step: Step::Register },
        InstanceEvent::SagaPaused {
            saga: SagaId::new(uuid(4)),
            step: Step::Register,
            cause: PauseCause::Failures { count: 5 },
        },
        InstanceEvent::MigrationCancelled { migration: migration(), reason: CancelReason::Requested },
        InstanceEvent::RebootRequested { op: OpId::new(uuid(10)) },
        InstanceEvent::StopRequested { op: OpId::new(uuid(11)) },
        InstanceEvent::VmmFailed { vmm, reason: FailureReason::LeaseExpired },
    ]
}

/// The fold after each event.
fn states() -> Vec<Instance> {
    let mut state = None;
    let fold = |(event, n): (InstanceEvent, u64)| {
        let meta = EventMeta { version: n, position: n * 10, time: Timestamp::from_micros(n * 1_000) };
        evolve(&mut state, &event, meta);
        state.clone().unwrap()
    };
    events().into_iter().zip(1..).map(fold).collect()
}

fn pinned() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/fold-{FOLD_VERSION}.hex"))
}

#[test]
fn the_layout_and_the_meaning_of_a_fold_change_only_with_its_version() {
    let mut lines = String::new();
    for state in states() {
        let bytes = encode_snapshot(&state);
        assert_eq!(decode_snapshot(&bytes), Ok(state));
        bytes.iter().for_each(|byte| write!(lines, "{byte:02x}").unwrap());
        lines.push('\n');
    }
    // Only a version that has no file gets one: an existing one is never rewritten.
    if !pinned().exists() && std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(pinned().parent().unwrap()).unwrap();
        std::fs::write(pinned(), &lines).unwrap();
    }
    let expected = std::fs::read_to_string(pinned()).expect("each fold version has a file");
    assert_eq!(lines, expected, "raise FOLD_VERSION, then run with UPDATE_GOLDEN=1");
}
