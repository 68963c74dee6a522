//! What was handed out works until its lease ends or is asked to end; and what was answered as revoked is gone for good.

use tokio::time::Instant;

use super::{Invariant, Seen};
use crate::credentials::Credentials;
use crate::elsewhere::Elsewhere;

/// See the file's header.
#[derive(Debug)]
pub(super) struct HandedOut {
    elsewhere: Elsewhere,
    credentials: Credentials,
}

impl HandedOut {
    pub(super) fn new(elsewhere: &Elsewhere, credentials: &Credentials) -> Self {
        Self { elsewhere: elsewhere.clone(), credentials: credentials.clone() }
    }
}

impl Invariant for HandedOut {
    fn name(&self) -> &'static str {
        "credentials last as long as their leases"
    }

    fn look(&mut self, _: &[Seen]) -> Result<(), String> {
        let now = Instant::now();
        for given in self.credentials.all() {
            let is_there = self.elsewhere.has(&given.account);
            if given.is_owed(now) && !is_there {
                return Err(format!("{} is gone, and its lease has not ended", given.account));
            }
            if given.is_revoked && is_there {
                return Err(format!("{} was answered as revoked, and is there", given.account));
            }
        }
        Ok(())
    }
}
