//! The network follows the instances: what sleds, switch and registry hold converges to what is desired, and
//! whoever was away or has forgotten is caught up.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fleet;

use actors::network::{external_address, underlay_address};
use actors::{PeerName, PeerStatus, instance::Ask};
use eventlog::{Log as _, Position, SimLog, SimStore, Survival, SyncMode};
use fleet::{Fleet, context, spec, start_control_with};
use lifecycle::instance::Intent;
use lifecycle::sled::SledCommand;
use lifecycle::{Address, InstanceEvent, InstanceId, RunState, SledId, Timestamp};
use sim_sled::faults::{Fault, Faults};
use sim_sled::machine::RequestKind;
use sled_protocol::{BootId, Producers as _};
use sled_protocol::{Generation, NatEntry, PropolisId, Switch as _, V2pMapping};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// From a decision to every peer that is there: gathering, and some requests.
const SOON: Duration = Duration::from_secs(1);
/// From being away, or a failure, to being caught up: the next inventory of a sled, or the longest pause.
const CAUGHT_UP: Duration = Duration::from_secs(40);
/// The longest that a device which has forgotten everything stays so.
const REFILLED: Duration = Duration::from_secs(62);

/// What is wished of one address: which sled, and which instance by its Ethernet address.
type Table = BTreeMap<IpAddr, (IpAddr, [u8; 6])>;

fn table(entries: impl IntoIterator<Item = (IpAddr, IpAddr, [u8; 6])>) -> Table {
    entries.into_iter().map(|(at, host, mac)| (at, (host, mac))).collect()
}

impl Fleet {
    async fn running(&self, name: &str) -> InstanceId {
        let id = self.create(name, true).await;
        self.until_state(id, RunState::Running).await;
        id
    }

    async fn sled_of(&self, id: InstanceId) -> SledId {
        self.state(id).await.active_vmm().expect("it has an active VMM").sled
    }

    async fn stopped(&self, id: InstanceId) {
        self.control.ask(id, Ask::Stop, context()).await.unwrap();
        self.until_state(id, RunState::Stopped).await;
    }

    fn v2p(&self, sled: usize) -> Vec<V2pMapping> {
        self.sleds[sled].with_machine(|machine, _| machine.v2p().cloned().collect()).unwrap()
    }

    fn table_of(&self, sled: usize) -> Table {
        table(self.v2p(sled).iter().map(|m| (m.virtual_ip, m.physical_host_ip, m.mac.bytes())))
    }

    async fn nat(&self) -> Vec<NatEntry> {
        // Looks past "away" and "slow": what it holds is what a comparison would see if it answered.
        self.devices.switch.list_nat().await.unwrap()
    }

    async fn switch_table(&self) -> Table {
        table(self.nat().await.iter().map(|e| (e.external_ip, e.physical_host_ip, e.mac.bytes())))
    }

    /// What sleds and switch shall hold for instances that have a place on the network.
    async fn desired(&self, ids: &[InstanceId]) -> (Table, Table) {
        let (mut inside, mut outside) = (Table::new(), Table::new());
        for id in ids {
            let state = self.state(*id).await;
            let address = state.address;
            let host = IpAddr::V6(underlay_address(state.active_vmm().expect("it runs").sled));
            let external = external_address((address.vni, address.virtual_ip));
            inside.insert(IpAddr::V4(address.virtual_ip), (host, address.mac));
            outside.insert(IpAddr::V6(external), (host, address.mac));
        }
        (inside, outside)
    }

    /// Waits until all sleds and the switch hold exactly these instances, for at most `bound`.
    async fn until_network(&self, ids: &[InstanceId], bound: Duration) {
        let all: Vec<usize> = (0..self.sleds.len()).collect();
        self.until_network_of(&all, ids, bound).await;
    }

    async fn until_network_of(&self, sleds: &[usize], ids: &[InstanceId], bound: Duration) {
        let (inside, outside) = self.desired(ids).await;
        self.within(bound, "the network is as desired", async || {
            sleds.iter().all(|sled| self.table_of(*sled) == inside) && self.switch_table().await == outside
        })
        .await;
    }

    async fn producers(&self) -> BTreeSet<PropolisId> {
        let held = self.devices.producers.list_producers().await.unwrap();
        held.into_iter().map(|producer| producer.propolis_id).collect()
    }

    /// Waits until exactly the VMMs of these instances are registered.
    async fn until_producers(&self, ids: &[InstanceId], bound: Duration) {
        let mut wished = BTreeSet::new();
        for id in ids {
            wished.insert(PropolisId::from_uuid(self.state(*id).await.active.expect("it runs").uuid()));
        }
        self.within(bound, "the producers are as desired", async || self.producers().await == wished).await;
    }

    async fn within(&self, bound: Duration, what: &str, holds: impl AsyncFn() -> bool) {
        let is_met = timeout(bound, self.until(what, holds)).await.is_ok();
        assert!(is_met, "not within {bound:?}: {what}; {:#?}", self.control.network());
    }

    fn status(&self, peer: PeerName) -> PeerStatus {
        let network = self.control.network();
        network.peers.into_iter().find(|status| status.peer == peer).expect("it is listed")
    }

    fn sled_id(n: u128) -> SledId {
        SledId::new(Uuid::from_u128(0x51_0000 + n))
    }

    /// The sled's agent answers nothing that has to do with the network or its inventory.
    fn sever(&self, sled: usize) {
        let mut faults = Faults::default();
        for kind in
            [RequestKind::Inventory, RequestKind::PutV2p, RequestKind::DeleteV2p, RequestKind::ListV2p]
        {
            faults = faults.always(kind, Fault::Hang);
        }
        self.sleds[sled].set_faults(faults);
    }

    /// Addresses are handed out in turn, a million of them: with the last one taken, the first comes again.
    async fn take_the_last_address(&self) {
        let id = InstanceId::new(Uuid::from_u128(0x1a57));
        let stream = journal::StreamName::Instance(id);
        let claim = self.log.claim(stream.id()).await.unwrap();
        let address = Address { virtual_ip: [172, 31, 255, 254].into(), mac: [2; 6], vni: 1 };
        let spec = Box::new(spec(self.project, "last"));
        let created = InstanceEvent::Created { id, spec, address, intent: Intent::Stopped };
        let append = journal::append(
            stream,
            claim.epoch,
            claim.head.version,
            &[journal::Event::from(created)],
            &journal::Context::of(journal::Actor::Daemon),
            Timestamp::from_micros(1_700_000_000_000_000),
            Timestamp::default(),
            "test",
        );
        let appended = self.log.append(append.unwrap()).await;
        assert!(matches!(appended, eventlog::AppendOutcome::Appended { .. }));
        self.until("the ledger knows it", async || self.control.instance(id).await.is_ok()).await;
    }

    /// The daemon dies, and its log is found as `harm` leaves it.
    async fn dies(&mut self, harm: impl FnOnce(&mut SimStore)) {
        let (mut store, _) = self.log.crash(Survival::All);
        self.control.shutdown().await;
        harm(&mut store);
        self.log = Arc::new(SimLog::over(store, SyncMode::Immediate));
    }

    async fn comes_back(&mut self) {
        let (log, cache) = (Arc::clone(&self.log), Arc::clone(&self.cache));
        let (control, fatal, switchboard) = start_control_with(log, cache, 2, self.devices.clone()).await;
        *switchboard.clients.lock().unwrap() = self.switchboard.clients.lock().unwrap().clone();
        (self.control, self.fatal, self.switchboard) = (control, fatal, switchboard);
        self.control.resume([]).await;
    }

    fn heal(&self, sled: usize) {
        self.sleds[sled].set_faults(Faults::default());
    }
}

#[tokio::test(start_paused = true)]
async fn s01_after_a_start_every_sled_and_the_switch_know_the_instance_and_after_its_stop_nobody() {
    let fleet = Fleet::with_sleds(3).await;
    let (one, other) = (fleet.running("web-1").await, fleet.running("web-2").await);
    fleet.until_network(&[one, other], SOON).await;
    fleet.stopped(one).await;
    fleet.until_network(&[other], SOON).await;
    fleet.control.ask(one, Ask::Delete, context()).await.unwrap();
    fleet.stopped(other).await;
    fleet.until_network(&[], SOON).await;
    for n in 0..3 {
        let status = fleet.status(PeerName::Sled(Fleet::sled_id(n)));
        assert!(
            status.behind == 0 && status.trouble.is_none() && status.last_success.is_some(),
            "{status:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_moves_every_mapping_and_a_failed_one_moves_none() {
    let fleet = Fleet::with_sleds(3).await;
    let id = fleet.running("web-1").await;
    fleet.until_network(&[id], SOON).await;
    let before: Vec<Vec<V2pMapping>> = (0..3).map(|sled| fleet.v2p(sled)).collect();
    // The source refuses: the migration fails, and with it goes nothing.
    let source = fleet.sled_of(id).await;
    let at = (0..3).find(|n| Fleet::sled_id(*n) == source).unwrap();
    let vmm = PropolisId::from_uuid(fleet.state(id).await.active.unwrap().uuid());
    fleet.control.ask(id, Ask::Migrate { to: None }, context()).await.unwrap();
    let machine = &fleet.sleds[usize::try_from(at).unwrap()];
    fleet
        .until("the source's side has failed", async || {
            machine.with_machine(|machine, now| machine.fail_migration(now, vmm)).unwrap()
        })
        .await;
    fleet.until_state(id, RunState::Running).await;
    assert_eq!(fleet.sled_of(id).await, source);
    tokio::time::sleep(SOON).await;
    let after: Vec<Vec<V2pMapping>> = (0..3).map(|sled| fleet.v2p(sled)).collect();
    assert_eq!(before, after, "generations included");
    fleet.control.ask(id, Ask::Migrate { to: None }, context()).await.unwrap();
    fleet.until_state(id, RunState::Running).await;
    assert_ne!(fleet.sled_of(id).await, source);
    fleet.until_network(&[id], SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_sled_that_was_away_catches_up_and_holds_up_nobody() {
    let fleet = Fleet::with_sleds(2).await;
    let stays = fleet.running("stays").await;
    let goes = fleet.running("goes").await;
    fleet.until_network(&[stays, goes], SOON).await;
    // It is told nothing about what ends meanwhile, and learns of what begins.
    let here = fleet.sled_of(stays).await;
    let away = usize::from(here == Fleet::sled_id(0));
    fleet.sever(away);
    let peer = PeerName::Sled(Fleet::sled_id(away as u128));
    fleet.stopped(goes).await;
    fleet.until("it is missed", async || fleet.status(peer).trouble.is_some()).await;
    let comes = fleet.running("comes").await;
    let ids = [stays, comes];
    fleet.until_network_of(&[1 - away], &ids, SOON).await;
    assert_ne!(fleet.table_of(away), fleet.table_of(1 - away));
    assert!(fleet.status(peer).behind > 0);
    fleet.heal(away);
    fleet.until_network(&ids, CAUGHT_UP).await;
    fleet.within(SOON, "it is said so", async || fleet.status(peer).trouble.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_sled_that_registers_late_or_boots_anew_is_given_everything() {
    let mut fleet = Fleet::with_sleds(2).await;
    let id = fleet.running("web-1").await;
    fleet.until_network(&[id], SOON).await;
    fleet.add_sled(2);
    fleet.until_sleds_are_up(3).await;
    fleet.until_network(&[id], SOON).await;
    let boot = BootId::from_uuid(Uuid::from_u128(0xb1));
    fleet.sleds[2].with_machine(|machine, now| machine.reboot(now, boot)).unwrap();
    assert_eq!(fleet.v2p(2), []);
    fleet.until_network(&[id], CAUGHT_UP).await;
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_are_repeated_until_they_succeed() {
    let fleet = Fleet::with_sleds(2).await;
    let mut faults = Faults::default();
    for nth in 0..4 {
        let fault = if nth % 2 == 0 { Fault::LoseRequest } else { Fault::LoseAnswer };
        faults = faults.at(RequestKind::PutV2p, nth, fault.clone()).at(RequestKind::DeleteV2p, nth, fault);
    }
    fleet.sleds[0].set_faults(faults.at(RequestKind::ListV2p, 0, Fault::Hang));
    let id = fleet.running("web-1").await;
    fleet.until_network(&[id], CAUGHT_UP).await;
    fleet.stopped(id).await;
    fleet.until_network(&[], CAUGHT_UP).await;
}

#[tokio::test(start_paused = true)]
async fn u19_a_decision_during_a_push_supersedes_it() {
    let fleet = Fleet::with_sleds(2).await;
    let slow = Fault::Slow(3_000_000);
    fleet.sleds[0].set_faults(Faults::default().always(RequestKind::PutV2p, slow));
    let id = fleet.running("web-1").await;
    // The push to the slow sled is under way, or has just been; the guest moves all the same.
    fleet.control.ask(id, Ask::Migrate { to: None }, context()).await.unwrap();
    fleet.until_state(id, RunState::Running).await;
    fleet.until_network(&[id], Duration::from_secs(10)).await;
    fleet.stopped(id).await;
    fleet.until_network(&[], Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn devices_that_are_away_block_nothing_and_are_caught_up() {
    let fleet = Fleet::with_sleds(2).await;
    fleet.devices.switch.set_away(true);
    fleet.devices.producers.set_away(true);
    let began = Instant::now();
    let (stays, goes) = (fleet.running("stays").await, fleet.running("goes").await);
    fleet.stopped(goes).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let (inside, _) = fleet.desired(&[stays]).await;
    fleet
        .within(SOON, "the sleds do not wait for the switch", async || {
            fleet.table_of(0) == inside && fleet.table_of(1) == inside
        })
        .await;
    for peer in [PeerName::Switch, PeerName::Producers] {
        let trouble = fleet.status(peer).trouble.expect("it is said what is wrong");
        assert!(trouble.why.contains("the device is away") && trouble.failures > 0, "{trouble:?}");
    }
    fleet.devices.switch.set_away(false);
    fleet.devices.producers.set_away(false);
    fleet.until_network(&[stays], CAUGHT_UP).await;
    fleet.until_producers(&[stays], CAUGHT_UP).await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_comes_back_empty_is_refilled_though_nothing_changes() {
    let fleet = Fleet::with_sleds(2).await;
    let id = fleet.running("web-1").await;
    fleet.until_network(&[id], SOON).await;
    fleet.until_producers(&[id], SOON).await;
    fleet.devices.switch.come_back_empty();
    fleet.devices.producers.come_back_empty();
    assert_eq!((fleet.nat().await.len(), fleet.producers().await.len()), (0, 0));
    fleet.until_network(&[id], REFILLED).await;
    fleet.until_producers(&[id], REFILLED).await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_restarts_while_it_is_away_is_refilled_as_soon_as_it_answers() {
    let fleet = Fleet::with_sleds(2).await;
    let before = fleet.running("before").await;
    fleet.until_network(&[before], SOON).await;
    fleet.devices.switch.set_away(true);
    let meanwhile = fleet.running("meanwhile").await;
    fleet.until("it is missed", async || fleet.status(PeerName::Switch).trouble.is_some()).await;
    fleet.devices.switch.come_back_empty();
    // Sooner than the next comparison that is due though nothing happens.
    fleet.until_network(&[before, meanwhile], Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_holds_what_nobody_remembers_is_rid_of_it() {
    let fleet = Fleet::with_sleds(1).await;
    let id = fleet.running("web-1").await;
    fleet.until_network(&[id], SOON).await;
    let mut stray = fleet.nat().await.remove(0);
    stray.external_ip = [203, 0, 113, 9].into();
    stray.generation = Generation::FIRST;
    fleet.devices.switch.put_nat(vec![stray]).await.unwrap();
    fleet.until_network(&[id], REFILLED).await;
}

#[tokio::test(start_paused = true)]
async fn a_reused_address_never_gets_its_predecessors_mapping() {
    let fleet = Fleet::with_sleds(2).await;
    let first = fleet.running("first").await;
    let address = fleet.state(first).await.address;
    fleet.until_network(&[first], SOON).await;
    let here = fleet.sled_of(first).await;
    let away = usize::from(here == Fleet::sled_id(0));
    let old = fleet.v2p(away);
    fleet.sever(away);
    fleet.stopped(first).await;
    fleet.control.ask(first, Ask::Delete, context()).await.unwrap();
    fleet.take_the_last_address().await;
    let second = fleet.create("second", false).await;
    assert_eq!(fleet.state(second).await.address.virtual_ip, address.virtual_ip);
    fleet.control.ask(second, Ask::Start, context()).await.unwrap();
    fleet.until_state(second, RunState::Running).await;
    fleet.until_network_of(&[1 - away], &[second], SOON).await;
    assert_eq!(fleet.v2p(away), old, "it has heard of nothing");
    fleet.heal(away);
    // The same place as before, but a later decision.
    fleet.until("it has caught up", async || fleet.v2p(away)[0].generation > old[0].generation).await;
    fleet.until_network(&[second], CAUGHT_UP).await;
    let new = fleet.v2p(away);
    // What the predecessor's push had got stuck on the way changes nothing any more.
    let epoch = sled_protocol::LeaseEpoch::FIRST;
    let client = fleet.switchboard.clients.lock().unwrap()[&Fleet::sled_id(away as u128)].clone();
    client.put_v2p(epoch, old.clone()).await.unwrap();
    client.delete_v2p(epoch, old).await.unwrap();
    assert_eq!(fleet.v2p(away), new);
}

#[tokio::test(start_paused = true)]
async fn a_producer_is_registered_exactly_while_its_instance_has_a_vmm() {
    let fleet = Fleet::with_sleds(2).await;
    let id = fleet.running("web-1").await;
    fleet.until_producers(&[id], SOON).await;
    let source = fleet.producers().await;
    let producer = fleet.devices.producers.list_producers().await.unwrap().remove(0);
    assert_eq!(producer.instance_id.as_uuid(), id.uuid());
    assert_eq!(producer.physical_host_ip, IpAddr::V6(underlay_address(fleet.sled_of(id).await)));
    fleet.control.ask(id, Ask::Migrate { to: None }, context()).await.unwrap();
    fleet.until_state(id, RunState::Running).await;
    fleet.until_producers(&[id], SOON).await;
    assert!(fleet.producers().await.is_disjoint(&source));
    fleet.stopped(id).await;
    fleet.until_producers(&[], SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_successor_of_the_daemon_makes_the_network_what_the_log_says() {
    let mut fleet = Fleet::with_sleds(2).await;
    let (stays, goes) = (fleet.running("stays").await, fleet.running("goes").await);
    fleet.until_network(&[stays, goes], SOON).await;
    // The last it decides is not pushed any more.
    fleet.devices.switch.set_away(true);
    fleet.devices.producers.set_away(true);
    fleet.sever(0);
    fleet.sever(1);
    fleet.stopped(goes).await;
    fleet.dies(|_| {}).await;
    fleet.devices.switch.set_away(false);
    fleet.devices.producers.set_away(false);
    fleet.heal(0);
    fleet.heal(1);
    assert_eq!((fleet.v2p(0).len(), fleet.nat().await.len(), fleet.producers().await.len()), (2, 2, 2));
    fleet.comes_back().await;
    fleet.until_network(&[stays], CAUGHT_UP).await;
    fleet.until_producers(&[stays], CAUGHT_UP).await;
    assert_eq!(fleet.fatal.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn what_a_damaged_log_says_nothing_about_stays_reachable() {
    let mut fleet = Fleet::with_sleds(2).await;
    let (known, lost) = (fleet.running("known").await, fleet.running("lost").await);
    fleet.until_network(&[known, lost], SOON).await;
    let (inside, outside) = fleet.desired(&[known, lost]).await;
    let is_its_start = |recorded: &journal::Recorded| {
        let begins = matches!(recorded.event, journal::Event::Instance(InstanceEvent::StartBegan { .. }));
        begins && recorded.stream == journal::StreamName::Instance(lost)
    };
    let at = fleet.events().iter().find(|recorded| is_its_start(recorded)).unwrap().meta.position;
    let at = Position::new(at);
    fleet.dies(|store| store.damage(at, at, "a bad sector")).await;
    fleet.comes_back().await;
    fleet.within(CAUGHT_UP, "everything was compared", async || is_synced(&fleet)).await;
    let held = (fleet.table_of(0), fleet.table_of(1), fleet.switch_table().await);
    assert_eq!(held, (inside.clone(), inside, outside));
    // Everything else goes on as ever.
    fleet.stopped(known).await;
    fleet
        .within(SOON, "the other's is gone", async || fleet.v2p(0).len() == 1 && fleet.v2p(1).len() == 1)
        .await;
}

fn is_synced(fleet: &Fleet) -> bool {
    let is_synced = |peer: &PeerStatus| peer.synced_to.is_some() && peer.trouble.is_none();
    fleet.control.network().peers.iter().filter(|peer| is_synced(peer)).count() == 2 + fleet.sleds.len()
}

#[tokio::test(start_paused = true)]
async fn an_expunged_sled_is_not_pushed_to_any_more() {
    let fleet = Fleet::with_sleds(2).await;
    let id = fleet.running("web-1").await;
    fleet.until_network(&[id], SOON).await;
    let gone = usize::from(fleet.sled_of(id).await == Fleet::sled_id(0));
    let sled = Fleet::sled_id(gone as u128);
    let before = fleet.v2p(gone);
    let expunge = SledCommand::Expunge("burnt".to_owned());
    fleet.control.ask_sled(sled, expunge, context()).await.unwrap();
    fleet.stopped(id).await;
    fleet.until_network_of(&[1 - gone], &[], SOON).await;
    tokio::time::sleep(CAUGHT_UP).await;
    assert_eq!(fleet.v2p(gone), before);
    let listed: Vec<PeerName> = fleet.control.network().peers.into_iter().map(|status| status.peer).collect();
    assert_eq!(
        listed,
        [PeerName::Switch, PeerName::Producers, PeerName::Sled(Fleet::sled_id(1 - gone as u128))]
    );
    assert!(fleet.log.durable().get() > 0);
}
