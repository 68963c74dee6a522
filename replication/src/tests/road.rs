//! A link that goes straight to a member of the other cluster, a different one each time, and may be cut or meddled with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::MemberId;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{Call, Comparisons, Link, LinkError, PayloadStream, Pinned, Sieve, Source};

/// As many messages are under way at once.
const WINDOW: usize = 16;

/// Given each segment, answers what arrives in its place.
type Meddler = Box<dyn FnMut(Bytes) -> Vec<Bytes> + Send>;

struct State {
    /// Who can be reached.
    sources: BTreeMap<MemberId, Arc<Source>>,
    pumps: Vec<(MemberId, JoinHandle<()>)>,
    is_cut: bool,
    turn: usize,
    meddler: Option<Meddler>,
    latency: Duration,
    /// What messages of streams take beyond that.
    streams_held: Duration,
    streams: usize,
    /// Bytes that arrived, of answers and of streams.
    arrived: usize,
}

/// The way to a cluster, for one secondary. Clones are the same way.
#[derive(Clone)]
pub(super) struct Road {
    state: Arc<Mutex<State>>,
    secondary: &'static str,
    sieve: Sieve,
    /// Compares as clusters do; a test's short way otherwise.
    comparisons: Option<Arc<Comparisons>>,
}

impl fmt::Debug for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Road")
    }
}

impl Road {
    pub(super) fn new(secondary: &'static str, sieve: Sieve) -> Self {
        let state = State {
            sources: BTreeMap::new(),
            pumps: Vec::new(),
            is_cut: false,
            turn: 0,
            meddler: None,
            latency: Duration::from_millis(1),
            streams_held: Duration::ZERO,
            streams: 0,
            arrived: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), secondary, sieve, comparisons: None }
    }

    /// One over which states are compared as clusters do it.
    pub(super) fn comparing(secondary: &'static str, sieve: Sieve) -> Self {
        Self { comparisons: Some(Arc::new(Comparisons::new([7; 32]))), ..Self::new(secondary, sieve) }
    }

    pub(super) const fn compares(&self) -> bool {
        self.comparisons.is_some()
    }

    pub(super) fn sieve(&self) -> &Sieve {
        &self.sieve
    }

    pub(super) fn secondary(&self) -> &'static str {
        self.secondary
    }

    pub(super) fn open(&self, member: MemberId, source: Arc<Source>) {
        self.state.lock().sources.insert(member, source);
    }

    /// Nobody can be reached there any more, and what was under way is lost.
    pub(super) async fn close(&self, member: MemberId) {
        self.state.lock().sources.remove(&member);
        self.break_where(|of| of == member).await;
    }

    /// Every stream breaks; new ones can be made.
    pub(super) async fn break_all(&self) {
        self.break_where(|_| true).await;
    }

    async fn break_where(&self, is: impl Fn(MemberId) -> bool) {
        let broken: Vec<_> = self.state.lock().pumps.extract_if(.., |(of, _)| is(*of)).collect();
        for (_, pump) in broken {
            pump.abort();
            // It was aborted.
            let _ = pump.await;
        }
    }

    pub(super) async fn cut(&self) {
        self.state.lock().is_cut = true;
        self.break_all().await;
    }

    pub(super) fn heal(&self) {
        self.state.lock().is_cut = false;
    }

    pub(super) fn meddle(&self, meddler: impl FnMut(Bytes) -> Vec<Bytes> + Send + 'static) {
        self.state.lock().meddler = Some(Box::new(meddler));
    }

    pub(super) fn leave_alone(&self) {
        self.state.lock().meddler = None;
    }

    pub(super) fn set_latency(&self, latency: Duration) {
        self.state.lock().latency = latency;
    }

    /// Messages of streams, those that are open as well, take so much longer from now on.
    pub(super) fn hold_streams(&self, held: Duration) {
        self.state.lock().streams_held = held;
    }

    /// How many streams were begun.
    pub(super) fn streams(&self) -> usize {
        self.state.lock().streams
    }

    /// Bytes that arrived at the secondary.
    pub(super) fn arrived(&self) -> usize {
        self.state.lock().arrived
    }

    pub(super) fn any_source(&self) -> Option<Arc<Source>> {
        self.state.lock().sources.values().next().cloned()
    }

    fn next_source(&self) -> Result<(MemberId, Arc<Source>, Duration), LinkError> {
        let mut state = self.state.lock();
        state.turn += 1;
        let (turn, count) = (state.turn, state.sources.len());
        if state.is_cut || count == 0 {
            return Err(LinkError::Unreachable("nobody is there".to_owned()));
        }
        let (member, source) = state.sources.iter().nth(turn % count).unwrap();
        Ok((*member, source.clone(), state.latency))
    }

    fn arriving(&self, item: Result<Bytes, LinkError>) -> Vec<Result<Bytes, LinkError>> {
        let mut state = self.state.lock();
        state.arrived += item.as_ref().map_or(0, Bytes::len);
        match (item, &mut state.meddler) {
            (Ok(bytes), Some(meddler)) => meddler(bytes).into_iter().map(Ok).collect(),
            (item, _) => vec![item],
        }
    }
}

#[async_trait]
impl Link for Road {
    async fn call(&self, call: Call, payload: Bytes) -> Result<Bytes, LinkError> {
        let (_, source, latency) = self.next_source()?;
        sleep(latency).await;
        let answer = match &self.comparisons {
            Some(comparisons) if call == Call::Compare => {
                // Always the same one: it remembers what is compared.
                let source = self.any_source().unwrap_or(source);
                let pin = || {
                    let epoch = source.admit(self.secondary, self.sieve.kind)?;
                    Pinned::now(source.replica.as_ref(), self.sieve.clone(), epoch)
                };
                comparisons.serve(self.sieve.kind, self.secondary, &pin, payload).await
            }
            _ => source.serve(self.secondary, &self.sieve, call, payload).await,
        };
        sleep(latency).await;
        let answer = answer?;
        self.state.lock().arrived += answer.len();
        Ok(answer)
    }

    async fn stream(&self, call: Call, payload: Bytes) -> Result<PayloadStream, LinkError> {
        let (member, source, latency) = self.next_source()?;
        sleep(latency).await;
        let mut stream = source.stream(self.secondary, &self.sieve, call, payload).await?;
        drop(source);
        let (tx, rx) = mpsc::channel(WINDOW);
        let road = self.clone();
        let pump = tokio::spawn(async move {
            while let Some(item) = stream.next().await {
                for arriving in road.arriving(item) {
                    let latency = latency + road.state.lock().streams_held;
                    if tx.send((Instant::now() + latency, arriving)).await.is_err() {
                        return;
                    }
                }
            }
        });
        let mut state = self.state.lock();
        state.streams += 1;
        state.pumps.push((member, pump));
        let items = futures::stream::unfold(rx, async |mut rx: mpsc::Receiver<(Instant, _)>| {
            let (at, item) = rx.recv().await?;
            sleep_until(at).await;
            Some((item, rx))
        });
        Ok(items.boxed())
    }
}
