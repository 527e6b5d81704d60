//! The sleds of the stage: the machines of `sim-sled` with their own tasks, and what happens to hosts.

use super::net::Net;
use super::state::Stage;
use crate::checks::guests::Seen;
use crate::coverage::Sometimes;
use crate::faults::Entity;
use crate::world::{is_at_work, names};
use lifecycle::{InstanceId, VmmId};
use sim_sled::embedded::{EmbeddedSled, Options};
use sim_sled::machine::{Config, DirtyRate, Sled, Span, Vmm};
use sled_protocol::{BootId, PropolisId, SledResources};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Grace period of a stop, milliseconds: short, so that a guest that ignores it is killed within a run.
const GRACE_MS: u64 = 8_000;
/// How long either side of a migration waits for the other, milliseconds.
const PEER_SILENCE_MS: (u64, u64) = (2_000, 4_000);

/// One sled.
pub(super) struct Host {
    pub(super) sled: EmbeddedSled,
    pub(super) addr: String,
    pub(super) is_down: bool,
    /// Switched off by an operator who takes it out.
    pub(super) is_off: bool,
    boots: u64,
    pub(super) hung: BTreeSet<PropolisId>,
}

impl Stage {
    /// Boots every sled of the scenario.
    pub(super) fn boot_sleds(self: &Arc<Self>) {
        for (nth, shape) in (0u16..).zip(self.scenario.sleds.clone()) {
            let id = sled_protocol::SledId::from_uuid(names::sled(nth).uuid());
            let addr = format!("[fd00::{nth}]:8000");
            let mut config = Config::new(id, &format!("s{nth}"), &addr, self.scenario.seed);
            config.resources = SledResources { threads: shape.threads, memory: shape.memory_gib << 30 };
            config.timing.stop_grace = Span::millis(GRACE_MS, GRACE_MS);
            config.timing.peer_silence = Span::millis(PEER_SILENCE_MS.0, PEER_SILENCE_MS.1);
            config.dirty_rate = DirtyRate::of(shape.dirty_per_mille);
            config.cpu_family = format!("family-{}", shape.family);
            let options = Options {
                config,
                boot_id: BootId::from_uuid(names::boot(nth, 1).uuid()),
                state_file: None,
                opened_at_micros: self.sled_clock(),
                control_plane: Arc::new(Net { stage: Arc::downgrade(self), sled: nth }),
                fabric: self.fabric.clone(),
            };
            let sled = EmbeddedSled::open(options).expect("a sled without a file cannot fail to open");
            let host = Host { sled, addr, is_down: false, is_off: false, boots: 1, hung: BTreeSet::new() };
            self.lock().hosts.push(host);
        }
    }

    /// The sled of a number, unless its host is down.
    pub(super) fn sled_that_is_up(&self, nth: u16) -> Option<EmbeddedSled> {
        let state = self.lock();
        let host = &state.hosts[usize::from(nth)];
        (!host.is_down).then(|| host.sled.clone())
    }

    /// Every sled, by number.
    pub(super) fn sleds(&self) -> Vec<EmbeddedSled> {
        self.lock().hosts.iter().map(|host| host.sled.clone()).collect()
    }

    /// Shows the checkers every VMM that a sled holds.
    pub(super) fn look_at_guests(&self) {
        let seen = self.seen();
        self.check(|checks, now| checks.guests(now, &seen));
    }

    /// Every VMM that a sled holds.
    pub(super) fn seen(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for (nth, sled) in (0u16..).zip(self.sleds()) {
            let on_it = sled.with_machine(|machine, _| {
                let threads = machine.config().resources.threads;
                machine.vmms().map(|vmm| seen_of(vmm, nth, threads)).collect::<Vec<_>>()
            });
            seen.extend(on_it.into_iter().flatten());
        }
        seen
    }

    /// The host reboots: everything on it is gone, and it stays away for a while.
    pub(super) fn reboot_sled(self: &Arc<Self>, nth: u16, lasts: Duration) {
        if self.goes_down(nth, false) {
            let stage = Arc::clone(self);
            tokio::spawn(async move {
                sleep(lasts).await;
                stage.comes_up(nth);
            });
        }
    }

    /// An operator switches a host off, to take it out.
    pub(super) fn switch_off(&self, nth: u16) {
        self.goes_down(nth, true);
    }

    /// Answers whether it was up, or was not off if it is to be.
    fn goes_down(&self, nth: u16, is_off: bool) -> bool {
        let (sled, boot) = {
            let mut state = self.lock();
            let host = &mut state.hosts[usize::from(nth)];
            if host.is_off || (host.is_down && !is_off) {
                return false;
            }
            host.boots += 1;
            host.is_down = true;
            host.is_off = is_off;
            (host.sled.clone(), names::boot(nth, host.boots))
        };
        self.look_at_guests();
        let had_guests = sled.with_machine(|machine, now| {
            let had_guests = machine.vmms().any(Vmm::guest_running);
            machine.reboot(now, BootId::from_uuid(boot.uuid()));
            had_guests
        });
        if had_guests == Some(true) {
            self.note(Sometimes::RebootUnderGuests);
        }
        self.line("down", &Entity::Sled(nth), format_args!("{}", if is_off { "off" } else { "" }));
        true
    }

    fn comes_up(&self, nth: u16) {
        let mut state = self.lock();
        let host = &mut state.hosts[usize::from(nth)];
        if !host.is_off {
            host.is_down = false;
            drop(state);
            self.line("up", &Entity::Sled(nth), format_args!(""));
        }
    }

    /// The sled's agent restarts while its VMMs live on.
    pub(super) fn restart_agent(&self, nth: u16) {
        if let Some(sled) = self.sled_that_is_up(nth) {
            sled.with_machine(Sled::agent_restart);
        }
    }
}

fn seen_of(vmm: &Vmm, sled: u16, threads: u32) -> Seen {
    Seen {
        sled,
        instance: InstanceId::new(vmm.instance_id().as_uuid()),
        vmm: VmmId::new(vmm.propolis_id().as_uuid()),
        is_live: vmm.is_live(),
        is_guest_running: vmm.guest_running(),
        is_at_work: is_at_work(vmm),
        arrival: vmm.state().migration_in.clone(),
        departure: vmm.state().migration_out.clone(),
        ncpus: vmm.resources().ncpus,
        threads,
    }
}
