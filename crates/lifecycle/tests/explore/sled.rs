//! A sled as `docs/sled-protocol.md` describes it, small enough to be explored: its VMMs with both of their
//! migrations, its boot, and what it remembers of VMMs that ended.
//!
//! What takes time on a sled is a step of its own ([`Guest::next`]); everything else happens within a request.
//! The copying of memory is one step, because no report and no request tells its rounds apart.

use lifecycle::input::{EffectResult, Refusal, SideReport, VmmReport};
use lifecycle::migration::SideState;
use lifecycle::{Effect, Generation, MigrationId, OpId, VmmId, VmmState};
use std::hash::{Hash, Hasher};

/// One side of a migration, as its VMM knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    pub migration: MigrationId,
    pub state: SideState,
    pub generation: u64,
}

/// How far a target has come in fetching its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fetch {
    /// It was not told to.
    Idle,
    /// It was told, and has not spoken to the source.
    Contact,
    /// The source has agreed; memory moves.
    Begun,
    /// The guest is paused in the source.
    Paused,
    /// The source has let the guest go; its word is on the way.
    LetGo,
    /// The guest is here.
    Arrived,
}

/// What a VMM does next by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Its guest comes up, for the first time or again.
    ComeUp,
    /// Its guest has come by a migration, and runs.
    Resume,
    /// Its guest has left: it goes down.
    Depart,
    /// Its guest is down: it ends.
    TakeDown,
    /// It puts its next question to the source of its migration.
    AskSource,
}

/// One VMM on a sled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    pub id: VmmId,
    pub state: VmmState,
    pub generation: u64,
    pub arrival: Option<Side>,
    pub departure: Option<Side>,
    /// Whether the guest executes here: the truth.
    pub executes: bool,
    /// Whether it was told to run and has not come up.
    pub boots: bool,
    pub fetch: Fetch,
    pub source: Option<VmmId>,
    ops: Vec<OpId>,
    /// Whether the control plane has accepted the present picture.
    pub is_settled: bool,
}

/// A request as it left the control plane.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Request {
    pub effect: Effect,
    /// The epoch under which it is meant.
    pub epoch: u64,
    /// Of a register: the migration into the VMM.
    pub migration: Option<MigrationId>,
    /// Of a `migration_target`: where the guest is.
    pub source: Option<VmmId>,
    /// Whether the control plane still waits for the answer.
    pub is_waited_for: bool,
}

/// One sled. Its epoch is the number of its boot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sled {
    pub boot: u64,
    /// Whether it has registered since its boot.
    pub is_registered: bool,
    pub guests: Vec<Guest>,
    pub tombstones: Vec<VmmId>,
}

impl Hash for Side {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { migration, state, generation } = self;
        (migration, *state as u8, generation).hash(hasher);
    }
}

impl Hash for Guest {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { id, state, generation, arrival, departure, executes, boots, .. } = self;
        (id, *state as u8, generation, arrival, departure, executes, boots).hash(hasher);
        let Self { fetch, source, ops, is_settled, .. } = self;
        (fetch, source, ops, is_settled).hash(hasher);
    }
}

fn advance(side: &mut Option<Side>, state: SideState) {
    if let Some(side) = side
        && side.state != state
    {
        side.state = state;
        side.generation += 1;
    }
}

impl Guest {
    fn new(id: VmmId, migration: Option<MigrationId>) -> Self {
        let pending = |migration| Side { migration, state: SideState::Pending, generation: 1 };
        Self {
            id,
            state: if migration.is_some() { VmmState::Migrating } else { VmmState::Starting },
            generation: 1,
            arrival: migration.map(pending),
            departure: None,
            executes: false,
            boots: false,
            fetch: Fetch::Idle,
            source: None,
            ops: Vec::new(),
            // The answer to the register carries the picture.
            is_settled: true,
        }
    }

    /// Whether the guest ends with this VMM: it executes here, is paused here, or is nowhere else any more.
    pub fn holds_guest(&self) -> bool {
        self.executes || self.is_departing() || self.fetch == Fetch::LetGo
    }

    pub fn is_arriving(&self) -> bool {
        self.arrival.as_ref().is_some_and(|side| !side.state.is_terminal())
    }

    pub fn is_departing(&self) -> bool {
        self.departure.as_ref().is_some_and(|side| !side.state.is_terminal())
    }

    fn is_departing_by(&self, migration: MigrationId) -> bool {
        self.is_departing() && self.departure.as_ref().is_some_and(|side| side.migration == migration)
    }

    pub fn picture(&self) -> VmmReport {
        let part = |side: &Side| SideReport {
            migration: side.migration,
            state: side.state,
            generation: Generation::new(side.generation),
        };
        VmmReport {
            state: self.state,
            generation: Generation::new(self.generation),
            migration_in: self.arrival.as_ref().map(part),
            migration_out: self.departure.as_ref().map(part),
        }
    }

    fn become_state(&mut self, state: VmmState) {
        assert!(self.state.is_live(), "a VMM that has ended changes no more");
        if self.state != state {
            self.state = state;
            self.generation += 1;
        }
        self.is_settled = false;
    }

    /// Ends it, and its migrations with it.
    pub fn end(&mut self, state: VmmState) {
        if !self.state.is_live() {
            return;
        }
        if self.is_arriving() {
            advance(&mut self.arrival, SideState::Failed);
        }
        if self.is_departing() {
            advance(&mut self.departure, SideState::Failed);
        }
        self.become_state(state);
        self.executes = false;
        self.boots = false;
        self.fetch = Fetch::Idle;
    }

    /// The source takes its guest back.
    pub fn fail_departure(&mut self) {
        advance(&mut self.departure, SideState::Failed);
        self.become_state(VmmState::Running);
        self.executes = true;
    }

    pub fn begin_stop(&mut self) {
        self.become_state(VmmState::Stopping);
    }

    pub fn next(&self) -> Option<Next> {
        let has_left = self.departure.as_ref().is_some_and(|side| side.state == SideState::Completed);
        match self.state {
            VmmState::Starting => self.boots.then_some(Next::ComeUp),
            VmmState::Rebooting => Some(Next::ComeUp),
            VmmState::Stopping => Some(Next::TakeDown),
            VmmState::Migrating if has_left => Some(Next::Depart),
            VmmState::Migrating if self.fetch == Fetch::Arrived => Some(Next::Resume),
            VmmState::Migrating => (self.fetch != Fetch::Idle).then_some(Next::AskSource),
            _ => None,
        }
    }

    /// Takes a step that needs nobody else.
    pub fn step(&mut self, next: Next) {
        match next {
            Next::ComeUp => {
                self.boots = false;
                self.executes = true;
                self.become_state(VmmState::Running);
            }
            Next::Resume => self.become_state(VmmState::Running),
            Next::Depart => self.become_state(VmmState::Stopping),
            Next::TakeDown => self.end(VmmState::Destroyed),
            Next::AskSource => unreachable!("needs the source"),
        }
    }

    /// The target puts its next question; a source that refuses, or is not there, fails it.
    pub fn ask(&mut self, source: Option<&mut Self>) {
        let migration = self.arrival.as_ref().expect("a target has an arrival").migration;
        let agrees = match (self.fetch, &source) {
            (Fetch::LetGo, _) => true,
            (Fetch::Contact, Some(source)) => source.state == VmmState::Running && !source.is_departing(),
            (_, Some(source)) => source.is_departing_by(migration),
            (_, None) => false,
        };
        if !agrees {
            self.end(VmmState::Failed);
            return;
        }
        self.fetch = match self.fetch {
            Fetch::Contact => {
                let source = source.expect("it has agreed");
                source.departure = Some(Side { migration, state: SideState::Pending, generation: 1 });
                source.become_state(VmmState::Migrating);
                advance(&mut self.arrival, SideState::InProgress);
                self.is_settled = false;
                Fetch::Begun
            }
            Fetch::Begun => {
                let source = source.expect("it has agreed");
                advance(&mut source.departure, SideState::InProgress);
                source.is_settled = false;
                source.executes = false;
                Fetch::Paused
            }
            Fetch::Paused => {
                let source = source.expect("it has agreed");
                advance(&mut source.departure, SideState::Completed);
                source.is_settled = false;
                Fetch::LetGo
            }
            Fetch::LetGo => {
                advance(&mut self.arrival, SideState::Completed);
                self.executes = true;
                self.is_settled = false;
                Fetch::Arrived
            }
            Fetch::Idle | Fetch::Arrived => unreachable!("there is nothing to ask"),
        };
    }

    /// The guest shuts itself down.
    pub fn shut_down(&mut self) {
        if self.is_departing() {
            self.fail_departure();
        }
        self.begin_stop();
    }

    /// Its side of a migration fails, for a reason of its own or of the network between the sleds.
    pub fn fail_migration(&mut self) {
        if self.is_departing() {
            self.fail_departure();
        } else {
            self.end(VmmState::Failed);
        }
    }

    fn set_running(&mut self) -> Result<(), Refusal> {
        match self.state {
            VmmState::Starting => self.boots = true,
            VmmState::Running | VmmState::Rebooting | VmmState::Migrating => {}
            _ => return Err(Refusal::NotPossible),
        }
        Ok(())
    }

    fn set_stopped(&mut self) {
        let has_left = self.next() == Some(Next::Depart);
        match self.state {
            VmmState::Starting => self.end(VmmState::Destroyed),
            VmmState::Running | VmmState::Rebooting => self.begin_stop(),
            VmmState::Migrating if self.is_departing() => {
                self.fail_departure();
                self.begin_stop();
            }
            VmmState::Migrating if has_left => {}
            VmmState::Migrating if self.fetch == Fetch::Arrived => self.begin_stop(),
            VmmState::Migrating => self.end(VmmState::Destroyed),
            _ => {}
        }
    }

    fn set_rebooting(&mut self) -> Result<(), Refusal> {
        match self.state {
            VmmState::Starting | VmmState::Running => {
                self.executes = true;
                self.boots = false;
                self.become_state(VmmState::Rebooting);
                Ok(())
            }
            VmmState::Rebooting => Ok(()),
            _ => Err(Refusal::NotPossible),
        }
    }

    fn set_migration_target(&mut self, source: Option<VmmId>) -> Result<(), Refusal> {
        let is_pending = self.arrival.as_ref().is_some_and(|side| side.state == SideState::Pending);
        if self.is_arriving() && self.fetch != Fetch::Idle {
            return Ok(());
        }
        if !is_pending || self.state != VmmState::Migrating {
            return Err(Refusal::NotPossible);
        }
        self.source = source;
        self.fetch = Fetch::Contact;
        Ok(())
    }

    fn cancel_migration(&mut self) -> Result<(), Refusal> {
        if self.is_departing() {
            self.fail_departure();
            return Ok(());
        }
        if self.is_arriving() && self.fetch != Fetch::LetGo {
            self.end(VmmState::Failed);
            return Ok(());
        }
        let last = self.departure.as_ref().or(self.arrival.as_ref()).map(|side| side.state);
        if last == Some(SideState::Failed) { Ok(()) } else { Err(Refusal::NotPossible) }
    }
}

impl Sled {
    pub fn new() -> Self {
        Self { boot: 1, is_registered: true, guests: Vec::new(), tombstones: Vec::new() }
    }

    pub fn guest(&self, id: VmmId) -> Option<&Guest> {
        self.guests.iter().find(|guest| guest.id == id)
    }

    pub fn guest_mut(&mut self, id: VmmId) -> Option<&mut Guest> {
        self.guests.iter_mut().find(|guest| guest.id == id)
    }

    /// The host reboots: nothing is left of what it held or remembered.
    pub fn reboot(&mut self) {
        *self = Self { boot: self.boot + 1, is_registered: false, ..Self::new() };
    }

    /// Forgets a VMM that has ended, but for its having been here.
    pub fn forget(&mut self, id: VmmId) {
        self.guests.retain(|guest| guest.id != id);
        self.bury(id);
    }

    fn bury(&mut self, id: VmmId) {
        if !self.tombstones.contains(&id) {
            self.tombstones.push(id);
            self.tombstones.sort();
        }
    }

    /// Answers a request.
    pub fn handle(&mut self, request: &Request) -> EffectResult {
        let (id, holds_epoch) = (request.effect.vmm(), self.is_registered && self.boot == request.epoch);
        if !holds_epoch && !matches!(request.effect, Effect::Ask { .. }) {
            return EffectResult::Refused(Refusal::StaleEpoch);
        }
        match request.effect {
            Effect::Register { .. } => return self.register(id, request.migration),
            Effect::Unregister { .. } => return EffectResult::Done(self.unregister(id)),
            _ => {}
        }
        let Some(guest) = self.guest_mut(id) else {
            return EffectResult::Refused(Refusal::NoSuchVmm);
        };
        let done = match request.effect {
            Effect::Stop { op, .. } | Effect::Reboot { op, .. } if guest.ops.contains(&op) => Ok(()),
            Effect::SetRunning { .. } => guest.set_running(),
            Effect::Stop { op, .. } => {
                guest.set_stopped();
                guest.ops.push(op);
                Ok(())
            }
            Effect::Reboot { op, .. } => guest.set_rebooting().map(|()| guest.ops.push(op)),
            Effect::MigrationTarget { .. } => guest.set_migration_target(request.source),
            Effect::MigrationCancel { .. } => guest.cancel_migration(),
            Effect::Ask { .. } => Ok(()),
            Effect::Register { .. } | Effect::Unregister { .. } => unreachable!("answered above"),
        };
        let is_report_only =
            matches!(request.effect, Effect::SetRunning { .. } | Effect::MigrationTarget { .. });
        match done {
            Ok(()) => EffectResult::Done((!is_report_only).then(|| guest.picture())),
            Err(refusal) => EffectResult::Refused(refusal),
        }
    }

    fn register(&mut self, id: VmmId, migration: Option<MigrationId>) -> EffectResult {
        if self.tombstones.contains(&id) {
            return EffectResult::Refused(Refusal::Tombstoned);
        }
        if self.guest(id).is_none() {
            self.guests.push(Guest::new(id, migration));
            self.guests.sort_by_key(|guest| guest.id);
        }
        EffectResult::Done(self.guest(id).map(Guest::picture))
    }

    fn unregister(&mut self, id: VmmId) -> Option<VmmReport> {
        let last = self.guest_mut(id).map(|guest| {
            guest.end(VmmState::Failed);
            guest.picture()
        });
        self.forget(id);
        last
    }
}
