//! Logins: with secret ids good for so many, with secret ids until they are destroyed, and with passwords that change. The
//! token of each is used on other nodes, and often revoked; and all logins of one name have to be of one entity.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arca_client::secret::Auth;
use async_trait::async_trait;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::NO_PAD;
use parking_lot::Mutex;
use serde_json::json;

use super::pool::Pool;
use super::{Held, LONG, Promise, VALUES_EACH, Worker, Workload, settle, went_well};
use crate::history::{Answer, Call, ModelName};
use crate::outcome::Outcome;

/// Secret ids in use at a time: few, so that workers meet.
const SECRET_IDS: usize = 4;
/// Tries beyond what a secret id is good for, or after it was destroyed.
const TRIES_BEYOND: u64 = 4;
/// Secret ids made for a role before another role takes its place: a role's first logins make its entity.
const SECRET_IDS_A_ROLE: u64 = 6;
/// Users at a time.
const USERS: u64 = 2;
/// Things done with a user before another takes its place: what the search costs grows with them.
const TRIES_A_USER: u64 = 120;
/// Passwords that may be tried: the newest, and those before it.
const PASSWORDS_KEPT: usize = 3;
/// The cheapest that is taken.
const BCRYPT_COST: u32 = 5;
/// Base64 as bcrypt writes it.
const BCRYPT_BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::BCRYPT, NO_PAD);

#[derive(Debug)]
struct SecretId {
    key: String,
    role_id: String,
    role: String,
    secret_id: String,
    /// None: until it is destroyed.
    uses: Option<u64>,
    tries_left: AtomicU64,
}

/// A role, and how many secret ids were made for it.
#[derive(Clone, Debug)]
struct Role {
    name: String,
    role_id: String,
    made: u64,
}

/// See the module's header.
#[derive(Debug)]
pub struct Logins {
    secret_ids: Pool<SecretId>,
    role: Mutex<Option<Role>>,
    roles: AtomicU64,
    tokens: AtomicU64,
    tries: AtomicU64,
    /// Passwords of users, the newest last.
    passwords: Mutex<BTreeMap<String, Vec<u64>>>,
    /// The entity of each name that logged in.
    entities: Mutex<BTreeMap<String, String>>,
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            secret_ids: Pool::new(SECRET_IDS),
            role: Mutex::default(),
            roles: AtomicU64::default(),
            tokens: AtomicU64::default(),
            tries: AtomicU64::default(),
            passwords: Mutex::default(),
            entities: Mutex::default(),
        }
    }
}

#[async_trait]
impl Workload for Logins {
    fn name(&self) -> &'static str {
        "logins"
    }

    fn promises(&self) -> Vec<Promise> {
        let secret_ids = ["create", "login", "revoke"].map(|call| (ModelName::SecretId, call));
        let passwords = ["login", "write"].map(|call| (ModelName::Password, call));
        let tokens = ["revoke", "use"].map(|call| (ModelName::Token, call));
        [&secret_ids[..], &passwords, &tokens].concat()
    }

    async fn run(&self, mut worker: Worker) {
        let mut value = worker.number * VALUES_EACH;
        while !worker.is_over() {
            let went_well = if worker.dice.chance(30) {
                value += 1;
                self.with_password(&mut worker, value).await
            } else {
                match self.secret_ids.pick(&mut worker.dice).filter(|_| self.secret_ids.is_full()) {
                    None => self.make_secret_id(&mut worker).await,
                    Some(entry) if entry.uses.is_none() && worker.dice.chance(12) => {
                        self.destroy(&mut worker, &entry).await
                    }
                    Some(entry) => self.with_secret_id(&mut worker, &entry).await,
                }
            };
            worker.rest(went_well).await;
        }
    }
}

impl Logins {
    /// A role whose secret ids are made now; another after some.
    async fn role(&self, worker: &mut Worker) -> Option<Role> {
        if let Some(role) = self.role.lock().as_mut().filter(|role| role.made < SECRET_IDS_A_ROLE) {
            role.made += 1;
            return Some(role.clone());
        }
        let name = format!("role-{}", self.roles.fetch_add(1, Ordering::Relaxed));
        let client = worker.client();
        let path = format!("auth/approle/role/{name}");
        client.write(&path, &json!({"token_policies": "default", "token_ttl": LONG})).await.ok()?;
        let found = client.read(&format!("{path}/role-id")).await.ok()??;
        let role_id = found.field("role_id")?.as_str()?.to_owned();
        let role = Role { name, role_id, made: 1 };
        *self.role.lock() = Some(role.clone());
        Some(role)
    }

    async fn make_secret_id(&self, worker: &mut Worker) -> bool {
        let Some(role) = self.role(worker).await else { return false };
        let key = format!("s/{}", self.secret_ids.number());
        let uses = if worker.dice.chance(60) { Some(worker.dice.within(1..6)) } else { None };
        let client = worker.client();
        let call = Call::Create { uses, ttl_ms: None };
        let pending = worker.process.invoke(ModelName::SecretId, key.as_str(), call.clone());
        let path = format!("auth/approle/role/{}/secret-id", role.name);
        let made = client.write(&path, &json!({"num_uses": uses.unwrap_or_default()})).await;
        let made = settle(pending, &call, made, |_| Answer::Done);
        let made = made.ok().flatten();
        let Some(secret_id) = made.as_ref().and_then(|made| made.field("secret_id")?.as_str()) else {
            return false;
        };
        self.secret_ids.add(SecretId {
            key,
            role_id: role.role_id,
            role: role.name,
            secret_id: secret_id.to_owned(),
            uses,
            tries_left: AtomicU64::new(uses.map_or(u64::MAX, |uses| uses + TRIES_BEYOND)),
        });
        true
    }

    async fn with_secret_id(&self, worker: &mut Worker, entry: &Arc<SecretId>) -> bool {
        if entry.tries_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.secret_ids.remove(entry);
        }
        let client = worker.client().with_token(None);
        let call = Call::Login { password: None };
        let pending = worker.process.invoke(ModelName::SecretId, entry.key.as_str(), call.clone());
        let body = json!({"role_id": entry.role_id, "secret_id": entry.secret_id});
        let done = client.write("auth/approle/login", &body).await;
        let done = settle(pending, &call, done, |_| Answer::Done);
        self.logged_in(worker, &entry.role, done.map(|done| done.and_then(|done| done.auth))).await
    }

    async fn destroy(&self, worker: &mut Worker, entry: &SecretId) -> bool {
        // So many tries are left to those who do not know of it.
        entry.tries_left.fetch_min(TRIES_BEYOND, Ordering::Relaxed);
        let client = worker.client();
        let pending = worker.process.invoke(ModelName::SecretId, entry.key.as_str(), Call::Revoke);
        let path = format!("auth/approle/role/{}/secret-id/destroy", entry.role);
        let destroyed = client.write(&path, &json!({"secret_id": entry.secret_id})).await;
        settle(pending, &Call::Revoke, destroyed, |_| Answer::Done).is_ok()
    }

    /// Sets a password, or logs in with the newest one or one before it.
    async fn with_password(&self, worker: &mut Worker, value: u64) -> bool {
        let tries = self.tries.fetch_add(1, Ordering::Relaxed);
        let name = format!("user-{}-{}", tries / (USERS * TRIES_A_USER), worker.dice.within(0..USERS));
        let newest_first: Vec<u64> =
            self.passwords.lock().get(&name).into_iter().flatten().rev().copied().collect();
        let Some(newest) = newest_first.first().copied().filter(|_| worker.dice.chance(80)) else {
            return self.set_password(worker, &name, value).await;
        };
        let older = worker.dice.chance(40).then(|| worker.dice.pick(&newest_first).copied()).flatten();
        let tried = older.unwrap_or(newest);
        let client = worker.client().with_token(None);
        let call = Call::Login { password: Some(tried) };
        let pending = worker.process.invoke(ModelName::Password, format!("p/{name}"), call.clone());
        let path = format!("auth/userpass/login/{name}");
        let done = client.write(&path, &json!({"password": password(tried)})).await;
        let done = settle(pending, &call, done, |_| Answer::Done);
        self.logged_in(worker, &name, done.map(|done| done.and_then(|done| done.auth))).await
    }

    async fn set_password(&self, worker: &mut Worker, name: &str, value: u64) -> bool {
        let mut salt = [0; 16];
        worker.dice.fill(&mut salt);
        let body = json!({
            "password_hash": hash(&password(value), salt),
            "token_policies": "default",
            "token_ttl": LONG,
        });
        let client = worker.client();
        let call = Call::Write { value };
        let pending = worker.process.invoke(ModelName::Password, format!("p/{name}"), call.clone());
        {
            let mut passwords = self.passwords.lock();
            let known = passwords.entry(name.to_owned()).or_default();
            known.push(value);
            let left_out = known.len().saturating_sub(PASSWORDS_KEPT);
            known.drain(..left_out);
        }
        let written = client.write(&format!("auth/userpass/users/{name}"), &body).await;
        settle(pending, &call, written, |_| Answer::Done).is_ok()
    }

    /// Looks at what a login gave: its entity, and whether its token is good, here and there, until it is revoked.
    async fn logged_in(&self, worker: &mut Worker, name: &str, done: Result<Option<Auth>, Outcome>) -> bool {
        let is_well = went_well(&done);
        let Ok(given) = done else { return is_well };
        let Some(auth) = given else {
            worker.complain(format!("a login of {name} gave no token"));
            return is_well;
        };
        self.check_entity(worker, name, &auth.entity_id);
        let held = Held {
            key: format!("lt/{}", self.tokens.fetch_add(1, Ordering::Relaxed)),
            token: auth.client_token,
        };
        let mut is_well = worker.use_token(ModelName::Token, Call::Use, &held).await;
        if worker.dice.chance(40) {
            let client = worker.client();
            let pending = worker.process.invoke(ModelName::Token, held.key.as_str(), Call::Revoke);
            let revoked = client.tokens().revoke(&held.token).await;
            is_well &= settle(pending, &Call::Revoke, revoked, |()| Answer::Done).is_ok();
            is_well &= worker.use_token(ModelName::Token, Call::Use, &held).await;
        }
        is_well
    }

    fn check_entity(&self, worker: &Worker, name: &str, entity_id: &str) {
        let mut entities = self.entities.lock();
        let first = entities.entry(name.to_owned()).or_insert_with(|| entity_id.to_owned());
        if entity_id.is_empty() || first != entity_id {
            worker.complain(format!("{name} has logged in as the entities {first:?} and {entity_id:?}"));
        }
    }
}

fn password(value: u64) -> String {
    format!("password {value}")
}

/// As servers take it: made by the client, so that no server spends more on it than a run can wait for.
fn hash(password: &str, salt: [u8; 16]) -> String {
    // With its final zero, as C has it.
    let made = bcrypt::bcrypt(BCRYPT_COST, salt, &[password.as_bytes(), &[0]].concat());
    // Of 24 bytes, 23 are ever written down.
    let tag = made.get(..23).unwrap_or_default();
    format!("$2b${BCRYPT_COST:02}${}{}", BCRYPT_BASE64.encode(salt), BCRYPT_BASE64.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By another implementation: `htpasswd -nbB`, and Python's `bcrypt`.
    #[test]
    fn hashes_are_what_others_make() {
        let salt: [u8; 16] = BCRYPT_BASE64.decode("CCCCCCCCCCCCCCCCCCCCC.").unwrap().try_into().unwrap();
        assert_eq!(hash("U*U", salt), "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW");
    }
}
