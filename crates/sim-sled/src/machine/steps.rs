//! What VMMs do by themselves, by time or by hand, and what happens to their guests.

use sled_protocol::{MigrationState, PropolisId, VmmState};

use super::config::Mode;
use super::migrate::Question;
use super::vmm::{Deadline, Due, Step};
use super::{Sled, Span, Timing};

/// Most steps one script takes: more than the longest life of a VMM has.
const SCRIPT_STEPS_MAX: usize = 256;

/// A step with the time it takes.
#[derive(Clone, Copy)]
pub(super) struct Then {
    step: Step,
    span: fn(&Timing) -> Span,
    part: Part,
}

/// How much of a span is taken: `of` of `whole`.
#[derive(Clone, Copy)]
struct Part {
    of: u64,
    whole: u64,
}

impl Part {
    const ALL: Self = Self { of: 1, whole: 1 };

    fn taken(self, micros: u64) -> u64 {
        let part = u128::from(micros) * u128::from(self.of) / u128::from(self.whole.max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

impl Then {
    const fn whole(step: Step, span: fn(&Timing) -> Span) -> Self {
        Self { step, span, part: Part::ALL }
    }

    pub(super) fn boot() -> Self {
        Self::whole(Step::Boot, |timing| timing.boot)
    }

    pub(super) fn restart() -> Self {
        Self::whole(Step::Restart, |timing| timing.reboot)
    }

    fn halt() -> Self {
        Self::whole(Step::Halt, |timing| timing.halt)
    }

    fn takedown() -> Self {
        Self::whole(Step::Takedown, |timing| timing.takedown)
    }

    pub(super) fn depart() -> Self {
        Self::whole(Step::Depart, |timing| timing.takedown)
    }

    pub(super) fn resume() -> Self {
        Self::whole(Step::Resume, |timing| timing.resume)
    }

    /// A question put for the first time, after the work before it.
    pub(super) fn ask_first(question: Question) -> Self {
        let span: fn(&Timing) -> Span = match question {
            Question::Begin => |timing| timing.contact,
            Question::Copy { round: 1 } => |_| Span::millis(0, 0),
            Question::Copy { .. } | Question::Pause => |timing| timing.copy_round,
            Question::Finish => |timing| timing.transfer,
        };
        Self::whole(Step::Ask(question), span)
    }

    /// The question after a round that copies so many bytes of the guest's memory.
    pub(super) fn ask_after_copying(question: Question, bytes: u64, memory: u64) -> Self {
        let part = Part { of: bytes.min(memory), whole: memory };
        Self { part, ..Self::ask_first(question) }
    }

    /// The same question again, if no answer comes.
    pub(super) fn ask_again(question: Question) -> Self {
        Self::whole(Step::Ask(question), Timing::retry)
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    Lease,
    Next(PropolisId),
    Deadline(PropolisId),
}

impl Sled {
    /// Takes the VMM's next step at once, or else lets a stop's grace period end; answers whether there was
    /// anything to do. For explicit mode, though auto mode allows it.
    pub fn step(&mut self, now: u64, id: PropolisId) -> bool {
        self.advance(now);
        let now = self.host.clock;
        let Some(vmm) = self.vmms.get(&id) else { return false };
        if vmm.next.is_some() {
            self.fire_next(id, now);
            return true;
        }
        let is_grace = vmm.deadline.is_some_and(|due| due.what == Deadline::StopGrace);
        if is_grace {
            self.fire_deadline(id, now);
        }
        is_grace
    }

    /// Takes the VMM's steps until it rests or waits for a migration peer; answers how many there were.
    pub fn run_script(&mut self, now: u64, id: PropolisId) -> usize {
        for taken in 0..SCRIPT_STEPS_MAX {
            let is_asking =
                self.vmms.get(&id).is_some_and(|vmm| matches!(vmm.next_step(), Some(Step::Ask(_))));
            if !self.step(now, id) {
                return taken;
            }
            if is_asking {
                return taken + 1;
            }
        }
        SCRIPT_STEPS_MAX
    }

    /// The guest shuts itself down; answers whether there was a guest to do so.
    pub fn guest_shutdown(&mut self, now: u64, id: PropolisId) -> bool {
        self.advance(now);
        let now = self.host.clock;
        let Some(vmm) = self.vmms.get(&id) else { return false };
        if !vmm.guest_running || vmm.vmm_state() == VmmState::Stopping {
            return false;
        }
        if vmm.is_departing() {
            self.fail_departure(id, now);
        }
        self.begin_stop(id, now);
        // The guest goes down by its own will, so it cannot be ignoring anyone.
        self.schedule(id, now, Then::halt());
        true
    }

    /// The VMM dies; answers whether there was a live one.
    pub fn guest_crash(&mut self, now: u64, id: PropolisId) -> bool {
        self.advance(now);
        let was_live = self.vmms.get(&id).is_some_and(super::Vmm::is_live);
        self.end_vmm(id, self.host.clock, VmmState::Failed);
        was_live
    }

    /// From here on the guest ignores requests to stop, so that only the grace period ends it.
    pub fn guest_ignores_stop(&mut self, id: PropolisId) {
        if let Some(vmm) = self.vmm_mut(id) {
            vmm.guest_ignores_stop = true;
        }
    }

    /// The guest writes to its serial port.
    pub fn write_serial(&mut self, id: PropolisId, text: &str) {
        if let Some(vmm) = self.vmm_mut(id) {
            vmm.serial.write(text);
        }
    }

    /// What is due by `now` happens, in order of time and then of VMM.
    pub(super) fn advance(&mut self, now: u64) {
        while let Some((at, turn)) = self.next_due()
            && at <= now
        {
            let at = at.max(self.host.clock);
            self.host.clock = at;
            match turn {
                Turn::Lease => self.lapse(at),
                Turn::Next(id) => self.fire_next(id, at),
                Turn::Deadline(id) => self.fire_deadline(id, at),
            }
        }
        self.host.clock = self.host.clock.max(now);
    }

    pub(super) fn next_due(&self) -> Option<(u64, Turn)> {
        let lease = self.host.lease_lapses_at().map(|at| (at, Turn::Lease));
        let of_vmms = self.vmms.values().flat_map(|vmm| {
            let id = vmm.propolis_id();
            let next = vmm.next.and_then(|due| due.at).map(|at| (at, Turn::Next(id)));
            let deadline = vmm.deadline.and_then(|due| due.at).map(|at| (at, Turn::Deadline(id)));
            next.into_iter().chain(deadline)
        });
        lease.into_iter().chain(of_vmms).min()
    }

    pub(super) fn schedule(&mut self, id: PropolisId, now: u64, then: Then) {
        let at = self.draw(id, now, (then.span)(&self.config.timing), then.part);
        if let Some(vmm) = self.vmm_mut(id) {
            vmm.next = Some(Due { what: then.step, at });
        }
    }

    pub(super) fn set_deadline(&mut self, id: PropolisId, now: u64, what: Deadline) {
        let timing = &self.config.timing;
        let span = match what {
            Deadline::StopGrace => timing.stop_grace,
            Deadline::PeerSilent => timing.peer_silence,
        };
        let at = self.draw(id, now, span, Part::ALL);
        if let Some(vmm) = self.vmm_mut(id) {
            vmm.deadline = Some(Due { what, at });
        }
    }

    fn draw(&mut self, id: PropolisId, now: u64, span: Span, part: Part) -> Option<u64> {
        if self.config.mode == Mode::Explicit {
            return None;
        }
        let dice = super::Dice::new(self.config.seed);
        let vmm = self.vmm_mut(id)?;
        vmm.draws += 1;
        Some(now.saturating_add(part.taken(dice.within(span, "vmm", id.as_uuid(), vmm.draws))))
    }

    /// The VMM goes down: its guest is asked to, and killed when the grace period ends.
    pub(super) fn begin_stop(&mut self, id: PropolisId, now: u64) {
        let Some(vmm) = self.vmm_mut(id) else { return };
        vmm.set_state(now, VmmState::Stopping);
        vmm.next = None;
        let ignores = vmm.guest_ignores_stop;
        self.write_serial(id, "musher: shutdown\r\n");
        self.set_deadline(id, now, Deadline::StopGrace);
        if !ignores {
            self.schedule(id, now, Then::halt());
        }
    }

    /// Ends the VMM if it lives, and tells the peer of a migration that this fails.
    pub(super) fn end_vmm(&mut self, id: PropolisId, now: u64, state: VmmState) {
        let Some(vmm) = self.vmm_mut(id) else { return };
        if let Some(peer) = vmm.end(now, state) {
            self.tell_failed(id, peer, "the VMM on the other side has ended");
        }
    }

    fn fire_next(&mut self, id: PropolisId, now: u64) {
        let Some(due) = self.vmm_mut(id).and_then(|vmm| vmm.next.take()) else { return };
        match due.what {
            Step::Boot | Step::Restart => self.come_up(id, now),
            Step::Halt => self.go_down(id, now),
            Step::Takedown => self.end_vmm(id, now, VmmState::Destroyed),
            Step::Ask(question) => self.ask(id, now, question),
            Step::Resume => {
                if let Some(vmm) = self.vmm_mut(id) {
                    assert_eq!(
                        vmm.arrival(),
                        Some(MigrationState::Completed),
                        "a guest resumes after it came"
                    );
                    vmm.set_state(now, VmmState::Running);
                }
            }
            Step::Depart => {
                if let Some(vmm) = self.vmm_mut(id) {
                    assert!(!vmm.guest_running, "a source departs after its guest");
                    vmm.set_state(now, VmmState::Stopping);
                }
                self.schedule(id, now, Then::takedown());
            }
        }
    }

    fn come_up(&mut self, id: PropolisId, now: u64) {
        if let Some(vmm) = self.vmm_mut(id) {
            vmm.guest_running = true;
            vmm.set_state(now, VmmState::Running);
        }
        self.write_serial(id, "login: ");
    }

    /// The guest is down. On the wire the VMM is still stopping, so no generation grows.
    fn go_down(&mut self, id: PropolisId, now: u64) {
        if let Some(vmm) = self.vmm_mut(id) {
            vmm.guest_running = false;
            vmm.deadline = None;
        }
        self.write_serial(id, "musher: halted\r\n");
        self.schedule(id, now, Then::takedown());
    }

    fn fire_deadline(&mut self, id: PropolisId, now: u64) {
        let Some(due) = self.vmm_mut(id).and_then(|vmm| vmm.deadline.take()) else { return };
        match due.what {
            Deadline::StopGrace => self.end_vmm(id, now, VmmState::Destroyed),
            Deadline::PeerSilent => self.fail_migration_of(id, now, "the other side is silent"),
        }
    }
}
