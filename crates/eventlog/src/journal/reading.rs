//! Reading records back from segments, and streams through their back pointers.
//!
//! Invariants:
//! * a record is handed out only if its checksum matches and it is what was asked for;
//! * reads stay at or below the position they are given as durable;
//! * a read holds at most what it answers, and one batch.

use super::catalog::Catalog;
use super::format::HeaderRead;
use super::window::{Batch, POINT_BYTES, RANGE_BYTES, Window};
use crate::log::ReadError;
use crate::record;
use crate::types::{Head, Position, Record, StreamId, Version};
use std::collections::VecDeque;

fn damaged(position: Position, name: &str, offset: u64, detail: &str) -> ReadError {
    ReadError::Damaged { position, detail: format!("{name} at offset {offset}: {detail}") }
}

/// The batch that holds `position`.
fn batch_of(
    catalog: &Catalog,
    position: Position,
    ahead_bytes: usize,
) -> Result<(Window, Batch, String), ReadError> {
    let segment = catalog.segment(position)?;
    let (mut offset, _) = segment.locate(position)?;
    let mut window = Window::new(segment.file.clone(), ahead_bytes);
    let io = |error: std::io::Error| ReadError::Io(error.to_string());
    loop {
        match window.header(offset).map_err(io)? {
            HeaderRead::Batch(header) if header.last() < position => offset = header.next_offset(offset),
            HeaderRead::Batch(header) if header.first <= position => {
                let batch = window.batch(offset, header).map_err(io)?;
                return Ok((window, batch, segment.name()));
            }
            HeaderRead::Bad(detail) => return Err(damaged(position, &segment.name(), offset, detail)),
            HeaderRead::Batch(_) | HeaderRead::Empty => {
                return Err(damaged(position, &segment.name(), offset, "the record is gone"));
            }
        }
    }
}

/// Decodes one record of a batch.
fn pick(batch: &Batch, position: Position, name: &str) -> Result<Record, ReadError> {
    let mut at = 0;
    for _ in batch.header.first.get()..position.get() {
        let length = record::length_at(&batch.body, at);
        at += length.map_err(|error| damaged(position, name, batch.offset_of(at), &error.to_string()))?;
    }
    let (record, _) = record::decode(&batch.body, at)
        .map_err(|error| damaged(position, name, batch.offset_of(at), &error.to_string()))?;
    if record.position == position {
        Ok(record)
    } else {
        Err(damaged(position, name, batch.offset_of(at), "another record stands there"))
    }
}

/// Reads single records, keeping the last batch: neighbours in a stream often share one.
pub(crate) struct PointReader<'a> {
    catalog: &'a Catalog,
    last: Option<(Batch, String)>,
}

impl<'a> PointReader<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Self {
        Self { catalog, last: None }
    }

    /// The record at a durable position.
    pub(crate) fn get(&mut self, position: Position) -> Result<Record, ReadError> {
        if let Some((batch, name)) = &self.last
            && (batch.header.first..=batch.header.last()).contains(&position)
        {
            return pick(batch, position, name);
        }
        let (_, batch, name) = batch_of(self.catalog, position, POINT_BYTES)?;
        let record = pick(&batch, position, &name)?;
        self.last = Some((batch, name));
        Ok(record)
    }
}

/// Reads the log from `from` to `durable`, at most `limit` records.
pub(crate) fn range(
    catalog: &Catalog,
    from: Position,
    durable: Position,
    limit: usize,
) -> Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    let mut next = from.max(Position::new(1));
    while next <= durable && records.len() < limit {
        next = range_in_segment(catalog, next, durable, limit, &mut records)?;
    }
    Ok(records)
}

/// Reads on to the end of one segment; answers the first position not read.
fn range_in_segment(
    catalog: &Catalog,
    from: Position,
    durable: Position,
    limit: usize,
    records: &mut Vec<Record>,
) -> Result<Position, ReadError> {
    let (mut window, mut batch, name) = batch_of(catalog, from, RANGE_BYTES)?;
    let mut next = from;
    loop {
        let mut at = 0;
        for position in (batch.header.first.get()..=batch.header.last().get()).map(Position::new) {
            if records.len() == limit || position > durable {
                return Ok(next);
            }
            let fail =
                |error: record::Malformed| damaged(position, &name, batch.offset_of(at), &error.to_string());
            if position < next {
                at += record::length_at(&batch.body, at).map_err(fail)?;
                continue;
            }
            let (record, length) = record::decode(&batch.body, at).map_err(fail)?;
            if record.position != position {
                return Err(damaged(position, &name, batch.offset_of(at), "another record stands there"));
            }
            records.push(record);
            at += length;
            next = position.next();
        }
        if next > durable {
            return Ok(next);
        }
        let offset = batch.header.next_offset(batch.offset);
        let io = |error: std::io::Error| ReadError::Io(error.to_string());
        match window.header(offset).map_err(io)? {
            HeaderRead::Batch(header) if header.first == next => {
                batch = window.batch(offset, header).map_err(io)?;
            }
            // The next position is in the next segment; if it is not, finding it there will say so.
            HeaderRead::Empty => return Ok(next),
            HeaderRead::Batch(_) => return Err(damaged(next, &name, offset, "another batch stands there")),
            HeaderRead::Bad(detail) => return Err(damaged(next, &name, offset, detail)),
        }
    }
}

/// Reads a stream backwards from its head and answers the versions `from..=last`, in order.
pub(crate) fn walk(
    stream: StreamId,
    head: Head,
    from: Version,
    last: Version,
    mut get: impl FnMut(Position) -> Result<Record, ReadError>,
) -> Result<Vec<Record>, ReadError> {
    let mut records = VecDeque::new();
    let (mut position, mut version) = (head.position, head.version);
    while version >= from {
        let record = get(position)?;
        if record.stream != stream || record.version != version {
            let detail = format!(
                "stream {stream} points there for its version {version}, another record stands there"
            );
            return Err(ReadError::Damaged { position, detail });
        }
        position = record.previous;
        if version <= last {
            records.push_front(record);
        }
        version = Version::new(version.get() - 1);
        if version == Version::ZERO {
            break;
        }
    }
    Ok(records.into())
}
