//! A server that is treated badly, and what it may do about it.

#![allow(dead_code)] // Each test uses its part.

use std::time::Duration;

use arca_harness::raw::{Answer, Connection};
use arca_harness::{Cluster, ClusterOptions};
use tokio::time::timeout;

/// Longer than any limit of the listener: whoever is not answered by then is forgotten.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// Short limits, so that what runs into them does so soon.
const LIMITS: &str =
    "  max_request_size = 1048576\n  max_request_duration = \"2s\"\n  http_read_header_timeout = \"1s\"\n";
/// Largest body it takes.
pub(crate) const REQUEST_SIZE_MAX: usize = 1 << 20;

/// One node on memory alone, with short limits.
pub(crate) struct Server {
    pub(crate) cluster: Cluster,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts it.
    pub(crate) async fn start(is_tls: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = ClusterOptions {
            nodes: 1,
            shares: 1,
            threshold: 1,
            is_tls,
            storage: "inmem",
            extra_listener: LIMITS.to_owned(),
            ..ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir.path())
        };
        Self { cluster: Cluster::up(options).await.unwrap(), _dir: dir }
    }

    /// A fresh connection.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.cluster.nodes[0].port).await.unwrap()
    }

    /// The head of a request that would be fine, with more headers.
    pub(crate) fn head(&self, line: &str, headers: &str) -> Vec<u8> {
        let token = &self.cluster.root_token;
        format!("{line} HTTP/1.1\r\nHost: arca\r\nX-Vault-Token: {token}\r\n{headers}\r\n").into_bytes()
    }

    /// A whole write that would be fine, but for what is in it.
    pub(crate) fn post(&self, headers: &str, body: &[u8]) -> Vec<u8> {
        let headers = format!("{headers}Content-Length: {}\r\n", body.len());
        [self.head("POST /v1/secret/data/x", &headers), body.to_vec()].concat()
    }

    /// It writes and reads as ever, and nothing was its own fault.
    pub(crate) async fn assert_well(&self) {
        let client = self.cluster.client(0).unwrap();
        let body = serde_json::json!({"data": {"a": 1}});
        let written = timeout(PATIENCE, client.write("secret/data/well", &body));
        written.await.unwrap().unwrap();
        assert!(timeout(PATIENCE, client.read("secret/data/well")).await.unwrap().unwrap().is_some());
        let log = self.cluster.nodes[0].log_text();
        assert!(!log.contains(" ERROR ") && !log.contains("panicked"), "{log}");
    }

    /// Sends `bytes` and returns the answer, if there is one before the connection ends.
    pub(crate) async fn answer(&self, what: &str, bytes: &[u8]) -> (Option<Answer>, Connection) {
        let mut connection = self.connect().await;
        let talk = async {
            // Refused half-way, the rest finds nobody.
            let _ = connection.send(bytes).await;
            connection.answer().await.ok()
        };
        let answer = timeout(PATIENCE, talk).await.unwrap_or_else(|_| panic!("{what}: no answer and no end"));
        (answer, connection)
    }

    /// A refusal with a reason in JSON, and this status.
    pub(crate) async fn check(&self, what: &str, bytes: &[u8], status: u16) {
        let (answer, _) = self.answer(what, bytes).await;
        let answer = answer.unwrap_or_else(|| panic!("{what}: closed without an answer"));
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert!(answer.json()["errors"].is_array(), "{what}: {:?}", answer.text());
    }

    /// No HTTP that can be understood: refused or not, the connection ends.
    pub(crate) async fn check_closed(&self, what: &str, bytes: &[u8]) {
        let (answer, mut connection) = self.answer(what, bytes).await;
        if let Some(answer) = answer {
            assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
            let closed = timeout(PATIENCE, connection.is_closed_by_peer()).await;
            assert_eq!(closed, Ok(true), "{what}: left open after {}", answer.status);
        }
    }
}
