//! Faults that have a time begin here.

use super::life::Life;
use super::outside::limits;
use super::revive::context;
use super::state::Stage;
use crate::checks::FailureKind;
use crate::coverage::Sometimes;
use crate::faults::{Fault, Victim};
use crate::world::names;
use actors::Victim as Actor;
use actors::instance::Ask;
use sim_sled::machine::Vmm;
use sled_protocol::PropolisId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, sleep_until};

/// The request of everybody in a flood; nothing is ever written for it.
const FLOOD_REQUEST: u32 = u32::MAX - 2;

/// Plans what has a time.
pub(super) fn plan(stage: &Arc<Stage>) {
    for (nth, fault) in stage.scenario.faults.iter().enumerate() {
        let Some(at) = fault.at() else { continue };
        let stage = Arc::clone(stage);
        tokio::spawn(async move {
            sleep_until(stage.origin + Duration::from_millis(at)).await;
            if !stage.lock().is_healed {
                stage.fault_begins(nth).await;
            }
        });
    }
}

impl Stage {
    async fn fault_begins(self: &Arc<Self>, nth: usize) {
        let fault = &self.scenario.faults[nth];
        self.line("FAULT", &"", format_args!("{} {}", fault.kind(), fault.describe()));
        let life = self.life();
        match *fault {
            Fault::CrashTime { lose, .. } => life.die(lose),
            Fault::DiskFull { .. } => life.log().with_store(|store| store.fail_next_append("injected")),
            Fault::IoError { lose, .. } => self.lock().fails_with = Some(lose),
            Fault::SledReboot { sled, lasts, .. } => self.reboot_sled(sled, Duration::from_millis(lasts)),
            Fault::AgentRestart { sled, .. } => self.restart_agent(sled),
            Fault::ClockJump { by, .. } => self.jump(by),
            Fault::GuestShutdown { instance, .. } => self.for_guests(instance, GuestEvent::Shutdown),
            Fault::GuestCrash { instance, .. } => self.for_guests(instance, GuestEvent::Crash),
            Fault::GuestHang { instance, .. } => self.for_guests(instance, GuestEvent::Hang),
            Fault::PeerPartition { lasts, one, other, .. } => self.sever(one, other, lasts).await,
            Fault::ActorKill { victim, .. } => self.kill(&life, victim),
            Fault::MailboxFlood { instance, count, .. } => self.flood(&life, instance, count),
            // These act on whatever happens while they last, or at their point.
            _ => {}
        }
    }

    async fn sever(&self, one: u16, other: u16, lasts: u64) {
        let addrs: Vec<String> = self.lock().hosts.iter().map(|host| host.addr.clone()).collect();
        let (one, other) = (&addrs[usize::from(one)], &addrs[usize::from(other)]);
        self.fabric.sever(one, other);
        self.fabric.sever(other, one);
        sleep(Duration::from_millis(lasts)).await;
        self.fabric.heal(one, other);
        self.fabric.heal(other, one);
    }

    fn kill(&self, life: &Life, victim: Victim) {
        let Some(up) = life.up() else { return };
        let (actor, is_core) = match victim {
            Victim::Instance(nth) => (Actor::Instance(names::instance(nth)), false),
            Victim::Sled(nth) => (Actor::Sled(names::sled(nth)), false),
            Victim::Instances => (Actor::Instances, true),
            Victim::Sleds => (Actor::Sleds, true),
            Victim::Ledger => (Actor::Ledger, true),
            Victim::Projects => (Actor::Projects, true),
        };
        if is_core {
            self.lock().is_end_wanted = true;
        }
        if up.control.kill(actor) && !is_core {
            self.note(Sometimes::ActorKilled);
        }
    }

    /// So many ask at once. Whoever is refused for that is right to be; nobody may hang, and nothing may grow.
    ///
    /// Half of them only look. The others want a saga taken back that there never was: a command, which waits at the
    /// door like any other and leaves nothing behind.
    fn flood(self: &Arc<Self>, life: &Arc<Life>, instance: u16, count: u64) {
        self.note(Sometimes::MailboxFlooded);
        for nth in 0..count {
            let (stage, life) = (Arc::clone(self), Arc::clone(life));
            tokio::spawn(async move {
                let Some(up) = life.up() else { return };
                let id = names::instance(instance);
                // The answers are nobody's: what counts is what it does to others.
                if nth.is_multiple_of(2) {
                    let _ = up.control.instance(id).await;
                    return;
                }
                let ask = Ask::CancelSaga { saga: names::saga(instance, 0) };
                let _ = up.control.ask(id, ask, context(FLOOD_REQUEST)).await;
                stage.door_holds(&life);
            });
        }
    }

    /// I25: what waits is bounded.
    fn door_holds(&self, life: &Life) {
        let Some(up) = life.up() else { return };
        let counts = up.control.counts();
        if counts.turned_away > 0 {
            self.note(Sometimes::TurnedAway);
        }
        let most = limits(&self.scenario).commands_max as u64;
        if counts.waiting > most {
            let detail = format!("{} requests wait; at most {most} may", counts.waiting);
            self.fail(FailureKind::Invariant, "I25", detail);
        }
    }

    fn for_guests(&self, instance: u16, event: GuestEvent) {
        let id = names::instance(instance).uuid();
        self.look_at_guests();
        for (nth, sled) in self.sleds().into_iter().enumerate() {
            let ended: Option<Vec<PropolisId>> = sled.with_machine(|machine, now| {
                let guests: Vec<PropolisId> = machine
                    .vmms()
                    .filter(|vmm| vmm.instance_id().as_uuid() == id && vmm.guest_running())
                    .map(Vmm::propolis_id)
                    .collect();
                guests.into_iter().filter(|vmm| event.happens(machine, now, *vmm)).collect()
            });
            for vmm in ended.into_iter().flatten() {
                if event == GuestEvent::Shutdown {
                    self.check(|checks, _| checks.shuts_down(vmm));
                } else if event == GuestEvent::Hang {
                    self.lock().hosts[nth].hung.insert(vmm);
                }
            }
        }
        self.look_at_guests();
    }
}

/// What a guest does by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GuestEvent {
    Shutdown,
    Crash,
    Hang,
}

impl GuestEvent {
    fn happens(self, machine: &mut sim_sled::machine::Sled, now: u64, vmm: PropolisId) -> bool {
        match self {
            Self::Shutdown => machine.guest_shutdown(now, vmm),
            Self::Crash => machine.guest_crash(now, vmm),
            Self::Hang => {
                machine.guest_ignores_stop(vmm);
                true
            }
        }
    }
}
