//! A search that is carried on slice by slice: for a text, to either side, or on to where a condition comes true.

use super::events::{Events, Track};
use super::folds::Folds;
use crate::error::Error;
use crate::source::ends_append;
use crate::until::Condition;
use journal::StreamName;

/// Events looked at per slice: a fraction of a blink.
const SLICE_EVENTS: u64 = 512;

/// To which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To later events.
    Forward,
    /// To earlier ones.
    Back,
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An event that mentions it, whatever the case.
    Text(String),
    /// The first event after which it holds, or breaks: of one instance.
    Condition(Condition),
}

/// What came of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This place, and what there is to say of it.
    At(u64, String),
    /// Not yet: the place that is looked at next.
    Not(u64),
    /// There is none.
    Nowhere,
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Seek {
    wanted: Wanted,
    direction: Direction,
    next: u64,
}

impl Seek {
    /// Begins beside a place.
    pub fn from(place: u64, direction: Direction, wanted: Wanted) -> Self {
        let wanted = match wanted {
            Wanted::Text(text) => Wanted::Text(text.to_lowercase()),
            condition @ Wanted::Condition(_) => condition,
        };
        let next = match direction {
            Direction::Forward => place + 1,
            Direction::Back => place.saturating_sub(1),
        };
        Self { wanted, direction, next }
    }

    /// Looks at one more slice.
    pub fn slice(&mut self, events: &mut Events<'_>, folds: &mut Folds<'_>) -> Result<Found, Error> {
        if self.next == 0 || self.next > events.last() {
            return Ok(Found::Nowhere);
        }
        match self.wanted.clone() {
            Wanted::Text(text) => self.text(events, &text),
            Wanted::Condition(wanted) => self.condition(events, folds, &wanted),
        }
    }

    fn text(&mut self, events: &mut Events<'_>, text: &str) -> Result<Found, Error> {
        let from = match self.direction {
            Direction::Forward => self.next,
            Direction::Back => self.next.saturating_sub(SLICE_EVENTS - 1).max(1),
        };
        let count = match self.direction {
            Direction::Forward => SLICE_EVENTS,
            Direction::Back => self.next + 1 - from,
        };
        let slice = events.page(from, count)?;
        let found = match self.direction {
            Direction::Forward => slice.iter().position(|listed| listed.hit.mentions(text)),
            Direction::Back => slice.iter().rposition(|listed| listed.hit.mentions(text)),
        };
        if let Some(nth) = found {
            return Ok(Found::At(from + nth as u64, String::new()));
        }
        self.next = match self.direction {
            Direction::Forward => from + slice.len().max(1) as u64,
            Direction::Back => from - 1,
        };
        let is_over = self.next == 0 || self.next > events.last();
        Ok(if is_over { Found::Nowhere } else { Found::Not(self.next) })
    }

    fn condition(
        &mut self,
        events: &Events<'_>,
        folds: &mut Folds<'_>,
        wanted: &Condition,
    ) -> Result<Found, Error> {
        let Track::Instance(id) = events.track() else {
            return Ok(Found::Nowhere);
        };
        let stream = StreamName::Instance(id);
        let end = events.last().min(self.next.saturating_add(SLICE_EVENTS - 1));
        let count = usize::try_from(end + 1 - self.next).unwrap_or(usize::MAX);
        for record in crate::source::stream_page(events.source(), stream, self.next, count)? {
            let version = record.version.get();
            let begun = version.saturating_sub(u64::from(record.index.0) + 1);
            let before = folds.at(stream, begun)?;
            let state = folds.at(stream, version)?;
            let met = state
                .instance()
                .and_then(|state| wanted.met(before.instance(), state, ends_append(record.index)));
            if let Some(why) = met {
                return Ok(Found::At(version, why));
            }
            self.next = version.saturating_add(1);
        }
        Ok(if self.next > events.last() { Found::Nowhere } else { Found::Not(self.next) })
    }
}
