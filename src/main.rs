//! The one binary: daemon, command line, replay and chaos. It puts parts together and holds no rules.

#![allow(
    missing_docs,
    reason = "items of a binary are documented where they say something the name does not"
)]

mod chaos_verbs;
mod cli;
mod client;
mod config;
mod demo;
mod embedded;
mod exit;
mod fleet;
mod instance;
mod log_tools;
mod offline;
mod output;
mod real;
mod serve;
mod store;
mod values;

use clap::Parser as _;
use cli::{Cli, Command};
use exit::Outcome;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Campaigns have exit codes and threads of their own.
    if let Command::Chaos { verb } = cli.command {
        return chaos_verbs::run(verb);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(perform(cli.command));
    // Nothing that is left may hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

async fn perform(command: Command) -> Outcome {
    match command {
        Command::Serve(args) => serve::run(&args).await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Instance { verb } => instance::run(verb).await,
        Command::Project { verb } => fleet::project(verb).await,
        Command::Sled { verb } => fleet::sled(verb).await,
        Command::Log { verb } => offline::log(verb).await,
        Command::Replay(args) => offline::replay(&args),
        Command::Chaos { .. } => unreachable!("handled before the runtime"),
        Command::Ping(args) => fleet::ping(&args).await,
        Command::Version => {
            output::line(format!("musher {}", serve::BUILD));
            Ok(())
        }
    }
}
