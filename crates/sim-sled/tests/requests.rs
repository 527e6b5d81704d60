//! The protocol's first table: every request, and every way it is refused.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use sim_sled::machine::{Answer, Mode, Request, Sled};
use sled_protocol::{
    Generation, LeaseEpoch, MacAddr, RegisterVmm, RequestedState, SerialRange, SledError, SledLease,
    V2pMapping, VmmState, Vni, limits,
};
use support::{
    EPOCH, SECOND, body, boot, in_state, instance, is_error, migration, op, register, set_op, sled, state_of,
    status, vmm,
};

/// A way to spoil a register, with its name.
type Spoiled = (&'static str, fn(&mut RegisterVmm));

fn with_vmm() -> Sled {
    let mut sled = sled(1, Mode::Explicit);
    sled.handle(0, register(vmm(1), body(1, None))).unwrap();
    sled
}

#[test]
fn a_register_creates_a_starting_vmm_and_repeated_answers_its_current_state() {
    let mut sled = sled(1, Mode::Explicit);
    let first = state_of(sled.handle(0, register(vmm(1), body(1, None))));
    assert_eq!((first.vmm_state.state, first.vmm_state.generation), (VmmState::Starting, Generation::FIRST));
    assert_eq!(sled.pending_reports().count(), 0, "the answer carries the picture");
    sled.handle(0, set_op(vmm(1), op(1), RequestedState::Running)).unwrap();
    sled.step(5, vmm(1));
    let again = state_of(sled.handle(6, register(vmm(1), body(1, None))));
    assert_eq!((again.vmm_state.state, again.vmm_state.generation.get()), (VmmState::Running, 2));
    assert_eq!(sled.vmms().count(), 1);
}

#[test]
fn a_register_counts_generations_from_the_one_it_is_given() {
    let mut sled = sled(1, Mode::Explicit);
    let mut target = body(1, Some(migration(1)));
    target.vmm_runtime.generation = Generation::new(40);
    let state = state_of(sled.handle(0, register(vmm(1), target)));
    assert_eq!(state.vmm_state.generation.get(), 40);
    assert_eq!(state.migration_in.unwrap().generation.get(), 40);
    let ended = state_of(sled.handle(1, set_op(vmm(1), op(1), RequestedState::MigrationCancel)));
    assert_eq!(ended.vmm_state.generation.get(), 41);
    assert_eq!(ended.migration_in.unwrap().generation.get(), 41);
}

#[test]
fn a_vmm_id_of_another_instance_is_a_conflict() {
    let mut sled = with_vmm();
    assert_eq!(status(&sled.handle(0, register(vmm(1), body(2, None)))), 409);
    assert_eq!(sled.vmm(vmm(1)).unwrap().instance_id(), instance(1));
}

#[test]
fn a_late_register_after_unregister_starts_nothing() {
    for was_known in [true, false] {
        let mut sled = if was_known { with_vmm() } else { sled(1, Mode::Explicit) };
        let answer = sled.handle(0, Request::Unregister { vmm: vmm(1), lease_epoch: EPOCH }).unwrap();
        match answer {
            Answer::Updated(Some(last)) if was_known => {
                assert_eq!((last.vmm_state.state, last.vmm_state.generation.get()), (VmmState::Failed, 2));
            }
            Answer::Updated(None) if !was_known => {}
            other => panic!("{other:?}"),
        }
        assert!(is_error(&sled.handle(0, register(vmm(1), body(1, None))), &SledError::Gone));
        assert_eq!(sled.vmms().count(), 0);
        let again = sled.handle(0, Request::Unregister { vmm: vmm(1), lease_epoch: EPOCH });
        assert_eq!(again, Ok(Answer::Updated(None)));
    }
}

#[test]
fn an_ended_vmm_is_kept_until_its_last_report_is_accepted_and_then_refused_for_ever() {
    let mut sled = with_vmm();
    let ended = state_of(sled.handle(0, set_op(vmm(1), op(1), RequestedState::Stopped)));
    assert_eq!(ended.vmm_state.state, VmmState::Destroyed);
    let held = state_of(sled.handle(0, register(vmm(1), body(1, None))));
    assert_eq!(held, ended, "it is idempotent until the VMM is forgotten");
    let mut older = ended.clone();
    older.vmm_state.generation = Generation::FIRST;
    sled.report_accepted(1, vmm(1), &older);
    assert_eq!(in_state(&sled, vmm(1)), Some(VmmState::Destroyed), "an older report settles nothing");
    sled.report_refused(1, vmm(1), &ended);
    assert_eq!(sled.pending_reports().count(), 0, "a refused report is not repeated");
    assert_eq!(sled.inventory().vmms.len(), 1, "but the VMM stays for the inventory");
    sled.report_accepted(1, vmm(1), &ended);
    assert_eq!(sled.vmms().count(), 0);
    assert_eq!(status(&sled.handle(2, register(vmm(1), body(1, None)))), 410);
    assert_eq!(status(&sled.handle(2, Request::GetState { vmm: vmm(1) })), 404);
}

#[test]
fn a_sled_out_of_threads_or_memory_or_places_has_no_room_and_room_returns_with_the_end_of_a_vmm() {
    let mut sled = sled(1, Mode::Explicit);
    let resources = sled.config().resources;
    for (ncpus, memory) in [(resources.threads + 1, 1), (1, resources.memory + 1)] {
        let mut large = body(1, None);
        (large.resources.ncpus, large.resources.memory) = (ncpus, memory);
        assert!(is_error(&sled.handle(0, register(vmm(1), large)), &SledError::NoRoom), "{ncpus} {memory}");
    }
    let mut all = body(1, None);
    (all.resources.ncpus, all.resources.memory) = (resources.threads, resources.memory);
    sled.handle(0, register(vmm(1), all)).unwrap();
    assert_eq!(status(&sled.handle(0, register(vmm(2), body(2, None)))), 507);
    sled.guest_crash(0, vmm(1));
    assert_eq!(status(&sled.handle(0, register(vmm(2), body(2, None)))), 200);
}

#[test]
fn every_request_that_changes_a_sled_needs_exactly_its_epoch() {
    let unregistered = Sled::new(support::config(1, Mode::Explicit), boot(1));
    let cases = [
        ("before registration", unregistered, EPOCH),
        ("older", with_vmm(), LeaseEpoch::new(2)),
        ("newer", with_vmm(), LeaseEpoch::new(4)),
    ];
    for (name, sled, epoch) in cases {
        let mut register_body = body(1, None);
        register_body.lease_epoch = epoch;
        let Request::SetState { vmm: id, body: mut set_body } =
            set_op(vmm(1), op(1), RequestedState::Stopped)
        else {
            unreachable!()
        };
        set_body.lease_epoch = epoch;
        for request in [
            register(vmm(9), register_body),
            Request::SetState { vmm: id, body: set_body },
            Request::Unregister { vmm: vmm(1), lease_epoch: epoch },
            Request::PutV2p { lease_epoch: epoch, mappings: vec![mapping(1, 1)] },
            Request::DeleteV2p { lease_epoch: epoch, mappings: vec![mapping(1, 1)] },
        ] {
            let mut sled = sled.clone();
            let before = sled.clone();
            assert!(is_error(&sled.handle(0, request.clone()), &SledError::StaleEpoch), "{name} {request:?}");
            assert_eq!(sled, before, "a refusal changes nothing: {name} {request:?}");
        }
    }
}

#[test]
fn requests_about_an_unknown_vmm_say_so() {
    let mut sled = sled(1, Mode::Explicit);
    for request in [
        Request::GetState { vmm: vmm(1) },
        Request::Serial { vmm: vmm(1), range: SerialRange::default() },
        set_op(vmm(1), op(1), RequestedState::Running),
        set_op(vmm(1), op(2), RequestedState::Stopped),
        set_op(vmm(1), op(3), RequestedState::Reboot),
        set_op(vmm(1), op(4), RequestedState::MigrationCancel),
    ] {
        assert!(is_error(&sled.handle(0, request.clone()), &SledError::NoSuchInstance), "{request:?}");
    }
}

#[test]
fn malformed_registers_are_refused_and_leave_nothing() {
    let spoiled: [Spoiled; 7] = [
        ("nil instance", |body| body.instance_id = "00000000-0000-0000-0000-000000000000".parse().unwrap()),
        ("generation zero", |body| body.vmm_runtime.generation = Generation::new(0)),
        ("generation too large", |body| {
            body.vmm_runtime.generation = Generation::new(limits::COUNTER_MAX + 1);
        }),
        ("no CPU", |body| body.resources.ncpus = 0),
        ("no memory", |body| body.resources.memory = 0),
        ("already running", |body| body.vmm_runtime.state = VmmState::Running),
        ("migrating without a migration", |body| body.vmm_runtime.state = VmmState::Migrating),
    ];
    for (name, spoil) in spoiled {
        let mut sled = sled(1, Mode::Explicit);
        let mut body = body(1, None);
        spoil(&mut body);
        let response = sled.handle(0, register(vmm(1), body));
        assert!(matches!(response, Err(SledError::Malformed(_))), "{name}: {response:?}");
        assert_eq!(sled.vmms().count(), 0, "{name}");
    }
}

#[test]
fn an_operation_id_acts_once() {
    let mut sled = with_vmm();
    sled.handle(0, set_op(vmm(1), op(1), RequestedState::Running)).unwrap();
    sled.step(0, vmm(1));
    let reboot = set_op(vmm(1), op(2), RequestedState::Reboot);
    assert_eq!(state_of(sled.handle(0, reboot.clone())).vmm_state.state, VmmState::Rebooting);
    sled.step(0, vmm(1));
    let repeated = state_of(sled.handle(0, reboot));
    assert_eq!(repeated.vmm_state.state, VmmState::Running, "it answers where the first one has led");
    let third = state_of(sled.handle(0, set_op(vmm(1), op(3), RequestedState::Reboot)));
    assert_eq!(third.vmm_state.state, VmmState::Rebooting);
}

#[test]
fn an_operation_that_was_refused_may_be_repeated_in_earnest() {
    let mut sled = with_vmm();
    let cancel = set_op(vmm(1), op(1), RequestedState::MigrationCancel);
    assert_eq!(status(&sled.handle(0, cancel)), 400);
    let stop = set_op(vmm(1), op(1), RequestedState::Stopped);
    assert_eq!(state_of(sled.handle(0, stop)).vmm_state.state, VmmState::Destroyed);
}

#[test]
fn an_inventory_tells_everything_and_is_valid() {
    let mut sled = with_vmm();
    sled.handle(0, register(vmm(2), body(2, Some(migration(1))))).unwrap();
    sled.guest_crash(0, vmm(1));
    let Answer::Inventory(inventory) = sled.handle(0, Request::Inventory).unwrap() else { panic!() };
    inventory.validate().unwrap();
    assert_eq!((inventory.boot_id, inventory.lease_epoch), (boot(1), Some(EPOCH)));
    let listed: Vec<String> = inventory.vmms.iter().map(|vmm| support::shown(&vmm.state)).collect();
    assert_eq!(listed, ["failed", "migrating in=pending"]);
}

#[test]
fn serial_output_can_be_followed_from_the_boot() {
    let mut sled = with_vmm();
    sled.handle(0, set_op(vmm(1), op(1), RequestedState::Running)).unwrap();
    sled.step(0, vmm(1));
    sled.write_serial(vmm(1), "hello");
    let range = SerialRange { from_start: 14, max_bytes: Some(100) };
    let Answer::Serial(data) = sled.handle(0, Request::Serial { vmm: vmm(1), range }).unwrap() else {
        panic!()
    };
    data.validate().unwrap();
    assert_eq!(String::from_utf8(data.data).unwrap(), "login: hello");
}

#[test]
fn mappings_follow_the_newest_generation_and_a_reused_address_never_gets_its_predecessors() {
    let mut sled = sled(1, Mode::Explicit);
    let put = |mapping| Request::PutV2p { lease_epoch: EPOCH, mappings: vec![mapping] };
    let delete = |mapping| Request::DeleteV2p { lease_epoch: EPOCH, mappings: vec![mapping] };
    let steps = [
        (put(mapping(5, 1)), Some(5)),
        (put(mapping(4, 2)), Some(5)),
        (delete(mapping(4, 1)), Some(5)),
        (delete(mapping(6, 1)), None),
        (put(mapping(5, 1)), None),
        (put(mapping(7, 2)), Some(7)),
    ];
    for (request, expected) in steps {
        assert_eq!(sled.handle(0, request.clone()), Ok(Answer::Done));
        let Answer::V2p(held) = sled.handle(0, Request::ListV2p).unwrap() else { panic!() };
        assert_eq!(held.first().map(|mapping| mapping.generation.get()), expected, "{request:?}");
    }
    let many = vec![mapping(1, 1); limits::MAPPINGS_MAX + 1];
    assert_eq!(status(&sled.handle(0, Request::PutV2p { lease_epoch: EPOCH, mappings: many })), 400);
}

#[test]
fn tombstones_are_bounded_and_the_oldest_go_first() {
    let mut config = support::config(1, Mode::Explicit);
    config.tombstones_max = 3;
    let mut sled = Sled::new(config, boot(1));
    sled.registered(0, 0, boot(1), SledLease { lease_epoch: EPOCH, lease_seconds: None, store_id: None });
    for n in 1..=5 {
        sled.handle(SECOND, Request::Unregister { vmm: vmm(n), lease_epoch: EPOCH }).unwrap();
    }
    let refused: Vec<bool> = (1..=5).map(|n| sled.is_tombstoned(vmm(n))).collect();
    assert_eq!(refused, [false, false, true, true, true]);
    assert_eq!(sled.tombstones_len(), 3);
}

fn mapping(generation: u64, host: u8) -> V2pMapping {
    V2pMapping {
        virtual_ip: [10, 0, 0, 1].into(),
        vni: Vni::new(100).unwrap(),
        mac: MacAddr::new([2, 0, 0, 0, 0, host]),
        physical_host_ip: [192, 168, 0, host].into(),
        generation: Generation::new(generation),
    }
}
