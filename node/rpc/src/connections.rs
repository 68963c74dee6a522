//! The connections of each peer: a few, the newest. A member that was lost leaves old ones behind, and one that was
//! removed still has a certificate.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Most connections of one peer. A member makes one a lane ([`crate::transport`]), and again after every restart.
const CONNECTIONS_MAX: usize = 16;

type Open<K> = BTreeMap<K, VecDeque<CancellationToken>>;

/// All of a node's, by who is at the other end.
pub(crate) struct Connections<K: Ord>(Arc<Mutex<Open<K>>>);

impl<K: Ord> Clone for Connections<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Ord> Default for Connections<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord + Clone> Connections<K> {
    /// One more of `peer`, until the result is dropped. If it has too many, its oldest ends.
    pub(crate) fn begin(&self, peer: K) -> Connection<K> {
        let mut open = self.0.lock();
        let of_peer = open.entry(peer.clone()).or_default();
        if of_peer.len() >= CONNECTIONS_MAX
            && let Some(oldest) = of_peer.pop_front()
        {
            oldest.cancel();
        }
        let ended = CancellationToken::new();
        of_peer.push_back(ended.clone());
        Connection { peer, ended, all: self.clone() }
    }

    /// Ends those of every peer that is `meant`.
    pub(crate) fn end(&self, meant: impl Fn(&K) -> bool) {
        for (_, of_peer) in self.0.lock().iter().filter(|(peer, _)| meant(peer)) {
            of_peer.iter().for_each(CancellationToken::cancel);
        }
    }
}

/// One connection's place among them.
pub(crate) struct Connection<K: Ord> {
    peer: K,
    ended: CancellationToken,
    all: Connections<K>,
}

impl<K: Ord> Connection<K> {
    /// Cancelled when a newer connection takes its place.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl<K: Ord> Drop for Connection<K> {
    fn drop(&mut self) {
        // Told apart from the others by having ended.
        self.ended.cancel();
        let mut open = self.all.0.lock();
        if let Some(of_peer) = open.get_mut(&self.peer) {
            of_peer.retain(|other| !other.is_cancelled());
            if of_peer.is_empty() {
                open.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arca_raft_storage::MemberId;

    use super::*;

    #[test]
    fn a_member_keeps_its_newest_connections() {
        let all = Connections::default();
        let other = all.begin(MemberId(2));
        let mut open: Vec<_> = (0..CONNECTIONS_MAX).map(|_| all.begin(MemberId(1))).collect();
        drop(open.pop());
        open.push(all.begin(MemberId(1)));
        assert!(open.iter().all(|connection| !connection.ended().is_cancelled()));
        let _newest = all.begin(MemberId(1));
        assert!(open[0].ended().is_cancelled() && !open[1].ended().is_cancelled());
        assert!(!other.ended().is_cancelled());
        drop((open, _newest, other));
        assert!(all.0.lock().is_empty());
    }

    #[test]
    fn connections_end_by_whose_they_are() {
        let all = Connections::default();
        let (one, two) = (all.begin("one"), all.begin("two"));
        all.end(|peer| *peer == "one");
        assert!(one.ended().is_cancelled() && !two.ended().is_cancelled());
    }
}
