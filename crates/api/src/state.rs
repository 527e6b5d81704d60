//! What the handlers hold: the control plane, the read model, and whether the daemon is ready.

use crate::auth::Access;
use crate::config::ApiConfig;
use crate::keyed::Doors;
use crate::metrics::Traffic;
use crate::spans::SpanTally;
use crate::views::Moment;
use crate::watcher::Watcher;
use actors::ControlPlane;
use eventlog::journal::{Compacted, StoreId, UpkeepError};
use eventlog::portable::BackupReport;
use eventlog::{Log, Position};
use projections::Projections;
use replay::WithArchive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// What both listeners serve. Clones share it.
#[derive(Clone)]
pub struct ApiState {
    /// What commands go to.
    pub control: ControlPlane,
    /// What lists and lookups are answered from.
    pub projections: Projections,
    /// What `/readyz` says.
    pub ready: Arc<Readiness>,
    /// Build version, shown by `/healthz`.
    pub build: String,
    /// Who keeps the log's files; none if there are none.
    pub keeper: Option<Arc<dyn LogKeeper>>,
    /// Where the histories are that have left the log, if there is such a directory.
    pub archive: Option<PathBuf>,
    /// What became of spans that are exported; shown by `/metrics`.
    pub spans: Arc<SpanTally>,
    /// Who may come in where clients are listened to.
    pub access: Access,
    /// Who may come in where sleds are.
    pub sled_access: Access,
}

/// Why the log was not carried away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepError {
    /// What was asked for cannot be: another place may do.
    Refused(String),
    /// It did not work out.
    Failed(String),
}

/// Who keeps the log's files. Its calls block on the disk.
pub trait LogKeeper: Send + Sync {
    /// Identity of the store.
    fn store_id(&self) -> StoreId;

    /// Backs up everything up to a durable position into a directory of this host.
    fn backup(&self, position: Position, to: &Path) -> Result<BackupReport, KeepError>;

    /// Compresses sealed segments, oldest first, at most so many.
    fn compact(&self, segments_max: usize) -> Result<Compacted, UpkeepError>;
}

/// Whether the daemon takes requests; set by whoever runs it.
#[derive(Debug)]
pub struct Readiness {
    phase: watch::Sender<Phase>,
    recovered_in: OnceLock<Duration>,
}

/// Where the daemon is between its start and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It reads the log.
    Starting,
    /// It serves.
    Ready,
    /// It lets requests under way finish.
    ShuttingDown,
    /// It must end; the reason is for people.
    Failed(String),
}

impl Default for Readiness {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Starting), recovered_in: OnceLock::new() }
    }
}

impl Readiness {
    /// The phase at present.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Enters a phase. Who has failed stays failed, with the first reason.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let is_open = !matches!(current, Phase::Failed(_));
            if is_open {
                *current = phase;
            }
            is_open
        });
    }

    /// Says how long it took from opening the log to serving. The first word counts.
    pub fn recovered(&self, took: Duration) {
        let _ = self.recovered_in.set(took);
    }

    /// How long it took from opening the log to serving; none if nobody has said.
    pub fn recovered_in(&self) -> Option<Duration> {
        self.recovered_in.get().copied()
    }

    /// Resolves once the daemon ends: answers without an end of their own end then.
    pub(crate) async fn ending(&self) {
        let mut phase = self.phase.subscribe();
        let is_ending = |phase: &Phase| matches!(phase, Phase::ShuttingDown | Phase::Failed(_));
        // This handle keeps the sender alive.
        let _ = phase.wait_for(is_ending).await;
    }
}

/// Everything a handler can reach.
pub(crate) struct App {
    pub(crate) control: ControlPlane,
    /// The log with what has left it: what questions about the past are answered from.
    pub(crate) past: WithArchive<Arc<dyn Log>>,
    pub(crate) projections: Projections,
    pub(crate) ready: Arc<Readiness>,
    pub(crate) build: String,
    pub(crate) keeper: Option<Arc<dyn LogKeeper>>,
    pub(crate) spans: Arc<SpanTally>,
    pub(crate) access: Access,
    pub(crate) config: ApiConfig,
    /// One permit per request being worked on.
    pub(crate) permits: Semaphore,
    /// One permit per report of a sled being worked on, and one per registration.
    pub(crate) reports: Semaphore,
    pub(crate) registrations: Semaphore,
    /// One permit more per registration of a sled that has registered before.
    pub(crate) registrations_known: Semaphore,
    /// One permit per open feed of events.
    pub(crate) feeds: Arc<Semaphore>,
    /// Taken by who folds the fleet of another moment: one at a time.
    pub(crate) folding: Arc<Semaphore>,
    /// The fleet of another moment that was folded last, for its further pages.
    pub(crate) fleet: Mutex<Option<Arc<replay::Fleet>>>,
    /// Requests with a key that are under way.
    pub(crate) doors: Doors,
    /// What follows the log; none where sleds are listened to.
    pub(crate) watcher: Option<Watcher>,
    /// Requests, counted.
    pub(crate) traffic: Traffic,
}

impl App {
    /// What the listener for clients serves from. Follows the log on the current runtime.
    pub(crate) fn for_clients(state: ApiState, config: ApiConfig) -> Arc<Self> {
        let watcher = Watcher::start(Arc::clone(state.control.log()), state.control.now());
        Self::new(state, config, Some(watcher))
    }

    /// What the listener for sleds serves from.
    pub(crate) fn for_sleds(state: ApiState, config: ApiConfig) -> Arc<Self> {
        Self::new(ApiState { access: state.sled_access.clone(), ..state }, config, None)
    }

    /// What views of instances depend on besides the instance.
    pub(crate) fn moment(&self) -> Moment {
        Moment { policy: self.control.policy(), now: self.control.now() }
    }

    fn new(state: ApiState, config: ApiConfig, watcher: Option<Watcher>) -> Arc<Self> {
        let ApiState { control, projections, ready, build, keeper, archive, spans, access, sled_access: _ } =
            state;
        let past = WithArchive::new(Arc::clone(control.log()), archive.as_deref());
        let permits = Semaphore::new(config.requests_max);
        let (reports, registrations) =
            (Semaphore::new(config.reports_max), Semaphore::new(config.registrations_max));
        let registrations_known = Semaphore::new(config.registrations_known_max);
        let feeds = Arc::new(Semaphore::new(config.feeds_max));
        let (doors, traffic) = (Doors::default(), Traffic::default());
        Arc::new(Self {
            control,
            past,
            projections,
            ready,
            build,
            keeper,
            spans,
            access,
            config,
            permits,
            reports,
            registrations,
            registrations_known,
            feeds,
            folding: Arc::new(Semaphore::new(1)),
            fleet: Mutex::default(),
            doors,
            watcher,
            traffic,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_failed_stays_failed_with_the_first_reason() {
        let ready = Readiness::default();
        assert_eq!(ready.phase(), Phase::Starting);
        ready.enter(Phase::Ready);
        assert_eq!(ready.phase(), Phase::Ready);
        ready.enter(Phase::Failed("first".to_owned()));
        ready.enter(Phase::Failed("second".to_owned()));
        ready.enter(Phase::ShuttingDown);
        assert_eq!(ready.phase(), Phase::Failed("first".to_owned()));
    }
}
