//! The active node is killed again and again while writers go on through the standbys: how long nothing was
//! acknowledged, and whether anything acknowledged was lost.

use std::time::Duration;

use crate::load::{Writer, read_number};
use crate::{Cluster, HarnessError};

/// Writers at once.
const WRITERS: usize = 4;
/// Acknowledged writes of each writer before a kill.
const WRITES_BEFORE: u64 = 50;
/// Acknowledged writes of each writer after a kill, before the killed node comes back.
const WRITES_AFTER: u64 = 50;
/// A cluster that does not write for so long does not come back by itself.
const LIVENESS: Duration = Duration::from_secs(30);

/// What one kill did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kill {
    /// Longest time any one writer went without an acknowledgement.
    pub gap: Duration,
    /// Writes acknowledged around it.
    pub acknowledged: u64,
    /// Writes that failed, or whose outcome stayed unknown.
    pub failed: u64,
}

/// Kills the active node under steady writes through the standbys, checks that nothing is lost, starts it again,
/// unseals it and checks that it is back.
///
/// # Errors
/// When a write is lost, or the cluster or the node does not come back.
pub async fn kill_active(cluster: &mut Cluster, round: usize) -> Result<Kill, HarnessError> {
    let active = cluster.active().await?;
    let standbys = cluster.standbys().await?;
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let mut clients = standbys.iter().map(|at| cluster.client(*at)).collect::<Result<Vec<_>, _>>()?;
        // Half of them begin at each standby.
        let turn = number % clients.len().max(1);
        clients.rotate_left(turn);
        writers.push(Writer::start(&format!("round{round}-writer{number}"), clients));
    }
    progress(&writers, WRITES_BEFORE).await?;
    cluster.kill(active)?;
    progress(&writers, WRITES_AFTER).await?;
    cluster.launch(active)?;
    cluster.unseal(active).await?;
    progress(&writers, WRITES_AFTER).await?;
    let mut kill = Kill::default();
    let back = cluster.client(active)?;
    for (number, writer) in writers.into_iter().enumerate() {
        // Read through the node that was killed: it must have caught up to answer.
        let report = writer.finish(&back).await?;
        kill.gap = kill.gap.max(report.longest_gap);
        kill.acknowledged += report.acknowledged;
        kill.failed += report.failed;
        for earlier in 0..round {
            let key = format!("round{earlier}-writer{number}");
            let found =
                read_number(&back, &key).await.map_err(|err| HarnessError::new("reading back", err))?;
            if found.is_none() {
                return Err(HarnessError(format!("LOST: {key}, of an earlier round, is gone")));
            }
        }
    }
    cluster.wait_for_voters(cluster.nodes.len()).await?;
    Ok(kill)
}

async fn progress(writers: &[Writer], more: u64) -> Result<(), HarnessError> {
    for writer in writers {
        writer.progress(more, LIVENESS).await?;
    }
    Ok(())
}

/// The middle and the largest of some gaps.
#[must_use]
pub fn p50_and_max(kills: &[Kill]) -> (Duration, Duration) {
    let mut gaps: Vec<Duration> = kills.iter().map(|kill| kill.gap).collect();
    gaps.sort_unstable();
    let middle = gaps.get(gaps.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    (middle, gaps.last().copied().unwrap_or_default())
}
