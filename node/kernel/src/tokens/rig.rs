//! What tests of tokens and leases stand on: a kernel over a replica in memory, a clock that moves when told, and an
//! engine whose revocations can be made to fail.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arca_barrier::{Barrier, Class, Keyring, Suite};
use arca_engine_api::{
    Clock, Ctx, Engine, EngineError, EngineKind, EngineType, Http, LeaseGrant, LeaseRecord, Map, Method,
    MountView, Operation, Request, Response, Route, RouteTable, StorageExt as _, UnixMillis,
};
use arca_raft_storage::{Replica as _, Write, WriteSet};
use async_trait::async_trait;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::initial::{NewCluster, initial_state};
use crate::leases::{GrantTo, LeaseEntry, worker::limits_of};
use crate::mounts::NewMount;
use crate::namespaces::{Namespace, ROOT_ID};
use crate::replication::{Kind, Mode as RoleMode, RoleRecord};
use crate::testing::{
    Accounts, LocalReplica, NotingCluster, SeededEntropy, TestClock, names_engine, notes_engine,
    outward_engine,
};
use crate::tokens::create::initial_root;
use crate::tokens::spec::{Asker, NewTokenSpec};
use crate::tokens::{NewToken, TokenEntry};
use crate::tx::{Mode, Tx};
use crate::wrapping::Wrapping;
use crate::{Answer, Body, Incoming, Kernel, KernelConfig, KernelError, KernelParts, Outside};

/// Grants whatever it is asked for. Revocations fail while `broken` is stored, never end while `hung` is, and leave a
/// note when they succeed; so do ticks, which go on in as many steps as `steps` says.
struct Stubborn(RouteTable);

#[async_trait]
impl Engine for Stubborn {
    fn routes(&self) -> &RouteTable {
        &self.0
    }

    async fn handle(&self, _ctx: &Ctx<'_>, _request: &Request) -> Result<Response, EngineError> {
        Err(EngineError::Unsupported)
    }

    async fn renew(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
        if ctx.storage.get("broken")?.is_some() {
            return Err(EngineError::invalid("the account is gone"));
        }
        let grant = LeaseGrant { ttl: lease.increment, ..LeaseGrant::default() };
        Ok(Response { lease: Some(grant), ..Response::default() })
    }

    async fn revoke(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<(), EngineError> {
        if ctx.storage.get("broken")?.is_some() {
            return Err(EngineError::Upstream("no route to host".to_owned()));
        }
        if ctx.storage.get("hung")?.is_some() {
            std::future::pending::<()>().await;
        }
        if let Some(count) = ctx.storage.get_record::<u64>("counted")? {
            ctx.storage.put_record("counted", &(count + 1))?;
        }
        Ok(ctx.storage.put_record(&format!("revoked/{}", lease.id), &true)?)
    }

    async fn tick(&self, ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
        if ctx.storage.get("hung")?.is_some() {
            std::future::pending::<()>().await;
        }
        ctx.storage.put_record("ticked", &true)?;
        Ok(Vec::new())
    }

    async fn go_on(&self, ctx: &Ctx<'_>) -> Result<Option<Duration>, EngineError> {
        let left = ctx.storage.get_record::<u64>("steps")?.unwrap_or_default();
        if left == 0 {
            return Ok(None);
        }
        ctx.storage.put_record("steps", &(left - 1))?;
        Ok(Some(Duration::ZERO))
    }
}

/// Notes that it ticked, in what is shared and in what is of one cluster; writes in both by request too, and logs in.
struct Halved(RouteTable);

static HALVED_ROUTES: &[Route] = &[Route::new(
    "both",
    "both/{name}",
    &[Method::new(Operation::Update, "Write in both halves.")],
    &[],
    "Both halves.",
)];

#[async_trait]
impl Engine for Halved {
    fn routes(&self) -> &RouteTable {
        &self.0
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        for half in ["local/", ""] {
            ctx.storage.put_record(&format!("{half}{}", request.param("name")), &true)?;
        }
        Ok(Response::empty())
    }

    fn local_prefixes(&self) -> &'static [&'static str] {
        &["local/"]
    }

    async fn tick(&self, ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
        for key in ["local/ticked", "ticked"] {
            ctx.storage.put_record(key, &true)?;
        }
        Ok(vec![Map::new()])
    }

    async fn carry_out(&self, _ctx: &Ctx<'_>, _intent: &Map) -> Result<Map, EngineError> {
        Ok(Map::new())
    }

    fn conclude(
        &self,
        ctx: &Ctx<'_>,
        _intent: &Map,
        _outcome: Result<Map, EngineError>,
    ) -> Result<Response, EngineError> {
        ctx.storage.put_record("local/acted", &true)?;
        Ok(Response::empty())
    }
}

fn make_halved(_mount: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(Arc::new(Halved(RouteTable::new(HALVED_ROUTES))))
}

/// There is no third version of it.
fn make(mount: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    match mount.options.get("version").map(String::as_str) {
        Some("3") => Err(EngineError::invalid("there is no such version")),
        _ => Ok(Arc::new(Stubborn(RouteTable::new(&[])))),
    }
}

fn engine_type(name: &'static str, kind: EngineKind) -> EngineType {
    EngineType { name, kind, make, summary: "For tests." }
}

pub(crate) struct Rig {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) replica: LocalReplica,
    pub(crate) cluster: Arc<NotingCluster>,
    pub(crate) root: Arc<TokenEntry>,
    /// The system outside, of the engine `outward`.
    pub(crate) accounts: Arc<Accounts>,
    barrier: Arc<Barrier>,
    entropy: Arc<SeededEntropy>,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Rig {
    pub(crate) async fn new() -> Self {
        let entropy = Arc::new(SeededEntropy::default());
        let clock = Arc::new(TestClock::default());
        let replica = LocalReplica::default();
        let keyring = Keyring::generate(entropy.as_ref(), clock.now().0, Suite::XChaCha20Poly1305).unwrap();
        let barrier = Arc::new(Barrier::new(keyring, Arc::clone(&entropy) as Arc<dyn arca_barrier::Entropy>));
        let cluster = Arc::new(NotingCluster::default());
        let accounts = Arc::new(Accounts::default());
        let kernel = start(&barrier, &replica, &cluster, &clock, &entropy, &accounts);
        let tx = kernel.store.begin(Mode::ReadWrite);
        let new = NewCluster {
            cluster_id: "c".to_owned(),
            cluster_name: "n".to_owned(),
            engines: kernel.mounts.engines(),
            root_token: Some("root".to_owned()),
        };
        initial_state(&tx, clock.as_ref(), entropy.as_ref(), &new).unwrap();
        kernel.store.commit(tx).await.unwrap();
        let tx = kernel.store.begin(Mode::ReadOnly);
        let root = kernel.tokens.find(&tx, "root", clock.now()).unwrap().unwrap();
        let rig = Self { kernel, clock, replica, cluster, root, accounts, barrier, entropy };
        rig.mount("aws", EngineKind::Secrets).await;
        rig.mount("userpass", EngineKind::Auth).await;
        rig
    }

    /// Another cluster, a performance secondary of this one: what is shared is copied once, the rest is its own. Its root
    /// token is `root` as well.
    pub(crate) async fn beside(&self) -> Self {
        let entropy = Arc::new(SeededEntropy::starting_at(1 << 32));
        let (replica, cluster) = (LocalReplica::default(), Arc::new(NotingCluster::default()));
        copy_shared(&self.replica, &replica).await;
        let (clock, accounts) = (Arc::clone(&self.clock), Arc::clone(&self.accounts));
        let barrier = Arc::clone(&self.barrier);
        let kernel = start(&barrier, &replica, &cluster, &clock, &entropy, &accounts);
        let role = RoleRecord { mode: RoleMode::Secondary, epoch: 1, ..RoleRecord::default() };
        kernel.commit_staged(|tx| role.store(tx, Kind::Performance)).await.unwrap();
        kernel.keep_identity("beside", "beside").await.unwrap();
        kernel.complete_local().await.unwrap();
        let tx = kernel.store.begin(Mode::ReadWrite);
        initial_root(&tx, clock.as_ref(), entropy.as_ref(), Some("root")).unwrap();
        kernel.store.commit(tx).await.unwrap();
        let tx = kernel.store.begin(Mode::ReadOnly);
        let root = kernel.tokens.find(&tx, "root", clock.now()).unwrap().unwrap();
        kernel.activate();
        Self { kernel, clock, replica, cluster, root, accounts, barrier, entropy }
    }

    /// The same cluster after a failover: another kernel over the same state.
    pub(crate) fn fail_over(&mut self) {
        self.kernel =
            start(&self.barrier, &self.replica, &self.cluster, &self.clock, &self.entropy, &self.accounts);
    }

    /// Another member of the cluster, a standby, is asked from now on.
    pub(crate) fn become_standby(&mut self) {
        self.replica = self.replica.follower();
        self.kernel =
            start(&self.barrier, &self.replica, &self.cluster, &self.clock, &self.entropy, &self.accounts);
    }

    pub(crate) async fn mount(&self, name: &'static str, kind: EngineKind) {
        let router = self.kernel.mounts.router(&self.kernel.store).unwrap();
        let tx = self.kernel.store.begin(Mode::ReadWrite);
        let new = NewMount { path: name.to_owned(), engine: "stubborn".to_owned(), ..NewMount::default() };
        let mounts = &self.kernel.mounts;
        mounts.enable(&tx, &router, &Namespace::root(), kind, new, self.kernel.entropy.as_ref()).unwrap();
        self.kernel.store.commit(tx).await.unwrap();
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    pub(crate) fn view(&self) -> Tx {
        self.kernel.store.begin(Mode::ReadOnly)
    }

    /// Runs `stage` in a transaction of its own and commits it.
    pub(crate) async fn commit<T: Send>(
        &self,
        stage: impl FnOnce(&Tx) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let tx = self.kernel.store.begin(Mode::ReadWrite);
        let staged = stage(&tx)?;
        self.kernel.store.commit(tx).await?;
        Ok(staged)
    }

    pub(crate) fn asker<'a>(&self, parent: &'a TokenEntry, namespace: &'a Namespace) -> Asker<'a> {
        Asker {
            parent,
            has_sudo: parent.is_root(),
            wants_orphan: false,
            role: None,
            namespace,
            limits: self.kernel.token_limits(namespace).unwrap(),
        }
    }

    /// A token made by another as `spec` says.
    pub(crate) async fn child(
        &self,
        parent: &TokenEntry,
        spec: NewTokenSpec,
    ) -> Result<NewToken, KernelError> {
        let namespace = Namespace::root();
        let draft = self.asker(parent, &namespace).draft(spec, self.now())?;
        let entropy = self.kernel.entropy.as_ref();
        self.commit(|tx| self.kernel.tokens.issue(tx, entropy, draft.entry, draft.id.as_deref())).await
    }

    /// A token of another namespace, without a parent.
    pub(crate) async fn foreign(&self, namespace_id: &str, ttl: Duration) -> NewToken {
        let draft = TokenEntry {
            namespace_id: namespace_id.to_owned(),
            namespace_path: format!("{namespace_id}/"),
            policies: vec!["p".to_owned()],
            path: "auth/token/create".to_owned(),
            created: self.now(),
            expires: Some(self.now().after(ttl)),
            ttl,
            is_renewable: true,
            ..TokenEntry::default()
        };
        let entropy = self.kernel.entropy.as_ref();
        self.commit(|tx| self.kernel.tokens.issue(tx, entropy, draft, None)).await.unwrap()
    }

    /// A lease for `path`, granted to `token` in `namespace_id`.
    pub(crate) async fn lease(
        &self,
        token: &TokenEntry,
        namespace_id: &str,
        path: &str,
        ttl: u64,
    ) -> Result<LeaseEntry, KernelError> {
        self.commit(|tx| self.stage_lease(tx, token, namespace_id, path, ttl)).await
    }

    pub(crate) fn stage_lease(
        &self,
        tx: &Tx,
        token: &TokenEntry,
        namespace_id: &str,
        path: &str,
        ttl: u64,
    ) -> Result<LeaseEntry, KernelError> {
        let router = self.kernel.mounts.router(&self.kernel.store)?;
        let (mount, _) = router.find(path).unwrap();
        let to = GrantTo {
            namespace_id,
            path,
            mount_uuid: &mount.record.uuid,
            limits: limits_of(mount),
            token: Some(token),
        };
        let grant = LeaseGrant { ttl: Duration::from_secs(ttl), is_renewable: true, ..LeaseGrant::default() };
        let entropy = self.kernel.entropy.as_ref();
        self.kernel
            .leases
            .grant(tx, &self.kernel.tokens, entropy, self.now(), to, &grant)
            .map(|(lease, _)| lease)
    }

    /// Whether the token is let in from `remote`.
    pub(crate) fn lets_in_from(&self, token: &NewToken, remote: Option<&str>) -> bool {
        let remote: Option<IpAddr> = remote.map(|text| text.parse().unwrap());
        match self.kernel.tokens.authenticate(&self.view(), &token.secret, remote, self.now()) {
            Ok(_) => true,
            Err(KernelError::Denied) => false,
            Err(err) => panic!("{err}"),
        }
    }

    pub(crate) fn lets_in(&self, token: &NewToken) -> bool {
        self.lets_in_from(token, None)
    }

    pub(crate) fn has_lease(&self, lease: &LeaseEntry) -> bool {
        self.kernel.leases.load(&self.view(), &lease.namespace_id, &lease.id).unwrap().is_some()
    }

    /// Whether the engine undid what a lease granted.
    pub(crate) fn is_undone(&self, lease: &LeaseEntry) -> bool {
        let router = self.kernel.mounts.router(&self.kernel.store).unwrap();
        let mount = router.by_uuid(&lease.mount_uuid).unwrap();
        let path = format!("{}revoked/{}", mount.storage_prefix(), lease.id);
        self.view().get(Class::Replicated, &path).unwrap().is_some()
    }

    pub(crate) fn has_ticked(&self, mount: &str) -> bool {
        let router = self.kernel.mounts.router(&self.kernel.store).unwrap();
        let path = format!("{}ticked", router.at(mount).unwrap().storage_prefix());
        self.view().get(Class::Replicated, &path).unwrap().is_some()
    }

    /// How many steps the `aws` engine has still to take behind its ticks.
    pub(crate) fn steps_left(&self) -> u64 {
        let path = format!("{}steps", self.aws_prefix());
        self.view().get_record(Class::Replicated, &path).unwrap().unwrap_or_default()
    }

    pub(crate) async fn set_steps_left(&self, steps: u64) {
        let path = format!("{}steps", self.aws_prefix());
        self.commit(|tx| Ok(tx.put_record(Class::Replicated, &path, &steps)?)).await.unwrap();
    }

    pub(crate) fn aws_prefix(&self) -> String {
        let router = self.kernel.mounts.router(&self.kernel.store).unwrap();
        router.at("aws/").unwrap().storage_prefix()
    }

    pub(crate) async fn break_engine(&self, is_broken: bool) {
        self.flag_engine("broken", is_broken).await;
    }

    /// Sets or clears a flag that the `aws` engine looks at.
    pub(crate) async fn flag_engine(&self, flag: &str, is_set: bool) {
        let path = format!("{}{flag}", self.aws_prefix());
        self.commit(|tx| {
            if is_set {
                tx.put_record(Class::Replicated, &path, &true)?;
            } else {
                tx.delete(Class::Replicated, &path)?;
            }
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Lets the active node do everything that is due.
    pub(crate) async fn keep_house(&self) {
        let kernel = &self.kernel;
        while kernel.expire_tokens().await.unwrap() + kernel.expire_leases().await.unwrap() > 0 {}
    }

    /// Local entries of the token and lease stores, roots left out.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let tx = self.view();
        let mut found = Vec::new();
        for folder in ["token/", "lease/"] {
            for namespace in [ROOT_ID, "n1"] {
                let prefix = format!("{namespace}/{folder}");
                let paths = tx.some_below(Class::Local, &prefix, usize::MAX).unwrap();
                found.extend(paths.into_iter().filter(|path| !path.contains(&self.root.key)));
            }
        }
        found.retain(|path| !path.ends_with(&self.root.accessor));
        let due = tx
            .due(Class::Local, arca_barrier::TimedIndex::LeaseDeadline, UnixMillis(u64::MAX), None, 10_000)
            .unwrap();
        found.extend(due.into_iter().map(|(at, path)| format!("{} {path}", at.0)));
        found
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn far_future(&self) {
        self.clock.advance(DAY * 3_650);
    }
}

impl Rig {
    pub(crate) async fn active() -> Self {
        let rig = Self::new().await;
        rig.kernel.activate();
        rig
    }

    /// A request without a body.
    pub(crate) fn incoming(&self, token: &str, operation: Operation, path: &str) -> Incoming {
        Incoming {
            id: "request-1".to_owned(),
            operation,
            namespace: String::new(),
            path: path.to_owned(),
            body: Body::Fields(Map::new()),
            headers: std::collections::BTreeMap::new(),
            token: (!token.is_empty()).then(|| Arc::new(Zeroizing::new(token.to_owned()))),
            remote_addr: Some([127, 0, 0, 1].into()),
            remote_port: 1,
            client_certificates: Arc::from(Vec::new()),
            wrap_ttl: None,
            wants_jwt_wrapping: false,
            required_index: Vec::new(),
            forwarded_from: None,
            forwards_when_behind: false,
            allows_stale: false,
        }
    }

    pub(crate) async fn ask(
        &self,
        token: &str,
        operation: Operation,
        path: &str,
        body: Value,
        wrap_ttl: Option<Duration>,
    ) -> Result<Answer, KernelError> {
        let fields = if let Value::Object(fields) = body { fields } else { Map::new() };
        let incoming = self.incoming(token, operation, path);
        self.kernel
            .handle(Incoming { body: Body::Fields(fields), wrap_ttl, ..incoming })
            .await
            .map(|answer| *answer)
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: Value) -> Result<Answer, KernelError> {
        self.ask(token, Operation::Update, path, body, None).await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Result<Answer, KernelError> {
        self.ask(token, Operation::Read, path, Value::Null, None).await
    }

    pub(crate) async fn list(&self, token: &str, path: &str) -> Result<Answer, KernelError> {
        self.ask(token, Operation::List, path, Value::Null, None).await
    }

    /// Makes a token by a request.
    pub(crate) async fn made(&self, token: &str, body: Value) -> String {
        let answer = self.post(token, "auth/token/create", body).await.unwrap();
        answer.auth.unwrap().client_token.to_string()
    }

    /// An answer of `path`, put away.
    pub(crate) async fn wrapped_at(&self, path: &str) -> crate::WrapInfo {
        self.put_away(&Answer { data: Some(Map::new()), ..Answer::default() }, path).await
    }

    /// As [`Self::wrapped_at`], this answer.
    pub(crate) async fn put_away(&self, answer: &Answer, path: &str) -> crate::WrapInfo {
        let kernel = &self.kernel;
        let (router, namespace) = (kernel.mounts.router(&kernel.store).unwrap(), Namespace::root());
        let (clock, entropy) = (self.clock.as_ref(), kernel.entropy.as_ref());
        self.commit(|tx| {
            let wrapping = Wrapping::new(tx, &kernel.tokens, clock, entropy, &router, &namespace)?;
            wrapping.wrap(answer, Duration::from_secs(60), path)
        })
        .await
        .unwrap()
    }

    pub(crate) async fn wrapped(&self, body: Value) -> crate::WrapInfo {
        let ttl = Some(Duration::from_secs(60));
        let answer = self.ask("root", Operation::Update, "sys/wrapping/wrap", body, ttl).await.unwrap();
        answer.wrap_info.unwrap()
    }
}

/// Brings what is shared from one cluster's state to another's, as replication does; answers the index it is as of.
pub(crate) async fn copy_shared(from: &LocalReplica, to: &LocalReplica) -> u64 {
    let (source, target) = (from.view(), to.view());
    let shared = |replica: &LocalReplica| {
        replica.keys().into_iter().filter(|key| crate::tx::is_shared(key)).collect::<Vec<_>>()
    };
    let mut writes = Vec::new();
    for key in shared(from) {
        let Some(found) = source.get(&key).unwrap() else { continue };
        if target.get(&key).unwrap().is_none_or(|known| known.value != found.value) {
            writes.push(Write::Put(key, found.value));
        }
    }
    let gone = shared(to).into_iter().filter(|key| source.get(key).unwrap().is_none());
    writes.extend(gone.map(Write::Delete));
    if !writes.is_empty() {
        to.propose(WriteSet { reads: Vec::new(), writes }).await.unwrap();
    }
    source.index()
}

/// A result in one line.
pub(crate) fn text(result: Result<Answer, KernelError>) -> String {
    result.map_or_else(|err| err.to_string(), |answer| format!("{:?} {:?}", answer.data, answer.warnings))
}

fn start(
    barrier: &Arc<Barrier>,
    replica: &LocalReplica,
    cluster: &Arc<NotingCluster>,
    clock: &Arc<TestClock>,
    entropy: &Arc<SeededEntropy>,
    accounts: &Arc<Accounts>,
) -> Arc<Kernel> {
    Kernel::start(KernelParts {
        barrier: Arc::clone(barrier),
        replica: Arc::new(replica.clone()),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        entropy: Arc::clone(entropy) as Arc<dyn arca_engine_api::Entropy>,
        engines: vec![
            engine_type("stubborn", EngineKind::Secrets),
            engine_type("stubborn", EngineKind::Auth),
            engine_type("cubbyhole", EngineKind::Secrets),
            notes_engine(EngineKind::Secrets),
            notes_engine(EngineKind::Auth),
            names_engine(EngineKind::Secrets),
            names_engine(EngineKind::Auth),
            outward_engine(),
            EngineType { make: make_halved, ..engine_type("halved", EngineKind::Secrets) },
        ],
        cluster: Arc::clone(cluster) as Arc<dyn crate::ports::ClusterPort>,
        outside: Outside { http: Arc::clone(accounts) as Arc<dyn Http>, ..Outside::default() },
        config: KernelConfig::default(),
    })
    .unwrap()
}

/// A specification with policy `p` and this lifetime, renewable.
pub(crate) fn spec(ttl: u64) -> NewTokenSpec {
    NewTokenSpec {
        policies: vec!["p".to_owned()],
        ttl: Duration::from_secs(ttl),
        is_renewable: true,
        ..NewTokenSpec::default()
    }
}
