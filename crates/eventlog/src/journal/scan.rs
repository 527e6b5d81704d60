//! Reading the journal from some point to its end, believing nothing.
//!
//! From a heads checkpoint the scan stops at the first damage. From the start it goes on behind it, and finds
//! out what was lost: damage is then in [`Scan::losses`], and never in what is handed out.
//!
//! Invariants, checked for every batch and record passed:
//! * checksums match, the chain is unbroken, positions are gapless;
//! * each stream's versions are gapless and each record points back at the one before;
//! * what lies behind the last batch of a segment is zeros;
//! * the tail witness and the heads checkpoints, where they are passed, remember the same history.

use super::error::{Damage, OpenError};
use super::files::{Files, Handle};
use super::format::{HeaderRead, SEGMENT_HEADER_BYTES};
use super::head_map::HeadMap;
use super::heads::HeadsCheckpoint;
use super::losses::{Jump, Losses};
use super::seek::{find_behind, last_nonzero};
use super::survey::{SegmentFile, Survey, WitnessFound, open_segment};
use super::window::{Batch, Piece, SCAN_BYTES, Window};
use crate::gate::Owned;
use crate::record;
use crate::types::{Epoch, Head, Position, Record, StreamId, Version};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// How far a scan has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    /// Position after the last one read.
    pub(crate) next: Position,
    /// Chain up to there.
    pub(crate) chain: u64,
    pub(crate) heads: HeadMap,
    /// Where the next batch of the last segment belongs.
    pub(crate) tail_offset: u64,
    /// Where the last batch of the last segment starts, if it has one.
    pub(crate) last_batch: Option<u64>,
    pub(crate) batches: u64,
    pub(crate) records: u64,
    /// Bytes of the records read.
    pub(crate) bytes: u64,
    /// What stands at the tail of the last segment instead of zeros.
    pub(crate) leftover: Option<Leftover>,
    /// What could not be read on the way.
    pub(crate) losses: Losses,
    /// Checkpoints that were passed and do not fit.
    pub(crate) refuted: Vec<(Position, String)>,
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
    /// There is damage; only a scan from the start can say what was lost.
    Damage,
    /// Nothing to be done about it here.
    Failed(OpenError),
}

impl From<OpenError> for ScanStop {
    fn from(error: OpenError) -> Self {
        Self::Failed(error)
    }
}

/// A checkpoint that a scan starts from, without its heads.
#[derive(Clone, Copy)]
struct Start {
    position: Position,
    chain: u64,
    bytes: u64,
}

/// A scan in progress.
pub(crate) struct Scanner<'a> {
    files: &'a dyn Files,
    dir: &'a Path,
    survey: &'a Survey,
    /// Where to start from instead of the first segment.
    checkpoint: Option<Start>,
    /// Its heads, until the scan has come to it.
    start_heads: HeadMap,
    /// Checkpoints to compare with when their position is passed.
    compare: &'a [HeadsCheckpoint],
    /// Segments to scan.
    range: Range<usize>,
    /// Whether the segments before were left to another scan.
    is_part: bool,
    /// How streams go on in a part: version and back pointer of each one's first record.
    pub(crate) starts: BTreeMap<StreamId, (Version, Position)>,
    /// Heads of a part when it passed a checkpoint.
    pub(crate) passed: Vec<(Position, HeadMap)>,
    pub(crate) scan: Scan,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(
        files: &'a dyn Files,
        dir: &'a Path,
        survey: &'a Survey,
        checkpoint: Option<HeadsCheckpoint>,
        compare: &'a [HeadsCheckpoint],
    ) -> Self {
        let of = |it: HeadsCheckpoint| {
            (Start { position: it.position, chain: it.chain, bytes: it.bytes }, it.heads)
        };
        let (checkpoint, start_heads) = checkpoint.map(of).unzip();
        let start_heads = start_heads.unwrap_or_default();
        let scan = Scan { next: Position::new(1), ..Scan::default() };
        let range = 0..survey.segments.len();
        let (is_part, starts, passed) = (false, BTreeMap::new(), Vec::new());
        Self { files, dir, survey, checkpoint, start_heads, compare, range, is_part, starts, passed, scan }
    }

    /// A scan of some segments only. It compares what it can.
    pub(crate) fn part(
        files: &'a dyn Files,
        dir: &'a Path,
        survey: &'a Survey,
        compare: &'a [HeadsCheckpoint],
        range: Range<usize>,
    ) -> Self {
        let is_part = range.start > 0;
        Self { range, is_part, ..Self::new(files, dir, survey, None, compare) }
    }

    /// Scans to the end. What was read before a failure stays in `scan`.
    pub(crate) fn run(&mut self) -> Result<(), ScanStop> {
        let segments = &self.survey.segments;
        let start = match self.checkpoint {
            Some(checkpoint) => {
                let behind = segments.partition_point(|segment| segment.header.first <= checkpoint.position);
                behind.saturating_sub(1)
            }
            None => self.range.start,
        };
        let Some(first) = segments.get(start) else { return Ok(()) };
        if self.checkpoint.is_some_and(|checkpoint| checkpoint.position < segments[0].header.first) {
            return Err(ScanStop::Checkpoint("the journal starts behind it".into()));
        }
        self.scan.next = first.header.first;
        self.scan.chain = first.header.chain;
        if let (None, false, Some(base)) = (self.checkpoint, self.is_part, &self.survey.base) {
            self.scan.heads.clone_from(&base.heads);
            self.scan.bytes = base.bytes;
        }
        for (index, segment) in segments.iter().enumerate().take(self.range.end).skip(start) {
            self.check_join(segment, index.checked_sub(1).and_then(|before| segments.get(before)))?;
            self.segment(segment, segments.get(index + 1))?;
        }
        match self.checkpoint {
            Some(checkpoint) if checkpoint.position >= self.scan.next => {
                Err(ScanStop::Checkpoint("the journal ends before it".into()))
            }
            _ => Ok(()),
        }
    }

    fn check_join(&mut self, segment: &SegmentFile, before: Option<&SegmentFile>) -> Result<(), ScanStop> {
        let header = segment.header;
        if header.first > self.scan.next {
            let detail = format!(
                "the positions up to segment {} are missing: the end of this one is lost, or another between them",
                segment.name
            );
            let place = Damage {
                segment: before.map_or_else(|| segment.name.clone(), |before| before.name.clone()),
                offset: self.scan.tail_offset,
                first: self.scan.next,
                last: None,
                streams: Vec::new(),
                detail,
            };
            let last = Position::new(header.first.get() - 1);
            self.lose(place, last, Some(segment.name.clone()))?;
            self.scan.next = header.first;
            self.scan.chain = header.chain;
        }
        if header.first < self.scan.next || header.chain != self.scan.chain {
            let detail = "the segment does not continue the one before it";
            return Err(damaged(segment, 0, header.first, None, detail).into());
        }
        Ok(())
    }

    /// Notes a gap, and lets checkpoints inside it tell what was lost.
    fn lose(&mut self, place: Damage, last: Position, found: Option<String>) -> Result<(), ScanStop> {
        if self.checkpoint.is_some() {
            return Err(ScanStop::Damage);
        }
        let first = place.first;
        self.scan.losses.add(place, last, found);
        let compare = self.compare;
        for checkpoint in compare.iter().filter(|it| (first..=last).contains(&it.position)) {
            self.testify(checkpoint);
        }
        Ok(())
    }

    /// Compares the heads with a checkpoint's. Heads that lie in damage are taken from it; any other
    /// difference refutes it.
    fn testify(&mut self, checkpoint: &HeadsCheckpoint) {
        if self.is_part {
            return self.passed.push((checkpoint.position, self.scan.heads.clone()));
        }
        let scan = &mut self.scan;
        let mut fresh = Vec::new();
        let mut same = 0;
        for (&stream, owned) in checkpoint.heads.iter() {
            let known = scan.heads.get(&stream).copied().unwrap_or_default();
            same += usize::from(known.head.version.get() > 0);
            let is_lost = scan.losses.gap_at(owned.head.position).is_some();
            if known.head == owned.head {
                continue;
            }
            if is_lost && owned.head.version > known.head.version {
                fresh.push((stream, *owned, owned.head.version.get() - known.head.version.get()));
            } else {
                let why = format!("it remembers another head of stream {stream}");
                return scan.refuted.push((checkpoint.position, why));
            }
        }
        if same != scan.heads.len() {
            return scan.refuted.push((checkpoint.position, "it does not know every stream".into()));
        }
        for (stream, owned, count) in fresh {
            scan.losses.give(stream, owned.head.position, count);
            scan.heads.insert(stream, owned);
        }
    }

    fn segment(&mut self, segment: &SegmentFile, after: Option<&SegmentFile>) -> Result<(), ScanStop> {
        let file = open_segment(self.files, self.dir, segment)?;
        let io = |source| OpenError::io("reading", self.dir.join(&segment.name), source);
        let mut window = Window::new(file.clone(), SCAN_BYTES);
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        self.scan.last_batch = None;
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
            match self.broken(segment, &file, after, detail, batch)? {
                Some(resume) => offset = resume,
                None => return Ok(()),
            }
        }
    }

    /// Names what is damaged at `offset` as narrowly as its batch allows.
    fn locate(&self, segment: &SegmentFile, offset: u64, batch: Option<&Batch>, detail: &str) -> Damage {
        let mut place = Self::place(segment, offset, self.scan.next, detail);
        if let Some(batch) = batch {
            let (mut at, mut next) = (0, batch.header.first);
            while let Piece::Whole(_, next_at) = batch.piece(at, next)
                && next < batch.header.last()
            {
                (at, next) = (next_at, next.next());
            }
            place.offset = batch.offset_of(at);
            place.first = next;
            place.last = Some(batch.header.last());
        }
        place
    }

    /// Decides whether what cannot be read is a torn last batch or damage, and where reading goes on.
    fn broken(
        &mut self,
        segment: &SegmentFile,
        file: &Arc<dyn Handle>,
        after: Option<&SegmentFile>,
        detail: &str,
        batch: Option<Batch>,
    ) -> Result<Option<u64>, ScanStop> {
        let io = |source| OpenError::io("reading", self.dir.join(&segment.name), source);
        let (offset, next) = (self.scan.tail_offset, self.scan.next);
        let behind = find_behind(file.clone(), offset, segment.bytes, next).map_err(io)?;
        // A whole batch inside of this one shows that its header says the wrong length.
        let batch =
            batch.filter(|batch| behind.is_none_or(|(found, _)| found >= batch.header.next_offset(offset)));
        let place = self.locate(segment, offset, batch.as_ref(), detail);
        if after.is_none() && behind.is_none() {
            let mut window = Window::new(file.clone(), SCAN_BYTES);
            let last = last_nonzero(&mut window, offset, segment.bytes).map_err(io)?;
            let end = last.map_or(offset, |last| last + 1);
            self.scan.leftover = Some(Leftover { place, end });
            return Ok(None);
        }
        if self.checkpoint.is_some() {
            return Err(ScanStop::Damage);
        }
        if let Some(batch) = batch {
            self.salvage(segment, &batch)?;
            return Ok(Some(batch.header.next_offset(offset)));
        }
        let (resume, first, chain) = match (behind, after) {
            (Some((found, header)), _) => (Some(found), header.first, header.chain),
            (None, Some(after)) => (None, after.header.first, after.header.chain),
            (None, None) => unreachable!("the torn end was dealt with above"),
        };
        if first <= next {
            // The next segment goes on where this one ended: nothing is lost.
            self.scan.losses.scars.push(place);
            return Ok(None);
        }
        self.lose(place, Position::new(first.get() - 1), None)?;
        if let Some(to) = resume {
            let segment = segment.header.first;
            self.scan.losses.jumps.push(Jump { segment, from: offset, to, next: first });
        }
        self.scan.next = first;
        self.scan.chain = chain;
        Ok(resume)
    }

    /// Takes from a batch with a damaged body what is whole. Its header vouches for its place.
    fn salvage(&mut self, segment: &SegmentFile, batch: &Batch) -> Result<(), ScanStop> {
        let last = batch.header.last();
        let (mut at, mut next) = (0, batch.header.first);
        let mut is_lossless = true;
        while next <= last {
            match batch.piece(at, next) {
                Piece::Whole(record, next_at) => {
                    self.record(segment, batch.offset_of(at), &record, next)?;
                    (at, next) = (next_at, next.next());
                }
                Piece::Bad { last: bad, next_at, cause } => {
                    is_lossless = false;
                    let place = Self::place(segment, batch.offset_of(at), next, &cause);
                    self.lose(place, bad, None)?;
                    (at, next) = (next_at, bad.next());
                }
            }
        }
        if is_lossless {
            let place =
                Self::place(segment, batch.offset, batch.header.first, "the batch's checksum does not match");
            self.scan.losses.scars.push(place);
        }
        self.pass(segment, batch)
    }

    fn batch(&mut self, segment: &SegmentFile, batch: &Batch) -> Result<(), ScanStop> {
        let last = batch.header.last();
        match self.checkpoint {
            Some(checkpoint) if last < checkpoint.position => {}
            Some(checkpoint) if last == checkpoint.position => {
                if batch.header.chain_after() != checkpoint.chain {
                    return Err(ScanStop::Checkpoint("it remembers another history".into()));
                }
                self.scan.heads = std::mem::take(&mut self.start_heads);
                self.scan.bytes = checkpoint.bytes;
            }
            Some(checkpoint) if batch.header.first <= checkpoint.position => {
                return Err(ScanStop::Checkpoint("its position lies inside a batch".into()));
            }
            _ => self.records(segment, batch)?,
        }
        self.pass(segment, batch)
    }

    /// Goes on behind a batch.
    fn pass(&mut self, segment: &SegmentFile, batch: &Batch) -> Result<(), ScanStop> {
        let last = batch.header.last();
        self.scan.next = last.next();
        self.scan.chain = batch.header.chain_after();
        self.scan.batches += 1;
        self.scan.last_batch = Some(batch.offset);
        if let WitnessFound::Valid(testimony) = self.survey.witness
            && testimony.position == last
            && testimony.chain != self.scan.chain
        {
            let detail = format!("the tail witness at position {last} remembers another history");
            return Err(damaged(segment, batch.offset, batch.header.first, Some(last), &detail).into());
        }
        let compare = self.compare;
        for checkpoint in compare.iter().filter(|checkpoint| checkpoint.position == last) {
            if checkpoint.chain == self.scan.chain {
                self.testify(checkpoint);
            } else {
                self.scan.refuted.push((last, "it remembers another history".into()));
            }
        }
        Ok(())
    }

    fn records(&mut self, segment: &SegmentFile, batch: &Batch) -> Result<(), OpenError> {
        let mut at = 0;
        for index in 0..u64::from(batch.header.count) {
            let position = Position::new(batch.header.first.get() + index);
            let (record, length) = record::decode(&batch.body, at).map_err(|error| {
                let detail = format!("{error}, though the batch's does");
                damaged(segment, batch.offset_of(at), position, Some(position), &detail)
            })?;
            self.record(segment, batch.offset_of(at), &record, position)?;
            at += length;
        }
        if at != batch.body.len() {
            let last = batch.header.last();
            let detail = "the batch is longer than its records";
            return Err(damaged(segment, batch.offset_of(at), last, Some(last), detail));
        }
        self.scan.bytes += batch.body.len() as u64;
        Ok(())
    }

    /// Adds a record to its stream. A stream may go on behind a gap that its record points into.
    fn record(
        &mut self,
        segment: &SegmentFile,
        offset: u64,
        record: &Record,
        position: Position,
    ) -> Result<(), OpenError> {
        let stream = record.stream;
        let owned = self.scan.heads.get(&stream).copied().unwrap_or_default();
        let skipped = record.version.get().saturating_sub(owned.head.version.get() + 1);
        if self.is_part && owned.head.version == Version::ZERO && record.position == position {
            self.starts.insert(stream, (record.version, record.previous));
        } else if skipped > 0
            && self.scan.losses.gap_at(record.previous).is_some()
            && record.position == position
        {
            self.scan.losses.give(stream, record.previous, skipped);
        } else {
            follows(record, position, owned.head)
                .map_err(|detail| damaged(segment, offset, position, Some(position), detail))?;
        }
        let head = Head { version: record.version, position };
        self.scan.heads.insert(stream, Owned { head, epoch: Epoch::ZERO });
        self.scan.records += 1;
        Ok(())
    }

    fn place(segment: &SegmentFile, offset: u64, first: Position, detail: &str) -> Damage {
        let (last, streams) = (None, Vec::new());
        Damage { segment: segment.name.clone(), offset, first, last, streams, detail: detail.into() }
    }
}

fn damaged(
    segment: &SegmentFile,
    offset: u64,
    first: Position,
    last: Option<Position>,
    detail: &str,
) -> OpenError {
    OpenError::Damaged(Damage { last, ..Scanner::place(segment, offset, first, detail) })
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
