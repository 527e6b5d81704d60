//! The ledger's shell: one actor around the pure [`lifecycle::Ledger`], fed by the log in order.
//!
//! Grants are given in memory and counted at once. A grant counts for good once the log shows it; it is
//! taken back when its asker says that nothing was written, or when a new incarnation of the asker has read
//! its stream through a barrier and the log up to there does not show it. Never by time.
//!
//! A panic here ends the process: the open grants are only reproducible with every asker gone.

use crate::env::Env;
use eventlog::{Epoch, Position};
use futures::StreamExt;
use journal::{Event, Recorded, StreamName};
use lifecycle::{Address, InstanceId, Ledger, ProjectId, Rejected, Shortage, Size, SledId, VmmId};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Records folded per message: the ledger answers grants in between.
const FOLD_RECORDS_MAX: usize = 1_024;

type Reply<T> = oneshot::Sender<T>;

/// What the ledger can be asked and told.
pub(crate) enum LedgerMsg {
    /// Records that have become durable.
    Fold(Vec<Recorded>),
    /// A request that needs the fold to have reached a position.
    After(Position, Request),
}

/// A look at the ledger.
type Look = Box<dyn FnOnce(&Ledger) + Send>;

/// One request.
pub(crate) enum Request {
    Instance {
        id: InstanceId,
        project: ProjectId,
        name: String,
        reply: Reply<Result<Address, Rejected>>,
    },
    Room {
        instance: InstanceId,
        vmm: VmmId,
        size: Size,
        dice: u64,
        epoch: Epoch,
        reply: Reply<Result<SledId, Shortage>>,
    },
    Project {
        id: ProjectId,
        name: String,
        reply: Reply<Result<u32, Rejected>>,
    },
    ProjectDelete {
        id: ProjectId,
        reply: Reply<Result<(), Rejected>>,
    },
    DropInstance(InstanceId),
    DropRoom(VmmId),
    DropProject(ProjectId),
    /// A new incarnation owns the stream; what earlier ones were granted and the log does not show is free.
    Barrier {
        instance: InstanceId,
        epoch: Epoch,
    },
    Look(Look),
}

/// The ledger is gone; the process is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is not available")]
pub(crate) struct LedgerGone;

/// Handle to the ledger.
#[derive(Clone)]
pub(crate) struct LedgerHandle {
    actor: ActorRef<LedgerMsg>,
}

impl LedgerHandle {
    /// Folds the whole log, then starts the actor under `parent` and follows.
    pub(crate) async fn start(env: &Arc<Env>, parent: ActorCell) -> Result<Self, super::StartError> {
        let mut ledger = Ledger::default();
        let mut next = Position::new(1);
        loop {
            let page = env.log.read_all(next, FOLD_RECORDS_MAX)?;
            let Some(last) = page.last() else {
                break;
            };
            next = last.position.next();
            for record in &page {
                fold(&mut ledger, &journal::read(record)?);
            }
        }
        let folded = Position::new(next.get() - 1);
        let state = State { ledger, folded, parked: Vec::new(), askers: BTreeMap::new() };
        let (actor, _) = Actor::spawn_linked(None, LedgerActor, state, parent)
            .await
            .map_err(|error| super::StartError::Actor(error.to_string()))?;
        tokio::spawn(follow(Arc::clone(env), next, actor.clone()));
        Ok(Self { actor })
    }

    async fn ask<T>(&self, after: u64, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, LedgerGone> {
        let (reply, answer) = oneshot::channel();
        self.tell(after, request(reply))?;
        answer.await.map_err(|_| LedgerGone)
    }

    fn tell(&self, after: u64, request: Request) -> Result<(), LedgerGone> {
        self.actor.cast(LedgerMsg::After(Position::new(after), request)).map_err(|_| LedgerGone)
    }

    /// Grants name, address and membership.
    pub(crate) async fn grant_instance(
        &self,
        id: InstanceId,
        project: ProjectId,
        name: String,
    ) -> Result<Result<Address, Rejected>, LedgerGone> {
        self.ask(0, |reply| Request::Instance { id, project, name, reply }).await
    }

    /// Grants room, once the fold has reached `after`: what the asker has released counts.
    pub(crate) async fn grant_room(
        &self,
        instance: InstanceId,
        vmm: VmmId,
        size: Size,
        dice: u64,
        owner: (Epoch, u64),
    ) -> Result<Result<SledId, Shortage>, LedgerGone> {
        let (epoch, after) = owner;
        self.ask(after, |reply| Request::Room { instance, vmm, size, dice, epoch, reply }).await
    }

    /// Grants a project's name.
    pub(crate) async fn grant_project(
        &self,
        id: ProjectId,
        name: String,
    ) -> Result<Result<u32, Rejected>, LedgerGone> {
        self.ask(0, |reply| Request::Project { id, name, reply }).await
    }

    /// Grants a project's end, once the fold has reached `after`.
    pub(crate) async fn grant_project_delete(
        &self,
        id: ProjectId,
        after: u64,
    ) -> Result<Result<(), Rejected>, LedgerGone> {
        self.ask(after, |reply| Request::ProjectDelete { id, reply }).await
    }

    /// Takes back an instance's grant: nothing was written.
    pub(crate) fn drop_instance(&self, id: InstanceId) {
        // A ledger that is gone holds nothing.
        let _ = self.tell(0, Request::DropInstance(id));
    }

    /// Takes back room: nothing was written.
    pub(crate) fn drop_room(&self, vmm: VmmId) {
        let _ = self.tell(0, Request::DropRoom(vmm));
    }

    /// Takes back a project's grant: nothing was written.
    pub(crate) fn drop_project(&self, id: ProjectId) {
        let _ = self.tell(0, Request::DropProject(id));
    }

    /// Says that a new incarnation has read its stream up to `position`.
    pub(crate) fn barrier(&self, instance: InstanceId, epoch: Epoch, position: u64) {
        let _ = self.tell(position, Request::Barrier { instance, epoch });
    }

    /// Looks at the fold, once it has reached `after`.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        after: u64,
        look: impl FnOnce(&Ledger) -> T + Send + 'static,
    ) -> Result<T, LedgerGone> {
        self.ask(after, |reply| {
            Request::Look(Box::new(move |ledger| {
                // An asker that went away needs no answer.
                let _ = reply.send(look(ledger));
            }))
        })
        .await
    }
}

/// Feeds the actor from the log until either ends.
async fn follow(env: Arc<Env>, from: Position, actor: ActorRef<LedgerMsg>) {
    let mut records = env.log.follow(from).ready_chunks(FOLD_RECORDS_MAX);
    while let Some(chunk) = records.next().await {
        let decoded: Result<Vec<Recorded>, String> = chunk
            .into_iter()
            .map(|record| {
                let record = record.map_err(|error| error.to_string())?;
                journal::read(&record).map_err(|error| error.to_string())
            })
            .collect();
        match decoded {
            Ok(decoded) => {
                if actor.cast(LedgerMsg::Fold(decoded)).is_err() {
                    return;
                }
            }
            Err(error) => {
                env.fatal.raise(format!("the ledger cannot follow the log: {error}"));
                return;
            }
        }
    }
}

struct LedgerActor;

struct State {
    ledger: Ledger,
    folded: Position,
    /// Requests that wait for the fold, in order of arrival.
    parked: Vec<(Position, Request)>,
    /// Which incarnation asked for room that the log does not show yet.
    askers: BTreeMap<VmmId, (InstanceId, Epoch)>,
}

impl Actor for LedgerActor {
    type Msg = LedgerMsg;
    type State = State;
    type Arguments = State;

    async fn pre_start(&self, _: ActorRef<LedgerMsg>, state: State) -> Result<State, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<LedgerMsg>,
        message: LedgerMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            LedgerMsg::After(position, request) if position > state.folded => {
                state.parked.push((position, request));
            }
            LedgerMsg::After(_, request) => state.serve(request),
            LedgerMsg::Fold(records) => state.fold(&records),
        }
        Ok(())
    }
}

impl State {
    fn fold(&mut self, records: &[Recorded]) {
        for record in records {
            assert!(record.meta.position == self.folded.next().get(), "the ledger misses no record");
            fold(&mut self.ledger, record);
            if let Event::Instance(lifecycle::InstanceEvent::StartBegan { vmm, .. }) = &record.event {
                self.askers.remove(vmm);
            }
            self.folded = Position::new(record.meta.position);
        }
        let (ready, parked) =
            std::mem::take(&mut self.parked).into_iter().partition(|(position, _)| *position <= self.folded);
        self.parked = parked;
        let ready: Vec<(Position, Request)> = ready;
        for (_, request) in ready {
            self.serve(request);
        }
    }

    /// A reply that nobody waits for any more is dropped with its grant: the asker is gone, and the
    /// incarnation after it will say so through its barrier.
    fn serve(&mut self, request: Request) {
        match request {
            Request::Instance { id, project, name, reply } => {
                let _ = reply.send(self.ledger.grant_instance(id, project, &name));
            }
            Request::Room { instance, vmm, size, dice, epoch, reply } => {
                let granted = self.ledger.grant_room(instance, vmm, size, dice);
                if granted.is_ok() {
                    self.askers.insert(vmm, (instance, epoch));
                }
                let _ = reply.send(granted);
            }
            Request::Project { id, name, reply } => {
                let _ = reply.send(self.ledger.grant_project(id, &name));
            }
            Request::ProjectDelete { id, reply } => {
                let _ = reply.send(self.ledger.grant_project_delete(id));
            }
            Request::DropInstance(id) => self.ledger.drop_instance(id),
            Request::DropRoom(vmm) => {
                self.askers.remove(&vmm);
                self.ledger.drop_room(vmm);
            }
            Request::DropProject(id) => self.ledger.drop_project(id),
            Request::Barrier { instance, epoch } => self.barrier(instance, epoch),
            Request::Look(look) => look(&self.ledger),
        }
    }

    fn barrier(&mut self, instance: InstanceId, epoch: Epoch) {
        let is_orphaned =
            |(_, (asker, asked)): &(&VmmId, &(InstanceId, Epoch))| *asker == instance && *asked < epoch;
        let orphaned: Vec<VmmId> = self.askers.iter().filter(is_orphaned).map(|(vmm, _)| *vmm).collect();
        for vmm in orphaned {
            self.askers.remove(&vmm);
            self.ledger.drop_room(vmm);
        }
        // A grant of the instance itself is only ever asked for by the first incarnation.
        if self.ledger.open_grants(instance).0 && !self.askers.values().any(|(asker, _)| *asker == instance) {
            self.ledger.drop_instance(instance);
        }
    }
}

fn fold(ledger: &mut Ledger, record: &Recorded) {
    match (record.stream, &record.event) {
        (StreamName::Instance(id), Event::Instance(event)) => ledger.apply_instance(id, event),
        (StreamName::Project(id), Event::Project(event)) => ledger.apply_project(id, event),
        (StreamName::Sled(id), Event::Sled(event)) => ledger.apply_sled(id, event),
        _ => {}
    }
}
