//! After a quorum is lost for good: one member goes on alone.
//!
//! It behaves as if it had been elected and had then removed everybody else: a vote of a higher term and a membership
//! of itself alone go into its log. **What was acknowledged but never reached this member is lost**, and the others
//! must never run again with their old data: they could elect a leader among themselves, and there would be two
//! clusters. They come back as new members, with new ids and empty directories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::RaftLogReader as _;
use openraft::entry::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use openraft::vote::RaftLeaderId as _;

use super::OpenError;
use super::config::RaftConfig;
use super::machine::snapshot_meta;
use super::replica::{RaftParts, drop_contradicted, open_files};
use crate::Member;
use crate::log::openraft::RaftLog;
use crate::state::State;
use crate::types::{Entry, LogId, TypeConfig, Vote};

/// Makes the member whose files these are the only one of its cluster. It must not be running. Open it afterwards: it
/// leads at once. Answers the log index of the membership.
///
/// # Errors
/// When the files cannot be opened or written, or hold no cluster.
pub async fn recover_single(config: RaftConfig, parts: RaftParts, me: Member) -> Result<u64, OpenError> {
    if me.id != config.id {
        return Err(OpenError::Recovery(format!("this is member {}, not {}", config.id, me.id)));
    }
    let (_node, log) = open_files(&config, &parts)?;
    let state = Arc::new(State::open(parts.home.clone())?);
    drop_contradicted(&log, &state)?;
    let applied = snapshot_meta(state.view().meta())?.last_log_id;
    let mut storage = RaftLog::new(log.clone());
    let result = write(&mut storage, applied, me).await;
    let (done, closed) = futures::channel::oneshot::channel();
    // Nobody waits if writing failed.
    log.close(Box::new(move |result| drop(done.send(result))));
    let index = result?;
    closed.await.map_err(|_| OpenError::Recovery("the log ended early".to_owned()))??;
    tracing::warn!(
        index,
        "the cluster now consists of this member alone; the others must not come back with their data"
    );
    Ok(index)
}

async fn write(storage: &mut RaftLog, applied: Option<LogId>, me: Member) -> Result<u64, OpenError> {
    let failed = |err: std::io::Error| OpenError::Recovery(err.to_string());
    let last = storage.get_log_state().await.map_err(failed)?.last_log_id.max(applied);
    let last =
        last.ok_or_else(|| OpenError::Recovery("this member never belonged to a cluster".to_owned()))?;
    if storage.get_log_state().await.map_err(failed)?.last_log_id < applied {
        // The state is ahead of the log, as after a lost tail: the log goes on behind the state.
        storage.purge(last).await.map_err(failed)?;
    }
    let vote = storage.read_vote().await.map_err(failed)?;
    let term = vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term) + 1;
    let vote = Vote::new_committed(term, me.id.0);
    let membership =
        openraft::Membership::new(vec![BTreeSet::from([me.id.0])], BTreeMap::from([(me.id.0, me)]))
            .map_err(|err| OpenError::Recovery(err.to_string()))?;
    let log_id = LogId::new(vote.leader_id.to_committed(), last.index + 1);
    let entry = Entry { log_id, payload: EntryPayload::Membership(membership) };
    storage.save_vote(&vote).await.map_err(failed)?;
    let (done, durable) = TypeConfig::oneshot();
    storage.append([entry], IOFlushed::signal(done)).await.map_err(failed)?;
    durable.await.map_err(|_| OpenError::Recovery("the log ended early".to_owned()))?.map_err(failed)?;
    Ok(log_id.index)
}
