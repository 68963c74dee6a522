//! How a cluster becomes a copy of another: everything it holds is replaced in one step, or nothing is.
//!
//! Until that step the cluster has its own keys and a record that says what is to be copied: whoever is active then makes
//! the copy, from the beginning. Right before the step it stores what has to outlive it, sealed under the keys that come
//! with the copy: its own CA, its role, its cursor. After it every member finds itself locked out, and the root key that
//! was announced opens the new state (ADR 12 says in which order they change over).

use std::sync::Arc;

use arca_barrier::{Barrier, Class, Entropy, Keyring, RootKey, boot_key};
use arca_engine_api::Page;
use arca_kernel::KernelError;
use arca_kernel::replication::{Kind, RoleRecord};
use arca_kernel::tx::Tx;
use arca_raft_storage::{Key, Replica as _, Value, Version, Visit, Write, WriteSet};
use arca_replication::copy::Incoming;
use arca_replication::{Call, Cursor, cursor_key};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::activation::Activated;
use super::follower::Told;
use super::records::{BootstrapRecord, LEFTOVERS_PATH, LeftoversRecord, bootstrap_path};
use super::{OWN_FOLDERS, Replicator, shipped, sieve};

/// Most records of a cluster's own that are taken along.
const OWN_MAX: usize = 4096;

fn failed(doing: &str, err: impl std::fmt::Display) -> KernelError {
    KernelError::Invalid(format!("{doing}: {err}"))
}

impl Replicator {
    /// What is to be copied, if that has not happened.
    pub(super) fn bootstrap_record(&self, kind: Kind) -> Result<Option<BootstrapRecord>, KernelError> {
        Ok(self.kernel()?.read_tx().get_record(Class::Node, &bootstrap_path(kind))?)
    }

    /// Copies the primary's state. When this returns well, the state is the primary's and this node is locked out of it.
    pub(super) async fn copy_state(&self, record: &BootstrapRecord, told: &Told) -> Result<(), KernelError> {
        let root =
            hex::decode(&record.root_key).map_err(|err| failed("reading the successor's root key", err))?;
        let root = RootKey::from_slice(&Zeroizing::new(root))?;
        let stream = told.link.stream(Call::Copy, Bytes::new()).await;
        let stream = stream.map_err(|err| failed("asking for a copy", err))?;
        let incoming = Incoming::begin(stream, Arc::clone(&told.progress)).await;
        let incoming = incoming.map_err(|err| failed("receiving the copy", err))?;
        let next = successor(&incoming, &root, &self.sealing)?;
        let own = self.own_entries(&next)?;
        let sieve = sieve(&next, told.kind)?;
        let before = self.carry_over(told.kind, &root, &next, incoming.position().cursor()).await?;
        let stream = incoming.into_import(sieve, own, self.cluster_id.as_bytes());
        let stream = stream.map_err(|err| failed("receiving the copy", err))?;
        tracing::warn!("this cluster's state is being replaced by its primary's");
        if let Err(err) = self.replica.import(stream).await {
            // Nothing was replaced, unless leadership was lost on the way: then the keys say what happened.
            if !self.keys.is_locked_out() {
                self.take_back(before).await;
            }
            return Err(failed("taking the copy in", err));
        }
        if self.keys.is_locked_out() {
            return Ok(());
        }
        // It was a copy of that state before: the keys are the same, and nobody has to change over.
        self.commit(|tx| {
            tx.delete(Class::Node, &bootstrap_path(told.kind))?;
            Ok(vec![self.keys.no_successor_entry()])
        })
        .await?;
        Ok(())
    }

    /// What is this cluster's own below class `Node`, sealed for the barrier to come.
    ///
    /// A performance secondary gets nothing else of class `Local`: what it had, its tokens above all, belongs to the state
    /// that goes, and what every cluster needs is made by its kernel ([`Kernel::complete_local`]).
    ///
    /// [`Kernel::complete_local`]: arca_kernel::Kernel::complete_local
    fn own_entries(&self, next: &Barrier) -> Result<Vec<(Key, Value)>, KernelError> {
        let kernel = self.kernel()?;
        let (tx, view) = (kernel.read_tx(), self.replica.view());
        let mut own = Vec::new();
        let ca = boot_key("ca");
        let found = view.get(&ca).map_err(|err| failed("reading the cluster's CA", err))?;
        if let Some(found) = found {
            own.push((ca, found.value));
        }
        for folder in OWN_FOLDERS {
            let page = Page { limit: Some(OWN_MAX), ..Page::default() };
            for name in tx.scan(Class::Local, folder, &page)? {
                let path = format!("{folder}{name}");
                let Some(value) = tx.peek(Class::Local, &path)? else { continue };
                let key = next.seal_name(Class::Local, &path)?;
                let sealed = next.seal_value(&key, &value)?;
                own.push((key, sealed));
            }
        }
        own.sort();
        Ok(own)
    }

    /// Stores what has to outlive the step: the announcement of the new root key under the keys of today; role, cursor and
    /// what is to be cleared away under those to come. Answers what to take back should the step fail.
    async fn carry_over(
        &self,
        kind: Kind,
        root: &RootKey,
        next: &Arc<Barrier>,
        cursor: Cursor,
    ) -> Result<Vec<Key>, KernelError> {
        let known = self.kernel()?.read_tx();
        let role = RoleRecord { epoch: cursor.epoch.0, ..RoleRecord::load(&known, kind)? };
        let view = self.replica.view();
        let mut leftovers = LeftoversRecord::default();
        let mut visitor = |key: &[u8], _: &[u8], _: Version| {
            // Under the keys of a state that this one once was a copy of, names are the same: those stay.
            if !key.starts_with(&super::SHIPPING_RECORDS) && next.open_name(key).is_err() {
                leftovers.keys.push(hex::encode(key));
            }
            if leftovers.keys.len() >= OWN_MAX { Visit::Stop } else { Visit::Next }
        };
        let end = [Class::Node.tag() + 1];
        view.visit(&[Class::Node.tag()], Some(&end), &mut visitor)
            .map_err(|err| failed("reading this cluster's own records", err))?;
        let announced = self.keys.successor_entry(root)?;
        if next.open_name(announced.key()).is_err() {
            leftovers.keys.push(hex::encode(announced.key()));
        }
        let tx = Tx::new(Arc::clone(next), view, arca_kernel::tx::Mode::ReadWrite);
        role.store(&tx, kind)?;
        for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
            let disabled = RoleRecord::load(&known, other)?;
            // Its epoch never goes back.
            if disabled != RoleRecord::default() {
                disabled.store(&tx, other)?;
            }
        }
        tx.put_record(Class::Node, LEFTOVERS_PATH, &leftovers)?;
        let mut writes = tx.into_write_set()?.writes;
        writes.push(Write::Put(cursor_key(shipped(kind)), cursor.encode()));
        writes.push(announced);
        let keys = writes.iter().map(|write| write.key().to_vec()).collect();
        self.replica.propose(WriteSet { reads: Vec::new(), writes }).await?;
        Ok(keys)
    }

    async fn take_back(&self, keys: Vec<Key>) {
        let writes = keys.into_iter().map(Write::Delete).collect();
        if let Err(err) = self.replica.propose(WriteSet { reads: Vec::new(), writes }).await {
            tracing::warn!(error = %err, "what was stored for a copy that failed stays until the next one");
        }
    }

    /// Another primary may have other key shares by now: its root key is announced, so that every member can change over
    /// once the comparison has brought what it opens.
    pub(super) async fn adopt(&self, activated: &Activated) -> Result<(), KernelError> {
        let root =
            hex::decode(&activated.root_key).map_err(|err| failed("reading the primary's root key", err))?;
        let root = RootKey::from_slice(&Zeroizing::new(root))?;
        if self.keys.root().matches(&root) {
            return Ok(());
        }
        tracing::warn!(
            "the primary has other key shares than this cluster: they will be those of this cluster as well"
        );
        let announced = self.keys.successor_entry(&root)?;
        self.replica.propose(WriteSet { reads: Vec::new(), writes: vec![announced] }).await?;
        Ok(())
    }

    /// Clears away records under keys of before, once every member has changed over: among them is the announcement of the
    /// root key, which whoever has the old keys could read.
    pub(super) async fn clear_leftovers(&self) {
        let Ok(kernel) = self.kernel() else { return };
        let found: Option<LeftoversRecord> = match kernel.read_tx().get_record(Class::Node, LEFTOVERS_PATH) {
            Ok(found) => found,
            Err(err) => {
                tracing::warn!(error = %err, "what is to be cleared away after a copy cannot be read");
                return;
            }
        };
        let Some(leftovers) = found else { return };
        if !self.everybody_is_here().await {
            return;
        }
        let cleared = self.commit(|tx| {
            tx.delete(Class::Node, LEFTOVERS_PATH)?;
            let keys = leftovers.keys.iter().filter_map(|key| hex::decode(key).ok());
            Ok(keys.map(Write::Delete).collect())
        });
        match cleared.await {
            Ok(_) => tracing::info!("records under the keys of before the copy were cleared away"),
            Err(err) => tracing::warn!(error = %err, "records of before the copy will be cleared away later"),
        }
    }

    /// Whether every member answers and has applied what is applied here.
    async fn everybody_is_here(&self) -> bool {
        let index = self.replica.status().applied_index;
        let others = self.replica.membership().members.into_values();
        let others = others.map(|(member, _)| member).filter(|member| member.id != self.me.id);
        let asked = others.map(|member| async move {
            let applied = self.surroundings.applied_at(&member).await;
            applied.is_some_and(|applied| applied >= index)
        });
        !futures::future::join_all(asked).await.contains(&false)
    }
}

/// The barrier of the state that comes.
fn successor(
    incoming: &Incoming,
    root: &RootKey,
    entropy: &Arc<dyn Entropy>,
) -> Result<Arc<Barrier>, KernelError> {
    let wanted = boot_key("keyring");
    let sealed = incoming.boot().iter().find(|(key, _)| *key == wanted);
    let (_, sealed) = sealed.ok_or_else(|| KernelError::invalid("the copy has no keyring"))?;
    let keyring = Keyring::open(root, sealed).map_err(|_| {
        KernelError::invalid(
            "the primary's key shares were replaced since this secondary was activated: disable its replication and \
             enable it again with a new activation token",
        )
    })?;
    Ok(Arc::new(Barrier::new(keyring, Arc::clone(entropy))))
}
