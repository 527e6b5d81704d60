//! The shells of the project and of the system: quotas and groups. One input at a time, as for instances.
//!
//! Invariants: as for instances; what a stream's events mean for others is folded by the ledger.

use super::clients::Answer;
use super::control_plane::metas_of;
use super::{World, names};
use crate::coverage::Sometimes;
use crate::faults::{Entity, Window};
use crate::verb::Verb;
use eventlog::{AppendOutcome, Epoch, Position, Version};
use journal::{Actor, Context, Event, Recorded, StreamName};
use lifecycle::project::{GroupCommand, Project, decide_group};
use lifecycle::{
    EventMeta, GroupPolicy, ProjectEvent, Quota, QuotaScope, Rejected, RequestId, SystemEvent, Timestamp,
};
use std::collections::{BTreeMap, VecDeque};

/// Most requests that wait; beyond it the door says to come back.
const QUEUE_MAX: usize = 256;

/// The writer of `project/<id>` or of `system`.
#[derive(Default)]
pub(crate) struct AdminShell {
    pub(super) epoch: Epoch,
    /// The project's fold; none for the system.
    pub(super) project: Option<Project>,
    pub(super) version: u64,
    last_time: Timestamp,
    /// Requests that were carried out, and by which append.
    requests: BTreeMap<RequestId, u64>,
    queue: VecDeque<usize>,
    pub(super) in_flight: Option<AdminInFlight>,
}

/// An append that is not known to be durable.
pub(crate) struct AdminInFlight {
    pub(super) last: Position,
    events: Vec<Event>,
    metas: Vec<EventMeta>,
    request: usize,
}

impl AdminShell {
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }

    /// Folds a fact.
    pub(super) fn fold(&mut self, event: &Event, meta: EventMeta) {
        if let Event::Project(event) = event {
            lifecycle::project::evolve(&mut self.project, event, meta);
        }
        self.version = meta.version;
        self.last_time = meta.time;
    }

    /// Remembers a request that a fact carried out.
    pub(super) fn remember(&mut self, recorded: &Recorded) {
        let request = recorded.context.as_ref().and_then(|context| context.request);
        self.requests.extend(request.map(|request| (request, recorded.meta.position)));
    }
}

impl World {
    fn admin(&mut self, stream: StreamName) -> &mut AdminShell {
        self.control().admins.entry(stream).or_default()
    }

    /// An operator's request. Answers false if the door is shut.
    pub(super) fn admin_asked(&mut self, stream: StreamName, request: usize) -> bool {
        let shell = self.admin(stream);
        if shell.queue.len() >= QUEUE_MAX {
            return false;
        }
        shell.queue.push_back(request);
        self.pump_admin(stream);
        true
    }

    fn pump_admin(&mut self, stream: StreamName) {
        while self.is_up() && self.admin(stream).in_flight.is_none() {
            let Some(request) = self.admin(stream).queue.pop_front() else {
                return;
            };
            self.take_admin(stream, request);
        }
    }

    fn take_admin(&mut self, stream: StreamName, request: usize) {
        let asked = self.clients.request(request).clone();
        let request_id = names::request(asked.id);
        if let Some(position) = self.admin(stream).requests.get(&request_id).copied() {
            self.note(Sometimes::DuplicateAnswered);
            self.answer_client(request, Answer::Accepted(Some(position)), false);
            return;
        }
        match self.decide_admin(stream, asked.instance, asked.verb) {
            Err(rejected) => {
                self.answer_client(request, Answer::Refused(rejected.to_string()), false);
            }
            Ok(events) if events.is_empty() => self.answer_client(request, Answer::Accepted(None), false),
            Ok(events) => self.write_admin(stream, request, events),
        }
    }

    fn decide_admin(
        &mut self,
        stream: StreamName,
        instance: u16,
        verb: Verb,
    ) -> Result<Vec<Event>, Rejected> {
        let instance = names::instance(instance);
        let command = match verb {
            Verb::SetQuota { of_silo: true, cpus } => {
                let quota = Quota { cpus, memory: None };
                return Ok(vec![SystemEvent::QuotaSet { scope: QuotaScope::Silo, quota }.into()]);
            }
            Verb::SetQuota { of_silo: false, cpus } => {
                return Ok(vec![ProjectEvent::QuotaSet { quota: Quota { cpus, memory: None } }.into()]);
            }
            Verb::CreateGroup { group, is_hard } => GroupCommand::Create {
                group: names::group(group),
                name: format!("group-{group}"),
                description: String::new(),
                policy: if is_hard { GroupPolicy::Fail } else { GroupPolicy::Allow },
            },
            Verb::JoinGroup { group } => {
                if self.control().ledger.project_of(instance) != Some(names::project()) {
                    return Err(Rejected::NoSuchInstance(instance));
                }
                GroupCommand::Join { group: names::group(group), instance }
            }
            Verb::LeaveGroup { group } => GroupCommand::Leave { group: names::group(group), instance },
            Verb::DeleteGroup { group } => GroupCommand::Delete { group: names::group(group) },
            _ => unreachable!("only what is about the project or the system comes here"),
        };
        let control = self.control.as_ref().expect("only what is up is asked");
        let project = control.admins.get(&stream).and_then(|shell| shell.project.as_ref());
        let project = project.ok_or(Rejected::NoSuchProject(names::project()))?;
        let exists = |id| control.ledger.project_of(id).is_some();
        let events = decide_group(project, &command, exists)?;
        Ok(events.into_iter().map(Event::from).collect())
    }

    fn write_admin(&mut self, stream: StreamName, request: usize, events: Vec<Event>) {
        let entity = entity_of_admin(stream);
        let names: Vec<&'static str> = events.iter().map(journal::event_name).collect();
        if self.dies_at(&names, entity, Window::BeforeAppend) {
            return;
        }
        let request_id = names::request(self.clients.request(request).id);
        let context =
            Context { request: Some(request_id), ..Context::of(Actor::User("operator".to_owned())) };
        let now = self.wall();
        let shell = self.admin(stream);
        let (epoch, version, last) = (shell.epoch, shell.version, shell.last_time);
        let build = super::control_plane::BUILD;
        let append =
            journal::append(stream, epoch, Version::new(version), &events, &context, now, last, build)
                .expect("what operators ask is bounded");
        let times: Vec<u64> = append.events.iter().map(|event| event.time_us).collect();
        match self.append(append) {
            AppendOutcome::Appended { first, last, .. } => {
                let metas = metas_of(version, first, &times);
                let at = first.get();
                self.trace.line(self.now, "append", &entity, format_args!("p{at:04} {}", names.join(" ")));
                self.checks.written_for(request_id, at);
                self.admin(stream).in_flight = Some(AdminInFlight { last, events, metas, request });
                self.dies_at(&names, entity, Window::AppendedUnsynced);
            }
            AppendOutcome::Unavailable(_) => self.answer_client(request, Answer::Unavailable, false),
            outcome => {
                let detail = format!("the owner of {stream} was refused: {outcome:?}");
                self.checks.broken("I13", self.now, detail);
            }
        }
    }

    /// An append is durable: it becomes fact, and its caller has an answer.
    pub(super) fn commit_admin(&mut self, stream: StreamName) {
        let entity = entity_of_admin(stream);
        let in_flight = self.admin(stream).in_flight.take().expect("it waited for this");
        let names: Vec<&'static str> = in_flight.events.iter().map(journal::event_name).collect();
        if self.dies_at(&names, entity, Window::SyncedUnacknowledged) {
            return;
        }
        for (event, meta) in in_flight.events.iter().zip(&in_flight.metas) {
            self.admin(stream).fold(event, *meta);
            let recorded = Recorded {
                stream,
                meta: *meta,
                cause: 0,
                index: (0, 1),
                event: event.clone(),
                context: None,
            };
            self.control().share(&recorded);
        }
        let first = in_flight.metas[0].position;
        let request_id = names::request(self.clients.request(in_flight.request).id);
        self.admin(stream).requests.insert(request_id, first);
        // Nothing leaves but the answer.
        for window in [Window::EffectsUnsent, Window::EffectSent] {
            if self.dies_at(&names, entity, window) {
                return;
            }
        }
        self.answer_client(in_flight.request, Answer::Accepted(Some(first)), false);
        self.pump_admin(stream);
    }
}

fn entity_of_admin(stream: StreamName) -> Entity {
    super::control_plane::entity_of(stream)
}
