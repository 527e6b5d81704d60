//! The command line: noun, then verb (`docs/cli.md`). Raw arguments only; each command checks its own.

use crate::access::TokenVerb;
use crate::chaos_args::ChaosVerb;
pub use crate::client_args::{ClientArgs, HowArgs, ServerArgs, WaitArgs, WatchArgs};
use crate::config_verbs::ConfigVerb;
pub use crate::debugger::args::{ReplayArgs, UpgradeVerb};
use crate::doctor::DoctorArgs;
use crate::feed::EventsArgs;
pub use crate::log_args::LogVerb;
use crate::looking::{TraceArgs, WhatisArgs};
use crate::manual::ManArgs;
use crate::operate_args::{
    GroupVerb, MigrationVerb, OperateVerb, QuotaVerb, SagaVerb, SledOperateVerb, TimerVerb,
};
use crate::output::Color;
use crate::serial::SerialArgs;
use crate::sled_keys::SledKeyArgs;
use crate::values::parse_memory;
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Control plane for virtual machine instances on a fleet of compute hosts.
#[derive(Debug, Parser)]
#[command(name = "musher", version, max_term_width = 100)]
pub struct Cli {
    /// When words are coloured.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
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
    /// Instances: create, list, show, watch, start, stop, reboot, delete, serial, history, explain, migrate,
    /// force-stop, update.
    Instance {
        #[command(subcommand)]
        verb: InstanceCommand,
    },
    /// Quotas of fleet, silo and projects: show, set.
    Quota {
        #[command(subcommand)]
        verb: QuotaVerb,
    },
    /// Anti-affinity groups of a project: list, create, show, add, remove, delete.
    Group {
        #[command(subcommand)]
        verb: GroupVerb,
    },
    /// Live migrations: list, show.
    Migration {
        #[command(subcommand)]
        verb: MigrationVerb,
    },
    /// Sagas: list, show, pause, resume, retry, cancel.
    Saga {
        #[command(subcommand)]
        verb: SagaVerb,
    },
    /// Reapers: list, explain, activate.
    Timer {
        #[command(subcommand)]
        verb: TimerVerb,
    },
    /// Projects: create, list, show, delete.
    Project {
        #[command(subcommand)]
        verb: ProjectVerb,
    },
    /// Sleds: list, show, explain, cordon, uncordon, drain or expunge them, make their keys, or run a simulated one as a process of its own.
    Sled {
        #[command(subcommand)]
        verb: SledCommand,
    },
    /// The log: stats, verify, tail, export, import, backup, restore, compact.
    Log {
        #[command(subcommand)]
        verb: LogVerb,
    },
    /// Look at any past moment: of a stopped directory, an export, a backup or a running daemon.
    Replay(Box<ReplayArgs>),
    /// Upgrades: check.
    Upgrade {
        #[command(subcommand)]
        verb: UpgradeVerb,
    },
    /// Answer another build's `replay --with`, on stdin and stdout.
    #[command(hide = true)]
    Rules {
        /// Decide with this planted bug.
        #[arg(long, value_name = "BUG")]
        planted: Option<String>,
    },
    /// Seeded fault campaigns against the rules, the log and simulated sleds.
    Chaos {
        #[command(subcommand)]
        verb: ChaosVerb,
    },
    /// Every event, as it is recorded.
    Events(EventsArgs),
    /// What came of one request: steps, answers, reports, with how long each took.
    Trace(TraceArgs),
    /// What an id, or the beginning of one, stands for.
    Whatis(WhatisArgs),
    /// The daemon's settings: show, check.
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Bearer tokens of people and their tools, in a file on this host: create, list, revoke.
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Print a completion script for a shell.
    #[command(after_help = "Example: musher completions bash > /etc/bash_completion.d/musher")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages, one per command.
    Man(ManArgs),
    /// Look whether host, data directory and daemon are in order.
    Doctor(DoctorArgs),
    /// Print the description of the HTTP interface (OpenAPI 3.1).
    Openapi,
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
    /// Token file: from here on every request needs a token [default: none, on 127.0.0.1 only].
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
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

/// Verbs of `instance`: those of users, and those of operators.
#[derive(Debug, Subcommand)]
pub enum InstanceCommand {
    #[command(flatten)]
    Ask(InstanceVerb),
    #[command(flatten)]
    Operate(OperateVerb),
}

/// Verbs of `instance` that users know.
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
        how: HowArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List the project's instances.
    #[command(after_help = "Examples:\n  musher instance list -w\n  musher instance list -o name")]
    List {
        #[command(flatten)]
        watch: WatchArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one instance.
    #[command(after_help = "Example: musher instance show web-1 -o yaml")]
    Show {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Show one instance, then every event of it as it is recorded, until interrupted.
    #[command(after_help = "Example: musher instance watch web-1")]
    Watch {
        #[command(flatten)]
        one: One,
    },
    /// Start a stopped or failed instance.
    #[command(after_help = "Example: musher instance start web-1 --wait --timeout 2m")]
    Start {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        how: HowArgs,
    },
    /// Stop an instance.
    #[command(after_help = "Example: musher instance stop web-1 --wait")]
    Stop {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        how: HowArgs,
    },
    /// Reboot the guest.
    #[command(after_help = "Example: musher instance reboot web-1 --wait")]
    Reboot {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        how: HowArgs,
    },
    /// Delete a stopped instance for good. Its history stays.
    #[command(after_help = "Example: musher instance delete web-1 --yes")]
    Delete {
        #[command(flatten)]
        one: One,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        how: HowArgs,
    },
    /// What its guest has written to its serial console.
    #[command(
        after_help = "Examples:\n  musher instance serial web-1\n  musher instance serial web-1 --tail 500 -f"
    )]
    Serial(SerialArgs),
    /// What differs between two moments of it, field by field.
    #[command(
        after_help = "A moment is `#118` (version), `@1234` (position), an RFC 3339 time, `-30s` or `now`.\n\n\
                      Examples:\n  musher instance diff web-1 --from '#7' --to '#9'\n  musher instance diff web-1 --from -5m"
    )]
    Diff {
        #[command(flatten)]
        one: One,
        /// The first moment; its first event if not said.
        #[arg(long, allow_hyphen_values = true)]
        from: Option<String>,
        /// The second; now if not said.
        #[arg(long, allow_hyphen_values = true)]
        to: Option<String>,
    },
    /// Everything that ever happened to it.
    #[command(after_help = "Example: musher instance history web-1 -o wide")]
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
        how: HowArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List projects.
    List {
        #[command(flatten)]
        watch: WatchArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one project.
    Show {
        /// Name or UUID.
        name: String,
        #[command(flatten)]
        watch: WatchArgs,
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
        how: HowArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Verbs of `sled`: those that ask the daemon, and the one that is a sled.
#[derive(Debug, Subcommand)]
pub enum SledCommand {
    #[command(flatten)]
    Ask(SledVerb),
    #[command(flatten)]
    Operate(SledOperateVerb),
    /// Run one simulated sled as a process of its own, until Ctrl-C; its VMMs outlive the process.
    #[command(after_help = "Examples:\n  musher sled run --name a\n  \
                            musher sled run --name b --threads 64 --latency 20 --fail-rate 0.05")]
    Run(SledRunArgs),
    /// Make the key of one sled from the fleet's secret, and print it.
    #[command(
        after_help = "Example:\n  (umask 077; musher sled key --secret /etc/musher/sleds.secret > a.key)\n  \
                            musher sled run --name a --listen 192.0.2.7:7000 --key a.key"
    )]
    Key(SledKeyArgs),
}

/// Flags of `sled run`.
#[derive(Clone, Debug, Args)]
pub struct SledRunArgs {
    /// Its name.
    #[arg(long)]
    pub name: String,
    /// Where its agent listens [default: 127.0.0.1, with the port of the last run if that is free].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where others reach it, as HOST:PORT [default: where it listens].
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// The daemon's address for sleds.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:12221")]
    pub control_plane: String,
    /// Hardware threads for guests.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub threads: u32,
    /// Memory for guests, GiB.
    #[arg(long, value_name = "GIB", default_value_t = 128)]
    pub ram: u64,
    /// Guests migrate within one family.
    #[arg(long, value_name = "FAMILY", default_value = "sim-x86")]
    pub cpu_family: String,
    /// How long messages take: from half as many milliseconds to one and a half times as many.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub latency: u64,
    /// How many messages go wrong, from 0 to 1: lost, answered in vain, or refused for the moment.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub fail_rate: f64,
    /// How much of its memory a guest dirties while it is copied once, in percent; from 100 on its migration
    /// goes on until it is cancelled.
    #[arg(long, value_name = "PERCENT", default_value_t = 25)]
    pub dirty_rate: u32,
    /// Seed of its timing and of what goes wrong.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// File with its key, made by `musher sled key`: who it is, and how it knows its control plane.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// So many sleds in one process, called NAME-0, NAME-1 and on, each with a port and a directory of its own.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["key", "advertise"],
          value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub count: u16,
    /// Belong to whichever control plane answers, not to the one that it belonged to: that one's VMMs are ended.
    #[arg(long)]
    pub adopt: bool,
    /// Where its identity and its VMMs are kept [default: ./sleds/NAME].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Come up as after a reboot of the host: a new boot, and no VMMs.
    #[arg(long)]
    pub reboot: bool,
}

/// Verbs of `sled` that ask the daemon.
#[derive(Debug, Subcommand)]
pub enum SledVerb {
    /// List sleds: state, load, lease, last contact.
    List {
        #[command(flatten)]
        watch: WatchArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
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
