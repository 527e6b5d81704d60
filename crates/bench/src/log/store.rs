//! A store of many events: size on disk, scans, stream reads, reopening, memory.

use crate::Failure;
use crate::clock::now;
use crate::log::journal::{JournalWriter, stream};
use crate::log::{PAYLOAD_BYTES, Plan};
use crate::report::Report;
use crate::statistics::{count, median, percentile};
use eventlog::{Journal, JournalConfig, JournalReader, Log, Position, StoreId, Version};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// Tasks that fill a store at once.
const FILLERS: u32 = 250;
/// Events in one append while filling: a store of a million events is to be there within seconds.
const APPEND_EVENTS: usize = 10;
const OPENINGS: usize = 5;
const STREAM_READS: u32 = 500;
const SCAN_RECORDS: usize = 4_096;

fn config() -> JournalConfig {
    JournalConfig::new(StoreId([2; 16]))
}

/// Fills the streams evenly with `appends` of `append_events` each, interleaved as concurrent owners
/// interleave them.
pub async fn fill(
    log: &Arc<dyn Log>,
    streams: u32,
    appends: u64,
    append_events: usize,
) -> Result<(), Failure> {
    let mut tasks = Vec::new();
    for filler in 0..FILLERS {
        let log = log.clone();
        tasks.push(tokio::spawn(async move {
            let mut owners = Vec::new();
            for number in (filler..streams).step_by(FILLERS as usize) {
                owners.push(JournalWriter::claim(log.clone(), number).await?);
            }
            for _ in 0..appends {
                for owner in &mut owners {
                    owner.append_many(append_events).await?;
                }
            }
            Ok::<(), Failure>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Bytes of segments up to the end of their data: what stands behind is space taken in advance.
fn data_bytes(dir: &Path) -> Result<u64, Failure> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            let bytes = std::fs::read(&path)?;
            total += bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        }
    }
    Ok(total)
}

fn scan(
    read: impl Fn(Position, usize) -> Result<Vec<eventlog::Record>, eventlog::ReadError>,
) -> Result<f64, Failure> {
    let (started, mut next, mut seen) = (now(), Position::new(1), 0u64);
    loop {
        let records = read(next, SCAN_RECORDS)?;
        let Some(last) = records.last() else { return Ok(count(seen) / started.elapsed().as_secs_f64()) };
        next = last.position.next();
        seen += records.len() as u64;
    }
}

/// Milliseconds that opening takes, and records read in it.
fn open_ms(dir: &Path) -> Result<(Journal, f64, u64), Failure> {
    let started = now();
    let (log, recovery) = Journal::open(dir, config())?;
    Ok((log, started.elapsed().as_secs_f64() * 1_000.0, recovery.scanned))
}

/// Fills a store in `dir` and measures it.
pub async fn measure(dir: &Path, events: u64, plan: Plan, report: &mut Report) -> Result<(), Failure> {
    let (log, _) = Journal::open(dir, config())?;
    let log: Arc<dyn Log> = Arc::new(log);
    let started = now();
    let appends = events / u64::from(plan.streams) / APPEND_EVENTS as u64;
    fill(&log, plan.streams, appends, APPEND_EVENTS).await?;
    let seconds = started.elapsed().as_secs_f64();
    let stored = log.durable().get();
    drop(log);
    report.row(&json!({
        "bench": "log_size", "events": stored, "streams": plan.streams, "payload_bytes": PAYLOAD_BYTES,
        "append_events": APPEND_EVENTS, "filled_per_second": count(stored) / seconds,
        "bytes_per_event": count(data_bytes(dir)?) / count(stored),
    }));
    reopen(dir, stored, report).await?;
    reads(dir, stored, plan, report)?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn remove_heads(dir: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "chk") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

async fn reopen(dir: &Path, events: u64, report: &mut Report) -> Result<(), Failure> {
    // The first of these follows a drop, which leaves neither heads nor witness of the end behind.
    let (mut killed, mut closed, mut scanned_killed, mut scanned_closed) = (vec![], vec![], 0, 0);
    for _ in 0..OPENINGS {
        let (log, ms, scanned) = open_ms(dir)?;
        killed.push(ms);
        scanned_killed = scanned;
        drop(log);
    }
    // Only now, as closing writes heads again: the worst case, in which all of the log is read.
    remove_heads(dir)?;
    let (log, whole_ms, scanned_whole) = open_ms(dir)?;
    log.close().await;
    for _ in 0..OPENINGS {
        let (log, ms, scanned) = open_ms(dir)?;
        closed.push(ms);
        scanned_closed = scanned;
        log.close().await;
    }
    for (after, opened, scanned) in [
        ("kill", killed, scanned_killed),
        ("kill, all heads checkpoints gone", vec![whole_ms], scanned_whole),
        ("close", closed, scanned_closed),
    ] {
        report.row(&json!({
            "bench": "log_open", "after": after, "events": events, "ms": median(&opened), "records_scanned": scanned,
        }));
    }
    Ok(())
}

fn reads(dir: &Path, events: u64, plan: Plan, report: &mut Report) -> Result<(), Failure> {
    let reader = JournalReader::open(dir)?;
    let mut all = vec![];
    let mut verify = vec![];
    for _ in 0..3 {
        all.push(scan(|from, limit| reader.read_all(from, limit))?);
        let started = now();
        let checked = reader.verify()?;
        verify.push(count(checked.records) / started.elapsed().as_secs_f64());
    }
    report.row(&json!({
        "bench": "log_scan", "events": events, "read_all_per_second": median(&all), "verify_per_second": median(&verify),
    }));
    let mut microseconds = Vec::new();
    let mut records = 0;
    for number in 0..STREAM_READS {
        let started = now();
        let stream = stream(number * 17 % plan.streams);
        records = reader.read_stream(stream, Version::new(1), usize::MAX)?.len();
        microseconds.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    report.row(&json!({
        "bench": "log_read_stream", "events": events, "streams": plan.streams, "records": records,
        "p50_us": percentile(&mut microseconds, 500), "p99_us": percentile(&mut microseconds, 990),
    }));
    Ok(())
}
