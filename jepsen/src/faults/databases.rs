//! The database beside the cluster: out of reach, stalled, ended and started again.
//!
//! Most strikes are short: a database that is out for as long as six attempts at a revocation take has its leases given up,
//! which is no fault. Some are longer than anything that waits for it.

use std::sync::Arc;
use std::time::Duration;

use arca_harness::HarnessError;
use async_trait::async_trait;

use super::{Fault, Scene, Struck, names};
use crate::dice::Dice;
use crate::postgres::{Ending, Postgres};
use crate::proxy::Site;

/// The longest of the short strikes.
const SHORT_MAX: Duration = Duration::from_secs(4);
/// How many of a hundred strikes that can be are long.
const LONG_PERCENT: u64 = 5;
/// How long those are, in milliseconds: engines give their databases 45 seconds.
const LONG_MS: std::ops::Range<u64> = 50_000..75_000;

fn database(scene: &Scene<'_>) -> Option<Arc<Postgres>> {
    scene.cluster.database.clone()
}

/// Holds for a while, or for long.
async fn hold(scene: &Scene<'_>, dice: &mut Dice) {
    let length = if dice.chance(LONG_PERCENT) { dice.millis(LONG_MS) } else { scene.hold.min(SHORT_MAX) };
    if length > SHORT_MAX {
        scene.stage.say(format!("for {} s", length.as_secs()));
    }
    tokio::time::sleep(length).await;
}

/// The ways between nodes and the database are blocked, or one way of them; what is under way may be lost.
pub(super) struct Cut;

#[async_trait(?Send)]
impl Fault for Cut {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let Some(database) = database(scene) else { return Ok(Struck::Skipped) };
        let _turn = database.turn().await;
        // Thrown whatever the cluster is like, so that a seed's later throws are the same.
        let is_for_active = dice.chance(60);
        let nodes: Vec<usize> = match scene.cluster.active().await {
            Some(active) if is_for_active => vec![active],
            _ => (0..scene.cluster.nodes.len()).collect(),
        };
        let (forth, back, what) = match dice.within(0..3) {
            0 => (true, false, "is not heard by the database"),
            1 => (false, true, "does not hear the database"),
            _ => (true, true, "is cut off from the database"),
        };
        let is_way = |from: Site, to: Site| match (from, to) {
            (Site::Node(at), Site::Database) => forth && nodes.contains(&at),
            (Site::Database, Site::Node(at)) => back && nodes.contains(&at),
            _ => false,
        };
        let held = || {
            let traffic = scene.cluster.network.traffic();
            let ways = traffic.iter().filter(|((from, to), _)| [*from, *to].contains(&Site::Database));
            ways.map(|(_, traffic)| traffic.held + traffic.resets).sum::<u64>()
        };
        let before = held();
        let network = &scene.cluster.network;
        network.change(is_way, |rules| rules.blocks += 1);
        if dice.chance(30) {
            network.cut(is_way);
        }
        scene.stage.say(format!("{} {what}", names(&nodes)));
        hold(scene, dice).await;
        // What was held up never arrives then: a COMMIT, or the answer to one.
        if dice.chance(50) {
            network.cut(is_way);
            scene.stage.say("what was under way is lost");
        }
        network.change(is_way, |rules| rules.blocks = rules.blocks.saturating_sub(1));
        Ok(Struck::Done(held() - before))
    }
}

/// The database ends, by order or by a crash, and starts again.
pub(super) struct Restart;

#[async_trait(?Send)]
impl Fault for Restart {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let Some(database) = database(scene) else { return Ok(Struck::Skipped) };
        let _turn = database.turn().await;
        let (how, what) =
            if dice.chance(50) { (Ending::Fast, "was ended") } else { (Ending::Immediate, "crashed") };
        database.end(how).await?;
        scene.stage.say(format!("the database {what}"));
        tokio::time::sleep(scene.hold.min(SHORT_MAX)).await;
        database.run().await?;
        Ok(Struck::Done(1))
    }
}

/// The database does not go on for a while.
pub(super) struct Stall;

#[async_trait(?Send)]
impl Fault for Stall {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let Some(database) = database(scene) else { return Ok(Struck::Skipped) };
        let _turn = database.turn().await;
        database.stall()?;
        scene.stage.say("the database stands still");
        hold(scene, dice).await;
        database.resume();
        Ok(Struck::Done(1))
    }
}
