//! One owner's pen on one stream: claim, read, append, and the meta of what was appended.
//!
//! Every actor that writes goes through here, so that "expected version", "owner epoch" and "times rise
//! strictly" are said once.

use crate::env::Env;
use eventlog::failpoints::{Point, pass};
use eventlog::{AppendOutcome, Claim, Epoch, Position, ReadError, Unavailable, Version};
use journal::{Context, Event, Recorded, StreamName};
use lifecycle::{EventMeta, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// Records read at a time: enough to amortise the call, little enough to hold in memory.
const READ_RECORDS_MAX: usize = 4_096;

/// Claims that may meet a full queue, and the pause between them: half a minute in all.
const CLAIM_ATTEMPTS: usize = 300;
const CLAIM_PAUSE: Duration = Duration::from_millis(100);

/// Ownership of a stream.
pub(crate) struct Writer {
    env: Arc<Env>,
    stream: StreamName,
    epoch: Epoch,
    version: Version,
    last_time: Timestamp,
    position: Position,
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The log refuses.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The stream cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event cannot be understood.
    #[error(transparent)]
    Decode(#[from] journal::DecodeError),
}

/// Why an append did not happen, or may not have.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// Refused; nothing was written, and this owner goes on.
    #[error(transparent)]
    Refused(#[from] Unavailable),
    /// It was a rehearsal of these; nothing was written, and this owner goes on.
    #[error("it was a rehearsal")]
    Rehearsed(Vec<Event>),
    /// Nothing was written, and this owner no longer is one.
    #[error("another owner writes {0}")]
    Lost(StreamName),
    /// It may have been written: the owner must load the stream again.
    #[error("the log ended in the middle of an append to {0}")]
    Unknown(StreamName),
}

/// How far a snapshot has folded a stream; all zero for none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FoldedTo {
    /// Version of the newest event folded.
    pub(crate) version: u64,
    /// Its position.
    pub(crate) position: u64,
    /// Its recorded time.
    pub(crate) time: Timestamp,
}

/// Claims, waiting a while if the log's queue is full: that is a load, not a failure of this stream.
async fn claim(env: &Env, stream: StreamName) -> Result<Claim, Unavailable> {
    for _ in 0..CLAIM_ATTEMPTS {
        match env.log.claim(stream.id()).await {
            Err(Unavailable::QueueFull) => tokio::time::sleep(env.jittered(CLAIM_PAUSE)).await,
            claimed => return claimed,
        }
    }
    env.log.claim(stream.id()).await
}

/// Reads versions `from` to `last`, each with the position of the one before it.
fn read_from(
    env: &Env,
    stream: StreamName,
    from: Version,
    last: Version,
) -> Result<Vec<(Recorded, Position)>, OpenError> {
    let mut records = Vec::new();
    let mut next = from;
    while next <= last {
        let page = env.log.read_stream(stream.id(), next, READ_RECORDS_MAX)?;
        let Some(newest) = page.last() else {
            break;
        };
        next = newest.version.next();
        for record in &page {
            records.push((journal::read(record)?, record.previous));
        }
    }
    Ok(records)
}

impl AppendError {
    /// Whether the owner must stop and be loaded again.
    pub(crate) fn ends_owner(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Rehearsed(_))
    }
}

impl Writer {
    /// Claims the stream and reads all of it. The claim is a barrier: an append of a dead predecessor is
    /// either in what is read, or fenced.
    pub(crate) async fn open(env: Arc<Env>, stream: StreamName) -> Result<(Self, Vec<Recorded>), OpenError> {
        Self::open_after(env, stream, FoldedTo::default()).await
    }

    /// The same for a stream whose beginning is known from a snapshot: reads what follows. A snapshot that
    /// is not of this stream's past counts for nothing, and everything is read; the answer says so by
    /// beginning with version 1.
    pub(crate) async fn open_after(
        env: Arc<Env>,
        stream: StreamName,
        known: FoldedTo,
    ) -> Result<(Self, Vec<Recorded>), OpenError> {
        let claim = claim(&env, stream).await?;
        let (version, position) = (Version::new(known.version), Position::new(known.position));
        let tail = read_from(&env, stream, version.next(), claim.head.version)?;
        let is_past = match tail.first() {
            Some((_, previous)) => *previous == position,
            None => claim.head.version == version && claim.head.position == position,
        };
        let (records, last_time) = if is_past {
            (tail, known.time)
        } else {
            (read_from(&env, stream, Version::new(1), claim.head.version)?, Timestamp::default())
        };
        pass(Point::OwnerLoaded);
        let records: Vec<Recorded> = records.into_iter().map(|(record, _)| record).collect();
        let last_time = records.last().map_or(last_time, |record| record.meta.time);
        let head = claim.head;
        let writer = Self {
            env,
            stream,
            epoch: claim.epoch,
            version: head.version,
            last_time,
            position: head.position,
        };
        Ok((writer, records))
    }

    /// Position of the newest event.
    pub(crate) fn position(&self) -> u64 {
        self.position.get()
    }

    /// The epoch of this ownership.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Appends and waits until it is durable. Answers the place and time of each event.
    pub(crate) async fn append(
        &mut self,
        events: &[Event],
        context: &Context,
    ) -> Result<Vec<EventMeta>, AppendError> {
        assert!(!events.is_empty(), "an append has events");
        // The one place that everything which is written comes through.
        if context.is_rehearsal {
            return Err(AppendError::Rehearsed(events.to_vec()));
        }
        let now = self.env.clock.now();
        let append = journal::append(
            self.stream,
            self.epoch,
            self.version,
            events,
            context,
            now,
            self.last_time,
            &self.env.build,
        )
        .map_err(|too_large| Unavailable::TooLarge(too_large.to_string()))?;
        let times: Vec<Timestamp> =
            append.events.iter().map(|event| Timestamp::from_micros(event.time_us)).collect();
        match self.env.log.append(append).await {
            AppendOutcome::Appended { first, last, version } => {
                pass(Point::OwnerAppended);
                let count = events.len() as u64;
                assert!(last.get() + 1 - first.get() == count, "an append is contiguous");
                assert!(version.get() == self.version.get() + count, "an append extends its stream");
                let before = self.version.get();
                self.version = version;
                self.position = last;
                self.last_time = *times.last().expect("an append has events");
                Ok((0..count)
                    .zip(times)
                    .map(|(n, time)| EventMeta { version: before + 1 + n, position: first.get() + n, time })
                    .collect())
            }
            AppendOutcome::Conflict { .. } | AppendOutcome::Fenced { .. } => {
                Err(AppendError::Lost(self.stream))
            }
            AppendOutcome::Unknown => {
                // Whoever is told "unknown" may look, or ask again: by then the log must show what became of it.
                // A claim is answered after everything before it has been decided; this owner ends either way.
                if let Err(error) = claim(&self.env, self.stream).await {
                    tracing::debug!(stream = %self.stream, %error, "what became of an append stays unknown");
                }
                Err(AppendError::Unknown(self.stream))
            }
            AppendOutcome::Unavailable(reason) => {
                if let Unavailable::Poisoned(why) = &reason {
                    self.env.fatal.raise(format!("the log is poisoned: {why}"));
                }
                Err(AppendError::Refused(reason))
            }
        }
    }
}
