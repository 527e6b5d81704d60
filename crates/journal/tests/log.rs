//! Through a log and back: appends that are built here are taken, read and folded; what cannot be read or
//! folded is named.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

use bytes::Bytes;
use eventlog::{AppendOutcome, CodecId, Epoch, LIMITS, Log, Position, Record, SimLog, TraceContext, Version};
use futures::FutureExt;
use journal::{
    Actor, Context, DecodeProblem, Event, FOLD_VERSION, FoldError, SnapshotError, StreamName, TooLarge,
    append, decode_snapshot, encode_snapshot, fold_instance, fold_project, fold_sled, read,
};
use lifecycle::input::StartGrant;
use lifecycle::{
    Address, Command, Decision, Generation, Input, Instance, InstanceId, InstanceSpec, OpId, Policy,
    ProjectEvent, ProjectId, RequestId, SagaId, Size, SledEvent, SledId, Step, SystemEvent, Timestamp, VmmId,
    VmmState, decide,
};
use std::net::Ipv4Addr;
use uuid::Uuid;

const BUILD: &str = "0.1.0-test";

fn instance_id() -> InstanceId {
    InstanceId::new(Uuid::from_u128(1))
}

fn stream() -> StreamName {
    StreamName::Instance(instance_id())
}

fn sled() -> SledId {
    SledId::new(Uuid::from_u128(2))
}

fn grant() -> StartGrant {
    let (saga, vmm) = (SagaId::new(Uuid::from_u128(3)), VmmId::new(Uuid::from_u128(4)));
    StartGrant { saga, vmm, sled: sled() }
}

fn create() -> Input {
    let spec = InstanceSpec {
        project: ProjectId::new(Uuid::from_u128(9)),
        name: "web-1".to_owned(),
        description: String::new(),
        hostname: "web-1".to_owned(),
        size: Size { ncpus: 2, memory: 4 << 30 },
        auto_restart: None,
        cpu_platform: None,
        boot_disk: None,
        jumbo_frames: false,
    };
    let address =
        Address { virtual_ip: Ipv4Addr::new(172, 30, 0, 5), mac: [0xa8, 0x40, 0, 0, 0, 5], vni: 1024 };
    let (id, spec) = (instance_id(), Box::new(spec));
    Input::Command(Command::Create { id, spec, address, start: Some(Ok(grant())) })
}

fn report(generation: u64, state: VmmState) -> Input {
    let report = lifecycle::VmmReport {
        state,
        generation: Generation::new(generation),
        migration_in: None,
        migration_out: None,
    };
    Input::Report { sled: sled(), vmm: grant().vmm, report }
}

/// A whole life: created and started, run, stopped by a user, deleted.
fn life() -> Vec<Input> {
    vec![
        create(),
        report(1, VmmState::Starting),
        report(2, VmmState::Running),
        Input::Command(Command::Stop { op: OpId::new(Uuid::from_u128(5)) }),
        report(3, VmmState::Stopping),
        report(4, VmmState::Destroyed),
        Input::Command(Command::Delete),
    ]
}

/// Decides each input on the fold of the log, and appends what was decided.
fn record_life(log: &SimLog, inputs: &[Input]) -> Vec<Instance> {
    let claim = log.claim(stream().id()).now_or_never().unwrap().unwrap();
    let mut states: Vec<Instance> = Vec::new();
    for input in inputs {
        let state = states.last();
        let Decision::Events(events) = decide(state, input, &Policy::default()).unwrap() else {
            panic!("grants come with the inputs");
        };
        let events: Vec<Event> = events.into_iter().map(Event::from).collect();
        let (version, last) = state.map_or((0, Timestamp::default()), |s| (s.head.version, s.head.time));
        let context = Context { input: Some(input.clone()), ..Context::of(Actor::Sled(sled())) };
        let append = append(
            stream(),
            claim.epoch,
            Version::new(version),
            &events,
            &context,
            Timestamp::from_micros(1_000),
            last,
            BUILD,
        );
        let outcome = log.append(append.unwrap()).now_or_never().unwrap();
        assert!(matches!(outcome, AppendOutcome::Appended { .. }), "{outcome:?}");
        states.push(fold_instance(&records(log)).unwrap().unwrap());
    }
    states
}

fn records(log: &SimLog) -> Vec<Record> {
    log.read_stream(stream().id(), Version::new(1), 1_000).unwrap()
}

fn one_event(event: impl Into<Event>, context: &Context) -> Result<eventlog::Append, TooLarge> {
    let time = Timestamp::from_micros(7);
    append(StreamName::System, Epoch::new(1), Version::ZERO, &[event.into()], context, time, time, BUILD)
}

#[test]
fn a_life_is_decided_again_from_what_the_log_kept() {
    let log = SimLog::new();
    let states = record_life(&log, &life());
    assert_eq!(states.last().unwrap().run_state(), lifecycle::RunState::Destroyed);
    let recorded: Vec<_> = records(&log).iter().map(|record| read(record).unwrap()).collect();
    let kept: Vec<Input> =
        recorded.iter().filter_map(|r| r.context.as_ref().and_then(|c| c.input.clone())).collect();
    assert_eq!(kept, life());
    let again = SimLog::new();
    assert_eq!(record_life(&again, &kept), states);
    assert_eq!(records(&again), records(&log));
}

#[test]
fn times_rise_strictly_and_causes_point_to_the_first_event() {
    let log = SimLog::new();
    record_life(&log, &life());
    let recorded: Vec<_> = records(&log).iter().map(|record| read(record).unwrap()).collect();
    assert!(recorded.windows(2).all(|pair| pair[0].meta.time < pair[1].meta.time), "the clock stood still");
    assert_eq!(recorded[0].meta.time, Timestamp::from_micros(1_000));
    for recorded in &recorded {
        let first = recorded.meta.position - u64::from(recorded.index.0);
        assert_eq!(recorded.cause, if recorded.index.0 == 0 { 0 } else { first });
        assert_eq!(recorded.context.is_some(), recorded.index.0 == 0);
        assert_eq!(recorded.stream, stream());
    }
    assert!(recorded.iter().any(|recorded| recorded.index.1 > 1), "a decision of several events");
}

#[test]
fn the_context_reads_back_as_written() {
    let context = Context {
        actor: Actor::User("ada".to_owned()),
        request: Some(RequestId::new(Uuid::from_u128(11))),
        saga: Some((grant().saga, Step::SetRunning)),
        trace: Some(TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 }),
        cause: Some(1),
        input: Some(Input::Reconsider),
        reason: Some("firmware".to_owned()),
        is_rehearsal: false,
    };
    let log = SimLog::new();
    let claim = log.claim(StreamName::System.id()).now_or_never().unwrap().unwrap();
    for (version, cause) in [(0, None), (1, Some(1))] {
        let context = Context { cause, ..context.clone() };
        let mut append = one_event(SystemEvent::DaemonStopped, &context).unwrap();
        (append.epoch, append.expected) = (claim.epoch, Version::new(version));
        assert!(matches!(log.append(append).now_or_never(), Some(AppendOutcome::Appended { .. })));
    }
    let records = log.read_all(Position::new(1), 10).unwrap();
    let recorded = read(&records[1]).unwrap();
    assert_eq!(recorded.cause, 1);
    assert_eq!(recorded.event, SystemEvent::DaemonStopped.into());
    let read = recorded.context.unwrap();
    assert_eq!(read.build, BUILD);
    let back = Context {
        actor: read.actor,
        request: read.request,
        saga: read.saga,
        trace: read.trace,
        cause: Some(recorded.cause),
        input: read.input,
        reason: read.reason,
        is_rehearsal: false,
    };
    assert_eq!(back, context);
}

#[test]
fn what_the_log_would_refuse_is_refused_here() {
    let context = Context::of(Actor::Daemon);
    let epoch = Epoch::new(1);
    let of = |events: &[Event]| {
        let time = Timestamp::default();
        append(StreamName::System, epoch, Version::ZERO, events, &context, time, time, BUILD).map(drop)
    };
    let stopped = Event::from(SystemEvent::DaemonStopped);
    assert_eq!(of(&[]), Err(TooLarge::NoEvents(StreamName::System)));
    assert_eq!(of(&vec![stopped.clone(); LIMITS.append_events_max]), Ok(()));
    let events = LIMITS.append_events_max + 1;
    assert_eq!(of(&vec![stopped; events]), Err(TooLarge::Events { stream: StreamName::System, events }));
    let build = "x".repeat(LIMITS.record_bytes_max);
    let huge = Event::from(SystemEvent::DaemonStarted { build, after_clean_stop: false });
    assert!(matches!(of(&[huge]), Err(TooLarge::Event { event: "DaemonStarted", .. })));
}

#[test]
fn the_largest_event_that_is_let_through_is_taken_by_the_log() {
    let context = Context {
        request: Some(RequestId::new(Uuid::nil())),
        saga: Some((grant().saga, Step::Reserve)),
        trace: Some(TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 }),
        ..Context::of(Actor::User("u".repeat(300)))
    };
    let started = |bytes| SystemEvent::DaemonStarted { build: "x".repeat(bytes), after_clean_stop: true };
    let mut bytes = LIMITS.record_bytes_max;
    let append = loop {
        match one_event(started(bytes), &context) {
            Ok(append) => break append,
            Err(_) => bytes -= 1,
        }
    };
    let log = SimLog::new();
    let epoch = log.claim(append.stream).now_or_never().unwrap().unwrap().epoch;
    let outcome = log.append(eventlog::Append { epoch, ..append }).now_or_never().unwrap();
    assert!(matches!(outcome, AppendOutcome::Appended { .. }), "{outcome:?}");
    assert!(read(&log.read_all(Position::new(1), 1).unwrap()[0]).is_ok());
}

#[test]
fn a_record_that_cannot_be_read_is_named() {
    let log = SimLog::new();
    record_life(&log, &life()[..1]);
    let good = records(&log).remove(0);
    let saga = |step| {
        let context = good.context.clone().unwrap();
        Some(eventlog::AppendContext { saga: Some(([1; 16], step)), ..context })
    };
    type IsExpected = fn(&DecodeProblem) -> bool;
    let cases: Vec<(Record, IsExpected)> = vec![
        (Record { schema: 3, ..good.clone() }, |p| matches!(p, DecodeProblem::NewerSchema { known: 2 })),
        (Record { kind: 9, ..good.clone() }, |p| matches!(p, DecodeProblem::UnknownKind)),
        (Record { codec: CodecId(7), ..good.clone() }, |p| matches!(p, DecodeProblem::UnknownCodec(_))),
        (Record { payload: Bytes::new(), ..good.clone() }, |p| matches!(p, DecodeProblem::Malformed(_))),
        (Record { stream: StreamName::System.id(), ..good.clone() }, |p| {
            matches!(p, DecodeProblem::WrongStream)
        }),
        (
            Record { stream: eventlog::StreamId::new(eventlog::StreamKind(77), [0; 16]), ..good.clone() },
            |p| matches!(p, DecodeProblem::UnknownStream),
        ),
        (
            Record {
                stream: StreamName::Instance(InstanceId::new(Uuid::from_u128(77))).id(),
                ..good.clone()
            },
            |p| matches!(p, DecodeProblem::WrongStream),
        ),
        (Record { context: saga(11), ..good.clone() }, |p| matches!(p, DecodeProblem::Malformed(_))),
    ];
    for (record, is_expected) in cases {
        let error = read(&record).unwrap_err();
        assert!(is_expected(&error.problem), "{error}");
        assert_eq!((error.position, error.stream), (record.position, record.stream));
        assert_eq!((error.kind, error.schema), (record.kind, record.schema));
        let text = error.to_string();
        assert!(text.starts_with("the event at position 1 of stream"), "{text}");
    }
}

#[test]
fn an_impossible_event_poisons_its_fold_and_nothing_else() {
    let log = SimLog::new();
    record_life(&log, &life()[..3]);
    let good = records(&log);
    let mut twice = good.clone();
    let next = Version::new(good.len() as u64 + 1);
    let position = Position::new(good.len() as u64 + 1);
    twice.push(Record { version: next, position, ..good[0].clone() });
    let error = fold_instance(&twice).unwrap_err();
    let FoldError::Poison { version, event, detail, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((*version, *event), (next.get(), "Created"));
    assert_eq!(detail, "an instance is created once");
    assert!(fold_instance(&good).unwrap().is_some());
    assert!(matches!(fold_instance(&good[1..]), Err(FoldError::Poison { version: 2, .. })), "a gap");
    assert!(matches!(fold_project(&good), Err(FoldError::Poison { version: 1, .. })), "another sort");
    assert_eq!(fold_instance([]), Ok(None));
}

#[test]
fn projects_and_sleds_fold_too() {
    let (project, sled) = (ProjectId::new(Uuid::from_u128(9)), sled());
    let log = SimLog::new();
    let put = |stream: StreamName, event: Event| {
        let claim = log.claim(stream.id()).now_or_never().unwrap().unwrap();
        let (context, time) = (Context::of(Actor::Daemon), Timestamp::from_micros(5));
        let append =
            append(stream, claim.epoch, claim.head.version, &[event], &context, time, time, BUILD).unwrap();
        assert!(matches!(log.append(append).now_or_never(), Some(AppendOutcome::Appended { .. })));
    };
    let (name, description) = ("demo".to_owned(), String::new());
    put(
        StreamName::Project(project),
        ProjectEvent::Created { id: project, name, description, vni: 1024 }.into(),
    );
    put(StreamName::Project(project), ProjectEvent::Deleted.into());
    let registered = SledEvent::Registered {
        id: sled,
        name: "sled-0".to_owned(),
        threads: 8,
        memory: 1 << 34,
        cpu_family: "sim".to_owned(),
        address: String::new(),
    };
    put(StreamName::Sled(sled), registered.into());
    let read = |stream: StreamName| log.read_stream(stream.id(), Version::new(1), 10).unwrap();
    let project = fold_project(&read(StreamName::Project(project))).unwrap().unwrap();
    assert_eq!(project.deleted, Some(Timestamp::from_micros(6)));
    let sled = fold_sled(&read(StreamName::Sled(sled))).unwrap().unwrap();
    assert_eq!(sled.properties.threads, 8);
}

#[test]
fn a_snapshot_at_every_version_is_the_fold() {
    let log = SimLog::new();
    for state in record_life(&log, &life()) {
        assert_eq!(decode_snapshot(&encode_snapshot(&state)), Ok(state));
    }
}

/// An instance that migrates, each time without one thing that its migration refers to.
fn contradictions_of_a_migration() -> Vec<Instance> {
    let log = SimLog::new();
    let grant = lifecycle::input::MigrateGrant {
        saga: SagaId::new(Uuid::from_u128(20)),
        migration: lifecycle::MigrationId::new(Uuid::from_u128(21)),
        vmm: VmmId::new(Uuid::from_u128(22)),
        sled: SledId::new(Uuid::from_u128(23)),
    };
    let migrate = Input::Command(Command::Migrate { grant: Some(grant) });
    let inputs: Vec<Input> = life()[..3].iter().cloned().chain([migrate]).collect();
    let migrating = record_life(&log, &inputs).pop().unwrap();
    assert_eq!(decode_snapshot(&encode_snapshot(&migrating)), Ok(migrating.clone()));
    let source = migrating.active.unwrap();
    let without = |change: fn(&mut Instance, VmmId)| {
        let mut instance = migrating.clone();
        change(&mut instance, source);
        instance
    };
    vec![
        without(|instance, source| {
            // Not the active slot's: only the migration refers to it.
            instance.active = None;
            instance.vmms.remove(&source);
        }),
        without(|instance, source| instance.vmms.retain(|id, _| *id == source)),
        without(|instance, _| instance.migrations.clear()),
        without(|instance, _| instance.migration = None),
    ]
}

#[test]
fn a_snapshot_that_is_old_cut_or_contradicts_itself_is_refused() {
    let log = SimLog::new();
    let running = record_life(&log, &life()[..3]).pop().unwrap();
    let bytes = encode_snapshot(&running);
    let mut other = bytes.to_vec();
    other[0] ^= 0x40;
    assert_eq!(decode_snapshot(&other), Err(SnapshotError::OtherFold { found: FOLD_VERSION ^ 0x40 }));
    for end in 0..bytes.len() {
        assert!(decode_snapshot(&bytes[..end]).is_err(), "cut at {end}");
    }
    let mut dangling = running.clone();
    dangling.vmms.clear();
    assert!(matches!(decode_snapshot(&encode_snapshot(&dangling)), Err(SnapshotError::Malformed(_))));
    for contradiction in contradictions_of_a_migration() {
        let decoded = decode_snapshot(&encode_snapshot(&contradiction));
        assert!(matches!(decoded, Err(SnapshotError::Malformed(_))), "{decoded:?}");
    }
    for bit in 32..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(instance) = decode_snapshot(&damaged) {
            // Wrong perhaps, which checksums are for; but never a trap for the rules.
            let _ = (instance.run_state(), instance.is_quiesced(), lifecycle::effects(&instance));
        }
    }
}
