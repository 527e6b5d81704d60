//! The network: pushes where instances are to every sled and the switch, and what produces metrics to the
//! registry.
//!
//! What is desired is decided with everything else, in the instance's own append; a push only carries it out.
//! Invariants:
//! * nothing waits for a push, and none is undone: a peer that is away is caught up when it is back;
//! * the log is read once, by the ledger, which leaves what is desired on the desk; each peer has a pusher of
//!   its own that converges to it;
//! * a mapping's generation is the log position of its decision, so that a reused address is never confused
//!   with its predecessor, whatever arrives when;
//! * every sled that is not expunged gets every mapping.

mod addresses;
mod desk;
mod peers;
mod pusher;

pub use addresses::{external_address, underlay_address};
pub(crate) use desk::Desk;

use crate::env::Env;
use lifecycle::{LeaseEpoch, SledId, Timestamp};
use peers::{Line, Peer, RegistryPeer, SharedLine, SledPeer, SwitchPeer};
use sled_protocol::{self as wire, SledClient};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

/// Comparisons of sleds under way at a time: each holds everything that is desired, which is megabytes.
const COMPARES_MAX: usize = 16;

/// Who is pushed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerName {
    /// The switch: NAT entries.
    Switch,
    /// The registry of metrics producers.
    Producers,
    /// A sled: V2P mappings.
    Sled(SledId),
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.write_str("switch"),
            Self::Producers => f.write_str("producers"),
            Self::Sled(id) => write!(f, "sled {id}"),
        }
    }
}

/// Why a peer is not pushed to at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What happened last.
    pub why: String,
    /// Since when nothing has succeeded.
    pub since: Timestamp,
    /// Failures since then.
    pub failures: u32,
}

/// How far one peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which.
    pub peer: PeerName,
    /// Log position up to which it has everything; none if this daemon has not finished a push yet.
    pub synced_to: Option<u64>,
    /// Changes that it does not have yet, as far as they are remembered (65536).
    pub behind: usize,
    /// When a push to it last succeeded.
    pub last_success: Option<Timestamp>,
    /// Why it is not pushed to, if it is not.
    pub trouble: Option<Trouble>,
}

/// How far the network is: the switch, the registry, then the sleds by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkStatus {
    /// Peers that are pushed to. A device that is not configured is not listed, nor is an expunged sled.
    pub peers: Vec<PeerStatus>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    synced_to: Option<u64>,
    last_success: Option<Timestamp>,
    trouble: Option<Trouble>,
}

/// What a pusher shows and hears.
struct Board {
    peer: PeerName,
    progress: Mutex<Progress>,
    /// The peer is back, or may have forgotten everything: compare.
    nudge: Notify,
}

impl Board {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pusher that runs; dropping it ends it.
struct Seat {
    board: Arc<Board>,
    line: SharedLine,
    task: JoinHandle<()>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Handle to all pushers.
#[derive(Clone)]
pub(crate) struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    env: Arc<Env>,
    desk: Arc<Desk>,
    compares: Arc<Semaphore>,
    seats: Mutex<Seats>,
    /// How many are pushed to.
    crowd: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Seats {
    by_peer: BTreeMap<PeerName, Seat>,
    is_closed: bool,
}

impl Network {
    /// Starts pushing to the devices; a sled's pusher starts when its actor speaks of it.
    pub(crate) fn start(env: Arc<Env>, desk: Arc<Desk>) -> Self {
        let compares = Arc::new(Semaphore::new(COMPARES_MAX));
        let (switch, producers) = (env.switch.clone(), env.producers.clone());
        let network = Self {
            inner: Arc::new(Inner { env, desk, compares, seats: Mutex::default(), crowd: Arc::default() }),
        };
        let alone = || Arc::new(Semaphore::new(1));
        let period = network.inner.env.limits.push.device_compare;
        let mut seats = network.lock();
        if let Some(switch) = switch {
            let seat =
                network.seat(PeerName::Switch, SharedLine::default(), SwitchPeer { switch }, period, alone());
            seats.by_peer.insert(PeerName::Switch, seat);
        }
        if let Some(producers) = producers {
            let peer = RegistryPeer { producers };
            let seat = network.seat(PeerName::Producers, SharedLine::default(), peer, period, alone());
            seats.by_peer.insert(PeerName::Producers, seat);
        }
        drop(seats);
        network
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.inner.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seat<P: Peer>(
        &self,
        peer: PeerName,
        line: SharedLine,
        receiver: P,
        compare_period: Duration,
        compares: Arc<Semaphore>,
    ) -> Seat {
        let board = Arc::new(Board { peer, progress: Mutex::default(), nudge: Notify::new() });
        let args = pusher::Args {
            env: Arc::clone(&self.inner.env),
            desk: Arc::clone(&self.inner.desk),
            peer: receiver,
            board: Arc::clone(&board),
            compare_period,
            compares,
            crowd: Arc::clone(&self.inner.crowd),
        };
        Seat { board, line, task: tokio::spawn(pusher::push(args)) }
    }

    /// The line to a sled and its board; its pusher is started if there is none. None once all is closed.
    fn sled(&self, sled: SledId) -> Option<(SharedLine, Arc<Board>)> {
        let mut seats = self.lock();
        if seats.is_closed {
            return None;
        }
        let seat = seats.by_peer.entry(PeerName::Sled(sled)).or_insert_with(|| {
            let line = SharedLine::default();
            let peer = SledPeer { line: Arc::clone(&line) };
            let period = self.inner.env.limits.push.sled_compare;
            self.seat(PeerName::Sled(sled), line, peer, period, Arc::clone(&self.inner.compares))
        });
        let found = (Arc::clone(&seat.line), Arc::clone(&seat.board));
        self.inner.crowd.store(seats.by_peer.len(), Ordering::Relaxed);
        Some(found)
    }

    /// There is such a sled; it is pushed to once it is found.
    pub(crate) fn known(&self, sled: SledId) {
        self.sled(sled);
    }

    /// The sled has answered, and can be pushed to.
    pub(crate) fn found(&self, sled: SledId, client: &Arc<dyn SledClient>, epoch: LeaseEpoch) {
        let Some((line, board)) = self.sled(sled) else {
            return;
        };
        let epoch = wire::LeaseEpoch::new(epoch.get());
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |line: &Line| line.epoch == epoch && Arc::ptr_eq(&line.client, client);
        if !line.as_ref().is_some_and(is_same) {
            *line = Some(Line { client: Arc::clone(client), epoch });
            board.nudge.notify_one();
        }
    }

    /// The sled does not answer: it is left alone until it is found.
    pub(crate) fn lost(&self, sled: SledId) {
        if let Some(seat) = self.lock().by_peer.get(&PeerName::Sled(sled)) {
            *seat.line.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The sled is gone for good.
    pub(crate) fn expunged(&self, sled: SledId) {
        let mut seats = self.lock();
        seats.by_peer.remove(&PeerName::Sled(sled));
        self.inner.crowd.store(seats.by_peer.len(), Ordering::Relaxed);
    }

    /// How far each peer is.
    pub(crate) fn status(&self) -> NetworkStatus {
        let boards: Vec<Arc<Board>> =
            self.lock().by_peer.values().map(|seat| Arc::clone(&seat.board)).collect();
        let peers = boards.into_iter().map(|board| {
            let Progress { synced_to, last_success, trouble } = board.progress().clone();
            let since = synced_to.unwrap_or(0);
            let behind = match board.peer {
                PeerName::Producers => self.inner.desk.producers_behind(since),
                PeerName::Switch | PeerName::Sled(_) => self.inner.desk.mappings_behind(since),
            };
            PeerStatus { peer: board.peer, synced_to, behind, last_success, trouble }
        });
        NetworkStatus { peers: peers.collect() }
    }

    /// Ends every pusher; what was not pushed is pushed after the next start.
    pub(crate) fn close(&self) {
        let mut seats = self.lock();
        seats.is_closed = true;
        seats.by_peer.clear();
    }
}
