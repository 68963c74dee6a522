//! The keyring: the name key, which never changes, and one key per term for values. The newest term seals.
//!
//! Rotation adds a term and rewrites nothing. A keyring is a value: whoever changes it gets a new one, stores it, and
//! only then puts it to use with [`crate::Barrier::replace_keyring`]. Copies share the keys and their counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use crate::envelope::{self, Purpose};
use crate::names::Names;
use crate::reader::Reader;
use crate::root_key::{KEY_SIZE, Secret};
use crate::suite::Aead;
use crate::{BarrierError, Entropy, RootKey, Suite};

const BODY_V1: u8 = 1;

/// When the kernel adds a term. Both limits count from the newest term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationConfig {
    /// Messages sealed.
    pub max_operations: u64,
    /// Age, milliseconds; zero for no limit.
    pub interval_ms: u64,
    /// Whether the two above are looked at. A suite's own bound always is.
    pub enabled: bool,
}

impl RotationConfig {
    /// Smallest `max_operations`.
    pub const OPERATIONS_MIN: u64 = 1_000_000;
    /// Largest `max_operations`: nine tenths of what AES-GCM bears, so that counts lost in a crash do no harm.
    pub const OPERATIONS_MAX: u64 = 3_865_470_566;
    /// Smallest `interval_ms` but zero: a day.
    pub const INTERVAL_MS_MIN: u64 = 24 * 60 * 60 * 1000;

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the field out of range.
    pub const fn validate(&self) -> Result<(), BarrierError> {
        if self.max_operations < Self::OPERATIONS_MIN || self.max_operations > Self::OPERATIONS_MAX {
            return Err(BarrierError::InvalidConfig("max_operations must be between 1000000 and 3865470566"));
        }
        if self.interval_ms != 0 && self.interval_ms < Self::INTERVAL_MS_MIN {
            return Err(BarrierError::InvalidConfig("interval must be zero or at least 24 hours"));
        }
        Ok(())
    }
}

impl Default for RotationConfig {
    fn default() -> Self {
        Self { max_operations: Self::OPERATIONS_MAX, interval_ms: 0, enabled: true }
    }
}

/// One term: a key with its cipher prepared, and how often it sealed.
pub(crate) struct Term {
    pub(crate) number: u32,
    pub(crate) suite: Suite,
    pub(crate) install_time_ms: u64,
    pub(crate) encryptions: AtomicU64,
    pub(crate) aead: Box<dyn Aead>,
    key: Secret,
}

impl Term {
    fn new(
        number: u32,
        suite: Suite,
        install_time_ms: u64,
        count: u64,
        key: Secret,
    ) -> Result<Self, BarrierError> {
        let aead = suite.prepare(&key)?;
        Ok(Self { number, suite, install_time_ms, encryptions: AtomicU64::new(count), aead, key })
    }

    fn is_same_key(&self, other: &Self) -> bool {
        self.suite == other.suite && self.key.matches(&other.key)
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.suite.messages_max().is_some_and(|max| self.encryptions.load(Ordering::Relaxed) >= max)
    }
}

/// See the file's header.
#[derive(Clone)]
pub struct Keyring {
    name_key: Arc<Secret>,
    /// The ciphers of the name key.
    names: Arc<Names>,
    /// Never empty; [`Self::active`] is the last.
    terms: BTreeMap<u32, Arc<Term>>,
    active: Arc<Term>,
    rotation: RotationConfig,
}

impl Keyring {
    /// A new keyring with term 1.
    ///
    /// # Errors
    /// When randomness fails.
    pub fn generate(entropy: &dyn Entropy, now_ms: u64, suite: Suite) -> Result<Self, BarrierError> {
        let name_key = Arc::new(Secret::generate(entropy)?);
        let names = Arc::new(Names::new(&name_key)?);
        let active = Arc::new(Term::new(1, suite, now_ms, 0, Secret::generate(entropy)?)?);
        let terms = BTreeMap::from([(1, Arc::clone(&active))]);
        Ok(Self { name_key, names, terms, active, rotation: RotationConfig::default() })
    }

    /// This keyring and one term more, which seals from now on with `suite`.
    ///
    /// # Errors
    /// When randomness fails.
    pub fn rotated(&self, entropy: &dyn Entropy, now_ms: u64, suite: Suite) -> Result<Self, BarrierError> {
        let number = self.active.number;
        let number = number.checked_add(1).ok_or(BarrierError::KeyExhausted { term: number })?;
        let active = Arc::new(Term::new(number, suite, now_ms, 0, Secret::generate(entropy)?)?);
        let mut next = self.clone();
        next.terms.insert(number, Arc::clone(&active));
        next.active = active;
        Ok(next)
    }

    /// This keyring with other rotation settings.
    ///
    /// # Errors
    /// When they are out of range.
    pub fn with_rotation_config(&self, rotation: RotationConfig) -> Result<Self, BarrierError> {
        rotation.validate()?;
        Ok(Self { rotation, ..self.clone() })
    }

    /// The rotation settings.
    #[must_use]
    pub const fn rotation_config(&self) -> RotationConfig {
        self.rotation
    }

    /// The number of the term that seals.
    #[must_use]
    pub fn active_term(&self) -> u32 {
        self.active.number
    }

    /// The suite of the term that seals.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.active.suite
    }

    pub(crate) fn active(&self) -> &Term {
        &self.active
    }

    pub(crate) const fn names(&self) -> &Arc<Names> {
        &self.names
    }

    pub(crate) fn term(&self, number: u32) -> Result<&Term, BarrierError> {
        if self.active.number == number {
            return Ok(&self.active);
        }
        self.terms.get(&number).map(AsRef::as_ref).ok_or(BarrierError::UnknownTerm(number))
    }

    /// `next`, if it continues this keyring: same name key, every term still there with the same key.
    pub(crate) fn succeeded_by(&self, next: Self) -> Result<Self, BarrierError> {
        for (number, ours) in &self.terms {
            let theirs = next.terms.get(number).ok_or(BarrierError::ForeignKeyring("a term is missing"))?;
            if !ours.is_same_key(theirs) {
                return Err(BarrierError::ForeignKeyring("a term has another key"));
            }
        }
        self.superseded_by(next)
    }

    /// `next`, if it is of the same cluster: same name key. Terms may be gone or have other keys. Terms both have are
    /// taken from here, so that counting goes on where it is, at the higher of the two counts.
    pub(crate) fn superseded_by(&self, mut next: Self) -> Result<Self, BarrierError> {
        if !self.name_key.matches(&next.name_key) {
            return Err(BarrierError::ForeignKeyring("other name key"));
        }
        for (number, ours) in &self.terms {
            let Some(theirs) = next.terms.get_mut(number).filter(|theirs| ours.is_same_key(theirs)) else {
                continue;
            };
            ours.encryptions.fetch_max(theirs.encryptions.load(Ordering::Relaxed), Ordering::Relaxed);
            *theirs = Arc::clone(ours);
            if next.active.number == *number {
                next.active = Arc::clone(ours);
            }
        }
        next.names = Arc::clone(&self.names);
        Ok(next)
    }

    /// Seals the keyring for storage, with the counts as they are now.
    ///
    /// # Errors
    /// When randomness fails.
    pub fn seal(&self, root: &RootKey, entropy: &dyn Entropy) -> Result<Vec<u8>, BarrierError> {
        // Sized up front: growing would leave a copy of the keys behind.
        let mut body = Zeroizing::new(Vec::with_capacity(HEAD_SIZE + TERM_SIZE * self.terms.len()));
        body.push(BODY_V1);
        body.extend_from_slice(self.name_key.expose());
        body.push(u8::from(self.rotation.enabled));
        body.extend_from_slice(&self.rotation.max_operations.to_be_bytes());
        body.extend_from_slice(&self.rotation.interval_ms.to_be_bytes());
        for term in self.terms.values() {
            body.extend_from_slice(&term.number.to_be_bytes());
            body.push(term.suite.tag());
            body.extend_from_slice(&term.install_time_ms.to_be_bytes());
            body.extend_from_slice(&term.encryptions.load(Ordering::Relaxed).to_be_bytes());
            body.extend_from_slice(term.key.expose());
        }
        envelope::seal(root.secret(), Purpose::Keyring, &body, entropy)
    }

    /// Opens what [`Self::seal`] made.
    ///
    /// # Errors
    /// [`BarrierError::Authentication`] when the root key is another one or bytes changed; otherwise what is unknown
    /// or malformed.
    pub fn open(root: &RootKey, sealed: &[u8]) -> Result<Self, BarrierError> {
        let body = envelope::open(root.secret(), Purpose::Keyring, sealed)?;
        let mut reader = Reader::new(&body);
        let version = reader.byte()?;
        if version != BODY_V1 {
            return Err(BarrierError::UnknownVersion(version));
        }
        let name_key = Arc::new(Secret::from_slice(reader.take(KEY_SIZE)?)?);
        let enabled = match reader.byte()? {
            0 => false,
            1 => true,
            _ => return Err(BarrierError::Malformed("rotation flag")),
        };
        let rotation =
            RotationConfig { max_operations: reader.be_u64()?, interval_ms: reader.be_u64()?, enabled };
        let mut terms = BTreeMap::new();
        let mut active = None;
        while !reader.rest().is_empty() {
            let term = Arc::new(read_term(&mut reader)?);
            if active.as_ref().is_some_and(|last: &Arc<Term>| last.number >= term.number) {
                return Err(BarrierError::Malformed("terms out of order"));
            }
            terms.insert(term.number, Arc::clone(&term));
            active = Some(term);
        }
        let active = active.ok_or(BarrierError::Malformed("keyring without terms"))?;
        let names = Arc::new(Names::new(&name_key)?);
        Ok(Self { name_key, names, terms, active, rotation })
    }
}

/// Bytes before the terms: version, name key, rotation settings.
const HEAD_SIZE: usize = 1 + KEY_SIZE + 1 + 8 + 8;
/// Bytes of one term.
const TERM_SIZE: usize = 4 + 1 + 8 + 8 + KEY_SIZE;

fn read_term(reader: &mut Reader<'_>) -> Result<Term, BarrierError> {
    let number = reader.be_u32()?;
    let suite = Suite::from_tag(reader.byte()?)?;
    let install_time_ms = reader.be_u64()?;
    let count = reader.be_u64()?;
    Term::new(number, suite, install_time_ms, count, Secret::from_slice(reader.take(KEY_SIZE)?)?)
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("terms", &self.terms.keys())
            .field("suite", &self.active.suite)
            .field("rotation", &self.rotation)
            .finish_non_exhaustive()
    }
}
