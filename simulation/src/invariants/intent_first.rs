//! Intent first: nothing is made in the system outside before the lease that will remove it is committed, and applied where
//! it was asked for.

use super::{Invariant, Seen};
use crate::elsewhere::{Call, Elsewhere};

/// See the file's header.
#[derive(Debug)]
pub(super) struct IntentFirst {
    elsewhere: Elsewhere,
    /// How many requests were looked at.
    seen: usize,
}

impl IntentFirst {
    pub(super) fn new(elsewhere: &Elsewhere) -> Self {
        Self { elsewhere: elsewhere.clone(), seen: 0 }
    }
}

impl Invariant for IntentFirst {
    fn name(&self) -> &'static str {
        "the intent comes first"
    }

    fn look(&mut self, _: &[Seen]) -> Result<(), String> {
        let calls = self.elsewhere.calls_after(self.seen);
        self.seen += calls.len();
        let early = calls.into_iter().find(|call| !call.is_removal && !call.has_lease);
        early.map_or(Ok(()), |Call { account, by, .. }| {
            Err(format!("{by} has {account} made before it has a lease on it"))
        })
    }
}
