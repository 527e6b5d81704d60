//! The book: a fold of the whole log, kept up as the log grows, with every invariant checked at every append.

use eventlog::{Journal, Log, Position};
use journal::{Event, Recorded, StreamName};
use lifecycle::invariant::{check, check_ledger, check_step};
use lifecycle::network::NetworkBook;
use lifecycle::sled::Sled;
use lifecycle::{EventMeta, Instance, InstanceEvent, InstanceId, Ledger, RunState, SagaId, SledId, evolve};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Records read at a time.
const PAGE_RECORDS: usize = 1_024;

/// A fold of everything that is durable.
#[derive(Default)]
pub struct Book {
    /// How far it has folded.
    pub position: Position,
    /// Every instance, deleted ones among them.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// Every sled.
    pub sleds: BTreeMap<SledId, Sled>,
    /// What instances share.
    pub ledger: Ledger,
    /// Where every address shall lead.
    pub network: NetworkBook,
    /// Every event.
    pub history: Vec<Recorded>,
    /// Visible states of each instance, in order, without repeats.
    pub seen: BTreeMap<InstanceId, Vec<RunState>>,
    sagas: BTreeMap<SagaId, bool>,
    /// Each instance as it was before the append that is being folded.
    before: BTreeMap<InstanceId, Instance>,
    /// The instance whose stream the scenario poisons.
    pub poisoned: Option<InstanceId>,
    /// The first invariant that did not hold.
    pub broken: Option<String>,
}

impl Book {
    /// Folds what is new; remembers the first invariant that does not hold, and folds no further.
    pub fn look(&mut self, log: &Journal) {
        if self.broken.is_none()
            && let Err(broken) = self.read(log)
        {
            self.broken = Some(broken);
        }
    }

    fn read(&mut self, log: &Journal) -> Result<(), String> {
        loop {
            let page = log.read_all(self.position.next(), PAGE_RECORDS).map_err(|error| error.to_string())?;
            if page.is_empty() {
                return Ok(());
            }
            for record in &page {
                let recorded = journal::read(record).map_err(|error| error.to_string())?;
                self.take(recorded)?;
            }
        }
    }

    fn take(&mut self, recorded: Recorded) -> Result<(), String> {
        let meta = recorded.meta;
        if meta.position != self.position.next().get() {
            return Err(format!("position {} follows {}", meta.position, self.position));
        }
        self.position = Position::new(meta.position);
        match (recorded.stream, &recorded.event) {
            (StreamName::Instance(id), Event::Instance(event)) => {
                self.ledger.apply_instance(id, event);
                if self.is_poison(id, event, meta) {
                    self.history.push(recorded);
                    return Ok(());
                }
                self.network.apply(id, event, meta);
                self.note_saga(event)?;
                let mut state = self.instances.remove(&id);
                evolve(&mut state, event, meta);
                let state = state.expect("an event leaves an instance");
                self.instances.insert(id, state);
            }
            (StreamName::Project(id), Event::Project(event)) => self.ledger.apply_project(id, event),
            (StreamName::Sled(id), Event::Sled(event)) => {
                self.ledger.apply_sled(id, event);
                let mut state = self.sleds.remove(&id);
                lifecycle::sled::evolve(&mut state, event, meta);
                self.sleds.insert(id, state.expect("an event leaves a sled"));
            }
            (StreamName::System, Event::System(event)) => self.ledger.apply_system(event),
            _ => return Err(format!("an event of another sort in {}", recorded.stream)),
        }
        let is_last = recorded.index.0 + 1 == recorded.index.1;
        let stream = recorded.stream;
        self.history.push(recorded);
        match stream {
            StreamName::Instance(id) if is_last => self.check(id),
            _ => Ok(()),
        }
    }

    /// Whether the event cannot follow, where the scenario has planted one that cannot.
    fn is_poison(&mut self, id: InstanceId, event: &InstanceEvent, meta: EventMeta) -> bool {
        if self.poisoned != Some(id) {
            return false;
        }
        let mut scratch = self.instances.get(&id).cloned();
        catch_unwind(AssertUnwindSafe(|| evolve(&mut scratch, event, meta))).is_err()
    }

    /// Each saga ends exactly once.
    fn note_saga(&mut self, event: &InstanceEvent) -> Result<(), String> {
        let ended = match event {
            InstanceEvent::StartBegan { saga, .. } | InstanceEvent::MigrateBegan { saga, .. } => {
                self.sagas.insert(*saga, false);
                return Ok(());
            }
            InstanceEvent::SagaUnwound { saga, .. } | InstanceEvent::SagaEnded { saga, .. } => *saga,
            _ => return Ok(()),
        };
        match self.sagas.insert(ended, true) {
            Some(false) => Ok(()),
            _ => Err(format!("invariant 13 broken: saga {ended} ended, and was not under way")),
        }
    }

    fn check(&mut self, id: InstanceId) -> Result<(), String> {
        let state = &self.instances[&id];
        let broken = |violation: lifecycle::invariant::Violation| violation.to_string();
        check(state).map_err(broken)?;
        check_step(self.before.get(&id), state).map_err(broken)?;
        check_ledger(&self.ledger, &self.instances).map_err(broken)?;
        let booked = self.network.of(id);
        let expected = state.deleted.is_none().then_some((state.network.sled, state.producer));
        if booked != expected {
            return Err(format!("invariant 6 broken: the book says {booked:?}, the instance {expected:?}"));
        }
        let seen = self.seen.entry(id).or_default();
        if seen.last() != Some(&state.run_state()) {
            seen.push(state.run_state());
        }
        self.before.insert(id, state.clone());
        Ok(())
    }

    /// Sagas that have not ended.
    pub fn open_sagas(&self) -> usize {
        self.sagas.values().filter(|ended| !**ended).count()
    }

    /// Events of one instance, in order.
    pub fn events_of(&self, id: InstanceId) -> impl Iterator<Item = &InstanceEvent> {
        let of = StreamName::Instance(id);
        self.history.iter().filter(move |recorded| recorded.stream == of).filter_map(|recorded| {
            match &recorded.event {
                Event::Instance(event) => Some(event),
                _ => None,
            }
        })
    }

    /// The last events, one per line, for a failure's message.
    pub fn tail(&self, count: usize) -> String {
        let from = self.history.len().saturating_sub(count);
        let lines: Vec<String> = self.history[from..]
            .iter()
            .map(|recorded| format!("  {} {} {:?}", recorded.meta.position, recorded.stream, recorded.event))
            .collect();
        lines.join("\n")
    }
}
