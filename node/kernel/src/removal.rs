//! What follows a disable or a move: leases revoked, then data removed or the path changed.
//!
//! The request only marks the record; the rest is done in bounded steps by the active node, and taken up again by
//! the next one after a failover, because the mark is in the record.

use std::sync::Arc;
use std::time::Duration;

use arca_barrier::Class;
use arca_engine_api::EngineKind;

use crate::KernelError;
use crate::kernel::Kernel;
use crate::mounts::MountState;
use crate::replication::{Kind, Mode as ReplicationMode};
use crate::router::Mount;
use crate::sys::{Migration, migration_path};
use crate::tx::{Mode, Tx};

/// Entries removed with one commit.
const BATCH: usize = 512;
/// Longest wait until performance secondaries know that a mount is disabled.
const SECONDARIES_PATIENCE: Duration = Duration::from_secs(10);
/// What they get to undo their leases, from then on.
const SECONDARIES_GRACE: Duration = Duration::from_secs(5);
const CLASSES: [Class; 2] = [Class::Local, Class::Replicated];

/// Marks a mount as being worked on for as long as it lives.
struct Claim<'a> {
    kernel: &'a Kernel,
    uuid: &'a str,
}

impl<'a> Claim<'a> {
    fn take(kernel: &'a Kernel, uuid: &'a str) -> Option<Self> {
        // A claim is made only if the mount was free: dropping one frees the mount, and takes the lock for it.
        let is_free = kernel.changing.lock().insert(uuid.to_owned());
        is_free.then(|| Self { kernel, uuid })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.kernel.changing.lock().remove(self.uuid);
    }
}

/// How far a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    Done,
    /// Somebody else is at it, perhaps at what the mount went through before. Housekeeping looks at it again.
    NotYet,
}

impl Kernel {
    /// Finishes what a mount is going through. Fine to call for one that is going through nothing.
    pub(crate) async fn finish_change(&self, uuid: &str) -> Result<Finished, KernelError> {
        let Some(_claim) = Claim::take(self, uuid) else { return Ok(Finished::NotYet) };
        let router = self.mounts.router(&self.store)?;
        let Some(mount) = router.by_uuid(uuid).cloned() else { return Ok(Finished::Done) };
        if !self.standing().looks_after(mount.class()) {
            return Ok(Finished::Done); // The primary finishes it.
        }
        match &mount.record.state {
            MountState::Active => {}
            MountState::Disabling => self.remove(&mount).await?,
            MountState::Moving { to, migration } => self.relocate(&mount, to, migration).await?,
        }
        Ok(Finished::Done)
    }

    /// As [`Self::finish_change`], without waiting. A failure is left to housekeeping.
    pub(crate) fn finish_change_in_background(&self, uuid: String) {
        let Some(kernel) = self.me.upgrade() else { return };
        tokio::spawn(async move {
            if let Err(err) = kernel.finish_change(&uuid).await {
                tracing::warn!(mount = uuid, error = %err, "a mount's change could not be finished, will try again");
            }
        });
    }

    /// Finishes every change that was left unfinished.
    pub(crate) async fn finish_changes(&self) -> Result<(), KernelError> {
        let router = self.mounts.router(&self.store)?;
        let unfinished: Vec<Arc<Mount>> =
            router.mounts().filter(|mount| !mount.is_active()).cloned().collect();
        for mount in unfinished {
            if let Err(err) = self.finish_change(&mount.record.uuid).await {
                tracing::warn!(mount = mount.record.uuid, error = %err, "a mount's change could not be finished");
            }
        }
        Ok(())
    }

    async fn remove(&self, mount: &Mount) -> Result<(), KernelError> {
        self.revoke_mount(mount).await?;
        self.forget_aliases(mount).await?;
        self.await_secondaries(mount).await?;
        for class in CLASSES.into_iter().filter(|class| self.standing().looks_after(*class)) {
            while self.remove_some(class, &mount.storage_prefix()).await? {}
        }
        let namespace_id = mount.namespace.id.as_str();
        self.commit_staged(|tx| self.mounts.remove(tx, namespace_id, &mount.record)).await?;
        tracing::info!(mount = mount.record.uuid, path = %mount.full_path, "a mount and its data are removed");
        Ok(())
    }

    /// Lets performance secondaries undo what they granted from a mount that is disabled, as long as its engine can be asked for
    /// it: only they know what that is, and they begin when the mark in the record arrives. Bounded, and one that is not there
    /// is not waited for: what it cannot undo later it keeps to be seen ([`crate::replication`]). Tokens of auth methods end
    /// without being asked about.
    async fn await_secondaries(&self, mount: &Mount) -> Result<(), KernelError> {
        let is_primary = self.standing().role(Kind::Performance).mode == ReplicationMode::Primary;
        let may_lease = mount.class() == Class::Replicated && mount.record.kind() == EngineKind::Secrets;
        let Some(port) = self.cluster.replication().filter(|_| is_primary && may_lease) else {
            return Ok(());
        };
        let (_, marked_at) = &mount.guard;
        let reached = port.await_secondaries(Kind::Performance, marked_at.0, SECONDARIES_PATIENCE).await?;
        if reached > 0 {
            tokio::time::sleep(SECONDARIES_GRACE).await;
        }
        Ok(())
    }

    /// Removes up to a batch of entries; false when there were none.
    pub(crate) async fn remove_some(&self, class: Class, prefix: &str) -> Result<bool, KernelError> {
        let tx = self.store.begin(Mode::ReadWrite);
        let paths = tx.some_below(class, prefix, BATCH)?;
        for path in &paths {
            tx.delete(class, path)?;
        }
        self.store.commit(tx).await?;
        Ok(!paths.is_empty())
    }

    async fn relocate(&self, mount: &Mount, to: &str, migration: &str) -> Result<(), KernelError> {
        self.revoke_mount(mount).await?;
        let namespace_id = mount.namespace.id.as_str();
        let is_moved = self
            .commit_staged(|tx| {
                let mut record = self.mounts.reread(tx, namespace_id, &mount.record)?;
                if record.state != mount.record.state {
                    end_migration(tx, record.class(), migration, (&record.path, to), "failure")?;
                    return Ok(false); // Disabled meanwhile, and that is what it goes through now.
                }
                let from = std::mem::replace(&mut record.path, to.to_owned());
                record.state = MountState::Active;
                self.mounts.write(tx, namespace_id, &record)?;
                end_migration(tx, record.class(), migration, (&from, to), "success")?;
                Ok(true)
            })
            .await?;
        if is_moved {
            tracing::info!(mount = mount.record.uuid, path = to, "a mount is moved");
        }
        Ok(())
    }
}

/// Stages how a move ended.
///
/// # Errors
/// When storage fails.
pub(crate) fn end_migration(
    tx: &Tx,
    class: Class,
    migration: &str,
    (from, to): (&str, &str),
    status: &str,
) -> Result<(), KernelError> {
    let ended = Migration { from: from.to_owned(), to: to.to_owned(), status: status.to_owned() };
    Ok(tx.put_record(class, &migration_path(migration), &ended)?)
}

#[cfg(test)]
mod tests {
    use arca_engine_api::Operation;
    use serde_json::json;

    use super::*;
    use crate::tokens::rig::{Rig, text};

    /// A move that was under way when the mount was disabled does not bring it back.
    #[tokio::test]
    async fn a_disable_during_a_move_wins() {
        let rig = Rig::active().await;
        let mount = || rig.kernel.mounts.router(&rig.kernel.store).unwrap().at("aws/").cloned();
        let uuid = mount().unwrap().record.uuid.clone();
        let claim = Claim::take(&rig.kernel, &uuid).unwrap();
        let moved = rig.post("root", "sys/remount", json!({"from": "aws", "to": "gcp"})).await.unwrap();
        let id = moved.data.unwrap()["migration_id"].as_str().unwrap().to_owned();
        let status = async || {
            let path = format!("sys/remount/status/{id}");
            rig.get("root", &path).await.unwrap().data.unwrap()["migration_info"]["status"].clone()
        };
        let moving = mount().unwrap();
        assert_eq!(status().await, json!("in-progress"));
        let disabled = rig.ask("root", Operation::Delete, "sys/mounts/aws", json!(null), None).await;
        assert!(text(disabled).contains("goes on in the background"));
        assert_eq!(status().await, json!("failure"));
        rig.kernel.relocate(&moving, "gcp/", &id).await.unwrap();
        assert_eq!(mount().unwrap().record.state, MountState::Disabling);
        assert_eq!(status().await, json!("failure"));
        drop(claim);
        // Housekeeping may be at it as well.
        for _ in 0..100 {
            rig.kernel.finish_changes().await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(mount().is_none());
    }

    #[tokio::test]
    async fn a_mount_is_changed_by_one_at_a_time() {
        let rig = Rig::new().await;
        let first = Claim::take(&rig.kernel, "m").unwrap();
        assert!(Claim::take(&rig.kernel, "m").is_none());
        assert!(Claim::take(&rig.kernel, "m").is_none(), "a refusal frees nothing");
        assert!(Claim::take(&rig.kernel, "other").is_some());
        drop(first);
        assert!(Claim::take(&rig.kernel, "m").is_some());
    }
}
