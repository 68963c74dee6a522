//! Names that were tried too often: failed logins counted by mount and name, and logins refused while a name is locked.
//!
//! Only the active node runs logins, so it alone counts. What it counted lies in memory, in tables of fixed size ([`names`]) and, for
//! names that had to make room there, in shared cells ([`coarse`]): memory is bounded, and no flood of other names makes one be
//! forgotten early. A lock is also written, behind the answer's back, so that it outlives a failover; of a flood of locks only so
//! many. All of it is the same whether there is somebody by a name or not (CVE-2025-6010, CVE-2025-6011). A locked name is not
//! tried at all. Of many tries of a name at once no more are under way than may fail before it is locked; the others wait, and
//! are refused untried if it comes to that.
//! Read next: [`names`] for the tables, [`crate::sys`]'s `locked_users` for who is locked.

mod coarse;
mod names;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arca_barrier::Class;
use arca_engine_api::{Access, Clock, Engine, EngineError, Response, UnixMillis};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::RwLock;

use self::names::{Begun, Names};
use crate::KernelError;
use crate::admission::Admitted;
use crate::kernel::Kernel;
use crate::mounts::MountRecord;
use crate::namespaces::Namespace;
use crate::router::{Mount, Router};
use crate::tx::Tx;

/// Longest wait for others who try the same name.
const PATIENCE: Duration = Duration::from_secs(10);
/// Records looked at in one transaction when old ones are forgotten.
const FORGOTTEN_MAX: usize = 500;

const THRESHOLD: u64 = 5;
const DURATION: Duration = Duration::from_secs(15 * 60);
const COUNTER_RESET: Duration = Duration::from_secs(15 * 60);

/// What a mount's tune says; zero stands for the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockoutTuning {
    /// Failed logins that lock a name.
    #[serde(skip_serializing_if = "is_zero")]
    pub threshold: u64,
    /// Seconds a lock lasts.
    #[serde(skip_serializing_if = "is_zero")]
    pub duration_s: u64,
    /// Seconds after which a failed login no longer counts.
    #[serde(skip_serializing_if = "is_zero")]
    pub counter_reset_s: u64,
    /// Nothing is counted.
    #[serde(skip_serializing_if = "is_false")]
    pub is_disabled: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// What the node's configuration says for mounts whose tune does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockoutDefaults {
    /// For every auth method.
    pub all: LockoutTuning,
    /// For one, by its type; what is zero is as for all.
    pub by_method: BTreeMap<String, LockoutTuning>,
}

/// The rules of a mount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    is_disabled: bool,
    threshold: u64,
    duration: Duration,
    counter_reset: Duration,
}

impl Rules {
    /// Each setting by the first that says something: the mount's tune, its method, all methods, the default. Counting
    /// is off if the tune says so; a mount without any tuning follows its method, and that all methods.
    pub(crate) fn of(mount: &MountRecord, defaults: &LockoutDefaults) -> Self {
        let none = LockoutTuning::default();
        let method = defaults.by_method.get(&mount.engine).unwrap_or(&none);
        let said = [&mount.config.user_lockout_config, method, &defaults.all];
        let first =
            |of: fn(&LockoutTuning) -> u64| said.iter().map(|tuning| of(tuning)).find(|number| *number != 0);
        let span = |of, default| first(of).map_or(default, Duration::from_secs);
        Self {
            is_disabled: said
                .iter()
                .find(|tuning| ***tuning != none)
                .is_some_and(|tuning| tuning.is_disabled),
            threshold: first(|tuning| tuning.threshold).unwrap_or(THRESHOLD),
            duration: span(|tuning| tuning.duration_s, DURATION),
            counter_reset: span(|tuning| tuning.counter_reset_s, COUNTER_RESET),
        }
    }
}

/// Failed logins of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tried {
    count: u64,
    last: UnixMillis,
}

impl Tried {
    pub(crate) fn is_locked(self, rules: Rules, now: UnixMillis) -> bool {
        self.count >= rules.threshold && now.since(self.last) < rules.duration
    }

    fn is_old(self, rules: Rules, now: UnixMillis) -> bool {
        now.since(self.last) > rules.duration.max(rules.counter_reset)
    }

    /// How many of its failures still count.
    fn counting(self, rules: Rules, now: UnixMillis) -> u64 {
        if now.since(self.last) <= rules.counter_reset { self.count } else { 0 }
    }

    fn after_one_more(before: Option<Self>, rules: Rules, now: UnixMillis) -> Self {
        let count = before.map_or(0, |tried| tried.counting(rules, now));
        Self { count: count.saturating_add(1), last: now }
    }
}

/// The same as stored, with the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) tried: Tried,
}

/// A name on a mount, as a hash: names may be long.
type Key = [u8; 32];

fn key(accessor: &str, name: &str) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(accessor.len() as u64).to_le_bytes());
    hasher.update(accessor.as_bytes());
    hasher.update(name.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Where records of a mount lie.
pub(crate) fn folder(namespace: &Namespace, accessor: &str) -> String {
    namespace.storage_path(&format!("{FOLDER}{accessor}/"))
}

/// Below a namespace: a folder for each mount's accessor.
pub(crate) const FOLDER: &str = "core/login/lockout/";

fn path(namespace: &Namespace, accessor: &str, name: &str) -> String {
    format!("{}{}", folder(namespace, accessor), hex::encode(key(accessor, name)))
}

/// What this node counted, if it is the active one.
#[derive(Default)]
pub(crate) struct Lockout {
    /// By the accessor of their mount: names of one mount push out no names of another.
    mounts: Mutex<BTreeMap<String, Names>>,
    /// Held shared by every write that is under way.
    keeping: Arc<RwLock<()>>,
}

impl Lockout {
    /// Forgets everything: another node may have counted meanwhile.
    pub(crate) fn forget(&self) {
        self.mounts.lock().clear();
    }

    /// Runs `work` on the names of a mount.
    fn with<T>(&self, accessor: &str, work: impl FnOnce(&mut Names) -> T) -> T {
        let mut mounts = self.mounts.lock();
        match mounts.get_mut(accessor) {
            Some(names) => work(names),
            None => work(mounts.entry(accessor.to_owned()).or_default()),
        }
    }

    /// Waits until what was counted so far is written.
    pub(crate) async fn written(&self) {
        drop(self.keeping.write().await);
    }

    /// Begins a try, once few enough others of the same name are under way.
    async fn begin(&self, watched: Watched, clock: &dyn Clock) -> Result<Try<'_>, KernelError> {
        loop {
            match self.with(&watched.accessor, |names| names.begin(&watched, clock.now())) {
                Begun::Yes => return Ok(Try { lockout: self, watched }),
                Begun::Locked => return Err(KernelError::Denied),
                Begun::NotYet(ended) => ended.await,
            }
        }
    }
}

/// A name somebody wants to log in as.
#[derive(Clone)]
struct Watched {
    rules: Rules,
    key: Key,
    name: String,
    path: String,
    accessor: String,
    mount_uuid: String,
    stored: Option<Tried>,
}

/// A login that is being tried. Ends when dropped, whatever came of it.
pub(crate) struct Try<'a> {
    lockout: &'a Lockout,
    watched: Watched,
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        let key = &self.watched.key;
        self.lockout.with(&self.watched.accessor, |names| names.end(key));
    }
}

impl Kernel {
    /// Whom a request logs in as, if that is counted on its mount.
    ///
    /// # Errors
    /// [`KernelError::Denied`] while the name is locked, [`KernelError::TooMany`] when others who try it take too long.
    pub(crate) async fn watch_login(
        &self,
        tx: &Tx,
        admitted: &Admitted,
        engine: &dyn Engine,
    ) -> Result<Option<Try<'_>>, KernelError> {
        let Some(mount) = &admitted.mount else { return Ok(None) };
        let is_open = admitted.found.is_some_and(|found| found.route.access == Access::Unauthenticated);
        let rules = Rules::of(&mount.record, &self.config.lockout);
        if !is_open || !engine.locks_names() || rules.is_disabled {
            return Ok(None);
        }
        let Some(name) = engine.login_name(&admitted.request) else { return Ok(None) };
        let accessor = &mount.record.accessor;
        let path = path(&mount.namespace, accessor, &name);
        let watched = Watched {
            rules,
            key: key(accessor, &name),
            stored: read(tx, &path)?.map(|record| record.tried),
            name,
            path,
            accessor: accessor.clone(),
            mount_uuid: mount.record.uuid.clone(),
        };
        let beginning = self.lockout.begin(watched, self.clock.as_ref());
        let begun = tokio::time::timeout(PATIENCE, beginning).await;
        begun.unwrap_or(Err(KernelError::TooMany)).map(Some)
    }

    /// Counts a login that failed; takes the count back when one succeeded.
    ///
    /// # Errors
    /// [`KernelError::Denied`] when the name was locked while the login was tried.
    pub(crate) fn settle_login(
        &self,
        tx: &Tx,
        tried: &Try<'_>,
        answered: &Result<Response, EngineError>,
    ) -> Result<(), KernelError> {
        let (watched, now) = (&tried.watched, self.clock.now());
        match answered {
            Err(EngineError::BadLogin { .. }) => {
                let (failed, is_written) = self.lockout.with(&watched.accessor, |names| {
                    let failed = names.fail(watched, now);
                    let is_locked = failed.is_some_and(|failed| failed.count >= watched.rules.threshold);
                    (failed, is_locked && names.writes_one_more(watched.rules, now))
                });
                // Right or wrong, they are told the same.
                let failed = failed.ok_or(KernelError::Denied)?;
                if failed.count == watched.rules.threshold {
                    metrics::counter!("vault.core.locked_users").increment(1);
                }
                if is_written {
                    self.write_down(watched.clone());
                }
                Ok(())
            }
            Ok(response) if response.login.is_some() => {
                let was_counted = self.lockout.with(&watched.accessor, |names| {
                    let is_locked = names.is_locked(watched, now);
                    (!is_locked).then(|| names.forgive(&watched.key, watched.rules, now))
                });
                if was_counted.ok_or(KernelError::Denied)? || watched.stored.is_some() {
                    tx.delete(Class::Local, &watched.path)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes a lock, in a task of its own.
    fn write_down(&self, watched: Watched) {
        let (Some(kernel), Ok(runtime)) = (self.me.upgrade(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        // Whoever waits for what is written keeps nobody from writing.
        let keeping = Arc::clone(&self.lockout.keeping).try_read_owned().ok();
        drop(runtime.spawn(async move {
            let written = kernel.commit_staged(|tx| kernel.stage_count(tx, &watched)).await;
            match written {
                Ok(()) | Err(KernelError::NeedsActive) => {}
                Err(err) => tracing::warn!(error = %err, "a lock is kept in memory only"),
            }
            drop(keeping);
        }));
    }

    fn stage_count(&self, tx: &Tx, watched: &Watched) -> Result<(), KernelError> {
        let is_mounted = self.mounts.router(&self.store)?.by_uuid(&watched.mount_uuid).is_some();
        // Guarded, so that an unlocking that comes first is seen.
        let before: Option<Record> = tx.get_record(Class::Local, &watched.path)?;
        let counted = self.lockout.with(&watched.accessor, |names| names.find(&watched.key));
        let Some(tried) = counted.filter(|_| is_mounted) else { return Ok(()) };
        let record = Record { name: watched.name.clone(), tried };
        if before.as_ref() != Some(&record) {
            tx.put_record(Class::Local, &watched.path, &record)?;
        }
        Ok(())
    }

    /// Forgets the failed logins of a name.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) fn unlock(
        &self,
        tx: &Tx,
        namespace: &Namespace,
        accessor: &str,
        name: &str,
    ) -> Result<(), KernelError> {
        let router = self.mounts.router(&self.store)?;
        if let Some(mount) = mount_of(&router, accessor) {
            let (rules, now) = (Rules::of(&mount.record, &self.config.lockout), self.clock.now());
            self.lockout.with(accessor, |names| names.forgive(&key(accessor, name), rules, now));
        }
        let path = path(namespace, accessor, name);
        if tx.get(Class::Local, &path)?.is_some() {
            tx.delete(Class::Local, &path)?;
        }
        Ok(())
    }

    /// Takes away records that say nothing any more, of the mounts there are and of those that are gone.
    pub(crate) async fn forget_failed_logins(&self) -> Result<(), KernelError> {
        let router = self.mounts.router(&self.store)?;
        self.lockout.mounts.lock().retain(|accessor, _| mount_of(&router, accessor).is_some());
        for namespace in router.namespaces().iter() {
            let prefix = namespace.storage_path(FOLDER);
            let mut after = None;
            loop {
                let tx = self.read_tx();
                let found = tx.some_below_after(Class::Local, &prefix, after.as_deref(), FORGOTTEN_MAX)?;
                let Some(last) = found.last() else { break };
                after = Some(last.clone());
                let staged = |tx: &Tx| {
                    found.iter().try_for_each(|path| self.stage_forgetting(tx, &router, &prefix, path))
                };
                self.commit_staged(staged).await?;
                if found.len() < FORGOTTEN_MAX {
                    break;
                }
            }
        }
        Ok(())
    }

    fn stage_forgetting(
        &self,
        tx: &Tx,
        router: &Router,
        prefix: &str,
        path: &str,
    ) -> Result<(), KernelError> {
        let Some(record) = read(tx, path)? else { return Ok(()) };
        let accessor = path.strip_prefix(prefix).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let mount = mount_of(router, accessor);
        let is_old = mount.is_none_or(|mount| {
            let rules = Rules::of(&mount.record, &self.config.lockout);
            record.tried.is_old(rules, self.clock.now())
        });
        if is_old {
            tx.get(Class::Local, path)?; // Guarded: it may have been tried again.
            tx.delete(Class::Local, path)?;
        }
        Ok(())
    }
}

/// The mount of an accessor.
pub(crate) fn mount_of<'a>(router: &'a Router, accessor: &str) -> Option<&'a Arc<Mount>> {
    router.mounts().find(|mount| mount.record.accessor == accessor)
}

/// A record, without holding the transaction to it.
pub(crate) fn read(tx: &Tx, path: &str) -> Result<Option<Record>, KernelError> {
    let Some(bytes) = tx.peek(Class::Local, path)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|err| KernelError::Bug(format!("{path} is damaged, line {}", err.line())))
}

#[cfg(test)]
#[path = "lockout_tests.rs"]
mod tests;
