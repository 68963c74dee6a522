//! What the active node does by itself: leases that run out, mounts whose change was interrupted, audit devices the
//! configuration declares, engines' ticks, the keyring's age.
//!
//! A cluster that is not the primary keeps no house, and begins with the first round after it has become it. But a
//! performance secondary does, for what is its own: tokens, leases, local mounts; what it shares is its primary's to look
//! after.
//!
//! Every round reads what is due from storage, so nothing is loaded at promotion and nothing is lost at failover.
//! Tasks hold the kernel weakly and are aborted at deactivation; every step is a commit of its own, so an abort
//! leaves nothing half done. Read next: [`ticks`] for engines, [`crate::leases`] for what runs out.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::kernel::Kernel;
use crate::{KernelError, ticks};

/// How often a node that is not active looks at its clocks.
const CLOCK_ROUND: Duration = Duration::from_secs(10);
/// How often tokens, leases and jobs are looked at while none is due.
const LEASE_ROUND: Duration = Duration::from_secs(1);
/// How often interrupted changes are taken up.
const CHANGE_ROUND: Duration = Duration::from_secs(5);
/// How often the keyring is looked at, and old failed logins are forgotten.
const UPKEEP_ROUND: Duration = Duration::from_secs(60);

/// Starts the tasks.
pub(crate) fn spawn(kernel: &Weak<Kernel>) -> Vec<AbortHandle> {
    // Without a runtime (a test that never waits) there is nobody to keep house.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Vec::new() };
    let tasks = [
        runtime.spawn(due(LEASE_ROUND, Weak::clone(kernel), |kernel| async move {
            kernel.expire_due().await.map(drop)
        })),
        runtime.spawn(due(CHANGE_ROUND, Weak::clone(kernel), |kernel| async move {
            kernel.finish_changes().await
        })),
        runtime.spawn(follow_mounts(Weak::clone(kernel))),
        runtime.spawn(due(CHANGE_ROUND, Weak::clone(kernel), |kernel| async move {
            kernel.forget_members().await
        })),
        runtime.spawn(due(CHANGE_ROUND, Weak::clone(kernel), |kernel| async move {
            kernel.declare_audit().await
        })),
        runtime.spawn(due(UPKEEP_ROUND, Weak::clone(kernel), |kernel| async move { kernel.upkeep().await })),
        runtime.spawn(ticks::run(Weak::clone(kernel))),
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

/// As [`every`], while it is for this cluster to do what is due.
async fn due<F, R>(pause: Duration, kernel: Weak<Kernel>, round: F)
where
    F: Fn(Arc<Kernel>) -> R + Sync,
    R: Future<Output = Result<(), KernelError>> + Send,
{
    let round = &round;
    every(pause, kernel, |kernel| async move {
        if kernel.standing().keeps_house() { round(kernel).await } else { Ok(()) }
    })
    .await;
}

/// Follows the primary's mounts, every so often and whenever one has changed: one that is being disabled can be asked to undo
/// what it granted only as long as its data is there.
async fn follow_mounts(kernel: Weak<Kernel>) {
    let Some(changed) = kernel.upgrade().map(|kernel| kernel.watches.mounts_changed()) else { return };
    while let Some(kernel) = kernel.upgrade() {
        if kernel.standing().keeps_house() {
            settle(kernel.follow_mounts().await);
        }
        drop(kernel);
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(CHANGE_ROUND) => {}
        }
    }
}

/// Runs `round` now and then every `pause`, until the kernel is gone.
async fn every<F, R>(pause: Duration, kernel: Weak<Kernel>, round: F)
where
    F: Fn(Arc<Kernel>) -> R,
    R: Future<Output = Result<(), KernelError>>,
{
    while let Some(kernel) = kernel.upgrade() {
        settle(round(kernel).await);
        tokio::time::sleep(pause).await;
    }
}

/// Leadership, or the role of a primary, may be lost between two steps: the next one goes on.
fn settle(round: Result<(), KernelError>) {
    match round {
        Ok(()) => {}
        Err(err) if err.is_for_another() => {}
        Err(err) => tracing::warn!(error = %err, "housekeeping failed, will try again"),
    }
}

impl Kernel {
    /// What is looked after once a minute.
    async fn upkeep(&self) -> Result<(), KernelError> {
        let is_ours = self.standing().keeps_what_is_shared();
        if is_ours && self.store.barrier().needs_rotation_at(self.clock.now().0) {
            self.cluster.rotate_keyring().await?;
        }
        self.forget_failed_logins().await
    }
}
