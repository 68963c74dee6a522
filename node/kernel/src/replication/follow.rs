//! What a performance secondary has of its own under mounts of its primary, when these go: tokens of logins, leases, entries
//! of class `Local`. The primary ends its own and removes the mount; nobody but the secondary can end the secondary's.
//!
//! So it notes every shared mount that it has seen: its path, its accessor, and whether it is being disabled. One that is being
//! disabled or moved loses its leases and tokens while its engine can still be asked to undo them. Of one that is gone nobody
//! can be asked: leases that are left are kept as irrevocable ones, for what they granted lives on and somebody has to know.
//! Entries of class `Local` go at once if the mount was seen being disabled. One that has only vanished may come back (a path
//! filter, another primary), and then its revoked certificates and secret ids are to be there: they are kept for a day.
//! **Invariants:** a note goes only when everything the mount granted has ended or is kept to be seen; and what another mount
//! granted at the same path, a local one that hides it or one made anew, is never touched.
//! Read next: [`crate::removal`] for what the primary does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arca_barrier::Class;
use arca_engine_api::{Page, UnixMillis};
use futures::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};

use crate::KernelError;
use crate::kernel::Kernel;
use crate::leases::OfMount;
use crate::mounts::MountState;
use crate::router::{Mount, Router, Serves};
use crate::tx::{Mode, Tx};

/// Where mounts that were seen are noted, by their ids.
const SEEN: &str = "root/core/seen-mount/";
/// Entries changed with one commit.
const BATCH: usize = 512;
/// Mounts whose end is waited for at a time.
const ENDING_AT_ONCE: usize = 4;
/// How long entries of class `Local` of a mount are kept that vanished and was not seen being disabled.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A mount that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    namespace_id: String,
    path: String,
    /// Empty in notes of earlier versions.
    #[serde(default)]
    accessor: String,
    /// It was being disabled.
    #[serde(default)]
    is_going: bool,
    /// Since when it is not there, although it was not seen being disabled. Everything it granted has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone_since: Option<UnixMillis>,
}

impl Seen {
    fn of(mount: &Mount) -> Self {
        Self {
            namespace_id: mount.namespace.id.clone(),
            path: mount.record.path.clone(),
            accessor: mount.record.accessor.clone(),
            is_going: mount.record.state == MountState::Disabling,
            gone_since: None,
        }
    }

    fn is_where(&self, mount: &Mount) -> bool {
        (&self.namespace_id, &self.path) == (&mount.namespace.id, &mount.record.path)
    }

    /// The mount, as work on what it granted knows it.
    fn work_of(&self, router: &Router, uuid: &str) -> OfMount {
        let overlaps = |path: &str| path.starts_with(&self.path) || self.path.starts_with(path);
        let mut others = router.mounts_of(&self.namespace_id).filter(|mount| mount.record.uuid != uuid);
        OfMount {
            uuid: uuid.to_owned(),
            accessor: self.accessor.clone(),
            is_alone: !others.any(|mount| overlaps(&mount.record.path)),
            is_gone: router.by_uuid(uuid).is_none(),
        }
    }
}

/// What is left to do about a mount that was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// It is looked at again, and its note stays as it is.
    Something,
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
fn shared(router: &Router) -> impl Iterator<Item = &Arc<Mount>> {
    let grants = |mount: &Mount| matches!(mount.serves, Serves::Engine(_) | Serves::Unknown);
    router.mounts().filter(move |mount| !mount.record.is_local && grants(mount))
}

impl Kernel {
    /// On a performance secondary, sees to it that what hangs on mounts of the primary goes with them.
    pub(crate) async fn follow_mounts(&self) -> Result<(), KernelError> {
        let mut followed = self.followed.lock().await;
        if !self.is_performance_secondary() {
            *followed = 0;
            return self.forget_seen_mounts().await;
        }
        self.complete_local().await?;
        let router = self.mounts.router(&self.store)?;
        if *followed == router.built_at() {
            return Ok(());
        }
        let noted = noted(&self.read_tx())?;
        let mut left = BTreeSet::new();
        for (uuid, seen) in &noted {
            match self.follow_mount(&router, uuid, seen).await {
                Ok(Left::Nothing) => {}
                Ok(Left::Something) => {
                    left.insert(uuid.as_str());
                }
                Err(err) if err.is_for_another() => return Err(err),
                Err(err) => {
                    tracing::warn!(mount = uuid, error = %err, "what hangs on a mount that went is looked at again");
                    left.insert(uuid.as_str());
                }
            }
        }
        // Before anything is waited for: once the mount is gone it is good to know that it was to go.
        self.note_mounts(&router, &noted, &left).await?;
        let going: Vec<_> = shared(&router).filter(|mount| !mount.is_active()).cloned().collect();
        // Looked at again until they are gone, or have moved.
        if left.is_empty() && going.is_empty() {
            *followed = router.built_at();
        }
        self.end_of_going(&router, going).await;
        Ok(())
    }

    /// Ends what hangs on mounts that go, of several at once: the primary waits a while only before it removes them, and what
    /// one of them has to be asked may hang.
    async fn end_of_going(&self, router: &Router, going: Vec<Arc<Mount>>) {
        let ending = going.into_iter().map(|mount| async move {
            let (uuid, seen) = (mount.record.uuid.as_str(), Seen::of(&mount));
            let ended = self.end_of_mount(&seen.namespace_id, &seen.path, seen.work_of(router, uuid));
            if let Err(err) = ended.await {
                tracing::warn!(mount = uuid, error = %err, "leases of a mount that goes are tried again");
            }
        });
        stream::iter(ending).buffer_unordered(ENDING_AT_ONCE).collect::<()>().await;
    }

    /// Does what a mount that was noted leaves to do, if it is not where it was.
    async fn follow_mount(&self, router: &Router, uuid: &str, seen: &Seen) -> Result<Left, KernelError> {
        let mount = router.by_uuid(uuid);
        if mount.is_some_and(|mount| seen.is_where(mount)) {
            if seen.gone_since.is_some() {
                tracing::info!(mount = uuid, "a mount of the primary is back");
                self.try_given_up(&seen.namespace_id, uuid).await?;
            }
            return Ok(Left::Nothing);
        }
        let is_gone = mount.is_none();
        if seen.gone_since.is_none() || !is_gone {
            let of = seen.work_of(router, uuid);
            let given_up = self.end_of_mount(&seen.namespace_id, &seen.path, of).await?;
            if given_up > 0 {
                tracing::error!(
                    mount = uuid,
                    leases = given_up,
                    "a mount of the primary is gone, and leases of it could not be undone: what they granted lives on; they are \
                     kept as irrevocable, see sys/leases with type=irrevocable"
                );
            }
        }
        let is_kept = is_gone && !seen.is_going;
        if is_kept {
            let Some(gone_since) = seen.gone_since else {
                let note = Seen { gone_since: Some(self.clock.now()), ..seen.clone() };
                self.commit_with(|tx| tx.put_record(Class::Local, &seen_at(uuid), &note)).await?;
                tracing::info!(mount = uuid, "a mount of the primary is not there any more");
                return Ok(Left::Something);
            };
            // By the time that a clock set forward does not move.
            if self.due_by() < gone_since.after(KEPT) {
                return Ok(Left::Something);
            }
        }
        if is_gone {
            let prefix = format!("{}/logical/{uuid}/", seen.namespace_id);
            while self.remove_some(Class::Local, &prefix).await? {}
        }
        self.commit_with(|tx| tx.delete(Class::Local, &seen_at(uuid))).await?;
        tracing::info!(mount = uuid, "what hung on a mount of the primary is gone with it");
        Ok(Left::Nothing)
    }

    /// Notes mounts as they are now; those that something is left of stay noted as they were.
    async fn note_mounts(
        &self,
        router: &Router,
        noted: &BTreeMap<String, Seen>,
        left: &BTreeSet<&str>,
    ) -> Result<(), KernelError> {
        let is_new = |mount: &&Arc<Mount>| {
            let uuid = mount.record.uuid.as_str();
            !left.contains(uuid) && noted.get(uuid) != Some(&Seen::of(mount))
        };
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
        while !self.store.begin(Mode::ReadOnly).some_below(Class::Local, SEEN, 1)?.is_empty() {
            self.remove_some(Class::Local, SEEN).await?;
        }
        Ok(())
    }
}
