//! What the control plane of the stage calls the outside world.

use super::book::Book;
use super::devices::{MortalProducers, MortalSwitch};
use super::life::{Life, MortalLog};
use super::line::Switchboard;
use actors::{Census, Clock, Env, Fatal, IdSource, Limits, SledConnector};
use eventlog::{Cache, Log, MemCache};
use lifecycle::{Instance, InstanceId, Policy, Timestamp};
use sim_sled::network::{SimProducers, SimSwitch};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;
use uuid::Uuid;

/// The wall clock when the paused clock begins, microseconds since the Unix epoch.
pub(super) const EPOCH_MICROS: u64 = 1_700_000_000_000_000;

/// Incarnations draw from disjoint ids.
const IDS_PER_LIFE: u64 = 1 << 32;

/// A wall clock on tokio's paused one.
pub(super) struct PausedClock(pub(super) Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(
            EPOCH_MICROS + u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX / 2),
        )
    }
}

/// Ids that count, far enough apart that none is near another.
pub(super) struct Counting {
    next: AtomicU64,
    is_rotten: Arc<AtomicBool>,
}

impl IdSource for Counting {
    fn uuid(&self) -> Uuid {
        assert!(!self.is_rotten.swap(false, Ordering::Relaxed), "the scenario wants this actor to panic");
        Uuid::from_u128(u128::from(self.next.fetch_add(1, Ordering::Relaxed)) << 8)
    }

    fn dice(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// What every incarnation of one run shares.
pub(super) struct Outside {
    pub(super) origin: Instant,
    pub(super) cache: Arc<MemCache>,
    pub(super) switch: Arc<SimSwitch>,
    pub(super) producers: Arc<SimProducers>,
    pub(super) policy: Policy,
    pub(super) limits: Limits,
    /// Whether whoever next asks for an id panics.
    pub(super) is_rotten: Arc<AtomicBool>,
}

impl Outside {
    /// The world of incarnation number `nth`.
    pub(super) fn env(&self, life: &Arc<Life>, connector: Switchboard, nth: u64, fatal: Fatal) -> Env {
        let log: Arc<dyn Log> = Arc::new(MortalLog(Arc::clone(life)));
        let ids =
            Counting { next: AtomicU64::new(nth * IDS_PER_LIFE), is_rotten: Arc::clone(&self.is_rotten) };
        let (switch, producers) = (Arc::clone(&self.switch), Arc::clone(&self.producers));
        Env {
            clock: Arc::new(PausedClock(self.origin)),
            ids: Arc::new(ids),
            log,
            cache: Some(Arc::clone(&self.cache) as Arc<dyn Cache>),
            connector: Arc::new(connector) as Arc<dyn SledConnector>,
            switch: Some(Arc::new(MortalSwitch { life: Arc::clone(life), inner: switch })),
            producers: Some(Arc::new(MortalProducers { life: Arc::clone(life), inner: producers })),
            policy: self.policy,
            limits: self.limits.clone(),
            build: "conformance".to_owned(),
            fatal,
        }
    }
}

/// The read model that the reapers look at: the book, read up to what is durable.
pub(super) struct BookCensus {
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) life: Arc<Life>,
}

impl Census for BookCensus {
    fn find(&self, wanted: &dyn Fn(&Instance) -> bool) -> Vec<InstanceId> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(journal) = self.life.journal() {
            book.look(&journal);
        }
        book.instances.values().filter(|state| wanted(state)).map(|state| state.id).collect()
    }
}
