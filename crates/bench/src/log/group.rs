//! The plainest program with the journal's discipline: a bounded queue, one thread that takes what waits,
//! one write, one sync, an answer to each.
//!
//! ```text
//! writers ─▶ queue ─▶ thread: sink.commit(all that waits) ─▶ answers
//! ```
//!
//! Invariants:
//! * nothing is checked, numbered or remembered: what the journal does beyond this is what it costs;
//! * an answer leaves after the sink has said that the whole batch is stored.

use crate::Failure;
use crate::log::engine::Writer;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Where a batch goes.
pub trait Sink: Send + 'static {
    /// Stores all of the blocks, then answers.
    fn commit(&mut self, blocks: &[Bytes]) -> Result<(), Failure>;
}

/// A zero-filled file, written from its start to its end and again.
pub struct PlainFile {
    file: File,
    buffer: Vec<u8>,
    offset: usize,
    file_bytes: usize,
}

impl PlainFile {
    /// Creates the file, zero-filled and synced, so that a later sync has no metadata to write.
    pub fn create(path: &Path, file_bytes: usize) -> Result<Self, Failure> {
        std::fs::write(path, vec![0u8; file_bytes])?;
        let file = OpenOptions::new().write(true).open(path)?;
        file.sync_all()?;
        Ok(Self { file, buffer: Vec::new(), offset: 0, file_bytes })
    }
}

impl Sink for PlainFile {
    fn commit(&mut self, blocks: &[Bytes]) -> Result<(), Failure> {
        self.buffer.clear();
        for block in blocks {
            self.buffer.extend_from_slice(block);
        }
        if self.offset + self.buffer.len() > self.file_bytes {
            self.offset = 0;
        }
        self.file.write_all_at(&self.buffer, self.offset as u64)?;
        self.file.sync_data()?;
        self.offset += self.buffer.len();
        Ok(())
    }
}

/// The embedded database with one batch and one `flush` per group.
pub struct Database {
    tree: sled_db::Db,
    next: u64,
}

impl Database {
    /// Opens an empty database.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let config = sled_db::Config::new().path(path).cache_capacity(256 << 20).flush_every_ms(Some(500));
        Ok(Self { tree: config.open()?, next: 1 })
    }
}

impl Sink for Database {
    fn commit(&mut self, blocks: &[Bytes]) -> Result<(), Failure> {
        let mut batch = sled_db::Batch::default();
        for block in blocks {
            batch.insert(&self.next.to_be_bytes(), &block[..]);
            self.next += 1;
        }
        self.tree.apply_batch(batch)?;
        self.tree.flush()?;
        Ok(())
    }
}

type Waiting = (Bytes, oneshot::Sender<()>);

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    is_over: bool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    /// Groups stored so far.
    commits: AtomicU64,
}

/// The thread and its queue.
pub struct Group {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Group {
    /// Starts the thread.
    pub fn start(sink: impl Sink) -> Result<Self, Failure> {
        let queue = Arc::new(Queue::default());
        let inbox = queue.clone();
        let thread =
            std::thread::Builder::new().name("plain-writer".into()).spawn(move || serve(&inbox, sink))?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Groups stored so far.
    pub fn commits(&self) -> u64 {
        self.queue.commits.load(Ordering::Relaxed)
    }

    /// A writer of blocks of `block_bytes`.
    pub fn writer(&self, block_bytes: usize) -> GroupWriter {
        GroupWriter { queue: self.queue.clone(), block: Bytes::from(vec![7; block_bytes]) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.queue.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic has been seen by whoever waited for an answer.
            drop(thread.join());
        }
    }
}

fn serve(queue: &Queue, mut sink: impl Sink) {
    let mut taken: Vec<Waiting> = Vec::new();
    let mut blocks = Vec::new();
    loop {
        let state = queue.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_quiet = |state: &mut State| state.waiting.is_empty() && !state.is_over;
        let mut state = queue.arrived.wait_while(state, is_quiet).unwrap_or_else(PoisonError::into_inner);
        if state.is_over {
            return;
        }
        taken.append(&mut state.waiting);
        drop(state);
        blocks.clear();
        blocks.extend(taken.iter().map(|(block, _)| block.clone()));
        if let Err(error) = sink.commit(&blocks) {
            // Dropped answers end the round.
            eprintln!("musher-bench: the plain writer failed: {error}");
            return;
        }
        queue.commits.fetch_add(1, Ordering::Relaxed);
        for (_, reply) in taken.drain(..) {
            // Whoever gave up waiting needs no answer.
            reply.send(()).ok();
        }
    }
}

/// One writer before the queue.
pub struct GroupWriter {
    queue: Arc<Queue>,
    block: Bytes,
}

impl Writer for GroupWriter {
    fn append(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        let (reply, answer) = oneshot::channel();
        let block = self.block.clone();
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner).waiting.push((block, reply));
        self.queue.arrived.notify_one();
        async move { Ok(answer.await?) }.boxed()
    }
}
