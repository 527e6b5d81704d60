//! The journal under test: on real files, and on a disk that misbehaves.

mod bad_input;
mod conform;
mod damage;
mod disk;
mod faults;
mod mutation;
mod offline;
mod power;
mod proof;
mod quarantine;
mod recover;
mod upkeep;

use super::files::Files;
use super::format::{WITNESS_NAME, heads_name, segment_name};
use super::{Journal, JournalConfig, OpenError, Recovery, StoreId};
use crate::conformance::shape::extend;
use crate::types::{NewEvent, Position, StreamId};
use disk::Disk;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const STORE: StoreId = StoreId([0x5a; 16]);

fn dir() -> PathBuf {
    PathBuf::from("/journal")
}

fn segment(first: u64) -> PathBuf {
    dir().join(segment_name(Position::new(first)))
}

fn heads(position: u64) -> PathBuf {
    dir().join(heads_name(Position::new(position)))
}

fn witness() -> PathBuf {
    dir().join(WITNESS_NAME)
}

/// Small segments and a small ring, so that little data crosses every edge; no witness between opening and
/// closing, so that tests decide what is witnessed.
fn small() -> JournalConfig {
    JournalConfig {
        segment_bytes: 4 << 10,
        ring_bytes_max: 8 << 10,
        witness_every_ms: 3_600_000,
        ballast_bytes: 8 << 10,
        ..JournalConfig::new(STORE)
    }
}

fn large() -> JournalConfig {
    JournalConfig { segment_bytes: 64 << 10, ..small() }
}

fn open_with(disk: &Disk, config: JournalConfig) -> Result<(Journal, Recovery), OpenError> {
    Journal::open_on(Arc::new(disk.clone()), Path::new("/journal"), config)
}

fn open(disk: &Disk) -> Journal {
    open_with(disk, small()).unwrap().0
}

fn files(disk: &Disk) -> Arc<dyn Files> {
    Arc::new(disk.clone())
}

async fn put(
    journal: &Journal,
    stream: StreamId,
    events: impl IntoIterator<Item = NewEvent>,
) -> (Position, Position) {
    extend(journal, stream, events).await
}
