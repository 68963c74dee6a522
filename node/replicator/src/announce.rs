//! A promoted cluster tells the old primary that it is over, until that says so itself; and what the old one does then.

use std::sync::Arc;
use std::time::Duration;

use arca_barrier::Class;
use arca_kernel::KernelError;
use arca_kernel::replication::{Kind, Mode};
use arca_replication::codec::Reader;
use arca_replication::{Announcement, Call, Cursor, Epoch, Heard, LinkError, PrimaryLink, Refusal, Unserved};
use bytes::Bytes;

use super::primary::busy;
use super::records::{AnnouncementRecord, announcement_path};
use super::{Replicator, sieve};

/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(2);

impl Replicator {
    /// Begins or ends the telling.
    pub(super) fn keep_announcing(self: &Arc<Self>, kind: Kind, is_ours: bool) {
        let mut announcing = self.announcing.lock();
        if announcing.get(&kind).is_some_and(tokio::task::JoinHandle::is_finished) {
            announcing.remove(&kind);
        }
        match (is_ours, announcing.contains_key(&kind)) {
            (true, false) if matches!(self.announcement(kind), Ok(Some(_))) => {
                announcing.insert(kind, self.spawn(announce(Arc::clone(self), kind)));
            }
            (false, true) => {
                if let Some(task) = announcing.remove(&kind) {
                    task.abort();
                }
            }
            _ => {}
        }
    }

    fn announcement(&self, kind: Kind) -> Result<Option<AnnouncementRecord>, KernelError> {
        Ok(self.kernel()?.read_tx().get_record(Class::Node, &announcement_path(kind))?)
    }

    /// Tells once.
    async fn tell(
        &self,
        kind: Kind,
        link: &dyn PrimaryLink,
        record: &AnnouncementRecord,
    ) -> Result<(), LinkError> {
        let cursor = hex::decode(&record.cursor).ok();
        let cursor = cursor.and_then(|bytes| Cursor::read(&mut Reader::new(bytes.into())).ok());
        let role = self.role(kind).unwrap_or_default();
        let news = Announcement {
            epoch: Epoch(record.epoch),
            addresses: self.addresses(&role),
            followed: cursor.unwrap_or_default(),
        };
        link.call(Call::Announce, news.encode().into()).await.map(drop)
    }

    /// Tells once, and asks whether it is known there now; what is in the way otherwise.
    ///
    /// That the news were taken is not enough to forget them: nothing but these would end what an old primary writes, should
    /// it lose them.
    async fn told_of(
        &self,
        kind: Kind,
        link: &dyn PrimaryLink,
        record: &AnnouncementRecord,
    ) -> Result<(), String> {
        let newer = match self.tell(kind, link, record).await {
            Ok(()) => None,
            Err(LinkError::Refused(Refusal::NotPrimary)) => return Ok(()),
            // One that was demoted has raised its epoch by itself.
            Err(LinkError::Refused(Refusal::Fenced(epoch))) => Some(epoch),
            Err(LinkError::Refused(Refusal::Revoked)) => {
                return Err(
                    "it has revoked this cluster, and does not listen to it: demote it there".to_owned()
                );
            }
            Err(err) => return Err(err.to_string()),
        };
        let role = self.role(kind).unwrap_or_default();
        let welcome = link.greet(&self.greeting(&role)).await.map_err(|err| err.to_string())?;
        let is_none = [Mode::Secondary, Mode::Disabled].iter().any(|mode| mode.name() == welcome.mode);
        match newer {
            _ if is_none || welcome.is_fenced => Ok(()),
            Some(epoch) => Err(format!(
                "it is a primary of epoch {}, which is newer than this cluster's {}: another cluster was promoted as \
                 well. Demote this one, or that one, and have it follow the other",
                epoch.0, record.epoch
            )),
            None => Err("the node that answers has not applied it".to_owned()),
        }
    }

    /// Hears of a promotion, as the old primary, and answers once that is written down: whoever announced it forgets it
    /// then, and a member that only heard it may be gone in a moment.
    pub(super) async fn announced(
        &self,
        kind: Kind,
        secondary_id: &str,
        payload: Bytes,
    ) -> Result<Bytes, Unserved> {
        let sieve = sieve(&self.barrier, kind).map_err(busy)?;
        let answer = self.source.serve(secondary_id, &sieve, Call::Announce, payload.clone()).await?;
        let news = Announcement::decode(&mut Reader::new(payload)).map_err(busy)?;
        let heard = Heard { epoch: news.epoch, addresses: news.addresses, followed: Some(news.followed) };
        self.fence(kind, &heard).await.map_err(busy)?;
        Ok(answer)
    }
}

async fn announce(replicator: Arc<Replicator>, kind: Kind) {
    let Ok(role) = replicator.role(kind) else { return };
    let link = match replicator.link_to(&role) {
        Ok(link) => link,
        Err(err) => {
            tracing::error!(error = %err, "the old primary cannot be told of the promotion");
            return;
        }
    };
    let mut said = None;
    loop {
        let Ok(Some(record)) = replicator.announcement(kind) else { return };
        let problem = match replicator.told_of(kind, link.as_ref(), &record).await {
            Ok(()) => break tracing::warn!(epoch = record.epoch, "the old primary knows that it is over"),
            Err(problem) => problem,
        };
        if said.as_ref() != Some(&problem) {
            tracing::warn!(problem, "the old primary has not been told of the promotion yet");
            said = Some(problem);
        }
        tokio::time::sleep(PAUSE).await;
    }
    let forgotten = replicator.commit(|tx| {
        if arca_kernel::replication::RoleRecord::load(tx, kind)?.mode == Mode::Primary {
            tx.delete(Class::Node, &announcement_path(kind))?;
        }
        Ok(Vec::new())
    });
    if let Err(err) = forgotten.await {
        tracing::debug!(error = %err, "the old primary will be told once more");
    }
}
