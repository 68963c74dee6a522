//! `sys/replication/<kind>/status`, as this node sees it: the field names of this family, and figures of our own beside
//! them.

use std::time::Duration;

use arca_engine_api::{Map, UnixMillis};
use arca_kernel::KernelError;
use arca_kernel::replication::{Kind, Mode, RoleRecord};
use arca_kernel::rfc3339;
use arca_raft_storage::Replica as _;
use arca_replication::{CatchupProgress, Ended, State};
use serde_json::{Value, json};

use super::follower::Told;
use super::{Replicator, shipped};

/// A peer that was heard of in this time is connected.
const CONNECTED_MS: u64 = 10_000;

/// Between two looks at how far secondaries are that are waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One secondary, as a primary's active node knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lag {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// None while that cannot be told: a node that has just become active.
    pub(super) seconds: Option<f64>,
}

fn object(value: Value) -> Map {
    if let Value::Object(map) = value { map } else { Map::new() }
}

fn time(at_ms: u64) -> String {
    if at_ms == 0 { String::new() } else { rfc3339::format(UnixMillis(at_ms)) }
}

/// As this family shows cluster addresses; nothing if there is none.
fn url(addr: &str) -> String {
    if addr.is_empty() { String::new() } else { format!("https://{addr}") }
}

/// Who took over, as far as it was said.
fn fence_of(role: &RoleRecord) -> Option<Value> {
    let fence = role.fence.as_ref()?;
    let addresses: Vec<_> = fence.primary_addresses.iter().map(|addr| url(addr)).collect();
    Some(
        json!({ "epoch": fence.epoch, "heard_at": time(fence.heard_at), "primary_cluster_addrs": addresses }),
    )
}

#[allow(clippy::cast_precision_loss)] // Milliseconds of a lag that a person reads.
pub(super) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1e3
}

impl Replicator {
    fn now_ms(&self) -> u64 {
        self.now().0
    }

    pub(super) fn status_of(&self, kind: Kind) -> Result<Map, KernelError> {
        let role = self.role(kind)?;
        match role.mode {
            Mode::Disabled => Ok(object(json!({ "mode": "disabled" }))),
            Mode::Primary => self.primary_status(kind, &role),
            Mode::Secondary => self.secondary_status(kind, &role),
        }
    }

    /// Whether it takes no writes: it heard of a newer primary or, as the active node sees it, hears no DR secondary.
    pub(super) fn is_fenced(&self, role: &RoleRecord) -> bool {
        let is_alone = || self.active().is_ok_and(|kernel| kernel.standing().alone_after().is_some());
        role.fence.is_some() || role.fence_after().is_some() && is_alone()
    }

    fn primary_status(&self, kind: Kind, role: &RoleRecord) -> Result<Map, KernelError> {
        let applied = self.replica.status().applied_index;
        let known = self.load_secondaries(kind)?;
        let known: Vec<String> =
            known.into_iter().filter(|(_, record)| !record.is_revoked).map(|(id, _)| id).collect();
        let fence = fence_of(role);
        let mut status = object(json!({
            "mode": "primary",
            "state": if self.is_fenced(role) { "fenced" } else { "running" },
            "fence_after": role.fence_after_s,
            "cluster_id": role.replication_id,
            "primary_cluster_addr": url(&role.primary_cluster_addr),
            "known_secondaries": known,
            "secondaries": self.secondary_rows(kind),
            "last_wal": applied,
            "epoch": role.epoch,
            "fence": fence,
        }));
        let wal = match kind {
            Kind::Dr => "last_dr_wal",
            Kind::Performance => "last_performance_wal",
        };
        status.insert(wal.to_owned(), json!(applied));
        status.extend(self.common(kind)?);
        Ok(status)
    }

    /// No `merkle_root`: it is made when it is asked for (`merkle-check`), and two of nothing would look equal.
    fn common(&self, kind: Kind) -> Result<Map, KernelError> {
        Ok(object(json!({
            "corrupted_merkle_tree": false,
            "last_corruption_check_epoch": "-62135596800",
            "last_reindex_epoch": "0",
            "pending": self.pending(kind)?,
            "ssct_generation_counter": 0,
        })))
    }

    /// Of the secondaries that were heard lately, how many have applied an entry, and how many have not.
    fn applied_by_secondaries(&self, kind: Kind, index: u64) -> (usize, usize) {
        let now = self.now_ms();
        let mut known = self.source.secondaries(shipped(kind));
        known.retain(|one| one.heard_at_ms.is_some_and(|at| now.saturating_sub(at) < CONNECTED_MS));
        let has =
            known.iter().filter(|one| one.acknowledged.is_some_and(|cursor| cursor.index >= index)).count();
        (has, known.len() - has)
    }

    /// Waits until all of these have applied an entry, at most `patience`; answers how many have.
    pub(super) async fn until_applied_by_secondaries(
        &self,
        kind: Kind,
        index: u64,
        patience: Duration,
    ) -> Result<usize, KernelError> {
        let all_have = async {
            while self.applied_by_secondaries(kind, index).1 > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(patience, all_have).await.is_err() {
            tracing::warn!(
                kind = kind.name(),
                index,
                "not all secondaries that are there have an entry in time"
            );
        }
        Ok(self.applied_by_secondaries(kind, index).0)
    }

    /// One row for each node of a secondary that has been here lately, and one for those of which no node was.
    fn secondary_rows(&self, kind: Kind) -> Vec<Value> {
        let now = self.now_ms();
        let met = self.met.lock().clone();
        let mut rows = Vec::new();
        for status in self.source.secondaries(shipped(kind)) {
            let lag = self.lag_of(&status, now);
            let figures = json!({
                "secondary_id": status.id,
                "acknowledged_wal": status.acknowledged.map_or(0, |cursor| cursor.index),
                "lag_entries": lag.entries,
                "lag_bytes": lag.bytes,
                "lag_seconds": lag.seconds,
                "entries_sent": status.entries_sent,
                "bytes_sent": status.bytes_sent,
                "streams": status.streams,
            });
            let nodes: Vec<_> = met
                .iter()
                .filter(|((of_kind, of, _), _)| (*of_kind, of) == (kind, &status.id))
                .map(|(_, node)| node)
                .collect();
            for node in &nodes {
                let is_connected = now.saturating_sub(node.at_ms) < CONNECTED_MS;
                let skew = node.greeting.clock_ms.cast_signed() - node.at_ms.cast_signed();
                let mut row = object(json!({
                    "node_id": node.greeting.node_name,
                    "api_address": node.greeting.api_addr,
                    "cluster_address": format!("https://{}", node.greeting.cluster_addr),
                    "connection_status": if is_connected { "connected" } else { "disconnected" },
                    "last_heartbeat": time(node.at_ms),
                    "clock_skew_ms": skew.to_string(),
                    "last_heartbeat_duration_ms": node.greeting.took_ms.to_string(),
                    "replication_primary_canary_age_ms": now.saturating_sub(node.at_ms).to_string(),
                    "version": node.greeting.version,
                }));
                row.extend(object(figures.clone()));
                rows.push(Value::Object(row));
            }
            if nodes.is_empty() {
                let mut row = object(json!({
                    "connection_status": "disconnected",
                    "last_heartbeat": time(status.heard_at_ms.unwrap_or_default()),
                }));
                row.extend(object(figures));
                rows.push(Value::Object(row));
            }
        }
        rows
    }

    /// How far a secondary is behind, as this node knows: the time is that since it last had everything there was.
    pub(super) fn lag_of(&self, status: &arca_replication::SecondaryStatus, now_ms: u64) -> Lag {
        use arca_raft_storage::Changes as _;
        let applied = self.replica.status().applied_index;
        let at = status.acknowledged.map_or(0, |cursor| cursor.index);
        let entries = applied.saturating_sub(at);
        let bytes = if entries == 0 { 0 } else { self.replica.bytes_after(at) };
        let complete_at = if entries == 0 { Some(now_ms) } else { status.complete_at_ms };
        Lag { entries, bytes, seconds: complete_at.map(|at| seconds(now_ms.saturating_sub(at))) }
    }

    fn secondary_status(&self, kind: Kind, role: &RoleRecord) -> Result<Map, KernelError> {
        let upstream = role.upstream.clone().unwrap_or_default();
        let told = self.told(kind);
        let (cursor, _) = arca_replication::load_cursor(self.replica.view().as_ref(), shipped(kind))
            .map_err(|err| KernelError::Replica(err.into()))?;
        let is_bootstrapping = self.bootstrap_record(kind)?.is_some();
        let mut status = object(json!({
            "mode": if is_bootstrapping { "bootstrapping" } else { "secondary" },
            "state": "idle",
            "connection_state": "idle",
            "cluster_id": role.replication_id,
            "secondary_id": upstream.secondary_id,
            "known_primary_cluster_addrs": upstream.addresses.iter().map(|addr| url(addr)).collect::<Vec<_>>(),
            "primary_cluster_addr": upstream.addresses.first().map(|addr| url(addr)).unwrap_or_default(),
            "last_remote_wal": cursor.index,
            "epoch": role.epoch.max(cursor.epoch.0),
            "fence": fence_of(role),
            "primaries": [],
        }));
        status.extend(self.common(kind)?);
        if let Some(told) = told {
            status.extend(self.following_status(&told, is_bootstrapping));
        }
        Ok(status)
    }

    fn following_status(&self, told: &Told, is_bootstrapping: bool) -> Map {
        let now = self.now_ms();
        let sink = told.sink.status().borrow().clone();
        let heard = told.heard.lock().clone();
        let state = match (is_bootstrapping, sink.state) {
            (true, _) => "copy",
            (false, state) => state.name(),
        };
        let mut status = object(json!({
            "state": state,
            "connection_state": if is_bootstrapping { "connecting" } else { sink.connection.name() },
            "lag_entries": sink.lag_entries(),
            "lag_bytes": sink.lag_bytes,
            "lag_seconds": sink.lag_ms(now).map(seconds),
            "last_primary_wal": sink.primary_index,
            "entries_applied": sink.entries,
            "bytes_applied": sink.bytes,
            "last_start": time(sink.complete_at_ms.unwrap_or_default()),
            "primaries": primary_rows(&heard, now),
        }));
        let problem = told.copy_problem.lock().clone().or_else(|| sink.problem.clone());
        if let Some(problem) = problem.or_else(|| heard.problem.clone()) {
            status.insert("problem".to_owned(), json!(problem));
        }
        match &sink.ended {
            Some(Ended::Refused(refusal)) => {
                status.insert("stopped".to_owned(), json!(refusal.to_string()));
            }
            Some(Ended::Failed(reason)) => {
                status.insert("stopped".to_owned(), json!(reason));
            }
            _ => {}
        }
        let catchup = if is_bootstrapping {
            let figures = told.progress.figures();
            CatchupProgress {
                entries: figures.entries,
                entries_total: figures.entries_total,
                bytes: figures.bytes,
                bytes_total: figures.bytes_total,
                seconds_left: figures.left.map(|left| left.as_secs()),
            }
        } else {
            sink.catchup
        };
        if is_bootstrapping || matches!(sink.state, State::MerkleDiff | State::MerkleSync) {
            status.extend(object(json!({
                "sync_progress": catchup.entries,
                "sync_total_keys": catchup.entries_total,
                "sync_bytes": catchup.bytes,
                "sync_total_bytes": catchup.bytes_total,
                "sync_seconds_left": catchup.seconds_left,
            })));
        }
        status
    }
}

fn primary_rows(heard: &super::follower::Heard, now_ms: u64) -> Vec<Value> {
    let Some(welcome) = &heard.welcome else { return Vec::new() };
    let is_connected = now_ms.saturating_sub(heard.at_ms) < CONNECTED_MS;
    let rows = welcome.nodes.iter().map(|node| {
        json!({
            "node_id": node.node_name,
            "api_address": node.api_addr,
            "cluster_address": format!("https://{}", node.cluster_addr),
            "connection_status": if is_connected { "connected" } else { "disconnected" },
            "last_heartbeat": time(heard.at_ms),
            "last_heartbeat_duration_ms": heard.took.as_millis().to_string(),
            "clock_skew_ms": heard.skew_ms.to_string(),
            "replication_primary_canary_age_ms": now_ms.saturating_sub(heard.at_ms).to_string(),
            "is_active": node.is_active,
            "version": welcome.version,
        })
    });
    rows.collect()
}
