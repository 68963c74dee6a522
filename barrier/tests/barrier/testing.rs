//! Entropy for tests: seeded, counting, broken.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use arca_barrier::{Barrier, Entropy, EntropyError, Keyring, Suite};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

pub(crate) const SUITES: [Suite; 2] = [Suite::XChaCha20Poly1305, Suite::Aes256Gcm];

/// A different sequence for each seed.
#[derive(Debug)]
pub(crate) struct Seeded(Mutex<ChaCha20Rng>);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(ChaCha20Rng::seed_from_u64(seed)))
    }
}

impl Entropy for Seeded {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        self.0.lock().unwrap().fill_bytes(dest);
        Ok(())
    }
}

/// 0, 1, 2, …: for golden bytes that depend on no library's generator.
#[derive(Debug, Default)]
pub(crate) struct Counting(AtomicU8);

impl Entropy for Counting {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill_with(|| self.0.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }
}

/// Fails, and leaves something behind that must not be used.
#[derive(Debug)]
pub(crate) struct Broken;

impl Entropy for Broken {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill(0);
        Err(EntropyError)
    }
}

pub(crate) fn barrier(suite: Suite, seed: u64) -> Barrier {
    let entropy = Arc::new(Seeded::new(seed));
    Barrier::new(Keyring::generate(entropy.as_ref(), 1_000, suite).unwrap(), entropy)
}
