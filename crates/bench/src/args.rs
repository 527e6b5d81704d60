//! The command line.

use clap::{Args as Options, Parser, Subcommand};
use std::path::PathBuf;

/// Measures the log beside a plain file on the same disk.
#[derive(Debug, Parser)]
#[command(name = "musher-bench")]
pub struct Args {
    /// What to measure.
    #[command(subcommand)]
    pub what: What,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Appends, reads and reopening of the log.
    Log(LogOptions),
    /// Opens a journal and tells how much memory that took. Run by `log` in a process of its own.
    #[command(hide = true)]
    Hold {
        /// The journal.
        dir: PathBuf,
    },
}

/// How `log` measures.
#[derive(Debug, Options)]
pub struct LogOptions {
    /// Print one JSON object per line instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Short rounds and a small log: less than a minute, rougher numbers.
    #[arg(long)]
    pub quick: bool,
    /// Measure only these parts, of: append, sled, memory, store.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Numbers of writers that append at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256, 1_024])]
    pub writers: Vec<u32>,
    /// Disk to measure: everything is written into a temporary directory in there.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}
