//! Many seeds: run, compared, counted.
//!
//! Each run is single-threaded and pure; the campaign spreads them over threads. One seed in twenty is run
//! twice, and the hashes of the two traces must be equal.

use crate::bug::Bug;
use crate::checks::{Failure, FailureKind};
use crate::coverage::Coverage;
use crate::generate::{Profile, scenario};
use crate::scenario::{Scenario, Tier};
use crate::states::{Met, States};
use crate::world::Outcome;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// One seed in so many is run twice.
pub const TWICE_ONE_IN: u64 = 20;

/// Most threads of a campaign.
pub const JOBS_MAX: usize = 256;

/// What a campaign is to do.
#[derive(Clone, Debug)]
pub struct Campaign<'a> {
    /// Seeds.
    pub seeds: Range<u64>,
    /// What runs them.
    pub tier: Tier,
    /// The profile.
    pub profile: &'a Profile,
    /// Threads, 1 to [`JOBS_MAX`].
    pub jobs: usize,
    /// A mistake to plant in every run.
    pub bug: Option<Bug>,
    /// Whether to stop at the first failure.
    pub is_stopped_by_failure: bool,
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct FailedSeed {
    /// The seed.
    pub seed: u64,
    /// Its scenario.
    pub scenario: Scenario,
    /// What it broke.
    pub failure: Failure,
}

/// What a campaign found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Seeds run.
    pub seeds: u64,
    /// Happenings of all runs.
    pub steps: u64,
    /// Virtual time of all runs, microseconds.
    pub simulated_us: u64,
    /// Failures, by seed.
    pub failures: Vec<FailedSeed>,
    /// Seeds whose second run had another trace.
    pub differing: Vec<u64>,
    /// Rare states.
    pub coverage: Coverage,
    /// Abstract states, each with the first seed that met it.
    pub states: States,
    /// The seed with most steps, and their number.
    pub longest: (u64, u64),
}

/// Runs a scenario; a panic of the rules or the harness is a failure like any other.
pub fn run_caught(scenario: &Scenario, is_traced: bool) -> Outcome {
    let run = match scenario.tier {
        Tier::Core => crate::world::run,
        Tier::Actors => crate::stage::run,
    };
    match catch_unwind(AssertUnwindSafe(|| run(scenario, is_traced))) {
        Ok(outcome) => outcome,
        Err(payload) => {
            let text = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| payload.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without text");
            let first = text.lines().next().unwrap_or_default().to_owned();
            let failure = Failure {
                kind: FailureKind::Panic,
                invariant: "panic".to_owned(),
                at_us: 0,
                detail: first.clone(),
            };
            Outcome {
                failure: Some(failure),
                trace_hash: first.bytes().fold(0, |hash, byte| crate::draws::mix(hash ^ u64::from(byte))),
                steps: 0,
                simulated_us: 0,
                coverage: Coverage::default(),
                states: Met::default(),
                trace: Vec::new(),
                log: Vec::new(),
            }
        }
    }
}

/// The scenario that a campaign runs for a seed.
pub fn scenario_with(seed: u64, tier: Tier, profile: &Profile, bug: Option<Bug>) -> Scenario {
    let mut scenario = scenario(seed, profile);
    scenario.tier = tier;
    scenario.bug = bug.or(scenario.bug);
    scenario
}

/// Whether two runs of a scenario have one trace.
pub fn is_repeatable(scenario: &Scenario) -> bool {
    run_caught(scenario, false).trace_hash == run_caught(scenario, false).trace_hash
}

impl Campaign<'_> {
    /// Runs the campaign. What it finds does not depend on the number of threads.
    pub fn run(&self) -> Findings {
        self.run_watched(&|_| true)
    }

    /// The same, showing what was found to `watch` after each seed; it answers whether to go on. Seeds that were
    /// begun are finished.
    pub fn run_watched(&self, watch: &(dyn Fn(&Findings) -> bool + Sync)) -> Findings {
        let next = AtomicU64::new(self.seeds.start);
        let end = AtomicU64::new(self.seeds.end);
        let findings = Mutex::new(Findings::default());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, JOBS_MAX) {
                scope.spawn(|| self.work(&next, &end, &findings, watch));
            }
        });
        let mut findings = findings.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        findings.failures.sort_by_key(|failed| failed.seed);
        findings.differing.sort_unstable();
        if self.is_stopped_by_failure {
            findings.failures.truncate(1);
        }
        findings
    }

    fn work(
        &self,
        next: &AtomicU64,
        end: &AtomicU64,
        findings: &Mutex<Findings>,
        watch: &(dyn Fn(&Findings) -> bool + Sync),
    ) {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= end.load(Ordering::SeqCst) {
                return;
            }
            let scenario = scenario_with(seed, self.tier, self.profile, self.bug);
            let outcome = run_caught(&scenario, false);
            let differs = seed.is_multiple_of(TWICE_ONE_IN)
                && run_caught(&scenario, false).trace_hash != outcome.trace_hash;
            if self.is_stopped_by_failure && outcome.failure.is_some() {
                // Smaller seeds that others have begun are finished, so that the first one is found.
                end.fetch_min(seed, Ordering::SeqCst);
            }
            let mut findings = findings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            findings.add(seed, scenario, outcome, differs);
            if !watch(&findings) {
                end.fetch_min(next.load(Ordering::SeqCst), Ordering::SeqCst);
            }
        }
    }
}

impl Findings {
    fn add(&mut self, seed: u64, scenario: Scenario, outcome: Outcome, differs: bool) {
        self.seeds += 1;
        self.steps += outcome.steps;
        self.simulated_us += outcome.simulated_us;
        self.coverage.add(&outcome.coverage);
        self.states.add(seed, &outcome.states);
        // The smaller seed of two that are equally long, whichever thread came first.
        if outcome.steps > self.longest.1 || (outcome.steps == self.longest.1 && seed < self.longest.0) {
            self.longest = (seed, outcome.steps);
        }
        if differs {
            self.differing.push(seed);
        }
        if let Some(failure) = outcome.failure {
            self.failures.push(FailedSeed { seed, scenario, failure });
        }
    }
}
