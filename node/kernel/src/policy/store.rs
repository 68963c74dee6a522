//! Policy texts in storage, and the compiled sets kept in memory.
//!
//! **Invariant:** a compiled set is used only while no policy changed after the view it was compiled from. Sets are
//! named by a hash over length-prefixed parts, so no namespace and name can be mistaken for another pair
//! (CVE-2026-105820).

use std::collections::HashMap;
use std::sync::Arc;

use arca_barrier::Class;
use arca_engine_api::{Page, StorageError, UnixMillis};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::acl::AclScope;
use super::{Acl, DEFAULT, Identity, Policy, RESPONSE_WRAPPING, ROOT, canonical_name, parse, texts};
use crate::KernelError;
use crate::tx::Tx;

/// Compiled sets kept. Beyond that all are dropped: the next requests compile theirs again.
const SETS_MAX: usize = 10_000;

/// A policy as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// As written.
    pub text: String,
    /// Counts the writes, from 1.
    pub version: u64,
    /// When it was written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<UnixMillis>,
    /// Whether a write must name the version it replaces.
    #[serde(default)]
    pub is_cas_required: bool,
    /// From this moment on the policy grants nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<UnixMillis>,
}

enum Cached {
    /// No rule is templated: everybody with these policies shares the set.
    Shared(Arc<Acl>),
    /// The sets stand under names that tell callers apart.
    ByCaller,
}

struct CachedSet {
    what: Cached,
    built_at: u64,
    expires_at: Option<UnixMillis>,
}

type SetKey = [u8; 32];

/// See the module's header.
#[derive(Default)]
pub struct PolicyStore {
    /// Only asked, counted and emptied: its order, another one in every process, shows nowhere.
    sets: RwLock<HashMap<SetKey, CachedSet>>,
}

/// Whose compiled set is wanted.
#[derive(Clone, Copy)]
pub struct AclFor<'a> {
    /// Namespace the token belongs to.
    pub scope: AclScope<'a>,
    /// Names in their one form, sorted.
    pub policies: &'a [String],
    /// Who it is, for templates.
    pub identity: Option<&'a Identity>,
    /// Applied index of the last change to any stored policy, as the cache's watcher knows it.
    pub changed_at: u64,
    /// For rules that expire.
    pub now: UnixMillis,
}

impl PolicyStore {
    /// The compiled set for a caller. Names without a policy grant nothing.
    ///
    /// # Errors
    /// When a stored policy cannot be read or parsed: the request must fail.
    pub fn acl_for(&self, tx: &Tx, wanted: AclFor<'_>) -> Result<Arc<Acl>, KernelError> {
        let shared_key = set_key(&wanted, false);
        if let Some(acl) = self.cached(&shared_key, &wanted) {
            return Ok(acl);
        }
        let (policies, ends) = Self::parsed(tx, &wanted)?;
        let is_templated =
            policies.iter().flat_map(|policy| &policy.rules).any(|rule| rule.template.is_some());
        let acl = Arc::new(Acl::compile(wanted.scope, &policies, wanted.identity, wanted.now));
        let expires_at = acl.expires_at().into_iter().chain(ends).min();
        let set = |what| CachedSet { what, built_at: tx.index(), expires_at };
        let mut sets = self.sets.write();
        if sets.len() >= SETS_MAX {
            sets.clear();
        }
        if is_templated {
            sets.insert(shared_key, set(Cached::ByCaller));
            sets.insert(set_key(&wanted, true), set(Cached::Shared(Arc::clone(&acl))));
        } else {
            sets.insert(shared_key, set(Cached::Shared(Arc::clone(&acl))));
        }
        Ok(acl)
    }

    fn cached(&self, shared_key: &SetKey, wanted: &AclFor<'_>) -> Option<Arc<Acl>> {
        let sets = self.sets.read();
        let current = |key: &SetKey| {
            sets.get(key).filter(|set| {
                set.built_at >= wanted.changed_at && set.expires_at.is_none_or(|end| wanted.now < end)
            })
        };
        let own = match &current(shared_key)?.what {
            Cached::Shared(acl) => return Some(Arc::clone(acl)),
            Cached::ByCaller => current(&set_key(wanted, true))?,
        };
        if let Cached::Shared(acl) = &own.what { Some(Arc::clone(acl)) } else { None }
    }

    /// The parsed policies, and when the first of them ends as a whole.
    fn parsed(tx: &Tx, wanted: &AclFor<'_>) -> Result<(Vec<Arc<Policy>>, Option<UnixMillis>), KernelError> {
        let mut policies = Vec::with_capacity(wanted.policies.len());
        let mut ends = None;
        for name in wanted.policies {
            if name == ROOT {
                policies.push(Arc::new(Policy { name: name.clone(), rules: Vec::new() }));
                continue;
            }
            let Some(record) = read(tx, wanted.scope.namespace_id, name)? else { continue };
            if record.expiration.is_some_and(|end| end <= wanted.now) {
                continue;
            }
            ends = ends.into_iter().chain(record.expiration).min();
            let policy = parse::parse(name, &record.text)
                .map_err(|err| KernelError::Bug(format!("stored policy {name:?} does not parse: {err}")))?;
            policies.push(Arc::new(policy));
        }
        Ok((policies, ends))
    }

    /// The policy as stored or built in; `root` is an empty text of version 0.
    ///
    /// # Errors
    /// When storage fails.
    pub fn get(&self, tx: &Tx, namespace_id: &str, name: &str) -> Result<Option<PolicyRecord>, KernelError> {
        if name == ROOT { Ok(Some(PolicyRecord::default())) } else { read(tx, namespace_id, name) }
    }

    /// Checks and stages a policy. `cas` is the version it must replace; zero, and −1, for none.
    ///
    /// # Errors
    /// When the text does not parse, the policy may not be changed, or `cas` does not hold.
    pub fn put(
        &self,
        tx: &Tx,
        namespace_id: &str,
        name: &str,
        mut record: PolicyRecord,
        cas: Option<i64>,
    ) -> Result<(), KernelError> {
        changeable(name, "update")?;
        parse::parse(name, &record.text)
            .map_err(|err| KernelError::invalid(format!("failed to parse policy: {err}")))?;
        let old = tx.get_record::<PolicyRecord>(Class::Replicated, &path_of(namespace_id, name))?;
        // A default policy never written counts as its first version.
        let version = old.as_ref().map_or(u64::from(name == DEFAULT), |old| old.version);
        let is_required = record.is_cas_required || old.is_some_and(|old| old.is_cas_required);
        match cas {
            None if is_required => {
                return Err(KernelError::invalid("check-and-set parameter required for this call"));
            }
            Some(-1) if version > 0 => {
                return Err(KernelError::invalid("check-and-set parameter set to -1 on existing entry"));
            }
            Some(cas) if cas != -1 && u64::try_from(cas) != Ok(version) => {
                let text =
                    format!("check-and-set parameter {cas} did not match the current version {version}");
                return Err(KernelError::invalid(text));
            }
            _ => {}
        }
        record.version = version + 1;
        tx.put_record(Class::Replicated, &path_of(namespace_id, name), &record)?;
        Ok(())
    }

    /// Stages the removal of a policy. Removing nothing is fine.
    ///
    /// # Errors
    /// When the policy may not be removed.
    pub fn delete(&self, tx: &Tx, namespace_id: &str, name: &str) -> Result<(), KernelError> {
        if name == DEFAULT {
            return Err(KernelError::invalid("cannot delete default policy"));
        }
        changeable(name, "delete")?;
        tx.delete(Class::Replicated, &path_of(namespace_id, name))?;
        Ok(())
    }

    /// Names, sorted, with the built-in `default`; `root` only in the root namespace.
    ///
    /// # Errors
    /// When storage fails.
    pub fn list(&self, tx: &Tx, namespace_id: &str, page: &Page) -> Result<Vec<String>, KernelError> {
        let mut names = tx.scan(Class::Replicated, &path_of(namespace_id, ""), &Page::default())?;
        names.push(DEFAULT.to_owned());
        if namespace_id == ROOT_NAMESPACE {
            names.push(ROOT.to_owned());
        }
        names.sort_unstable();
        names.dedup();
        names.retain(|name| page.after.as_ref().is_none_or(|after| name > after));
        names.truncate(page.limit.unwrap_or(usize::MAX));
        Ok(names)
    }
}

const ROOT_NAMESPACE: &str = "root";

fn path_of(namespace_id: &str, name: &str) -> String {
    format!("{namespace_id}/core/policy/acl/{name}")
}

/// A stored policy, or a built-in one. Not guarded: a policy that changes while a request runs does not disturb it.
fn read(tx: &Tx, namespace_id: &str, name: &str) -> Result<Option<PolicyRecord>, KernelError> {
    // Names come from tokens and paths; one that is not in its form names nothing.
    if canonical_name(name).ok().as_deref() != Some(name) {
        return Ok(None);
    }
    let built_in =
        |text: &str| Some(PolicyRecord { text: text.to_owned(), version: 1, ..PolicyRecord::default() });
    if name == RESPONSE_WRAPPING {
        return Ok(built_in(texts::RESPONSE_WRAPPING_TEXT));
    }
    let path = path_of(namespace_id, name);
    let Some(bytes) = tx.peek(Class::Replicated, &path)? else {
        return Ok(if name == DEFAULT { built_in(texts::DEFAULT_TEXT) } else { None });
    };
    let record = serde_json::from_slice(&bytes)
        .map_err(|err| StorageError::Damaged { key: path, reason: format!("record, line {}", err.line()) })?;
    Ok(Some(record))
}

fn changeable(name: &str, verb: &str) -> Result<(), KernelError> {
    if canonical_name(name)? != name {
        return Err(KernelError::invalid("policy names are lower-case, without blanks around them"));
    }
    if matches!(name, ROOT | RESPONSE_WRAPPING | "control-group") {
        return Err(KernelError::invalid(format!("cannot {verb} {name:?} policy")));
    }
    Ok(())
}

/// Names a set: every part with its length in front.
fn set_key(wanted: &AclFor<'_>, is_for_caller: bool) -> SetKey {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    add(wanted.scope.namespace_id.as_bytes());
    add(wanted.scope.namespace_path.as_bytes());
    for name in wanted.policies {
        add(name.as_bytes());
    }
    if is_for_caller {
        // One more part than a name could add: no length is this large.
        hasher.update(&u64::MAX.to_le_bytes());
        hasher.update(wanted.identity.map_or(&[0; 32], Identity::fingerprint).as_slice());
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
