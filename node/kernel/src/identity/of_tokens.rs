//! Identity at a request and at a login: what a token may do by it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use arca_engine_api::{Caller, Login};

use super::{AliasOf, Book, Resolved};
use crate::KernelError;
use crate::admission::Asked;
use crate::kernel::Kernel;
use crate::namespaces::Namespace;
use crate::policy::Acl;
use crate::policy::acl::AclScope;
use crate::policy::store::AclFor;
use crate::replication::{EntityKnown, EntityQuestion};
use crate::router::Mount;
use crate::tokens::TokenEntry;
use crate::tx::Tx;
use crate::watch::Topic;

/// A token together with what identity says of its entity.
#[derive(Debug)]
pub(crate) struct Joint {
    pub(crate) resolved: Arc<Resolved>,
    caller: Arc<Caller>,
}

/// The [`Joint`] made last of an entry. A copy of the entry may be changed, so it makes its own; and what was made says
/// nothing about the entry.
#[derive(Default)]
pub(crate) struct Joined(ArcSwapOption<Joint>);

impl Clone for Joined {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Joined {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Joined")
    }
}

/// What a token is worth right now.
pub(crate) struct Authority {
    /// The caller as engines see it, with every policy that applies.
    pub(crate) caller: Arc<Caller>,
    /// What the policies amount to.
    pub(crate) acl: Arc<Acl>,
    /// What identity adds; none for a token without an entity.
    pub(crate) resolved: Option<Arc<Resolved>>,
}

impl Kernel {
    /// What a good token is worth: its own policies and those by identity.
    ///
    /// # Errors
    /// [`KernelError::Denied`] when its entity is disabled or gone; others when storage fails.
    pub(crate) fn authority(&self, tx: &Tx, entry: &TokenEntry) -> Result<Authority, KernelError> {
        let joint = if entry.entity_id.is_empty() { None } else { Some(self.join_identity(tx, entry)?) };
        let caller = joint.as_ref().map_or_else(|| entry.caller(), |joint| Arc::clone(&joint.caller));
        let resolved = joint.map(|joint| Arc::clone(&joint.resolved));
        let acl = self.policies.acl_for(
            tx,
            AclFor {
                scope: AclScope { namespace_id: &entry.namespace_id, namespace_path: &entry.namespace_path },
                policies: &caller.policies,
                identity: resolved.as_ref().map(|resolved| &resolved.identity),
                changed_at: self.watches.changed_at(Topic::Policies),
                now: self.clock.now(),
            },
        )?;
        Ok(Authority { caller, acl, resolved })
    }

    fn join_identity(&self, tx: &Tx, entry: &TokenEntry) -> Result<Arc<Joint>, KernelError> {
        let (namespace_id, changed_at) = (entry.entity_namespace(), self.watches.changed_at(Topic::Identity));
        if let Some(joint) = entry.joined.0.load_full()
            && self.identities.is_current(&joint.resolved, changed_at)
        {
            return if joint.resolved.is_disabled { Err(KernelError::Denied) } else { Ok(joint) };
        }
        let resolved = self.identities.of_token(tx, namespace_id, &entry.entity_id, changed_at)?;
        let resolved = resolved.filter(|one| !one.is_disabled).ok_or(KernelError::Denied)?;
        let own = entry.caller();
        let caller = Arc::new(Caller {
            entity_id: resolved.id.clone(),
            policies: united(&entry.policies, identity_policies(entry, &resolved)).into(),
            ..Caller::clone(&own)
        });
        let joint = Arc::new(Joint { resolved, caller });
        entry.joined.0.store(Some(Arc::clone(&joint)));
        Ok(joint)
    }

    /// What identity says of a token's entity, as `tx` sees it, disabled or not; none when it has none or it is gone.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) fn identity_of(&self, tx: &Tx, entry: &TokenEntry) -> Result<Option<Resolved>, KernelError> {
        if entry.entity_id.is_empty() {
            return Ok(None);
        }
        self.identities.resolve(tx, entry.entity_namespace(), &entry.entity_id)
    }

    /// The policies that identity adds to a token, for showing them.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) fn identity_policies(&self, tx: &Tx, entry: &TokenEntry) -> Result<Vec<String>, KernelError> {
        let resolved = self.identity_of(tx, entry)?;
        Ok(resolved.map(|resolved| identity_policies(entry, &resolved).to_vec()).unwrap_or_default())
    }

    /// A namespace's identities.
    pub(crate) fn book<'a>(&'a self, tx: &'a Tx, namespace_id: &'a str) -> Book<'a> {
        Book { tx, namespace_id, entropy: self.entropy.as_ref(), now: self.clock.now() }
    }

    /// The entity of a login, with everything brought up to date; empty when the auth method names nobody.
    ///
    /// # Errors
    /// [`KernelError::Denied`] when the entity is disabled, [`KernelError::NeedsEntity`] when the primary has to write
    /// something first; others when storage fails.
    pub(crate) fn entity_of_login(
        &self,
        tx: &Tx,
        asked: &Asked,
        namespace: &Namespace,
        mount: &Mount,
        login: &Login,
    ) -> Result<String, KernelError> {
        if login.alias_name.is_empty() {
            return Ok(String::new());
        }
        let alias = AliasOf {
            mount_accessor: &mount.record.accessor,
            is_local: mount.record.is_local,
            name: &login.alias_name,
        };
        let book = self.book(tx, &namespace.id);
        let mut known = asked.entity.lock();
        match &*known {
            EntityKnown::AsHere => {}
            EntityKnown::Is(id) => return Ok(book.log_in_as(id, alias, &login.alias_metadata)?.id),
            EntityKnown::Failed(_) => {
                let failed = std::mem::take(&mut *known);
                let EntityKnown::Failed(err) = failed else { return Err(KernelError::NotYet) };
                return Err(err);
            }
        }
        let was_shared = tx.writes_shared();
        let group_aliases = login.group_aliases.as_deref().unwrap_or_default();
        // Of a local mount, the primary knows the entity and not the alias.
        let found =
            if alias.is_local { book.entity_by_alias(alias.mount_accessor, alias.name)? } else { None };
        let entity = book.log_in(alias, &login.alias_metadata, group_aliases)?;
        self.check_shared_known(tx, was_shared, || EntityQuestion {
            namespace_id: namespace.id.clone(),
            mount_accessor: alias.mount_accessor.to_owned(),
            is_local: alias.is_local,
            entity_id: found.map(|entity| entity.id).unwrap_or_default(),
            alias_name: alias.name.to_owned(),
            alias_metadata: login.alias_metadata.clone(),
            group_aliases: group_aliases.to_vec(),
        })?;
        Ok(entity.id)
    }

    /// Refuses, on a performance secondary, to go on with changes of an identity that the primary has to make first.
    /// Where something shared was staged before, the whole request is made there.
    ///
    /// # Errors
    /// [`KernelError::NeedsEntity`], with what to ask.
    pub(crate) fn check_shared_known(
        &self,
        tx: &Tx,
        was_shared: bool,
        question: impl FnOnce() -> EntityQuestion,
    ) -> Result<(), KernelError> {
        if !was_shared && tx.writes_shared() && self.is_performance_secondary() {
            return Err(KernelError::NeedsEntity(Box::new(question())));
        }
        Ok(())
    }

    /// What the auth method of a token said about groups when the token was renewed.
    ///
    /// # Errors
    /// [`KernelError::NeedsEntity`] when the primary has to write it; others when storage fails.
    pub(crate) fn refresh_groups(
        &self,
        tx: &Tx,
        entry: &TokenEntry,
        group_aliases: &[String],
    ) -> Result<(), KernelError> {
        let Some(origin) = entry.login.as_ref().filter(|_| !entry.entity_id.is_empty()) else {
            return Ok(());
        };
        let book = self.book(tx, entry.entity_namespace());
        let Some(mut entity) = book.entity_of_token(&entry.entity_id)? else { return Ok(()) };
        let was_shared = tx.writes_shared();
        book.refresh_groups(&mut entity, &origin.mount_accessor, group_aliases)?;
        book.save_entity(&entity)?;
        self.check_shared_known(tx, was_shared, || EntityQuestion {
            namespace_id: entry.entity_namespace().to_owned(),
            mount_accessor: origin.mount_accessor.clone(),
            entity_id: entity.id,
            group_aliases: group_aliases.to_vec(),
            ..EntityQuestion::default()
        })
    }
}

/// The policies that identity adds to a token. Names of another namespace's policies mean nothing in its own.
pub(crate) fn identity_policies<'a>(entry: &TokenEntry, resolved: &'a Resolved) -> &'a [String] {
    let is_of_other_namespace = entry.entity_namespace() != entry.namespace_id;
    if entry.no_identity_policies || is_of_other_namespace { &[] } else { &resolved.policies }
}

/// Two sorted sets of names as one.
fn united(left: &[String], right: &[String]) -> Vec<String> {
    let mut names = [left, right].concat();
    names.sort_unstable();
    names.dedup();
    names
}
