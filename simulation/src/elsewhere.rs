//! A system that engines make accounts in. It is outside all members: it lives when they die, and still gets what they
//! sent before; it may be slow, late, refuse, say that it failed, or not answer at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_barrier::Barrier;
use arca_engine_api::{EngineError, Http, HttpAnswer, HttpRequest};
use arca_jepsen::dice::Dice;
use arca_raft_storage::{MemberId, RaftReplica};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::credentials::stored_accounts;
use crate::midway::{Midway, Stage};
use crate::trace::Trace;

/// As late as a request may arrive: engines are given up after a minute, and the system behind them has as long again to
/// notice that (ADR 20).
const LATEST: Duration = Duration::from_secs(110);

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It does not arrive, or is not looked at.
    Deaf,
    /// It is done, and answered as failed.
    Lying,
    /// It is done, and not answered.
    Mute,
    /// It is refused.
    Unwilling,
    /// It is done.
    Well,
}

/// One request, from when it was about to be sent.
#[derive(Clone, Debug)]
pub struct Call {
    /// Whose account.
    pub account: String,
    /// Whether it is to be removed.
    pub is_removal: bool,
    /// Which member asks.
    pub by: MemberId,
    /// Whether that member stored a lease on the account then.
    pub has_lease: bool,
    /// Whether the same process was waiting for an answer about the same account.
    pub is_second: bool,
}

struct Inner {
    dice: Dice,
    /// Whether it does what it is asked, at once.
    is_well: bool,
    there: BTreeSet<String>,
    calls: Vec<Call>,
    /// Requests on their way.
    under_way: usize,
    /// Who waits for an answer about which account, by the process's number.
    waiting: BTreeMap<(u64, String), usize>,
    processes: u64,
}

/// See the file's header. Clones share it.
#[derive(Clone)]
pub struct Elsewhere {
    inner: Arc<Mutex<Inner>>,
    trace: Trace,
    midway: Midway,
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elsewhere").field("there", &self.there()).finish_non_exhaustive()
    }
}

impl Elsewhere {
    /// No accounts yet. One that `is_well` always does what it is asked.
    #[must_use]
    pub fn new(seed: u64, is_well: bool, trace: &Trace, midway: &Midway) -> Self {
        let inner = Inner {
            dice: Dice::for_purpose(seed, "elsewhere"),
            is_well,
            there: BTreeSet::new(),
            calls: Vec::new(),
            under_way: 0,
            waiting: BTreeMap::new(),
            processes: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), trace: trace.clone(), midway: midway.clone() }
    }

    /// From now on it does what it is asked.
    pub fn get_well(&self) {
        self.inner.lock().is_well = true;
    }

    /// The accounts there are.
    #[must_use]
    pub fn there(&self) -> Vec<String> {
        self.inner.lock().there.iter().cloned().collect()
    }

    /// Whether there is an account.
    #[must_use]
    pub fn has(&self, account: &str) -> bool {
        self.inner.lock().there.contains(account)
    }

    /// How many requests are still on their way to it.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.inner.lock().under_way
    }

    /// The requests after the first `seen`.
    #[must_use]
    pub fn calls_after(&self, seen: usize) -> Vec<Call> {
        self.inner.lock().calls.get(seen..).unwrap_or_default().to_vec()
    }

    /// The way to it from a process that starts now.
    #[must_use]
    pub fn door(
        &self,
        member: MemberId,
        death: &CancellationToken,
        replica: &Arc<RaftReplica>,
        barrier: &Arc<Barrier>,
    ) -> Door {
        let mut inner = self.inner.lock();
        inner.processes += 1;
        Door {
            elsewhere: self.clone(),
            member,
            process: inner.processes,
            death: death.clone(),
            replica: Arc::downgrade(replica),
            barrier: Arc::clone(barrier),
        }
    }

    fn fate(&self) -> (Fate, Duration, Duration) {
        let mut inner = self.inner.lock();
        let is_well = inner.is_well;
        let dice = &mut inner.dice;
        let back = dice.millis(1..10);
        if is_well {
            return (Fate::Well, dice.millis(1..10), back);
        }
        let there = match dice.within(0..100) {
            0..70 => dice.millis(1..10),
            70..92 => dice.millis(100..5_000),
            _ => dice.span(Duration::from_secs(5), LATEST),
        };
        let fate = match dice.within(0..100) {
            0..4 => Fate::Deaf,
            4..10 => Fate::Lying,
            10..16 => Fate::Mute,
            16..24 => Fate::Unwilling,
            _ => Fate::Well,
        };
        (fate, there, back)
    }

    fn arrive(&self, account: &str, is_removal: bool, fate: Fate) {
        let mut inner = self.inner.lock();
        inner.under_way -= 1;
        if matches!(fate, Fate::Deaf | Fate::Unwilling) {
            return;
        }
        if is_removal {
            inner.there.remove(account);
        } else {
            inner.there.insert(account.to_owned());
        }
        drop(inner);
        self.trace.note("elsewhere", &[u64::from(is_removal)], account.as_bytes());
        let what = if is_removal { "removed" } else { "made" };
        self.trace.say(format_args!("account {account} is {what}"));
    }
}

/// The way to it from one process.
pub struct Door {
    elsewhere: Elsewhere,
    member: MemberId,
    /// No other process has this number.
    process: u64,
    death: CancellationToken,
    replica: std::sync::Weak<RaftReplica>,
    barrier: Arc<Barrier>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Door({})", self.member)
    }
}

/// A process that waits for an answer, until it has it or is gone.
struct Waiting<'a> {
    door: &'a Door,
    account: &'a str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let key = (self.door.process, self.account.to_owned());
        if let Some(count) = self.door.elsewhere.inner.lock().waiting.get_mut(&key) {
            *count -= 1;
        }
    }
}

impl Door {
    fn begin<'a>(&'a self, account: &'a str, is_removal: bool) -> Waiting<'a> {
        let stored = self.replica.upgrade().map(|replica| stored_accounts(&replica, &self.barrier));
        let mut inner = self.elsewhere.inner.lock();
        let waiting = inner.waiting.entry((self.process, account.to_owned())).or_default();
        *waiting += 1;
        let is_second = *waiting > 1;
        inner.calls.push(Call {
            account: account.to_owned(),
            is_removal,
            by: self.member,
            has_lease: stored.is_none_or(|stored| stored.contains_key(account)),
            is_second,
        });
        Waiting { door: self, account }
    }

    /// Whether the process is to die here. Nothing goes on in it then.
    async fn pass(&self, stage: Stage, is_removal: bool) {
        if self.death.is_cancelled() || self.elsewhere.midway.pass(self.member, stage, is_removal) {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Http for Door {
    async fn send(&self, request: HttpRequest) -> Result<HttpAnswer, EngineError> {
        if self.death.is_cancelled() {
            std::future::pending::<()>().await;
        }
        let (account, is_removal) = (String::from_utf8_lossy(&request.body), request.method != "POST");
        let _waiting = self.begin(&account, is_removal);
        self.pass(Stage::Begun, is_removal).await;
        let (fate, there, back) = self.elsewhere.fate();
        self.elsewhere.inner.lock().under_way += 1;
        let (answer, answered) = oneshot::channel();
        let (elsewhere, name) = (self.elsewhere.clone(), account.clone().into_owned());
        // It arrives whether anybody waits for it or not.
        tokio::spawn(async move {
            sleep(there).await;
            elsewhere.arrive(&name, is_removal, fate);
            let _ = answer.send(Instant::now());
        });
        let arrived = answered.await;
        if matches!(fate, Fate::Deaf | Fate::Mute) || arrived.is_err() {
            std::future::pending::<()>().await;
        }
        self.pass(Stage::Arrived, is_removal).await;
        sleep(back).await;
        self.pass(Stage::Answered, is_removal).await;
        match fate {
            Fate::Lying => Err(EngineError::Upstream("it broke".to_owned())),
            Fate::Unwilling => Err(EngineError::Upstream("it will not".to_owned())),
            _ => Ok(HttpAnswer { status: 200, ..HttpAnswer::default() }),
        }
    }
}
