//! What an operator orders in a run with two clusters, and when: one becomes the copy of the other; then, once or twice, the
//! copy takes over, by order or by force, and the old primary comes back as its copy. Clients follow the primary.

use std::sync::Arc;
use std::time::Duration;

use arca_barrier::{Barrier, Class};
use arca_jepsen::dice::Dice;
use arca_jepsen::history::recorder::Recorder;
use arca_jepsen::workload;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::NAMES;
use super::half::Half;
use super::operator::Operator;
use super::ways::Ways;
use crate::client::client;
use crate::plan::{Fault, Plan};
use crate::run::{Failure, PATIENCE, begin_work, mount};
use crate::trace::Trace;

/// Clients of one reign are so many numbers away from those of the one before: a multiple of the number of workloads.
const CLIENTS_APART: u64 = 420;
/// Pause before something is asked again.
const CLIENTS_PAUSE: Duration = Duration::from_millis(300);

/// The time in which one cluster is the primary, for its clients.
pub(super) struct Reign {
    /// Which cluster.
    pub(super) half: usize,
    pub(super) recorder: Recorder,
    pub(super) working: Arc<workload::Shared>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) workers: Vec<JoinHandle<()>>,
    /// Whether the next one has everything that was written in it.
    pub(super) is_handed_over: bool,
}

/// Everything that the operator needs.
pub(super) struct Stage {
    plan: Plan,
    dice: Dice,
    trace: Trace,
    ways: Ways,
    operators: [Operator; 2],
    /// The second cluster's, with what was its own token before it was a copy.
    before: Operator,
    reigns: Arc<Mutex<Vec<Reign>>>,
    /// Which cluster clients work on.
    primary: watch::Sender<usize>,
    barrier: Arc<Barrier>,
}

impl Stage {
    pub(super) fn new(
        plan: &Plan,
        trace: &Trace,
        halves: [&Half; 2],
        reigns: Arc<Mutex<Vec<Reign>>>,
    ) -> Result<Self, Failure> {
        let [east, west] = halves;
        let root = &east.cluster.root_token;
        let clients = |half: &Half, token: &str| {
            let hosts = half.cluster.hosts();
            hosts.iter().map(|host| client(&half.shared, host, token)).collect::<Result<Vec<_>, _>>()
        };
        let region = east.shared.region.as_ref();
        let ways = region.map(|region| region.ways.clone());
        let ways = ways.ok_or_else(|| Failure::Setup("no lines between regions".to_owned()))?;
        let operators = [
            Operator::new(&east.name, clients(east, root)?, trace),
            Operator::new(&west.name, clients(west, root)?, trace),
        ];
        Ok(Self {
            plan: plan.clone(),
            dice: Dice::for_purpose(plan.seed, "what an operator does"),
            trace: trace.clone(),
            ways,
            operators,
            before: Operator::new(&west.name, clients(west, &west.cluster.root_token)?, trace),
            reigns,
            primary: watch::Sender::new(0),
            barrier: east.barrier()?,
        })
    }

    /// Which cluster clients work on.
    pub(super) fn primary(&self) -> watch::Receiver<usize> {
        self.primary.subscribe()
    }

    /// Has the filtered secondary do without what clients write.
    async fn withhold(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        let east = self.operator(0)?;
        loop {
            if let Some(uuid) = east.mount_uuid("secret/").await {
                let folder = format!("root/logical/{uuid}/");
                let name = self.barrier.seal_name(Class::Replicated, &folder).map_err(Failure::setup)?;
                self.ways.withhold(vec![name]);
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Failure::Stuck("it cannot be learned where secrets are".to_owned()));
            }
            sleep(CLIENTS_PAUSE).await;
        }
    }

    fn operator(&self, half: usize) -> Result<Operator, Failure> {
        let found = self.operators.get(half).cloned();
        found.ok_or_else(|| Failure::Setup("no such region".to_owned()))
    }

    async fn pause(&mut self, low_ms: u64, high_ms: u64) {
        let pause = self.dice.millis(low_ms..high_ms);
        sleep(pause).await;
    }

    /// All of it.
    pub(super) async fn perform(mut self) -> Result<(), Failure> {
        self.begin_reign(0).await?;
        self.withhold().await?;
        let (east, west) = (self.operator(0)?, self.operator(1)?);
        self.pause(0, 3_000).await;
        east.order_until("primary", "primary/enable", &json!({})).await?;
        east.copy_to(&self.before, &west).await?;
        self.trace.say(format_args!("west is a copy of east"));
        self.pause(2_000, 12_000).await;
        let mut primary = 0;
        for _ in 0..self.dice.within(1..3) {
            if self.dice.chance(60) {
                self.take_over_by_force(primary).await?;
            } else {
                self.take_over_in_order(primary).await?;
            }
            primary = 1 - primary;
            self.pause(2_000, 10_000).await;
        }
        Ok(())
    }

    /// Clients begin to work on a cluster.
    async fn begin_reign(&mut self, half: usize) -> Result<(), Failure> {
        let operator = self.operator(half)?;
        let number = u64::try_from(self.reigns.lock().len()).unwrap_or_default();
        let began = self.trace.began();
        let now = move || u64::try_from((Instant::now() - began).as_nanos()).unwrap_or(u64::MAX);
        let recorder = Recorder::new(Box::new(now));
        let (stop, stopped) = watch::channel(false);
        let working = Arc::new(workload::Shared {
            clients: operator.clients,
            recorder: recorder.clone(),
            stop: stopped,
            pace: self.plan.pace,
            complaints: Mutex::default(),
        });
        if number == 0 {
            mount(&working).await?;
        }
        let mut plan = self.plan.clone();
        plan.first_client += number * CLIENTS_APART;
        // Without leases, as where clocks are set: a secondary and a fenced primary end none.
        plan.faults.push(Fault::Clock);
        let workers = begin_work(&plan, &working)?;
        self.trace.say(format_args!("clients work on {}", operator.region));
        self.primary.send_replace(half);
        self.reigns.lock().push(Reign { half, recorder, working, stop, workers, is_handed_over: false });
        Ok(())
    }

    /// Tells the clients of the reign before the newest to stop.
    fn end_old_reign(&self) {
        let reigns = self.reigns.lock();
        if let Some(old) = reigns.len().checked_sub(2).and_then(|at| reigns.get(at)) {
            // Nobody listens if all workers have ended.
            let _ = old.stop.send(true);
        }
    }

    fn cut_line(&mut self) {
        let [east, west] = NAMES;
        match self.dice.within(0..4) {
            0 => self.ways.cut(east, west),
            1 => self.ways.cut(west, east),
            2 => {}
            _ => {
                self.ways.cut(east, west);
                self.ways.cut(west, east);
            }
        }
    }

    /// The copy is promoted, whatever becomes of the primary, which goes on for as long as it has not heard of it.
    async fn take_over_by_force(&mut self, primary: usize) -> Result<(), Failure> {
        let (old, new) = (self.operator(primary)?, self.operator(1 - primary)?);
        // What is half compared is of two times at once: an operator who has a choice waits.
        new.wait_for_stream().await?;
        self.cut_line();
        self.pause(0, 4_000).await;
        new.order_until("primary", "secondary/promote", &json!({ "force": true })).await?;
        self.begin_reign(1 - primary).await?;
        self.pause(500, 5_000).await;
        if self.dice.chance(70) {
            self.ways.heal();
            old.wait("the fence", |status| {
                status.get("state").is_some_and(|state| state == "fenced")
                    || status.get("mode").is_some_and(|mode| mode != "primary")
            })
            .await?;
            self.pause(0, 2_000).await;
        }
        self.end_old_reign();
        self.come_back(&old, &new).await
    }

    /// The primary is demoted, and the copy takes over with everything that it had.
    async fn take_over_in_order(&mut self, primary: usize) -> Result<(), Failure> {
        let (old, new) = (self.operator(primary)?, self.operator(1 - primary)?);
        new.wait_for_stream().await?;
        // Who does not answer is taken for gone: then the rest of what was written would be left out.
        self.ways.hold(true);
        old.order_until("secondary", "primary/demote", &json!({})).await?;
        new.order_until("primary", "secondary/promote", &json!({})).await?;
        self.ways.hold(false);
        if let Some(reign) = self.reigns.lock().last_mut() {
            reign.is_handed_over = true;
        }
        self.begin_reign(1 - primary).await?;
        self.end_old_reign();
        self.pause(0, 2_000).await;
        self.come_back(&old, &new).await
    }

    /// The old primary becomes the copy of the new one.
    async fn come_back(&mut self, old: &Operator, new: &Operator) -> Result<(), Failure> {
        old.order_until("secondary", "primary/demote", &json!({})).await?;
        self.pause(0, 1_000).await;
        self.ways.heal();
        new.follow_by(old).await?;
        old.wait_for_stream().await?;
        self.trace.say(format_args!("{} is a copy of {}", old.region, new.region));
        Ok(())
    }
}
