//! Engines' ticks: each mount's own, so that an engine that does not answer keeps no other waiting.
//!
//! At a performance secondary only mounts with something of its own are ticked, and only that is kept of it.
//!
//! Nothing is stored about them: a new active node ticks every mount at once, and engines read what is due from storage.
//! Read next: [`crate::intents`] for what a tick may have done outside.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_engine_api::Engine;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::KernelError;
use crate::kernel::Kernel;
use crate::router::{Mount, Serves};
use crate::tx::Mode;

/// How often mounts are looked at; the shortest time between two ticks of one.
const ROUND: Duration = Duration::from_secs(5);
/// Longest wait for one engine's tick, what it intends included.
const PATIENCE: Duration = Duration::from_secs(180);

/// Ticks every mount, until the kernel is gone. What is under way ends with the returned future.
pub(crate) async fn run(kernel: Weak<Kernel>) {
    let mut ticks = Ticks::default();
    while let Some(kernel) = kernel.upgrade() {
        if kernel.standing().keeps_house()
            && let Err(err) = ticks.round(&kernel)
        {
            tracing::warn!(error = %err, "no tick for any engine, will try again");
        }
        drop(kernel);
        tokio::time::sleep(ROUND).await;
    }
}

/// The last tick of every mount, by its uuid.
#[derive(Default)]
struct Ticks {
    last: BTreeMap<Arc<str>, Tick>,
    tasks: JoinSet<()>,
}

struct Tick {
    began: Instant,
    task: AbortHandle,
}

impl Ticks {
    /// Starts what is due.
    fn round(&mut self, kernel: &Arc<Kernel>) -> Result<(), KernelError> {
        while self.tasks.try_join_next().is_some() {}
        let router = kernel.mounts.router(&kernel.store)?;
        self.last.retain(|uuid, _| router.by_uuid(uuid).is_some());
        // An engine nobody has asked for on this node is made for its tick: it may have work left by another.
        let looks_after_all = kernel.standing().keeps_what_is_shared();
        let mounts = router.mounts().filter(|mount| mount.is_active());
        for mount in mounts.filter(|mount| matches!(mount.serves, Serves::Engine(_))) {
            let pause = match mount.engine() {
                Ok(engine) if !looks_after_all && !is_ours(mount, engine.as_ref()) => continue,
                Ok(engine) => engine.tick_interval(),
                Err(err) => {
                    tracing::warn!(mount = mount.record.uuid, error = %err, "no tick for an engine that cannot be made");
                    continue;
                }
            };
            let uuid: Arc<str> = mount.record.uuid.as_str().into();
            if self
                .last
                .get(&uuid)
                .is_some_and(|last| !last.task.is_finished() || last.began.elapsed() < pause)
            {
                continue;
            }
            let task = self.tasks.spawn(tick(Arc::clone(kernel), Arc::clone(mount)));
            self.last.insert(uuid, Tick { began: Instant::now(), task });
        }
        Ok(())
    }
}

/// Whether a performance secondary has anything to look after in a mount.
fn is_ours(mount: &Mount, engine: &dyn Engine) -> bool {
    mount.record.is_local || !engine.local_prefixes().is_empty()
}

/// One tick, and what it intends; failures are logged.
async fn tick(kernel: Arc<Kernel>, mount: Arc<Mount>) {
    let uuid = &mount.record.uuid;
    match tokio::time::timeout(PATIENCE, kernel.tick_mount(&mount)).await {
        // Leadership was lost between two steps: the next active node goes on.
        Ok(Ok(())) => {}
        Ok(Err(err)) if err.is_for_another() => {}
        Ok(Err(err)) => tracing::warn!(mount = uuid, error = %err, "an engine's tick failed"),
        Err(_) => tracing::warn!(mount = uuid, "an engine's tick does not end"),
    }
}

impl Kernel {
    async fn tick_mount(&self, mount: &Mount) -> Result<(), KernelError> {
        let tx = self.store.begin(Mode::ReadWrite);
        let (key, version) = &mount.guard;
        tx.guard(key, *version);
        let intents = {
            let called = self.call(&tx, mount)?;
            let ctx = called.ctx();
            called.engine().tick(&ctx).await?
        };
        // What is shared is the primary's to tidy and to rotate: at a performance secondary only the rest is kept, and
        // nothing is done outside for it.
        let is_primarys = !self.standing().looks_after(mount.class());
        if is_primarys {
            tx.keep_local();
        }
        match self.store.commit(tx).await {
            Err(err) if err.is_conflict() => return Ok(()), // Somebody wrote meanwhile; there is a next round.
            other => other?,
        };
        if !is_primarys {
            self.run_intents(mount, intents).await;
        }
        Ok(())
    }

    /// One tick of every mount, waited for.
    #[cfg(test)]
    pub(crate) async fn tick_all(self: &Arc<Self>) {
        let mut ticks = Ticks::default();
        ticks.round(self).unwrap();
        while let Some(ended) = ticks.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use arca_engine_api::EngineKind;

    use super::*;
    use crate::tokens::rig::Rig;

    async fn until(mut is_so: impl FnMut() -> bool) {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_tick_that_does_not_end_keeps_no_other_waiting() {
        let rig = Rig::new().await;
        rig.mount("gcp", EngineKind::Secrets).await;
        rig.flag_engine("hung", true).await;
        let mut ticks = Ticks::default();
        ticks.round(&rig.kernel).unwrap();
        until(|| rig.has_ticked("gcp/")).await;
        assert!(!rig.has_ticked("aws/"));
        // Nor is it begun again, nor any other before its time.
        let running = |ticks: &Ticks| ticks.last.values().filter(|tick| !tick.task.is_finished()).count();
        until(|| running(&ticks) == 1).await;
        ticks.round(&rig.kernel).unwrap();
        assert_eq!(running(&ticks), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_ticks_as_often_as_it_asks_for() {
        let rig = Rig::new().await;
        let mut ticks = Ticks::default();
        let mut began = Vec::new();
        for _ in 0..3 {
            ticks.round(&rig.kernel).unwrap();
            until(|| ticks.last.values().all(|tick| tick.task.is_finished())).await;
            began.push(ticks.last.values().map(|tick| tick.began).max().unwrap());
            tokio::time::advance(Duration::from_secs(31)).await;
        }
        assert_eq!(began[0], began[1]);
        assert_eq!(began[2] - began[0], Duration::from_secs(62));
    }
}
