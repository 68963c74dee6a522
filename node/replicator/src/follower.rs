//! How a secondary follows its primary: one task on the active member, from the first copy to the stream.

use std::sync::Arc;
use std::time::Duration;

use arca_kernel::KernelError;
use arca_kernel::replication::{Kind, Mode, RoleRecord, UpstreamRecord};
use arca_replication::{Ended, Greeting, Link, PrimaryLink, Progress, Refusal, Sink, SinkSettings, Welcome};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{AbortOnDrop, Replicator, sieve};

/// How often the primary is greeted.
const GREET_INTERVAL: Duration = Duration::from_secs(2);
/// Pause before following is begun again that ended because this member did not lead.
const LEAD_PAUSE: Duration = Duration::from_millis(250);
/// Pause before a copy is tried again.
const COPY_PAUSE: Duration = Duration::from_secs(2);

/// What the task is about. Another one begins when this changes.
#[derive(Clone, PartialEq, Eq)]
struct Purpose {
    kind: Kind,
    upstream: UpstreamRecord,
    replication_id: String,
    epoch: u64,
}

/// What the primary said last, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    pub(super) welcome: Option<Welcome>,
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
    /// How long the answer took.
    pub(super) took: Duration,
    /// Its clock against ours, milliseconds.
    pub(super) skew_ms: i64,
    /// Why it does not answer.
    pub(super) problem: Option<String>,
}

/// The task, and what it tells.
pub(super) struct Following {
    purpose: Purpose,
    stop: CancellationToken,
    task: JoinHandle<()>,
    pub(super) told: Arc<Told>,
}

/// What status pages show of it.
pub(super) struct Told {
    pub(super) kind: Kind,
    pub(super) sink: Arc<Sink>,
    pub(super) progress: Arc<Progress>,
    pub(super) link: Arc<dyn PrimaryLink>,
    pub(super) heard: Mutex<Heard>,
    /// Why the first copy does not go on.
    pub(super) copy_problem: Mutex<Option<String>>,
}

impl Replicator {
    /// Begins, ends or changes what is followed: a cluster follows one other at most, since one that waits as a DR
    /// secondary is nothing else.
    pub(super) async fn keep_following(self: &Arc<Self>, is_active: bool, roles: &[(Kind, RoleRecord)]) {
        let secondary =
            roles.iter().find(|(_, role)| role.mode == Mode::Secondary && role.upstream.is_some());
        let secondary = secondary.filter(|_| is_active);
        let wanted = secondary.map(|(kind, role)| Purpose {
            kind: *kind,
            upstream: UpstreamRecord { addresses: Vec::new(), ..role.upstream.clone().unwrap_or_default() },
            replication_id: role.replication_id.clone(),
            epoch: role.epoch,
        });
        let is_right = {
            let following = self.following.lock();
            following.as_ref().map(|following| &following.purpose) == wanted.as_ref()
        };
        if is_right {
            return;
        }
        self.stop_following().await;
        if let (Some(purpose), Some((_, role))) = (wanted, secondary)
            && let Err(err) = self.begin_following(purpose, role)
        {
            tracing::error!(error = %err, "the primary cannot be followed");
        }
    }

    /// Ends it, and waits until it has.
    pub(super) async fn stop_following(&self) {
        let following = self.following.lock().take();
        if let Some(Following { stop, mut task, .. }) = following {
            stop.cancel();
            if tokio::time::timeout(Duration::from_secs(2), &mut task).await.is_err() {
                task.abort();
                let _ = task.await;
            }
        }
    }

    /// What the task of this kind tells, if there is one.
    pub(super) fn told(&self, kind: Kind) -> Option<Arc<Told>> {
        let following = self.following.lock();
        let of_kind = following.as_ref().filter(|following| following.purpose.kind == kind);
        of_kind.map(|following| Arc::clone(&following.told))
    }

    pub(super) fn link_to(&self, role: &RoleRecord) -> Result<Arc<dyn PrimaryLink>, KernelError> {
        let upstream = role.upstream.as_ref().ok_or_else(|| KernelError::invalid(NO_PRIMARY))?;
        self.surroundings.link(&role.replication_id, upstream)
    }

    fn begin_following(self: &Arc<Self>, purpose: Purpose, role: &RoleRecord) -> Result<(), KernelError> {
        let (link, kind) = (self.link_to(role)?, purpose.kind);
        let clock = Arc::clone(&self.clock);
        let progress = Arc::<Progress>::default();
        let sink = Sink::new(
            Arc::clone(&self.replica) as Arc<dyn arca_raft_storage::Replica>,
            sieve(&self.barrier, kind)?,
            self.catchup(kind)?,
            SinkSettings::default(),
            Arc::new(move || clock.now().0),
        );
        let told = Arc::new(Told {
            kind,
            sink: Arc::new(sink),
            progress,
            link,
            heard: Mutex::default(),
            copy_problem: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let task = self.spawn(follow(Arc::clone(self), Arc::clone(&told), stop.clone()));
        *self.following.lock() = Some(Following { purpose, stop, task, told });
        Ok(())
    }

    pub(super) fn greeting(&self, role: &RoleRecord) -> Greeting {
        Greeting {
            node_name: self.me.name.clone(),
            cluster_addr: self.me.cluster_addr.clone(),
            api_addr: self.me.api_addr.clone(),
            version: self.version.to_owned(),
            cluster_id: self.cluster_id.clone(),
            epoch: role.epoch,
            clock_ms: self.now().0,
            took_ms: 0,
        }
    }
}

/// Said where an order needs a primary.
pub(super) const NO_PRIMARY: &str =
    "this cluster knows no primary: give it an activation token by update-primary";

async fn follow(replicator: Arc<Replicator>, told: Arc<Told>, stop: CancellationToken) {
    let greeting = AbortOnDrop(replicator.spawn(greet(Arc::clone(&replicator), Arc::clone(&told))));
    let work = async {
        if !copied(&replicator, &told, &stop).await {
            return;
        }
        let ended = loop {
            let link = Arc::clone(&told.link) as Arc<dyn Link>;
            match told.sink.run(link, stop.cancelled()).await {
                // Leadership may be back before anybody has seen that it was gone: then nobody else would begin again.
                Ended::NotLeader => tokio::time::sleep(LEAD_PAUSE).await,
                ended => break ended,
            }
            if stop.is_cancelled() {
                return;
            }
        };
        match ended {
            Ended::Stopped | Ended::NotLeader => {}
            Ended::Refused(Refusal::Fenced(epoch)) => tracing::error!(
                epoch = epoch.0,
                "the primary is not the one of the newest epoch, or this secondary was promoted: see update-primary"
            ),
            Ended::Refused(refusal) => {
                tracing::error!(%refusal, "this secondary does not follow its primary any more, until an operator decides");
            }
            Ended::Failed(reason) => tracing::error!(reason, "this secondary cannot follow its primary"),
        }
    };
    // Each part of it ends by itself when it is told to, and clears away what it left half done.
    work.await;
    stop.cancelled().await;
    drop(greeting);
}

/// Makes the first copy, if it has not been made. Whether the primary is to be followed now.
async fn copied(replicator: &Arc<Replicator>, told: &Told, stop: &CancellationToken) -> bool {
    loop {
        let bootstrap = match replicator.bootstrap_record(told.kind) {
            Ok(Some(bootstrap)) => bootstrap,
            Ok(None) => return true,
            Err(err) => {
                *told.copy_problem.lock() = Some(err.to_string());
                tracing::error!(error = %err, "it cannot be read what is to be copied");
                return false;
            }
        };
        match replicator.copy_state(&bootstrap, told, stop).await {
            // This node is about to change over to the keys of what it copied.
            Ok(()) if replicator.keys.is_locked_out() => return false,
            Ok(()) => *told.copy_problem.lock() = None,
            Err(_) if stop.is_cancelled() => return false,
            Err(err) => {
                tracing::warn!(error = %err, "the copy of the primary's state did not come to its end: it is tried again");
                *told.copy_problem.lock() = Some(err.to_string());
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(COPY_PAUSE)).await.is_none() {
            return false;
        }
    }
}

/// Says that this secondary is there, and learns where the primary's nodes are.
async fn greet(replicator: Arc<Replicator>, told: Arc<Told>) {
    let mut took_ms = 0;
    loop {
        let Ok(role) = replicator.role(told.kind) else { return };
        let greeting = Greeting { took_ms, ..replicator.greeting(&role) };
        let began = tokio::time::Instant::now();
        let answer = told.link.greet(&greeting).await;
        let (now, took) = (replicator.now().0, began.elapsed());
        match answer {
            Ok(welcome) => {
                let half = u64::try_from(took.as_millis() / 2).unwrap_or_default();
                let skew_ms = welcome.clock_ms.saturating_add(half).cast_signed() - now.cast_signed();
                took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                learn(&replicator, &told, &role, &welcome).await;
                *told.heard.lock() =
                    Heard { welcome: Some(welcome), at_ms: now, took, skew_ms, problem: None };
            }
            Err(err) => told.heard.lock().problem = Some(err.to_string()),
        }
        tokio::time::sleep(GREET_INTERVAL).await;
    }
}

/// Keeps the addresses of the primary's nodes, for when this node starts again.
async fn learn(replicator: &Replicator, told: &Told, role: &RoleRecord, welcome: &Welcome) {
    if welcome.nodes.is_empty() {
        return;
    }
    // What an operator gave is always tried as well: a node's own address may mean nothing here.
    let given = role.upstream.iter().flat_map(|upstream| upstream.given.iter().cloned());
    let named = welcome.nodes.iter().map(|node| node.cluster_addr.clone());
    let mut addresses: Vec<String> = named.chain(given).collect();
    addresses.sort();
    addresses.dedup();
    let mut known = role.upstream.as_ref().map(|upstream| upstream.addresses.clone()).unwrap_or_default();
    known.sort();
    if addresses == known {
        return;
    }
    told.link.learn(addresses.clone());
    let stored = replicator.commit(|tx| {
        let mut now = RoleRecord::load(tx, told.kind)?;
        let is_same = now.upstream.as_ref().map(|upstream| &upstream.certificate)
            == role.upstream.as_ref().map(|upstream| &upstream.certificate);
        if let Some(upstream) = now.upstream.as_mut().filter(|_| is_same) {
            upstream.addresses.clone_from(&addresses);
            now.store(tx, told.kind)?;
        }
        Ok(Vec::new())
    });
    if let Err(err) = stored.await {
        tracing::debug!(error = %err, "new addresses of the primary will be written down later");
    }
}
