//! A durable, ordered log of streams of bytes.
//!
//! The one idea: **an append is durable, in order and guarded by the version it expects, or it did not
//! happen.** The log knows streams, versions and positions; what the bytes mean is somebody else's
//! business.
//!
//! Invariants, checked by the conformance suite on every implementation:
//! * positions are gapless from 1 over the whole log; versions are gapless from 1 in each stream;
//! * an append of several events is visible whole or not at all, before and after any crash;
//! * nothing is visible to a reader or a follower, and no append is answered `Appended`, before it is
//!   durable;
//! * an append that names another version than the stream's head changes nothing (`Conflict`);
//! * an append under another epoch than the stream's newest claim changes nothing (`Fenced`): owners from
//!   before the log was opened have to claim again;
//! * after a failed sync the log is poisoned: it refuses every append until it is opened again.

pub mod cache;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod failpoints;
mod gate;
pub mod journal;
pub mod log;
pub mod portable;
mod record;
pub mod sim;
pub mod types;
mod waiting;

pub use cache::{Cache, MemCache, SledCache};
pub use journal::{Journal, JournalConfig, JournalReader, StoreId, StoreLock};
pub use log::{Follower, Log, LogFuture, LogStats, ReadError};
pub use sim::{SimLog, SimStore, Survival, SyncMode};
pub use types::{
    Append, AppendContext, AppendOutcome, Cause, Claim, CodecId, Epoch, Head, LIMITS, Limits, NewEvent,
    Position, Record, StreamId, StreamKind, TraceContext, Unavailable, Version,
};
