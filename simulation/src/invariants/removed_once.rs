//! No double revocation: no process asks for the removal of an account while it waits for the answer about the same one, nor
//! of one whose lease it does not have any more.
//!
//! More is not promised: undoing comes before the commit that takes the lease away, so whoever becomes active in between
//! undoes it again (ADR 20).

use super::{Invariant, Seen};
use crate::elsewhere::{Call, Elsewhere};

/// See the file's header.
#[derive(Debug)]
pub(super) struct RemovedOnce {
    elsewhere: Elsewhere,
    /// How many requests were looked at.
    seen: usize,
}

impl RemovedOnce {
    pub(super) fn new(elsewhere: &Elsewhere) -> Self {
        Self { elsewhere: elsewhere.clone(), seen: 0 }
    }
}

impl Invariant for RemovedOnce {
    fn name(&self) -> &'static str {
        "no double revocation"
    }

    fn look(&mut self, _: &[Seen]) -> Result<(), String> {
        let calls = self.elsewhere.calls_after(self.seen);
        self.seen += calls.len();
        for Call { account, is_removal, by, has_lease, is_second } in calls {
            if is_removal && is_second {
                return Err(format!("{by} asks for the removal of {account} twice at once"));
            }
            if is_removal && !has_lease {
                return Err(format!("{by} asks for the removal of {account}, and has no lease on it"));
            }
        }
        Ok(())
    }
}
