//! Flags of what looks at the log itself. Raw arguments only, as in [`crate::cli`].

use crate::cli::ClientArgs;
use crate::output::Format;
use clap::Subcommand;
use std::path::PathBuf;

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
