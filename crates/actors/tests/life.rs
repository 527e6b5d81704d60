//! Whole lives of instances through the real actors: every command, what it costs, and what a failure of
//! the parts leaves behind.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fleet;

use actors::instance::Ask;
use actors::{CommandError, NewInstance};
use eventlog::Position;
use eventlog::cache::{Cache as _, Snapshot};
use fleet::{Fleet, context, spec, start_control};
use journal::Event;
use lifecycle::{InstanceEvent, Rejected, RunState, Shortage, VmmState};
use sim_sled::faults::{Fault, Faults};
use sim_sled::machine::RequestKind;
use std::sync::Arc;

fn instance_event(event: &Event) -> Option<&InstanceEvent> {
    match event {
        Event::Instance(event) => Some(event),
        _ => None,
    }
}

fn reported(event: &Event, state: VmmState) -> bool {
    matches!(instance_event(event), Some(InstanceEvent::VmmReported { report, .. }) if report.state == state)
}

#[tokio::test(start_paused = true)]
async fn an_instance_lives_through_every_command() {
    let fleet = Fleet::with_sleds(2).await;
    let id = fleet.create("web-1", true).await;
    fleet.until_state(id, RunState::Running).await;
    fleet.control.ask(id, Ask::Reboot, context()).await.unwrap();
    fleet.until_state(id, RunState::Running).await;
    fleet.control.ask(id, Ask::Stop, context()).await.unwrap();
    fleet.until_state(id, RunState::Stopped).await;
    fleet.control.ask(id, Ask::Start, context()).await.unwrap();
    fleet.until_state(id, RunState::Running).await;
    fleet.control.ask(id, Ask::Stop, context()).await.unwrap();
    fleet.until_state(id, RunState::Stopped).await;
    fleet.control.ask(id, Ask::Delete, context()).await.unwrap();
    let gone = fleet.control.instance(id).await.unwrap_err();
    assert!(matches!(gone, CommandError::Rejected(Rejected::NoSuchInstance(_))), "{gone}");
    fleet.until("nothing is held", async || nothing_is_held(&fleet).await).await;
    fleet.until("nobody acts for it any more", async || fleet.control.live_instances() == 0).await;
    fleet.create("web-1", false).await;
    assert_eq!(fleet.fatal.reason(), None);
}

async fn nothing_is_held(fleet: &Fleet) -> bool {
    let sleds = fleet.control.sleds().await.unwrap();
    sleds.iter().all(|(load, _)| load.held.threads == 0 && load.held.memory == 0)
}

#[tokio::test(start_paused = true)]
async fn a_start_costs_at_most_eight_appends_and_a_stop_three() {
    let fleet = Fleet::with_sleds(1).await;
    let id = fleet.create("web-1", false).await;
    fleet.control.ask(id, Ask::Start, context()).await.unwrap();
    fleet.until_state(id, RunState::Running).await;
    fleet.control.ask(id, Ask::Stop, context()).await.unwrap();
    fleet.until_state(id, RunState::Stopped).await;
    let began = |event: &Event| matches!(instance_event(event), Some(InstanceEvent::StartBegan { .. }));
    let start = fleet.appends_between(id, began, |event| reported(event, VmmState::Running));
    let updated = |event: &Event| matches!(instance_event(event), Some(InstanceEvent::Updated(_)));
    let stop = fleet.appends_between(id, |event| reported(event, VmmState::Stopping), updated);
    assert!(start <= 8, "a start cost {start} appends");
    assert!(stop <= 3, "a stop cost {stop} appends");
    assert_eq!((start, stop), (3, 2), "cheaper or dearer: change the numbers here and in docs/lifecycle.md");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_placed_is_refused_and_leaves_nothing() {
    let fleet = Fleet::with_sleds(1).await;
    for n in 0..4 {
        let id = fleet.create(&format!("full-{n}"), true).await;
        fleet.until_state(id, RunState::Running).await;
    }
    let id = fleet.create("more", false).await;
    let before = fleet.events().len();
    let short = fleet.control.ask(id, Ask::Start, context()).await.unwrap_err();
    assert!(matches!(short, CommandError::Rejected(Rejected::Short(Shortage::Room { .. }))), "{short}");
    assert_eq!(fleet.events().len(), before);
    assert_eq!(fleet.state(id).await.run_state(), RunState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn two_creates_of_one_name_leave_one_instance() {
    let fleet = Fleet::with_sleds(1).await;
    let new = || NewInstance { spec: spec(fleet.project, "web-1"), start: false };
    let (one, other) = tokio::join!(
        fleet.control.create_instance(new(), context()),
        fleet.control.create_instance(new(), context())
    );
    let refused = one.err().or(other.err()).unwrap();
    assert_eq!(refused.to_string(), "already exists: instance \"web-1\"");
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answers_are_lost_comes_up_all_the_same() {
    let fleet = Fleet::with_sleds(1).await;
    let faults = Faults::default().at(RequestKind::Register, 0, Fault::LoseAnswer).at(
        RequestKind::SetRunning,
        0,
        Fault::LoseRequest,
    );
    fleet.sleds[0].set_faults(faults);
    let id = fleet.create("web-1", true).await;
    fleet.until_state(id, RunState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_successor_on_the_same_log_finishes_what_was_begun() {
    let fleet = Fleet::with_sleds(1).await;
    let id = fleet.create("web-1", true).await;
    assert_eq!(fleet.state(id).await.run_state(), RunState::Starting);
    // The daemon dies here: its actors are cut off by the successor's claims, its sled lives on.
    let (control, _, switchboard) = start_control(Arc::clone(&fleet.log), Arc::clone(&fleet.cache), 2).await;
    *switchboard.clients.lock().unwrap() = fleet.switchboard.clients.lock().unwrap().clone();
    control.resume([id]).await;
    fleet
        .until("running", async || {
            control.instance(id).await.is_ok_and(|i| i.run_state() == RunState::Running)
        })
        .await;
    let begun = fleet
        .events()
        .iter()
        .filter(|recorded| matches!(instance_event(&recorded.event), Some(InstanceEvent::StartBegan { .. })))
        .count();
    assert_eq!(begun, 1, "the start was resumed, not repeated");
}

#[tokio::test(start_paused = true)]
async fn a_sled_that_reboots_takes_its_vmms_with_it() {
    let fleet = Fleet::with_sleds(1).await;
    let id = fleet.create("web-1", true).await;
    fleet.until_state(id, RunState::Running).await;
    let mut change = fleet.state(id).await.spec.changeable();
    change.auto_restart = Some(lifecycle::AutoRestartPolicy::Never);
    fleet.control.ask(id, Ask::Update { change: Box::new(change) }, context()).await.unwrap();
    let boot = sled_protocol::BootId::from_uuid(uuid::Uuid::from_u128(0xb1));
    fleet.sleds[0].with_machine(|machine, now| machine.reboot(now, boot)).unwrap();
    fleet.until_state(id, RunState::Failed).await;
    let failed = fleet.state(id).await.failed.clone().unwrap();
    let expected = lifecycle::FailureReason::SledRebooted;
    assert!(
        matches!(failed.cause, lifecycle::instance::TroubleCause::VmmFailed { reason, .. } if reason == expected),
        "{failed:?}"
    );
    fleet.until("nothing is held", async || nothing_is_held(&fleet).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_loads_a_snapshot_is_where_one_that_folds_everything_is() {
    let fleet = Fleet::with_sleds(1).await;
    let id = fleet.create("web-1", true).await;
    fleet.until_state(id, RunState::Running).await;
    for _ in 0..30 {
        fleet.control.ask(id, Ask::Reboot, context()).await.unwrap();
        fleet.until_state(id, RunState::Rebooting).await;
        fleet.until_state(id, RunState::Running).await;
    }
    let stream = journal::StreamName::Instance(id).id();
    let snapshot = fleet.cache.snapshot(stream).unwrap().unwrap();
    assert!(snapshot.version.get() > 60, "{:?}", snapshot.version);
    let with = start_control(Arc::clone(&fleet.log), Arc::clone(&fleet.cache), 2).await.0;
    let loaded = with.instance(id).await.unwrap();
    let without = start_control(Arc::clone(&fleet.log), Arc::default(), 3).await.0;
    assert_eq!(loaded, without.instance(id).await.unwrap());
    // One that is of another past counts for nothing.
    let of_elsewhere = Snapshot { position: Position::new(snapshot.position.get() - 1), ..snapshot };
    fleet.cache.put_snapshot(stream, &of_elsewhere).unwrap();
    let misled = start_control(Arc::clone(&fleet.log), Arc::clone(&fleet.cache), 4).await.0;
    assert_eq!(loaded, misled.instance(id).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_sled_that_registers_before_it_can_be_found_is_found_later() {
    let mut fleet = Fleet::with_sleds(0).await;
    let late = fleet.add_sled_hidden(0);
    fleet.until_sleds_are_up(1).await;
    let id = fleet.create("web-1", true).await;
    fleet.reveal(late);
    fleet.until_state(id, RunState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_registration_of_a_boot_that_is_over_is_not_believed() {
    let fleet = Fleet::with_sleds(1).await;
    let id = fleet.create("web-1", true).await;
    fleet.until_state(id, RunState::Running).await;
    // Sent in a boot that never reached the log, and delivered long after the sled has left it.
    let sled = fleet.control.sleds().await.unwrap().remove(0).0;
    let late = sled_protocol::RegisterSled {
        sled_id: sled_protocol::SledId::from_uuid(sled.id.uuid()),
        name: sled.name,
        boot_id: sled_protocol::BootId::from_uuid(uuid::Uuid::from_u128(0xdead)),
        resources: sled_protocol::SledResources { threads: sled.room.threads, memory: sled.room.memory },
        cpu_family: "sim-x86".to_owned(),
        api_addr: "sim-0".to_owned(),
        store_id: None,
        held_epoch: None,
    };
    let refused = fleet.control.intake().register(late).await;
    assert!(refused.is_err(), "{refused:?}");
    tokio::time::sleep(std::time::Duration::from_mins(2)).await;
    assert_eq!(fleet.state(id).await.run_state(), RunState::Running);
}
