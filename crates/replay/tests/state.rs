//! The state at any moment is the fold up to there, as it was when it was written.

mod world;

use eventlog::Log;
use lifecycle::{RunState, Timestamp};
use replay::{At, Error, InstanceState, state_at};
use std::sync::Arc;
use world::{World, id};

fn source(world: &World) -> Arc<dyn Log> {
    Arc::clone(&world.log)
}

#[test]
fn the_state_at_every_moment_is_the_incremental_fold() {
    let mut moments = 0;
    for seed in 1..=20 {
        let mut world = World::simulated();
        world.walk(seed, 3, 120);
        let source = source(&world);
        for (id, folds) in &world.folds {
            for fold in folds {
                let head = fold.head;
                for at in [At::Version(head.version), At::Position(head.position), At::Time(head.time)] {
                    let found = state_at(&source, *id, at).unwrap();
                    assert_eq!(&found.state, fold, "seed {seed}, {id} at {at}");
                    assert_eq!((found.version, found.position), (head.version, head.position));
                    assert_eq!(found.run_state, fold.run_state());
                    moments += 1;
                }
            }
            let newest = state_at(&source, *id, At::Now).unwrap();
            assert_eq!(Some(&newest.state), folds.last());
            assert!(newest.is_append_end);
        }
    }
    assert!(moments > 3_000, "the walks were too short: {moments}");
}

#[test]
fn between_two_events_the_earlier_holds() {
    let mut world = World::simulated();
    world.create(id(1), false);
    world.create(id(2), false);
    world.start(id(1));
    let source = source(&world);
    let started = &world.folds[&id(1)][1];
    let before = state_at(&source, id(1), At::Position(started.head.position - 1)).unwrap();
    assert_eq!((before.version, before.run_state), (1, RunState::Stopped));
    let just_before = Timestamp::from_micros(started.head.time.micros() - 1);
    assert_eq!(state_at(&source, id(1), At::Time(just_before)).unwrap(), before);
    let within = state_at(&source, id(1), At::Version(2)).unwrap();
    assert!(!within.is_append_end, "the start and its first step are one append");
    let far = At::Time(Timestamp::from_micros(u64::MAX));
    assert_eq!(state_at(&source, id(1), far), state_at(&source, id(1), At::Now));
}

#[test]
fn a_moment_that_never_was_is_refused_by_name() {
    let mut world = World::simulated();
    world.create(id(1), false);
    let source = source(&world);
    let durable = world.log.durable().get();
    let refused = |at| state_at(&source, id(1), at).map(|_: InstanceState| ()).unwrap_err().to_string();
    let created = world.now(id(1)).unwrap().head;
    assert_eq!(
        state_at(&source, id(1), At::Position(1)),
        Err(Error::NotYetCreated {
            instance: id(1),
            asked: "@1".to_owned(),
            position: created.position,
            created: "2023-11-14T22:13:24.000000Z".to_owned(),
        })
    );
    assert!(refused(At::Version(2)).contains("no version 2: its newest is 1"));
    assert!(refused(At::Position(durable + 1)).contains(&format!("its last is {durable}")));
    assert_eq!(state_at(&source, id(2), At::Now), Err(Error::NoSuchInstance(id(2))));
}

#[test]
fn a_state_is_written_with_what_it_wished_outside() {
    let mut world = World::simulated();
    world.create(id(1), true);
    let json = serde_json::to_value(state_at(&source(&world), id(1), At::Now).unwrap()).unwrap();
    assert_eq!(json["run_state"], "starting");
    assert_eq!(json["effects"][0]["register"]["sled"], world::sled(0).to_string());
    assert_eq!(json["state"]["spec"]["name"], "web-1");
}
