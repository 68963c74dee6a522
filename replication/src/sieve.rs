//! What leaves a cluster. Decided by the physical key alone, so that nothing has to be opened for it.

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
    /// Prefixes that this secondary does not get: filtered mounts.
    pub withheld: Vec<Vec<u8>>,
}

impl Sieve {
    /// One without exceptions.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self { kind, own: Vec::new(), always: Vec::new(), withheld: Vec::new() }
    }

    /// Whether `key` leaves the cluster.
    #[must_use]
    pub fn passes(&self, key: &[u8]) -> bool {
        let begins = |prefixes: &[Vec<u8>]| prefixes.iter().any(|prefix| key.starts_with(prefix));
        let is_of_kind = match key.first().copied() {
            Some(class::BOOT | class::REPLICATED) => true,
            Some(class::LOCAL) => self.kind == Kind::Dr || self.always.iter().any(|always| always == key),
            // A class that this version does not know never leaves.
            _ => false,
        };
        is_of_kind && !begins(&self.own) && !begins(&self.withheld)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_leave_by_class_and_exception() {
        let check = |kind, key: &[u8], wanted: bool| {
            let own = vec![vec![0, b'c', b'a'], vec![2, 7]];
            let sieve = Sieve { own, always: vec![vec![2, 9]], withheld: vec![vec![1, 5]], kind };
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
}
