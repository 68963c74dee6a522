//! Disks that fail, run full, stall, and hold bits that read wrong.
//!
//! A node may end itself over any of these, and often should; when its disk is healed it is started again.

use std::time::{Duration, Instant};

use arca_harness::HarnessError;
use async_trait::async_trait;

use super::{BACK_LIMIT, Fault, Scene, Struck};
use crate::dice::Dice;
use crate::disk::{Effect, Files, Operation, Trouble};

/// Between two looks at a node that suffers.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);
/// Bits flipped in what a node receives as a snapshot.
const SNAPSHOT_FLIPS: usize = 3;

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
    let was_active = scene.cluster.active().await == Some(at);
    node.disk.trouble(trouble);
    watch(scene, at, was_active).await;
    node.disk.heal();
    scene.bring_back(&[at]).await?;
    Ok(Struck::Done(count(node.disk.hits()) - before))
}

/// Holds, and says when the node ended itself, and when another became active in its place.
async fn watch(scene: &Scene<'_>, at: usize, was_active: bool) {
    let Ok(node) = scene.cluster.node(at) else { return };
    let start = Instant::now();
    let (mut has_ended, mut is_replaced) = (false, !was_active);
    while start.elapsed() < scene.hold {
        if !has_ended && let Some(end) = node.end() {
            scene.stage.say(format!("{} {end}, after {} ms", node.name, start.elapsed().as_millis()));
            has_ended = true;
        }
        if !is_replaced && let Some(now) = scene.cluster.active().await.filter(|now| *now != at) {
            scene.stage.say(format!("node{} is active, after {} ms", now + 1, start.elapsed().as_millis()));
            is_replaced = true;
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// Answers EIO.
pub(super) struct Broken;

#[async_trait(?Send)]
impl Fault for Broken {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        if dice.chance(30) {
            return broken_start(scene, dice).await;
        }
        // Reads of a warm node come from memory: writes and syncs are what can be hit at any time.
        let operation = [Operation::Sync, Operation::Sync, Operation::Write, Operation::Any];
        let operation = dice.pick(&operation).copied().unwrap_or(Operation::Sync);
        let files = dice.pick(&[Files::Log, Files::Log, Files::Any]).copied().unwrap_or(Files::Any);
        let times = if dice.chance(50) { Some(1) } else { None };
        suffer(scene, dice, Trouble { operation, files, effect: Effect::Broken, times }, |hits| hits.errors)
            .await
    }
}

/// A node starts on a disk that cannot be read, and again on one that can.
async fn broken_start(scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
    let Some((at, _taken)) = scene.take_one(dice).await else { return Ok(Struck::Skipped) };
    let node = scene.cluster.node(at)?;
    let before = node.disk.hits().errors;
    node.kill().await?;
    let files = dice.pick(&[Files::Log, Files::State]).copied().unwrap_or(Files::Any);
    let times = if dice.chance(50) { Some(dice.within(1..20)) } else { None };
    node.disk.trouble(Trouble { operation: Operation::Read, files, effect: Effect::Broken, times });
    scene.stage.say(format!("{} starts with {files:?} files that cannot be read", node.name));
    if let Err(err) = scene.cluster.restart(at, scene.hold).await {
        scene.stage.say(err.0);
    }
    node.kill().await?;
    node.disk.heal();
    scene.bring_back(&[at]).await?;
    Ok(Struck::Done(node.disk.hits().errors - before))
}

/// Says that no space is left, and may answer ENOSPC.
pub(super) struct Full;

#[async_trait(?Send)]
impl Fault for Full {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        // Hardly any space is left, which a node may see coming; or none from one moment to the next.
        let effect = if dice.chance(50) { Effect::AlmostFull } else { Effect::Full };
        let trouble = Trouble { operation: Operation::Write, files: Files::Any, effect, times: None };
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

/// A member is put out and joins again on an empty disk, on which bits of what it receives read wrong. It may fail to
/// join; then it joins once more, on a disk that is well.
pub(super) struct BitFlipSnapshot;

#[async_trait(?Send)]
impl Fault for BitFlipSnapshot {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let Some((at, _taken)) = scene.take_one(dice).await else { return Ok(Struck::Skipped) };
        let node = scene.cluster.node(at)?;
        let before = node.disk.hits().flips;
        scene.cluster.remove_member(at).await?;
        for _ in 0..SNAPSHOT_FLIPS {
            node.disk.flip_bit(Files::Tables, dice.split());
        }
        scene
            .stage
            .say(format!("{} was removed, and joins with flipped bits in what it receives", node.name));
        match scene.cluster.rejoin(at, scene.hold).await {
            Ok(()) => scene.hold().await,
            Err(err) => scene.stage.say(err.0),
        }
        let flips = node.disk.hits().flips - before;
        node.disk.heal();
        scene.cluster.remove_member(at).await?;
        scene.cluster.rejoin(at, BACK_LIMIT).await?;
        Ok(Struck::Done(flips))
    }
}
