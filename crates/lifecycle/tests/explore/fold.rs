//! The control plane as it is after each append: folds, each distinct one kept once.
//!
//! Equal situations must be equal folds. So places and times, which grow for ever, are made canonical after
//! every append: only their order can matter to a rule, and of that only the order in which migrations began.
//! Whether an inventory was asked for before a VMM was registered is kept by whoever asks.

use lifecycle::event::EventMeta;
use lifecycle::instance::FoldHead;
use lifecycle::restart::RestartPolicy;
use lifecycle::{
    Command, Deadline, DeadlineKind, Decision, Effect, Input, Instance, InstanceEvent, Policy, Purpose, Span,
    Timestamp, deadlines, decide, effects, evolve, invariant,
};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Which fold.
pub type FoldId = usize;

/// Where every registered VMM was registered, and from where on nothing was: canonical positions.
pub const REGISTERED_AT: u64 = 1;
/// A log position before every registration and every boot.
pub const BEFORE_ANY: u64 = 0;

/// Place and time of the newest event of every fold: above all that a fold still tells apart.
const HEAD: u64 = 1_000;

/// A fold and what follows from it.
pub struct Folded {
    pub state: Instance,
    pub effects: Vec<Effect>,
    pub deadlines: Vec<DeadlineKind>,
}

/// All folds met.
pub struct Folds {
    policy: Policy,
    all: Vec<Folded>,
    ids: BTreeMap<u64, FoldId>,
}

/// What an input did.
pub enum Given {
    /// An append.
    Appended(FoldId, Vec<InstanceEvent>),
    /// Nothing, or it was refused.
    Nothing,
    /// Room is wanted.
    AskForRoom(Purpose),
}

struct HashWriter(DefaultHasher);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A number that stands for the value.
pub fn digest(value: &impl serde::Serialize) -> u64 {
    let mut writer = HashWriter(DefaultHasher::new());
    serde_json::to_writer(&mut writer, value).expect("what is explored serializes");
    writer.0.finish()
}

impl Folds {
    /// One automatic restart in a row, so that a world that restarts comes to rest.
    pub fn new() -> Self {
        let restart =
            RestartPolicy { budget: 1, stable: Span::from_secs(1_000_000), ..RestartPolicy::default() };
        let policy = Policy { restart, ..Policy::default() };
        Self { policy, all: Vec::new(), ids: BTreeMap::new() }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn get(&self, id: FoldId) -> &Folded {
        &self.all[id]
    }

    pub fn state(&self, id: FoldId) -> &Instance {
        &self.all[id].state
    }

    /// The fold of a stream that begins with this command.
    pub fn created(&mut self, create: Command) -> FoldId {
        match self.append(None, &Input::Command(create)) {
            Ok(Given::Appended(id, _)) => id,
            _ => panic!("the instance is created"),
        }
    }

    /// Decides and folds; a broken invariant, or a panic, is an error.
    pub fn give(&mut self, id: FoldId, input: &Input) -> Result<Given, String> {
        let before = self.all[id].state.clone();
        catch_unwind(AssertUnwindSafe(|| self.append(Some(before), input)))
            .unwrap_or_else(|panic| Err(format!("the rules panicked: {}", text_of(panic.as_ref()))))
    }

    fn append(&mut self, before: Option<Instance>, input: &Input) -> Result<Given, String> {
        let events = match decide(before.as_ref(), input, &self.policy) {
            Ok(Decision::Events(events)) => events,
            Ok(Decision::AskForRoom(wanted)) => return Ok(Given::AskForRoom(wanted.purpose)),
            Err(_) => return Ok(Given::Nothing),
        };
        if events.is_empty() {
            return Ok(Given::Nothing);
        }
        let mut after = before.clone();
        for (event, n) in events.iter().zip(HEAD + 1..) {
            let version = after.as_ref().map_or(1, |state| state.head.version + 1);
            evolve(&mut after, event, EventMeta { version, position: n, time: Timestamp::from_micros(n) });
        }
        let mut after = after.expect("events make a state");
        let checked = invariant::check(&after).and_then(|()| invariant::check_step(before.as_ref(), &after));
        checked.map_err(|violation| format!("{violation}\n  by {events:?}"))?;
        make_canonical(&mut after);
        Ok(Given::Appended(self.intern(after), events))
    }

    fn intern(&mut self, state: Instance) -> FoldId {
        let key = digest(&state);
        if let Some(&id) = self.ids.get(&key) {
            assert!(self.all[id].state == state, "two folds have one digest");
            return id;
        }
        let id = self.all.len();
        let running = deadlines(&state, &self.policy);
        let folded = Folded {
            effects: effects(&state),
            deadlines: running.into_iter().map(|deadline: Deadline| deadline.kind).collect(),
            state,
        };
        self.all.push(folded);
        self.ids.insert(key, id);
        id
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Every field is named here that holds a place or a time.
fn make_canonical(state: &mut Instance) {
    let zero = Timestamp::default();
    state.head = FoldHead { version: HEAD, position: HEAD, time: Timestamp::from_micros(HEAD) };
    state.network.generation = 0;
    for vmm in state.vmms.values_mut() {
        vmm.allocated_at = BEFORE_ANY;
        vmm.registered_at = vmm.registered_at.map(|_| REGISTERED_AT);
    }
    let mut begun: Vec<Timestamp> = state.migrations.values().map(|migration| migration.started).collect();
    begun.sort();
    for migration in state.migrations.values_mut() {
        let rank = begun.iter().filter(|at| **at <= migration.started).count() as u64;
        migration.started = Timestamp::from_micros(rank);
        migration.undecided_since = migration.undecided_since.map(|_| zero);
    }
    if let Some(saga) = &mut state.saga {
        saga.started = zero;
        saga.step_started = zero;
    }
    if let Some(stop) = &mut state.stop {
        stop.since = zero;
    }
    if let Some(reboot) = &mut state.reboot {
        reboot.since = zero;
    }
    if let Some(failed) = &mut state.failed {
        failed.at = zero;
    }
    state.restarts.last = state.restarts.last.map(|_| zero);
    state.running_since = state.running_since.map(|_| zero);
    // What is only told to people decides nothing.
    state.last_trouble = None;
    state.time_created = zero;
    state.time_modified = zero;
    state.time_run_state_updated = zero;
    state.deleted = state.deleted.map(|_| zero);
}
