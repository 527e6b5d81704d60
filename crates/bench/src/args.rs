//! The command line.

use clap::{Args as Options, Parser, Subcommand, ValueEnum};
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
    /// Folding, looking at and verifying a long history, from an export.
    Replay(ReplayOptions),
    /// Opens a journal and tells how much memory that took. Run by `log` in a process of its own.
    #[command(hide = true)]
    Hold {
        /// The journal.
        dir: PathBuf,
    },
}

/// How `replay` measures.
#[derive(Debug, Options)]
pub struct ReplayOptions {
    /// Print one JSON object per line instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Events of the history, at least.
    #[arg(long, default_value_t = 1_000_000)]
    pub events: usize,
    /// Instances that live in it.
    #[arg(long, default_value_t = 10_000)]
    pub instances: usize,
    /// Rounds of folding: a machine that others use too is as fast as its best one.
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Disk to measure: the export is written into a temporary directory in there.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}

/// A part of what `log` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Durable appends of journal and plain file in turns.
    Append,
    /// The embedded database as the event store, for the record.
    Sled,
    /// Memory of an open journal per stream.
    Memory,
    /// Size, scans, stream reads and reopening of large stores.
    Store,
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
    /// Measure only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Part>,
    /// Numbers of writers that append at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256, 1_024])]
    pub writers: Vec<u32>,
    /// Disk to measure: everything is written into a temporary directory in there.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}
