//! Snapshots: a fold kept beside the log so that loading an instance need not begin at its creation.
//!
//! They are caches: one that is missing, of another fold, or not of this stream's past costs a longer
//! read. The fence never rests on them.

use crate::env::Env;
use crate::writer::FoldedTo;
use eventlog::cache::Snapshot;
use eventlog::{Position, Version};
use journal::{FOLD_VERSION, StreamName, decode_snapshot, encode_snapshot};
use lifecycle::Instance;

/// Events between two snapshots of an instance: reading fewer costs less than a snapshot saves.
const EVENTS_BETWEEN: u64 = 64;

/// The newest snapshot, if there is a usable one.
pub(super) fn load(env: &Env, stream: StreamName) -> Option<Instance> {
    let cache = env.cache.as_ref()?;
    let snapshot = match cache.snapshot(stream.id()) {
        Ok(snapshot) => snapshot?,
        Err(error) => {
            tracing::warn!(%stream, %error, "snapshot cannot be read");
            return None;
        }
    };
    if snapshot.fold != FOLD_VERSION {
        return None;
    }
    match decode_snapshot(&snapshot.state) {
        Ok(instance) if instance.head.version == snapshot.version.get() => Some(instance),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%stream, %error, "snapshot cannot be understood");
            None
        }
    }
}

/// How far a snapshot has folded.
pub(super) fn folded_to(instance: &Instance) -> FoldedTo {
    let head = instance.head;
    FoldedTo { version: head.version, position: head.position, time: head.time }
}

/// Whether a new snapshot would shorten the next loading enough.
pub(super) fn is_worth(instance: &Instance, snapshot_version: u64) -> bool {
    instance.head.version >= snapshot_version + EVENTS_BETWEEN
}

/// Keeps a snapshot. Failing to costs time only.
pub(super) fn save(env: &Env, stream: StreamName, instance: &Instance) {
    let Some(cache) = &env.cache else {
        return;
    };
    let snapshot = Snapshot {
        version: Version::new(instance.head.version),
        position: Position::new(instance.head.position),
        fold: FOLD_VERSION,
        state: encode_snapshot(instance),
    };
    if let Err(error) = cache.put_snapshot(stream.id(), &snapshot) {
        tracing::warn!(%stream, %error, "snapshot is not kept");
    }
}

/// Drops the snapshot of what is archived: nothing loads it any more.
pub(super) fn forget(env: &Env, stream: StreamName) {
    if let Some(cache) = &env.cache
        && let Err(error) = cache.remove_snapshot(stream.id())
    {
        tracing::debug!(%stream, %error, "snapshot is not dropped");
    }
}
