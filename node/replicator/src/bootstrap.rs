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
use arca_kernel::replication::{Kind, Mode, RoleRecord};
use arca_kernel::tx::Tx;
use arca_raft_storage::{
    Key, ReadView, Replica as _, SnapshotStream, Value, Version, Visit, Write, WriteSet,
};
use arca_replication::copy::Incoming;
use arca_replication::{Call, Cursor, cursor_key, load_cursor};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::activation::Activated;
use super::follower::Told;
use super::records::{BootstrapRecord, LEFTOVERS_PATH, LeftoversRecord, announcement_path, bootstrap_path};
use super::{OWN_FOLDERS, Replicator, shipped, sieve};

/// Most records of a cluster's own that are taken along.
const OWN_MAX: usize = 4096;

/// Why a copy ends that nobody wants any more.
const STOPPED: &str = "this cluster does not follow that primary any more";

/// What was there before something was stored for the step.
#[derive(Default)]
struct Before {
    /// Version of the keyring: the step moves it.
    keyring: Version,
    /// The entry that stored it.
    index: u64,
    /// What it replaced.
    entries: Vec<(Key, Option<Value>)>,
}

fn version_of(view: &dyn ReadView, key: &[u8]) -> Result<Version, KernelError> {
    let found = view.get(key).map_err(|err| failed("reading this cluster's own records", err))?;
    Ok(found.map_or(Version::ABSENT, |found| found.version))
}

/// A copy whose beginning has come.
async fn begun(told: &Told) -> Result<Incoming, KernelError> {
    let stream = told.link.stream(Call::Copy, Bytes::new()).await;
    let stream = stream.map_err(|err| failed("asking for a copy", err))?;
    let incoming = Incoming::begin(stream, Arc::clone(&told.progress)).await;
    incoming.map_err(|err| failed("receiving the copy", err))
}

/// The same stream, ended by an error when it is not wanted any more: whoever takes it in clears away what came so far.
fn until_stopped(stop: CancellationToken, stream: SnapshotStream) -> SnapshotStream {
    let chunks = futures::stream::unfold(Some((stop, stream)), |rest| async move {
        let (stop, mut stream) = rest?;
        let Some(chunk) = stop.run_until_cancelled(stream.next()).await else {
            return Some((Err(STOPPED.to_owned()), None));
        };
        Some((chunk?, Some((stop, stream))))
    });
    chunks.boxed()
}

fn failed(doing: &str, err: impl std::fmt::Display) -> KernelError {
    KernelError::Invalid(format!("{doing}: {err}"))
}

impl Replicator {
    /// What is to be copied, if that has not happened.
    pub(super) fn bootstrap_record(&self, kind: Kind) -> Result<Option<BootstrapRecord>, KernelError> {
        Ok(self.kernel()?.read_tx().get_record(Class::Node, &bootstrap_path(kind))?)
    }

    /// Copies the primary's state. When this returns well, the state is the primary's and this node is locked out of it.
    ///
    /// When `stop` ends it, what it had staged and stored for the step is cleared away, unless the step was made already.
    pub(super) async fn copy_state(
        &self,
        record: &BootstrapRecord,
        told: &Told,
        stop: &CancellationToken,
    ) -> Result<(), KernelError> {
        let root =
            hex::decode(&record.root_key).map_err(|err| failed("reading the successor's root key", err))?;
        let root = RootKey::from_slice(&Zeroizing::new(root))?;
        let begun = stop.run_until_cancelled(begun(told)).await;
        let incoming = begun.ok_or_else(|| failed("receiving the copy", STOPPED))??;
        let next = successor(&incoming, &root, &self.sealing)?;
        let own = self.own_entries(&next)?;
        let sieve = sieve(&next, told.kind)?;
        let before = self.carry_over(told.kind, &root, &next, incoming.position().cursor()).await?;
        let stream = incoming.into_import(sieve, own, self.cluster_id.as_bytes());
        let stream = stream.map_err(|err| failed("receiving the copy", err));
        let imported = match stream {
            Ok(stream) => {
                tracing::warn!("this cluster's state is being replaced by its primary's");
                let stream = until_stopped(stop.clone(), stream);
                self.replica.import(stream).await.map_err(|err| failed("taking the copy in", err))
            }
            Err(err) => Err(err),
        };
        if let Err(err) = imported {
            // Nothing was replaced, unless leadership was lost on the way: then the keys say what happened.
            if !self.keys.is_locked_out() {
                self.take_back(before).await;
            }
            return Err(err);
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
    /// what is to be cleared away under those to come. Answers what to put back should the step fail.
    async fn carry_over(
        &self,
        kind: Kind,
        root: &RootKey,
        next: &Arc<Barrier>,
        cursor: Cursor,
    ) -> Result<Before, KernelError> {
        let known = self.kernel()?.read_tx();
        let mut role = RoleRecord::load(&known, kind)?;
        if next.open_name(&self.barrier.seal_name(Class::Node, kind.path())?).is_err() {
            // Otherwise it takes the place of the one in use, of which nothing must change yet.
            role.epoch = cursor.epoch.0;
        }
        let view = self.replica.view();
        let keyring = self.guard_keys(view.as_ref())?;
        let mut leftovers = LeftoversRecord::default();
        let mut visitor = |key: &[u8], _: &[u8], _: Version| {
            // Under the keys of a state that this one once was a copy of, names are the same: those stay.
            if !key.starts_with(&arca_replication::RECORDS) && next.open_name(key).is_err() {
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
        let tx = Tx::new(Arc::clone(next), Arc::clone(&view), arca_kernel::tx::Mode::ReadWrite);
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
        for write in &mut writes {
            self.keep_readable(next, write)?;
        }
        writes.push(Write::Put(cursor_key(shipped(kind)), cursor.encode()));
        writes.push(announced);
        let mut before = Before { keyring: keyring.1, ..Before::default() };
        let mut reads = vec![keyring];
        for write in &writes {
            let found =
                view.get(write.key()).map_err(|err| failed("reading this cluster's own records", err))?;
            reads.push((write.key().to_vec(), found.as_ref().map_or(Version::ABSENT, |found| found.version)));
            before.entries.push((write.key().to_vec(), found.map(|found| found.value)));
        }
        before.index = self.replica.propose(WriteSet { reads, writes }).await?.index;
        Ok(before)
    }

    /// Under the names of a state that this one was a copy of before, what is stored for the step takes the place of what is
    /// in use: until then it must open under the keys of today as well. It cannot if both states went on to keys of their
    /// own; a member that starts meanwhile then serves nobody until the copy is there.
    fn keep_readable(&self, next: &Barrier, write: &mut Write) -> Result<(), KernelError> {
        let Write::Put(key, sealed) = write else { return Ok(()) };
        if self.barrier.open_name(key).is_err() || self.barrier.open_value(key, sealed).is_ok() {
            return Ok(());
        }
        let resealed = self.barrier.seal_value(key, &next.open_value(key, sealed)?)?;
        if next.open_value(key, &resealed).is_ok() {
            *sealed = resealed;
        }
        Ok(())
    }

    /// Takes back what was stored for a step that was not made. Nothing, if it was made all the same, and nothing that was
    /// written since: what was there before comes back, which may be the role that this cluster goes on with.
    async fn take_back(&self, before: Before) {
        let Before { keyring, index, entries } = before;
        let view = self.replica.view();
        let mut set = WriteSet { reads: vec![(boot_key("keyring"), keyring)], writes: Vec::new() };
        for (key, value) in entries {
            let is_ours = version_of(view.as_ref(), &key).is_ok_and(|version| version == Version(index));
            if is_ours {
                set.reads.push((key.clone(), Version(index)));
                set.writes.push(
                    value.map_or_else(|| Write::Delete(key.clone()), |value| Write::Put(key.clone(), value)),
                );
            }
        }
        if let Err(err) = self.replica.propose(set).await {
            tracing::warn!(error = %err, "what was stored for a copy that failed stays until the next one");
        }
    }

    /// Another primary may have other key shares by now: its root key is announced, in the set that has this cluster follow it,
    /// so that every member can change over once the comparison has brought what it opens.
    pub(super) fn adopted(&self, activated: &Activated) -> Result<Option<Write>, KernelError> {
        let root = Zeroizing::new(
            hex::decode(&activated.root_key).map_err(|err| failed("reading the primary's root key", err))?,
        );
        let root = RootKey::from_slice(&root)?;
        if self.keys.root().matches(&root) {
            return Ok(None);
        }
        tracing::warn!(
            "the primary has other key shares than this cluster: they will be those of this cluster as well"
        );
        Ok(Some(self.keys.successor_entry(&root)?))
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
        let Some(leftovers) = found else { return self.clear_announced_key().await };
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

    /// Deletes the announcement of a root key that every member has changed over to: whoever has shares of before, and a disk
    /// of before, could read it.
    async fn clear_announced_key(&self) {
        let entry = self.keys.no_successor_entry();
        let version = match version_of(self.replica.view().as_ref(), entry.key()) {
            Ok(Version::ABSENT) => return,
            Ok(version) => version,
            Err(err) => {
                return tracing::warn!(error = %err, "it cannot be read whether a root key is announced");
            }
        };
        match self.is_key_awaited() {
            Ok(false) if self.everybody_is_here().await => {}
            Ok(_) => return,
            Err(err) => return tracing::warn!(error = %err, "the announcement of a root key stays for now"),
        }
        let set = WriteSet { reads: vec![(entry.key().to_vec(), version)], writes: vec![entry] };
        match self.replica.propose(set).await {
            Ok(_) => {
                tracing::info!("every member has the primary's key shares: their announcement was deleted")
            }
            Err(err) => tracing::warn!(error = %err, "the announcement of a root key will be deleted later"),
        }
    }

    /// Whether a copy or a comparison may yet bring what an announced root key is for.
    fn is_key_awaited(&self) -> Result<bool, KernelError> {
        let view = self.replica.view();
        for kind in Kind::ALL {
            let (cursor, _) =
                load_cursor(view.as_ref(), shipped(kind)).map_err(|err| KernelError::Replica(err.into()))?;
            let is_following = self.role(kind)?.mode == Mode::Secondary;
            if self.bootstrap_record(kind)?.is_some() || is_following && cursor.is_unknown() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is still to be done before everything of an earlier role is over, for status pages.
    pub(super) fn pending(&self, kind: Kind) -> Result<Vec<&'static str>, KernelError> {
        let (tx, view) = (self.kernel()?.read_tx(), self.replica.view());
        let is_there = |path: &str| Ok::<_, KernelError>(tx.version(Class::Node, path)? != Version::ABSENT);
        let mut pending = Vec::new();
        if is_there(&announcement_path(kind))? {
            pending.push("the old primary has not said yet that it knows of the promotion");
        }
        let is_key_there =
            version_of(view.as_ref(), self.keys.no_successor_entry().key())? != Version::ABSENT;
        if is_there(LEFTOVERS_PATH)? || is_key_there {
            pending.push(
                "a root key is stored for members that have not changed over to it: each has to be up once",
            );
        }
        Ok(pending)
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
