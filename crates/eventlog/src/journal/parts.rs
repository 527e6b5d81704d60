//! A whole journal scanned by several threads: runs of segments apart, and then put together.
//!
//! A part does not know the heads it starts from. It notes how each stream goes on in it; putting the parts
//! together checks that it goes on from where the part before left it.
//!
//! Invariants:
//! * only a journal without any fault is answered for; whatever is wrong with one is found by a scan from the
//!   start, which says where.

use super::files::Files;
use super::heads::HeadsCheckpoint;
use super::scan::{Scan, Scanner};
use super::survey::Survey;
use crate::gate::Owned;
use crate::types::Version;
use std::ops::Range;
use std::path::Path;

/// Threads of a verification.
pub(crate) const VERIFY_THREADS: usize = 2;

/// The scan of a journal that is as it was written; `None` if it is not, or too small to share out.
pub(crate) fn scan_in_parts(
    files: &dyn Files,
    dir: &Path,
    found: &Survey,
    compare: &[HeadsCheckpoint],
    threads: usize,
) -> Option<Scan> {
    let segments = found.segments.len();
    let ranges = split(segments, threads);
    if ranges.len() < 2 {
        return None;
    }
    let scanners = ranges.iter().map(|range| Scanner::part(files, dir, found, compare, range.clone()));
    let scanned = std::thread::scope(|scope| {
        let running: Vec<_> = scanners
            .map(|mut scanner| {
                let work = move || scanner.run().is_ok().then_some(scanner);
                std::thread::Builder::new().name("journal-verify".into()).spawn_scoped(scope, work)
            })
            .collect();
        running.into_iter().map(|thread| thread.ok()?.join().ok()?).collect::<Option<Vec<_>>>()
    })?;
    let mut whole: Option<Scan> = None;
    for (part, range) in scanned.into_iter().zip(ranges) {
        let is_faultless = part.scan.losses.gaps().is_empty()
            && part.scan.losses.scars.is_empty()
            && part.scan.refuted.is_empty();
        if !is_faultless {
            return None;
        }
        whole = Some(match whole {
            None => part.scan,
            Some(before) => join(before, part, found, range.start, compare)?,
        });
    }
    whole
}

/// Runs of about equally many segments.
fn split(segments: usize, threads: usize) -> Vec<Range<usize>> {
    let each = segments.div_ceil(threads.max(1)).max(1);
    (0..segments).step_by(each).map(|start| start..(start + each).min(segments)).collect()
}

fn join(
    before: Scan,
    part: Scanner<'_>,
    found: &Survey,
    start: usize,
    compare: &[HeadsCheckpoint],
) -> Option<Scan> {
    let header = found.segments[start].header;
    if header.first != before.next || header.chain != before.chain {
        return None;
    }
    for (stream, (version, previous)) in &part.starts {
        let head = before.heads.get(stream).copied().unwrap_or_default().head;
        if *version != head.version.next() || *previous != head.position {
            return None;
        }
    }
    for (position, partial) in &part.passed {
        let checkpoint = compare.iter().find(|checkpoint| checkpoint.position == *position)?;
        let both = |stream| partial.get(stream).or_else(|| before.heads.get(stream)).map(|owned| owned.head);
        let is_equal = checkpoint.heads.iter().all(|(stream, owned)| both(stream) == Some(owned.head));
        let only_partial = partial.iter().filter(|(stream, _)| before.heads.get(stream).is_none()).count();
        if !is_equal || checkpoint.heads.len() != before.heads.len() + only_partial {
            return None;
        }
    }
    let mut heads = before.heads;
    for (stream, owned) in part.scan.heads.iter() {
        assert!(owned.head.version > Version::ZERO, "a scan knows heads by their records");
        heads.insert(*stream, Owned { ..*owned });
    }
    Some(Scan {
        heads,
        batches: before.batches + part.scan.batches,
        records: before.records + part.scan.records,
        bytes: before.bytes + part.scan.bytes,
        ..part.scan
    })
}
