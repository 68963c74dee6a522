//! Turns for requests that keep colliding. A request whose commit was refused because a key had changed waits for its
//! turn on that key before it runs again, and keeps it until its commit is through: of many that write one key, each run
//! is then spoilt by newcomers at most. Whoever has not collided waits for nobody, so a collision is over when those who
//! were in it are; and nobody waits long, so one whose engine is slow holds nobody up.
//!
//! Keys whose hashes meet wait for each other. The hash has a key, for callers choose what they write and must not be able
//! to make others wait; the key is of the node's own entropy, so that a simulation can repeat who waits for whom.

use std::time::Duration;

use arca_engine_api::{Entropy, EntropyError};
use tokio::sync::{Mutex, MutexGuard};

const STRIPES: usize = 1024;
/// Longest wait for a turn; then a request tries its luck without one.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the file's header.
pub(crate) struct Contention {
    stripes: Vec<Mutex<()>>,
    key: [u8; 32],
}

/// A turn; ends when dropped.
pub(crate) struct Turn<'a> {
    stripe: usize,
    _lock: MutexGuard<'a, ()>,
}

impl Contention {
    pub(crate) fn new(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut key = [0; 32];
        entropy.fill(&mut key)?;
        Ok(Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect(), key })
    }

    fn stripe(&self, changed: &[u8]) -> usize {
        let hash = blake3::keyed_hash(&self.key, changed);
        let [low, high, ..] = *hash.as_bytes();
        usize::from(u16::from_le_bytes([low, high])) % STRIPES
    }

    /// A turn on the key that changed, after everybody who asked before; none if that takes too long. `turn` is the one
    /// the request has, perhaps on another key.
    pub(crate) async fn next_turn<'a>(&'a self, turn: Option<Turn<'a>>, changed: &[u8]) -> Option<Turn<'a>> {
        let stripe = self.stripe(changed);
        if turn.as_ref().is_some_and(|turn| turn.stripe == stripe) {
            return turn;
        }
        drop(turn); // First: nobody waits for one turn while it has another.
        self.turn_on(stripe).await
    }

    async fn turn_on(&self, stripe: usize) -> Option<Turn<'_>> {
        let lock = tokio::time::timeout(PATIENCE, self.stripes.get(stripe)?.lock()).await.ok()?;
        Some(Turn { stripe, _lock: lock })
    }
}

#[cfg(test)]
#[path = "contention_tests.rs"]
mod tests;
