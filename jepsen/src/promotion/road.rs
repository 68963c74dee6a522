//! The way between two regions: each node of either reaches each node of the other at its own address, through proxies that take
//! their time. It is cut for both, or one way only, and let go again: then the secondary falls behind, and catches up.

use std::net::SocketAddr;
use std::time::Duration;

use arca_harness::HarnessError;

use super::region::Region;
use crate::cluster::CLUSTER_PORT;
use crate::dice::Dice;
use crate::faults::FaultLog;
use crate::proxy::{Network, Site};

/// Class of a cut in both directions.
pub(super) const CUT: &str = "link cut";
/// Class of a cut in one direction.
pub(super) const ONE_WAY: &str = "link one-way";

/// Held so long, in milliseconds.
const HOLD_MS: std::ops::Range<u64> = 1_000..7_000;
/// Between two of them, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 1_500..5_000;

/// Which directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ways {
    Both,
    /// From the named region on nothing arrives.
    From(&'static str),
}

impl Ways {
    fn begin_at(self, from: Site) -> bool {
        match self {
            Self::Both => true,
            Self::From(name) => from == Site::Region(name),
        }
    }
}

/// See the module's header. Everything ends when it is dropped.
pub(super) struct Road {
    network: Network,
}

impl Road {
    /// Opens it; each direction takes `delay`.
    pub(super) fn open(
        east: &Region,
        west: &Region,
        delay: Duration,
        dice: Dice,
    ) -> Result<Self, HarnessError> {
        let road = Self { network: Network::new(dice) };
        let failed = |err| HarnessError::new("opening the road between the regions", err);
        for (from, to) in [(east, west), (west, east)] {
            for near in &from.cluster.nodes {
                for (at, far) in to.cluster.nodes.iter().enumerate() {
                    let address = SocketAddr::from((to.cluster.address(at), CLUSTER_PORT));
                    let listener = near.inside.listen(address).map_err(failed)?;
                    let (from, to) = (Site::Region(from.name), Site::Region(to.name));
                    road.network.carry(from, listener, to, far.inside.clone(), address);
                }
            }
        }
        road.network.change(|_, _| true, |rules| rules.delay = delay);
        Ok(road)
    }

    /// Nothing passes these ways any more. What was under way waits, or is lost if connections are to be reset.
    pub(super) fn block(&self, ways: Ways, is_reset: bool) {
        self.network.change(|from, _| ways.begin_at(from), |rules| rules.blocks += 1);
        if is_reset {
            self.network.cut(|from, _| ways.begin_at(from));
        }
    }

    /// Lets go what [`Self::block`] held.
    pub(super) fn free(&self, ways: Ways) {
        self.network
            .change(|from, _| ways.begin_at(from), |rules| rules.blocks = rules.blocks.saturating_sub(1));
    }

    /// Chunks held and connections reset so far.
    fn disturbed(&self) -> u64 {
        self.network.traffic().values().map(|traffic| traffic.held + traffic.resets).sum()
    }

    /// Cuts it and lets it go for a time: first both ways, then as the dice say.
    pub(super) async fn trouble(&self, length: Duration, dice: &mut Dice, log: &FaultLog) {
        let start = tokio::time::Instant::now();
        let mut ways = Ways::Both;
        loop {
            tokio::time::sleep(dice.millis(PAUSE_MS)).await;
            if start.elapsed() >= length {
                return;
            }
            let (class, what) = match ways {
                Ways::Both => (CUT, "nothing passes between the regions".to_owned()),
                Ways::From(name) => (ONE_WAY, format!("nothing passes from the {name}")),
            };
            let stage = log.begin(class);
            let before = self.disturbed();
            let is_reset = dice.chance(50);
            self.block(ways, is_reset);
            stage.say(format!("{what}; connections {}", if is_reset { "were reset" } else { "stay" }));
            tokio::time::sleep(dice.millis(HOLD_MS)).await;
            self.free(ways);
            stage.healed(self.disturbed() - before);
            let next = [Ways::Both, Ways::From("east"), Ways::From("west")];
            ways = dice.pick(&next).copied().unwrap_or(Ways::Both);
        }
    }
}
