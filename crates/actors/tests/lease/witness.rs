//! A boot that needs the sled's own word: what else the sled says is answered meanwhile, and the word counts only if
//! nothing else was recorded of it.

use super::Stage;
use crate::fleet::context;
use actors::instance::Ask;
use lifecycle::RunState;
use lifecycle::sled::SledCommand;
use sim_sled::embedded::EmbeddedSled;
use sled_protocol::{BootId, ControlPlaneError, RegisterSled, RenewLease, SledId, SledLease, SledResources};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// One sled, in service.
async fn one() -> Stage {
    Stage::set(None, &[0], 7).await
}

fn sled(stage: &Stage) -> &EmbeddedSled {
    &stage.sleds[0].1
}

/// The sled's registration with some boot, sent by somebody.
fn register(stage: &Stage, boot_id: BootId) -> JoinHandle<Result<SledLease, ControlPlaneError>> {
    let config = sled(stage).with_machine(|machine, _| machine.config().clone()).unwrap();
    let request = RegisterSled {
        sled_id: config.sled_id,
        name: config.name,
        boot_id,
        resources: SledResources { threads: 16, memory: 64 << 30 },
        cpu_family: config.cpu_family,
        api_addr: config.api_addr,
        store_id: None,
        held_epoch: None,
    };
    let intake = stage.fleet.control.intake();
    tokio::spawn(async move { intake.register(request).await })
}

fn boots(stage: &Stage) -> usize {
    stage.count(|event| matches!(event, journal::Event::Sled(lifecycle::SledEvent::Booted { .. })))
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_answered_while_the_sled_is_asked_about_another_boot() {
    let stage = one().await;
    let (id, link) = (stage.sleds[0].0, &stage.sleds[0].2);
    let held =
        sled(&stage).with_machine(|machine, _| (machine.host().boot_id(), machine.host().lease_epoch()));
    let (boot_id, lease_epoch) = held.unwrap();
    link.to_sled.cut(true);
    let asked = register(&stage, BootId::from_uuid(Uuid::from_u128(0xdead)));
    let others = [0xdea0, 0xdea1, 0xdea2, 0xdea3]
        .map(|boot| register(&stage, BootId::from_uuid(Uuid::from_u128(boot))));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let renewal = RenewLease { boot_id, lease_epoch: lease_epoch.unwrap() };
    let sled_id = SledId::from_uuid(id.uuid());
    assert_eq!(stage.fleet.control.intake().renew(sled_id, renewal).await, Ok(()));
    assert!(!asked.is_finished(), "it is still being asked");
    assert!(others.iter().any(JoinHandle::is_finished), "so many questions at a time, and no more");
    for asked in others.into_iter().chain([asked]) {
        let refused = asked.await.unwrap();
        assert!(matches!(refused, Err(ControlPlaneError::Unavailable(_))), "{refused:?}");
    }
    assert_eq!(boots(&stage), 1);
}

#[tokio::test(start_paused = true)]
async fn a_word_that_comes_after_something_else_was_recorded_does_not_count_and_the_next_one_does() {
    let stage = one().await;
    let (id, link) = (stage.sleds[0].0, &stage.sleds[0].2);
    let boot = BootId::from_uuid(Uuid::from_u128(0xb2));
    // Its own registration is held up, so that this one is all that is said of the boot.
    link.cut(true);
    sled(&stage).with_machine(|machine, now| machine.reboot(now, boot)).unwrap();
    let asked = register(&stage, boot);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let cordon = SledCommand::Cordon("disk".to_owned());
    stage.fleet.control.ask_sled(id, cordon, context()).await.unwrap();
    // Of what meets a cut every second message is lost: the question may be, and then nothing is confirmed either.
    link.cut(false);
    let refused = asked.await.unwrap();
    assert!(matches!(refused, Err(ControlPlaneError::Unavailable(_))), "{refused:?}");
    stage.fleet.until("the boot is recorded", async || boots(&stage) == 2).await;
}

#[tokio::test(start_paused = true)]
async fn orders_given_while_a_sled_is_away_are_carried_out_when_it_is_back() {
    let mut stage = one().await;
    stage.run_instances(8).await;
    let (id, link) = (stage.sleds[0].0, Arc::clone(&stage.sleds[0].2));
    let control = &stage.fleet.control;
    link.to_sled.cut(true);
    let is_unreachable = async || control.sled_status(id).await.unwrap().unreachable.is_some();
    stage.fleet.until("the sled is missed", is_unreachable).await;
    for instance in &stage.guests {
        let (control, instance) = (control.clone(), *instance);
        tokio::spawn(async move { control.ask(instance, Ask::Stop, context()).await });
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    link.to_sled.cut(false);
    for instance in &stage.guests {
        stage.fleet.until_state(*instance, RunState::Stopped).await;
    }
}
