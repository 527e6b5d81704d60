//! The control plane's side of a sled: its registrations become events, its inventory is reconciled with the
//! log, and what ran under an older boot is known to be gone.

use super::clients::Answer as ClientAnswer;
use super::control_plane::metas_of;
use super::instance_shell::{From, Waiting, What};
use super::network::{ReplyTo, ToSled};
use super::{Happening, SECOND, World, names};
use crate::coverage::Sometimes;
use crate::faults::{Entity, Window};
use eventlog::{AppendOutcome, Epoch, Position, Version};
use journal::{Actor, Context, Event, Recorded, StreamName};
use lifecycle::sled::{Registration, RegistrationRefused, Sled, SledProperties};
use lifecycle::{
    BootId, EventMeta, Evidence, Input, InstanceId, LeaseEpoch, Rejected, RequestId, SledEvent, SledId,
    Timestamp, VmmId,
};
use sim_sled::machine::{Answer, Request, Response};
use sled_protocol::{ControlPlaneError, Inventory, PropolisId, RegisterSled, SledLease};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Period of the watch.
const WATCH_US: u64 = 30 * SECOND;

/// Most registrations that wait at one sled; the sled sends another.
const QUEUE_MAX: usize = 16;

/// One sled in memory.
#[derive(Default)]
pub(crate) struct SledShell {
    pub(super) epoch: Epoch,
    pub(super) state: Option<Sled>,
    pub(super) last_time: Timestamp,
    /// Position of the last boot.
    pub(super) booted_at: u64,
    pub(super) in_flight: Option<SledInFlight>,
    queue: VecDeque<SledInput>,
    /// Requests that were carried out, and by which append.
    requests: BTreeMap<RequestId, u64>,
}

/// What waits at a sled.
enum SledInput {
    Registration(Registering),
    /// A client's request, by its number.
    Request(usize),
}

/// Who waits for an append.
enum SledAsker {
    /// The sled itself.
    Boot { boot: sled_protocol::BootId, sent_at: u64 },
    /// A client, by the number of its request.
    Client(usize),
}

/// A registration as it came, with the durable position at which the sled was asked about it, once it was.
#[derive(Clone, Debug)]
pub(crate) struct Registering {
    pub(super) request: RegisterSled,
    pub(super) sent_at: u64,
    pub(super) confirmed_at: Option<u64>,
}

impl SledShell {
    /// Folds what a boot means here.
    pub(super) fn note_boot(&mut self, event: &SledEvent, position: u64) {
        if let SledEvent::Booted { .. } = event {
            self.booted_at = position;
        }
    }

    /// Whether a registration can be believed. One of another boot than the newest may be a late message of
    /// an older one, so it counts only if the sled, asked since that boot was journaled, says the same.
    fn believes(&self, boot: BootId, confirmed_at: Option<u64>) -> bool {
        let newest = self.state.as_ref().and_then(|sled| sled.boot).map(|(boot, _)| boot);
        newest.is_none_or(|newest| newest == boot) || confirmed_at.is_some_and(|at| at >= self.booted_at)
    }

    /// Remembers a request that a fact carried out.
    pub(super) fn remember(&mut self, recorded: &Recorded) {
        let request = recorded.context.as_ref().and_then(|context| context.request);
        self.requests.extend(request.map(|request| (request, recorded.meta.position)));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }
}

/// A registration that is not known to be durable.
pub(crate) struct SledInFlight {
    pub(super) last: Position,
    events: Vec<SledEvent>,
    metas: Vec<EventMeta>,
    asker: SledAsker,
}

impl World {
    pub(super) fn registration_arrives(&mut self, sled: u16, registering: Registering) {
        let id = names::sled(sled);
        if !self.control().sleds.contains_key(&id) {
            let epoch = self.claim(StreamName::Sled(id));
            self.control().sleds.insert(id, SledShell { epoch, ..SledShell::default() });
        }
        let shell = self.sled_shell(id);
        if shell.queue.len() < QUEUE_MAX {
            shell.queue.push_back(SledInput::Registration(registering));
        }
        self.pump_sled(id);
    }

    /// Queues a client's request at a sled; answers false if the door is shut.
    pub(super) fn queue_sled_command(&mut self, id: SledId, request: usize) -> bool {
        if !self.control().sleds.contains_key(&id) {
            self.refuse_sled_command(request, &Rejected::NoSuchSled(id));
            return true;
        }
        let shell = self.sled_shell(id);
        if shell.queue.len() >= QUEUE_MAX {
            return false;
        }
        shell.queue.push_back(SledInput::Request(request));
        self.pump_sled(id);
        true
    }

    fn refuse_sled_command(&mut self, request: usize, rejected: &Rejected) {
        self.answer_client(request, ClientAnswer::Refused(rejected.to_string()), false);
    }

    fn take_sled_command(&mut self, id: SledId, request: usize) {
        let request_id = names::request(self.clients.request(request).id);
        if let Some(position) = self.sled_shell(id).requests.get(&request_id).copied() {
            self.note(Sometimes::DuplicateAnswered);
            self.answer_client(request, ClientAnswer::Accepted(Some(position)), false);
            return;
        }
        match self.decide_sled(id, request) {
            Err(rejected) => self.refuse_sled_command(request, &rejected),
            Ok(events) if events.is_empty() => {
                self.answer_client(request, ClientAnswer::Accepted(None), false);
            }
            Ok(events) => self.write_sled(id, events, SledAsker::Client(request)),
        }
    }

    fn sled_shell(&mut self, id: SledId) -> &mut SledShell {
        self.control().sleds.get_mut(&id).expect("a sled that speaks is in memory")
    }

    fn pump_sled(&mut self, id: SledId) {
        while self.is_up() && self.sled_shell(id).in_flight.is_none() {
            match self.sled_shell(id).queue.pop_front() {
                None => return,
                Some(SledInput::Registration(registering)) => self.take_registration(id, registering),
                Some(SledInput::Request(request)) => self.take_sled_command(id, request),
            }
        }
    }

    fn take_registration(&mut self, id: SledId, registering: Registering) {
        let boot = BootId::new(registering.request.boot_id.as_uuid());
        let is_trusting = self.scenario.bug == Some(crate::bug::Bug::TrustRegistration);
        if !is_trusting && !self.sled_shell(id).believes(boot, registering.confirmed_at) {
            let (incarnation, asked_at) = (self.incarnation, self.store.durable().get());
            let reply_to = ReplyTo::Confirm { incarnation, asked_at, registering: Box::new(registering) };
            let request = Request::Inventory;
            self.send_to_sled(names::sled_number(id), ToSled::Request { request, reply_to });
            return;
        }
        let (request, sent_at) = (&registering.request, registering.sent_at);
        let registration = Registration {
            id,
            properties: SledProperties {
                name: request.name.clone(),
                threads: request.resources.threads,
                memory: request.resources.memory,
                cpu_family: request.cpu_family.clone(),
                address: request.api_addr.clone(),
            },
            boot,
            held: request.held_epoch.map(|epoch| LeaseEpoch::new(epoch.get())),
        };
        let decided = lifecycle::sled::register(self.sled_shell(id).state.as_ref(), &registration, None);
        let events = match decided {
            Ok(events) => events,
            Err(refused) => {
                let answer = match refused {
                    RegistrationRefused::Expunged => ControlPlaneError::Expunged,
                    RegistrationRefused::PastBoot => ControlPlaneError::StaleEpoch,
                    RegistrationRefused::EpochOutOfReach => ControlPlaneError::Malformed(refused.to_string()),
                };
                self.answer_registration(id, request.boot_id, sent_at, Err(answer));
                return;
            }
        };
        if events.is_empty() {
            self.answer_registered(id, request.boot_id, sent_at);
            return;
        }
        self.write_sled(id, events, SledAsker::Boot { boot: request.boot_id, sent_at });
    }

    /// A sled was asked whether it is in the boot that a registration names. If it is not, the registration
    /// was late, and the sled sends its own.
    pub(super) fn boot_confirmed(
        &mut self,
        sled: u16,
        (incarnation, asked_at): (u32, u64),
        registering: Registering,
        response: &Response,
    ) {
        if incarnation != self.incarnation {
            return;
        }
        if let Ok(Answer::Inventory(inventory)) = response
            && inventory.boot_id == registering.request.boot_id
        {
            self.registration_arrives(sled, Registering { confirmed_at: Some(asked_at), ..registering });
        }
    }

    fn write_sled(&mut self, id: SledId, events: Vec<SledEvent>, asker: SledAsker) {
        let entity = Entity::Sled(names::sled_number(id));
        let called = event_names(&events);
        if self.dies_at(&called, entity, Window::BeforeAppend) {
            return;
        }
        if events.iter().any(|event| matches!(event, SledEvent::DrainBegan { .. })) {
            self.note(Sometimes::DrainBegan);
        }
        let encoded: Vec<Event> = events.iter().cloned().map(Event::from).collect();
        let (stream, now) = (StreamName::Sled(id), self.wall());
        let shell = self.sled_shell(id);
        let (epoch, last) = (shell.epoch, shell.last_time);
        let version = shell.state.as_ref().map_or(0, |sled| sled.version);
        let request = match asker {
            SledAsker::Boot { .. } => None,
            SledAsker::Client(request) => Some(names::request(self.clients.request(request).id)),
        };
        let actor = request.map_or(Actor::Sled(id), |_| Actor::User("operator".to_owned()));
        let context = Context { request, ..Context::of(actor) };
        let build = super::control_plane::BUILD;
        let append =
            journal::append(stream, epoch, Version::new(version), &encoded, &context, now, last, build)
                .expect("registrations are bounded");
        let times: Vec<u64> = append.events.iter().map(|event| event.time_us).collect();
        match self.append(append) {
            AppendOutcome::Appended { first, last, .. } => {
                let metas = metas_of(version, first, &times);
                self.trace.line(
                    self.now,
                    "append",
                    &entity,
                    format_args!("p{:04} {}", first.get(), called.join(" ")),
                );
                if let Some(request) = request {
                    self.checks.written_for(request, first.get());
                }
                self.sled_shell(id).in_flight = Some(SledInFlight { last, events, metas, asker });
                self.dies_at(&called, entity, Window::AppendedUnsynced);
            }
            AppendOutcome::Unavailable(_) => match asker {
                SledAsker::Boot { boot, sent_at } => {
                    let busy = ControlPlaneError::Unavailable("the log refuses".to_owned());
                    self.answer_registration(id, boot, sent_at, Err(busy));
                }
                SledAsker::Client(request) => self.answer_client(request, ClientAnswer::Unavailable, false),
            },
            outcome => {
                self.checks.broken(
                    "I13",
                    self.now,
                    format!("the owner of {stream} was refused: {outcome:?}"),
                );
            }
        }
    }

    /// A registration is durable: the sled has an epoch, and what ran under an older boot is gone.
    pub(super) fn commit_sled(&mut self, id: SledId) {
        let entity = Entity::Sled(names::sled_number(id));
        let in_flight = self.sled_shell(id).in_flight.take().expect("it waited for this");
        let called = event_names(&in_flight.events);
        if self.dies_at(&called, entity, Window::SyncedUnacknowledged) {
            return;
        }
        for (event, meta) in in_flight.events.iter().zip(&in_flight.metas) {
            let shell = self.sled_shell(id);
            lifecycle::sled::evolve(&mut shell.state, event, *meta);
            shell.last_time = meta.time;
            shell.note_boot(event, meta.position);
            let recorded = Recorded {
                stream: StreamName::Sled(id),
                meta: *meta,
                cause: 0,
                index: (0, 1),
                event: Event::from(event.clone()),
                context: None,
            };
            self.control().share(&recorded);
        }
        let first = in_flight.metas[0].position;
        if in_flight.events.iter().any(|event| matches!(event, SledEvent::Expunged { .. })) {
            self.sled_was_expunged(names::sled_number(id));
        }
        if let SledAsker::Client(request) = in_flight.asker {
            let request = names::request(self.clients.request(request).id);
            self.sled_shell(id).requests.insert(request, first);
        }
        if self.dies_at(&called, entity, Window::EffectsUnsent) {
            return;
        }
        self.tell_of_boot(id);
        if self.is_up() {
            self.tell_of_expunge(id);
        }
        if !self.is_up() || self.dies_at(&called, entity, Window::EffectSent) {
            return;
        }
        self.sled_append_answered(id, &in_flight.asker, first);
        self.pump_sled(id);
    }

    fn sled_append_answered(&mut self, id: SledId, asker: &SledAsker, first: u64) {
        match *asker {
            SledAsker::Boot { boot, sent_at } => {
                self.answer_registered(id, boot, sent_at);
                let (incarnation, sled) = (self.incarnation, names::sled_number(id));
                let is_periodic = self.sled_shell_is_new(id);
                self.after(0, Happening::Watch { incarnation, sled, is_periodic });
            }
            SledAsker::Client(request) => {
                self.answer_client(request, ClientAnswer::Accepted(Some(first)), false);
            }
        }
    }

    /// The first registration starts the periodic watch; later ones only look at once.
    fn sled_shell_is_new(&mut self, id: SledId) -> bool {
        self.sled_shell(id).state.as_ref().is_some_and(|sled| sled.version <= 2)
    }

    fn answer_registered(&mut self, id: SledId, boot: sled_protocol::BootId, sent_at: u64) {
        let epoch = self.control().epoch_of(id).unwrap_or(LeaseEpoch::ZERO);
        let lease = SledLease {
            lease_epoch: sled_protocol::LeaseEpoch::new(epoch.get()),
            lease_seconds: None,
            store_id: None,
        };
        self.answer_registration(id, boot, sent_at, Ok(lease));
    }

    fn answer_registration(
        &mut self,
        id: SledId,
        boot: sled_protocol::BootId,
        sent_at: u64,
        answer: Result<SledLease, ControlPlaneError>,
    ) {
        self.send_to_sled(names::sled_number(id), ToSled::Registered { boot, sent_at, answer });
    }

    /// What was registered before the last boot is gone with it. Derived from the fold at every start and
    /// every watch, so that a crash between the boot and this loses nothing.
    pub(super) fn tell_of_boot(&mut self, id: SledId) {
        let control = self.control();
        let asked_at = control.sleds[&id].booted_at;
        let held: Vec<(VmmId, InstanceId)> = control.ledger.vmms_on(id).collect();
        for (vmm, instance) in held {
            let input = Input::Absent { vmm, asked_at, evidence: Evidence::SledRebooted };
            self.give(instance, Waiting { what: What::Input(input), from: From::Nobody });
            if !self.is_up() {
                return;
            }
        }
    }

    /// Asks a sled what it holds.
    pub(super) fn watch(&mut self, incarnation: u32, sled: u16, is_periodic: bool) {
        if incarnation != self.incarnation || !self.is_up() {
            return;
        }
        self.tell_of_boot(names::sled(sled));
        if self.is_up() {
            self.tell_of_expunge(names::sled(sled));
        }
        if !self.is_up() {
            return;
        }
        if self.is_expunged(names::sled(sled)) {
            // It is not asked any more.
            if is_periodic {
                self.after(WATCH_US, Happening::Watch { incarnation, sled, is_periodic });
            }
            return;
        }
        let asked_at = self.store.durable().get();
        let reply_to = ReplyTo::Watch { incarnation, asked_at };
        self.send_to_sled(sled, ToSled::Request { request: Request::Inventory, reply_to });
        if is_periodic {
            self.after(WATCH_US, Happening::Watch { incarnation, sled, is_periodic });
        }
    }

    /// Reconciles what a sled holds with what the log says.
    pub(super) fn inventory_arrives(
        &mut self,
        sled: u16,
        incarnation: u32,
        asked_at: u64,
        response: Response,
    ) {
        if incarnation != self.incarnation || !self.is_up() {
            return;
        }
        let Ok(Answer::Inventory(inventory)) = response else {
            return;
        };
        let id = names::sled(sled);
        let boot = self.sled_shell(id).state.as_ref().and_then(|sled| sled.boot);
        if boot.is_none_or(|(boot, _)| boot.uuid() != inventory.boot_id.as_uuid()) {
            return;
        }
        let listed: BTreeSet<VmmId> =
            inventory.vmms.iter().map(|vmm| VmmId::new(vmm.propolis_id.as_uuid())).collect();
        self.end_orphans(sled, &inventory);
        if !self.is_up() {
            return;
        }
        let is_proof = self.scenario.bug == Some(crate::bug::Bug::StaleInventory);
        let asked_at = if is_proof { u64::MAX } else { asked_at };
        let booted_at = self.sled_shell(id).booted_at;
        let held: Vec<(VmmId, InstanceId)> = self.control().ledger.vmms_on(id).collect();
        for (vmm, instance) in held.into_iter().filter(|(vmm, _)| !listed.contains(vmm)) {
            for (asked_at, evidence) in
                [(asked_at, Evidence::AbsentFromInventory), (booted_at, Evidence::SledRebooted)]
            {
                let input = Input::Absent { vmm, asked_at, evidence };
                self.give(instance, Waiting { what: What::Input(input), from: From::Nobody });
                if !self.is_up() {
                    return;
                }
            }
        }
    }

    /// What the log does not know, or knows as gone, is told to end; what it knows says how it is.
    fn end_orphans(&mut self, sled: u16, inventory: &Inventory) {
        for vmm in &inventory.vmms {
            if !self.is_up() {
                return;
            }
            let id = VmmId::new(vmm.propolis_id.as_uuid());
            match self.control().ledger.vmm(id).filter(|place| place.is_held) {
                Some(place) => {
                    let report = super::wire::report(&vmm.state);
                    let input = Input::Report { sled: names::sled(sled), vmm: id, report };
                    self.give(place.instance, Waiting { what: What::Input(input), from: From::Nobody });
                }
                None => self.unregister_orphan(sled, vmm.propolis_id),
            }
        }
    }

    fn unregister_orphan(&mut self, sled: u16, vmm: PropolisId) {
        let Some(epoch) = self.control().epoch_of(names::sled(sled)) else {
            return;
        };
        self.note(Sometimes::OrphanUnregistered);
        let entity = Entity::Sled(sled);
        let text = names::vmm_text(VmmId::new(vmm.as_uuid()));
        self.trace.line(self.now, "orphan", &entity, format_args!("{text}"));
        let lease_epoch = sled_protocol::LeaseEpoch::new(epoch.get());
        let request = Request::Unregister { vmm, lease_epoch };
        self.send_to_sled(sled, ToSled::Request { request, reply_to: ReplyTo::Nobody });
    }
}

fn event_names(events: &[SledEvent]) -> Vec<&'static str> {
    events.iter().cloned().map(Event::from).map(|event| journal::event_name(&event)).collect()
}
