//! Writers that never stop while nodes die: what was acknowledged, what was not, and the longest time without an
//! acknowledgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arca_client::{Client, Error, Request};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::HarnessError;

/// Longest wait for one write: a caller that hears nothing for so long asks again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many versions KV keeps of a key.
const VERSIONS_KEPT: usize = 10;

/// What a writer saw.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many numbers were acknowledged: 1 up to this one.
    pub acknowledged: u64,
    /// Attempts that failed or whose outcome is unknown.
    pub failed: u64,
    /// Longest time between two acknowledgements.
    pub longest_gap: Duration,
}

/// One writer: writes 1, 2, 3, … to its own key, through its own list of nodes, and moves on only when acknowledged.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    task: JoinHandle<Diary>,
    key: String,
}

/// What a writer remembers.
#[derive(Debug, Default)]
struct Diary {
    report: Report,
    /// The last versions acknowledged, with the number written in each.
    versions: Vec<(u64, u64)>,
    /// Versions that did not go up: somebody's write was overwritten as if it had not been.
    disorder: Option<String>,
}

impl Diary {
    fn note(&mut self, version: u64) {
        let number = self.report.acknowledged;
        if let Some((last, _)) = self.versions.last()
            && version <= *last
        {
            self.disorder = Some(format!("number {number} became version {version}, after version {last}"));
        }
        self.versions.push((version, number));
        if self.versions.len() > VERSIONS_KEPT {
            self.versions.remove(0);
        }
    }
}

impl Writer {
    /// Starts writing to `secret/data/{key}` through `clients` in turn, whenever one fails.
    #[must_use]
    pub fn start(key: &str, clients: Vec<Client>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (stopped, count, path) =
            (Arc::clone(&stop), Arc::clone(&acknowledged), format!("secret/data/{key}"));
        let task = tokio::spawn(async move {
            let mut diary = Diary::default();
            let mut last = Instant::now();
            let mut turn = 0_usize;
            while !stopped.load(Ordering::Relaxed) {
                let Some(client) = clients.get(turn % clients.len()) else { break };
                let number = diary.report.acknowledged + 1;
                let body = json!({"data": {"number": number}});
                match tokio::time::timeout(WRITE_TIMEOUT, client.write(&path, &body)).await {
                    Ok(Ok(answer)) => {
                        let version = answer.and_then(|answer| answer.field("version")?.as_u64());
                        diary.report.acknowledged = number;
                        diary.note(version.unwrap_or_default());
                        diary.report.longest_gap = diary.report.longest_gap.max(last.elapsed());
                        last = Instant::now();
                        count.store(number, Ordering::Relaxed);
                    }
                    Ok(Err(_)) | Err(_) => {
                        diary.report.failed += 1;
                        turn += 1;
                        // A refused connection answers at once: do not spin.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
            diary
        });
        Self { stop, acknowledged, task, key: key.to_owned() }
    }

    /// How many numbers were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `more` further numbers are acknowledged.
    ///
    /// # Errors
    /// When they are not within `limit`.
    pub async fn progress(&self, more: u64, limit: Duration) -> Result<(), HarnessError> {
        let (wanted, deadline) = (self.acknowledged() + more, Instant::now() + limit);
        while self.acknowledged() < wanted {
            if Instant::now() >= deadline {
                let (key, at) = (&self.key, self.acknowledged());
                return Err(HarnessError(format!(
                    "{key}: no acknowledged write for {} s, at {at}",
                    limit.as_secs()
                )));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Stops after the write under way, and checks through `client` that nothing acknowledged is lost: neither the last
    /// number nor any version that KV still keeps.
    ///
    /// # Errors
    /// When an acknowledged write is gone.
    pub async fn finish(self, client: &Client) -> Result<Report, HarnessError> {
        self.stop.store(true, Ordering::Relaxed);
        let Diary { report, versions, disorder } =
            self.task.await.map_err(|err| HarnessError::new("a writer", err))?;
        if let Some(disorder) = disorder {
            return Err(HarnessError(format!("LOST at {}: {disorder}", self.key)));
        }
        let read = |err: Error| HarnessError::new("reading back", err);
        let found = read_number(client, &self.key).await.map_err(read)?;
        // One write beyond the last acknowledged may have happened without its answer arriving.
        let known = found.unwrap_or_default();
        if known < report.acknowledged || known > report.acknowledged + 1 {
            return Err(HarnessError(format!(
                "LOST: {} acknowledged up to {}, found {found:?}",
                self.key, report.acknowledged
            )));
        }
        for (version, number) in versions {
            let request =
                Request::get(format!("secret/data/{}", self.key)).query("version", version.to_string());
            let kept =
                client.read_request(request).await.map_err(read)?.and_then(|secret| number_in(&secret));
            // Unacknowledged writes may have pushed the oldest ones out.
            if kept.is_some_and(|kept| kept != number) || (kept.is_none() && number == report.acknowledged) {
                let key = &self.key;
                return Err(HarnessError(format!(
                    "LOST: {key} version {version} was {number}, now {kept:?}"
                )));
            }
        }
        Ok(report)
    }
}

fn number_in(secret: &arca_client::Secret) -> Option<u64> {
    secret.field("data")?.get("number")?.as_u64()
}

/// The number last written to a key.
///
/// # Errors
/// As the client's.
pub async fn read_number(client: &Client, key: &str) -> Result<Option<u64>, Error> {
    let secret = client.read(&format!("secret/data/{key}")).await?;
    Ok(secret.as_ref().and_then(number_in))
}
