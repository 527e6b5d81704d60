//! One stream in a file: what is kept of an entity that is over, outside of the log.
//!
//! ```text
//! header   0 magic 8 | 8 format u32 | 12 header length u32 | 16 store id 16 | 32 first position u64
//!         40 last position u64 | 48 stream kind u8 | 49 stream id 16 | 65 zeros | 72 records u64
//!         80 zeros | 124 crc32c u32
//! frames and trailer as in an export; a frame's records are of one stream, not neighbours in the log
//! ```
//!
//! Invariants:
//! * it holds versions 1 to its last without gap, positions rising, each pointing back to the one before;
//! * it has its name only when all of it is durable: a file under that name is whole or damaged, never half;
//! * writing and reading hold one frame and one page in memory, whatever the length of the stream.

use super::error::Error;
use super::frame::{
    Announced, FRAME_HEADER_BYTES, FRAME_RAW_BYTES, FrameHeader, HEADER_BYTES, TRAILER_BYTES, Trailer,
    advance, announced, pack,
};
use super::streaming::fill;
use crate::journal::StoreId;
use crate::log::{Log, ReadError};
use crate::record::{self, Fields, Malformed};
use crate::types::{Position, Record, StreamId, StreamKind, Version};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"MUSHSTR\n";
/// Newest format this build reads and the one it writes.
const FORMAT: u32 = 1;
/// What a file is called while it is written. One is written at a time.
const TEMPORARY_SUFFIX: &str = "tmp";
/// Records read from the log at once.
const READ_RECORDS: usize = 256;
const INPUT_BYTES: usize = 256 << 10;

/// What a stream's file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamFileReport {
    /// The stream.
    pub stream: StreamId,
    /// Identity of the store.
    pub store: StoreId,
    /// Number of records: versions 1 to this.
    pub records: u64,
    /// Position of the first.
    pub first: Position,
    /// Position of the last.
    pub last: Position,
    /// Length of the file, bytes.
    pub bytes: u64,
    /// CRC-32C of all its bytes.
    pub checksum: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    store: StoreId,
    stream: StreamId,
    first: Position,
    last: Position,
    records: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.store.0);
        bytes[32..40].copy_from_slice(&self.first.get().to_le_bytes());
        bytes[40..48].copy_from_slice(&self.last.get().to_le_bytes());
        bytes[48] = self.stream.kind.0;
        bytes[49..65].copy_from_slice(&self.stream.id);
        bytes[72..80].copy_from_slice(&self.records.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..124]);
        bytes[124..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Error> {
        Self::decode_fields(bytes).unwrap_or(Err(Error::NotAnExport))
    }

    fn decode_fields(bytes: &[u8; HEADER_BYTES]) -> Result<Result<Self, Error>, Malformed> {
        let fields = Fields(bytes);
        if fields.array(0)? != MAGIC {
            return Ok(Err(Error::NotAnExport));
        }
        let format = fields.u32(8)?;
        let is_intact = fields.u32(124)? == crc32c::crc32c(&bytes[..124]);
        if is_intact && format > FORMAT {
            return Ok(Err(Error::NewerFormat { what: "stream's file", found: format, known: FORMAT }));
        }
        let header = Self {
            store: StoreId(fields.array(16)?),
            first: Position::new(fields.u64(32)?),
            last: Position::new(fields.u64(40)?),
            stream: StreamId::new(StreamKind(bytes[48]), fields.array(49)?),
            records: fields.u64(72)?,
        };
        let is_possible = header.records > 0 && header.first > Position::ZERO && header.first <= header.last;
        let is_known = format == FORMAT && fields.u32(12)? as usize == HEADER_BYTES;
        if !is_intact || !is_known || !is_possible {
            return Ok(Err(damaged(0, Position::ZERO, "the header's checksum does not match")));
        }
        Ok(Ok(header))
    }

    fn chain(&self) -> u64 {
        advance(self.first.get(), &self.encode())
    }
}

fn damaged(frame: u64, after: Position, detail: impl Into<String>) -> Error {
    Error::Damaged { frame, position: after.next(), detail: detail.into() }
}

/// Copies a whole stream of a log into the file at `path`, durably. A file that is there and holds just that is
/// left as it is; any other is replaced. Refuses an empty stream.
pub fn write_stream_file(
    log: &dyn Log,
    store: StoreId,
    stream: StreamId,
    path: &Path,
) -> Result<StreamFileReport, Error> {
    let head = log.head(stream);
    let page = |from: Version| -> Result<Vec<Record>, Error> {
        let records = log.read_stream(stream, from, READ_RECORDS)?;
        Ok(records.into_iter().take_while(|record| record.version <= head.version).collect())
    };
    let first = page(Version::new(1))?.first().map(|record| record.position);
    let first = first.ok_or(Error::Read(ReadError::Closed))?;
    let header = Header { store, stream, first, last: head.position, records: head.version.get() };
    if let Ok(found) = verify_stream_file(path)
        && (found.store, found.stream, found.first, found.last, found.records)
            == (store, stream, header.first, header.last, header.records)
    {
        sync_parent(path)?;
        return Ok(found);
    }
    let temporary = temporary_of(path);
    let file = File::create(&temporary).map_err(Error::io("creating", &temporary))?;
    let mut writing = Writing { out: BufWriter::new(&file), bytes: 0, checksum: 0 };
    writing.all(&header, page)?;
    writing.out.flush().map_err(Error::io("writing", &temporary))?;
    let (bytes, checksum) = (writing.bytes, writing.checksum);
    drop(writing);
    file.sync_all().map_err(Error::io("syncing", &temporary))?;
    let report = verify_stream_file(&temporary)?;
    assert_eq!((report.bytes, report.checksum), (bytes, checksum), "what was written reads back as it was");
    std::fs::rename(&temporary, path).map_err(Error::io("renaming", &temporary))?;
    sync_parent(path)?;
    Ok(report)
}

/// What the file at `path` is called while it is written.
fn temporary_of(path: &Path) -> PathBuf {
    path.with_extension(TEMPORARY_SUFFIX)
}

fn sync_parent(path: &Path) -> Result<(), Error> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(Error::io("syncing", dir))
}

struct Writing<W> {
    out: W,
    bytes: u64,
    checksum: u32,
}

impl<W: Write> Writing<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.out.write_all(bytes).map_err(|source| Error::Stream { doing: "writing", source })
    }

    fn all(
        &mut self,
        header: &Header,
        page: impl Fn(Version) -> Result<Vec<Record>, Error>,
    ) -> Result<(), Error> {
        self.write(&header.encode())?;
        let mut sums = Trailer { chain: header.chain(), ..Trailer::default() };
        let (mut raw, mut count, mut first) = (Vec::new(), 0u32, Position::ZERO);
        let mut next = Version::new(1);
        while next.get() <= header.records {
            let records = page(next)?;
            if records.is_empty() {
                return Err(Error::Read(ReadError::Closed));
            }
            for record in &records {
                assert_eq!((record.stream, record.version), (header.stream, next), "a stream reads gapless");
                if count == 0 {
                    first = record.position;
                }
                record::encode(&mut raw, record);
                (count, next, sums.last) = (count + 1, next.next(), record.position);
                if raw.len() >= FRAME_RAW_BYTES || next.get() > header.records {
                    self.frame(&raw, count, first, &mut sums)?;
                    raw.clear();
                    count = 0;
                }
            }
        }
        self.write(&sums.encode())
    }

    fn frame(&mut self, raw: &[u8], count: u32, first: Position, sums: &mut Trailer) -> Result<(), Error> {
        let packed = pack(raw, count, first, sums.chain);
        let (header, stored) = packed.map_err(|source| Error::Stream { doing: "compressing", source })?;
        self.write(&header.encode())?;
        self.write(&stored)?;
        sums.chain = header.chain_after();
        sums.frames += 1;
        sums.records += u64::from(count);
        sums.raw_bytes += raw.len() as u64;
        Ok(())
    }
}

/// Reads a stream's file to its end; whatever is not as it was written is an error.
pub fn verify_stream_file(path: &Path) -> Result<StreamFileReport, Error> {
    read_through(path, |_| {})
}

/// The stream's records from version `from` on, at most `limit`. The whole file is checked on the way.
pub fn read_stream_file(path: &Path, from: Version, limit: usize) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    let last = from.get().saturating_add(limit as u64).saturating_sub(1);
    read_through(path, |record| {
        if (from.get()..=last).contains(&record.version.get()) {
            records.push(record);
        }
    })?;
    Ok(records)
}

/// Reads all of a file, and gives every record to `each`.
fn read_through(path: &Path, mut each: impl FnMut(Record)) -> Result<StreamFileReport, Error> {
    let file = File::open(path).map_err(Error::io("opening", path))?;
    let mut input = Counting { input: BufReader::with_capacity(INPUT_BYTES, file), bytes: 0, checksum: 0 };
    let mut bytes = [0u8; HEADER_BYTES];
    if input.fill(&mut bytes)? < HEADER_BYTES {
        return Err(Error::NotAnExport);
    }
    let header = Header::decode(&bytes)?;
    let mut sums = Trailer { chain: header.chain(), ..Trailer::default() };
    let mut stored = Vec::new();
    loop {
        let mut bytes = [0u8; FRAME_HEADER_BYTES];
        input.exactly(&mut bytes, &sums)?;
        let frame = match announced(&bytes) {
            Announced::Frame(frame) => frame,
            Announced::Trailer => {
                end(&mut input, &bytes, &header, &sums)?;
                break;
            }
            Announced::Bad(detail) => return Err(damaged(sums.frames + 1, sums.last, detail)),
        };
        let follows = frame.chain == sums.chain && frame.first > sums.last;
        let (after, number) = (sums.records + u64::from(frame.records), sums.frames + 1);
        if !follows || after > header.records {
            return Err(damaged(number, sums.last, "the frame does not follow the one before it"));
        }
        stored.resize(frame.stored_bytes as usize, 0);
        input.exactly(&mut stored, &sums)?;
        let records = unpack(&frame, &stored, &header, &sums).map_err(|d| damaged(number, sums.last, d))?;
        let last = records.last().map_or(sums.last, |record| record.position);
        records.into_iter().for_each(&mut each);
        let raw_bytes = sums.raw_bytes + u64::from(frame.raw_bytes);
        sums = Trailer { frames: number, records: after, raw_bytes, last, chain: frame.chain_after() };
    }
    let Header { store, stream, first, last, records } = header;
    Ok(StreamFileReport { stream, store, records, first, last, bytes: input.bytes, checksum: input.checksum })
}

/// The frame's records, if they continue the stream.
fn unpack(
    frame: &FrameHeader,
    stored: &[u8],
    header: &Header,
    sums: &Trailer,
) -> Result<Vec<Record>, String> {
    let records = frame.records(stored)?;
    let mut before = sums.last;
    for (record, version) in records.iter().zip(sums.records + 1..) {
        let is_next = record.stream == header.stream
            && record.version.get() == version
            && record.previous == before
            && record.position > before;
        if !is_next {
            return Err(format!("version {version} does not continue the stream"));
        }
        before = record.position;
    }
    if records.first().is_none_or(|record| record.position != frame.first) {
        return Err("the frame begins with another record".to_owned());
    }
    Ok(records)
}

fn end(
    input: &mut Counting,
    start: &[u8; FRAME_HEADER_BYTES],
    header: &Header,
    sums: &Trailer,
) -> Result<(), Error> {
    let mut bytes = [0u8; TRAILER_BYTES];
    bytes[..FRAME_HEADER_BYTES].copy_from_slice(start);
    input.exactly(&mut bytes[FRAME_HEADER_BYTES..], sums)?;
    let trailer = Trailer::decode(&bytes).map_err(|detail| damaged(sums.frames + 1, sums.last, detail))?;
    let agrees = trailer == *sums && (sums.records, sums.last) == (header.records, header.last);
    if !agrees || input.fill(&mut [0])? != 0 {
        let detail = "the trailer does not agree with what stands before it";
        return Err(damaged(sums.frames + 1, sums.last, detail));
    }
    Ok(())
}

/// An input with its length and checksum so far.
struct Counting {
    input: BufReader<File>,
    bytes: u64,
    checksum: u32,
}

impl Counting {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let read = fill(&mut self.input, buffer)?;
        self.bytes += read as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, &buffer[..read]);
        Ok(read)
    }

    fn exactly(&mut self, buffer: &mut [u8], sums: &Trailer) -> Result<(), Error> {
        if self.fill(buffer)? == buffer.len() {
            return Ok(());
        }
        Err(Error::Truncated { frame: sums.frames + 1, position: sums.last.next() })
    }
}

/// Removes what an interrupted writing left in a directory of stream files; answers how many there were.
pub fn sweep_stream_files(dir: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|suffix| suffix == TEMPORARY_SUFFIX) {
            std::fs::remove_file(path)?;
            swept += 1;
        }
    }
    Ok(swept)
}
