//! The bounded queue before the writer.
//!
//! Invariants:
//! * requests leave in the order they came;
//! * it never holds more than its requests and bytes; what does not fit is refused, not awaited;
//! * once ended it refuses everything with one reason, and hands back what it still held.

use crate::types::{Append, AppendOutcome, Claim, StreamId, Unavailable};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Something for the writer to do.
pub(crate) enum Request {
    Append {
        append: Append,
        bytes: usize,
        reply: oneshot::Sender<AppendOutcome>,
    },
    Claim {
        stream: StreamId,
        reply: oneshot::Sender<Result<Claim, Unavailable>>,
    },
    Close,
    #[cfg(test)]
    Panic,
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { bytes, .. } => *bytes,
            _ => 0,
        }
    }
}

/// What taking from the queue gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Work,
    /// Nothing came for the time given.
    Idle,
    /// Nobody will ask or listen any more.
    Abandoned,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Request>,
    bytes: usize,
    end: Option<Unavailable>,
    is_abandoned: bool,
    /// Whether the writer sleeps: waking one that does not is a call into the system for nothing.
    is_awaited: bool,
}

/// The queue between callers and the writer.
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    requests_max: usize,
    bytes_max: usize,
}

impl Queue {
    pub(crate) fn new(requests_max: usize, bytes_max: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), requests_max, bytes_max }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.state().waiting.len() as u64
    }

    /// Adds a request, or says why not.
    pub(crate) fn push(&self, request: Request) -> Result<(), Unavailable> {
        let mut state = self.state();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        // Closing must be possible under load.
        let is_bounded = !matches!(request, Request::Close);
        let bytes = request.bytes();
        if is_bounded && (state.waiting.len() >= self.requests_max || state.bytes + bytes > self.bytes_max) {
            return Err(Unavailable::QueueFull);
        }
        state.bytes += bytes;
        state.waiting.push_back(request);
        let is_awaited = std::mem::take(&mut state.is_awaited);
        drop(state);
        if is_awaited {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Moves what waits into `out`, which is empty, in order: up to `bytes_max` bytes of records but at least one
    /// request. Waits up to `patience` for the first.
    pub(crate) fn take(&self, out: &mut VecDeque<Request>, bytes_max: usize, patience: Duration) -> Taken {
        assert!(out.is_empty(), "what was taken before is done with");
        let is_quiet = |state: &mut State| {
            state.is_awaited = state.waiting.is_empty() && !state.is_abandoned;
            state.is_awaited
        };
        let waited = self.arrived.wait_timeout_while(self.state(), patience, is_quiet);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_awaited = false;
        if state.is_abandoned {
            return Taken::Abandoned;
        }
        if state.bytes <= bytes_max {
            // Callers wait for this lock: all of it goes in one step, and the emptied list comes back.
            state.bytes = 0;
            std::mem::swap(&mut state.waiting, out);
        }
        let mut taken_bytes = 0;
        while let Some(request) = state.waiting.front() {
            let bytes = request.bytes();
            if !out.is_empty() && taken_bytes + bytes > bytes_max {
                break;
            }
            taken_bytes += bytes;
            out.extend(state.waiting.pop_front());
        }
        state.bytes -= taken_bytes;
        if out.is_empty() { Taken::Idle } else { Taken::Work }
    }

    /// Refuses everything from now on. The first reason stays. Answers what was still waiting.
    pub(crate) fn end(&self, reason: Unavailable) -> VecDeque<Request> {
        let mut state = self.state();
        state.end.get_or_insert(reason);
        state.bytes = 0;
        std::mem::take(&mut state.waiting)
    }

    /// Why everything is refused, once it is.
    pub(crate) fn ended(&self) -> Option<Unavailable> {
        self.state().end.clone()
    }

    /// Lets the writer stop after the batch it is in, without finishing what waits.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.is_abandoned = true;
        state.end.get_or_insert(Unavailable::Closed);
        drop(state);
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::shape::{append, event, stream};
    use crate::types::Epoch;

    fn request(bytes: usize) -> Request {
        let (reply, _) = oneshot::channel();
        Request::Append { append: append(stream(1), Epoch::ZERO, 0, [event(1)]), bytes, reply }
    }

    #[test]
    fn both_bounds_refuse() {
        let queue = Queue::new(3, 100);
        assert_eq!(queue.push(request(60)), Ok(()));
        assert_eq!(queue.push(request(60)), Err(Unavailable::QueueFull), "bytes");
        assert_eq!(queue.push(request(20)), Ok(()));
        assert_eq!(queue.push(request(20)), Ok(()));
        assert_eq!(queue.push(request(0)), Err(Unavailable::QueueFull), "requests");
        assert_eq!(queue.push(Request::Close), Ok(()), "closing is possible under load");
    }

    #[test]
    fn a_batch_is_bounded_and_never_empty() {
        let queue = Queue::new(10, 1000);
        for bytes in [500, 30, 30, 30] {
            queue.push(request(bytes)).unwrap();
        }
        let mut sizes = vec![];
        loop {
            let mut out = VecDeque::new();
            if queue.take(&mut out, 60, Duration::ZERO) == Taken::Idle {
                break;
            }
            sizes.push(out.len());
        }
        assert_eq!(sizes, [1, 2, 1]);
        assert_eq!(queue.push(request(1000)), Ok(()), "taken bytes are free again");
    }

    #[test]
    fn an_ended_queue_hands_back_what_waits_and_keeps_its_first_reason() {
        let queue = Queue::new(10, 1000);
        queue.push(request(1)).unwrap();
        assert_eq!(queue.end(Unavailable::Closed).len(), 1);
        queue.end(Unavailable::Poisoned("later".into()));
        assert_eq!(queue.push(request(1)), Err(Unavailable::Closed));
    }
}
