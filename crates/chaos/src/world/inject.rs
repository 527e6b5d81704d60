//! Faults begin here.

use super::{Happening, MILLI, World, names};
use crate::coverage::Sometimes;
use crate::faults::Fault;
use sled_protocol::PropolisId;

impl World {
    /// Plans what has a time and arms what waits for its point.
    pub(super) fn plan_faults(&mut self) {
        for nth in 0..self.scenario.faults.len() {
            match &self.scenario.faults[nth] {
                Fault::CrashAt { .. } => self.armed.push(nth),
                fault => {
                    if let Some(at) = fault.at() {
                        self.at(at * MILLI, Happening::Fault(nth));
                    }
                }
            }
        }
    }

    /// A fault with a time begins, unless everything is healed already.
    pub(super) fn fault_begins(&mut self, nth: usize) {
        if self.is_healed {
            return;
        }
        let fault = self.scenario.faults[nth].clone();
        self.trace.line(self.now, "FAULT", &"", format_args!("{} {}", fault.kind(), fault.describe()));
        match fault {
            Fault::CrashTime { lose, .. } => self.crash(lose),
            Fault::DiskFull { .. } => self.store.fail_next_append("injected"),
            Fault::IoError { lose, .. } => self.disk.fails_with = Some(lose),
            Fault::SledReboot { sled, lasts, .. } => self.reboot_sled(sled, lasts),
            Fault::AgentRestart { sled, .. } => self.restart_agent(sled),
            Fault::ClockJump { by, .. } => {
                self.wall_offset_us = self.wall_offset_us.saturating_add(by.saturating_mul(1_000));
                if by < 0 {
                    self.note(Sometimes::ClockWentBack);
                }
            }
            Fault::Pause { lasts, .. } => {
                self.paused_until = self.now + lasts * MILLI;
            }
            Fault::GuestShutdown { instance, .. } => self.for_guests(instance, GuestEvent::Shutdown),
            Fault::GuestCrash { instance, .. } => self.for_guests(instance, GuestEvent::Crash),
            Fault::GuestHang { instance, .. } => self.for_guests(instance, GuestEvent::Hang),
            // These act on whatever happens while they last, or at their point.
            Fault::DiskStall { .. }
            | Fault::SlowSled { .. }
            | Fault::Partition { .. }
            | Fault::Drop { .. }
            | Fault::Duplicate { .. }
            | Fault::Reorder { .. }
            | Fault::DelayTail { .. }
            | Fault::CrashAt { .. }
            | Fault::DuplicateRequest { .. }
            | Fault::Refuse { .. }
            | Fault::PeerPartition { .. }
            | Fault::LoseAnswer { .. }
            | Fault::AtMigration { .. } => {}
            // Nobody here is an actor.
            Fault::ActorPanic { .. }
            | Fault::ActorKill { .. }
            | Fault::UnknownAppend { .. }
            | Fault::ClientGone { .. }
            | Fault::MailboxFlood { .. } => {}
        }
    }

    pub(super) fn restart_agent(&mut self, sled: u16) {
        let now = self.sled_clock();
        let host = &mut self.sleds[usize::from(sled)];
        if !host.is_down {
            host.machine.agent_restart(now);
            self.settle_sled(sled);
        }
    }

    fn for_guests(&mut self, instance: u16, event: GuestEvent) {
        let now = self.sled_clock();
        let id = names::instance(instance).uuid();
        for sled in 0..self.sleds.len() {
            let host = &mut self.sleds[sled];
            let machine = &mut host.machine;
            let guests: Vec<PropolisId> = machine
                .vmms()
                .filter(|vmm| vmm.instance_id().as_uuid() == id && vmm.guest_running())
                .map(sim_sled::machine::Vmm::propolis_id)
                .collect();
            for vmm in guests {
                match event {
                    GuestEvent::Shutdown => {
                        if machine.guest_shutdown(now, vmm) {
                            self.checks.shuts_down(vmm);
                        }
                    }
                    GuestEvent::Crash => {
                        machine.guest_crash(now, vmm);
                    }
                    GuestEvent::Hang => {
                        machine.guest_ignores_stop(vmm);
                        host.hung.insert(vmm);
                    }
                }
            }
            self.settle_sled(sled as u16);
        }
    }
}

/// What a guest does by itself.
#[derive(Clone, Copy)]
enum GuestEvent {
    Shutdown,
    Crash,
    Hang,
}
