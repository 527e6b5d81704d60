//! Snapshots: an instance's fold as bytes, to shorten its replay. Disposable, and checked before use.
//!
//! Invariants:
//! * a snapshot of another fold version is refused, and the stream is folded instead;
//! * a snapshot that is read satisfies the invariants of the rules: it never makes them panic;
//! * the layout follows the type, so [`FOLD_VERSION`] rises whenever `Instance` or `evolve` changes.

use crate::codec;
use bytes::Bytes;
use lifecycle::{Instance, SagaKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{Read, Write};

/// Version of the fold: of the layout of `Instance`, and of what `evolve` makes of the same events.
pub const FOLD_VERSION: u32 = 3;

/// Why a snapshot is of no use. Never an error for users: the stream is folded from its events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Another build made it.
    #[error("the snapshot is of fold version {found}, this build's is {FOLD_VERSION}")]
    OtherFold {
        /// What it says.
        found: u32,
    },
    /// Its bytes are no instance, or one that cannot be.
    #[error("the snapshot is malformed: {0}")]
    Malformed(String),
}

/// The snapshot's bytes, the fold version first.
pub fn encode_snapshot(instance: &Instance) -> Bytes {
    let mut bytes = FOLD_VERSION.to_le_bytes().to_vec();
    bytes.extend_from_slice(&codec::encode_disposable(instance));
    Bytes::from(bytes)
}

/// The instance as it was when the snapshot was made.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Instance, SnapshotError> {
    let Some((version, body)) = bytes.split_first_chunk() else {
        return Err(SnapshotError::Malformed("it is cut off before its fold version".to_owned()));
    };
    let found = u32::from_le_bytes(*version);
    if found != FOLD_VERSION {
        return Err(SnapshotError::OtherFold { found });
    }
    let instance: Instance =
        codec::decode_disposable(body).map_err(|error| SnapshotError::Malformed(error.to_string()))?;
    refers_to_what_it_has(&instance)?;
    Ok(instance)
}

/// The rules index VMMs and migrations by the slots, and VMMs by the linked migration: what dangles would be a
/// panic later.
fn refers_to_what_it_has(instance: &Instance) -> Result<(), SnapshotError> {
    let vmms = [instance.active, instance.target, instance.saga.as_ref().map(|saga| saga.vmm)];
    let has_vmms = vmms.into_iter().flatten().all(|id| instance.vmms.contains_key(&id));
    let has_migration = instance.migration.is_none_or(|id| {
        let both = instance.migrations.get(&id).map(|migration| [migration.source.vmm, migration.target.vmm]);
        both.is_some_and(|vmms| vmms.iter().all(|id| instance.vmms.contains_key(id)))
    });
    let is_migrating = instance.saga.as_ref().is_some_and(|saga| saga.kind == SagaKind::Migrate);
    let has_migration = has_migration && (!is_migrating || instance.migration.is_some());
    let own_ids = instance.vmms.iter().all(|(id, vmm)| *id == vmm.id)
        && instance.migrations.iter().all(|(id, migration)| *id == migration.id);
    if has_vmms && has_migration && own_ids {
        Ok(())
    } else {
        Err(SnapshotError::Malformed("it refers to a VMM or migration that it does not hold".to_owned()))
    }
}

/// The bytes of other disposable state, such as a projection's row. Whoever stores them stores a version of
/// their own beside them: the layout follows the type.
pub fn encode_disposable(value: &impl Serialize) -> Bytes {
    Bytes::from(codec::encode_disposable(value))
}

/// The disposable state that is exactly these bytes.
pub fn decode_disposable<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SnapshotError> {
    codec::decode_disposable(bytes).map_err(|error| SnapshotError::Malformed(error.to_string()))
}

/// Writes disposable state of any size; answers its bytes. Whoever stores it stores a version and checksums
/// beside it.
pub fn write_disposable(value: &impl Serialize, to: &mut impl Write) -> Result<usize, SnapshotError> {
    codec::write_disposable(value, to).map_err(SnapshotError::Malformed)
}

/// Reads disposable state of any size. `from` hands out only bytes whose checksums hold: a length in them is
/// believed.
pub fn read_disposable<T: DeserializeOwned>(from: &mut impl Read) -> Result<T, SnapshotError> {
    codec::read_disposable(from).map_err(|error| SnapshotError::Malformed(error.to_string()))
}
