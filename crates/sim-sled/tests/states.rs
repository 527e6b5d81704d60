//! The protocol's second table: every resting state against every request.
//!
//! The rows that the protocol page names are asserted here in words; the whole product is walked against
//! `fixtures/states.txt`, which `UPDATE_FIXTURES=1` writes anew.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use std::fmt::Write as _;
use std::path::Path;

use sim_sled::machine::{Answer, Mode, Output, Question, Request, Sled};
use sled_protocol::{RequestedState, VmmState};
use support::{EPOCH, Pair, S, SECOND, T, body, op, register, set_op, shown, sled, status, target_of, vmm};

const RESTING: [&str; 16] = [
    "starting",
    "booting",
    "running",
    "rebooting",
    "stopping",
    "stopped",
    "failed",
    "destroyed",
    "target registered",
    "target pending",
    "target in_progress",
    "target finishing",
    "target completed",
    "source pending",
    "source in_progress",
    "source completed",
];

const REQUESTS: [&str; 6] =
    ["running", "stopped", "reboot", "migration_target", "migration_cancel", "unregister"];

/// A sled whose VMM rests in the state of this name, and that VMM's number.
fn resting(name: &str) -> (Sled, u128) {
    let mut sled = sled(1, Mode::Explicit);
    sled.handle(0, register(vmm(1), body(1, None))).unwrap();
    let run = |sled: &mut Sled| {
        sled.handle(0, set_op(vmm(1), op(100), RequestedState::Running)).unwrap();
        sled.step(0, vmm(1));
    };
    let stop = |sled: &mut Sled| sled.handle(0, set_op(vmm(1), op(101), RequestedState::Stopped)).unwrap();
    match name {
        "starting" => {}
        "booting" => {
            sled.handle(0, set_op(vmm(1), op(100), RequestedState::Running)).unwrap();
        }
        "running" => run(&mut sled),
        "rebooting" => {
            run(&mut sled);
            sled.handle(0, set_op(vmm(1), op(101), RequestedState::Reboot)).unwrap();
        }
        "stopping" => {
            run(&mut sled);
            stop(&mut sled);
        }
        "stopped" => {
            run(&mut sled);
            stop(&mut sled);
            sled.step(0, vmm(1));
        }
        "failed" => {
            sled.guest_crash(0, vmm(1));
        }
        "destroyed" => {
            stop(&mut sled);
        }
        "target registered" => return (Pair::ready().target, T),
        "target pending" => return (Pair::begun().target, T),
        "target in_progress" => return (Pair::about_to_ask(Question::Pause).target, T),
        "target finishing" => {
            let mut pair = Pair::about_to_ask(Question::Finish);
            pair.target.step(0, vmm(T));
            pair.target.poll(0);
            return (pair.target, T);
        }
        "target completed" | "source completed" => {
            let mut pair = Pair::about_to_ask(Question::Finish);
            pair.target.step(0, vmm(T));
            pair.settle();
            return if name == "target completed" { (pair.target, T) } else { (pair.source, S) };
        }
        "source pending" => return (Pair::about_to_ask(Question::Copy { round: 1 }).source, S),
        "source in_progress" => return (Pair::about_to_ask(Question::Pause).source, S),
        other => panic!("no such state: {other}"),
    }
    sled.poll(0);
    (sled, 1)
}

fn request(name: &str, n: u128) -> Request {
    let state = match name {
        "running" => RequestedState::Running,
        "stopped" => RequestedState::Stopped,
        "reboot" => RequestedState::Reboot,
        "migration_target" => target_of(vmm(S), S),
        "migration_cancel" => RequestedState::MigrationCancel,
        "unregister" => return Request::Unregister { vmm: vmm(n), lease_epoch: EPOCH },
        other => panic!("no such request: {other}"),
    };
    set_op(vmm(n), op(7), state)
}

/// What is answered at once, and every picture on the way to the next rest without a migration peer.
fn outcome(resting_name: &str, request_name: &str) -> (String, Vec<String>) {
    let (mut sled, n) = resting(resting_name);
    sled.poll(0);
    let before = shown(sled.vmm(vmm(n)).unwrap().state());
    let response = sled.handle(SECOND, request(request_name, n));
    let answer = match &response {
        Err(_) => format!("{}", status(&response)),
        Ok(Answer::Updated(Some(state))) => format!("200 {}", shown(state)),
        Ok(Answer::Updated(None)) => "200 null".to_owned(),
        Ok(other) => panic!("{other:?}"),
    };
    if response.is_err() {
        assert_eq!(shown(sled.vmm(vmm(n)).unwrap().state()), before, "a refusal changes nothing");
    }
    let mut then = Vec::new();
    loop {
        for output in sled.poll(SECOND) {
            if let Output::Report { state, .. } = output {
                then.push(shown(&state));
            }
        }
        if sled.run_script(SECOND, vmm(n)) == 0 || then.len() > 8 || is_waiting(&sled, n) {
            break;
        }
    }
    for output in sled.poll(SECOND) {
        if let Output::Report { state, .. } = output {
            then.push(shown(&state));
        }
    }
    (answer, then)
}

fn is_waiting(sled: &Sled, n: u128) -> bool {
    matches!(
        sled.vmm(vmm(n)).and_then(sim_sled::machine::Vmm::next_step),
        Some(sim_sled::machine::Step::Ask(_))
    )
}

#[test]
fn the_rows_of_the_protocol_hold() {
    // Resting state, request, answer at once, last picture reported on the way to rest ("" for none).
    let rows = [
        ("starting", "running", "200 null", "running"),
        ("booting", "running", "200 null", "running"),
        ("running", "running", "200 null", ""),
        ("rebooting", "running", "200 null", "running"),
        ("target pending", "running", "200 null", ""),
        ("stopping", "running", "400", "destroyed"),
        ("stopped", "running", "400", "destroyed"),
        ("failed", "running", "400", ""),
        ("destroyed", "running", "400", ""),
        ("starting", "stopped", "200 destroyed", "destroyed"),
        ("running", "stopped", "200 stopping", "destroyed"),
        ("rebooting", "stopped", "200 stopping", "destroyed"),
        ("stopping", "stopped", "200 stopping", "destroyed"),
        ("stopped", "stopped", "200 stopping", "destroyed"),
        ("destroyed", "stopped", "200 destroyed", ""),
        ("starting", "reboot", "200 rebooting", "running"),
        ("running", "reboot", "200 rebooting", "running"),
        ("rebooting", "reboot", "200 rebooting", "running"),
        ("target registered", "migration_target", "200 null", ""),
        ("target pending", "migration_cancel", "200 failed in=failed", "failed in=failed"),
        ("target in_progress", "migration_cancel", "200 failed in=failed", "failed in=failed"),
        ("source pending", "migration_cancel", "200 running out=failed", "running out=failed"),
        ("source in_progress", "migration_cancel", "200 running out=failed", "running out=failed"),
        ("target completed", "migration_cancel", "400", "running in=completed"),
        ("source completed", "migration_cancel", "400", "destroyed out=completed"),
        ("running", "unregister", "200 failed", ""),
    ];
    for (resting, request, answer, last) in rows {
        let (answered, then) = outcome(resting, request);
        assert_eq!(answered, answer, "{resting} + {request}");
        assert_eq!(then.last().map_or("", String::as_str), last, "{resting} + {request}: {then:?}");
    }
}

#[test]
fn every_state_meets_every_request_as_the_fixture_says() {
    let mut table = String::from("resting state | request | answer | pictures reported until rest\n");
    for resting in RESTING {
        for request in REQUESTS {
            let (answer, then) = outcome(resting, request);
            writeln!(table, "{resting} | {request} | {answer} | {}", then.join(", ")).unwrap();
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/states.txt");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    for (line, (found, wanted)) in table.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, wanted, "line {} of {}", line + 1, path.display());
    }
    assert_eq!(table.lines().count(), expected.lines().count());
}

#[test]
fn a_guest_that_shuts_down_or_crashes_ends_its_vmm() {
    for (name, last) in
        [("running", "destroyed"), ("rebooting", "destroyed"), ("target completed", "destroyed in=completed")]
    {
        let (mut sled, n) = resting(name);
        assert!(sled.guest_shutdown(0, vmm(n)), "{name}");
        sled.run_script(0, vmm(n));
        assert_eq!(shown(sled.vmm(vmm(n)).unwrap().state()), last);
    }
    for name in RESTING {
        let (mut sled, n) = resting(name);
        let was_live = !matches!(name, "failed" | "destroyed");
        assert_eq!(sled.guest_crash(0, vmm(n)), was_live, "{name}");
        let vmm = sled.vmm(vmm(n)).unwrap();
        assert!(!vmm.is_live() && !vmm.guest_running() && vmm.next_step().is_none());
        vmm.state().validate().unwrap();
    }
    let (mut sled, n) = resting("starting");
    assert!(!sled.guest_shutdown(0, vmm(n)), "there is no guest yet");
}

#[test]
fn a_guest_that_ignores_the_stop_is_killed_when_the_grace_period_ends_and_not_before() {
    let mut sled = sled(1, Mode::Auto);
    sled.handle(0, register(vmm(1), body(1, None))).unwrap();
    sled.handle(0, set_op(vmm(1), op(1), RequestedState::Running)).unwrap();
    sled.poll(10 * SECOND);
    sled.guest_ignores_stop(vmm(1));
    sled.handle(10 * SECOND, set_op(vmm(1), op(2), RequestedState::Stopped)).unwrap();
    sled.poll(10 * SECOND);
    assert_eq!(sled.next_wake(), Some(610 * SECOND));
    assert!(sled.poll(610 * SECOND - 1).is_empty());
    assert!(sled.vmm(vmm(1)).unwrap().guest_running());
    sled.poll(610 * SECOND);
    assert_eq!(support::in_state(&sled, vmm(1)), Some(VmmState::Destroyed));
    assert!(!sled.vmm(vmm(1)).unwrap().guest_running());
}

#[test]
fn in_auto_mode_a_vmm_lives_and_dies_within_the_configured_times() {
    let mut sled = sled(1, Mode::Auto);
    sled.handle(0, register(vmm(1), body(1, None))).unwrap();
    sled.handle(0, set_op(vmm(1), op(1), RequestedState::Running)).unwrap();
    let wake = sled.next_wake().unwrap();
    assert!((200_000..=800_000).contains(&wake), "{wake}");
    assert!(sled.poll(wake - 1).is_empty());
    let [Output::Report { state, .. }] = &sled.poll(wake)[..] else { panic!() };
    assert_eq!((state.vmm_state.state, state.vmm_state.time_updated.as_micros()), (VmmState::Running, wake));
    assert_eq!(sled.next_wake(), None);
    sled.handle(SECOND, set_op(vmm(1), op(2), RequestedState::Stopped)).unwrap();
    sled.poll(3 * SECOND);
    assert_eq!(support::in_state(&sled, vmm(1)), Some(VmmState::Destroyed));
}

#[test]
fn a_clock_that_runs_backwards_moves_nothing_backwards() {
    let mut sled = sled(1, Mode::Auto);
    sled.handle(9 * SECOND, register(vmm(1), body(1, None))).unwrap();
    sled.handle(SECOND, set_op(vmm(1), op(1), RequestedState::Running)).unwrap();
    assert!(sled.next_wake().unwrap() > 9 * SECOND);
    sled.poll(20 * SECOND);
    sled.handle(0, set_op(vmm(1), op(2), RequestedState::Stopped)).unwrap();
    let stopping = sled.vmm(vmm(1)).unwrap().state().vmm_state.time_updated;
    assert_eq!(stopping.as_micros(), 20 * SECOND);
}
