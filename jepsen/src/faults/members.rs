//! Members removed and added; the active node asked to step down.

use arca_harness::HarnessError;
use async_trait::async_trait;

use super::{BACK_LIMIT, Fault, Scene, Struck};
use crate::dice::Dice;

/// A member is put out, and joins again as a new one on an empty disk.
pub(super) struct Churn;

#[async_trait(?Send)]
impl Fault for Churn {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let Some((at, _taken)) = scene.take_one(dice).await else { return Ok(Struck::Skipped) };
        let node = scene.cluster.node(at)?;
        scene.cluster.remove_member(at).await?;
        scene.stage.say(format!("{} was removed", node.name));
        scene.hold().await;
        scene.cluster.rejoin(at, BACK_LIMIT).await?;
        scene.stage.say(format!("{} is a member again", node.name));
        Ok(Struck::Done(1))
    }
}

/// The active node is asked to step down.
pub(super) struct StepDown;

#[async_trait(?Send)]
impl Fault for StepDown {
    async fn strike(&self, scene: &Scene<'_>, _: &mut Dice) -> Result<Struck, HarnessError> {
        let Some(was) = scene.cluster.step_down().await else { return Ok(Struck::Skipped) };
        scene.stage.say(format!("node{} was asked to step down", was + 1));
        scene.hold().await;
        if let Some(now) = scene.cluster.active().await {
            scene.stage.say(format!("node{} is active", now + 1));
        }
        Ok(Struck::Done(1))
    }
}
