//! Engines' ticks: each mount's own, so that an engine that does not answer keeps no other waiting.
//!
//! Behind a tick an engine that has more to do than fits one entry of the log goes on in steps, each committed before the
//! next, until the mount's next tick is due. Between two steps it rests twice as long as the step took, so that a mount
//! with much to do takes a third of one thread, and leaves the log to others.
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
use tokio::time::error::Elapsed;

use crate::KernelError;
use crate::kernel::Kernel;
use crate::router::{Mount, Serves};
use crate::tx::{Mode, Tx};

/// How often mounts are looked at; the shortest time between two ticks of one.
const ROUND: Duration = Duration::from_secs(5);
/// Longest wait for one engine's tick, what it intends included.
const PATIENCE: Duration = Duration::from_secs(180);
/// Shortest rest between two steps.
const REST_MIN: Duration = Duration::from_millis(20);

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
            let task = self.tasks.spawn(tick(Arc::clone(kernel), Arc::clone(mount), pause));
            self.last.insert(uuid, Tick { began: Instant::now(), task });
        }
        Ok(())
    }
}

/// Whether a performance secondary has anything to look after in a mount.
fn is_ours(mount: &Mount, engine: &dyn Engine) -> bool {
    mount.record.is_local || !engine.local_prefixes().is_empty()
}

/// One tick, what it intends, and the steps behind it; failures are logged. The next tick is due after `pause`.
async fn tick(kernel: Arc<Kernel>, mount: Arc<Mount>, pause: Duration) {
    let (began, uuid) = (Instant::now(), &mount.record.uuid);
    let ticked = tokio::time::timeout(PATIENCE, kernel.tick_mount(&mount)).await;
    if heard(uuid, ticked).is_none() {
        return;
    }
    // Nobody is kept from closing the kernel while a mount rests.
    let weak = Arc::downgrade(&kernel);
    drop(kernel);
    while let Some(kernel) = weak.upgrade().filter(|kernel| kernel.standing().keeps_house()) {
        let step_began = Instant::now();
        let step = tokio::time::timeout(PATIENCE, kernel.step_mount(uuid)).await;
        drop(kernel);
        let Some(Some(wanted)) = heard(uuid, step) else { return };
        let rest = wanted.max(step_began.elapsed().saturating_mul(2)).max(REST_MIN);
        if began.elapsed().saturating_add(rest) >= pause {
            return;
        }
        tokio::time::sleep(rest).await;
    }
}

/// What a tick or a step answered; nothing if it failed, which is logged.
fn heard<T>(uuid: &str, outcome: Result<Result<T, KernelError>, Elapsed>) -> Option<T> {
    match outcome {
        Ok(Ok(answer)) => return Some(answer),
        // Leadership was lost between two steps: the next active node goes on.
        Ok(Err(err)) if err.is_for_another() => {}
        Ok(Err(err)) => tracing::warn!(mount = uuid, error = %err, "an engine's tick failed"),
        Err(_) => tracing::warn!(mount = uuid, "an engine's tick does not end"),
    }
    None
}

impl Kernel {
    async fn tick_mount(&self, mount: &Mount) -> Result<(), KernelError> {
        let tx = self.begin_tick(mount);
        let intents = {
            let called = self.call(&tx, mount)?;
            let ctx = called.ctx();
            called.engine().tick(&ctx).await?
        };
        let is_ours = self.standing().looks_after(mount.class());
        // Where somebody wrote meanwhile, there is a next round.
        if self.keep(tx, is_ours).await? && is_ours {
            self.run_intents(mount, intents).await;
        }
        Ok(())
    }

    /// One step behind a tick, of the mount as it is now, if it is still there. Answers the rest its engine wants before
    /// another.
    async fn step_mount(&self, uuid: &str) -> Result<Option<Duration>, KernelError> {
        let router = self.mounts.router(&self.store)?;
        let Some(mount) = router.by_uuid(uuid).filter(|mount| mount.is_active()) else { return Ok(None) };
        let tx = self.begin_tick(mount);
        let next = {
            let called = self.call(&tx, mount)?;
            let ctx = called.ctx();
            called.engine().go_on(&ctx).await?
        };
        let is_kept = self.keep(tx, self.standing().looks_after(mount.class())).await?;
        // Where somebody wrote meanwhile, the step is taken again.
        Ok(if is_kept { next } else { Some(Duration::ZERO) })
    }

    fn begin_tick(&self, mount: &Mount) -> Tx {
        let tx = self.store.begin(Mode::ReadWrite);
        let (key, version) = &mount.guard;
        tx.guard(key, *version);
        tx
    }

    /// Commits what a tick or a step staged, unless somebody wrote meanwhile; says whether it did. What is shared is the
    /// primary's to tidy and to rotate: at a performance secondary only the rest is kept, and nothing is done outside.
    async fn keep(&self, tx: Tx, is_ours: bool) -> Result<bool, KernelError> {
        if !is_ours {
            tx.keep_local();
        }
        match self.store.commit(tx).await {
            Err(err) if err.is_conflict() => Ok(false),
            other => other.map(|_| true),
        }
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
    use arca_engine_api::{EngineKind, Operation};
    use serde_json::Value;

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

    #[tokio::test(start_paused = true)]
    async fn what_is_much_goes_on_behind_a_tick() {
        let rig = Rig::new().await;
        rig.mount("gcp", EngineKind::Secrets).await;
        // What would take a thousand ticks is done with one.
        rig.set_steps_left(1_000).await;
        let began = Instant::now();
        rig.kernel.tick_all().await;
        assert_eq!(rig.steps_left(), 0);
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn steps_end_before_the_next_tick_and_keep_no_other_waiting() {
        let rig = Rig::new().await;
        rig.mount("gcp", EngineKind::Secrets).await;
        rig.set_steps_left(u64::MAX).await;
        let mut ticks = Ticks::default();
        ticks.round(&rig.kernel).unwrap();
        until(|| rig.has_ticked("gcp/")).await;
        let running = |ticks: &Ticks| ticks.last.values().filter(|tick| !tick.task.is_finished()).count();
        until(|| running(&ticks) == 1).await;
        // Requests are served in between, and the engine takes notice of what they wrote.
        rig.set_steps_left(1 << 20).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!((1 << 20) - 60 < rig.steps_left() && rig.steps_left() < 1 << 20, "{}", rig.steps_left());
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(running(&ticks), 0);
        let left = rig.steps_left();
        assert!(left > 0);
        ticks.round(&rig.kernel).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(rig.steps_left() < left);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mount_that_is_gone_takes_no_more_steps() {
        let rig = Rig::active().await;
        rig.set_steps_left(u64::MAX).await;
        let mut ticks = Ticks::default();
        ticks.round(&rig.kernel).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(rig.steps_left() < u64::MAX);
        rig.ask("root", Operation::Delete, "sys/mounts/aws", Value::Null, None).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(ticks.last.values().all(|tick| tick.task.is_finished()));
    }
}
