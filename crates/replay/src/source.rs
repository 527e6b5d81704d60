//! Where the past is read from: a journal that nobody writes, an export, or the log of a running daemon.

use crate::error::Error;
use crate::verify::Progress;
use eventlog::portable::ExportReader;
use eventlog::{JournalReader, Log, Position, ReadError, Record, StreamId, Version};
use journal::StreamName;
use std::sync::Arc;

/// Records read at a time: enough to make a seek worth it, few enough to hold.
pub(crate) const PAGE_RECORDS: usize = 4_096;

/// Something that holds records and can be read at any place. Never changed by reading.
pub trait Source {
    /// Reads a stream from version `from` (inclusive; 1 is the first), at most `limit` records.
    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError>;

    /// Reads everything from position `from` (inclusive), at most `limit` records; empty beyond the end.
    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError>;

    /// Last durable position.
    fn durable(&self) -> Position;

    /// Records that are read at a time by whoever reads all of them. Fewer where others wait for what reads.
    fn page_records(&self) -> usize {
        PAGE_RECORDS
    }
}

impl Source for JournalReader {
    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        Self::read_stream(self, stream, from, limit)
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        Self::read_all(self, from, limit)
    }

    fn durable(&self) -> Position {
        Self::durable(self)
    }
}

impl Source for ExportReader {
    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        Self::read_stream(self, stream, from, limit)
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        Self::read_all(self, from, limit)
    }

    fn durable(&self) -> Position {
        Self::durable(self)
    }
}

impl<L: Log + ?Sized> Source for Arc<L> {
    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        (**self).read_stream(stream, from, limit)
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        (**self).read_all(from, limit)
    }

    fn durable(&self) -> Position {
        (**self).durable()
    }
}

/// A page of a stream from `from` on; an error says which.
pub(crate) fn stream_page(
    source: &dyn Source,
    stream: StreamName,
    from: u64,
    limit: usize,
) -> Result<Vec<Record>, Error> {
    source
        .read_stream(stream.id(), Version::new(from), limit)
        .map_err(|error| Error::Read { what: format!("{stream} from version {from}"), source: error })
}

/// A page of the log from `from` on; an error says which.
pub(crate) fn log_page(source: &dyn Source, from: u64, limit: usize) -> Result<Vec<Record>, Error> {
    source
        .read_all(Position::new(from), limit)
        .map_err(|error| Error::Read { what: format!("the log from position {from}"), source: error })
}

/// Whether the event with this (index, count) is the last of its append.
pub(crate) const fn ends_append(index: (u16, u16)) -> bool {
    matches!(index.1.checked_sub(1), Some(last) if last == index.0)
}

/// Whether a walk through the log goes on.
pub(crate) type Flow = std::ops::ControlFlow<()>;

/// Gives every record from position 1 to `last` to `each`, in order, until it breaks. `progress` is called once
/// per page.
pub(crate) fn each_record(
    source: &dyn Source,
    last: u64,
    progress: &mut dyn FnMut(Progress),
    each: &mut dyn FnMut(Record) -> Result<Flow, Error>,
) -> Result<(), Error> {
    let total = last.min(source.durable().get());
    let mut next = 1;
    while next <= total {
        let left = usize::try_from(total - next + 1).unwrap_or(usize::MAX);
        let page = log_page(source, next, left.min(source.page_records()))?;
        let Some(end) = page.last().map(|record| record.position.get()) else {
            break;
        };
        for record in page {
            if each(record)?.is_break() {
                return Ok(());
            }
        }
        next = end + 1;
        progress(Progress { done: end, total });
    }
    Ok(())
}

/// Gives every record of a stream from version 1 on to `each`, in order, until it breaks; answers how many there
/// were.
pub(crate) fn each_of_stream(
    source: &dyn Source,
    stream: StreamName,
    each: &mut dyn FnMut(Record) -> Result<Flow, Error>,
) -> Result<u64, Error> {
    let mut seen = 0;
    loop {
        let page = stream_page(source, stream, seen + 1, PAGE_RECORDS)?;
        let is_last = page.len() < PAGE_RECORDS;
        for record in page {
            seen += 1;
            if each(record)?.is_break() {
                return Ok(seen);
            }
        }
        if is_last {
            return Ok(seen);
        }
    }
}
