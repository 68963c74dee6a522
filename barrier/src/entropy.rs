//! Where random bytes come from. A failure is an error to the caller, never a weaker byte.
//!
//! There is no generator of our own on top: AWS-LC keeps one per thread, seeded and reseeded from the system, and
//! notices forks. A second one here would have to notice them too.

use std::fmt::Debug;

/// Randomness failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the source of randomness failed")]
pub struct EntropyError;

/// A source of bytes nobody can predict. The simulation brings a seeded one.
pub trait Entropy: Debug + Send + Sync {
    /// Fills `dest` completely.
    ///
    /// # Errors
    /// When the source fails. What `dest` holds then must not be used.
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError>;
}

/// The generator of AWS-LC.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        aws_lc_rs::rand::fill(dest).map_err(|_| EntropyError)
    }
}
