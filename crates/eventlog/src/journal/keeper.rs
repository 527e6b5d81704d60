//! The journal's second thread: work that must not hold up the writer.
//!
//! Invariants:
//! * it prepares one segment at a time, under a temporary name, zero-filled and synced;
//! * it writes heads checkpoints of what readers see, which is durable, one at a time: however often they are
//!   asked for, there is room for the next preparation;
//! * it ends when the writer lets go of it, and the writer waits for that.

use super::Shared;
use super::files::{Files, Handle, write_zeros};
use super::format::SEGMENT_TEMP_NAME;
use super::heads;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Tasks waiting: one preparation and one checkpoint.
const TASKS_MAX: usize = 2;

/// Zeros written at once.
const PIECE_BYTES: usize = 256 << 10;
/// Zeros synced at once: each sync makes the disk write out everything it was given, and the writer wait for that.
const SYNCED_BYTES: u64 = 16 << 20;

enum Task {
    Prepare(u64),
    Checkpoint,
}

/// A zero-filled segment under its temporary name.
pub(crate) struct Prepared {
    pub(crate) file: Arc<dyn Handle>,
    pub(crate) bytes: u64,
}

/// The writer's handle of the keeper.
pub(crate) struct Keeper {
    tasks: Option<SyncSender<Task>>,
    prepared: Receiver<io::Result<Prepared>>,
    is_preparing: bool,
    /// Whether heads are being written down, or are to be.
    is_writing_heads: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(crate) fn start(shared: Arc<Shared>, files: Arc<dyn Files>, dir: PathBuf) -> io::Result<Self> {
        let (tasks, inbox) = sync_channel(TASKS_MAX);
        let (outbox, prepared) = sync_channel(1);
        let is_writing_heads = Arc::new(AtomicBool::new(false));
        let is_written = is_writing_heads.clone();
        let work = move || {
            for task in &inbox {
                match task {
                    Task::Prepare(bytes) => {
                        if outbox.send(prepare(&*files, &dir, bytes)).is_err() {
                            return;
                        }
                    }
                    Task::Checkpoint => {
                        write_heads(&shared, &*files, &dir);
                        is_written.store(false, Ordering::Release);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("journal-keeper".into()).spawn(work)?;
        let tasks = Some(tasks);
        Ok(Self { tasks, prepared, is_preparing: false, is_writing_heads, thread: Some(thread) })
    }

    /// Starts preparing a segment unless one is under way.
    pub(crate) fn prepare(&mut self, bytes: u64) {
        if !self.is_preparing && self.send(Task::Prepare(bytes)) {
            self.is_preparing = true;
        }
    }

    /// Writes the heads down unless that is under way. Missing one only makes recovery longer.
    pub(crate) fn checkpoint(&self) {
        if !self.is_writing_heads.swap(true, Ordering::Acquire) && !self.send(Task::Checkpoint) {
            self.is_writing_heads.store(false, Ordering::Release);
        }
    }

    fn send(&self, task: Task) -> bool {
        self.tasks.as_ref().is_some_and(|tasks| tasks.try_send(task).is_ok())
    }

    /// Waits for the segment under way.
    pub(crate) fn prepared(&mut self) -> io::Result<Prepared> {
        if !self.is_preparing {
            return Err(io::Error::other("the journal's keeper takes no task"));
        }
        self.is_preparing = false;
        self.prepared.recv().unwrap_or_else(|_| Err(io::Error::other("the journal's keeper is gone")))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's keeper panicked; segments were prepared by nobody since");
        }
    }
}

fn write_heads(shared: &Shared, files: &dyn Files, dir: &Path) {
    let (position, encoded) = shared.encoded_heads();
    if let Err(error) = heads::write(files, dir, position, &encoded) {
        tracing::warn!(%error, "the heads checkpoint was not written; recovery reads more of the log");
    }
}

fn prepare(files: &dyn Files, dir: &Path, bytes: u64) -> io::Result<Prepared> {
    let path = dir.join(SEGMENT_TEMP_NAME);
    let file = files.create(&path)?;
    match fill(&*file, bytes) {
        Ok(()) => Ok(Prepared { file, bytes }),
        Err(error) => {
            // Gives back the space that the half of it took; failing that changes nothing for the caller.
            drop(files.remove(&path));
            Err(error)
        }
    }
}

/// Zero-fills the file durably. The batches of the writer wait for the same disk and processor: zeros come in pieces,
/// and are synced before there are so many that a sync of the writer's would wait for them noticeably.
fn fill(file: &dyn Handle, bytes: u64) -> io::Result<()> {
    for from in (0..bytes).step_by(PIECE_BYTES) {
        let to = bytes.min(from + PIECE_BYTES as u64);
        write_zeros(file, from, to)?;
        if to.is_multiple_of(SYNCED_BYTES) || to == bytes {
            file.sync()?;
        }
    }
    Ok(())
}
