//! A value that tasks wait for: one side changes it, any number of others wait until it is as they want.
//!
//! The one idea: **whoever waited first is woken first.** tokio's own `watch` wakes its receivers in an order
//! that it draws from a seed of its own, so that two runs of one simulation differ as soon as two tasks wait for
//! one value (docs/decisions/0038). The names are `watch`'s, so that either reads like the other.
//!
//! Invariants:
//! * a wait is for a level, never for an edge: what holds when it is looked at ends the wait;
//! * nothing is missed between a look and a wait: a waiter enlists before it looks;
//! * when the sender is gone, every wait ends, after a last look.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// The value as it is, held still while this is held: briefly, and never across an await.
pub type Ref<'a, T> = RwLockReadGuard<'a, T>;

/// The sender is gone: the value stays as it was last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

struct Shared<T> {
    value: RwLock<T>,
    /// Counts changes, so that a receiver knows whether it has seen the newest.
    changes: AtomicU64,
    is_gone: AtomicBool,
    /// Wakes in the order in which was enlisted.
    waiting: Notify,
}

impl<T> Shared<T> {
    fn look(&self) -> Ref<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that changes the value.
pub struct Sender<T>(Arc<Shared<T>>);

/// A side that waits.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// Both sides of a value.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A value that nobody waits for yet.
    pub fn new(value: T) -> Self {
        let (changes, is_gone) = (AtomicU64::new(0), AtomicBool::new(false));
        Self(Arc::new(Shared { value: RwLock::new(value), changes, is_gone, waiting: Notify::new() }))
    }

    /// Another side that waits; the value as it is counts as seen.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { shared: Arc::clone(&self.0), seen: self.0.changes.load(Ordering::Acquire) }
    }

    /// Changes the value if `change` says that it did, and wakes whoever waits. Answers whether it did.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let is_changed = change(&mut self.0.value.write().unwrap_or_else(PoisonError::into_inner));
        if is_changed {
            self.0.changes.fetch_add(1, Ordering::AcqRel);
            self.0.waiting.notify_waiters();
        }
        is_changed
    }

    /// Changes the value, and wakes whoever waits.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Replaces the value, and wakes whoever waits. Answers the value before.
    pub fn send_replace(&self, value: T) -> T {
        let mut before = value;
        self.send_modify(|now| std::mem::swap(now, &mut before));
        before
    }

    /// The value as it is.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.0.look()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.is_gone.store(true, Ordering::Release);
        self.0.waiting.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Receiver<T> {
    /// The value as it is.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.look()
    }

    /// What has happened so far counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.changes.load(Ordering::Acquire);
    }

    /// Whether there is something unseen; [`Gone`] if there will be nothing more.
    pub fn has_changed(&self) -> Result<bool, Gone> {
        if self.shared.is_gone.load(Ordering::Acquire) {
            return Err(Gone);
        }
        Ok(self.shared.changes.load(Ordering::Acquire) != self.seen)
    }

    /// Resolves once there is something unseen, which then counts as seen.
    pub async fn changed(&mut self) -> Result<(), Gone> {
        loop {
            let mut woken = pin!(self.shared.waiting.notified());
            woken.as_mut().enable();
            // Before the look: a sender that is gone by now has made its last change.
            let is_gone = self.shared.is_gone.load(Ordering::Acquire);
            let changes = self.shared.changes.load(Ordering::Acquire);
            if changes != self.seen {
                self.seen = changes;
                return Ok(());
            }
            if is_gone {
                return Err(Gone);
            }
            woken.await;
        }
    }

    /// Resolves once the value is as wanted, and holds it still. What is looked at counts as seen.
    pub async fn wait_for(&mut self, mut is_it: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Gone> {
        loop {
            let mut woken = pin!(self.shared.waiting.notified());
            woken.as_mut().enable();
            // Before the look: a sender that is gone by now has made its last change.
            let is_gone = self.shared.is_gone.load(Ordering::Acquire);
            self.seen = self.shared.changes.load(Ordering::Acquire);
            {
                let value = self.shared.look();
                if is_it(&value) {
                    return Ok(value);
                }
            }
            if is_gone {
                return Err(Gone);
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::executor::LocalPool;
    use futures::task::LocalSpawnExt;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn whoever_waited_first_is_woken_first() {
        let sender = Sender::new(0);
        let (mut pool, order) = (LocalPool::new(), Rc::new(RefCell::new(Vec::new())));
        for nth in 0..100 {
            let (mut receiver, order) = (sender.subscribe(), Rc::clone(&order));
            let wait = async move {
                assert_eq!(receiver.wait_for(|value| *value == 1).await.map(|value| *value), Ok(1));
                order.borrow_mut().push(nth);
            };
            pool.spawner().spawn_local(wait).unwrap();
        }
        pool.run_until_stalled();
        assert!(order.borrow().is_empty());
        sender.send_replace(1);
        pool.run_until_stalled();
        assert_eq!(*order.borrow(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_wait_is_for_a_level_and_ends_when_the_sender_is_gone() {
        let (sender, mut receiver) = channel(1);
        assert_eq!(receiver.wait_for(|value| *value == 1).now_or_never().unwrap().map(|v| *v), Ok(1));
        assert!(receiver.changed().now_or_never().is_none());
        sender.send_replace(2);
        assert_eq!(receiver.has_changed(), Ok(true));
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert!(receiver.changed().now_or_never().is_none(), "it was seen");
        assert!(!sender.send_if_modified(|_| false));
        sender.send_replace(3);
        receiver.mark_unchanged();
        assert_eq!(receiver.has_changed(), Ok(false));
        sender.send_replace(4);
        drop(sender);
        assert_eq!(receiver.has_changed(), Err(Gone));
        assert_eq!(receiver.wait_for(|value| *value == 4).now_or_never().unwrap().map(|v| *v), Ok(4));
        assert_eq!(receiver.wait_for(|value| *value == 5).now_or_never().unwrap().map(|v| *v), Err(Gone));
        assert_eq!(*receiver.borrow(), 4);
        assert_eq!(receiver.changed().now_or_never(), Some(Err(Gone)));
    }
}
