//! What the primary says of itself while nothing is done to it: up to which entry its log goes, and when it was asked. So it is
//! known of every entry until when, at the latest, acknowledged writes are in it or before it.

use std::sync::Arc;
use std::time::Duration;

use arca_client::Client;
use arca_harness::HarnessError;
use arca_harness::regions::orders;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::region::{Region, number};
use crate::history::recorder::Recorder;

const INTERVAL: Duration = Duration::from_millis(50);

/// See the module's header. Ends when it is dropped.
pub(super) struct Sampler {
    taken: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    /// When it was asked for, in the recorder's time.
    asked_ns: u64,
    /// Newest entry that is applied: no earlier than any that was acknowledged before.
    applied: u64,
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sampler {
    pub(super) fn start(region: &Region, recorder: &Recorder) -> Result<Self, HarnessError> {
        let nodes = 0..region.cluster.nodes.len();
        let clients = nodes.map(|at| region.cluster.client(at)).collect::<Result<Vec<_>, _>>()?;
        let taken = Arc::<Mutex<Vec<Sample>>>::default();
        let task = tokio::spawn(sample(clients, recorder.clone(), Arc::clone(&taken)));
        Ok(Self { taken, task })
    }

    /// The last moment by which everything acknowledged was in entries up to `entry`; 0 if there was none.
    pub(super) fn complete_ns(&self, entry: u64) -> u64 {
        complete_ns(&self.taken.lock(), entry)
    }
}

fn complete_ns(taken: &[Sample], entry: u64) -> u64 {
    let reached = taken.iter().filter(|sample| sample.applied <= entry);
    reached.map(|sample| sample.asked_ns).max().unwrap_or_default()
}

async fn sample(clients: Vec<Client>, recorder: Recorder, taken: Arc<Mutex<Vec<Sample>>>) {
    loop {
        for client in &clients {
            // Only who leads has applied what was acknowledged, and it may stop leading while it is asked.
            if !leads(client).await {
                continue;
            }
            let asked_ns = recorder.now();
            let applied = orders::status(client).await.ok().and_then(|status| number(&status, "last_dr_wal"));
            if let Some(applied) = applied
                && leads(client).await
            {
                taken.lock().push(Sample { asked_ns, applied });
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn leads(client: &Client) -> bool {
    client.sys().leader().await.is_ok_and(|leader| leader.is_self)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_moment_that_goes_no_further() {
        let taken: Vec<Sample> = [(10, 5), (20, 7), (30, 7), (40, 9)]
            .map(|(asked_ns, applied)| Sample { asked_ns, applied })
            .into();
        let check = |entry, want| assert_eq!(complete_ns(&taken, entry), want, "{entry}");
        check(4, 0);
        check(5, 10);
        check(6, 10);
        check(7, 30);
        check(8, 30);
        check(100, 40);
    }
}
