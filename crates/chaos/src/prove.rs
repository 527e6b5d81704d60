//! Who tests the tester: every planted bug must be found, by the invariant that names its harm, and shrink.

use crate::bug::Bug;
use crate::campaign::Campaign;
use crate::checks::Failure;
use crate::generate::{PROFILES, Profile, profile};
use crate::scenario::Scenario;
use crate::shrink::shrink;

/// What is expected of the harness for one bug.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    /// The bug.
    pub bug: Bug,
    /// The profile that looks for it.
    pub profile: &'static str,
    /// Within how many seeds it must be found.
    pub seeds_max: u64,
}

/// The table: the budgets are several times what was measured when each bug was planted.
pub const EXPECTATIONS: [Expectation; Bug::PROVED.len()] = [
    Expectation { bug: Bug::AcknowledgeBeforeSync, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::EffectBeforeSync, profile: "swarm", seeds_max: 20 },
    Expectation { bug: Bug::LeakOnUndo, profile: "swarm", seeds_max: 20 },
    Expectation { bug: Bug::ForgetRequests, profile: "swarm", seeds_max: 100 },
    Expectation { bug: Bug::ForgetEffects, profile: "swarm", seeds_max: 100 },
    Expectation { bug: Bug::TrustRegistration, profile: "reboots", seeds_max: 800 },
    Expectation { bug: Bug::OpenFence, profile: "reboots", seeds_max: 300 },
    Expectation { bug: Bug::StaleInventory, profile: "reboots", seeds_max: 300 },
    Expectation { bug: Bug::AcceptStaleReport, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::LeakGrant, profile: "swarm", seeds_max: 100 },
    Expectation { bug: Bug::SideOutlivesVmm, profile: "migrations", seeds_max: 50 },
    Expectation { bug: Bug::BelieveTheDead, profile: "migrations", seeds_max: 100 },
    Expectation { bug: Bug::LeaveAbandoned, profile: "migrations", seeds_max: 150 },
    Expectation { bug: Bug::LostReadsStopped, profile: "migrations", seeds_max: 150 },
    Expectation { bug: Bug::ThrowGuestAway, profile: "migrations", seeds_max: 200 },
    Expectation { bug: Bug::FreeOnUndo, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::UnknownIsNoAnswer, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::StopOverwritesEnd, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::RefusedLeavesTrace, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::CancelEndsTarget, profile: "migrations", seeds_max: 50 },
    Expectation { bug: Bug::BelieveClosed, profile: "migrations", seeds_max: 300 },
    Expectation { bug: Bug::FreeSourceEarly, profile: "migrations", seeds_max: 50 },
    Expectation { bug: Bug::RestartTooSoon, profile: "swarm", seeds_max: 200 },
    Expectation { bug: Bug::AssertLiving, profile: "migrations", seeds_max: 50 },
    Expectation { bug: Bug::ForgetExpunge, profile: "swarm", seeds_max: 200 },
];

/// A planted bug, found and shrunk.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The bug.
    pub bug: Bug,
    /// The first seed that found it.
    pub seed: u64,
    /// How it was seen, in the shrunk scenario.
    pub failure: Failure,
    /// Faults and requests of the scenario that found it.
    pub items_before: usize,
    /// The shrunk scenario.
    pub shrunk: Scenario,
    /// How many runs the shrinker took.
    pub runs: usize,
}

/// Looks for one planted bug; none if the budget was spent.
pub fn prove(expectation: &Expectation, jobs: usize) -> Option<Proof> {
    let chosen: &'static Profile = profile(expectation.profile).unwrap_or(&PROFILES[0]);
    let campaign = Campaign {
        seeds: 0..expectation.seeds_max,
        profile: chosen,
        jobs,
        bug: Some(expectation.bug),
        is_stopped_by_failure: true,
    };
    let found = campaign.run().failures.into_iter().next()?;
    let shrunk = shrink(&found.scenario, &found.failure);
    Some(Proof {
        bug: expectation.bug,
        seed: found.seed,
        failure: shrunk.failure,
        items_before: found.scenario.items(),
        shrunk: shrunk.scenario,
        runs: shrunk.runs,
    })
}
