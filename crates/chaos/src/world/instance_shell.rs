//! The shell of one instance, as its actor has it: decide, append, wait until durable, evolve, send effects,
//! reply. One input at a time; the others wait.
//!
//! Invariants:
//! * state is the fold of what is durable; nothing is decided while an append is under way;
//! * nothing leaves before it is durable, the answer to a repeated request included;
//! * a grant is journaled or dropped before the next input is looked at.

use super::control_plane::metas_of;
use super::effects::{Armed, Outstanding};
use super::{World, names, planted};
use crate::bug::Bug;
use crate::coverage::Sometimes;
use crate::faults::Window;
use eventlog::{AppendOutcome, Epoch, Position, Version};
use journal::{Actor, Context, Event, Recorded, StreamName};
use lifecycle::input::{MigrateGrant, StartGrant};
use lifecycle::{
    Command, DeadlineKind, Decision, Effect, EventMeta, Input, Instance, InstanceEvent, InstanceId, Intent,
    Rejected, RequestId, RoomWanted, Step, Timestamp, VmmId,
};
use sled_protocol::{PropolisId, SledVmmState};
use std::collections::{BTreeMap, VecDeque};

/// Most inputs that wait at one instance; beyond it the door says to come back.
const QUEUE_MAX: usize = 256;

/// One instance in memory.
#[derive(Default)]
pub(crate) struct InstanceShell {
    pub(super) epoch: Epoch,
    pub(super) state: Option<Instance>,
    /// Requests that were carried out: by which append, and what they asked.
    requests: BTreeMap<RequestId, (u64, &'static str)>,
    pub(super) queue: VecDeque<Waiting>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) outstanding: BTreeMap<Effect, Outstanding>,
    pub(super) armed: BTreeMap<DeadlineKind, Armed>,
}

/// An input that waits, and who waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(super) what: What,
    pub(super) from: From,
}

/// What is to be decided.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A client's request: its number among the requests.
    Request(usize, &'static str),
    /// A deadline, by when it began to count: another that was armed in the meantime is not this one.
    Deadline(DeadlineKind, Timestamp),
    /// Anything else.
    Input(Input),
}

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub(crate) enum From {
    /// A client.
    Client { request: usize, other_body: bool },
    /// A sled, with the report that it made.
    Report { sled: u16, vmm: PropolisId, state: Box<SledVmmState> },
    /// Nobody.
    Nobody,
}

/// An append that is not known to be durable.
pub(crate) struct InFlight {
    pub(super) events: Vec<InstanceEvent>,
    pub(super) metas: Vec<EventMeta>,
    request: Option<(RequestId, &'static str)>,
    pub(super) from: From,
    /// Set once the answer has left, which only a planted bug does early.
    pub(super) is_answered: bool,
}

impl InFlight {
    pub(super) fn last(&self) -> Position {
        Position::new(self.metas.last().expect("an append has events").position)
    }
}

/// What the ledger granted for an input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grants {
    pub(super) instance: Option<InstanceId>,
    pub(super) vmm: Option<VmmId>,
}

impl InstanceShell {
    /// Remembers a request that a fact carried out.
    pub(super) fn remember_request(&mut self, recorded: &Recorded) {
        let Some(context) = &recorded.context else {
            return;
        };
        if let (Some(request), Some(Input::Command(command))) = (context.request, &context.input) {
            self.requests.insert(request, (recorded.meta.position, command_name(command)));
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }
}

const fn command_name(command: &Command) -> &'static str {
    match command {
        Command::Create { .. } => "create",
        Command::Start { .. } => "start",
        Command::Stop { .. } => "stop",
        Command::Reboot { .. } => "reboot",
        Command::Delete => "delete",
        Command::Migrate { .. } => "migrate",
        Command::CancelMigration => "cancel_migration",
        Command::CancelSaga { .. } => "cancel_saga",
        Command::PauseSaga { .. } => "pause_saga",
        Command::ResumeSaga { .. } => "resume_saga",
        Command::RetrySaga { .. } => "retry_saga",
        Command::ForceStop { .. } | Command::ForceStopOf { .. } => "force_stop",
        Command::Update { .. } => "update",
    }
}

impl World {
    /// Queues an input at its instance and lets it work. Answers false if the door is shut.
    pub(super) fn give(&mut self, id: InstanceId, waiting: Waiting) -> bool {
        let stream = StreamName::Instance(id);
        if !self.control().instances.contains_key(&id) {
            let epoch = self.claim(stream);
            self.control().instances.insert(id, InstanceShell { epoch, ..InstanceShell::default() });
        }
        let shell = self.shell(id);
        if shell.queue.len() >= QUEUE_MAX {
            return false;
        }
        shell.queue.push_back(waiting);
        self.pump(id);
        true
    }

    pub(super) fn shell(&mut self, id: InstanceId) -> &mut InstanceShell {
        self.control().instances.get_mut(&id).expect("an instance that works is in memory")
    }

    /// Takes inputs until one of them has to wait for the disk.
    pub(super) fn pump(&mut self, id: InstanceId) {
        while self.is_up() && self.shell(id).in_flight.is_none() {
            let Some(waiting) = self.shell(id).queue.pop_front() else {
                return;
            };
            self.take(id, waiting);
        }
    }

    fn take(&mut self, id: InstanceId, waiting: Waiting) {
        let mut request = None;
        if let What::Request(nth, verb) = waiting.what {
            let request_id = names::request(self.clients.request(nth).id);
            if let Some((position, carried_out)) = self.shell(id).requests.get(&request_id).copied() {
                self.answer_repeated(&waiting.from, position, carried_out == verb);
                return;
            }
            request = Some((request_id, verb));
        }
        if let What::Deadline(kind, start) = waiting.what
            && self.shell(id).armed.get(&kind).is_none_or(|armed| armed.start != start)
        {
            return;
        }
        let mut grants = Grants::default();
        match self.decide(id, &waiting.what, &mut grants) {
            Err(rejected) => {
                self.drop_grants(grants);
                self.leave_a_trace(id, &waiting.what, request);
                self.answer_rejected(waiting.from, &rejected);
            }
            Ok((_, events)) if events.is_empty() => {
                self.drop_grants(grants);
                self.answer(waiting.from, None);
            }
            Ok((input, events)) => self.write(id, input, events, request, waiting.from, grants),
        }
    }

    /// Decides, asking the ledger for what the decision needs.
    fn decide(
        &mut self,
        id: InstanceId,
        what: &What,
        grants: &mut Grants,
    ) -> Result<(Input, Vec<InstanceEvent>), Rejected> {
        let mut input = match what {
            What::Input(input) => input.clone(),
            What::Deadline(kind, _) => Input::Deadline(*kind),
            What::Request(nth, verb) => Input::Command(self.command(id, *nth, verb, grants)?),
        };
        let policy = self.scenario.policy();
        let seen = input.clone();
        if self.scenario.bug == Some(Bug::AcceptStaleReport) {
            planted::make_newer(&mut input, self.shell(id).state.as_ref());
        }
        let mut decision = lifecycle::decide(self.shell(id).state.as_ref(), &input, &policy)?;
        if let Decision::AskForRoom(wanted) = decision {
            input = self.with_grant(id, what, &input, &wanted, grants)?;
            decision = lifecycle::decide(self.shell(id).state.as_ref(), &input, &policy)?;
        }
        let Decision::Events(mut events) = decision else {
            unreachable!("a decision with a grant asks for none");
        };
        let state = self.control.as_ref().and_then(|control| control.instances[&id].state.as_ref());
        if self.checks.decided(self.now, state, &seen, &events) {
            self.coverage.note(Sometimes::StaleReportIgnored);
        }
        if let Input::Command(Command::ForceStopOf { .. }) = &input
            && !events.is_empty()
        {
            self.coverage.note(Sometimes::ForceStoppedOne);
        }
        if let Input::Command(command @ (Command::Start { .. } | Command::Stop { .. })) = &input {
            let intent = intent_after(state, &events);
            self.checks.intends(self.now, names::entity(id), command, intent);
        }
        if let Some(bug) = self.scenario.bug {
            planted::spoil_events(&mut events, state, &input, &policy, bug);
        }
        Ok((input, events))
    }

    /// The input again, with what the ledger granted for it. A restart is told what was short; anything else
    /// is refused for it.
    fn with_grant(
        &mut self,
        id: InstanceId,
        what: &What,
        input: &Input,
        wanted: &RoomWanted,
        grants: &mut Grants,
    ) -> Result<Input, Rejected> {
        let to = match what {
            What::Request(nth, "migrate") => self.destination(*nth),
            _ => None,
        };
        let granted = self.grant_room(id, wanted, to, grants);
        Ok(match input {
            Input::Deadline(DeadlineKind::Restart) => Input::Restart(granted.map(|(nth, sled)| StartGrant {
                saga: names::saga(names::instance_number(id), nth),
                vmm: names::vmm(names::instance_number(id), nth),
                sled,
            })),
            Input::Command(Command::Migrate { .. }) => {
                let (nth, sled) = granted.map_err(Rejected::Short)?;
                let instance = names::instance_number(id);
                let grant = Some(MigrateGrant {
                    saga: names::saga(instance, nth),
                    migration: names::migration(instance, nth),
                    vmm: names::vmm(instance, nth),
                    sled,
                });
                Input::Command(Command::Migrate { grant })
            }
            _ => {
                let (nth, sled) = granted.map_err(Rejected::Short)?;
                let instance = names::instance_number(id);
                let (saga, vmm) = (names::saga(instance, nth), names::vmm(instance, nth));
                Input::Command(Command::Start { grant: Some(StartGrant { saga, vmm, sled }) })
            }
        })
    }

    pub(super) fn write(
        &mut self,
        id: InstanceId,
        input: Input,
        events: Vec<InstanceEvent>,
        request: Option<(RequestId, &'static str)>,
        from: From,
        grants: Grants,
    ) {
        let entity = names::entity(id);
        let names = labels(&events);
        if self.dies_at(&names, entity, Window::BeforeAppend) {
            return;
        }
        let (version, last_time) = self
            .shell(id)
            .state
            .as_ref()
            .map_or((0, Timestamp::default()), |s| (s.head.version, s.head.time));
        let context =
            Context { request: request.map(|(id, _)| id), input: Some(input), ..Context::of(actor(&from)) };
        let encoded: Vec<Event> = events.iter().cloned().map(Event::from).collect();
        let (epoch, now) = (self.shell(id).epoch, self.wall());
        let stream = StreamName::Instance(id);
        let append = journal::append(
            stream,
            epoch,
            Version::new(version),
            &encoded,
            &context,
            now,
            last_time,
            super::control_plane::BUILD,
        )
        .expect("scenarios ask for nothing large");
        let times: Vec<u64> = append.events.iter().map(|event| event.time_us).collect();
        match self.append(append) {
            AppendOutcome::Appended { first, .. } => {
                let metas = metas_of(version, first, &times);
                let at = first.get();
                let head = metas.last().map_or(0, |meta| meta.version);
                self.trace.line(
                    self.now,
                    "append",
                    &entity,
                    format_args!("v{head} p{at:04} {}", names.join(" ")),
                );
                self.note_events(id, &events);
                if let Some((request, _)) = request {
                    self.checks.written_for(request, at);
                }
                self.shell(id).in_flight =
                    Some(InFlight { events, metas, request, from, is_answered: false });
                self.act_too_early(id);
                self.dies_at(&names, entity, Window::AppendedUnsynced);
            }
            AppendOutcome::Unavailable(_) => {
                if self.scenario.bug != Some(Bug::LeakGrant) {
                    self.drop_grants(grants);
                }
                self.trace.line(self.now, "refused", &entity, format_args!("{}", names.join(" ")));
                self.answer_unavailable(from);
                self.after_refusal(id);
            }
            outcome => {
                self.checks.broken(
                    "I13",
                    self.now,
                    format!("the owner of {stream} was refused: {outcome:?}"),
                );
            }
        }
    }

    /// An append is durable: it becomes fact, its effects leave, its caller has an answer.
    pub(super) fn commit_instance(&mut self, id: InstanceId) {
        let entity = names::entity(id);
        let in_flight = self.shell(id).in_flight.take().expect("it waited for this");
        let names = labels(&in_flight.events);
        if self.dies_at(&names, entity, Window::SyncedUnacknowledged) {
            return;
        }
        let before = self.shell(id).state.clone();
        for (event, meta) in in_flight.events.iter().zip(&in_flight.metas) {
            let bug = self.scenario.bug;
            planted::evolve(&mut self.shell(id).state, event, *meta, bug);
            let recorded = Recorded {
                stream: StreamName::Instance(id),
                meta: *meta,
                cause: 0,
                index: (0, 1),
                event: Event::from(event.clone()),
                context: None,
            };
            self.control().share(&recorded);
        }
        let first = in_flight.metas[0].position;
        if let Some((request, verb)) = in_flight.request {
            self.shell(id).requests.insert(request, (first, verb));
        }
        let after = self.control.as_ref().and_then(|control| control.instances[&id].state.as_ref());
        self.checks.stepped(self.now, before.as_ref(), after);
        if let Some(after) = after {
            let (state, version) = (after.run_state(), after.head.version);
            self.trace.line(self.now, "commit", &entity, format_args!("v{version} p{first:04} {state}"));
        }
        if self.dies_at(&names, entity, Window::EffectsUnsent) {
            return;
        }
        if in_flight.events.iter().any(|event| matches!(event, InstanceEvent::SagaRetried { .. })) {
            // What waits for its next attempt is sent at once, as if nothing had failed.
            self.shell(id).outstanding.clear();
        }
        self.derive(id);
        if self.dies_at(&names, entity, Window::EffectSent) {
            return;
        }
        if !in_flight.is_answered {
            self.answer(in_flight.from, Some(first));
        }
        self.pump(id);
    }
}

fn actor(from: &From) -> Actor {
    match from {
        From::Client { .. } => Actor::User("client".to_owned()),
        From::Report { sled, .. } => Actor::Sled(names::sled(*sled)),
        From::Nobody => Actor::Daemon,
    }
}

/// What shall be of the instance once these events are fact.
fn intent_after(state: Option<&Instance>, events: &[InstanceEvent]) -> Option<Intent> {
    let mut after = state.cloned();
    for event in events {
        planted::apply(&mut after, event);
    }
    after.map(|state| state.intent)
}

/// What crashes call the events of an append: their kinds, and the steps and parts that a kind has many of.
pub(super) fn labels(events: &[InstanceEvent]) -> Vec<&'static str> {
    events.iter().flat_map(|event| [Some(kind_name(event)), label(event)]).flatten().collect()
}

/// What any event is called: its kind, and what it does where one kind does much.
pub(crate) fn labels_of(event: &Event) -> Vec<&'static str> {
    match event {
        Event::Instance(event) => labels(std::slice::from_ref(event)),
        other => vec![journal::event_name(other)],
    }
}

fn kind_name(event: &InstanceEvent) -> &'static str {
    journal::event_name(&Event::from(event.clone()))
}

/// The more precise name of an event, if it has one.
pub(super) const fn label(event: &InstanceEvent) -> Option<&'static str> {
    match event {
        InstanceEvent::SagaAdvanced { step: Step::Register, .. } => Some("SagaAdvanced/Register"),
        InstanceEvent::SagaAdvanced { step: Step::SetRunning, .. } => Some("SagaAdvanced/SetRunning"),
        InstanceEvent::SagaAdvanced { step: Step::MigrationTarget, .. } => {
            Some("SagaAdvanced/MigrationTarget")
        }
        InstanceEvent::VmmReported { report, .. }
            if report.migration_in.is_some() || report.migration_out.is_some() =>
        {
            Some("VmmReported/side")
        }
        InstanceEvent::Updated(update) if update.migration.is_some() || update.closed.is_some() => {
            Some("Updated/migration")
        }
        _ => None,
    }
}
