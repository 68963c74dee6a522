//! The network between members: Raft's messages by [`ModelNet`], and requests that standbys carry to the active node,
//! over the same links.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arca_jepsen::dice::Dice;
use arca_raft_storage::MemberId;
use arca_raft_storage::testing::{Kind, Message, ModelNet, Weather};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::plan::Plan;
use crate::trace::Trace;

/// Why nothing came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It surely did not arrive.
    Undelivered,
    /// It may have arrived.
    Unanswered,
}

/// All links of a cluster. Clones share them.
#[derive(Clone, Debug)]
pub struct Net {
    raft: ModelNet,
    links: Arc<Mutex<Links>>,
}

#[derive(Debug)]
struct Links {
    cut: BTreeSet<(MemberId, MemberId)>,
    dice: Dice,
}

impl Net {
    /// A network whose messages all leave their mark in `trace`.
    #[must_use]
    pub fn new(plan: &Plan, trace: &Trace) -> Self {
        let mut dice = Dice::for_purpose(plan.seed, "links");
        let raft = ModelNet::seeded(dice.number());
        raft.set_weather(plan.weather);
        let trace = trace.clone();
        raft.listen(Arc::new(move |message| {
            let Message { from, to, kind, is_answer, payload, delay } = message;
            let kind = match kind {
                Kind::Call(call) => *call as u64,
                Kind::Chunk => 100,
                Kind::Snapshot => 101,
            };
            // Whatever is lost is on its way for ever.
            let delay = delay.map_or(u64::MAX, |delay| u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX));
            trace.note("message", &[from.0, to.0, kind, u64::from(*is_answer), delay], payload);
        }));
        let links = Links { cut: BTreeSet::new(), dice };
        Self { raft, links: Arc::new(Mutex::new(links)) }
    }

    /// What Raft uses.
    #[must_use]
    pub fn raft(&self) -> &ModelNet {
        &self.raft
    }

    /// Nothing passes from `from` to `to` any more.
    pub fn cut(&self, from: MemberId, to: MemberId) {
        self.raft.cut(from, to);
        self.links.lock().cut.insert((from, to));
    }

    /// From now on no message is lost or much later than others.
    pub fn clear_up(&self) {
        self.raft.set_weather(Weather::fair());
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.raft.heal();
        self.links.lock().cut.clear();
    }

    fn passes(&self, from: MemberId, to: MemberId) -> bool {
        !self.links.lock().cut.contains(&(from, to))
    }

    /// How long a message takes.
    #[must_use]
    pub fn latency(&self) -> Duration {
        let dice = &mut self.links.lock().dice;
        // Now and then one is much later than the others.
        let (low, high) = if dice.chance(1) { (5_000, 200_000) } else { (50, 2_000) };
        dice.span(Duration::from_micros(low), Duration::from_micros(high))
    }

    /// Carries a request from `from` to `to`, has `work` done there, and carries its answer back, within `limit`. The
    /// work is finished even if nobody waits for it any more.
    ///
    /// # Errors
    /// When the request, or its answer, is lost.
    pub async fn trip<T: Send + 'static>(
        &self,
        from: MemberId,
        to: MemberId,
        limit: Duration,
        work: impl Future<Output = Option<T>> + Send + 'static,
    ) -> Result<T, Lost> {
        let there = async {
            sleep(self.latency()).await;
            if !self.passes(from, to) {
                std::future::pending::<()>().await;
            }
        };
        timeout(limit, there).await.map_err(|_| Lost::Undelivered)?;
        let done = tokio::spawn(work);
        let back = async {
            let answer = done.await.ok().flatten();
            sleep(self.latency()).await;
            if !self.passes(to, from) {
                std::future::pending::<()>().await;
            }
            answer
        };
        timeout(limit, back).await.ok().flatten().ok_or(Lost::Unanswered)
    }
}
