//! Makes a failing scenario small.
//!
//! Delta debugging: take away ever smaller runs of faults, then of requests, then halve durations; keep a
//! candidate if it breaks the *same* invariant. Because draws are keyed, what is taken away leaves the rest as
//! it was. Then again from the start, until nothing more can go.

use crate::campaign::run_caught;
use crate::checks::Failure;
use crate::scenario::{Scenario, Tier};

/// Most runs spent on one failure: the core tier takes milliseconds for each.
pub const RUNS_MAX: usize = 1_500;

/// The same for the actors tier, whose runs take ten times as long.
const RUNS_MAX_ACTORS: usize = 300;

/// What became of a failing scenario.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest scenario found that fails in the same way.
    pub scenario: Scenario,
    /// Its failure.
    pub failure: Failure,
    /// How many runs it took.
    pub runs: usize,
}

struct Search<'a> {
    failure: &'a Failure,
    best: Scenario,
    best_failure: Failure,
    runs: usize,
}

/// Shrinks a scenario that fails with `failure`.
pub fn shrink(scenario: &Scenario, failure: &Failure) -> Shrunk {
    let mut search = Search { failure, best: scenario.clone(), best_failure: failure.clone(), runs: 0 };
    loop {
        let before = search.best.clone();
        search.shrink_list(|scenario| &mut scenario.faults);
        search.shrink_list(|scenario| &mut scenario.requests);
        search.shrink_durations();
        if search.best == before || search.runs >= search.runs_max() {
            break;
        }
    }
    Shrunk { scenario: search.best, failure: search.best_failure, runs: search.runs }
}

impl Search<'_> {
    fn runs_max(&self) -> usize {
        match self.best.tier {
            Tier::Core => RUNS_MAX,
            Tier::Actors => RUNS_MAX_ACTORS,
        }
    }

    /// Runs a candidate and keeps it if it fails in the same way.
    fn try_out(&mut self, candidate: Scenario) -> bool {
        if self.runs >= self.runs_max() {
            return false;
        }
        self.runs += 1;
        match run_caught(&candidate, false).failure {
            Some(found) if found.is_like(self.failure) => {
                self.best = candidate;
                self.best_failure = found;
                true
            }
            _ => false,
        }
    }

    /// Takes away runs of items, from half of them down to one at a time.
    fn shrink_list<T: Clone>(&mut self, list: impl Fn(&mut Scenario) -> &mut Vec<T>) {
        let mut size = list(&mut self.best.clone()).len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < list(&mut self.best.clone()).len() {
                let mut candidate = self.best.clone();
                let items = list(&mut candidate);
                let end = (from + size).min(items.len());
                items.drain(from..end);
                if !self.try_out(candidate) {
                    from += size;
                }
            }
            size /= 2;
        }
    }

    /// Halves what lasts, and ends the safety phase sooner.
    fn shrink_durations(&mut self) {
        for nth in 0..self.best.faults.len() {
            let count = self.best.faults[nth].durations_mut().len();
            for which in 0..count {
                self.halve(|scenario| scenario.faults[nth].durations_mut().swap_remove(which));
            }
        }
        self.halve(|scenario| &mut scenario.safety_ms);
    }

    fn halve(&mut self, value: impl Fn(&mut Scenario) -> &mut u64) {
        loop {
            let mut candidate = self.best.clone();
            let value = value(&mut candidate);
            if *value == 0 {
                return;
            }
            *value /= 2;
            if !self.try_out(candidate) {
                return;
            }
        }
    }
}
