//! What instances share: the ledger, and the network book.

use journal::{Event, Recorded, StreamName};
use lifecycle::invariant::{Violation, check_ledger};
use lifecycle::network::{Key, NetworkBook};
use lifecycle::{Instance, InstanceId, Ledger, SledId};
use std::collections::BTreeMap;

/// Number of the sentence about networks and producers (`docs/lifecycle.md`, invariants).
const NETWORK: u8 = 6;

/// Folded from every event of the log.
#[derive(Default)]
pub(super) struct Shared {
    ledger: Ledger,
    book: NetworkBook,
}

impl Shared {
    pub(super) fn apply(&mut self, recorded: &Recorded) {
        match (&recorded.event, recorded.stream) {
            (Event::Instance(event), StreamName::Instance(id)) => {
                self.ledger.apply_instance(id, event);
                self.book.apply(id, event, recorded.meta);
            }
            (Event::Project(event), StreamName::Project(id)) => self.ledger.apply_project(id, event),
            (Event::Sled(event), StreamName::Sled(id)) => self.ledger.apply_sled(id, event),
            (Event::System(event), StreamName::System) => self.ledger.apply_system(event),
            (Event::Instance(_) | Event::Project(_) | Event::Sled(_) | Event::System(_), _) => {}
        }
    }

    /// Whether it agrees with every instance's own fold.
    pub(super) fn check(&self, instances: &BTreeMap<InstanceId, Instance>) -> Result<(), Violation> {
        check_ledger(&self.ledger, instances)?;
        check_book(&self.book, instances)
    }
}

/// The book leads to where each instance's fold says, at the generation it says, and to nothing else.
fn check_book(book: &NetworkBook, instances: &BTreeMap<InstanceId, Instance>) -> Result<(), Violation> {
    let violated = |detail| Err(Violation { number: NETWORK, detail });
    let mut expected: BTreeMap<Key, (SledId, u64)> = BTreeMap::new();
    let mut producers = Vec::new();
    for (id, state) in instances.iter().filter(|(_, state)| state.deleted.is_none()) {
        let own = (state.network.sled, state.producer);
        if book.of(*id) != Some(own) {
            return violated(format!("the network book has {:?} for {id}, its fold {own:?}", book.of(*id)));
        }
        if let Some(sled) = state.network.sled {
            let key = (state.address.vni, state.address.virtual_ip);
            expected.insert(key, (sled, state.network.generation));
        }
        producers.extend(state.producer);
    }
    for (key, mapping) in book.mappings() {
        let found = mapping.sled.map(|sled| (sled, mapping.generation));
        if found != expected.remove(&key) {
            return violated(format!("the network book maps {key:?} to {found:?}, which no instance wants"));
        }
    }
    if let Some((key, wanted)) = expected.first_key_value() {
        return violated(format!("the network book does not map {key:?} to {wanted:?}"));
    }
    producers.sort_unstable();
    if !book.producers().map(|production| production.vmm).eq(producers.iter().copied()) {
        return violated("the network book's producers are not those that the instances want".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::{
        Address, EventMeta, InstanceEvent, InstanceSpec, Intent, Origin, ProjectId, SagaId, Size, Span, Step,
        Timestamp, VmmId, evolve,
    };
    use uuid::Uuid;

    const SIZE: Size = Size { ncpus: 1, memory: 1 << 30 };

    fn instance() -> InstanceId {
        InstanceId::new(Uuid::from_u128(1))
    }

    /// Created, and started as far as its producer.
    fn events() -> Vec<InstanceEvent> {
        let spec = Box::new(InstanceSpec {
            project: ProjectId::new(Uuid::from_u128(2)),
            name: "web".to_owned(),
            description: String::new(),
            hostname: "web".to_owned(),
            size: SIZE,
            auto_restart: None,
            cpu_platform: None,
            boot_disk: None,
            jumbo_frames: false,
        });
        let address = Address { virtual_ip: [172, 16, 0, 5].into(), mac: [1; 6], vni: 7 };
        let (saga, vmm) = (SagaId::new(Uuid::from_u128(3)), VmmId::new(Uuid::from_u128(4)));
        let (origin, sled) = (Origin::User, SledId::new(Uuid::from_u128(5)));
        vec![
            InstanceEvent::Created { id: instance(), spec, address, intent: Intent::Stopped },
            InstanceEvent::StartBegan { saga, origin, vmm, sled, size: SIZE, deadline: Span::from_secs(1) },
            InstanceEvent::SagaAdvanced { saga, step: Step::Register },
            InstanceEvent::SagaAdvanced { saga, step: Step::SetRunning },
        ]
    }

    fn meta(n: usize) -> EventMeta {
        let n = u64::try_from(n).unwrap() + 1;
        EventMeta { version: n, position: n, time: Timestamp::from_micros(n) }
    }

    fn book(events: &[InstanceEvent]) -> NetworkBook {
        let mut book = NetworkBook::default();
        for (n, event) in events.iter().enumerate() {
            book.apply(instance(), event, meta(n));
        }
        book
    }

    fn folded(events: &[InstanceEvent]) -> BTreeMap<InstanceId, Instance> {
        let mut state = None;
        for (n, event) in events.iter().enumerate() {
            evolve(&mut state, event, meta(n));
        }
        BTreeMap::from([(instance(), state.unwrap())])
    }

    #[test]
    fn a_book_that_is_ahead_or_behind_of_a_fold_is_told() {
        let events = events();
        // The network is set by the second event, the producer by the fourth.
        let says_the_same = |book: usize, fold: usize| {
            let said = |known: usize| (known >= 2, known >= 4);
            said(book) == said(fold)
        };
        for known in 1..=events.len() {
            for fold in 1..=events.len() {
                let checked = check_book(&book(&events[..known]), &folded(&events[..fold]));
                assert_eq!(checked.is_ok(), says_the_same(known, fold), "{known} {fold}: {checked:?}");
                assert!(checked.is_ok() || checked.is_err_and(|violation| violation.number == NETWORK));
            }
        }
    }

    #[test]
    fn a_mapping_of_nobody_and_one_of_another_generation_are_told() {
        let events = events();
        let violation = check_book(&book(&events), &BTreeMap::new()).unwrap_err();
        assert!(violation.detail.contains("which no instance wants"), "{}", violation.detail);
        let mut instances = folded(&events);
        instances.get_mut(&instance()).unwrap().network.generation += 1;
        let violation = check_book(&book(&events), &instances).unwrap_err();
        assert!(violation.detail.contains("which no instance wants"), "{}", violation.detail);
    }
}
