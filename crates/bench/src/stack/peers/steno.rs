//! steno's sagas, in the program of `crates/bench/peers/steno`.

use super::Round;
use crate::Failure;
use crate::args::PeersOptions;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What a reader does to have it.
pub(super) const TO_HAVE_IT: &str =
    "cargo build --release --target-dir target --manifest-path crates/bench/peers/steno/Cargo.toml";

/// Where it is, by the flags.
pub(super) fn find(options: &PeersOptions) -> Result<PathBuf, Failure> {
    let program = match &options.steno {
        Some(named) => named.clone(),
        None => std::env::current_exe()?.with_file_name("musher-bench-steno"),
    };
    if program.is_file() { Ok(program) } else { Err(format!("{} is not there", program.display()).into()) }
}

/// One round on a file of its own.
pub(super) fn round(program: &Path, file: &Path, clients: u32, length: Duration) -> Result<Round, Failure> {
    let mut command = Command::new(program);
    let output = command.arg(file).args([clients.to_string(), length.as_millis().to_string()]).output()?;
    std::fs::remove_file(file)?;
    if !output.status.success() {
        return Err(format!("steno: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let row: Value = serde_json::from_slice(&output.stdout)?;
    Ok(Round::of(&row, "cpu_us"))
}
