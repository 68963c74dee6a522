//! No orphan: every account in the system outside has a lease that will remove it, whether it was handed out or not. Looked
//! at on a leader that answers from its lease, since it knows all that was committed, as soon as it has applied it.

use std::collections::BTreeMap;
use std::time::Duration;

use arca_raft_storage::Role;
use tokio::time::Instant;

use super::{Invariant, Seen};
use crate::credentials::stored_accounts;
use crate::elsewhere::Elsewhere;

/// Looks between two that count: each reads all leases.
const EVERY: u64 = 25;
/// An account without a lease for so long is one: a new leader may still apply what others committed.
const LIMIT: Duration = Duration::from_secs(3);

/// See the file's header.
#[derive(Debug)]
pub(super) struct NoOrphan {
    elsewhere: Elsewhere,
    looks: u64,
    /// Since when an account was seen without a lease.
    without: BTreeMap<String, Instant>,
}

impl NoOrphan {
    pub(super) fn new(elsewhere: &Elsewhere) -> Self {
        Self { elsewhere: elsewhere.clone(), looks: 0, without: BTreeMap::new() }
    }
}

impl Invariant for NoOrphan {
    fn name(&self) -> &'static str {
        "no orphan outside"
    }

    fn look(&mut self, members: &[Seen]) -> Result<(), String> {
        self.looks += 1;
        let there = self.elsewhere.there();
        if !self.looks.is_multiple_of(EVERY) || there.is_empty() {
            return Ok(());
        }
        let knows = |seen: &&Seen| {
            let status = &seen.status;
            status.role == Role::Leader
                && status.applied_index == status.committed_index
                && seen.replica.is_leased()
        };
        let Some(leader) = members.iter().find(knows) else { return Ok(()) };
        let stored = stored_accounts(&leader.replica, &leader.barrier);
        let now = Instant::now();
        self.without.retain(|account, _| there.contains(account) && !stored.contains_key(account));
        for account in there.into_iter().filter(|account| !stored.contains_key(account)) {
            let since = *self.without.entry(account.clone()).or_insert(now);
            if now - since > LIMIT {
                let by = leader.status.id;
                return Err(format!("{account} is there, and the leader, {by}, knows of no lease on it"));
            }
        }
        Ok(())
    }
}
