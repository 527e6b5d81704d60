//! What sleds say to each other when a guest moves, and what goes wrong when a migration is in a phase.
//!
//! The machines do the migration themselves; here their messages find their way, and the phase that each
//! migration has come to is remembered: mishaps are aimed at phases.

use super::network::{Cut, Link};
use super::{Happening, MILLI, World};
use crate::faults::{Fault, LoseUnsynced, Mishap, Phase, Side};
use sim_sled::machine::{PeerBody, PeerMessage, Question};
use sled_protocol::{InstanceId, MigrationId, MigrationState, PropolisId, SledVmmState};

/// How long a sled that vanishes stays up after it was cut off: long enough for the guest to leave it.
const VANISH_US: u64 = 500 * MILLI;

/// How long it stays down then, milliseconds.
const VANISHED_MS: u64 = 100;

/// A migration as its sleds see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    instance: InstanceId,
    source: (u16, PropolisId),
    target: (u16, PropolisId),
    pub(super) phase: Phase,
}

impl World {
    /// A sled speaks to another. Nobody at that address: the message is lost.
    pub(super) fn send_peer(&mut self, from: u16, message: PeerMessage) {
        let found = self.machines().find(|(_, machine)| machine.config().api_addr == message.to_addr);
        let Some(to) = found.map(|(nth, _)| nth) else {
            return;
        };
        let phase = match &message.body {
            PeerBody::Ask(Question::Begin) => Some(Phase::Begin),
            PeerBody::Ask(Question::Copy { .. }) => Some(Phase::Copy),
            PeerBody::Ask(Question::Pause) => Some(Phase::Pause),
            PeerBody::Ask(Question::Finish) => Some(Phase::Finish),
            PeerBody::Yes(Question::Finish) => Some(Phase::HandedOver),
            PeerBody::Yes(_) | PeerBody::Copies { .. } | PeerBody::Failed(_) => None,
        };
        if let Some(phase) = phase {
            let (one, other) = ((from, message.from_vmm), (to, message.to_vmm));
            let (target, source) = if phase == Phase::HandedOver { (other, one) } else { (one, other) };
            let seen = Move { instance: message.instance_id, source, target, phase };
            self.phase_reached(message.migration_id, seen);
        }
        self.send_to_peer(from, to, message);
    }

    /// A message of another sled arrives. A host that is down loses it.
    pub(super) fn at_peer(&mut self, sled: u16, message: PeerMessage) {
        if self.sleds[usize::from(sled)].is_down {
            return;
        }
        let now = self.sled_clock();
        self.sleds[usize::from(sled)].machine.handle_peer(now, message);
        self.settle_sled(sled);
    }

    /// What a report says of a migration that arrives.
    pub(super) fn note_arrival(&mut self, state: &SledVmmState) {
        if let Some(arrival) = &state.migration_in
            && arrival.state == MigrationState::Completed
            && let Some(seen) = self.moves.get(&arrival.migration_id).copied()
        {
            self.phase_reached(arrival.migration_id, Move { phase: Phase::Arrived, ..seen });
        }
    }

    fn phase_reached(&mut self, id: MigrationId, seen: Move) {
        if self.moves.get(&id).is_some_and(|before| before.phase >= seen.phase) {
            return;
        }
        self.moves.insert(id, seen);
        let number = super::names::instance_number(lifecycle::InstanceId::new(seen.instance.as_uuid()));
        let entity = crate::faults::Entity::Instance(number);
        let (from, to) = (seen.source.0, seen.target.0);
        self.trace.line(self.now, "phase", &entity, format_args!("{:?} s{from} -> s{to}", seen.phase));
        if self.is_healed {
            return;
        }
        self.send_aimed(Some(number), Some(seen.phase));
        for nth in 0..self.scenario.faults.len() {
            let is_due = matches!(&self.scenario.faults[nth], Fault::AtMigration { instance, phase, .. }
                if *instance == number && *phase == seen.phase);
            if is_due && self.mishaps.insert(nth) {
                self.after(0, Happening::Mishap { nth, migration: id });
            }
        }
    }

    /// A mishap that was aimed at a phase happens.
    pub(super) fn mishap(&mut self, nth: usize, migration: MigrationId) {
        let (Fault::AtMigration { side, mishap, lasts, .. }, Some(seen)) =
            (self.scenario.faults[nth].clone(), self.moves.get(&migration).copied())
        else {
            return;
        };
        let (sled, vmm) = match side {
            Side::Source => seen.source,
            Side::Target => seen.target,
        };
        let entity = crate::faults::Entity::Sled(sled);
        self.trace.line(self.now, "FAULT", &entity, format_args!("{mishap:?} at {:?}", seen.phase));
        let now = self.sled_clock();
        let until = self.now + lasts * MILLI;
        let machine = &mut self.sleds[usize::from(sled)].machine;
        match mishap {
            Mishap::Fail => {
                machine.fail_migration(now, vmm);
            }
            Mishap::VmmCrash => {
                machine.guest_crash(now, vmm);
            }
            Mishap::GuestShutdown => {
                if machine.guest_shutdown(now, vmm) {
                    self.checks.shuts_down(vmm);
                }
            }
            Mishap::SledReboot => self.reboot_sled(sled, lasts),
            Mishap::AgentRestart => self.restart_agent(sled),
            Mishap::Partition => self.cuts.push(Cut { link: Link::Control(sled), until }),
            Mishap::PeerPartition => {
                self.cuts.push(Cut { link: Link::peers(seen.source.0, seen.target.0), until });
            }
            Mishap::ControlPlaneCrash => self.crash(LoseUnsynced::All),
            Mishap::Vanish => {
                let other = if side == Side::Source { seen.target.0 } else { seen.source.0 };
                let soon = self.now + VANISH_US;
                self.cuts.push(Cut { link: Link::Control(sled), until: soon });
                self.cuts.push(Cut { link: Link::Control(other), until: soon + lasts * MILLI });
                self.after(VANISH_US, Happening::Vanish { sled });
            }
        }
        self.settle_sled(sled);
    }

    /// A sled that was cut off reboots.
    pub(super) fn vanishes(&mut self, sled: u16) {
        if !self.is_healed {
            self.reboot_sled(sled, VANISHED_MS);
        }
    }
}
