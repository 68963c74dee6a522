//! Ways blocked, slow and lossy. Clients keep their ways to every node: what is tested is what nodes do without each
//! other.

use std::time::Duration;

use arca_harness::HarnessError;
use async_trait::async_trait;

use super::{Fault, Scene, Struck, names};
use crate::dice::Dice;
use crate::proxy::{Loss, Site};

type Blocked = Vec<(usize, usize)>;

/// Chunks held and connections reset so far.
fn disturbed(scene: &Scene<'_>) -> u64 {
    let traffic = scene.cluster.network.traffic();
    traffic.values().map(|traffic| traffic.held + traffic.stalls + traffic.resets).sum()
}

/// Blocks ways, holds, and lets them go. Connections over them stay, or are reset as well.
async fn block(scene: &Scene<'_>, dice: &mut Dice, ways: Blocked, what: String) -> Struck {
    let is_blocked = |from: Site, to: Site| match (from, to) {
        (Site::Node(from), Site::Node(to)) => ways.contains(&(from, to)),
        _ => false,
    };
    let before = disturbed(scene);
    let network = &scene.cluster.network;
    network.change(is_blocked, |rules| rules.blocks += 1);
    let is_cut = dice.chance(50);
    if is_cut {
        network.cut(is_blocked);
    }
    scene.stage.say(format!("{what}; connections {}", if is_cut { "were reset" } else { "stay" }));
    scene.hold().await;
    network.change(is_blocked, |rules| rules.blocks = rules.blocks.saturating_sub(1));
    Struck::Done(disturbed(scene) - before)
}

/// All ways between two sides.
fn between(some: &[usize], others: &[usize]) -> Blocked {
    let pairs = some.iter().flat_map(|one| others.iter().map(move |other| (*one, *other)));
    pairs.flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}

fn others(scene: &Scene<'_>, than: &[usize]) -> Vec<usize> {
    (0..scene.cluster.nodes.len()).filter(|at| !than.contains(at)).collect()
}

/// A minority is cut off.
pub(super) struct Split;

#[async_trait(?Send)]
impl Fault for Split {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let wanted = if dice.chance(50) { 1 } else { scene.cluster.minority().max(1) };
        let Some(taken) = scene.take(wanted, dice).await else { return Ok(Struck::Skipped) };
        let ways = between(&taken.nodes, &others(scene, &taken.nodes));
        Ok(block(scene, dice, ways, format!("cut {} off from the others", names(&taken.nodes))).await)
    }
}

/// Two sides see each other only through one node.
pub(super) struct Bridge;

#[async_trait(?Send)]
impl Fault for Bridge {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let wanted = if dice.chance(50) { 1 } else { scene.cluster.minority().max(1) };
        // Neither side is out, yet if another node went, the bridge's side might be all that is left.
        let Some(taken) = scene.take(wanted, dice).await else { return Ok(Struck::Skipped) };
        let mut rest = others(scene, &taken.nodes);
        dice.shuffle(&mut rest);
        let Some((bridge, far)) = rest.split_first() else { return Ok(Struck::Skipped) };
        let what = format!(
            "{} and {} see each other only through {}",
            names(&taken.nodes),
            names(far),
            names(&[*bridge])
        );
        Ok(block(scene, dice, between(&taken.nodes, far), what).await)
    }
}

/// Bytes go one way only.
pub(super) struct OneWay;

#[async_trait(?Send)]
impl Fault for OneWay {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let Some((at, _taken)) = scene.take_one(dice).await else { return Ok(Struck::Skipped) };
        let mut rest = others(scene, &[at]);
        let name = names(&[at]);
        let (ways, what): (Blocked, String) = match dice.within(0..3) {
            0 => (rest.iter().map(|other| (at, *other)).collect(), format!("nobody hears {name}")),
            1 => (rest.iter().map(|other| (*other, at)).collect(), format!("{name} hears nobody")),
            _ => {
                dice.shuffle(&mut rest);
                rest.truncate(1);
                let what = format!("{} does not hear {name}", names(&rest));
                (rest.iter().map(|other| (at, *other)).collect(), what)
            }
        };
        Ok(block(scene, dice, ways, what).await)
    }
}

fn between_nodes(from: Site, to: Site) -> bool {
    matches!((from, to), (Site::Node(_), Site::Node(_)))
}

/// All ways between nodes are slow.
pub(super) struct Slow;

#[async_trait(?Send)]
impl Fault for Slow {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let (delay, jitter) = (dice.millis(5..80), dice.millis(0..120));
        let rate = if dice.chance(30) { Some(dice.within(200_000..5_000_000)) } else { None };
        let carried = || scene.cluster.network.traffic().values().map(|traffic| traffic.bytes).sum::<u64>();
        let before = carried();
        scene.cluster.network.change(between_nodes, |rules| {
            (rules.delay, rules.jitter, rules.bytes_per_second) = (delay, jitter, rate);
        });
        let limit = rate.map_or(String::new(), |rate| format!(", {rate} bytes a second at most"));
        scene.stage.say(format!("everything between nodes takes {delay:?} and up to {jitter:?} more{limit}"));
        scene.hold().await;
        scene.cluster.network.change(between_nodes, |rules| {
            (rules.delay, rules.jitter, rules.bytes_per_second) = (Duration::ZERO, Duration::ZERO, None);
        });
        Ok(Struck::Done(carried() - before))
    }
}

/// All ways between nodes lose segments.
pub(super) struct Lossy;

#[async_trait(?Send)]
impl Fault for Lossy {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let loss = Loss { stall_percent: dice.within(1..15), reset_per_mille: dice.within(0..10) };
        let before = disturbed(scene);
        scene.cluster.network.change(between_nodes, |rules| rules.loss = loss);
        scene.stage.say(format!(
            "{} % of the segments between nodes are lost and sent again, {} of 1000 reset their connection",
            loss.stall_percent, loss.reset_per_mille
        ));
        scene.hold().await;
        scene.cluster.network.change(between_nodes, |rules| rules.loss = Loss::default());
        Ok(Struck::Done(disturbed(scene) - before))
    }
}
