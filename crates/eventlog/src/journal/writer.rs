//! The writer: the only thread that appends.
//!
//! ```text
//! take what waits ─▶ judge each ─▶ one write ─▶ one sync ─▶ publish ─▶ answer
//! ```
//!
//! Invariants:
//! * no answer leaves before the sync of the batch it was decided in: a conflict or a claim may rest on an
//!   append of the same batch;
//! * a batch is one write and one sync, whatever the number of appends in it; the sync under way is what
//!   gathers the next batch, there is no other delay;
//! * a batch refused for space left no byte behind; after any other failed write, and after any failed
//!   sync, nothing is written any more;
//! * epochs take effect when they are judged: a fence does not wait for a disk.

use super::Shared;
use super::ballast;
use super::config::JournalConfig;
use super::files::{Files, Handle, is_no_space, write_full, write_zeros};
use super::format::{BATCH_HEADER_BYTES, BatchHeader, SEGMENT_HEADER_BYTES, SegmentHeader, aligned};
use super::heads;
use super::keeper::{Keeper, Prepared};
use super::overlay::{Overlay, Pending};
use super::queue::{Request, Taken};
use super::recovery::{Ready, place_segment};
use super::view::View;
use super::witness::{Untold, Witness};
use crate::failpoints::{Point, pass};
use crate::gate::{self, Owned};
use crate::record;
use crate::types::{
    AppendOutcome, Claim, Epoch, LIMITS, NewEvent, Position, Record, StreamId, Unavailable, Version,
};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long the writer waits for work when nothing else is left to do: it only bounds one wait.
const IDLE_PATIENCE: Duration = Duration::from_hours(1);

/// Records a batch gets room for at once: one for each request, as long as this is not much.
const RECORDS_EXPECTED_MAX: usize = 1 << 10;

/// Why a batch was not made durable.
#[derive(Clone, Debug)]
enum Failed {
    /// Nothing of it is on disk; another may succeed.
    NoSpace(String),
    /// What is on disk is unknown.
    Poisoned(String),
}

/// What a caller is to be told.
pub(crate) enum Answer {
    /// With the emptied list of its events: who made it is another thread, and freeing it there takes a while.
    Append(oneshot::Sender<AppendOutcome>, AppendOutcome, Vec<NewEvent>),
    Claim(oneshot::Sender<Result<Claim, Unavailable>>, StreamId, Claim),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    GoOn,
    Stop,
}

/// The writer's own state; everything others see is in `shared`.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    files: Arc<dyn Files>,
    dir: PathBuf,
    config: JournalConfig,
    keeper: Option<Keeper>,
    spare: Option<Prepared>,
    witness: Witness,
    witnessed_at: Instant,
    /// How long the newest sync took.
    sync_took: Duration,
    segment: Arc<dyn Handle>,
    offset: u64,
    capacity: u64,
    chain: u64,
    next: Position,
    minted: Epoch,
    bytes_since_heads: u64,
    checkpoint: Option<Position>,
    /// Reused from batch to batch.
    buffer: Vec<u8>,
    records: Vec<Record>,
    /// Bytes of these records as they are written.
    body_bytes: usize,
    overlay: Overlay,
    answers: Vec<Answer>,
    /// Records that readers find in memory no more.
    forgotten: Vec<Vec<Record>>,
    is_closing: bool,
}

#[expect(
    clippy::disallowed_methods,
    reason = "paces the tail witness of a real disk, and measures it; nothing is decided by it"
)]
fn now() -> Instant {
    Instant::now()
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        files: Arc<dyn Files>,
        dir: PathBuf,
        config: JournalConfig,
        ready: Ready,
    ) -> io::Result<Self> {
        let keeper = Keeper::start(shared.clone(), files.clone(), dir.clone())?;
        let recovered = ready.recovered;
        let overlay = Overlay::new(shared.store_id);
        Ok(Self {
            shared,
            files,
            dir,
            config,
            keeper: Some(keeper),
            spare: None,
            witness: ready.witness,
            witnessed_at: now(),
            sync_took: Duration::ZERO,
            segment: ready.tail,
            offset: recovered.scan.tail_offset,
            capacity: recovered.tail_bytes,
            chain: recovered.scan.chain,
            next: recovered.scan.next,
            minted: Epoch::ZERO,
            bytes_since_heads: 0,
            checkpoint: recovered.report.checkpoint,
            buffer: Vec::new(),
            records: Vec::new(),
            body_bytes: 0,
            overlay,
            answers: Vec::new(),
            forgotten: Vec::new(),
            is_closing: false,
        })
    }

    /// Works until the journal is closed, abandoned or poisoned.
    pub(crate) fn run(mut self) {
        let mut requests = VecDeque::new();
        loop {
            let is_witnessed = self.witness.position() == self.durable();
            let patience = if is_witnessed {
                IDLE_PATIENCE
            } else {
                Duration::from_millis(self.config.witness_every_ms)
            };
            let flow = match self.shared.queue.take(&mut requests, LIMITS.batch_bytes_max, patience) {
                Taken::Work => self.commit(&mut requests),
                Taken::Idle => self.testify(Duration::ZERO),
                Taken::Abandoned => Flow::Stop,
            };
            if flow == Flow::Stop {
                return;
            }
        }
    }

    fn commit(&mut self, requests: &mut VecDeque<Request>) -> Flow {
        self.judge(requests);
        let failed = if self.records.is_empty() { Ok(()) } else { self.write() };
        match failed {
            Ok(()) => {
                self.publish();
                pass(Point::BatchPublished);
                self.shared.board.tell(&mut self.answers, &mut self.forgotten);
            }
            Err(Failed::NoSpace(why)) => {
                self.publish_epochs(&why);
                self.refuse_batch(&Failed::NoSpace(why));
            }
            Err(Failed::Poisoned(why)) => return self.poison(why),
        }
        if self.is_closing {
            self.finish();
            return Flow::Stop;
        }
        self.testify(Duration::from_millis(self.config.witness_every_ms))
    }

    /// Decides every request against durable heads and what this batch has added to them.
    fn judge(&mut self, requests: &mut VecDeque<Request>) {
        let shared = self.shared.clone();
        let view = shared.view();
        self.records.reserve(requests.len().min(RECORDS_EXPECTED_MAX));
        for request in requests.drain(..) {
            match request {
                _ if self.is_closing => refuse(request, &Unavailable::Closed),
                Request::Append { mut append, reply, .. } => {
                    let stream = append.stream;
                    let Pending { owned, place } = self.pending(&view, stream);
                    let outcome = gate::judge(owned, &append).unwrap_or_else(|| {
                        let first = Position::new(self.next.get() + self.records.len() as u64);
                        let (outcome, head) = gate::place(&mut append, owned, first, &mut self.records);
                        self.overlay.insert(stream, Pending { owned: Owned { head, ..owned }, place });
                        outcome
                    });
                    self.answers.push(Answer::Append(reply, outcome, append.events));
                }
                Request::Claim { stream, reply } => {
                    self.minted = self.minted.next();
                    let Pending { owned, place } = self.pending(&view, stream);
                    let owned = Owned { epoch: self.minted, ..owned };
                    self.overlay.insert(stream, Pending { owned, place });
                    let claim = Claim { epoch: owned.epoch, head: owned.head };
                    self.answers.push(Answer::Claim(reply, stream, claim));
                }
                Request::Close => self.is_closing = true,
                #[cfg(test)]
                Request::Panic => panic!("a test asked for it"),
            }
        }
    }

    fn durable(&self) -> Position {
        Position::new(self.next.get() - 1)
    }

    /// What is held about a stream once this batch is durable.
    fn pending(&self, view: &View, stream: StreamId) -> Pending {
        self.overlay.get(&stream).unwrap_or_else(|| {
            let place = view.heads.find(&stream);
            Pending { owned: place.map_or_else(Owned::default, |place| *view.heads.at(place)), place }
        })
    }

    /// Encodes the batch, writes it and syncs it.
    fn write(&mut self) -> Result<(), Failed> {
        self.buffer.clear();
        self.buffer.resize(BATCH_HEADER_BYTES, 0);
        for record in &self.records {
            record::encode(&mut self.buffer, record);
        }
        let body = &self.buffer[BATCH_HEADER_BYTES..];
        assert!(body.len() <= LIMITS.batch_bytes_max, "the queue gives out no more than a batch holds");
        let body_bytes = body.len();
        self.body_bytes = body_bytes;
        let header = |chain| BatchHeader {
            body_bytes: body_bytes as u32,
            count: self.records.len() as u32,
            first: self.next,
            chain,
            body_crc: crc32c::crc32c(body),
        };
        let header = header(self.chain);
        self.buffer[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
        let padded = aligned(self.buffer.len() as u64);
        self.buffer.resize(padded as usize, 0);
        self.make_room(padded)?;
        pass(Point::BatchEncoded);
        write_full(&*self.segment, &self.buffer, self.offset).map_err(|failure| {
            let why = format!("writing a batch failed: {}", failure.error);
            if is_no_space(&failure.error) && !failure.is_partial {
                Failed::NoSpace(why)
            } else {
                Failed::Poisoned(why)
            }
        })?;
        pass(Point::BatchWritten);
        let began = now();
        self.segment.sync().map_err(|error| Failed::Poisoned(format!("syncing a batch failed: {error}")))?;
        self.sync_took = now().duration_since(began);
        pass(Point::BatchSynced);
        assert_eq!(header.next_offset(self.offset), self.offset + padded, "readers find the next batch");
        self.offset += padded;
        self.chain = header.chain_after();
        self.bytes_since_heads += padded;
        Ok(())
    }

    /// Moves on to the next segment if the batch does not fit into this one.
    fn make_room(&mut self, batch_bytes: u64) -> Result<(), Failed> {
        let keeper = self.keeper.as_mut().expect("the keeper stays until the end");
        // A quarter is early enough: the rest takes longer to fill than the next segment takes to zero.
        if self.offset >= self.capacity / 4 && self.spare.is_none() {
            keeper.prepare(self.config.segment_bytes);
        }
        if self.offset + batch_bytes <= self.capacity {
            return Ok(());
        }
        let failed = |error: io::Error| {
            let why = format!("preparing a segment failed: {error}");
            if is_no_space(&error) { Failed::NoSpace(why) } else { Failed::Poisoned(why) }
        };
        // One append larger than a segment gets a larger segment.
        let needed = SEGMENT_HEADER_BYTES as u64 + batch_bytes;
        if self.offset == SEGMENT_HEADER_BYTES as u64 {
            write_zeros(&*self.segment, self.capacity, needed).map_err(failed)?;
            self.capacity = needed;
            return Ok(());
        }
        if self.spare.is_none() {
            keeper.prepare(self.config.segment_bytes);
            self.spare = Some(keeper.prepared().map_err(failed)?);
        }
        let mut spare = self.spare.take().expect("there is one by now");
        if spare.bytes < needed {
            if let Err(error) = write_zeros(&*spare.file, spare.bytes, needed) {
                self.spare = Some(spare);
                return Err(failed(error));
            }
            spare.bytes = needed;
        }
        let store = self.shared.store_id;
        let header = SegmentHeader { store, first: self.next, chain: self.chain };
        place_segment(&*self.files, &self.dir, &*spare.file, header)
            .map_err(|error| Failed::Poisoned(format!("putting a segment in place failed: {error}")))?;
        self.shared.catalog.add(self.next);
        self.segment = spare.file;
        self.capacity = spare.bytes;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }

    /// Shows readers what has become durable.
    fn publish(&mut self) {
        let mut view = self.shared.view_mut();
        for (stream, Pending { owned, place }) in self.overlay.drain() {
            let before = view.heads.insert_at(place, stream, owned).unwrap_or_default();
            assert!(before.head.version <= owned.head.version, "heads only rise");
            let is_begun = before.head.version == Version::ZERO && owned.head.version != Version::ZERO;
            view.stats.streams += u64::from(is_begun);
        }
        if let Some(last) = self.records.last() {
            let appended =
                |answer: &&Answer| matches!(answer, Answer::Append(_, AppendOutcome::Appended { .. }, _));
            view.stats.bytes += self.body_bytes as u64;
            view.stats.appends += self.answers.iter().filter(appended).count() as u64;
            view.stats.batches += 1;
            view.stats.syncs += 1;
            view.stats.sync_micros += self.sync_took.as_micros() as u64;
            view.durable = last.position;
            view.chain = self.chain;
            view.refusal = None;
            self.next = last.position.next();
            view.ring.push(std::mem::take(&mut self.records), self.body_bytes, &mut self.forgotten);
        }
        let durable = view.durable;
        drop(view);
        self.shared.progress.send_if_modified(|progress| {
            let is_further = progress.durable < durable;
            progress.durable = durable;
            is_further
        });
        if self.bytes_since_heads >= self.config.heads_every_bytes {
            self.bytes_since_heads = 0;
            self.keeper.as_ref().expect("the keeper stays until the end").checkpoint();
        }
    }

    /// Keeps the claims of a batch whose records were refused.
    fn publish_epochs(&mut self, why: &str) {
        self.records.clear();
        let mut view = self.shared.view_mut();
        view.refusal = Some(Unavailable::NoSpace(why.to_owned()));
        for (stream, Pending { owned, .. }) in self.overlay.drain() {
            if owned.epoch > Epoch::ZERO {
                let before = view.heads.get(&stream).copied().unwrap_or_default();
                view.heads.insert(stream, Owned { epoch: owned.epoch, ..before });
            }
        }
    }

    /// Answers a batch that is not durable.
    fn refuse_batch(&mut self, failed: &Failed) {
        for answer in self.answers.drain(..) {
            match (answer, failed) {
                (Answer::Append(reply, fenced @ AppendOutcome::Fenced { .. }, _), _) => {
                    drop(reply.send(fenced));
                }
                (Answer::Append(reply, ..), Failed::NoSpace(why)) => {
                    drop(reply.send(AppendOutcome::Unavailable(Unavailable::NoSpace(why.clone()))));
                }
                (Answer::Claim(reply, stream, claim), Failed::NoSpace(_)) => {
                    // The head it saw may have been in the refused batch.
                    let head =
                        self.shared.view().heads.get(&stream).map_or_else(Default::default, |it| it.head);
                    drop(reply.send(Ok(Claim { head, ..claim })));
                }
                (Answer::Append(reply, AppendOutcome::Appended { .. }, _), Failed::Poisoned(_)) => {
                    drop(reply.send(AppendOutcome::Unknown));
                }
                (Answer::Append(reply, ..), Failed::Poisoned(why)) => {
                    drop(reply.send(AppendOutcome::Unavailable(Unavailable::Poisoned(why.clone()))));
                }
                (Answer::Claim(reply, ..), Failed::Poisoned(why)) => {
                    drop(reply.send(Err(Unavailable::Poisoned(why.clone()))));
                }
            }
        }
    }

    fn poison(&mut self, why: String) -> Flow {
        tracing::error!(%why, "the log is poisoned and refuses every append until it is opened again");
        let reason = Unavailable::Poisoned(why.clone());
        refuse_all(self.shared.queue.end(reason.clone()), &reason);
        self.refuse_batch(&Failed::Poisoned(why));
        self.shared.end(reason);
        Flow::Stop
    }

    /// Renews the tail witness if it is behind and older than `age`.
    fn testify(&mut self, age: Duration) -> Flow {
        let durable = self.durable();
        if self.witness.position() == durable || now().duration_since(self.witnessed_at) < age {
            return Flow::GoOn;
        }
        self.witnessed_at = now();
        let mut told = self.witness.testify(durable, self.chain);
        if self.is_closing && matches!(told, Err(Untold::NoSpace(_))) {
            // Without a ballast it fails again, and says so.
            drop(ballast::release(&*self.files, &self.dir));
            told = self.witness.testify(durable, self.chain);
        }
        match told {
            Ok(()) => Flow::GoOn,
            Err(Untold::NoSpace(error)) => {
                tracing::warn!(%error, "the tail witness was not renewed; it is tried again");
                Flow::GoOn
            }
            Err(Untold::Failed(error)) => self.poison(format!("writing the tail witness failed: {error}")),
        }
    }

    /// Ends a clean close: nothing waits, everything is durable.
    fn finish(&mut self) {
        refuse_all(self.shared.queue.end(Unavailable::Closed), &Unavailable::Closed);
        // Whoever waits for the end has been told before it.
        self.shared.board.finish();
        // The keeper may be writing the same temporary file.
        self.keeper = None;
        let durable = self.durable();
        if durable > Position::ZERO
            && self.checkpoint != Some(durable)
            && let Err(error) = self.write_checkpoint(durable)
        {
            tracing::warn!(%error, "the heads checkpoint was not written; the next opening reads more of the log");
        }
        if self.testify(Duration::ZERO) == Flow::GoOn {
            self.shared.end(Unavailable::Closed);
        }
    }
}

impl Writer {
    /// Writes a heads checkpoint, into the room of the ballast if there is no other.
    fn write_checkpoint(&self, durable: Position) -> io::Result<()> {
        let (files, dir) = (&*self.files, &*self.dir);
        let (position, encoded) = self.shared.encoded_heads();
        assert_eq!(position, durable, "readers see all that is durable");
        let written = heads::write(files, dir, position, &encoded);
        if !written.as_ref().is_err_and(is_no_space) {
            return written;
        }
        ballast::release(files, dir)?;
        heads::write(files, dir, position, &encoded)?;
        // Opening tries again if there is no room for it now.
        drop(ballast::ensure(files, dir, self.config.ballast_bytes));
        Ok(())
    }
}

fn refuse(request: Request, reason: &Unavailable) {
    match request {
        Request::Append { reply, .. } => drop(reply.send(AppendOutcome::Unavailable(reason.clone()))),
        Request::Claim { reply, .. } => drop(reply.send(Err(reason.clone()))),
        Request::Close => {}
        #[cfg(test)]
        Request::Panic => {}
    }
}

fn refuse_all(requests: VecDeque<Request>, reason: &Unavailable) {
    for request in requests {
        refuse(request, reason);
    }
}
