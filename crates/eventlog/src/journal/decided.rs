//! The file that remembers damage: its presence makes every opening read the whole journal, and the ranges in
//! it are those that an opening has decided to live with.
//!
//! ```text
//! 0 "MUSHDMG\n" | 8 format u32 | 12 count u32 | 16 store id 16 | 32 nameless u64
//! 40 count times: first u64, last u64 | crc32c u32 over all before
//! ```
//!
//! Invariants:
//! * it is written before a journal with damage is served, and removed when a whole reading finds none;
//! * one that cannot be read decides nothing, and still makes the opening look at everything.

use super::error::StoreId;
use super::files::{Files, read_full, write_full};
use super::format::{DAMAGED_NAME, DAMAGED_TEMP_NAME, FORMAT};
use super::losses::{Gap, Losses};
use crate::record::Fields;
use crate::types::Position;
use std::io;
use std::path::Path;

const MAGIC: [u8; 8] = *b"MUSHDMG\n";
const FIXED_BYTES: usize = 40;
/// Ranges remembered: more damage than this is a disk to replace, not a journal to serve.
pub(crate) const RANGES_MAX: usize = 4096;

/// Damage that was looked at before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decided {
    ranges: Vec<(Position, Position)>,
    /// Lost positions that belong to streams nobody could name.
    nameless: u64,
}

impl Decided {
    /// What is decided by serving a journal with these losses.
    pub(crate) fn on(losses: &Losses) -> Self {
        let ranges = losses.gaps().iter().map(|gap| (gap.place.first, gap.last)).collect();
        Self { ranges, nameless: losses.nameless().unwrap_or_default() }
    }

    /// Whether a gap lies in a range that was decided on.
    pub(crate) fn covers(&self, gap: &Gap) -> bool {
        self.ranges.iter().any(|(first, last)| *first <= gap.place.first && gap.last <= *last)
    }

    pub(crate) fn nameless(&self) -> u64 {
        self.nameless
    }

    pub(crate) fn encode(&self, store: StoreId) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_BYTES + self.ranges.len() * 16 + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(self.ranges.len() as u32).to_le_bytes());
        out.extend_from_slice(&store.0);
        out.extend_from_slice(&self.nameless.to_le_bytes());
        for (first, last) in &self.ranges {
            out.extend_from_slice(&first.get().to_le_bytes());
            out.extend_from_slice(&last.get().to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8], store: StoreId) -> Option<Self> {
        let body = bytes.get(..bytes.len().checked_sub(4)?)?;
        let fields = Fields(bytes);
        let count = fields.u32(12).ok()? as usize;
        let is_whole = fields.u32(body.len()).ok()? == crc32c::crc32c(body)
            && fields.array(0).ok()? == MAGIC
            && fields.u32(8).ok()? == FORMAT
            && fields.array(16).ok()? == store.0
            && count <= RANGES_MAX
            && body.len() == FIXED_BYTES + count * 16;
        if !is_whole {
            return None;
        }
        let range = |index: usize| {
            let at = FIXED_BYTES + index * 16;
            Some((Position::new(fields.u64(at).ok()?), Position::new(fields.u64(at + 8).ok()?)))
        };
        let ranges = (0..count).map(range).collect::<Option<Vec<_>>>()?;
        Some(Self { ranges, nameless: fields.u64(32).ok()? })
    }

    /// Reads the file; unreadable contents decide nothing.
    pub(crate) fn read(files: &dyn Files, dir: &Path, store: StoreId) -> io::Result<Self> {
        let file = files.open_read(&dir.join(DAMAGED_NAME))?;
        let mut bytes = vec![0u8; FIXED_BYTES + RANGES_MAX * 16 + 5];
        let read = read_full(&*file, &mut bytes, 0)?;
        Ok(Self::decode(&bytes[..read], store).unwrap_or_default())
    }

    /// Writes the file durably.
    pub(crate) fn write(&self, files: &dyn Files, dir: &Path, store: StoreId) -> io::Result<()> {
        let temporary = dir.join(DAMAGED_TEMP_NAME);
        let file = files.create(&temporary)?;
        write_full(&*file, &self.encode(store), 0).map_err(|failure| failure.error)?;
        file.sync()?;
        files.rename(&temporary, &dir.join(DAMAGED_NAME))?;
        files.sync_dir(dir)
    }
}
