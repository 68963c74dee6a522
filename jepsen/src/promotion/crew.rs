//! Clients of one region, who work on it whatever it answers, until they are told to stop; and a look at everything they left.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arca_harness::HarnessError;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::region::Region;
use crate::dice::Dice;
use crate::history::ModelName;
use crate::history::recorder::Recorder;
use crate::workload::{Shared, Worker, Workload, look};

type Result<T> = std::result::Result<T, HarnessError>;

/// After what went well, a client waits at most so long: two clusters and their clients share the machine.
const PACE: Duration = Duration::from_millis(20);
/// Numbers of workers are this far apart from crew to crew: what each writes is its own by its number.
const NUMBERS_EACH: u64 = 1_000;
/// For one key to be read, once its region is whole.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// See the module's header.
pub(super) struct Crew {
    name: &'static str,
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Crew {
    /// So many clients of `region` begin. `turn` differs from crew to crew.
    pub(super) fn start(
        region: &Region,
        turn: u64,
        clients: usize,
        recorder: &Recorder,
        workload: &Arc<dyn Workload>,
        mut dice: Dice,
    ) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let nodes = 0..region.cluster.nodes.len();
        let shared = Arc::new(Shared {
            clients: nodes.map(|at| region.cluster.client(at)).collect::<Result<_>>()?,
            recorder: recorder.clone(),
            stop: stopped,
            pace: PACE,
            complaints: Mutex::default(),
        });
        let workers: Vec<Worker> = (turn * NUMBERS_EACH..)
            .take(clients)
            .filter_map(|number| Worker::new(number, &shared, dice.split()))
            .collect();
        let workload = Arc::clone(workload);
        let task = tokio::spawn(async move {
            let workload = workload.as_ref();
            futures::future::join_all(workers.into_iter().map(|worker| workload.run(worker))).await;
        });
        Ok(Self { name: region.name, stop, shared, task })
    }

    /// Has them end what they do. Answers what they found wrong.
    pub(super) async fn end(mut self) -> Result<Vec<String>> {
        self.stop.send_replace(true);
        (&mut self.task)
            .await
            .map_err(|err| HarnessError::new(&format!("the clients of the {}", self.name), err))?;
        Ok(std::mem::take(&mut *self.shared.complaints.lock()))
    }
}

/// Every register and list that `recorder` knows of.
pub(super) fn keys(recorder: &Recorder) -> Result<BTreeSet<(ModelName, String)>> {
    let history = recorder.history().map_err(|err| HarnessError::new("reading the history", err))?;
    Ok(history.operations().into_iter().map(|operation| (operation.model, operation.key)).collect())
}

/// Reads every key once, through one node after the other, until each was answered; taken down by `recorder`.
pub(super) async fn survey(
    region: &Region,
    keys: &BTreeSet<(ModelName, String)>,
    recorder: &Recorder,
) -> Result<()> {
    let mut process = recorder.process();
    for (turn, (model, key)) in keys.iter().enumerate() {
        let mut at = turn;
        let what = format!("an answer about {key}");
        let read = region.cluster.wait(&what, LOOK_LIMIT, async || {
            at += 1;
            let client = region.cluster.client(at % region.cluster.nodes.len()).ok()?;
            look(&mut process, &client, *model, key).await.then_some(())
        });
        read.await?;
    }
    Ok(())
}
