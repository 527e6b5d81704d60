//! The task that keeps the read model current: load, follow, apply in batches, checkpoint.
//!
//! Invariants:
//! * readers see the model between batches, never within one event;
//! * a position is announced after it can be read;
//! * the checkpoint is written after the position is announced, and without the model's lock;
//! * the task ends when the log closes (with a last checkpoint) or fails; it never panics on what it reads.

use crate::checkpoint::Checkpoints;
use crate::handle::{Progress, Projections, Stage};
use crate::model::ReadModel;
use eventlog::{Cache, Log, Position, ReadError, Record};
use futures::StreamExt;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::task::JoinHandle;

/// Most records applied under one lock: readers wait about a millisecond for it.
pub const BATCH_RECORDS_MAX: usize = 256;

/// Records between two checkpoints: what a start after a crash has to fold again, in milliseconds.
pub const CHECKPOINT_RECORDS: u64 = 4096;

/// Starts the projector on the current runtime. What the cache holds can be read when this returns; the rest
/// is folded by the task, which ends when the log closes.
pub fn spawn(log: Arc<dyn Log>, cache: Option<Arc<dyn Cache>>) -> (Projections, JoinHandle<()>) {
    let target = log.durable();
    let (checkpoints, loaded) = Checkpoints::open(cache, target);
    let checkpoint = loaded.position();
    start(log, target, (checkpoints, checkpoint), loaded)
}

/// The same from a model that is known, which must be of this log's past: the cache is kept beside it.
pub fn spawn_from(
    log: Arc<dyn Log>,
    cache: Option<Arc<dyn Cache>>,
    known: ReadModel,
) -> (Projections, JoinHandle<()>) {
    let target = log.durable();
    assert!(known.position() <= target, "a model does not know more than the log");
    let kept = Checkpoints::beside(cache, known.position(), target);
    start(log, target, kept, known)
}

fn start(
    log: Arc<dyn Log>,
    target: Position,
    (checkpoints, checkpoint): (Checkpoints, Position),
    loaded: ReadModel,
) -> (Projections, JoinHandle<()>) {
    let position = loaded.position();
    let stage = if position >= target { Stage::Following } else { Stage::CatchingUp };
    let (progress, watching) = level::channel(Progress { position, stage, cache_trouble: None });
    let model = Arc::new(RwLock::new(loaded));
    let handle = Projections::new(Arc::clone(&model), watching);
    let projector = Projector { model, checkpoints, progress, target, checkpoint };
    (handle, tokio::spawn(projector.run(log)))
}

struct Projector {
    model: Arc<RwLock<ReadModel>>,
    checkpoints: Checkpoints,
    progress: level::Sender<Progress>,
    /// What was durable at the start.
    target: Position,
    /// Position of the last checkpoint that was tried, or that the cache holds: none is written before it.
    checkpoint: Position,
}

impl Projector {
    async fn run(mut self, log: Arc<dyn Log>) {
        let mut batches = log.follow(self.position().next()).ready_chunks(BATCH_RECORDS_MAX);
        let mut why = "the log is closed".to_owned();
        while let Some(batch) = batches.next().await {
            if let Err(stop) = self.take(batch) {
                tracing::error!(why = %stop, "the read model stops");
                why = stop;
                break;
            }
            if self.position().get().saturating_sub(self.checkpoint.get()) >= CHECKPOINT_RECORDS {
                self.save();
            }
            // A long catch-up lets others run.
            tokio::task::yield_now().await;
        }
        if self.position() > self.checkpoint {
            self.save();
        }
        self.progress.send_modify(|progress| progress.stage = Stage::Stopped(why));
    }

    fn position(&self) -> Position {
        self.progress.borrow().position
    }

    /// Applies a batch and announces how far it went; answers why it went no further.
    fn take(&mut self, batch: Vec<Result<Record, ReadError>>) -> Result<(), String> {
        let mut outcome = Ok(());
        let position = {
            let mut model = self.model.write().unwrap_or_else(PoisonError::into_inner);
            for item in batch {
                let applied = match item {
                    Ok(record) => model.apply_record(&record).map_err(|error| error.to_string()),
                    Err(ReadError::Damaged { last: Some(last), streams, detail, .. }) => {
                        Ok(model.pass_over(last.get(), &streams, &detail))
                    }
                    Err(error) => Err(error.to_string()),
                };
                match applied {
                    Ok(changed) => self.checkpoints.note(changed),
                    Err(why) => {
                        outcome = Err(why);
                        break;
                    }
                }
            }
            model.position()
        };
        let target = self.target;
        self.progress.send_modify(|progress| {
            progress.position = position;
            if position >= target {
                progress.stage = Stage::Following;
            }
        });
        outcome
    }

    fn save(&mut self) {
        let writing = {
            let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
            self.checkpoints.prepare(&model)
        };
        if let Some(writing) = writing {
            self.checkpoints.write(&writing);
        }
        self.checkpoint = self.position();
        let trouble = self.checkpoints.trouble().map(str::to_owned);
        self.progress.send_modify(|progress| progress.cache_trouble = trouble);
    }
}
