//! A member is put out of the cluster, and another comes in its place, on an empty disk of the same host.

use std::time::Duration;

use arca_raft_storage::MemberId;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::operator::{admit, promote, put_out};
use crate::run::Failure;

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
