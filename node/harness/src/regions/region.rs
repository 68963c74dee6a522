//! One region: a cluster, and what its operator asks of it about replication.

use std::path::Path;
use std::time::{Duration, Instant};

use arca_client::{Client, Token};
use serde_json::{Map, Value};

use super::orders::{self, DR};
use crate::{Cluster, ClusterOptions, HarnessError};

type Result<T> = std::result::Result<T, HarnessError>;

/// For a role to change, a copy to be whole, or two states to be the same.
const LIMIT: Duration = Duration::from_secs(120);

/// See the file's header.
#[derive(Debug)]
pub struct Region {
    /// How it is called in what is printed.
    pub name: &'static str,
    /// Its nodes.
    pub cluster: Cluster,
}

impl Region {
    /// Three nodes below `dir`, unsealed.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn up(name: &'static str, binary: &Path, dir: &Path) -> Result<Self> {
        Self::of_nodes(3, name, binary, dir).await
    }

    /// As [`Self::up`], of so many nodes.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn of_nodes(nodes: usize, name: &'static str, binary: &Path, dir: &Path) -> Result<Self> {
        let options = ClusterOptions { is_tls: false, nodes, ..ClusterOptions::new(binary, dir.join(name)) };
        Ok(Self { name, cluster: Cluster::up(options).await? })
    }

    /// Cluster ports of its nodes.
    #[must_use]
    pub fn cluster_ports(&self) -> Vec<u16> {
        self.cluster.nodes.iter().map(|node| node.cluster_port).collect()
    }

    /// A client of the active node.
    ///
    /// # Errors
    /// When there is none.
    pub async fn active(&self) -> Result<Client> {
        self.cluster.client(self.cluster.active().await?)
    }

    /// One client for each node, beginning with the `turn`-th.
    ///
    /// # Errors
    /// Never with the nodes there are.
    pub fn clients(&self, turn: usize) -> Result<Vec<Client>> {
        let count = self.cluster.nodes.len();
        (0..count).map(|at| self.cluster.client((at + turn) % count)).collect()
    }

    /// Orders something below `sys/replication/dr/`.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn order(&self, path: &str, body: &Value) -> Result<Option<arca_client::Secret>> {
        self.order_of(DR, path, body).await
    }

    /// Orders something below the paths of a kind.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn order_of(
        &self,
        kind: &str,
        path: &str,
        body: &Value,
    ) -> Result<Option<arca_client::Secret>> {
        let done = orders::order_of(&self.active().await?, kind, path, body).await;
        done.map_err(|err| HarnessError::new(self.name, err.0))
    }

    /// The fields of `sys/replication/dr/status`, as the active node sees them.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> Result<Map<String, Value>> {
        self.status_of(DR).await
    }

    /// The same, of a kind.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status_of(&self, kind: &str) -> Result<Map<String, Value>> {
        orders::status_of(&self.active().await?, kind).await
    }

    /// Waits until the status says so.
    ///
    /// # Errors
    /// When it does not in time: with the last one there was.
    pub async fn until(&self, what: &str, check: impl Fn(&Map<String, Value>) -> bool) -> Result<Duration> {
        self.until_of(DR, what, check).await
    }

    /// The same, of a kind.
    ///
    /// # Errors
    /// When it does not in time: with the last one there was.
    pub async fn until_of(
        &self,
        kind: &str,
        what: &str,
        check: impl Fn(&Map<String, Value>) -> bool,
    ) -> Result<Duration> {
        let began = Instant::now();
        let mut last = Map::new();
        while began.elapsed() < LIMIT {
            if let Ok(status) = self.status_of(kind).await {
                if check(&status) {
                    return Ok(began.elapsed());
                }
                last = status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (name, last) = (self.name, Value::Object(last));
        Err(HarnessError(format!("{name}: waited {} s in vain for {what}; status: {last}", LIMIT.as_secs())))
    }

    /// A token for the other region to follow this one.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn secondary_token(&self, id: &str) -> Result<String> {
        self.secondary_token_of(DR, id).await
    }

    /// The same, of a kind.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn secondary_token_of(&self, kind: &str, id: &str) -> Result<String> {
        orders::secondary_token_of(&self.active().await?, kind, id).await
    }

    /// Makes an operation token out of key shares, on a secondary that answers to no other.
    ///
    /// # Errors
    /// When a share is refused.
    pub async fn operation_token(&self, shares: &[String], threshold: usize) -> Result<String> {
        orders::operation_token(&self.active().await?, shares.iter().take(threshold).map(String::as_str))
            .await
    }

    /// A client of the active node with another token.
    ///
    /// # Errors
    /// When there is no active node.
    pub async fn with_token(&self, token: &str) -> Result<Client> {
        Ok(self.active().await?.with_token(Some(Token::new(token.to_owned()))))
    }
}
