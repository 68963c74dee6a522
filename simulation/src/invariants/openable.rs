//! Every member can open everything it stores, with the keyring it has right now: a rotation reaches all of them in the very
//! step that brings what was sealed after it.

use arca_raft_storage::{Replica as _, Version, Visit};
use arca_replication::{Kind, load_cursor};

use super::{Invariant, Seen};

/// Looks between two walks: each opens everything.
const EVERY: u64 = 100;
/// The classes of keys whose values the barrier seals: `docs/formats/barrier.md`.
const FIRST_SEALED_CLASS: u8 = 1;
const LAST_SEALED_CLASS: u8 = 2;

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Openable {
    looks: u64,
}

impl Invariant for Openable {
    fn name(&self) -> &'static str {
        "what is stored can be opened"
    }

    fn look(&mut self, members: &[Seen]) -> Result<(), String> {
        self.looks += 1;
        if !self.looks.is_multiple_of(EVERY) {
            return Ok(());
        }
        for Seen { replica, barrier, status, .. } in members.iter().filter(|seen| is_whole(seen)) {
            let mut refused = None;
            let view = replica.view();
            let end = [LAST_SEALED_CLASS + 1];
            let walked = view.visit(&[FIRST_SEALED_CLASS], Some(&end), &mut |key, value, version| {
                // Entries of time indexes are keys alone.
                let opened = if value.is_empty() { Ok(()) } else { barrier.open_value(key, value).map(drop) };
                refused = opened.err().map(|err| (version, err));
                if refused.is_none() { Visit::Next } else { Visit::Stop }
            });
            walked.map_err(|err| format!("the state of {} cannot be read: {err}", status.id))?;
            if let Some((version, err)) = refused {
                return Err(format!("{} cannot open what was written at {version:?}: {err}", status.id));
            }
        }
        Ok(())
    }
}

/// Whether the state is of one time and of the member's keys. One that is compared with another cluster's is of two times.
fn is_whole(seen: &Seen) -> bool {
    let cursor = load_cursor(seen.replica.view().as_ref(), Kind::Dr);
    let is_compared = cursor.is_ok_and(|(cursor, version)| version != Version::ABSENT && cursor.is_unknown());
    !seen.is_locked_out && !is_compared
}
