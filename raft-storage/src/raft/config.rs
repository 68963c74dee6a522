//! What a member is told at its start, checked and turned into openraft's settings.
//!
//! [`super`] says why each differs from openraft's default. Read next: [`RaftConfig`].

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use super::OpenError;
use crate::MemberId;
use crate::command::BATCH_SETS_MAX;
use crate::log::ClusterId;
use crate::state::FlushPolicy;

/// Everything a member needs to know, beside where its files and its peers are.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// This member.
    pub id: MemberId,
    /// The cluster it belongs to. Files and peers of another one are refused.
    pub cluster_id: String,
    /// How long things may take.
    pub timings: Timings,
    /// How large things may grow.
    pub limits: Limits,
    /// How much log is kept.
    pub retention: Retention,
    /// Whether all log is kept, up to [`Retention::bytes_max`], until [`super::Changes::hold_log`] says what is needed: a
    /// member that starts does not know yet which secondaries still need what.
    pub holds_log: bool,
    /// When the state machine makes durable what it applied.
    pub flush: FlushPolicy,
    /// Below this many free bytes, writes are refused and leadership is handed over.
    pub low_water_bytes: u64,
    /// Where blocking work runs.
    pub threads: Threads,
    /// What openraft's random choices follow from, with this member's id, so that a simulation can be run again. `None`
    /// outside of one.
    pub seed: Option<u64>,
}

impl RaftConfig {
    /// The defaults, for member `id` of the cluster called `cluster_id`.
    #[must_use]
    pub fn new(id: MemberId, cluster_id: impl Into<String>) -> Self {
        Self {
            id,
            cluster_id: cluster_id.into(),
            timings: Timings::default(),
            limits: Limits::default(),
            retention: Retention::default(),
            holds_log: false,
            flush: FlushPolicy::default(),
            low_water_bytes: 256 << 20,
            threads: Threads::Spawn,
            seed: None,
        }
    }

    /// The short form of the cluster's name, as files and messages carry it.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        let hash = blake3::hash(self.cluster_id.as_bytes());
        ClusterId(std::array::from_fn(|at| hash.as_bytes().get(at).copied().unwrap_or_default()))
    }

    pub(super) fn openraft(&self) -> Result<Config, OpenError> {
        let Self { timings, limits, .. } = self;
        let config = Config {
            cluster_name: self.cluster_id.clone(),
            heartbeat_interval: millis(timings.heartbeat),
            election_timeout_min: millis(timings.election_min),
            election_timeout_max: millis(timings.election_max),
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            quorum_loss_probe_interval: Some(millis(
                timings.lease() + timings.election_max + timings.heartbeat,
            )),
            broadcast_submitted_on_append: Some(true),
            max_payload_entries: limits.append_entries,
            install_snapshot_timeout: millis(timings.snapshot),
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            replication_lag_threshold: limits.promote_lag,
            api_channel_size: Some(1024),
            backoff: "20ms 40ms 80ms ..500ms".to_owned(),
            ..Config::default()
        };
        config.validate().map_err(|err| OpenError::Config(err.to_string()))
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        let Self { id, timings, limits, .. } = self;
        let wrong = |what: &str| Err(OpenError::Config(what.to_owned()));
        if id.0 == 0 {
            return wrong("member id 0 is reserved");
        }
        if self.cluster_id.is_empty() {
            return wrong("the cluster needs a name");
        }
        if timings.heartbeat * 2 > timings.election_min {
            return wrong("the election timeout must be at least two heartbeats");
        }
        if limits.entry_sets == 0 || limits.entry_sets > BATCH_SETS_MAX || limits.entries_in_flight == 0 {
            return wrong(
                "sets per entry and entries in flight must be at least 1 and within the format's limit",
            );
        }
        Ok(())
    }
}

/// How long things may take. All are upper bounds of waiting, none is a pace, save for the heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Shortest wait of a follower, beyond the lease, before it campaigns.
    pub election_min: Duration,
    /// Longest such wait, and the length of a leader's lease.
    pub election_max: Duration,
    /// For one AppendEntries to be answered, which takes a sync.
    pub append: Duration,
    /// For a proposal to be applied; longer, and its outcome is unknown.
    pub propose: Duration,
    /// For a read to be confirmed, elections included.
    pub read: Duration,
    /// For a membership change to be committed.
    pub membership: Duration,
    /// For a learner to catch up before it is promoted.
    pub promote: Duration,
    /// For another member to take over.
    pub transfer: Duration,
    /// For a snapshot to be sent and installed.
    pub snapshot: Duration,
    /// How often disk space, a hanging disk, flushing and purging are looked at.
    pub check: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(80),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(400),
            append: Duration::from_secs(2),
            propose: Duration::from_secs(10),
            read: Duration::from_secs(5),
            membership: Duration::from_secs(30),
            promote: Duration::from_secs(60),
            transfer: Duration::from_secs(5),
            snapshot: Duration::from_secs(3600),
            check: Duration::from_millis(100),
        }
    }
}

impl Timings {
    /// How long nothing is heard of a leader before nobody is said to lead: several elections could have been.
    pub(super) const fn silence(&self) -> Duration {
        self.election_max.saturating_mul(5)
    }

    /// How long a quorum's answer keeps others from being elected. openraft uses the longest election timeout.
    pub(super) const fn lease(&self) -> Duration {
        self.election_max
    }

    /// How old a quorum's answer may be for a read to rely on it: less than the lease, so that two clocks may differ
    /// in pace by a quarter.
    pub(super) fn lease_for_reads(&self) -> Duration {
        self.lease() * 3 / 4
    }
}

/// How large things may grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most write sets in one entry.
    pub entry_sets: usize,
    /// An entry takes no further write set beyond this.
    pub entry_bytes: usize,
    /// Entries on their way at once. More shortens the wait of a proposal that just missed one; fewer makes larger
    /// entries.
    pub entries_in_flight: usize,
    /// Proposals that wait before callers are held back.
    pub queue: usize,
    /// Largest write set.
    pub set_bytes: usize,
    /// Most entries in one AppendEntries. Their bytes are bounded by the log.
    pub append_entries: u64,
    /// A log segment is sealed once it is this large.
    pub segment_bytes: u64,
    /// A learner this close to the leader's log is promoted.
    pub promote_lag: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entry_sets: 512,
            entry_bytes: 1 << 20,
            entries_in_flight: 4,
            queue: 8192,
            set_bytes: 7 << 20,
            append_entries: 512,
            segment_bytes: 64 << 20,
            promote_lag: 1000,
        }
    }
}

/// How much log is kept after the state machine has made it durable. In bytes: what a member may miss without
/// needing a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Kept in any case.
    pub bytes: u64,
    /// Kept as long as a member that answers, or a secondary ([`super::Changes::hold_log`]), still needs it.
    pub bytes_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { bytes: 512 << 20, bytes_max: 4 << 30 }
    }
}

/// Where blocking work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Nowhere: in the tasks themselves. For the simulation, which has no threads.
    None,
    /// The log's writer has a thread of its own, and flushes run on the blocking pool.
    Spawn,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
