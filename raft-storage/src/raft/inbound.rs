//! openraft's calls, in from other members.
//!
//! **Invariant:** nothing reaches openraft before the envelope is checked: right cluster, right member, and the
//! sender is who it says, was not removed, and speaks for itself. A snapshot reaches it whole and verified.
//! Read next: [`super::wire`].

use std::sync::Arc;
use std::time::Duration;

use arca_danger::Bug;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use openraft::raft::{AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest};
use openraft::storage::Snapshot;
use openraft::vote::RaftLeaderId as _;
use serde::Serialize;
use tokio::time::timeout;

use super::barrier;
use super::config::Threads;
use super::machine::{SnapshotData, snapshot_meta};
use super::shared::Shared;
use super::wire::{
    AppendReply, Envelope, ReadReply, SnapshotHead, SnapshotReply, TransferCall, TransferReply, VoteCall,
    VoteReply, check_speaker, parse, parse_append,
};
use crate::log::openraft::log_id;
use crate::state::{Receiver, Staged};
use crate::types::{LogId, Vote};
use crate::{Call, Inbound, MemberId, SnapshotStream};

/// Longest silence within a snapshot.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves one member.
#[derive(Debug)]
pub(super) struct Calls(pub(super) Arc<Shared>);

#[async_trait]
impl Inbound for Calls {
    async fn serve(&self, peer: MemberId, call: Call, payload: Bytes) -> Result<Bytes, String> {
        let (from, body) = self.take(peer, &payload)?;
        if self.0.gate.is_closed.get() {
            return Err("this member is shutting down".to_owned());
        }
        if let Some(membership_index) = self.removed_by(from) {
            return match call {
                // A candidate learns of its removal by the answers to its calls for votes.
                Call::PreVote | Call::Vote => reply(&VoteReply::Removed { membership_index }),
                Call::Append | Call::ReadIndex | Call::TransferLeader => Err(not_a_member(from)),
            };
        }
        match call {
            Call::Append => self.append(from, &body).await,
            Call::PreVote | Call::Vote => self.vote(from, call, &body).await,
            Call::ReadIndex => self.read_index().await,
            Call::TransferLeader => self.transfer(from, &body).await,
        }
    }

    fn is_removed(&self, peer: MemberId) -> bool {
        self.removed_by(peer.0).is_some()
    }

    async fn receive_snapshot(
        &self,
        peer: MemberId,
        header: Bytes,
        chunks: SnapshotStream,
    ) -> Result<Bytes, String> {
        let (from, body) = self.take(peer, &header)?;
        if self.removed_by(from).is_some() {
            return Err(not_a_member(from));
        }
        let head: SnapshotHead = parse(&body).map_err(|err| err.to_string())?;
        check_speaker(from, &head.vote).map_err(|err| err.to_string())?;
        self.install(head, chunks).await
    }
}

fn not_a_member(from: u64) -> String {
    format!("member {from} was removed from the cluster")
}

impl Calls {
    fn take(&self, peer: MemberId, message: &Bytes) -> Result<(u64, Bytes), String> {
        Envelope::take(message, self.0.cluster, peer.0, self.0.me().0).map_err(|err| err.to_string())
    }

    /// Since which committed membership `from` is not a member any more. One that joined after it has a higher id than
    /// its index ([`Shared::admit`]), and is let through: this member has not heard of it yet. So is the leader this
    /// member follows: one that removes itself still sees that through and hands over.
    fn removed_by(&self, from: u64) -> Option<u64> {
        self.0.metrics(|metrics| {
            let committed = &metrics.committed_membership_config;
            let index = committed.log_id().as_ref()?.index;
            let is_known =
                committed.get_node(&from).is_some() || metrics.membership_config.get_node(&from).is_some();
            let is_followed = metrics.vote.committed && metrics.vote.leader_id.node_id == from;
            (from <= index && !is_known && !is_followed).then_some(index)
        })
    }

    async fn append(&self, from: u64, body: &Bytes) -> Result<Bytes, String> {
        let mut request = parse_append(body).map_err(|err| err.to_string())?;
        if arca_danger::is(Bug::ConflictingEntriesKept)
            && let Some(last) = self.0.log.state().last.map(log_id)
            && request.prev_log_id.is_some_and(|prev| prev.index < last.index)
        {
            request.entries.retain(|entry| entry.log_id.index > last.index);
            request.prev_log_id = Some(last);
        }
        check_speaker(from, &request.vote).map_err(|err| err.to_string())?;
        if !request.entries.is_empty() && self.0.gate.is_disk_full.get() {
            return Err("the disk of this member is full".to_owned());
        }
        let response = self.0.raft.append_entries(request).await.map_err(|err| err.to_string())?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            self.0.status.hear();
        }
        reply(&AppendReply::from(response))
    }

    async fn vote(&self, from: u64, call: Call, body: &[u8]) -> Result<Bytes, String> {
        let VoteCall { vote, mut last_log_id, is_transfer } = parse(body).map_err(|err| err.to_string())?;
        check_speaker(from, &vote).map_err(|err| err.to_string())?;
        if arca_danger::is(Bug::VoteIgnoresLog) {
            last_log_id = Some(LogId::new(vote.leader_id.to_committed(), u64::MAX));
        }
        if self.0.gate.is_fresh.get() && !is_transfer && !arca_danger::is(Bug::FreshMemberVotes) {
            return Err("this member has just started and may have granted a lease before".to_owned());
        }
        if self.0.gate.is_stalled.get() {
            return Err("the disk of this member hangs".to_owned());
        }
        let request = VoteRequest { vote, last_log_id, leadership_transfer: is_transfer };
        let response = match call {
            Call::PreVote => self.0.raft.pre_vote(request).await,
            _ => self.0.raft.vote(request).await,
        };
        let response = response.map_err(|err| err.to_string())?;
        let (vote, is_granted) = (response.vote, response.vote_granted);
        reply(&VoteReply::Decided { vote, is_granted, last_log_id: response.last_log_id })
    }

    async fn transfer(&self, from: u64, body: &[u8]) -> Result<Bytes, String> {
        let TransferCall { from_leader, to, last_log_id } = parse(body).map_err(|err| err.to_string())?;
        check_speaker(from, &from_leader).map_err(|err| err.to_string())?;
        let gate = &self.0.gate;
        if to == self.0.me().0 && (gate.is_disk_full.get() || gate.is_stalled.get()) {
            return Err("the disk of this member is full or hangs: it cannot lead".to_owned());
        }
        let request = TransferLeaderRequest::new(from_leader, to, last_log_id);
        let response = self.0.raft.handle_transfer_leader(request).await.map_err(|err| err.to_string())?;
        reply(&match response {
            Ok(()) => TransferReply::Accepted,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                TransferReply::VoteChanged { expected, actual }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                TransferReply::LogNotFlushed { expected, actual }
            }
        })
    }

    async fn read_index(&self) -> Result<Bytes, String> {
        let index = barrier::confirm(&self.0).await.map_err(|err| err.to_string())?;
        reply(&index.map_or(ReadReply::NotLeader, ReadReply::Index))
    }

    async fn install(&self, head: SnapshotHead, chunks: SnapshotStream) -> Result<Bytes, String> {
        let _one =
            self.0.receiving.try_lock().map_err(|_| "another snapshot is being received".to_owned())?;
        if let Some(newer) = self.newer_vote(&head.vote) {
            return reply(&SnapshotReply { vote: newer });
        }
        self.check_room()?;
        self.check_head(&head)?;
        let staged = self.take_in(&head, chunks).await?;
        let snapshot = Snapshot { meta: head.meta(), snapshot: SnapshotData::staged(staged) };
        let response =
            self.0.raft.install_full_snapshot(head.vote, snapshot).await.map_err(|err| err.to_string())?;
        reply(&SnapshotReply { vote: response.vote })
    }

    fn newer_vote(&self, vote: &Vote) -> Option<Vote> {
        let mine = self.0.metrics(|metrics| metrics.vote);
        (mine > *vote).then_some(mine)
    }

    /// A store that cannot be filled for want of room would end this member; the sender tries again later.
    fn check_room(&self) -> Result<(), String> {
        let free = self.0.log.free_space();
        // Not to know is no reason to stay behind.
        let has_room = free.map_or(true, |free| free >= self.0.config.low_water_bytes);
        if has_room && !self.0.gate.is_disk_full.get() {
            Ok(())
        } else {
            Err("the disk of this member is full".to_owned())
        }
    }

    /// What openraft takes for granted, and panics without.
    fn check_head(&self, head: &SnapshotHead) -> Result<(), String> {
        let last = head.last_log_id.ok_or_else(|| "an empty snapshot".to_owned())?;
        if last.leader_id > head.vote.leader_id {
            return Err("a snapshot newer than its sender's term".to_owned());
        }
        let committed = self.0.metrics(|metrics| metrics.local_committed);
        if committed.is_some_and(|committed| last > committed && last.index <= committed.index) {
            return Err("a snapshot that contradicts what is committed here".to_owned());
        }
        Ok(())
    }

    async fn take_in(&self, head: &SnapshotHead, mut chunks: SnapshotStream) -> Result<Staged, String> {
        let mut receiver = self.0.state.receive().map_err(|err| err.to_string())?;
        let mut is_checked = false;
        loop {
            let chunk = timeout(CHUNK_TIMEOUT, chunks.next()).await;
            let Some(chunk) = chunk.map_err(|_| "the snapshot's sender fell silent".to_owned())? else {
                break;
            };
            self.check_room()?;
            receiver.push(&chunk?).map_err(|err| err.to_string())?;
            if !is_checked {
                is_checked = self.check_stream(head, &receiver)?;
            }
        }
        if !is_checked {
            return Err("the snapshot ends before its header".to_owned());
        }
        self.finish(receiver).await
    }

    /// Whether the stream is the state that the header promised; false while that cannot be told yet.
    fn check_stream(&self, head: &SnapshotHead, receiver: &Receiver) -> Result<bool, String> {
        let Some(header) = receiver.header() else { return Ok(false) };
        if header.cluster != self.0.cluster.0 {
            return Err("a snapshot of another cluster".to_owned());
        }
        if snapshot_meta(&header.meta).map_err(|err| err.to_string())? != head.meta() {
            return Err("a snapshot of another state than its header says".to_owned());
        }
        Ok(true)
    }

    async fn finish(&self, receiver: Receiver) -> Result<Staged, String> {
        let staged = match self.0.config.threads {
            Threads::None => receiver.finish(),
            Threads::Spawn => {
                let finished = tokio::task::spawn_blocking(move || receiver.finish()).await;
                finished.map_err(|err| err.to_string())?
            }
        };
        staged.map_err(|err| err.to_string())
    }
}

fn reply<T: Serialize>(body: &T) -> Result<Bytes, String> {
    postcard::to_stdvec(body).map(Bytes::from).map_err(|err| err.to_string())
}
