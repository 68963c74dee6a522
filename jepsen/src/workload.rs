//! What clients do during a run. Each worker is one client of one node that does one thing after another, and writes down
//! what it asked and what it was answered.

mod counters;
mod credentials;
mod leases;
mod lists;
mod logins;
mod pool;
mod registers;
mod tokens;
mod wrappings;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arca_client::token::NewToken;
use arca_client::{Client, Error, Token};
use arca_harness::HarnessError;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use self::counters::Counters;
pub use self::credentials::Credentials;
pub use self::leases::Leases;
pub use self::lists::Lists;
pub use self::logins::Logins;
pub use self::registers::Registers;
pub use self::tokens::Tokens;
pub use self::wrappings::Wrappings;
use crate::dice::Dice;
use crate::faults::Class;
use crate::history::recorder::{Pending, Process, Recorder};
use crate::history::{Answer, Call, History, ModelName};
use crate::outcome::{Outcome, Reply, outcome};
use crate::postgres::Postgres;

/// After a failure a worker waits so long before it asks again: a sealed node answers at once, and would be asked
/// thousands of times.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
/// After what went well it waits less than this, if nothing else is said: histories must stay small enough to be kept.
pub const PACE: Duration = Duration::from_millis(10);

/// A client asks its own node in so many of a hundred cases, and any in the others.
const AT_HOME_PERCENT: u64 = 60;
/// One worker's values are its own: below this many.
const VALUES_EACH: u64 = 1 << 32;
/// A time to live that no run and no wrong clock outlasts.
const LONG: &str = "48h";

/// A call that is to go well at least once in a run, or the run has shown nothing of it.
pub type Promise = (ModelName, &'static str);

/// What all workers of a run share.
pub struct Shared {
    /// A client of each node, without retries.
    pub clients: Vec<Client>,
    /// Where events go.
    pub recorder: Recorder,
    /// Becomes true when the run is over.
    pub stop: watch::Receiver<bool>,
    /// After what went well, a worker waits at most so long.
    pub pace: Duration,
    /// What no model looks at, and is wrong.
    pub complaints: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({} nodes)", self.clients.len())
    }
}

/// One client at work.
pub struct Worker {
    /// Counted from 0; what it writes is its own by it.
    pub number: u64,
    /// Writes down what it does.
    pub process: Process,
    /// Its choices.
    pub dice: Dice,
    shared: Arc<Shared>,
    home: Client,
}

impl Worker {
    /// A worker; none without nodes.
    #[must_use]
    pub fn new(number: u64, shared: &Arc<Shared>, dice: Dice) -> Option<Self> {
        let nodes = u64::try_from(shared.clients.len()).ok().filter(|nodes| *nodes > 0)?;
        // Workers of one part of a mixed workload are as many apart as there are parts: they get different homes.
        let home = usize::try_from((number + number / nodes) % nodes).ok()?;
        let home = shared.clients.get(home)?.clone();
        Some(Self { number, process: shared.recorder.process(), dice, shared: Arc::clone(shared), home })
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        *self.shared.stop.borrow()
    }

    /// The time now, as events have it.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.shared.recorder.now()
    }

    /// Whom to ask next: mostly the same node.
    pub fn client(&mut self) -> Client {
        let other =
            if self.dice.chance(AT_HOME_PERCENT) { None } else { self.dice.pick(&self.shared.clients) };
        other.unwrap_or(&self.home).clone()
    }

    /// To be called after each operation.
    pub async fn rest(&mut self, went_well: bool) {
        let rest =
            if went_well { self.dice.span(Duration::ZERO, self.shared.pace) } else { PAUSE_AFTER_FAILURE };
        tokio::time::sleep(rest).await;
    }

    /// Says that something is wrong which no model looks at.
    pub fn complain(&self, text: String) {
        self.shared.complaints.lock().push(text);
    }

    /// Makes a token.
    async fn make_token(
        &mut self,
        model: ModelName,
        key: String,
        call: Call,
        new: &NewToken,
    ) -> Option<(Held, String)> {
        let client = self.client();
        let pending = self.process.invoke(model, key.as_str(), call.clone());
        let made = settle(pending, &call, client.tokens().create(None, new).await, |_| Answer::Done);
        let auth = made.ok()?.auth?;
        Some((Held { key, token: auth.client_token }, auth.accessor))
    }

    /// Uses a token; whether that went well, which a refusal does too.
    async fn use_token(&mut self, model: ModelName, call: Call, held: &Held) -> bool {
        let client = self.client().with_token(Some(held.token.clone()));
        let pending = self.process.invoke(model, held.key.as_str(), call.clone());
        let used = client.tokens().lookup_self().await;
        went_well(&settle(pending, &call, used, |_| Answer::Done))
    }
}

/// A token, and the key it has in the history.
#[derive(Debug)]
struct Held {
    key: String,
    token: Token,
}

/// Writes down how a call ended.
fn settle<T>(
    pending: Pending<'_>,
    call: &Call,
    done: Result<T, Error>,
    answer: impl FnOnce(&T) -> Answer,
) -> Result<T, Outcome> {
    match done {
        Ok(done) => {
            pending.ok(answer(&done));
            Ok(done)
        }
        Err(err) => {
            let outcome = outcome(call, &Reply::from(&err));
            pending.failed(outcome, err.to_string());
            Err(outcome)
        }
    }
}

/// Reads every register and every list of `history` once more, through each node: what was acknowledged has to be
/// there, wherever one asks. Answers how many reads were not answered.
pub async fn look_everywhere(shared: &Shared, history: &History) -> usize {
    let operations = history.operations();
    let keys: BTreeSet<(ModelName, &str)> =
        operations.iter().map(|operation| (operation.model, operation.key.as_str())).collect();
    let mut process = shared.recorder.process();
    let mut unanswered = 0;
    for client in &shared.clients {
        for (model, key) in &keys {
            unanswered += usize::from(!look(&mut process, client, *model, key).await);
        }
    }
    unanswered
}

/// Reads a register or a list once, and passes over everything else. Whether it was answered.
pub async fn look(process: &mut Process, client: &Client, model: ModelName, key: &str) -> bool {
    match model {
        ModelName::List => lists::read_from(process, client, key).await,
        ModelName::Register => registers::read_from(process, client, key).await.is_some(),
        _ => true,
    }
}

/// A refusal is an answer, not a failure.
const fn went_well<T>(settled: &Result<T, Outcome>) -> bool {
    matches!(settled, Ok(_) | Err(Outcome::Refused))
}

/// See the module's header.
#[async_trait]
pub trait Workload: Send + Sync {
    /// Its name on the command line and in reports.
    fn name(&self) -> &'static str;

    /// What must go well at least once.
    fn promises(&self) -> Vec<Promise>;

    /// Whether it needs a database beside the cluster.
    fn needs_database(&self) -> bool {
        false
    }

    /// Prepares what it needs besides [`mounts`], on a cluster that serves.
    ///
    /// # Errors
    /// When something is refused.
    async fn set_up(&self, _: &Client, _: Option<&Arc<Postgres>>) -> Result<(), HarnessError> {
        Ok(())
    }

    /// Works until the run is over. Many workers do so at once.
    async fn run(&self, worker: Worker);

    /// Looks, once everything is healed and nobody works any more, at what must have an end. Says what it did.
    async fn wind_up(&self, _: &Shared, _: Dice) -> Option<String> {
        None
    }
}

/// Several at once: each worker keeps to one.
struct Together {
    name: &'static str,
    parts: Vec<Box<dyn Workload>>,
}

#[async_trait]
impl Workload for Together {
    fn name(&self) -> &'static str {
        self.name
    }

    fn promises(&self) -> Vec<Promise> {
        self.parts.iter().flat_map(|part| part.promises()).collect()
    }

    async fn run(&self, worker: Worker) {
        let parts = u64::try_from(self.parts.len()).unwrap_or(u64::MAX).max(1);
        let part = usize::try_from(worker.number % parts).unwrap_or_default();
        if let Some(part) = self.parts.get(part) {
            part.run(worker).await;
        }
    }
}

/// Registers without deletions and lists, one for each worker in turn: objects of which every read tells how far they are.
#[must_use]
pub fn told_by_reads() -> Arc<dyn Workload> {
    let parts: Vec<Box<dyn Workload>> =
        vec![Box::new(Registers::without_deletions()), Box::new(Lists::default())];
    Arc::new(Together { name: "registers and lists", parts })
}

/// The name of the workload that needs more than a cluster, and is no part of "all".
pub const CREDENTIALS: &str = "credentials";

/// The names of all others.
pub const NAMES: [&str; 8] =
    ["all", "counters", "leases", "lists", "logins", "registers", "tokens", "wrappings"];

/// What clients work on: where it is made, and what it is.
#[must_use]
pub fn mounts() -> [(&'static str, Value); 3] {
    // A name that was tried too often is locked, which says nothing of its password.
    let never_locked = json!({"user_lockout_config": {"lockout_disable": true}});
    [
        ("sys/auth/approle", json!({"type": "approle"})),
        ("sys/auth/userpass", json!({"type": "userpass", "config": never_locked})),
        ("sys/mounts/secret", json!({"type": "kv", "options": {"version": "2"}})),
    ]
}

/// The workload called `name`, for a run with faults of `classes`. "all" is all of them, one for each worker in turn;
/// without leases if clocks are set wrong: when a lease ends is then known to the hour at best.
///
/// # Errors
/// When there is none; says which there are.
pub fn find(name: &str, classes: &[Class]) -> Result<Box<dyn Workload>, String> {
    let has_leases = !classes.contains(&Class::Clock);
    if name != CREDENTIALS && classes.iter().any(|class| class.needs_database()) {
        return Err(format!("only the workload {CREDENTIALS} has a database to be hit"));
    }
    Ok(match name {
        "all" => {
            let mut parts: Vec<Box<dyn Workload>> = vec![
                Box::new(Registers::default()),
                Box::new(Lists::default()),
                Box::new(Tokens::default()),
                Box::new(Counters::default()),
                Box::new(Wrappings::default()),
                Box::new(Logins::default()),
            ];
            if has_leases {
                parts.push(Box::new(Leases::default()));
            }
            Box::new(Together { name: if has_leases { "all" } else { "all but leases" }, parts })
        }
        "counters" => Box::new(Counters::default()),
        CREDENTIALS if has_leases => Box::new(Credentials::default()),
        "leases" if has_leases => Box::new(Leases::default()),
        CREDENTIALS | "leases" => return Err("leases cannot be judged while clocks are set wrong".to_owned()),
        "lists" => Box::new(Lists::default()),
        "logins" => Box::new(Logins::default()),
        "registers" => Box::new(Registers::default()),
        "tokens" => Box::new(Tokens::default()),
        "wrappings" => Box::new(Wrappings::default()),
        _ => {
            let known = NAMES.join(", ");
            return Err(format!("there is no workload {name:?}; there are {known}, {CREDENTIALS}"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found() {
        for name in NAMES.into_iter().chain([CREDENTIALS]) {
            assert_eq!(find(name, &[Class::Kill]).ok().unwrap().name(), name);
        }
        assert!(find("list", &[]).err().unwrap().ends_with(
            "there are all, counters, leases, lists, logins, registers, tokens, wrappings, credentials"
        ));
    }

    #[test]
    fn wrong_clocks_leave_leases_out() {
        let all = find("all", &[Class::Clock]).ok().unwrap();
        assert!(all.promises().iter().all(|(model, _)| *model != ModelName::Lease));
        assert!(find("leases", &[Class::Clock]).is_err());
        assert!(find(CREDENTIALS, &[Class::Clock]).is_err());
    }

    #[test]
    fn a_database_is_hit_only_where_there_is_one() {
        for class in Class::DATABASE {
            assert!(find("all", &[Class::Kill, class]).is_err());
            assert!(find(CREDENTIALS, &[Class::Kill, class]).ok().unwrap().needs_database());
        }
    }
}
