//! How fast the journal is on this machine, beside what the disk gives to a plain loop.
//!
//! `cargo run --release -p musher-eventlog --example measure [directory]`
//!
//! Each line is a rate of durable appends of 256 bytes: a loop over a preallocated file with one write and
//! one sync each; the same with 64 appends per sync; then the journal with 1, 64 and 255 writers, each of
//! which waits for its append before it makes the next. The last line reads everything back.

use bytes::Bytes;
use eventlog::journal::{Journal, JournalConfig, StoreId};
use eventlog::{
    Append, AppendContext, AppendOutcome, Cause, CodecId, Log, NewEvent, Position, StreamId, StreamKind,
};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAYLOAD_BYTES: usize = 256;
const SECONDS: u64 = 3;
const FILE_BYTES: usize = 64 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[expect(clippy::disallowed_methods, reason = "a measurement needs the real clock")]
fn now() -> Instant {
    Instant::now()
}

fn say(what: &str, appends: u64, elapsed: Duration) {
    let rate = u128::from(appends) * 1_000_000 / elapsed.as_micros().max(1);
    println!("{what:<44} {rate:>10} per second");
}

/// The physical limit: a zero-filled file, one write and one sync for every `per_sync` records.
fn plain(dir: &Path, per_sync: usize) -> Result<(u64, Duration), Failure> {
    let path = dir.join("plain");
    std::fs::write(&path, vec![0u8; FILE_BYTES])?;
    let file = std::fs::OpenOptions::new().write(true).open(&path)?;
    file.sync_all()?;
    let block = vec![7u8; (PAYLOAD_BYTES + 132) * per_sync];
    let (started, mut appends, mut offset) = (now(), 0, 0);
    while started.elapsed() < Duration::from_secs(SECONDS) {
        file.write_all_at(&block, offset as u64)?;
        file.sync_data()?;
        appends += per_sync as u64;
        offset = if offset + 2 * block.len() > FILE_BYTES { 0 } else { offset + block.len() };
    }
    let elapsed = started.elapsed();
    std::fs::remove_file(path)?;
    Ok((appends, elapsed))
}

fn append(stream: StreamId, claim: &eventlog::Claim, expected: eventlog::Version) -> Append {
    let event = NewEvent {
        kind: 1,
        schema: 1,
        codec: CodecId(1),
        time_us: 0,
        cause: Cause::None,
        payload: Bytes::from_static(&[7; PAYLOAD_BYTES]),
    };
    Append { stream, epoch: claim.epoch, expected, events: vec![event], context: AppendContext::default() }
}

async fn write(log: Arc<dyn Log>, number: u8, until: Instant) -> Result<u64, Failure> {
    let stream = StreamId::new(StreamKind(1), [number; 16]);
    let claim = log.claim(stream).await?;
    let mut version = claim.head.version;
    let mut appends = 0;
    while now() < until {
        match log.append(append(stream, &claim, version)).await {
            AppendOutcome::Appended { version: head, .. } => version = head,
            other => return Err(format!("an append was not accepted: {other:?}").into()),
        }
        appends += 1;
    }
    Ok(appends)
}

async fn journal(log: Arc<dyn Log>, writers: u8) -> Result<(u64, Duration), Failure> {
    let started = now();
    let until = started + Duration::from_secs(SECONDS);
    let tasks: Vec<_> = (0..writers).map(|number| tokio::spawn(write(log.clone(), number, until))).collect();
    let mut appends = 0;
    for task in tasks {
        appends += task.await??;
    }
    Ok((appends, started.elapsed()))
}

fn read_back(log: &dyn Log) -> Result<(u64, Duration), Failure> {
    let (started, mut next, mut read) = (now(), Position::new(1), 0);
    loop {
        let records = log.read_all(next, 4_096)?;
        let Some(last) = records.last() else { return Ok((read, started.elapsed())) };
        next = last.position.next();
        read += records.len() as u64;
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let dir = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(dir)?;
    for per_sync in [1, 64] {
        let (appends, elapsed) = plain(dir.path(), per_sync)?;
        say(&format!("plain file, {per_sync} per sync"), appends, elapsed);
    }
    let config = JournalConfig::new(StoreId([1; 16]));
    let (log, _) = Journal::open(&dir.path().join("journal"), config)?;
    let log: Arc<dyn Log> = Arc::new(log);
    for writers in [1, 64, 255] {
        let before = log.stats();
        let (appends, elapsed) = journal(log.clone(), writers).await?;
        let batches = log.stats().batches - before.batches;
        let per_sync = appends / batches.max(1);
        say(&format!("journal, {writers} writers ({per_sync} per sync)"), appends, elapsed);
    }
    let (read, elapsed) = read_back(&*log)?;
    say(&format!("reading {read} records back"), read, elapsed);
    log.close().await;
    Ok(())
}
