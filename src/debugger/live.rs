//! The log of a running daemon as something that is read: pages over HTTP, fetched when they are wanted.
//!
//! Invariants:
//! * what is read ends where the log was durable when it was opened: answers do not move while one looks;
//! * one page is asked for at a time, and the daemon bounds it, so that looking costs it one slow reader;
//! * it is asked for nothing at least half of the time, and on the same machine it comes first: all that looks stands
//!   back, the threads that talk to it too.

use crate::cli::ServerArgs;
use crate::client::{Client, ClientError};
use crate::exit::{Exit, Failure};
use eventlog::portable::unpack;
use eventlog::{Position, ReadError, Record, StreamId, Version};
use journal::StreamName;
use replay::Source;
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

/// Most records of one page: what a daemon makes in a millisecond or two, so that nobody waits longer behind it.
const PAGE_RECORDS: usize = 256;

/// Longest rest after a page.
const REST_MAX: Duration = Duration::from_millis(100);

/// How far those who look stand back from those who work, of 19.
const NICE: i32 = 15;

/// A running daemon's log, up to where it was durable at opening.
pub struct Live {
    client: Client,
    durable: Position,
    /// Why the last question was not answered: what a reader of logs hears of it has no room for it.
    trouble: Mutex<Option<Failure>>,
}

impl Live {
    /// Asks how far the log reaches.
    pub async fn open(server: &ServerArgs) -> Result<Self, Failure> {
        let client = Client::new(server)?;
        let stats = client.get("/ops/v1/log/stats", &[]).await?;
        let durable = stats["durable"].as_u64().ok_or_else(|| {
            Failure::new(Exit::Unreachable, "the daemon does not say how far its log reaches")
        })?;
        Ok(Self { client, durable: Position::new(durable), trouble: Mutex::default() })
    }

    /// A question to the daemon, from where nothing waits for futures.
    pub fn ask(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ClientError> {
        wait(rested(self.client.get(path, query)))
    }

    /// Why the last question was not answered, once.
    pub fn trouble(&self) -> Option<Failure> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn page(&self, query: &[(&str, &str)]) -> Result<Vec<Record>, ReadError> {
        let failed = |failure: Failure| {
            let told = ReadError::Io(failure.what.clone());
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            told
        };
        let bytes = wait(rested(self.client.bytes("/ops/v1/log/records", query)));
        let bytes = bytes.map_err(|error| failed(error.into()))?;
        unpack(&bytes).map_err(|error| failed(Failure::new(Exit::Unreachable, error.to_string())))
    }

    /// Pages from `from` on until there are `limit` records or no more.
    fn pages(&self, stream: Option<&str>, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let (mut records, mut next): (Vec<Record>, u64) = (Vec::new(), from);
        while records.len() < limit {
            let (asked, wanted) = (next.to_string(), (limit - records.len()).min(PAGE_RECORDS).to_string());
            let mut query = vec![("from", asked.as_str()), ("limit", wanted.as_str())];
            query.extend(stream.map(|stream| ("stream", stream)));
            let page = self.page(&query)?;
            next = behind(&page, stream.is_some(), next)?;
            let is_end = page.is_empty() || page.iter().any(|record| record.position > self.durable);
            records.extend(page.into_iter().filter(|record| record.position <= self.durable));
            if is_end {
                break;
            }
        }
        records.truncate(limit);
        Ok(records)
    }
}

/// The place behind a page that was asked for from `next` on. Who walked by places that do not rise would walk for
/// ever.
fn behind(page: &[Record], is_stream: bool, next: u64) -> Result<u64, ReadError> {
    page.iter().map(|it| if is_stream { it.version.get() } else { it.position.get() }).try_fold(
        next,
        |next, place| {
            let above = place.checked_add(1).filter(|_| place >= next);
            above.ok_or_else(|| {
                ReadError::Io(format!("the daemon answers with {place} where {next} or later was asked for"))
            })
        },
    )
}

impl Source for Live {
    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        let Some(name) = StreamName::parse(stream) else {
            return Ok(Vec::new());
        };
        self.pages(Some(&name.to_string()), from.get().max(1), limit)
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        if from > self.durable {
            return Ok(Vec::new());
        }
        let left = usize::try_from(self.durable.get() - from.get() + 1).unwrap_or(usize::MAX);
        self.pages(None, from.get().max(1), limit.min(left))
    }

    fn durable(&self) -> Position {
        self.durable
    }

    /// What was read is folded before more is asked for: neither is long at work in one piece.
    fn page_records(&self) -> usize {
        PAGE_RECORDS
    }
}

/// The answer, after a rest as long as the daemon took for it.
async fn rested<T>(asked: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let answer = asked.await;
    sleep(begun.elapsed().min(REST_MAX)).await;
    answer
}

/// Lets the work of this machine's others go first, from this thread on and every one that it begins. Who may not
/// stand back still looks.
pub fn stand_back() {
    let _ = rustix::process::nice(NICE);
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let handle = Handle::current();
    tokio::task::block_in_place(|| handle.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventlog::StreamKind;

    fn page(places: &[u64]) -> Vec<Record> {
        let record = |place: &u64| Record {
            position: Position::new(*place),
            stream: StreamId::new(StreamKind(1), [7; 16]),
            version: Version::new(*place),
            previous: Position::ZERO,
            cause: Position::ZERO,
            kind: 100,
            schema: 1,
            codec: eventlog::CodecId(1),
            time_us: 1,
            index: (0, 1),
            context: None,
            payload: bytes::Bytes::new(),
        };
        places.iter().map(record).collect()
    }

    #[test]
    fn a_page_that_does_not_rise_is_refused_and_one_with_a_gap_is_not() {
        for (places, expected) in [
            (vec![], Some(5)),
            (vec![5, 6, 7], Some(8)),
            (vec![6, 9], Some(10)),
            (vec![4], None),
            (vec![5, 5], None),
            (vec![7, 6], None),
            (vec![u64::MAX], None),
        ] {
            for is_stream in [false, true] {
                assert_eq!(behind(&page(&places), is_stream, 5).ok(), expected, "{places:?}");
            }
        }
    }
}
