//! No leak: in the end there are those accounts that clients were given and have not given back, and no others. What was
//! asked for in vain, or ended, or was revoked, is gone. Only what somebody was given whom the answer did not reach lasts as
//! long as its lease, until everything is revoked.

use arca_kernel::leases::{LeaseEntry, LeaseState};
use tokio::time::Instant;

use super::{Invariant, Seen};
use crate::credentials::{Credentials, stored_accounts};
use crate::elsewhere::Elsewhere;

/// See the file's header.
#[derive(Debug)]
pub(super) struct NoLeak {
    elsewhere: Elsewhere,
    credentials: Credentials,
}

impl NoLeak {
    pub(super) fn new(elsewhere: &Elsewhere, credentials: &Credentials) -> Self {
        Self { elsewhere: elsewhere.clone(), credentials: credentials.clone() }
    }
}

impl Invariant for NoLeak {
    fn name(&self) -> &'static str {
        "no leak outside"
    }

    fn look(&mut self, _: &[Seen]) -> Result<(), String> {
        Ok(())
    }

    fn rest(&mut self, members: &[Seen]) -> Result<(), String> {
        let (now, given) = (Instant::now(), self.credentials.all());
        let is_good = |account: &String| given.iter().any(|one| one.account == *account && one.is_good(now));
        let is_confirmed = |lease: &LeaseEntry| {
            lease.state == LeaseState::Live
                && lease.settled_by.is_none()
                && lease.id.starts_with("out/")
                && !self.credentials.is_all_given_back()
        };
        for Seen { replica, barrier, status, .. } in members {
            let stored = stored_accounts(replica, barrier);
            let of_nobody =
                |account: &String| !is_good(account) && !stored.get(account).is_some_and(is_confirmed);
            if let Some(account) = self.elsewhere.there().into_iter().find(of_nobody) {
                return Err(format!("{account} is there, which nobody was given, or which was given back"));
            }
            if let Some(account) = stored.keys().find(|account| of_nobody(account)) {
                return Err(format!("{} stores a lease on {account}, which nobody has", status.id));
            }
        }
        match self.elsewhere.under_way() {
            0 => Ok(()),
            count => Err(format!("{count} requests are on their way there")),
        }
    }
}
