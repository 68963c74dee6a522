//! Room for logins under way. Anybody can begin one, and each is a write, so they are bounded: at the limit the oldest one
//! of the source that has most of them makes room. Nobody is refused, and whoever begins thousands only ends their own.
//!
//! What is known here is about right and costs no look into storage; [`Places::renew`] makes it exact once a minute. Until
//! then a node that became the active one knows nothing of earlier logins, so that storage holds twice the limit at most.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use arca_engine_api::cidr::source_of;

/// Logins under way on one mount.
pub(in crate::auth::jwt) const PLACES: usize = 4_096;

/// Where logins are begun: an address, of IPv6 the network of 64 bits that one customer has.
type Source = Option<IpAddr>;

#[derive(Debug, Default)]
struct Taken {
    /// Keys of logins, the oldest first.
    by_source: BTreeMap<Source, VecDeque<String>>,
    count: usize,
}

impl Taken {
    /// Takes a place; answers whose login makes room.
    fn take(&mut self, client: Option<IpAddr>, key: String) -> Option<String> {
        self.by_source.entry(client.map(source_of)).or_default().push_back(key);
        self.count += 1;
        (self.count > PLACES).then(|| self.give_up_one()).flatten()
    }

    fn give_up_one(&mut self) -> Option<String> {
        let (source, _) = self.by_source.iter().max_by_key(|(_, keys)| keys.len())?;
        let source = *source;
        let keys = self.by_source.get_mut(&source)?;
        let oldest = keys.pop_front();
        if keys.is_empty() {
            self.by_source.remove(&source);
        }
        self.count -= usize::from(oldest.is_some());
        oldest
    }
}

/// The places of a mount: a cache.
#[derive(Debug, Default)]
pub(in crate::auth::jwt) struct Places(Mutex<Taken>);

impl Places {
    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a login begun by `client`; answers the key of a login that must go for it.
    pub(super) fn take(&self, client: Option<IpAddr>, key: String) -> Option<String> {
        self.lock().take(client, key)
    }

    /// Forgets what was known for `logins`, the oldest first; answers the keys of those that are too many.
    pub(super) fn renew(&self, logins: impl IntoIterator<Item = (Option<IpAddr>, String)>) -> Vec<String> {
        let mut taken = Taken::default();
        let too_many = logins.into_iter().filter_map(|(client, key)| taken.take(client, key)).collect();
        *self.lock() = taken;
        too_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Option<IpAddr> {
        address.parse().ok()
    }

    /// Anybody could keep everybody else from logging in, by beginning logins until no place was left.
    #[test]
    fn a_flood_takes_no_place_from_anybody_else() {
        let places = Places::default();
        assert_eq!(places.take(from("10.0.0.1"), "user".to_owned()), None);
        for at in 0..3 * PLACES {
            // One customer of a provider has all addresses of a network.
            let address = from(&format!("2001:db8:0:1::{:x}", at % 0xffff));
            let gone = places.take(address, format!("flood {at}"));
            let want = (at + 1).checked_sub(PLACES - 1).and_then(|over| over.checked_sub(1));
            assert_eq!(gone, want.map(|oldest| format!("flood {oldest}")));
        }
        assert_eq!(places.take(from("10.0.0.2"), "another".to_owned()).as_deref(), Some("flood 8193"));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let places = Places::default();
        for at in 0..2 * PLACES {
            let client =
                Some(IpAddr::from([10, 0, u8::try_from(at / 256).unwrap(), u8::try_from(at % 256).unwrap()]));
            assert_eq!(places.take(client, at.to_string()).is_some(), at >= PLACES);
        }
        assert_eq!(places.lock().count, PLACES);
        assert_eq!(places.lock().by_source.values().map(VecDeque::len).sum::<usize>(), PLACES);
        let too_many = places.renew((0..PLACES + 2).map(|at| (None, at.to_string())));
        assert_eq!((too_many, places.lock().count), (vec!["0".to_owned(), "1".to_owned()], PLACES));
    }
}
