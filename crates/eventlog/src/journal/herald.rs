//! Telling callers what became of their appends, on the callers' own executor, while the next batch is synced.
//!
//! ```text
//! writer ─▶ batches of answers ─▶ herald, a task among those that wait: one wake from outside, the rest from inside
//! ```
//!
//! Waking a task from another thread takes longer than judging and encoding its append; in the writer it would
//! stand between one sync and the next. A task that wakes its neighbours takes a tenth of that, and wakes no
//! thread. For the same reason it frees what callers have allocated and the writer is done with.
//!
//! Invariants:
//! * it is given answers only after what they say is durable and readers see it;
//! * at most [`WAITING_MAX`] batches of answers wait for it; beyond that the writer answers by itself, so that
//!   a slow executor holds up the writer and not memory;
//! * without a herald, or when it is gone, the writer tells everything itself: what waits is never left untold.

use super::writer::Answer;
use crate::types::Record;
use futures::future::poll_fn;
use futures::task::AtomicWaker;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// Batches of answers that wait.
const WAITING_MAX: usize = 2;
/// Fewer answers than these are told by the writer itself: waking the herald takes as long.
const TOLD_BY_WRITER_MAX: usize = 2;

/// What one batch leaves to do.
#[derive(Default)]
struct Work {
    answers: Vec<Answer>,
    /// To be freed.
    forgotten: Vec<Vec<Record>>,
}

impl Work {
    fn finish(&mut self) {
        tell(&mut self.answers);
        self.forgotten.clear();
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    /// Emptied lists, to be filled again.
    emptied: Vec<Work>,
    /// Heralds that are there: the tasks of [`Board::herald`].
    heralds: usize,
    is_over: bool,
}

/// What lies between the writer and the herald.
#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    arrived: AtomicWaker,
    /// Held while a batch is told: whoever gets it knows that none is half told.
    telling: Mutex<()>,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn telling(&self) -> MutexGuard<'_, ()> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that all of the answers are told and all that is forgotten is freed, and leaves both lists empty.
    pub(crate) fn tell(&self, answers: &mut Vec<Answer>, forgotten: &mut Vec<Vec<Record>>) {
        let is_given = answers.len() > TOLD_BY_WRITER_MAX && {
            let mut state = self.state();
            let is_open = state.heralds > 0 && state.waiting.len() < WAITING_MAX;
            if is_open {
                let mut work = state.emptied.pop().unwrap_or_default();
                std::mem::swap(&mut work.answers, answers);
                std::mem::swap(&mut work.forgotten, forgotten);
                state.waiting.push_back(work);
            }
            is_open
        };
        if is_given {
            self.arrived.wake();
        } else {
            tell(answers);
            forgotten.clear();
        }
    }

    /// Tells what waits; nothing is half told when this returns. The herald ends.
    pub(crate) fn finish(&self) {
        self.state().is_over = true;
        while self.tell_one() {}
        drop(self.telling());
        self.arrived.wake();
    }

    /// Tells the oldest batch. Answers whether there was one.
    fn tell_one(&self) -> bool {
        let _telling = self.telling();
        let Some(mut work) = self.state().waiting.pop_front() else { return false };
        work.finish();
        let mut state = self.state();
        if state.emptied.len() < WAITING_MAX {
            state.emptied.push(work);
        }
        true
    }

    /// The herald. It ends with the journal.
    pub(crate) async fn herald(self: Arc<Self>) {
        let present = Present::new(self);
        let board = &present.board;
        poll_fn(|context| {
            board.arrived.register(context.waker());
            if board.tell_one() {
                // The tasks just woken come first.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if board.state().is_over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// A herald that is there. When it goes, with its executor or by itself, what waits for it is told.
struct Present {
    board: Arc<Board>,
}

impl Present {
    fn new(board: Arc<Board>) -> Self {
        board.state().heralds += 1;
        Self { board }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.board.state().heralds -= 1;
        while self.board.tell_one() {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::shape::stream;
    use crate::types::{Claim, Epoch, Head, Unavailable};
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use tokio::sync::oneshot::{Receiver, channel};

    struct Stage {
        board: Arc<Board>,
        told: Vec<Receiver<Result<Claim, Unavailable>>>,
    }

    impl Stage {
        fn new() -> Self {
            Self { board: Arc::default(), told: vec![] }
        }

        /// A herald that is there and has found nothing to do.
        fn herald(&self) -> BoxFuture<'static, ()> {
            let mut herald = self.board.clone().herald().boxed();
            assert_eq!((&mut herald).now_or_never(), None, "it waits");
            herald
        }

        fn publish(&mut self, answers: usize) {
            let mut batch = vec![];
            for _ in 0..answers {
                let (reply, answer) = channel();
                let claim = Claim { epoch: Epoch::ZERO, head: Head::default() };
                batch.push(Answer::Claim(reply, stream(1), claim));
                self.told.push(answer);
            }
            self.board.tell(&mut batch, &mut vec![]);
            assert!(batch.is_empty());
        }

        /// How many callers have been told since the last time.
        fn told(&mut self) -> usize {
            let before = self.told.len();
            self.told.retain_mut(|answer| answer.try_recv().is_err());
            before - self.told.len()
        }
    }

    const BATCH: usize = TOLD_BY_WRITER_MAX + 1;

    #[test]
    fn without_a_herald_the_writer_tells() {
        let mut stage = Stage::new();
        stage.publish(BATCH);
        assert_eq!(stage.told(), BATCH);
    }

    #[test]
    fn a_herald_tells_a_batch_at_a_time_and_lets_others_in_between() {
        let mut stage = Stage::new();
        let mut herald = stage.herald();
        stage.publish(BATCH);
        stage.publish(BATCH);
        assert_eq!(stage.told(), 0, "nobody is told by the writer");
        for _ in 0..2 {
            assert_eq!((&mut herald).now_or_never(), None);
            assert_eq!(stage.told(), BATCH);
        }
    }

    #[test]
    fn what_a_herald_has_no_room_for_the_writer_tells() {
        let mut stage = Stage::new();
        let _herald = stage.herald();
        for _ in 0..WAITING_MAX {
            stage.publish(BATCH);
        }
        assert_eq!(stage.told(), 0);
        stage.publish(BATCH);
        assert_eq!(stage.told(), BATCH, "the newest, not those that wait");
        stage.publish(TOLD_BY_WRITER_MAX);
        assert_eq!(stage.told(), TOLD_BY_WRITER_MAX, "too few to wake it");
    }

    #[test]
    fn what_waits_for_a_herald_that_goes_is_told() {
        let mut stage = Stage::new();
        let herald = stage.herald();
        stage.publish(BATCH);
        drop(herald);
        assert_eq!(stage.told(), BATCH);
        stage.publish(BATCH);
        assert_eq!(stage.told(), BATCH, "by the writer");
    }

    #[test]
    fn at_the_end_all_is_told_and_the_herald_ends() {
        let mut stage = Stage::new();
        let herald = stage.herald();
        stage.publish(BATCH);
        stage.board.finish();
        assert_eq!(stage.told(), BATCH);
        assert_eq!(herald.now_or_never(), Some(()));
        stage.publish(BATCH);
        assert_eq!(stage.told(), BATCH, "by the writer");
    }
}
