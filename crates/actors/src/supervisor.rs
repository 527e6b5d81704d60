//! A roster of virtual actors: addressed by key, activated by their first message, restarted from the log
//! when they panic, quarantined when they keep panicking.
//!
//! The map is ours and typed: ractor's registry and its ids name nothing here. Invariants:
//! * at most one live actor per key; a predecessor that is still ending is fenced by the log;
//! * a message to an actor that restarts is refused, not queued: what it was about is derived again;
//! * one actor's panics touch no other.

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, Message, SupervisionEvent};
use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// How actors of a roster are restarted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestartPolicy {
    /// Pause before the first restart; doubled for each that follows.
    pub(crate) pause: Duration,
    /// Panics in a row after which the key is quarantined.
    pub(crate) panics_max: u32,
}

/// Panics that lie further apart than this are not in a row.
const IN_A_ROW: Duration = Duration::from_mins(10);
/// What the actor library says of an actor that ended because it was killed.
pub(crate) const KILLED: &str = "killed";
/// Longest pause before a restart.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Why a message could not be handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undeliverable {
    /// The actor restarts; try again.
    #[error("it is being reloaded after a failure: {0}")]
    Restarting(String),
    /// The actor keeps failing and is not restarted any more.
    #[error("it is quarantined: {0}")]
    Quarantined(String),
    /// The roster is closed.
    #[error("the daemon is shutting down")]
    Closed,
}

type Spawn<K, M> = Box<dyn Fn(K, ActorCell) -> Option<ActorRef<M>> + Send + Sync>;

/// The roster. Clones share it.
pub(crate) struct Roster<K, M: Message> {
    inner: Arc<Inner<K, M>>,
}

struct Inner<K, M: Message> {
    slots: Mutex<Slots<K, M>>,
    spawn: OnceLock<Spawn<K, M>>,
    supervisor: OnceLock<ActorCell>,
    policy: RestartPolicy,
}

struct Slots<K, M: Message> {
    by_key: BTreeMap<K, Slot<M>>,
    /// Which key an actor is, or was, for: actors end by the thousand.
    by_actor: BTreeMap<ActorId, K>,
    is_closed: bool,
}

struct Slot<M: Message> {
    state: SlotState<M>,
    panics: u32,
    last_panic: Option<Instant>,
}

impl<M: Message> Slot<M> {
    /// Whether this actor is the one that lives here.
    fn is_of(&self, cell: &ActorCell) -> bool {
        matches!(&self.state, SlotState::Live(actor) if actor.get_id() == cell.get_id())
    }
}

enum SlotState<M: Message> {
    Live(ActorRef<M>),
    Restarting(String),
    Quarantined(String),
}

impl<K, M: Message> Clone for Roster<K, M> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Key, M: Message> Roster<K, M> {
    /// Starts the roster's supervisor under `parent`.
    pub(crate) async fn start(
        name: &str,
        policy: RestartPolicy,
        parent: Option<ActorCell>,
    ) -> Result<Self, ractor::SpawnErr> {
        let slots =
            Mutex::new(Slots { by_key: BTreeMap::new(), by_actor: BTreeMap::new(), is_closed: false });
        let inner = Arc::new(Inner { slots, spawn: OnceLock::new(), supervisor: OnceLock::new(), policy });
        let roster = Self { inner };
        let supervisor = Supervisor::<K, M> { name: name.to_owned(), watches: PhantomData };
        let (actor, _) = match parent {
            Some(parent) => Actor::spawn_linked(None, supervisor, roster.clone(), parent).await?,
            None => Actor::spawn(None, supervisor, roster.clone()).await?,
        };
        let is_first = roster.inner.supervisor.set(actor.get_cell()).is_ok();
        assert!(is_first, "a roster starts once");
        Ok(roster)
    }

    /// Says how an actor is spawned. Once, before the first message.
    pub(crate) fn spawn_with(
        &self,
        spawn: impl Fn(K, ActorCell) -> Option<ActorRef<M>> + Send + Sync + 'static,
    ) {
        let is_first = self.inner.spawn.set(Box::new(spawn)).is_ok();
        assert!(is_first, "a roster learns once how to spawn");
    }

    /// Hands a message over, activating the actor if it is not live.
    pub(crate) fn send(&self, key: K, message: M) -> Result<(), Undeliverable> {
        let mut slots = self.lock();
        if slots.is_closed {
            return Err(Undeliverable::Closed);
        }
        let message = match slots.by_key.get(&key).map(|slot| &slot.state) {
            Some(SlotState::Restarting(why)) => return Err(Undeliverable::Restarting(why.clone())),
            Some(SlotState::Quarantined(why)) => return Err(Undeliverable::Quarantined(why.clone())),
            Some(SlotState::Live(actor)) => match actor.cast(message) {
                Ok(()) => return Ok(()),
                // It stopped and its end has not been heard of yet.
                Err(ractor::MessagingErr::SendErr(message)) => message,
                Err(other) => return Err(Undeliverable::Restarting(other.to_string())),
            },
            None => message,
        };
        let actor = self.activate(&mut slots, key)?;
        actor.cast(message).map_err(|error| Undeliverable::Restarting(error.to_string()))
    }

    fn activate(&self, slots: &mut Slots<K, M>, key: K) -> Result<ActorRef<M>, Undeliverable> {
        let spawn = self.inner.spawn.get().expect("the roster knows how to spawn");
        let supervisor = self.inner.supervisor.get().expect("the roster has started").clone();
        let actor = spawn(key, supervisor).ok_or(Undeliverable::Closed)?;
        slots.by_actor.insert(actor.get_id(), key);
        let slot = slots.by_key.entry(key).or_insert_with(|| Slot {
            state: SlotState::Live(actor.clone()),
            panics: 0,
            last_panic: None,
        });
        slot.state = SlotState::Live(actor.clone());
        Ok(actor)
    }

    /// Keys that are quarantined, with the reason.
    pub(crate) fn quarantined(&self) -> Vec<(K, String)> {
        let slots = self.lock();
        let quarantined = slots.by_key.iter().filter_map(|(key, slot)| match &slot.state {
            SlotState::Quarantined(why) => Some((*key, why.clone())),
            SlotState::Live(_) | SlotState::Restarting(_) => None,
        });
        quarantined.collect()
    }

    /// Number of live actors.
    pub(crate) fn live(&self) -> usize {
        self.lock().by_key.values().filter(|slot| matches!(slot.state, SlotState::Live(_))).count()
    }

    /// Tells every live actor; answers how many were told.
    pub(crate) fn tell_live(&self, message: impl Fn() -> M) -> usize {
        let slots = self.lock();
        let live = slots.by_key.values().filter_map(|slot| match &slot.state {
            SlotState::Live(actor) => Some(actor),
            SlotState::Restarting(_) | SlotState::Quarantined(_) => None,
        });
        // One that has ended needs to be told nothing.
        live.filter(|actor| actor.cast(message()).is_ok()).count()
    }

    /// Refuses every further message, lets each live actor finish what is in its mailbox, and waits.
    pub(crate) async fn close(&self) {
        let actors: Vec<ActorRef<M>> = {
            let mut slots = self.lock();
            slots.is_closed = true;
            let live = slots.by_key.values().filter_map(|slot| match &slot.state {
                SlotState::Live(actor) => Some(actor.clone()),
                SlotState::Restarting(_) | SlotState::Quarantined(_) => None,
            });
            live.collect()
        };
        for actor in &actors {
            // An actor that has ended has drained.
            let _ = actor.drain();
        }
        for actor in actors {
            let _ = actor.get_cell().wait(Some(DRAIN_MAX)).await;
        }
    }

    /// The live actor of a key.
    pub(crate) fn cell(&self, key: K) -> Option<ActorCell> {
        match &self.lock().by_key.get(&key)?.state {
            SlotState::Live(actor) => Some(actor.get_cell()),
            SlotState::Restarting(_) | SlotState::Quarantined(_) => None,
        }
    }

    /// The actor that restarts them.
    pub(crate) fn supervisor(&self) -> Option<ActorCell> {
        self.inner.supervisor.get().cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Slots<K, M>> {
        self.inner.slots.lock().expect("nothing panics while it holds the roster")
    }

    /// Answers the key, and the pause if the actor is to be restarted; none if another has taken its place.
    fn failed(&self, cell: &ActorCell, why: &str) -> Option<(K, Option<Duration>)> {
        let mut slots = self.lock();
        let key = slots.by_actor.remove(&cell.get_id())?;
        let slot = slots.by_key.get_mut(&key).filter(|slot| slot.is_of(cell))?;
        let now = Instant::now();
        let is_in_a_row = slot.last_panic.is_some_and(|last| now - last < IN_A_ROW);
        slot.panics = if is_in_a_row { slot.panics + 1 } else { 1 };
        slot.last_panic = Some(now);
        if slot.panics > self.inner.policy.panics_max {
            slot.state = SlotState::Quarantined(why.to_owned());
            return Some((key, None));
        }
        slot.state = SlotState::Restarting(why.to_owned());
        let pause = self.inner.policy.pause.saturating_mul(1 << (slot.panics - 1).min(16)).min(PAUSE_MAX);
        Some((key, Some(pause)))
    }

    fn ended(&self, cell: &ActorCell) {
        let mut slots = self.lock();
        let Some(key) = slots.by_actor.remove(&cell.get_id()) else {
            return;
        };
        if slots.by_key.get(&key).is_some_and(|slot| slot.is_of(cell)) {
            slots.by_key.remove(&key);
        }
    }

    fn restart(&self, key: K) {
        let mut slots = self.lock();
        let is_due = matches!(slots.by_key.get(&key), Some(Slot { state: SlotState::Restarting(_), .. }));
        if is_due && !slots.is_closed {
            let _ = self.activate(&mut slots, key);
        }
    }
}

/// Longest wait for one actor's mailbox at shutdown. What is cut off resumes at the next start.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What a roster is keyed by.
pub(crate) trait Key: Ord + Copy + Display + Debug + Send + Sync + 'static {}

impl<T: Ord + Copy + Display + Debug + Send + Sync + 'static> Key for T {}

/// Watches the actors of one roster. The default handler would stop it at the first child's end.
struct Supervisor<K, M> {
    name: String,
    watches: PhantomData<fn(K, M)>,
}

/// Restarts after a pause.
struct Restart<K>(K);

impl<K: Key, M: Message> Actor for Supervisor<K, M> {
    type Msg = Restart<K>;
    type State = Roster<K, M>;
    type Arguments = Roster<K, M>;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        roster: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(roster)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        Restart(key): Self::Msg,
        roster: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        roster.restart(key);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        roster: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let failed = match &event {
            SupervisionEvent::ActorFailed(cell, error) => Some((cell.clone(), error.to_string())),
            // Whatever it was in the middle of is unfinished, as after a panic.
            SupervisionEvent::ActorTerminated(cell, _, Some(why)) if why == KILLED => {
                Some((cell.clone(), why.clone()))
            }
            _ => None,
        };
        match (failed, event) {
            (Some((cell, why)), _) => match roster.failed(&cell, &why) {
                Some((key, Some(pause))) => {
                    tracing::error!(%key, roster = self.name, why, ?pause, "actor failed, restarts");
                    myself.send_after(pause, move || Restart(key));
                }
                Some((key, None)) => {
                    tracing::error!(%key, roster = self.name, why, "actor failed and is quarantined");
                }
                None => tracing::warn!(roster = self.name, why, "an actor that was replaced failed"),
            },
            (None, SupervisionEvent::ActorTerminated(cell, _, _)) => roster.ended(&cell),
            (None, _) => {}
        }
        Ok(())
    }
}
