//! The barrier in use: a keyring that can be replaced while requests run, names, and values.
//!
//! **Invariant:** no byte leaves here unsealed, and nothing is sealed when randomness failed. A value is bound to its
//! physical key and to its own header, so it opens at no other place and under no other term.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use arca_danger::Bug;
use parking_lot::Mutex;
use zeroize::{Zeroize, Zeroizing};

use crate::keyring::Term;
use crate::names::{self, Child, Names};
use crate::reader::Reader;
use crate::suite::{NONCE_SIZE_MAX, TAG_SIZE};
use crate::{BarrierError, Class, Entropy, Keyring, RotationConfig, Suite, TimedIndex, timed};

const VALUE_V1: u8 = 1;
/// Version, term and suite, bytes.
const HEADER_SIZE: usize = 1 + 4 + 1;

/// The term that seals, for people and for `sys/key-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// Its number.
    pub term: u32,
    /// When it was added, milliseconds.
    pub install_time_ms: u64,
    /// Messages sealed under it.
    pub encryptions: u64,
}

/// See the file's header. Exists only while unsealed.
pub struct Barrier {
    keyring: ArcSwap<Keyring>,
    /// Held while a keyring is compared and put in, so that two replacements cannot cross.
    replacing: Mutex<()>,
    names: Arc<Names>,
    entropy: Arc<dyn Entropy>,
}

impl Barrier {
    /// A barrier over `keyring`.
    #[must_use]
    pub fn new(keyring: Keyring, entropy: Arc<dyn Entropy>) -> Self {
        let names = Arc::clone(keyring.names());
        Self { keyring: ArcSwap::from_pointee(keyring), replacing: Mutex::default(), names, entropy }
    }

    /// The keyring with the counts as they are, to be sealed and stored.
    #[must_use]
    pub fn keyring(&self) -> Keyring {
        Keyring::clone(&self.keyring.load())
    }

    /// Puts a later version of the keyring to use. The caller stored it first.
    ///
    /// # Errors
    /// When it is of another cluster, or lacks a term that is in use.
    pub fn replace_keyring(&self, next: Keyring) -> Result<(), BarrierError> {
        let _guard = self.replacing.lock();
        let next = self.keyring.load().succeeded_by(next)?;
        self.keyring.store(Arc::new(next));
        Ok(())
    }

    /// Puts the keyring of a state to use that has taken the place of the one before, such as a backup: terms that were
    /// added after it was made are gone with the values under them, and must seal nothing more.
    ///
    /// # Errors
    /// When it is of another cluster: then nothing changes, and this barrier can open nothing of that state.
    pub fn supersede_keyring(&self, next: Keyring) -> Result<(), BarrierError> {
        let _guard = self.replacing.lock();
        let next = self.keyring.load().superseded_by(next)?;
        self.keyring.store(Arc::new(next));
        Ok(())
    }

    /// The term that seals.
    #[must_use]
    pub fn key_status(&self) -> KeyStatus {
        let keyring = self.keyring.load();
        let term = keyring.active();
        KeyStatus {
            term: term.number,
            install_time_ms: term.install_time_ms,
            encryptions: term.encryptions.load(Ordering::Relaxed),
        }
    }

    /// Whether the term that seals has reached a count: nine tenths of its suite's bound, or `max_operations`.
    #[must_use]
    pub fn needs_rotation(&self) -> bool {
        let keyring = self.keyring.load();
        let config = keyring.rotation_config();
        let count = keyring.active().encryptions.load(Ordering::Relaxed);
        let bound = keyring.suite().messages_max().map(|_| RotationConfig::OPERATIONS_MAX);
        bound.is_some_and(|bound| count >= bound) || (config.enabled && count >= config.max_operations)
    }

    /// As [`Self::needs_rotation`], and also when the term reached the configured age.
    #[must_use]
    pub fn needs_rotation_at(&self, now_ms: u64) -> bool {
        let keyring = self.keyring.load();
        let config = keyring.rotation_config();
        let age_ms = now_ms.saturating_sub(keyring.active().install_time_ms);
        let is_old = config.enabled && config.interval_ms != 0 && age_ms >= config.interval_ms;
        is_old || self.needs_rotation()
    }

    /// The keyring with one term more, in the suite of the one before: to be stored, then put to use with
    /// [`Self::replace_keyring`].
    ///
    /// # Errors
    /// When randomness fails.
    pub fn rotated(&self, now_ms: u64) -> Result<Keyring, BarrierError> {
        self.rotated_to(now_ms, self.keyring.load().suite())
    }

    /// As [`Self::rotated`], in another suite.
    ///
    /// # Errors
    /// When randomness fails.
    pub fn rotated_to(&self, now_ms: u64, suite: Suite) -> Result<Keyring, BarrierError> {
        self.keyring.load().rotated(self.entropy.as_ref(), now_ms, suite)
    }

    /// The rotation settings.
    #[must_use]
    pub fn rotation_config(&self) -> RotationConfig {
        self.keyring.load().rotation_config()
    }

    /// The keyring with other rotation settings: to be stored, then put to use with [`Self::replace_keyring`].
    ///
    /// # Errors
    /// When they are out of range.
    pub fn with_rotation_config(&self, config: RotationConfig) -> Result<Keyring, BarrierError> {
        self.keyring.load().with_rotation_config(config)
    }

    /// Seals a value for the physical key `key`.
    ///
    /// # Errors
    /// When randomness fails or the term is used up; nothing may be stored then.
    pub fn seal_value(&self, key: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, BarrierError> {
        let keyring = self.keyring.load();
        let term = keyring.active();
        if term.is_used_up() {
            return Err(BarrierError::KeyExhausted { term: term.number });
        }
        let mut nonce = [0; NONCE_SIZE_MAX];
        let nonce = nonce.get_mut(..term.suite.nonce_size()).ok_or(BarrierError::Cipher)?;
        self.entropy.fill(nonce)?;
        let count = term.encryptions.fetch_add(1, Ordering::Relaxed);
        if arca_danger::is(Bug::NonceCounterRestarts) {
            let counted = count.to_le_bytes().into_iter().chain(std::iter::repeat(0));
            nonce.iter_mut().zip(counted).for_each(|(byte, counted)| *byte = counted);
        }
        let header = header(term);
        let mut sealed = Vec::with_capacity(HEADER_SIZE + nonce.len() + plaintext.len() + TAG_SIZE);
        sealed.extend_from_slice(&header);
        sealed.extend_from_slice(nonce);
        let start = sealed.len();
        sealed.extend_from_slice(plaintext);
        let body = sealed.get_mut(start..).ok_or(BarrierError::Cipher)?;
        match term.aead.seal(nonce, &aad(&header, key), body) {
            Ok(tag) => {
                sealed.extend_from_slice(&tag);
                Ok(sealed)
            }
            Err(err) => {
                sealed.zeroize(); // It may still hold the plaintext.
                Err(err)
            }
        }
    }

    /// Opens what [`Self::seal_value`] made for the same `key`.
    ///
    /// # Errors
    /// [`BarrierError::UnknownTerm`] when the keyring here is older than the value; [`BarrierError::Authentication`]
    /// when the bytes were changed or moved; otherwise what is unknown or malformed.
    pub fn open_value(&self, key: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, BarrierError> {
        let mut reader = Reader::new(sealed);
        let version = reader.byte()?;
        if version != VALUE_V1 {
            return Err(BarrierError::UnknownVersion(version));
        }
        let keyring = self.keyring.load();
        let number = reader.be_u32()?;
        let suite = Suite::from_tag(reader.byte()?)?;
        let term = keyring.term(number)?;
        if term.suite != suite {
            return Err(BarrierError::Authentication); // A term has one suite; the byte was changed.
        }
        let nonce = reader.take(suite.nonce_size())?;
        let (body, tag) = reader.rest().split_last_chunk::<TAG_SIZE>().ok_or(BarrierError::Truncated)?;
        let mut plain = Zeroizing::new(body.to_vec());
        term.aead.open(nonce, &aad(&header(term), key), &mut plain, tag)?;
        Ok(plain)
    }

    /// The physical key of `path`. A path that ends in `/` gives the byte prefix of everything below that folder,
    /// the empty path that of the whole class.
    ///
    /// # Errors
    /// When the path, a segment, or their number is over its limit.
    pub fn seal_name(&self, class: Class, path: &str) -> Result<Vec<u8>, BarrierError> {
        self.names.seal(class, path)
    }

    /// The class and path of a physical key.
    ///
    /// # Errors
    /// When the key was changed, put together from others, or is no sealed name.
    pub fn open_name(&self, key: &[u8]) -> Result<(Class, String), BarrierError> {
        self.names.open(key)
    }

    /// The name directly below `prefix` (made by [`Self::seal_name`]) on the way to `key`.
    ///
    /// # Errors
    /// As [`Self::open_name`]; what lies below that name is not looked at.
    pub fn open_child(&self, prefix: &[u8], key: &[u8]) -> Result<Child, BarrierError> {
        self.names.open_child(prefix, key)
    }

    /// The smallest key after every name below `prefix`, a key made from the empty path or from a folder's.
    /// Below the empty path this leaves out the time indexes, which follow the names of their class.
    #[must_use]
    pub fn subtree_end(prefix: &[u8]) -> Vec<u8> {
        names::subtree_end(prefix)
    }

    /// The key of an entry in a time index: `path` at `at_ms`. The moment is readable at rest, the path is not.
    ///
    /// # Errors
    /// When the path is over its limit.
    pub fn seal_timed(
        &self,
        class: Class,
        index: TimedIndex,
        at_ms: u64,
        path: &str,
    ) -> Result<Vec<u8>, BarrierError> {
        timed::seal(self.names.timed(class), class, index, at_ms, path)
    }

    /// Start (included) and end (excluded) of the index's entries at or before `until_ms`, soonest first.
    #[must_use]
    pub fn timed_range(class: Class, index: TimedIndex, until_ms: u64) -> (Vec<u8>, Vec<u8>) {
        timed::range(class, index, until_ms)
    }

    /// The moment and path of a key in a time index.
    ///
    /// # Errors
    /// When the key was changed or is of another kind.
    pub fn open_timed(&self, key: &[u8]) -> Result<(u64, String), BarrierError> {
        timed::open(self.names.timed(timed::class_of(key)?), key)
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("keyring", &self.keyring.load()).finish_non_exhaustive()
    }
}

fn header(term: &Term) -> [u8; HEADER_SIZE] {
    let [a, b, c, d] = term.number.to_be_bytes();
    [VALUE_V1, a, b, c, d, term.suite.tag()]
}

/// What authenticates along with a value: the header, which has one size, then the physical key.
fn aad(header: &[u8; HEADER_SIZE], key: &[u8]) -> Vec<u8> {
    [header, key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OsEntropy;

    fn barrier(suite: Suite, count: u64) -> Barrier {
        let keyring = Keyring::generate(&OsEntropy, 0, suite).expect("keyring");
        keyring.active().encryptions.store(count, Ordering::Relaxed);
        Barrier::new(keyring, Arc::new(OsEntropy))
    }

    #[track_caller]
    fn check(suite: Suite, count: u64, is_enabled: bool, want: bool) {
        let barrier = barrier(suite, count);
        let config =
            RotationConfig { enabled: is_enabled, max_operations: 2_000_000, ..RotationConfig::default() };
        barrier.replace_keyring(barrier.with_rotation_config(config).expect("in range")).expect("ours");
        assert_eq!(barrier.needs_rotation(), want, "{suite:?} at {count}");
    }

    #[test]
    fn rotation_is_due_by_count() {
        check(Suite::XChaCha20Poly1305, 1_999_999, true, false);
        check(Suite::XChaCha20Poly1305, 2_000_000, true, true);
        check(Suite::XChaCha20Poly1305, u64::MAX, false, false);
        check(Suite::Aes256Gcm, 2_000_000, true, true);
        check(Suite::Aes256Gcm, 2_000_000, false, false);
        check(Suite::Aes256Gcm, RotationConfig::OPERATIONS_MAX, false, true);
    }

    #[test]
    fn a_used_up_key_seals_no_more_and_rotation_helps() {
        let barrier = barrier(Suite::Aes256Gcm, (1 << 32) - 1);
        let last = barrier.seal_value(b"key", b"last").expect("one message is left");
        assert_eq!(barrier.seal_value(b"key", b"one more"), Err(BarrierError::KeyExhausted { term: 1 }));
        barrier.replace_keyring(barrier.rotated(1).expect("rotated")).expect("ours");
        barrier.seal_value(b"key", b"one more").expect("a fresh key");
        assert_eq!(barrier.open_value(b"key", &last).expect("old term").as_slice(), b"last");
    }
}
