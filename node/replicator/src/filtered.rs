//! What one secondary gets, filters and all, by the state that it is shipped from.

use std::fmt;
use std::sync::Arc;

use arca_barrier::Barrier;
use arca_kernel::KernelError;
use arca_kernel::replication::Kind;
use arca_kernel::replication::filter::{self, Stamp};
use arca_kernel::tx::{Mode, Tx};
use arca_raft_storage::{ReadView, Replica as _};
use arca_replication::{LinkError, PayloadStream, Refusal, Sieve, Sieved, Sieves};
use futures::StreamExt as _;
use parking_lot::Mutex;

use super::primary::busy;
use super::{Replicator, sieve};

/// See the file's header. Of one stream: what it was made of last is kept.
pub(super) struct SecondarySieves {
    barrier: Arc<Barrier>,
    kind: Kind,
    secondary_id: String,
    last: Mutex<Option<(Stamp, Sieve)>>,
}

impl fmt::Debug for SecondarySieves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecondarySieves({} {})", self.kind.name(), self.secondary_id)
    }
}

impl SecondarySieves {
    fn tx(&self, view: &Arc<dyn ReadView>) -> Tx {
        Tx::new(Arc::clone(&self.barrier), Arc::clone(view), Mode::ReadOnly)
    }

    fn made(&self, view: &Arc<dyn ReadView>) -> Result<Sieved, KernelError> {
        if self.kind == Kind::Dr {
            // Everything, always.
            return Ok(Sieved { sieve: sieve(&self.barrier, self.kind)?, since: 0 });
        }
        let tx = self.tx(view);
        let stamp = Stamp::read(&tx, &self.secondary_id)?;
        let since = stamp.changed_at();
        let mut last = self.last.lock();
        if let Some((_, sieve)) = last.as_ref().filter(|(known, _)| *known == stamp) {
            return Ok(Sieved { sieve: sieve.clone(), since });
        }
        let rules = filter::rules(&tx, &self.secondary_id)?.into_iter().collect();
        let sieve = Sieve { rules, ..sieve(&self.barrier, self.kind)? };
        *last = Some((stamp, sieve.clone()));
        Ok(Sieved { sieve, since })
    }
}

impl Sieves for SecondarySieves {
    fn of(&self, view: &Arc<dyn ReadView>) -> Result<Sieved, String> {
        self.made(view).map_err(|err| err.to_string())
    }
}

impl Replicator {
    pub(super) fn sieves(&self, kind: Kind, secondary_id: &str) -> SecondarySieves {
        SecondarySieves {
            barrier: Arc::clone(&self.barrier),
            kind,
            secondary_id: secondary_id.to_owned(),
            last: Mutex::default(),
        }
    }

    /// The last entry that changed what a secondary gets of what had been there, as it is now.
    pub(super) fn changed_at(&self, kind: Kind, secondary_id: &str) -> Result<u64, Refusal> {
        if kind == Kind::Dr {
            return Ok(0);
        }
        let tx = Tx::new(Arc::clone(&self.barrier), self.replica.view(), Mode::ReadOnly);
        Stamp::read(&tx, secondary_id).map(|stamp| stamp.changed_at()).map_err(busy)
    }
}

/// Ends a copy once what the secondary gets is not what it was when it began.
pub(super) fn until_changed(
    replicator: &Arc<Replicator>,
    kind: Kind,
    secondary_id: &str,
    (began_at, copy): (u64, PayloadStream),
) -> PayloadStream {
    let (replicator, secondary_id) = (Arc::downgrade(replicator), secondary_id.to_owned());
    let mut is_over = false;
    let checked = copy.map(move |payload| {
        let replicator = replicator.upgrade().ok_or_else(|| busy("this node is sealed"))?;
        if replicator.changed_at(kind, &secondary_id)? > began_at {
            let text = "the filter of this secondary, or a mount that it is about, has changed";
            return Err(LinkError::Refused(busy(text)));
        }
        payload
    });
    let whole = checked.take_while(move |payload| {
        let goes_on = !is_over;
        is_over = payload.is_err();
        std::future::ready(goes_on)
    });
    whole.boxed()
}
