//! `musher chaos …`: hands the arguments over and turns the answer into an exit code.

use crate::cli::ChaosVerb;
use chaos::cli::{CliError, Exit, ProveArgs, ReplayArgs, RunArgs, SameArgs};
use std::process::ExitCode;

/// Runs the verb.
pub fn run(verb: ChaosVerb) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let ended: Result<Exit, CliError> = match verb {
        ChaosVerb::Run { seeds, profile, jobs, keep, json } => {
            chaos::cli::run(&RunArgs { seeds, profile, jobs, keep: Some(keep), json }, &mut out)
        }
        ChaosVerb::Replay { file, verbose, stop_at, shrink } => {
            chaos::cli::replay(&ReplayArgs { file, verbose, stop_at_ms: stop_at, shrink }, &mut out)
        }
        ChaosVerb::Prove { jobs } => chaos::cli::prove_all(&ProveArgs { jobs }, &mut out),
        ChaosVerb::Same { seed, profile } => chaos::cli::same(&SameArgs { seed, profile }, &mut out),
        ChaosVerb::List => chaos::cli::list(&mut out),
    };
    match ended {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit().code())
        }
    }
}
