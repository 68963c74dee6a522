//! A client: sends requests to any member, and knows of each what an outsider can know.

use std::sync::Arc;
use std::time::Duration;

use arca_api::{ClosedPaths, RawBody, RawRequest};
use arca_jepsen::outcome::Reply;
use arca_raft_storage::MemberId;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use crate::cluster::Shared;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the file's header.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    token: Zeroizing<String>,
    number: u64,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.number)
    }
}

impl Client {
    /// Client `number`, holder of `token`.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, token: &Zeroizing<String>, number: u64) -> Self {
        Self { shared: Arc::clone(shared), token: token.clone(), number }
    }

    /// Asks the member `to`. The body of the answer, if there is one, is JSON.
    pub async fn ask(&self, to: MemberId, method: Method, path: &str, body: &Value) -> (Reply, Value) {
        let net = &self.shared.net;
        sleep(net.latency()).await;
        if !self.shared.directory.is_up(to) {
            return (Reply::NotSent, Value::Null);
        }
        // As with a real listener, what arrived is finished, whether or not anybody waits for it.
        let work = tokio::spawn(self.shared.directory.work_at(to, self.request(method, path, body)));
        let answer = timeout(PATIENCE, work).await.ok().and_then(Result::ok).flatten();
        sleep(net.latency()).await;
        let Some(answer) = answer else {
            self.shared.trace.note(format_args!("answer {} {to} none", self.number), &[]);
            return (Reply::Broken, Value::Null);
        };
        self.shared.trace.note(format_args!("answer {} {to} {}", self.number, answer.status), &answer.body);
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let errors = value.get("errors").and_then(Value::as_array).into_iter().flatten();
        let errors = errors.filter_map(Value::as_str).map(str::to_owned).collect();
        (Reply::Answered { status: answer.status, errors }, value)
    }

    fn request(&self, method: Method, path: &str, body: &Value) -> RawRequest {
        let mut headers = HeaderMap::new();
        if let Ok(token) = HeaderValue::from_str(&self.token) {
            headers.insert("x-vault-token", token);
        }
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        RawRequest {
            method,
            path: format!("/v1/{path}"),
            query: String::new(),
            headers,
            body: RawBody::Bytes(body),
            remote: ([10, 0, 0, 1], 40_000).into(),
            client_certificates: Arc::new([]),
            forwarded_from: None,
            allows_stale: false,
            unauthenticated_metrics: false,
            closed: ClosedPaths::NONE,
        }
    }
}
