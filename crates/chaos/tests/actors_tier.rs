//! The actors tier as a test: seeds are clean, repeat exactly, and meet what they are for.

use chaos::prove::{EXPECTATIONS, prove};
use chaos::{ACTORS_PROFILE, Campaign, Scenario, Sometimes, Tier, profile, run_caught, scenario_with};

/// Seeds on every push; CI runs more of them from the binary.
const SEEDS: u64 = 60;

fn seed(seed: u64) -> Scenario {
    let chosen = profile(ACTORS_PROFILE).expect("the profile is in the table");
    scenario_with(seed, Tier::Actors, chosen, None)
}

#[test]
fn no_seed_of_the_actors_breaks_an_invariant_and_rare_states_are_met() {
    let campaign = Campaign {
        seeds: 0..SEEDS,
        tier: Tier::Actors,
        profile: profile(ACTORS_PROFILE).unwrap(),
        jobs: 2,
        bug: None,
        is_stopped_by_failure: false,
    };
    let findings = campaign.run();
    let failed: Vec<_> = findings.failures.iter().map(|f| (f.seed, &f.failure)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(findings.differing.is_empty(), "{:?}", findings.differing);
    assert_eq!(findings.seeds, SEEDS);
    for state in Sometimes::OF_ACTORS {
        assert!(findings.coverage.count(*state) > 0, "{} was never met", state.name());
    }
}

#[test]
fn a_seed_gives_one_trace_whatever_ran_before_it_and_wherever_it_runs() {
    let hash = |nth: u64| run_caught(&seed(nth), false).trace_hash;
    let forward: Vec<u64> = (0..12).map(hash).collect();
    let elsewhere = std::thread::scope(|scope| {
        let back = scope.spawn(|| (0..12).rev().map(hash).collect::<Vec<u64>>());
        let others = scope.spawn(|| (40..50).map(hash).collect::<Vec<u64>>());
        assert!(others.join().unwrap().iter().all(|hash| !forward.contains(hash)));
        back.join().unwrap()
    });
    assert!(forward.iter().eq(elsewhere.iter().rev()));
    let mut distinct = forward.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), forward.len(), "seeds explore");
    let traced = run_caught(&seed(3), true);
    assert_eq!(traced.trace_hash, forward[3], "keeping the trace changes nothing");
    assert!(!traced.trace.is_empty() && !traced.log.is_empty());
}

#[test]
fn a_scenario_of_the_actors_survives_json_and_a_core_one_does_not_mention_its_tier() {
    let actors = seed(5);
    assert_eq!(Scenario::from_json(&actors.to_json()).unwrap(), actors);
    let core = Scenario { tier: Tier::Core, ..actors };
    assert!(!core.to_json().contains("\"tier\""));
}

#[test]
fn every_bug_planted_for_the_actors_is_found_and_the_same_scenario_is_clean_without_it() {
    for expectation in EXPECTATIONS.iter().filter(|expectation| expectation.tier == Tier::Actors) {
        let bug = expectation.bug;
        let proof = prove(expectation, 2).unwrap_or_else(|| panic!("{bug} was not found"));
        assert!(proof.shrunk.items() <= proof.items_before, "{bug}");
        let repaired = Scenario { bug: None, ..proof.shrunk };
        assert_eq!(run_caught(&repaired, false).failure, None, "without {bug} the same scenario is clean");
    }
}
