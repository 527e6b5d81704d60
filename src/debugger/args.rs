//! Flags of `replay`. Raw arguments only, as in [`crate::cli`].

use crate::cli::ServerArgs;
use crate::output::Format;
use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;

/// Flags of `replay`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("question").multiple(false)),
    group(ArgGroup::new("place").multiple(false)),
    after_help = "Examples:\n  musher replay web-1 --at -30s\n  musher replay web-1 --diff '#7..#9'\n  \
                  musher replay web-1 --history --lanes --live\n  musher replay web-1 --until run_state=stopping\n  \
                  musher replay --fleet --at @1200 --file monday.musher\n  musher replay --all --verify\n\n\
                  A MOMENT is #VERSION, a log position (@1234 or 1234), an RFC 3339 time, an age (-30s, -5m), or now."
)]
pub struct ReplayArgs {
    /// Name, UUID, or the first 8 or more characters of a UUID.
    pub instance: Option<String>,
    /// The state at this moment [default: now].
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true)]
    pub at: Option<String>,
    /// What differs between two moments, field by field.
    #[arg(long, value_name = "A..B", allow_hyphen_values = true, group = "question", conflicts_with = "at")]
    pub diff: Option<String>,
    /// Every event instead of the state.
    #[arg(long, group = "question")]
    pub history: bool,
    /// One lane for each VMM and each saga.
    #[arg(long, requires = "history")]
    pub lanes: bool,
    /// Every instance and every sled at the moment.
    #[arg(long, group = "question", conflicts_with = "instance")]
    pub fleet: bool,
    /// Fold everything again: invariants hold, decisions repeat, snapshots and read models agree.
    #[arg(long, group = "question")]
    pub verify: bool,
    /// Every instance (with --verify; the default without an instance).
    #[arg(long, conflicts_with = "instance")]
    pub all: bool,
    /// The first event after which FIELD=VALUE holds, FIELD!=VALUE, or an invariant (C4, or `invariant` for any)
    /// is broken.
    #[arg(long, value_name = "CONDITION", group = "question")]
    pub until: Option<String>,
    /// What came of a request.
    #[arg(long, value_name = "REQUEST", group = "question", conflicts_with = "instance")]
    pub trace: Option<uuid::Uuid>,
    /// Events that mention TEXT, of one instance or of all streams.
    #[arg(long, value_name = "TEXT", group = "question")]
    pub grep: Option<String>,
    /// Most events that --grep shows.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub limit: usize,
    /// Walk through its history: next, back, goto, until, print, diff, why, break, continue, effects. Commands come
    /// from stdin, one per line; begins at the moment of --at.
    #[arg(long, group = "question", requires = "instance")]
    pub step: bool,
    /// A screen to look through one history, or all events: state, lanes, sagas, search; `?` shows the keys. Begins at
    /// the moment of --at.
    #[arg(long, group = "question")]
    pub tui: bool,
    /// How much of what there is, and what starts and stops cost.
    #[arg(long, group = "question")]
    pub stats: bool,
    /// Decide everything again with another build of musher: the first difference of each instance.
    #[arg(long, value_name = "BINARY", group = "question")]
    pub with: Option<PathBuf>,
    /// Decide everything again under the limits of this configuration file.
    #[arg(long, value_name = "FILE", group = "question")]
    pub with_config: Option<PathBuf>,
    /// Make a scenario of its history that `musher chaos replay` runs, with the same commands in the same order.
    #[arg(long, group = "question", requires = "instance")]
    pub simulate: bool,
    /// File for the scenario, which must not exist [default: NAME.scenario.json].
    #[arg(long, value_name = "FILE", requires = "simulate")]
    pub to: Option<PathBuf>,
    #[command(flatten)]
    pub past: PastArgs,
    /// Project of a name.
    #[arg(short, long, default_value = "demo")]
    pub project: String,
    /// Shape of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Verbs of `upgrade`.
#[derive(Debug, Subcommand)]
pub enum UpgradeVerb {
    /// Before an upgrade, with the new build: whether it can go on from a history. Nothing is written.
    #[command(after_help = "Examples:\n  musher upgrade check --data ./data\n  \
                            musher upgrade check --from monday.musher")]
    Check {
        /// Stopped data directory.
        #[arg(long, value_name = "DIR", default_value = "./data", conflicts_with = "from")]
        data: PathBuf,
        /// Export file, instead of a directory.
        #[arg(long, value_name = "EXPORT")]
        from: Option<PathBuf>,
        /// Shape of the output.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// Where the past is read from.
#[derive(Clone, Debug, Args)]
pub struct PastArgs {
    /// Stopped data directory.
    #[arg(long, value_name = "DIR", default_value = "./data", group = "place")]
    pub data: PathBuf,
    /// Export file, instead of a directory.
    #[arg(long, value_name = "EXPORT", group = "place")]
    pub file: Option<PathBuf>,
    /// Backup, instead of a directory; it is read from a copy that goes away.
    #[arg(long, value_name = "DIR", group = "place")]
    pub backup: Option<PathBuf>,
    /// The log of the running daemon at --server, page by page.
    #[arg(long, group = "place")]
    pub live: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}
