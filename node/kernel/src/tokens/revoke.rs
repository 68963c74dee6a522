//! The end of tokens. Revoking marks one record, which ends the whole tree at once; what hangs on it is taken away
//! afterwards in steps of bounded size, each a transaction of its own, by whichever node is active.
//!
//! **Invariant:** a record goes only after a step saw nothing left below it in a view that already showed the mark.
//! Whatever was being added meanwhile had to name the record ([`TokenStore::hold`]), so the mark refused it.
//! Read next: `crate::leases::lanes`, which runs the steps.

use arca_barrier::Class;
use arca_engine_api::UnixMillis;

use super::store::{by_path_prefix, children_prefix, id_path, parse_child, queue, unqueue};
use super::{TokenEntry, TokenRef, TokenState, TokenStore};
use crate::KernelError;
use crate::leases::{self, FIRST_IN_LINE, Leases, OfMount};
use crate::tx::Tx;

/// Records one step touches at most.
pub const STEP_MAX: usize = 256;

/// Tokens made by requests below a path.
#[derive(Clone, Copy)]
pub(crate) struct ByPath<'a> {
    /// Id of their namespace.
    pub(crate) namespace_id: &'a str,
    /// The path, ending in `/`.
    pub(crate) prefix: &'a str,
    /// Only those behind this link: beginning at the first again would mean to pass all that are gone.
    pub(crate) after: Option<&'a str>,
    /// Only those that this mount made.
    pub(crate) of: Option<&'a OfMount>,
}

/// What was found of them.
pub(crate) struct RevokedByPath {
    /// The links that were looked at.
    pub(crate) links: Vec<String>,
    /// How many of them went.
    pub(crate) revoked: u64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// The token is gone.
    Done,
    /// There is more to do, in another transaction.
    More,
    /// The token lives: it was renewed.
    Alive,
}

impl TokenStore {
    /// Revokes a token and everything below it. Nothing happens if it is gone already.
    ///
    /// # Errors
    /// When storage fails.
    pub fn revoke_tree(&self, tx: &Tx, wanted: &TokenRef, now: UnixMillis) -> Result<(), KernelError> {
        self.revoke(tx, wanted, TokenState::RevokedWithTree, now)
    }

    /// Revokes a token; its children live on as orphans.
    ///
    /// # Errors
    /// When storage fails.
    pub fn revoke_alone(&self, tx: &Tx, wanted: &TokenRef, now: UnixMillis) -> Result<(), KernelError> {
        self.revoke(tx, wanted, TokenState::RevokedAlone, now)
    }

    fn revoke(
        &self,
        tx: &Tx,
        wanted: &TokenRef,
        how: TokenState,
        now: UnixMillis,
    ) -> Result<(), KernelError> {
        match self.load(tx, wanted)? {
            Some(entry) if entry.state == TokenState::Live => {
                // What has ended has ended with everything below it: nothing of that comes back as an orphan.
                let is_alone = how == TokenState::RevokedAlone && self.find_key(tx, wanted, now)?.is_some();
                let how = if is_alone { how } else { TokenState::RevokedWithTree };
                self.mark(tx, entry, how, now)
            }
            _ => Ok(()),
        }
    }

    /// Marks a live token and puts it first in line.
    pub(super) fn mark(
        &self,
        tx: &Tx,
        mut entry: TokenEntry,
        how: TokenState,
        now: UnixMillis,
    ) -> Result<(), KernelError> {
        let is_overdue = entry.expires.is_some_and(|expires| expires <= now);
        if is_overdue {
            entry.queued = entry.expires; // It already stands where it is found.
        } else {
            unqueue(tx, &entry)?;
            entry.queued = Some(FIRST_IN_LINE);
            queue(tx, &entry)?;
        }
        entry.state = how;
        self.save(tx, &entry)
    }

    /// One step of taking a token away. `drawers` are folders of what belongs to it alone, each holding a folder
    /// named by its key.
    ///
    /// # Errors
    /// When storage fails.
    pub fn reap(
        &self,
        tx: &Tx,
        leases: &Leases,
        wanted: &TokenRef,
        drawers: &[(Class, String)],
        now: UnixMillis,
    ) -> Result<Reaped, KernelError> {
        let Some(entry) = self.load(tx, wanted)? else { return Ok(Reaped::Done) };
        if entry.state == TokenState::Live {
            if !entry.has_ended(now) {
                return Ok(Reaped::Alive);
            }
            self.mark(tx, entry, TokenState::RevokedWithTree, now)?;
            return Ok(Reaped::More);
        }
        if tx.has_staged(Class::Local, &id_path(&wanted.namespace_id, &wanted.key)) {
            return Ok(Reaped::More); // Marked just now, by another step of this transaction.
        }
        let mut left = STEP_MAX;
        left -= leases.end_leases_of(tx, wanted, left, now)?;
        left -= self.part_from_children(tx, &entry, now, left)?;
        for (class, folder) in drawers {
            let paths = tx.some_below(*class, &format!("{folder}{}/", entry.key), left)?;
            for path in &paths {
                tx.delete(*class, path)?;
            }
            left -= paths.len();
        }
        if left == 0 {
            return Ok(Reaped::More);
        }
        self.remove(tx, &entry)?;
        Ok(Reaped::Done)
    }

    /// Passes the end on to the children, or cuts them loose. Answers how many there were.
    fn part_from_children(
        &self,
        tx: &Tx,
        entry: &TokenEntry,
        now: UnixMillis,
        limit: usize,
    ) -> Result<usize, KernelError> {
        let prefix = children_prefix(&entry.reference());
        let links = tx.some_below(Class::Local, &prefix, limit)?;
        for link in &links {
            let child = link.strip_prefix(&prefix).and_then(parse_child);
            if let Some(child) = child.map(|child| self.load(tx, &child)).transpose()?.flatten() {
                self.part_from_child(tx, entry, child, now)?;
            }
            tx.delete(Class::Local, link)?;
        }
        Ok(links.len())
    }

    fn part_from_child(
        &self,
        tx: &Tx,
        entry: &TokenEntry,
        mut child: TokenEntry,
        now: UnixMillis,
    ) -> Result<(), KernelError> {
        if entry.state == TokenState::RevokedAlone {
            child.parent = None;
            child.depth = 0;
            self.save(tx, &child)
        } else if child.state == TokenState::RevokedWithTree {
            Ok(())
        } else if child.state == TokenState::Live {
            self.mark(tx, child, TokenState::RevokedWithTree, now)
        } else {
            Ok(()) // Revoked alone: its own children are orphans.
        }
    }

    /// Revokes at most `limit` of the tokens that are meant. The links by which they were found go with the mark.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) fn revoke_by_path(
        &self,
        tx: &Tx,
        below: ByPath<'_>,
        limit: usize,
        now: UnixMillis,
    ) -> Result<RevokedByPath, KernelError> {
        let ByPath { namespace_id, prefix, after, of } = below;
        let folder = by_path_prefix(namespace_id, prefix);
        let links = tx.some_below_after(Class::Local, &folder, after, limit)?;
        let mut revoked = 0;
        for link in &links {
            if let Some(key) = leases::token_key_of(link) {
                let wanted = TokenRef { namespace_id: namespace_id.to_owned(), key: key.to_owned() };
                let entry = self.load(tx, &wanted)?;
                if let (Some(entry), Some(of)) = (&entry, of)
                    && !of.made(entry)
                {
                    continue;
                }
                // Earlier versions left such a link to root tokens that have no lease.
                if entry.is_some_and(|entry| entry.has_lease()) {
                    self.revoke_tree(tx, &wanted, now)?;
                }
            }
            revoked += 1;
            tx.delete(Class::Local, link)?;
        }
        Ok(RevokedByPath { links, revoked })
    }

    /// Whether a token that was made by requests to one mount below a path is there and not revoked yet.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) fn has_any_of(
        &self,
        tx: &Tx,
        namespace_id: &str,
        prefix: &str,
        of: &OfMount,
    ) -> Result<bool, KernelError> {
        let folder = by_path_prefix(namespace_id, prefix);
        let mut after: Option<String> = None;
        loop {
            let links = tx.some_below_after(Class::Local, &folder, after.as_deref(), STEP_MAX)?;
            for key in links.iter().filter_map(|link| leases::token_key_of(link)) {
                let wanted = TokenRef { namespace_id: namespace_id.to_owned(), key: key.to_owned() };
                if self.load(tx, &wanted)?.is_some_and(|entry| of.made(&entry)) {
                    return Ok(true);
                }
            }
            if links.len() < STEP_MAX {
                return Ok(false);
            }
            after = links.last().cloned();
        }
    }
}
