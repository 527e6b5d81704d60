//! The tail witness: a small file that remembers how far the journal was durable.
//!
//! ```text
//! slot of 512 bytes, two of them, written in turns:
//! 0 magic 8 | 8 format u32 | 12 zero u32 | 16 store id 16 | 32 sequence u64 | 40 position u64 | 48 chain u64
//! 56 zeros | 508 crc32c u32
//! ```
//!
//! Invariants:
//! * a slot is a sector: a power cut while one is written leaves the other;
//! * the witness never runs ahead of the journal: it is written after the sync of what it witnesses.

use super::error::StoreId;
use super::files::{Handle, is_no_space, read_full, write_full};
use super::format::FORMAT;
use crate::record::Fields;
use crate::types::Position;
use std::io;
use std::sync::Arc;

const SLOT_BYTES: usize = 512;
const MAGIC: [u8; 8] = *b"MUSHWIT\n";

/// What a witness remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Testimony {
    pub(crate) store: StoreId,
    pub(crate) sequence: u64,
    pub(crate) position: Position,
    pub(crate) chain: u64,
}

impl Testimony {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0u8; SLOT_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.store.0);
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.position.get().to_le_bytes());
        bytes[48..56].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..508]);
        bytes[508..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes);
        let is_intact = fields.u32(508).ok()? == crc32c::crc32c(bytes.get(..508)?);
        if !is_intact || fields.array(0).ok()? != MAGIC || fields.u32(8).ok()? != FORMAT {
            return None;
        }
        Some(Self {
            store: StoreId(fields.array(16).ok()?),
            sequence: fields.u64(32).ok()?,
            position: Position::new(fields.u64(40).ok()?),
            chain: fields.u64(48).ok()?,
        })
    }
}

/// The newest testimony in a witness file, if one of its slots is whole.
pub(crate) fn read(file: &dyn Handle) -> io::Result<Option<Testimony>> {
    let mut bytes = [0u8; SLOT_BYTES * 2];
    let read = read_full(file, &mut bytes, 0)?;
    let slots = bytes[..read].chunks(SLOT_BYTES).filter_map(Testimony::decode);
    Ok(slots.max_by_key(|testimony| testimony.sequence))
}

/// Why nothing was witnessed.
#[derive(Debug)]
pub(crate) enum Untold {
    /// There was no room, not even in the file's own place: the other slot stands, and this one may be tried
    /// again.
    NoSpace(io::Error),
    /// What is on disk is unknown.
    Failed(io::Error),
}

impl From<Untold> for io::Error {
    fn from(untold: Untold) -> Self {
        match untold {
            Untold::NoSpace(error) | Untold::Failed(error) => error,
        }
    }
}

/// The witness file, open for writing.
pub(crate) struct Witness {
    file: Arc<dyn Handle>,
    last: Testimony,
}

impl Witness {
    /// Continues after `last`, or starts with it.
    pub(crate) fn new(file: Arc<dyn Handle>, last: Testimony) -> Self {
        Self { file, last }
    }

    /// Last position witnessed.
    pub(crate) fn position(&self) -> Position {
        self.last.position
    }

    /// Witnesses that everything up to `position` is durable. When this returns, the testimony is.
    pub(crate) fn testify(&mut self, position: Position, chain: u64) -> Result<(), Untold> {
        let sequence = self.last.sequence + 1;
        let testimony = Testimony { sequence, position, chain, ..self.last };
        let offset = (sequence % 2) * SLOT_BYTES as u64;
        write_full(&*self.file, &testimony.encode(), offset).map_err(|failure| {
            let is_full = is_no_space(&failure.error);
            if is_full { Untold::NoSpace(failure.error) } else { Untold::Failed(failure.error) }
        })?;
        self.file.sync().map_err(Untold::Failed)?;
        self.last = testimony;
        Ok(())
    }
}
