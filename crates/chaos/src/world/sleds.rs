//! The sleds: pure machines, driven by the queue, and the small shell around each that repeats reports and
//! registrations until they are answered.

use super::network::{ReplyTo, ToControl, ToSled};
use super::{Happening, MILLI, SECOND, World, names, wire};
use crate::coverage::Sometimes;
use crate::draws::within;
use crate::faults::{EffectKind, Entity, Fault, Refused};
use lifecycle::VmmId;
use sim_sled::machine::{Config, DirtyRate, Output, Request, Response, Sled, Span};
use sled_protocol::{ControlPlaneError, PropolisId, SledError, SledResources, SledVmmState};
use std::collections::{BTreeMap, BTreeSet};

/// Waits between repeats of a report or a registration: doubled from the first to the last.
const REPEAT_US: (u64, u64) = (200 * MILLI, 10 * SECOND);

/// Grace period of a stop: short, so that a guest that ignores it is killed within a run.
const GRACE_MS: u64 = 8_000;

/// Most doublings of a wait.
const DOUBLINGS_MAX: u32 = 16;

/// How long either side of a migration waits for the other: short, so that it gives up within a run.
const PEER_SILENCE_MS: (u64, u64) = (2_000, 4_000);

/// Sleds boot one after another.
const BOOT_APART_US: u64 = 5 * MILLI;

/// One sending of an effect.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Asked {
    instance: u16,
    effect: EffectKind,
    nth: u32,
}

/// A sled and its shell.
pub(crate) struct SledHost {
    pub(super) machine: Sled,
    pub(super) is_down: bool,
    /// Switched off by an operator who takes it out.
    pub(super) is_off: bool,
    boots: u64,
    wakes_at: Option<u64>,
    /// The newest attempt to report each VMM: its token and how many there were.
    reporting: BTreeMap<PropolisId, (u64, u32)>,
    registering: Option<(u64, u32)>,
    tokens: u64,
    /// VMMs whose guests ignore their stop.
    pub(super) hung: BTreeSet<PropolisId>,
}

impl SledHost {
    fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// Whether it has nothing more to say or do by itself.
    pub(super) fn is_at_rest(&self) -> bool {
        if self.is_off || self.machine.host().is_expunged() {
            return true;
        }
        !self.is_down
            && self.machine.host().lease_epoch().is_some()
            && self.machine.pending_reports().next().is_none()
            && self.machine.next_wake().is_none()
    }
}

fn repeat_after(attempt: u32) -> u64 {
    REPEAT_US.0.saturating_mul(1 << attempt.min(DOUBLINGS_MAX)).min(REPEAT_US.1)
}

impl World {
    pub(super) fn boot_sleds(&mut self) {
        for (nth, shape) in (0u16..).zip(self.scenario.sleds.clone()) {
            let id = sled_protocol::SledId::from_uuid(names::sled(nth).uuid());
            let mut config =
                Config::new(id, &format!("s{nth}"), &format!("[fd00::{nth}]:8000"), self.scenario.seed);
            config.resources = SledResources { threads: shape.threads, memory: shape.memory_gib << 30 };
            config.timing.stop_grace = Span::millis(GRACE_MS, GRACE_MS);
            config.timing.peer_silence = Span::millis(PEER_SILENCE_MS.0, PEER_SILENCE_MS.1);
            config.dirty_rate = DirtyRate::of(shape.dirty_per_mille);
            config.cpu_family = format!("family-{}", shape.family);
            let boot = sled_protocol::BootId::from_uuid(names::boot(nth, 1).uuid());
            self.sleds.push(SledHost {
                machine: Sled::new(config, boot),
                is_down: false,
                is_off: false,
                boots: 1,
                wakes_at: None,
                reporting: BTreeMap::new(),
                registering: None,
                tokens: 0,
                hung: BTreeSet::new(),
            });
            self.at(u64::from(nth) * BOOT_APART_US, Happening::SledWake { sled: nth });
        }
    }

    /// The sleds, for checkers.
    pub(super) fn machines(&self) -> impl Iterator<Item = (u16, &Sled)> {
        (0u16..).zip(&self.sleds).map(|(nth, host)| (nth, &host.machine))
    }

    /// A message reaches a sled. A host that is down loses it.
    pub(super) fn at_sled(&mut self, sled: u16, message: ToSled) {
        if self.sleds[usize::from(sled)].is_down {
            return;
        }
        let now = self.sled_clock();
        match message {
            ToSled::Request { request, reply_to } => self.sled_handles(sled, request, reply_to),
            ToSled::Registered { boot, sent_at, answer } => {
                let host = &mut self.sleds[usize::from(sled)];
                match answer {
                    Ok(lease) => {
                        host.machine.registered(now, sent_at, boot, lease);
                        host.registering = None;
                    }
                    Err(ControlPlaneError::Expunged) => host.machine.expunged(now),
                    Err(_) => {}
                }
            }
            ToSled::ReportAnswered { vmm, state, answer } => {
                let machine = &mut self.sleds[usize::from(sled)].machine;
                match answer {
                    Ok(()) => machine.report_accepted(now, vmm, &state),
                    Err(error) if error.is_definite() => machine.report_refused(now, vmm, &state),
                    Err(_) => {}
                }
            }
        }
        self.settle_sled(sled);
    }

    fn sled_handles(&mut self, sled: u16, request: Request, reply_to: ReplyTo) {
        let now = self.sled_clock();
        // What was due before the request comes happens before it.
        self.settle_sled(sled);
        self.check_guests();
        let asked = self.nth_asked(&reply_to);
        let entity = Entity::Sled(sled);
        let response = match self.injected_refusal(asked) {
            Some(error) => {
                if self.is_refused_for_good(asked) {
                    self.note(Sometimes::RefusedForGood);
                }
                self.checks.lied(&request, &error);
                Err(error)
            }
            None => {
                self.checks.received(self.now, sled, &request);
                self.sleds[usize::from(sled)].machine.handle(now, request.clone())
            }
        };
        if !matches!(request, Request::Inventory) {
            let text = brief(&response);
            self.trace.line(
                self.now,
                "sled",
                &entity,
                format_args!("{:?} {} -> {text}", request.kind(), about(&request)),
            );
        }
        if matches!(reply_to, ReplyTo::Nobody) || self.loses_answer(asked) {
            return;
        }
        self.send_to_control(sled, ToControl::Answer { reply_to, response: Box::new(response) });
    }

    /// Which sending of an effect this is, over the instance's life.
    fn nth_asked(&mut self, reply_to: &ReplyTo) -> Option<Asked> {
        let ReplyTo::Effect { instance, effect, .. } = reply_to else {
            return None;
        };
        let (instance, effect) = (names::instance_number(*instance), super::effects::kind_of(*effect));
        let count = self.sent.entry((instance, effect)).or_insert(0);
        let nth = *count;
        *count += 1;
        (!self.is_healed).then_some(Asked { instance, effect, nth })
    }

    fn loses_answer(&self, asked: Option<Asked>) -> bool {
        self.scenario.faults.iter().any(|fault| match fault {
            Fault::LoseAnswer { effect, instance, nth } => {
                asked == Some(Asked { effect: *effect, instance: *instance, nth: *nth })
            }
            _ => false,
        })
    }

    /// Whether this is a repeat of what a fault refuses until everything is healed.
    fn is_refused_for_good(&self, asked: Option<Asked>) -> bool {
        self.scenario.faults.iter().any(|fault| match fault {
            Fault::Refuse { effect, instance, nth, is_lasting: true, .. } => asked.is_some_and(|asked| {
                (*effect, *instance) == (asked.effect, asked.instance) && *nth < asked.nth
            }),
            _ => false,
        })
    }

    /// The refusal that a fault wants for this effect, if one does.
    fn injected_refusal(&self, asked: Option<Asked>) -> Option<SledError> {
        let asked = asked?;
        let refused = self.scenario.faults.iter().find_map(|fault| match fault {
            Fault::Refuse { effect, instance, nth, refused, is_lasting }
                if (*effect, *instance) == (asked.effect, asked.instance)
                    && (*nth == asked.nth || (*is_lasting && *nth < asked.nth)) =>
            {
                Some(*refused)
            }
            _ => None,
        })?;
        let injected = || "injected".to_owned();
        Some(match refused {
            Refused::NoSuchVmm => SledError::NoSuchInstance,
            Refused::BadState => SledError::BadState(injected()),
            Refused::Conflict => SledError::Conflict,
            Refused::Gone => SledError::Gone,
            Refused::StaleEpoch => SledError::StaleEpoch,
            Refused::NoRoom => SledError::NoRoom,
            Refused::Malformed => SledError::Malformed(injected()),
        })
    }

    /// What is due on a sled happens, what it has to say leaves, and its next wake is planned.
    pub(super) fn settle_sled(&mut self, sled: u16) {
        let now = self.sled_clock();
        let host = &mut self.sleds[usize::from(sled)];
        if host.is_down {
            return;
        }
        for output in host.machine.poll(now) {
            match output {
                Output::Report { propolis_id, state } => {
                    self.checks.reported(self.now, sled, propolis_id, &state);
                    self.note_report(sled, propolis_id, &state);
                    self.note_arrival(&state);
                    self.report(sled, propolis_id, state, 0);
                }
                Output::Peer(message) => self.send_peer(sled, message),
            }
        }
        let host = &mut self.sleds[usize::from(sled)];
        if host.machine.registration().is_some() && host.registering.is_none() {
            self.register(sled, 0);
        }
        let host = &mut self.sleds[usize::from(sled)];
        let wakes_at = host.machine.next_wake();
        if wakes_at != host.wakes_at {
            host.wakes_at = wakes_at;
            if let Some(at) = wakes_at {
                self.at(at.saturating_sub(super::WALL_START), Happening::SledWake { sled });
            }
        }
    }

    fn note_report(&mut self, sled: u16, vmm: PropolisId, state: &SledVmmState) {
        let text = names::vmm_text(VmmId::new(vmm.as_uuid()));
        let report = wire::report(state);
        let entity = Entity::Sled(sled);
        let is_end = state.vmm_state.state == sled_protocol::VmmState::Destroyed;
        if is_end && self.sleds[usize::from(sled)].hung.contains(&vmm) {
            self.note(Sometimes::StopGraceOver);
        }
        self.trace.line(
            self.now,
            "vmm",
            &entity,
            format_args!("{text} g{} {:?}", report.generation, report.state),
        );
    }

    fn report(&mut self, sled: u16, vmm: PropolisId, state: SledVmmState, attempt: u32) {
        let host = &mut self.sleds[usize::from(sled)];
        let token = host.token();
        host.reporting.insert(vmm, (token, attempt));
        self.send_to_control(sled, ToControl::Report { vmm, state: Box::new(state) });
        let longest = repeat_after(attempt);
        let drawn = self.draws.at("report_again", vmm.as_uuid().as_u128(), u64::from(attempt));
        self.after(within(drawn, longest / 2, longest), Happening::ReportAgain { sled, vmm, token });
    }

    pub(super) fn report_again(&mut self, sled: u16, vmm: PropolisId, token: u64) {
        let host = &self.sleds[usize::from(sled)];
        let Some((newest, attempt)) = host.reporting.get(&vmm).copied() else {
            return;
        };
        if host.is_down || newest != token {
            return;
        }
        let pending =
            host.machine.pending_reports().find(|(id, _)| *id == vmm).map(|(_, state)| state.clone());
        match pending {
            Some(state) => self.report(sled, vmm, state, attempt + 1),
            None => {
                self.sleds[usize::from(sled)].reporting.remove(&vmm);
            }
        }
    }

    fn register(&mut self, sled: u16, attempt: u32) {
        let sent_at = self.sled_clock();
        let host = &mut self.sleds[usize::from(sled)];
        let Some(request) = host.machine.registration() else {
            host.registering = None;
            return;
        };
        let token = host.token();
        host.registering = Some((token, attempt));
        self.send_to_control(sled, ToControl::Register { request: Box::new(request), sent_at });
        let longest = repeat_after(attempt);
        let drawn = self.draws.at("register_again", u128::from(sled), u64::from(attempt));
        self.after(within(drawn, longest / 2, longest), Happening::RegisterAgain { sled, token });
    }

    pub(super) fn register_again(&mut self, sled: u16, token: u64) {
        let host = &self.sleds[usize::from(sled)];
        if let Some((newest, attempt)) = host.registering
            && newest == token
            && !host.is_down
        {
            self.register(sled, attempt + 1);
        }
    }

    /// The host reboots: everything on it is gone, and it stays away for a while.
    pub(super) fn reboot_sled(&mut self, sled: u16, down_ms: u64) {
        let now = self.sled_clock();
        let host = &mut self.sleds[usize::from(sled)];
        if host.is_down {
            return;
        }
        let had_guests = host.machine.vmms().any(sim_sled::machine::Vmm::guest_running);
        host.boots += 1;
        let boot = sled_protocol::BootId::from_uuid(names::boot(sled, host.boots).uuid());
        host.machine.reboot(now, boot);
        host.is_down = true;
        host.reporting.clear();
        host.registering = None;
        host.wakes_at = None;
        if had_guests {
            self.note(Sometimes::RebootUnderGuests);
        }
        self.after(down_ms * MILLI, Happening::SledUp { sled });
    }

    /// An operator switches a host off, to take it out.
    pub(super) fn switch_off(&mut self, sled: u16) {
        let now = self.sled_clock();
        let host = &mut self.sleds[usize::from(sled)];
        if host.is_off {
            return;
        }
        host.boots += 1;
        let boot = sled_protocol::BootId::from_uuid(names::boot(sled, host.boots).uuid());
        host.machine.reboot(now, boot);
        (host.is_down, host.is_off) = (true, true);
        host.reporting.clear();
        host.registering = None;
        host.wakes_at = None;
        self.trace.line(self.now, "off", &Entity::Sled(sled), format_args!(""));
    }

    /// A host that was taken out is switched on again all the same: it must learn that it is out.
    pub(super) fn switch_on(&mut self, sled: u16, after_us: u64) {
        self.sleds[usize::from(sled)].is_off = false;
        self.after(after_us, Happening::SledUp { sled });
    }

    pub(super) fn sled_up(&mut self, sled: u16) {
        if self.sleds[usize::from(sled)].is_off {
            return;
        }
        self.sleds[usize::from(sled)].is_down = false;
        self.trace.line(self.now, "up", &Entity::Sled(sled), format_args!(""));
        self.settle_sled(sled);
    }
}

pub(crate) fn about(request: &Request) -> String {
    match request {
        Request::Register { vmm, .. }
        | Request::Unregister { vmm, .. }
        | Request::SetState { vmm, .. }
        | Request::GetState { vmm } => names::vmm_text(VmmId::new(vmm.as_uuid())),
        _ => String::new(),
    }
}

pub(crate) fn brief(response: &Response) -> &'static str {
    match response {
        Ok(_) => "ok",
        Err(error) => error.error_code().unwrap_or("error"),
    }
}
