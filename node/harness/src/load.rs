//! Writers that never stop while nodes die: what was acknowledged, what was not, and the longest time without an
//! acknowledgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arca_client::{Client, Error};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::HarnessError;

/// Longest wait for one write: a caller that hears nothing for so long asks again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a writer saw.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Numbers acknowledged, in order; the last one at each key must be there, or a later one.
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
    task: JoinHandle<Report>,
    key: String,
}

impl Writer {
    /// Starts writing to `secret/data/{key}` through `clients` in turn.
    #[must_use]
    pub fn start(key: &str, clients: Vec<Client>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, path) = (Arc::clone(&stop), format!("secret/data/{key}"));
        let task = tokio::spawn(async move {
            let mut report = Report::default();
            let mut last = Instant::now();
            let mut turn = 0_usize;
            while !stopped.load(Ordering::Relaxed) {
                let Some(client) = clients.get(turn % clients.len()) else { break };
                let body = json!({"data": {"number": report.acknowledged + 1}});
                match tokio::time::timeout(WRITE_TIMEOUT, client.write(&path, &body)).await {
                    Ok(Ok(_)) => {
                        report.acknowledged += 1;
                        report.longest_gap = report.longest_gap.max(last.elapsed());
                        last = Instant::now();
                    }
                    Ok(Err(_)) | Err(_) => {
                        report.failed += 1;
                        turn += 1;
                        // A refused connection answers at once: do not spin.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
            report
        });
        Self { stop, task, key: key.to_owned() }
    }

    /// Stops after the write under way, and checks through `client` that nothing acknowledged is lost.
    ///
    /// # Errors
    /// When an acknowledged write is gone.
    pub async fn finish(self, client: &Client) -> Result<Report, HarnessError> {
        self.stop.store(true, Ordering::Relaxed);
        let report = self.task.await.map_err(|err| HarnessError::new("a writer", err))?;
        let found =
            read_number(client, &self.key).await.map_err(|err| HarnessError::new("reading back", err))?;
        // One write beyond the last acknowledged may have happened without its answer arriving.
        if found.unwrap_or_default() < report.acknowledged {
            return Err(HarnessError(format!(
                "LOST: {} acknowledged up to {}, found {found:?}",
                self.key, report.acknowledged
            )));
        }
        Ok(report)
    }
}

/// The number last written to a key.
///
/// # Errors
/// As the client's.
pub async fn read_number(client: &Client, key: &str) -> Result<Option<u64>, Error> {
    let secret = client.read(&format!("secret/data/{key}")).await?;
    Ok(secret.and_then(|secret| secret.data?.get("data")?.get("number")?.as_u64()))
}
