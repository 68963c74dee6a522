//! What leaves a cluster. Decided by the physical key alone, so that nothing has to be opened for it.
//!
//! A filter names mounts and namespaces, and which keys those are is in the state: so the sieve of a filtered secondary is
//! made of the very view that is shipped from ([`Sieves`]).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

use arca_raft_storage::ReadView;

use arca_danger::Bug;

/// What a secondary is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A complete copy that waits: everything but what is this cluster's own.
    Dr,
    /// Serves reads and logins: what is replicated, with tokens and leases of its own.
    Performance,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dr, Self::Performance];

    /// As keys and messages carry it: never renumber, never reuse.
    #[must_use]
    pub const fn tag(self) -> u8 {
        match self {
            Self::Dr => 1,
            Self::Performance => 2,
        }
    }
}

/// First bytes of physical keys (`docs/formats/barrier.md`).
mod class {
    pub(super) const BOOT: u8 = 0;
    pub(super) const REPLICATED: u8 = 1;
    pub(super) const LOCAL: u8 = 2;
}

/// Decides which keys a secondary gets.
#[derive(Clone, Debug)]
pub struct Sieve {
    /// For whom.
    pub kind: Kind,
    /// Prefixes of keys that are this cluster's own, whatever their class: its CA, its members.
    pub own: Vec<Vec<u8>>,
    /// Keys that every secondary gets, whatever their class: the root key.
    pub always: Vec<Vec<u8>>,
    /// What this secondary gets of that: everything, unless it is filtered.
    pub rules: Rules,
}

/// Which prefixes of keys pass. The longest one that a key has decides; a key that has none passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Arc<BTreeMap<Vec<u8>, bool>>);

impl FromIterator<(Vec<u8>, bool)> for Rules {
    fn from_iter<T: IntoIterator<Item = (Vec<u8>, bool)>>(rules: T) -> Self {
        Self(Arc::new(rules.into_iter().collect()))
    }
}

impl Rules {
    /// Whether `key` passes.
    #[must_use]
    pub fn allow(&self, key: &[u8]) -> bool {
        let mut bound = key;
        loop {
            let below = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(bound))).next_back();
            let Some((prefix, passes)) = below else { return true };
            if key.starts_with(prefix) {
                return *passes;
            }
            // It lies between the key and its longest prefix here, which is no longer than what both begin with.
            let common = prefix.iter().zip(key).take_while(|(one, other)| one == other).count();
            bound = key.get(..common).unwrap_or_default();
        }
    }
}

/// What a secondary gets of a state.
#[derive(Clone, Debug)]
pub struct Sieved {
    /// It.
    pub sieve: Sieve,
    /// The last entry that changed what passes of what had been there. Who follows from before it lacks what was let in
    /// by it, or has what was taken out.
    pub since: u64,
}

/// Says what one secondary gets.
pub trait Sieves: Debug + Send + Sync {
    /// Of the state in `view`, and of the entries that led there.
    ///
    /// # Errors
    /// In words, when the state cannot be read.
    fn of(&self, view: &Arc<dyn ReadView>) -> Result<Sieved, String>;
}

/// One that no state changes.
impl Sieves for Sieve {
    fn of(&self, _: &Arc<dyn ReadView>) -> Result<Sieved, String> {
        Ok(Sieved { sieve: self.clone(), since: 0 })
    }
}

impl Sieve {
    /// One without exceptions.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, own: Vec::new(), always: Vec::new(), rules: Rules::default() }
    }

    /// Whether `key` leaves the cluster.
    #[must_use]
    pub fn passes(&self, key: &[u8]) -> bool {
        let begins = |prefixes: &[Vec<u8>]| prefixes.iter().any(|prefix| key.starts_with(prefix));
        let is_of_kind = match key.first().copied() {
            Some(class::BOOT | class::REPLICATED) => true,
            Some(class::LOCAL) => {
                self.kind == Kind::Dr
                    || self.always.iter().any(|always| always == key)
                    || arca_danger::is(Bug::SievePassesLocal)
            }
            // A class that this version does not know never leaves.
            _ => arca_danger::is(Bug::SievePassesNode),
        };
        let is_own = begins(&self.own) && !arca_danger::is(Bug::SievePassesOwn);
        let is_allowed = self.rules.allow(key) || arca_danger::is(Bug::WithheldIgnored);
        is_of_kind && !is_own && is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_leave_by_class_and_exception() {
        let check = |kind, key: &[u8], wanted: bool| {
            let own = vec![vec![0, b'c', b'a'], vec![2, 7]];
            let rules = [(vec![1, 5], false)].into_iter().collect();
            let sieve = Sieve { own, always: vec![vec![2, 9]], rules, kind };
            assert_eq!(sieve.passes(key), wanted, "{kind:?} {key:?}");
        };
        for kind in [Kind::Dr, Kind::Performance] {
            let is_dr = kind == Kind::Dr;
            check(kind, b"\0keyring", true);
            check(kind, b"\0ca", false);
            check(kind, &[1, 4], true);
            check(kind, &[1, 5, 1], false);
            check(kind, &[2, 4], is_dr);
            check(kind, &[2, 7, 1], false);
            check(kind, &[2, 9], true);
            check(kind, &[2, 9, 1], is_dr);
            check(kind, &[3, 1], false);
            check(kind, &[4, 1], false);
            check(kind, &[], false);
        }
    }

    #[test]
    fn the_longest_prefix_decides() {
        let rules = [
            (vec![1], false),
            (vec![1, 3], true),
            (vec![1, 3, 3], false),
            (vec![1, 3, 3, 1], true),
            (vec![1, 3, 3, 5], true),
            (vec![1, 3, 3, 5, 0], false),
        ];
        let rules: Rules = rules.into_iter().collect();
        let check = |key: &[u8], want: bool| assert_eq!(rules.allow(key), want, "{key:?}");
        check(&[], true);
        check(&[0, 9], true);
        check(&[1], false);
        check(&[1, 2, 9], false);
        check(&[1, 3], true);
        check(&[1, 3, 2], true);
        check(&[1, 3, 3], false);
        check(&[1, 3, 3, 0], false);
        check(&[1, 3, 3, 1], true);
        check(&[1, 3, 3, 1, 7, 7], true);
        check(&[1, 3, 3, 2], false);
        check(&[1, 3, 3, 5, 0, 1], false);
        check(&[1, 3, 3, 5, 1], true);
        check(&[1, 3, 3, 9], false);
        check(&[1, 3, 4], true);
        check(&[1, 4], false);
        check(&[2], true);
        assert!(Rules::default().allow(&[1]));
    }
}
