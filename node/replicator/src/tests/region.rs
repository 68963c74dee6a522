//! A cluster of one member, with its kernel and what it does about its roles; and other clusters, reached without a network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arca_barrier::{Barrier, Class, Keyring, RootKey, Suite, boot_key};
use arca_engine_api::{Clock as _, EngineKind, EngineType};
use arca_kernel::key_keeper::{KeyKeeper, LockedOut, ROOT_KEY_PATH};
use arca_kernel::replication::{
    Kind, ReplicationPort as _, RoleRecord, SecondaryToken, SecondaryUpdate, UpstreamRecord,
};
use arca_kernel::testing::{NotingCluster, SeededEntropy, TestClock, notes_engine};
use arca_kernel::tx::{Mode as TxMode, Tx};
use arca_kernel::{Kernel, KernelConfig, KernelError, KernelParts, NewCluster, Outside, initial_state};
use arca_raft_storage::kv::ModelHome;
use arca_raft_storage::raft::Threads;
use arca_raft_storage::testing::{ModelNet, ModelVfs};
use arca_raft_storage::{
    ApplyObserver, KvHome, Member, MemberId, ProposeError, RaftConfig, RaftParts, RaftReplica, Replica, Role,
    Version, Write,
};
use arca_replication::source::SourceSettings;
use arca_replication::{
    Call, Cursor, Follower, Greeting, Link, LinkError, PayloadStream, PrimaryLink, PrimarySide, Refusal,
    Replicated, Unserved, Welcome, load_cursor,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::{Authority, NewKey, Replicator, ReplicatorParts, Served, Surroundings, TokenDoor, shipped};

type Door = Vec<(String, Arc<dyn PrimarySide>)>;

/// What lies between clusters.
#[derive(Default)]
pub(super) struct World {
    /// By cluster address, what is served there.
    doors: Mutex<BTreeMap<String, Door>>,
    /// Other addresses of clusters.
    pub(super) aliases: Mutex<BTreeMap<String, String>>,
    /// Addresses that nobody reaches.
    pub(super) cut: Mutex<BTreeSet<String>>,
    /// Whether copies break before their end.
    pub(super) breaks_copies: AtomicBool,
    /// Whether its node says that it knows no leader.
    pub(super) is_leaderless: AtomicBool,
    /// Whether they stand still there.
    pub(super) stalls_copies: AtomicBool,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

impl World {
    fn side(&self, addresses: &[String], replication_id: &str) -> Result<Arc<dyn PrimarySide>, LinkError> {
        for addr in addresses {
            let addr = self.aliases.lock().get(addr).cloned().unwrap_or_else(|| addr.clone());
            let doors = self.doors.lock();
            let door = doors.get(&addr).filter(|_| !self.cut.lock().contains(&addr));
            let served = door.and_then(|door| door.iter().find(|(of, _)| of == replication_id));
            if let Some((_, side)) = served {
                return Ok(Arc::clone(side));
            }
        }
        Err(LinkError::Unreachable("nobody is there".to_owned()))
    }
}

fn answered<T>(outcome: Result<T, Unserved>) -> Result<T, LinkError> {
    outcome.map_err(|unserved| match unserved {
        Unserved::NotActive => LinkError::Refused(Refusal::Busy("no active node".to_owned())),
        Unserved::Refused(refusal) => refusal.into(),
    })
}

/// One cluster's view of the world.
#[derive(Debug)]
struct Around {
    addr: String,
    world: Arc<World>,
}

#[async_trait]
impl Surroundings for Around {
    async fn carry(&self, _: &Member, _: Replicated, _: Duration) -> Result<Bytes, Unserved> {
        Err(Unserved::NotActive)
    }

    async fn applied_at(&self, _: &Member) -> Option<u64> {
        None
    }

    fn serve(&self, served: Vec<Served>) -> Result<(), String> {
        let door = served.into_iter().map(|served| (served.authority.replication_id, served.side)).collect();
        self.world.doors.lock().insert(self.addr.clone(), door);
        Ok(())
    }

    fn end(&self, _: &str, _: &str) {}

    fn link(
        &self,
        replication_id: &str,
        upstream: &UpstreamRecord,
    ) -> Result<Arc<dyn PrimaryLink>, KernelError> {
        let certificate = String::from_utf8(hex::decode(&upstream.certificate).unwrap()).unwrap();
        let (secondary_id, activation) = certificate.split_once(' ').unwrap();
        let follower = Follower { secondary_id: secondary_id.to_owned(), activation: activation.to_owned() };
        Ok(Arc::new(Road {
            world: Arc::clone(&self.world),
            replication_id: replication_id.to_owned(),
            follower,
            addresses: Mutex::new(upstream.addresses.clone()),
        }))
    }

    async fn activate(&self, door: TokenDoor<'_>, request: Bytes) -> Result<Bytes, LinkError> {
        answered(self.world.side(door.addresses, door.replication_id)?.activate(request).await)
    }

    fn new_authority(&self, replication_id: &str) -> Result<Authority, KernelError> {
        let (certificate, key) = (b"ca".to_vec(), Zeroizing::new(b"key".to_vec()));
        Ok(Authority { replication_id: replication_id.to_owned(), certificate, key })
    }

    fn issue(&self, _: &Authority, _: &[u8], follower: &Follower) -> Result<Vec<u8>, String> {
        Ok(format!("{} {}", follower.secondary_id, follower.activation).into_bytes())
    }

    fn new_key(&self) -> Result<NewKey, KernelError> {
        Ok(NewKey { key: Zeroizing::new(b"key".to_vec()), signing_request: b"request".to_vec() })
    }
}

/// The way to a primary.
#[derive(Debug)]
pub(super) struct Road {
    world: Arc<World>,
    replication_id: String,
    follower: Follower,
    pub(super) addresses: Mutex<Vec<String>>,
}

impl Road {
    async fn side(&self) -> Result<Arc<dyn PrimarySide>, LinkError> {
        let side = self.world.side(&self.addresses.lock(), &self.replication_id)?;
        answered(side.admit(&self.follower).await)?;
        Ok(side)
    }
}

#[async_trait]
impl Link for Road {
    async fn call(&self, call: Call, payload: Bytes) -> Result<Bytes, LinkError> {
        answered(self.side().await?.call(&self.follower, call, payload).await)
    }

    async fn stream(&self, call: Call, payload: Bytes) -> Result<PayloadStream, LinkError> {
        let stream = answered(self.side().await?.stream(&self.follower, call, payload).await)?;
        // All but the last message, without which nothing is taken in.
        let is_end =
            |message: &Result<Bytes, LinkError>| message.as_ref().is_ok_and(|m| m.get(1) == Some(&4));
        let rest =
            |stream: PayloadStream| stream.take_while(move |message| std::future::ready(!is_end(message)));
        if call == Call::Copy && self.world.breaks_copies.load(Ordering::SeqCst) {
            let broken = futures::stream::iter([Err(LinkError::Unreachable("it broke".to_owned()))]);
            return Ok(rest(stream).chain(broken).boxed());
        }
        if call == Call::Copy && self.world.stalls_copies.load(Ordering::SeqCst) {
            return Ok(rest(stream).chain(futures::stream::pending()).boxed());
        }
        Ok(stream)
    }
}

#[async_trait]
impl PrimaryLink for Road {
    async fn greet(&self, greeting: &Greeting) -> Result<Welcome, LinkError> {
        let welcome = self.side().await?.greet(&self.follower, greeting.clone());
        let has_leader = welcome.has_leader && !self.world.is_leaderless.load(Ordering::SeqCst);
        Ok(Welcome { has_leader, ..welcome })
    }

    fn learn(&self, addresses: Vec<String>) {
        *self.addresses.lock() = addresses;
    }
}

/// What ends with a seal.
pub(super) struct Unsealed {
    pub(super) kernel: Arc<Kernel>,
    pub(super) replicator: Arc<Replicator>,
    pub(super) keys: Arc<KeyKeeper>,
    pub(super) barrier: Arc<Barrier>,
    locked_out: Arc<Mutex<Option<RootKey>>>,
    running: JoinHandle<()>,
}

pub(super) struct Region {
    pub(super) name: &'static str,
    pub(super) world: Arc<World>,
    pub(super) clock: Arc<TestClock>,
    pub(super) entropy: Arc<SeededEntropy>,
    pub(super) vfs: ModelVfs,
    net: ModelNet,
    home: Arc<ModelHome>,
    pub(super) replica: Arc<RaftReplica>,
    pub(super) now: Unsealed,
}

/// No two clusters choose the same.
fn entropy_of(name: &str) -> Arc<SeededEntropy> {
    let entropy = Arc::new(SeededEntropy::default());
    let begin = name.bytes().fold(0, |sum, byte| sum * 7 + usize::from(byte)) % 5_000 * 100;
    for _ in 0..begin {
        arca_engine_api::Entropy::fill(entropy.as_ref(), &mut [0; 1]).unwrap();
    }
    entropy
}

fn member(name: &str) -> Member {
    let addr = format!("{name}:1");
    Member { id: MemberId(1), name: name.to_owned(), cluster_addr: addr, api_addr: String::new() }
}

fn engines() -> Vec<EngineType> {
    vec![EngineType { name: "cubbyhole", ..notes_engine(EngineKind::Secrets) }]
}

async fn raft(name: &str, vfs: &ModelVfs, home: &Arc<ModelHome>, net: &ModelNet) -> Arc<RaftReplica> {
    let mut config = RaftConfig::new(MemberId(1), name);
    config.threads = Threads::None;
    config.holds_log = true;
    let parts = RaftParts {
        vfs: Arc::new(vfs.clone()),
        log_dir: "/data/log".into(),
        node_dir: "/data".into(),
        home: Arc::clone(home) as Arc<dyn KvHome>,
        transport: net.transport(MemberId(1)),
    };
    let replica = RaftReplica::open(config, parts).await.unwrap();
    net.join(MemberId(1), replica.inbound());
    replica
}

async fn leads(replica: &RaftReplica) {
    while replica.status().role != Role::Leader || replica.read_barrier().await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Region {
    pub(super) async fn open(world: &Arc<World>, name: &'static str) -> Self {
        let (entropy, clock) = (entropy_of(name), Arc::new(TestClock::default()));
        // Everybody who looks finds that time has passed.
        clock.creep(Duration::from_millis(1));
        let root = RootKey::generate(entropy.as_ref()).unwrap();
        let keyring = Keyring::generate(entropy.as_ref(), clock.now().0, Suite::XChaCha20Poly1305).unwrap();
        let sealed = keyring.seal(&root, entropy.as_ref()).unwrap();
        let barrier = Arc::new(Barrier::new(keyring, Arc::clone(&entropy) as Arc<_>));
        let (net, vfs, home) = (ModelNet::new(), ModelVfs::new(1), Arc::new(ModelHome::new()));
        let replica = raft(name, &vfs, &home, &net).await;
        let tx = Tx::new(Arc::clone(&barrier), replica.view(), TxMode::ReadWrite);
        let new = NewCluster {
            cluster_id: name.to_owned(),
            cluster_name: name.to_owned(),
            engines: &engines(),
            root_token: Some("root".to_owned()),
        };
        initial_state(&tx, clock.as_ref(), entropy.as_ref(), &new).unwrap();
        tx.put(Class::Local, ROOT_KEY_PATH, Zeroizing::new(root.expose().to_vec())).unwrap();
        let mut set = tx.into_write_set().unwrap();
        set.reads.clear();
        set.writes.push(Write::Put(boot_key("keyring"), sealed));
        set.writes.push(Write::Put(boot_key("ca"), name.as_bytes().to_vec()));
        replica.bootstrap(member(name), set).await.unwrap();
        leads(&replica).await;
        let now = unsealed(name, world, (&clock, &entropy), &replica, root);
        Self { name, world: Arc::clone(world), clock, entropy, vfs, net, home, replica, now }
    }

    /// Begins another term, as when leadership was lost and won again.
    pub(super) async fn elect(&mut self) {
        self.net.leave(MemberId(1));
        self.replica.shutdown().await;
        self.vfs.restart();
        self.replica = raft(self.name, &self.vfs, &self.home, &self.net).await;
        leads(&self.replica).await;
        self.restart().await;
    }

    /// Everything that is not on the disk is gone, as when the member starts anew with this root key.
    pub(super) async fn restart_with(&mut self, root: RootKey) {
        self.now.running.abort();
        self.now.replicator.stop().await;
        self.now.kernel.deactivate();
        let of = (&self.clock, &self.entropy);
        self.now = unsealed(self.name, &self.world, of, &self.replica, root);
    }

    pub(super) async fn restart(&mut self) {
        let root = RootKey::from_slice(self.now.keys.root().expose()).unwrap();
        self.restart_with(root).await;
    }

    /// A primary, and another cluster that follows it.
    pub(super) async fn pair() -> (Self, Self) {
        let world = Arc::<World>::default();
        let east = Self::open(&world, "east").await;
        let mut west = Self::open(&world, "west").await;
        east.port().enable_primary(Kind::Dr, String::new()).await.unwrap();
        let token = east.token("west").await;
        west.port().enable_secondary(Kind::Dr, token).await.unwrap();
        west.change_over().await;
        west.catch_up_with(&east).await;
        (east, west)
    }

    /// Starts anew with the keys of the state that it has copied.
    pub(super) async fn change_over(&mut self) {
        self.until("the copy", |region| region.now.locked_out.lock().is_some()).await;
        let root = self.now.locked_out.lock().take().unwrap();
        self.restart_with(root).await;
    }

    pub(super) fn port(&self) -> &Replicator {
        &self.now.replicator
    }

    pub(super) async fn token(&self, id: &str) -> Zeroizing<String> {
        let ttl = Duration::from_secs(3_600);
        let wanted = SecondaryToken { id: id.to_owned(), ttl, public_key: None };
        self.port().secondary_token(Kind::Dr, wanted).await.unwrap().token
    }

    /// Has it follow `primary` by comparison.
    pub(super) async fn follow(&self, primary: &Self) {
        let update = SecondaryUpdate::Token(primary.token(self.name).await);
        self.port().update_primary(Kind::Dr, update).await.unwrap();
        self.catch_up_with(primary).await;
    }

    /// A role as it is stored, opened anew.
    pub(super) fn stored_role(&self) -> RoleRecord {
        RoleRecord::load(&self.tx(), Kind::Dr).unwrap()
    }

    /// What is stored now, read past every cache.
    pub(super) fn tx(&self) -> Tx {
        Tx::new(Arc::clone(&self.now.barrier), self.replica.view(), TxMode::ReadWrite)
    }

    pub(super) fn cursor(&self) -> Cursor {
        load_cursor(self.replica.view().as_ref(), shipped(Kind::Dr)).unwrap().0
    }

    /// As the kernel writes: refused where it would be.
    pub(super) async fn write(&self, path: &str) -> Result<u64, String> {
        let tx = self.tx();
        tx.put(Class::Replicated, path, Zeroizing::new(b"value".to_vec())).unwrap();
        let mut set = tx.into_write_set().unwrap();
        self.now.kernel.standing().admit(&mut set).map_err(|err| err.to_string())?;
        self.replica.propose(set).await.map(|done| done.index).map_err(|err: ProposeError| err.to_string())
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.tx().get(Class::Replicated, path).unwrap().is_some()
    }

    /// Makes a new key, as a rotation does.
    pub(super) async fn rotate(&self) {
        let now = self.clock.now().0;
        self.now.keys.store(self.entropy.as_ref(), |_| Ok(()), |barrier| barrier.rotated(now)).await.unwrap();
    }

    pub(super) fn set_cut(&self, is_cut: bool) {
        let addr = format!("{}:1", self.name);
        let mut cut = self.world.cut.lock();
        if is_cut {
            cut.insert(addr)
        } else {
            cut.remove(&addr)
        };
    }

    /// Every key of class `Node`, but for those of the shipping crate.
    pub(super) fn own_keys(&self) -> BTreeSet<Vec<u8>> {
        let mut keys = BTreeSet::new();
        let mut visitor = |key: &[u8], _: &[u8], _: Version| {
            if !key.starts_with(&arca_replication::RECORDS) {
                keys.insert(key.to_vec());
            }
            arca_raft_storage::Visit::Next
        };
        self.replica.view().visit(&[3], Some(&[4]), &mut visitor).unwrap();
        keys
    }

    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if is_so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} waited in vain for {what}: {:?}", self.name, self.port().status(Kind::Dr));
    }

    pub(super) async fn catch_up_with(&self, primary: &Self) {
        let index = primary.replica.view().index();
        self.until("the stream", |region| region.cursor().index >= index).await;
    }
}

/// What is in the way of an order.
pub(super) async fn refused(order: impl Future<Output = Result<(), KernelError>>) -> String {
    order.await.unwrap_err().to_string()
}

fn unsealed(
    name: &'static str,
    world: &Arc<World>,
    (clock, entropy): (&Arc<TestClock>, &Arc<SeededEntropy>),
    replica: &Arc<RaftReplica>,
    root: RootKey,
) -> Unsealed {
    let sealed = replica.view().get(&boot_key("keyring")).unwrap().unwrap();
    let keyring = Keyring::open(&root, &sealed.value).unwrap();
    let barrier = Arc::new(Barrier::new(keyring, Arc::clone(entropy) as Arc<_>));
    let locked_out = Arc::<Mutex<Option<RootKey>>>::default();
    let given = Arc::clone(&locked_out);
    let lock_out = move |why| match why {
        LockedOut::Successor(root) => *given.lock() = Some(root),
        LockedOut::Lost => panic!("{name} has lost its keys"),
    };
    let keys = Arc::new(KeyKeeper::new(root, sealed.version, &barrier, lock_out).unwrap());
    keys.follow(&(Arc::clone(replica) as Arc<dyn Replica>));
    replica.observe(Arc::clone(&keys) as Arc<dyn ApplyObserver>);
    keys.reload();
    let replicator = Replicator::new(ReplicatorParts {
        surroundings: Arc::new(Around { addr: format!("{name}:1"), world: Arc::clone(world) }),
        clock: Arc::clone(clock) as Arc<_>,
        entropy: Arc::clone(entropy) as Arc<_>,
        sealing: Arc::clone(entropy) as Arc<_>,
        me: member(name),
        cluster_id: name.to_owned(),
        version: "test",
        replica: Arc::clone(replica),
        keys: Arc::clone(&keys),
        barrier: Arc::clone(&barrier),
        bytes_per_second: 0,
        source: SourceSettings::default(),
    });
    let replicator = replicator.unwrap();
    let kernel = Kernel::start(KernelParts {
        barrier: Arc::clone(&barrier),
        replica: Arc::clone(replica) as Arc<dyn Replica>,
        clock: Arc::clone(clock) as Arc<_>,
        entropy: Arc::clone(entropy) as Arc<_>,
        engines: engines(),
        cluster: Arc::new(NotingCluster::default()),
        outside: Outside::default(),
        config: KernelConfig::default(),
    });
    let kernel = kernel.unwrap();
    replicator.attach(&kernel);
    let running = tokio::spawn(Replicator::run(Arc::downgrade(&replicator)));
    kernel.activate();
    Unsealed { kernel, replicator, keys, barrier, locked_out, running }
}
