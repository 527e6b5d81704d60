//! The world: one instance's fold, two sleds, and what is late on the wire between them.
//!
//! A message that is not late is sent, received and answered in one step. One that is late is put on the wire
//! by one step and arrives by another, with anything in between; so one that is lost, or comes twice, is a late
//! one too, of which the sender has not waited for the answer. What the sender does not know it does again.

use super::budget::Budget;
use super::fold::{BEFORE_ANY, FoldId, Folds, Given, REGISTERED_AT, digest};
use super::sled::{Guest, Next, Request, Sled};
use super::truth;
use super::wishes::Wish;
use lifecycle::input::{EffectResult, VmmReport};
use lifecycle::vmm::Evidence;
use lifecycle::{DeadlineKind, Effect, FailureReason, Input, InstanceEvent, Purpose, SledId, VmmId};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use uuid::Uuid;

/// Sleds in a world.
pub const SLEDS: usize = 2;

const SLED_IDS: u128 = 0x50;

/// A sled's id.
pub const fn sled_id(sled: usize) -> SledId {
    SledId::new(Uuid::from_u128(SLED_IDS + sled as u128))
}

/// Which sled an id names.
pub fn sled_index(id: SledId) -> usize {
    (0..SLEDS).find(|&sled| sled_id(sled) == id).expect("sleds are known")
}

/// What becomes of the answer to a late request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Heard,
    Late,
    Lost,
}

/// One thing that may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Ask(Wish),
    /// An effect is sent, done and answered.
    Call(Effect),
    /// An effect is sent, and is late.
    SendLate(Effect),
    /// A late request arrives.
    Arrive(usize, Fate),
    /// A late answer, report or inventory arrives.
    Hear(usize),
    /// A VMM's present picture is accepted.
    Report(VmmId),
    /// It is sent, and is late.
    ReportLate(VmmId),
    /// A VMM does what it does next by itself.
    Proceed(VmmId),
    /// A source gives up a migration whose target is no more.
    MissTarget(VmmId),
    ShutDown(VmmId),
    Crash(VmmId),
    FailMigration(VmmId),
    RebootSled(usize),
    /// A sled registers after its boot, and the boot is recorded.
    RegisterSled(usize),
    /// The instance is told what a recorded boot proves.
    TellOfBoot(usize),
    /// An inventory is asked for, answered and reconciled.
    Inventory(usize),
    InventoryLate(usize),
    Deadline(DeadlineKind),
    /// The restart policy acts, with room on this sled.
    Restart(usize),
    RestartControlPlane,
}

/// What a sled's agent knows when it is asked, against what was known to be registered then.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Inventory {
    sled: usize,
    boot: u64,
    known: Vec<VmmId>,
    listed: Vec<(VmmId, VmmReport)>,
}

/// What is late.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Message {
    Request(Request),
    Answer(Effect, EffectResult),
    Report(usize, VmmId, VmmReport),
    Inventory(Inventory),
}

/// A message on the wire; its key stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    key: u64,
    pub message: Message,
}

impl Hash for Late {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key.hash(hasher);
    }
}

/// What a request is sent under that must not act: no boot has it.
const NO_EPOCH: u64 = u64::MAX;

/// What the control plane knows of a sled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Known {
    /// The recorded boot, which is also the epoch.
    pub boot: u64,
    /// VMMs that were allocated there before it: nothing of them is ever sent there again.
    pub before_boot: Vec<VmmId>,
}

/// One situation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub fold: FoldId,
    pub sleds: [Sled; SLEDS],
    pub known: [Known; SLEDS],
    pub wire: Vec<Late>,
    pub left: Budget,
    /// VMMs allocated so far.
    pub allocated: u8,
    /// VMMs that the control plane may kill: an operator or a deadline said so.
    pub doomed: Vec<VmmId>,
    /// Whether anybody has ever asked to stop it.
    pub stop_was_asked: bool,
    /// Whether the guest has ever shut itself down.
    pub guest_shut_down: bool,
}

/// The world after a step; none if the step changes nothing.
pub type After = Result<Option<World>, String>;

impl World {
    pub fn new(fold: FoldId, left: Budget) -> Self {
        let known = || Known { boot: 1, before_boot: Vec::new() };
        Self {
            fold,
            sleds: [Sled::new(), Sled::new()],
            known: [known(), known()],
            wire: Vec::new(),
            left,
            allocated: 0,
            doomed: Vec::new(),
            stop_was_asked: false,
            guest_shut_down: false,
        }
    }

    pub fn guests(&self) -> impl Iterator<Item = &Guest> {
        self.sleds.iter().flat_map(|sled| &sled.guests)
    }

    fn sled_of(&self, id: VmmId) -> Option<usize> {
        self.sleds.iter().position(|sled| sled.guest(id).is_some())
    }

    pub fn guest(&self, id: VmmId) -> Option<&Guest> {
        self.guests().find(|guest| guest.id == id)
    }

    pub fn guest_mut(&mut self, id: VmmId) -> &mut Guest {
        let found = self.sleds.iter_mut().find_map(|sled| sled.guest_mut(id));
        found.expect("steps name VMMs that are there")
    }

    /// Takes the step. What has been spent on it does not make a world another one.
    pub fn take(&self, folds: &mut Folds, step: &Step) -> After {
        let mut next = self.clone();
        next.apply(folds, step)?;
        next.prune(folds);
        let left = std::mem::replace(&mut next.left, self.left);
        let is_same = next == *self;
        next.left = left;
        Ok((!is_same).then_some(next))
    }

    fn apply(&mut self, folds: &mut Folds, step: &Step) -> Result<(), String> {
        match *step {
            Step::Ask(wish) => self.ask(folds, wish)?,
            Step::Call(effect) => {
                self.wait_no_more(|waited| waited == effect);
                let result = self.deliver(&self.request(folds, effect))?;
                self.give(folds, &Input::Outcome { effect, result })?;
            }
            Step::SendLate(effect) => {
                self.left.spend(|left| &mut left.late_request);
                self.wait_no_more(|waited| waited == effect);
                self.send(Message::Request(self.request(folds, effect)));
            }
            Step::Arrive(index, fate) => self.arrive(folds, index, fate)?,
            Step::Hear(index) => self.hear(folds, index)?,
            Step::Report(vmm) => self.report(folds, vmm)?,
            Step::ReportLate(vmm) => {
                self.left.spend(|left| &mut left.late_report);
                let sled = self.sled_of(vmm).expect("steps name VMMs that are there");
                let picture = self.guest_mut(vmm).picture();
                self.send(Message::Report(sled, vmm, picture));
            }
            Step::Proceed(vmm) => self.proceed(vmm),
            Step::MissTarget(vmm) => self.guest_mut(vmm).fail_departure(),
            Step::ShutDown(vmm) => {
                self.left.spend(|left| &mut left.shutdown);
                self.guest_shut_down = true;
                self.guest_mut(vmm).shut_down();
            }
            Step::Crash(vmm) => {
                self.left.spend(|left| &mut left.crash);
                self.guest_mut(vmm).end(lifecycle::VmmState::Failed);
            }
            Step::FailMigration(vmm) => {
                self.left.spend(|left| &mut left.fail_migration);
                self.guest_mut(vmm).fail_migration();
            }
            Step::RebootSled(sled) => {
                self.left.spend(|left| &mut left.sled_reboot);
                self.sleds[sled].reboot();
            }
            Step::RegisterSled(sled) => {
                self.sleds[sled].is_registered = true;
                let before_boot = self.allocated_on(folds, sled);
                self.known[sled] = Known { boot: self.sleds[sled].boot, before_boot };
            }
            Step::TellOfBoot(sled) => {
                let before = self.known[sled].before_boot.clone();
                self.find_absent(folds, sled, &before, &[], Evidence::SledRebooted)?;
            }
            Step::Inventory(sled) => self.reconcile(folds, &self.inventory(folds, sled))?,
            Step::InventoryLate(sled) => {
                self.left.spend(|left| &mut left.late_inventory);
                self.send(Message::Inventory(self.inventory(folds, sled)));
            }
            Step::Deadline(kind) => {
                self.left.spend(|left| &mut left.deadline);
                self.pass(folds, kind)?;
            }
            Step::Restart(sled) => self.restart(folds, sled)?,
            Step::RestartControlPlane => {
                self.left.spend(|left| &mut left.restart);
                self.wait_no_more(|_| true);
                self.wire.retain(|late| !matches!(late.message, Message::Inventory(_)));
            }
        }
        Ok(())
    }

    /// Forgets what can no longer matter, so that it does not tell equal situations apart.
    fn prune(&mut self, folds: &Folds) {
        let state = folds.state(self.fold);
        let (wire, sleds) = (&self.wire, &self.sleds);
        let is_held = |id: &VmmId| state.vmms.contains_key(id);
        let is_there = |id: &VmmId| sleds.iter().any(|sled| sled.guest(*id).is_some());
        let is_on_wire = |id: &VmmId| {
            wire.iter().any(|late| matches!(&late.message, Message::Request(r) if r.effect.vmm() == *id))
        };
        self.doomed.retain(|id| is_held(id) || is_there(id));
        for known in &mut self.known {
            known.before_boot.retain(is_held);
        }
        let buried: [Vec<VmmId>; SLEDS] = std::array::from_fn(|sled| {
            let all = self.sleds[sled].tombstones.iter();
            all.copied().filter(|id| is_held(id) || is_on_wire(id)).collect()
        });
        for (sled, tombstones) in self.sleds.iter_mut().zip(buried) {
            sled.tombstones = tombstones;
        }
    }

    fn send(&mut self, message: Message) {
        self.wire.push(Late { key: digest(&message), message });
        self.wire.sort_by_key(|late| late.key);
    }

    /// Whoever asks again, or has died, does not wait for an earlier answer: one call of an effect at a time.
    fn wait_no_more(&mut self, is_meant: impl Fn(Effect) -> bool) {
        let is_waited_for =
            |late: &Late| !matches!(late.message, Message::Answer(effect, _) if is_meant(effect));
        self.wire.retain(is_waited_for);
        for late in &mut self.wire {
            if let Message::Request(request) = &mut late.message
                && is_meant(request.effect)
            {
                request.is_waited_for = false;
                late.key = digest(&late.message);
            }
        }
        self.wire.sort_by_key(|late| late.key);
    }

    fn pass(&mut self, folds: &mut Folds, kind: DeadlineKind) -> Result<(), String> {
        self.give(folds, &Input::Deadline(kind)).map(drop)
    }

    /// A deadline passes because nothing else happens.
    pub fn pass_deadline(&self, folds: &mut Folds, kind: DeadlineKind) -> Result<Self, String> {
        let mut next = self.clone();
        next.pass(folds, kind)?;
        next.prune(folds);
        Ok(next)
    }

    /// Gives the instance an input, and notes whom it may kill from then on.
    pub fn give(&mut self, folds: &mut Folds, input: &Input) -> Result<Option<Purpose>, String> {
        let before = self.fold;
        match folds.give(before, input).map_err(|broken| format!("{broken}\n  after {input:?}"))? {
            Given::Nothing => Ok(None),
            Given::AskForRoom(purpose) => Ok(Some(purpose)),
            Given::Appended(after, events) => {
                let target = |id| folds.state(before).migrations.get(&id).map(|linked| linked.target.vmm);
                for event in &events {
                    match event {
                        InstanceEvent::VmmFailed {
                            vmm,
                            reason: FailureReason::StartTimeout | FailureReason::Operator,
                        } => self.doomed.push(*vmm),
                        InstanceEvent::MigrationGivenUp { migration } => {
                            self.doomed.extend(target(*migration));
                        }
                        InstanceEvent::StopRequested { .. } => self.stop_was_asked = true,
                        _ => {}
                    }
                }
                self.doomed.sort();
                self.doomed.dedup();
                self.fold = after;
                Ok(None)
            }
        }
    }

    fn request(&self, folds: &Folds, effect: Effect) -> Request {
        let state = folds.state(self.fold);
        let migration = state.migrations.values().find(|migration| migration.target.vmm == effect.vmm());
        let known = &self.known[sled_index(effect.sled())];
        Request {
            effect,
            epoch: if known.before_boot.contains(&effect.vmm()) { NO_EPOCH } else { known.boot },
            migration: migration.map(|migration| migration.id),
            source: migration.map(|migration| migration.source.vmm),
            is_waited_for: true,
        }
    }

    /// A sled does what it is asked, if that kills nobody who must live.
    fn deliver(&mut self, request: &Request) -> Result<EffectResult, String> {
        truth::may_be_asked(self, request)?;
        Ok(self.sleds[sled_index(request.effect.sled())].handle(request))
    }

    fn arrive(&mut self, folds: &mut Folds, index: usize, fate: Fate) -> Result<(), String> {
        let Message::Request(request) = self.wire.remove(index).message else {
            unreachable!("only requests arrive");
        };
        let (effect, result) = (request.effect, self.deliver(&request)?);
        match fate {
            Fate::Heard => self.give(folds, &Input::Outcome { effect, result }).map(drop),
            Fate::Late => {
                self.left.spend(|left| &mut left.late_answer);
                self.send(Message::Answer(effect, result));
                Ok(())
            }
            Fate::Lost => Ok(()),
        }
    }

    fn hear(&mut self, folds: &mut Folds, index: usize) -> Result<(), String> {
        match self.wire.remove(index).message {
            Message::Answer(effect, result) => self.give(folds, &Input::Outcome { effect, result }).map(drop),
            Message::Report(sled, vmm, report) => {
                self.give(folds, &Input::Report { sled: sled_id(sled), vmm, report }).map(drop)
            }
            Message::Inventory(inventory) => self.reconcile(folds, &inventory),
            Message::Request(_) => unreachable!("requests arrive"),
        }
    }

    /// A VMM is forgotten only after its last picture was accepted.
    fn report(&mut self, folds: &mut Folds, vmm: VmmId) -> Result<(), String> {
        let sled = self.sled_of(vmm).expect("steps name VMMs that are there");
        let guest = self.guest_mut(vmm);
        guest.is_settled = true;
        let (report, is_live) = (guest.picture(), guest.state.is_live());
        if !is_live {
            self.sleds[sled].forget(vmm);
        }
        self.give(folds, &Input::Report { sled: sled_id(sled), vmm, report }).map(drop)
    }

    fn proceed(&mut self, id: VmmId) {
        match self.guest(id).and_then(Guest::next) {
            Some(Next::AskSource) => {
                let mut target = self.guest_mut(id).clone();
                let source = target.source;
                let source = self.sleds.iter_mut().find_map(|sled| sled.guest_mut(source?));
                target.ask(source);
                *self.guest_mut(id) = target;
            }
            Some(next) => self.guest_mut(id).step(next),
            None => unreachable!("only a VMM that has a next step proceeds"),
        }
    }

    fn allocated_on(&self, folds: &Folds, sled: usize) -> Vec<VmmId> {
        let vmms = folds.state(self.fold).vmms.values();
        vmms.filter(|vmm| vmm.sled == sled_id(sled)).map(|vmm| vmm.id).collect()
    }

    fn registered_on(&self, folds: &Folds, sled: usize) -> Vec<VmmId> {
        let vmms = folds.state(self.fold).vmms.values();
        let registered = vmms.filter(|vmm| vmm.sled == sled_id(sled) && vmm.registered_at.is_some());
        registered.map(|vmm| vmm.id).collect()
    }

    fn inventory(&self, folds: &Folds, sled: usize) -> Inventory {
        let asked = &self.sleds[sled];
        Inventory {
            sled,
            boot: asked.boot,
            known: self.registered_on(folds, sled),
            listed: asked.guests.iter().map(|guest| (guest.id, guest.picture())).collect(),
        }
    }

    /// Whether an inventory would say more than the reports that are due.
    pub fn is_inventory_news(&self, folds: &Folds, sled: usize) -> bool {
        let (state, asked) = (folds.state(self.fold), &self.sleds[sled]);
        let is_missed = |vmm: &VmmId| asked.guest(*vmm).is_none();
        let is_held = |guest: &Guest| state.vmms.get(&guest.id).is_some_and(|vmm| vmm.gone.is_none());
        self.registered_on(folds, sled).iter().any(is_missed) || !asked.guests.iter().all(is_held)
    }

    /// An inventory of another boot than the recorded one says nothing about VMMs.
    fn reconcile(&mut self, folds: &mut Folds, inventory: &Inventory) -> Result<(), String> {
        let Inventory { sled, boot, known, listed } = inventory;
        if self.known[*sled].boot != *boot {
            return Ok(());
        }
        for &(vmm, report) in listed {
            let is_held = folds.state(self.fold).vmms.get(&vmm).is_some_and(|vmm| vmm.gone.is_none());
            if is_held {
                self.give(folds, &Input::Report { sled: sled_id(*sled), vmm, report })?;
            } else {
                let effect = Effect::Unregister { vmm, sled: sled_id(*sled) };
                self.deliver(&self.request(folds, effect))?;
            }
        }
        let listed: Vec<VmmId> = listed.iter().map(|(vmm, _)| *vmm).collect();
        self.find_absent(folds, *sled, known, &listed, Evidence::AbsentFromInventory)
    }

    /// What is not listed is gone, if it was registered before the question.
    fn find_absent(
        &mut self,
        folds: &mut Folds,
        sled: usize,
        known: &[VmmId],
        listed: &[VmmId],
        evidence: Evidence,
    ) -> Result<(), String> {
        let placed: BTreeMap<VmmId, SledId> =
            folds.state(self.fold).vmms.values().map(|vmm| (vmm.id, vmm.sled)).collect();
        for (vmm, on) in placed {
            if on == sled_id(sled) && !listed.contains(&vmm) {
                let asked_at = if known.contains(&vmm) { REGISTERED_AT } else { BEFORE_ANY };
                self.give(folds, &Input::Absent { vmm, asked_at, evidence })?;
            }
        }
        Ok(())
    }
}
