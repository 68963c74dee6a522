//! A simulated cluster: its machines, the network between them, and who can be reached.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_api::system::CarriedBack;
use arca_api::{Api, RawRequest};
use arca_barrier::{Barrier, Keyring, RootKey, Suite, boot_key};
use arca_kernel::tx::{Mode, Tx};
use arca_raft_storage::{Member, MemberId, RaftReplica, Replica as _, ReplicaStatus, Role, Write, WriteSet};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::invariants::Seen;
use crate::machine::Machine;
use crate::net::Net;
use crate::plan::Plan;
use crate::run::Failure;
use crate::system::collected;
use crate::trace::Trace;
use crate::world::SimEntropy;

const FIRST: MemberId = MemberId(1);
/// Longest time, simulated, in which a healthy cluster must do what it is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What answers at a member, until it dies.
type Listening = (Arc<Api>, CancellationToken);

/// Who can be reached now. Clones share it.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<BTreeMap<MemberId, Listening>>>);

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Directory")
    }
}

impl Directory {
    /// A process that answers from now on, until `death`.
    pub fn enter(&self, id: MemberId, api: &Arc<Api>, death: &CancellationToken) {
        self.0.lock().insert(id, (Arc::clone(api), death.clone()));
    }

    /// It does not answer any more.
    pub fn leave(&self, id: MemberId) {
        self.0.lock().remove(&id);
    }

    /// Whether there is a process that listens.
    #[must_use]
    pub fn is_up(&self, id: MemberId) -> bool {
        self.0.lock().contains_key(&id)
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
            let (api, death) = directory.0.lock().get(&to).cloned()?;
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
}

/// See the file's header.
pub struct Cluster {
    /// What all parts share.
    pub shared: Arc<Shared>,
    /// By id.
    pub machines: BTreeMap<MemberId, Machine>,
    /// Can do everything.
    pub root_token: Zeroizing<String>,
    root: RootKey,
    keyring: Vec<u8>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("machines", &self.machines).finish_non_exhaustive()
    }
}

fn member(id: MemberId) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        cluster_addr: format!("n{id}:8201"),
        api_addr: format!("http://n{id}:8200"),
    }
}

impl Cluster {
    /// Makes a cluster of as many members as the plan says, all of them voters.
    ///
    /// # Errors
    /// When a cluster without faults cannot be made.
    pub async fn make(shared: &Arc<Shared>) -> Result<Self, Failure> {
        let mut machine = Machine::new(FIRST, shared);
        let entropy = Arc::clone(machine.entropy());
        let root = RootKey::generate(entropy.as_ref()).map_err(Failure::setup)?;
        let keyring =
            Keyring::generate(entropy.as_ref(), 0, Suite::XChaCha20Poly1305).map_err(Failure::setup)?;
        let sealed = keyring.seal(&root, entropy.as_ref()).map_err(Failure::setup)?;
        let root_token = bootstrap(&mut machine, &entropy, keyring, &sealed).await?;
        let machines = BTreeMap::from([(FIRST, machine)]);
        let mut cluster = Self { shared: Arc::clone(shared), machines, root_token, root, keyring: sealed };
        cluster.start(FIRST).await?;
        for _ in 1..shared.plan.members {
            cluster.grow().await?;
        }
        Ok(cluster)
    }

    /// Adds a voter.
    async fn grow(&mut self) -> Result<(), Failure> {
        let leader = self.leader().await?;
        let id = leader.reserve_member_id().await.map_err(Failure::setup)?;
        self.machines.insert(id, Machine::new(id, &self.shared));
        self.start(id).await?;
        leader.add_learner(member(id)).await.map_err(Failure::setup)?;
        leader.promote(id).await.map_err(Failure::setup)
    }

    /// Starts the process of a machine that is down.
    ///
    /// # Errors
    /// When its disks are refused.
    pub async fn start(&mut self, id: MemberId) -> Result<(), Failure> {
        match self.machines.get_mut(&id) {
            Some(machine) => machine.start(&self.root, &self.keyring).await,
            None => Ok(()),
        }
    }

    /// What each running member says of itself.
    #[must_use]
    pub fn statuses(&self) -> Vec<(Arc<RaftReplica>, ReplicaStatus)> {
        let running = self.machines.values().filter_map(|machine| machine.process.as_ref());
        running.map(|process| (Arc::clone(&process.replica), process.replica.status())).collect()
    }

    /// The leader, once there is one.
    ///
    /// # Errors
    /// When none is found in a minute.
    pub async fn leader(&self) -> Result<Arc<RaftReplica>, Failure> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mut leaders: Vec<_> =
                self.statuses().into_iter().filter(|(_, status)| status.role == Role::Leader).collect();
            leaders.sort_by_key(|(_, status)| status.term);
            if let Some((replica, _)) = leaders.pop() {
                return Ok(replica);
            }
            sleep(LOOK).await;
        }
        Err(Failure::Stuck("no leader in a minute".to_owned()))
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
        cluster_id: "simulated".to_owned(),
        cluster_name: "simulated".to_owned(),
        engines: &arca_engines::all(),
        root_token: None,
    };
    let token = arca_kernel::initial_state(&tx, machine.clock.as_ref(), entropy.as_ref(), &new);
    let token = token.map_err(Failure::setup)?;
    let mut set: WriteSet = tx.into_write_set().map_err(Failure::setup)?;
    set.reads.clear();
    set.writes.push(Write::Put(boot_key("keyring"), sealed_keyring.to_vec()));
    replica.bootstrap(member(machine.id), set).await.map_err(Failure::setup)?;
    replica.shutdown().await;
    Ok(token)
}
