//! Credentials in the system outside: what clients do with them, and what they are owed.
//!
//! Two mounts of the engine `outward`: of `out/` leases last longer than a run, and are revoked; of `brief/` they end by
//! themselves. What clients were given, and what was promised when they gave it back, is what the invariants go by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arca_barrier::{Barrier, Class};
use arca_client::leases::Revocation;
use arca_client::{Client, Secret};
use arca_jepsen::dice::Dice;
use arca_kernel::leases::LeaseEntry;
use arca_kernel::tx::{Mode, Tx};
use arca_raft_storage::{RaftReplica, Replica as _};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How long leases of `brief/` last.
const BRIEF: Duration = Duration::from_secs(6);
/// How long those of `out/` last, as the engine gives them.
const LONG: Duration = Duration::from_secs(600);
/// Clocks that drift, and leases granted before the request was sent on.
const SLACK: Duration = Duration::from_secs(1);
/// Credentials that are not revoked at a time; those of `brief/` aside.
const HELD_MAX: usize = 12;
/// Where leases are stored, of the root namespace.
const LEASES: &str = "root/lease/id/";

/// What is mounted for them.
#[must_use]
pub fn mounts() -> [(&'static str, Value); 2] {
    let config = json!({"default_lease_ttl": "6s", "max_lease_ttl": "6s"});
    [
        ("sys/mounts/out", json!({"type": "outward"})),
        ("sys/mounts/brief", json!({"type": "outward", "config": config})),
    ]
}

/// The accounts a member stores leases on.
#[must_use]
pub fn stored_accounts(replica: &RaftReplica, barrier: &Arc<Barrier>) -> BTreeMap<String, LeaseEntry> {
    let tx = Tx::new(Arc::clone(barrier), replica.view(), Mode::ReadOnly);
    let paths = tx.some_below(Class::Local, LEASES, usize::MAX).unwrap_or_default();
    let lease = |path: String| tx.get_record::<LeaseEntry>(Class::Local, &path).ok().flatten();
    let with_account = |lease: LeaseEntry| {
        let account = lease.internal.get("account")?.as_str()?.to_owned();
        Some((account, lease))
    };
    paths.into_iter().filter_map(lease).filter_map(with_account).collect()
}

/// A credential that a client was given.
#[derive(Clone, Debug)]
pub struct Given {
    /// Its lease.
    pub lease_id: String,
    /// Whose.
    pub account: String,
    /// When it was asked for.
    pub asked: Instant,
    /// When it was given.
    pub given: Instant,
    /// Whether its lease ends by itself.
    pub is_brief: bool,
    /// Whether it was asked to be revoked. Without an answer it may be revoked or not.
    pub is_revoking: bool,
    /// Whether it was answered that it will be revoked.
    pub is_ending: bool,
    /// Whether it was answered that it is revoked.
    pub is_revoked: bool,
}

impl Given {
    /// Whether it must work now.
    #[must_use]
    pub fn is_owed(&self, now: Instant) -> bool {
        let ttl = if self.is_brief { BRIEF } else { LONG };
        !self.is_revoking && now < self.asked + ttl - SLACK
    }

    /// Whether it may still work, for some time at least.
    #[must_use]
    pub fn is_good(&self, now: Instant) -> bool {
        !self.is_ending && (!self.is_brief || now < self.given + BRIEF + SLACK)
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Credentials that were given.
    pub issued: u64,
    /// Requests for one that failed.
    pub not_issued: u64,
    /// Revocations that were answered.
    pub revoked: u64,
    /// Revocations that failed.
    pub not_revoked: u64,
}

#[derive(Debug, Default)]
struct Inner {
    given: Vec<Given>,
    done: Done,
    /// Which name credentials of `out/` are asked for by.
    generation: u64,
    /// Paths below which everything was asked to be revoked, also what was given meanwhile.
    revoking: Vec<String>,
    is_all_given_back: bool,
}

/// What clients were given. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Credentials(Arc<Mutex<Inner>>);

impl Credentials {
    /// All that were given.
    #[must_use]
    pub fn all(&self) -> Vec<Given> {
        self.0.lock().given.clone()
    }

    /// What was done.
    #[must_use]
    pub fn done(&self) -> Done {
        self.0.lock().done
    }

    /// Takes down how a request for one ended.
    pub fn asked(&self, asked: Instant, answer: Option<&Secret>) {
        let mut inner = self.0.lock();
        let found = answer.and_then(|secret| Some((&secret.lease_id, secret.field("username")?.as_str()?)));
        let Some((lease_id, account)) = found else {
            inner.done.not_issued += 1;
            return;
        };
        inner.done.issued += 1;
        let is_revoking = inner.revoking.iter().any(|path| lease_id.starts_with(path));
        inner.given.push(Given {
            lease_id: lease_id.clone(),
            account: account.to_owned(),
            asked,
            given: Instant::now(),
            is_brief: lease_id.starts_with("brief/"),
            is_revoking,
            is_ending: false,
            is_revoked: false,
        });
    }

    /// One that nobody revokes yet, which is revoked from now on; its lease.
    pub fn give_back(&self, dice: &mut Dice) -> Option<String> {
        let mut inner = self.0.lock();
        let (now, mut good) = (Instant::now(), Vec::new());
        good.extend(inner.given.iter_mut().filter(|given| given.is_good(now) && !given.is_revoking));
        let at = usize::try_from(dice.within(0..u64::try_from(good.len()).ok().filter(|count| *count > 0)?));
        let given = good.get_mut(at.ok()?)?;
        given.is_revoking = true;
        Some(given.lease_id.clone())
    }

    /// Everything of `out/` is revoked from now on; its leases.
    pub fn give_all_back(&self) -> Vec<String> {
        self.0.lock().is_all_given_back = true;
        self.give_back_below("out")
    }

    /// Whether everything was given back, for good.
    #[must_use]
    pub fn is_all_given_back(&self) -> bool {
        self.0.lock().is_all_given_back
    }

    /// The path by which credentials of `out/` are asked for now.
    #[must_use]
    pub fn path(&self) -> String {
        format!("out/creds/g{}", self.0.lock().generation)
    }

    /// All below a path are revoked from now on; others are asked for by another name. Answers their leases.
    pub fn give_back_below(&self, path: &str) -> Vec<String> {
        let mut inner = self.0.lock();
        inner.generation += 1;
        let below = format!("{}/", path.trim_end_matches('/'));
        let mut leases = Vec::new();
        for given in inner.given.iter_mut().filter(|given| given.lease_id.starts_with(&below)) {
            given.is_revoking = true;
            leases.push(given.lease_id.clone());
        }
        inner.revoking.push(below);
        leases
    }

    /// Takes down how a revocation ended. One that is not `sync` is only marked by then.
    pub fn gave_back(&self, lease_id: &str, is_sync: bool, is_answered: bool) {
        let mut inner = self.0.lock();
        if !is_answered {
            inner.done.not_revoked += 1;
            return;
        }
        inner.done.revoked += 1;
        let found = inner.given.iter_mut().find(|given| given.lease_id == lease_id);
        if let Some(given) = found {
            given.is_ending = true;
            given.is_revoked |= is_sync;
        }
    }

    fn held(&self) -> usize {
        let now = Instant::now();
        self.0
            .lock()
            .given
            .iter()
            .filter(|given| !given.is_brief && given.is_good(now) && !given.is_revoking)
            .count()
    }
}

/// A client at work with credentials, until the run is over.
pub struct Issuer {
    /// Clients of all nodes.
    pub clients: Vec<Client>,
    /// Its choices.
    pub dice: Dice,
    /// What it was given goes there.
    pub credentials: Credentials,
    /// Becomes true when the run is over.
    pub stop: watch::Receiver<bool>,
    /// At most so long is between two requests.
    pub pace: Duration,
}

impl Issuer {
    /// Works.
    pub async fn run(mut self) {
        while !*self.stop.borrow() {
            let Some(client) = self.dice.pick(&self.clients).cloned() else { return };
            match self.dice.within(0..100) {
                0..30 => self.issue(&client, "brief/creds/b").await,
                30..70 if self.credentials.held() < HELD_MAX => {
                    self.issue(&client, &self.credentials.path()).await;
                }
                30..90 => self.revoke(&client).await,
                90..94 => self.revoke_all(&client).await,
                _ => self.renew(&client).await,
            }
            let rest = self.dice.span(Duration::ZERO, self.pace * 4);
            sleep(rest).await;
        }
    }

    async fn issue(&self, client: &Client, path: &str) {
        let asked = Instant::now();
        let answer = client.read(path).await;
        self.credentials.asked(asked, answer.ok().flatten().as_ref());
    }

    async fn revoke(&mut self, client: &Client) {
        let Some(lease_id) = self.credentials.give_back(&mut self.dice) else { return };
        let is_sync = self.dice.chance(50);
        let how = if is_sync { Revocation::Synchronous } else { Revocation::Queued };
        let is_answered = client.sys().revoke_lease(&lease_id, how).await.is_ok();
        self.credentials.gave_back(&lease_id, is_sync, is_answered);
    }

    async fn revoke_all(&mut self, client: &Client) {
        let path = self.credentials.path();
        let leases = self.credentials.give_back_below(&path);
        let is_sync = self.dice.chance(50);
        let how = if is_sync { Revocation::Synchronous } else { Revocation::Queued };
        let is_answered = client.sys().revoke_leases(&path, how).await.is_ok();
        leases.iter().for_each(|lease_id| self.credentials.gave_back(lease_id, is_sync, is_answered));
    }

    /// Longer than it lasts already, so that nothing is owed less.
    async fn renew(&mut self, client: &Client) {
        let now = Instant::now();
        let all = self.credentials.all();
        let good: Vec<&Given> = all.iter().filter(|given| !given.is_brief && given.is_good(now)).collect();
        if let Some(given) = self.dice.pick(&good) {
            let _ = client.sys().renew_lease(&given.lease_id, 2 * LONG.as_secs()).await;
        }
    }
}
