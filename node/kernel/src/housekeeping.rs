//! What the active node does by itself: leases that run out, mounts whose change was interrupted, audit devices the
//! configuration declares, engines' ticks, the keyring's age.
//!
//! Every round reads what is due from storage, so nothing is loaded at promotion and nothing is lost at failover.
//! Tasks hold the kernel weakly and are aborted at deactivation; every step is a commit of its own, so an abort
//! leaves nothing half done.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_engine_api::Ctx;
use tokio::task::AbortHandle;

use crate::KernelError;
use crate::kernel::Kernel;
use crate::router::{Mount, Serves};
use crate::tx::{EngineStorage, Mode};

/// How often leases are looked at.
const LEASE_ROUND: Duration = Duration::from_secs(1);
/// How often interrupted changes are taken up.
const CHANGE_ROUND: Duration = Duration::from_secs(5);
/// How often engines get a tick, and the keyring is looked at.
const TICK_ROUND: Duration = Duration::from_secs(60);

/// Starts the tasks.
pub(crate) fn spawn(kernel: &Weak<Kernel>) -> Vec<AbortHandle> {
    // Without a runtime (a test that never waits) there is nobody to keep house.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Vec::new() };
    let tasks = [
        runtime.spawn(every(
            LEASE_ROUND,
            Weak::clone(kernel),
            |kernel| async move { kernel.expire_due().await },
        )),
        runtime.spawn(every(CHANGE_ROUND, Weak::clone(kernel), |kernel| async move {
            kernel.finish_changes().await
        })),
        runtime.spawn(every(CHANGE_ROUND, Weak::clone(kernel), |kernel| async move {
            kernel.declare_audit().await
        })),
        runtime.spawn(every(TICK_ROUND, Weak::clone(kernel), |kernel| async move { kernel.tick().await })),
    ];
    tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect()
}

/// Runs `round` now and then every `pause`, until the kernel is gone.
async fn every<F, R>(pause: Duration, kernel: Weak<Kernel>, round: F)
where
    F: Fn(Arc<Kernel>) -> R,
    R: Future<Output = Result<(), KernelError>>,
{
    while let Some(kernel) = kernel.upgrade() {
        match round(kernel).await {
            // Leadership was lost between two steps: the next active node goes on.
            Ok(()) | Err(KernelError::NeedsActive) => {}
            Err(err) => tracing::warn!(error = %err, "housekeeping failed, will try again"),
        }
        tokio::time::sleep(pause).await;
    }
}

impl Kernel {
    /// One round of ticks.
    pub(crate) async fn tick(&self) -> Result<(), KernelError> {
        let barrier = self.store.barrier();
        if barrier.needs_rotation_at(self.clock.now().0) {
            self.cluster.rotate_keyring().await?;
        }
        let router = self.mounts.router(&self.store)?;
        let mounts: Vec<Arc<Mount>> = router.mounts().filter(|mount| mount.is_active()).cloned().collect();
        drop(router);
        for mount in mounts {
            if let Err(err) = self.tick_mount(&mount).await {
                tracing::warn!(mount = mount.record.uuid, error = %err, "an engine's tick failed");
            }
        }
        Ok(())
    }

    async fn tick_mount(&self, mount: &Mount) -> Result<(), KernelError> {
        // An engine nobody has asked for on this node is made for its tick: it may have work left by another.
        if !matches!(mount.serves, Serves::Engine(_)) {
            return Ok(());
        }
        let engine = mount.engine()?;
        let tx = self.store.begin(Mode::ReadWrite);
        let (key, version) = &mount.guard;
        tx.guard(key, *version);
        {
            let storage =
                EngineStorage::new(&tx, mount.storage_prefix(), mount.class(), engine.local_prefixes());
            let ctx = Ctx {
                storage: &storage,
                mount: &mount.view,
                clock: self.clock.as_ref(),
                entropy: self.entropy.as_ref(),
            };
            engine.tick(&ctx).await?;
        }
        match self.store.commit(tx).await {
            Err(err) if err.is_conflict() => Ok(()), // Somebody wrote meanwhile; there is a next round.
            other => other.map(|_| ()),
        }
    }
}
