//! What a DR primary is beside: a performance secondary may have a DR secondary of its own, which has to go on as one.
//!
//! Roles never leave their cluster. So a performance secondary keeps whom it follows in an entry that its DR secondaries
//! get. **Invariant:** one of them that is promoted takes no shared writes by itself: it is a performance secondary that knows
//! no primary yet. Otherwise two clusters would write what one primary shares.

use arca_barrier::Class;
use arca_kernel::KernelError;
use arca_kernel::replication::{Kind, Mode, RoleRecord};
use arca_kernel::tx::Tx;
use arca_raft_storage::{Replica as _, Version, Write};
use arca_replication::{Cursor, Epoch, cursor_key};
use serde::{Deserialize, Serialize};

use super::{Replicator, shipped};

const PATH: &str = "root/core/replication/beside";

/// Whom a cluster follows as a performance secondary. Nothing secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BesideRecord {
    replication_id: String,
    epoch: u64,
}

/// What a DR secondary is once it is promoted, beside being a primary. One that followed the same primary before it became a
/// copy does so again, by comparison: its cursor is of a state that it has no longer.
/// `cursor_at` is the version of that.
pub(super) fn go_on(tx: &Tx, cursor_at: Version) -> Result<Vec<Write>, KernelError> {
    let mut role = RoleRecord::load(tx, Kind::Performance)?;
    let beside = tx.get_record::<BesideRecord>(Class::Local, PATH)?;
    if let Some(BesideRecord { replication_id, epoch }) = beside {
        let epoch = role.epoch.max(epoch);
        let follows = role.mode == Mode::Secondary && role.replication_id == replication_id;
        if !follows && role.mode != Mode::Primary {
            role = RoleRecord { mode: Mode::Secondary, replication_id, epoch, ..RoleRecord::default() };
            role.store(tx, Kind::Performance)?;
        }
    }
    if role.mode != Mode::Secondary {
        return Ok(Vec::new());
    }
    tx.guard(&cursor_key(shipped(Kind::Performance)), cursor_at);
    let unknown = Cursor { epoch: Epoch(role.epoch), ..Cursor::default() };
    Ok(vec![Write::Put(cursor_key(shipped(Kind::Performance)), unknown.encode())])
}

impl Replicator {
    /// On the active member: keeps the entry as the role is. What a copy is to bring, and what a DR secondary follows, is not
    /// this cluster's to write.
    pub(super) async fn keep_beside(&self, performance: &RoleRecord) {
        if let Err(err) = self.try_keep_beside(performance).await {
            tracing::warn!(error = %err, "DR secondaries will be told later whom this cluster follows");
        }
    }

    async fn try_keep_beside(&self, performance: &RoleRecord) -> Result<(), KernelError> {
        let kernel = self.active()?;
        let standing = kernel.standing();
        if standing.check_local_writes().is_err() || self.bootstrap_record(Kind::Performance)?.is_some() {
            return Ok(());
        }
        let RoleRecord { replication_id, epoch, .. } = performance.clone();
        let follows = performance.mode == Mode::Secondary;
        let wanted = follows.then_some(BesideRecord { replication_id, epoch });
        let tx = kernel.read_tx().writing();
        if tx.get_record::<BesideRecord>(Class::Local, PATH)? == wanted {
            return Ok(());
        }
        match &wanted {
            Some(beside) => tx.put_record(Class::Local, PATH, beside)?,
            None => tx.delete(Class::Local, PATH)?,
        }
        let mut set = tx.into_write_set()?;
        standing.admit(&mut set)?;
        self.replica.propose(set).await?;
        Ok(())
    }
}
