//! The daemon's checkpoints: which one a start uses, and when another is made.
//!
//! Invariants:
//! * a log that has lost records is folded whole, and gets no checkpoint: what rests on the loss must be found;
//! * a log that ends before a checkpoint of it has lost its end: nothing starts until that is accepted;
//! * one is made at a time, on a thread of its own, with a pause between two;
//! * a checkpoint that cannot be made costs the next start time, and is logged; nothing else comes of it.

use crate::config::Checkpoint as Settings;
use crate::exit::{Exit, Failure};
use actors::SharedFold;
use checkpoint::{MakeError, State, advance, beyond_end, newest, set_beyond_aside};
use eventlog::journal::{Journal, Recovery, StoreId, TailLoss};
use eventlog::{Log, Position};
use projections::ReadModel;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Least pause after one that could not be made, seconds: what is in the way, such as a full disk, stays for a
/// while.
const FAILED_PAUSE_S: u64 = 30;
/// A clean stop makes a checkpoint if this part of what makes one due otherwise has been written since.
const STOP_PART: u64 = 16;

/// Where the checkpoints of a data directory are.
pub fn directory(data: &Path) -> PathBuf {
    data.join("checkpoints")
}

/// Whether the whole log is there to be folded: only then a checkpoint says what folding it would.
fn is_whole(recovery: &Recovery) -> bool {
    recovery.damaged.is_empty()
        && recovery.quarantined.is_empty()
        && recovery.lost.is_none()
        && recovery.nameless == 0
}

/// Notes in what opening the log found that a checkpoint knows more of it than there is: its end is lost, which is
/// refused unless it was accepted. Answers whether it was.
pub fn judge_end(
    data: &Path,
    journal: &Arc<Journal>,
    recovery: &mut Recovery,
    is_accepted: bool,
) -> Result<bool, Failure> {
    let (dir, durable) = (directory(data), journal.durable());
    let unreadable = |error: std::io::Error| {
        Failure::new(Exit::Refused, format!("the checkpoints in {} cannot be listed: {error}", dir.display()))
    };
    let Some(known) = beyond_end(&dir, journal.store_id(), durable).map_err(unreadable)? else {
        return Ok(false);
    };
    if !is_accepted {
        return Err(Failure::new(
            Exit::Damaged,
            format!("the log ends at position {durable}, and a checkpoint in {} knows it up to {known}: its end is lost", dir.display()),
        )
        .hint("restore a backup with `musher log restore`; `musher serve --accept-loss` opens it as it is, and records that"));
    }
    let witnessed = recovery.lost.as_ref().map_or(known, |lost| lost.witnessed.max(known));
    recovery.lost = Some(TailLoss { witnessed, found: durable });
    Ok(true)
}

/// Sees to it that a loss that was accepted, and recorded, is not found again.
pub fn forget_lost_end(data: &Path, durable: Position) {
    let dir = directory(data);
    if let Err(error) = set_beyond_aside(&dir, durable) {
        tracing::warn!(dir = %dir.display(), %error, "checkpoints beyond the log's end stay; they are not used");
    }
}

/// The checkpoint to start from; none if there is none, or none that may be used.
pub fn starting_point(data: &Path, journal: &Arc<Journal>, recovery: &Recovery) -> Option<State> {
    match checkpoint::sweep(&directory(data)) {
        Ok(true) => tracing::info!("an unfinished checkpoint was removed"),
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "an unfinished checkpoint is in the way of nothing, and stays"),
    }
    if !is_whole(recovery) {
        return None;
    }
    let found = newest(&directory(data), journal.store_id(), journal);
    for (path, why) in &found.refused {
        tracing::warn!(path = %path.display(), %why, "this checkpoint is not used");
    }
    found.state
}

/// What the parts of the daemon start with: the shared fold, and the read model if it is known.
pub fn parts(known: Option<State>) -> (SharedFold, Option<ReadModel>) {
    let Some(state) = known else {
        return (SharedFold::default(), None);
    };
    let position = state.position();
    (SharedFold { position, ledger: state.ledger, book: state.book }, Some(state.model))
}

/// Makes the checkpoints of one daemon.
pub struct Maker {
    dir: PathBuf,
    store: StoreId,
    log: Arc<dyn Log>,
    settings: Settings,
    /// Where the newest is. Held while one is made.
    newest: Mutex<Position>,
}

impl Maker {
    /// A maker for a log whose checkpoint at `newest` was started from; none if there are to be none.
    pub fn new(
        data: &Path,
        journal: &Arc<Journal>,
        recovery: &Recovery,
        settings: &Settings,
        newest: Position,
    ) -> Option<Arc<Self>> {
        if settings.events == 0 || !is_whole(recovery) {
            return None;
        }
        Some(Arc::new(Self {
            dir: directory(data),
            store: journal.store_id(),
            log: Arc::clone(journal) as Arc<dyn Log>,
            settings: settings.clone(),
            newest: Mutex::new(newest),
        }))
    }

    /// Makes one whenever it is due, until the log closes or the task is aborted.
    pub async fn run(self: Arc<Self>) {
        loop {
            let due = Position::new(self.position().get() + self.settings.events);
            if self.log.wait_durable(due).await.is_err() {
                return;
            }
            let is_made = Arc::clone(&self).make_aside(self.settings.events).await;
            let least = if is_made { 0 } else { FAILED_PAUSE_S };
            tokio::time::sleep(Duration::from_secs(self.settings.pause_s.max(least))).await;
        }
    }

    /// Where the newest is.
    fn position(&self) -> Position {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the last one before a clean stop, if enough has been written since the one before.
    pub async fn stop(self: Arc<Self>) {
        let least = (self.settings.events / STOP_PART).max(1);
        self.make_aside(least).await;
    }

    /// Answers whether there is nothing to make any more.
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing simulated waits for it, and its order does not matter"
    )]
    async fn make_aside(self: Arc<Self>, least: u64) -> bool {
        let made = tokio::task::spawn_blocking(move || self.make(least)).await;
        match &made {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "no checkpoint: the next start takes longer"),
            Err(error) => tracing::error!(%error, "making a checkpoint failed: the next start takes longer"),
        }
        matches!(made, Ok(Ok(())))
    }

    /// Makes one if `least` events have come since the newest.
    fn make(&self, least: u64) -> Result<(), MakeError> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if self.log.durable().get() < newest.get() + least {
            return Ok(());
        }
        if let Some(made) = advance(&self.dir, self.store, &self.log)? {
            tracing::info!(position = %made.position, base = %made.base, bytes = made.bytes, "checkpoint");
            *newest = made.position;
        }
        Ok(())
    }
}
