//! The ledger's shell: one actor around the pure [`lifecycle::Ledger`], fed by the log in order.
//!
//! Grants are given in memory and counted at once. A grant counts for good once the log shows it; it is
//! taken back when its asker says that nothing was written, or when a new incarnation of the asker has read
//! its stream through a barrier and the log up to there does not show it. Never by time.
//!
//! A damaged place in the log is passed over: what the streams that lost a record there held before it stays
//! held, and nothing that they say after it is believed.
//!
//! What needs no position is looked up under a lock, beside the actor: most of what a daemon is asked only wants to know
//! where something is, and a message there and back costs more than the answer. A change is made under the same lock,
//! one event at a time, so that a look sees whole events and never waits long.
//!
//! A panic here ends the process: the open grants are only reproducible with every asker gone.

use crate::accounts::{Accounts, COUNTING_MAX};
use crate::env::Env;
use crate::network::Desk;
use eventlog::{Epoch, Position, ReadError, StreamId};
use futures::{FutureExt, StreamExt};
use journal::{Event, Recorded, StreamName};
use lifecycle::ledger::RoomAsk;
use lifecycle::network::NetworkBook;
use lifecycle::{
    Address, InstanceEvent, InstanceId, Ledger, ProjectId, Rejected, RoomWanted, Shortage, SledId, VmmId,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use tokio::sync::oneshot;

/// Records folded per message: the ledger answers grants in between.
const FOLD_RECORDS_MAX: usize = 1_024;

type Reply<T> = oneshot::Sender<T>;

/// What the ledger can be asked and told.
pub(crate) enum LedgerMsg {
    /// What has become durable.
    Fold(Vec<Folded>),
    /// A request that needs the fold to have reached a position.
    After(Position, Request),
    /// Sleds have had their time to say what they hold.
    Counted,
}

/// An item of the log.
pub(crate) enum Folded {
    /// An event.
    Event(Recorded),
    /// Nothing up to `last` can be read any more; these streams lost a record there.
    Damage { last: Position, streams: Vec<StreamId> },
}

/// The pure ledger and how far it has folded.
struct Fold {
    /// Written by the actor alone.
    ledger: Arc<RwLock<Ledger>>,
    /// Where what the network shall be is left for the pushers.
    desk: Arc<Desk>,
    position: Position,
    /// Streams that are not followed any more.
    quarantined: BTreeSet<StreamId>,
}

/// What instances share, folded from the log up to a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedFold {
    /// The last position folded in; zero for nothing.
    pub position: Position,
    /// Names, addresses, room and provisioning, without grants.
    pub ledger: Ledger,
    /// Where every address shall lead.
    pub book: NetworkBook,
}

/// A look at the ledger.
type Look = Box<dyn FnOnce(&Ledger) + Send>;

/// A wish for room.
#[derive(Clone, Debug)]
pub(crate) struct GrantAsk {
    pub(crate) instance: InstanceId,
    pub(crate) vmm: VmmId,
    pub(crate) wanted: RoomWanted,
    /// The sled that it must be, if one was named.
    pub(crate) to: Option<SledId>,
    pub(crate) dice: u64,
}

/// One request.
pub(crate) enum Request {
    Instance {
        id: InstanceId,
        project: ProjectId,
        name: String,
        reply: Reply<Result<Address, Rejected>>,
    },
    Room {
        ask: GrantAsk,
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
    /// A sled does, or does not, answer at present.
    Reachable {
        sled: SledId,
        is_reachable: bool,
    },
    /// Whether everything that a sled holds is in the log.
    Accounted {
        sled: SledId,
        is_accounted: bool,
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
    ledger: Arc<RwLock<Ledger>>,
}

impl LedgerHandle {
    /// Folds what the log holds after `known`, then starts the actor under `parent` and follows. Answers the
    /// desk that it leaves the network's wishes on, too.
    pub(crate) async fn start(
        env: &Arc<Env>,
        known: SharedFold,
        parent: ActorCell,
    ) -> Result<(Self, Arc<Desk>), super::StartError> {
        let SharedFold { position, ledger, book } = known;
        let desk = Arc::new(Desk::at(position.get(), book, &ledger));
        let ledger = Arc::new(RwLock::new(ledger));
        let shared = Arc::clone(&ledger);
        let mut fold = Fold { ledger, desk: Arc::clone(&desk), position, quarantined: BTreeSet::new() };
        loop {
            match env.log.read_all(fold.position.next(), FOLD_RECORDS_MAX) {
                Ok(page) if page.is_empty() => break,
                Ok(page) => {
                    for record in &page {
                        fold.take(Folded::Event(journal::read(record)?));
                    }
                }
                Err(ReadError::Damaged { last: Some(last), streams, .. }) => {
                    fold.take(Folded::Damage { last, streams });
                }
                Err(error) => return Err(error.into()),
            }
        }
        fold.desk.reached(fold.position.get());
        let next = fold.position.next();
        let is_damaged = !env.log.quarantined().is_empty();
        let state = State {
            fold,
            parked: Vec::new(),
            askers: BTreeMap::new(),
            unreachable: BTreeSet::new(),
            accounts: Accounts::new(is_damaged),
            uncounted: Vec::new(),
        };
        let (actor, _) = Actor::spawn_linked(None, LedgerActor, state, parent)
            .await
            .map_err(|error| super::StartError::Actor(error.to_string()))?;
        if is_damaged {
            // Its handle is let go: it fires once, and an actor that is gone hears nothing.
            drop(actor.send_after(COUNTING_MAX, || LedgerMsg::Counted));
        }
        let following = AssertUnwindSafe(follow(Arc::clone(env), next, actor.clone())).catch_unwind();
        let env = Arc::clone(env);
        tokio::spawn(async move {
            if following.await.is_err() {
                env.fatal.raise("the ledger's follower of the log has panicked".to_owned());
            }
        });
        Ok((Self { actor, ledger: shared }, desk))
    }

    /// Its actor.
    pub(crate) fn cell(&self) -> ActorCell {
        self.actor.get_cell()
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
        ask: GrantAsk,
        owner: (Epoch, u64),
    ) -> Result<Result<SledId, Shortage>, LedgerGone> {
        let (epoch, after) = owner;
        self.ask(after, |reply| Request::Room { ask, epoch, reply }).await
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

    /// Says whether a sled answers at present.
    pub(crate) fn reachable(&self, sled: SledId, is_reachable: bool) {
        let _ = self.tell(0, Request::Reachable { sled, is_reachable });
    }

    /// Says whether everything that a sled holds is in the log. It matters only while instances are quarantined.
    pub(crate) fn accounted(&self, sled: SledId, is_accounted: bool) {
        let _ = self.tell(0, Request::Accounted { sled, is_accounted });
    }

    /// Says that a new incarnation has read its stream up to `position`.
    pub(crate) fn barrier(&self, instance: InstanceId, epoch: Epoch, position: u64) {
        let _ = self.tell(position, Request::Barrier { instance, epoch });
    }

    /// Looks at the fold as it is. Nothing else is told while this looks: it must be over at once.
    pub(crate) fn glance<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        // A panic in the middle of a change ends the process; until then what is seen decides nothing.
        look(&self.ledger.read().unwrap_or_else(PoisonError::into_inner))
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
        let decoded: Result<Vec<Folded>, String> = chunk
            .into_iter()
            .map(|item| match item {
                Ok(record) => journal::read(&record).map(Folded::Event).map_err(|error| error.to_string()),
                Err(ReadError::Damaged { last: Some(last), streams, .. }) => {
                    Ok(Folded::Damage { last, streams })
                }
                Err(error) => Err(error.to_string()),
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
    fold: Fold,
    /// Requests that wait for the fold, in order of arrival.
    parked: Vec<(Position, Request)>,
    /// Which incarnation asked for room that the log does not show yet.
    askers: BTreeMap<VmmId, (InstanceId, Epoch)>,
    /// Sleds that do not answer at present: placement prefers others.
    unreachable: BTreeSet<SledId>,
    /// What sleds have said of what they hold.
    accounts: Accounts,
    /// Wishes for room that wait for the first sled to say what it holds.
    uncounted: Vec<Request>,
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
            LedgerMsg::After(position, request) if position > state.fold.position => {
                state.parked.push((position, request));
            }
            LedgerMsg::After(_, request) => state.serve(request),
            LedgerMsg::Fold(items) => state.fold(items),
            LedgerMsg::Counted => {
                state.accounts.give_up();
                state.serve_uncounted();
            }
        }
        Ok(())
    }
}

impl State {
    fn fold(&mut self, items: Vec<Folded>) {
        for item in items {
            if let Folded::Event(recorded) = &item
                && let Event::Instance(
                    InstanceEvent::StartBegan { vmm, .. } | InstanceEvent::MigrateBegan { vmm, .. },
                ) = &recorded.event
            {
                self.askers.remove(vmm);
            }
            self.fold.take(item);
        }
        self.fold.desk.reached(self.fold.position.get());
        let (ready, parked) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|(position, _)| *position <= self.fold.position);
        self.parked = parked;
        let ready: Vec<(Position, Request)> = ready;
        for (_, request) in ready {
            self.serve(request);
        }
    }

    /// Sleds on which a quarantined instance may hold room that nobody counts.
    fn shut(&self) -> BTreeSet<SledId> {
        if !self.accounts.is_open() {
            return BTreeSet::new();
        }
        self.accounts.shut(self.fold.ledger().sleds().map(|sled| sled.id))
    }

    fn is_counting(&self) -> bool {
        if !self.accounts.is_open() {
            return false;
        }
        let ledger = self.fold.ledger();
        self.accounts.is_counting(ledger.sleds().map(|sled| sled.id), &self.unreachable)
    }

    fn serve_uncounted(&mut self) {
        if self.uncounted.is_empty() || self.is_counting() {
            return;
        }
        for request in std::mem::take(&mut self.uncounted) {
            // An asker that went away meanwhile has said so before this.
            if !matches!(&request, Request::Room { reply, .. } if reply.is_closed()) {
                self.serve(request);
            }
        }
    }

    /// A reply that nobody waits for any more is dropped with its grant: the asker is gone, and the
    /// incarnation after it will say so through its barrier.
    fn serve(&mut self, request: Request) {
        match request {
            Request::Instance { id, project, name, reply } => {
                let _ = reply.send(self.fold.ledger().grant_instance(id, project, &name));
            }
            Request::Room { .. } if self.is_counting() => self.uncounted.push(request),
            Request::Room { ask, epoch, reply } => {
                let shut = self.shut();
                let granted = self.fold.ledger().grant_room(&RoomAsk {
                    instance: ask.instance,
                    vmm: ask.vmm,
                    size: ask.wanted.size,
                    purpose: &ask.wanted.purpose,
                    to: ask.to,
                    dice: ask.dice,
                    avoid: &self.unreachable,
                    shut: &shut,
                });
                if granted.is_ok() {
                    self.askers.insert(ask.vmm, (ask.instance, epoch));
                }
                let _ = reply.send(granted);
            }
            Request::Project { id, name, reply } => {
                let _ = reply.send(self.fold.ledger().grant_project(id, &name));
            }
            Request::ProjectDelete { id, reply } => {
                let _ = reply.send(self.fold.ledger().grant_project_delete(id));
            }
            Request::DropInstance(id) => self.fold.ledger().drop_instance(id),
            Request::DropRoom(vmm) => {
                self.askers.remove(&vmm);
                self.fold.ledger().drop_room(vmm);
            }
            Request::DropProject(id) => self.fold.ledger().drop_project(id),
            Request::Barrier { instance, epoch } => self.barrier(instance, epoch),
            Request::Reachable { sled, is_reachable: true } => {
                self.unreachable.remove(&sled);
            }
            Request::Reachable { sled, is_reachable: false } => {
                self.unreachable.insert(sled);
                self.serve_uncounted();
            }
            Request::Accounted { sled, is_accounted } => {
                self.accounts.say(sled, is_accounted);
                self.serve_uncounted();
            }
            Request::Look(look) => look(&self.fold.ledger()),
        }
    }

    fn barrier(&mut self, instance: InstanceId, epoch: Epoch) {
        let is_orphaned =
            |(_, (asker, asked)): &(&VmmId, &(InstanceId, Epoch))| *asker == instance && *asked < epoch;
        let orphaned: Vec<VmmId> = self.askers.iter().filter(is_orphaned).map(|(vmm, _)| *vmm).collect();
        for vmm in orphaned {
            self.askers.remove(&vmm);
            self.fold.ledger().drop_room(vmm);
        }
        // A grant of the instance itself is only ever asked for by the first incarnation.
        if self.fold.ledger().open_grants(instance).0
            && !self.askers.values().any(|(asker, _)| *asker == instance)
        {
            self.fold.ledger().drop_instance(instance);
        }
    }
}

impl Fold {
    /// For one change. Nothing else is done while it is held.
    fn ledger(&self) -> RwLockWriteGuard<'_, Ledger> {
        self.ledger.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&mut self, item: Folded) {
        let recorded = match item {
            Folded::Event(recorded) => recorded,
            Folded::Damage { last, streams } => {
                self.desk.unread(self.position.next().get(), last.get());
                self.position = last;
                self.quarantined.extend(streams);
                return;
            }
        };
        assert!(recorded.meta.position == self.position.next().get(), "the ledger misses no record");
        self.position = Position::new(recorded.meta.position);
        if self.quarantined.contains(&recorded.stream.id()) {
            self.desk.unread(recorded.meta.position, recorded.meta.position);
            return;
        }
        let mut ledger = self.ledger();
        match (recorded.stream, &recorded.event) {
            (StreamName::Instance(id), Event::Instance(event)) => {
                ledger.apply_instance(id, event);
                self.desk.apply(id, event, recorded.meta, &ledger);
            }
            (StreamName::Project(id), Event::Project(event)) => ledger.apply_project(id, event),
            (StreamName::Sled(id), Event::Sled(event)) => ledger.apply_sled(id, event),
            (StreamName::System, Event::System(event)) => ledger.apply_system(event),
            _ => {}
        }
    }
}
