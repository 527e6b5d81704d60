//! What is kept: everything that a daemon folds from the log before it serves.
//!
//! Invariants:
//! * records are applied one by one, without gap;
//! * what instances share is folded by the same functions as in the ledger's actor, the read model by the same as
//!   in the projector: this is no other fold, only another place for it.

use crate::error::MakeError;
use eventlog::{Position, Record};
use journal::{Event, Recorded, StreamName};
use lifecycle::Ledger;
use lifecycle::network::NetworkBook;
use projections::ReadModel;

/// The fold of the log up to a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) position: Position,
    /// Fingerprint of the record at the position.
    pub(crate) anchor: u32,
    /// Names, addresses, room and provisioning, without grants.
    pub ledger: Ledger,
    /// Where every address shall lead.
    pub book: NetworkBook,
    /// What lists and look-ups are answered from; it holds the fold of every instance of which something is left.
    pub model: ReadModel,
}

impl State {
    /// The last position folded in; zero for nothing.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Folds the next record in. After an error the state is of no use.
    pub fn apply(&mut self, record: &Record) -> Result<(), MakeError> {
        let recorded = journal::read(record)?;
        self.model.apply(&recorded)?;
        self.share(&recorded);
        self.position = record.position;
        self.anchor = anchor(record);
        Ok(())
    }

    fn share(&mut self, recorded: &Recorded) {
        match (recorded.stream, &recorded.event) {
            (StreamName::Instance(id), Event::Instance(event)) => {
                self.ledger.apply_instance(id, event);
                self.book.apply(id, event, recorded.meta);
            }
            (StreamName::Project(id), Event::Project(event)) => self.ledger.apply_project(id, event),
            (StreamName::Sled(id), Event::Sled(event)) => self.ledger.apply_sled(id, event),
            (StreamName::System, Event::System(event)) => self.ledger.apply_system(event),
            (
                StreamName::Instance(_) | StreamName::Project(_) | StreamName::Sled(_) | StreamName::System,
                _,
            ) => {}
        }
    }

    /// What of two folds of the same position differs; none if nothing does.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            (self.position == other.position, "the position"),
            (self.anchor == other.anchor, "the last record"),
            (self.ledger == other.ledger, "the ledger"),
            (self.book == other.book, "the network book"),
            (self.model == other.model, "the read model"),
        ];
        parts.into_iter().find(|(is_same, _)| !is_same).map(|(_, what)| what)
    }
}

/// What tells a record from any other that could stand at its position.
pub(crate) fn anchor(record: &Record) -> u32 {
    let mut bytes = Vec::with_capacity(64 + record.payload.len());
    bytes.push(record.stream.kind.0);
    bytes.extend_from_slice(&record.stream.id);
    for number in [
        record.position.get(),
        record.version.get(),
        record.previous.get(),
        record.cause.get(),
        record.time_us,
        u64::from(record.kind),
        u64::from(record.schema),
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&record.payload);
    crc32c::crc32c(&bytes)
}
