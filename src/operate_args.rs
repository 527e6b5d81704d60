//! Arguments of what operators do: beyond one instance's start and stop.

use crate::cli::{ClientArgs, HowArgs, One, WaitArgs, WatchArgs};
use crate::values::{parse_limit, parse_memory, parse_memory_limit};
use clap::{Args, Subcommand};

/// Verbs of `instance` that operators use.
#[derive(Debug, Subcommand)]
pub enum OperateVerb {
    /// Why it is as it is, what it waits for, and what can be done.
    #[command(after_help = "Example: musher instance explain web-1 -w")]
    Explain {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Move the guest to another sled, or give a migration up.
    #[command(after_help = "Examples:\n  musher instance migrate web-1 --wait\n  \
                            musher instance migrate web-1 --to sim-2\n  \
                            musher instance migrate web-1 --cancel")]
    Migrate {
        #[command(flatten)]
        one: One,
        /// The sled: name or UUID [default: the least loaded that fits].
        #[arg(long, value_name = "SLED")]
        to: Option<String>,
        /// Give up the migration under way.
        #[arg(long, conflicts_with = "to")]
        cancel: bool,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        how: HowArgs,
    },
    /// Declare its VMMs failed, whatever they do.
    #[command(after_help = "Example: musher instance force-stop web-1 --reason \"hung for an hour\" --yes")]
    ForceStop {
        #[command(flatten)]
        one: One,
        /// Why; it is kept in the history.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Vouch for every VMM of it being dead: the next start does not wait for them.
        #[arg(long)]
        assert_dead: bool,
        /// The VMM that you looked at: no other is touched. Refused if the instance does not have it any more.
        #[arg(long, value_name = "ID")]
        vmm: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Decide only: show which events would be recorded, and record none.
        #[arg(long)]
        dry_run: bool,
    },
    /// Change its size, restart policy or platform; what is not given stays.
    #[command(after_help = "Example: musher instance update web-1 --ncpus 4 --auto-restart-policy never")]
    Update {
        #[command(flatten)]
        one: One,
        /// Virtual CPUs; only without a VMM.
        #[arg(long)]
        ncpus: Option<u16>,
        /// Memory, in whole GiB; only without a VMM.
        #[arg(long, value_parser = parse_memory)]
        memory: Option<u64>,
        /// What happens when it fails: never, best_effort, or default.
        #[arg(long, value_name = "POLICY")]
        auto_restart_policy: Option<String>,
        /// CPU family that its sleds must have, or none; only without a VMM.
        #[arg(long, value_name = "FAMILY")]
        cpu_platform: Option<String>,
        #[command(flatten)]
        how: HowArgs,
    },
}

/// One sled, and why.
#[derive(Clone, Debug, Args)]
pub struct OneSled {
    /// Name or UUID.
    pub sled: String,
    #[command(flatten)]
    pub how: HowArgs,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Verbs of `sled` that operators use.
#[derive(Debug, Subcommand)]
pub enum SledOperateVerb {
    /// Show one sled: load, contact, and how its drain is getting on.
    Show {
        /// Name or UUID.
        sled: String,
        #[command(flatten)]
        watch: WatchArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Why it is as it is, what is waited for, what comes next and what can be done.
    Explain {
        /// Name or UUID.
        sled: String,
        #[command(flatten)]
        watch: WatchArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Place no new instances on it.
    Cordon(OneSled),
    /// Place new instances on it again; calls a drain off.
    Uncordon(OneSled),
    /// Move its guests away, and place no new ones on it.
    #[command(after_help = "Example: musher sled drain sim-1 --reason firmware --wait")]
    Drain {
        #[command(flatten)]
        one: OneSled,
        /// Wait until the last guest is away.
        #[arg(long)]
        wait: bool,
        /// Longest wait, such as 60s or 5m.
        #[arg(long, default_value = "10m", value_parser = crate::values::parse_span)]
        timeout: std::time::Duration,
    },
    /// Declare it, and everything on it, gone for good.
    #[command(after_help = "Example: musher sled expunge sim-1 --reason \"caught fire\" --yes")]
    Expunge {
        #[command(flatten)]
        one: OneSled,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Verbs of `quota`.
#[derive(Debug, Subcommand)]
pub enum QuotaVerb {
    /// Show limits and what is charged against them.
    Show {
        /// fleet, silo or project (the one that --project names).
        #[arg(default_value = "project")]
        scope: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Set limits; what is not given stays.
    #[command(after_help = "Example: musher quota set project -p demo --cpus 64 --memory 256GiB")]
    Set {
        /// fleet, silo or project (the one that --project names).
        scope: String,
        /// Virtual CPUs, or none.
        #[arg(long, value_parser = parse_limit)]
        cpus: Option<Limit>,
        /// Memory, or none.
        #[arg(long, value_parser = parse_memory_limit)]
        memory: Option<Limit>,
        #[command(flatten)]
        how: HowArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// A limit, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u64>);

/// Verbs of `group`.
#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// List the project's anti-affinity groups.
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Create a group.
    #[command(after_help = "Example: musher group create web --policy fail")]
    Create {
        /// Its name.
        name: String,
        /// allow (keep apart if possible) or fail (keep apart or refuse).
        #[arg(long, default_value = "allow")]
        policy: String,
        /// Free text.
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        how: HowArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one group.
    Show {
        /// Name or UUID.
        group: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Take an instance in; it is kept apart from its next placement on.
    Add {
        /// Name or UUID.
        group: String,
        /// The instance: name or UUID.
        instance: String,
        #[command(flatten)]
        how: HowArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Let an instance go.
    Remove {
        /// Name or UUID.
        group: String,
        /// The instance: name or UUID.
        instance: String,
        #[command(flatten)]
        how: HowArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete a group; its members stay as they are.
    Delete {
        /// Name or UUID.
        group: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        how: HowArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Which of the things that begin and end to list.
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// Only those under way.
    #[arg(long)]
    pub under_way: bool,
    #[command(flatten)]
    pub watch: WatchArgs,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Verbs of `migration`.
#[derive(Debug, Subcommand)]
pub enum MigrationVerb {
    /// List migrations, under way and over.
    List(HistoryArgs),
    /// Show one migration: both sides, timing, outcome.
    Show {
        /// Its UUID.
        id: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Verbs of `saga`.
#[derive(Debug, Subcommand)]
pub enum SagaVerb {
    /// List sagas, under way and over.
    List(HistoryArgs),
    /// Show one saga, step by step.
    Show {
        /// Its UUID.
        id: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Hold a saga at its step: nothing more is sent for it, and its deadline does not count.
    Pause(OneSaga),
    /// Let a saga that is paused go on, with all of its time again.
    Resume(OneSaga),
    /// Send what a saga waits for at once; resumes it if it is paused.
    Retry(OneSaga),
    /// Take a saga back that has not passed its point of no return.
    Cancel(OneSaga),
}

/// One saga, and how to change it.
#[derive(Clone, Debug, Args)]
pub struct OneSaga {
    /// Its UUID.
    pub id: String,
    #[command(flatten)]
    pub how: HowArgs,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Verbs of `timer`.
#[derive(Debug, Subcommand)]
pub enum TimerVerb {
    /// List the reapers: when each last ran, and what it found.
    List {
        #[command(flatten)]
        watch: WatchArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Why one is there, how it is doing, what comes next and what can be done.
    Explain {
        /// Its name.
        name: String,
        #[command(flatten)]
        watch: WatchArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Run one at once.
    Activate {
        /// Its name.
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}
