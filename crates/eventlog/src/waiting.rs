//! How callers wait for a log: answers of a writer, the durable edge, followers.
//!
//! Invariants:
//! * a dropped answer is `Unknown`, never a success and never a refusal;
//! * a follower waits for a level (the durable position), never for an edge, so that it cannot miss one;
//! * a follower passes over a damaged range only after it has named it;
//! * a follower holds at most [`FOLLOW_RECORDS_MAX`] records that its reader has not taken.

use crate::log::{Follower, LogFuture, ReadError};
use crate::types::{AppendOutcome, Claim, Position, Record, Unavailable};
use futures::{FutureExt, StreamExt};
use std::collections::VecDeque;
use tokio::sync::oneshot;

/// Records a follower reads ahead: enough to spread the cost of a read, small enough to forget.
pub(crate) const FOLLOW_RECORDS_MAX: usize = 256;

/// How far a log has come, and whether it will go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Last durable position.
    pub(crate) durable: Position,
    /// Set once the log will never grow again, with the reason.
    pub(crate) end: Option<Unavailable>,
}

/// The answer to an append. A writer that died without answering may have written.
pub(crate) fn append_answer(answer: oneshot::Receiver<AppendOutcome>) -> LogFuture<AppendOutcome> {
    answer.map(|answer| answer.unwrap_or(AppendOutcome::Unknown)).boxed()
}

/// The answer to a claim. Without one there is no owner, whatever the writer did.
pub(crate) fn claim_answer(
    answer: oneshot::Receiver<Result<Claim, Unavailable>>,
) -> LogFuture<Result<Claim, Unavailable>> {
    answer.map(|answer| answer.unwrap_or(Err(Unavailable::Closed))).boxed()
}

/// Resolves once `position` is durable or never will be.
pub(crate) fn wait_durable(
    position: Position,
    mut progress: level::Receiver<Progress>,
) -> LogFuture<Result<(), Unavailable>> {
    async move {
        let reached = progress.wait_for(|now| now.durable >= position || now.end.is_some()).await;
        match reached {
            Ok(now) if now.durable >= position => Ok(()),
            Ok(now) => Err(now.end.clone().unwrap_or(Unavailable::Closed)),
            Err(_) => Err(Unavailable::Closed),
        }
    }
    .boxed()
}

struct Following<R> {
    next: Position,
    ready: VecDeque<Record>,
    progress: level::Receiver<Progress>,
    read: R,
    is_over: bool,
}

/// Records from `from` on, as `read` gives them, waiting at the durable end.
pub(crate) fn follow<R>(from: Position, progress: level::Receiver<Progress>, read: R) -> Follower
where
    R: Fn(Position, usize) -> Result<Vec<Record>, ReadError> + Send + 'static,
{
    let next = from.max(Position::new(1));
    let state = Following { next, ready: VecDeque::new(), progress, read, is_over: false };
    futures::stream::unfold(state, |mut state| async move {
        let item = state.next_item().await?;
        Some((item, state))
    })
    .boxed()
}

impl<R> Following<R>
where
    R: Fn(Position, usize) -> Result<Vec<Record>, ReadError>,
{
    async fn next_item(&mut self) -> Option<Result<Record, ReadError>> {
        if let Some(record) = self.ready.pop_front() {
            return Some(Ok(record));
        }
        if self.is_over {
            return None;
        }
        let next = self.next;
        let end = match self.progress.wait_for(|now| now.durable >= next || now.end.is_some()).await {
            Ok(now) if now.durable >= next => None,
            Ok(now) => now.end.clone(),
            Err(_) => Some(Unavailable::Closed),
        };
        match end {
            None => Some(self.refill()),
            Some(Unavailable::Closed) => None,
            Some(refusal) => {
                self.is_over = true;
                Some(Err(ReadError::Io(refusal.to_string())))
            }
        }
    }

    fn refill(&mut self) -> Result<Record, ReadError> {
        match (self.read)(self.next, FOLLOW_RECORDS_MAX) {
            Ok(records) => {
                assert!(
                    records.iter().zip(self.next.get()..).all(|(record, at)| record.position.get() == at)
                );
                self.ready = records.into();
                let first = self.ready.pop_front().expect("a durable position can be read");
                self.next = Position::new(self.next.get() + 1 + self.ready.len() as u64);
                Ok(first)
            }
            Err(error) => {
                match &error {
                    ReadError::Damaged { last: Some(last), .. } => self.next = last.next(),
                    _ => self.is_over = true,
                }
                Err(error)
            }
        }
    }
}
