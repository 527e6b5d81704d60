//! The circuit of a sled that does not answer, on a paused clock: who is sent what meanwhile, and that work goes on.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fleet;
#[allow(dead_code, reason = "each test uses its own part")]
#[path = "lease/link.rs"]
mod link;

use actors::Limits;
use actors::instance::Ask;
use actors::sled::{CircuitStatus, SledStatus};
use fleet::{Fleet, context};
use lifecycle::{InstanceId, RunState, SledId};
use link::{FarControl, FarSled, Link};
use sim_sled::machine::{Config, RequestKind};
use sled_protocol::{BootId, LeaseEpoch, RenewLease, SledClient, SledResources};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

const GUESTS: usize = 8;

/// Latency of a link, both ways, and the time of a guest to halt.
const WORK: Duration = Duration::from_secs(2);

struct Stage {
    fleet: Fleet,
    sled: SledId,
    link: Arc<Link>,
    guests: Vec<InstanceId>,
}

impl Stage {
    /// One sled behind a link, with guests that run.
    async fn set(seed: u64) -> Self {
        let mut fleet = Fleet::without_sleds(Limits::default()).await;
        let sled_id = sled_protocol::SledId::from_uuid(Uuid::from_u128(0x51_0000));
        let mut config = Config::new(sled_id, "s0", "192.0.2.1:7000", seed);
        config.resources = SledResources { threads: 64, memory: 256 << 30 };
        let link = Link::new(seed);
        let control = Arc::new(FarControl { link: Arc::clone(&link), control: fleet.control.intake() });
        let opened = fleet.open_sled(config, control);
        let far = FarSled { link: Arc::clone(&link), sled: Arc::new(opened.clone()) as Arc<dyn SledClient> };
        let sled = SledId::new(sled_id.as_uuid());
        fleet.reveal((sled, Arc::new(far)));
        fleet.sleds.push(opened);
        fleet.until_sleds_are_up(1).await;
        let mut guests = Vec::new();
        for n in 0..GUESTS {
            guests.push(fleet.create(&format!("web-{n}"), true).await);
        }
        for id in &guests {
            fleet.until_state(*id, RunState::Running).await;
        }
        // A report whose answer meets the cut is repeated, and heard.
        tokio::time::sleep(WORK).await;
        Self { fleet, sled, link, guests }
    }

    /// Asks every guest to stop; nobody is waited for.
    fn order_stops(&self) {
        for id in self.guests.clone() {
            let control = self.fleet.control.clone();
            tokio::spawn(async move { control.ask(id, Ask::Stop, context()).await });
        }
    }

    async fn status(&self) -> SledStatus {
        self.fleet.control.sled_status(self.sled).await.unwrap()
    }

    async fn circuit(&self) -> Option<CircuitStatus> {
        self.status().await.circuit
    }

    async fn until_open(&self) -> CircuitStatus {
        self.fleet.until("the circuit is open", async || self.circuit().await.is_some()).await;
        self.circuit().await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_sled_that_does_not_answer_is_sent_probes_only_and_work_goes_on_within_a_period_of_its_return() {
    let limits = Limits::default();
    for seed in 0..8 {
        let stage = Stage::set(seed).await;
        stage.link.to_sled.cut(true);
        stage.order_stops();
        let open = stage.until_open().await;
        assert!(open.unanswered >= limits.sled_unanswered_max);
        // What was under way when it opened is over.
        tokio::time::sleep(limits.sled_call.longest()).await;
        let (sent, before) = (stage.link.to_sled.sent(), stage.status().await);
        let minutes = 10;
        tokio::time::sleep(Duration::from_mins(minutes)).await;
        let (probes, after) = (stage.link.to_sled.sent() - sent, stage.status().await);
        // Each is drawn between half a period and a whole one, and takes its time.
        let most = minutes * 60 * 2 / limits.sled_probe.as_secs() + 1;
        let least = minutes * 60 / (limits.sled_probe + limits.sled_call.inventory).as_secs();
        assert!((least..=most).contains(&probes), "{probes} requests in {minutes} min");
        assert!(after.held_back > before.held_back + 100, "orders are tried all along: {after:?}");
        assert_eq!(after.circuit.map(|circuit| circuit.since), Some(open.since));

        stage.link.to_sled.cut(false);
        let mended = Instant::now();
        stage.fleet.until("the circuit is closed", async || stage.circuit().await.is_none()).await;
        let period = limits.sled_probe;
        assert!(mended.elapsed() <= period + WORK, "found after {:?}", mended.elapsed());
        let closed = Instant::now();
        for id in &stage.guests {
            stage.fleet.until_state(*id, RunState::Stopped).await;
        }
        assert!(closed.elapsed() <= period + WORK, "seed {seed}: done after {:?}", closed.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_heard_of_a_sled_closes_its_circuit_at_once() {
    let stage = Stage::set(1).await;
    let held = stage.fleet.sleds[0].inventory().await.unwrap();
    stage.link.to_sled.cut(true);
    stage.order_stops();
    // A guest that ends is reported.
    stage.until_open().await;
    let sled = &stage.fleet.sleds[0];
    sled.with_machine(|machine, now| machine.guest_crash(now, held.vmms[0].propolis_id)).unwrap();
    stage.fleet.until("a report has closed it", async || stage.circuit().await.is_none()).await;
    // The sled cannot be reached all the same.
    stage.until_open().await;
    let intake = stage.fleet.control.intake();
    let renewal =
        RenewLease { boot_id: BootId::from_uuid(Uuid::from_u128(0xb0)), lease_epoch: LeaseEpoch::FIRST };
    intake.renew(held.sled_id, renewal).await.unwrap();
    stage.fleet.until("a renewal has closed it", async || stage.circuit().await.is_none()).await;
    stage.until_open().await;
    let registration = sled.with_machine(|machine, now| {
        machine.agent_restart(now);
        machine.registration()
    });
    intake.register(registration.unwrap().unwrap()).await.unwrap();
    stage.fleet.until("a registration has closed it", async || stage.circuit().await.is_none()).await;
    stage.link.to_sled.cut(false);
    for id in &stage.guests {
        let is_over =
            async || matches!(stage.fleet.state(*id).await.run_state(), RunState::Stopped | RunState::Failed);
        stage.fleet.until("every order is carried out", is_over).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sled_that_refuses_is_one_that_answers() {
    let stage = Stage::set(2).await;
    let busy = sled_protocol::SledError::ChannelFull;
    let faults = sim_sled::faults::Faults::default();
    let faults = faults.always(RequestKind::SetStopped, sim_sled::faults::Fault::Answer(busy));
    stage.fleet.sleds[0].set_faults(faults);
    stage.order_stops();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(stage.circuit().await, None);
    }
    stage.fleet.sleds[0].set_faults(sim_sled::faults::Faults::default());
    for id in &stage.guests {
        stage.fleet.until_state(*id, RunState::Stopped).await;
    }
}
