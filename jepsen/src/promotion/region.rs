//! One region: a cluster under test, and what its operator orders. Orders are given again until the cluster's status says that
//! it is so, since whoever takes them may be killed in the middle.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use arca_client::Client;
use arca_harness::HarnessError;
use arca_harness::regions::orders;
use serde_json::{Map, Value, json};

use crate::cluster::Cluster;

type Result<T> = std::result::Result<T, HarnessError>;

/// For a role to change, two states to be the same, or all nodes to be back.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Between two orders, if the first was refused.
const ORDER_INTERVAL: Duration = Duration::from_millis(300);
/// One order: a planned promotion waits for the rest of what the other region wrote.
const ORDER_TIMEOUT: Duration = Duration::from_secs(40);
/// One look at a status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// What `sys/replication/dr/status` answers.
pub(super) type Status = Map<String, Value>;

/// A text of a status; empty if there is none.
pub(super) fn text<'a>(status: &'a Status, name: &str) -> &'a str {
    status.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A number of a status, if there is one.
pub(super) fn number(status: &Status, name: &str) -> Option<u64> {
    status.get(name)?.as_u64()
}

/// Whether it is a primary that takes writes.
pub(super) fn is_primary(status: &Status) -> bool {
    text(status, "mode") == "primary" && text(status, "state") == "running"
}

/// Whether it is a secondary that has everything its primary had when it was last heard.
pub(super) fn has_all(status: &Status) -> bool {
    text(status, "state") == "stream-wals" && number(status, "lag_entries") == Some(0)
}

/// See the module's header.
pub(super) struct Region {
    /// How it is called in what is printed.
    pub(super) name: &'static str,
    /// Its nodes.
    pub(super) cluster: Cluster,
}

impl Region {
    /// A client of the active node.
    pub(super) async fn active(&self) -> Result<Client> {
        self.active_with(STATUS_TIMEOUT).await
    }

    async fn active_with(&self, timeout: Duration) -> Result<Client> {
        let active = self.cluster.active().await;
        let active = active.ok_or_else(|| HarnessError(format!("{} has no active node", self.name)))?;
        self.cluster.client_with(active, timeout)
    }

    /// Its status, as the active node sees it.
    pub(super) async fn status(&self) -> Result<Status> {
        orders::status(&self.active().await?).await
    }

    /// Waits until the status says so; answers how long that took.
    pub(super) async fn until(&self, what: &str, check: impl Fn(&Status) -> bool) -> Result<Duration> {
        let began = Instant::now();
        let mut last = Status::new();
        while began.elapsed() < LIMIT {
            if let Ok(status) = self.status().await {
                if check(&status) {
                    return Ok(began.elapsed());
                }
                last = status;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let (name, last) = (self.name, Value::Object(last));
        Err(HarnessError(format!("{name}: waited {} s in vain for {what}; status: {last}", LIMIT.as_secs())))
    }

    /// Gives an order until the status says that it is done. `body` is made anew each time. Answers what was said against it
    /// on the way.
    pub(super) async fn order(
        &self,
        path: &str,
        mut body: impl AsyncFnMut() -> Result<Value>,
        is_done: impl Fn(&Status) -> bool,
    ) -> Result<BTreeSet<String>> {
        let began = Instant::now();
        let mut refusals = BTreeSet::new();
        while began.elapsed() < LIMIT {
            if self.status().await.is_ok_and(|status| is_done(&status)) {
                return Ok(refusals);
            }
            let given = async {
                let body = body().await?;
                orders::order(&self.active_with(ORDER_TIMEOUT).await?, path, &body).await
            };
            if let Err(err) = given.await {
                refusals.insert(err.0);
                tokio::time::sleep(ORDER_INTERVAL).await;
            }
        }
        let refusals: Vec<String> = refusals.into_iter().collect();
        let (name, all) = (self.name, refusals.join("; "));
        Err(HarnessError(format!("{name}: {path} in vain for {} s: {all}", LIMIT.as_secs())))
    }

    /// Has it follow `primary` by a new token.
    pub(super) async fn follow(&self, primary: &Self, id: &str, operator: &str) -> Result<()> {
        let body = async || {
            let token = orders::secondary_token(&primary.active().await?, id).await?;
            Ok(json!({ "token": token, "dr_operation_token": operator }))
        };
        let knows = |status: &Status| !text(status, "primary_cluster_addr").is_empty();
        self.order("secondary/update-primary", body, knows).await.map(drop)
    }

    /// Kills every node.
    pub(super) async fn kill(&self) -> Result<()> {
        for node in &self.cluster.nodes {
            node.kill().await?;
        }
        Ok(())
    }

    /// Ends what its network suffers from, and brings every node back.
    pub(super) async fn restore(&self) -> Result<()> {
        self.cluster.network.heal();
        for node in &self.cluster.nodes {
            node.start()?;
        }
        for at in 0..self.cluster.nodes.len() {
            self.cluster.restart(at, LIMIT).await?;
        }
        self.cluster.wait_for_voters(self.cluster.nodes.len(), LIMIT).await
    }

    /// Writes until one write is acknowledged.
    pub(super) async fn first_write(&self) -> Result<()> {
        let body = json!({ "data": { "from": self.name } });
        let written = self.cluster.wait("a write to be acknowledged", LIMIT, async || {
            self.active().await.ok()?.write("secret/data/harness/first", &body).await.ok()
        });
        written.await.map(drop)
    }
}
