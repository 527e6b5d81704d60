//! Rest: nothing goes wrong any more, nothing is under way, and everything outside is as the log says.

use super::moves::wire;
use super::world::{Diverged, Host, World};
use actors::network::underlay_address;
use lifecycle::{Instance, InstanceId, RunState, SledId};
use sim_sled::machine::{Sled, Vmm};
use sled_protocol::{Producers, PropolisId, Switch};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::sleep;

/// Longer than changes wait for others to share a push.
const LAST_PUSHES: Duration = Duration::from_millis(500);

impl World {
    fn heal(&self) {
        self.net.heal();
        let addrs: Vec<&Host> = self.hosts.iter().collect();
        for from in &addrs {
            for to in &addrs {
                self.fabric.heal(&from.addr, &to.addr);
            }
        }
        self.switch().set_away(false);
        self.producers().set_away(false);
    }

    /// Nothing goes wrong any more: waits until nothing is under way anywhere, and checks that nothing is
    /// held, mapped or run that should not be.
    pub async fn settle(&mut self) -> Result<(), Diverged> {
        if self.is_over {
            return Ok(());
        }
        if self.plan.is_armed() {
            // What was decided last is still to be pushed: that may go wrong too.
            self.meanwhile(LAST_PUSHES).await;
        }
        self.plan.disarm();
        self.heal();
        self.automatic();
        self.until("nothing is under way", Self::is_at_rest).await?;
        let mut shown = Vec::new();
        for _ in 0..200 {
            shown = self.network_mismatches().await;
            if shown.is_empty() {
                break;
            }
            self.tick().await;
            sleep(Duration::from_secs(1)).await;
        }
        self.must(shown.is_empty(), &format!("the pushes have converged: {shown:?}"))?;
        self.until("nothing is under way", Self::is_at_rest).await?;
        self.check_rest().await
    }

    /// Whether the log and the sleds agree that there is nothing to do. A failed instance that waits for its
    /// next restart is at rest.
    fn is_at_rest(&self) -> bool {
        let book = self.book();
        let is_quiet = |state: &Instance| {
            state.is_quiesced()
                && state.migration.is_none()
                && state.stop.is_none()
                && state.reboot.is_none()
                && !state.run_state().is_transitional()
        };
        if !book.instances.values().all(is_quiet) {
            return false;
        }
        drop(book);
        self.hosts.iter().all(|host| {
            let is_done = |machine: &mut Sled, _| {
                let is_idle = machine.vmms().all(|vmm| vmm.next_step().is_none());
                is_idle && machine.pending_reports().next().is_none()
            };
            host.sled.with_machine(is_done) == Some(true)
        })
    }

    /// What the sleds run is what the log says, and nothing else.
    async fn check_rest(&mut self) -> Result<(), Diverged> {
        let open = self.book().open_sagas();
        let tail = self.book().tail(20);
        self.must(open == 0, &format!("every saga has ended; {open} have not:\n{tail}"))?;
        let mut wanted = BTreeSet::new();
        let states: Vec<Instance> = self.book().instances.values().cloned().collect();
        for state in &states {
            for vmm in state.vmms.values().filter(|vmm| vmm.may_be_on_sled()) {
                wanted.insert((vmm.sled, wire(vmm.id)));
            }
            let running = self.guests_of(state.id);
            let expected = usize::from(state.run_state() == RunState::Running);
            self.must(
                running == expected,
                &format!("{} is {} and runs {running} times", state.id, state.run_state()),
            )?;
        }
        // One that ended when nobody knew it any more is found by the next inventory.
        let is_as_said = |w: &Self| w.held_on_sleds() == wanted;
        let held = self.until("the sleds hold what the log says", is_as_said).await;
        self.must(held.is_ok(), &format!("sleds hold {:?}, the log says {wanted:?}", self.held_on_sleds()))?;
        let fatal = self.fatal();
        self.must(fatal.is_none(), &format!("the daemon goes on: {fatal:?}"))?;
        let quarantined = self.control.quarantined();
        let is_expected = quarantined.iter().all(|(id, _)| Some(*id) == self.quarantined);
        self.must(is_expected, &format!("nobody is quarantined: {quarantined:?}"))?;
        for state in &states {
            if state.deleted.is_none() && Some(state.id) != self.quarantined {
                let live = self.control.instance(state.id).await;
                let same = live.as_deref().is_ok_and(|live| live == state);
                self.must(same, &format!("the actor has {live:?}, the log {state:?}"))?;
            }
        }
        Ok(())
    }

    /// Every VMM that a sled holds, ended ones included; expunged sleds aside.
    fn held_on_sleds(&self) -> BTreeSet<(SledId, PropolisId)> {
        let mut held = BTreeSet::new();
        for host in &self.hosts {
            let is_expunged = self.book().sleds[&host.id].expunged.is_some();
            let on_it: Vec<PropolisId> =
                self.machine(host.id, |machine, _| machine.vmms().map(Vmm::propolis_id).collect());
            held.extend(on_it.into_iter().filter(|_| !is_expunged).map(|vmm| (host.id, vmm)));
        }
        held
    }

    /// Guests of the instance that run, on all sleds.
    pub fn guests_of(&self, id: InstanceId) -> usize {
        let of = |machine: &mut Sled, _| {
            machine
                .vmms()
                .filter(|vmm| vmm.instance_id().as_uuid() == id.uuid() && vmm.guest_running())
                .count()
        };
        self.hosts.iter().filter_map(|host| host.sled.with_machine(of)).sum()
    }

    /// Where what sleds, switch and registry hold is not what is desired.
    pub async fn network_mismatches(&self) -> Vec<String> {
        let (mappings, producers, sleds) = {
            let book = self.book();
            let mappings: Vec<_> = book.network.mappings().collect();
            let producers: Vec<_> = book.network.producers().collect();
            (mappings, producers, book.sleds.clone())
        };
        let mut wrong = Vec::new();
        let desired: BTreeSet<(IpAddr, IpAddr, u64)> = mappings
            .iter()
            .filter_map(|((_, ip), mapping)| {
                let host = IpAddr::V6(underlay_address(mapping.sled?));
                Some((IpAddr::V4(*ip), host, mapping.generation))
            })
            .collect();
        for host in self.hosts.iter().filter(|host| sleds[&host.id].expunged.is_none()) {
            let held: BTreeSet<(IpAddr, IpAddr, u64)> = self.machine(host.id, |machine, _| {
                let mapping = |held: &sled_protocol::V2pMapping| {
                    (held.virtual_ip, held.physical_host_ip, held.generation.get())
                };
                machine.v2p().map(mapping).collect()
            });
            if held != desired {
                wrong.push(format!("{} maps {held:?}, desired {desired:?}", host.addr));
            }
        }
        let hosts: BTreeSet<(IpAddr, u64)> =
            desired.iter().map(|(_, host, generation)| (*host, *generation)).collect();
        match self.switch().list_nat().await {
            Ok(entries) => {
                let held: BTreeSet<(IpAddr, u64)> =
                    entries.iter().map(|entry| (entry.physical_host_ip, entry.generation.get())).collect();
                if held != hosts {
                    wrong.push(format!("the switch maps to {held:?}, desired {hosts:?}"));
                }
            }
            Err(error) => wrong.push(error.to_string()),
        }
        let wished: BTreeSet<PropolisId> = producers.iter().map(|production| wire(production.vmm)).collect();
        match self.producers().list_producers().await {
            Ok(held) => {
                let held: BTreeSet<PropolisId> = held.iter().map(|producer| producer.propolis_id).collect();
                if held != wished {
                    wrong.push(format!("producers are {held:?}, desired {wished:?}"));
                }
            }
            Err(error) => wrong.push(error.to_string()),
        }
        wrong
    }
}
