//! One pusher per peer: makes what the peer holds equal to what is desired, and keeps it so.
//!
//! ```text
//!   compare: list what it holds ─▶ wishes = difference ─┐
//!                                                       ├─▶ batch, batch, ... ─▶ synced ─▶ rest
//!   catch up: wishes = what changed since synced ───────┘     ▲ newer wishes join in between
//! ```
//!
//! Invariants:
//! * one request to the peer is under way at a time, and each is bounded in size and time;
//! * what was decided meanwhile supersedes what was to be sent;
//! * after any failure, after the peer was away, and every so often, everything is compared: the peer may have
//!   forgotten what it was told, or hold what nobody remembers;
//! * a deletion of what nobody remembers carries the position at which the book was read, after the peer had
//!   been asked: it is newer than whatever the peer held, and older than whatever is decided later;
//! * what was decided where the log cannot be read is left as it is: a guest may be reached through it.

use super::desk::{Desk, ReadAt};
use super::peers::{Peer, PushFailed, Wish, Wishes};
use super::{Board, Trouble};
use crate::env::Env;
use futures::FutureExt;
use futures::future::{Either, select};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// What a pusher starts with.
pub(super) struct Args<P> {
    pub(super) env: Arc<Env>,
    pub(super) desk: Arc<Desk>,
    pub(super) peer: P,
    pub(super) board: Arc<Board>,
    /// How often everything is compared though nothing happened.
    pub(super) compare_period: Duration,
    /// Leave to compare: a comparison holds all that is desired in memory.
    pub(super) compares: Arc<Semaphore>,
    /// How many peers are pushed to.
    pub(super) crowd: Arc<AtomicUsize>,
}

/// What each peer adds to the time for which changes are gathered. Every sled is told every change: without it a
/// thousand of them would be sent ten thousand requests a second while guests come and go.
const GATHER_PER_PEER: Duration = Duration::from_millis(2);

/// How long changes wait for others, where there are so many peers.
fn gather(least: Duration, crowd: usize) -> Duration {
    let crowd = u32::try_from(crowd).unwrap_or(u32::MAX);
    least.max(GATHER_PER_PEER.saturating_mul(crowd))
}

struct Pusher<P> {
    args: Args<P>,
    news: level::Receiver<u64>,
    /// The log position up to which the peer has everything.
    synced: Option<u64>,
    is_compare_due: bool,
    compare_at: Instant,
    /// Failures in a row.
    failures: u32,
}

/// Pushes until it is aborted. A panic costs a pause and a comparison.
pub(super) async fn push<P: Peer>(args: Args<P>) {
    let news = P::follow(&args.desk);
    let compare_at = Instant::now();
    let mut pusher = Pusher { args, news, synced: None, is_compare_due: true, compare_at, failures: 0 };
    loop {
        let Err(_) = AssertUnwindSafe(pusher.run()).catch_unwind().await;
        let peer = pusher.args.board.peer;
        tracing::error!(%peer, "the pusher to this peer has panicked, and starts over");
        pusher.failed(&PushFailed::Failed("the pusher has panicked".to_owned()));
        sleep(pusher.args.env.limits.push.pause_max).await;
    }
}

impl<P: Peer> Pusher<P> {
    async fn run(&mut self) -> Infallible {
        loop {
            match self.round().await {
                Ok(()) => {
                    self.succeeded();
                    self.rest().await;
                }
                Err(why) => {
                    self.failed(&why);
                    self.pause(&why).await;
                }
            }
        }
    }

    /// Compares if it is time to, or if what changed is not remembered; else catches up.
    async fn round(&mut self) -> Result<(), PushFailed> {
        let since = self.synced.filter(|_| !self.is_compare_due);
        match since.and_then(|since| P::changed(&self.args.desk, since)) {
            Some(changed) => self.send_all(changed).await,
            None => self.compare().await,
        }
    }

    async fn compare(&mut self) -> Result<(), PushFailed> {
        let compares = Arc::clone(&self.args.compares);
        let Ok(_permit) = compares.acquire().await else {
            return Err(PushFailed::Away);
        };
        // Asked before the book is read: whatever it holds was decided before the book's position.
        let held = self.within(self.args.peer.list()).await?;
        let desk = &self.args.desk;
        let (difference, ahead) = difference(&held, P::wished(desk), |position| desk.is_unread(position));
        drop(held);
        self.send_all(difference).await?;
        if ahead > 0 {
            let why = format!("it holds {ahead} entries that are newer than the log, and keeps them");
            return Err(PushFailed::Failed(why));
        }
        self.is_compare_due = false;
        self.compare_at = Instant::now() + self.args.env.jittered(self.args.compare_period);
        Ok(())
    }

    async fn send_all(&mut self, wishes: Wishes<P>) -> Result<(), PushFailed> {
        let ReadAt { mut position, value: mut pending } = wishes;
        while let Some(batch) = take_batch(&mut pending, P::BATCH_MAX) {
            match batch {
                Batch::Put(entries) => self.within(self.args.peer.put(entries)).await?,
                Batch::Delete(keys) => self.within(self.args.peer.delete(keys)).await?,
            }
            if pending.is_empty() {
                break;
            }
            let Some(newer) = P::changed(&self.args.desk, position) else {
                let why = "more has changed since the push began than is remembered";
                return Err(PushFailed::Failed(why.to_owned()));
            };
            position = newer.position;
            pending.extend(newer.value);
        }
        self.synced = Some(position);
        Ok(())
    }

    /// Bounds a call, whatever the peer does.
    async fn within<T>(&self, call: impl Future<Output = Result<T, PushFailed>>) -> Result<T, PushFailed> {
        let patience = self.args.peer.patience(&self.args.env.limits);
        let late = || PushFailed::Failed(format!("no answer within {} s", patience.as_secs_f32()));
        timeout(patience, call).await.unwrap_or_else(|_| Err(late()))
    }

    /// Waits until there is something to do. Changes that follow each other closely share a request.
    async fn rest(&mut self) {
        let synced = self.synced.unwrap_or(0);
        let nudged = pin!(self.args.board.nudge.notified());
        let news = pin!(self.news.wait_for(|newest| *newest > synced).map(drop));
        let due = pin!(sleep_until(self.compare_at));
        match select(nudged, select(due, news)).await {
            Either::Right((Either::Right(_), _)) => {
                let crowd = self.args.crowd.load(Ordering::Relaxed);
                let span = gather(self.args.env.limits.push.gather, crowd);
                sleep(self.args.env.jittered(span)).await;
            }
            Either::Left(_) | Either::Right((Either::Left(_), _)) => self.is_compare_due = true,
        }
    }

    /// Waits until another try may help.
    async fn pause(&self, why: &PushFailed) {
        let (env, nudged) = (&self.args.env, self.args.board.nudge.notified());
        let limits = &env.limits.push;
        let pause = match why {
            PushFailed::Away => {
                nudged.await;
                return;
            }
            PushFailed::Failed(_) => {
                limits.pause.saturating_mul(1 << (self.failures - 1).min(16)).min(limits.pause_max)
            }
        };
        select(pin!(nudged), pin!(sleep(env.jittered(pause)))).await;
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        let mut progress = self.args.board.progress();
        progress.synced_to = self.synced;
        progress.last_success = Some(self.args.env.clock.now());
        if let Some(Trouble { why, .. }) = progress.trouble.take() {
            tracing::info!(peer = %self.args.board.peer, why, "the network is pushed again");
        }
    }

    fn failed(&mut self, why: &PushFailed) {
        self.failures = self.failures.saturating_add(1);
        self.is_compare_due = true;
        let mut progress = self.args.board.progress();
        if progress.trouble.is_none() && *why != PushFailed::Away {
            tracing::warn!(peer = %self.args.board.peer, %why, "the network cannot be pushed");
        }
        let since = progress.trouble.take().map_or_else(|| self.args.env.clock.now(), |before| before.since);
        progress.trouble = Some(Trouble { why: why.to_string(), since, failures: self.failures });
    }
}

/// What must be sent so that what is held becomes what is wished; and how many entries cannot be replaced,
/// because they claim to be newer than the wish. What was decided at a position that cannot be read stays.
fn difference<K: Ord + Copy, E>(
    held: &BTreeMap<K, u64>,
    wished: ReadAt<BTreeMap<K, Wish<E>>>,
    is_unread: impl Fn(u64) -> bool,
) -> (ReadAt<BTreeMap<K, Wish<E>>>, usize) {
    let ReadAt { position, value: mut wishes } = wished;
    wishes.retain(|_, wish| wish.entry.is_some());
    let unwished = held.iter().filter(|(key, at)| !wishes.contains_key(key) && !is_unread(**at));
    let deletions: Vec<(K, Wish<E>)> = unwished
        .map(|(key, generation)| (*key, Wish { generation: position.max(*generation), entry: None }))
        .collect();
    let mut ahead = 0;
    wishes.retain(|key, wish| {
        let held = held.get(key).copied().unwrap_or(0);
        ahead += usize::from(held > wish.generation && !is_unread(held));
        held < wish.generation
    });
    wishes.extend(deletions);
    (ReadAt { position, value: wishes }, ahead)
}

/// What one request carries.
enum Batch<K, E> {
    Put(Vec<E>),
    Delete(Vec<(K, u64)>),
}

/// Takes at most `max` wishes that can go into one request.
fn take_batch<K: Ord + Copy, E>(pending: &mut BTreeMap<K, Wish<E>>, max: usize) -> Option<Batch<K, E>> {
    let is_put = pending.values().next()?.entry.is_some();
    let alike = pending.iter().filter(|(_, wish)| wish.entry.is_some() == is_put);
    let keys: Vec<K> = alike.map(|(key, _)| *key).take(max).collect();
    let taken = keys.into_iter().filter_map(|key| pending.remove(&key).map(|wish| (key, wish)));
    Some(if is_put {
        Batch::Put(taken.filter_map(|(_, wish)| wish.entry).collect())
    } else {
        Batch::Delete(taken.map(|(key, wish)| (key, wish.generation)).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(generation: u64) -> Wish<char> {
        Wish { generation, entry: Some('a') }
    }

    #[test]
    fn the_difference_is_what_is_missing_older_or_unwished_and_nothing_else() {
        let gone = Wish { generation: 4, entry: None };
        let wished =
            BTreeMap::from([(1, wish(5)), (2, wish(6)), (3, wish(7)), (4, wish(8)), (5, gone.clone())]);
        let held = BTreeMap::from([(1, 5), (2, 4), (4, 9), (6, 3), (7, 99), (8, 13)]);
        let (difference, ahead) = difference(&held, ReadAt { position: 20, value: wished }, |at| at == 13);
        let deleted = |generation| Wish { generation, entry: None };
        let expected = BTreeMap::from([(2, wish(6)), (3, wish(7)), (6, deleted(20)), (7, deleted(99))]);
        assert_eq!((difference.value, difference.position, ahead), (expected, 20, 1));
    }

    #[test]
    fn a_change_waits_longer_the_more_peers_are_told_and_never_less_than_is_configured() {
        let least = Duration::from_millis(100);
        for (crowd, millis) in [(0, 100), (4, 100), (50, 100), (51, 102), (1_000, 2_000)] {
            assert_eq!(gather(least, crowd), Duration::from_millis(millis), "{crowd}");
        }
    }

    #[test]
    fn batches_are_bounded_of_one_kind_and_take_everything() {
        let mut pending: BTreeMap<u32, Wish<char>> = (0..10).map(|key| (key, wish(1))).collect();
        pending.insert(3, Wish { generation: 2, entry: None });
        pending.insert(11, Wish { generation: 3, entry: None });
        let mut sizes = Vec::new();
        while let Some(batch) = take_batch(&mut pending, 4) {
            sizes.push(match batch {
                Batch::Put(entries) => ("put", entries.len()),
                Batch::Delete(keys) => ("delete", keys.len()),
            });
        }
        assert_eq!(sizes, [("put", 4), ("delete", 2), ("put", 4), ("put", 1)]);
    }
}
