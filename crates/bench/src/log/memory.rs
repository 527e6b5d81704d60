//! Memory an open journal takes per stream: resident bytes of a process that does nothing else.
//!
//! The process is this program again, so that neither the allocator nor the runtime of the other
//! measurements has warmed up.

use crate::Failure;
use crate::log::store;
use crate::report::Report;
use eventlog::{Journal, JournalConfig, Log, StoreId};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

/// Opens the journal in `dir` and prints its streams and the resident bytes before and after.
pub fn hold(dir: &Path) -> Result<(), Failure> {
    let before = resident_bytes().ok_or("this system does not tell resident memory")?;
    let (log, _) = Journal::open(dir, JournalConfig::new(StoreId([2; 16])))?;
    let after = resident_bytes().ok_or("this system does not tell resident memory")?;
    println!("{} {before} {after}", log.stats().streams);
    Ok(())
}

/// Streams of the small and of the large store: what an open journal takes whatever it holds falls out of
/// their difference.
const STREAMS: [u32; 2] = [1_000, 300_000];

/// Fills two stores and compares what they take when opened.
pub async fn measure(dir: &Path, report: &mut Report) -> Result<(), Failure> {
    let mut held = Vec::new();
    for streams in STREAMS {
        let path = dir.join(format!("memory-{streams}"));
        let (log, _) = Journal::open(&path, JournalConfig::new(StoreId([2; 16])))?;
        let log: Arc<dyn Log> = Arc::new(log);
        store::fill(&log, streams, 1, 1).await?;
        log.close().await;
        drop(log);
        let output = Command::new(std::env::current_exe()?).arg("hold").arg(&path).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // Where the system does not tell, nothing is printed.
        let [streams, before, after] = numbers[..] else { return Ok(()) };
        held.push((streams, after - before));
        std::fs::remove_dir_all(path)?;
    }
    let [(few, small), (many, large)] = held[..] else { return Ok(()) };
    report.row(&json!({
        "bench": "log_memory", "streams": many, "open_bytes": large,
        "bytes_per_stream": (large - small) / (many - few),
    }));
    Ok(())
}
