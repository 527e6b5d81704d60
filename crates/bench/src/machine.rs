//! What the numbers were measured on.

use serde_json::{Value, json};
use std::path::Path;

fn line_of(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Device and type of the file system that holds `dir`: the longest mount point that is a prefix of it.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = |line: &str| -> Option<(usize, String)> {
        let mut words = line.split(' ');
        let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
        dir.starts_with(point).then(|| (point.len(), format!("{kind} on {device}")))
    };
    mounts.lines().filter_map(fields).max_by_key(|(length, _)| *length).map(|(_, text)| text)
}

/// Processor, cores, kernel and file system, as one row. What cannot be found out is null.
pub fn describe(dir: &Path) -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    json!({
        "bench": "machine",
        "processor": line_of("/proc/cpuinfo", "model name"),
        "cores": cores,
        "kernel": kernel.as_deref().map(str::trim),
        "file_system": file_system(dir),
    })
}

/// Memory that a process holds, bytes: `self` or a process id. `None` where the system does not tell.
pub fn resident_bytes(process: &str) -> Option<u64> {
    let line = line_of(&format!("/proc/{process}/status"), "VmRSS")?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Files and connections that a process has open. `None` where the system does not tell.
pub fn open_files(process: &str) -> Option<u64> {
    Some(std::fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64)
}

/// Bytes that a directory takes on its disk.
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            // It went away meanwhile.
            Err(_) => 0,
        })
        .sum()
}

/// Processor time that a process has used so far, nanoseconds, all of its threads together: `self` or a process id.
/// `None` where the system does not tell.
pub fn processor_nanoseconds(process: &str) -> Option<u64> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    // A thread that ends meanwhile takes its time with it: measurements keep theirs.
    let used = |thread: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Some(threads.filter_map(used).sum())
}
