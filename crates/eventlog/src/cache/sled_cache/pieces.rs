//! Values in pieces: the database keeps larger ones in files of their own, which it never syncs.
//!
//! Invariants:
//! * a value under its head key is whole (0) or the length and checksum of its pieces (1);
//! * pieces are put together only if they make the value that was stored.

use super::{Changes, SledCache, guard, malformed};
use crate::cache::sealed::{self, Key};
use crate::cache::{CacheError, VALUE_BYTES_MAX};
use crate::record::Fields;
use bytes::Bytes;
use sled_db::Tree;

/// Largest piece of a value stored under one key.
pub(super) const PIECE_BYTES_MAX: usize = 6 << 10;

impl SledCache {
    /// Stores a value under a head key, in pieces if it is large. `prefix` goes before it in the head.
    pub(super) fn put_pieces(
        &self,
        changes: &mut Changes,
        head: &Key,
        prefix: &[u8],
        value: &[u8],
    ) -> Result<(), CacheError> {
        self.remove_pieces(changes, head, prefix.len())?;
        let mut bytes = prefix.to_vec();
        if value.len() <= PIECE_BYTES_MAX {
            bytes.push(0);
            bytes.extend_from_slice(value);
        } else {
            bytes.push(1);
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&crc32c::crc32c(value).to_le_bytes());
            for (piece, number) in value.chunks(PIECE_BYTES_MAX).zip(0u32..) {
                changes.put(&sealed::piece(head, number), piece);
            }
        }
        changes.put(head, &bytes);
        Ok(())
    }

    pub(super) fn remove_pieces(
        &self,
        changes: &mut Changes,
        head: &Key,
        prefix_bytes: usize,
    ) -> Result<(), CacheError> {
        if let Some(bytes) = self.get(head)?
            && bytes.get(prefix_bytes) == Some(&1)
        {
            let (length, _) = piece_fields(&bytes[prefix_bytes + 1..])?;
            for number in 0..length.div_ceil(PIECE_BYTES_MAX) as u32 {
                changes.remove(sealed::piece(head, number));
            }
        }
        Ok(())
    }

    pub(super) fn put_together(
        tree: &Tree,
        head: &Key,
        bytes: &Bytes,
        prefix_bytes: usize,
    ) -> Result<Bytes, CacheError> {
        let rest = bytes.slice(prefix_bytes.min(bytes.len())..);
        match rest.first() {
            Some(0) => Ok(rest.slice(1..)),
            Some(1) => {
                let (length, crc) = piece_fields(&rest[1..])?;
                let mut value = Vec::with_capacity(length);
                for number in 0..length.div_ceil(PIECE_BYTES_MAX) as u32 {
                    let key = sealed::piece(head, number);
                    let piece = guard(|| tree.get(&key))?;
                    let piece =
                        piece.ok_or_else(|| CacheError::Contradiction("a piece is missing".into()))?;
                    value.extend_from_slice(&sealed::open(&key, &piece)?);
                }
                if value.len() != length || crc32c::crc32c(&value) != crc {
                    return Err(CacheError::Contradiction("pieces do not make their value".into()));
                }
                Ok(Bytes::from(value))
            }
            _ => Err(CacheError::Contradiction("a value of no known kind".into())),
        }
    }
}

/// Length and checksum of a value in pieces.
fn piece_fields(bytes: &[u8]) -> Result<(usize, u32), CacheError> {
    let fields = Fields(bytes);
    let length = fields.u32(0).map_err(malformed)? as usize;
    check_length(length)?;
    Ok((length, fields.u32(4).map_err(malformed)?))
}

fn check_length(length: usize) -> Result<(), CacheError> {
    if length > VALUE_BYTES_MAX {
        return Err(CacheError::Contradiction(format!("a value of {length} bytes")));
    }
    Ok(())
}
