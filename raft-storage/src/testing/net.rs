//! Members in one process, talking over links that can be cut, one way or both.
//!
//! A cut link swallows: the caller learns nothing until its time is up, as on a real network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::{Call, Inbound, Member, MemberId, SnapshotStream, Transport, TransportError};

/// One way of a message, unless told otherwise.
const LATENCY: Duration = Duration::from_micros(100);

/// Called with sender, receiver, call and payload; answers what arrives instead.
pub type Meddler = Arc<dyn Fn(MemberId, MemberId, Call, Bytes) -> Bytes + Send + Sync>;

#[derive(Default)]
struct Links {
    members: BTreeMap<MemberId, (u64, Arc<dyn Inbound>)>,
    cut: BTreeSet<(MemberId, MemberId)>,
    calls: BTreeMap<u8, u64>,
    /// By sender and receiver.
    addresses: BTreeMap<(MemberId, MemberId), String>,
    snapshots: u64,
    lives: u64,
    meddler: Option<Meddler>,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct ModelNet(Arc<Mutex<Links>>, Duration);

impl Default for ModelNet {
    fn default() -> Self {
        Self(Arc::default(), LATENCY)
    }
}

impl fmt::Debug for ModelNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelNet")
    }
}

impl ModelNet {
    /// A network without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same network with another time for a message to pass, one way.
    #[must_use]
    pub fn with_latency(self, latency: Duration) -> Self {
        Self(self.0, latency)
    }

    /// What the member `id` sends with, in this life of it.
    #[must_use]
    pub fn transport(&self, id: MemberId) -> Arc<dyn Transport> {
        let mut links = self.0.lock();
        links.lives += 1;
        Arc::new(Port { net: self.clone(), id, life: links.lives })
    }

    /// Makes the member reachable. It is the newest life that can be reached and can send.
    pub fn join(&self, id: MemberId, inbound: Arc<dyn Inbound>) {
        let mut links = self.0.lock();
        let life = links.lives;
        links.members.insert(id, (life, inbound));
    }

    /// Takes the member off, as a crash does: it neither receives nor sends.
    pub fn leave(&self, id: MemberId) {
        self.0.lock().members.remove(&id);
    }

    /// Nothing passes from `from` to `to` any more, requests or answers.
    pub fn cut(&self, from: MemberId, to: MemberId) {
        self.0.lock().cut.insert((from, to));
    }

    /// Nothing passes to or from `id`.
    pub fn isolate(&self, id: MemberId) {
        let others: Vec<_> = self.0.lock().members.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.0.lock().cut.clear();
    }

    /// Changes what arrives.
    pub fn meddle(&self, meddler: Meddler) {
        self.0.lock().meddler = Some(meddler);
    }

    /// How many calls of that kind were made.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.0.lock().calls.get(&(call as u8)).copied().unwrap_or_default()
    }

    /// At which address `from` called `to` last. Nothing depends on addresses here.
    #[must_use]
    pub fn address(&self, from: MemberId, to: MemberId) -> Option<String> {
        self.0.lock().addresses.get(&(from, to)).cloned()
    }

    /// How many snapshots were begun.
    #[must_use]
    pub fn snapshots(&self) -> u64 {
        self.0.lock().snapshots
    }

    async fn pass(&self) {
        if !self.1.is_zero() {
            sleep(self.1).await;
        }
    }

    fn passes(&self, from: MemberId, to: MemberId) -> bool {
        !self.0.lock().cut.contains(&(from, to))
    }

    fn find(&self, id: MemberId) -> Result<Arc<dyn Inbound>, TransportError> {
        let links = self.0.lock();
        let found = links.members.get(&id).map(|(_, inbound)| inbound.clone());
        found.ok_or_else(|| TransportError::Unreachable(format!("member {id} is down")))
    }

    fn is_alive(&self, id: MemberId, life: u64) -> bool {
        // Before it has joined it may send, so that it can be opened first.
        self.0.lock().members.get(&id).is_none_or(|(newest, _)| *newest <= life)
    }
}

#[derive(Debug)]
struct Port {
    net: ModelNet,
    id: MemberId,
    life: u64,
}

impl Port {
    /// Runs `work` at the other end, as long as both directions let it pass.
    async fn carry<T: Send + 'static>(
        &self,
        to: MemberId,
        limit: Duration,
        work: impl Future<Output = Result<T, String>> + Send + 'static,
    ) -> Result<T, TransportError> {
        let trip = async {
            self.net.pass().await;
            if !self.net.passes(self.id, to) {
                std::future::pending::<()>().await;
            }
            // The other end goes on even if the caller gives up.
            let done = tokio::spawn(work).await;
            self.net.pass().await;
            if !self.net.passes(to, self.id) {
                std::future::pending::<()>().await;
            }
            done.map_err(|err| TransportError::Unreachable(err.to_string()))?.map_err(TransportError::Refused)
        };
        timeout(limit, trip).await.map_err(|_| TransportError::Timeout)?
    }

    fn other_end(&self, to: MemberId) -> Result<Arc<dyn Inbound>, TransportError> {
        if !self.net.is_alive(self.id, self.life) {
            return Err(TransportError::Unreachable(format!("member {} is dead itself", self.id)));
        }
        self.net.find(to)
    }
}

#[async_trait]
impl Transport for Port {
    async fn call(
        &self,
        to: &Member,
        call: Call,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let inbound = self.other_end(to.id)?;
        let meddler = {
            let mut links = self.net.0.lock();
            *links.calls.entry(call as u8).or_default() += 1;
            links.addresses.insert((self.id, to.id), to.cluster_addr.clone());
            links.meddler.clone()
        };
        let payload = meddler.map_or(payload.clone(), |meddle| meddle(self.id, to.id, call, payload));
        let from = self.id;
        self.carry(to.id, timeout, async move { inbound.serve(from, call, payload).await }).await
    }

    async fn send_snapshot(
        &self,
        to: &Member,
        header: Bytes,
        chunks: SnapshotStream,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let inbound = self.other_end(to.id)?;
        self.net.0.lock().snapshots += 1;
        let from = self.id;
        self.carry(to.id, timeout, async move { inbound.receive_snapshot(from, header, chunks).await }).await
    }
}
