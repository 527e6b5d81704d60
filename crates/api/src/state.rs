//! What the handlers hold: the control plane, the read model, and whether the daemon is ready.

use crate::config::ApiConfig;
use actors::ControlPlane;
use eventlog::Position;
use eventlog::journal::{Compacted, StoreId, UpkeepError};
use eventlog::portable::BackupReport;
use projections::Projections;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Semaphore;

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
    phase: RwLock<Phase>,
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
        Self { phase: RwLock::new(Phase::Starting) }
    }
}

impl Readiness {
    /// The phase at present.
    pub fn phase(&self) -> Phase {
        // A phase is one word: a panic elsewhere cannot leave half of one.
        self.phase.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Enters a phase. Who has failed stays failed, with the first reason.
    pub fn enter(&self, phase: Phase) {
        let mut current = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*current, Phase::Failed(_)) {
            *current = phase;
        }
    }
}

/// Everything a handler can reach.
pub(crate) struct App {
    pub(crate) control: ControlPlane,
    pub(crate) projections: Projections,
    pub(crate) ready: Arc<Readiness>,
    pub(crate) build: String,
    pub(crate) keeper: Option<Arc<dyn LogKeeper>>,
    pub(crate) config: ApiConfig,
    /// One permit per request being worked on.
    pub(crate) permits: Semaphore,
}

impl App {
    pub(crate) fn new(state: ApiState, config: ApiConfig) -> Arc<Self> {
        let ApiState { control, projections, ready, build, keeper } = state;
        let permits = Semaphore::new(config.requests_max);
        Arc::new(Self { control, projections, ready, build, keeper, config, permits })
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
