//! Shares coming in one by one until there are enough, for unsealing and for whatever else asks for a quorum.
//!
//! **Invariant:** until the threshold is reached, a well-formed share gets the same answer whether it is right or
//! not; afterwards a wrong set is refused as a set. Nobody learns which share was bad.

use std::fmt;

use subtle::ConstantTimeEq;

use crate::root_key::KEY_SIZE;
use crate::shamir::{self, Share};
use crate::{BarrierError, Entropy, RootKey, SealConfig, ShamirSeal};

/// What became of a share.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer<T> {
    /// More are needed; see [`UnsealProgress::progress`].
    Pending,
    /// The set was complete and right.
    Complete(T),
}

/// Shares of one key, collected.
pub struct UnsealProgress {
    threshold: u8,
    nonce: String,
    shares: Vec<Share>,
}

impl UnsealProgress {
    /// Starts with no share.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub fn new(config: &SealConfig) -> Result<Self, BarrierError> {
        config.validate()?;
        Ok(Self { threshold: config.secret_threshold, nonce: String::new(), shares: Vec::new() })
    }

    /// How many different shares are there.
    #[must_use]
    pub fn progress(&self) -> usize {
        self.shares.len()
    }

    /// How many are needed.
    #[must_use]
    pub const fn threshold(&self) -> u8 {
        self.threshold
    }

    /// Names this attempt; empty while there is no share.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Whether `nonce` names this attempt; takes the same time for every wrong one of that length.
    #[must_use]
    pub fn is_attempt(&self, nonce: &str) -> bool {
        !self.nonce.is_empty() && bool::from(self.nonce.as_bytes().ct_eq(nonce.as_bytes()))
    }

    /// Forgets the shares and the attempt.
    pub fn reset(&mut self) {
        self.shares.clear();
        self.nonce.clear();
    }

    /// Adds a share. The same share again changes nothing. When it completes the set, the key is put together and
    /// given to `verify`; whatever that says, the attempt is over and progress starts from nothing.
    ///
    /// # Errors
    /// On a share of the wrong size or with another's number, which leaves progress as it was; on a wrong set
    /// ([`BarrierError::SharesWrong`]); with the error of `verify` when that is not about the key.
    pub fn offer<T>(
        &mut self,
        share: Share,
        entropy: &dyn Entropy,
        verify: impl FnOnce(&[u8]) -> Result<T, BarrierError>,
    ) -> Result<Offer<T>, BarrierError> {
        self.check(&share)?;
        if self.shares.iter().any(|known| known.is_same(&share)) {
            return Ok(Offer::Pending);
        }
        if self.threshold > 1 && self.shares.iter().any(|known| known.number() == share.number()) {
            return Err(BarrierError::ShareConflict);
        }
        if self.shares.is_empty() {
            self.nonce = attempt_name(entropy)?;
        }
        self.shares.push(share);
        if self.shares.len() < usize::from(self.threshold) {
            return Ok(Offer::Pending);
        }
        let outcome = shamir::combine(&self.shares).and_then(|key| verify(&key));
        self.reset();
        outcome.map(Offer::Complete).map_err(|err| match err {
            BarrierError::Authentication => BarrierError::SharesWrong,
            other => other,
        })
    }

    /// As [`Self::offer`], for the seal key: the set is right when the key opens the wrapped root key.
    ///
    /// # Errors
    /// As [`Self::offer`].
    pub fn offer_seal_key(
        &mut self,
        share: Share,
        entropy: &dyn Entropy,
        wrapped_root_key: &[u8],
    ) -> Result<Offer<(ShamirSeal, RootKey)>, BarrierError> {
        self.offer(share, entropy, |key| {
            let seal = ShamirSeal::from_key(key)?;
            let root = seal.unwrap(wrapped_root_key)?;
            Ok((seal, root))
        })
    }

    fn check(&self, share: &Share) -> Result<(), BarrierError> {
        // Sizes and numbers are no secret: only the bytes between are looked at by combining alone.
        let want = if self.threshold == 1 { KEY_SIZE } else { KEY_SIZE + 1 };
        let size = share.expose().len();
        if size != want {
            return Err(BarrierError::ShareSize { size, want });
        }
        if self.threshold > 1 && share.number() == Some(0) {
            return Err(BarrierError::ShareMalformed);
        }
        Ok(())
    }
}

/// A random UUID in text.
fn attempt_name(entropy: &dyn Entropy) -> Result<String, BarrierError> {
    let mut random = [0; 16];
    entropy.fill(&mut random)?;
    let bits = (u128::from_be_bytes(random) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut text = format!("{bits:032x}");
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    Ok(text)
}

impl fmt::Debug for UnsealProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsealProgress")
            .field("progress", &self.shares.len())
            .field("threshold", &self.threshold)
            .field("nonce", &self.nonce)
            .finish_non_exhaustive()
    }
}
