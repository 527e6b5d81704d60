//! Arguments that client commands share: where the daemon is, how answers are shown, how a command is meant.

use crate::output::Format;
use crate::values::parse_span;
use clap::Args;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Where a client looks if nobody says where: `OXIDE_HOST`, else where `serve` listens if nobody says where.
fn default_server() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| {
        let host = std::env::var("OXIDE_HOST").ok().filter(|host| !host.is_empty());
        host.unwrap_or_else(|| "http://127.0.0.1:12220".to_owned())
    })
}

/// Where the daemon is.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// The daemon's address.
    #[arg(long, value_name = "URL", env = "MUSHER_SERVER", default_value = default_server())]
    pub server: String,
    /// Bearer token.
    #[arg(long, env = "MUSHER_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File with a bearer token; wins over the token of the environment.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
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

/// Whether to go on looking.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// Show it again whenever it has changed, until interrupted.
    #[arg(short, long)]
    pub watch: bool,
}

/// How a command is meant.
#[derive(Clone, Debug, Default, Args)]
pub struct HowArgs {
    /// Decide only: show which events would be recorded, and record none.
    #[arg(long)]
    pub dry_run: bool,
    /// Why; it is kept in the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
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
