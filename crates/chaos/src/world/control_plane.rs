//! The control plane: what it has in memory, how it gets it from the log, and how appends become facts.
//!
//! Invariants:
//! * everything here is gone after a crash; what comes back is the fold of the log and nothing else;
//! * facts are applied in log order, each stream's by its own shell, the ledger's by all.

use super::admin_shell::AdminShell;
use super::instance_shell::{InstanceShell, label};
use super::sled_shell::SledShell;
use super::{Happening, MILLI, World, names};
use crate::coverage::Sometimes;
use crate::faults::{Entity, Window};
use eventlog::{AppendOutcome, Epoch, Position, Version};
use journal::{Actor, Context, Event, Recorded, StreamName};
use lifecycle::network::NetworkBook;
use lifecycle::{EventMeta, InstanceEvent, InstanceId, LeaseEpoch, Ledger, ProjectEvent, SledId, Timestamp};
use std::collections::BTreeMap;

/// Build that appends name.
pub(crate) const BUILD: &str = "chaos";

/// Wait between a crash and the restart.
const DOWN_US: (u64, u64) = (20 * MILLI, 500 * MILLI);

/// One life of the control plane.
#[derive(Default)]
pub(crate) struct ControlPlane {
    pub(super) ledger: Ledger,
    pub(super) instances: BTreeMap<InstanceId, InstanceShell>,
    pub(super) sleds: BTreeMap<SledId, SledShell>,
    /// The project's shell and the system's.
    pub(super) admins: BTreeMap<StreamName, AdminShell>,
    /// Where every address shall lead.
    pub(super) book: NetworkBook,
}

/// Places and times of the events of an append that begins at `first`, on top of `version`.
pub(super) fn metas_of(version: u64, first: Position, times: &[u64]) -> Vec<EventMeta> {
    let meta = |(nth, time): (u64, &u64)| EventMeta {
        version: version + 1 + nth,
        position: first.get() + nth,
        time: Timestamp::from_micros(*time),
    };
    (0..).zip(times).map(meta).collect()
}

impl ControlPlane {
    /// Applies a fact to what all instances share.
    pub(super) fn share(&mut self, recorded: &Recorded) {
        match (recorded.stream, &recorded.event) {
            (StreamName::Instance(id), Event::Instance(event)) => {
                self.ledger.apply_instance(id, event);
                self.book.apply(id, event, recorded.meta);
            }
            (StreamName::Project(id), Event::Project(event)) => self.ledger.apply_project(id, event),
            (StreamName::Sled(id), Event::Sled(event)) => self.ledger.apply_sled(id, event),
            (StreamName::System, Event::System(event)) => self.ledger.apply_system(event),
            _ => {}
        }
    }

    /// The epoch of a sled's current boot.
    pub(super) fn epoch_of(&self, sled: SledId) -> Option<LeaseEpoch> {
        self.sleds
            .get(&sled)
            .and_then(|shell| shell.state.as_ref())
            .and_then(|s| s.boot)
            .map(|(_, epoch)| epoch)
    }
}

impl World {
    /// The control plane that is up. Callers have seen that there is one.
    pub(super) fn control(&mut self) -> &mut ControlPlane {
        self.control.as_mut().expect("only what is up is asked")
    }

    pub(super) const fn is_up(&self) -> bool {
        self.control.is_some()
    }

    /// The log begins with a project that owns every instance.
    pub(super) fn found_project(&mut self) {
        let stream = StreamName::Project(names::project());
        let claim = self.store.claim(stream.id()).expect("an empty log can be claimed");
        let created = ProjectEvent::Created {
            id: names::project(),
            name: "chaos".to_owned(),
            description: String::new(),
            vni: 1024,
        };
        let (now, last) = (self.wall(), Timestamp::default());
        let context = Context::of(Actor::Daemon);
        let events = [Event::from(created)];
        let append = journal::append(stream, claim.epoch, Version::ZERO, &events, &context, now, last, BUILD)
            .expect("a project is small");
        self.append(append);
        self.store.sync().expect("an empty log can be synced");
        self.became_durable(Position::ZERO);
        self.disk.forget();
    }

    /// The control plane starts: it folds the log, takes ownership of every stream, and derives what should
    /// be true outside.
    pub(super) fn recover(&mut self) {
        if self.is_up() {
            return;
        }
        self.incarnation += 1;
        let mut control = ControlPlane::default();
        let records = self.store.records().to_vec();
        for record in &records {
            let recorded = match journal::read(record) {
                Ok(recorded) => recorded,
                Err(error) => {
                    self.checks.broken("I9", self.now, format!("a record cannot be read: {error}"));
                    return;
                }
            };
            if self.dies_during_replay(&recorded) {
                return;
            }
            fold(&mut control, &recorded, self.scenario.bug);
        }
        let durable = self.store.durable();
        self.trace.line(
            self.now,
            "recover",
            &"",
            format_args!("p{:04} life {}", durable.get(), self.incarnation),
        );
        self.claim_all(&mut control);
        self.probe_fences(&control);
        self.control = Some(control);
        self.compare_fold("after recovery");
        self.checks.log_after_crash(self.now, &self.store);
        self.check_shelf();
        self.derive_everything();
        if self.is_up() {
            self.retention_begins();
            self.rewrite_at_start();
        }
    }

    /// Ownership of every stream: what an earlier life still had under way is fenced from here on.
    fn claim_all(&mut self, control: &mut ControlPlane) {
        for (id, shell) in &mut control.instances {
            shell.epoch = self.claim(StreamName::Instance(*id));
        }
        for (id, shell) in &mut control.sleds {
            shell.epoch = self.claim(StreamName::Sled(*id));
        }
        for stream in [StreamName::Project(names::project()), StreamName::System] {
            control.admins.entry(stream).or_default().epoch = self.claim(stream);
        }
    }

    /// I13: neither an earlier owner nor a stale version gets an append in. Both are refused without a trace.
    fn probe_fences(&mut self, control: &ControlPlane) {
        let Some((id, shell)) = control.instances.iter().next() else {
            return;
        };
        let Some(head) = shell.state.as_ref().map(|state| state.head) else {
            return;
        };
        let earlier = Epoch::new(shell.epoch.get() - 1);
        let (stream, now) = (StreamName::Instance(*id), self.wall());
        let events = [Event::from(InstanceEvent::Deleted)];
        let context = Context::of(Actor::Other(b"fence probe".to_vec()));
        for (epoch, expected) in [(earlier, head.version), (shell.epoch, head.version - 1)] {
            let expected = Version::new(expected);
            let append = journal::append(stream, epoch, expected, &events, &context, now, head.time, BUILD)
                .expect("a probe is small");
            let outcome = self.store.append(append);
            if !matches!(outcome, AppendOutcome::Fenced { .. } | AppendOutcome::Conflict { .. }) {
                let detail =
                    format!("{stream} took an append under {epoch} that expected v{expected}: {outcome:?}");
                self.checks.broken("I13", self.now, detail);
            }
        }
    }

    pub(super) fn claim(&mut self, stream: StreamName) -> Epoch {
        self.store.claim(stream.id()).expect("an open log can be claimed").epoch
    }

    fn derive_everything(&mut self) {
        let instances: Vec<InstanceId> = self.control().instances.keys().copied().collect();
        if self.scenario.bug != Some(crate::bug::Bug::ForgetEffects) {
            for id in instances {
                self.derive(id);
            }
        }
        let sleds: Vec<SledId> = self.control().sleds.keys().copied().collect();
        for id in sleds {
            self.tell_of_boot(id);
            if self.is_up() {
                self.tell_of_expunge(id);
            }
            if !self.is_up() {
                return;
            }
            let sled = names::sled_number(id);
            self.after(0, Happening::Watch { incarnation: self.incarnation, sled, is_periodic: true });
        }
    }

    /// Everything that waited for positions up to `durable` becomes fact, in log order.
    pub(super) fn commit_up_to(&mut self, durable: Position) {
        while let Some((_, stream)) = self.next_to_commit(durable) {
            match stream {
                StreamName::Instance(id) => self.commit_instance(id),
                StreamName::Sled(id) => self.commit_sled(id),
                StreamName::Project(_) | StreamName::System => self.commit_admin(stream),
            }
            if !self.is_up() {
                return;
            }
        }
    }

    fn next_to_commit(&self, durable: Position) -> Option<(Position, StreamName)> {
        let control = self.control.as_ref()?;
        let instances = control.instances.iter().filter_map(|(id, shell)| {
            shell.in_flight.as_ref().map(|in_flight| (in_flight.last(), StreamName::Instance(*id)))
        });
        let sleds = control.sleds.iter().filter_map(|(id, shell)| {
            shell.in_flight.as_ref().map(|in_flight| (in_flight.last, StreamName::Sled(*id)))
        });
        let admins = control.admins.iter().filter_map(|(stream, shell)| {
            shell.in_flight.as_ref().map(|in_flight| (in_flight.last, *stream))
        });
        instances
            .chain(sleds)
            .chain(admins)
            .filter(|(last, _)| *last <= durable)
            .min_by_key(|(last, _)| *last)
    }

    fn dies_during_replay(&mut self, recorded: &Recorded) -> bool {
        let entity = entity_of(recorded.stream);
        let kind = journal::event_name(&recorded.event);
        let precise = match &recorded.event {
            Event::Instance(event) => label(event),
            _ => None,
        };
        let fires = |world: &mut Self, name| world.fires(name, entity, Window::DuringReplay);
        let name = precise.unwrap_or(kind);
        if self.incarnation < 2 || !(fires(self, kind) || fires(self, name)) {
            return false;
        }
        self.note(Sometimes::CrashDuringReplay);
        let position = recorded.meta.position;
        self.trace.line(self.now, "CRASH", &entity, format_args!("{name} during_replay p{position:04}"));
        self.schedule_restart();
        true
    }

    pub(super) fn schedule_restart(&mut self) {
        let delay = self.draws.next_within("down", 0, DOWN_US.0, DOWN_US.1);
        self.after(delay, Happening::Restart);
    }
}

/// Whose stream, as crashes name it.
pub(super) fn entity_of(stream: StreamName) -> Entity {
    match stream {
        StreamName::Instance(id) => names::entity(id),
        StreamName::Sled(id) => Entity::Sled(names::sled_number(id)),
        StreamName::Project(_) => Entity::Project,
        StreamName::System => Entity::System,
    }
}

fn fold(control: &mut ControlPlane, recorded: &Recorded, bug: Option<crate::bug::Bug>) {
    match (recorded.stream, &recorded.event) {
        (StreamName::Instance(id), Event::Instance(event)) => {
            let shell = control.instances.entry(id).or_default();
            super::planted::evolve(&mut shell.state, event, recorded.meta, bug);
            if bug != Some(crate::bug::Bug::ForgetRequests) {
                shell.remember_request(recorded);
            }
        }
        (StreamName::Sled(id), Event::Sled(event)) => {
            let shell = control.sleds.entry(id).or_default();
            lifecycle::sled::evolve(&mut shell.state, event, recorded.meta);
            shell.last_time = recorded.meta.time;
            shell.note_boot(event, recorded.meta.position);
            shell.remember(recorded);
        }
        (stream @ (StreamName::Project(_) | StreamName::System), event) => {
            let shell = control.admins.entry(stream).or_default();
            shell.fold(event, recorded.meta);
            shell.remember(recorded);
        }
        _ => {}
    }
    control.share(recorded);
}
