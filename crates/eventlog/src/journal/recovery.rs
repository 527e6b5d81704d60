//! From files to a journal that may be appended to: survey, scan, decide about the tail, repair it.
//!
//! ```text
//! survey ─▶ newest heads checkpoint ─▶ scan to the end ─▶ compare with the witness ─▶ trim ─▶ sync
//! ```
//!
//! Invariants:
//! * nothing is written before everything that can refuse has agreed;
//! * only bytes behind the last whole batch are ever cut off, and only if no witness or checkpoint says
//!   that they were durable (or the loss is accepted);
//! * what recovery hands out as durable has been synced: a killed process may leave whole batches that are
//!   in the page cache only.

use super::config::{JournalConfig, Recovery, TailLoss, Trimmed};
use super::error::{OpenError, StoreId};
use super::files::{Files, Handle, write_full, write_zeros};
use super::format::{
    SEGMENT_HEADER_BYTES, SEGMENT_TEMP_NAME, SegmentHeader, WITNESS_NAME, chain_origin, segment_name,
};
use super::heads::HeadsCheckpoint;
use super::scan::{Scan, ScanStop, Scanner};
use super::survey::{Survey, WitnessFound, read_checkpoints, survey};
use super::witness::{Testimony, Witness};
use crate::types::Position;
use std::path::Path;
use std::sync::Arc;

/// A journal read to its end.
pub(crate) struct Recovered {
    pub(crate) store: StoreId,
    pub(crate) scan: Scan,
    pub(crate) firsts: Vec<Position>,
    pub(crate) report: Recovery,
    /// Bytes of the last segment's file.
    pub(crate) tail_bytes: u64,
    /// Checkpoints that lie beyond the end, to be removed once their loss is accepted.
    beyond: Vec<Position>,
    testimony: Option<Testimony>,
}

impl Recovered {
    /// Last position read.
    pub(crate) fn last(&self) -> Position {
        Position::new(self.scan.next.get() - 1)
    }
}

/// Reads a journal without changing anything. The survey is not empty.
pub(crate) fn read(
    files: &dyn Files,
    dir: &Path,
    found: &Survey,
    accept_loss: bool,
) -> Result<Recovered, OpenError> {
    let store = found.store().ok_or_else(|| OpenError::NoJournal { dir: dir.into() })?;
    let mut report = Recovery::default();
    let checkpoints = read_checkpoints(files, dir, found, &mut report.notes)?;
    let scan = scan_from_newest(files, dir, found, &checkpoints, &mut report)?;
    let last_segment = found.segments.last().ok_or_else(|| OpenError::NoJournal { dir: dir.into() })?;
    let mut recovered = Recovered {
        store,
        scan,
        firsts: found.segments.iter().map(|segment| segment.header.first).collect(),
        report,
        tail_bytes: last_segment.bytes,
        beyond: vec![],
        testimony: None,
    };
    judge_tail(found, &checkpoints, &mut recovered, accept_loss)?;
    let last = recovered.last();
    recovered.report.durable = last;
    recovered.report.streams = recovered.scan.heads.len() as u64;
    recovered.report.segments = recovered.firsts.len() as u64;
    recovered.report.scanned = recovered.scan.records;
    Ok(recovered)
}

fn scan_from_newest(
    files: &dyn Files,
    dir: &Path,
    found: &Survey,
    checkpoints: &[HeadsCheckpoint],
    report: &mut Recovery,
) -> Result<Scan, OpenError> {
    for checkpoint in checkpoints {
        let mut scanner = Scanner::new(files, dir, found, Some(checkpoint), &[]);
        match scanner.run() {
            Ok(()) => {
                report.checkpoint = Some(checkpoint.position);
                return Ok(scanner.scan);
            }
            Err(ScanStop::Checkpoint(why)) => {
                report
                    .notes
                    .push(format!("the heads checkpoint at {} is not used: {why}", checkpoint.position));
            }
            Err(ScanStop::Failed(error)) => return Err(error),
        }
    }
    let mut scanner = Scanner::new(files, dir, found, None, &[]);
    match scanner.run() {
        Ok(()) => Ok(scanner.scan),
        Err(ScanStop::Failed(error)) => Err(error),
        Err(ScanStop::Checkpoint(why)) => unreachable!("a scan without checkpoint refused one: {why}"),
    }
}

fn judge_tail(
    found: &Survey,
    checkpoints: &[HeadsCheckpoint],
    recovered: &mut Recovered,
    accept_loss: bool,
) -> Result<(), OpenError> {
    let last = recovered.last();
    let testified = match found.witness {
        WitnessFound::Valid(testimony) if testimony.store == recovered.store => {
            recovered.testimony = Some(testimony);
            testimony.position
        }
        _ if accept_loss => Position::ZERO,
        WitnessFound::Missing => return Err(OpenError::WitnessLost { state: "missing", found: last }),
        _ => return Err(OpenError::WitnessLost { state: "unreadable", found: last }),
    };
    let remembered = checkpoints.iter().map(|checkpoint| checkpoint.position).max().unwrap_or_default();
    let witnessed = testified.max(remembered);
    if witnessed > last {
        if !accept_loss {
            return Err(match &recovered.scan.leftover {
                Some(leftover) => OpenError::Damaged(leftover.place.clone()),
                None => OpenError::TailLost { witnessed, found: last },
            });
        }
        recovered.report.lost = Some(TailLoss { witnessed, found: last });
        recovered.beyond =
            checkpoints.iter().map(|checkpoint| checkpoint.position).filter(|at| *at > last).collect();
    }
    if let Some(leftover) = &recovered.scan.leftover {
        let bytes = leftover.end - recovered.scan.tail_offset;
        recovered.report.trimmed = Some(Trimmed { place: leftover.place.clone(), bytes });
    }
    Ok(())
}

/// What the writer needs to go on.
pub(crate) struct Ready {
    pub(crate) recovered: Recovered,
    pub(crate) tail: Arc<dyn Handle>,
    pub(crate) witness: Witness,
}

/// Opens the journal in `dir` for appending, creating it if there is none.
pub(crate) fn open(files: &dyn Files, dir: &Path, config: &JournalConfig) -> Result<Ready, OpenError> {
    config.check()?;
    files.create_dir(dir).map_err(|source| OpenError::io("creating", dir, source))?;
    let mut found = survey(files, dir, config.expect)?;
    let is_created = found.is_empty();
    if is_created {
        create(files, dir, config).map_err(|source| OpenError::io("creating a journal in", dir, source))?;
        found = survey(files, dir, config.expect)?;
    }
    let mut recovered = read(files, dir, &found, config.accept_loss)?;
    recovered.report.is_created = is_created;
    repair(files, dir, &found, recovered)
        .map_err(|source| OpenError::io("repairing the tail in", dir, source))
}

/// Puts the witness in place, then the first segment: a segment without a witness is never new.
fn create(files: &dyn Files, dir: &Path, config: &JournalConfig) -> std::io::Result<()> {
    let store = config.create_as;
    let chain = chain_origin(store);
    let witness = files.create(&dir.join(WITNESS_NAME))?;
    let origin = Testimony { store, sequence: 0, position: Position::ZERO, chain };
    Witness::new(witness, origin).testify(Position::ZERO, chain)?;
    files.sync_dir(dir)?;
    let bytes = config.segment_bytes.min(super::config::FIRST_SEGMENT_BYTES_MAX);
    let file = files.create(&dir.join(SEGMENT_TEMP_NAME))?;
    write_zeros(&*file, 0, bytes)?;
    let header = SegmentHeader { store, first: Position::new(1), chain };
    place_segment(files, dir, &*file, header)
}

/// Gives a zero-filled temporary segment its header and its name, durably.
pub(crate) fn place_segment(
    files: &dyn Files,
    dir: &Path,
    file: &dyn Handle,
    header: SegmentHeader,
) -> std::io::Result<()> {
    write_full(file, &header.encode(), 0).map_err(|failure| failure.error)?;
    file.sync()?;
    files.rename(&dir.join(SEGMENT_TEMP_NAME), &dir.join(segment_name(header.first)))?;
    files.sync_dir(dir)
}

fn repair(files: &dyn Files, dir: &Path, found: &Survey, recovered: Recovered) -> std::io::Result<Ready> {
    for name in &found.temporaries {
        files.remove(&dir.join(name))?;
    }
    let first = *recovered.firsts.last().expect("a journal has a segment");
    let tail = files.open_write(&dir.join(segment_name(first)))?;
    assert!(recovered.scan.tail_offset >= SEGMENT_HEADER_BYTES as u64, "no batch overwrites a header");
    if let Some(leftover) = &recovered.scan.leftover {
        write_zeros(&*tail, recovered.scan.tail_offset, leftover.end)?;
    }
    tail.sync()?;
    for position in &recovered.beyond {
        files.remove(&dir.join(super::format::heads_name(*position)))?;
    }
    files.sync_dir(dir)?;
    let last = recovered.last();
    let witness_path = dir.join(WITNESS_NAME);
    let mut witness = match recovered.testimony {
        Some(testimony) => Witness::new(files.open_write(&witness_path)?, testimony),
        None => {
            let origin =
                Testimony { store: recovered.store, sequence: 0, position: Position::ZERO, chain: 0 };
            Witness::new(files.create(&witness_path)?, origin)
        }
    };
    if recovered.testimony.is_none_or(|testimony| testimony.position != last) {
        witness.testify(last, recovered.scan.chain)?;
        files.sync_dir(dir)?;
    }
    Ok(Ready { recovered, tail, witness })
}
