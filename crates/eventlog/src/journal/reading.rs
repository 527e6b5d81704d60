//! Reading records back from segments, and streams through their back pointers.
//!
//! Invariants:
//! * a record is handed out only if its checksum matches and it is what was asked for;
//! * reads stay at or below the position they are given as durable;
//! * a read holds at most what it answers, and one batch.

use super::catalog::{Catalog, Segment};
use super::format::HeaderRead;
use super::losses::Losses;
use super::window::{Batch, POINT_BYTES, Piece, RANGE_BYTES, Window};
use crate::log::ReadError;
use crate::types::{Head, Position, Record, StreamId, Version};
use std::collections::VecDeque;
use std::sync::Arc;

fn damaged(position: Position, name: &str, offset: u64, detail: &str) -> ReadError {
    let detail = format!("{name} at offset {offset}: {detail}");
    ReadError::Damaged { position, last: None, streams: Vec::new(), detail }
}

/// Refuses a stream that lost a record.
pub(crate) fn check_stream(losses: &Losses, stream: StreamId) -> Result<(), ReadError> {
    if losses.has(stream) {
        return Err(ReadError::Quarantined { stream, detail: losses.detail(stream) });
    }
    Ok(())
}

/// Last position that can be read from `from` on without a gap. Refuses if `from` lies in one.
pub(crate) fn readable(losses: &Losses, from: Position, durable: Position) -> Result<Position, ReadError> {
    let Some(gap) = losses.gap_from(from.max(Position::new(1))) else { return Ok(durable) };
    if from < gap.place.first {
        return Ok(durable.min(Position::new(gap.place.first.get() - 1)));
    }
    let place = &gap.place;
    let detail = format!("{} at offset {}: {}", place.segment, place.offset, place.detail);
    let (last, streams) = (Some(gap.last), place.streams.clone());
    Err(ReadError::Damaged { position: from, last, streams, detail })
}

/// The batch that holds `position`.
fn batch_of(
    catalog: &Catalog,
    position: Position,
    ahead_bytes: usize,
) -> Result<(Arc<Segment>, Window, Batch), ReadError> {
    let segment = catalog.segment(position)?;
    let (mut offset, _) = segment.locate(position)?;
    let mut window = Window::new(segment.file.clone(), ahead_bytes);
    let io = |error: std::io::Error| ReadError::Io(error.to_string());
    loop {
        offset = segment.jump(offset).map_or(offset, |jump| jump.to);
        match window.header(offset).map_err(io)? {
            HeaderRead::Batch(header) if header.last() < position => offset = header.next_offset(offset),
            HeaderRead::Batch(header) if header.first <= position => {
                let batch = window.batch(offset, header).map_err(io)?;
                return Ok((segment, window, batch));
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
    let (at, piece) = batch.find(position);
    match piece {
        Piece::Whole(record, _) => Ok(record),
        Piece::Bad { cause, .. } => Err(damaged(position, name, batch.offset_of(at), &cause)),
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
        let (segment, _, batch) = batch_of(self.catalog, position, POINT_BYTES)?;
        let name = segment.name();
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
    let (segment, mut window, mut batch) = batch_of(catalog, from, RANGE_BYTES)?;
    let name = segment.name();
    let mut next = from;
    loop {
        let (mut at, mut piece) = batch.find(next);
        loop {
            let (record, next_at) = match piece {
                Piece::Whole(record, next_at) => (record, next_at),
                Piece::Bad { cause, .. } => {
                    return Err(damaged(next, &name, batch.offset_of(at), &cause));
                }
            };
            records.push(record);
            (at, next) = (next_at, next.next());
            if records.len() == limit || next > durable || next > batch.header.last() {
                break;
            }
            piece = batch.piece(at, next);
        }
        if records.len() == limit {
            return Ok(next);
        }
        if next > durable {
            return Ok(next);
        }
        let offset = batch.header.next_offset(batch.offset);
        let offset = segment.jump(offset).map_or(offset, |jump| jump.to);
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
            return Err(ReadError::Damaged { position, last: None, streams: vec![stream], detail });
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
