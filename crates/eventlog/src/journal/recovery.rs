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
//! * damage before the end is served around only if every lost position belongs to a stream known by name and
//!   none of them is critical; its bytes are left as they are;
//! * what recovery hands out as durable has been synced: a killed process may leave a whole batch that is in the
//!   page cache only; after a failed sync the system may even take it for written, so it is written again;
//! * a checkpoint that contradicts what was read is removed before `damaged` is: nothing would notice it later.

use super::ballast;
use super::config::{JournalConfig, Recovery, TailLoss, Trimmed};
use super::decided::Decided;
use super::error::{OpenError, StoreId};
use super::files::{Files, Handle, read_full, write_full, write_zeros};
use super::format::{
    DAMAGED_NAME, SEGMENT_HEADER_BYTES, SEGMENT_TEMP_NAME, SegmentHeader, WITNESS_NAME, chain_origin,
    heads_name, segment_name,
};
use super::losses::{Gap, Losses};
use super::scan::{Scan, ScanStop, Scanner};
use super::survey::{Survey, WitnessFound, read_checkpoint, read_checkpoints, survey};
use super::witness::{Testimony, Witness};
use crate::types::{Position, StreamId};
use std::path::Path;
use std::sync::Arc;

/// What an opening may put up with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) accept_loss: bool,
    pub(crate) critical: fn(StreamId) -> bool,
}

impl Policy {
    /// Puts up with nothing.
    pub(crate) const STRICT: Self = Self { accept_loss: false, critical: |_| true };
}

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
    policy: Policy,
) -> Result<Recovered, OpenError> {
    let store = found.store().ok_or_else(|| OpenError::NoJournal { dir: dir.into() })?;
    let mut report = Recovery { notes: found.notes.clone(), ..Recovery::default() };
    let (scan, remembered) = scan_from_newest(files, dir, found, &mut report)?;
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
    let decided = if found.is_suspect {
        Decided::read(files, dir, store)
            .map_err(|source| OpenError::io("reading", dir.join(DAMAGED_NAME), source))?
    } else {
        Decided::default()
    };
    judge_losses(&recovered.scan.losses, &decided, policy)?;
    judge_tail(found, &remembered, &mut recovered, policy.accept_loss)?;
    tell_losses(&mut recovered);
    let last = recovered.last();
    recovered.report.durable = last;
    recovered.report.streams = recovered.scan.heads.len() as u64;
    recovered.report.segments = recovered.firsts.len() as u64;
    recovered.report.oldest = recovered.firsts[0];
    recovered.report.scanned = recovered.scan.records;
    Ok(recovered)
}

/// Scans to the end, from the newest checkpoint that fits. Answers the positions of those that were read as well;
/// one that was not is older than the one that fits.
fn scan_from_newest(
    files: &dyn Files,
    dir: &Path,
    found: &Survey,
    report: &mut Recovery,
) -> Result<(Scan, Vec<Position>), OpenError> {
    let mut remembered = Vec::new();
    // Once damage was met, checkpoints are evidence of what was lost, and no way around it.
    let starts = if found.is_suspect { &[][..] } else { &found.heads };
    for named in starts {
        // One at a time: the heads of many streams take as much room as the whole journal does once it is open.
        let Some(checkpoint) = read_checkpoint(files, dir, found, named, &mut report.notes)? else {
            continue;
        };
        let position = checkpoint.position;
        remembered.push(position);
        let mut scanner = Scanner::new(files, dir, found, Some(checkpoint), &[]);
        match scanner.run() {
            Ok(()) => {
                report.checkpoint = Some(position);
                return Ok((scanner.scan, remembered));
            }
            Err(ScanStop::Checkpoint(why)) => report.notes.push(not_used(position, &why)),
            Err(ScanStop::Damage) => break,
            Err(ScanStop::Failed(error)) => return Err(error),
        }
    }
    let mut notes = Vec::new();
    let checkpoints = read_checkpoints(files, dir, found, &mut notes)?;
    let mut scanner = Scanner::new(files, dir, found, None, &checkpoints);
    match scanner.run() {
        Ok(()) => {}
        Err(ScanStop::Failed(error)) => return Err(error),
        Err(ScanStop::Damage) => unreachable!("a scan from the start goes on behind damage"),
        Err(ScanStop::Checkpoint(why)) => unreachable!("a scan without checkpoint refused one: {why}"),
    }
    let scan = scanner.scan;
    let is_told = |position: Position, notes: &[String]| {
        notes.iter().any(|note| note.starts_with(&format!("the heads checkpoint at {position} ")))
    };
    for (position, why) in &scan.refuted {
        if !is_told(*position, &report.notes) {
            notes.push(not_used(*position, why));
        }
    }
    notes.retain(|note| !report.notes.contains(note));
    report.notes.append(&mut notes);
    Ok((scan, checkpoints.iter().map(|checkpoint| checkpoint.position).collect()))
}

fn not_used(position: Position, why: &str) -> String {
    format!("the heads checkpoint at {position} is not used: {why}")
}

/// Decides whether what was lost can be lived with.
fn judge_losses(losses: &Losses, decided: &Decided, policy: Policy) -> Result<(), OpenError> {
    let Some(first) = losses.gaps().iter().find(|gap| !decided.covers(gap)) else { return Ok(()) };
    let refuse = |gap: &Gap, why: String| {
        let mut place = gap.place.clone();
        place.detail = format!("{}; {why}", place.detail);
        Err(OpenError::Damaged(place))
    };
    if policy.accept_loss {
        return Ok(());
    }
    let missing = losses.gaps().iter().find(|gap| gap.found.is_some() && !decided.covers(gap));
    if let Some((gap, found)) = missing.and_then(|gap| Some((gap, gap.found.clone()?))) {
        let after = (gap.place.segment != found).then(|| (gap.place.segment.clone(), gap.place.offset));
        return Err(OpenError::MissingSegment { expected: gap.place.first, found, after });
    }
    let Some(nameless) = losses.nameless() else {
        return refuse(first, "more records point into it than it can have held".into());
    };
    if nameless > decided.nameless() {
        let why = format!(
            "{nameless} of {} lost positions belong to streams that nothing names any more",
            losses.positions()
        );
        return refuse(first, why);
    }
    let is_critical = |stream: &&StreamId| (policy.critical)(**stream);
    let undecided = losses.gaps().iter().filter(|gap| !decided.covers(gap));
    for gap in undecided {
        if let Some(stream) = gap.place.streams.iter().find(is_critical) {
            return refuse(gap, format!("stream {stream} is one that nothing goes on without"));
        }
    }
    Ok(())
}

fn tell_losses(recovered: &mut Recovered) {
    let losses = &recovered.scan.losses;
    let report = &mut recovered.report;
    report.damaged = losses.gaps().iter().map(|gap| gap.place.clone()).collect();
    report.quarantined = losses.streams().collect();
    report.nameless = losses.nameless().unwrap_or_default();
    for scar in &losses.scars {
        report.notes.push(format!("{scar}; no record is lost"));
    }
}

fn judge_tail(
    found: &Survey,
    remembered: &[Position],
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
    let witnessed = testified.max(remembered.iter().copied().max().unwrap_or_default());
    if witnessed > last {
        if !accept_loss {
            return Err(match &recovered.scan.leftover {
                Some(leftover) => OpenError::Damaged(leftover.place.clone()),
                None => OpenError::TailLost { witnessed, found: last },
            });
        }
        recovered.report.lost = Some(TailLoss { witnessed, found: last });
        recovered.beyond = remembered.iter().copied().filter(|at| *at > last).collect();
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
    let policy = Policy { accept_loss: config.accept_loss, critical: config.critical };
    let mut recovered = read(files, dir, &found, policy)?;
    recovered.report.is_created = is_created;
    let mut ready = repair(files, dir, &found, recovered)
        .map_err(|source| OpenError::io("repairing the tail in", dir, source))?;
    if let Err(error) = ballast::ensure(files, dir, config.ballast_bytes) {
        let note = format!("there is no ballast to give up on a full disk: {error}");
        ready.recovered.report.notes.push(note);
    }
    Ok(ready)
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
    let last = recovered.last();
    let is_witnessed = recovered.testimony.is_some_and(|testimony| testimony.position == last);
    if let Some(from) = recovered.scan.last_batch.filter(|_| !is_witnessed) {
        write_again(&*tail, from, recovered.scan.tail_offset)?;
    }
    tail.sync()?;
    let is_whole = recovered.scan.losses.gaps().is_empty();
    let refuted = recovered.scan.refuted.iter().map(|(position, _)| position).filter(|_| is_whole);
    for position in recovered.beyond.iter().chain(refuted) {
        files.remove(&dir.join(heads_name(*position)))?;
    }
    files.sync_dir(dir)?;
    remember_losses(files, dir, found, &recovered)?;
    let witness_path = dir.join(WITNESS_NAME);
    let mut witness = match recovered.testimony {
        Some(testimony) => Witness::new(files.open_write(&witness_path)?, testimony),
        None => {
            let origin =
                Testimony { store: recovered.store, sequence: 0, position: Position::ZERO, chain: 0 };
            Witness::new(files.create(&witness_path)?, origin)
        }
    };
    if !is_witnessed {
        witness.testify(last, recovered.scan.chain)?;
        files.sync_dir(dir)?;
    }
    Ok(Ready { recovered, tail, witness })
}

/// Writes a range as it reads. Only the last batch can be missing on the disk: after a failed sync no other is
/// written.
fn write_again(file: &dyn Handle, from: u64, to: u64) -> std::io::Result<()> {
    let mut bytes = vec![0u8; (to - from) as usize];
    let read = read_full(file, &mut bytes, from)?;
    write_full(file, &bytes[..read], from).map_err(|failure| failure.error)
}

/// Sees to it that the next opening looks at everything for as long as there is damage.
fn remember_losses(
    files: &dyn Files,
    dir: &Path,
    found: &Survey,
    recovered: &Recovered,
) -> std::io::Result<()> {
    if !recovered.scan.losses.gaps().is_empty() {
        Decided::on(&recovered.scan.losses).write(files, dir, recovered.store)
    } else if found.is_suspect {
        files.remove(&dir.join(DAMAGED_NAME))?;
        files.sync_dir(dir)
    } else {
        Ok(())
    }
}
