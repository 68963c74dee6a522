//! The verified connections of each member: a few, the newest. A member that was lost leaves old ones behind, and one
//! that was removed still has a certificate.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arca_raft_storage::MemberId;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Most connections of one member. It makes one a lane ([`crate::transport`]), and again after every restart.
const CONNECTIONS_MAX: usize = 16;

type Open = BTreeMap<MemberId, VecDeque<CancellationToken>>;

/// All of a node's.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<Open>>);

impl Connections {
    /// One more of `member`, until the result is dropped. If it has too many, its oldest ends.
    pub(crate) fn begin(&self, member: MemberId) -> Connection {
        let mut open = self.0.lock();
        let of_member = open.entry(member).or_default();
        if of_member.len() >= CONNECTIONS_MAX
            && let Some(oldest) = of_member.pop_front()
        {
            oldest.cancel();
        }
        let ended = CancellationToken::new();
        of_member.push_back(ended.clone());
        Connection { member, ended, all: self.clone() }
    }
}

/// One connection's place among them.
pub(crate) struct Connection {
    member: MemberId,
    ended: CancellationToken,
    all: Connections,
}

impl Connection {
    /// Cancelled when a newer connection takes its place.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Told apart from the others by having ended.
        self.ended.cancel();
        let mut open = self.all.0.lock();
        if let Some(of_member) = open.get_mut(&self.member) {
            of_member.retain(|other| !other.is_cancelled());
            if of_member.is_empty() {
                open.remove(&self.member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
