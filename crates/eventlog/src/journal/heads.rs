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
use super::head_map::{HeadMap, InOrder};
use crate::gate::Owned;
use crate::record::{Fields, Malformed};
use crate::types::{Epoch, Head, Position, StreamId, StreamKind, Version};
use std::io;
use std::path::Path;

const MAGIC: [u8; 8] = *b"MUSHHDS\n";
const FIXED_BYTES: usize = 64;
const ENTRY_BYTES: usize = 33;
const CRC_BYTES: usize = 4;
/// Entries read at once: 132 KiB.
const PIECE_ENTRIES: usize = 4 << 10;
const KEPT: usize = 2;
/// Largest checkpoint read: 32 million streams.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;

/// Heads at one position, wherever the map of them is.
pub(crate) struct HeadsAt<'a> {
    pub(crate) store: StoreId,
    pub(crate) position: Position,
    pub(crate) chain: u64,
    /// Bytes of all records up to there.
    pub(crate) bytes: u64,
    pub(crate) heads: &'a HeadMap,
}

impl HeadsAt<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let live = || self.heads.iter().filter(|(_, owned)| owned.head.version != Version::ZERO);
        let mut out = Vec::with_capacity(FIXED_BYTES + self.heads.len() * ENTRY_BYTES + CRC_BYTES);
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
}

/// Heads at one position, read from a file or on their way into one.
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
        let Self { store, position, chain, bytes, ref heads } = *self;
        HeadsAt { store, position, chain, bytes, heads }.encode()
    }

    /// Reads a checkpoint; the inner error says why the file is none. The file is never held as a whole: what it
    /// takes in memory is what its heads take.
    pub(crate) fn read(file: &dyn Handle) -> io::Result<Result<Self, Malformed>> {
        let size = file.size()?;
        if size > CHECKPOINT_BYTES_MAX {
            return Ok(Err(Malformed::Length));
        }
        let Some(body) = (size as usize).checked_sub(FIXED_BYTES + CRC_BYTES) else {
            return Ok(Err(Malformed::CutOff));
        };
        let mut pieces = Pieces { file, offset: 0, crc: 0 };
        let mut fixed = [0u8; FIXED_BYTES];
        let mut buffer = vec![0u8; PIECE_ENTRIES * ENTRY_BYTES];
        if !pieces.next(&mut fixed)? {
            return Ok(Err(Malformed::CutOff));
        }
        let position = Fields(&fixed).u64(32).map(Position::new);
        // The file's size bounds what is allocated: its count is not believed before the checksum is.
        let entries = body / ENTRY_BYTES;
        let mut heads = HeadMap::in_order(entries);
        let mut is_possible = true;
        for from in (0..entries).step_by(PIECE_ENTRIES) {
            let piece = &mut buffer[..(entries - from).min(PIECE_ENTRIES) * ENTRY_BYTES];
            if !pieces.next(piece)? {
                return Ok(Err(Malformed::CutOff));
            }
            for entry in piece.chunks_exact(ENTRY_BYTES) {
                is_possible &= position.is_ok_and(|end| add(&mut heads, entry, end).is_ok());
            }
        }
        let rest = &mut buffer[..body % ENTRY_BYTES];
        let is_shaped = rest.is_empty() && is_possible;
        if !pieces.next(rest)? {
            return Ok(Err(Malformed::CutOff));
        }
        let computed = pieces.crc;
        let mut stored = [0u8; CRC_BYTES];
        if !pieces.next(&mut stored)? {
            return Ok(Err(Malformed::CutOff));
        }
        if stored != computed.to_le_bytes() {
            return Ok(Err(Malformed::Checksum));
        }
        if !is_shaped {
            return Ok(Err(Malformed::Fields));
        }
        Ok(Self::of(&fixed, heads.finish()))
    }

    /// Puts the fields before the entries to them.
    fn of(fixed: &[u8; FIXED_BYTES], heads: HeadMap) -> Result<Self, Malformed> {
        let fields = Fields(fixed);
        if fields.array(0)? != MAGIC || fields.u32(8)? != FORMAT || fields.u64(48)? != heads.len() as u64 {
            return Err(Malformed::Fields);
        }
        Ok(Self {
            store: StoreId(fields.array(16)?),
            position: Position::new(fields.u64(32)?),
            chain: fields.u64(40)?,
            bytes: fields.u64(56)?,
            heads,
        })
    }

    /// Writes the checkpoint durably as the base of what is kept, in place of an earlier one.
    pub(crate) fn write_base(&self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        let name = base_name(self.position);
        put(files, dir, BASE_TEMP_NAME, &name, &self.encode())?;
        let is_earlier = |other: &String| matches!(classify(other), Named::Base(_)) && *other != name;
        files.list(dir)?.iter().filter(|it| is_earlier(it)).try_for_each(|it| files.remove(&dir.join(it)))
    }
}

/// A file read from its start, piece by piece, with the checksum of what was read.
struct Pieces<'a> {
    file: &'a dyn Handle,
    offset: u64,
    crc: u32,
}

impl Pieces<'_> {
    /// Fills the buffer; answers whether there was as much.
    fn next(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let read = read_full(self.file, buffer, self.offset)?;
        self.offset += read as u64;
        self.crc = crc32c::crc32c_append(self.crc, &buffer[..read]);
        Ok(read == buffer.len())
    }
}

fn add(heads: &mut InOrder, entry: &[u8], end: Position) -> Result<(), Malformed> {
    let fields = Fields(entry);
    let [kind] = fields.array(0)?;
    let stream = StreamId::new(StreamKind(kind), fields.array(1)?);
    let head = Head { version: Version::new(fields.u64(17)?), position: Position::new(fields.u64(25)?) };
    let is_possible = head.version != Version::ZERO && head.position <= end;
    if is_possible && heads.push(stream, Owned { head, epoch: Epoch::ZERO }) {
        Ok(())
    } else {
        Err(Malformed::Fields)
    }
}

/// Writes an encoded checkpoint durably and removes all but the newest two.
pub(crate) fn write(files: &dyn Files, dir: &Path, position: Position, encoded: &[u8]) -> io::Result<()> {
    put(files, dir, HEADS_TEMP_NAME, &heads_name(position), encoded)?;
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

fn put(files: &dyn Files, dir: &Path, temporary: &str, name: &str, encoded: &[u8]) -> io::Result<()> {
    let temporary = dir.join(temporary);
    let file = files.create(&temporary)?;
    let written = write_full(&*file, encoded, 0).map_err(|failure| failure.error);
    if let Err(error) = written.and_then(|()| file.sync()) {
        // Half of it takes room that others may need.
        drop(files.remove(&temporary));
        return Err(error);
    }
    files.rename(&temporary, &dir.join(name))?;
    files.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::fuzz::InMemory;

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

    fn decode(bytes: &[u8]) -> Result<HeadsCheckpoint, Malformed> {
        HeadsCheckpoint::read(&InMemory(bytes.to_vec())).unwrap()
    }

    #[test]
    fn a_checkpoint_reads_back_as_written() {
        assert_eq!(decode(&checkpoint().encode()), Ok(checkpoint()));
    }

    #[test]
    fn a_checkpoint_of_any_number_of_streams_reads_back_as_written() {
        let owned =
            Owned { head: Head { version: Version::new(2), position: Position::new(5) }, ..Owned::default() };
        for streams in [0, 1, PIECE_ENTRIES - 1, PIECE_ENTRIES, PIECE_ENTRIES + 1, 3 * PIECE_ENTRIES] {
            let heads = (0..streams as u64).map(|number| (crate::conformance::shape::stream(number), owned));
            let written = HeadsCheckpoint { heads: heads.collect(), ..checkpoint() };
            assert_eq!(decode(&written.encode()), Ok(written), "{streams} streams");
        }
    }

    #[test]
    fn entries_out_of_order_or_beyond_the_end_are_refused_under_a_right_checksum() {
        let changes: [fn(&mut Vec<u8>); 5] = [
            |bytes| bytes[FIXED_BYTES..FIXED_BYTES + 2 * ENTRY_BYTES].rotate_left(ENTRY_BYTES),
            |bytes| bytes.copy_within(FIXED_BYTES..FIXED_BYTES + ENTRY_BYTES, FIXED_BYTES + ENTRY_BYTES),
            |bytes| bytes[FIXED_BYTES + 25] = 11,
            |bytes| bytes[FIXED_BYTES + 17..FIXED_BYTES + 25].fill(0),
            |bytes| bytes.push(0),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut bytes = checkpoint().encode();
            bytes.truncate(bytes.len() - CRC_BYTES);
            change(&mut bytes);
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            assert_eq!(decode(&bytes), Err(Malformed::Fields), "change {number}");
        }
    }

    #[test]
    fn a_damaged_or_cut_checkpoint_is_refused() {
        let bytes = checkpoint().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(decode(&damaged).is_err(), "byte {at}");
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn streams_that_were_only_claimed_are_left_out() {
        let mut claimed = checkpoint();
        claimed
            .heads
            .insert(crate::conformance::shape::stream(9), Owned { epoch: Epoch::new(4), ..Owned::default() });
        assert_eq!(decode(&claimed.encode()), Ok(checkpoint()));
    }
}
