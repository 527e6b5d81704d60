//! Events by their place, read a page at a time.

use crate::at::At;
use crate::error::Error;
use crate::grep::{Hit, describe};
use crate::names::SledNames;
use crate::source::{Source, log_page, stream_page};
use journal::{RecordedContext, StreamName, read};
use lifecycle::InstanceId;
use std::collections::VecDeque;

/// Events of one page: several screens.
pub(super) const PAGE_EVENTS: u64 = 128;

/// Pages that are kept: what one looks at, and some of where one was.
const PAGES_HELD: usize = 8;

/// Which events there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// All: a place is a position.
    Log,
    /// Those of one instance: a place is a version.
    Instance(InstanceId),
}

/// One event in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// What it is, who caused it, and the sentence people read.
    pub hit: Hit,
    /// Its stream; none if this build knows no such sort.
    pub stream: Option<StreamName>,
    /// Version of the first event of the same append: what shares it was decided together.
    pub append: u64,
    /// Position of the event that caused it.
    pub cause: Option<u64>,
    /// Why, in the words of who asked.
    pub reason: Option<String>,
    /// Whether this build can read it.
    pub is_read: bool,
}

/// The events of a track, places 1 to [`Events::last`].
pub struct Events<'a> {
    source: &'a dyn Source,
    track: Track,
    last: u64,
    pages: VecDeque<(u64, Vec<Listed>)>,
    sleds: SledNames<'a>,
}

impl<'a> Events<'a> {
    /// The events of a track, as far as they are durable. Finds the end of a stream in a few reads.
    pub fn open(source: &'a dyn Source, track: Track) -> Result<Self, Error> {
        let last = match track {
            Track::Log => source.durable().get(),
            Track::Instance(id) => match newest_version(source, StreamName::Instance(id))? {
                0 => return Err(Error::NoSuchInstance(id)),
                newest => newest,
            },
        };
        Ok(Self { source, track, last, pages: VecDeque::new(), sleds: SledNames::new(source) })
    }

    /// Which events these are.
    pub const fn track(&self) -> Track {
        self.track
    }

    /// The last place; zero if there are none.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Where they are read from.
    pub fn source(&self) -> &'a dyn Source {
        self.source
    }

    /// The event at a place; none if there is no such place.
    pub fn get(&mut self, place: u64) -> Result<Option<&Listed>, Error> {
        if place == 0 || place > self.last {
            return Ok(None);
        }
        let (nth, within) = ((place - 1) / PAGE_EVENTS, (place - 1) % PAGE_EVENTS);
        if let Some(held) = self.pages.iter().position(|(page, _)| *page == nth) {
            self.pages.swap(0, held);
        } else {
            let page = self.page(nth * PAGE_EVENTS + 1, PAGE_EVENTS)?;
            self.pages.push_front((nth, page));
            self.pages.truncate(PAGES_HELD);
        }
        Ok(usize::try_from(within).ok().and_then(|within| self.pages[0].1.get(within)))
    }

    /// Pages held in memory.
    pub fn pages_held(&self) -> usize {
        self.pages.len()
    }

    /// So many events from a place on, past the pages that are kept.
    pub(super) fn page(&mut self, from: u64, count: u64) -> Result<Vec<Listed>, Error> {
        let limit = usize::try_from(count.min(self.last + 1 - from)).unwrap_or(usize::MAX);
        let records = match self.track {
            Track::Log => log_page(self.source, from, limit)?,
            Track::Instance(id) => stream_page(self.source, StreamName::Instance(id), from, limit)?,
        };
        // A page may begin in the middle of an append; who and why stand on its first event.
        let mut context = match records.first().map(|first| (first, u64::from(first.index.0))) {
            None | Some((_, 0)) => None,
            Some((first, behind)) => self.context_of(first.position.get().saturating_sub(behind).max(1))?,
        };
        let mut listed = Vec::with_capacity(records.len());
        for record in &records {
            if record.index.0 == 0 {
                context = None;
            }
            let recorded = match read(record) {
                Ok(mut recorded) => {
                    context = recorded.context.take().or(context);
                    recorded
                }
                Err(error) => {
                    listed.push(Listed::unread(record, &error.to_string()));
                    continue;
                }
            };
            let version = recorded.meta.version;
            listed.push(Listed {
                hit: describe(&recorded, context.as_ref(), &mut self.sleds),
                stream: Some(recorded.stream),
                append: version.saturating_sub(u64::from(recorded.index.0)),
                cause: (recorded.cause != 0).then_some(recorded.cause),
                reason: context.as_ref().and_then(|context| context.reason.clone()),
                is_read: true,
            });
        }
        Ok(listed)
    }

    fn context_of(&self, position: u64) -> Result<Option<RecordedContext>, Error> {
        let begin = log_page(self.source, position, 1)?;
        Ok(begin.first().and_then(|record| read(record).ok()).and_then(|recorded| recorded.context))
    }

    /// The place of a moment: that of the last event that had happened by then. Among all events times are taken
    /// to rise, as they do unless a clock was set back.
    pub fn place_of(&mut self, at: At) -> Result<u64, String> {
        let told = |error: Error| error.to_string();
        let newest = self.last;
        match (at, self.track) {
            (At::Now, _) => Ok(newest),
            (At::Version(_), Track::Log) => {
                Err("a version belongs to one instance: choose one with Enter, or name a position".to_owned())
            }
            (At::Version(place), Track::Instance(_)) | (At::Position(place), Track::Log) => {
                if place > newest {
                    return Err(format!("there is no {at}: the last is {newest}"));
                }
                Ok(place)
            }
            (At::Position(_), Track::Instance(_)) | (At::Time(_), _) => {
                let (mut low, mut high) = (0, newest);
                while low < high {
                    let middle = low + (high - low).div_ceil(2);
                    if self.includes(at, middle).map_err(told)? {
                        low = middle;
                    } else {
                        high = middle - 1;
                    }
                }
                if low == 0 { Err(format!("nothing had happened yet at {at}")) } else { Ok(low) }
            }
        }
    }

    /// Whether the event at a place had happened by a moment. What cannot be read says when it was all the same.
    fn includes(&self, at: At, place: u64) -> Result<bool, Error> {
        let records = match self.track {
            Track::Log => log_page(self.source, place, 1)?,
            Track::Instance(id) => stream_page(self.source, StreamName::Instance(id), place, 1)?,
        };
        Ok(records.first().is_some_and(|record| match at {
            At::Position(position) => record.position.get() <= position,
            At::Time(time) => record.time_us <= time.micros(),
            At::Now | At::Version(_) => true,
        }))
    }
}

impl Listed {
    fn unread(record: &eventlog::Record, why: &str) -> Self {
        let stream = StreamName::parse(record.stream);
        let hit = Hit {
            position: record.position.get(),
            stream: stream.map_or_else(|| record.stream.to_string(), |stream| stream.to_string()),
            version: record.version.get(),
            time: crate::time::rfc3339(lifecycle::Timestamp::from_micros(record.time_us)),
            event: "?",
            actor: "unknown".to_owned(),
            request_id: None,
            summary: why.to_owned(),
            data: serde_json::Value::Null,
        };
        let cause = (record.cause.get() != 0).then_some(record.cause.get());
        Self { append: hit.version, hit, stream, cause, reason: None, is_read: false }
    }
}

/// The newest version of a stream, zero if it is empty: doubling, then halving.
fn newest_version(source: &dyn Source, stream: StreamName) -> Result<u64, Error> {
    let durable = source.durable().get();
    let has = |version: u64| -> Result<bool, Error> {
        let found = stream_page(source, stream, version, 1)?;
        Ok(found.first().is_some_and(|record| record.version.get() >= version))
    };
    if durable == 0 || !has(1)? {
        return Ok(0);
    }
    let mut low = 1;
    while low < durable && has((low * 2).min(durable))? {
        low = (low * 2).min(durable);
    }
    let mut high = (low * 2).min(durable);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if has(middle)? {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}
