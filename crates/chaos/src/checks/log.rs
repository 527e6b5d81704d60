//! The log, folded a second time.
//!
//! This fold sees nothing but durable records, decoded from their bytes. It is what the live state must equal
//! (I9), what decides which requests a sled may see (I16), and where every event is checked against the rules
//! once more (I7, I8, I12, I14, I17).

use super::losses::Losses;
use super::migrations::MigrationChecks;
use super::restarts::{RestartChecks, When};
use super::sagas::SagaChecks;
use super::{Broken, checked};
use crate::scenario::Scenario;
use crate::states::Met;
use crate::world::{labels_of, names, planted};
use eventlog::{Position, Record};
use journal::{Event, Recorded, StreamName};
use lifecycle::network::NetworkBook;
use lifecycle::project::Project;
use lifecycle::sled::Sled;
use lifecycle::{
    EventMeta, Instance, InstanceEvent, InstanceId, Intent, Ledger, OpId, RequestId, SledId, Timestamp,
    VmmId, VmmReport, invariant,
};
use sim_sled::machine::Request;
use sled_protocol::RequestedState;
use std::collections::{BTreeMap, BTreeSet};

/// See the module's head.
#[derive(Default)]
pub(crate) struct LogChecks {
    pub(crate) migrations: MigrationChecks,
    pub(crate) losses: Losses,
    restarts: RestartChecks,
    sagas: SagaChecks,
    pub(crate) project: Option<Project>,
    pub(crate) book: NetworkBook,
    /// When each append was written, by its first position.
    appended_at: BTreeMap<u64, u64>,
    /// What the log says that VMMs said, since this was last asked for.
    pub(super) reports: Vec<(VmmId, VmmReport)>,
    /// Instances of which it says that their guests shut themselves down, with their VMMs, since this was last
    /// asked for.
    pub(super) shutdowns: Vec<(InstanceId, Vec<VmmId>)>,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    pub(crate) sleds: BTreeMap<SledId, Sled>,
    pub(crate) ledger: Ledger,
    position: u64,
    heads: BTreeMap<StreamName, (u64, Timestamp)>,
    written: Position,
    requests: BTreeMap<RequestId, u64>,
    /// The state before the append that is being folded.
    before: Option<Instance>,
    allowed: Allowed,
    /// Which abstract states were met.
    pub(crate) states: Met,
}

/// What durable events allow the outside to see.
#[derive(Default)]
struct Allowed {
    register: BTreeSet<VmmId>,
    run: BTreeSet<VmmId>,
    end: BTreeSet<VmmId>,
    cancel: BTreeSet<VmmId>,
    orders: BTreeSet<OpId>,
}

impl LogChecks {
    /// The log ends here, durable or not.
    pub(super) fn written(&mut self, last: Position) {
        self.written = last;
    }

    /// An append that begins here was written.
    pub(super) fn appended(&mut self, first: Position, at_us: u64) {
        self.appended_at.insert(first.get(), at_us);
    }

    fn when(&self, meta: EventMeta) -> When {
        let appended = self.appended_at.range(..=meta.position).next_back();
        When { recorded: meta.time, mono_us: appended.map_or(0, |(_, at)| *at) }
    }

    /// Folds records that became durable.
    pub(super) fn durable(&mut self, records: &[Record], scenario: &Scenario) -> Result<(), Broken> {
        let mut is_whole = true;
        for record in records {
            let recorded = journal::read(record)
                .map_err(|error| Broken::new("I9", format!("a record cannot be read: {error}")))?;
            self.in_order(&recorded)?;
            is_whole = recorded.index.0 + 1 == recorded.index.1;
            self.fold(&recorded, is_whole, scenario)?;
        }
        // I7: an append is wholly there or not at all.
        if is_whole {
            Ok(())
        } else {
            Err(Broken::new("I7", format!("p{} ends in half an append", self.position)))
        }
    }

    /// I12: positions and versions are gapless; recorded times of a stream rise. I8: a request is carried out
    /// once.
    fn in_order(&mut self, recorded: &Recorded) -> Result<(), Broken> {
        let meta = recorded.meta;
        if meta.position != self.position + 1 {
            let detail = format!("p{} follows p{}", meta.position, self.position);
            return Err(Broken::new("I12", detail));
        }
        self.position = meta.position;
        let head = self.heads.entry(recorded.stream).or_insert((0, Timestamp::default()));
        if meta.version != head.0 + 1 || meta.time <= head.1 {
            let detail = format!(
                "v{} at {:?} of {} follows v{} at {:?}",
                meta.version, meta.time, recorded.stream, head.0, head.1
            );
            return Err(Broken::new("I12", detail));
        }
        *head = (meta.version, meta.time);
        let Some(request) = recorded.context.as_ref().and_then(|context| context.request) else {
            return Ok(());
        };
        match self.requests.insert(request, meta.position) {
            None => Ok(()),
            Some(first) => {
                let id = names::request_number(request);
                let detail = format!("r{id} was carried out at p{first} and again at p{}", meta.position);
                Err(Broken::new("I8", detail))
            }
        }
    }

    fn fold(&mut self, recorded: &Recorded, ends_append: bool, scenario: &Scenario) -> Result<(), Broken> {
        match (recorded.stream, &recorded.event) {
            (StreamName::Instance(id), Event::Instance(event)) => {
                self.fold_instance(id, event, recorded, ends_append, scenario)?;
            }
            (StreamName::Sled(id), Event::Sled(event)) => {
                let mut state = self.sleds.remove(&id);
                self.epoch_rises(state.as_ref(), event)?;
                lifecycle::sled::evolve(&mut state, event, recorded.meta);
                self.sleds.extend(state.map(|sled| (id, sled)));
                self.ledger.apply_sled(id, event);
            }
            (StreamName::Project(id), Event::Project(event)) => {
                lifecycle::project::evolve(&mut self.project, event, recorded.meta);
                self.ledger.apply_project(id, event);
            }
            (StreamName::System, Event::System(event)) => self.ledger.apply_system(event),
            _ => {}
        }
        if ends_append { checked(invariant::check_ledger(&self.ledger, &self.instances)) } else { Ok(()) }
    }

    /// I14: lease epochs rise strictly per sled.
    fn epoch_rises(&self, state: Option<&Sled>, event: &lifecycle::SledEvent) -> Result<(), Broken> {
        if let lifecycle::SledEvent::Booted { epoch, .. } = event
            && let Some((_, before)) = state.and_then(|sled| sled.boot)
            && *epoch <= before
        {
            return Err(Broken::new(
                "I14",
                format!("lease epoch {epoch} follows {before} at p{}", self.position),
            ));
        }
        Ok(())
    }

    fn fold_instance(
        &mut self,
        id: InstanceId,
        event: &InstanceEvent,
        recorded: &Recorded,
        ends_append: bool,
        scenario: &Scenario,
    ) -> Result<(), Broken> {
        let mut state = self.instances.remove(&id);
        if recorded.index.0 == 0 {
            self.before.clone_from(&state);
        }
        let names = labels_of(&recorded.event);
        let visible = state.as_ref().map(Instance::run_state);
        if let InstanceEvent::StopRequested { op } | InstanceEvent::RebootRequested { op } = event {
            self.allowed.orders.insert(*op);
        }
        let when = self.when(recorded.meta);
        self.migrations.event(state.as_ref(), event)?;
        self.restarts.event(state.as_ref(), event, when, scenario)?;
        self.sagas.event(id, event)?;
        self.losses.event(state.as_ref(), event, when, scenario);
        if let InstanceEvent::VmmReported { vmm, report } = event {
            self.reports.push((*vmm, *report));
        }
        if let InstanceEvent::Updated(update) = event
            && update.intent == Intent::GuestShutdown
            && let Some(state) = &state
        {
            self.shutdowns.push((id, state.vmms.keys().copied().collect()));
        }
        planted::evolve(&mut state, event, recorded.meta, scenario.bug);
        self.ledger.apply_instance(id, event);
        self.book.apply(id, event, recorded.meta);
        let Some(state) = state else {
            return Err(Broken::new("I9", format!("p{} left nothing behind", recorded.meta.position)));
        };
        self.states.step(visible, &names, &state, &self.instances);
        self.allow(&state);
        self.losses.reached(&state, when);
        RestartChecks::reached(&state, event)?;
        let found = if ends_append {
            checked(invariant::check(&state))
                .and_then(|()| checked(invariant::check_step(self.before.as_ref(), &state)))
                .and_then(|()| MigrationChecks::reached(&state))
                .and_then(|()| self.sagas.reached(&state))
                .and_then(|()| is_wanted_or_failed(&state))
                .and_then(|()| self.is_in_book(&state))
        } else {
            Ok(())
        };
        self.instances.insert(id, state);
        found
    }

    /// C6: the network book says of the instance what its own fold says.
    fn is_in_book(&self, state: &Instance) -> Result<(), Broken> {
        let expected = state.deleted.is_none().then_some((state.network.sled, state.producer));
        let found = self.book.of(state.id);
        if found == expected {
            return Ok(());
        }
        let entity = names::entity(state.id);
        Err(Broken::new("C6", format!("the book has {found:?} of {entity}, its fold {expected:?}")))
    }

    /// C6: the book has the mappings of all instances, and no others.
    pub(super) fn book_is_whole(&self) -> Result<(), Broken> {
        let mapped = |state: &&Instance| state.network.sled.is_some() && state.deleted.is_none();
        let expected: BTreeMap<_, _> = self
            .instances
            .values()
            .filter(mapped)
            .map(|state| {
                (
                    (state.address.vni, state.address.virtual_ip),
                    (state.network.sled, state.network.generation),
                )
            })
            .collect();
        let found: BTreeMap<_, _> =
            self.book.mappings().map(|(key, mapping)| (key, (mapping.sled, mapping.generation))).collect();
        let produced: BTreeSet<VmmId> = self.book.producers().map(|production| production.vmm).collect();
        let producing: BTreeSet<VmmId> = self.instances.values().filter_map(|state| state.producer).collect();
        if expected == found && produced == producing {
            return Ok(());
        }
        let detail = format!("mapped {found:?} for {expected:?}, produced {produced:?} for {producing:?}");
        Err(Broken::new("C6", detail))
    }

    fn allow(&mut self, state: &Instance) {
        if let Some(migration) = state.linked_migration()
            && (migration.cancelled.is_some() || state.stop.is_some())
        {
            self.allowed.cancel.extend([migration.source.vmm, migration.target.vmm]);
        }
        for vmm in state.vmms.values() {
            if vmm.register_may_be_sent {
                self.allowed.register.insert(vmm.id);
            }
            if vmm.run_may_be_sent {
                self.allowed.run.insert(vmm.id);
            }
            if vmm.state.is_destroyable() || !state.refers_to(vmm.id) {
                self.allowed.end.insert(vmm.id);
            }
        }
    }

    /// I16: no effect is seen outside whose causing event is not durable.
    pub(super) fn may_receive(&self, sled: u16, request: &Request) -> Result<(), Broken> {
        let allowed = &self.allowed;
        let (vmm, what, is_allowed) = match request {
            Request::Register { vmm, .. } => {
                (vmm, "register", allowed.register.contains(&VmmId::new(vmm.as_uuid())))
            }
            Request::Unregister { vmm, .. } => {
                let id = VmmId::new(vmm.as_uuid());
                let is_known = allowed.register.contains(&id);
                (vmm, "unregister", !is_known || allowed.end.contains(&id))
            }
            Request::SetState { vmm, body } => {
                let (id, op) = (VmmId::new(vmm.as_uuid()), OpId::new(body.op_id.as_uuid()));
                let is_ordered = allowed.orders.contains(&op);
                match body.state {
                    RequestedState::Running => (vmm, "set_running", allowed.run.contains(&id)),
                    RequestedState::Stopped => (vmm, "stop", is_ordered || allowed.end.contains(&id)),
                    RequestedState::Reboot => (vmm, "reboot", is_ordered),
                    RequestedState::MigrationTarget { .. } => {
                        (vmm, "take a guest over by", allowed.run.contains(&id))
                    }
                    RequestedState::MigrationCancel => (vmm, "give up", allowed.cancel.contains(&id)),
                }
            }
            _ => return Ok(()),
        };
        if is_allowed {
            return Ok(());
        }
        let vmm = names::vmm_text(VmmId::new(vmm.as_uuid()));
        let detail = format!(
            "s{sled} was asked to {what} {vmm}, and no durable event says so (log at p{})",
            self.position
        );
        Err(Broken::new("I16", detail))
    }

    /// The version to which a stream was folded.
    pub(crate) fn version(&self, stream: StreamName) -> u64 {
        self.heads.get(&stream).map_or(0, |head| head.0)
    }
}

/// I31: what is wanted running has a VMM, or says that it failed.
fn is_wanted_or_failed(state: &Instance) -> Result<(), Broken> {
    let is_wanted = state.intent == Intent::Running && state.deleted.is_none();
    if !is_wanted || state.active.is_some() || state.failed.is_some() {
        return Ok(());
    }
    let entity = names::entity(state.id);
    Err(Broken::new("I31", format!("{entity} shall run and is {}, without a reason", state.run_state())))
}
