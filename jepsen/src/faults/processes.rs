//! Processes killed, paused and restarted; power lost.

use std::time::Duration;

use arca_harness::{HarnessError, Signal};
use async_trait::async_trait;

use super::{BACK_LIMIT, Fault, Scene, Struck, names};
use crate::dice::Dice;
use crate::disk::{Loss, Names};

/// A server that is asked to end does so within this.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Between two nodes that lose power together, in milliseconds.
const STAGGER_MS: std::ops::Range<u64> = 0..150;

/// How many nodes to take: one, or as many as may be.
fn how_many(scene: &Scene<'_>, dice: &mut Dice) -> usize {
    if dice.chance(50) { 1 } else { scene.cluster.minority().max(1) }
}

/// SIGKILL.
pub(super) struct Kill;

#[async_trait(?Send)]
impl Fault for Kill {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let wanted = how_many(scene, dice);
        let Some(taken) = scene.take_or_all(wanted, dice).await else { return Ok(Struck::Skipped) };
        for at in &taken.nodes {
            scene.cluster.node(*at)?.kill().await?;
        }
        scene.stage.say(format!("killed {}", names(&taken.nodes)));
        scene.hold().await;
        scene.bring_back(&taken.nodes).await?;
        Ok(Struck::Done(u64::try_from(taken.nodes.len()).unwrap_or(u64::MAX)))
    }
}

/// SIGSTOP.
pub(super) struct Pause;

#[async_trait(?Send)]
impl Fault for Pause {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let wanted = how_many(scene, dice);
        let Some(taken) = scene.take(wanted, dice).await else { return Ok(Struck::Skipped) };
        for at in &taken.nodes {
            scene.cluster.node(*at)?.signal(Signal::STOP)?;
        }
        scene.stage.say(format!("paused {}", names(&taken.nodes)));
        scene.hold().await;
        for at in &taken.nodes {
            scene.cluster.node(*at)?.signal(Signal::CONT)?;
        }
        scene.bring_back(&taken.nodes).await?;
        Ok(Struck::Done(u64::try_from(taken.nodes.len()).unwrap_or(u64::MAX)))
    }
}

/// SIGKILL, and what was not synced is gone: all of it, or each page for itself.
pub(super) struct PowerLoss;

#[async_trait(?Send)]
impl Fault for PowerLoss {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let wanted = how_many(scene, dice);
        let Some(taken) = scene.take_or_all(wanted, dice).await else { return Ok(Struck::Skipped) };
        let mut hits = 0;
        let mut order = taken.nodes.clone();
        dice.shuffle(&mut order);
        for at in &order {
            scene.cluster.node(*at)?.kill().await?;
            // Not all at one moment: what the last ones still acknowledge, the first ones do not know.
            tokio::time::sleep(dice.millis(STAGGER_MS)).await;
        }
        for at in &order {
            let node = scene.cluster.node(*at)?;
            let (loss, how) = if dice.chance(50) {
                (Loss::All, "all of it")
            } else {
                (Loss::Some(Box::new(dice.split())), "page by page")
            };
            let names = if dice.chance(75) { Names::Strict } else { Names::Journaled };
            let lost = node.disk.lose_power(loss);
            let lost = lost.map_err(|err| HarnessError::new(&format!("power loss of {}", node.name), err))?;
            // For what comes after: what was lost was lost by the rules of before.
            node.disk.set_names(names);
            scene.stage.say(format!(
                "{} lost power and what was not synced, {how}: {} pages of {} files, {} names; names are now {names:?}",
                node.name, lost.pages, lost.files, lost.names
            ));
            hits += 1;
        }
        scene.hold().await;
        scene.bring_back(&taken.nodes).await?;
        Ok(Struck::Done(hits))
    }
}

/// SIGTERM, node by node; one is down at a time.
pub(super) struct RollingRestart;

#[async_trait(?Send)]
impl Fault for RollingRestart {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let mut order: Vec<usize> = (0..scene.cluster.nodes.len()).collect();
        dice.shuffle(&mut order);
        let mut hits = 0;
        for at in order {
            let Some(taken) = scene.take_this(at).await else { continue };
            let node = scene.cluster.node(at)?;
            let status = node.terminate(END_LIMIT).await?;
            if !status.success() {
                return Err(HarnessError(format!("{} did not end well when asked to: {status}", node.name)));
            }
            scene.stage.say(format!("{} ended when asked to", node.name));
            scene.cluster.restart(at, BACK_LIMIT).await?;
            scene.stage.say(format!("{} is back", node.name));
            hits += 1;
            drop(taken);
            tokio::time::sleep(scene.hold / 8).await;
        }
        Ok(if hits == 0 { Struck::Skipped } else { Struck::Done(hits) })
    }
}
