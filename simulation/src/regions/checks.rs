//! What must hold between two clusters, one of which follows the other.

use std::collections::BTreeMap;

use arca_kernel::replication::{Mode, RoleRecord};
use arca_replication::Cursor;

use super::ledger::{Broken, Ledger, ONE_PRIMARY, PREFIX, Told};
use super::ways::Ways;

/// What a secondary said that it has, it has when it is promoted.
pub(super) const NOTHING_LOST: &str = "no acknowledged write is lost beyond the lag";

/// A secondary became the primary.
#[derive(Clone, Debug)]
pub(super) struct Promotion {
    /// Which of the two.
    pub(super) half: usize,
    /// Up to where it had followed the other; none if that was not known.
    pub(super) followed: Option<Cursor>,
    /// The last moment at which it had surely not happened, nanoseconds: what the other shows later may be old.
    pub(super) not_before: u64,
}

/// A state that is to be one that the other cluster had.
#[derive(Clone, Debug)]
struct Claim {
    half: usize,
    index: u64,
    cursor: Cursor,
    sum: u128,
}

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Whose an epoch is.
    primaries: BTreeMap<u64, usize>,
    /// Claims about entries that the other cluster's running members have not applied.
    open: Vec<Claim>,
    pub(super) promotions: Vec<Promotion>,
    /// When was looked last, nanoseconds.
    looked_at: u64,
    /// Claims that were checked.
    pub(super) checked: u64,
}

impl Checks {
    /// Looks at what happened in both clusters since.
    pub(super) fn look(
        &mut self,
        now_ns: u64,
        told: [Vec<Told>; 2],
        ledgers: [&Ledger; 2],
        (ways, names): (&Ways, [&str; 2]),
    ) -> Result<(), Broken> {
        ways.check()?;
        for (half, told) in told.into_iter().enumerate() {
            let name = names.get(half).copied().unwrap_or_default();
            for told in told {
                match told {
                    Told::Follows { index, cursor, sum } => {
                        self.open.push(Claim { half, index, cursor, sum });
                    }
                    Told::Became { index, before, now, cursor, sum } => {
                        self.became(half, name, (&before, &now))?;
                        if (before.mode, now.mode) == (Mode::Secondary, Mode::Primary) {
                            let followed = cursor.filter(|cursor| !cursor.is_unknown());
                            self.promoted(half, name, followed, ways)?;
                            self.open.extend(followed.map(|cursor| Claim { half, index, cursor, sum }));
                        }
                    }
                }
            }
        }
        self.looked_at = now_ns;
        self.compare(ledgers, names)
    }

    fn became(
        &mut self,
        half: usize,
        name: &str,
        (before, now): (&RoleRecord, &RoleRecord),
    ) -> Result<(), Broken> {
        if now.epoch < before.epoch {
            let text = format!("{name} went from epoch {} back to {}", before.epoch, now.epoch);
            return Err((ONE_PRIMARY, text));
        }
        if now.mode != Mode::Primary {
            return Ok(());
        }
        if before.mode != Mode::Primary
            && let Some((newest, _)) =
                self.primaries.last_key_value().filter(|(newest, _)| **newest >= now.epoch)
        {
            let text = format!("{name} became the primary of epoch {}, and {newest} had begun", now.epoch);
            return Err((ONE_PRIMARY, text));
        }
        match self.primaries.insert(now.epoch, half) {
            Some(other) if other != half => {
                Err((ONE_PRIMARY, format!("both clusters are primaries in epoch {}", now.epoch)))
            }
            _ => Ok(()),
        }
    }

    fn promoted(
        &mut self,
        half: usize,
        name: &str,
        followed: Option<Cursor>,
        ways: &Ways,
    ) -> Result<(), Broken> {
        self.promotions.push(Promotion { half, followed, not_before: self.looked_at });
        let Some(cursor) = followed else { return Ok(()) };
        match ways.acknowledged_by(name, cursor.generation) {
            Some(said) if said > cursor.index => Err((
                NOTHING_LOST,
                format!("{name} was promoted with entry {}, and had acknowledged {said}", cursor.index),
            )),
            _ => Ok(()),
        }
    }

    fn compare(&mut self, ledgers: [&Ledger; 2], names: [&str; 2]) -> Result<(), Broken> {
        let mut open = Vec::new();
        for claim in std::mem::take(&mut self.open) {
            let Some(other) = ledgers.get(1 - claim.half) else { continue };
            match other.sum_at(claim.cursor.index) {
                Some(sum) if sum == claim.sum => self.checked += 1,
                Some(_) => {
                    let name = names.get(claim.half).copied().unwrap_or_default();
                    return Err((
                        PREFIX,
                        format!(
                            "{name} says in its entry {} that it has what the other had at {}, and has not",
                            claim.index, claim.cursor.index
                        ),
                    ));
                }
                None if other.at < claim.cursor.index => open.push(claim),
                // Passed over when a state was replaced.
                None => {}
            }
        }
        self.open = open;
        Ok(())
    }
}
