//! Making a journal from a backup.
//!
//! Invariants:
//! * every file is compared with the manifest while it is copied, and the journal made is verified as a whole
//!   before it gets its name;
//! * the backup is only read.

use super::backup::{copy_checked, read_manifest};
use super::error::Error;
use super::place::Place;
use crate::journal::StoreId;
use crate::journal::transfer;
use crate::types::Position;
use std::fs::File;
use std::path::Path;

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// Identity of the store, that of the backup.
    pub store: StoreId,
    /// Last position.
    pub position: Position,
    /// Number of streams.
    pub streams: u64,
    /// Number of segments.
    pub segments: u64,
}

/// Makes a journal in `to`, which is absent or empty, from the backup in `from`. It is durable and verified when
/// this returns.
pub fn restore(from: &Path, to: &Path) -> Result<RestoreReport, Error> {
    let manifest = read_manifest(from)?.ok_or_else(|| Error::NoBackup { path: from.into() })?;
    let place = Place::begin(to)?;
    let base = manifest.base.iter().map(|base| (transfer::base_name(base.last), base));
    let segments = manifest.segments.iter().map(|it| (format!("{:020}.seg", it.first.get()), it));
    for (name, entry) in base.chain(segments) {
        let path = place.dir().join(name);
        let mut file = File::create_new(&path).map_err(Error::io("creating", &path))?;
        copy_checked(&from.join(&entry.name), entry, &mut file)?;
        file.sync_all().map_err(Error::io("syncing", &path))?;
    }
    transfer::write_witness(place.dir(), manifest.store, manifest.position, manifest.chain)
        .map_err(Error::io("writing the witness in", place.dir()))?;
    let verified = place.finish(manifest.position)?;
    Ok(RestoreReport {
        store: manifest.store,
        position: manifest.position,
        streams: verified.streams,
        segments: verified.segments,
    })
}
