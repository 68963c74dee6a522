//! A value that changes, and those who wait for it to: tokio's `watch`, with what Arca uses of it, but for one thing.
//!
//! tokio's spreads who waits over eight lists by a random number that no seed reaches, and wakes one list after the
//! other, so which of two goes first is anybody's guess. Here **whoever began to wait first is woken first**: a simulated
//! cluster behaves the same every time. Read next: [`Sender`] and [`Receiver`].

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// The last [`Sender`] is gone, and with it any further change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watched value will not change any more")]
pub struct Closed;

struct Shared<T> {
    value: RwLock<T>,
    /// Counts changes. Moves only while `value` is held for writing.
    version: AtomicU64,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    moved: Notify,
}

impl<T> Shared<T> {
    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn is_closed(&self) -> bool {
        self.senders.load(Ordering::Acquire) == 0
    }

    /// Waits until the version is not `seen`, and makes it so.
    async fn changed(&self, seen: &mut u64) -> Result<(), Closed> {
        loop {
            // Before looking, so that nothing falls in between.
            let moved = self.moved.notified();
            // A change that was made before the last sender went still counts.
            let is_closed = self.is_closed();
            let version = self.version();
            if version != *seen {
                *seen = version;
                return Ok(());
            }
            if is_closed {
                return Err(Closed);
            }
            moved.await;
        }
    }
}

/// A look at the value. Short: nobody can change it meanwhile, and it must not be held across a wait.
#[derive(Debug)]
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Makes a value to watch.
#[must_use]
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

/// Changes the value. Clones change the same one.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// A value that nobody watches yet.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            value: RwLock::new(value),
            version: AtomicU64::new(0),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
            moved: Notify::new(),
        }))
    }

    /// Watches from now on: the value as it is counts as seen.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::AcqRel);
        let value = self.0.value.read();
        let seen = self.0.version();
        drop(value);
        Receiver { shared: Arc::clone(&self.0), seen }
    }

    /// A look at the value.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.value.read())
    }

    /// Puts `value` there, and wakes who waits.
    ///
    /// # Errors
    /// When nobody watches; then it is given back and nothing has changed.
    pub fn send(&self, value: T) -> Result<(), T> {
        if self.0.receivers.load(Ordering::Acquire) == 0 {
            return Err(value);
        }
        self.send_replace(value);
        Ok(())
    }

    /// Puts `value` there whether anybody watches or not, wakes who waits, and answers what was there before.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_modify(|current| std::mem::swap(current, &mut value));
        value
    }

    /// Lets `modify` change the value, and wakes who waits.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Lets `modify` change the value. Where it says that it did, who waits is woken, and this answers true.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        {
            let mut value = self.0.value.write();
            if !modify(&mut value) {
                return false;
            }
            self.0.version.fetch_add(1, Ordering::Release);
        }
        self.0.moved.notify_waiters();
        true
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.moved.notify_waiters();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.0.value).finish()
    }
}

/// Sees the value and waits for changes. A clone has seen what the original has.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The version seen last.
    seen: u64,
}

impl<T> Receiver<T> {
    /// A look at the value, which does not count as having seen it.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.value.read())
    }

    /// A look at the value, which counts.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.version();
        Ref(value)
    }

    /// Waits for a change that was not seen yet, and counts it as seen. May be dropped half-way and called again.
    ///
    /// # Errors
    /// When there is none and will be none.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        self.shared.changed(&mut self.seen).await
    }

    /// Waits until `condition` holds of the value, which counts as seen then.
    ///
    /// # Errors
    /// When it does not hold and there will be no change.
    pub async fn wait_for(&mut self, mut condition: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        let shared = &self.shared;
        loop {
            {
                let value = shared.value.read();
                self.seen = shared.version();
                if condition(&value) {
                    return Ok(Ref(value));
                }
            }
            shared.changed(&mut self.seen).await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("value", &self.shared.value).field("seen", &self.seen).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_last_one_survives_its_sender() {
        let (sender, mut receiver) = channel(1);
        let other = receiver.clone();
        assert_eq!(*receiver.borrow(), 1);
        sender.send(2).unwrap();
        assert!(!sender.send_if_modified(|_| false));
        receiver.changed().await.unwrap();
        sender.clone().send_replace(3);
        assert_eq!(*receiver.borrow_and_update(), 3);
        assert!(futures::FutureExt::now_or_never(receiver.changed()).is_none());
        sender.send(4).unwrap();
        drop(sender);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(receiver.changed().await, Err(Closed));
        assert_eq!(*other.borrow(), 4);
    }

    #[tokio::test]
    async fn nothing_is_sent_to_nobody() {
        let sender = Sender::new(1);
        assert_eq!(sender.send(2), Err(2));
        assert_eq!(sender.send_replace(3), 1);
        let mut late = sender.subscribe();
        assert!(futures::FutureExt::now_or_never(late.changed()).is_none(), "what it begins with is seen");
        drop(late);
        assert_eq!(sender.send(4), Err(4));
        assert_eq!(*sender.borrow(), 3);
    }

    #[tokio::test]
    async fn a_condition_is_waited_for_and_may_never_come() {
        let (sender, mut receiver) = channel(1);
        assert_eq!(*receiver.wait_for(|value| *value == 1).await.unwrap(), 1);
        let waiting = tokio::spawn(async move {
            let found = receiver.wait_for(|value| *value >= 3).await.map(|value| *value);
            (found, receiver.wait_for(|value| *value >= 9).await.map(|value| *value))
        });
        for value in 2..5 {
            sender.send(value).unwrap();
            tokio::task::yield_now().await;
        }
        drop(sender);
        let (found, never) = waiting.await.unwrap();
        assert!(found.is_ok_and(|found| found >= 3));
        assert_eq!(never, Err(Closed));
    }

    #[tokio::test]
    async fn who_waits_longest_is_woken_first() {
        let (sender, receiver) = channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        // Few enough for all to be running before this goes on.
        let waiting: Vec<_> = (0..30)
            .map(|number| {
                let (mut receiver, woken) = (receiver.clone(), Arc::clone(&woken));
                tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    woken.lock().unwrap().push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        sender.send(1).unwrap();
        futures::future::join_all(waiting).await;
        assert!(woken.lock().unwrap().is_sorted());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_change_is_missed_by_threads() {
        let (sender, mut receiver) = channel(0);
        let watching =
            tokio::spawn(
                async move { receiver.wait_for(|value| *value == 100_000).await.map(|value| *value) },
            );
        let (turns, mut turn) = channel(0);
        for value in 1..=100_000 {
            sender.send_replace(value);
            turns.send(value).unwrap();
            turn.changed().await.unwrap();
        }
        assert_eq!(watching.await.unwrap(), Ok(100_000));
    }
}
