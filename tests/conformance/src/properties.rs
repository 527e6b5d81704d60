//! Properties of fold and decision, over what really happened: the histories of the scenarios' basic runs.
//!
//! Every state that a history passed through is given every sort of input, so that "reachable" needs no
//! generator of its own.

use crate::runner::{Ways, history};
use crate::scenarios::all;
use journal::{Event, Recorded, StreamName};
use lifecycle::input::{EffectResult, MigrateGrant, Refusal, SideReport, StartGrant};
use lifecycle::invariant::{check, check_step};
use lifecycle::migration::SideState;
use lifecycle::vmm::Evidence;
use lifecycle::{
    Command, Decision, Generation, Input, Instance, InstanceEvent, InstanceId, MigrationId, OpId, Policy,
    SagaId, SledId, VmmId, VmmReport, VmmState, deadlines, decide, effects, evolve,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// One append of an instance, with what it was decided on.
struct Step {
    id: InstanceId,
    events: Vec<Recorded>,
}

/// Every append of every instance in the histories of the update's and the sagas' scenarios.
fn steps() -> Vec<Vec<Step>> {
    let wanted = |name: &str| name.starts_with('u') || name.starts_with('s');
    let scenarios = all().into_iter().filter(|scenario| scenario.ways == Ways::Five && wanted(scenario.name));
    scenarios
        .flat_map(|scenario| {
            (0..scenario.variants).map(move |variant| history(&scenario, variant)).collect::<Vec<_>>()
        })
        .map(appends)
        .collect()
}

fn appends(history: Vec<Recorded>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for recorded in history {
        let StreamName::Instance(id) = recorded.stream else { continue };
        if recorded.index.0 == 0 {
            steps.push(Step { id, events: vec![recorded] });
        } else if let Some(step) = steps.last_mut() {
            step.events.push(recorded);
        }
    }
    steps
}

fn fold(state: &mut Option<Instance>, events: &[Recorded]) {
    for recorded in events {
        if let Event::Instance(event) = &recorded.event {
            evolve(state, event, recorded.meta);
        }
    }
}

/// Calls `each` with the state before every append, and the append. Answers how many there were.
fn walk(mut each: impl FnMut(Option<&Instance>, &Step)) -> usize {
    let mut count = 0;
    for run in steps() {
        let mut states: BTreeMap<InstanceId, Instance> = BTreeMap::new();
        for step in &run {
            let mut state = states.remove(&step.id);
            each(state.as_ref(), step);
            fold(&mut state, &step.events);
            states.insert(step.id, state.expect("an append leaves an instance"));
            count += 1;
        }
    }
    assert!(count > 100, "there are histories to look at: {count}");
    count
}

const fn op(n: u128) -> OpId {
    OpId::new(Uuid::from_u128(n))
}

fn commands(state: &Instance) -> Vec<Command> {
    let (saga, vmm) = (SagaId::new(Uuid::from_u128(0xa1)), VmmId::new(Uuid::from_u128(0xa2)));
    let sled = SledId::new(Uuid::from_u128(0xa3));
    let migration = MigrationId::new(Uuid::from_u128(0xa4));
    let mut change = state.spec.changeable();
    change.size.ncpus = 3;
    let under_way = state.saga.as_ref().map_or(saga, |saga| saga.id);
    vec![
        Command::Start { grant: None },
        Command::Start { grant: Some(StartGrant { saga, vmm, sled }) },
        Command::Stop { op: op(0xb1) },
        Command::Reboot { op: op(0xb2) },
        Command::Delete,
        Command::Migrate { grant: None },
        Command::Migrate { grant: Some(MigrateGrant { saga, migration, vmm, sled }) },
        Command::CancelMigration,
        Command::CancelSaga { saga: under_way },
        Command::ForceStop { assert_dead: false, reason: "a property".to_owned() },
        Command::ForceStop { assert_dead: true, reason: "a property".to_owned() },
        Command::Update { change: Box::new(change) },
    ]
}

const SIDES: [SideState; 4] =
    [SideState::Pending, SideState::InProgress, SideState::Completed, SideState::Failed];

/// Everything that a sled may say of the instance's VMMs.
fn reports(state: &Instance) -> Vec<Input> {
    let mut inputs = Vec::new();
    for vmm in state.vmms.values() {
        let generation = Generation::new(vmm.generation.get() + 1);
        let plain = |said| VmmReport { state: said, generation, migration_in: None, migration_out: None };
        for said in VmmState::ALL {
            inputs.push(Input::Report { sled: vmm.sled, vmm: vmm.id, report: plain(said) });
            for migration in state.migrations.values() {
                let is_target = migration.target.vmm == vmm.id;
                let newest = if is_target { migration.target } else { migration.source };
                for side in SIDES {
                    let side = SideReport {
                        migration: migration.id,
                        state: side,
                        generation: Generation::new(newest.generation.get() + 1),
                    };
                    let (migration_in, migration_out) =
                        if is_target { (Some(side), None) } else { (None, Some(side)) };
                    let report = VmmReport { migration_in, migration_out, ..plain(said) };
                    inputs.push(Input::Report { sled: vmm.sled, vmm: vmm.id, report });
                }
            }
        }
    }
    inputs
}

const REFUSALS: [Refusal; 7] = [
    Refusal::NoSuchVmm,
    Refusal::Tombstoned,
    Refusal::StaleEpoch,
    Refusal::NoRoom,
    Refusal::OtherInstance,
    Refusal::NotPossible,
    Refusal::Malformed,
];

const EVIDENCE: [Evidence; 6] = [
    Evidence::Unregistered,
    Evidence::AbsentFromInventory,
    Evidence::SledRebooted,
    Evidence::SledExpunged,
    Evidence::LeaseExpired,
    Evidence::Asserted,
];

fn inputs(state: &Instance) -> Vec<Input> {
    let mut inputs: Vec<Input> = commands(state).into_iter().map(Input::Command).collect();
    inputs.extend(reports(state));
    for effect in effects(state) {
        inputs.push(Input::Outcome { effect, result: EffectResult::Done(None) });
        let refused = |refusal| Input::Outcome { effect, result: EffectResult::Refused(refusal) };
        inputs.extend(REFUSALS.map(refused));
    }
    for vmm in state.vmms.keys().copied() {
        inputs.extend(EVIDENCE.map(|evidence| Input::Gone { vmm, evidence }));
        let asked_at = state.head.position;
        inputs.extend(EVIDENCE.map(|evidence| Input::Absent { vmm, asked_at, evidence }));
    }
    let running = deadlines(state, &Policy::default());
    inputs.extend(running.into_iter().map(|deadline| Input::Deadline(deadline.kind)));
    inputs.push(Input::Reconsider);
    inputs
}

/// Applies what was decided, at places that a log could give.
fn applied(state: &Instance, events: &[InstanceEvent]) -> Instance {
    let mut after = Some(state.clone());
    for event in events {
        let head = after.as_ref().expect("it exists").head;
        let meta = lifecycle::EventMeta {
            version: head.version + 1,
            position: head.position + 1,
            time: head.time + lifecycle::Span::from_micros(1),
        };
        evolve(&mut after, event, meta);
    }
    after.expect("it exists")
}

/// Evolve is total and decide never panics: on every state of every history, with every sort of input; and
/// what it decides keeps the invariants, visible edges among them.
pub fn every_input_on_every_state() -> usize {
    let (policy, mut count) = (Policy::default(), 0);
    walk(|state, _| {
        let Some(state) = state else { return };
        for input in inputs(state) {
            count += 1;
            let Ok(Decision::Events(events)) = decide(Some(state), &input, &policy) else { continue };
            if events.is_empty() {
                continue;
            }
            let after = applied(state, &events);
            // A grant of a VMM that no ledger gave may collide with nothing here.
            let kept = check(&after).and_then(|()| check_step(Some(state), &after));
            assert!(kept.is_ok(), "{input:?} on {state:?} breaks {kept:?}");
        }
    });
    count
}

/// Replay of every prefix is the state that was live there: folded in one go or one by one.
pub fn every_prefix_replays() -> usize {
    let mut all: BTreeMap<InstanceId, Vec<Recorded>> = BTreeMap::new();
    walk(|state, step| {
        if state.is_none() {
            all.remove(&step.id);
        }
        let past = all.entry(step.id).or_default();
        let mut replayed = None;
        fold(&mut replayed, past);
        assert_eq!(replayed.as_ref(), state, "a replay is the live state");
        past.extend(step.events.iter().cloned());
    })
}

/// A snapshot at every append, read back, and the tail are the full fold.
pub fn every_snapshot_and_its_tail() -> usize {
    walk(|state, step| {
        let Some(state) = state else { return };
        let read =
            journal::decode_snapshot(&journal::encode_snapshot(state)).expect("what was written is read");
        assert_eq!(&read, state);
        let (mut from_snapshot, mut live) = (Some(read), Some(state.clone()));
        fold(&mut from_snapshot, &step.events);
        fold(&mut live, &step.events);
        assert_eq!(from_snapshot, live);
    })
}

/// The recorded input, decided again on the state before it, gives the recorded events.
pub fn every_decision_again() -> usize {
    let (policy, mut count) = (Policy::default(), 0);
    walk(|state, step| {
        let Some(input) = step.events[0].context.as_ref().and_then(|context| context.input.as_ref()) else {
            return;
        };
        let decided = decide(state, input, &policy);
        let recorded: Vec<InstanceEvent> = step
            .events
            .iter()
            .filter_map(|recorded| match &recorded.event {
                Event::Instance(event) => Some(event.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(decided, Ok(Decision::Events(recorded)), "{input:?}");
        count += 1;
    });
    assert!(count > 100, "inputs are journaled: {count}");
    count
}

/// The visible state moves along allowed edges only, and its time rises with every move.
pub fn every_visible_step() -> usize {
    let mut count = 0;
    walk(|state, step| {
        let Some(before) = state else { return };
        let mut after = Some(before.clone());
        fold(&mut after, &step.events);
        let after = after.expect("it exists");
        let (was, is) = (before.run_state(), after.run_state());
        assert!(was == is || was.may_become(is), "{was} became {is}");
        let has_moved = after.time_run_state_updated > before.time_run_state_updated;
        assert!(was == is || has_moved, "{was} became {is} at the same time");
        count += usize::from(was != is);
    });
    assert!(count > 100, "states change: {count}");
    count
}

/// A property, by its name.
pub struct Property {
    /// Its name, which is its test's.
    pub name: &'static str,
    /// Checks it; answers how many cases there were.
    pub check: fn() -> usize,
}

/// Every property, in the order of their ids.
pub const ALL: [Property; 5] = [
    Property { name: "f01_every_input_on_every_state", check: every_input_on_every_state },
    Property { name: "f02_every_prefix_replays", check: every_prefix_replays },
    Property { name: "f03_every_snapshot_and_its_tail", check: every_snapshot_and_its_tail },
    Property { name: "f04_every_decision_again", check: every_decision_again },
    Property { name: "f05_every_visible_step", check: every_visible_step },
];
