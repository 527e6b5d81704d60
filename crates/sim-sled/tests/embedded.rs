//! The in-process shell, on a paused clock: publishing, retrying, surviving, migrating, misbehaving.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sim_sled::embedded::{EmbeddedSled, Fabric, Options, StateFileError};
use sim_sled::faults::{Fault, Faults};
use sim_sled::machine::{Mode, RequestKind, Vmm};
use sled_protocol::{
    BootId, ControlPlaneError, PropolisId, RegisterVmm, RequestedState, SetState, SledClient, SledError,
    VmmState,
};
use support::recorder::{Recorder, says};
use support::{EPOCH, S, T, addr, body, boot, config, migration, op, shown, target_of, vmm};

const OPENED_AT: u64 = 1_700_000_000_000_000;

fn options(n: u128, control_plane: &Recorder, fabric: &Fabric, state_file: Option<PathBuf>) -> Options {
    Options {
        config: config(n, Mode::Auto),
        boot_id: boot(n),
        state_file,
        opened_at_micros: OPENED_AT,
        control_plane: Arc::new(control_plane.clone()),
        fabric: fabric.clone(),
    }
}

/// A sled in memory, registered.
async fn open(n: u128, control_plane: &Recorder, fabric: &Fabric) -> EmbeddedSled {
    registered(EmbeddedSled::open(options(n, control_plane, fabric, None)).unwrap()).await
}

/// Waits until the sled has its epoch.
async fn registered(sled: EmbeddedSled) -> EmbeddedSled {
    for _ in 0..1000 {
        if sled.inventory().await.unwrap().lease_epoch.is_some() {
            return sled;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the sled never registered");
}

async fn reopen(
    path: &Path,
    boot_id: BootId,
    control_plane: &Recorder,
) -> Result<EmbeddedSled, StateFileError> {
    let options = Options { boot_id, ..options(1, control_plane, &Fabric::default(), Some(path.to_owned())) };
    Ok(registered(EmbeddedSled::open(options)?).await)
}

fn set(n: u128, state: RequestedState) -> SetState {
    SetState { op_id: op(n), lease_epoch: EPOCH, state }
}

/// Registers the VMM and sets it running, without waiting for it.
async fn start(sled: &EmbeddedSled, id: PropolisId, body: RegisterVmm) {
    sled.register(id, body).await.unwrap();
    sled.set_state(id, set(1, RequestedState::Running)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_vmm_boots_and_stops_and_is_forgotten_once_its_end_was_accepted() {
    let control_plane = Recorder::new();
    let sled = open(1, &control_plane, &Fabric::default()).await;
    start(&sled, vmm(1), body(1, None)).await;
    control_plane.until(|told| says(told, vmm(1), VmmState::Running)).await;
    sled.set_state(vmm(1), set(2, RequestedState::Stopped)).await.unwrap();
    control_plane.until(|told| says(told, vmm(1), VmmState::Destroyed)).await;
    assert_eq!(control_plane.shown(vmm(1)), ["running", "stopping", "destroyed"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sled.get_state(vmm(1)).await, Err(SledError::NoSuchInstance));
    assert_eq!(sled.register(vmm(1), body(1, None)).await, Err(SledError::Gone));
    assert_eq!(control_plane.get(|told| told.attempts), 3, "nothing is said twice");
}

#[tokio::test(start_paused = true)]
async fn reports_are_repeated_until_accepted_and_the_newest_picture_wins() {
    let control_plane = Recorder::new();
    let sled = open(1, &control_plane, &Fabric::default()).await;
    let away = ControlPlaneError::Unavailable("away".to_owned());
    control_plane.set(|told| told.refusal = Some(away));
    start(&sled, vmm(1), body(1, None)).await;
    control_plane.until(|told| told.attempts >= 20).await;
    sled.set_state(vmm(1), set(2, RequestedState::Stopped)).await.unwrap();
    tokio::time::sleep(Duration::from_hours(1)).await;
    let attempts = control_plane.get(|told| told.attempts);
    assert!((300..1000).contains(&attempts), "repeats back off but never stop: {attempts}");
    assert!(sled.get_state(vmm(1)).await.is_ok(), "an end that nobody knows of is not forgotten");
    control_plane.set(|told| told.refusal = None);
    control_plane.until(|told| says(told, vmm(1), VmmState::Destroyed)).await;
    assert_eq!(control_plane.shown(vmm(1)), ["destroyed"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_report_is_not_repeated_and_its_vmm_stays_in_the_inventory() {
    let control_plane = Recorder::new();
    let sled = open(1, &control_plane, &Fabric::default()).await;
    control_plane.set(|told| told.refusal = Some(ControlPlaneError::Unknown));
    sled.register(vmm(1), body(1, None)).await.unwrap();
    sled.set_state(vmm(1), set(1, RequestedState::Stopped)).await.unwrap();
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(control_plane.get(|told| told.attempts), 1);
    assert_eq!(sled.inventory().await.unwrap().vmms.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sled_registers_when_the_control_plane_comes_up_however_late() {
    let control_plane = Recorder::new();
    control_plane.set(|told| told.refusal = Some(ControlPlaneError::Unavailable("not yet".to_owned())));
    let sled = EmbeddedSled::open(options(1, &control_plane, &Fabric::default(), None)).unwrap();
    control_plane.until(|told| told.registrations >= 10).await;
    assert_eq!(sled.register(vmm(1), body(1, None)).await, Err(SledError::StaleEpoch));
    control_plane.set(|told| told.refusal = None);
    let sled = registered(sled).await;
    sled.register(vmm(1), body(1, None)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_in_time_and_kills_the_vmms_when_it_cannot_be() {
    let control_plane = Recorder::new();
    control_plane.set(|told| told.lease_seconds = Some(30));
    let sled = open(1, &control_plane, &Fabric::default()).await;
    start(&sled, vmm(1), body(1, None)).await;
    control_plane.until(|told| told.renewals >= 10).await;
    assert_eq!(sled.get_state(vmm(1)).await.unwrap().vmm_state.state, VmmState::Running);
    let away = ControlPlaneError::Unavailable("away".to_owned());
    control_plane.set(|told| {
        told.refusal = Some(away.clone());
        told.renewal_refusal = Some(away);
    });
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(sled.get_state(vmm(1)).await.unwrap().vmm_state.state, VmmState::Failed);
    control_plane.set(|told| told.refusal = None);
    control_plane.until(|told| says(told, vmm(1), VmmState::Failed)).await;
}

#[tokio::test(start_paused = true)]
async fn an_expunged_sled_kills_its_vmms() {
    let control_plane = Recorder::new();
    control_plane.set(|told| told.lease_seconds = Some(30));
    let sled = open(1, &control_plane, &Fabric::default()).await;
    start(&sled, vmm(1), body(1, None)).await;
    control_plane.set(|told| told.renewal_refusal = Some(ControlPlaneError::Expunged));
    control_plane.until(|told| says(told, vmm(1), VmmState::Failed)).await;
    let registrations = control_plane.get(|told| told.registrations);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(control_plane.get(|told| told.registrations), registrations, "it stays away for good");
}

#[tokio::test(start_paused = true)]
async fn vmms_and_what_was_due_and_tombstones_survive_the_death_of_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sled1.state");
    let control_plane = Recorder::new();
    let sled = reopen(&path, boot(1), &control_plane).await.unwrap();
    start(&sled, vmm(1), body(1, None)).await;
    control_plane.until(|told| says(told, vmm(1), VmmState::Running)).await;
    // Booting when the process dies.
    start(&sled, vmm(2), body(2, None)).await;
    sled.unregister(vmm(3), EPOCH).await.unwrap();
    let before = sled.get_state(vmm(1)).await.unwrap();
    drop(sled);

    let sled = reopen(&path, boot(1), &control_plane).await.unwrap();
    assert_eq!(sled.get_state(vmm(1)).await.unwrap(), before);
    control_plane.until(|told| says(told, vmm(2), VmmState::Running)).await;
    assert_eq!(sled.register(vmm(3), body(3, None)).await, Err(SledError::Gone));
    let running = sled.with_machine(|machine, _| machine.vmms().filter(|vmm| vmm.guest_running()).count());
    assert_eq!(running, Some(2));
    sled.shutdown().await;

    let sled = reopen(&path, boot(9), &control_plane).await.unwrap();
    assert_eq!(sled.inventory().await.unwrap().vmms, [], "another boot is a reboot");
}

#[tokio::test(start_paused = true)]
async fn a_torn_last_line_is_dropped_and_damage_elsewhere_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sled1.state");
    let control_plane = Recorder::new();
    let sled = reopen(&path, boot(1), &control_plane).await.unwrap();
    sled.register(vmm(1), body(1, None)).await.unwrap();
    let whole = fs::read(&path).unwrap().len();
    sled.register(vmm(2), body(2, None)).await.unwrap();
    sled.shutdown().await;
    let bytes = fs::read(&path).unwrap();

    for cut in whole..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let sled = reopen(&path, boot(1), &control_plane).await.unwrap();
        let held: Vec<PropolisId> =
            sled.inventory().await.unwrap().vmms.iter().map(|vmm| vmm.propolis_id).collect();
        assert_eq!(held, [vmm(1)], "cut at {cut} of {}", bytes.len());
        sled.shutdown().await;
    }

    let middle = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 30;
    let mut damaged = bytes.clone();
    damaged[middle] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let error = reopen(&path, boot(1), &control_plane).await.err().unwrap();
    assert!(matches!(error, StateFileError::Damaged { line: 2, .. }), "{error}");
    let sled = reopen(&path, boot(9), &control_plane).await.unwrap();
    assert_eq!(sled.inventory().await.unwrap().vmms, [], "of another boot nothing counts");
    sled.shutdown().await;

    for garbage in [&b"garbage"[..], b"00000000 2 []\n", b"", b"\n\n", b"ffffffff 18446744073709551615 {}\n"]
    {
        fs::write(&path, garbage).unwrap();
        let opened = reopen(&path, boot(1), &control_plane).await;
        assert_eq!(opened.is_ok(), garbage.is_empty(), "{garbage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_file_stays_small_however_much_happens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sled1.state");
    let control_plane = Recorder::new();
    let sled = reopen(&path, boot(1), &control_plane).await.unwrap();
    sled.register(vmm(1), body(1, None)).await.unwrap();
    let mut largest = 0;
    for round in 0..3000 {
        sled.with_machine(|machine, _| machine.write_serial(vmm(1), &"x".repeat(4000))).unwrap();
        if round % 100 == 0 {
            largest = largest.max(fs::metadata(&path).unwrap().len());
        }
    }
    assert!(largest > 500_000 && largest < 1_200_000, "{largest}");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_written_is_neither_answered_nor_reported_until_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let path = home.join("sled1.state");
    let control_plane = Recorder::new();
    let error = reopen(&path, boot(1), &control_plane).await.err().unwrap();
    assert!(matches!(error, StateFileError::Write(_)), "{error}");

    fs::create_dir(&home).unwrap();
    let sled = reopen(&path, boot(1), &control_plane).await.unwrap();
    start(&sled, vmm(1), body(1, None)).await;
    control_plane.until(|told| says(told, vmm(1), VmmState::Running)).await;
    // Without its directory the file can grow to its limit and then not start anew.
    fs::remove_dir_all(&home).unwrap();
    let grow = || sled.with_machine(|machine, _| machine.write_serial(vmm(1), &"x".repeat(4000)));
    let writes = (0..1000).take_while(|_| grow().is_some()).count();
    assert!((100..1000).contains(&writes), "{writes}");
    let refused = sled.set_state(vmm(1), set(2, RequestedState::Stopped)).await.unwrap_err();
    assert!(matches!(refused, SledError::ServerError { status: 500, .. }), "{refused}");
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(control_plane.shown(vmm(1)), ["running"]);

    fs::create_dir(&home).unwrap();
    control_plane.until(|told| says(told, vmm(1), VmmState::Destroyed)).await;
    assert_eq!(sled.get_state(vmm(1)).await, Err(SledError::NoSuchInstance));
}

#[tokio::test(start_paused = true)]
async fn a_sled_that_cannot_write_when_it_is_opened_goes_on_where_it_was_as_soon_as_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let path = home.join("sled1.state");
    let control_plane = Recorder::new();
    fs::create_dir(&home).unwrap();
    let sled = reopen(&path, boot(1), &control_plane).await.unwrap();
    start(&sled, vmm(1), body(1, None)).await;
    control_plane.until(|told| says(told, vmm(1), VmmState::Running)).await;
    sled.shutdown().await;
    // The file can be read, and no other can be written beside it.
    let blocked = path.with_extension("new");
    fs::create_dir(&blocked).unwrap();
    let options = options(1, &control_plane, &Fabric::default(), Some(path));
    let sled = EmbeddedSled::open_when_writable(options).unwrap();
    let refused = sled.set_state(vmm(1), set(2, RequestedState::Stopped)).await.unwrap_err();
    assert!(matches!(refused, SledError::ServerError { status: 500, .. }), "{refused}");
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(control_plane.shown(vmm(1)), ["running"]);

    fs::remove_dir(&blocked).unwrap();
    control_plane.until(|told| says(told, vmm(1), VmmState::Destroyed)).await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_migrates_between_two_sleds_of_one_process() {
    let control_plane = Recorder::new();
    let fabric = Fabric::default();
    let source = open(S, &control_plane, &fabric).await;
    let target = open(T, &control_plane, &fabric).await;
    start(&source, vmm(S), body(1, None)).await;
    control_plane.until(|told| says(told, vmm(S), VmmState::Running)).await;
    target.register(vmm(T), body(1, Some(migration(1)))).await.unwrap();
    assert_eq!(target.set_state(vmm(T), set(1, target_of(vmm(S), S))).await, Ok(None));
    control_plane.until(|told| says(told, vmm(T), VmmState::Running)).await;
    control_plane.until(|told| says(told, vmm(S), VmmState::Destroyed)).await;
    assert_eq!(control_plane.shown(vmm(S)).last().unwrap(), "destroyed out=completed");
    assert_eq!(control_plane.shown(vmm(T)).last().unwrap(), "running in=completed");
    let runs = |sled: &EmbeddedSled| sled.with_machine(|machine, _| machine.vmms().any(Vmm::guest_running));
    assert_eq!((runs(&source), runs(&target)), (Some(false), Some(true)));
}

#[tokio::test(start_paused = true)]
async fn a_partition_between_sleds_fails_the_migration_and_the_guest_stays() {
    let control_plane = Recorder::new();
    let fabric = Fabric::default();
    let source = open(S, &control_plane, &fabric).await;
    let target = open(T, &control_plane, &fabric).await;
    start(&source, vmm(S), body(1, None)).await;
    control_plane.until(|told| says(told, vmm(S), VmmState::Running)).await;
    target.register(vmm(T), body(1, Some(migration(1)))).await.unwrap();
    // The source hears and its answers are lost.
    fabric.sever(&addr(S), &addr(T));
    target.set_state(vmm(T), set(1, target_of(vmm(S), S))).await.unwrap();
    control_plane.until(|told| says(told, vmm(T), VmmState::Failed)).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(shown(&source.get_state(vmm(S)).await.unwrap()), "running out=failed");
    // Healed, another attempt succeeds.
    fabric.heal(&addr(S), &addr(T));
    target.register(vmm(8), body(1, Some(migration(2)))).await.unwrap();
    target.set_state(vmm(8), set(2, target_of(vmm(S), S))).await.unwrap();
    control_plane.until(|told| says(told, vmm(8), VmmState::Running)).await;
}

#[tokio::test(start_paused = true)]
async fn a_sled_that_its_control_plane_has_forgotten_registers_again() {
    let control_plane = Recorder::new();
    let mut options = options(1, &control_plane, &Fabric::default(), None);
    options.config.idle_renewal_seconds = Some(30);
    let sled = registered(EmbeddedSled::open(options).unwrap()).await;
    control_plane.until(|told| told.renewals >= 3).await;
    control_plane.set(|told| told.renewal_refusal = Some(ControlPlaneError::Unknown));
    control_plane.until(|told| told.registrations >= 2).await;
    control_plane.set(|told| told.renewal_refusal = None);
    control_plane.until(|told| told.renewals >= 6).await;
    let registrations = control_plane.get(|told| told.registrations);
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(
        control_plane.get(|told| told.registrations),
        registrations,
        "once it is known it only renews"
    );
    sled.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn planned_faults_meet_the_requests_they_were_planned_for() {
    let control_plane = Recorder::new();
    let sled = open(1, &control_plane, &Fabric::default()).await;
    let kind = RequestKind::Register;
    sled.set_faults(
        Faults::default()
            .at(kind, 0, Fault::Answer(SledError::NoRoom))
            .at(kind, 1, Fault::LoseRequest)
            .at(kind, 2, Fault::LoseAnswer)
            .at(kind, 3, Fault::Slow(5_000_000))
            .at(kind, 4, Fault::Hang),
    );
    assert_eq!(sled.register(vmm(1), body(1, None)).await, Err(SledError::NoRoom));
    let mut held = BTreeMap::new();
    for name in ["request lost", "answer lost"] {
        let error = sled.register(vmm(1), body(1, None)).await.unwrap_err();
        assert!(!error.is_definite(), "{name}");
        held.insert(name, sled.inventory().await.unwrap().vmms.len());
    }
    assert_eq!(held, BTreeMap::from([("request lost", 0), ("answer lost", 1)]));
    let asked = tokio::time::Instant::now();
    sled.register(vmm(1), body(1, None)).await.unwrap();
    assert_eq!(asked.elapsed().as_secs(), 5);
    let hung = tokio::time::timeout(Duration::from_hours(1), sled.register(vmm(1), body(1, None))).await;
    assert!(hung.is_err());
    sled.register(vmm(1), body(1, None)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_shutdown_nothing_is_said_and_every_call_is_refused_as_unreachable() {
    let control_plane = Recorder::new();
    let sled = open(1, &control_plane, &Fabric::default()).await;
    start(&sled, vmm(1), body(1, None)).await;
    sled.shutdown().await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(control_plane.get(|told| told.attempts), 0);
    assert!(!sled.inventory().await.unwrap_err().is_definite());
    assert_eq!(sled.with_machine(|_, _| ()), None);
}
