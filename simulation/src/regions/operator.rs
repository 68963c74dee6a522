//! What an operator orders of a cluster: by its API, again and again until it is so, whoever is active meanwhile.

use std::sync::Arc;
use std::time::Duration;

use arca_client::{Client, Secret};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::run::Failure;
use crate::trace::Trace;

/// Pause before an order is given again.
const PAUSE: Duration = Duration::from_millis(300);
/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(25);
/// How long it may take until something is so.
const PATIENCE: Duration = Duration::from_secs(400);
/// Where all of this is.
const DR: &str = "sys/replication/dr";

/// The operator of one cluster. Clones are the same one.
#[derive(Clone)]
pub(super) struct Operator {
    pub(super) region: String,
    pub(super) clients: Vec<Client>,
    trace: Trace,
    turn: Arc<Mutex<usize>>,
}

impl Operator {
    pub(super) fn new(region: &str, clients: Vec<Client>, trace: &Trace) -> Self {
        Self { region: region.to_owned(), clients, trace: trace.clone(), turn: Arc::default() }
    }

    fn client(&self) -> Option<&Client> {
        let mut turn = self.turn.lock();
        *turn += 1;
        self.clients.get(*turn % self.clients.len().max(1))
    }

    /// Orders once.
    pub(super) async fn order(&self, path: &str, body: &Value) -> Result<Option<Secret>, String> {
        let client = self.client().ok_or("no nodes")?;
        let path = format!("{DR}/{path}");
        let answer = timeout(LIMIT, client.write(&path, body)).await;
        let answer =
            answer.map_err(|_| "no answer".to_owned()).and_then(|done| done.map_err(|err| err.to_string()));
        let said = match &answer {
            Ok(_) => "done".to_owned(),
            Err(err) => err.clone(),
        };
        self.trace.say(format_args!("{}: {path}: {said}", self.region));
        answer
    }

    /// What the cluster says of itself, by a node that is asked.
    pub(super) async fn status(&self) -> Value {
        let Some(client) = self.client() else { return Value::Null };
        // Whoever it is: a cluster that became a copy of another knows other tokens than before.
        let nobody = client.with_token(None);
        let found = timeout(LIMIT, nobody.read(&format!("{DR}/status"))).await;
        let data = found.ok().and_then(Result::ok).flatten().and_then(|secret| secret.data);
        data.map_or(Value::Null, Value::Object)
    }

    /// The id of a mount, as it is part of the names of what is stored there.
    pub(super) async fn mount_uuid(&self, path: &str) -> Option<String> {
        let found = timeout(LIMIT, self.client()?.read("sys/mounts")).await.ok()?.ok()??;
        Some(found.data?.get(path)?.get("uuid")?.as_str()?.to_owned())
    }

    /// What the cluster is, by its own word.
    pub(super) async fn mode(&self) -> String {
        self.status().await.get("mode").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Orders until the mode is `wanted`.
    pub(super) async fn order_until(&self, wanted: &str, path: &str, body: &Value) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::new();
        while self.mode().await != wanted {
            if Instant::now() >= deadline {
                let text = format!("{} is not {wanted} after {path}: {last}", self.region);
                return Err(Failure::Stuck(text));
            }
            match self.order(path, body).await {
                Ok(_) => {}
                Err(err) => {
                    last = err;
                    sleep(PAUSE).await;
                }
            }
        }
        Ok(())
    }

    /// Waits until a node says what is wanted.
    pub(super) async fn wait(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if is_so(&status) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let text = format!("{} waits for {what}: {status}", self.region);
                return Err(Failure::Stuck(text));
            }
            sleep(PAUSE).await;
        }
    }

    /// Waits until the cluster, a secondary, follows its primary by the stream.
    pub(super) async fn wait_for_stream(&self) -> Result<(), Failure> {
        self.wait("the stream", |status| {
            status.get("mode").is_some_and(|mode| mode == "secondary")
                && status.get("state").is_some_and(|state| state == "stream-wals")
                && status.get("connection_state").is_some_and(|state| state == "ready")
        })
        .await
    }

    /// A token for the other cluster, to follow this one.
    async fn activation_token(&self, id: &str) -> Option<String> {
        let made = self.order("primary/secondary-token", &json!({ "id": id })).await.ok()??;
        Some(made.wrap_info?.token.expose().to_owned())
    }

    /// Has `secondary`, which is nothing to anybody, become a copy of this cluster.
    /// `before` has the token that is good there until then.
    pub(super) async fn copy_to(&self, before: &Self, secondary: &Self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        // Who does not answer may be one by now.
        while ["", "disabled"].contains(&secondary.mode().await.as_str()) {
            if Instant::now() >= deadline {
                return Err(Failure::Stuck(format!("{} is no secondary", secondary.region)));
            }
            match self.activation_token(&secondary.region).await {
                Some(token) => drop(before.order("secondary/enable", &json!({ "token": token })).await),
                None => sleep(PAUSE).await,
            }
        }
        secondary.wait_for_stream().await
    }

    /// Has `secondary`, which follows nobody or another, follow this cluster by comparison.
    pub(super) async fn follow_by(&self, secondary: &Self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if Instant::now() >= deadline {
                return Err(Failure::Stuck(format!("{} does not follow", secondary.region)));
            }
            let Some(token) = self.activation_token(&secondary.region).await else {
                sleep(PAUSE).await;
                continue;
            };
            if secondary.order("secondary/update-primary", &json!({ "token": token })).await.is_ok() {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }
}
