//! Looks after the disk, ten times a second: no leadership on a disk that hangs, no writes on one that is full, and a
//! member that has just started keeps the promises of its last life.
//!
//! A failed write is another matter: the log and openraft stop by themselves, and the status says so.

use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::shared::Shared;
use crate::Role;

/// Free space is asked for every so many ticks.
const TICKS_PER_DISK_CHECK: u64 = 10;

/// Runs until the member is shut down.
pub(super) async fn run(shared: Arc<Shared>, fresh_until: Instant) {
    let mut ticks = interval(shared.config.timings.check);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut may_elect = true;
    for tick in 0u64.. {
        ticks.tick().await;
        shared.gate.is_fresh.set(Instant::now() < fresh_until);
        check_log(&shared);
        if tick % TICKS_PER_DISK_CHECK == 0 {
            check_space(&shared);
        }
        let may = !shared.gate.is_fresh.get() && !shared.gate.is_stalled.get() && !shared.status.is_failed();
        if may != may_elect || tick == 0 {
            may_elect = may;
            shared.raft.runtime_config().elect(may);
        }
    }
}

fn check_log(shared: &Arc<Shared>) {
    if let Some(reason) = shared.log.fatal() {
        shared.status.fail(&reason);
    }
    let limit = shared.config.timings.election_max;
    let is_stalled = shared.log.pending_age().is_some_and(|age| age > limit);
    if !shared.gate.is_stalled.set(is_stalled) {
        return;
    }
    shared.raft.runtime_config().heartbeat(!is_stalled);
    if is_stalled {
        tracing::warn!("writes to the log hang: leadership is handed over, votes are withheld");
        hand_over(shared);
    } else {
        tracing::info!("writes to the log go through again");
    }
}

fn check_space(shared: &Arc<Shared>) {
    let free = match shared.log.free_space() {
        Ok(free) => free,
        Err(err) => {
            tracing::warn!(%err, "cannot tell how much room the disk has");
            return;
        }
    };
    let low = shared.config.low_water_bytes;
    // Some room beyond the mark, before writes are let in again.
    let mark = if shared.gate.is_disk_full.get() { low + low / 4 } else { low };
    let is_full = free < mark;
    if !shared.gate.is_disk_full.set(is_full) {
        return;
    }
    shared.status.set_disk_full(is_full);
    if is_full {
        tracing::error!(free, low, "the disk is almost full: writes are refused, leadership is handed over");
        hand_over(shared);
    } else {
        tracing::info!(free, "the disk has room again");
    }
}

fn hand_over(shared: &Arc<Shared>) {
    if shared.status.get(0).role != Role::Leader {
        return;
    }
    let shared = shared.clone();
    tokio::spawn(async move {
        if let Err(err) = shared.transfer(None).await {
            tracing::warn!(%err, "leadership could not be handed over");
        }
    });
}
