//! What the active node does by itself: leases that run out, mounts whose change was interrupted, audit devices the
//! configuration declares, engines' ticks, the keyring's age.
//!
//! Every round reads what is due from storage, so nothing is loaded at promotion and nothing is lost at failover.
//! Tasks hold the kernel weakly and are aborted at deactivation; every step is a commit of its own, so an abort
//! leaves nothing half done.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::task::AbortHandle;

use crate::KernelError;
use crate::kernel::Kernel;
use crate::router::{Mount, Serves};
use crate::tx::Mode;

/// How often a node that is not active looks at its clocks.
const CLOCK_ROUND: Duration = Duration::from_secs(10);
/// How often tokens and leases are looked at: each by a task of its own, since engines may keep leases waiting.
const LEASE_ROUND: Duration = Duration::from_secs(1);
/// How often interrupted changes are taken up.
const CHANGE_ROUND: Duration = Duration::from_secs(5);
/// How often engines get a tick, and the keyring is looked at.
const TICK_ROUND: Duration = Duration::from_secs(60);

/// Longest wait for one engine's tick, what it intends included.
const TICK_PATIENCE: Duration = Duration::from_secs(180);

/// Starts the tasks.
pub(crate) fn spawn(kernel: &Weak<Kernel>) -> Vec<AbortHandle> {
    // Without a runtime (a test that never waits) there is nobody to keep house.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Vec::new() };
    let tasks = [
        runtime.spawn(every(LEASE_ROUND, Weak::clone(kernel), |kernel| async move {
            kernel.expire_tokens().await.map(drop)
        })),
        runtime.spawn(every(LEASE_ROUND, Weak::clone(kernel), |kernel| async move {
            kernel.expire_leases().await.map(drop)
        })),
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

/// Watches the clocks for as long as the kernel lives.
pub(crate) fn watch_clock(kernel: &Weak<Kernel>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    drop(runtime.spawn(every(CLOCK_ROUND, Weak::clone(kernel), |kernel| async move {
        kernel.due_by();
        Ok(())
    })));
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
        // Side by side, so that an engine that does not answer keeps no other waiting.
        let ticks = mounts.iter().map(|mount| async move {
            match tokio::time::timeout(TICK_PATIENCE, self.tick_mount(mount)).await {
                Ok(Ok(())) => {}
                Ok(Err(err)) => {
                    tracing::warn!(mount = mount.record.uuid, error = %err, "an engine's tick failed");
                }
                Err(_) => tracing::warn!(mount = mount.record.uuid, "an engine's tick does not end"),
            }
        });
        ticks.collect::<FuturesUnordered<_>>().collect::<()>().await;
        self.forget_failed_logins().await
    }

    async fn tick_mount(&self, mount: &Mount) -> Result<(), KernelError> {
        // An engine nobody has asked for on this node is made for its tick: it may have work left by another.
        if !matches!(mount.serves, Serves::Engine(_)) {
            return Ok(());
        }
        let tx = self.store.begin(Mode::ReadWrite);
        let (key, version) = &mount.guard;
        tx.guard(key, *version);
        let intents = {
            let called = self.call(&tx, mount)?;
            let ctx = called.ctx();
            called.engine().tick(&ctx).await?
        };
        match self.store.commit(tx).await {
            Err(err) if err.is_conflict() => return Ok(()), // Somebody wrote meanwhile; there is a next round.
            other => other?,
        };
        self.run_intents(mount, intents).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arca_engine_api::EngineKind;

    use crate::tokens::rig::Rig;

    #[tokio::test]
    async fn a_tick_that_does_not_end_keeps_no_other_waiting() {
        let rig = Rig::new().await;
        rig.mount("gcp", EngineKind::Secrets).await;
        rig.flag_engine("hung", true).await;
        let mut ticking = std::pin::pin!(rig.kernel.tick());
        for _ in 0..100 {
            assert!(futures::poll!(ticking.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        assert!(rig.has_ticked("gcp/") && !rig.has_ticked("aws/"));
    }
}
