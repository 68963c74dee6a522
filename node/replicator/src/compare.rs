//! Comparison of two states: both sides of it, and the check of a state against the primary's.

use std::fmt;
use std::sync::Arc;

use arca_barrier::{Barrier, BarrierError, Class, Keyring, RootKey, boot_key};
use arca_engine_api::Map;
use arca_kernel::KernelError;
use arca_kernel::key_keeper::{KeyKeeper, ROOT_KEY_PATH, SUCCESSOR_PATH};
use arca_kernel::replication::{Kind, Mode};
use arca_kernel::rfc3339;
use arca_raft_storage::{ReadView, Replica, Version, Visit, Write};
use arca_replication::compare::root::{Verdict, check};
use arca_replication::{Catchup, CatchupError, Comparing, Cursor, Link, OwnRecords, Refusal, Root, Tell};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::follower::NO_PRIMARY;
use super::primary::busy;
use super::{OWN_FOLDERS, Replicator, active_role, sieve};

/// A comparison, and what follows from it for the keys of this node.
#[derive(Debug)]
struct NodeCatchup {
    comparing: Comparing,
    keys: Arc<KeyKeeper>,
}

/// What is sealed here and never came from the primary: everything of class `Node`, and a cluster's own folders.
///
/// A primary that returns may have rotated its keys behind the last entry that its successor got. The successor's keyring
/// does not have that key, and takes the place of the one that has. Whatever was sealed since, the role of this cluster
/// first of all, is sealed anew in the very set that brings the keyring; else nothing could open it, and a member that
/// starts would not know what it is.
struct OwnSealed {
    barrier: Arc<Barrier>,
    keys: Arc<KeyKeeper>,
    sealing: Arc<dyn arca_barrier::Entropy>,
}

impl fmt::Debug for OwnSealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnSealed")
    }
}

fn text(err: impl fmt::Display) -> String {
    err.to_string()
}

impl OwnSealed {
    /// The barrier of the keyring that comes, if there is one and it can be opened here.
    fn next(&self, view: &dyn ReadView, keys: &[(Bytes, Bytes)]) -> Result<Option<Barrier>, String> {
        let coming =
            |wanted: &[u8]| keys.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone());
        let Some(keyring) = coming(&boot_key("keyring")) else { return Ok(None) };
        let successor = self.barrier.seal_name(Class::Node, SUCCESSOR_PATH).map_err(text)?;
        let stored = self.barrier.seal_name(Class::Local, ROOT_KEY_PATH).map_err(text)?;
        let announced = view.get(&successor).map_err(text)?.map(|found| Bytes::from(found.value));
        // The key of today, one that was announced, or the one that comes with it.
        let mut found = Keyring::open(&self.keys.root(), &keyring).ok();
        for (key, sealed) in [(&successor, announced), (&stored, coming(&stored))] {
            let opened = sealed.and_then(|sealed| self.barrier.open_value(key, &sealed).ok());
            let root = opened.and_then(|opened| RootKey::from_slice(&opened).ok());
            found = found.or_else(|| Keyring::open(&root?, &keyring).ok());
        }
        Ok(found.map(|keyring| Barrier::new(keyring, Arc::clone(&self.sealing))))
    }

    /// What takes the place of a record, if it does not open under the keys that come.
    fn anew(&self, next: &Barrier, key: &[u8], sealed: &[u8]) -> Result<Option<Write>, BarrierError> {
        // Under another name than today's it is something that was left over, and will be cleared away.
        if next.open_value(key, sealed).is_ok() || self.barrier.open_name(key).is_err() {
            return Ok(None);
        }
        Ok(Some(match self.barrier.open_value(key, sealed) {
            Ok(plain) => Write::Put(key.to_vec(), next.seal_value(key, &plain)?),
            // Nobody could open it before, either.
            Err(_) => Write::Delete(key.to_vec()),
        }))
    }
}

impl OwnRecords for OwnSealed {
    fn along_with(
        &self,
        view: &dyn ReadView,
        keys: &[(Bytes, Bytes)],
    ) -> Result<Vec<(Write, Version)>, String> {
        let Some(next) = self.next(view, keys)? else { return Ok(Vec::new()) };
        let successor = self.barrier.seal_name(Class::Node, SUCCESSOR_PATH).map_err(text)?;
        if next.open_name(&successor).is_err() {
            return Err(
                "the primary's keys are of another state than this cluster's: it is no copy of it".to_owned()
            );
        }
        let mut ranges = vec![(vec![Class::Node.tag()], vec![Class::Node.tag() + 1])];
        for folder in OWN_FOLDERS {
            let start = self.barrier.seal_name(Class::Local, folder).map_err(text)?;
            let end = Barrier::subtree_end(&start);
            ranges.push((start, end));
        }
        let mut found = Vec::new();
        for (start, end) in &ranges {
            let mut visitor = |key: &[u8], value: &[u8], version: Version| {
                // A member that is behind opens the announcement with the keys of before.
                if !key.starts_with(&arca_replication::RECORDS) && key != successor {
                    match self.anew(&next, key, value) {
                        Ok(Some(write)) => found.push(Ok((write, version))),
                        Ok(None) => {}
                        Err(err) => found.push(Err(err)),
                    }
                }
                Visit::Next
            };
            view.visit(start, Some(end), &mut visitor).map_err(text)?;
        }
        let along: Vec<_> = found.into_iter().collect::<Result<_, _>>().map_err(text)?;
        if !along.is_empty() {
            tracing::warn!(
                records = along.len(),
                "the primary never got the newest key of this cluster: what was sealed with it is sealed anew"
            );
        }
        Ok(along)
    }
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
        let own = OwnSealed {
            barrier: Arc::clone(&self.barrier),
            keys: Arc::clone(&self.keys),
            sealing: Arc::clone(&self.sealing),
        };
        let comparing = Comparing::new(replica, sieve(&self.barrier, kind)?, Arc::clone(&self.pace));
        let comparing = comparing.with_own(Arc::new(own));
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
                "corrupted_tree_map": {},
                "verdict": verdict,
                "primary_wal": checked.position.index,
                "primary": shown(&checked.primary),
                "secondary": shown(&checked.secondary),
            })
        } else {
            let view = self.replica.view();
            let root = Root::of(view.as_ref(), &sieve).await;
            let root = root.map_err(|err| KernelError::Replica(err.into()))?;
            // Nothing is compared here, so nothing is said about damage.
            let verdict = "not compared: a secondary compares its state with this one";
            json!({ "verdict": verdict, "primary_wal": root.index, "primary": shown(&root) })
        };
        if let (Some(report), Value::Object(more)) = (report.as_object_mut(), more) {
            report.extend(more);
        }
        if let Value::Object(report) = report { Ok(report) } else { Ok(Map::new()) }
    }
}
