//! The command line: noun, then verb (`docs/cli.md`). Raw arguments only; each command checks its own.

use crate::output::Format;
use crate::values::{parse_memory, parse_seeds, parse_span};
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Control plane for virtual machine instances on a fleet of compute hosts.
#[derive(Debug, Parser)]
#[command(name = "musher", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: data in ./data, four simulated sleds, project "demo".
    Serve(ServeArgs),
    /// A narrated minute: instances come up, the daemon is killed -9 in the middle, and nothing is lost.
    Demo(DemoArgs),
    /// Instances: create, list, show, start, stop, reboot, delete, history.
    Instance {
        #[command(subcommand)]
        verb: InstanceVerb,
    },
    /// Projects: create, list, show, delete.
    Project {
        #[command(subcommand)]
        verb: ProjectVerb,
    },
    /// Sleds: list.
    Sled {
        #[command(subcommand)]
        verb: SledVerb,
    },
    /// The log: stats, verify, tail, export, import, backup, restore, compact.
    Log {
        #[command(subcommand)]
        verb: LogVerb,
    },
    /// Look at any past moment of a stopped data directory, or verify all of it.
    Replay(ReplayArgs),
    /// Seeded fault campaigns against the rules, the log and simulated sleds.
    Chaos {
        #[command(subcommand)]
        verb: ChaosVerb,
    },
    /// Ask the daemon whether it is there.
    Ping(ServerArgs),
    /// Print the version.
    Version,
}

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Data directory [default: ./data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address for clients [default: 127.0.0.1:12220].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Address for sleds [default: 127.0.0.1:12221].
    #[arg(long, value_name = "ADDR")]
    pub sled_listen: Option<SocketAddr>,
    /// Configuration file [default: ./config/local.toml or /etc/musher/config.toml, if there].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// No simulated sleds in the daemon.
    #[arg(long)]
    pub no_embedded_sleds: bool,
    /// Open the log although durable records at its end are gone.
    #[arg(long)]
    pub accept_loss: bool,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the data directory for a look with `musher replay`.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Where the daemon is.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// The daemon's address.
    #[arg(long, value_name = "URL", env = "MUSHER_SERVER", default_value = "http://127.0.0.1:12220")]
    pub server: String,
    /// Bearer token.
    #[arg(long, env = "MUSHER_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Where the daemon is, and how to show what it says.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Project: name or UUID.
    #[arg(short, long, default_value = "demo")]
    pub project: String,
    /// Shape of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// No header line above tables.
    #[arg(long)]
    pub no_headers: bool,
}

/// Whether to wait for the effect.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// Wait until it is done, or until the instance is in STATE.
    #[arg(long, value_name = "STATE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub wait: Option<String>,
    /// Longest wait, such as 60s or 5m.
    #[arg(long, default_value = "60s", value_parser = parse_span)]
    pub timeout: std::time::Duration,
}

/// Verbs of `instance`.
#[derive(Debug, Subcommand)]
pub enum InstanceVerb {
    /// Create an instance, and start it.
    #[command(after_help = "Example: musher instance create web-1 --ncpus 2 --memory 4GiB --wait")]
    Create {
        /// Name: a lowercase letter, then letters, digits and "-".
        name: String,
        /// Virtual CPUs.
        #[arg(long, default_value_t = 2)]
        ncpus: u16,
        /// Memory, in whole GiB.
        #[arg(long, default_value = "4GiB", value_parser = parse_memory)]
        memory: u64,
        /// Host name inside the guest [default: the name].
        #[arg(long)]
        hostname: Option<String>,
        /// Free text.
        #[arg(long, default_value = "")]
        description: String,
        /// What happens when it fails: never or best_effort.
        #[arg(long, value_name = "POLICY")]
        auto_restart_policy: Option<String>,
        /// Leave it stopped.
        #[arg(long)]
        no_start: bool,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List the project's instances.
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one instance.
    Show {
        #[command(flatten)]
        one: One,
    },
    /// Start a stopped or failed instance.
    Start {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Stop an instance.
    Stop {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Reboot the guest.
    Reboot {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Delete a stopped instance for good. Its history stays.
    Delete {
        #[command(flatten)]
        one: One,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Everything that ever happened to it.
    History {
        #[command(flatten)]
        one: One,
        /// Events after this version.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// At most this many.
        #[arg(long, default_value_t = 1_000)]
        limit: u32,
    },
}

/// One instance.
#[derive(Clone, Debug, Args)]
pub struct One {
    /// Name, UUID, or the first 8 or more characters of a UUID.
    pub instance: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Verbs of `project`.
#[derive(Debug, Subcommand)]
pub enum ProjectVerb {
    /// Create a project.
    Create {
        /// Name.
        name: String,
        /// Free text.
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List projects.
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one project.
    Show {
        /// Name or UUID.
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete an empty project.
    Delete {
        /// Name or UUID.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Verbs of `sled`.
#[derive(Debug, Subcommand)]
pub enum SledVerb {
    /// List sleds: state, load, last contact.
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Verbs of `log`.
#[derive(Debug, Subcommand)]
pub enum LogVerb {
    /// Numbers about the log, of a stopped directory or of a running daemon.
    Stats {
        /// Stopped data directory; without it the daemon is asked.
        #[arg(long, value_name = "DIR", conflicts_with = "file")]
        data: Option<PathBuf>,
        /// Export file.
        #[arg(long, value_name = "EXPORT")]
        file: Option<PathBuf>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Check every byte of a stopped directory's log, or of an export.
    Verify {
        /// Stopped data directory.
        #[arg(long, value_name = "DIR", default_value = "./data", conflicts_with = "file")]
        data: PathBuf,
        /// Export file.
        #[arg(long, value_name = "EXPORT")]
        file: Option<PathBuf>,
        /// Shape of the output.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show the newest events.
    Tail {
        /// How many.
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: u64,
        /// Go on showing what comes.
        #[arg(short, long)]
        follow: bool,
        /// Stopped data directory; without it the daemon is asked.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Write the log into one file: versioned, compressed, checksummed.
    #[command(after_help = "Example: musher log export --to monday.musher")]
    Export {
        /// The file to make.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// First position.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Stopped data directory; without it the daemon is asked.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make a data directory from an export.
    Import {
        /// The export.
        file: PathBuf,
        /// The new data directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Back up the log, of a running daemon or of a stopped directory; a second backup copies what has grown.
    #[command(after_help = "Example: musher log backup --to /backups/musher")]
    Backup {
        /// Directory for the backup, on the daemon's host.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Stopped data directory; without it the daemon does it.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make a data directory from a backup.
    Restore {
        /// The backup.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The new data directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Compress sealed segments.
    Compact {
        /// Stopped data directory; without it the daemon does it.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Flags of `replay`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  musher replay web-1 --at -30s\n  musher replay web-1 --history\n  \
                        musher replay --verify")]
pub struct ReplayArgs {
    /// Name, UUID, or the first 8 or more characters of a UUID.
    pub instance: Option<String>,
    /// Moment: #VERSION, a log position, an RFC 3339 time, or an age such as -30s.
    #[arg(long, allow_hyphen_values = true)]
    pub at: Option<String>,
    /// Every event instead of the state.
    #[arg(long)]
    pub history: bool,
    /// Fold everything again: invariants hold, decisions repeat, snapshots agree.
    #[arg(long)]
    pub verify: bool,
    /// Every instance (with --verify; the default without an instance).
    #[arg(long)]
    pub all: bool,
    /// Stopped data directory.
    #[arg(long, value_name = "DIR", default_value = "./data", conflicts_with = "file")]
    pub data: PathBuf,
    /// Export file, instead of a directory.
    #[arg(long, value_name = "EXPORT")]
    pub file: Option<PathBuf>,
    /// Project of a name.
    #[arg(short, long, default_value = "demo")]
    pub project: String,
    /// Shape of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Verbs of `chaos`.
#[derive(Debug, Subcommand)]
pub enum ChaosVerb {
    /// Run seeds and check every invariant after every step.
    #[command(after_help = "Example: musher chaos run --seeds 0..2000 --jobs 2")]
    Run {
        /// Seeds A..B without B, or one seed.
        #[arg(long, default_value = "0..1000", value_parser = parse_seeds)]
        seeds: std::ops::Range<u64>,
        /// Profile of faults; `musher chaos list` names them.
        #[arg(long, default_value = "swarm")]
        profile: String,
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
        /// Profile of faults.
        #[arg(long, default_value = "swarm")]
        profile: String,
    },
    /// List profiles, faults and planted bugs.
    List,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
