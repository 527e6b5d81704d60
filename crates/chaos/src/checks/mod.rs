//! Checkers: separate from the world, fed with what is observed, each remembering only what it needs.
//!
//! * [`log`] folds what is durable a second time, on its own, and compares;
//! * [`guests`] listens to the sleds' own truth;
//! * [`history`] remembers what clients were told;
//! * [`archive`] compares what was archived with the log;
//! * [`migrations`], [`restarts`], [`sagas`] and [`losses`] follow the log for what each of them is about;
//! * what must hold at rest is asked in `world/observe.rs`, where everything can be seen at once.
//!
//! Invariants are named as `docs/testing.md` numbers them (`I6`); those that the rules check themselves carry
//! the number of their sentence in `docs/lifecycle.md` (`C4`). The first one broken ends the run.

pub(crate) mod archive;
pub(crate) mod guests;
pub(crate) mod history;
pub(crate) mod log;
mod losses;
mod migrations;
mod restarts;
mod sagas;

use crate::bug::Bug;
use crate::faults::Entity;
use crate::scenario::Scenario;
use crate::world::names;
use eventlog::{Position, Record, SimStore, StreamId, Version};
use lifecycle::{Command, Input, Instance, InstanceEvent, Intent, RequestId, invariant};
use serde::Serialize;
use sim_sled::machine::Request;
use sled_protocol::{PropolisId, SledError, SledVmmState};

/// What sort of failure: each has its own exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Something happened that must not.
    Invariant,
    /// Something did not happen in time after the faults had ended.
    Liveness,
    /// The rules or the harness panicked.
    Panic,
}

/// What was broken first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What sort.
    pub kind: FailureKind,
    /// Which invariant.
    pub invariant: String,
    /// When, microseconds of the run.
    pub at_us: u64,
    /// What was found.
    pub detail: String,
}

impl Failure {
    /// Whether another run failed in the same way, so that it stands for this one.
    pub fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind && self.invariant == other.invariant
    }
}

/// All checkers, and what they found.
pub(crate) struct Checks {
    scenario: Scenario,
    failure: Option<Failure>,
    pub(crate) log: log::LogChecks,
    guests: guests::GuestChecks,
    history: history::History,
}

impl Checks {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let mut checks = Self {
            scenario: scenario.clone(),
            failure: None,
            log: log::LogChecks::default(),
            guests: guests::GuestChecks::default(),
            history: history::History::default(),
        };
        if scenario.bug == Some(Bug::Canary) {
            checks.broken("canary", 0, "the canary fails always".to_owned());
        }
        checks
    }

    /// Notes a failure; the first one counts.
    pub(crate) fn fail(&mut self, kind: FailureKind, invariant: &str, at_us: u64, detail: String) {
        if self.failure.is_none() {
            self.failure = Some(Failure { kind, invariant: invariant.to_owned(), at_us, detail });
        }
    }

    /// Notes a broken invariant.
    pub(crate) fn broken(&mut self, invariant: &str, at_us: u64, detail: String) {
        self.fail(FailureKind::Invariant, invariant, at_us, detail);
    }

    pub(crate) fn note(&mut self, at_us: u64, found: Result<(), Broken>) {
        if let Err(broken) = found {
            self.broken(&broken.invariant, at_us, broken.detail);
        }
    }

    pub(crate) const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    pub(crate) fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// An append succeeded.
    pub(crate) fn appended(
        &mut self,
        at_us: u64,
        stream: StreamId,
        expected: Version,
        head: Version,
        place: (Position, Position),
    ) {
        // I13: no append succeeds with a stale expected version.
        if expected != head {
            self.broken(
                "I13",
                at_us,
                format!("{stream} at v{head} took an append that expected v{expected}"),
            );
        }
        self.log.written(place.1);
        self.log.appended(place.0, at_us);
    }

    /// Records became durable.
    pub(crate) fn durable(&mut self, at_us: u64, records: &[Record]) {
        let found = self.log.durable(records, &self.scenario);
        self.note(at_us, found);
        for (vmm, report) in std::mem::take(&mut self.log.reports) {
            let found = self.guests.was_said(vmm, report.generation, report.state);
            self.note(at_us, found);
        }
        for (instance, vmms) in std::mem::take(&mut self.log.shutdowns) {
            // I33: a guest that is said to have shut itself down did, or was told to.
            if !self.guests.has_shut_down_in(&vmms) {
                let entity = names::entity(instance);
                self.broken("I33", at_us, format!("{entity} did not shut itself down, and reads so"));
            }
        }
        for migration in std::mem::take(&mut self.log.migrations.succeeded) {
            // I21: what is said to have moved has moved.
            if !self.guests.has_arrived(migration) {
                let detail = format!("migration {migration} succeeded and its guest has not arrived");
                self.broken("I21", at_us, detail);
            }
        }
    }

    /// The control plane died; the log ends at `durable`.
    pub(crate) fn crashed(&mut self, durable: Position) {
        self.log.written(durable);
        self.history.crashed(durable);
    }

    /// An append that carries a request out was written.
    pub(crate) fn written_for(&mut self, request: RequestId, position: u64) {
        self.history.written_for(request, position);
    }

    /// A client is told that its request is refused. C7: nothing was written for it.
    pub(crate) fn refused(&mut self, at_us: u64, request: RequestId, other_body: bool) {
        if !other_body {
            let found = self.history.refused(request);
            self.note(at_us, found);
        }
    }

    /// An input was decided on. Answers whether it was a report that is no news.
    pub(crate) fn decided(
        &mut self,
        at_us: u64,
        state: Option<&Instance>,
        input: &Input,
        events: &[InstanceEvent],
    ) -> bool {
        let (Some(state), Input::Report { vmm, report, .. }) = (state, input) else {
            return false;
        };
        let is_vmm_news = state.vmms.get(vmm).is_some_and(|known| report.generation > known.generation);
        let is_side_news = |part: lifecycle::input::SideReport| {
            state.migrations.get(&part.migration).is_some_and(|migration| {
                let side = if migration.source.vmm == *vmm { migration.source } else { migration.target };
                part.generation > side.generation
            })
        };
        let mut parts = [report.migration_in, report.migration_out].into_iter().flatten();
        if is_vmm_news || parts.any(is_side_news) {
            return false;
        }
        // I15: a report of an older generation changes nothing.
        if !events.is_empty() {
            let detail = format!("a stale report of {} led to {events:?}", names::vmm_text(*vmm));
            self.broken("I15", at_us, detail);
        }
        true
    }

    /// A start or a stop was accepted. I34: it is what shall be from then on.
    pub(crate) fn intends(&mut self, at_us: u64, entity: Entity, command: &Command, intent: Option<Intent>) {
        let is_meant = match command {
            Command::Start { .. } => intent == Some(Intent::Running),
            _ => intent.is_some_and(|intent| intent != Intent::Running),
        };
        if !is_meant {
            let detail = format!("{entity} shall be {intent:?} although {command:?} was accepted");
            self.broken("I34", at_us, detail);
        }
    }

    /// An instance's events became fact.
    pub(crate) fn stepped(&mut self, at_us: u64, before: Option<&Instance>, after: Option<&Instance>) {
        let Some(after) = after else {
            self.broken("I9", at_us, "an append left nothing behind".to_owned());
            return;
        };
        let found =
            checked(invariant::check(after)).and_then(|()| checked(invariant::check_step(before, after)));
        self.note(at_us, found);
    }

    /// A sled received a request.
    pub(crate) fn received(&mut self, at_us: u64, sled: u16, request: &Request) {
        let found = self.log.may_receive(sled, request);
        self.note(at_us, found);
        let found = self.guests.may_end(request, &self.log);
        self.note(at_us, found);
        self.guests.told(request, &self.log);
    }

    /// A sled is made to refuse a request although nothing is wrong.
    pub(crate) fn lied(&mut self, request: &Request, refusal: &SledError) {
        if *refusal == SledError::NoSuchInstance {
            self.guests.denied(request);
        }
    }

    /// A guest shuts itself down.
    pub(crate) fn shuts_down(&mut self, vmm: PropolisId) {
        self.guests.shuts_down(vmm);
    }

    /// Everything is at rest.
    pub(crate) fn at_rest(&mut self, at_us: u64) {
        let found = self.log.migrations.at_rest(&self.log.ledger).and_then(|()| self.log.book_is_whole());
        self.note(at_us, found);
    }

    /// A sled reported a VMM.
    pub(crate) fn reported(&mut self, at_us: u64, sled: u16, vmm: PropolisId, state: &SledVmmState) {
        let found = self.guests.reported(sled, vmm, state);
        self.note(at_us, found);
    }

    /// What runs on the sleds at this moment.
    pub(crate) fn guests(&mut self, at_us: u64, seen: &[guests::Seen]) {
        let found = self.guests.seen(seen, &self.log);
        self.note(at_us, found);
    }

    /// A client was told that its request is carried out by the append at `position`.
    pub(crate) fn acknowledged(&mut self, at_us: u64, request: RequestId, position: u64) {
        let found = self.history.acknowledged(request, position);
        self.note(at_us, found);
    }

    /// A client that used a request id for something else has its answer.
    pub(crate) fn answered_other_body(
        &mut self,
        at_us: u64,
        request: RequestId,
        answer: &crate::world::ClientAnswer,
    ) {
        let found = self.history.answered_other_body(request, answer);
        self.note(at_us, found);
    }

    /// The log as it is after a crash, or at the end: everything acknowledged must be in it.
    pub(crate) fn log_after_crash(&mut self, at_us: u64, store: &SimStore) {
        let found = self.history.is_in(store);
        self.note(at_us, found);
    }
}

/// A broken invariant, before it has a time.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: String,
    pub(crate) detail: String,
}

impl Broken {
    pub(crate) fn new(invariant: &str, detail: String) -> Self {
        Self { invariant: invariant.to_owned(), detail }
    }
}

/// A violation that the rules found themselves.
pub(crate) fn checked(found: Result<(), invariant::Violation>) -> Result<(), Broken> {
    found.map_err(|violation| Broken::new(&format!("C{}", violation.number), violation.detail))
}

/// The durable log for people, one line per event.
pub(crate) fn log_lines(store: &SimStore) -> Vec<String> {
    let line = |record: &Record| match journal::read(record) {
        Ok(recorded) => format!(
            "p{:04} v{:<3} {:<10} {:?}",
            recorded.meta.position,
            recorded.meta.version,
            stream_text(recorded.stream),
            recorded.event
        ),
        Err(error) => format!("p{:04} unreadable: {error}", record.position.get()),
    };
    store.records().iter().map(line).collect()
}

fn stream_text(stream: journal::StreamName) -> String {
    match stream {
        journal::StreamName::Instance(id) => names::entity(id).to_string(),
        journal::StreamName::Sled(id) => format!("s{}", names::sled_number(id)),
        journal::StreamName::Project(_) => "project".to_owned(),
        journal::StreamName::System => "system".to_owned(),
    }
}
