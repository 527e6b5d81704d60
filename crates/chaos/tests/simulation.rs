//! The simulator as a test: seeds are clean, planted bugs are found, failures shrink and replay.

use chaos::cli::{self, Exit, Progress, ReplayArgs, RunArgs, ShrinkArgs};
use chaos::prove::{EXPECTATIONS, prove};
use chaos::{
    Bug, Campaign, FailureKind, Findings, PROFILES, Scenario, Sometimes, Tier, profile, run_caught, scenario,
    scenario_with, shrink,
};
use std::path::PathBuf;

/// Seeds of the default profile on every push; the other profiles get a third each.
const SEEDS: u64 = 600;

fn campaign(name: &str, seeds: u64) -> Campaign<'static> {
    Campaign {
        seeds: 0..seeds,
        tier: Tier::Core,
        profile: profile(name).expect("the profile is in the table"),
        jobs: 2,
        bug: None,
        is_stopped_by_failure: false,
    }
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn must_be_clean(name: &str, seeds: u64) -> Findings {
    let findings = campaign(name, seeds).run();
    let failed: Vec<_> = findings.failures.iter().map(|f| (f.seed, &f.failure)).collect();
    assert!(failed.is_empty(), "{name}: {failed:#?}");
    assert!(findings.differing.is_empty(), "{name}: {:?}", findings.differing);
    assert_eq!(findings.seeds, seeds);
    findings
}

#[test]
fn no_seed_of_the_swarm_breaks_an_invariant_and_each_gives_one_trace() {
    let findings = must_be_clean("swarm", SEEDS);
    assert_eq!(findings.coverage.short(SEEDS), [], "a rare state was met too seldom");
}

#[test]
fn no_seed_of_the_other_profiles_breaks_an_invariant_and_each_gives_one_trace() {
    for chosen in
        PROFILES.iter().filter(|profile| !matches!(profile.name.as_str(), "swarm" | "canary" | "actors"))
    {
        must_be_clean(&chosen.name, SEEDS / 3);
    }
}

#[test]
fn every_planted_bug_is_found_in_its_budget_and_still_fails_when_shrunk() {
    for expectation in EXPECTATIONS.iter().filter(|expectation| expectation.tier == Tier::Core) {
        let bug = expectation.bug;
        let proof = prove(expectation, 2).unwrap_or_else(|| panic!("{bug} was not found"));
        assert!(proof.shrunk.items() <= proof.items_before, "{bug}");
        assert!(proof.shrunk.items() <= 16, "{bug} shrank to {} items only", proof.shrunk.items());
        let again = run_caught(&proof.shrunk, false).failure.unwrap();
        assert!(again.is_like(&proof.failure), "{bug}: {again:?} instead of {:?}", proof.failure);
        let repaired = Scenario { bug: None, ..proof.shrunk };
        assert_eq!(run_caught(&repaired, false).failure, None, "without {bug} the same scenario is clean");
    }
}

#[test]
fn every_planted_bug_has_its_expectation() {
    let expected: Vec<Bug> = EXPECTATIONS.iter().map(|expectation| expectation.bug).collect();
    for bug in Bug::PROVED {
        assert!(expected.contains(bug), "{bug}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_whoever_runs_it_and_another_seed_another() {
    let swarm = profile("swarm").unwrap();
    let hash = |seed| run_caught(&scenario(seed, swarm), false).trace_hash;
    let here = hash(7);
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| hash(7)).join().unwrap());
    assert_eq!(here, elsewhere);
    assert_eq!(here, run_caught(&scenario(7, swarm), true).trace_hash, "keeping the trace changes nothing");
    assert_ne!(here, hash(8));
}

#[test]
fn what_a_campaign_finds_does_not_depend_on_its_threads() {
    let found = |jobs| {
        let findings = Campaign { jobs, bug: Some(Bug::LeakGrant), ..campaign("swarm", 60) }.run();
        let seeds: Vec<u64> = findings.failures.iter().map(|failed| failed.seed).collect();
        (seeds, findings.steps, findings.longest, findings.coverage)
    };
    assert_eq!(found(1), found(3));
}

#[test]
fn shrinking_keeps_the_invariant_and_drops_what_does_not_matter() {
    let swarm = profile("swarm").unwrap();
    let (before, failure) = (0..100)
        .map(|seed| scenario_with(seed, Tier::Core, swarm, Some(Bug::AcknowledgeBeforeSync)))
        .find_map(|scenario| run_caught(&scenario, false).failure.map(|failure| (scenario, failure)))
        .unwrap();
    let shrunk = shrink(&before, &failure);
    assert_eq!(shrunk.failure.invariant, "I6");
    assert!(shrunk.scenario.items() < before.items());
    assert!(shrunk.runs <= chaos::RUNS_MAX);
}

#[test]
fn saved_scenarios_replay_as_they_were_saved() {
    let table = [
        ("I6-acknowledged-before-sync.json", Exit::Invariant, "I6"),
        ("I18-late-registration.json", Exit::Liveness, "I18"),
        ("late-registration-of-an-earlier-boot.json", Exit::Clean, "nothing was broken"),
    ];
    for (name, exit, says) in table {
        let args = ReplayArgs { file: fixture(name), verbose: true, stop_at_ms: None, shrink: false };
        let mut out = Vec::new();
        assert_eq!(cli::replay(&args, &mut out).unwrap(), exit, "{name}");
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(says), "{name}: {text}");
    }
}

/// What once failed, or is met by few seeds only, is run for ever.
#[test]
fn every_saved_seed_is_clean() {
    let seeds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/seeds");
    let files: Vec<PathBuf> = std::fs::read_dir(&seeds).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        let scenario = Scenario::from_json(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(run_caught(&scenario, false).failure, None, "{}", file.display());
    }
}

#[test]
fn a_target_that_has_the_guest_of_a_crashed_source_keeps_it() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/seeds/I30-guest-of-a-crashed-source.json");
    let scenario = Scenario::from_json(&std::fs::read_to_string(file).unwrap()).unwrap();
    let outcome = run_caught(&scenario, false);
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.coverage.count(Sometimes::UndecidedArrived), 1);
    let thrown_away = Scenario { bug: Some(Bug::ThrowGuestAway), ..scenario };
    assert_eq!(run_caught(&thrown_away, false).failure.unwrap().invariant, "I30");
}

#[test]
fn a_replay_stops_where_it_is_told() {
    let file = fixture("I6-acknowledged-before-sync.json");
    let lines = |stop_at_ms| {
        let mut out = Vec::new();
        let args = ReplayArgs { file: file.clone(), verbose: true, stop_at_ms, shrink: false };
        cli::replay(&args, &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().count()
    };
    assert!(lines(Some(1)) < lines(None));
}

#[test]
fn the_canary_turns_the_campaign_red_and_keeps_its_failure() {
    let dir = tempfile::tempdir().unwrap();
    let keep = Some(dir.path().to_owned());
    let args = RunArgs {
        seeds: 0..2,
        tier: Tier::Core,
        profile: "canary".to_owned(),
        jobs: 1,
        span: None,
        progress: Progress::Silent,
        keep,
        json: true,
    };
    let mut out = Vec::new();
    assert_eq!(cli::run(&args, &mut out).unwrap(), Exit::Invariant);
    for name in ["scenario.json", "shrunk.json", "events.log", "trace.txt", "summary.txt"] {
        assert!(dir.path().join("canary-0").join(name).is_file(), "{name}");
    }
    let lines: Vec<serde_json::Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["failure", "failure", "campaign"]);
    assert_eq!(lines[0]["items_after"], 0, "nothing of the scenario matters to it");
    assert_eq!(lines[2]["exit"], 10);
}

#[test]
fn wrong_arguments_are_refused_with_what_would_be_right() {
    let args = |seeds, profile: &str, jobs| RunArgs {
        seeds,
        tier: Tier::Core,
        profile: profile.to_owned(),
        jobs,
        span: None,
        progress: Progress::Silent,
        keep: None,
        json: false,
    };
    let table = [
        (args(0..1, "nonesuch", 1), "swarm"),
        (args(0..1, "swram", 1), "did you mean"),
        (args(0..1, "nowhere/mine.toml", 1), "cannot be read"),
        (args(3..3, "swarm", 1), "A < B"),
        (args(0..1, "swarm", 0), "allowed"),
    ];
    for (args, says) in table {
        let error = cli::run(&args, &mut Vec::new()).unwrap_err();
        assert_eq!(error.exit().code(), 2);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_campaign_ends_when_its_time_is_over_and_says_what_it_met() {
    let args = RunArgs {
        seeds: 0..u64::MAX,
        tier: Tier::Core,
        profile: "calm".to_owned(),
        jobs: 2,
        span: Some(std::time::Duration::from_millis(50)),
        progress: Progress::Silent,
        keep: None,
        json: true,
    };
    let mut out = Vec::new();
    assert_eq!(cli::run(&args, &mut out).unwrap(), Exit::Clean);
    let campaign: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let seeds = campaign["seeds"].as_u64().unwrap();
    assert!(seeds > 0);
    let last = campaign["states"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["seeds"].as_u64(), Some(seeds));
    assert!(last["instances"].as_u64().unwrap() >= last["fleets"].as_u64().unwrap().min(5));
}

#[test]
fn a_profile_of_a_file_is_run_as_one_that_is_compiled_in() {
    let dir = tempfile::tempdir().unwrap();
    let built_in = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../config/chaos/network.toml");
    let file = dir.path().join("network.toml");
    std::fs::copy(built_in, &file).unwrap();
    let hash = |name: &str| {
        let found = chaos::Profile::find(name).unwrap();
        run_caught(&scenario(11, &found), false).trace_hash
    };
    assert_eq!(hash(file.to_str().unwrap()), hash("network"));
    assert_ne!(hash("network"), hash("reboots"));
}

#[test]
fn a_saved_failure_is_shrunk_by_its_file_and_a_clean_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let swarm = profile("swarm").unwrap();
    let failing = (0..100)
        .map(|seed| scenario_with(seed, Tier::Core, swarm, Some(Bug::AcknowledgeBeforeSync)))
        .find(|scenario| run_caught(scenario, false).failure.is_some())
        .unwrap();
    let file = dir.path().join("scenario.json");
    std::fs::write(&file, failing.to_json()).unwrap();
    let mut out = Vec::new();
    let args = ShrinkArgs { file: file.clone(), to: None };
    assert_eq!(cli::shrink_file(&args, &mut out).unwrap(), Exit::Clean);
    let text = std::fs::read_to_string(dir.path().join("scenario.shrunk.json")).unwrap();
    let shrunk = Scenario::from_json(&text).unwrap();
    assert!(shrunk.items() < failing.items());
    assert!(run_caught(&shrunk, false).failure.is_some());
    std::fs::write(&file, Scenario { bug: None, ..shrunk }.to_json()).unwrap();
    let error = cli::shrink_file(&args, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("breaks nothing"), "{error}");
}

#[test]
fn a_file_that_is_no_scenario_is_refused_and_never_panics() {
    let good = scenario(1, profile("swarm").unwrap()).to_json();
    let later = good.replace("\"format\": 1", "\"format\": 2");
    let twice = good.replacen("\"id\": 0,", "\"id\": 100,", 1);
    let nowhere = "{\"fault\": \"agent_restart\", \"at\": 1, \"sled\": 60000}";
    let sled = good.replace("\"faults\": [", &format!("\"faults\": [{nowhere},"));
    for text in ["", "{}", "[1", &later, &twice, &sled] {
        assert_ne!(text, good);
        assert!(Scenario::from_json(text).is_err(), "{}", &text[..text.len().min(80)]);
    }
    for cut in (0..good.len()).step_by(97) {
        let _ = Scenario::from_json(&good[..cut]);
    }
}

#[test]
fn a_panic_is_a_failure_like_any_other_and_shrinks_to_a_panic() {
    // A leaked charge trips an assertion of the rules when the instance is started again in the same sync.
    let swarm = profile("swarm").unwrap();
    let (before, failure) = (0..400)
        .map(|seed| scenario_with(seed, Tier::Core, swarm, Some(Bug::LeakOnUndo)))
        .find_map(|scenario| {
            let failure = run_caught(&scenario, false).failure?;
            (failure.kind == FailureKind::Panic).then_some((scenario, failure))
        })
        .unwrap();
    assert!(!failure.detail.is_empty());
    assert_eq!(shrink(&before, &failure).failure.kind, FailureKind::Panic);
}
