//! A promoted cluster tells the old primary that it is over, until that has answered.

use std::sync::Arc;
use std::time::Duration;

use arca_barrier::Class;
use arca_kernel::KernelError;
use arca_kernel::replication::{Kind, Mode};
use arca_replication::codec::Reader;
use arca_replication::{Announcement, Call, Cursor, Epoch, LinkError, PrimaryLink, Refusal};

use super::Replicator;
use super::records::{AnnouncementRecord, announcement_path};

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
        match replicator.tell(kind, link.as_ref(), &record).await {
            Ok(()) => break tracing::warn!(epoch = record.epoch, "the old primary knows that it is over"),
            // It is no primary any more, or knows of one that is newer still.
            Err(LinkError::Refused(refusal @ (Refusal::NotPrimary | Refusal::Revoked))) => {
                break tracing::info!(%refusal, "the old primary needs not be told");
            }
            Err(LinkError::Refused(Refusal::Fenced(epoch))) if epoch.0 > record.epoch => {
                tracing::error!(
                    epoch = epoch.0,
                    "the old primary knows of a newer epoch than this cluster's: another cluster was promoted as well. \
                     Demote this one, or that one, and have it follow the other"
                );
            }
            Err(LinkError::Refused(Refusal::Fenced(_))) => break,
            Err(err) => {
                let text = err.to_string();
                if said.as_ref() != Some(&text) {
                    tracing::warn!(error = text, "the old primary has not been told of the promotion yet");
                    said = Some(text);
                }
            }
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
