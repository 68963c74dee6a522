//! The state machine as openraft wants it: log ids and memberships to bytes and back, entries in, snapshots out.
//!
//! **Invariant:** a snapshot whose log id openraft hears of is durable in the store ([`Builder`] flushes first): the
//! log is purged on the strength of it. Read next: [`crate::state`], which does the work.

use std::io;
use std::sync::Arc;

use arca_danger::Bug;
use futures::{Stream, StreamExt as _};
use openraft::entry::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use super::config::Threads;
use crate::command::Command;
use crate::log::ClusterId;
use crate::state::{Apply, Exporter, Meta, Payload, Scope, Staged, State, StateError};
use crate::types::{Entry, LogId, StoredMembership, TypeConfig};
use crate::{Member, SnapshotStream};

/// Most entries handed to the state machine at once.
const ENTRIES_PER_APPLY: usize = 256;
/// Version of both encodings below.
const V1: u8 = 1;

/// A whole state on its way.
#[derive(Debug)]
pub struct SnapshotData(Inner);

#[derive(Debug)]
enum Inner {
    /// Read out of this member's state as it is sent.
    Export(Box<Exporter>),
    /// Received whole and verified, not yet visible.
    Staged(Box<Staged>),
}

impl SnapshotData {
    pub(super) fn staged(staged: Staged) -> Self {
        Self(Inner::Staged(Box::new(staged)))
    }

    /// Its frames. `None` for one that was received: that is installed, not sent on.
    pub(super) fn into_stream(self) -> Option<SnapshotStream> {
        match self.0 {
            Inner::Export(exporter) => Some(exporter.into_stream()),
            Inner::Staged(_) => None,
        }
    }
}

/// [`State`] as an openraft state machine.
#[derive(Clone, Debug)]
pub struct Machine {
    state: Arc<State>,
    cluster: ClusterId,
    threads: Threads,
}

impl Machine {
    /// Wraps `state`.
    #[must_use]
    pub fn new(state: Arc<State>, cluster: ClusterId, threads: Threads) -> Self {
        Self { state, cluster, threads }
    }

    fn apply_all(&self, entries: Vec<EntryResponder<TypeConfig>>) -> Result<(), StateError> {
        let encoded = entries.iter().map(|(entry, _)| encode_entry(entry)).collect::<Result<Vec<_>, _>>()?;
        let applies: Vec<Apply<'_>> = entries
            .iter()
            .zip(&encoded)
            .map(|((entry, _), (log_id, membership))| Apply {
                index: entry.log_id.index,
                log_id,
                payload: match &entry.payload {
                    EntryPayload::Blank => Payload::Blank,
                    EntryPayload::Normal(data) => Payload::Command(&data.0),
                    EntryPayload::Membership(_) => Payload::Membership(membership),
                },
            })
            .collect();
        let outcomes = self.state.apply_many(&applies)?;
        drop(applies);
        for ((_, responder), outcome) in entries.into_iter().zip(outcomes) {
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    fn current(&self) -> Result<SnapshotOf<TypeConfig, SnapshotData>, StateError> {
        let exporter = self.state.export(Scope::Member, &self.cluster.0);
        let meta = snapshot_meta(&exporter.header().meta)?;
        Ok(Snapshot { meta, snapshot: SnapshotData(Inner::Export(Box::new(exporter))) })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let view = self.state.view();
        let meta = snapshot_meta(view.meta()).map_err(io::Error::other)?;
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(ENTRIES_PER_APPLY);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.into_iter().collect::<io::Result<Vec<_>>>()?;
            let pause = self.state.write_time();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let applied = if self.threads == Threads::Spawn && chunk.iter().any(builds_a_store) {
                // Minutes, perhaps: not in the way of other tasks.
                let machine = self.clone();
                tokio::task::spawn_blocking(move || machine.apply_all(chunk))
                    .await
                    .map_err(io::Error::other)?
            } else {
                self.apply_all(chunk)
            };
            applied.map_err(io::Error::other)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let staged = match snapshot.0 {
            Inner::Staged(staged) => *staged,
            // Of this process, as openraft's own tests do it.
            Inner::Export(exporter) => receive_all(&self.state, *exporter).map_err(io::Error::other)?,
        };
        let found = snapshot_meta(&staged.header().meta).map_err(io::Error::other)?;
        if found != *meta {
            return Err(io::Error::other(format!("snapshot of {found} came for one of {meta}")));
        }
        self.state.install(staged).map_err(io::Error::other)?;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotData>>> {
        let current = self.current().map_err(io::Error::other)?;
        Ok(current.meta.last_log_id.is_some().then_some(current))
    }
}

fn builds_a_store((entry, _): &EntryResponder<TypeConfig>) -> bool {
    matches!(&entry.payload, EntryPayload::Normal(data) if Command::builds_a_store(&data.0))
}

pub(super) fn receive_all(state: &State, exporter: Exporter) -> Result<Staged, StateError> {
    let mut receiver = state.receive()?;
    for frame in exporter {
        receiver.push(&frame?)?;
    }
    receiver.finish()
}

/// Makes what is applied durable, and says how far that is. A snapshot needs no other building: it is read out of the
/// store whenever one is sent.
#[derive(Debug)]
pub struct Builder(Machine);

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotData>> {
        // Taken before the flush, which covers it.
        let snapshot = self.0.current().map_err(io::Error::other)?;
        if !arca_danger::is(Bug::PurgeBeforeFlush) {
            flush(&self.0.state, self.0.threads).await?;
        }
        Ok(snapshot)
    }
}

/// Makes durable what is applied, away from the tasks if there are threads.
pub(super) async fn flush(state: &Arc<State>, threads: Threads) -> io::Result<u64> {
    let flushed = match threads {
        Threads::None => state.flush(),
        Threads::Spawn => {
            let state = state.clone();
            tokio::task::spawn_blocking(move || state.flush()).await.map_err(io::Error::other)?
        }
    };
    flushed.map_err(io::Error::other)
}

/// The log id, and for a membership the membership with it.
fn encode_entry(entry: &Entry) -> Result<(Vec<u8>, Vec<u8>), StateError> {
    let membership = match &entry.payload {
        EntryPayload::Membership(membership) => {
            encode(&StoredMembership::new(Some(entry.log_id), membership.clone()))?
        }
        EntryPayload::Blank | EntryPayload::Normal(_) => Vec::new(),
    };
    Ok((encode(&entry.log_id)?, membership))
}

pub(super) fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StateError> {
    postcard::to_extend(value, vec![V1]).map_err(|err| StateError::Damaged(err.to_string()))
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
    match bytes.split_first() {
        Some((&V1, rest)) => postcard::from_bytes(rest).map_err(|err| StateError::Damaged(err.to_string())),
        Some((&found, _)) => Err(StateError::NewerFormat { found: found.into(), known: V1.into() }),
        None => Err(StateError::Damaged("empty log id or membership".to_owned())),
    }
}

/// The members as `state` has them, for a member that does not run.
///
/// # Errors
/// When the membership is damaged or of a newer format.
pub fn members_of(state: &State) -> Result<Vec<Member>, StateError> {
    let meta = snapshot_meta(state.view().meta())?;
    Ok(meta.last_membership.nodes().map(|(_, member)| member.clone()).collect())
}

/// The last entry that was applied to a state.
pub(super) fn applied_id(meta: &Meta) -> Result<Option<LogId>, StateError> {
    let applied: Option<LogId> = if meta.is_empty() { None } else { Some(decode(&meta.log_id)?) };
    if applied.is_some_and(|applied| applied.index != meta.index) {
        return Err(StateError::Damaged(format!("log id and index {} of the state differ", meta.index)));
    }
    Ok(applied)
}

/// How far a state is, in openraft's words.
pub(super) fn snapshot_meta(meta: &Meta) -> Result<SnapshotMetaOf<TypeConfig>, StateError> {
    let last_log_id = applied_id(meta)?;
    let last_membership =
        if meta.membership.is_empty() { StoredMembership::default() } else { decode(&meta.membership)? };
    Ok(SnapshotMeta { last_log_id, last_membership })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::Membership;
    use openraft::vote::RaftLeaderId;

    use super::*;
    use crate::MemberId;

    /// These bytes are in stores: the lines never change.
    #[test]
    fn golden_bytes() {
        let leader = openraft::impls::leader_id_adv::LeaderId::new(3, 2);
        let log_id = LogId::new(leader, 300);
        assert_eq!(encode(&log_id).unwrap(), [1, 3, 2, 0xac, 2]);
        assert_eq!(decode::<LogId>(&[1, 3, 2, 0xac, 2]).unwrap(), log_id);
        let member =
            Member { id: MemberId(7), name: "n".into(), cluster_addr: "c:1".into(), api_addr: "a".into() };
        let membership = Membership::new(vec![BTreeSet::from([7])], BTreeMap::from([(7, member)])).unwrap();
        let stored = StoredMembership::new(Some(log_id), membership);
        assert_eq!(
            encode(&stored).unwrap(),
            b"\x01\x01\x03\x02\xac\x02\x01\x01\x07\x01\x07\x07\x01n\x03c:1\x01a"
        );
        assert_eq!(decode::<StoredMembership>(&encode(&stored).unwrap()).unwrap(), stored);
        assert!(matches!(decode::<LogId>(&[2]), Err(StateError::NewerFormat { found: 2, .. })));
    }
}
