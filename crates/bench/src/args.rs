//! The command line.

use clap::{Args as Options, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Measures the log beside a plain file on the same disk, how soon a killed daemon answers, what one does over HTTP, and the past.
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
    /// How soon a daemon that was killed answers again.
    Recovery(RecoveryOptions),
    /// One durable state transition for each request to a daemon, by clients and by sleds.
    Transitions(StackOptions),
    /// Complete starts of instances on simulated sleds that take no time.
    Sagas(StackOptions),
    /// How many reports of sleds one core of a daemon takes in.
    Reports(ReportsOptions),
    /// A thousand sleds, each with a listener and connections of its own: what they cost a daemon, without and with guests.
    Sleds(SledsOptions),
    /// A hundred thousand instances: memory of idle and of active ones, disk, and how a steady load fares.
    Fleet(FleetOptions),
    /// Folding, looking at and verifying a long history, from an export.
    Replay(ReplayOptions),
    /// The same by Restate's server and by steno, beside this daemon.
    Peers(PeersOptions),
    /// How much writers feel of `musher replay --live` beside them.
    Live(LiveOptions),
    /// Reads of a running daemon over HTTP: one instance, a list, and the feed of events.
    Reads(ReadsOptions),
    /// Instructions of the rules and the codec per event, beside what was recorded. Needs valgrind.
    Instructions(InstructionsOptions),
    /// Does what is counted, so many times. Run by `instructions` under valgrind.
    #[command(hide = true)]
    Work {
        /// What.
        what: Work,
        /// How many times over the history.
        rounds: u64,
    },
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

/// What instructions are counted of, for each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Reading a record.
    Decode,
    /// Writing an event.
    Encode,
    /// Folding it.
    Evolve,
    /// Deciding once more what was decided, and folding.
    Decide,
    /// What is to be sent, and folding.
    Effects,
}

/// How `instructions` counts.
#[derive(Debug, Options)]
pub struct InstructionsOptions {
    /// Print one JSON object per line instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Record the counts instead of comparing them.
    #[arg(long)]
    pub update: bool,
    /// What was recorded.
    #[arg(long, default_value = "crates/bench/instructions.txt")]
    pub baseline: PathBuf,
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

/// How `recovery` measures.
#[derive(Debug, Options)]
pub struct RecoveryOptions {
    /// Print one JSON object per line instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Few rounds and the small store only.
    #[arg(long)]
    pub quick: bool,
    /// Instances, each with 13 events; enough for a checkpoint [default: 10000, and unless quick 100000].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(10_000..=1_000_000))]
    pub instances: Vec<u32>,
    /// The daemon's binary; by default the one beside this.
    #[arg(long)]
    pub musher: Option<PathBuf>,
    /// Disk to measure: everything is written into a temporary directory in there.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}

/// How `transitions` and `sagas` measure.
#[derive(Debug, Options)]
pub struct StackOptions {
    /// Print one JSON object per line instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Short rounds: rougher numbers.
    #[arg(long)]
    pub quick: bool,
    /// Numbers of clients that ask at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: Vec<u32>,
    /// Instances that transitions are spread over.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub instances: u32,
    /// The daemon's program; the one beside this program by default.
    #[arg(long)]
    pub musher: Option<PathBuf>,
    /// Disk to measure: everything is written into a temporary directory in there.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}

impl StackOptions {
    /// What is measured in process, by so many callers.
    pub fn in_process(clients: u32) -> Self {
        let (json, quick, instances, musher) = (false, false, 1, None);
        Self { json, quick, clients: vec![clients], instances, musher, dir: PathBuf::new() }
    }
}

/// How `peers` measures.
#[derive(Debug, Options)]
pub struct PeersOptions {
    /// Print one JSON object per line instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Short rounds: rougher numbers.
    #[arg(long)]
    pub quick: bool,
    /// Numbers of clients that ask at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256], value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: Vec<u32>,
    /// Instances, and objects of Restate, that transitions are spread over.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub instances: u32,
    /// Restate's server, as npm installs it; without it Restate is left out.
    #[arg(long, value_name = "PROGRAM")]
    pub restate: Option<PathBuf>,
    /// The handlers that it calls; the program beside this one by default.
    #[arg(long, value_name = "PROGRAM")]
    pub restate_service: Option<PathBuf>,
    /// steno's sagas; the program beside this one by default.
    #[arg(long, value_name = "PROGRAM")]
    pub steno: Option<PathBuf>,
    /// The daemon's program; the one beside this program by default.
    #[arg(long)]
    pub musher: Option<PathBuf>,
    /// Disk to measure: everything is written into a temporary directory in there.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}

/// How `reports` measures.
#[derive(Debug, Options)]
pub struct ReportsOptions {
    /// Print one JSON object per line instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Short rounds and few VMMs: rougher numbers.
    #[arg(long)]
    pub quick: bool,
    /// Numbers of reports under way at once.
    #[arg(long, value_delimiter = ',', default_values_t = [32, 256, 1_000], value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: Vec<u32>,
    /// The daemon's program; the one beside this program by default.
    #[arg(long)]
    pub musher: Option<PathBuf>,
    /// Disk to measure: everything is written into a temporary directory in there.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}

/// How `sleds` measures.
#[derive(Debug, Options)]
pub struct SledsOptions {
    /// Print one JSON object per line instead of tables.
    #[arg(long)]
    pub json: bool,
    /// One period of inventories instead of four: rougher numbers.
    #[arg(long)]
    pub quick: bool,
    /// Sleds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub count: u32,
    /// Instances that are started on them.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub instances: u32,
    /// The daemon's program; the one beside this program by default.
    #[arg(long)]
    pub musher: Option<PathBuf>,
    /// Disk to measure: everything is written into a temporary directory in there.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}

/// How `live` measures.
#[derive(Debug, Options)]
pub struct LiveOptions {
    /// Print one JSON object per line instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Short rounds: rougher numbers.
    #[arg(long)]
    pub quick: bool,
    /// Writes per second, all writers together: well below what the daemon can take.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Instances whose history is read.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub instances: u32,
    /// The daemon's program; the one beside this program by default.
    #[arg(long)]
    pub musher: Option<PathBuf>,
    /// Disk to measure: everything is written into a temporary directory in there.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}

/// How `fleet` measures.
#[derive(Debug, Options)]
pub struct FleetOptions {
    /// Print one JSON object per line instead of tables.
    #[arg(long)]
    pub json: bool,
    /// A fifth of everything: rougher numbers.
    #[arg(long)]
    pub quick: bool,
    /// Instances in all; 10 000 of them are measured first.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(20_000..=1_000_000))]
    pub instances: u32,
    /// Instances that are started, and then stopped and started by turns.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    pub active: u32,
    /// Sleds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub sleds: u32,
    /// The daemon's program; the one beside this program by default.
    #[arg(long)]
    pub musher: Option<PathBuf>,
    /// Disk to measure: everything is written into a temporary directory in there.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
}

/// How `reads` measures.
#[derive(Clone, Debug, Options)]
pub struct ReadsOptions {
    /// The daemon; one with a data directory for this alone.
    #[arg(long, default_value = "http://127.0.0.1:12220")]
    pub server: String,
    /// Bearer token.
    #[arg(long, env = "MUSHER_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The project that is filled.
    #[arg(long, default_value = "demo")]
    pub project: String,
    /// Instances that there shall be; what is missing is created, and not started.
    #[arg(long, default_value_t = 10_000)]
    pub instances: usize,
    /// Connections that read at once.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// How long instances are read, seconds.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Clients that follow the feed; one of them takes nothing.
    #[arg(long, default_value_t = 200)]
    pub feeds: usize,
    /// Print one JSON object per line instead of tables.
    #[arg(long)]
    pub json: bool,
}
