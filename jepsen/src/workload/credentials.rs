//! Credentials of a real database: users made for a lease, who log in until it ends or is revoked, and must be gone then.
//! Clients reach the database whatever happens to the nodes' ways to it. At the end nothing of all that was made may be
//! left: neither what somebody was told of nor what came of requests in doubt.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arca_client::leases::Revocation;
use arca_client::request::Request;
use arca_client::{Client, Error};
use arca_harness::HarnessError;
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::pool::Pool;
use super::{Promise, Shared, Worker, Workload, settle};
use crate::cluster::DATABASE_PORT;
use crate::dice::Dice;
use crate::history::recorder::{Pending, Process};
use crate::history::{Answer, Call, ModelName};
use crate::outcome::{Outcome, Reply, outcome};
use crate::postgres::{ACCOUNT, DATABASE, Login, PASSWORD, Postgres};

/// Users at a time.
const USERS: usize = 14;
/// How long after its deadline a user goes on logging in.
const USED_AFTER: Duration = Duration::from_secs(3);
/// How long after its revocation was asked for, if that was not acknowledged.
const USED_IN_DOUBT: Duration = Duration::from_secs(8);
/// How long after its revocation was acknowledged.
const USED_AFTER_REVOCATION: Duration = Duration::from_millis(1_500);
/// A lease is renewed at most so often.
const RENEWALS_MAX: u64 = 2;
/// Between two operations of a worker: a login costs both sides some milliseconds.
const INTERVAL: Duration = Duration::from_millis(40);
/// Everything has ended so long after everything was healed: what a node that was killed had begun is undone two minutes
/// later, and what failed five times waits for five minutes at most.
const END_LIMIT: Duration = Duration::from_secs(400);
/// Between two looks at what is left.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What the database makes for users to be granted something.
const THINGS: &str = "CREATE TABLE things (id int); INSERT INTO things VALUES (1)";

/// A role.
#[derive(Debug)]
struct Role {
    name: &'static str,
    ttl_s: u64,
    creation: &'static str,
    /// Empty for what the server does by itself.
    revocation: &'static str,
    /// Whether all of it is revoked from time to time, also what is being made at that moment. Of such users it is not
    /// known who was hit, so nothing is promised of how long they are let in.
    is_swept: bool,
}

/// One whose users the database ends a little after the lease, as is usual; one whose users nobody ends but the server; one
/// with statements of its own for that; and one that is swept.
static ROLES: [Role; 4] = [
    Role {
        name: "usual",
        ttl_s: 5,
        creation: "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; \
                   GRANT SELECT ON things TO \"{{name}}\"",
        revocation: "",
        is_swept: false,
    },
    Role {
        name: "endless",
        ttl_s: 8,
        creation: "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'; \
                   GRANT SELECT ON things TO \"{{name}}\"",
        revocation: "",
        is_swept: false,
    },
    Role {
        name: "own",
        ttl_s: 25,
        creation: "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; \
                   GRANT SELECT ON things TO \"{{name}}\"",
        revocation: "REVOKE ALL ON things FROM \"{{name}}\"; DROP ROLE \"{{name}}\"",
        is_swept: false,
    },
    Role {
        name: "swept",
        ttl_s: 12,
        creation: "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'; \
                   GRANT SELECT ON things TO \"{{name}}\"",
        revocation: "",
        is_swept: true,
    },
];

/// A user.
#[derive(Debug)]
struct Entry {
    key: String,
    username: String,
    password: String,
    lease_id: String,
    role: &'static Role,
    renewals: AtomicU64,
    /// In the recorder's time.
    deadline_ns: AtomicU64,
    /// When its revocation was first asked for; 0 before.
    asked_ns: AtomicU64,
    /// When its revocation was first acknowledged; 0 before.
    revoked_ns: AtomicU64,
}

impl Entry {
    fn is_over(&self, now: u64) -> bool {
        let has_passed = |since: &AtomicU64, span: Duration| {
            let since = since.load(Ordering::Relaxed);
            since > 0 && Duration::from_nanos(now.saturating_sub(since)) > span
        };
        has_passed(&self.deadline_ns, USED_AFTER)
            || has_passed(&self.asked_ns, USED_IN_DOUBT)
            || has_passed(&self.revoked_ns, USED_AFTER_REVOCATION)
    }

    /// The first of such moments is kept.
    fn note(moment: &AtomicU64, now: u64) {
        // Another one was there before: fine.
        let _ = moment.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Lives as long again, from now on.
    fn lives_on(&self, now: u64) {
        let ttl = Duration::from_secs(self.role.ttl_s).as_nanos();
        let deadline = now.saturating_add(u64::try_from(ttl).unwrap_or(u64::MAX));
        self.deadline_ns.fetch_max(deadline, Ordering::Relaxed);
    }
}

/// See the module's header.
#[derive(Debug)]
pub struct Credentials {
    pool: Pool<Entry>,
    /// Set before anybody works.
    database: OnceLock<Arc<Postgres>>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { pool: Pool::new(USERS), database: OnceLock::new() }
    }
}

#[async_trait]
impl Workload for Credentials {
    fn name(&self) -> &'static str {
        super::CREDENTIALS
    }

    fn promises(&self) -> Vec<Promise> {
        let of_users = ["create", "login", "renew", "revoke", "revoke_now"];
        let of_users = of_users.map(|call| (ModelName::Credential, call));
        of_users.into_iter().chain([(ModelName::Leftover, "remaining")]).collect()
    }

    fn needs_database(&self) -> bool {
        true
    }

    async fn set_up(&self, client: &Client, database: Option<&Arc<Postgres>>) -> Result<(), HarnessError> {
        let database = database.ok_or_else(|| HarnessError("there is no database".to_owned()))?;
        database.execute(THINGS).await?;
        let names: Vec<&str> = ROLES.iter().map(|role| role.name).collect();
        let login = "{{username}}:{{password}}";
        let url = format!("postgresql://{login}@127.0.0.1:{DATABASE_PORT}/{DATABASE}?sslmode=disable");
        write(client, "sys/mounts/database", &json!({"type": "database"})).await?;
        let config = json!({
            "plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": names,
            "username": ACCOUNT, "password": PASSWORD, "max_open_connections": 8,
        });
        write(client, "database/config/outside", &config).await?;
        for role in &ROLES {
            let body = json!({
                "db_name": "outside", "creation_statements": role.creation, "revocation_statements": role.revocation,
                "default_ttl": role.ttl_s, "max_ttl": "1h",
            });
            write(client, &format!("database/roles/{}", role.name), &body).await?;
        }
        let _ = self.database.set(Arc::clone(database));
        Ok(())
    }

    async fn run(&self, mut worker: Worker) {
        while !worker.is_over() {
            let went_well = match self.pool.pick(&mut worker.dice).filter(|_| self.pool.is_full()) {
                None => self.create(&mut worker).await,
                Some(entry) if entry.is_over(worker.now()) => {
                    self.pool.remove(&entry);
                    continue;
                }
                Some(entry) => self.work_with(&mut worker, &entry).await,
            };
            worker.rest(went_well).await;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn wind_up(&self, shared: &Shared, mut dice: Dice) -> Option<String> {
        let mut process = shared.recorder.process();
        // What is asked to end is tried again, so those that were given up have to be looked for before.
        for client in &shared.clients {
            let given_up = given_up(client).await;
            look(&mut process, "left/given-up", given_up.map_err(|err| err.to_string()));
        }
        let (start, is_asked) = (Instant::now(), dice.chance(50));
        for client in &shared.clients {
            wait_for_the_end(client, is_asked, start + END_LIMIT).await;
        }
        for client in &shared.clients {
            look(&mut process, "left/leases", leases(client).await.map_err(|err| err.to_string()));
            look(&mut process, "left/given-up", given_up(client).await.map_err(|err| err.to_string()));
        }
        let users = match self.database.get() {
            Some(database) => database.users().await.map_err(|err| err.0),
            None => Err("there is no database".to_owned()),
        };
        look(&mut process, "left/users", users);
        let how = if is_asked { "were asked to end" } else { "ended by themselves" };
        Some(format!("the leases that were left {how}, within {} s", start.elapsed().as_secs()))
    }
}

impl Credentials {
    async fn create(&self, worker: &mut Worker) -> bool {
        let Some(role) = worker.dice.pick(&ROLES) else { return false };
        let key = format!("d/{}", self.pool.number());
        let promised_s = if role.is_swept { 0 } else { role.ttl_s };
        let call = Call::Create { uses: None, ttl_ms: Some(promised_s * 1_000) };
        let client = worker.client();
        let pending = worker.process.invoke(ModelName::Credential, key.as_str(), call.clone());
        let made = client.send_secret(Request::get(format!("database/creds/{}", role.name))).await;
        let Ok(secret) = settle(pending, &call, made, |_| Answer::Done) else { return false };
        let text = |name: &str| Some(secret.field(name)?.as_str()?.to_owned());
        let (Some(username), Some(password)) = (text("username"), text("password")) else {
            worker.complain(format!("{key} was answered without a user"));
            return false;
        };
        let entry = Entry {
            key,
            username,
            password,
            lease_id: secret.lease_id,
            role,
            renewals: AtomicU64::new(0),
            deadline_ns: AtomicU64::new(0),
            asked_ns: AtomicU64::new(0),
            revoked_ns: AtomicU64::new(0),
        };
        entry.lives_on(worker.now());
        self.pool.add(entry);
        true
    }

    async fn work_with(&self, worker: &mut Worker, entry: &Entry) -> bool {
        if entry.revoked_ns.load(Ordering::Relaxed) > 0 {
            return self.login(worker, entry).await;
        }
        match worker.dice.within(0..200) {
            0..2 => self.sweep(worker, Revocation::Queued).await,
            2..4 => self.sweep(worker, Revocation::Synchronous).await,
            4..8 => revoke(worker, entry, Revocation::Queued).await,
            8..16 => revoke(worker, entry, Revocation::Synchronous).await,
            16..24
                if !entry.role.is_swept && entry.renewals.fetch_add(1, Ordering::Relaxed) < RENEWALS_MAX =>
            {
                renew(worker, entry).await
            }
            _ => self.login(worker, entry).await,
        }
    }

    /// Revokes all users of roles that are swept, those that are being made included. It counts for those that were known
    /// before.
    async fn sweep(&self, worker: &mut Worker, how: Revocation) -> bool {
        let Some(role) = ROLES.iter().find(|role| role.is_swept) else { return false };
        let mut entries = self.pool.all();
        entries.retain(|entry| entry.role.is_swept);
        let call = revoking(how);
        let client = worker.client();
        // One process does one thing at a time, and this is one for each user.
        let mut processes: Vec<Process> = entries.iter().map(|_| worker.shared.recorder.process()).collect();
        let pending: Vec<Pending<'_>> = processes
            .iter_mut()
            .zip(&entries)
            .map(|(process, entry)| {
                Entry::note(&entry.asked_ns, worker.shared.recorder.now());
                process.invoke(ModelName::Credential, entry.key.as_str(), call.clone())
            })
            .collect();
        let swept = client.sys().revoke_leases(&format!("database/creds/{}", role.name), how).await;
        for pending in pending {
            match &swept {
                Ok(()) => pending.ok(Answer::Done),
                Err(err) => pending.failed(outcome(&call, &Reply::from(err)), err.to_string()),
            }
        }
        if swept.is_ok() {
            let now = worker.now();
            entries.iter().for_each(|entry| Entry::note(&entry.revoked_ns, now));
        }
        swept.is_ok()
    }

    async fn login(&self, worker: &mut Worker, entry: &Entry) -> bool {
        let Some(database) = self.database.get() else { return false };
        let call = Call::Login { password: None };
        let pending = worker.process.invoke(ModelName::Credential, entry.key.as_str(), call);
        match database.login(&entry.username, &entry.password).await {
            Login::In => pending.ok(Answer::Done),
            Login::Refused(said) => pending.failed(Outcome::Refused, said),
            Login::Failed(said) => {
                pending.failed(Outcome::Fail, said);
                return false;
            }
        }
        true
    }
}

async fn revoke(worker: &mut Worker, entry: &Entry, how: Revocation) -> bool {
    let client = worker.client();
    Entry::note(&entry.asked_ns, worker.now());
    let call = revoking(how);
    let pending = worker.process.invoke(ModelName::Credential, entry.key.as_str(), call.clone());
    let revoked = client.sys().revoke_lease(&entry.lease_id, how).await;
    let is_revoked = settle(pending, &call, revoked, |()| Answer::Done).is_ok();
    if is_revoked {
        Entry::note(&entry.revoked_ns, worker.now());
    }
    is_revoked
}

fn revoking(how: Revocation) -> Call {
    if how == Revocation::Synchronous { Call::RevokeNow } else { Call::Revoke }
}

async fn renew(worker: &mut Worker, entry: &Entry) -> bool {
    let client = worker.client();
    let call = Call::Renew { ttl_ms: entry.role.ttl_s * 1_000 };
    let pending = worker.process.invoke(ModelName::Credential, entry.key.as_str(), call.clone());
    let renewed = client.sys().renew_lease(&entry.lease_id, entry.role.ttl_s).await;
    let is_renewed = settle(pending, &call, renewed, |_| Answer::Done).is_ok();
    if is_renewed {
        entry.lives_on(worker.now());
    }
    is_renewed
}

async fn write(client: &Client, path: &str, body: &Value) -> Result<(), HarnessError> {
    client.write(path, body).await.map(drop).map_err(|err| HarnessError::new(&format!("writing {path}"), err))
}

/// Writes down what was found where nothing may be.
fn look(process: &mut Process, key: &str, found: Result<Vec<String>, String>) {
    let pending = process.invoke(ModelName::Leftover, key, Call::Remaining);
    match found {
        Ok(names) => pending.ok(Answer::Names(names)),
        Err(err) => pending.failed(Outcome::Fail, err),
    }
}

/// Until no lease is left, or the limit is reached: what is found then is looked at afterwards.
async fn wait_for_the_end(client: &Client, is_asked: bool, limit: Instant) {
    while !leases(client).await.is_ok_and(|left| left.is_empty()) && Instant::now() < limit {
        if is_asked {
            // Refused as long as something is still being made, or undone; then it is asked again.
            let _ = client.sys().revoke_leases("database/creds", Revocation::Synchronous).await;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The leases of all roles.
async fn leases(client: &Client) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for role in &ROLES {
        let prefix = format!("database/creds/{}", role.name);
        let ids = client.list(&format!("sys/leases/lookup/{prefix}")).await?.unwrap_or_default();
        found.extend(ids.into_iter().map(|id| format!("{prefix}/{id}")));
    }
    Ok(found)
}

/// The leases that nobody tries to end any more.
async fn given_up(client: &Client) -> Result<Vec<String>, Error> {
    let found = client.send_secret(Request::get("sys/leases").query("type", "irrevocable")).await?;
    let leases = found.field("leases").and_then(Value::as_array);
    let name = |lease: &Value| format!("{}: {}", lease["lease_id"], lease["error"]);
    Ok(leases.into_iter().flatten().map(name).collect())
}
