//! Looking through a history page by page: wherever one goes, what is shown is what was recorded there.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

mod world;

use eventlog::Log;
use journal::StreamName;
use lifecycle::InstanceEvent;
use lifecycle::{Command, Input};
use replay::browse::{Direction, Events, Folds, Found, Seek, Track, Wanted, lane_window};
use replay::{At, Condition, Source, history, lanes};
use std::sync::Arc;
use world::{World, id};

/// Events of the one long history: more than a page, and more than there are anchors for.
const CHANGES: u64 = 5_000;

fn long() -> (World, Arc<dyn Log>) {
    let mut world = World::simulated();
    world.create(id(1), false);
    for nth in 0..CHANGES {
        let mut change = world.now(id(1)).unwrap().spec.changeable();
        change.jumbo_frames = nth % 2 == 0;
        let input = Input::Command(Command::Update { change: Box::new(change.clone()) });
        world.record(id(1), &[InstanceEvent::Reconfigured { change: Box::new(change) }], input);
    }
    let source = Arc::clone(&world.log);
    (world, source)
}

fn drawn(draw: &mut u64) -> u64 {
    *draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *draw >> 33
}

#[test]
fn a_state_is_the_fold_up_to_there_in_whatever_order_one_looks() {
    let (world, source) = long();
    let stream = StreamName::Instance(id(1));
    let (mut folds, mut draw) = (Folds::new(&source), 7);
    for nth in 0..400 {
        let version = match nth % 4 {
            0 => drawn(&mut draw) % (CHANGES + 2),
            1 => CHANGES + 1 - nth / 4,
            _ => nth,
        };
        let found = folds.at(stream, version).unwrap();
        let expected = usize::try_from(version).unwrap().checked_sub(1).map(|nth| &world.folds[&id(1)][nth]);
        assert_eq!(found.instance(), expected, "#{version}");
    }
    assert!(folds.states_held() <= 66, "{}", folds.states_held());
    // The anchors of a few streams are kept, not those of all.
    let mut world = World::simulated();
    world.walk(5, 8, 800);
    let source: Arc<dyn Log> = Arc::clone(&world.log);
    let mut folds = Folds::new(&source);
    for _ in 0..300 {
        let nth = drawn(&mut draw) as usize % world.folds.len();
        let (of, states) = world.folds.iter().nth(nth).unwrap();
        let version = drawn(&mut draw) as usize % states.len();
        let found = folds.at(StreamName::Instance(*of), version as u64 + 1).unwrap();
        assert_eq!(found.instance(), Some(&states[version]));
    }
    assert!(folds.states_held() <= 4 * 66, "{}", folds.states_held());
}

#[test]
fn every_event_stands_at_its_place_with_who_and_why() {
    let mut world = World::simulated();
    world.walk(5, 3, 600);
    let source: Arc<dyn Log> = Arc::clone(&world.log);
    let all = source.durable().get();
    let mut events = Events::open(&source, Track::Log).unwrap();
    assert_eq!(events.last(), all);
    for of in world.folds.keys() {
        let entries = history(&source, *of, 0, usize::MAX).unwrap();
        let mut own = Events::open(&source, Track::Instance(*of)).unwrap();
        assert_eq!(own.last(), entries.len() as u64);
        // Backwards, so that pages are entered from behind and in the middle of appends.
        for entry in entries.iter().rev() {
            for listed in [own.get(entry.version).unwrap(), events.get(entry.position).unwrap()] {
                let listed = listed.unwrap();
                let told = (listed.hit.position, listed.hit.event, &listed.hit.actor, &listed.hit.summary);
                assert_eq!(told, (entry.position, entry.event, &entry.actor, &entry.summary));
                assert_eq!((listed.append, listed.cause), (entry.append, entry.cause));
            }
        }
        for at in [At::Version(1), At::Position(entries[0].position), At::Now] {
            let place = own.place_of(at).unwrap();
            assert_eq!(place, if at == At::Now { own.last() } else { 1 }, "{at}");
        }
        assert!(own.place_of(At::Version(own.last() + 1)).is_err());
    }
    assert!(events.get(0).unwrap().is_none() && events.get(all + 1).unwrap().is_none());
    assert!(events.place_of(At::Version(1)).is_err(), "a version is of one stream");
    assert!(events.pages_held() <= 8);
    assert!(Events::open(&source, Track::Instance(id(99))).is_err());
}

#[test]
fn a_search_finds_to_both_sides_what_a_look_at_everything_finds() {
    let (_world, source) = long();
    let mut events = Events::open(&source, Track::Instance(id(1))).unwrap();
    let mut folds = Folds::new(&source);
    let mut find = |from: u64, direction: Direction, wanted: Wanted| {
        let mut seek = Seek::from(from, direction, wanted);
        for _ in 0..100 {
            match seek.slice(&mut events, &mut folds).unwrap() {
                Found::At(place, _) => return Some(place),
                Found::Nowhere => return None,
                Found::Not(_) => {}
            }
        }
        panic!("it does not end");
    };
    let text = |text: &str| Wanted::Text(text.to_owned());
    let (forward, back) = (Direction::Forward, Direction::Back);
    assert_eq!(find(CHANGES + 1, back, text("CREATED as")), Some(1));
    assert_eq!(find(1, back, text("created as")), None);
    assert_eq!(find(1, forward, text("created as")), None, "one does not stand still");
    assert_eq!(find(0, forward, text("created as")), Some(1));
    assert_eq!(find(10, forward, text("reconfigured")), Some(11));
    assert_eq!(find(10, back, text("reconfigured")), Some(9));
    assert_eq!(find(1, forward, text("never said")), None);
    let wanted = |text: &str| Wanted::Condition(Condition::parse(text).unwrap());
    assert_eq!(find(2, forward, wanted("spec.jumbo_frames=false")), Some(3));
    assert_eq!(find(1, forward, wanted("run_state=running")), None);
}

#[test]
fn lanes_of_a_part_are_that_part_of_all_lanes() {
    let mut world = World::simulated();
    world.live(id(7));
    let source: Arc<dyn Log> = Arc::clone(&world.log);
    let whole = lanes(&source, id(7)).unwrap();
    let last = whole.rows.len() as u64;
    let mut folds = Folds::new(&source);
    for from in 1..=last {
        for to in from..=last {
            let part = lane_window(&source, &mut folds, id(7), (from, to)).unwrap();
            assert_eq!(part.lanes.rows.len() as u64, to - from + 1);
            for (row, version) in part.lanes.rows.iter().zip(from..) {
                let of_whole = &whole.rows[usize::try_from(version).unwrap() - 1];
                assert_eq!(
                    (row.version, &row.time, row.since_first_us),
                    (version, &of_whole.time, of_whole.since_first_us)
                );
                let said = |lanes: &replay::Lanes, cells: &[Option<String>]| {
                    let told = lanes.lanes.iter().zip(cells);
                    let mut told: Vec<(String, String)> =
                        told.filter_map(|(lane, cell)| Some((lane.label.clone(), cell.clone()?))).collect();
                    told.sort();
                    told
                };
                assert_eq!(said(&part.lanes, &row.cells), said(&whole, &of_whole.cells), "#{version}");
            }
        }
    }
}
