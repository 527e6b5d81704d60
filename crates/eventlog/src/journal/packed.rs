//! Sealed segments, compressed: read as if they were not.
//!
//! ```text
//! 0 "MUSHPCK\n" | 8 format u32 | 12 block bytes u32 | 16 store id 16 | 32 first position u64
//! 40 segment bytes u64 | 48 blocks u32 | 52 zero u32 | 56 blocks times: compressed bytes u32, crc32c u32
//! crc32c u32 over all before | the blocks, each a zstd frame of its own
//! ```
//!
//! Invariants:
//! * a compressed segment is whole and was compared with the original before that is removed;
//! * no length from the disk is used before the table's checksum has matched, and each is bounded;
//! * a block that is not as it was written reads as zeros: what lay in it is found missing by the checks that
//!   every segment passes, and named in the offsets of the segment it was.

use super::error::StoreId;
use super::files::{Files, Handle, read_full};
use super::format::{FORMAT, packed_name, segment_name};
use crate::record::Fields;
use crate::types::Position;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

const MAGIC: [u8; 8] = *b"MUSHPCK\n";
const FIXED_BYTES: usize = 56;
/// Bytes compressed together: what one read of a single record decompresses.
const BLOCK_BYTES: usize = 128 << 10;
/// Largest segment there can be: one larger than the limit holds a single batch.
const RAW_BYTES_MAX: u64 = super::config::SEGMENT_BYTES_MAX + (8 << 20);
/// Blocks kept decompressed per open segment.
const KEPT_BLOCKS: usize = 2;
const LEVEL: i32 = 3;

fn bad(detail: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the compressed segment is damaged: {detail}"))
}

/// Compresses the first `bytes` bytes of a segment.
pub(crate) fn pack(segment: &dyn Handle, bytes: u64, store: StoreId, first: Position) -> io::Result<Vec<u8>> {
    let blocks = bytes.div_ceil(BLOCK_BYTES as u64);
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
    out.extend_from_slice(&store.0);
    out.extend_from_slice(&first.get().to_le_bytes());
    out.extend_from_slice(&bytes.to_le_bytes());
    out.extend_from_slice(&(blocks as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let mut frames = Vec::new();
    let mut buffer = vec![0u8; BLOCK_BYTES];
    for block in 0..blocks {
        let offset = block * BLOCK_BYTES as u64;
        let wanted = BLOCK_BYTES.min((bytes - offset) as usize);
        if read_full(segment, &mut buffer[..wanted], offset)? < wanted {
            return Err(bad("the segment ends early"));
        }
        let frame = zstd::bulk::compress(&buffer[..wanted], LEVEL)?;
        out.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&frame).to_le_bytes());
        frames.extend_from_slice(&frame);
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&frames);
    Ok(out)
}

/// Where a block lies in the file.
#[derive(Clone, Copy)]
struct Frame {
    offset: u64,
    bytes: usize,
    crc: u32,
}

/// A compressed segment, open for reading.
struct Packed {
    file: Arc<dyn Handle>,
    bytes: u64,
    frames: Vec<Frame>,
    kept: Mutex<Vec<(usize, Arc<[u8]>)>>,
}

/// Opens a compressed segment as the segment it was.
pub(crate) fn unpack(file: Arc<dyn Handle>) -> io::Result<Arc<dyn Handle>> {
    let mut fixed = [0u8; FIXED_BYTES];
    let read = read_full(&*file, &mut fixed, 0)?;
    let fields = Fields(&fixed[..read]);
    let cut_off = |_| bad("its header is cut off");
    let bytes = fields.u64(40).map_err(cut_off)?;
    let blocks = fields.u32(48).map_err(cut_off)? as usize;
    let is_possible = fields.array(0).map_err(cut_off)? == MAGIC
        && fields.u32(8).map_err(cut_off)? == FORMAT
        && fields.u32(12).map_err(cut_off)? as usize == BLOCK_BYTES
        && bytes <= RAW_BYTES_MAX
        && blocks as u64 == bytes.div_ceil(BLOCK_BYTES as u64);
    if !is_possible {
        return Err(bad("its header is none"));
    }
    let mut head = vec![0u8; FIXED_BYTES + blocks * 8 + 4];
    let read = read_full(&*file, &mut head, 0)?;
    let table = Fields(&head[..read]);
    let end = head.len() - 4;
    if table.u32(end).map_err(cut_off)? != crc32c::crc32c(&head[..end]) {
        return Err(bad("its table's checksum does not match"));
    }
    let mut frames = Vec::with_capacity(blocks);
    let mut offset = head.len() as u64;
    for block in 0..blocks {
        let at = FIXED_BYTES + block * 8;
        let bytes = table.u32(at).map_err(cut_off)? as usize;
        if bytes > zstd::zstd_safe::compress_bound(BLOCK_BYTES) {
            return Err(bad("a block is impossibly large"));
        }
        frames.push(Frame { offset, bytes, crc: table.u32(at + 4).map_err(cut_off)? });
        offset += bytes as u64;
    }
    Ok(Arc::new(Packed { file, bytes, frames, kept: Mutex::new(Vec::new()) }))
}

impl Packed {
    fn block(&self, index: usize) -> io::Result<Arc<[u8]>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(held, _)| *held == index) {
            let found = kept.remove(at);
            kept.push(found.clone());
            return Ok(found.1);
        }
        let frame = self.frames[index];
        let start = index as u64 * BLOCK_BYTES as u64;
        let expected = BLOCK_BYTES.min((self.bytes - start) as usize);
        let mut bytes = vec![0u8; frame.bytes];
        let read = read_full(&*self.file, &mut bytes, frame.offset)?;
        let whole = (read == frame.bytes && crc32c::crc32c(&bytes) == frame.crc)
            .then(|| zstd::bulk::decompress(&bytes, BLOCK_BYTES).ok())
            .flatten()
            .filter(|block| block.len() == expected);
        let block: Arc<[u8]> = whole.unwrap_or_else(|| vec![0; expected]).into();
        if kept.len() == KEPT_BLOCKS {
            kept.remove(0);
        }
        kept.push((index, block.clone()));
        Ok(block)
    }
}

impl Handle for Packed {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.bytes || buffer.is_empty() {
            return Ok(0);
        }
        let block = self.block((offset / BLOCK_BYTES as u64) as usize)?;
        let rest = &block[(offset % BLOCK_BYTES as u64) as usize..];
        let bytes = rest.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        Ok(bytes)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "compressed segments are not written"))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }
}

/// Opens the segment that starts at `first`, compressed or not.
pub(crate) fn open_either(files: &dyn Files, dir: &Path, first: Position) -> io::Result<Arc<dyn Handle>> {
    match files.open_read(&dir.join(segment_name(first))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            unpack(files.open_read(&dir.join(packed_name(first)))?)
        }
        opened => opened,
    }
}
