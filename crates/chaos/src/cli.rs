//! The verbs of `musher chaos`, over plain structs: the binary parses, this does.
//!
//! Everything is written to `out`; the answer says how the process shall end. An error is one of writing or of
//! reading files, or a wrong argument; its text says what to do.

mod telling;

use crate::campaign::{Campaign, Findings, JOBS_MAX, is_repeatable, run_caught, scenario_with};
use crate::checks::{Failure, FailureKind};
use crate::coverage::Sometimes;
use crate::faults::Fault;
use crate::generate::{ACTORS_PROFILE, CORE_PROFILE, NoProfile, PROFILES, Profile};
use crate::prove::{EXPECTATIONS, prove};
use crate::report;
use crate::scenario::{Scenario, Tier, Unreadable};
use crate::shrink::shrink;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use telling::Telling;

/// Most failures that a campaign shrinks and keeps: the first of each invariant come first.
pub const FAILURES_SHRUNK_MAX: usize = 20;

/// Seeds of the actors tier from which on every one of its rare states must have been met.
const ACTOR_SEEDS_MIN: u64 = 100;

/// Largest scenario file, bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// How the process shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Nothing was broken.
    Clean = 0,
    /// The arguments make no sense.
    Usage = 2,
    /// An invariant was broken.
    Invariant = 10,
    /// Something did not come to rest.
    Liveness = 11,
    /// Something panicked.
    Panic = 12,
    /// A rare state was met too seldom.
    Coverage = 13,
    /// The same seed gave two traces.
    Nondeterminism = 14,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    const fn of(failure: &Failure) -> Self {
        match failure.kind {
            FailureKind::Invariant => Self::Invariant,
            FailureKind::Liveness => Self::Liveness,
            FailureKind::Panic => Self::Panic,
        }
    }
}

/// Why a verb could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Writing the output or reading a file failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A file is not a scenario.
    #[error("{path}: {why}")]
    Scenario {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: Unreadable,
    },
    /// There is no such profile.
    #[error("{0}")]
    Profile(#[from] NoProfile),
    /// An argument makes no sense.
    #[error("{0}")]
    Usage(String),
}

impl CliError {
    /// How the process shall end.
    pub const fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// `chaos run`.
#[derive(Clone, Debug)]
pub struct RunArgs {
    /// Seeds, the end excluded.
    pub seeds: Range<u64>,
    /// What runs them.
    pub tier: Tier,
    /// Name of a profile, or its file.
    pub profile: String,
    /// Threads.
    pub jobs: usize,
    /// When to stop, if that is sooner.
    pub span: Option<Duration>,
    /// How it is told, beside the output, how the campaign goes on.
    pub progress: Progress,
    /// Where failures are kept.
    pub keep: Option<PathBuf>,
    /// Whether to write JSON lines.
    pub json: bool,
}

/// How a campaign tells how it goes on, on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Not at all.
    #[default]
    Silent,
    /// One line that is written over, for a terminal.
    Overwritten,
    /// A line now and then, for a file.
    Lines,
}

/// `chaos shrink`.
#[derive(Clone, Debug)]
pub struct ShrinkArgs {
    /// A scenario that fails.
    pub file: PathBuf,
    /// Where the smallest one is written; by default beside it, as `.shrunk.json`.
    pub to: Option<PathBuf>,
}

/// `chaos replay`.
#[derive(Clone, Debug)]
pub struct ReplayArgs {
    /// A scenario.
    pub file: PathBuf,
    /// Whether to show every line of the trace.
    pub verbose: bool,
    /// Show nothing after this time of the run, milliseconds.
    pub stop_at_ms: Option<u64>,
    /// Shrink it, and write the result beside the file.
    pub shrink: bool,
}

/// `chaos prove`.
#[derive(Clone, Debug)]
pub struct ProveArgs {
    /// Threads.
    pub jobs: usize,
}

/// `chaos same`.
#[derive(Clone, Debug)]
pub struct SameArgs {
    /// The seed.
    pub seed: u64,
    /// What runs it.
    pub tier: Tier,
    /// Name of a profile.
    pub profile: String,
}

/// Runs a campaign.
pub fn run(args: &RunArgs, out: &mut dyn Write) -> Result<Exit, CliError> {
    let profile = Profile::find(&args.profile)?;
    if args.seeds.is_empty() {
        return Err(CliError::Usage(
            "there are no seeds in that range; write `--seeds A..B` with A < B".to_owned(),
        ));
    }
    if args.jobs == 0 || args.jobs > JOBS_MAX {
        return Err(CliError::Usage(format!("{} jobs; 1 to {JOBS_MAX} are allowed", args.jobs)));
    }
    let campaign = Campaign {
        seeds: args.seeds.clone(),
        tier: args.tier,
        profile: &profile,
        jobs: args.jobs,
        bug: None,
        is_stopped_by_failure: false,
    };
    let started = stopwatch();
    let telling = Telling::new(args.progress, started);
    let findings = campaign.run_watched(&|findings| {
        telling.tell(findings);
        args.span.is_none_or(|span| started.elapsed() < span)
    });
    telling.end();
    let elapsed_ms = started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    let exit = verdict(&findings, args.tier, &profile);
    show_failures(args, &findings, out)?;
    if args.json {
        writeln!(out, "{}", report::summary_json(&findings, args.seeds.start, elapsed_ms, exit.code()))?;
        return Ok(exit);
    }
    for seed in &findings.differing {
        writeln!(out, "seed {seed} gave two traces: something outside the scenario decides")?;
    }
    writeln!(
        out,
        "tier {}  profile {}  seeds {}..{}",
        args.tier.name(),
        profile.name,
        args.seeds.start,
        args.seeds.start + findings.seeds
    )?;
    report::numbers(out, &findings, elapsed_ms)?;
    report::states(out, &findings, args.seeds.start)?;
    let with_minima = args.tier == Tier::Core && profile.is_built_in && profile.name == CORE_PROFILE;
    report::coverage(out, &findings, with_minima)?;
    writeln!(out, "{} failed, {} gave two traces", findings.failures.len(), findings.differing.len())?;
    Ok(exit)
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a campaign took is told to people and decides nothing"
)]
fn stopwatch() -> Instant {
    Instant::now()
}

/// The gravest finding: coverage is asked of each tier's own profile only; that of the core has minima in the table,
/// that of the actors must have met each of its states.
fn verdict(findings: &Findings, tier: Tier, profile: &Profile) -> Exit {
    if let Some(first) = findings.failures.first() {
        return Exit::of(&first.failure);
    }
    if !findings.differing.is_empty() {
        return Exit::Nondeterminism;
    }
    let is_of = |name| profile.is_built_in && profile.name == name;
    let is_short = match tier {
        Tier::Core => is_of(CORE_PROFILE) && !findings.coverage.short(findings.seeds).is_empty(),
        Tier::Actors => {
            is_of(ACTORS_PROFILE)
                && findings.seeds >= ACTOR_SEEDS_MIN
                && Sometimes::OF_ACTORS.iter().any(|state| findings.coverage.count(*state) == 0)
        }
    };
    if is_short { Exit::Coverage } else { Exit::Clean }
}

/// Shows failures by invariant, the first of each shrunk before any second one.
fn show_failures(args: &RunArgs, findings: &Findings, out: &mut dyn Write) -> Result<(), CliError> {
    let mut ranks: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, usize)> = Vec::new();
    for (nth, failed) in findings.failures.iter().enumerate() {
        let rank = ranks.entry(&failed.failure.invariant).or_insert(0);
        ranked.push((*rank, nth));
        *rank += 1;
    }
    ranked.sort_unstable();
    for (shown, (_, nth)) in ranked.into_iter().enumerate() {
        let failed = &findings.failures[nth];
        let shrunk = (shown < FAILURES_SHRUNK_MAX).then(|| shrink(&failed.scenario, &failed.failure));
        if args.json {
            writeln!(out, "{}", report::failure_json(failed, shrunk.as_ref()))?;
        } else if let Some(shrunk) = &shrunk {
            report::short_form(out, failed, shrunk)?;
        } else {
            writeln!(out, "seed {}  {} {}", failed.seed, failed.failure.invariant, failed.failure.detail)?;
        }
        if let (Some(dir), Some(shrunk)) = (&args.keep, &shrunk) {
            let place = report::keep(dir, failed, shrunk)?;
            if !args.json {
                writeln!(out, "  kept: {}", place.display())?;
            }
        }
    }
    for (invariant, count) in ranks.into_iter().filter(|_| !args.json) {
        writeln!(out, "{invariant}: {count} seeds")?;
    }
    Ok(())
}

fn read_scenario(path: &Path) -> Result<Scenario, CliError> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(CliError::Usage(format!("{} has {bytes} bytes; no scenario has", path.display())));
    }
    let text = std::fs::read_to_string(path)?;
    Scenario::from_json(&text).map_err(|why| CliError::Scenario { path: path.display().to_string(), why })
}

/// Runs a saved scenario and shows what happens.
pub fn replay(args: &ReplayArgs, out: &mut dyn Write) -> Result<Exit, CliError> {
    let scenario = read_scenario(&args.file)?;
    let outcome = run_caught(&scenario, true);
    writeln!(out, "seed {}  profile {}", scenario.seed, scenario.profile)?;
    let is_in_time = |line: &&String| {
        args.stop_at_ms.is_none_or(|stop| report::time_ms(line).is_none_or(|time| time <= stop))
    };
    for line in outcome.trace.iter().filter(is_in_time).filter(|line| args.verbose || report::is_short(line))
    {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "trace {:016x}  steps {}", outcome.trace_hash, outcome.steps)?;
    let Some(failure) = outcome.failure else {
        writeln!(out, "nothing was broken")?;
        return Ok(Exit::Clean);
    };
    writeln!(out, "{} {}", failure.invariant, failure.detail)?;
    if args.shrink {
        keep_smallest(&scenario, &failure, &args.file.with_extension("shrunk.json"), out)?;
    }
    Ok(Exit::of(&failure))
}

/// Makes a saved scenario as small as it can be and still break the same invariant.
pub fn shrink_file(args: &ShrinkArgs, out: &mut dyn Write) -> Result<Exit, CliError> {
    let scenario = read_scenario(&args.file)?;
    let Some(failure) = run_caught(&scenario, false).failure else {
        let path = args.file.display();
        return Err(CliError::Usage(format!("{path} breaks nothing: there is nothing to shrink it to")));
    };
    writeln!(out, "{} {}", failure.invariant, failure.detail)?;
    let place = args.to.clone().unwrap_or_else(|| args.file.with_extension("shrunk.json"));
    keep_smallest(&scenario, &failure, &place, out)?;
    Ok(Exit::Clean)
}

fn keep_smallest(
    scenario: &Scenario,
    failure: &Failure,
    place: &Path,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let shrunk = shrink(scenario, failure);
    std::fs::write(place, shrunk.scenario.to_json())?;
    writeln!(out, "{}", report::shrunk_line(scenario, &shrunk))?;
    writeln!(out, "repro: musher chaos replay {}", place.display())?;
    Ok(())
}

/// Looks for every planted bug. One that is not found within its budget is a hole in the harness.
pub fn prove_all(args: &ProveArgs, out: &mut dyn Write) -> Result<Exit, CliError> {
    writeln!(out, "{:<24} {:<7} {:<9} {:>6} {:>7}  items", "bug", "tier", "invariant", "seed", "budget")?;
    let mut exit = Exit::Clean;
    for expectation in &EXPECTATIONS {
        let (bug, budget) = (expectation.bug, expectation.seeds_max);
        if let Some(proof) = prove(expectation, args.jobs) {
            writeln!(
                out,
                "{:<24} {:<7} {:<9} {:>6} {budget:>7}  {} -> {} in {} runs  {}",
                bug.name(),
                expectation.tier.name(),
                proof.failure.invariant,
                proof.seed,
                proof.items_before,
                proof.shrunk.items(),
                proof.runs,
                proof.failure.detail
            )?;
        } else {
            writeln!(
                out,
                "{:<24} {:<7} {:<9} {:>6} {budget:>7}  NOT FOUND",
                bug.name(),
                expectation.tier.name(),
                "",
                ""
            )?;
            exit = Exit::Coverage;
        }
    }
    Ok(exit)
}

/// Runs one seed twice and compares the traces.
pub fn same(args: &SameArgs, out: &mut dyn Write) -> Result<Exit, CliError> {
    let scenario = scenario_with(args.seed, args.tier, &Profile::find(&args.profile)?, None);
    let is_same = is_repeatable(&scenario);
    let word = if is_same { "one trace" } else { "two traces: something outside the scenario decides" };
    writeln!(out, "seed {}  tier {}  profile {}  {word}", args.seed, args.tier.name(), args.profile)?;
    Ok(if is_same { Exit::Clean } else { Exit::Nondeterminism })
}

/// Lists profiles and kinds of fault.
pub fn list(out: &mut dyn Write) -> Result<Exit, CliError> {
    writeln!(out, "profiles")?;
    for profile in PROFILES.iter() {
        writeln!(out, "  {:<10} {}", profile.name, profile.about)?;
    }
    writeln!(out, "faults")?;
    for kind in &Fault::KINDS {
        let is_core = Fault::core_kinds().any(|core| core == *kind);
        let tier = match (*kind, is_core) {
            ("pause", _) => "  (core tier)",
            (_, true) => "",
            (_, false) => "  (actors tier)",
        };
        writeln!(out, "  {kind}{tier}")?;
    }
    writeln!(out, "planted bugs")?;
    for expectation in &EXPECTATIONS {
        writeln!(out, "  {:<24} {}", expectation.bug.name(), expectation.tier.name())?;
    }
    Ok(Exit::Clean)
}
