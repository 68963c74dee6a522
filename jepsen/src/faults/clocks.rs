//! Wall clocks set wrong, and right again.

use arca_harness::HarnessError;
use async_trait::async_trait;

use super::{Fault, Scene, Struck};
use crate::dice::Dice;

/// One node's clock is off by up to an hour.
pub(super) struct Offset;

#[async_trait(?Send)]
impl Fault for Offset {
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError> {
        let Some((at, _taken)) = scene.take_one(dice).await else { return Ok(Struck::Skipped) };
        let node = scene.cluster.node(at)?;
        let most = dice.pick(&[500_u64, 5_000, 60_000, 3_600_000]).copied().unwrap_or(5_000);
        let by = i64::try_from(dice.within(most / 5..most)).unwrap_or_default();
        let by = if dice.chance(50) { by } else { -by };
        let failed =
            |err: std::io::Error| HarnessError::new(&format!("setting the clock of {}", node.name), err);
        node.clock.set_offset_millis(by).map_err(failed)?;
        scene.stage.say(format!("the clock of {} is {by} ms off", node.name));
        scene.hold().await;
        let client = scene.cluster.client(at)?;
        let told = client.sys().health().await.ok().map(|health| health.server_time_utc);
        node.clock.set_offset_millis(0).map_err(failed)?;
        scene.bring_back(&[at]).await?;
        // What it told is shown only: an answer may have waited.
        scene.stage.say(format!("the clock of {} is right again; it had told {told:?}", node.name));
        Ok(Struck::Done(1))
    }
}
