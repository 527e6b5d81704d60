//! Finding one's way in bytes that are no batch.
//!
//! Invariants:
//! * a batch is found only where it starts at a batch boundary and all its checksums match.

use super::files::Handle;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, HeaderRead, aligned};
use super::window::{SCAN_BYTES, Window};
use crate::types::Position;
use std::io;
use std::sync::Arc;

/// Offset of the last byte at or after `from` that is not zero.
pub(crate) fn last_nonzero(window: &mut Window, from: u64, end: u64) -> io::Result<Option<u64>> {
    let mut at = from;
    let mut last = None;
    while at < end {
        let bytes = window.get(at, SCAN_BYTES.min((end - at) as usize))?;
        if bytes.is_empty() {
            break;
        }
        if let Some(index) = bytes.iter().rposition(|byte| *byte != 0) {
            last = Some(at + index as u64);
        }
        at += bytes.len() as u64;
    }
    Ok(last)
}

/// The first whole batch behind `offset` that holds later positions than `next`: its presence shows that
/// what is broken before it is damage and not the torn end of the last write.
pub(crate) fn find_behind(
    file: Arc<dyn Handle>,
    offset: u64,
    end: u64,
    next: Position,
) -> io::Result<Option<(u64, BatchHeader)>> {
    let mut window = Window::new(file, SCAN_BYTES);
    let mut at = aligned(offset + 1);
    while at + BATCH_HEADER_BYTES as u64 <= end {
        if let HeaderRead::Batch(header) = window.header(at)?
            && header.first > next
            && window.batch(at, header)?.is_intact()
        {
            return Ok(Some((at, header)));
        }
        at = aligned(at + 1);
    }
    Ok(None)
}
