//! Retention: the events of an instance that was deleted long ago are copied into a file, and the read models
//! forget it.
//!
//! ```text
//! due ──▶ file written, synced, named ──▶ `Archived` durable ──▶ read models forget it
//!      (1)                            (2)                     (3)
//! ```
//!
//! A crash at 1 leaves nothing, or half a file under another name. At 2 it leaves a file that nothing refers
//! to: the next run finds it whole and records it. At 3 the next fold forgets. No step is undone.
//!
//! Invariants:
//! * the fact comes after the file is durable, and says what the file holds;
//! * only what is over is archived: the core looks again before it says so;
//! * a run archives a bounded number, and one that cannot be archived holds up no other.

use crate::env::Env;
use crate::instance::InstanceMsg;
use crate::instances::Instances;
use futures::future::BoxFuture;
use lifecycle::input::Input;
use lifecycle::{ArchiveFile, InstanceId, Retention, Timestamp};

/// Knows what is due, and keeps it.
pub trait Archive: Send + Sync {
    /// Instances that were deleted at `until` or before, of which nothing is left and which are not archived; at
    /// most `limit`, the oldest first. May lag behind the log.
    fn due(&self, until: Timestamp, limit: usize) -> Vec<InstanceId>;

    /// Copies the instance's whole stream into a file, which is durable when this resolves. Doing it again
    /// answers the same. The error says what was in the way.
    fn keep(&self, instance: InstanceId) -> BoxFuture<'static, Result<ArchiveFile, String>>;

    /// Moves the oldest part of the log to where it is still read, if that is wished; answers how many files were
    /// moved. The error says what was in the way.
    fn trim(&self) -> BoxFuture<'static, Result<u64, String>>;
}

/// One run; answers how many were archived, and why one of the others was not.
pub(crate) async fn run(
    env: &Env,
    instances: &Instances,
    archive: &dyn Archive,
    retention: Retention,
) -> (usize, Option<String>) {
    let until = retention.due_by(env.clock.now());
    let (mut kept, mut trouble) = (0, None);
    for id in archive.due(until, retention.batch) {
        match archive.keep(id).await {
            Ok(file) => {
                kept += 1;
                // One that restarts, or is lost, is found again by the next run.
                let _ = instances.send(id, InstanceMsg::Learned(Input::Archived(file)));
            }
            Err(error) => {
                tracing::warn!(instance = %id, error, "not archived");
                trouble = Some(format!("instance {id}: {error}"));
            }
        }
    }
    match archive.trim().await {
        Ok(0) => {}
        Ok(segments) => tracing::info!(segments, "moved to the archive"),
        Err(error) => {
            tracing::warn!(error, "the log is not trimmed");
            trouble = Some(format!("segments: {error}"));
        }
    }
    (kept, trouble)
}
