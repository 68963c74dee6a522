//! What is done to a cluster, one type for each class of fault. Each begins, holds, and heals what it did, and says what
//! that was, when, and by which count it can be seen that something was hit.
//!
//! **Invariant:** whatever takes nodes out reserves them first ([`Cluster::reserve`]), so that a majority always can go
//! on. A fault that finds no node to take is skipped, and does not count as exercised.

mod clocks;
mod databases;
mod disks;
mod log;
mod members;
mod network;
mod processes;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use arca_harness::HarnessError;
use async_trait::async_trait;

pub use self::log::{FaultLog, Incident, Now, Stage};
use crate::cluster::{Cluster, Reserved};
use crate::dice::Dice;

/// A node that was healed is back within this, or something is wrong with it.
pub(crate) const BACK_LIMIT: Duration = Duration::from_secs(90);
/// How long a fault waits for nodes that others have taken.
const TAKE_LIMIT: Duration = Duration::from_secs(15);
/// How often a fault that may strike all nodes does, if no other fault has any.
const ALL_PERCENT: u64 = 20;
/// Between two attempts to take some.
const TAKE_INTERVAL: Duration = Duration::from_millis(100);

/// The classes, in the order they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A stored bit of the log reads wrong while a node starts.
    BitFlipLog,
    /// Bits of what a new member receives read wrong.
    BitFlipSnapshot,
    /// A stored bit of a table of the state reads wrong while a node starts and serves.
    BitFlipTable,
    /// Two sides see each other only through one node.
    Bridge,
    /// A wall clock is wrong.
    Clock,
    /// Nodes and the database do not hear each other.
    DatabaseCut,
    /// The database ends and starts again.
    DatabaseRestart,
    /// The database does not go on for a while.
    DatabaseStall,
    /// All ways are slow, by a time that varies.
    Delay,
    /// Reads, writes or syncs fail.
    DiskBroken,
    /// No space is left.
    DiskFull,
    /// The disk does not answer for a while.
    DiskStall,
    /// SIGKILL.
    Kill,
    /// Segments are lost: stalls and resets.
    Loss,
    /// A member is put out, and joins again as a new one.
    Membership,
    /// One node hears nothing, or is not heard.
    OneWay,
    /// A minority is cut off.
    Partition,
    /// SIGSTOP.
    Pause,
    /// SIGKILL, and what was not synced is gone.
    PowerLoss,
    /// Every node is stopped and started again, one after the other.
    RollingRestart,
    /// The active node is asked to step down.
    StepDown,
}

impl Class {
    /// Those of the database beside the cluster.
    pub const DATABASE: [Self; 3] = [Self::DatabaseCut, Self::DatabaseRestart, Self::DatabaseStall];

    /// All others.
    pub const ALL: [Self; 18] = [
        Self::BitFlipLog,
        Self::BitFlipSnapshot,
        Self::BitFlipTable,
        Self::Bridge,
        Self::Clock,
        Self::Delay,
        Self::DiskBroken,
        Self::DiskFull,
        Self::DiskStall,
        Self::Kill,
        Self::Loss,
        Self::Membership,
        Self::OneWay,
        Self::Partition,
        Self::Pause,
        Self::PowerLoss,
        Self::RollingRestart,
        Self::StepDown,
    ];

    /// Its name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BitFlipLog => "bitflip-log",
            Self::BitFlipSnapshot => "bitflip-snapshot",
            Self::BitFlipTable => "bitflip-table",
            Self::Bridge => "bridge",
            Self::Clock => "clock",
            Self::DatabaseCut => "database-cut",
            Self::DatabaseRestart => "database-restart",
            Self::DatabaseStall => "database-stall",
            Self::Delay => "delay",
            Self::DiskBroken => "disk-broken",
            Self::DiskFull => "disk-full",
            Self::DiskStall => "disk-stall",
            Self::Kill => "kill",
            Self::Loss => "loss",
            Self::Membership => "membership",
            Self::OneWay => "one-way",
            Self::Partition => "partition",
            Self::Pause => "pause",
            Self::PowerLoss => "power-loss",
            Self::RollingRestart => "rolling-restart",
            Self::StepDown => "step-down",
        }
    }

    /// What it does, in a line.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::BitFlipLog => "a bit of the Raft log reads wrong while a node starts",
            Self::BitFlipSnapshot => "bits of what a new member receives read wrong",
            Self::BitFlipTable => "a bit of a RocksDB table reads wrong while a node starts and serves",
            Self::Bridge => "two sides reach each other only through one node",
            Self::Clock => "a node's wall clock is set up to an hour forward or back",
            Self::DatabaseCut => {
                "nodes and the database do not hear each other, and what is under way may be lost"
            }
            Self::DatabaseRestart => "the database ends, by order or by a crash, and starts again",
            Self::DatabaseStall => "SIGSTOP to all of the database, SIGCONT",
            Self::Delay => "all ways are slow, by a time that varies",
            Self::DiskBroken => "reads, writes or syncs answer EIO, once or until healed",
            Self::DiskFull => "writes answer ENOSPC",
            Self::DiskStall => "the disk does not answer until healed",
            Self::Kill => "SIGKILL to a minority or to all, restart, unseal",
            Self::Loss => "segments are lost: connections stall or are reset",
            Self::Membership => "a member is removed, and joins again on an empty disk",
            Self::OneWay => "one node hears nothing, or is not heard, or one way of one pair is blocked",
            Self::Partition => "a minority is cut off",
            Self::Pause => "SIGSTOP, SIGCONT",
            Self::PowerLoss => "SIGKILL to a minority or to all, and everything not synced is lost",
            Self::RollingRestart => "every node is stopped by SIGTERM and started again, in turn",
            Self::StepDown => "the active node is asked to step down",
        }
    }

    /// Whether it takes a database beside the cluster.
    #[must_use]
    pub fn needs_database(self) -> bool {
        Self::DATABASE.contains(&self)
    }

    /// Whether it takes a disk that can be made to fail.
    #[must_use]
    pub const fn breaks_disks(self) -> bool {
        matches!(
            self,
            Self::BitFlipLog
                | Self::BitFlipSnapshot
                | Self::BitFlipTable
                | Self::DiskBroken
                | Self::DiskFull
                | Self::DiskStall
                | Self::PowerLoss
        )
    }

    /// The fault itself.
    #[must_use]
    pub fn fault(self) -> Box<dyn Fault> {
        match self {
            Self::BitFlipLog => Box::new(disks::BitFlip { files: crate::disk::Files::Log }),
            Self::BitFlipSnapshot => Box::new(disks::BitFlipSnapshot),
            Self::BitFlipTable => Box::new(disks::BitFlip { files: crate::disk::Files::Tables }),
            Self::Bridge => Box::new(network::Bridge),
            Self::Clock => Box::new(clocks::Offset),
            Self::DatabaseCut => Box::new(databases::Cut),
            Self::DatabaseRestart => Box::new(databases::Restart),
            Self::DatabaseStall => Box::new(databases::Stall),
            Self::Delay => Box::new(network::Slow),
            Self::DiskBroken => Box::new(disks::Broken),
            Self::DiskFull => Box::new(disks::Full),
            Self::DiskStall => Box::new(disks::Stalled),
            Self::Kill => Box::new(processes::Kill),
            Self::Loss => Box::new(network::Lossy),
            Self::Membership => Box::new(members::Churn),
            Self::OneWay => Box::new(network::OneWay),
            Self::Partition => Box::new(network::Split),
            Self::Pause => Box::new(processes::Pause),
            Self::PowerLoss => Box::new(processes::PowerLoss),
            Self::RollingRestart => Box::new(processes::RollingRestart),
            Self::StepDown => Box::new(members::StepDown),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = || Self::ALL.into_iter().chain(Self::DATABASE);
        let known = || all().map(Self::name).collect::<Vec<_>>().join(", ");
        all()
            .find(|class| class.name() == text)
            .ok_or_else(|| format!("there is no fault {text:?}; there are {}", known()))
    }
}

/// What a fault may use.
pub struct Scene<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// How long to hold what was begun.
    pub hold: Duration,
    /// Where to say what was done.
    pub stage: Stage,
}

impl Scene<'_> {
    /// Waits as long as the fault is to be held.
    pub async fn hold(&self) {
        tokio::time::sleep(self.hold).await;
    }

    /// Takes one node out: the active one in about half of the cases.
    pub(crate) async fn take_one(&self, dice: &mut Dice) -> Option<(usize, Reserved)> {
        let reserved = self.take(1, dice).await?;
        Some((*reserved.nodes.first()?, reserved))
    }

    /// Takes `wanted` nodes out: the active one is among them in about half of the cases. Other faults may have taken
    /// too many already; they are waited for, a while.
    pub(crate) async fn take(&self, wanted: usize, dice: &mut Dice) -> Option<Reserved> {
        let mut order: Vec<usize> = (0..self.cluster.nodes.len()).collect();
        dice.shuffle(&mut order);
        let wants_active = dice.chance(50);
        let deadline = tokio::time::Instant::now() + TAKE_LIMIT;
        loop {
            if wants_active
                && let Some(active) = self.cluster.active().await
                && let Some(at) = order.iter().position(|node| *node == active)
            {
                order.swap(0, at);
            }
            let reserved = self.cluster.reserve(wanted, &order);
            if reserved.is_some() || tokio::time::Instant::now() >= deadline {
                return reserved;
            }
            tokio::time::sleep(TAKE_INTERVAL).await;
        }
    }

    /// Takes `wanted` nodes out, or all of them in some cases: then nothing is left but what is on disks.
    pub(crate) async fn take_or_all(&self, wanted: usize, dice: &mut Dice) -> Option<Reserved> {
        match self.cluster.reserve_all().filter(|_| dice.chance(ALL_PERCENT)) {
            Some(all) => Some(all),
            None => self.take(wanted, dice).await,
        }
    }

    /// Takes one certain node out, once others have let go of enough, if they do so in a while.
    pub(crate) async fn take_this(&self, at: usize) -> Option<Reserved> {
        let deadline = tokio::time::Instant::now() + TAKE_LIMIT;
        loop {
            let reserved = self.cluster.reserve(1, &[at]);
            if reserved.is_some() || tokio::time::Instant::now() >= deadline {
                return reserved;
            }
            tokio::time::sleep(TAKE_INTERVAL).await;
        }
    }

    /// Starts nodes that do not run (any more) and unseals those that are sealed.
    pub(crate) async fn bring_back(&self, nodes: &[usize]) -> Result<(), HarnessError> {
        // All at once: alone, one of many may have nobody to follow.
        for at in nodes {
            self.cluster.node(*at)?.start()?;
        }
        for at in nodes {
            self.cluster.restart(*at, BACK_LIMIT).await?;
        }
        Ok(())
    }
}

/// How a fault went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Struck {
    /// It was done and healed. How often something was hit by it; 0 is not exercised.
    Done(u64),
    /// There was nothing to do it to.
    Skipped,
}

/// A class of faults.
#[async_trait(?Send)]
pub trait Fault: Send + Sync {
    /// Begins, holds and heals. It must not leave anything of it behind, unless it fails.
    ///
    /// # Errors
    /// When the harness fails, or the cluster does not come back from it.
    async fn strike(&self, scene: &Scene<'_>, dice: &mut Dice) -> Result<Struck, HarnessError>;
}

/// `node1`, `node2`, ….
pub(crate) fn names(nodes: &[usize]) -> String {
    nodes.iter().map(|at| format!("node{}", at + 1)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_class() {
        for class in Class::ALL.into_iter().chain(Class::DATABASE) {
            assert_eq!(class.name().parse::<Class>().unwrap(), class);
        }
        assert!("kil".parse::<Class>().unwrap_err().contains("there are bitflip-log, "));
    }
}
