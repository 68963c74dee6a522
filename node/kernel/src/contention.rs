//! Turns for requests that keep colliding: after a conflict a request waits for its turn on its path, and while
//! anybody waits there, newcomers wait too, until so many turns in a row met no conflict that there is nothing left to
//! collide on. (The first logins of a name all make its entity; those after them have no more to fear of each other.)
//! A path without conflicts costs a hash and one atomic load.
//!
//! Paths whose hashes meet wait for each other. The hash has a key, for callers choose the paths and must not be able to
//! make others wait; the key is of the node's own entropy, so that a simulation can repeat who waits for whom.

use std::sync::atomic::{AtomicUsize, Ordering};

use arca_engine_api::{Entropy, EntropyError};
use tokio::sync::{Mutex, MutexGuard};

const STRIPES: usize = 1024;
/// Turns that end without a conflict before newcomers wait no more. Where requests go on colliding, about one in so many
/// is run in vain to find that out.
const CALM_AFTER: usize = 32;

#[derive(Default)]
struct Stripe {
    /// Requests that wait for a turn or have it.
    waiting: AtomicUsize,
    /// Turns still to end without a conflict before newcomers wait no more.
    until_calm: AtomicUsize,
    lock: Mutex<()>,
}

/// See the file's header.
pub(crate) struct Contention {
    stripes: Vec<Stripe>,
    key: [u8; 32],
}

/// Counts one waiter for as long as it waits or has the turn.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A turn; ends when dropped.
pub(crate) struct Turn<'a> {
    stripe: &'a Stripe,
    _lock: MutexGuard<'a, ()>,
    _waiter: Waiter<'a>,
}

impl Turn<'_> {
    /// Whoever has the turn met a conflict all the same.
    pub(crate) fn met_conflict(&self) {
        self.stripe.until_calm.store(CALM_AFTER, Ordering::Release);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let one_less = |left: usize| left.checked_sub(1);
        let _ = self.stripe.until_calm.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
    }
}

impl Contention {
    pub(crate) fn new(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut key = [0; 32];
        entropy.fill(&mut key)?;
        Ok(Self { stripes: (0..STRIPES).map(|_| Stripe::default()).collect(), key })
    }

    fn stripe(&self, path: &str) -> Option<&Stripe> {
        let hash = blake3::keyed_hash(&self.key, path.as_bytes());
        let [low, high, ..] = *hash.as_bytes();
        self.stripes.get(usize::from(u16::from_le_bytes([low, high])) % STRIPES)
    }

    /// A turn if others wait for one on this path and may collide, else none.
    pub(crate) async fn turn_if_busy(&self, path: &str) -> Option<Turn<'_>> {
        let stripe = self.stripe(path)?;
        let is_busy =
            stripe.waiting.load(Ordering::Acquire) > 0 && stripe.until_calm.load(Ordering::Acquire) > 0;
        if is_busy { Some(turn(stripe).await) } else { None }
    }

    /// A turn for a request that met a conflict, after everybody who asked before.
    pub(crate) async fn turn_after_conflict(&self, path: &str) -> Option<Turn<'_>> {
        let stripe = self.stripe(path)?;
        stripe.until_calm.store(CALM_AFTER, Ordering::Release);
        Some(turn(stripe).await)
    }
}

async fn turn(stripe: &Stripe) -> Turn<'_> {
    let waiter = Waiter::new(&stripe.waiting);
    let lock = stripe.lock.lock().await;
    Turn { stripe, _lock: lock, _waiter: waiter }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Same;

    impl Entropy for Same {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
            bytes.fill(7);
            Ok(())
        }
    }

    /// Newcomers wait behind those who collided, but not for ever: there is always somebody there under load.
    #[tokio::test]
    async fn newcomers_wait_until_enough_turns_met_no_conflict() {
        let contention = Contention::new(&Same).unwrap();
        assert!(contention.turn_if_busy("a").await.is_none());
        let mut held = contention.turn_after_conflict("a").await.unwrap();
        for _ in 0..CALM_AFTER {
            let mut next = Box::pin(contention.turn_if_busy("a"));
            assert!(futures::poll!(&mut next).is_pending(), "it waits");
            drop(held);
            held = next.await.unwrap();
        }
        assert!(contention.turn_if_busy("a").await.is_none(), "all is calm, though somebody has the turn");
        held.met_conflict();
        let mut next = Box::pin(contention.turn_if_busy("a"));
        assert!(futures::poll!(&mut next).is_pending(), "it waits again");
        drop(held);
        assert!(next.await.is_some());
        assert!(contention.turn_if_busy("a").await.is_none(), "nobody waits");
    }
}
