//! An engine on a map in memory, with a clock that a test sets, driven in one line a request.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use arca_engine_api::{
    Access, Asker, AtOnce, Caller, Clock, Ctx, Engine, EngineError, Entropy, EntropyError, Http, LeaseRecord,
    Map, MountView, NoHttp, NoPod, Operation, Page, Passwords, Pod, Request, Response, RouteMatch, Storage,
    StorageError, UnixMillis, Workers,
};
use serde_json::Value;
use zeroize::Zeroizing;

/// Storage that is a map. Its lock never stays poisoned: a test that panicked has failed already.
#[derive(Default)]
pub(crate) struct MapStorage(std::sync::Mutex<BTreeMap<String, Vec<u8>>>);

impl MapStorage {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap()
    }

    fn below(&self, prefix: &str, page: &Page, name: impl Fn(&str) -> String) -> Vec<String> {
        let map = self.lock();
        let names: BTreeSet<String> =
            map.keys().filter_map(|key| key.strip_prefix(prefix)).map(name).collect();
        let is_wanted = |name: &String| page.after.as_ref().is_none_or(|after| name > after);
        names.into_iter().filter(is_wanted).take(page.limit.unwrap_or(usize::MAX)).collect()
    }
}

impl Storage for MapStorage {
    fn get(&self, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StorageError> {
        Ok(self.lock().get(key).cloned().map(Zeroizing::new))
    }

    fn list(&self, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError> {
        Ok(self.below(prefix, page, |rest| match rest.split_once('/') {
            Some((folder, _)) => format!("{folder}/"),
            None => rest.to_owned(),
        }))
    }

    fn scan(&self, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError> {
        Ok(self.below(prefix, page, str::to_owned))
    }

    fn put(&self, key: &str, value: Zeroizing<Vec<u8>>) -> Result<(), StorageError> {
        self.lock().insert(key.to_owned(), value.to_vec());
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<(), StorageError> {
        self.lock().remove(key);
        Ok(())
    }
}

/// A clock and a source of "randomness" that repeats itself, or counts.
#[derive(Debug)]
struct World {
    now_ms: AtomicU64,
    /// What the next bytes are filled with.
    byte: AtomicU8,
    /// What is added to it each time.
    step: AtomicU8,
}

impl Default for World {
    fn default() -> Self {
        Self { now_ms: AtomicU64::new(1_000), byte: AtomicU8::new(7), step: AtomicU8::new(0) }
    }
}

impl Clock for World {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.now_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::Relaxed))
    }
}

impl Entropy for World {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill(self.byte.fetch_add(self.step.load(Ordering::Relaxed), Ordering::Relaxed));
        Ok(())
    }
}

impl Passwords for World {
    /// Names the policy, so that tests see which was asked for.
    fn generate(&self, policy: &str) -> Result<Zeroizing<String>, EngineError> {
        Ok(Zeroizing::new(format!("password by {policy:?}")))
    }
}

/// Workers that run everything at once, and note for whom.
#[derive(Debug, Default)]
struct Noted(std::sync::Mutex<Vec<Asker>>);

impl Workers for Noted {
    fn run(&self, asker: Asker, work: Box<dyn FnOnce() + Send>) {
        self.0.lock().unwrap().push(asker);
        AtOnce.run(asker, work);
    }
}

/// Who asks.
fn caller() -> Caller {
    Caller {
        token_key: "t1".to_owned(),
        accessor: "a1".to_owned(),
        display_name: "token".to_owned(),
        entity_id: String::new(),
        policies: Arc::from([]),
        metadata: Arc::default(),
        is_batch: false,
        is_root: false,
    }
}

/// One mount.
pub(crate) struct Rig {
    engine: Arc<dyn Engine>,
    mount: MountView,
    storage: MapStorage,
    world: World,
    http: Arc<dyn Http>,
    pod: Arc<dyn Pod>,
    workers: Noted,
    address: Option<IpAddr>,
}

impl Rig {
    pub(crate) fn new(make: fn(&MountView) -> Result<Arc<dyn Engine>, EngineError>, version: &str) -> Self {
        let options = BTreeMap::from([("version".to_owned(), version.to_owned())]);
        let mount = MountView {
            options,
            default_lease_ttl: Duration::from_secs(60),
            max_lease_ttl: Duration::from_secs(768 * 3_600),
            ..MountView::default()
        };
        let engine = make(&mount).unwrap();
        Self {
            engine,
            mount,
            storage: MapStorage::default(),
            world: World::default(),
            http: Arc::new(NoHttp),
            pod: Arc::new(NoPod),
            workers: Noted::default(),
            address: None,
        }
    }

    /// The same storage under another engine, as after a tune of the mount.
    pub(crate) fn remade(
        self,
        make: fn(&MountView) -> Result<Arc<dyn Engine>, EngineError>,
        version: &str,
    ) -> Self {
        let Self { storage, world, http, .. } = self;
        Self { storage, world, http, ..Self::new(make, version) }
    }

    /// The same with other systems around it.
    pub(crate) fn with_http(self, http: Arc<dyn Http>) -> Self {
        Self { http, ..self }
    }

    /// The same in a pod.
    pub(crate) fn with_pod(self, pod: Arc<dyn Pod>) -> Self {
        Self { pod, ..self }
    }

    /// From now on random bytes differ each time.
    pub(crate) fn with_counting_entropy(self) -> Self {
        self.world.step.store(1, Ordering::Relaxed);
        self
    }

    /// From now on requests come from there.
    pub(crate) fn come_from(&mut self, address: &str) {
        self.address = address.parse().ok();
    }

    /// What a new mount begins with.
    pub(crate) fn initialize(&self) {
        now(self.engine.initialize(&self.ctx())).unwrap();
    }

    /// The answer to a renewal: the lifetimes granted, or what is wrong.
    pub(crate) fn renew(&self, internal: &Map) -> String {
        let lease = LeaseRecord {
            id: "auth/m/login/h".to_owned(),
            internal: internal.clone(),
            increment: Duration::ZERO,
            ttl: Duration::from_secs(60),
        };
        match now(self.engine.renew(&self.ctx(), &lease)) {
            Ok(response) => {
                let login = response.login.unwrap();
                let seconds = |span: Duration| span.as_secs();
                format!(
                    "ttl {} max {} period {}",
                    seconds(login.ttl),
                    seconds(login.max_ttl),
                    seconds(login.period)
                )
            }
            Err(err) => format!("error: {err}"),
        }
    }

    /// Whom the kernel would count a failed login against.
    pub(crate) fn login_name(&self, path: &str, data: &Value) -> Option<String> {
        self.engine.login_name(&self.request(Operation::Update, path, data))
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.world.now_ms.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }

    /// Puts an entry there behind the engine's back.
    pub(crate) fn plant(&self, key: &str, value: &[u8]) {
        self.storage.lock().insert(key.to_owned(), value.to_vec());
    }

    /// Every stored key.
    pub(crate) fn stored(&self) -> Vec<String> {
        self.storage.lock().keys().cloned().collect()
    }

    fn ctx(&self) -> Ctx<'_> {
        Ctx {
            storage: &self.storage,
            mount: &self.mount,
            clock: &self.world,
            entropy: &self.world,
            http: self.http.as_ref(),
            passwords: &self.world,
            workers: &self.workers,
            pod: self.pod.as_ref(),
        }
    }

    fn request(&self, operation: Operation, path: &str, data: &Value) -> Request {
        let (served_by, route) = self.engine.routes().find(operation, path).unwrap();
        let has_caller = served_by.access != Access::Unauthenticated;
        Request {
            id: "test".to_owned(),
            operation,
            namespace: String::new(),
            path: path.to_owned(),
            mount_point: "m/".to_owned(),
            route,
            data: data.as_object().cloned().unwrap_or_else(Map::new),
            headers: BTreeMap::new(),
            caller: has_caller.then(|| Arc::new(caller())),
            client_token: None,
            remote_addr: self.address,
            remote_port: 0,
            client_certificates: Arc::from([]),
            wrap_ttl: None,
        }
    }

    pub(crate) fn exists(&self, path: &str) -> Option<bool> {
        self.engine.exists(&self.ctx(), &self.request(Operation::Update, path, &Value::Null)).unwrap()
    }

    /// The engine's housekeeping.
    pub(crate) fn tick(&self) {
        for intent in now(self.engine.tick(&self.ctx())).unwrap() {
            drop(self.fulfil(&intent));
        }
    }

    /// How many computations ran aside so far.
    pub(crate) fn computed(&self) -> usize {
        self.workers.0.lock().unwrap().len()
    }

    /// For whom the last one ran.
    pub(crate) fn computed_for(&self) -> Option<Asker> {
        self.workers.0.lock().unwrap().last().copied()
    }

    /// Lets a test look below the paths.
    pub(crate) fn with_ctx<T>(&self, look: impl FnOnce(&Ctx<'_>) -> T) -> T {
        look(&self.ctx())
    }

    /// The end of a lease: nothing, or what is wrong.
    pub(crate) fn end_lease(&self, internal: &Map) -> String {
        let lease = LeaseRecord {
            id: "m/x/h".to_owned(),
            internal: internal.clone(),
            increment: Duration::ZERO,
            ttl: Duration::from_secs(60),
        };
        now(self.engine.revoke(&self.ctx(), &lease))
            .map_or_else(|err| format!("error: {err}"), |()| String::new())
    }

    /// What comes of an intent.
    fn fulfil(&self, intent: &Map) -> Result<Response, EngineError> {
        let outcome = now(self.engine.carry_out(&self.ctx(), intent));
        self.engine.conclude(&self.ctx(), intent, outcome)
    }

    /// What the engine answers.
    pub(crate) fn call(
        &self,
        operation: Operation,
        path: &str,
        data: &Value,
    ) -> Result<Response, EngineError> {
        let (ctx, request) = (self.ctx(), self.request(operation, path, data));
        assert_ne!(request.route.id, RouteMatch::none().id, "no route for {path:?}");
        let response = now(self.engine.handle(&ctx, &request))?;
        let Some(intent) = &response.intent else { return Ok(response) };
        let concluded = self.fulfil(intent)?;
        Ok(Response { lease: response.lease, ..concluded })
    }

    /// A request that may have to wait: the test asks whether it has ended. Nothing is acted on.
    pub(crate) fn begin<'a>(
        &'a self,
        operation: Operation,
        path: &str,
        data: &Value,
    ) -> impl Future<Output = Result<Response, EngineError>> + use<'a> {
        let request = self.request(operation, path, data);
        async move { self.engine.handle(&self.ctx(), &request).await }
    }

    /// The answer in one line: `none`, `404 {…}`, `{…}`, `error: …`, and its warnings.
    pub(crate) fn say(&self, operation: Operation, path: &str, data: &Value) -> String {
        let response = match self.call(operation, path, data) {
            Ok(response) => response,
            Err(err) => return format!("error: {err}"),
        };
        let status = if response.is_missing { "404 " } else { "" };
        let data = response.data.map_or_else(|| "none".to_owned(), |data| Value::Object(data).to_string());
        let warnings: String = response.warnings.iter().map(|text| format!(" warning: {text}")).collect();
        format!("{status}{data}{warnings}")
    }
}

/// What comes of something at once. Engines here only compute: one poll is enough.
fn now<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match work.as_mut().poll(&mut context) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => panic!("the engine waits for something"),
    }
}
