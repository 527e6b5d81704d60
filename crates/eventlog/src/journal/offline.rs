//! A journal that nobody writes, read without changing it: for replay and for verification.
//!
//! Invariants:
//! * no file is written, renamed, removed or trimmed;
//! * an incomplete last batch is not part of the journal, as it would not be after recovery.

use super::catalog::Catalog;
use super::config::Trimmed;
use super::error::{Damage, OpenError, StoreId};
use super::files::{Files, OsFiles};
use super::parts::{VERIFY_THREADS, scan_in_parts};
use super::reading::{self, PointReader};
use super::recovery::{self, Policy, Recovered};
use super::scan::{ScanStop, Scanner};
use super::survey::{WitnessFound, read_checkpoints, survey};
use super::upkeep::attach;
use crate::gate;
use crate::log::{LogStats, ReadError};
use crate::types::{Head, Position, Record, StreamId, Version};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a full scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Number of segments.
    pub segments: u64,
    /// Number of batches read.
    pub batches: u64,
    /// Number of records read.
    pub records: u64,
    /// Bytes of those records.
    pub bytes: u64,
    /// Number of streams.
    pub streams: u64,
    /// Last position read.
    pub durable: Position,
    /// An incomplete batch at the end, which nobody was told to be durable. It is no problem: opening the
    /// journal cuts it off.
    pub torn: Option<Trimmed>,
    /// The place of the first problem, if it has one.
    pub damage: Option<Damage>,
    /// Every damaged place, with the positions and streams that were lost there.
    pub damaged: Vec<Damage>,
    /// The first problem, for people. `None` means that everything is as it was written.
    pub problem: Option<String>,
    /// Files that were not used, with the reason.
    pub notes: Vec<String>,
}

/// A stopped journal, open for reading.
pub struct JournalReader {
    files: Arc<dyn Files>,
    dir: PathBuf,
    catalog: Catalog,
    recovered: Recovered,
}

impl fmt::Debug for JournalReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalReader")
            .field("dir", &self.dir)
            .field("durable", &self.durable())
            .finish_non_exhaustive()
    }
}

impl JournalReader {
    /// Opens the journal in `dir`. Fails where [`super::Journal::open`] would fail with every stream critical,
    /// unless it was served with its damage before; [`JournalReader::verify_dir`] looks at any.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(OsFiles), dir, Policy::STRICT)
    }

    /// Opens the journal in `dir` even if streams are damaged, as long as none of them is `critical`.
    pub fn open_damaged(dir: &Path, critical: fn(StreamId) -> bool) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(OsFiles), dir, Policy { critical, ..Policy::STRICT })
    }

    pub(crate) fn open_on(files: Arc<dyn Files>, dir: &Path, policy: Policy) -> Result<Self, OpenError> {
        let found = survey(&*files, dir, None)?;
        if found.is_empty() {
            return Err(OpenError::NoJournal { dir: dir.into() });
        }
        let recovered = recovery::read(&*files, dir, &found, policy)?;
        let losses = &recovered.scan.losses;
        let catalog = Catalog::new(files.clone(), dir.into(), recovered.firsts.clone(), losses.jumps.clone());
        Ok(Self { files, dir: dir.into(), catalog, recovered })
    }

    /// Identity of the store.
    pub fn store_id(&self) -> StoreId {
        self.recovered.store
    }

    /// Oldest position that is here; what was before it is archived.
    pub fn oldest(&self) -> Position {
        self.recovered.report.oldest
    }

    /// Reads positions before the oldest one from the segments in `archive`, which need not exist. Answers the
    /// first position that can be read. Refuses another store's segments.
    pub fn attach_archive(&self, archive: &Path) -> Result<Position, OpenError> {
        attach(&*self.files, (&self.dir, archive), &self.catalog, self.store_id())
    }

    /// Last position of the journal.
    pub fn durable(&self) -> Position {
        self.recovered.last()
    }

    /// Head of a stream (zero if unknown).
    pub fn head(&self, stream: StreamId) -> Head {
        self.recovered.scan.heads.get(&stream).map_or_else(Head::default, |owned| owned.head)
    }

    /// Every stream with its head, in order of their names.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, Head)> + '_ {
        self.recovered.scan.heads.iter().map(|(&stream, owned)| (stream, owned.head))
    }

    /// Reads a stream from version `from` (inclusive), at most `limit` records.
    pub fn read_stream(
        &self,
        stream: StreamId,
        from: Version,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        reading::check_stream(&self.recovered.scan.losses, stream)?;
        let head = self.head(stream);
        let from = from.max(Version::new(1));
        if from > head.version || limit == 0 {
            return Ok(Vec::new());
        }
        let last = Version::new(from.get().saturating_add(limit as u64 - 1).min(head.version.get()));
        let mut points = PointReader::new(&self.catalog);
        let records = reading::walk(stream, head, from, last, |position| points.get(position))?;
        assert!(gate::contiguous(&records, from), "versions of stream {stream} are gapless");
        Ok(records)
    }

    /// Reads the whole log from position `from` (inclusive), at most `limit` records.
    pub fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        let losses = &self.recovered.scan.losses;
        let durable = reading::readable(losses, from, self.durable())?;
        reading::range(&self.catalog, from, durable, limit)
    }

    /// Streams that lost records to damage, with the reason of each.
    pub fn quarantined(&self) -> Vec<(StreamId, String)> {
        let losses = &self.recovered.scan.losses;
        losses.streams().map(|stream| (stream, losses.detail(stream))).collect()
    }

    /// Numbers for people. What counts since opening is zero.
    pub fn stats(&self) -> LogStats {
        LogStats {
            durable: self.durable(),
            streams: self.recovered.scan.heads.len() as u64,
            segments: self.catalog.len(),
            bytes: self.recovered.scan.bytes,
            ..LogStats::default()
        }
    }

    /// Reads every byte of the journal again and compares it with everything that remembers it.
    pub fn verify(&self) -> Result<VerifyReport, OpenError> {
        verify_on(&*self.files, &self.dir)
    }

    /// Verifies the journal in `dir`, also one that does not open. Fails only if it cannot be read at all;
    /// damage is in the report.
    pub fn verify_dir(dir: &Path) -> Result<VerifyReport, OpenError> {
        verify_on(&OsFiles, dir)
    }
}

pub(crate) fn verify_on(files: &dyn Files, dir: &Path) -> Result<VerifyReport, OpenError> {
    let mut report = VerifyReport::default();
    let found = match survey(files, dir, None) {
        Ok(found) if found.is_empty() => return Err(OpenError::NoJournal { dir: dir.into() }),
        Ok(found) => found,
        Err(error) => return problem(report, error),
    };
    let checkpoints = read_checkpoints(files, dir, &found, &mut report.notes)?;
    let (stopped, scan) = match scan_in_parts(files, dir, &found, &checkpoints, VERIFY_THREADS) {
        Some(scan) => (Ok(()), scan),
        None => {
            let mut scanner = Scanner::new(files, dir, &found, None, &checkpoints);
            (scanner.run(), scanner.scan)
        }
    };
    report.segments = found.segments.len() as u64;
    report.batches = scan.batches;
    report.records = scan.records;
    report.bytes = scan.bytes;
    report.streams = scan.heads.len() as u64;
    report.durable = Position::new(scan.next.get().saturating_sub(1));
    match stopped {
        Ok(()) => {}
        Err(ScanStop::Failed(error)) => return problem(report, error),
        Err(ScanStop::Damage) => unreachable!("a scan from the start goes on behind damage"),
        Err(ScanStop::Checkpoint(why)) => unreachable!("a scan without checkpoint refused one: {why}"),
    }
    let losses = &scan.losses;
    let mut places: Vec<Damage> = losses.gaps().iter().map(|gap| gap.place.clone()).collect();
    places.extend(losses.scars.iter().cloned());
    if let Some(first) = places.first().cloned() {
        report.damaged = places;
        return problem(report, OpenError::Damaged(first));
    }
    if let Some((position, why)) = scan.refuted.first() {
        report.problem = Some(format!("the heads checkpoint at position {position} is wrong: {why}"));
        return Ok(report);
    }
    let last = report.durable;
    let testified = match found.witness {
        WitnessFound::Valid(testimony) => testimony.position,
        WitnessFound::Missing => {
            return problem(report, OpenError::WitnessLost { state: "missing", found: last });
        }
        WitnessFound::Unreadable => {
            return problem(report, OpenError::WitnessLost { state: "unreadable", found: last });
        }
    };
    let remembered = checkpoints.iter().map(|checkpoint| checkpoint.position).max().unwrap_or_default();
    let witnessed = testified.max(remembered);
    match scan.leftover {
        Some(leftover) if witnessed > last => problem(report, OpenError::Damaged(leftover.place)),
        None if witnessed > last => problem(report, OpenError::TailLost { witnessed, found: last }),
        leftover => {
            let trimmed =
                |it: super::scan::Leftover| Trimmed { bytes: it.end - scan.tail_offset, place: it.place };
            report.torn = leftover.map(trimmed);
            Ok(report)
        }
    }
}

/// Puts what is wrong with the journal into the report; what is wrong with reading it stays an error.
fn problem(mut report: VerifyReport, error: OpenError) -> Result<VerifyReport, OpenError> {
    match error {
        OpenError::Io { .. }
        | OpenError::NoJournal { .. }
        | OpenError::Config(_)
        | OpenError::InUse { .. } => Err(error),
        error => {
            report.problem = Some(error.to_string());
            if let OpenError::Damaged(damage) = error {
                report.damage = Some(damage);
            }
            Ok(report)
        }
    }
}
