//! Comparison of two states: both sides of it, and the check of a state against the primary's.

use std::sync::Arc;

use arca_engine_api::Map;
use arca_kernel::KernelError;
use arca_kernel::replication::{Kind, Mode};
use arca_kernel::rfc3339;
use arca_raft_storage::Replica;
use arca_replication::compare::root::{Verdict, check};
use arca_replication::{Catchup, CatchupError, Comparing, Cursor, Link, Refusal, Root, Tell};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::follower::NO_PRIMARY;
use super::primary::busy;
use super::{Replicator, active_role, sieve};

/// A comparison, and what follows from it for the keys of this node.
#[derive(Debug)]
struct NodeCatchup {
    comparing: Comparing,
    keys: Arc<arca_kernel::key_keeper::KeyKeeper>,
}

#[async_trait]
impl Catchup for NodeCatchup {
    async fn catch_up(&self, link: &Arc<dyn Link>, tell: &Tell) -> Result<Cursor, CatchupError> {
        let cursor = self.comparing.catch_up(link, tell).await?;
        // The primary may have other keys by now, and these came key by key.
        self.keys.reload();
        Ok(cursor)
    }
}

impl Replicator {
    pub(super) fn catchup(&self, kind: Kind) -> Result<Arc<dyn Catchup>, KernelError> {
        let replica = Arc::clone(&self.replica) as Arc<dyn Replica>;
        let comparing = Comparing::new(replica, sieve(&self.barrier, kind)?, Arc::clone(&self.pace));
        Ok(Arc::new(NodeCatchup { comparing, keys: Arc::clone(&self.keys) }))
    }

    /// Answers a question of a secondary that compares.
    pub(super) async fn compare(
        &self,
        secondary_id: &str,
        kind: Kind,
        question: Bytes,
    ) -> Result<Bytes, Refusal> {
        self.source.admit(secondary_id, super::shipped(kind))?;
        self.replica.read_barrier().await.map_err(busy)?;
        // What was withheld since must not come out of a state of before.
        let began_at = self.changed_at(kind, secondary_id)?;
        let is_news = {
            let mut compared = self.compared.lock();
            compared.insert((kind, secondary_id.to_owned()), began_at).is_some_and(|before| before < began_at)
        };
        if is_news {
            self.comparisons.end(super::shipped(kind), secondary_id);
        }
        let pin = || self.pinned_now(secondary_id, kind);
        self.comparisons.serve(super::shipped(kind), secondary_id, &pin, question).await
    }

    /// Hashes over the state here and, on a secondary, over the primary's.
    pub(super) async fn checked_state(&self) -> Result<Map, KernelError> {
        let standing = self.active()?.standing();
        let is = |mode: Mode| Kind::ALL.into_iter().find(|kind| active_role(&standing, *kind).mode == mode);
        let kind = is(Mode::Secondary).or_else(|| is(Mode::Primary)).unwrap_or(Kind::Dr);
        let sieve = sieve(&self.barrier, kind)?;
        let role = standing.role(kind).clone();
        let now = self.now();
        let mut report = json!({
            "corrupted_root": false,
            "corrupted_tree_map": {},
            "last_corruption_check_epoch": (now.0 / 1000).to_string(),
            "checked_at": rfc3339::format(now),
        });
        let shown = |root: &Root| json!({ "merkle_root": root.to_string(), "entries": root.entries, "bytes": root.bytes });
        let more = if role.mode == Mode::Secondary {
            let told = self.told(kind).ok_or_else(|| KernelError::invalid(NO_PRIMARY))?;
            let link = Arc::clone(&told.link) as Arc<dyn Link>;
            let replica = Arc::clone(&self.replica) as Arc<dyn Replica>;
            let checked = check(&link, &replica, &sieve, &self.pace).await;
            let checked = checked
                .map_err(|err| KernelError::Invalid(format!("the states could not be compared: {err}")))?;
            let verdict = match checked.verdict {
                Verdict::Same => "same",
                Verdict::Differ => "differ",
                Verdict::Elsewhere => "not compared at the same position: ask again when less is written",
            };
            json!({
                "corrupted_root": checked.verdict == Verdict::Differ,
                "verdict": verdict,
                "primary_wal": checked.position.index,
                "primary": shown(&checked.primary),
                "secondary": shown(&checked.secondary),
            })
        } else {
            let view = self.replica.view();
            let root = Root::of(view.as_ref(), &sieve).await;
            let root = root.map_err(|err| KernelError::Replica(err.into()))?;
            json!({ "primary_wal": root.index, "primary": shown(&root) })
        };
        if let (Some(report), Value::Object(more)) = (report.as_object_mut(), more) {
            report.extend(more);
        }
        if let Value::Object(report) = report { Ok(report) } else { Ok(Map::new()) }
    }
}
