//! Leases through the real actors on a paused clock: sleds whose clocks are off, and whose ways to the control plane
//! are cut in either direction. Between any two looks no instance has two guests.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fleet;
#[path = "lease/link.rs"]
mod link;
#[path = "lease/stalled.rs"]
mod stalled;
#[path = "lease/witness.rs"]
mod witness;

use actors::Limits;
use actors::sled::CLOCK_OFF_PPM_MAX;
use eventlog::{SimLog, Survival, SyncMode};
use fleet::{Fleet, context, start_control_in};
use journal::Event;
use lifecycle::{Evidence, InstanceEvent, InstanceId, RunState, SledEvent, SledId};
use link::{FarControl, FarSled, Link};
use sim_sled::embedded::EmbeddedSled;
use sim_sled::machine::{Config, Dice, Span};
use sled_protocol::{BootId, ControlPlaneClient, SledClient, SledResources};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const LEASE_S: u64 = 10;

/// How often the truth is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Real sleds, each behind a link.
struct Stage {
    fleet: Fleet,
    sleds: Vec<(SledId, EmbeddedSled, Arc<Link>)>,
    lease: Option<u64>,
    guests: Vec<InstanceId>,
}

/// What was seen at one look, if it may not be.
#[derive(Debug)]
struct TwoGuests(#[allow(dead_code, reason = "shown when a test fails")] uuid::Uuid);

impl Stage {
    /// Clocks of the sleds run off the control plane's by this.
    async fn set(lease: Option<u64>, clocks_off_ppm: &[i32], seed: u64) -> Self {
        Self::set_over(SimLog::new(), lease, clocks_off_ppm, seed).await
    }

    async fn set_over(log: SimLog, lease: Option<u64>, clocks_off_ppm: &[i32], seed: u64) -> Self {
        let fleet = Fleet::over(Arc::new(log), limits(lease)).await;
        let mut stage = Self { fleet, sleds: Vec::new(), lease, guests: Vec::new() };
        for (n, off) in (0_u64..).zip(clocks_off_ppm) {
            let sled_id = sled_protocol::SledId::from_uuid(Uuid::from_u128(0x51_0000 + u128::from(n)));
            let mut config =
                Config::new(sled_id, &format!("s{n}"), &format!("192.0.2.{}:7000", n + 1), seed * 31 + n);
            config.resources = SledResources { threads: 16, memory: 64 << 30 };
            config.idle_renewal_seconds = Some(5);
            config.clock_off_ppm = *off;
            let link = Link::new(seed * 1_000 + n);
            let control = stage.fleet.control.intake();
            let sled =
                stage.fleet.open_sled(config, Arc::new(FarControl { link: Arc::clone(&link), control }));
            let id = SledId::new(sled_id.as_uuid());
            let far =
                FarSled { link: Arc::clone(&link), sled: Arc::new(sled.clone()) as Arc<dyn SledClient> };
            stage.fleet.reveal((id, Arc::new(far)));
            stage.sleds.push((id, sled, link));
        }
        stage.fleet.until_sleds_are_up(clocks_off_ppm.len()).await;
        stage
    }

    async fn run_instances(&mut self, count: usize) {
        for n in 0..count {
            self.guests.push(self.fleet.create(&format!("web-{n}"), true).await);
        }
        for id in self.guests.clone() {
            self.fleet.until_state(id, RunState::Running).await;
        }
    }

    /// Guests that run at this moment, per instance, and on which sled one of them does.
    fn guests(&self) -> BTreeMap<Uuid, (usize, usize)> {
        let mut guests: BTreeMap<Uuid, (usize, usize)> = BTreeMap::new();
        for (n, (_, sled, _)) in self.sleds.iter().enumerate() {
            let running = sled.with_machine(|machine, _| {
                let running = machine.vmms().filter(|vmm| vmm.guest_running());
                running.map(|vmm| vmm.instance_id().as_uuid()).collect::<Vec<_>>()
            });
            for id in running.unwrap() {
                let (count, at) = guests.entry(id).or_default();
                (*count, *at) = (*count + 1, n);
            }
        }
        guests
    }

    /// Lets time pass, and looks all along.
    async fn pass(&self, time: Duration) -> Result<(), TwoGuests> {
        for _ in 0..time.as_millis() / LOOK.as_millis() {
            tokio::time::sleep(LOOK).await;
            if let Some((id, _)) = self.guests().into_iter().find(|(_, (count, _))| *count > 1) {
                return Err(TwoGuests(id));
            }
        }
        Ok(())
    }

    fn sled_of(&self, instance: InstanceId) -> Option<usize> {
        self.guests().get(&instance.uuid()).map(|(_, at)| *at)
    }

    /// How often something was journaled.
    fn count(&self, of: impl Fn(&Event) -> bool) -> usize {
        self.fleet.events().iter().filter(|recorded| of(&recorded.event)).count()
    }

    fn expiries(&self) -> usize {
        self.count(|event| matches!(event, Event::Sled(SledEvent::LeaseExpired { .. })))
    }

    fn starts(&self, id: InstanceId) -> usize {
        let stream = journal::StreamName::Instance(id);
        let starts = |event: &Event| matches!(event, Event::Instance(InstanceEvent::StartBegan { .. }));
        self.fleet.events().iter().filter(|it| it.stream == stream && starts(&it.event)).count()
    }
}

fn limits(lease: Option<u64>) -> Limits {
    let mut limits =
        Limits { sled_lease: lease, inventory_period: Duration::from_secs(5), ..Limits::default() };
    limits.timers.reincarnation = Duration::from_secs(1);
    limits
}

#[tokio::test(start_paused = true)]
async fn a_sled_that_is_cut_off_loses_its_guests_and_each_is_started_once_elsewhere() {
    let mut stage = Stage::set(Some(LEASE_S), &[0, 0, 0], 1).await;
    stage.run_instances(6).await;
    let lost: Vec<InstanceId> =
        stage.guests.iter().copied().filter(|id| stage.sled_of(*id) == Some(0)).collect();
    assert!(!lost.is_empty() && lost.len() < 6, "placement spreads: {lost:?}");
    let link = Arc::clone(&stage.sleds[0].2);
    link.cut(true);
    stage.pass(Duration::from_secs(LEASE_S)).await.unwrap();
    assert_eq!(stage.expiries(), 0, "the control plane waits longer than the sled");
    assert!(stage.guests().values().all(|(_, at)| *at != 0), "the sled has killed its guests by then");
    stage.pass(Duration::from_secs(30)).await.unwrap();
    assert_eq!(stage.expiries(), 1);
    for id in &lost {
        assert_eq!(stage.fleet.state(*id).await.run_state(), RunState::Running);
        assert!(matches!(stage.sled_of(*id), Some(1 | 2)), "{id} is elsewhere");
    }
    link.cut(false);
    stage.pass(Duration::from_mins(1)).await.unwrap();
    for id in &stage.guests {
        assert_eq!(stage.starts(*id), 1 + usize::from(lost.contains(id)), "{id}");
        assert!(stage.sled_of(*id).is_some(), "{id} runs");
    }
    let gone = |event: &Event| {
        matches!(
            event,
            Event::Instance(InstanceEvent::VmmGone {
                evidence: Evidence::LeaseExpired | Evidence::Reported,
                ..
            })
        )
    };
    assert_eq!(stage.count(gone), lost.len());
    let (loads, back) = (stage.fleet.control.sleds().await.unwrap(), stage.sleds[0].0);
    let (load, status) = loads.into_iter().find(|(load, _)| load.id == back).unwrap();
    assert_eq!((load.boot.unwrap().1.get(), load.is_lapsed), (2, false), "it registered into the next epoch");
    assert_eq!(status.unwrap().lease.map(|lease| (lease.seconds, lease.expired)), Some((LEASE_S, None)));
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_a_sled_that_is_cut_off_keeps_its_guests_and_nothing_is_started() {
    let mut stage = Stage::set(None, &[0, 0, 0], 1).await;
    stage.run_instances(6).await;
    let before = stage.guests();
    let link = Arc::clone(&stage.sleds[0].2);
    link.cut(true);
    stage.pass(Duration::from_mins(10)).await.unwrap();
    link.cut(false);
    stage.pass(Duration::from_mins(1)).await.unwrap();
    assert_eq!((stage.expiries(), stage.guests()), (0, before));
    for id in &stage.guests {
        assert_eq!(stage.starts(*id), 1, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_starts_anew_gives_each_lease_its_whole_time_and_forgets_no_end() {
    let mut stage = Stage::set(Some(LEASE_S), &[0, 0], 1).await;
    stage.run_instances(2).await;
    let link = Arc::clone(&stage.sleds[0].2);
    link.cut(true);
    stage.pass(Duration::from_secs(8)).await.unwrap();
    let cache = Arc::clone(&stage.fleet.cache);
    // Nobody reaches the one that comes up. What the log says of a lease counts, not what is configured by now.
    for (life, lease, waited, expected) in
        [(2, None, LEASE_S, 0), (3, Some(3_600), LEASE_S + 6, 2), (4, Some(LEASE_S), 60, 2)]
    {
        let devices = fleet::Devices::default();
        let (store, _) = stage.fleet.log.crash(Survival::All);
        stage.fleet.control.shutdown().await;
        let log = Arc::new(SimLog::over(store, SyncMode::Immediate));
        let (control, _, _) =
            start_control_in(log.clone(), cache.clone(), life, devices, limits(lease)).await;
        control.resume([]).await;
        tokio::time::sleep(Duration::from_secs(waited)).await;
        stage.fleet.log = log;
        assert_eq!(stage.expiries(), expected, "life {life}");
        stage.fleet.control = control;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_register_of_an_epoch_that_is_over_starts_nothing() {
    let mut stage = Stage::set(Some(LEASE_S), &[0, 0], 1).await;
    stage.run_instances(1).await;
    let at = stage.sled_of(stage.guests[0]).unwrap();
    let (_, sled, link) = &stage.sleds[at];
    let held = sled.inventory().await.unwrap();
    let vmm = held.vmms[0].propolis_id;
    let register = |epoch| sled_protocol::RegisterVmm {
        instance_id: held.vmms[0].instance_id,
        migration_id: None,
        vmm_runtime: sled_protocol::VmmRuntime {
            state: sled_protocol::VmmState::Starting,
            generation: sled_protocol::Generation::FIRST,
            time_updated: held.vmms[0].state.vmm_state.time_updated,
        },
        resources: sled_protocol::VmmResources { ncpus: 2, memory: 4 << 30 },
        network: sled_protocol::VmmNetwork {
            virtual_ip: "10.0.0.5".parse().unwrap(),
            mac: "A8:40:25:00:00:01".parse().unwrap(),
            vni: sled_protocol::Vni::new(100).unwrap(),
        },
        metadata: sled_protocol::VmmMetadata {
            project_id: sled_protocol::ProjectId::from_uuid(Uuid::from_u128(1)),
        },
        lease_epoch: epoch,
    };
    let old = held.lease_epoch.unwrap();
    link.cut(true);
    stage.pass(Duration::from_secs(30)).await.unwrap();
    assert_eq!(
        sled.register(vmm, register(old)).await,
        Err(sled_protocol::SledError::StaleEpoch),
        "no epoch"
    );
    link.cut(false);
    stage.pass(Duration::from_secs(30)).await.unwrap();
    let now = sled.inventory().await.unwrap().lease_epoch.unwrap();
    assert!(now > old);
    let other = sled_protocol::PropolisId::from_uuid(Uuid::from_u128(77));
    assert_eq!(sled.register(other, register(old)).await, Err(sled_protocol::SledError::StaleEpoch), "epoch");
    assert_eq!(sled.register(vmm, register(now)).await, Err(sled_protocol::SledError::Gone), "tombstone");
    // Neither alone is enough: a host that has booted has no tombstones left.
    sled.with_machine(|machine, now| machine.reboot(now, BootId::from_uuid(Uuid::from_u128(0xb1))));
    stage.pass(Duration::from_secs(30)).await.unwrap();
    assert_eq!(
        sled.register(vmm, register(now)).await,
        Err(sled_protocol::SledError::StaleEpoch),
        "new boot"
    );
}

/// Cuts, heals, host boots, and orders, drawn from a seed; every look at the truth counts.
async fn campaign(seed: u64, clocks_off_ppm: &[i32]) -> Result<usize, TwoGuests> {
    let mut stage = Stage::set(Some(LEASE_S), clocks_off_ppm, seed).await;
    stage.run_instances(4).await;
    let dice = Dice::new(seed);
    for round in 0..6 {
        let draw = |what: &str, choices: u64| dice.draw(what, Uuid::nil(), round) % choices;
        let at = usize::try_from(draw("sled", stage.sleds.len() as u64)).unwrap();
        let (_, sled, link) = &stage.sleds[at];
        let directions = draw("directions", 4);
        link.to_control.cut(directions != 0);
        link.to_sled.cut(directions != 1);
        let cut = dice.within(Span::millis(5_000, 40_000), "cut", Uuid::nil(), round);
        stage.pass(Duration::from_micros(cut / 2)).await?;
        if draw("boot", 5) == 0 {
            let boot = BootId::from_uuid(Uuid::from_u128(0xb100 + u128::from(round)));
            sled.with_machine(|machine, now| machine.reboot(now, boot));
        }
        let id = stage.guests[usize::try_from(draw("guest", 4)).unwrap()];
        let ask =
            if draw("order", 2) == 0 { actors::instance::Ask::Reboot } else { actors::instance::Ask::Start };
        // What its state does not allow is refused.
        let _ =
            tokio::time::timeout(Duration::from_secs(1), stage.fleet.control.ask(id, ask, context())).await;
        stage.pass(Duration::from_micros(cut / 2)).await?;
        link.cut(false);
        stage
            .pass(Duration::from_micros(dice.within(Span::millis(0, 20_000), "calm", Uuid::nil(), round)))
            .await?;
    }
    // A sled that lost its lease by its own count only has yet to say so.
    stage.pass(Duration::from_secs(40)).await?;
    // Restarts back off by up to an hour; whoever is stopped for now is asked.
    for id in stage.guests.clone() {
        for _ in 0..600 {
            if stage.fleet.state(id).await.run_state() == RunState::Running {
                break;
            }
            let _ = stage.fleet.control.ask(id, actors::instance::Ask::Start, context()).await;
            stage.pass(Duration::from_secs(1)).await?;
        }
        assert_eq!(stage.fleet.state(id).await.run_state(), RunState::Running, "seed {seed}: {id}");
    }
    stage.pass(Duration::from_secs(30)).await?;
    assert_eq!(
        stage.guests().len(),
        stage.guests.len(),
        "seed {seed}: everybody runs once the faults are over"
    );
    assert_eq!(stage.lease, Some(LEASE_S));
    Ok(stage.expiries())
}

/// The two clocks against each other: one at its fastest, the other at its slowest.
fn apart(seed: u64) -> [i32; 3] {
    let most = i32::try_from(CLOCK_OFF_PPM_MAX * 2).unwrap();
    let dice = Dice::new(seed);
    let drawn = |n| {
        let width = u64::try_from(most).unwrap() * 2;
        i32::try_from(dice.draw("clock", Uuid::nil(), n) % width).unwrap() - most
    };
    // The bound of what a slow sled is, seen from a fast control plane, is a little less than twice the rate.
    [-most + 200, most, drawn(2)]
}

/// Campaigns of these seeds, one after the other.
async fn campaigns(seeds: std::ops::Range<u64>) {
    let (mut expiries, count) = (0, seeds.clone().count());
    for seed in seeds {
        expiries += campaign(seed, &apart(seed)).await.unwrap_or_else(|two| panic!("seed {seed}: {two:?}"));
    }
    assert!(expiries >= count, "only {expiries} leases ended: nothing was tried");
}

#[tokio::test(start_paused = true)]
async fn with_clocks_as_far_off_as_they_may_be_no_instance_ever_has_two_guests() {
    campaigns(0..8).await;
}

#[tokio::test(start_paused = true)]
async fn nor_has_one_in_other_cuts() {
    campaigns(8..16).await;
}

#[tokio::test(start_paused = true)]
async fn nor_has_one_in_yet_others() {
    campaigns(16..24).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_by_more_than_the_bound_is_seen_to_run_a_guest_twice() {
    let mut is_seen = false;
    for seed in 0..8 {
        is_seen |= campaign(seed, &[-700_000, -700_000, -700_000]).await.is_err();
        if is_seen {
            break;
        }
    }
    assert!(is_seen, "the looks see nothing");
}

#[tokio::test(start_paused = true)]
async fn a_sled_of_the_same_process_has_no_lease() {
    let mut fleet = Fleet::without_sleds(limits(Some(LEASE_S))).await;
    fleet.add_sled(0);
    fleet.until_sleds_are_up(1).await;
    let granted = |event: &Event| matches!(event, Event::Sled(SledEvent::LeaseBegan { .. }));
    assert!(!fleet.events().iter().any(|recorded| granted(&recorded.event)));
    let _: Arc<dyn ControlPlaneClient> = fleet.control.intake();
}
