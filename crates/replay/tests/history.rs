//! What happened, as people and programs read it.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

mod world;

use eventlog::Log;
use lifecycle::migration::SideState;
use lifecycle::{AutoRestartPolicy, Command, Input, InstanceEvent, SpecChange, VmmState};
use replay::{Error, append_costs, history, history_table, stats};
use std::sync::Arc;
use world::{World, id};

fn source(world: &World) -> Arc<dyn Log> {
    Arc::clone(&world.log)
}

#[test]
fn a_life_reads_as_a_story() {
    let mut world = World::simulated();
    world.live(id(1));
    let entries = history(&source(&world), id(1), 0, 100).unwrap();
    let story: Vec<String> =
        entries.iter().map(|entry| format!("{} {} | {}", entry.append, entry.actor, entry.summary)).collect();
    let sled = world::sled(0);
    let user = "user demo";
    let expected = [
        format!("1 {user} | created as \"web-1\" with 2 vCPU and 4 GiB, at 172.16.0.6"),
        format!(
            "1 {user} | the start asked for at creation began (saga a0000003): VMM a0000004 on sled sim-0"
        ),
        format!("1 {user} | saga is at its step \"register the VMM on its sled\""),
        format!("4 sled {sled} | VMM a0000004 on sled sim-0 reported starting (generation 1)"),
        format!("4 sled {sled} | saga is at its step \"tell the sled to run it\""),
        format!("6 sled {sled} | VMM a0000004 on sled sim-0 reported running (generation 2)"),
        format!("6 sled {sled} | saga reached its goal"),
        format!("8 {user} | asked to stop"),
        format!("9 sled {sled} | VMM a0000004 on sled sim-0 reported stopping (generation 3)"),
        format!("10 sled {sled} | VMM a0000004 on sled sim-0 reported destroyed (generation 4)"),
        format!("10 sled {sled} | VMM a0000004 on sled sim-0 is gone: its own last report says so"),
        format!("10 sled {sled} | updated: no VMM is left, intent stopped"),
        format!("10 sled {sled} | VMM a0000004 was forgotten"),
    ];
    assert_eq!(story, expected);
}

/// What is told of an instance from a version on.
fn told(world: &World, after: u64) -> Vec<String> {
    history(&source(world), id(1), after, 100).unwrap().into_iter().map(|entry| entry.summary).collect()
}

#[test]
fn a_migration_that_is_given_up_reads_as_a_story() {
    let mut world = World::simulated();
    world.create(id(1), true);
    world.says(id(1), 1, VmmState::Starting);
    world.says(id(1), 2, VmmState::Running);
    let before = world.now(id(1)).unwrap().head.version;
    let grant = world.migrate(id(1), 1);
    world.give(id(1), Input::Command(Command::CancelMigration)).unwrap();
    let failed = world.side(id(1), false, SideState::Failed, 1).unwrap();
    world.give(id(1), failed).unwrap();
    let (saga, vmm) = (&grant.saga.to_string()[..8], &grant.vmm.to_string()[..8]);
    let active = &world.now(id(1)).unwrap().active.unwrap().to_string()[..8];
    let expected = [
        format!("a migration began (saga {saga}): target VMM {vmm} on sled sim-1"),
        "saga is at its step \"register the VMM on its sled\"".to_owned(),
        format!("VMM {vmm} on sled sim-1 reported migrating (generation 1)"),
        "saga is at its step \"tell the target to take the guest over\"".to_owned(),
        "its migration is given up because somebody asked for it; both sides are told".to_owned(),
    ];
    let story = told(&world, before);
    assert_eq!(story[..expected.len()], expected);
    let reported = format!("VMM {vmm} on sled sim-1 reported migrating (generation 1), migration in failed");
    assert!(story.contains(&reported), "{story:#?}");
    let closed = format!("updated: VMM {active} on sled sim-0 is active");
    assert!(story.iter().any(|line| line.starts_with(&closed)), "{story:#?}");
    let entries = history(&source(&world), id(1), before, 1).unwrap();
    assert_eq!(entries[0].saga_id, Some(grant.saga), "the event names its saga");
}

#[test]
fn a_migrate_that_goes_back_tells_its_own_steps() {
    let mut world = World::simulated();
    world.create(id(1), true);
    world.says(id(1), 1, VmmState::Starting);
    world.says(id(1), 2, VmmState::Running);
    let grant = world.migrate_grant(1);
    world.give(id(1), Input::Command(Command::Migrate { grant: Some(grant) })).unwrap();
    let before = world.now(id(1)).unwrap().head.version;
    world.give(id(1), Input::Command(Command::CancelSaga { saga: grant.saga })).unwrap();
    let expected = "saga went back from its step \"register the target on its sled\" because it was cancelled; \
         undone: register the target on its sled, allocate the target VMM and the migration, and link both, \
         reserve on another sled";
    assert_eq!(told(&world, before)[0], expected);
}

#[test]
fn what_operators_and_the_restart_policy_do_is_told() {
    let mut world = World::simulated();
    world.create(id(1), true);
    world.says(id(1), 1, VmmState::Starting);
    world.says(id(1), 2, VmmState::Running);
    let change = SpecChange {
        auto_restart: Some(AutoRestartPolicy::BestEffort),
        jumbo_frames: true,
        ..world.now(id(1)).unwrap().spec.changeable()
    };
    let before = world.now(id(1)).unwrap().head.version;
    world.give(id(1), Input::Command(Command::Update { change: Box::new(change) })).unwrap();
    world.says(id(1), 3, VmmState::Failed);
    let grant = world.grant(0);
    world.give(id(1), Input::Restart(Ok(grant))).unwrap();
    let reason = "it hangs".to_owned();
    world.give(id(1), Input::Command(Command::ForceStop { assert_dead: true, reason })).unwrap();
    let story = told(&world, before);
    let vmm = &grant.vmm.to_string()[..8];
    for expected in [
        "configured anew: 2 vCPU and 4 GiB, restart policy best_effort, jumbo frames".to_owned(),
        "the restart policy makes its attempt number 1".to_owned(),
        "an operator forces it to stop, and vouches for its VMMs being dead: \"it hangs\"".to_owned(),
        format!("VMM {vmm} is gone: an operator vouched for it"),
    ] {
        assert!(story.contains(&expected), "{expected}: {story:#?}");
    }
}

#[test]
fn an_entry_is_the_same_on_every_page() {
    let mut world = World::simulated();
    world.walk(7, 2, 200);
    let source = source(&world);
    let whole = history(&source, id(0), 0, 10_000).unwrap();
    assert!(whole.len() > 30, "{}", whole.len());
    for size in [1, 2, 3, 7, 64] {
        let mut pages = Vec::new();
        loop {
            let after = pages.last().map_or(0, |entry: &replay::Entry| entry.version);
            let page = history(&source, id(0), after, size).unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= size);
            pages.extend(page);
        }
        assert_eq!(pages, whole, "pages of {size}");
    }
}

#[test]
fn what_programs_read_has_fixed_keys() {
    let mut world = World::simulated();
    world.create(id(1), true);
    let entries = history(&source(&world), id(1), 1, 1).unwrap();
    let json = serde_json::to_value(&entries[0]).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    let expected = [
        "actor",
        "append",
        "cause",
        "data",
        "event",
        "position",
        "reason",
        "request_id",
        "saga_id",
        "saga_step",
        "summary",
        "time",
        "version",
    ];
    assert_eq!(keys, expected);
    assert_eq!(json["event"], "StartBegan");
    assert_eq!(json["data"]["event"], "start_began");
    assert_eq!(json["time"], "2023-11-14T22:13:24.000001Z");
    assert_eq!((&json["version"], &json["append"], &json["cause"]), (&2.into(), &1.into(), &6.into()));
    assert_eq!(json["saga_id"], json["data"]["saga"]);
}

#[test]
fn an_instance_that_never_was_is_told_from_one_with_nothing_new() {
    let mut world = World::simulated();
    world.create(id(1), false);
    let source = source(&world);
    assert_eq!(history(&source, id(1), 1, 10), Ok(Vec::new()));
    assert_eq!(history(&source, id(1), u64::MAX, 10), Ok(Vec::new()));
    assert_eq!(history(&source, id(1), 0, 0), Ok(Vec::new()));
    for (after, limit) in [(0, 10), (5, 10), (0, 0)] {
        assert_eq!(history(&source, id(2), after, limit), Err(Error::NoSuchInstance(id(2))));
    }
}

#[test]
fn a_table_shows_who_once_per_append() {
    let mut world = World::simulated();
    world.create(id(1), true);
    let table = history_table(&history(&source(&world), id(1), 0, 10).unwrap());
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].starts_with("VERSION  POSITION  TIME"), "{}", lines[0]);
    assert!(lines[1].contains("Created") && lines[1].contains("user demo"), "{}", lines[1]);
    assert!(lines[2].contains("└") && !lines[2].contains("user demo"), "{}", lines[2]);
}

#[test]
fn a_start_takes_at_most_eight_appends_and_a_stop_three() {
    let mut world = World::simulated();
    world.live(id(1));
    world.start(id(1));
    world.says(id(1), 1, VmmState::Starting);
    world.says(id(1), 2, VmmState::Running);
    // The guest ends by itself, and says so in every way it can.
    world.says(id(1), 3, VmmState::Stopping);
    world.says(id(1), 4, VmmState::Stopped);
    world.says(id(1), 5, VmmState::Destroyed);
    let costs = append_costs(&source(&world), id(1)).unwrap();
    assert_eq!((costs.start.runs, costs.stop.runs), (2, 2));
    assert_eq!((costs.start.appends, costs.stop.appends), (6, 5));
    assert!(costs.start.appends_max <= 8 && costs.stop.appends_max <= 3, "{costs:?}");
}

#[test]
fn a_vmm_that_was_given_up_and_goes_down_beside_is_no_stop() {
    let mut world = World::simulated();
    world.create(id(1), true);
    world.says(id(1), 1, VmmState::Starting);
    world.says(id(1), 2, VmmState::Running);
    let vmm = world.now(id(1)).unwrap().active.unwrap();
    // As after a migration: nothing refers to the source, and it still lives.
    let unlinked = lifecycle::event::Update {
        active: None,
        target: None,
        migration: None,
        intent: lifecycle::Intent::Stopped,
        network: None,
        failed: None,
        closed: None,
    };
    world.record(id(1), &[InstanceEvent::Updated(unlinked)], Input::Reconsider);
    let report = world::report(3, VmmState::Stopping);
    world.record(id(1), &[InstanceEvent::VmmReported { vmm, report }], Input::Reconsider);
    let costs = append_costs(&source(&world), id(1)).unwrap();
    assert_eq!((costs.start.runs, costs.stop.runs), (1, 0));
}

#[test]
fn a_sled_is_called_by_its_present_name() {
    let mut world = World::simulated();
    world.create(id(1), true);
    let renamed = lifecycle::SledEvent::Registered {
        id: world::sled(0),
        name: "rack-7".to_owned(),
        threads: 64,
        memory: 64 << 30,
        cpu_family: "sim".to_owned(),
        address: String::new(),
    };
    let context = journal::Context::of(journal::Actor::Sled(world::sled(0)));
    world.write(journal::StreamName::Sled(world::sled(0)), &[renamed.into()], &context);
    let entries = history(&source(&world), id(1), 1, 1).unwrap();
    assert!(entries[0].summary.ends_with("on sled rack-7"), "{}", entries[0].summary);
}

#[test]
fn a_start_that_was_undone_is_not_counted_as_one() {
    let mut world = World::simulated();
    world.create(id(1), true);
    world.stop(id(1));
    let costs = append_costs(&source(&world), id(1)).unwrap();
    assert_eq!((costs.start.runs, costs.stop.runs), (0, 0));
}

#[test]
fn statistics_add_up_to_the_log() {
    let mut world = World::simulated();
    world.live(id(1));
    world.turn_back(3_600);
    world.create(id(2), false);
    let mut last = None;
    let stats = stats(&source(&world), 2, &mut |progress| last = Some(progress)).unwrap();
    assert_eq!(stats.events, world.log.durable().get());
    assert_eq!(stats.events, 5 + 13 + 1);
    assert_eq!(stats.appends, 3 + 6 + 1);
    assert_eq!(stats.kinds.iter().map(|kind| kind.count).sum::<u64>(), stats.events);
    assert_eq!(stats.streams, 5);
    assert_eq!(stats.largest.len(), 2);
    assert_eq!((stats.largest[0].events, stats.largest[0].appends), (13, 6));
    assert_eq!(stats.kinds[0].event, "instance VmmReported");
    assert_eq!(stats.time_first.as_deref(), Some("2023-11-14T22:13:21.000000Z"));
    assert_eq!(stats.time_last.as_deref(), Some("2023-11-14T22:13:29.000003Z"), "the latest, not the newest");
    assert_eq!((stats.costs.start.runs, stats.costs.stop.runs), (1, 1));
    let last = last.unwrap();
    assert_eq!((last.done, last.total), (stats.events, stats.events));
}
