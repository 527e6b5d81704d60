//! What readers hold: the model as it is, how far it is, whether it is well.

use crate::model::ReadModel;
use eventlog::{Position, StreamId};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::{Arc, PoisonError, RwLock};

/// What a reader is told when the projector was aborted or panicked.
const TASK_ENDED: &str = "its task ended";

/// What the projector is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has not reached what was durable when it was started.
    CatchingUp,
    /// It follows the log.
    Following,
    /// It has stopped, and why. What it has folded can still be read.
    Stopped(String),
}

/// How far the projector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) position: Position,
    pub(crate) stage: Stage,
    /// Why the cache is not as it should be, if it is not.
    pub(crate) cache_trouble: Option<String>,
}

/// Whether the read model is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What the projector is doing.
    pub stage: Stage,
    /// The last position folded in.
    pub position: Position,
    /// Streams that hold an event which cannot be read or applied, each with the reason.
    pub quarantined: Vec<(StreamId, String)>,
    /// Why the cache is not as it should be, if it is not: the next start may take longer.
    pub cache_trouble: Option<String>,
}

/// The awaited position will not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the read model stopped at position {position} ({why}); a restart folds the log again")]
pub struct Stopped {
    /// The last position folded in.
    pub position: Position,
    /// Why it stopped.
    pub why: String,
}

/// A handle to the read model. Clones share it.
#[derive(Clone)]
pub struct Projections {
    model: Arc<RwLock<ReadModel>>,
    progress: level::Receiver<Progress>,
}

impl Projections {
    pub(crate) const fn new(model: Arc<RwLock<ReadModel>>, progress: level::Receiver<Progress>) -> Self {
        Self { model, progress }
    }

    /// Looks at the model, which does not change meanwhile. `look` must be short: it holds up the projector.
    pub fn read<T>(&self, look: impl FnOnce(&ReadModel) -> T) -> T {
        // Applying an event does not panic. Were it to, the task would be over, `health` would say so, and
        // what was folded would still be worth reading.
        look(&self.model.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last position folded in.
    pub fn position(&self) -> Position {
        self.progress.borrow().position
    }

    /// Resolves once the position is folded in, or never will be. The caller bounds the wait.
    pub fn wait_for(&self, position: Position) -> BoxFuture<'static, Result<(), Stopped>> {
        wait_until(self.progress.clone(), move |progress| progress.position >= position).boxed()
    }

    /// Resolves once everything is folded in that was durable when the projector was started.
    pub fn caught_up(&self) -> BoxFuture<'static, Result<(), Stopped>> {
        wait_until(self.progress.clone(), |progress| progress.stage == Stage::Following).boxed()
    }

    /// Whether it is well, for people and probes.
    pub fn health(&self) -> Health {
        let quarantined =
            self.read(|model| model.quarantined().map(|(stream, why)| (stream, why.to_owned())).collect());
        let progress = self.progress.borrow().clone();
        let is_dead = self.progress.has_changed().is_err() && !matches!(progress.stage, Stage::Stopped(_));
        let stage = if is_dead { Stage::Stopped(TASK_ENDED.to_owned()) } else { progress.stage };
        Health { stage, position: progress.position, quarantined, cache_trouble: progress.cache_trouble }
    }
}

async fn wait_until(
    mut progress: level::Receiver<Progress>,
    is_there: impl Fn(&Progress) -> bool + Send + Sync,
) -> Result<(), Stopped> {
    let is_over = |progress: &Progress| matches!(progress.stage, Stage::Stopped(_));
    let last = match progress.wait_for(|now| is_there(now) || is_over(now)).await {
        Ok(now) if is_there(&now) => return Ok(()),
        Ok(now) => Some(now.clone()),
        Err(_) => None,
    };
    // Without its task the progress stays at what it was last.
    let last = last.unwrap_or_else(|| progress.borrow().clone());
    let why = match last.stage {
        Stage::Stopped(why) => why,
        Stage::CatchingUp | Stage::Following => TASK_ENDED.to_owned(),
    };
    Err(Stopped { position: last.position, why })
}
