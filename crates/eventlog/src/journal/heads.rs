//! Heads checkpoints: every stream's head at one position, so that recovery need not read all of history.
//!
//! ```text
//! 0 magic 8 | 8 format u32 | 12 zero u32 | 16 store id 16 | 32 position u64 | 40 chain u64 | 48 count u64
//! 56 bytes u64 | 64 count times: kind u8, id 16, version u64, position u64 | crc32c u32 over all before
//! ```
//!
//! Invariants:
//! * a checkpoint appears whole under its name or not at all (temporary file, sync, rename, sync directory);
//! * entries are in order of the streams' names, each stream once;
//! * the two newest are kept: damage to one costs only time.

use super::error::StoreId;
use super::files::{Files, Handle, read_full, write_full};
use super::format::{BASE_TEMP_NAME, FORMAT, HEADS_TEMP_NAME, Named, base_name, classify, heads_name};
use super::head_map::HeadMap;
use crate::gate::Owned;
use crate::record::{Fields, Malformed};
use crate::types::{Epoch, Head, Position, StreamId, StreamKind, Version};
use std::io;
use std::path::Path;

const MAGIC: [u8; 8] = *b"MUSHHDS\n";
const FIXED_BYTES: usize = 64;
const ENTRY_BYTES: usize = 33;
const KEPT: usize = 2;
/// Largest checkpoint read: 32 million streams.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;

/// Heads at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadsCheckpoint {
    pub(crate) store: StoreId,
    pub(crate) position: Position,
    pub(crate) chain: u64,
    /// Bytes of all records up to there.
    pub(crate) bytes: u64,
    pub(crate) heads: HeadMap,
}

impl HeadsCheckpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let live = || self.heads.iter().filter(|(_, owned)| owned.head.version != Version::ZERO);
        let mut out = Vec::with_capacity(FIXED_BYTES + self.heads.len() * ENTRY_BYTES + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.store.0);
        out.extend_from_slice(&self.position.get().to_le_bytes());
        out.extend_from_slice(&self.chain.to_le_bytes());
        out.extend_from_slice(&(live().count() as u64).to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        for (stream, owned) in live() {
            out.push(stream.kind.0);
            out.extend_from_slice(&stream.id);
            out.extend_from_slice(&owned.head.version.get().to_le_bytes());
            out.extend_from_slice(&owned.head.position.get().to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let body = bytes.get(..bytes.len().saturating_sub(4)).ok_or(Malformed::CutOff)?;
        let fields = Fields(bytes);
        if fields.u32(body.len())? != crc32c::crc32c(body) {
            return Err(Malformed::Checksum);
        }
        let count = fields.u64(48)?;
        let expected = usize::try_from(count).ok().and_then(|count| count.checked_mul(ENTRY_BYTES));
        if fields.array(0)? != MAGIC
            || fields.u32(8)? != FORMAT
            || expected.is_none()
            || expected != body.len().checked_sub(FIXED_BYTES)
        {
            return Err(Malformed::Fields);
        }
        let position = Position::new(fields.u64(32)?);
        let mut heads = HeadMap::default();
        for entry in body[FIXED_BYTES..].chunks_exact(ENTRY_BYTES) {
            let entry = Fields(entry);
            let [kind] = entry.array(0)?;
            let stream = StreamId::new(StreamKind(kind), entry.array(1)?);
            let head =
                Head { version: Version::new(entry.u64(17)?), position: Position::new(entry.u64(25)?) };
            let is_possible = head.version != Version::ZERO && head.position <= position;
            if !is_possible || heads.last().is_some_and(|last| *last >= stream) {
                return Err(Malformed::Fields);
            }
            heads.insert(stream, Owned { head, epoch: Epoch::ZERO });
        }
        Ok(Self {
            store: StoreId(fields.array(16)?),
            position,
            chain: fields.u64(40)?,
            bytes: fields.u64(56)?,
            heads,
        })
    }

    /// Reads a checkpoint; the inner error says why the file is none.
    pub(crate) fn read(file: &dyn Handle) -> io::Result<Result<Self, Malformed>> {
        let size = file.size()?;
        if size > CHECKPOINT_BYTES_MAX {
            return Ok(Err(Malformed::Length));
        }
        let mut bytes = vec![0u8; size as usize];
        let read = read_full(file, &mut bytes, 0)?;
        Ok(Self::decode(&bytes[..read]))
    }

    /// Writes the checkpoint durably and removes all but the newest two.
    pub(crate) fn write(&self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        self.put(files, dir, HEADS_TEMP_NAME, &heads_name(self.position))?;
        let mut names: Vec<(Position, String)> = Vec::new();
        for name in files.list(dir)? {
            if let Named::Heads(position) = classify(&name) {
                names.push((position, name));
            }
        }
        names.sort();
        let surplus = names.len().saturating_sub(KEPT);
        names[..surplus].iter().try_for_each(|(_, name)| files.remove(&dir.join(name)))
    }

    /// Writes the checkpoint durably as the base of what is kept, in place of an earlier one.
    pub(crate) fn write_base(&self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        let name = base_name(self.position);
        self.put(files, dir, BASE_TEMP_NAME, &name)?;
        let is_earlier = |other: &String| matches!(classify(other), Named::Base(_)) && *other != name;
        files.list(dir)?.iter().filter(|it| is_earlier(it)).try_for_each(|it| files.remove(&dir.join(it)))
    }

    fn put(&self, files: &dyn Files, dir: &Path, temporary: &str, name: &str) -> io::Result<()> {
        let temporary = dir.join(temporary);
        let file = files.create(&temporary)?;
        let written = write_full(&*file, &self.encode(), 0).map_err(|failure| failure.error);
        if let Err(error) = written.and_then(|()| file.sync()) {
            // Half of it takes room that others may need.
            drop(files.remove(&temporary));
            return Err(error);
        }
        files.rename(&temporary, &dir.join(name))?;
        files.sync_dir(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> HeadsCheckpoint {
        let owned = |version, position| Owned {
            head: Head { version: Version::new(version), position: Position::new(position) },
            epoch: Epoch::ZERO,
        };
        let heads = [(1, owned(3, 9)), (2, owned(1, 4)), (3, owned(7, 10))]
            .map(|(number, owned)| (crate::conformance::shape::stream(number), owned));
        HeadsCheckpoint {
            store: StoreId([3; 16]),
            position: Position::new(10),
            chain: 77,
            bytes: 990,
            heads: heads.into_iter().collect(),
        }
    }

    #[test]
    fn a_checkpoint_reads_back_as_written() {
        assert_eq!(HeadsCheckpoint::decode(&checkpoint().encode()), Ok(checkpoint()));
    }

    #[test]
    fn a_damaged_or_cut_checkpoint_is_refused() {
        let bytes = checkpoint().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(HeadsCheckpoint::decode(&damaged).is_err(), "byte {at}");
            assert!(HeadsCheckpoint::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn streams_that_were_only_claimed_are_left_out() {
        let mut claimed = checkpoint();
        claimed
            .heads
            .insert(crate::conformance::shape::stream(9), Owned { epoch: Epoch::new(4), ..Owned::default() });
        assert_eq!(HeadsCheckpoint::decode(&claimed.encode()), Ok(checkpoint()));
    }
}
