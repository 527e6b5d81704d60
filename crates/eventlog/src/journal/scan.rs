//! Reading the journal from some point to its end, believing nothing.
//!
//! Invariants, checked for every batch and record passed:
//! * checksums match, the chain is unbroken, positions are gapless;
//! * each stream's versions are gapless and each record points back at the one before;
//! * what lies behind the last batch of a segment is zeros;
//! * the tail witness and the heads checkpoints, where they are passed, remember the same history.

use super::error::{Damage, OpenError};
use super::files::{Files, Handle};
use super::format::{BATCH_HEADER_BYTES, BatchHeader, HeaderRead, SEGMENT_HEADER_BYTES, aligned};
use super::heads::HeadsCheckpoint;
use super::survey::{SegmentFile, Survey, WitnessFound, open_segment};
use super::window::{Batch, SCAN_BYTES, Window};
use crate::gate::Owned;
use crate::record;
use crate::types::{Epoch, Head, Position, Record, StreamId, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How far a scan has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    /// Position after the last one read.
    pub(crate) next: Position,
    /// Chain up to there.
    pub(crate) chain: u64,
    pub(crate) heads: BTreeMap<StreamId, Owned>,
    /// Where the next batch of the last segment belongs.
    pub(crate) tail_offset: u64,
    pub(crate) batches: u64,
    pub(crate) records: u64,
    /// Bytes of the records read.
    pub(crate) bytes: u64,
    /// What stands at the tail of the last segment instead of zeros.
    pub(crate) leftover: Option<Leftover>,
}

/// An incomplete batch at the tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    pub(crate) place: Damage,
    /// Offset after its last byte that is not zero.
    pub(crate) end: u64,
}

/// Why a scan stopped before the end.
#[derive(Debug)]
pub(crate) enum ScanStop {
    /// The checkpoint it started from does not fit the journal; start from another.
    Checkpoint(String),
    /// Nothing to be done about it here.
    Failed(OpenError),
}

impl From<OpenError> for ScanStop {
    fn from(error: OpenError) -> Self {
        Self::Failed(error)
    }
}

/// A scan in progress.
pub(crate) struct Scanner<'a> {
    files: &'a dyn Files,
    dir: &'a Path,
    survey: &'a Survey,
    /// Where to start from instead of the first segment.
    checkpoint: Option<&'a HeadsCheckpoint>,
    /// Checkpoints to compare with when their position is passed.
    compare: &'a [HeadsCheckpoint],
    pub(crate) scan: Scan,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(
        files: &'a dyn Files,
        dir: &'a Path,
        survey: &'a Survey,
        checkpoint: Option<&'a HeadsCheckpoint>,
        compare: &'a [HeadsCheckpoint],
    ) -> Self {
        let scan = Scan { next: Position::new(1), ..Scan::default() };
        Self { files, dir, survey, checkpoint, compare, scan }
    }

    /// Scans to the end. What was read before a failure stays in `scan`.
    pub(crate) fn run(&mut self) -> Result<(), ScanStop> {
        let segments = &self.survey.segments;
        let start = match self.checkpoint {
            Some(checkpoint) => {
                let behind = segments.partition_point(|segment| segment.header.first <= checkpoint.position);
                behind.saturating_sub(1)
            }
            None => 0,
        };
        let Some(first) = segments.get(start) else { return Ok(()) };
        self.scan.next = first.header.first;
        self.scan.chain = first.header.chain;
        for (index, segment) in segments.iter().enumerate().skip(start) {
            self.check_join(segment)?;
            self.segment(segment, index + 1 == segments.len())?;
        }
        match self.checkpoint {
            Some(checkpoint) if checkpoint.position >= self.scan.next => {
                Err(ScanStop::Checkpoint("the journal ends before it".into()))
            }
            _ => Ok(()),
        }
    }

    fn check_join(&self, segment: &SegmentFile) -> Result<(), OpenError> {
        let header = segment.header;
        if header.first > self.scan.next {
            return Err(OpenError::MissingSegment { expected: self.scan.next, found: segment.name.clone() });
        }
        if header.first < self.scan.next || header.chain != self.scan.chain {
            let detail = "the segment does not continue the one before it";
            return Err(damaged(segment, 0, header.first, None, detail));
        }
        Ok(())
    }

    fn segment(&mut self, segment: &SegmentFile, is_last: bool) -> Result<(), ScanStop> {
        let file = open_segment(self.files, self.dir, segment.header.first)?;
        let io = |source| OpenError::io("reading", self.dir.join(&segment.name), source);
        let mut window = Window::new(file.clone(), SCAN_BYTES);
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        loop {
            self.scan.tail_offset = offset;
            let (detail, batch) = match window.header(offset).map_err(io)? {
                HeaderRead::Batch(header) if header.first != self.scan.next => {
                    ("the batch starts at another position than the one before it ends", None)
                }
                HeaderRead::Batch(header) if header.chain != self.scan.chain => {
                    ("the batch was written behind another one", None)
                }
                HeaderRead::Batch(header) => {
                    let batch = window.batch(offset, header).map_err(io)?;
                    if batch.is_intact() {
                        self.batch(segment, &batch)?;
                        offset = header.next_offset(offset);
                        continue;
                    }
                    ("a checksum of the batch does not match", Some(batch))
                }
                HeaderRead::Empty => {
                    if last_nonzero(&mut window, offset, segment.bytes).map_err(io)?.is_none() {
                        return Ok(());
                    }
                    ("there are bytes behind the end of the segment", None)
                }
                HeaderRead::Bad(detail) => (detail, None),
            };
            let place = self.locate(segment, offset, batch.as_ref(), detail);
            return Ok(self.judge_end(segment, file, place, is_last)?);
        }
    }

    /// Names what is damaged at `offset` as narrowly as its batch allows.
    fn locate(&self, segment: &SegmentFile, offset: u64, batch: Option<&Batch>, detail: &str) -> Damage {
        let mut place = Damage {
            segment: segment.name.clone(),
            offset,
            first: self.scan.next,
            last: None,
            streams: Vec::new(),
            detail: detail.into(),
        };
        if let Some(batch) = batch {
            let (index, at) = batch.first_bad_record();
            place.offset = batch.offset_of(at);
            place.first = Position::new(batch.header.first.get() + u64::from(index));
            place.last = Some(batch.header.last());
        }
        place
    }

    /// Decides whether what stands at the end of the readable part is a torn last batch or damage.
    fn judge_end(
        &mut self,
        segment: &SegmentFile,
        file: std::sync::Arc<dyn Handle>,
        mut place: Damage,
        is_last: bool,
    ) -> Result<(), OpenError> {
        let io = |source| OpenError::io("reading", self.dir.join(&segment.name), source);
        let offset = self.scan.tail_offset;
        let behind = find_behind(file.clone(), offset, segment.bytes, self.scan.next).map_err(io)?;
        if !is_last || behind.is_some() {
            if let Some((found, header)) = behind {
                place.last = Some(Position::new(header.first.get() - 1));
                place.streams = streams_before(file, found, place.first, header.first).map_err(io)?;
            }
            return Err(OpenError::Damaged(place));
        }
        let mut window = Window::new(file, SCAN_BYTES);
        let end =
            last_nonzero(&mut window, offset, segment.bytes).map_err(io)?.map_or(offset, |last| last + 1);
        self.scan.leftover = Some(Leftover { place, end });
        Ok(())
    }

    fn batch(&mut self, segment: &SegmentFile, batch: &Batch) -> Result<(), ScanStop> {
        let last = batch.header.last();
        match self.checkpoint {
            Some(checkpoint) if last < checkpoint.position => {}
            Some(checkpoint) if last == checkpoint.position => {
                if batch.header.chain_after() != checkpoint.chain {
                    return Err(ScanStop::Checkpoint("it remembers another history".into()));
                }
                self.scan.heads.clone_from(&checkpoint.heads);
                self.scan.bytes = checkpoint.bytes;
            }
            Some(checkpoint) if batch.header.first <= checkpoint.position => {
                return Err(ScanStop::Checkpoint("its position lies inside a batch".into()));
            }
            _ => self.records(segment, batch)?,
        }
        self.scan.next = last.next();
        self.scan.chain = batch.header.chain_after();
        self.scan.batches += 1;
        self.compare(segment, batch)?;
        Ok(())
    }

    fn records(&mut self, segment: &SegmentFile, batch: &Batch) -> Result<(), OpenError> {
        let mut at = 0;
        for index in 0..u64::from(batch.header.count) {
            let position = Position::new(batch.header.first.get() + index);
            let damage =
                |detail: String| damaged(segment, batch.offset_of(at), position, Some(position), &detail);
            let (record, length) = record::decode(&batch.body, at)
                .map_err(|error| damage(format!("{error}, though the batch's does")))?;
            let owned = self.scan.heads.get(&record.stream).copied().unwrap_or_default();
            follows(&record, position, owned.head).map_err(|detail| damage(detail.into()))?;
            let head = Head { version: record.version, position };
            self.scan.heads.insert(record.stream, Owned { head, epoch: Epoch::ZERO });
            at += length;
        }
        if at != batch.body.len() {
            let last = batch.header.last();
            let detail = "the batch is longer than its records";
            return Err(damaged(segment, batch.offset_of(at), last, Some(last), detail));
        }
        self.scan.records += u64::from(batch.header.count);
        self.scan.bytes += batch.body.len() as u64;
        Ok(())
    }

    fn compare(&self, segment: &SegmentFile, batch: &Batch) -> Result<(), OpenError> {
        let last = batch.header.last();
        let differs = |what: &str| {
            let detail = format!("{what} at position {last} remembers another history");
            Err(damaged(segment, batch.offset, batch.header.first, Some(last), &detail))
        };
        if let WitnessFound::Valid(testimony) = self.survey.witness
            && testimony.position == last
            && testimony.chain != self.scan.chain
        {
            return differs("the tail witness");
        }
        for checkpoint in self.compare {
            let is_equal = checkpoint.chain == self.scan.chain && checkpoint.heads == self.scan.heads;
            if checkpoint.position == last && !is_equal {
                return differs("the heads checkpoint");
            }
        }
        Ok(())
    }
}

fn damaged(
    segment: &SegmentFile,
    offset: u64,
    first: Position,
    last: Option<Position>,
    detail: &str,
) -> OpenError {
    let streams = Vec::new();
    OpenError::Damaged(Damage {
        segment: segment.name.clone(),
        offset,
        first,
        last,
        streams,
        detail: detail.into(),
    })
}

fn follows(record: &Record, position: Position, head: Head) -> Result<(), &'static str> {
    if record.position != position {
        return Err("the record names another position than its place");
    }
    if record.version != head.version.next() {
        return Err("the record's version does not follow the one before in its stream");
    }
    if record.previous != head.position {
        return Err("the record does not point back at the one before in its stream");
    }
    Ok(())
}

/// Offset of the last byte at or after `from` that is not zero.
fn last_nonzero(window: &mut Window, from: u64, end: u64) -> std::io::Result<Option<u64>> {
    let mut at = from;
    let mut last = None;
    while at < end {
        let bytes = window.get(at, SCAN_BYTES.min((end - at) as usize))?;
        if bytes.is_empty() {
            break;
        }
        if let Some(index) = bytes.iter().rposition(|byte| *byte != 0) {
            last = Some(at + index as u64);
        }
        at += bytes.len() as u64;
    }
    Ok(last)
}

/// The first whole batch behind `offset` that holds later positions than `next`: its presence shows that
/// what is broken before it is damage and not the torn end of the last write.
fn find_behind(
    file: std::sync::Arc<dyn Handle>,
    offset: u64,
    end: u64,
    next: Position,
) -> std::io::Result<Option<(u64, BatchHeader)>> {
    let mut window = Window::new(file, SCAN_BYTES);
    let mut at = aligned(offset + 1);
    while at + BATCH_HEADER_BYTES as u64 <= end {
        if let HeaderRead::Batch(header) = window.header(at)?
            && header.first > next
            && window.batch(at, header)?.is_intact()
        {
            return Ok(Some((at, header)));
        }
        at = aligned(at + 1);
    }
    Ok(None)
}

/// Streams whose records behind the damage point back into it, as far as the segment goes on readably.
fn streams_before(
    file: std::sync::Arc<dyn Handle>,
    mut offset: u64,
    first: Position,
    behind: Position,
) -> std::io::Result<Vec<StreamId>> {
    let mut window = Window::new(file, SCAN_BYTES);
    let mut streams = BTreeSet::new();
    while let HeaderRead::Batch(header) = window.header(offset)? {
        let batch = window.batch(offset, header)?;
        let mut at = 0;
        while let Ok((record, length)) = record::decode(&batch.body, at) {
            if (first..behind).contains(&record.previous) && record.version != Version::ZERO {
                streams.insert(record.stream);
            }
            at += length;
        }
        offset = header.next_offset(offset);
    }
    Ok(streams.into_iter().collect())
}
