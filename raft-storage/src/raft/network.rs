//! openraft's calls, out over the [`Transport`].
//!
//! Appends to one member go one at a time, so that none overtakes another; heartbeats, votes and snapshots have
//! clients of their own and do not wait for them. A call that fails is an error, never an answer: a pre-vote that
//! cannot be delivered is not a vote.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arca_danger::Bug;
use bytes::Bytes;
use futures::future::{Either, select};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::base::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, WatchReceiverOf};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use serde::de::DeserializeOwned;

use super::gate::Gate;
use super::machine::SnapshotData;
use super::shared::{Metrics, Raft};
use super::silence::Silences;
use super::wire::{
    AppendReply, Envelope, SnapshotHead, SnapshotReply, TransferCall, TransferReply, VoteCall, VoteReply,
    parse, put_append,
};
use crate::log::ClusterId;
use crate::types::{TypeConfig, Vote};
use crate::{Call, Member, MemberId, Transport, TransportError};

type RpcError = RPCError<TypeConfig>;

/// Makes clients of members.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) gate: Arc<Gate>,
    pub(super) cluster: ClusterId,
    pub(super) me: MemberId,
    /// For one AppendEntries. openraft's own limit, a heartbeat, is shorter than a slow sync.
    pub(super) append_timeout: Duration,
    pub(super) addresses: Addresses,
    pub(super) silences: Silences,
}

/// Where members are now. openraft keeps a client for as long as its target stays a member, with the record it was made
/// for: one that moved would be called at its old address until another leader is elected.
#[derive(Clone, Default)]
pub(super) struct Addresses(Arc<OnceLock<WatchReceiverOf<TypeConfig, Metrics>>>);

impl Addresses {
    /// Looks them up in openraft's figures from now on.
    pub(super) fn follow(&self, raft: &Raft) {
        // A second call has nothing to add.
        let _ = self.0.set(raft.metrics());
    }

    fn current(&self, id: u64) -> Option<Member> {
        self.0.get()?.borrow_watched().membership_config.get_node(&id).cloned()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("me", &self.me).finish_non_exhaustive()
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        Peer { network: self.clone(), id: target, member: node.clone() }
    }
}

/// A client of one member.
#[derive(Debug)]
pub(super) struct Peer {
    network: Network,
    id: u64,
    member: Member,
}

impl Peer {
    /// The member's newest record; the one given where it is not a member any more.
    fn member(&self) -> Member {
        self.network.addresses.current(self.id).unwrap_or_else(|| self.member.clone())
    }

    fn envelope(&self) -> Envelope {
        Envelope { cluster: self.network.cluster, from: self.network.me.0, to: self.id }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        call: Call,
        payload: Result<Bytes, postcard::Error>,
        timeout: Duration,
    ) -> Result<T, RpcError> {
        let payload = payload.map_err(|err| NetworkError::new(&err))?;
        let member = self.member();
        let reply = self.network.transport.call(&member, call, payload, timeout).await;
        self.network.silences.heard(&member, &reply);
        let reply = reply.map_err(|err| self.failed(call, timeout, err))?;
        parse(&reply).map_err(|err| Unreachable::new(&err).into())
    }

    fn failed(&self, call: Call, timeout: Duration, err: TransportError) -> RpcError {
        match err {
            TransportError::Timeout => RPCError::Timeout(openraft::errors::Timeout {
                action: match call {
                    Call::Append => RPCTypes::AppendEntries,
                    Call::PreVote | Call::Vote => RPCTypes::Vote,
                    Call::ReadIndex | Call::TransferLeader => RPCTypes::TransferLeader,
                },
                id: self.network.me.0,
                target: self.id,
                timeout,
            }),
            TransportError::Refused(_) | TransportError::Unreachable(_) => Unreachable::new(&err).into(),
        }
    }

    async fn ask_for_vote(
        &self,
        call: Call,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let VoteRequest { vote, last_log_id, leadership_transfer } = request;
        let body = VoteCall { vote, last_log_id, is_transfer: leadership_transfer };
        let reply = self.call(call, self.envelope().seal(&body), option.hard_ttl()).await;
        if arca_danger::is(Bug::SilenceCountsAsVote) && matches!(reply, Err(RPCError::Timeout(_))) {
            return Ok(VoteResponse::new(vote, last_log_id, true));
        }
        match reply? {
            VoteReply::Decided { vote, is_granted, last_log_id } => {
                Ok(VoteResponse::new(vote, last_log_id, is_granted))
            }
            VoteReply::Removed { membership_index } => {
                self.network.gate.removed_at(membership_index);
                Err(Unreachable::from_string("this member was removed from the cluster").into())
            }
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        timeout: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, RpcError> {
        let head = SnapshotHead {
            vote,
            last_log_id: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership,
        };
        let header = self.envelope().seal(&head).map_err(|err| NetworkError::new(&err))?;
        let chunks = snapshot
            .snapshot
            .into_stream()
            .ok_or_else(|| NetworkError::from_string("a received snapshot cannot be sent on"))?;
        let reply = self.network.transport.send_snapshot(&self.member(), header, chunks, timeout).await;
        let reply = reply.map_err(|err| self.failed(Call::Append, timeout, err))?;
        let reply: SnapshotReply = parse(&reply).map_err(|err| Unreachable::new(&err))?;
        Ok(reply.into())
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        // Before it is sent: a read that starts after another member has shown it must find it here too.
        self.network.gate.tell_commit(request.leader_commit.as_ref().map_or(0, |log_id| log_id.index));
        let payload = put_append(self.envelope().open(), request);
        let reply = self.call::<AppendReply>(Call::Append, payload, self.network.append_timeout).await;
        if arca_danger::is(Bug::SilenceCountsAsAppended) && matches!(reply, Err(RPCError::Timeout(_))) {
            return Ok(AppendEntriesResponse::Success);
        }
        Ok(reply?.into())
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(Call::Vote, request, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(Call::PreVote, request, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sent = pin!(self.send_snapshot(vote, snapshot, option.hard_ttl()));
        match select(pin!(cancel), sent).await {
            Either::Left((closed, _)) => Err(closed.into()),
            Either::Right((result, _)) => result.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let payload = self.envelope().seal(&TransferCall::from(&request));
        Ok(match self.call(Call::TransferLeader, payload, option.hard_ttl()).await? {
            TransferReply::Accepted => Ok(()),
            TransferReply::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected, actual })
            }
            TransferReply::LogNotFlushed { expected, actual } => {
                Err(TransferLeaderError::LogNotFlushed { expected, actual })
            }
        })
    }
}
