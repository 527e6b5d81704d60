//! Differences, lanes, fleets, searches and conditions say what the folds say.

mod world;

use eventlog::Log;
use lifecycle::migration::SideState;
use lifecycle::{RunState, Timestamp, VmmState};
use replay::{
    At, Condition, Error, Found, changes, diff, find_instance, fleet_at, grep, lanes, state_at, state_diff,
    until, until_of_any, verify_read_model,
};
use std::sync::Arc;
use world::{World, id};

fn walked(seed: u64) -> World {
    let mut world = World::simulated();
    world.walk(seed, 4, 200);
    world
}

fn source(world: &World) -> Arc<dyn Log> {
    Arc::clone(&world.log)
}

#[test]
fn a_difference_turns_one_state_into_the_other() {
    let world = walked(3);
    let source = source(&world);
    let mut compared = 0;
    for (id, folds) in &world.folds {
        for pair in folds.windows(2) {
            let (from, to) = (At::Version(pair[0].head.version), At::Version(pair[1].head.version));
            let found = state_diff(&source, *id, from, to).unwrap();
            let fields = |at| diff::fields(&state_at(&source, *id, at).unwrap());
            assert_eq!(found.changes, changes(&fields(from), &fields(to)));
            assert_eq!((found.from.version, found.to.version), (pair[0].head.version, pair[1].head.version));
            let back = state_diff(&source, *id, to, from).unwrap();
            assert_eq!(back.changes.len(), found.changes.len());
            assert!(state_diff(&source, *id, to, to).unwrap().changes.is_empty());
            compared += found.changes.len();
        }
    }
    assert!(compared > 200, "the walk was too short: {compared}");
}

#[test]
fn a_fleet_has_every_instance_as_its_own_stream_says() {
    let world = walked(5);
    let source = source(&world);
    let durable = source.durable().get();
    for position in (1..=durable).step_by(7) {
        let fleet = fleet_at(&source, At::Position(position), &mut |_| {}).unwrap();
        assert_eq!(fleet.position, position);
        for (id, folds) in &world.folds {
            let fold = folds.iter().rev().find(|fold| fold.head.position <= position);
            let row = fleet.instances.iter().find(|row| row.id == *id);
            let expected = fold.filter(|fold| fold.deleted.is_none());
            assert_eq!(
                row.map(|row| (row.run_state, row.version)),
                expected.map(|it| (it.run_state(), it.head.version))
            );
        }
        let held: u64 = fleet.sleds.iter().map(|sled| sled.vmms).sum();
        let folds =
            world.folds.values().filter_map(|it| it.iter().rev().find(|it| it.head.position <= position));
        let vmms = folds.flat_map(|it| it.vmms.values()).filter(|vmm| vmm.reservation.is_some()).count();
        assert_eq!(held, vmms as u64, "position {position}");
    }
    let first = fleet_at(&source, At::Time(Timestamp::from_micros(1)), &mut |_| {}).unwrap();
    assert_eq!((first.instances.len(), first.sleds.len(), first.time), (0, 0, None));
    let beyond = fleet_at(&source, At::Position(durable + 1), &mut |_| {});
    assert_eq!(beyond, Err(Error::NoSuchPosition { position: durable + 1, durable }));
}

#[test]
fn the_first_event_of_a_condition_is_the_first_by_the_folds() {
    let world = walked(9);
    let source = source(&world);
    let mut met = 0;
    for state in RunState::ALL {
        let wanted = Condition::parse(&format!("run_state={state}")).unwrap();
        let mut first_of_all = None;
        for (id, folds) in &world.folds {
            let expected = folds.iter().find(|fold| fold.run_state() == state);
            let found = until(&source, *id, &wanted).unwrap();
            assert_eq!(found.as_ref().map(|it| it.version), expected.map(|it| it.head.version), "{wanted}");
            first_of_all = [first_of_all, found.as_ref().map(|it| it.position)].into_iter().flatten().min();
            met += usize::from(found.is_some());
        }
        let any = until_of_any(&source, &wanted, &mut |_| {}).unwrap();
        assert_eq!(any.map(|it| it.position), first_of_all, "{wanted}");
    }
    assert!(met > 10, "the walk met too little: {met}");
    for text in ["invariant", "C3", "spec.name=nobody", "nothing.there=1"] {
        assert_eq!(until_of_any(&source, &Condition::parse(text).unwrap(), &mut |_| {}), Ok(None), "{text}");
    }
    let unknown = until(&source, id(99), &Condition::Broken(None));
    assert_eq!(unknown, Err(Error::NoSuchInstance(id(99))));
}

#[test]
fn conditions_reach_into_maps_and_lists_and_take_cut_ids() {
    let mut world = World::simulated();
    world.live(id(1));
    let source = source(&world);
    let vmm = *world.folds[&id(1)][1].vmms.keys().next().unwrap();
    let short: String = vmm.to_string().chars().take(8).collect();
    for (text, version) in [
        ("vmms.*.state=running".to_owned(), Some(6)),
        (format!("vmms.{short}.generation=2"), Some(6)),
        (format!("active={short}"), Some(2)),
        ("saga.step=register".to_owned(), Some(3)),
        ("effects.0=register".to_owned(), Some(3)),
        ("run_state!=stopped".to_owned(), Some(2)),
        ("stop!=null".to_owned(), Some(8)),
        ("vmms.*.state=migrating".to_owned(), None),
    ] {
        let found = until(&source, id(1), &Condition::parse(&text).unwrap()).unwrap();
        assert_eq!(found.map(|it| it.version), version, "{text}");
    }
}

#[test]
fn every_event_has_its_row_and_every_vmm_and_saga_its_lane() {
    let mut world = World::simulated();
    world.create(id(1), true);
    world.says(id(1), 1, VmmState::Starting);
    world.says(id(1), 2, VmmState::Running);
    world.migrate(id(1), 1);
    for is_source in [true, false] {
        let side = world.side(id(1), is_source, SideState::Completed, 1).unwrap();
        world.give(id(1), side).unwrap();
    }
    let found = lanes(&source(&world), id(1)).unwrap();
    let labels: Vec<&str> = found.lanes.iter().map(|lane| lane.label.split(' ').next().unwrap()).collect();
    assert_eq!(labels, ["WEB-1", "START", "VMM", "MIGRATE", "VMM"]);
    let folds = &world.folds[&id(1)];
    assert_eq!(found.rows.len(), folds.len());
    for (row, fold) in found.rows.iter().zip(folds) {
        assert_eq!((row.version, row.cells.len()), (fold.head.version, found.lanes.len()));
        assert!(row.cells[0].is_some(), "{row:?}");
    }
    let text = found.text();
    for said in ["Created → stopped", "→ running", "│", "done", "in completed", "ON sim-1"] {
        assert!(text.contains(said), "{said} is missing:\n{text}");
    }
    assert_eq!(lanes(&source(&world), id(2)), Err(Error::NoSuchInstance(id(2))));
}

#[test]
fn a_search_finds_by_event_actor_request_and_field_and_counts_what_it_does_not_keep() {
    let mut world = World::simulated();
    world.live(id(1));
    world.live(id(2));
    let source = source(&world);
    let search = |of, text: &str, limit| grep(&source, of, text, limit, &mut |_| {}).unwrap();
    let began = search(None, "startbegan", 10);
    assert_eq!((began.total, began.items.len()), (2, 2));
    assert_eq!(search(Some(id(1)), "StartBegan", 10).total, 1);
    let cut = search(None, "user demo", 1);
    assert!(cut.items.len() == 1 && cut.total > 4, "{}", cut.total);
    let request = began.items[0].request_id.clone().unwrap();
    assert!(search(None, &request, 100).items.iter().all(|hit| hit.stream == began.items[0].stream));
    assert_eq!(search(None, "\"ncpus\":2", 9).total, 4, "two specs and two starts");
    assert_eq!(search(None, "nowhere to be found", 9).total, 0);
    assert!(grep(&source, Some(id(3)), "x", 1, &mut |_| {}).is_err());
}

#[test]
fn names_lead_to_the_newest_instance_of_that_name() {
    let mut world = World::simulated();
    world.create(id(1), false);
    world.create(id(2), false);
    let source = source(&world);
    let found = |project: &str, named: &str| find_instance(&source, project, named).unwrap();
    assert_eq!(found("demo", "web-1"), Found::One(id(1)));
    assert_eq!(found(&world::project().to_string(), "web-2"), Found::One(id(2)));
    assert_eq!(found("demo", &id(2).to_string()), Found::One(id(2)));
    assert_eq!(found("other", "web-1"), Found::Nothing);
    assert_eq!(found("demo", "10000000"), Found::Several);
    assert_eq!(found("demo", "1000000"), Found::Nothing, "too short for an id");
}

#[test]
fn a_read_model_that_is_not_the_fold_is_told() {
    let world = walked(11);
    let source = source(&world);
    let mut model = projections::ReadModel::default();
    let records = source.read_all(eventlog::Position::new(1), 10_000).unwrap();
    for record in records.iter().take(40) {
        model.apply_record(record).unwrap();
    }
    let check = |stored: Option<&projections::ReadModel>| {
        let mut report = replay::VerifyReport::default();
        verify_read_model(&source, stored, &mut report, &mut |_| {}).unwrap();
        report
    };
    assert!(check(Some(&model)).is_clean() && check(None).is_clean());
    assert!(check(Some(&model)).rows > check(None).rows);
    model.pass_over(41, &[records[41].stream], "lost");
    let first = check(Some(&model)).first().cloned().unwrap();
    assert_eq!((first.kind, first.position), (replay::FindingKind::ReadModelDiffers, 41));
    model.pass_over(1_000_000, &[], "beyond");
    assert!(check(Some(&model)).first().unwrap().detail.contains("beyond the log"));
}
