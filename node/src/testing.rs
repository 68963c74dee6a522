//! A node inside a test: opened from configuration text, asked as over HTTP, without sockets for its API.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arca_api::{Api, Listener, RawBody, RawRequest};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::node::Node;
use crate::system::NodeSystem;
use crate::world::SystemClock;

/// A port that is free now.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

/// See the module's header.
pub(crate) struct Rig {
    pub(crate) node: Arc<Node>,
    api: Arc<Api>,
    stop: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Rig {
    /// A node with this storage block.
    pub(crate) fn open(storage: &str) -> Self {
        let port = free_port();
        let text = format!(
            "{storage}\nlistener \"tcp\" {{\n  address = \"127.0.0.1:0\"\n  cluster_address = \"127.0.0.1:{port}\"\n  \
             tls_disable = true\n}}\ncluster_addr = \"https://127.0.0.1:{port}\"\n"
        );
        let (config, warnings) = config::parse(&[(Path::new("test.hcl"), &text)], None).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let clock = Arc::new(SystemClock);
        let node = Node::open(config, clock.clone(), arca_engines::all()).unwrap();
        let system = Arc::new(NodeSystem(Arc::clone(&node)));
        let api = Arc::new(Api { system, request_ids: Arc::clone(&node.request_ids), clock });
        Self { node, api, stop: CancellationToken::new() }
    }

    /// Puts the API on a port of its own; returns its URL.
    pub(crate) async fn listen(&self) -> String {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let listener = Listener { socket, tls: None, options: Arc::default() };
        tokio::spawn(listener.serve(Arc::clone(&self.api), self.stop.clone(), Duration::ZERO));
        url
    }

    /// One request; the status, and the body: JSON, or its text if it is something else.
    pub(crate) async fn ask(&self, method: Method, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let mut headers = HeaderMap::new();
        if !token.is_empty() {
            headers.insert("x-vault-token", HeaderValue::from_str(token).unwrap());
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = RawRequest {
            method,
            path: format!("/v1/{path}"),
            query: query.to_owned(),
            headers,
            body: RawBody::Bytes(if body.is_null() { Vec::new() } else { body.to_string().into() }.into()),
            remote: ([127, 0, 0, 1], 1).into(),
            client_certificates: Arc::new([]),
            forwarded_from: None,
            allows_stale: false,
            unauthenticated_metrics: false,
            closed: arca_api::ClosedPaths::NONE,
        };
        let (parts, body) = self.api.respond(request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        (parts.status.as_u16(), serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
    }

    /// Initializes, unseals with the one share and waits until the node is active; returns the root token.
    pub(crate) async fn bring_up(&self) -> String {
        self.bring_up_with_share().await.0
    }

    /// As [`Self::bring_up`]; also returns the share.
    pub(crate) async fn bring_up_with_share(&self) -> (String, Value) {
        let body = json!({"secret_shares": 1, "secret_threshold": 1});
        let (status, made) = self.ask(Method::PUT, "sys/init", "", &body).await;
        assert_eq!(status, 200, "{made}");
        let share = json!({"key": made["keys"][0]});
        let (status, said) = self.ask(Method::PUT, "sys/unseal", "", &share).await;
        assert_eq!(status, 200, "{said}");
        while !self.node.is_active() {
            tokio::task::yield_now().await;
        }
        (made["root_token"].as_str().unwrap().to_owned(), share)
    }
}
