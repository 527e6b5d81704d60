//! `musher chaos …`: hands the arguments over and turns the answer into an exit code.

use crate::chaos_args::{ChaosTier, ChaosVerb};
use crate::kills::{self, Campaign};
use chaos::Tier;
use chaos::cli::{CliError, Exit, Progress, ProveArgs, ReplayArgs, RunArgs, SameArgs, ShrinkArgs};
use std::io::IsTerminal as _;
use std::process::ExitCode;

/// Seeds of a campaign that names neither seeds nor a time.
const SEEDS: u64 = 1_000;

/// Runs the verb.
pub fn run(verb: ChaosVerb) -> ExitCode {
    if let ChaosVerb::Process { kills, span, daemon, mode, plant, seed, load, keep } = verb {
        return kills::run(&Campaign { kills, span, seed, clients: load, daemon, mode, plant, keep });
    }
    let mut out = std::io::stdout().lock();
    let ended: Result<Exit, CliError> = match verb {
        ChaosVerb::Run { seeds, tier, profile, span, jobs, keep, json } => {
            let (tier, profile) = chosen(tier, profile);
            let seeds = seeds.unwrap_or(0..if span.is_some() { u64::MAX } else { SEEDS });
            let (keep, progress) = (Some(keep), progress());
            chaos::cli::run(&RunArgs { seeds, tier, profile, jobs, span, progress, keep, json }, &mut out)
        }
        ChaosVerb::Replay { file, verbose, stop_at, shrink } => {
            chaos::cli::replay(&ReplayArgs { file, verbose, stop_at_ms: stop_at, shrink }, &mut out)
        }
        ChaosVerb::Shrink { file, to } => chaos::cli::shrink_file(&ShrinkArgs { file, to }, &mut out),
        ChaosVerb::Prove { jobs } => chaos::cli::prove_all(&ProveArgs { jobs }, &mut out),
        ChaosVerb::Same { seed, tier, profile } => {
            let (tier, profile) = chosen(tier, profile);
            chaos::cli::same(&SameArgs { seed, tier, profile }, &mut out)
        }
        ChaosVerb::Process { .. } => unreachable!("handled before"),
        ChaosVerb::List => chaos::cli::list(&mut out).and_then(|exit| {
            list_failpoints(&mut out)?;
            Ok(exit)
        }),
    };
    match ended {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit().code())
        }
    }
}

/// The places where this build can be made to die or fail.
#[cfg(feature = "failpoints")]
fn list_failpoints(out: &mut dyn std::io::Write) -> std::io::Result<()> {
    writeln!(out, "failpoints")?;
    eventlog::failpoints::names().try_for_each(|name| writeln!(out, "  {name}"))
}

#[cfg(not(feature = "failpoints"))]
fn list_failpoints(out: &mut dyn std::io::Write) -> std::io::Result<()> {
    writeln!(out, "no failpoints: they take a build with the feature failpoints")
}

fn progress() -> Progress {
    if std::io::stderr().is_terminal() { Progress::Overwritten } else { Progress::Lines }
}

/// The tier, and its own profile unless another is named.
fn chosen(tier: ChaosTier, profile: Option<String>) -> (Tier, String) {
    let (tier, own) = match tier {
        ChaosTier::Core => (Tier::Core, chaos::CORE_PROFILE),
        ChaosTier::Actors => (Tier::Actors, chaos::ACTORS_PROFILE),
    };
    (tier, profile.unwrap_or_else(|| own.to_owned()))
}
