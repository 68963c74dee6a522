//! What the log does not say of its entries: which write sets were refused, and where a backup replaced everything.
//!
//! The log holds what was proposed. Whoever ships what came of it to another cluster reads the log and these marks. A
//! mark is written in the batch of its entry, so replicas hold the same ones; entries without one were written whole.
//! Read next: [`crate::raft`]'s `changes`.

use std::collections::BTreeMap;

use super::SetOutcome;
use super::meta::{self, OWN_KEYS};
use crate::codec::{self, Malformed, Reader};
use crate::command::BATCH_SETS_MAX;
use crate::kv::{Batch, Kv, KvError, KvSnapshot, Visit};

/// Marks of this many of the last entries are kept, which is more than any log holds. A count and not the end of the log:
/// that differs from member to member, and the marks must not.
pub(crate) const KEPT: u64 = 1 << 26;
/// Old marks are looked for whenever the index is a multiple of this.
const PRUNE_EVERY: u64 = 1 << 16;

const PREFIX: [u8; 2] = [OWN_KEYS[0], 2];
const END: [u8; 2] = [OWN_KEYS[0], 3];
const RECORD_V1: u8 = 1;

// In stores: never renumber, never reuse.
const REFUSED: u8 = 1;
const REPLACED: u8 = 2;

/// What became of an entry that was not simply written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Positions of the write sets that were refused, ascending.
    Refused(Vec<usize>),
    /// The state was replaced by a backup.
    Replaced,
}

impl Mark {
    /// The mark of a batch, if it needs one.
    pub(super) fn of(outcomes: &[SetOutcome]) -> Option<Self> {
        let refused = outcomes.iter().enumerate().filter(|(_, outcome)| **outcome == SetOutcome::Conflict);
        let refused: Vec<usize> = refused.map(|(position, _)| position).collect();
        (!refused.is_empty()).then_some(Self::Refused(refused))
    }

    pub(super) fn write(&self, index: u64, batch: &mut Batch) {
        let mut bytes = vec![RECORD_V1];
        match self {
            Self::Refused(positions) => {
                bytes.push(REFUSED);
                codec::put_varint(&mut bytes, positions.len() as u64);
                for position in positions {
                    codec::put_varint(&mut bytes, *position as u64);
                }
            }
            Self::Replaced => bytes.push(REPLACED),
        }
        batch.changes.push((key(index), Some(bytes)));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.byte()? {
            REFUSED => {
                let count = reader.count(1)?;
                if count > BATCH_SETS_MAX {
                    return Err(Malformed("more refused write sets than a batch holds"));
                }
                let position = |reader: &mut Reader<'_>| {
                    usize::try_from(reader.varint()?).map_err(|_| Malformed("position of a write set"))
                };
                (0..count).map(|_| position(reader)).collect::<Result<_, _>>().map(Self::Refused)
            }
            REPLACED => Ok(Self::Replaced),
            _ => Err(Malformed("unknown kind of mark")),
        }
    }
}

fn key(index: u64) -> Vec<u8> {
    [&PREFIX[..], &index.to_be_bytes()].concat()
}

/// The marks of the entries from `first` to `last`.
pub(super) fn between(
    snapshot: &dyn KvSnapshot,
    first: u64,
    last: u64,
) -> Result<BTreeMap<u64, Mark>, KvError> {
    let end = last.checked_add(1).map_or_else(|| END.to_vec(), key);
    let mut marks = BTreeMap::new();
    let mut outcome = Ok(());
    snapshot.visit(&key(first), Some(&end), &mut |key, bytes| {
        let found = index_of(key).and_then(|index| Ok((index, meta::record(key, bytes, Mark::read)?)));
        match found {
            Ok((index, mark)) => {
                marks.insert(index, mark);
                Visit::Next
            }
            Err(err) => {
                outcome = Err(err);
                Visit::Stop
            }
        }
    })?;
    outcome.map(|()| marks)
}

fn index_of(key: &[u8]) -> Result<u64, KvError> {
    let digits = key.get(PREFIX.len()..).and_then(|rest| rest.try_into().ok());
    digits.map(u64::from_be_bytes).ok_or_else(|| meta::damaged(key, "not the key of a mark"))
}

/// Deletes marks nobody asks for any more. The same entry does so on every replica.
pub(super) fn prune(kv: &dyn Kv, index: u64, batch: &mut Batch) -> Result<(), KvError> {
    if !index.is_multiple_of(PRUNE_EVERY) || index <= KEPT {
        return Ok(());
    }
    let old = meta::keys_between(kv.snapshot().as_ref(), &PREFIX, &key(index - KEPT))?;
    batch.changes.extend(old.into_iter().map(|key| (key, None)));
    Ok(())
}

/// The range of keys that marks lie in.
pub(super) const fn range() -> (&'static [u8], &'static [u8]) {
    (&PREFIX, &END)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These bytes are in stores: the lines never change.
    #[test]
    fn golden_bytes() {
        let check = |mark: &Mark, bytes: &[u8]| {
            let mut batch = Batch::default();
            mark.write(0x0102, &mut batch);
            let (key, stored) = batch.changes.remove(0);
            assert_eq!(
                (key.as_slice(), stored.as_deref()),
                (b"\xf0\x02\0\0\0\0\0\0\x01\x02".as_slice(), Some(bytes))
            );
            assert_eq!(meta::record(&key, bytes, Mark::read).unwrap(), *mark);
        };
        check(&Mark::Refused(vec![0, 300]), &[1, 1, 2, 0, 0xac, 2]);
        check(&Mark::Replaced, &[1, 2]);
    }

    #[test]
    fn damage_and_newer_formats_are_named() {
        let check = |bytes: &[u8], want: &str| {
            let err = meta::record(&key(7), bytes, Mark::read).unwrap_err().to_string();
            assert!(err.contains(want), "{err}");
        };
        check(&[2, 1], "format 2");
        check(&[1, 9], "unknown kind of mark");
        check(&[1, 1, 2, 0], "larger than what follows");
        check(&[1, 1, 1, 0x80], "ends early");
        check(&[1, 2, 0], "damaged");
    }
}
