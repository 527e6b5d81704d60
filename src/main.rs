//! The one binary: daemon, command line, replay and chaos. It puts parts together and holds no rules.

#![allow(
    missing_docs,
    reason = "items of a binary are documented where they say something the name does not"
)]

mod access;
mod archive;
mod call_times;
mod chaos_args;
mod chaos_verbs;
mod checkpoints;
mod cli;
mod client;
mod client_args;
mod config;
mod config_verbs;
mod debugger;
mod demo;
mod doctor;
mod doors;
mod embedded;
mod environment;
mod examples;
mod exit;
mod explained;
#[cfg(feature = "failpoints")]
mod failpoints;
mod feed;
mod fleet;
mod instance;
mod kills;
mod log_args;
mod log_tools;
mod looking;
mod manual;
mod notify;
mod offline;
mod operate;
mod operate_args;
mod output;
mod real;
mod sagas;
mod serial;
mod serve;
mod settings;
mod sled_keys;
mod sled_run;
mod sse;
mod stopping;
mod store;
mod telemetry;
mod values;
mod watch;
mod working;

use clap::FromArgMatches as _;
use cli::{Cli, Command, InstanceCommand, SledCommand};
use exit::Outcome;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::from_arg_matches(&examples::command().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    output::set_color(cli.color);
    // Campaigns have exit codes and threads of their own.
    if let Command::Chaos { verb } = cli.command {
        return chaos_verbs::run(verb);
    }
    if let Command::Replay(args) = &cli.command
        && args.past.live
    {
        debugger::stand_back();
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
            if failure.exit != exit::Exit::Done {
                eprintln!("{failure}");
            }
            failure.exit.into()
        }
    }
}

async fn perform(command: Command) -> Outcome {
    match command {
        Command::Serve(args) => serve::run(&args).await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Instance { verb: InstanceCommand::Ask(verb) } => instance::run(verb).await,
        Command::Instance { verb: InstanceCommand::Operate(verb) } => operate::instance(verb).await,
        Command::Quota { verb } => operate::quota(verb).await,
        Command::Group { verb } => operate::group(verb).await,
        Command::Migration { verb } => operate::migration(verb).await,
        Command::Saga { verb } => sagas::run(verb).await,
        Command::Timer { verb } => operate::timer(verb).await,
        Command::Project { verb } => fleet::project(verb).await,
        Command::Sled { verb: SledCommand::Ask(verb) } => fleet::sled(verb).await,
        Command::Sled { verb: SledCommand::Operate(verb) } => operate::sled(verb).await,
        Command::Sled { verb: SledCommand::Run(args) } => sled_run::run(&args).await,
        Command::Sled { verb: SledCommand::Key(args) } => sled_keys::print_key(&args),
        Command::Log { verb } => offline::log(verb).await,
        Command::Replay(args) => debugger::run(&args).await,
        Command::Upgrade { verb } => debugger::check_upgrade(verb),
        Command::Rules { planted } => debugger::whatif::answer_others(planted.as_deref()),
        Command::Chaos { .. } => unreachable!("handled before the runtime"),
        Command::Events(args) => feed::run(&args).await,
        Command::Trace(args) => looking::trace(&args).await,
        Command::Whatis(args) => looking::whatis(&args).await,
        Command::Token { verb } => access::run(&verb),
        Command::Config { verb } => config_verbs::run(&verb),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut examples::command(), "musher", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Command::Doctor(args) => doctor::run(&args).await,
        Command::Man(args) => manual::run(&args),
        Command::Openapi => {
            output::line(api::openapi_json().trim_end());
            Ok(())
        }
        Command::Ping(args) => fleet::ping(&args).await,
        Command::Version => {
            output::line(format!("musher {}", serve::BUILD));
            Ok(())
        }
    }
}
