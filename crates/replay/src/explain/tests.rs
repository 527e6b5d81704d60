use super::*;
use lifecycle::event::EventMeta;
use lifecycle::input::{EffectResult, MigrateGrant, SideReport, StartGrant, VmmReport};
use lifecycle::migration::SideState;
use lifecycle::vmm::Evidence;
use lifecycle::{
    Address, Command, Decision, Generation, Input, InstanceSpec, MigrationId, OpId, ProjectId, SagaKind,
    Size, Step, VmmState, decide, effects, evolve,
};
use std::collections::{BTreeMap, VecDeque};
use uuid::Uuid;

struct Away;

impl Present for Away {
    fn sled_name(&self, sled: SledId) -> String {
        format!("sim-{}", sled.uuid().as_u128())
    }

    fn contact(&self, _: SledId) -> Contact {
        Contact {
            last_heard: None,
            unreachable: Some(Unreachable { reason: "no answer".to_owned(), since: Timestamp::default() }),
            held_back: None,
        }
    }

    fn usual(&self, _: Doing) -> Option<Span> {
        None
    }
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn created() -> Instance {
    let spec = InstanceSpec {
        project: ProjectId::new(id(1)),
        name: "web-1".to_owned(),
        description: String::new(),
        hostname: "web-1".to_owned(),
        size: Size { ncpus: 2, memory: 4 << 30 },
        auto_restart: None,
        cpu_platform: None,
        boot_disk: None,
        jumbo_frames: false,
    };
    let address = Address { virtual_ip: [172, 16, 0, 5].into(), mac: [0; 6], vni: 1_024 };
    let instance = InstanceId::new(id(2));
    let create = Command::Create { id: instance, spec: Box::new(spec), address, start: None };
    give(None, &Input::Command(create)).expect("a first event")
}

/// The state after an input; none if it was refused or changed nothing.
fn give(state: Option<&Instance>, input: &Input) -> Option<Instance> {
    let Ok(Decision::Events(events)) = decide(state, input, &Policy::default()) else {
        return None;
    };
    let mut after = state.cloned();
    for event in &events {
        let next = after.as_ref().map_or(1, |state| state.head.version + 1);
        // Times stand still, so that states that differ in nothing else are one.
        let meta = EventMeta { version: next, position: next, time: Timestamp::from_micros(1) };
        evolve(&mut after, event, meta);
    }
    if events.is_empty() { None } else { after }
}

/// Everything that may be said to it next, drawn from what it wishes and what sleds may say.
fn inputs(state: &Instance) -> Vec<Input> {
    let fresh = u128::from(state.head.version) * 16 + 100;
    let sled = |n| SledId::new(id(n));
    let grant = StartGrant { saga: SagaId::new(id(fresh)), vmm: VmmId::new(id(fresh + 1)), sled: sled(1) };
    let target = MigrateGrant {
        saga: SagaId::new(id(fresh + 2)),
        migration: MigrationId::new(id(fresh + 3)),
        vmm: VmmId::new(id(fresh + 4)),
        sled: sled(2),
    };
    let op = OpId::new(id(fresh + 5));
    let mut inputs = vec![
        Input::Command(Command::Start { grant: Some(grant) }),
        Input::Command(Command::Stop { op }),
        Input::Command(Command::Reboot { op }),
        Input::Command(Command::Delete),
        Input::Command(Command::Migrate { grant: Some(target) }),
        Input::Command(Command::CancelMigration),
        Input::Command(Command::ForceStop { assert_dead: false, reason: "x".to_owned() }),
        Input::Restart(Ok(grant)),
        Input::Restart(Err(lifecycle::Shortage::NoSled)),
    ];
    if let Some(saga) = &state.saga {
        let saga = saga.id;
        inputs.push(Input::Command(Command::PauseSaga { saga }));
        inputs.push(Input::Command(Command::ResumeSaga { saga }));
        inputs.push(Input::Command(Command::CancelSaga { saga }));
    }
    inputs.extend(deadlines(state, &Policy::default()).into_iter().map(|d| Input::Deadline(d.kind)));
    for effect in effects(state) {
        inputs.push(Input::Outcome { effect, result: EffectResult::Done(None) });
        let refused = EffectResult::Refused(lifecycle::Refusal::NotPossible);
        inputs.push(Input::Outcome { effect, result: refused });
    }
    for vmm in state.vmms.values() {
        for (n, reported) in VmmState::ALL.into_iter().enumerate() {
            let generation = Generation::new(1 + n as u64);
            let report = VmmReport { state: reported, generation, migration_in: None, migration_out: None };
            inputs.push(Input::Report { sled: vmm.sled, vmm: vmm.id, report });
        }
        inputs.push(Input::Gone { vmm: vmm.id, evidence: Evidence::SledRebooted });
        if let Some(migration) = state.migration {
            for side in [SideState::InProgress, SideState::Completed, SideState::Failed] {
                let part =
                    Some(SideReport { migration, state: side, generation: Generation::new(side as u64) });
                let (state, generation) = (vmm.state, vmm.generation);
                let report = VmmReport { state, generation, migration_in: part, migration_out: part };
                inputs.push(Input::Report { sled: vmm.sled, vmm: vmm.id, report });
            }
        }
    }
    inputs
}

/// What makes two states the same for an explanation.
fn shape(state: &Instance) -> String {
    let saga = state.saga.as_ref().map(|saga| (saga.kind, saga.step, saga.origin, saga.pause.is_some()));
    let vmms: Vec<_> =
        state.vmms.values().map(|vmm| (vmm.state, vmm.gone.is_some(), vmm.run_may_be_sent)).collect();
    let outcome = state.linked_migration().map(|migration| state.outcome_of(migration));
    let orders = (state.stop.is_some(), state.reboot.is_some(), state.failed.is_some(), state.intent);
    format!("{:?} {saga:?} {vmms:?} {outcome:?} {orders:?}", state.run_state())
}

#[test]
fn every_reachable_state_and_saga_step_is_explained() {
    let mut seen = BTreeMap::new();
    let mut open = VecDeque::from([created()]);
    while let Some(state) = open.pop_front() {
        if seen.len() > 3_000 || seen.contains_key(&shape(&state)) {
            continue;
        }
        let told = explain(&state, &Policy::default(), &Away);
        let shown = format!("{}\n{told:#?}", shape(&state));
        assert!(!told.because.is_empty(), "no cause: {shown}");
        assert!(told.because.iter().all(|why| !why.is_empty()), "{shown}");
        let is_over = told.run_state == RunState::Destroyed;
        assert!(is_over || !told.next.is_empty() || !told.waits.is_empty(), "nothing comes next: {shown}");
        assert!(!told.can.is_empty(), "nothing can be done: {shown}");
        if told.run_state.is_transitional() {
            assert!(told.owner != Owner::Nobody, "nobody sees to it: {shown}");
            assert!(!told.waits.is_empty(), "it waits for nothing: {shown}");
        }
        let held = state.vmms.values().filter(|vmm| vmm.reservation.is_some()).count();
        assert_eq!(told.holds.len(), held, "{shown}");
        let locked = told.quarantined("a record is damaged");
        assert!(
            locked.because[0].contains("a record is damaged") && locked.owner == Owner::Nobody,
            "{shown}"
        );
        assert!(!locked.next.is_empty() && !locked.can.is_empty() && locked.waits.is_empty(), "{shown}");
        for input in inputs(&state) {
            open.extend(give(Some(&state), &input));
        }
        let saga = state.saga.as_ref().map(|saga| (saga.kind, saga.step, saga.pause.is_some()));
        seen.insert(shape(&state), (state.run_state().as_str(), saga));
    }
    let steps: std::collections::BTreeSet<_> = seen.values().filter_map(|(_, saga)| *saga).collect();
    // Every step that waits for something outside, going on and paused.
    let waits = [
        (SagaKind::Start, Step::Fence),
        (SagaKind::Start, Step::Register),
        (SagaKind::Start, Step::SetRunning),
    ];
    let moves = [Step::Fence, Step::Register, Step::MigrationTarget].map(|step| (SagaKind::Migrate, step));
    for (kind, step) in waits.into_iter().chain(moves) {
        for is_paused in [false, true] {
            assert!(steps.contains(&(kind, step, is_paused)), "{kind:?} {step:?} {is_paused}: {steps:?}");
        }
    }
    let mut table = BTreeMap::<_, usize>::new();
    for row in seen.values() {
        *table.entry(row).or_default() += 1;
    }
    println!("{:<10}  {:<8} {:<16}  {:<6}  explained", "state", "saga", "step", "");
    for ((state, saga), count) in &table {
        let (kind, step, paused) = saga.map_or_else(Default::default, |(kind, step, is_paused)| {
            (format!("{kind:?}"), format!("{step:?}"), if is_paused { "paused" } else { "" })
        });
        println!("{state:<10}  {kind:<8} {step:<16}  {paused:<6}  {count}");
    }
    let states = table.keys().map(|(state, _)| *state).collect::<std::collections::BTreeSet<_>>().len();
    println!("{} shapes of state, {states} visible states, {} saga steps", seen.len(), steps.len());
    // Repairing is a state of the API that no rule leads to, and creating is over with its one append.
    assert!(states >= RunState::ALL.len() - 2, "{table:?}");
}

#[test]
fn a_start_that_waits_at_its_fence_names_the_sled_and_what_is_known_of_it() {
    let mut state = created();
    let vmm = VmmId::new(id(50));
    let start = |n: u128, vmm| {
        let grant = StartGrant { saga: SagaId::new(id(n)), vmm, sled: SledId::new(id(n)) };
        Input::Command(Command::Start { grant: Some(grant) })
    };
    let report = |vmm, sled, generation, reported| {
        let generation = Generation::new(generation);
        let report = VmmReport { state: reported, generation, migration_in: None, migration_out: None };
        Input::Report { sled: SledId::new(id(sled)), vmm, report }
    };
    let force = Input::Command(Command::ForceStop { assert_dead: false, reason: "hung".to_owned() });
    for input in [
        start(3, vmm),
        report(vmm, 3, 1, VmmState::Starting),
        report(vmm, 3, 2, VmmState::Running),
        force,
        start(4, VmmId::new(id(51))),
    ] {
        state = give(Some(&state), &input).expect("it changes something");
    }
    let told = explain(&state, &Policy::default(), &Away);
    assert!(matches!(told.owner, Owner::Saga { name: "start", step: 4, .. }), "{:?}", told.owner);
    let wait = &told.waits[0];
    assert_eq!((wait.vmm, wait.sled_name.as_str()), (vmm, "sim-3"));
    assert!(wait.contact.unreachable.is_some() && wait.until.is_some());
    assert!(told.can.iter().any(|command| command.contains("--assert-dead")), "{:?}", told.can);
}
