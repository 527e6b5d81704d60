//! Writing an export.
//!
//! Invariants:
//! * an export ends at the position that was durable when it began, whatever is appended meanwhile;
//! * it holds one read and one frame in memory, whatever the length of the log.

use super::error::Error;
use super::frame::{self, ExportHeader, FRAME_RAW_BYTES, Trailer, chain_origin};
use crate::journal::{Journal, JournalReader, StoreId};
use crate::log::{Log, ReadError};
use crate::record;
use crate::types::{Position, Record};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Records read at once.
const READ_RECORDS: usize = 256;

/// What an export can be made from.
pub trait Source {
    /// Identity of the store.
    fn store_id(&self) -> StoreId;
    /// Last durable position.
    fn durable(&self) -> Position;
    /// Records from `from` (inclusive) on, at most `limit`; empty only beyond the durable end.
    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError>;
}

impl Source for Journal {
    fn store_id(&self) -> StoreId {
        self.store_id()
    }

    fn durable(&self) -> Position {
        Log::durable(self)
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        Log::read_all(self, from, limit)
    }
}

impl Source for JournalReader {
    fn store_id(&self) -> StoreId {
        self.store_id()
    }

    fn durable(&self) -> Position {
        self.durable()
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.read_all(from, limit)
    }
}

/// Any log together with the identity its export shall carry.
#[derive(Clone, Copy)]
pub struct LogSource<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// Identity of its store.
    pub store: StoreId,
}

impl std::fmt::Debug for LogSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogSource").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Source for LogSource<'_> {
    fn store_id(&self) -> StoreId {
        self.store
    }

    fn durable(&self) -> Position {
        self.log.durable()
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.log.read_all(from, limit)
    }
}

/// What an export holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// First position.
    pub first: Position,
    /// Last position; before the first if it holds none.
    pub last: Position,
    /// Number of records.
    pub records: u64,
    /// Bytes of the records before compression.
    pub raw_bytes: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Writes the log from position `from` to its durable end into `out`. `out` is flushed, not synced.
pub fn export(source: &impl Source, from: Position, out: impl Write) -> Result<ExportReport, Error> {
    let first = from.max(Position::new(1));
    let last = source.durable();
    if first > last.next() {
        return Err(Error::BeyondEnd { asked: first, durable: last });
    }
    let header = ExportHeader { store: source.store_id(), first, last };
    let mut frames = Frames {
        out,
        raw: Vec::new(),
        records: 0,
        first,
        trailer: Trailer { chain: chain_origin(&header), last, ..Trailer::default() },
        bytes: 0,
    };
    frames.write(&header.encode())?;
    let mut next = first;
    while next <= last {
        let wanted = READ_RECORDS.min((last.get() - next.get() + 1) as usize);
        let records = source.read_all(next, wanted)?;
        if records.is_empty() {
            return Err(Error::Read(ReadError::Closed));
        }
        for record in &records {
            assert_eq!(record.position, next, "a log reads gapless");
            frames.add(record)?;
            next = next.next();
        }
    }
    frames.finish(first)
}

/// Exports into a new file, durably.
pub fn export_file(source: &impl Source, from: Position, path: &Path) -> Result<ExportReport, Error> {
    let file = File::create_new(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.into() },
        _ => Error::io("creating", path)(error),
    })?;
    let mut out = BufWriter::new(file);
    let written = export(source, from, &mut out).and_then(|report| {
        let file = out.into_inner().map_err(|error| Error::io("writing", path)(error.into_error()))?;
        file.sync_all().map_err(Error::io("syncing", path))?;
        Ok(report)
    });
    let report = written.inspect_err(|_| {
        // Half an export is none, and would be in the way of the next.
        drop(std::fs::remove_file(path));
    })?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(Error::io("syncing", dir))?;
    Ok(report)
}

struct Frames<W> {
    out: W,
    /// Records of the frame being filled.
    raw: Vec<u8>,
    records: u32,
    first: Position,
    trailer: Trailer,
    bytes: u64,
}

impl<W: Write> Frames<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|source| Error::Stream { doing: "writing", source })
    }

    fn add(&mut self, record: &Record) -> Result<(), Error> {
        if self.records == 0 {
            self.first = record.position;
        }
        record::encode(&mut self.raw, record);
        self.records += 1;
        if self.raw.len() >= FRAME_RAW_BYTES { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), Error> {
        let packed = frame::pack(&self.raw, self.records, self.first, self.trailer.chain);
        let (header, stored) = packed.map_err(|source| Error::Stream { doing: "compressing", source })?;
        self.write(&header.encode())?;
        self.write(&stored)?;
        self.trailer.chain = header.chain_after();
        self.trailer.frames += 1;
        self.trailer.records += u64::from(self.records);
        self.trailer.raw_bytes += self.raw.len() as u64;
        self.raw.clear();
        self.records = 0;
        Ok(())
    }

    fn finish(mut self, first: Position) -> Result<ExportReport, Error> {
        if self.records > 0 {
            self.close()?;
        }
        let trailer = self.trailer;
        self.write(&trailer.encode())?;
        self.out.flush().map_err(|source| Error::Stream { doing: "writing", source })?;
        let Trailer { records, raw_bytes, last, .. } = trailer;
        Ok(ExportReport { first, last, records, raw_bytes, bytes: self.bytes })
    }
}
