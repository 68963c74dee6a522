//! One simulated member: what outlives a crash, and what runs on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_api::server::{Connections, ListenerOptions};
use arca_api::{Api, RequestIds};
use arca_barrier::{Barrier, Keyring, RootKey, boot_key};
use arca_engine_api::Clock;
use arca_jepsen::dice::Dice;
use arca_kernel::key_keeper::KeyKeeper;
use arca_kernel::replication::ReplicationPort;
use arca_kernel::testing::NotingCluster;
use arca_kernel::{Kernel, KernelConfig, KernelParts, Outside};
use arca_raft_storage::kv::ModelHome;
use arca_raft_storage::raft::{Retention, Threads};
use arca_raft_storage::state::FlushPolicy;
use arca_raft_storage::testing::{CrashPolicy, ModelVfs};
use arca_raft_storage::{
    ApplyObserver, MemberId, RaftConfig, RaftParts, RaftReplica, Replica, Role, Version,
};
use arca_replicator::Replicator;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Listening, Shared, engines};
use crate::disk::disk;
use crate::regions::around::replicator;
use crate::regions::filtered;
use crate::run::Failure;
use crate::system::MemberSystem;
use crate::world::{SimClock, SimEntropy};

/// Where a machine's log is.
pub const LOG_DIR: &str = "/data/log";
/// How long a process that ends waits for somebody to take leadership over.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);

/// A member's disk, clock and identity, and, unless it is down, its process.
pub struct Machine {
    /// Who it is.
    pub id: MemberId,
    /// Where it is.
    pub host: String,
    /// The disk under the log.
    pub vfs: ModelVfs,
    /// The disk under the state machine.
    pub home: Arc<ModelHome>,
    /// Its clock.
    pub clock: Arc<SimClock>,
    /// How often it was started.
    pub life: u64,
    /// What runs on it.
    pub process: Option<Process>,
    entropy: Arc<SimEntropy>,
    shared: Arc<Shared>,
    dice: Dice,
}

/// A node's process.
pub struct Process {
    /// Raft.
    pub replica: Arc<RaftReplica>,
    /// What it opens values with.
    pub barrier: Arc<Barrier>,
    /// Cancelled when the process dies: everything that runs on it ends there.
    pub death: CancellationToken,
    /// What it holds the keys by.
    pub keys: Arc<KeyKeeper>,
    /// What it does about other clusters, if there are any.
    pub replicator: Option<Arc<Replicator>>,
    kernel: Arc<Kernel>,
}

impl Process {
    /// What answers requests.
    #[must_use]
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({}, up: {})", self.id, self.process.is_some())
    }
}

impl Machine {
    /// A machine with empty disks. Its clock is wrong from the beginning, by what the seed says.
    #[must_use]
    pub fn new(id: MemberId, host: String, shared: &Arc<Shared>) -> Self {
        let mut dice = Dice::for_purpose(shared.plan.seed, &format!("machine {id}"));
        let (vfs, home) = disk(shared.plan.seed, id);
        let trace = shared.trace.clone();
        vfs.set_hook(move |operation, path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            trace.note("disk", &[id.0, operation as u64], name.as_bytes());
        });
        let drift = i64::try_from(dice.within(0..2 * shared.plan.drift_ppm + 1)).unwrap_or_default()
            - i64::try_from(shared.plan.drift_ppm).unwrap_or_default();
        Self {
            id,
            host,
            vfs,
            home: Arc::new(home),
            clock: Arc::new(SimClock::new(shared.trace.began(), drift)),
            life: 0,
            process: None,
            entropy: Arc::new(SimEntropy::new(Dice::for_purpose(shared.plan.seed, &format!("entropy {id}")))),
            shared: Arc::clone(shared),
            dice,
        }
    }

    /// What randomness on this machine is.
    #[must_use]
    pub fn entropy(&self) -> &Arc<SimEntropy> {
        &self.entropy
    }

    /// The name of its cluster.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }

    /// Whether its cluster is one of several.
    #[must_use]
    pub fn has_neighbours(&self) -> bool {
        self.shared.region.is_some()
    }

    /// Whether what runs here does not hold the keys of its state.
    #[must_use]
    pub fn is_locked_out(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.keys.is_locked_out())
    }

    /// Opens Raft on this machine's disks, reachable by the others.
    ///
    /// # Errors
    /// When what is on the disks is refused.
    pub async fn open_replica(&mut self) -> Result<Arc<RaftReplica>, Failure> {
        let mut config = RaftConfig::new(self.id, self.shared.cluster_id.clone());
        config.threads = Threads::None;
        config.seed = Some(self.dice.number());
        if let Some(small) = self.shared.plan.log {
            config.limits.segment_bytes = small.segment_bytes;
            config.limits.promote_lag = 20;
            config.retention = Retention { bytes: small.kept_bytes, bytes_max: small.kept_bytes * 2 };
            config.flush = FlushPolicy { bytes: small.segment_bytes, interval: small.flush_interval };
        }
        let parts = RaftParts {
            vfs: Arc::new(self.vfs.clone()),
            log_dir: LOG_DIR.into(),
            node_dir: "/data".into(),
            home: Arc::clone(&self.home) as Arc<dyn arca_raft_storage::KvHome>,
            transport: self.shared.net.raft().transport(self.id),
        };
        let replica = RaftReplica::open(config, parts)
            .await
            .map_err(|err| Failure::Restart(format!("member {} does not open: {err}", self.id)))?;
        self.shared.net.raft().join(self.id, replica.inbound());
        Ok(replica)
    }

    /// Starts the process: Raft, then the kernel with the keys, as an unsealed node does.
    ///
    /// # Errors
    /// When what is on the disks is refused.
    pub async fn start(&mut self, roots: &[RootKey], given_keyring: &[u8]) -> Result<(), Failure> {
        let replica = self.open_replica().await?;
        let stored = replica.view().get(&boot_key("keyring")).map_err(Failure::setup)?;
        let sealed = stored.map_or_else(|| given_keyring.to_vec(), |found| found.value);
        let opened = roots.iter().find_map(|root| Some((root, Keyring::open(root, &sealed).ok()?)));
        let no_key = || Failure::Restart(format!("member {} has no key to its keyring", self.id));
        let (root, keyring) = opened.ok_or_else(no_key)?;
        let barrier =
            Arc::new(Barrier::new(keyring, Arc::clone(&self.entropy) as Arc<dyn arca_barrier::Entropy>));
        let keys = self.keep_keys(root, &barrier, &replica)?;
        let death = CancellationToken::new();
        let door = self.shared.elsewhere.door(self.id, &death, &replica, &barrier);
        let cluster = NotingCluster::default();
        cluster.set_keys(Arc::clone(&keys), Arc::clone(&self.entropy) as Arc<dyn arca_barrier::Entropy>);
        let replicator = replicator(self, &self.shared, (&replica, &keys, &barrier), &death)?;
        if let Some(replicator) = &replicator {
            cluster.set_replication(Arc::clone(replicator) as Arc<dyn ReplicationPort>);
        }
        let kernel = Kernel::start(KernelParts {
            barrier: Arc::clone(&barrier),
            replica: Arc::clone(&replica) as Arc<dyn Replica>,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            entropy: Arc::clone(&self.entropy) as Arc<dyn arca_engine_api::Entropy>,
            engines: engines(),
            cluster: Arc::new(cluster),
            outside: Outside { http: Arc::new(door), ..Outside::default() },
            config: KernelConfig::default(),
        })
        .map_err(Failure::setup)?;
        let system = MemberSystem::new(self.id, &kernel, &replica, &self.shared);
        let request_ids = RequestIds::new(self.entropy.as_ref()).map_err(Failure::setup)?;
        let api = Arc::new(Api {
            system: Arc::new(system),
            request_ids: Arc::new(request_ids),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
        });
        let options = Arc::new(ListenerOptions::default());
        let connections = Arc::new(Connections::new(Arc::clone(&api), options, death.clone()));
        let listening = Listening {
            replica: Arc::downgrade(&replica),
            api,
            connections,
            death: death.clone(),
            replicator: replicator.as_ref().map(Arc::downgrade),
        };
        self.shared.directory.enter(&self.host, self.id, listening);
        let following = follow_role(Arc::clone(&replica), Arc::clone(&kernel), Arc::clone(&keys));
        let until = death.clone();
        tokio::spawn(async move { until.run_until_cancelled(following).await });
        self.life += 1;
        self.shared.trace.say(format_args!("member {} has started on {}", self.id, self.host));
        filtered::serve(self, &self.shared, (&replica, &barrier), &death)?;
        if let Some(replicator) = &replicator {
            replicator.attach(&kernel);
            let (until, replicating) = (death.clone(), Replicator::run(Arc::downgrade(replicator)));
            tokio::spawn(async move { until.run_until_cancelled(replicating).await });
        }
        self.process = Some(Process { replica, barrier, death, keys, replicator, kernel });
        Ok(())
    }

    /// Keeps the keyring in use equal to the replicated one, as an unsealed node does it.
    fn keep_keys(
        &self,
        root: &RootKey,
        barrier: &Arc<Barrier>,
        replica: &Arc<RaftReplica>,
    ) -> Result<Arc<KeyKeeper>, Failure> {
        let root = RootKey::from_slice(root.expose()).map_err(Failure::setup)?;
        let trace = self.shared.trace.clone();
        let locked_out = move |_| trace.say(format_args!("a member does not hold the keys of its state"));
        let keys = Arc::new(KeyKeeper::new(root, Version(0), barrier, locked_out).map_err(Failure::setup)?);
        keys.follow(&(Arc::clone(replica) as Arc<dyn Replica>));
        replica.observe(Arc::clone(&keys) as Arc<dyn ApplyObserver>);
        keys.reload();
        Ok(keys)
    }

    /// The power goes, or only the process: what was not synced meets a policy that the dice choose.
    pub fn crash(&mut self) {
        if let Some(process) = self.process.take() {
            process.leave(&self.shared, self.id, &self.host);
        }
        let policy = match self.dice.within(0..5) {
            0 => CrashPolicy::KeepPending,
            1 => CrashPolicy::KeepPrefix,
            2 => CrashPolicy::Reorder { block: 512 },
            3 => CrashPolicy::Torn { block: 1 },
            _ => CrashPolicy::LosePending,
        };
        self.vfs.crash(policy);
        self.home.crash(self.dice.number());
    }

    /// A process that did not start has ended; what it wrote is still to be read.
    pub fn exit(&mut self) {
        self.vfs.restart();
        self.home.crash(self.dice.number());
    }

    /// Ends the process as an operator does, or a seal: leadership is handed over first, if somebody takes it in time,
    /// and what was applied is made durable. The machine may be started again once the task has ended.
    pub fn stop(&mut self) -> Option<JoinHandle<()>> {
        let process = self.process.take()?;
        let (vfs, home, seed) = (self.vfs.clone(), Arc::clone(&self.home), self.dice.number());
        let (shared, id, host) = (Arc::clone(&self.shared), self.id, self.host.clone());
        Some(tokio::spawn(async move {
            if process.replica.status().role == Role::Leader {
                // If nobody takes it, the others find out by themselves.
                let _ = timeout(HAND_OVER_LIMIT, process.replica.transfer_leadership(None)).await;
            }
            process.leave(&shared, id, &host).shutdown().await;
            vfs.restart();
            // What was not flushed is gone with the process.
            home.crash(seed);
        }))
    }
}

impl Process {
    /// Nobody reaches it any more, and everything that runs on it ends; but not its Raft.
    fn leave(self, shared: &Shared, id: MemberId, host: &str) -> Arc<RaftReplica> {
        shared.net.raft().leave(id);
        shared.directory.leave(host);
        self.death.cancel();
        if let Some(replicator) = &self.replicator {
            replicator.kill();
        }
        if let Some(region) = &shared.region {
            region.ways.leave(host);
        }
        self.kernel.deactivate();
        self.replica
    }
}

/// As a node does it: active once this member leads and has applied all that was committed before, if it has the keys.
async fn follow_role(replica: Arc<RaftReplica>, kernel: Arc<Kernel>, keys: Arc<KeyKeeper>) {
    let mut changes = replica.watch();
    loop {
        let leads = changes.borrow_and_update().role == Role::Leader;
        match (leads, kernel.is_active()) {
            (true, false) if !keys.is_locked_out() => {
                if replica.read_barrier().await.is_ok() {
                    keys.reload();
                    if !keys.is_locked_out() {
                        kernel.activate();
                    }
                } else {
                    // Leadership was lost again, or its quorum; look once more shortly.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            }
            (false, true) => kernel.deactivate(),
            _ => {}
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
