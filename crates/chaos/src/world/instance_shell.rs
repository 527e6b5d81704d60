//! The shell of one instance, as its actor has it: decide, append, wait until durable, evolve, send effects,
//! reply. One input at a time; the others wait.
//!
//! Invariants:
//! * state is the fold of what is durable; nothing is decided while an append is under way;
//! * nothing leaves before it is durable, the answer to a repeated request included;
//! * a grant is journaled or dropped before the next input is looked at.

use super::clients::Answer;
use super::effects::Outstanding;
use super::planted::{keep_what_is_undone, make_newer, pass_the_fence};
use super::{Happening, MILLI, World, names};
use crate::bug::Bug;
use crate::coverage::Sometimes;
use crate::faults::Window;
use eventlog::{AppendOutcome, Epoch, Position, Version};
use journal::{Actor, Context, Event, Recorded, StreamName};
use lifecycle::{
    Command, DeadlineKind, Decision, Effect, EventMeta, Input, Instance, InstanceEvent, InstanceId, Policy,
    Rejected, RequestId, SledId, Span, Step, Timestamp, VmmId,
};
use sled_protocol::{PropolisId, SledVmmState};
use std::collections::{BTreeMap, VecDeque};

/// Most inputs that wait at one instance; beyond it the door says to come back.
const QUEUE_MAX: usize = 256;

/// Wait before a deadline that could not be written is tried again.
const DEADLINE_RETRY_US: u64 = 200 * MILLI;

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
    pub(super) armed: BTreeMap<DeadlineKind, u64>,
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
        let mut grants = Grants::default();
        match self.decide(id, &waiting.what, &mut grants) {
            Err(rejected) => {
                self.drop_grants(grants);
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
            What::Request(nth, verb) => Input::Command(self.command(id, *nth, verb, grants)?),
        };
        let policy = Policy { start_deadline: Span::from_millis(self.scenario.start_deadline_ms) };
        let seen = input.clone();
        if self.scenario.bug == Some(Bug::AcceptStaleReport) {
            make_newer(&mut input, self.shell(id).state.as_ref());
        }
        let mut decision = lifecycle::decide(self.shell(id).state.as_ref(), &input, &policy)?;
        if let Decision::AskForRoom(size) = decision {
            let grant = self.grant_room(id, size, grants).map_err(Rejected::Short)?;
            input = Input::Command(Command::Start { grant: Some(grant) });
            decision = lifecycle::decide(self.shell(id).state.as_ref(), &input, &policy)?;
        }
        let Decision::Events(mut events) = decision else {
            unreachable!("a decision with a grant asks for none");
        };
        let state = self.control.as_ref().and_then(|control| control.instances[&id].state.as_ref());
        if self.checks.decided(self.now, state, &seen, &events) {
            self.coverage.note(Sometimes::StaleReportIgnored);
        }
        if self.scenario.bug == Some(Bug::LeakOnUndo) {
            keep_what_is_undone(&mut events);
        }
        if self.scenario.bug == Some(Bug::OpenFence) {
            pass_the_fence(&mut events);
        }
        Ok((input, events))
    }

    fn write(
        &mut self,
        id: InstanceId,
        input: Input,
        events: Vec<InstanceEvent>,
        request: Option<(RequestId, &'static str)>,
        from: From,
        grants: Grants,
    ) {
        let entity = names::entity(id);
        let names = event_names(&events);
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
                let meta = |(nth, time): (u64, &u64)| EventMeta {
                    version: version + 1 + nth,
                    position: first.get() + nth,
                    time: Timestamp::from_micros(*time),
                };
                let metas: Vec<EventMeta> = (0..).zip(&times).map(meta).collect();
                let at = first.get();
                let head = metas.last().map_or(0, |meta| meta.version);
                self.trace.line(
                    self.now,
                    "append",
                    &entity,
                    format_args!("v{head} p{at:04} {}", names.join(" ")),
                );
                self.note_events(id, &events);
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
        let names = event_names(&in_flight.events);
        if self.dies_at(&names, entity, Window::SyncedUnacknowledged) {
            return;
        }
        let before = self.shell(id).state.clone();
        for (event, meta) in in_flight.events.iter().zip(&in_flight.metas) {
            lifecycle::evolve(&mut self.shell(id).state, event, *meta);
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
        self.derive(id);
        if self.dies_at(&names, entity, Window::EffectSent) {
            return;
        }
        if !in_flight.is_answered {
            self.answer(in_flight.from, Some(first));
        }
        self.pump(id);
    }

    pub(super) fn answer(&mut self, from: From, position: Option<u64>) {
        match from {
            From::Client { request, other_body } => {
                self.answer_client(request, Answer::Accepted(position), other_body);
            }
            From::Report { sled, vmm, state } => self.answer_report(sled, vmm, *state, Ok(())),
            From::Nobody => {}
        }
    }

    /// The answer to a request that was carried out before: the same, or a refusal of another body.
    fn answer_repeated(&mut self, from: &From, position: u64, is_same: bool) {
        let From::Client { request, other_body } = *from else {
            unreachable!("only clients repeat requests");
        };
        let answer = if is_same {
            self.note(Sometimes::DuplicateAnswered);
            Answer::Accepted(Some(position))
        } else {
            self.note(Sometimes::OtherBodyRefused);
            Answer::Refused("the request id was used for something else".to_owned())
        };
        self.answer_client(request, answer, other_body);
    }

    fn answer_rejected(&mut self, from: From, rejected: &Rejected) {
        match from {
            From::Client { request, other_body } => {
                if matches!(rejected, Rejected::Short(_)) {
                    self.note(Sometimes::NoCapacity);
                }
                self.answer_client(request, Answer::Refused(rejected.to_string()), other_body);
            }
            From::Report { sled, vmm, state } => {
                let refused = if *rejected == Rejected::WrongSled {
                    sled_protocol::ControlPlaneError::Malformed(rejected.to_string())
                } else {
                    sled_protocol::ControlPlaneError::Unknown
                };
                self.answer_report(sled, vmm, *state, Err(refused));
            }
            From::Nobody => {}
        }
    }

    fn answer_unavailable(&mut self, from: From) {
        match from {
            From::Client { request, other_body } => {
                self.answer_client(request, Answer::Unavailable, other_body);
            }
            From::Report { sled, vmm, state } => {
                let busy = sled_protocol::ControlPlaneError::Unavailable("the log refuses".to_owned());
                self.answer_report(sled, vmm, *state, Err(busy));
            }
            From::Nobody => {}
        }
    }

    /// What nobody will ask again is derived again: deadlines from state, outcomes by sending once more.
    fn after_refusal(&mut self, id: InstanceId) {
        let kinds: Vec<DeadlineKind> = self.shell(id).armed.keys().copied().collect();
        for kind in kinds {
            let incarnation = self.incarnation;
            self.after(DEADLINE_RETRY_US, Happening::Deadline { incarnation, instance: id, kind });
        }
        let sleds: Vec<SledId> = self.control().sleds.keys().copied().collect();
        for sled in sleds {
            let (incarnation, sled) = (self.incarnation, names::sled_number(sled));
            self.after(DEADLINE_RETRY_US, Happening::Watch { incarnation, sled, is_periodic: false });
        }
    }

    fn note_events(&mut self, id: InstanceId, events: &[InstanceEvent]) {
        for event in events {
            let state = match event {
                InstanceEvent::SagaUnwound {
                    reason: lifecycle::instance::UnwindReason::StopRequested,
                    ..
                } => Some(Sometimes::StopUnwoundStart),
                InstanceEvent::SagaUnwound { step: Step::Fence, .. } => Some(Sometimes::UndoAtFence),
                InstanceEvent::SagaUnwound { step: Step::Register, .. } => Some(Sometimes::UndoAtRegister),
                InstanceEvent::StopWithdrawn { .. } => Some(Sometimes::StopWithdrawn),
                InstanceEvent::StartNotPlaced { .. } => Some(Sometimes::NoCapacity),
                InstanceEvent::Updated(update) if update.intent == lifecycle::Intent::GuestShutdown => {
                    Some(Sometimes::GuestEnded)
                }
                InstanceEvent::VmmGone { evidence, .. } => match evidence {
                    lifecycle::Evidence::SledRebooted => Some(Sometimes::GoneByReboot),
                    lifecycle::Evidence::AbsentFromInventory => Some(Sometimes::AbsentByInventory),
                    _ => None,
                },
                _ => None,
            };
            if let Some(state) = state {
                self.note(state);
            }
        }
        let begins = events.iter().any(|event| matches!(event, InstanceEvent::StartBegan { .. }));
        let advances = events.iter().any(|event| matches!(event, InstanceEvent::SagaAdvanced { .. }));
        if begins && !advances && self.shell(id).state.as_ref().is_some_and(|s| !s.vmms.is_empty()) {
            self.note(Sometimes::FenceWaited);
        }
    }
}

fn actor(from: &From) -> Actor {
    match from {
        From::Client { .. } => Actor::User("client".to_owned()),
        From::Report { sled, .. } => Actor::Sled(names::sled(*sled)),
        From::Nobody => Actor::Daemon,
    }
}

fn event_names(events: &[InstanceEvent]) -> Vec<&'static str> {
    events.iter().cloned().map(Event::from).map(|event| journal::event_name(&event)).collect()
}
