//! A secondary's way to its primary, as a node's own goes about it: to the node that answered last, and to the others when
//! it does not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_replication::{
    Call, Follower, Greeting, Kind, Link, LinkError, PayloadStream, PrimaryLink, PrimarySide, Refusal,
    Unserved, Welcome,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ways::{Answerer, Ways, region_of};

/// A node that does not answer a handshake for so long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection over which nothing comes back for so long is dead.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Longest wait for one node's answer, and for a stream to begin.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// As many messages of a stream are under way at once.
const WINDOW: usize = 16;

/// Whom a way leads to, and who asks there.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    /// The region of whoever asks.
    pub(super) region: String,
    /// Of the primary and all that follow it.
    pub(super) replication_id: String,
    /// Certificate of its CA.
    pub(super) ca: Vec<u8>,
    /// As the certificate of whoever asks has it.
    pub(super) follower: Follower,
    /// What it is for.
    pub(super) kind: Kind,
}

/// See the file's header.
pub(super) struct Road {
    ways: Ways,
    ends: Ends,
    addresses: Mutex<Vec<String>>,
}

impl fmt::Debug for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Road({})", self.ends.region)
    }
}

/// What became of asking one node.
enum Asked<T> {
    Answered(Result<T, Refusal>),
    Elsewhere(LinkError),
}

fn unreachable<T>(why: &str) -> Asked<T> {
    Asked::Elsewhere(LinkError::Unreachable(why.to_owned()))
}

fn opened<T>(outcome: Result<T, Unserved>) -> Asked<T> {
    match outcome {
        Ok(answer) => Asked::Answered(Ok(answer)),
        Err(Unserved::Refused(refusal)) => Asked::Answered(Err(refusal)),
        Err(Unserved::NotActive) => {
            Asked::Elsewhere(Refusal::Busy("the primary has no active node right now".to_owned()).into())
        }
    }
}

impl Road {
    pub(super) fn new(ways: Ways, ends: Ends, addresses: Vec<String>) -> Self {
        Self { ways, ends, addresses: Mutex::new(addresses) }
    }

    /// Asks one node after the other, until one answers; it is asked first the next time.
    async fn ask<T, F>(&self, ask: impl Fn(String) -> F) -> Result<T, LinkError>
    where
        F: Future<Output = Asked<T>>,
    {
        let mut last = LinkError::Unreachable("no address of the primary is known".to_owned());
        let addresses = self.addresses.lock().clone();
        for address in addresses {
            match ask(address.clone()).await {
                Asked::Answered(answer) => {
                    self.addresses.lock().sort_by_key(|known| *known != address);
                    return Ok(answer?);
                }
                Asked::Elsewhere(err) => {
                    self.addresses.lock().sort_by_key(|known| *known == address);
                    if matches!(last, LinkError::Unreachable(_)) {
                        last = err;
                    }
                }
            }
        }
        Err(last)
    }

    /// Goes to `address`, has `work` done there, and comes back with what came of it. The work is finished even if nobody
    /// waits for it any more, unless the node dies.
    async fn trip<T, F>(&self, address: &str, work: impl FnOnce(Arc<dyn PrimarySide>) -> F) -> Asked<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Unserved>> + Send + 'static,
    {
        let Self { ways, ends, .. } = self;
        let there = region_of(address);
        if !ways.travel(&ends.region, there).await {
            sleep(CONNECT_TIMEOUT).await;
            return unreachable("no answer in time");
        }
        let found = ways.answerer(address, (&ends.replication_id, &ends.ca), &ends.follower.secondary_id);
        let Some(Answerer { served, ended }) = found else {
            sleep(ways.delay()).await;
            return unreachable("connection refused");
        };
        let work = work(Arc::clone(&served.side));
        let done = tokio::spawn(async move { ended.run_until_cancelled(work).await });
        let Ok(done) = timeout(CALL_TIMEOUT, done).await else { return unreachable("no answer in time") };
        if !ways.travel(there, &ends.region).await {
            sleep(KEEPALIVE).await;
            return unreachable("the connection is dead");
        }
        match done.ok().flatten() {
            Some(outcome) => opened(outcome),
            None => unreachable("the connection broke"),
        }
    }

    /// Shows a token at `address`.
    async fn show(&self, address: String, request: Bytes) -> Asked<Bytes> {
        self.trip(&address, |side| async move { side.activate(request).await }).await
    }

    /// Shows an activation token, to whichever node is active.
    pub(super) async fn activate(&self, request: Bytes) -> Result<Bytes, LinkError> {
        self.ask(|address| self.show(address, request.clone())).await
    }

    async fn begin(&self, address: String, call: Call, payload: Bytes) -> Asked<PayloadStream> {
        let (ways, follower, here) =
            (self.ways.clone(), self.ends.follower.clone(), self.ends.region.clone());
        let there = region_of(&address).to_owned();
        let (tx, rx) = mpsc::channel(WINDOW);
        let (pumping, from, kind) = (ways.clone(), there.clone(), self.ends.kind);
        let asked = self.trip(&address, |side| async move {
            side.admit(&follower).await?;
            let stream = side.stream(&follower, call, payload).await?;
            Ok(pump(stream, tx, Leaving { ways: pumping, from, kind, call }))
        });
        let pump = match asked.await {
            Asked::Answered(Ok(pump)) => pump,
            Asked::Answered(Err(refusal)) => return Asked::Answered(Err(refusal)),
            Asked::Elsewhere(err) => return Asked::Elsewhere(err),
        };
        // It runs where it was begun, and ends with that node.
        let found = ways.answerer(
            &address,
            (&self.ends.replication_id, &self.ends.ca),
            &self.ends.follower.secondary_id,
        );
        let Some(Answerer { ended, .. }) = found else { return unreachable("the connection broke") };
        tokio::spawn(async move { ended.run_until_cancelled(pump).await });
        let mut stream = arriving(rx, ways, (there, here));
        match timeout(CALL_TIMEOUT, stream.next()).await {
            Ok(Some(Ok(first))) => {
                Asked::Answered(Ok(futures::stream::iter([Ok(first)]).chain(stream).boxed()))
            }
            Ok(Some(Err(LinkError::Refused(refusal)))) => Asked::Answered(Err(refusal)),
            Ok(Some(Err(err))) => Asked::Elsewhere(err),
            Ok(None) => unreachable("the connection broke"),
            Err(_) => unreachable("no answer in time"),
        }
    }
}

/// Where messages of a stream leave.
struct Leaving {
    ways: Ways,
    from: String,
    kind: Kind,
    call: Call,
}

type Parcel = (Instant, Result<Bytes, LinkError>);

/// Sends on what a stream gives, as fast as whoever follows takes it.
async fn pump(mut stream: PayloadStream, tx: mpsc::Sender<Parcel>, leaving: Leaving) {
    let mut last = Instant::now();
    while let Some(item) = stream.next().await {
        if let Ok(payload) = &item {
            leaving.ways.leaves(&leaving.from, leaving.kind, leaving.call, payload);
        }
        // Nothing overtakes what was sent before.
        last = last.max(Instant::now() + leaving.ways.delay());
        if tx.send((last, item)).await.is_err() {
            return;
        }
    }
}

fn arriving(rx: mpsc::Receiver<Parcel>, ways: Ways, (from, to): (String, String)) -> PayloadStream {
    let broken = |why: &str| Err(LinkError::Unreachable(why.to_owned()));
    futures::stream::unfold(Some(rx), move |rx| {
        let (ways, from, to) = (ways.clone(), from.clone(), to.clone());
        async move {
            let mut rx = rx?;
            let Some((due, item)) = rx.recv().await else {
                sleep(ways.delay()).await;
                return Some((broken("the connection broke"), None));
            };
            sleep_until(due).await;
            if !ways.passes(&from, &to) {
                sleep(KEEPALIVE).await;
                return Some((broken("the connection is dead"), None));
            }
            let goes_on = item.is_ok();
            Some((item, goes_on.then_some(rx)))
        }
    })
    .boxed()
}

#[async_trait]
impl Link for Road {
    async fn call(&self, call: Call, payload: Bytes) -> Result<Bytes, LinkError> {
        self.ask(|address| {
            let (payload, follower) = (payload.clone(), self.ends.follower.clone());
            let (ways, here, kind) = (self.ways.clone(), self.ends.region.clone(), self.ends.kind);
            async move {
                let there = region_of(&address).to_owned();
                self.trip(&address, |side| async move {
                    side.admit(&follower).await?;
                    let answer = side.call(&follower, call, payload.clone()).await?;
                    ways.leaves(&there, kind, call, &answer);
                    if (call, kind) == (Call::Acknowledge, Kind::Dr) {
                        ways.acknowledged(&here, payload);
                    }
                    Ok(answer)
                })
                .await
            }
        })
        .await
    }

    async fn stream(&self, call: Call, payload: Bytes) -> Result<PayloadStream, LinkError> {
        self.ask(|address| self.begin(address, call, payload.clone())).await
    }
}

#[async_trait]
impl PrimaryLink for Road {
    async fn greet(&self, greeting: &Greeting) -> Result<Welcome, LinkError> {
        self.ask(|address| {
            let (greeting, follower) = (greeting.clone(), self.ends.follower.clone());
            async move {
                self.trip(&address, |side| async move {
                    side.admit(&follower).await?;
                    Ok(side.greet(&follower, greeting))
                })
                .await
            }
        })
        .await
    }

    fn learn(&self, mut addresses: Vec<String>) {
        let mut known = self.addresses.lock();
        let first = known.first().cloned();
        addresses.sort_by_key(|address| Some(address) != first.as_ref());
        *known = addresses;
    }
}
