//! When a sled misbehaves on purpose, as data that any shell can follow.
//!
//! A fault is keyed by the kind of request and by how many of that kind came before it, so that removing one
//! fault from a scenario moves no other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sled_protocol::SledError;

use crate::machine::RequestKind;
use crate::weather::Weather;

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Refused or failed without the machine seeing it.
    Answer(SledError),
    /// Never reaches the machine; the caller sees a broken connection.
    LoseRequest,
    /// Takes effect, but the caller sees a broken connection.
    LoseAnswer,
    /// Never reaches the machine and never ends.
    Hang,
    /// Takes effect; the answer comes later by so many microseconds.
    Slow(u64),
}

/// Which requests go wrong, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    planned: BTreeMap<(RequestKind, u64), Fault>,
    standing: BTreeMap<RequestKind, Fault>,
    seen: BTreeMap<RequestKind, u64>,
    weather: Option<Weather>,
}

impl Faults {
    /// Plans a fault for the request of this kind that comes `nth`, counted from 0.
    #[must_use]
    pub fn at(mut self, kind: RequestKind, nth: u64, fault: Fault) -> Self {
        self.planned.insert((kind, nth), fault);
        self
    }

    /// Plans a fault for every request of this kind that has no fault of its own.
    #[must_use]
    pub fn always(mut self, kind: RequestKind, fault: Fault) -> Self {
        self.standing.insert(kind, fault);
        self
    }

    /// Requests that meet no fault of these meet the weather.
    #[must_use]
    pub const fn in_weather(mut self, weather: Weather) -> Self {
        self.weather = Some(weather);
        self
    }

    /// A request of this kind arrives: answers what goes wrong with it.
    pub fn next(&mut self, kind: RequestKind) -> Option<Fault> {
        let seen = self.seen.entry(kind).or_insert(0);
        let nth = *seen;
        *seen += 1;
        let fault = self.planned.get(&(kind, nth)).or_else(|| self.standing.get(&kind)).cloned();
        fault.or_else(|| self.weather.and_then(|weather| weather.strike(kind.name(), nth)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_the_request_it_was_planned_for_and_no_other() {
        let mut faults = Faults::default()
            .at(RequestKind::Register, 1, Fault::LoseAnswer)
            .always(RequestKind::Inventory, Fault::Hang)
            .at(RequestKind::Inventory, 0, Fault::Slow(5));
        let kinds = [
            (RequestKind::Register, None),
            (RequestKind::Unregister, None),
            (RequestKind::Register, Some(Fault::LoseAnswer)),
            (RequestKind::Register, None),
            (RequestKind::Inventory, Some(Fault::Slow(5))),
            (RequestKind::Inventory, Some(Fault::Hang)),
        ];
        for (kind, expected) in kinds {
            assert_eq!(faults.next(kind), expected, "{kind:?}");
        }
    }
}
