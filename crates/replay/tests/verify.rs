//! A log that the rules wrote is clean; whatever else is in it is found, and named by place.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use eventlog::cache::Snapshot;
use eventlog::{
    Cache, CodecId, Journal, JournalConfig, JournalReader, Log, MemCache, Position, ReadError, Record,
    StoreId, StreamId, Version,
};
use journal::{Actor, Context, Event, FOLD_VERSION, StreamName, encode_snapshot};
use lifecycle::vmm::Evidence;
use lifecycle::{Command, Input, Instance, InstanceEvent, OpId, VmmState};
use replay::{Error, FindingKind, Options, Scope, Source, VerifyReport, verify};
use std::collections::BTreeSet;
use std::sync::Arc;
use world::{World, id, version};

fn check(world: &World, scope: Scope, cache: Option<&dyn Cache>) -> VerifyReport {
    let options = Options { cache, ..Options::default() };
    verify(&world.log, scope, &options, &mut |_| ()).unwrap()
}

/// The first finding of the whole log, which that of its stream must agree with.
fn first(world: &World, n: u128) -> replay::Finding {
    let all = check(world, Scope::All, None);
    let one = check(world, Scope::One(id(n)), None);
    let first = all.first().expect("something is wrong").clone();
    assert_eq!(one.first(), Some(&first));
    first
}

#[test]
fn a_log_that_the_rules_wrote_is_clean() {
    for seed in 1..=20 {
        let mut world = World::simulated();
        world.walk(seed, 4, 150);
        let all = check(&world, Scope::All, None);
        assert_eq!(all.findings, [], "seed {seed}");
        assert_eq!(all.events, world.log.durable().get());
        assert_eq!((all.instances, all.inputs_missing), (4, 0));
        assert!(all.inputs_decided > 20 && all.checkpoints > 20, "{all:?}");
        let one = check(&world, Scope::One(id(0)), None);
        assert!(one.is_clean() && one.events == world.folds[&id(0)].len() as u64);
    }
}

#[test]
fn the_logs_that_are_found_clean_hold_every_sort_of_event() {
    let (mut names, mut moved) = (BTreeSet::new(), 0);
    for seed in 1..=20 {
        let mut world = World::simulated();
        world.walk(seed, 4, 150);
        let records = world.log.read_all(Position::new(1), usize::MAX).unwrap();
        let recorded = records.iter().map(|record| journal::read(record).unwrap().event);
        names.extend(recorded.map(|event| journal::event_name(&event)));
        // Starts are on sled 0: only a migration leads to the other.
        let is_there = |fold: &&Instance| fold.active_vmm().is_some_and(|vmm| vmm.sled == world::sled(1));
        moved += world.folds.values().flatten().filter(is_there).count();
    }
    assert!(moved > 0, "no guest moved");
    for name in [
        "MigrateBegan",
        "MigrationCancelled",
        "RestartTried",
        "ForceStopRequested",
        "Reconfigured",
        "SagaUnwound",
        "SagaEnded",
        "Updated",
        "VmmReaped",
    ] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
}

#[test]
fn an_event_that_cannot_follow_is_named_and_the_others_are_followed_on() {
    let mut world = World::simulated();
    world.create(id(1), true);
    let vmm = world.grant(0).vmm;
    let gone = InstanceEvent::VmmGone { vmm, evidence: Evidence::Reported };
    let planted = world.plant(id(1), &[gone], Input::Gone { vmm, evidence: Evidence::Reported })[0];
    world.live(id(2));
    let finding = first(&world, 1);
    assert_eq!(finding.kind, FindingKind::CannotFollow);
    assert_eq!(finding.instance, Some(id(1)));
    assert_eq!((finding.version, finding.position), (planted.version, planted.position));
    assert_eq!((finding.event.as_str(), finding.by.as_str()), ("VmmGone", "timer sled watch"));
    assert!(finding.detail.contains("events name VMMs of this instance"), "{finding}");
    let all = check(&world, Scope::All, None);
    assert_eq!((all.findings.len(), all.instances), (1, 2));
}

#[test]
fn a_flipped_input_decides_differently() {
    let mut world = World::simulated();
    world.create(id(1), true);
    let stop = InstanceEvent::StopRequested { op: OpId::new(world.mint()) };
    let vmm = world.now(id(1)).unwrap().active.unwrap();
    let report = world::report(1, VmmState::Starting);
    let reported = InstanceEvent::VmmReported { vmm, report };
    let advanced = {
        let input = Input::Report { sled: world::sled(0), vmm, report };
        let decided = lifecycle::decide(world.now(id(1)), &input, &lifecycle::Policy::default()).unwrap();
        let lifecycle::Decision::Events(events) = decided else { panic!("a report decides") };
        assert_eq!(events[0], reported);
        events
    };
    // What the sled said was another generation than what the input says it said.
    let flipped = Input::Report { sled: world::sled(0), vmm, report: world::report(2, VmmState::Starting) };
    world.record(id(1), &advanced, flipped);
    let finding = first(&world, 1);
    assert_eq!(finding.kind, FindingKind::DecidesDifferently);
    assert_eq!((finding.version, finding.event.as_str()), (5, "SagaAdvanced"));
    assert!(finding.detail.starts_with("event 1 was recorded as VmmReported"), "{finding}");
    assert_eq!(finding.cause, finding.position - 1);
    // A command that the rules refuse, and one that they take for another.
    let running = world.now(id(1)).unwrap().clone();
    world.plant(id(1), &[stop], Input::Command(Command::Delete));
    let report = check(&world, Scope::One(id(1)), None);
    assert_eq!(report.findings[1].kind, FindingKind::DecidesDifferently);
    assert!(report.findings[1].detail.contains("refused: cannot delete"), "{}", report.findings[1]);
    assert!(running.saga.is_some());
}

#[test]
fn a_broken_invariant_is_named_by_its_number() {
    let mut world = World::simulated();
    let input = world.creation(id(1), true);
    let lifecycle::Decision::Events(mut events) =
        lifecycle::decide(None, &input, &lifecycle::Policy::default()).unwrap()
    else {
        panic!("a creation decides");
    };
    // The step that follows at once is left out: the instance is not at rest.
    events.truncate(2);
    world.record(id(1), &events, input);
    // What follows from it is not told again.
    let (origin, short) = (lifecycle::Origin::User, lifecycle::Shortage::NoSled);
    world.record(id(1), &[InstanceEvent::StartNotPlaced { origin, short }], Input::Reconsider);
    let finding = first(&world, 1);
    assert_eq!((finding.kind, finding.invariant), (FindingKind::InvariantBroken, Some(10)));
    let findings = check(&world, Scope::All, None).findings;
    assert_eq!(findings.iter().filter(|f| f.kind == FindingKind::InvariantBroken).count(), 1);
    assert_eq!((finding.version, finding.event.as_str()), (2, "StartBegan"));
    assert!(finding.by.starts_with("user demo, request "), "{}", finding.by);
    assert!(finding.to_string().contains("invariant 10 broken"), "{finding}");
}

#[test]
fn more_on_a_sled_than_it_has_is_found_in_the_whole_log_only() {
    let log: Arc<dyn Log> = Arc::new(eventlog::SimLog::new());
    let mut world = World::new(log, 3);
    world.create(id(1), true);
    assert!(check(&world, Scope::All, None).is_clean());
    world.create(id(2), true);
    world.create(id(3), false);
    let all = check(&world, Scope::All, None);
    assert_eq!(all.findings.len(), 1, "told once");
    let finding = all.first().unwrap();
    assert_eq!((finding.kind, finding.invariant), (FindingKind::InvariantBroken, Some(4)));
    assert!(check(&world, Scope::One(id(2)), None).is_clean());
}

#[test]
fn a_time_that_goes_back_is_out_of_order() {
    let mut world = World::simulated();
    world.create(id(1), false);
    let stop = Input::Command(Command::Delete);
    let context = world.context(stop);
    let mut append =
        world.build(StreamName::Instance(id(1)), &[Event::from(InstanceEvent::Deleted)], &context);
    append.events[0].time_us = world::START;
    world.send(append);
    let finding = first(&world, 1);
    assert_eq!((finding.kind, finding.version), (FindingKind::OutOfOrder, 2));
    assert!(finding.detail.contains("recorded time"), "{finding}");
}

#[test]
fn an_event_of_a_newer_build_is_unreadable_and_ends_its_stream_only() {
    let mut world = World::simulated();
    world.create(id(1), false);
    let context = Context::of(Actor::Daemon);
    for _ in 0..2 {
        let mut append =
            world.build(StreamName::Instance(id(1)), &[Event::from(InstanceEvent::Deleted)], &context);
        append.events[0].schema = 99;
        append.events[0].codec = CodecId(1);
        world.send(append);
    }
    world.live(id(2));
    let finding = first(&world, 1);
    assert_eq!((finding.kind, finding.version), (FindingKind::Unreadable, 2));
    assert_eq!(finding.event, "kind 116");
    assert!(finding.detail.contains("a newer build wrote it"), "{finding}");
    assert_eq!(check(&world, Scope::All, None).findings.len(), 1);
}

#[test]
fn snapshots_are_compared_with_the_fold_of_their_version() {
    let mut world = World::simulated();
    world.live(id(1));
    let stream = StreamName::Instance(id(1)).id();
    let fold = world.folds[&id(1)][6].clone();
    let right = Snapshot {
        version: version(fold.head.version),
        position: eventlog::Position::new(fold.head.position),
        fold: FOLD_VERSION,
        state: encode_snapshot(&fold),
    };
    let misplaced = Snapshot { position: right.position.next(), ..right.clone() };
    let wrong = Snapshot { state: encode_snapshot(&world.folds[&id(1)][5]), ..right.clone() };
    let beyond = Snapshot { version: version(1_000), ..right.clone() };
    let other = Snapshot { fold: FOLD_VERSION + 1, ..wrong.clone() };
    for (snapshot, found, compared) in [
        (right, None, 1),
        (misplaced, Some(7), 1),
        (wrong, Some(7), 1),
        (beyond, Some(13), 0),
        (other, None, 0),
    ] {
        let cache = MemCache::new();
        cache.put_snapshot(stream, &snapshot).unwrap();
        for scope in [Scope::All, Scope::One(id(1))] {
            let report = check(&world, scope, Some(&cache));
            assert_eq!(report.snapshots, compared);
            assert_eq!(report.first().map(|finding| finding.version), found, "{scope:?}");
            assert!(report.findings.iter().all(|f| f.kind == FindingKind::SnapshotDiffers));
        }
    }
}

#[test]
fn a_step_that_users_must_never_see_is_found_between_two_good_states() {
    let mut world = World::simulated();
    world.create(id(1), false);
    let lifecycle::input::StartGrant { saga, vmm, sled } = world.grant(0);
    let size = world.now(id(1)).unwrap().spec.size;
    let deadline = lifecycle::Span::from_secs(120);
    let origin = lifecycle::Origin::User;
    // From stopped to running in one append, without having been starting.
    let events = [
        InstanceEvent::StartBegan { saga, origin, vmm, sled, size, deadline },
        InstanceEvent::SagaAdvanced { saga, step: lifecycle::Step::Register },
        InstanceEvent::SagaAdvanced { saga, step: lifecycle::Step::SetRunning },
        InstanceEvent::VmmReported { vmm, report: world::report(1, VmmState::Running) },
        InstanceEvent::SagaEnded { saga, done: true },
    ];
    world.record(id(1), &events, Input::Reconsider);
    let finding = first(&world, 1);
    assert_eq!((finding.kind, finding.invariant), (FindingKind::InvariantBroken, Some(15)));
    assert_eq!((finding.version, finding.event.as_str()), (6, "SagaEnded"));
}

#[test]
fn a_start_under_another_configuration_still_decides_the_same() {
    let mut world = World::simulated();
    world.policy.start_deadline = lifecycle::Span::from_secs(7);
    world.live(id(1));
    assert_eq!(check(&world, Scope::All, None).findings, []);
}

#[test]
fn a_pause_under_another_configuration_still_decides_the_same() {
    let mut world = World::simulated();
    world.policy.pause_after_failures = std::num::NonZeroU32::new(2);
    world.create(id(1), true);
    let effect = lifecycle::effects(world.now(id(1)).unwrap()).pop().unwrap();
    for failures in 1..=2 {
        world.give(id(1), Input::StepFailed { effect, failures }).unwrap();
    }
    let paused = world.now(id(1)).unwrap().saga.as_ref().is_some_and(|saga| saga.pause.is_some());
    assert!(paused, "its step had failed twice");
    let report = check(&world, Scope::All, None);
    assert!(report.is_clean(), "{report:?}");
}

/// Its guest fails, and its VMM is known to be gone.
fn fail(world: &mut World) {
    let vmm = world.now(id(1)).unwrap().active.unwrap();
    world.says(id(1), 3, VmmState::Failed);
    world.give(id(1), Input::Gone { vmm, evidence: Evidence::Unregistered }).unwrap();
}

#[test]
fn a_migration_and_restarts_under_another_configuration_still_decide_the_same() {
    let mut world = World::simulated();
    world.policy.migrate_deadline = lifecycle::Span::from_secs(7);
    world.policy.restart.budget = 1_000;
    world.create(id(1), true);
    for attempt in 1..=20 {
        // Short of the span that counts as stable, so that the attempts add up.
        world.says(id(1), 1, VmmState::Starting);
        world.says(id(1), 2, VmmState::Running);
        if attempt == 1 {
            world.migrate(id(1), 1);
            let failed = world.side(id(1), false, lifecycle::migration::SideState::Failed, 1).unwrap();
            world.give(id(1), failed).unwrap();
        }
        fail(&mut world);
        let grant = world.grant(0);
        world.give(id(1), Input::Restart(Ok(grant))).unwrap();
        assert_eq!(world.now(id(1)).unwrap().restarts.attempts, attempt);
    }
    // And one that had run for long, as this configuration has it.
    world.says(id(1), 1, VmmState::Starting);
    world.says(id(1), 2, VmmState::Running);
    world.policy.restart.stable = lifecycle::Span::default();
    fail(&mut world);
    let grant = world.grant(0);
    world.give(id(1), Input::Restart(Ok(grant))).unwrap();
    assert_eq!(world.now(id(1)).unwrap().restarts.attempts, 1);
    assert_eq!(check(&world, Scope::All, None).findings, []);
}

#[test]
fn a_restart_that_skips_an_attempt_is_found() {
    let mut world = World::simulated();
    world.create(id(1), true);
    world.says(id(1), 1, VmmState::Starting);
    world.says(id(1), 2, VmmState::Running);
    world.says(id(1), 3, VmmState::Failed);
    let grant = world.grant(0);
    let input = Input::Restart(Ok(grant));
    let deadline = world.policy.start_deadline;
    let size = world.now(id(1)).unwrap().spec.size;
    let (saga, vmm, sled) = (grant.saga, grant.vmm, grant.sled);
    let origin = lifecycle::Origin::Automatic;
    let events = [
        InstanceEvent::RestartTried { attempt: 2 },
        InstanceEvent::StartBegan { saga, origin, vmm, sled, size, deadline },
        InstanceEvent::SagaAdvanced { saga, step: lifecycle::Step::Register },
    ];
    world.record(id(1), &events, input);
    let finding = first(&world, 1);
    assert_eq!(finding.kind, FindingKind::DecidesDifferently);
    assert!(finding.detail.contains("RestartTried { attempt: 1 }"), "{}", finding.detail);
}

#[test]
fn a_sled_that_cannot_be_read_is_told_once_and_not_for_all_that_run_there() {
    let mut world = World::simulated();
    let registered = lifecycle::SledEvent::Registered {
        id: world::sled(5),
        name: "sim-5".to_owned(),
        threads: 64,
        memory: 64 << 30,
        cpu_family: "sim".to_owned(),
        address: String::new(),
    };
    let context = Context::of(Actor::Sled(world::sled(5)));
    let stream = StreamName::Sled(world::sled(5));
    let mut append = world.build(stream, &[Event::from(registered)], &context);
    append.events[0].schema = 99;
    world.send(append);
    world.create(id(1), false);
    let grant = world.grant(5);
    world.give(id(1), Input::Command(Command::Start { grant: Some(grant) })).unwrap();
    let report = check(&world, Scope::All, None);
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert_eq!(report.findings[0].kind, FindingKind::Unreadable);
    assert_eq!((&report.findings[0].stream, report.findings[0].instance), (&stream.to_string(), None));
}

#[test]
fn findings_are_bounded_and_the_rest_are_counted() {
    let mut world = World::simulated();
    world.create(id(1), false);
    for _ in 0..replay::verify::FINDINGS_MAX + 20 {
        let short = lifecycle::Shortage::NoSled;
        let event = InstanceEvent::StartNotPlaced { origin: lifecycle::Origin::User, short };
        world.record(id(1), &[event], Input::Reconsider);
    }
    let report = check(&world, Scope::All, None);
    assert_eq!((report.findings.len(), report.findings_dropped), (replay::verify::FINDINGS_MAX, 20));
}

#[test]
fn an_instance_that_never_was_cannot_be_verified() {
    let world = World::simulated();
    let verified = verify(&world.log, Scope::One(id(1)), &Options::default(), &mut |_| ());
    assert_eq!(verified, Err(Error::NoSuchInstance(id(1))));
}

/// A log that has lost positions for good, as one that serves what is left of a damaged journal.
struct Holed {
    log: Arc<dyn Log>,
    lost: std::ops::RangeInclusive<u64>,
    /// Whether it is known where the damage ends.
    is_bounded: bool,
    streams: Vec<StreamId>,
}

impl Source for Holed {
    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        if self.streams.contains(&stream) {
            return Err(ReadError::Quarantined { stream, detail: "a flipped bit".to_owned() });
        }
        self.log.read_stream(stream, from, limit)
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        if self.lost.contains(&from.get()) {
            return Err(ReadError::Damaged {
                position: from,
                last: self.is_bounded.then(|| Position::new(*self.lost.end())),
                streams: self.streams.clone(),
                detail: "a flipped bit".to_owned(),
            });
        }
        let mut records = self.log.read_all(from, limit)?;
        if from.get() < *self.lost.start() {
            records.retain(|record| record.position.get() < *self.lost.start());
        }
        Ok(records)
    }

    fn durable(&self) -> Position {
        self.log.durable()
    }
}

#[test]
fn damage_is_named_and_what_is_left_is_verified_and_counted() {
    let mut world = World::simulated();
    world.live(id(1));
    world.live(id(2));
    world.live(id(3));
    let lost = world.folds[&id(2)][3].head.position..=world.folds[&id(2)][6].head.position;
    let count = lost.end() - lost.start() + 1;
    let (log, streams) = (Arc::clone(&world.log), vec![StreamName::Instance(id(2)).id()]);
    let mut holed = Holed { log, lost: lost.clone(), is_bounded: true, streams };
    let options = Options::default();
    let durable = world.log.durable().get();

    let all = verify(&holed, Scope::All, &options, &mut |_| ()).unwrap();
    assert_eq!(
        (all.findings.len(), all.events, all.instances),
        (1, durable - count, 3),
        "{:?}",
        all.findings
    );
    let finding = all.first().unwrap();
    assert_eq!((finding.kind, finding.position), (FindingKind::Unreadable, *lost.start()));
    let one = verify(&holed, Scope::One(id(2)), &options, &mut |_| ()).unwrap();
    assert_eq!(one.first().unwrap().stream, StreamName::Instance(id(2)).to_string());
    let stats = replay::stats(&holed, 1, &mut |_| ()).unwrap();
    assert_eq!((stats.events, stats.positions_damaged, stats.instances_skipped), (durable - count, count, 1));

    holed.is_bounded = false;
    let all = verify(&holed, Scope::All, &options, &mut |_| ()).unwrap();
    assert_eq!((all.findings.len(), all.events), (1, lost.start() - 1));
    assert!(matches!(replay::stats(&holed, 1, &mut |_| ()), Err(Error::Read { .. })));
}

#[test]
fn a_journal_on_disk_is_verified_offline_like_the_log_that_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::simulated();
    world.walk(3, 3, 200);
    let records = world.log.read_all(eventlog::Position::new(1), 100_000).unwrap();
    copy(&records, dir.path());
    let reader = JournalReader::open(dir.path()).unwrap();
    let mut seen = Vec::new();
    let offline =
        verify(&reader, Scope::All, &Options::default(), &mut |progress| seen.push(progress.done)).unwrap();
    assert_eq!(offline, check(&world, Scope::All, None));
    assert_eq!(seen.last(), Some(&offline.durable));
    let history = replay::history(&reader, id(0), 0, 1_000);
    assert_eq!(history, replay::history(&world.log, id(0), 0, 1_000));
}

/// Writes the same records to a journal in `dir`, and closes it.
fn copy(records: &[eventlog::Record], dir: &std::path::Path) {
    let (log, _) = Journal::open(dir, JournalConfig::new(StoreId([7; 16]))).unwrap();
    let mut start = 0;
    while start < records.len() {
        let count = usize::from(records[start].index.1);
        let append = &records[start..start + count];
        let claim = futures::executor::block_on(log.claim(append[0].stream)).unwrap();
        let cause = |record: &eventlog::Record| match record.index.0 {
            0 if record.cause.get() == 0 => eventlog::Cause::None,
            0 => eventlog::Cause::Position(record.cause),
            _ => eventlog::Cause::InAppend(0),
        };
        let event = |record: &eventlog::Record| eventlog::NewEvent {
            kind: record.kind,
            schema: record.schema,
            codec: record.codec,
            time_us: record.time_us,
            cause: cause(record),
            payload: record.payload.clone(),
        };
        let outcome = futures::executor::block_on(log.append(eventlog::Append {
            stream: append[0].stream,
            epoch: claim.epoch,
            expected: claim.head.version,
            events: append.iter().map(event).collect(),
            context: append[0].context.clone().unwrap(),
        }));
        assert!(matches!(outcome, eventlog::AppendOutcome::Appended { .. }), "{outcome:?}");
        start += count;
    }
    futures::executor::block_on(log.close());
}
