//! Flushing and purging: the state machine makes durable what it applied, and the log lets go of what is durable and
//! old enough.
//!
//! **Invariant:** the log is purged only up to what the state machine has flushed; and openraft purges only when told
//! to, here. Kept in bytes, so that a member which was away for a moment never needs a snapshot.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arca_danger::Bug;
use openraft::Instant as _;
use tokio::time::{MissedTickBehavior, interval};

use super::config::{Retention, Threads};
use super::shared::{Metrics, Shared};
use crate::ReplicaError;
use crate::log::SegmentInfo;

const PERIOD: Duration = Duration::from_secs(1);
/// A follower counts as answering for this long after its last answer.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(60);
/// What a flush may take: two memtables, and the bookkeeping.
const FLUSH_ROOM_BYTES: u64 = 64 << 20;
/// For openraft to take note of a snapshot.
const NOTE_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs until the member is shut down.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !has_room(&shared) {
            continue;
        }
        let flushed = match maybe_flush(&shared).await {
            Ok(_) if arca_danger::is(Bug::PurgeBeforeFlush) => shared.state.view().meta().index,
            Ok(flushed) => flushed,
            Err(err) => {
                shared.status.fail(&err.to_string());
                return;
            }
        };
        if let Err(err) = purge(&shared, flushed).await {
            tracing::warn!(%err, "old log could not be purged");
        }
    }
}

/// A flush that fails ends the member. On a full disk it waits instead: writes are refused meanwhile, the log has those
/// that were not, and reading goes on.
fn has_room(shared: &Shared) -> bool {
    let least = shared.config.low_water_bytes.min(FLUSH_ROOM_BYTES);
    // Not to know is no reason to put it off.
    shared.log.free_space().map_or(true, |free| free >= least)
}

async fn maybe_flush(shared: &Shared) -> io::Result<u64> {
    let policy = shared.config.flush;
    let flushed = match shared.config.threads {
        Threads::None => shared.state.maybe_flush(&policy),
        Threads::Spawn => {
            let state = shared.state.clone();
            tokio::task::spawn_blocking(move || state.maybe_flush(&policy)).await.map_err(io::Error::other)?
        }
    };
    flushed.map_err(io::Error::other)
}

async fn purge(shared: &Shared, flushed: u64) -> Result<(), ReplicaError> {
    let needed = shared.metrics(needed_by_followers).min(shared.held.load(Ordering::Relaxed));
    let Some(target) = purge_target(&shared.log.segments(), &shared.config.retention, flushed, needed) else {
        return Ok(());
    };
    if shared.log.state().purged.is_some_and(|purged| purged.index >= target) {
        return Ok(());
    }
    let stopped = |fatal| super::shared::stopped(&fatal);
    shared.raft.trigger().snapshot().await.map_err(stopped)?;
    let noted =
        |metrics: &Metrics| metrics.snapshot.is_some_and(|log_id| log_id.index >= target).then_some(());
    shared.metrics_until(NOTE_TIMEOUT, "a snapshot to be noted", noted).await?;
    shared.raft.trigger().purge_log(target).await.map_err(stopped)
}

/// As leader: the last index that every answering follower has. Others need nothing of this log.
fn needed_by_followers(metrics: &Metrics) -> u64 {
    let (Some(replication), Some(heartbeat)) = (&metrics.replication, &metrics.heartbeat) else {
        return u64::MAX;
    };
    let answers = |id: &u64| {
        let acked = heartbeat.get(id).copied().flatten();
        acked.is_some_and(|acked| acked.into_inner().elapsed() <= ANSWER_AGE_MAX)
    };
    let has = replication.iter().filter(|(id, _)| answers(id));
    has.map(|(_, matched)| matched.map_or(0, |log_id| log_id.index)).min().unwrap_or(u64::MAX)
}

/// Up to which index the log may go: whole sealed segments, oldest first, as long as enough is kept.
fn purge_target(segments: &[SegmentInfo], retention: &Retention, flushed: u64, needed: u64) -> Option<u64> {
    let mut kept: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut target = None;
    for segment in segments {
        let limit = if kept > retention.bytes_max { flushed } else { flushed.min(needed) };
        let (_, last) = segment.indexes.unwrap_or_default();
        let rest = kept.saturating_sub(segment.bytes);
        if segment.seal.is_none() || rest < retention.bytes || last > limit {
            break;
        }
        kept = rest;
        target = target.max(segment.indexes.map(|(_, last)| last));
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten sealed segments of 10 bytes, ten entries each, and an open one.
    fn check(bytes: u64, bytes_max: u64, flushed: u64, needed: u64, expected: Option<u64>) {
        let segments: Vec<SegmentInfo> = (0..11u32)
            .map(|number| SegmentInfo {
                number,
                path: "segment".into(),
                bytes: 10,
                indexes: Some((u64::from(number) * 10, u64::from(number) * 10 + 9)),
                seal: (number < 10).then_some([0; 32]),
            })
            .collect();
        let got = purge_target(&segments, &Retention { bytes, bytes_max }, flushed, needed);
        assert_eq!(got, expected, "keep {bytes} to {bytes_max}, flushed {flushed}, needed {needed}");
    }

    #[test]
    fn purges_what_is_flushed_and_not_needed() {
        check(1000, 2000, 109, u64::MAX, None);
        check(50, 2000, 109, u64::MAX, Some(59));
        check(50, 2000, 48, u64::MAX, Some(39));
        check(50, 2000, 109, 25, Some(19));
        check(50, 80, 109, 5, Some(29));
        check(0, 2000, 109, u64::MAX, Some(99));
        check(0, 2000, 3, u64::MAX, None);
    }
}
