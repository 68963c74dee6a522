//! What a performance secondary has of its own under mounts of its primary, when these go: tokens of logins, leases, entries
//! of class `Local`. The primary ends its own and removes the mount; nobody but the secondary can end the secondary's.
//!
//! So it notes every shared mount that it has seen, and its path. One that is being disabled or moved loses its leases and
//! tokens while its engine can still be asked to undo them; of one that is gone, or at another path, or filtered out, what
//! is left is dropped. **Invariant:** a note goes only when everything below its path has ended.
//! Read next: [`crate::removal`] for what the primary does.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use arca_barrier::Class;
use arca_engine_api::Page;
use serde::{Deserialize, Serialize};

use crate::KernelError;
use crate::kernel::Kernel;
use crate::router::{Mount, Router, Serves};
use crate::tx::{Mode, Tx};

/// Where mounts that were seen are noted, by their ids.
const SEEN: &str = "root/core/seen-mount/";
/// Entries changed with one commit.
const BATCH: usize = 512;

/// A mount that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    namespace_id: String,
    path: String,
}

impl Seen {
    fn of(mount: &Mount) -> Self {
        Self { namespace_id: mount.namespace.id.clone(), path: mount.record.path.clone() }
    }
}

fn seen_at(uuid: &str) -> String {
    format!("{SEEN}{uuid}")
}

fn noted(tx: &Tx) -> Result<BTreeMap<String, Seen>, KernelError> {
    let mut found = BTreeMap::new();
    for uuid in tx.list(Class::Local, SEEN, &Page::default())? {
        if let Some(seen) = tx.get_record::<Seen>(Class::Local, &seen_at(&uuid))? {
            found.insert(uuid, seen);
        }
    }
    Ok(found)
}

/// Shared mounts that grant anything.
fn shared(router: &Router) -> impl Iterator<Item = &std::sync::Arc<Mount>> {
    let grants = |mount: &Mount| matches!(mount.serves, Serves::Engine(_) | Serves::Unknown);
    router.mounts().filter(move |mount| !mount.record.is_local && grants(mount))
}

impl Kernel {
    /// On a performance secondary, sees to it that what hangs on mounts of the primary goes with them.
    pub(crate) async fn follow_mounts(&self) -> Result<(), KernelError> {
        if !self.is_performance_secondary() {
            return self.forget_seen_mounts().await;
        }
        self.complete_local().await?;
        let router = self.mounts.router(&self.store)?;
        if self.followed.load(Ordering::Acquire) == router.built_at() {
            return Ok(());
        }
        let noted = noted(&self.read_tx())?;
        for (uuid, seen) in &noted {
            let is_where_it_was = router.by_uuid(uuid).is_some_and(|mount| Seen::of(mount) == *seen);
            if !is_where_it_was {
                self.let_go(&router, uuid, seen).await?;
            }
        }
        let mut is_settled = true;
        for mount in shared(&router).filter(|mount| !mount.is_active()) {
            is_settled = false; // Looked at again until it is gone, or has moved.
            if let Err(err) = self.revoke_mount(mount).await {
                tracing::warn!(mount = mount.record.uuid, error = %err, "leases of a mount that goes are tried again");
            }
        }
        self.note_mounts(&router, &noted).await?;
        if is_settled {
            self.followed.store(router.built_at(), Ordering::Release);
        }
        Ok(())
    }

    /// Ends what is left of a mount that is not where it was.
    async fn let_go(&self, router: &Router, uuid: &str, seen: &Seen) -> Result<(), KernelError> {
        self.end_below(&seen.namespace_id, &seen.path, true).await?;
        if router.by_uuid(uuid).is_none() {
            let prefix = format!("{}/logical/{uuid}/", seen.namespace_id);
            while self.remove_some(Class::Local, &prefix).await? {}
        }
        self.commit_with(|tx| tx.delete(Class::Local, &seen_at(uuid))).await?;
        tracing::info!(mount = uuid, "what hung on a mount of the primary is gone with it");
        Ok(())
    }

    async fn note_mounts(&self, router: &Router, noted: &BTreeMap<String, Seen>) -> Result<(), KernelError> {
        let is_new = |mount: &&std::sync::Arc<Mount>| noted.get(&mount.record.uuid) != Some(&Seen::of(mount));
        let new: Vec<(String, Seen)> = shared(router)
            .filter(is_new)
            .map(|mount| (seen_at(&mount.record.uuid), Seen::of(mount)))
            .collect();
        for some in new.chunks(BATCH) {
            self.commit_with(|tx| {
                some.iter().try_for_each(|(path, seen)| tx.put_record(Class::Local, path, seen))
            })
            .await?;
        }
        Ok(())
    }

    /// Elsewhere notes would only grow old: the next time they count, all are made anew.
    async fn forget_seen_mounts(&self) -> Result<(), KernelError> {
        self.followed.store(0, Ordering::Release);
        while !self.store.begin(Mode::ReadOnly).some_below(Class::Local, SEEN, 1)?.is_empty() {
            self.remove_some(Class::Local, SEEN).await?;
        }
        Ok(())
    }
}
