//! The journal's third thread: it tells callers what became of their appends while the next batch is synced.
//!
//! Waking a task takes longer than judging and encoding its append. In the writer it would stand between one
//! sync and the next; beside it, the disk does not wait for it. For the same reason it frees what callers have
//! allocated and the writer is done with.
//!
//! Invariants:
//! * it is given answers only after what they say is durable and readers see it;
//! * at most [`WAITING_MAX`] batches of answers wait for it; beyond that the writer answers by itself, so that
//!   a slow executor holds up the writer and not memory;
//! * it ends when the writer lets go of it, after everything it was given is told; the writer waits for that.

use super::writer::Answer;
use crate::types::Record;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Batches of answers that wait.
const WAITING_MAX: usize = 2;
/// Fewer answers than these are told by the writer itself: waking one more thread takes as long.
const TOLD_BY_WRITER_MAX: usize = 16;

/// What one batch leaves to do.
#[derive(Default)]
struct Work {
    answers: Vec<Answer>,
    /// To be freed.
    forgotten: Vec<Vec<Record>>,
}

/// The writer's handle of the herald.
pub(crate) struct Herald {
    batches: Option<SyncSender<Work>>,
    /// Emptied lists, to be filled again.
    emptied: Receiver<Work>,
    thread: Option<JoinHandle<()>>,
}

impl Herald {
    pub(crate) fn start() -> io::Result<Self> {
        let (batches, inbox) = sync_channel::<Work>(WAITING_MAX);
        let (outbox, emptied) = sync_channel(WAITING_MAX);
        let work = move || {
            for mut work in inbox {
                tell(&mut work.answers);
                work.forgotten.clear();
                // With nobody to fill it again it is dropped.
                drop(outbox.try_send(work));
            }
        };
        let thread = std::thread::Builder::new().name("journal-herald".into()).spawn(work)?;
        Ok(Self { batches: Some(batches), emptied, thread: Some(thread) })
    }

    /// Sees to it that all of the answers are told and all that is forgotten is freed, and leaves both lists empty.
    pub(crate) fn tell(&self, answers: &mut Vec<Answer>, forgotten: &mut Vec<Vec<Record>>) {
        let Some(batches) = self.batches.as_ref().filter(|_| answers.len() > TOLD_BY_WRITER_MAX) else {
            tell(answers);
            return forgotten.clear();
        };
        let mut work = self.emptied.try_recv().unwrap_or_default();
        std::mem::swap(&mut work.answers, answers);
        std::mem::swap(&mut work.forgotten, forgotten);
        match batches.try_send(work) {
            Ok(()) => {}
            Err(TrySendError::Full(mut back) | TrySendError::Disconnected(mut back)) => {
                tell(&mut back.answers);
            }
        }
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's herald panicked; the writer has answered by itself since");
        }
    }
}

/// Tells each caller. One that gave up waiting needs no answer; what it asked for stands all the same.
fn tell(answers: &mut Vec<Answer>) {
    for answer in answers.drain(..) {
        match answer {
            Answer::Append(reply, outcome, emptied) => {
                drop(reply.send(outcome));
                drop(emptied);
            }
            Answer::Claim(reply, _, claim) => drop(reply.send(Ok(claim))),
        }
    }
}
