//! Turns for requests that keep colliding: after a conflict a request waits for its turn on its path, and while
//! anybody waits there, newcomers wait too. A path without conflicts costs a hash and one atomic load.
//!
//! Paths whose hashes meet wait for each other. The hash has a key, for callers choose the paths and must not be able to
//! make others wait; the key is of the node's own entropy, so that a simulation can repeat who waits for whom.

use std::sync::atomic::{AtomicUsize, Ordering};

use arca_engine_api::{Entropy, EntropyError};
use tokio::sync::{Mutex, MutexGuard};

const STRIPES: usize = 1024;

#[derive(Default)]
struct Stripe {
    waiting: AtomicUsize,
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
    _lock: MutexGuard<'a, ()>,
    _waiter: Waiter<'a>,
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

    /// A turn if others wait for one on this path, else none.
    pub(crate) async fn turn_if_busy(&self, path: &str) -> Option<Turn<'_>> {
        let is_busy = self.stripe(path)?.waiting.load(Ordering::Acquire) > 0;
        if is_busy { self.turn(path).await } else { None }
    }

    /// A turn, after everybody who asked before.
    pub(crate) async fn turn(&self, path: &str) -> Option<Turn<'_>> {
        let stripe = self.stripe(path)?;
        let waiter = Waiter::new(&stripe.waiting);
        let lock = stripe.lock.lock().await;
        Some(Turn { _lock: lock, _waiter: waiter })
    }
}
