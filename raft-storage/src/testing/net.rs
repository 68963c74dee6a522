//! Members in one process, talking over links that can be cut, one way or both.
//!
//! A cut link swallows: the caller learns nothing until its time is up, as on a real network. So does a message that
//! the [`Weather`] loses. All that is left to chance follows from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::rng::Dice;
use crate::{Call, Inbound, Member, MemberId, SnapshotStream, Transport, TransportError};

/// How long a connection lives while nothing passes: like the keep-alive of the real one.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(4);
/// Between two times that something is sent again.
const RESEND: Duration = Duration::from_millis(200);

/// What happens to a message on its way. Each is drawn anew for every message, also for the answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Shortest time on its way.
    pub latency: Duration,
    /// Up to so much longer.
    pub jitter: Duration,
    /// How many of a million take [`Self::spike`] longer still.
    pub spikes_ppm: u32,
    /// See [`Self::spikes_ppm`].
    pub spike: Duration,
    /// How many of a million are lost. None of a snapshot, which a transport would send again.
    pub losses_ppm: u32,
}

impl Weather {
    /// Every message takes as long as any other, and none is lost.
    #[must_use]
    pub const fn calm(latency: Duration) -> Self {
        Self { latency, jitter: Duration::ZERO, spikes_ppm: 0, spike: Duration::ZERO, losses_ppm: 0 }
    }

    /// Like a good day between data centers: nothing is lost, little is late.
    #[must_use]
    pub const fn fair() -> Self {
        Self {
            latency: Duration::from_micros(100),
            jitter: Duration::from_micros(900),
            spikes_ppm: 500,
            spike: Duration::from_millis(30),
            losses_ppm: 0,
        }
    }

    /// How long a message takes; `None` when it never arrives. Draws the same count of numbers in any weather, so that
    /// a change of it disturbs nothing else.
    fn draw(&self, dice: &mut Dice) -> Option<Duration> {
        let [loss, spike, jitter] = [dice.roll(), dice.roll(), dice.roll()];
        let is_one_of = |ppm: u32, drawn: u64| drawn % 1_000_000 < u64::from(ppm);
        if is_one_of(self.losses_ppm, loss) {
            return None;
        }
        let span = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
        let spike = if is_one_of(self.spikes_ppm, spike) { self.spike } else { Duration::ZERO };
        Some(self.latency + Duration::from_nanos(jitter % span) + spike)
    }
}

/// What a [`Message`] is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call or its answer.
    Call(Call),
    /// A frame of a snapshot.
    Chunk,
    /// The header of a snapshot, or the answer to a whole one.
    Snapshot,
}

/// A message that is sent now.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Sender.
    pub from: MemberId,
    /// Receiver.
    pub to: MemberId,
    /// What it is of.
    pub kind: Kind,
    /// Whether it answers an earlier one.
    pub is_answer: bool,
    /// Its bytes; of a refusal, the reason.
    pub payload: &'a [u8],
    /// How long it will be on its way; `None` when it is lost.
    pub delay: Option<Duration>,
}

/// Told of every message as it is sent, whether it arrives or not.
pub type Listener = Arc<dyn Fn(&Message<'_>) + Send + Sync>;

/// Called with sender, receiver, call and payload; answers what arrives instead.
pub type Meddler = Arc<dyn Fn(MemberId, MemberId, Call, Bytes) -> Bytes + Send + Sync>;

/// A member from its joining to its leaving.
struct Life {
    number: u64,
    inbound: Arc<dyn Inbound>,
    /// Gone with the member: what it was serving then ends.
    end: watch::Sender<()>,
}

/// The end of a life, to be waited for.
type End = watch::Receiver<()>;

struct Links {
    dice: Dice,
    weather: Weather,
    members: BTreeMap<MemberId, Life>,
    cut: BTreeSet<(MemberId, MemberId)>,
    calls: BTreeMap<u8, u64>,
    /// By sender and receiver.
    addresses: BTreeMap<(MemberId, MemberId), String>,
    snapshots: u64,
    lives: u64,
    meddler: Option<Meddler>,
    listener: Option<Listener>,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct ModelNet(Arc<Mutex<Links>>);

impl Default for ModelNet {
    fn default() -> Self {
        Self::with_weather(0, Weather::calm(Duration::from_micros(100)))
    }
}

impl fmt::Debug for ModelNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelNet")
    }
}

impl ModelNet {
    /// A network without members, on which every message takes the same short time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A network without members, in fair weather that follows from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::with_weather(seed, Weather::fair())
    }

    fn with_weather(seed: u64, weather: Weather) -> Self {
        Self(Arc::new(Mutex::new(Links {
            dice: Dice::new(seed),
            weather,
            members: BTreeMap::new(),
            cut: BTreeSet::new(),
            calls: BTreeMap::new(),
            addresses: BTreeMap::new(),
            snapshots: 0,
            lives: 0,
            meddler: None,
            listener: None,
        })))
    }

    /// Another weather from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.0.lock().weather = weather;
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
        let number = links.lives;
        links.members.insert(id, Life { number, inbound, end: watch::Sender::new(()) });
    }

    /// Takes the member off, as a crash does: it neither receives nor sends, and what it was serving is not answered.
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

    /// Tells `listener` of every message from now on.
    pub fn listen(&self, listener: Listener) {
        self.0.lock().listener = Some(listener);
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

    /// Returns when the message arrives, which may be never. What is of a snapshot is sent again while its link is cut, as
    /// a connection does it, for as long as a connection takes to notice that nothing comes back.
    async fn pass(&self, mut message: Message<'_>) -> Result<(), TransportError> {
        let is_call = matches!(message.kind, Kind::Call(_));
        let listener = {
            let mut links = self.0.lock();
            let calm = Weather { losses_ppm: 0, ..links.weather };
            let weather = if is_call { links.weather } else { calm };
            message.delay = weather.draw(&mut links.dice);
            links.listener.clone()
        };
        if let Some(listener) = listener {
            listener(&message);
        }
        match message.delay {
            Some(delay) if delay.is_zero() => {}
            Some(delay) => sleep(delay).await,
            None => std::future::pending().await,
        }
        let mut waited = Duration::ZERO;
        while !self.passes(message.from, message.to) {
            if is_call {
                std::future::pending::<()>().await;
            }
            if waited >= CONNECTION_PATIENCE {
                return Err(TransportError::Unreachable("the connection broke".to_owned()));
            }
            sleep(RESEND).await;
            waited += RESEND;
        }
        Ok(())
    }

    fn passes(&self, from: MemberId, to: MemberId) -> bool {
        !self.0.lock().cut.contains(&(from, to))
    }

    fn find(&self, id: MemberId) -> Result<(Arc<dyn Inbound>, End), TransportError> {
        let links = self.0.lock();
        let found = links.members.get(&id).map(|life| (life.inbound.clone(), life.end.subscribe()));
        found.ok_or_else(|| TransportError::Unreachable(format!("member {id} is down")))
    }

    fn is_alive(&self, id: MemberId, life: u64) -> bool {
        // Before it has joined it may send, so that it can be opened first.
        self.0.lock().members.get(&id).is_none_or(|newest| newest.number <= life)
    }
}

#[derive(Debug)]
struct Port {
    net: ModelNet,
    id: MemberId,
    life: u64,
}

impl Port {
    /// Takes `payload` to the other end, runs `work` there and brings its answer, if both get through.
    async fn carry(
        &self,
        to: MemberId,
        kind: Kind,
        payload: &[u8],
        limit: Duration,
        mut end: End,
        work: impl Future<Output = Result<Bytes, String>> + Send + 'static,
    ) -> Result<Bytes, TransportError> {
        let trip = async {
            let request = Message { from: self.id, to, kind, is_answer: false, payload, delay: None };
            self.net.pass(request).await?;
            // The other end goes on even if the caller gives up, but not when it has no power any more.
            let served = tokio::spawn(async move {
                tokio::select! {
                    biased;
                    // Nothing is ever sent: it ends with the sender.
                    _ = end.changed() => None,
                    done = work => Some(done),
                }
            });
            let broken = || TransportError::Unreachable("the connection broke".to_owned());
            let done = served.await.map_err(|err| TransportError::Unreachable(err.to_string()))?;
            let done = done.ok_or_else(broken)?;
            let payload = done.as_ref().map_or_else(|reason| reason.as_bytes(), |answer| answer.as_ref());
            let answer = Message { from: to, to: self.id, kind, is_answer: true, payload, delay: None };
            self.net.pass(answer).await?;
            done.map_err(TransportError::Refused)
        };
        timeout(limit, trip).await.map_err(|_| TransportError::Timeout)?
    }

    /// `chunks`, each on its way for a while.
    fn delayed(&self, to: MemberId, chunks: SnapshotStream) -> SnapshotStream {
        let (net, from) = (self.net.clone(), self.id);
        let carried = chunks.then(move |chunk| {
            let net = net.clone();
            async move {
                let payload = chunk.as_ref().map_or_else(|reason| reason.as_bytes(), |chunk| chunk.as_ref());
                let kind = Kind::Chunk;
                let message = Message { from, to, kind, is_answer: false, payload, delay: None };
                net.pass(message).await.map_err(|err| err.to_string())?;
                chunk
            }
        });
        carried.boxed()
    }

    fn other_end(&self, to: MemberId) -> Result<(Arc<dyn Inbound>, End), TransportError> {
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
        let (inbound, end) = self.other_end(to.id)?;
        let meddler = {
            let mut links = self.net.0.lock();
            *links.calls.entry(call as u8).or_default() += 1;
            links.addresses.insert((self.id, to.id), to.cluster_addr.clone());
            links.meddler.clone()
        };
        let payload = meddler.map_or(payload.clone(), |meddle| meddle(self.id, to.id, call, payload));
        let from = self.id;
        let sent = payload.clone();
        let work = async move { inbound.serve(from, call, payload).await };
        self.carry(to.id, Kind::Call(call), &sent, timeout, end, work).await
    }

    async fn send_snapshot(
        &self,
        to: &Member,
        header: Bytes,
        chunks: SnapshotStream,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let (inbound, end) = self.other_end(to.id)?;
        self.net.0.lock().snapshots += 1;
        let (from, sent) = (self.id, header.clone());
        let chunks = self.delayed(to.id, chunks);
        let work = async move { inbound.receive_snapshot(from, header, chunks).await };
        self.carry(to.id, Kind::Snapshot, &sent, timeout, end, work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64, weather: Weather) -> Vec<Option<Duration>> {
        let mut dice = Dice::new(seed);
        (0..10_000).map(|_| weather.draw(&mut dice)).collect()
    }

    #[test]
    fn weather_follows_its_seed_and_keeps_its_odds() {
        let calm = Duration::from_micros(7);
        assert!(drawn(1, Weather::calm(calm)).iter().all(|delay| *delay == Some(calm)));
        let rough = Weather { losses_ppm: 100_000, spikes_ppm: 100_000, ..Weather::fair() };
        let (delays, again) = (drawn(1, rough), drawn(1, rough));
        assert_eq!(delays, again);
        assert_ne!(delays, drawn(2, rough));
        let count = |is: &dyn Fn(&Option<Duration>) -> bool| delays.iter().filter(|delay| is(delay)).count();
        assert!((900..1100).contains(&count(&|delay| delay.is_none())));
        assert!((800..1000).contains(&count(&|delay| delay.is_some_and(|delay| delay >= rough.spike))));
        let usual = rough.latency..=rough.latency + rough.jitter;
        assert!((7900..8300).contains(&count(&|delay| delay.is_some_and(|delay| usual.contains(&delay)))));
        let dry = drawn(1, Weather { losses_ppm: 0, ..rough });
        assert!(
            delays.iter().zip(&dry).all(|(wet, dry)| wet.is_none() || wet == dry),
            "what arrives is the same"
        );
    }
}
