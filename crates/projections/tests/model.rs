//! The read model says what the streams say: rows equal the fold of each stream, lists are exact, names
//! follow their owners, and what cannot be applied harms nobody else.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

mod fleet;

use eventlog::{Position, Record};
use fleet::{Fleet, Move, any_move, name, project_id, sled_id};
use journal::{Event, StreamName};
use lifecycle::instance::Instance;
use lifecycle::{
    InstanceEvent, Origin, ProjectEvent, RunState, SagaId, Size, Span, Timestamp, VmmId, VmmState,
};
use projections::{Order, OutOfOrder, Page, ReadModel, Scan, SledLoad};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn fold(records: &[Record]) -> ReadModel {
    let mut model = ReadModel::default();
    for record in records {
        model.apply_record(record).unwrap();
    }
    model
}

const BY_NAME: Scan<lifecycle::InstanceId> = Scan::ByName { order: Order::Ascending, after: None };

fn names(model: &ReadModel, project: usize) -> Vec<String> {
    model.instances(project_id(project), &BY_NAME, 100).rows.into_iter().map(|row| row.spec.name).collect()
}

fn agrees(model: &ReadModel, fleet: &Fleet) -> Result<(), TestCaseError> {
    let mut loads: BTreeMap<_, SledLoad> = BTreeMap::new();
    for (id, state) in &fleet.instances {
        let row = model.instance(*id);
        prop_assert_eq!(row.is_some(), state.deleted.is_none());
        if let Some(row) = row {
            prop_assert_eq!(row.run_state, state.run_state());
            prop_assert_eq!((&row.spec, row.active_vmm), (&state.spec, state.active));
            prop_assert_eq!((row.version, row.position), (state.head.version, state.head.position));
            prop_assert_eq!(row.active_sled, state.active_vmm().map(|vmm| vmm.sled));
            prop_assert_eq!(model.instance_by_name(row.spec.project, &row.spec.name), Some(*id));
        }
        let is_over = state.deleted.is_some() && state.vmms.is_empty();
        prop_assert_eq!(model.instance_state(*id), (!is_over).then_some(state));
        for vmm in state.vmms.values() {
            let place = model.vmm(vmm.id).unwrap();
            prop_assert_eq!((place.instance, place.sled), (*id, vmm.sled));
            if vmm.reservation.is_some() {
                let load = loads.entry(vmm.sled).or_default();
                load.vmms += 1;
                load.threads += u64::from(vmm.size.ncpus);
                load.memory += vmm.size.memory;
            }
        }
    }
    for n in 0..3 {
        prop_assert_eq!(model.load(sled_id(n)), loads.get(&sled_id(n)).copied().unwrap_or_default());
        let on_it = |state: &&Instance| state.active_vmm().is_some_and(|vmm| vmm.sled == sled_id(n));
        let expected: Vec<_> = fleet.instances.values().filter(on_it).map(|state| state.id).collect();
        let page = model.instances_on(sled_id(n), Order::Ascending, None, 100);
        prop_assert_eq!(page.rows.iter().map(|row| row.id).collect::<Vec<_>>(), expected);
        let project = fleet.projects.get(&project_id(n)).filter(|project| project.deleted.is_none());
        prop_assert_eq!(model.project(project_id(n)), project);
        let of_it = |state: &&Instance| state.spec.project == project_id(n) && state.deleted.is_none();
        let mut expected: Vec<_> =
            fleet.instances.values().filter(of_it).map(|state| state.spec.name.clone()).collect();
        expected.sort();
        prop_assert_eq!(model.instance_count(project_id(n)), expected.len());
        prop_assert_eq!(names(model, n), expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_model_says_what_every_stream_says(walk in prop::collection::vec(any_move(), 1..80)) {
        let mut fleet = Fleet::founded();
        let mut model = fold(&fleet.records());
        for step in &walk {
            fleet.act(step);
            for record in &fleet.records()[model.position().get() as usize..] {
                model.apply_record(record).unwrap();
            }
            agrees(&model, &fleet)?;
        }
        prop_assert_eq!(model.quarantined().next(), None);
        prop_assert_eq!(fold(&fleet.records()), model);
    }
}

#[test]
fn a_project_is_listed_in_pages_under_both_sorts_and_both_orders() {
    let mut fleet = Fleet::founded();
    let mut ids = Vec::new();
    for n in [3, 0, 6, 2, 5, 1, 4] {
        ids.push((name(n), fleet.create(0, &name(n), None)));
    }
    fleet.create(1, "elsewhere", None);
    let model = fold(&fleet.records());
    for (by_name, descending) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut expected = ids.clone();
        if by_name {
            expected.sort();
        } else {
            expected.sort_by_key(|(_, id)| *id);
        }
        if descending {
            expected.reverse();
        }
        let order = if descending { Order::Descending } else { Order::Ascending };
        let (mut listed, mut last): (Vec<_>, Option<(String, _)>) = (Vec::new(), None);
        loop {
            let scan = if by_name {
                Scan::ByName { order, after: last.as_ref().map(|(name, _)| name.clone()) }
            } else {
                Scan::ById { order, after: last.as_ref().map(|(_, id)| *id) }
            };
            let page = model.instances(project_id(0), &scan, 3);
            listed.extend(page.rows.iter().map(|row| (row.spec.name.clone(), row.id)));
            last = listed.last().cloned();
            if page.is_last {
                break;
            }
            assert_eq!(page.rows.len(), 3);
        }
        assert_eq!(listed, expected, "by name {by_name}, descending {descending}");
    }
}

#[test]
fn guests_of_a_sled_and_sleds_are_listed_in_pages() {
    let mut fleet = Fleet::founded();
    let mut here: Vec<_> = (0..5).map(|n| fleet.create(0, &name(n), Some(1))).collect();
    fleet.create(0, "elsewhere", Some(2));
    let model = fold(&fleet.records());
    here.sort();
    for order in [Order::Ascending, Order::Descending] {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = model.instances_on(sled_id(1), order, after, 2);
            listed.extend(page.rows.iter().map(|row| row.id));
            after = listed.last().copied();
            if page.is_last {
                break;
            }
        }
        assert_eq!(listed, here);
        here.reverse();
    }
    let first = model.sleds(Order::Ascending, None, 2);
    assert_eq!((first.rows.len(), first.is_last), (2, false));
    let second = model.sleds(Order::Ascending, Some(first.rows[1].id), 2);
    assert_eq!((second.rows.len(), second.is_last), (1, true));
    assert_eq!(second.rows[0].load, SledLoad { vmms: 1, threads: 2, memory: 4 << 30 });
}

#[test]
fn a_name_is_free_after_delete_and_belongs_to_its_next_owner() {
    let mut fleet = Fleet::founded();
    let first = fleet.create(0, "web", Some(0));
    fleet.report(first, 1, VmmState::Starting);
    fleet.report(first, 2, VmmState::Running);
    fleet.report(first, 3, VmmState::Failed);
    let (vmm, sled) = fleet.newest_vmm(first).unwrap();
    fleet.delete(first);
    let model = fold(&fleet.records());
    assert_eq!(model.instance_by_name(project_id(0), "web"), None);
    assert_eq!(model.instances(project_id(0), &BY_NAME, 10), Page::empty());
    let second = fleet.create(0, "web", None);
    let model = fold(&fleet.records());
    assert_eq!(model.instance_by_name(project_id(0), "web"), Some(second));
    assert_eq!(model.instance(first), None);
    assert_eq!(names(&model, 0), ["web"]);
    let place = model.vmm(vmm).unwrap();
    assert_eq!((place.instance, place.sled), (first, sled), "a late report still finds its way");
}

#[test]
fn a_deleted_instance_whose_vmm_may_be_on_its_sled_still_holds_room_and_is_not_listed() {
    let mut fleet = Fleet::founded();
    let id = fleet.create(0, "web", Some(0));
    fleet.report(id, 1, VmmState::Starting);
    fleet.act(&Move::Answer { instance: 0, answer: 5 });
    let state = &fleet.instances[&id];
    assert_eq!(state.run_state(), RunState::Failed);
    fleet.delete(id);
    let model = fold(&fleet.records());
    assert_eq!((model.instance(id), model.instance_count(project_id(0))), (None, 0));
    let holds = fleet.instances[&id].vmms.values().filter(|vmm| vmm.reservation.is_some()).count() as u64;
    assert_eq!(holds, 1, "the sled has not confirmed");
    assert_eq!(model.load(sled_id(0)).vmms, 1);
    fleet.act(&Move::Answer { instance: 0, answer: 0 });
    let model = fold(&fleet.records());
    assert_eq!(model.load(sled_id(0)), SledLoad::default());
    assert_eq!(model.instance_state(id), None, "nothing can follow, so nothing is kept");
}

#[test]
fn a_renamed_project_is_found_by_its_name_of_now() {
    let mut fleet = Fleet::founded();
    let changed = |name: &str| ProjectEvent::Changed { name: name.to_owned(), description: String::new() };
    fleet.project(0, changed("alpha"));
    fleet.project(1, changed("project-0"));
    let model = fold(&fleet.records());
    assert_eq!(model.project_by_name("alpha"), Some(project_id(0)));
    assert_eq!(model.project_by_name("project-0"), Some(project_id(1)));
    assert_eq!(model.project_by_name("project-1"), None);
    let scan = Scan::ByName { order: Order::Descending, after: None };
    let page = model.projects(&scan, 10);
    assert_eq!(page.rows.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["project-0", "alpha"]);
}

#[test]
fn the_time_of_an_automatic_start_is_remembered() {
    let mut fleet = Fleet::founded();
    let id = fleet.create(0, "web", None);
    assert_eq!(fold(&fleet.records()).instance(id).unwrap().time_last_auto_restarted, None);
    let began = InstanceEvent::StartBegan {
        saga: SagaId::new(fleet.mint()),
        origin: Origin::Automatic,
        vmm: VmmId::new(fleet.mint()),
        sled: sled_id(0),
        size: Size { ncpus: 2, memory: 4 << 30 },
        deadline: Span::from_secs(1),
    };
    fleet.append(StreamName::Instance(id), vec![Event::from(began)]);
    let records = fleet.records();
    let row = fold(&records).instance(id).unwrap();
    let time = Timestamp::from_micros(records.last().unwrap().time_us);
    assert_eq!(row.time_last_auto_restarted, Some(time));
}

#[test]
fn an_event_that_cannot_follow_quarantines_its_instance_and_nothing_else() {
    let mut fleet = Fleet::founded();
    let (bad, good) = (fleet.create(0, "bad", None), fleet.create(0, "good", None));
    let before = fold(&fleet.records()).instance(bad).unwrap();
    let reaped = InstanceEvent::VmmReaped { vmm: VmmId::new(fleet.mint()) };
    fleet.append(StreamName::Instance(bad), vec![reaped.into(), InstanceEvent::Deleted.into()]);
    fleet.delete(good);
    let model = fold(&fleet.records());
    assert_eq!(model.position().get(), fleet.records().len() as u64);
    assert_eq!(model.instance(bad), Some(before), "as it was last known");
    assert_eq!(model.instance(good), None, "its deletion came after");
    let quarantined: Vec<_> = model.quarantined().collect();
    assert_eq!(quarantined.len(), 1);
    assert_eq!(quarantined[0].0, StreamName::Instance(bad).id());
    assert!(quarantined[0].1.contains("VmmReaped at version 2"), "{}", quarantined[0].1);
}

#[test]
fn a_record_of_a_later_build_quarantines_its_stream() {
    let mut fleet = Fleet::founded();
    fleet.create(0, "web", None);
    let mut records = fleet.records();
    let last = records.len() - 1;
    records[last].schema = 9;
    let model = fold(&records);
    assert_eq!(model.position().get(), records.len() as u64);
    let (stream, why) = model.quarantined().next().unwrap();
    assert_eq!(stream, records[last].stream);
    assert!(why.contains("a newer build wrote it"), "{why}");
}

#[test]
fn a_gap_and_a_repeat_are_refused_and_change_nothing() {
    let records = Fleet::founded().records();
    let mut model = fold(&records[..2]);
    let before = model.clone();
    for (at, found) in [(1, 2), (3, 4)] {
        assert_eq!(model.apply_record(&records[at]), Err(OutOfOrder { expected: 3, found }));
        assert_eq!(model, before);
    }
    let mut unreadable = records[3].clone();
    unreadable.kind = 0;
    assert!(model.apply_record(&unreadable).is_err());
    assert_eq!(model, before);
    assert_eq!(model.position(), Position::new(2));
}
