//! Disks that fail, run full, stall, and hold bits that read wrong.
//!
//! A node may end itself over any of these, and often should; when its disk is healed it is started again.

use arca_harness::HarnessError;
use async_trait::async_trait;

use super::{Fault, Scene, Struck};
use crate::dice::Dice;
use crate::disk::{Effect, Files, Operation, Trouble};

/// Holds a trouble on one node's disk, heals it, and brings the node back. Answers the hits that `count` finds.
async fn suffer(
    scene: &Scene<'_>,
    dice: &mut Dice,
    trouble: Trouble,
    count: impl Fn(crate::disk::Hits) -> u64,
) -> Result<Struck, HarnessError> {
    let Some((at, _taken)) = scene.take_one(dice).await else { return Ok(Struck::Skipped) };
    let node = scene.cluster.node(at)?;
    let before = count(node.disk.hits());
    let often = trouble.times.map_or("until healed".to_owned(), |times| format!("{times} times"));
    scene.stage.say(format!(
        "the disk of {}: {:?} of {:?} files is {:?}, {often}",
        node.name, trouble.operation, trouble.files, trouble.effect
    ));
    node.disk.trouble(trouble);
    scene.hold().await;
    node.disk.heal();
    if let Some(end) = node.end() {
        scene.stage.say(format!("{} had {end}", node.name));
    }
    scene.bring_back(&[at]).await?;
    Ok(Struck::Done(count(node.disk.hits()) - before))
}

/// Answers EIO.
pub(super) struct Broken;

#[async_trait(?Send)]
impl Fault for Broken {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        // Reads of a warm node come from memory: writes and syncs are what can be hit at any time.
        let operation = [Operation::Sync, Operation::Sync, Operation::Write, Operation::Any];
        let operation = dice.pick(&operation).copied().unwrap_or(Operation::Sync);
        let files = dice.pick(&[Files::Log, Files::Log, Files::Any]).copied().unwrap_or(Files::Any);
        let times = if dice.chance(50) { Some(1) } else { None };
        suffer(scene, dice, Trouble { operation, files, effect: Effect::Broken, times }, |hits| hits.errors)
            .await
    }
}

/// Answers ENOSPC.
pub(super) struct Full;

#[async_trait(?Send)]
impl Fault for Full {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let trouble =
            Trouble { operation: Operation::Write, files: Files::Any, effect: Effect::Full, times: None };
        suffer(scene, dice, trouble, |hits| hits.refusals).await
    }
}

/// Does not answer.
pub(super) struct Stalled;

#[async_trait(?Send)]
impl Fault for Stalled {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let operation = dice.pick(&[Operation::Sync, Operation::Write, Operation::Any]).copied();
        let operation = operation.unwrap_or(Operation::Any);
        let trouble = Trouble { operation, files: Files::Any, effect: Effect::Stall, times: None };
        suffer(scene, dice, trouble, |hits| hits.stalls).await
    }
}

/// A bit that reads wrong while a node starts. It may refuse to start, or notice later, or never read it again; what it
/// must not do is serve it.
pub(super) struct BitFlip {
    pub(super) files: Files,
}

#[async_trait(?Send)]
impl Fault for BitFlip {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let Some((at, _taken)) = scene.take_one(dice).await else { return Ok(Struck::Skipped) };
        let node = scene.cluster.node(at)?;
        let before = node.disk.hits().flips;
        node.kill().await?;
        node.disk.flip_bit(self.files, dice.split());
        scene.stage.say(format!("{} starts with a bit of its {:?} files flipped", node.name, self.files));
        if let Err(err) = scene.cluster.restart(at, scene.hold).await {
            scene.stage.say(err.0);
        } else {
            scene.hold().await;
        }
        let flips = node.disk.hits().flips - before;
        node.kill().await?;
        node.disk.heal();
        scene.bring_back(&[at]).await?;
        Ok(Struck::Done(flips))
    }
}
