//! Arguments of `musher chaos`.

use crate::kills::{CLIENTS_MAX, KILLS_MAX, Mode, Plant};
use crate::values::{parse_seeds, parse_span};
use clap::Subcommand;
use std::path::PathBuf;
use std::time::Duration;

/// What runs the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ChaosTier {
    /// The rules in the simulator's own shell.
    Core,
    /// The real actors on a paused clock.
    Actors,
}

/// Verbs of `chaos`.
#[derive(Debug, Subcommand)]
pub enum ChaosVerb {
    /// Run seeds and check every invariant after every step.
    #[command(after_help = "Example: musher chaos run --seeds 0..2000 --jobs 2")]
    Run {
        /// Seeds A..B without B, or one seed. By default 0..1000, or as many as there is time for.
        #[arg(long, value_parser = parse_seeds)]
        seeds: Option<std::ops::Range<u64>>,
        /// What runs: the rules in the simulator's own shell, or the real actors on a paused clock.
        #[arg(long, value_enum, default_value_t = ChaosTier::Core)]
        tier: ChaosTier,
        /// Profile of faults, by its name or its file; `musher chaos list` names them. By default swarm, or actors for
        /// that tier.
        #[arg(long, value_name = "NAME|FILE")]
        profile: Option<String>,
        /// Stop after this long, if that is sooner (such as 90s, 10m, 2h).
        #[arg(long = "for", value_name = "TIME", value_parser = parse_span)]
        span: Option<Duration>,
        /// Threads.
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// Where failures are kept.
        #[arg(long, value_name = "DIR", default_value = "failures")]
        keep: PathBuf,
        /// JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Run one kept scenario again.
    Replay {
        /// scenario.json or shrunk.json of a kept failure.
        file: PathBuf,
        /// Every transition.
        #[arg(long)]
        verbose: bool,
        /// Stop at this virtual time, in milliseconds.
        #[arg(long, value_name = "MS")]
        stop_at: Option<u64>,
        /// Shrink it first.
        #[arg(long)]
        shrink: bool,
    },
    /// Make a scenario that fails as small as it can be.
    #[command(after_help = "Example: musher chaos shrink failures/I6-260/scenario.json")]
    Shrink {
        /// scenario.json of a kept failure.
        file: PathBuf,
        /// Where the smallest one is written; by default beside it, as .shrunk.json.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Plant bugs and require that each is found.
    Prove {
        /// Threads.
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// Run one seed twice and compare the traces.
    Same {
        /// The seed.
        seed: u64,
        /// What runs it.
        #[arg(long, value_enum, default_value_t = ChaosTier::Core)]
        tier: ChaosTier,
        /// Profile of faults, by its name or its file. By default swarm, or actors for that tier.
        #[arg(long, value_name = "NAME|FILE")]
        profile: Option<String>,
    },
    /// Kill the real daemon and a real sled again and again under load, on one directory.
    #[command(after_help = "Example: musher chaos process --kills 20")]
    Process {
        /// Rounds; each ends with a kill.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=KILLS_MAX))]
        kills: u64,
        /// Stop after this long, if that is sooner (such as 90s, 10m, 2h).
        #[arg(long = "for", value_name = "TIME", value_parser = parse_span)]
        span: Option<Duration>,
        /// The daemon to test, such as a build with failpoints. By default this binary.
        #[arg(long, value_name = "PATH")]
        daemon: Option<PathBuf>,
        /// Which troubles.
        #[arg(long, value_enum, default_value_t = Mode::All)]
        mode: Mode,
        /// Plant a mistake, which must be found; needs a build with failpoints.
        #[arg(long, value_enum)]
        plant: Option<Plant>,
        /// Seed of what is asked and of what goes wrong.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Clients at work.
        #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX))]
        load: u64,
        /// Where a failure is kept.
        #[arg(long, value_name = "DIR", default_value = "failures")]
        keep: PathBuf,
    },
    /// List profiles, faults and planted bugs.
    List,
}
