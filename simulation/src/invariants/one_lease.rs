//! One lease at a time: while a leader answers reads from its lease, no other member does. What the other
//! commits the first would not show.

use super::{Invariant, Seen};

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct OneLease;

impl Invariant for OneLease {
    fn name(&self) -> &'static str {
        "one lease at a time"
    }

    fn look(&mut self, members: &[Seen]) -> Result<(), String> {
        let mut holders = members.iter().filter(|seen| seen.replica.is_leased()).map(|seen| seen.status.id);
        match (holders.next(), holders.next()) {
            (Some(one), Some(other)) => Err(format!("{one} and {other} both answer reads from a lease")),
            _ => Ok(()),
        }
    }
}
