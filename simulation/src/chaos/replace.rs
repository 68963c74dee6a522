//! A member is put out of the cluster, and another comes in its place, on an empty disk of the same host. What has to be
//! asked of the leader is asked again until it is so, as an operator would.

use std::time::Duration;

use arca_raft_storage::{MemberId, RaftReplica, Replica as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::{Cluster, Directory, member};
use crate::run::Failure;

/// Longest wait for one answer of the leader.
const LIMIT: Duration = Duration::from_secs(10);
/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// How far it is.
#[derive(Debug)]
enum Stage {
    /// The old member is being put out.
    Out(MemberId, JoinHandle<()>),
    /// It is gone; the new one comes then.
    Gone(Instant),
    /// The cluster learns of the new one.
    Admitted(JoinHandle<MemberId>),
    /// The new one catches up, and becomes a voter.
    Promoted(JoinHandle<()>),
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Replacement {
    host: String,
    pause: Duration,
    stage: Stage,
}

impl Replacement {
    /// Begins to replace the member `id` on `host`; the new one comes `pause` after the old one went.
    pub(super) fn begin(cluster: &Cluster, id: MemberId, host: String, pause: Duration) -> Self {
        let putting_out = put_out(cluster.shared.directory.clone(), id);
        Self { host, pause, stage: Stage::Out(id, tokio::spawn(putting_out)) }
    }

    /// Whether it is about the member `id`.
    pub(super) fn is_putting_out(&self, id: MemberId) -> bool {
        matches!(self.stage, Stage::Out(old, _) if old == id)
    }

    /// Does what is due; nothing is left when it is done.
    ///
    /// # Errors
    /// When the new member does not start, or a task panicked.
    pub(super) async fn step(self, cluster: &mut Cluster) -> Result<Option<Self>, Failure> {
        let directory = cluster.shared.directory.clone();
        let stage = match self.stage {
            Stage::Out(id, task) if task.is_finished() => {
                task.await.map_err(Failure::setup)?;
                cluster.shared.trace.note("out", &[id.0], &[]);
                cluster.shared.trace.say(format_args!("member {id} is no member any more"));
                if let Some(mut machine) = cluster.machines.remove(&id) {
                    machine.crash();
                }
                Stage::Gone(Instant::now() + self.pause)
            }
            Stage::Gone(at) if at <= Instant::now() => {
                Stage::Admitted(tokio::spawn(admit(directory, self.host.clone())))
            }
            Stage::Admitted(task) if task.is_finished() => {
                let id = task.await.map_err(Failure::setup)?;
                cluster.shared.trace.note("in", &[id.0], &[]);
                cluster.install(id, self.host.clone()).await?;
                Stage::Promoted(tokio::spawn(promote(directory, id)))
            }
            Stage::Promoted(task) if task.is_finished() => {
                task.await.map_err(Failure::setup)?;
                return Ok(None);
            }
            stage => stage,
        };
        Ok(Some(Self { stage, ..self }))
    }
}

/// The leader, as soon as there is one that a majority confirms.
async fn confirmed_leader(directory: &Directory) -> std::sync::Arc<RaftReplica> {
    loop {
        if let Some(leader) = directory.leader()
            && leader.read_barrier().await.is_ok()
        {
            return leader;
        }
        sleep(PAUSE).await;
    }
}

async fn put_out(directory: Directory, id: MemberId) {
    loop {
        let leader = confirmed_leader(&directory).await;
        if !leader.membership().members.contains_key(&id) {
            return;
        }
        // Whether it went well is seen at the next look.
        let _ = timeout(LIMIT, leader.remove(id)).await;
        sleep(PAUSE).await;
    }
}

async fn admit(directory: Directory, host: String) -> MemberId {
    loop {
        let leader = confirmed_leader(&directory).await;
        let membership = leader.membership();
        let known = membership.members.iter().find(|(_, (member, _))| member.name == host);
        if let Some((id, _)) = known {
            return *id;
        }
        let _ = timeout(LIMIT, leader.admit(member(MemberId(0), &host))).await;
        sleep(PAUSE).await;
    }
}

/// Returns once the change is finished: until then, majorities of the voters before it are needed as well.
async fn promote(directory: Directory, id: MemberId) {
    loop {
        let leader = confirmed_leader(&directory).await;
        if let Ok(Ok(())) = timeout(LIMIT, leader.promote(id)).await {
            return;
        }
        sleep(PAUSE).await;
    }
}
