//! What the control plane of the stage calls the outside world, and what of it outlives every life.

use super::cloth::{Counted, WallClock};
use super::devices::Wire;
use super::life::{Life, MortalLog};
use super::line::Switchboard;
use super::state::Stage;
use crate::bug::Bug;
use crate::scenario::Scenario;
use actors::{Census, Env, Limits, SledConnector};
use bytes::Bytes;
use eventlog::cache::{CacheError, Row, Rows, Snapshot};
use eventlog::{Cache, Log, MemCache, Position, Record, StreamId, Version};
use lifecycle::{Instance, InstanceId, Retention, Span};
use projections::Projections;
use sim_sled::network::{SimProducers, SimSwitch};
use sled_protocol::{Producers, Switch};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Devices and cache: no process of ours.
pub(super) struct Outside {
    pub(super) switch: Arc<SimSwitch>,
    pub(super) producers: Arc<SimProducers>,
    cache: Arc<MemCache>,
}

impl Outside {
    pub(super) fn new() -> Self {
        Self { switch: Arc::default(), producers: Arc::default(), cache: Arc::default() }
    }

    /// The cache, as files that survive the process.
    pub(super) fn cache(&self, stage: &Arc<Stage>) -> Arc<dyn Cache> {
        if stage.scenario.bug == Some(Bug::StaleSnapshot) {
            return Arc::new(Forger { cache: Arc::clone(&self.cache), stage: Arc::downgrade(stage) });
        }
        Arc::clone(&self.cache) as Arc<dyn Cache>
    }
}

/// The world of one life.
pub(super) fn env(stage: &Arc<Stage>, life: &Arc<Life>) -> Env {
    let ids = Counted { life: life.nth, next: AtomicU64::new(1), seed: stage.scenario.seed };
    let outside = &stage.outside;
    Env {
        clock: Arc::new(WallClock(Arc::downgrade(stage))),
        ids: Arc::new(ids),
        log: Arc::new(MortalLog(Arc::clone(life))) as Arc<dyn Log>,
        cache: Some(outside.cache(stage)),
        connector: Arc::new(Switchboard { stage: Arc::downgrade(stage), life: Arc::clone(life) })
            as Arc<dyn SledConnector>,
        switch: Some(wire(stage, life, &outside.switch) as Arc<dyn Switch>),
        producers: Some(wire(stage, life, &outside.producers) as Arc<dyn Producers>),
        policy: stage.scenario.policy(),
        limits: limits(&stage.scenario),
        build: "chaos".to_owned(),
        fatal: life.fatal.clone(),
    }
}

/// Bounds as a daemon has them, but for what the scenario makes shorter so that a run sees it.
pub(super) fn limits(scenario: &Scenario) -> Limits {
    let mut limits = Limits { sled_lease: scenario.lease_s, ..Limits::default() };
    if let Some(seconds) = scenario.lease_s {
        limits.sled_lease_grace = actors::sled::lease_grace_min(seconds);
    }
    if let Some(after) = scenario.passivate_ms {
        limits.passivate_after = Duration::from_millis(after);
        limits.timers.passivation = Duration::from_secs(1);
    }
    if let Some(after) = scenario.retain_ms {
        limits.retention = Some(Retention { keep: Span::from_millis(after), batch: ARCHIVED_AT_ONCE });
        limits.timers.retention = Duration::from_secs(1);
    }
    if let Some(most) = scenario.queue_max {
        limits.instance_queue_max = most as usize;
        limits.commands_max = QUEUES * most as usize;
    }
    limits
}

/// Most instances that one run of retention archives.
const ARCHIVED_AT_ONCE: usize = 2;

/// How many instances' queues fit into what may wait in all.
const QUEUES: usize = 3;

fn wire<D>(stage: &Arc<Stage>, life: &Arc<Life>, device: &Arc<D>) -> Arc<Wire<D>> {
    let (stage, life, device) = (Arc::downgrade(stage), Arc::clone(life), Arc::clone(device));
    Arc::new(Wire { stage, life, device })
}

/// What the reapers look at: the real read model.
pub(super) struct ReadModelCensus(pub(super) Projections);

impl Census for ReadModelCensus {
    fn find(&self, wanted: &dyn Fn(&Instance) -> bool) -> Vec<InstanceId> {
        self.0.read(|model| model.instance_states().filter(|state| wanted(state)).map(|s| s.id).collect())
    }
}

/// The planted bug: snapshots that lack the newest events, under the newest place.
struct Forger {
    cache: Arc<MemCache>,
    stage: Weak<Stage>,
}

/// How many events a forged snapshot lacks.
const LACKS: u64 = 12;

impl Forger {
    /// The instance as it was some events ago.
    fn older(&self, stream: StreamId, newest: &Instance) -> Option<Instance> {
        let store = self.stage.upgrade()?.life().store();
        let records =
            store.read_stream(stream, Version::new(1), newest.head.version.saturating_sub(LACKS) as usize);
        let mut state = None;
        for recorded in records.ok()?.iter().filter_map(|record| journal::read(record).ok()) {
            if let journal::Event::Instance(event) = &recorded.event {
                lifecycle::evolve(&mut state, event, recorded.meta);
            }
        }
        state.map(|state: Instance| Instance { head: newest.head, ..state })
    }
}

impl Cache for Forger {
    fn indexed(&self) -> Result<Position, CacheError> {
        self.cache.indexed()
    }

    fn index(&self, records: &[Record]) -> Result<(), CacheError> {
        self.cache.index(records)
    }

    fn positions(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Position>, CacheError> {
        self.cache.positions(stream, from, limit)
    }

    fn snapshot(&self, stream: StreamId) -> Result<Option<Snapshot>, CacheError> {
        self.cache.snapshot(stream)
    }

    fn put_snapshot(&self, stream: StreamId, snapshot: &Snapshot) -> Result<(), CacheError> {
        let Ok(newest) = journal::decode_snapshot(&snapshot.state) else {
            return self.cache.put_snapshot(stream, snapshot);
        };
        let forged = self.older(stream, &newest).unwrap_or(newest);
        let state = journal::encode_snapshot(&forged);
        self.cache.put_snapshot(stream, &Snapshot { state, ..snapshot.clone() })
    }

    fn remove_snapshot(&self, stream: StreamId) -> Result<(), CacheError> {
        self.cache.remove_snapshot(stream)
    }

    fn apply(
        &self,
        projection: &str,
        checkpoint: Position,
        puts: &[Row],
        deletes: &[Bytes],
    ) -> Result<(), CacheError> {
        self.cache.apply(projection, checkpoint, puts, deletes)
    }

    fn row(&self, projection: &str, key: &[u8]) -> Result<Option<Bytes>, CacheError> {
        self.cache.row(projection, key)
    }

    fn rows(&self, projection: &str) -> Result<Rows, CacheError> {
        self.cache.rows(projection)
    }

    fn checkpoint(&self, projection: &str) -> Result<Position, CacheError> {
        self.cache.checkpoint(projection)
    }

    fn clear(&self, projection: &str) -> Result<(), CacheError> {
        self.cache.clear(projection)
    }

    fn distrust(&self, why: &str) {
        self.cache.distrust(why);
    }

    fn distrusted(&self) -> u64 {
        self.cache.distrusted()
    }
}
