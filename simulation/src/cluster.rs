//! A simulated cluster: its machines, the network between them, and who can be reached.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_api::server::Connections;
use arca_api::system::CarriedBack;
use arca_api::{Api, RawRequest};
use arca_barrier::{Barrier, Class, Keyring, RootKey, Suite, boot_key};
use arca_engine_api::EngineType;
use arca_kernel::testing::outward_engine;
use arca_kernel::tx::{Mode, Tx};
use arca_raft_storage::{Member, MemberId, RaftReplica, Replica as _, ReplicaStatus, Role, Write, WriteSet};
use arca_replicator::Replicator;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::credentials::Credentials;
use crate::elsewhere::Elsewhere;
use crate::invariants::Seen;
use crate::machine::Machine;
use crate::midway::Midway;
use crate::net::Net;
use crate::operator::{admit, promote};
use crate::plan::Plan;
use crate::regions::Region;
use crate::run::Failure;
use crate::system::collected;
use crate::trace::Trace;
use crate::world::SimEntropy;

const FIRST: MemberId = MemberId(1);
/// Where a cluster of several keeps its name, which is to stay its own.
pub const OWN_PATH: &str = "root/core/cluster-ca/name";
/// Longest time, simulated, in which a healthy cluster must do what it is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process, for those who want something of it.
#[derive(Clone)]
pub struct Listening {
    /// Raft.
    pub replica: Weak<RaftReplica>,
    /// What answers requests that another member carries to it.
    pub api: Arc<Api>,
    /// What answers connections.
    pub connections: Arc<Connections>,
    /// What it does about other clusters, if there are any.
    pub replicator: Option<Weak<Replicator>>,
    /// Cancelled when the process dies.
    pub death: CancellationToken,
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listening")
    }
}

/// Who can be reached now, by host: a member that was replaced is on the host of the one before it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Directory(Arc<Mutex<BTreeMap<String, (MemberId, Listening)>>>);

impl Directory {
    /// A process that answers from now on, until its death.
    pub fn enter(&self, host: &str, id: MemberId, listening: Listening) {
        self.0.lock().insert(host.to_owned(), (id, listening));
    }

    /// Nobody answers there any more.
    pub fn leave(&self, host: &str) {
        self.0.lock().remove(host);
    }

    /// Who listens on a host.
    #[must_use]
    pub fn at(&self, host: &str) -> Option<Listening> {
        self.0.lock().get(host).map(|(_, listening)| listening.clone())
    }

    /// The process of a member.
    #[must_use]
    pub fn of(&self, member: MemberId) -> Option<Listening> {
        let directory = self.0.lock();
        directory.values().find(|(id, _)| *id == member).map(|(_, listening)| listening.clone())
    }

    /// The leader of the newest term.
    #[must_use]
    pub fn leader(&self) -> Option<Arc<RaftReplica>> {
        let directory = self.0.lock();
        let running = directory.values().filter_map(|(_, listening)| listening.replica.upgrade());
        let leaders = running.filter_map(|replica| {
            let status = replica.status();
            (status.role == Role::Leader).then_some((status.term, status.id, replica))
        });
        leaders.max_by_key(|(term, id, _)| (*term, *id)).map(|(_, _, replica)| replica)
    }

    /// Has `request` served by the process that is `to` when this is first polled. Nothing comes back if there is none,
    /// or if it dies meanwhile.
    pub fn work_at(
        &self,
        to: MemberId,
        request: RawRequest,
    ) -> impl Future<Output = Option<CarriedBack>> + Send + use<> {
        let directory = self.clone();
        async move {
            let Listening { api, death, .. } = directory.of(to)?;
            death.run_until_cancelled(collected(api, request)).await.flatten()
        }
    }
}

/// What all parts of a simulation share.
#[derive(Debug)]
pub struct Shared {
    /// What the seed decided.
    pub plan: Plan,
    /// What happened.
    pub trace: Trace,
    /// The links.
    pub net: Net,
    /// Who can be reached.
    pub directory: Directory,
    /// The cluster's name for itself.
    pub cluster_id: String,
    /// The system that engines make accounts in.
    pub elsewhere: Elsewhere,
    /// What clients were given there.
    pub credentials: Credentials,
    /// Who dies in the middle of issuing or revoking.
    pub midway: Midway,
    /// Which of several clusters this is; none where there is one.
    pub region: Option<Region>,
}

impl Shared {
    /// The name of a host; they are counted from 1.
    #[must_use]
    pub fn host(&self, number: usize) -> String {
        match &self.region {
            Some(region) => format!("{}-n{number}", region.name),
            None => format!("n{number}"),
        }
    }
}

/// Every type that can be mounted.
#[must_use]
pub fn engines() -> Vec<EngineType> {
    let mut engines = arca_engines::all();
    engines.push(outward_engine());
    engines
}

/// See the file's header.
pub struct Cluster {
    /// What all parts share.
    pub shared: Arc<Shared>,
    /// By id.
    pub machines: BTreeMap<MemberId, Machine>,
    /// Can do everything.
    pub root_token: Zeroizing<String>,
    /// What opens the keyring, or did: that of another cluster too, once this one is a copy of it.
    roots: Vec<RootKey>,
    keyring: Vec<u8>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("machines", &self.machines).finish_non_exhaustive()
    }
}

/// What the cluster knows of the member `id` on `host`.
#[must_use]
pub fn member(id: MemberId, host: &str) -> Member {
    Member {
        id,
        name: host.to_owned(),
        cluster_addr: format!("{host}:8201"),
        api_addr: format!("http://{host}:8200"),
    }
}

impl Cluster {
    /// Makes a cluster of as many members as the plan says, all of them voters.
    ///
    /// # Errors
    /// When a cluster without faults cannot be made.
    pub async fn make(shared: &Arc<Shared>) -> Result<Self, Failure> {
        let mut machine = Machine::new(FIRST, shared.host(1), shared);
        let entropy = Arc::clone(machine.entropy());
        let root = RootKey::generate(entropy.as_ref()).map_err(Failure::setup)?;
        let keyring =
            Keyring::generate(entropy.as_ref(), 0, Suite::XChaCha20Poly1305).map_err(Failure::setup)?;
        let sealed = keyring.seal(&root, entropy.as_ref()).map_err(Failure::setup)?;
        let root_token = bootstrap(&mut machine, &entropy, keyring, &sealed).await?;
        let machines = BTreeMap::from([(FIRST, machine)]);
        let (roots, keyring) = (vec![root], sealed);
        let mut cluster = Self { shared: Arc::clone(shared), machines, root_token, roots, keyring };
        cluster.start(FIRST).await?;
        for number in 2..=shared.plan.members {
            cluster.grow(shared.host(number)).await?;
        }
        Ok(cluster)
    }

    /// Adds a voter on `host`. Disks may be so slow that the leader changes meanwhile.
    async fn grow(&mut self, host: String) -> Result<(), Failure> {
        let late = |_| Failure::Stuck(format!("{host} is no voter in a minute"));
        let directory = self.shared.directory.clone();
        let id = timeout(PATIENCE, admit(directory.clone(), host.clone())).await.map_err(late)?;
        self.install(id, host.clone()).await?;
        timeout(PATIENCE, promote(directory, id)).await.map_err(late)
    }

    /// Starts the member `id`, which the cluster knows, on the empty disks of `host`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn install(&mut self, id: MemberId, host: String) -> Result<(), Failure> {
        self.machines.insert(id, Machine::new(id, host, &self.shared));
        self.start(id).await
    }

    /// The names of all hosts.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        (1..=self.shared.plan.members).map(|number| self.shared.host(number)).collect()
    }

    /// Starts the process of a machine that is down.
    ///
    /// # Errors
    /// When its disks are refused.
    pub async fn start(&mut self, id: MemberId) -> Result<(), Failure> {
        match self.machines.get_mut(&id) {
            Some(machine) => machine.start(&self.roots, &self.keyring).await,
            None => Ok(()),
        }
    }

    /// Has this cluster's operators know the keys of `other` as well: its shares open what is copied from there.
    ///
    /// # Errors
    /// When a key cannot be taken over.
    pub fn learn_keys(&mut self, other: &Self) -> Result<(), Failure> {
        for root in &other.roots {
            self.roots.push(RootKey::from_slice(root.expose()).map_err(Failure::setup)?);
        }
        Ok(())
    }

    /// Starts anew, with the keys of the state, whoever was locked out of it; the leader once it is alone. Answers whom it
    /// stopped: their machines may be started once the tasks have ended.
    pub fn change_over(&mut self) -> Vec<(MemberId, JoinHandle<()>)> {
        let leader = self.shared.directory.leader().map(|leader| leader.status().id);
        let locked_out = |machine: &&mut Machine| machine.is_locked_out();
        let mut out: Vec<&mut Machine> = self.machines.values_mut().filter(locked_out).collect();
        if out.len() > 1 {
            out.retain(|machine| Some(machine.id) != leader);
        }
        out.into_iter().filter_map(|machine| Some((machine.id, machine.stop()?))).collect()
    }

    /// What each running member says of itself.
    #[must_use]
    pub fn statuses(&self) -> Vec<(Arc<RaftReplica>, ReplicaStatus)> {
        let running = self.machines.values().filter_map(|machine| machine.process.as_ref());
        running.map(|process| (Arc::clone(&process.replica), process.replica.status())).collect()
    }

    /// Whether every machine runs and has applied the same, with a leader.
    #[must_use]
    pub fn is_even(&self) -> bool {
        let statuses = self.statuses();
        let has_leader = statuses.iter().any(|(_, status)| status.role == Role::Leader);
        let first = statuses.first().map(|(_, status)| status.applied_index).unwrap_or_default();
        let is_even = statuses.iter().all(|(_, status)| {
            status.applied_index == first && status.committed_index == first && status.leader.is_some()
        });
        has_leader && is_even && statuses.len() == self.machines.len()
    }

    /// How each member is, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let shown: Vec<_> = self.statuses().iter().map(|(_, status)| brief(status)).collect();
        format!("{} of {} members run: {}", shown.len(), self.machines.len(), shown.join("; "))
    }

    /// All members that run, for looking at.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        let running = self.machines.values();
        let running = running.filter_map(|machine| Some((machine.life, machine.process.as_ref()?)));
        running
            .map(|(life, process)| Seen {
                replica: Arc::clone(&process.replica),
                status: process.replica.status(),
                barrier: Arc::clone(&process.barrier),
                is_locked_out: process.keys.is_locked_out(),
                life,
            })
            .collect()
    }
}

fn brief(status: &ReplicaStatus) -> String {
    let ReplicaStatus { id, role, term, committed_index, applied_index, fatal, .. } = status;
    format!("{id} {role:?} term {term} committed {committed_index} applied {applied_index} {fatal:?}")
}

/// The first state of a new cluster, as init writes it.
async fn bootstrap(
    machine: &mut Machine,
    entropy: &Arc<SimEntropy>,
    keyring: Keyring,
    sealed_keyring: &[u8],
) -> Result<Zeroizing<String>, Failure> {
    let barrier = Barrier::new(keyring, Arc::clone(entropy) as Arc<dyn arca_barrier::Entropy>);
    let replica = machine.open_replica().await?;
    let tx = Tx::new(Arc::new(barrier), replica.view(), Mode::ReadWrite);
    let new = arca_kernel::NewCluster {
        cluster_id: machine.cluster_id().to_owned(),
        cluster_name: machine.cluster_id().to_owned(),
        engines: &engines(),
        root_token: None,
    };
    let token = arca_kernel::initial_state(&tx, machine.clock.as_ref(), entropy.as_ref(), &new);
    let token = token.map_err(Failure::setup)?;
    let has_neighbours = machine.has_neighbours();
    if has_neighbours {
        // What a cluster keeps for itself, as a node has it.
        tx.put(Class::Local, OWN_PATH, machine.cluster_id().as_bytes().to_vec().into())
            .map_err(Failure::setup)?;
    }
    let mut set: WriteSet = tx.into_write_set().map_err(Failure::setup)?;
    set.reads.clear();
    set.writes.push(Write::Put(boot_key("keyring"), sealed_keyring.to_vec()));
    if has_neighbours {
        set.writes.push(Write::Put(boot_key("ca"), machine.cluster_id().as_bytes().to_vec()));
    }
    replica.bootstrap(member(machine.id, &machine.host), set).await.map_err(Failure::setup)?;
    replica.shutdown().await;
    Ok(token)
}
