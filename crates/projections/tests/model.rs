//! The read model says what the streams say: rows equal the fold of each stream, lists are exact, names
//! follow their owners, and what cannot be applied harms nobody else.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

mod fleet;

use eventlog::{Position, Record};
use fleet::{Fleet, Move, any_move, group_id, name, project_id, sled_id};
use journal::{Event, StreamName};
use lifecycle::input::EffectResult;
use lifecycle::instance::{Instance, UnwindReason};
use lifecycle::migration::{CancelReason, SideState};
use lifecycle::{
    Command, Input, InstanceEvent, InstanceId, Origin, ProjectEvent, QuotaScope, Refusal, RunState, SagaId,
    SagaKind, Size, Span, Step, Timestamp, Totals, VmmId, VmmState, effects,
};
use projections::{Among, MigrationOutcome, Order, OutOfOrder, Page, ReadModel, SagaOutcome, Scan, SledLoad};
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
    shared_agrees(model, fleet)?;
    histories_agree(model, fleet)?;
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

/// Charges, quotas and groups.
fn shared_agrees(model: &ReadModel, fleet: &Fleet) -> Result<(), TestCaseError> {
    let mut all = Totals::default();
    let mut charged: BTreeMap<_, Totals> = BTreeMap::new();
    for state in fleet.instances.values() {
        if let Some(size) = state.charge {
            all.add(size);
            charged.entry(state.spec.project).or_default().add(size);
        }
    }
    prop_assert_eq!(model.charged_in_all(), all);
    for scope in [QuotaScope::Silo, QuotaScope::Fleet] {
        prop_assert_eq!(model.quota(scope), fleet.quotas.get(&scope).copied().unwrap_or_default());
    }
    let exists = |id| fleet.instances.get(&id).is_some_and(|it: &Instance| it.deleted.is_none());
    for n in 0..3 {
        let id = project_id(n);
        prop_assert_eq!(model.charged(id), charged.get(&id).copied().unwrap_or_default());
        let project = fleet.projects.get(&id).filter(|project| project.deleted.is_none());
        let mut expected: Vec<_> = project.into_iter().flat_map(|project| &project.groups).collect();
        let page = model.groups(id, &Scan::ById { order: Order::Ascending, after: None }, 100);
        prop_assert_eq!(page.rows.len(), expected.len());
        for (row, (group, state)) in page.rows.iter().zip(&expected) {
            prop_assert_eq!((row.id, row.project, row.policy), (**group, id, state.policy));
            prop_assert_eq!(row.time_modified, state.time_modified);
            let members: Vec<_> = state.members.iter().copied().filter(|it| exists(*it)).collect();
            prop_assert_eq!(&row.members, &members);
            prop_assert_eq!(model.group(row.id), Some(row.clone()));
            prop_assert_eq!(model.group_by_name(id, &state.name), Some(**group));
            let of_project = |it: &&InstanceId| fleet.instances[*it].spec.project == id;
            prop_assert!(members.iter().filter(of_project).all(|it| model.groups_of(*it).contains(group)));
        }
        expected.sort_by_key(|(_, state)| &state.name);
        let page = model.groups(id, &Scan::ByName { order: Order::Ascending, after: None }, 100);
        let names: Vec<_> = page.rows.iter().map(|row| &row.name).collect();
        prop_assert_eq!(names, expected.iter().map(|(_, state)| &state.name).collect::<Vec<_>>());
        for group in (0..3).map(|group| group_id(n, group)) {
            prop_assert_eq!(model.group(group).is_some(), expected.iter().any(|(id, _)| **id == group));
        }
    }
    Ok(())
}

/// Sagas and migrations: as many as were begun, under way where a fold says so.
fn histories_agree(model: &ReadModel, fleet: &Fleet) -> Result<(), TestCaseError> {
    let (mut sagas, mut migrations) = (BTreeMap::new(), BTreeMap::new());
    for record in fleet.records() {
        let recorded = journal::read(&record).unwrap();
        let (Event::Instance(event), StreamName::Instance(id)) = (&recorded.event, recorded.stream) else {
            continue;
        };
        match event {
            InstanceEvent::StartBegan { saga, .. } => {
                sagas.insert(*saga, id);
            }
            InstanceEvent::MigrateBegan { saga, migration, .. } => {
                sagas.insert(*saga, id);
                migrations.insert(*migration, id);
            }
            _ => {}
        }
    }
    let up = Order::Ascending;
    let rows = model.sagas(Among::All, up, None, 1_000).rows;
    prop_assert_eq!(rows.iter().map(|row| (row.id, row.instance)).collect::<BTreeMap<_, _>>(), sagas);
    for row in &rows {
        let progress = fleet.instances[&row.instance].saga.as_ref().filter(|saga| saga.id == row.id);
        prop_assert_eq!(row.end.is_none(), progress.is_some());
        if let Some(saga) = progress {
            prop_assert_eq!((row.step, row.step_started, row.vmm), (saga.step, saga.step_started, saga.vmm));
        }
    }
    let under_way = model.sagas(Among::UnderWay, up, None, 1_000).rows;
    prop_assert!(under_way.iter().eq(rows.iter().filter(|row| row.end.is_none())));
    let rows = model.migrations(Among::All, up, None, 1_000).rows;
    prop_assert_eq!(rows.iter().map(|row| (row.id, row.instance)).collect::<BTreeMap<_, _>>(), migrations);
    for row in &rows {
        let instance = &fleet.instances[&row.instance];
        prop_assert_eq!(row.end.is_none(), instance.migration == Some(row.id));
        if let Some(migration) = instance.migrations.get(&row.id) {
            for (side, row) in [(migration.source, row.source), (migration.target, row.target)] {
                prop_assert_eq!(
                    (row.vmm, row.state, row.generation),
                    (side.vmm, side.state, side.generation)
                );
            }
            prop_assert_eq!(row.cancelled, migration.cancelled);
        }
        if row.end.is_some_and(|end| end.outcome == MigrationOutcome::Succeeded) {
            prop_assert_eq!(row.target.state, SideState::Completed);
        }
    }
    let under_way = model.migrations(Among::UnderWay, up, None, 1_000).rows;
    prop_assert!(under_way.iter().eq(rows.iter().filter(|row| row.end.is_none())));
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

fn outcome(model: &ReadModel, id: lifecycle::MigrationId) -> Option<MigrationOutcome> {
    model.migration(id).unwrap().end.map(|end| end.outcome)
}

#[test]
fn a_migration_that_succeeds_is_told_with_both_sides_and_its_saga() {
    let mut fleet = Fleet::founded();
    let id = fleet.running(0, "web", 0);
    let migration = fleet.migrating(id, 1);
    let model = fold(&fleet.records());
    let row = model.migration(migration).unwrap().clone();
    assert_eq!((row.instance, row.source.sled, row.target.sled), (id, sled_id(0), sled_id(1)));
    assert_eq!((row.end, row.cancelled), (None, None));
    assert_eq!(model.vmm(row.target.vmm).unwrap().instance, id, "its reports find their way");
    let saga = model.saga(row.saga).unwrap();
    assert_eq!((saga.kind, saga.step, saga.vmm), (SagaKind::Migrate, Step::MigrationTarget, row.target.vmm));
    fleet.side(id, false, SideState::InProgress, 1);
    fleet.side(id, true, SideState::Completed, 1);
    fleet.side(id, false, SideState::Completed, 2);
    let model = fold(&fleet.records());
    let row = model.migration(migration).unwrap();
    assert_eq!(outcome(&model, migration), Some(MigrationOutcome::Succeeded));
    assert_eq!((row.source.state, row.target.state), (SideState::Completed, SideState::Completed));
    assert_eq!(row.target.generation.get(), 2);
    assert_eq!(model.saga(row.saga).unwrap().end.as_ref().unwrap().outcome, SagaOutcome::Done);
    assert_eq!(model.migrations(Among::UnderWay, Order::Ascending, None, 9), Page::empty());
    assert_eq!(model.instance(id).unwrap().active_sled, Some(sled_id(1)));
}

#[test]
fn a_migration_that_is_cancelled_says_why() {
    let mut fleet = Fleet::founded();
    let id = fleet.running(0, "web", 0);
    let migration = fleet.migrating(id, 1);
    fleet.side(id, false, SideState::InProgress, 1);
    fleet.give(id, &Input::Command(Command::CancelMigration));
    let model = fold(&fleet.records());
    let row = model.migration(migration).unwrap();
    assert_eq!((row.cancelled, row.end), (Some(CancelReason::Requested), None), "both sides are told first");
    fleet.side(id, false, SideState::Failed, 2);
    let expected = MigrationOutcome::Cancelled(CancelReason::Requested);
    assert_eq!(outcome(&fold(&fleet.records()), migration), Some(expected));
    assert_eq!(expected.to_string(), "cancelled");
}

#[test]
fn a_migrate_that_is_refused_is_told_as_unwound_by_both_rows() {
    let mut fleet = Fleet::founded();
    let id = fleet.running(0, "web", 0);
    let grant = fleet.migrate_grant(2);
    fleet.give(id, &Input::Command(Command::Migrate { grant: Some(grant) }));
    let effect = effects(&fleet.instances[&id]).into_iter().find(|effect| effect.vmm() == grant.vmm).unwrap();
    let result = EffectResult::Refused(Refusal::NoRoom);
    fleet.give(id, &Input::Outcome { effect, result });
    let model = fold(&fleet.records());
    let reason = UnwindReason::Refused(Refusal::NoRoom);
    let expected = MigrationOutcome::Unwound { step: Step::Register, reason };
    assert_eq!(outcome(&model, grant.migration), Some(expected));
    let saga = model.saga(grant.saga).unwrap();
    let undone = vec![Step::Register, Step::Allocate, Step::Reserve];
    assert_eq!(saga.end.as_ref().unwrap().outcome, SagaOutcome::Unwound { reason, undone });
    assert_eq!(saga.step, Step::Register, "where it was");
}

#[test]
fn a_guest_that_is_found_missing_after_its_migration_failed_was_lost_in_it() {
    let mut fleet = Fleet::founded();
    let id = fleet.running(0, "web", 0);
    let migration = fleet.migrating(id, 1);
    let source = fold(&fleet.records()).migration(migration).unwrap().source;
    fleet.side(id, false, SideState::Failed, 1);
    assert_eq!(outcome(&fold(&fleet.records()), migration), Some(MigrationOutcome::Failed));
    // The source speaks late.
    let vmm = &fleet.instances[&id].vmms[&source.vmm];
    let generation = lifecycle::Generation::new(9);
    let part = lifecycle::input::SideReport { migration, state: SideState::Completed, generation };
    let report = lifecycle::VmmReport {
        state: vmm.state,
        generation: vmm.generation,
        migration_in: None,
        migration_out: Some(part),
    };
    fleet.give(id, &Input::Report { sled: source.sled, vmm: source.vmm, report });
    let model = fold(&fleet.records());
    assert_eq!(model.migration(migration).unwrap().source.state, SideState::Completed);
    assert_eq!(outcome(&model, migration), Some(MigrationOutcome::Lost));
    assert_eq!(model.instance(id).unwrap().run_state, RunState::Failed);
}

#[test]
fn a_deleted_project_takes_its_groups_along_and_a_deleted_member_is_shown_no_more() {
    use lifecycle::project::GroupCommand;
    let mut fleet = Fleet::founded();
    let (id, group) = (fleet.create(1, "web", None), group_id(1, 0));
    let created = GroupCommand::Create {
        group,
        name: "spread".to_owned(),
        description: "d".to_owned(),
        policy: lifecycle::GroupPolicy::Fail,
    };
    fleet.group(1, &created);
    fleet.group(1, &GroupCommand::Join { group, instance: id });
    let model = fold(&fleet.records());
    assert_eq!((model.groups_of(id), model.group(group).unwrap().members), (vec![group], vec![id]));
    fleet.delete(id);
    assert_eq!(fold(&fleet.records()).group(group).unwrap().members, []);
    fleet.project(1, ProjectEvent::Deleted);
    let model = fold(&fleet.records());
    assert_eq!((model.group(group), model.group_by_name(project_id(1), "spread")), (None, None));
}

#[test]
fn a_sled_that_drains_says_since_when() {
    let mut fleet = Fleet::founded();
    fleet.act(&Move::Drain(1, true));
    let row = fold(&fleet.records()).sled(sled_id(1)).unwrap();
    assert!(!row.provisionable && row.draining == Some(row.time_modified));
    fleet.act(&Move::Drain(1, false));
    assert_eq!(fold(&fleet.records()).sled(sled_id(1)).unwrap().draining, None);
}
