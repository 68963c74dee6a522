//! A simulated node as the API sees it: its kernel, and the way to the active node.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_api::system::{Carried, CarriedBack, CarryFailure};
use arca_api::{
    Api, ClosedPaths, Health, InitRequest, InitResponse, JoinRequest, LeaderStatus, RawBody, RawRequest,
    SealStatus, System, SystemError, UnsealRequest,
};
use arca_kernel::Kernel;
use arca_raft_storage::{MemberId, RaftReplica, Replica as _};
use async_trait::async_trait;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::Instant;

use crate::cluster::Shared;
use crate::net::Lost;

/// Longest wait for the active node's answer, as a node has it.
const CARRY_TIMEOUT: Duration = Duration::from_secs(90);
/// Pause before the same active node is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// See the file's header.
pub struct MemberSystem {
    id: MemberId,
    kernel: Weak<Kernel>,
    replica: Weak<RaftReplica>,
    shared: Arc<Shared>,
}

impl MemberSystem {
    /// The node `id`.
    #[must_use]
    pub fn new(id: MemberId, kernel: &Arc<Kernel>, replica: &Arc<RaftReplica>, shared: &Arc<Shared>) -> Self {
        let (kernel, replica) = (Arc::downgrade(kernel), Arc::downgrade(replica));
        Self { id, kernel, replica, shared: Arc::clone(shared) }
    }

    fn unsupported<T>() -> Result<T, SystemError> {
        Err(SystemError::Invalid("not simulated".to_owned()))
    }
}

/// What is left of an answer on its way.
pub async fn collected(api: Arc<Api>, request: RawRequest) -> Option<CarriedBack> {
    let (parts, body) = api.respond(request).await.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    Some(CarriedBack { status: parts.status.as_u16(), headers: headers.collect(), body })
}

fn arrived(request: &Carried, from: MemberId) -> RawRequest {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    RawRequest {
        method: http::Method::from_bytes(request.method.as_bytes()).unwrap_or_default(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: request.headers.clone(),
        body: RawBody::Bytes(request.body.clone()),
        remote: request.remote,
        client_certificates: Arc::clone(&request.client_certificates),
        forwarded_from: Some(format!("n{from}")),
        allows_stale: false,
        unauthenticated_metrics: false,
        closed: ClosedPaths::NONE,
    }
}

fn was_not_served(answer: &CarriedBack) -> bool {
    answer.headers.iter().any(|(name, _)| name == arca_api::handler::NOT_ACTIVE_HEADER)
}

#[async_trait]
impl System for MemberSystem {
    fn kernel(&self) -> Option<Arc<Kernel>> {
        self.kernel.upgrade()
    }

    fn is_active(&self) -> bool {
        self.kernel.upgrade().is_some_and(|kernel| kernel.is_active())
    }

    fn is_behind(&self) -> bool {
        !self.is_active() && self.replica.upgrade().is_some_and(|replica| replica.is_disk_full())
    }

    fn seal_status(&self) -> SealStatus {
        SealStatus::default()
    }

    fn health(&self) -> Health {
        Health::default()
    }

    fn leader(&self) -> LeaderStatus {
        LeaderStatus::default()
    }

    async fn init(&self, _: InitRequest) -> Result<InitResponse, SystemError> {
        Self::unsupported()
    }

    async fn unseal(&self, _: UnsealRequest) -> Result<SealStatus, SystemError> {
        Self::unsupported()
    }

    async fn join(&self, _: JoinRequest) -> Result<bool, SystemError> {
        Self::unsupported()
    }

    async fn join_challenge(&self, _: Value) -> Result<Value, SystemError> {
        Self::unsupported()
    }

    async fn join_answer(&self, _: Value) -> Result<Value, SystemError> {
        Self::unsupported()
    }

    fn seal_facts(&self) -> Result<Value, SystemError> {
        Self::unsupported()
    }

    async fn carry(&self, request: Carried, patience: Duration) -> Result<CarriedBack, CarryFailure> {
        let deadline = Instant::now() + patience;
        loop {
            let Some(replica) = self.replica.upgrade() else { return Err(CarryFailure::Undelivered) };
            if self.is_active() {
                return Err(CarryFailure::Undelivered);
            }
            let leader = replica.status().leader.map(|leader| leader.id).filter(|leader| *leader != self.id);
            drop(replica);
            if let Some(leader) = leader {
                let work = self.shared.directory.work_at(leader, arrived(&request, self.id));
                match self.shared.net.trip(self.id, leader, CARRY_TIMEOUT, work).await {
                    Ok(answer) if was_not_served(&answer) => {}
                    Ok(answer) => return Ok(answer),
                    Err(Lost::Undelivered) => {}
                    Err(Lost::Unanswered) => return Err(CarryFailure::OutcomeUnknown),
                }
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(CarryFailure::Undelivered);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn metrics(&self, _: bool) -> Option<String> {
        None
    }

    fn redirect_address(&self) -> Option<String> {
        None
    }
}
