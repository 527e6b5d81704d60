//! Keys and sealed values of the cache on disk.
//!
//! ```text
//! m identity   i indexed   S kind id version(be) run   N kind id snapshot   Q request id position
//! P length name checkpoint   R length name key row     p head number(be) piece of any of them
//! ```
//!
//! Invariants:
//! * the first byte says what a key is; names are preceded by their length, so that none is another's prefix;
//! * a sealed value ends with a CRC32C over its key and its bytes: a value under the wrong key does not open.

use super::CacheError;
use crate::types::{StreamId, Version};
use bytes::Bytes;

/// A key of the cache.
pub(crate) type Key = Vec<u8>;

/// First byte of checkpoints.
pub(crate) const CHECKPOINT: u8 = b'P';
const ROW: u8 = b'R';
const PIECE: u8 = b'p';
/// Version, position and fold before a snapshot's state.
pub(crate) const SNAPSHOT_PREFIX_BYTES: usize = 20;

pub(crate) fn identity() -> Key {
    vec![b'm']
}

pub(crate) fn indexed() -> Key {
    vec![b'i']
}

fn of_stream(tag: u8, stream: StreamId) -> Key {
    let mut key = Vec::with_capacity(26);
    key.extend_from_slice(&[tag, stream.kind.0]);
    key.extend_from_slice(&stream.id);
    key
}

pub(crate) fn run(stream: StreamId, first: Version) -> Key {
    let mut key = of_stream(b'S', stream);
    key.extend_from_slice(&first.get().to_be_bytes());
    key
}

pub(crate) fn request(request: [u8; 16]) -> Key {
    let mut key = vec![b'Q'];
    key.extend_from_slice(&request);
    key
}

pub(crate) fn snapshot(stream: StreamId) -> Key {
    of_stream(b'N', stream)
}

fn of_projection(tag: u8, projection: &str, key: &[u8]) -> Key {
    assert!(projection.len() <= super::PROJECTION_BYTES_MAX, "names are checked before they become keys");
    let mut out = Vec::with_capacity(2 + projection.len() + key.len());
    out.extend_from_slice(&[tag, projection.len() as u8]);
    out.extend_from_slice(projection.as_bytes());
    out.extend_from_slice(key);
    out
}

pub(crate) fn checkpoint(projection: &str) -> Key {
    of_projection(CHECKPOINT, projection, &[])
}

pub(crate) fn row(projection: &str, key: &[u8]) -> Key {
    of_projection(ROW, projection, key)
}

/// Key of a piece of the value under `head`. The number has a fixed length, so no two pieces share a key.
pub(crate) fn piece(head: &Key, number: u32) -> Key {
    let mut key = Vec::with_capacity(head.len() + 5);
    key.push(PIECE);
    key.extend_from_slice(head);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Prefix of all pieces of a projection's rows.
pub(crate) fn pieces_of_rows(projection: &str) -> Key {
    let mut key = vec![PIECE];
    key.extend_from_slice(&row(projection, &[]));
    key
}

pub(crate) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(value.len() + 4);
    sealed.extend_from_slice(value);
    sealed.extend_from_slice(&crc32c::crc32c_append(crc32c::crc32c(key), value).to_le_bytes());
    sealed
}

pub(crate) fn open(key: &[u8], sealed: &[u8]) -> Result<Bytes, CacheError> {
    let (value, crc) = sealed
        .split_last_chunk::<4>()
        .ok_or_else(|| CacheError::Contradiction("a value without checksum".into()))?;
    if crc32c::crc32c_append(crc32c::crc32c(key), value).to_le_bytes() != *crc {
        return Err(CacheError::Contradiction("a value's checksum does not match".into()));
    }
    Ok(Bytes::copy_from_slice(value))
}
