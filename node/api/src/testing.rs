//! A node for this crate's tests: it answers as told and notes what it was asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arca_kernel::Kernel;
use arca_kernel::testing::{SeededEntropy, TestClock};
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::handler::ResponseBody;
use crate::system::{Carried, CarriedBack, CarryFailure};
use crate::{
    Api, Health, InitRequest, InitResponse, JoinRequest, LeaderStatus, RawBody, RawRequest, RequestIds,
    SealStatus, System, SystemError, UnsealRequest,
};

/// See the file's header.
#[derive(Default)]
pub(crate) struct FakeSystem {
    pub(crate) health: Health,
    pub(crate) kernel: Option<Arc<Kernel>>,
    pub(crate) redirect_address: Option<String>,
    pub(crate) has_metrics: bool,
    pub(crate) notes: Mutex<Vec<String>>,
    /// While it is set nothing can be carried anywhere.
    pub(crate) is_alone: AtomicBool,
    /// Where `init` waits, if it is to wait.
    pub(crate) gate: Option<Gate>,
}

/// A request stops here until it is let through.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) reached: Notify,
    pub(crate) opened: Notify,
    pub(crate) left: Notify,
}

impl FakeSystem {
    fn note(&self, text: String) {
        self.notes.lock().push(text);
    }

    /// What was asked since the last call.
    pub(crate) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock())
    }
}

#[async_trait]
impl System for FakeSystem {
    fn kernel(&self) -> Option<Arc<Kernel>> {
        self.kernel.clone()
    }

    fn is_active(&self) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.is_active())
    }

    fn seal_status(&self) -> SealStatus {
        SealStatus::default()
    }

    fn health(&self) -> Health {
        self.health.clone()
    }

    fn leader(&self) -> LeaderStatus {
        LeaderStatus::default()
    }

    async fn init(&self, request: InitRequest) -> Result<InitResponse, SystemError> {
        self.note(format!("init {:?} of {:?}", request.secret_threshold, request.secret_shares));
        if let Some(gate) = &self.gate {
            gate.reached.notify_one();
            gate.opened.notified().await;
            gate.left.notify_one();
        }
        Ok(InitResponse { shares: vec![Zeroizing::new(vec![1, 2])], root_token: Zeroizing::default() })
    }

    async fn unseal(&self, request: UnsealRequest) -> Result<SealStatus, SystemError> {
        self.note(format!("unseal {:?}, reset {}", request.key.as_str(), request.is_reset));
        Ok(SealStatus::default())
    }

    async fn join(&self, request: JoinRequest) -> Result<bool, SystemError> {
        self.note(format!("join {:?}, retry {}", request.leader_api_addr, request.retry));
        Ok(true)
    }

    fn is_behind(&self) -> bool {
        false
    }

    fn seal_facts(&self) -> Result<Value, SystemError> {
        Err(SystemError::Invalid("this node has no seal".to_owned()))
    }

    async fn join_challenge(&self, _request: Value) -> Result<Value, SystemError> {
        Ok(json!({}))
    }

    async fn join_answer(&self, request: Value) -> Result<Value, SystemError> {
        Ok(request)
    }

    async fn carry(&self, request: Carried, _patience: Duration) -> Result<CarriedBack, CarryFailure> {
        self.note(format!("carry {} {}", request.method, request.target));
        if self.is_alone.load(Ordering::Relaxed) {
            return Err(CarryFailure::Undelivered);
        }
        Ok(CarriedBack { status: 200, headers: Vec::new(), body: Bytes::from_static(b"{}") })
    }

    fn metrics(&self, is_prometheus: bool) -> Option<String> {
        self.has_metrics.then(|| if is_prometheus { "# all\n".to_owned() } else { "{}".to_owned() })
    }

    fn redirect_address(&self) -> Option<String> {
        self.redirect_address.clone()
    }
}

/// The API of `system`.
pub(crate) fn api(system: Arc<dyn System>) -> Arc<Api> {
    Arc::new(Api {
        system,
        request_ids: Arc::new(RequestIds::new(&SeededEntropy::default()).unwrap()),
        clock: Arc::new(TestClock::default()),
    })
}

/// A request as a listener would hand it over.
pub(crate) fn request(method: &str, target: &str, headers: &[(&'static str, &str)]) -> RawRequest {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    RawRequest {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: map,
        body: RawBody::Bytes(Bytes::new()),
        remote: SocketAddr::from(([127, 0, 0, 1], 9)),
        client_certificates: Arc::new([]),
        forwarded_from: None,
        allows_stale: false,
        unauthenticated_metrics: false,
        closed: crate::ClosedPaths::NONE,
    }
}

/// The whole body as text.
pub(crate) async fn text(response: Response<ResponseBody>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}
