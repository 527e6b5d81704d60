//! Who tests the tester: every planted bug must be found, by the invariant that names its harm, and shrink.

use crate::bug::Bug;
use crate::campaign::Campaign;
use crate::checks::Failure;
use crate::generate::profile;
use crate::scenario::{Scenario, Tier};
use crate::shrink::shrink;

/// What is expected of the harness for one bug.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    /// The bug.
    pub bug: Bug,
    /// The tier that looks for it.
    pub tier: Tier,
    /// The profile that looks for it.
    pub profile: &'static str,
    /// Within how many seeds it must be found.
    pub seeds_max: u64,
}

/// The table: the budgets are several times what was measured when each bug was planted.
pub const EXPECTATIONS: [Expectation; Bug::PROVED.len() + 4] = [
    Expectation { bug: Bug::AcknowledgeBeforeSync, tier: Tier::Core, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::EffectBeforeSync, tier: Tier::Core, profile: "swarm", seeds_max: 20 },
    Expectation { bug: Bug::LeakOnUndo, tier: Tier::Core, profile: "swarm", seeds_max: 20 },
    Expectation { bug: Bug::ForgetRequests, tier: Tier::Core, profile: "swarm", seeds_max: 100 },
    Expectation { bug: Bug::ForgetEffects, tier: Tier::Core, profile: "swarm", seeds_max: 100 },
    Expectation { bug: Bug::TrustRegistration, tier: Tier::Core, profile: "reboots", seeds_max: 800 },
    Expectation { bug: Bug::OpenFence, tier: Tier::Core, profile: "reboots", seeds_max: 300 },
    Expectation { bug: Bug::StaleInventory, tier: Tier::Core, profile: "reboots", seeds_max: 300 },
    Expectation { bug: Bug::AcceptStaleReport, tier: Tier::Core, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::LeakGrant, tier: Tier::Core, profile: "swarm", seeds_max: 100 },
    Expectation { bug: Bug::SideOutlivesVmm, tier: Tier::Core, profile: "migrations", seeds_max: 50 },
    Expectation { bug: Bug::BelieveTheDead, tier: Tier::Core, profile: "migrations", seeds_max: 100 },
    Expectation { bug: Bug::LeaveAbandoned, tier: Tier::Core, profile: "migrations", seeds_max: 150 },
    Expectation { bug: Bug::LostReadsStopped, tier: Tier::Core, profile: "migrations", seeds_max: 150 },
    Expectation { bug: Bug::ThrowGuestAway, tier: Tier::Core, profile: "migrations", seeds_max: 200 },
    Expectation { bug: Bug::FreeOnUndo, tier: Tier::Core, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::UnknownIsNoAnswer, tier: Tier::Core, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::StopOverwritesEnd, tier: Tier::Core, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::RefusedLeavesTrace, tier: Tier::Core, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::CancelEndsTarget, tier: Tier::Core, profile: "migrations", seeds_max: 50 },
    Expectation { bug: Bug::BelieveClosed, tier: Tier::Core, profile: "migrations", seeds_max: 300 },
    Expectation { bug: Bug::FreeSourceEarly, tier: Tier::Core, profile: "migrations", seeds_max: 50 },
    Expectation { bug: Bug::RestartTooSoon, tier: Tier::Core, profile: "swarm", seeds_max: 200 },
    Expectation { bug: Bug::AssertLiving, tier: Tier::Core, profile: "migrations", seeds_max: 50 },
    Expectation { bug: Bug::ForgetExpunge, tier: Tier::Core, profile: "swarm", seeds_max: 200 },
    Expectation { bug: Bug::PauseForgetsUndo, tier: Tier::Core, profile: "swarm", seeds_max: 200 },
    Expectation { bug: Bug::NeverResume, tier: Tier::Core, profile: "swarm", seeds_max: 100 },
    Expectation { bug: Bug::LoseArchived, tier: Tier::Core, profile: "swarm", seeds_max: 200 },
    Expectation { bug: Bug::KeepTimers, tier: Tier::Core, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::RewriteAtStart, tier: Tier::Core, profile: "swarm", seeds_max: 50 },
    Expectation { bug: Bug::AcknowledgeBeforeSync, tier: Tier::Actors, profile: "actors", seeds_max: 40 },
    Expectation { bug: Bug::ForgetEffects, tier: Tier::Actors, profile: "actors", seeds_max: 40 },
    Expectation { bug: Bug::LoseFollowed, tier: Tier::Actors, profile: "actors", seeds_max: 40 },
    Expectation { bug: Bug::StaleSnapshot, tier: Tier::Actors, profile: "actors", seeds_max: 500 },
    Expectation { bug: Bug::LoseArchived, tier: Tier::Actors, profile: "actors", seeds_max: 100 },
    Expectation { bug: Bug::RewriteAtStart, tier: Tier::Actors, profile: "actors", seeds_max: 40 },
    Expectation { bug: Bug::LingerAfterCalls, tier: Tier::Actors, profile: "actors", seeds_max: 40 },
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
    let chosen = profile(expectation.profile).expect("a test looks each of the table up");
    let campaign = Campaign {
        seeds: 0..expectation.seeds_max,
        tier: expectation.tier,
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
