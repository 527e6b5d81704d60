//! How much of what the log holds: by event, by stream, in bytes and over time.

use crate::costs::{AppendCosts, Meter};
use crate::error::Error;
use crate::source::{Source, log_page};
use crate::time::rfc3339;
use crate::verify::Progress;
use eventlog::{ReadError, Record, StreamId};
use journal::{StreamName, event_kinds, read};
use lifecycle::{InstanceId, Timestamp};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Counts over a whole log. Bytes are those of payloads and contexts; envelopes come on top.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Last position counted.
    pub durable: u64,
    /// Events.
    pub events: u64,
    /// Appends.
    pub appends: u64,
    /// Bytes of payloads and contexts.
    pub bytes: u64,
    /// Streams, of any sort.
    pub streams: u64,
    /// Recorded time of the first event, RFC 3339; none if there is none.
    pub time_first: Option<String>,
    /// Latest recorded time.
    pub time_last: Option<String>,
    /// By event, most frequent first.
    pub kinds: Vec<KindCount>,
    /// The streams with the most events, most first; as many as were asked for.
    pub largest: Vec<StreamCount>,
    /// What starts and stops took.
    pub costs: AppendCosts,
    /// Positions that are damaged, and counted nowhere else.
    pub positions_damaged: u64,
    /// Instances whose costs could not be measured because their streams cannot be folded.
    pub instances_skipped: u64,
}

/// Events of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KindCount {
    /// Sort of stream and event, such as `instance StartBegan`, or `kind 999` if this build does not know it.
    pub event: String,
    /// How many.
    pub count: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// Events of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamCount {
    /// The stream, such as `instance/<id>`.
    pub stream: String,
    /// How many events.
    pub events: u64,
    /// In how many appends.
    pub appends: u64,
    /// Bytes of payloads and contexts.
    pub bytes: u64,
}

#[derive(Default)]
struct Count {
    events: u64,
    appends: u64,
    bytes: u64,
}

/// Counts everything that is durable at the call. `largest` streams are named; `progress` is called once
/// per page read.
pub fn stats(
    source: &dyn Source,
    largest: usize,
    progress: &mut dyn FnMut(Progress),
) -> Result<Stats, Error> {
    let durable = source.durable().get();
    let mut counter = Counter::default();
    let mut next = 1;
    while next <= durable {
        let left = usize::try_from(durable - next + 1).unwrap_or(usize::MAX);
        let page = match log_page(source, next, left.min(source.page_records())) {
            Ok(page) => page,
            Err(Error::Read { source: ReadError::Damaged { last: Some(last), .. }, .. }) => {
                let behind = last.get().max(next) + 1;
                counter.stats.positions_damaged += behind - next;
                next = behind;
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(last) = page.last() else {
            break;
        };
        next = last.position.get() + 1;
        for record in &page {
            counter.take(record);
        }
        progress(Progress { done: next - 1, total: durable });
    }
    Ok(counter.finish(durable, largest))
}

#[derive(Default)]
struct Counter {
    stats: Stats,
    kinds: BTreeMap<u16, Count>,
    streams: BTreeMap<StreamId, Count>,
    /// None where a stream cannot be folded.
    meters: BTreeMap<InstanceId, Option<Meter>>,
    time: Option<(u64, u64)>,
}

impl Counter {
    fn take(&mut self, record: &Record) {
        let payload = record.payload.len() as u64;
        let context =
            record.context.as_ref().map_or(0, |it| it.actor.len() + it.build.len() + it.input.len());
        let bytes = payload + context as u64;
        let appends = u64::from(record.index.0 == 0);
        self.stats.events += 1;
        self.stats.appends += appends;
        self.stats.bytes += bytes;
        let kind = self.kinds.entry(record.kind).or_default();
        kind.events += 1;
        kind.bytes += payload;
        let stream = self.streams.entry(record.stream).or_default();
        stream.events += 1;
        stream.appends += appends;
        stream.bytes += bytes;
        let (first, last) = self.time.unwrap_or((record.time_us, record.time_us));
        self.time = Some((first, last.max(record.time_us)));
        self.measure(record);
    }

    fn measure(&mut self, record: &Record) {
        let Some(StreamName::Instance(id)) = StreamName::parse(record.stream) else {
            return;
        };
        let meter = self.meters.entry(id).or_insert_with(|| Some(Meter::default()));
        let Some(running) = meter else {
            return;
        };
        let is_folded = read(record).is_ok_and(|recorded| running.take(&recorded).is_ok());
        if !is_folded {
            *meter = None;
            self.stats.instances_skipped += 1;
        }
    }

    fn finish(self, durable: u64, largest: usize) -> Stats {
        let mut stats = self.stats;
        stats.durable = durable;
        stats.streams = self.streams.len() as u64;
        let written = |micros| rfc3339(Timestamp::from_micros(micros));
        stats.time_first = self.time.map(|(first, _)| written(first));
        stats.time_last = self.time.map(|(_, last)| written(last));
        let mut kinds: Vec<KindCount> = self
            .kinds
            .into_iter()
            .map(|(kind, count)| KindCount {
                event: kind_name(kind),
                count: count.events,
                bytes: count.bytes,
            })
            .collect();
        kinds.sort_by_key(|kind| Reverse(kind.count));
        stats.kinds = kinds;
        let mut streams: Vec<(StreamId, Count)> = self.streams.into_iter().collect();
        streams.sort_by_key(|(_, count)| Reverse(count.events));
        stats.largest = streams.into_iter().take(largest).map(stream_count).collect();
        for meter in self.meters.into_values().flatten() {
            stats.costs.merge(meter.costs);
        }
        stats
    }
}

/// Kinds are numbered by the sort of their stream, and `Created` is a name in two of them.
fn kind_name(kind: u16) -> String {
    let sort = match kind {
        100..200 => "instance",
        200..300 => "project",
        300..400 => "sled",
        _ => "system",
    };
    let known = event_kinds().find(|known| known.kind == kind);
    known.map_or_else(|| format!("kind {kind}"), |known| format!("{sort} {}", known.name))
}

fn stream_count((stream, count): (StreamId, Count)) -> StreamCount {
    let name = StreamName::parse(stream).map_or_else(|| stream.to_string(), |name| name.to_string());
    StreamCount { stream: name, events: count.events, appends: count.appends, bytes: count.bytes }
}
