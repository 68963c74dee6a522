//! Whole conversations with a mount, over a database that is made up.

mod configs;
mod fake;
mod leases;
mod rotating;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arca_engine_api::{
    AtOnce, Caller, Clock, Ctx, Engine as _, EngineError, Entropy, EntropyError, LeaseGrant, LeaseRecord,
    MountView, NoHttp, NoPod, Operation, Page, Passwords, Request, Response, Secretive, Storage as _,
    UnixMillis,
};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use self::fake::Server;
use crate::secrets::database::Databases;
use crate::secrets::database::adapter::Settings;
use crate::secrets::database::pool::Limits;
use crate::testing::MapStorage;

/// As random as the rig's source.
#[derive(Debug)]
pub(crate) struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill(7);
        Ok(())
    }
}

/// Settings with nothing special.
pub(crate) fn settings(url: &str, username: &str, password: &str) -> Settings {
    Settings {
        url: url.to_owned(),
        username: username.to_owned(),
        passwords: vec![Secretive::from(password)],
        escapes: true,
        limits: Limits { open_max: 4, idle_max: 4, lifetime_max: Duration::ZERO },
        tls_ca: String::new(),
        tls_certificate_key: Secretive::from(""),
        tls_server_name: String::new(),
        tls_skips_verification: false,
        hashes_passwords: false,
    }
}

/// A clock that a test sets, randomness and passwords that never come twice.
#[derive(Debug, Default)]
struct World {
    now_ms: AtomicU64,
    count: AtomicU64,
}

impl Clock for World {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.now_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now().0)
    }
}

impl Entropy for World {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        dest.fill(u8::try_from(count % 248).unwrap());
        Ok(())
    }
}

impl Passwords for World {
    fn generate(&self, policy: &str) -> Result<Zeroizing<String>, EngineError> {
        if policy == "gone" {
            return Err(EngineError::invalid("no such password policy"));
        }
        Ok(Zeroizing::new(format!("{policy}-password-{}", self.count.fetch_add(1, Ordering::Relaxed))))
    }
}

/// Where a node crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    /// Once what was intended is stored.
    BeforeActing,
    /// Once the database has done it.
    BeforeConcluding,
    Never,
}

/// A mount and its database.
struct Talk {
    engine: Databases,
    storage: MapStorage,
    world: World,
    mount: MountView,
    server: Arc<Server>,
}

impl Talk {
    /// With a connection `db`.
    async fn new() -> Self {
        let mount = MountView {
            default_lease_ttl: Duration::from_secs(3_600),
            max_lease_ttl: Duration::from_secs(86_400),
            ..MountView::default()
        };
        let (server, world) = (fake::server(), World::default());
        world.now_ms.store(1_795_698_000_000, Ordering::Relaxed);
        let engine = Databases::new(fake::KINDS);
        let talk = Self { engine, storage: MapStorage::default(), world, mount, server };
        let config = json!({"plugin_name": "fake", "connection_url": "x", "username": "root", "password": "secret", "allowed_roles": "*"});
        assert_eq!(talk.say(Operation::Update, "config/db", config).await, "none");
        talk
    }

    fn ctx(&self) -> Ctx<'_> {
        Ctx {
            storage: &self.storage,
            mount: &self.mount,
            clock: &self.world,
            entropy: &self.world,
            http: &NoHttp,
            pod: &NoPod,
            passwords: &self.world,
            workers: &AtOnce,
        }
    }

    fn advance(&self, seconds: u64) {
        self.world.now_ms.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }

    fn request(&self, operation: Operation, path: &str, data: Value) -> Request {
        let (_, route) = self.engine.routes().find(operation, path).unwrap();
        let caller = Caller {
            token_key: "t1".to_owned(),
            accessor: "a1".to_owned(),
            display_name: "token".to_owned(),
            entity_id: String::new(),
            policies: Arc::from([]),
            metadata: Arc::default(),
            is_batch: false,
            is_root: false,
        };
        Request {
            id: "test".to_owned(),
            operation,
            namespace: String::new(),
            path: path.to_owned(),
            mount_point: "m/".to_owned(),
            route,
            data: data.as_object().cloned().unwrap_or_default(),
            headers: BTreeMap::new(),
            caller: Some(Arc::new(caller)),
            client_token: None,
            remote_addr: None,
            remote_port: 0,
            client_certificates: Arc::from([]),
            wrap_ttl: None,
        }
    }

    /// What the engine does about an intent, as the kernel has it done.
    async fn fulfil(&self, intent: &Map<String, Value>, crash: Crash) -> Result<Response, EngineError> {
        if crash == Crash::BeforeActing {
            return Err(EngineError::Upstream("crashed".to_owned()));
        }
        let acting =
            tokio::time::timeout(Duration::from_secs(60), self.engine.carry_out(&self.ctx(), intent)).await;
        let outcome = acting.unwrap_or_else(|_| Err(EngineError::Upstream("too late".to_owned())));
        if crash == Crash::BeforeConcluding {
            return Err(EngineError::Upstream("crashed".to_owned()));
        }
        self.engine.conclude(&self.ctx(), intent, outcome)
    }

    async fn call(
        &self,
        operation: Operation,
        path: &str,
        data: Value,
        crash: Crash,
    ) -> (Result<Response, EngineError>, Option<LeaseGrant>) {
        let response = match self.engine.handle(&self.ctx(), &self.request(operation, path, data)).await {
            Ok(response) => response,
            Err(err) => return (Err(err), None),
        };
        match &response.intent {
            None => (Ok(response), None),
            Some(intent) => (self.fulfil(intent, crash).await, response.lease),
        }
    }

    /// The answer in one line.
    async fn say(&self, operation: Operation, path: &str, data: Value) -> String {
        match self.call(operation, path, data, Crash::Never).await.0 {
            Err(err) => format!("{:?}: {err}", err.fault()),
            Ok(response) => {
                let data =
                    response.data.map_or_else(|| "none".to_owned(), |data| Value::Object(data).to_string());
                let warnings: String =
                    response.warnings.iter().map(|text| format!(" warning: {text}")).collect();
                format!("{data}{warnings}")
            }
        }
    }

    async fn read(&self, path: &str) -> String {
        self.say(Operation::Read, path, Value::Null).await
    }

    async fn write(&self, path: &str, data: Value) -> String {
        self.say(Operation::Update, path, data).await
    }

    async fn tick(&self) -> usize {
        let intents = self.engine.tick(&self.ctx()).await.unwrap();
        for intent in &intents {
            drop(self.fulfil(intent, Crash::Never).await);
        }
        intents.len()
    }

    fn lease(&self, grant: &LeaseGrant) -> LeaseRecord {
        LeaseRecord {
            id: "l".to_owned(),
            internal: grant.internal.clone(),
            increment: Duration::ZERO,
            ttl: grant.ttl,
        }
    }

    async fn revoke(&self, grant: &LeaseGrant) -> Result<(), EngineError> {
        self.engine.revoke(&self.ctx(), &self.lease(grant)).await
    }

    fn due(&self) -> Vec<String> {
        self.storage.scan("due/", &Page::default()).unwrap()
    }
}
