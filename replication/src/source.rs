//! The side that is followed: what this cluster's entries changed, cut into segments for each secondary, on any member.
//!
//! **Invariants.** Nothing is sent that is not committed and applied here, or that the sieve holds back; nothing to a
//! secondary that is not of this cluster's history, is not known or was revoked; and nothing any more once a newer epoch
//! was heard of. A stream reads ahead of nobody: a segment is made when it is asked for.
//! Read next: `follow.rs` for a stream, `retention.rs` for how long the log is kept, [`crate::sink`] for the other end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::{Changes, watch};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::codec::{Malformed, Reader};
use crate::cursor::{Cursor, Epoch};
use crate::history::History;
use crate::known::Known;
use crate::link::{Call, PayloadStream, Refusal};
use crate::message::{Announcement, Answer, CursorMessage};
use crate::sieve::{Kind, Sieve, Sieves};

/// Longest wait until a member knows the role that it has applied.
const ROLE_PATIENCE: Duration = Duration::from_secs(2);

/// Wall clock, milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How a source goes about it.
#[derive(Clone, Copy, Debug)]
pub struct SourceSettings {
    /// A segment takes no further entry beyond this.
    pub segment_bytes: usize,
    /// Between two segments of a stream that has told all there is: under load they carry more then, and cost less.
    pub gather: Duration,
    /// How long a stream is silent at most.
    pub heartbeat: Duration,
    /// How often it is looked at which part of the log is needed.
    pub retention_check: Duration,
    /// The log is not kept any more for a secondary that has shown no life for so long: it will have to be compared.
    pub retention_time: Duration,
    /// Acknowledgements are recorded for the other members once they moved by so many entries,
    pub record_entries: u64,
    /// or moved at all for so long.
    pub record_age: Duration,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 10,
            gather: Duration::from_millis(20),
            heartbeat: Duration::from_secs(1),
            retention_check: Duration::from_secs(5),
            retention_time: Duration::from_secs(72 * 3600),
            record_entries: 16 << 10,
            record_age: Duration::from_secs(600),
        }
    }
}

/// This cluster as a primary of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Primary {
    /// Its epoch.
    pub epoch: Epoch,
    /// The secondaries that it knows and has not revoked.
    pub secondaries: BTreeSet<String>,
    /// The newer epoch that it is known, and written down, to have lost its role to: nobody is served then, on any member
    /// and after any restart. What a member only heard is in [`Source::heard`].
    pub fence: Option<Epoch>,
}

/// A newer epoch that was heard of: this cluster's own is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The newer epoch.
    pub epoch: Epoch,
    /// Cluster addresses of the primary in it, as far as it was said.
    pub addresses: Vec<String>,
    /// Up to where that primary followed this cluster, if it said so: what comes behind is this cluster's alone.
    pub followed: Option<Cursor>,
}

/// How far a secondary is, as this member knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecondaryStatus {
    /// Its name.
    pub id: String,
    /// Streams that it has open here.
    pub streams: usize,
    /// Since when it has one, if it has, milliseconds since 1970.
    pub connected_at_ms: Option<u64>,
    /// When it last asked for something, milliseconds since 1970.
    pub heard_at_ms: Option<u64>,
    /// A moment of which it has everything that was there, the latest that is known: milliseconds since 1970.
    pub complete_at_ms: Option<u64>,
    /// What it has applied for good.
    pub acknowledged: Option<Cursor>,
    /// The newest entry that it was sent.
    pub sent_index: u64,
    /// Entries that it was sent.
    pub entries_sent: u64,
    /// Bytes that it was sent.
    pub bytes_sent: u64,
}

/// Told of a kind: what the cluster is; not told yet otherwise.
pub(crate) type Roles = BTreeMap<Kind, Option<Primary>>;

/// What one member of a primary offers its secondaries.
pub struct Source {
    pub(crate) replica: Arc<dyn Changes>,
    pub(crate) settings: SourceSettings,
    pub(crate) clock: Clock,
    pub(crate) roles: watch::Sender<Roles>,
    pub(crate) heard: watch::Sender<BTreeMap<Kind, Heard>>,
    pub(crate) progress: Mutex<BTreeMap<(Kind, String), Known>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("roles", &*self.roles.borrow()).finish_non_exhaustive()
    }
}

impl Source {
    /// One that is no primary yet. Somebody has to run [`Self::keep_log`].
    #[must_use]
    pub fn new(replica: Arc<dyn Changes>, settings: SourceSettings, clock: Clock) -> Arc<Self> {
        let (roles, heard) = (watch::Sender::new(Roles::new()), watch::Sender::new(BTreeMap::new()));
        Arc::new(Self { replica, settings, clock, roles, heard, progress: Mutex::default() })
    }

    /// What the cluster is now: called whenever a role or a secondary changes, on every member. Streams that no longer
    /// should be end at once.
    pub fn set_primary(&self, kind: Kind, primary: Option<Primary>) {
        if let Some(primary) = &primary {
            let is_over = |heard: &Heard| heard.epoch <= primary.epoch;
            self.heard
                .send_if_modified(|all| all.get(&kind).is_some_and(is_over) && all.remove(&kind).is_some());
        }
        let known = |id: &String| primary.as_ref().is_some_and(|primary| primary.secondaries.contains(id));
        self.progress.lock().retain(|(of, id), _| *of != kind || known(id));
        self.roles.send_if_modified(|roles| roles.insert(kind, primary.clone()) != Some(primary));
    }

    /// The newest epoch that was heard of, by kind, while it is newer than the cluster's own: a primary that hears one
    /// must take no writes any more.
    #[must_use]
    pub fn heard(&self) -> watch::Receiver<BTreeMap<Kind, Heard>> {
        self.heard.subscribe()
    }

    /// How far the known secondaries are. Only what came to this member.
    #[must_use]
    pub fn secondaries(&self, kind: Kind) -> Vec<SecondaryStatus> {
        let progress = self.progress.lock();
        progress.iter().filter(|((of, _), _)| *of == kind).map(|(_, known)| known.status.clone()).collect()
    }

    /// Answers a question of the secondary `from`, whom the caller has verified; `sieve` says what it gets.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn serve(
        &self,
        from: &str,
        sieve: &Sieve,
        call: Call,
        payload: Bytes,
    ) -> Result<Bytes, Refusal> {
        match call {
            Call::Acknowledge => self.acknowledge(from, sieve.kind, payload).await,
            Call::Announce => self.announced(from, sieve.kind, payload),
            Call::Present => self.present(from, sieve.kind).await,
            Call::Ask | Call::Follow | Call::Copy | Call::Compare => {
                Err(Refusal::Malformed("this call is not answered with one message".to_owned()))
            }
        }
    }

    /// Answers a question of the secondary `from` with a stream.
    ///
    /// # Errors
    /// See [`Refusal`]. Later ones end the stream.
    pub async fn stream(
        self: &Arc<Self>,
        from: &str,
        sieve: &Sieve,
        call: Call,
        payload: Bytes,
    ) -> Result<PayloadStream, Refusal> {
        match call {
            Call::Follow => self.follow(from, sieve.kind, Arc::new(sieve.clone()), payload).await,
            Call::Acknowledge | Call::Announce | Call::Ask | Call::Copy | Call::Compare | Call::Present => {
                Err(Refusal::Malformed("this call is not answered with a stream".to_owned()))
            }
        }
    }

    /// Answers [`Call::Follow`] of the secondary `from`, of which `sieves` says what it gets of each state.
    ///
    /// # Errors
    /// See [`Refusal`]. Later ones end the stream: [`Refusal::Gone`] when what it gets has changed.
    pub async fn follow(
        self: &Arc<Self>,
        from: &str,
        kind: Kind,
        sieves: Arc<dyn Sieves>,
        payload: Bytes,
    ) -> Result<PayloadStream, Refusal> {
        let cursor = self.hear_cursor(from, kind, payload).await?;
        Ok(crate::follow::stream(self.clone(), from, kind, sieves, cursor))
    }

    /// The epoch in which `from` is served.
    ///
    /// # Errors
    /// When it is not, and why.
    pub fn admit(&self, from: &str, kind: Kind) -> Result<Epoch, Refusal> {
        let epoch = match self.roles.borrow().get(&kind) {
            Some(Some(primary)) if primary.secondaries.contains(from) => match primary.fence {
                Some(fence) => return Err(Refusal::Fenced(fence)),
                None => primary.epoch,
            },
            Some(Some(_)) => return Err(Refusal::Revoked),
            Some(None) => return Err(Refusal::NotPrimary),
            None => return Err(Refusal::Busy("this node does not know yet what its cluster is".to_owned())),
        };
        match self.heard.borrow().get(&kind) {
            Some(heard) if heard.epoch > epoch => Err(Refusal::Fenced(heard.epoch)),
            _ => Ok(epoch),
        }
    }

    pub(crate) fn note(&self, from: &str, kind: Kind, change: impl FnOnce(&mut SecondaryStatus)) {
        let mut progress = self.progress.lock();
        let status = &mut progress.entry((kind, from.to_owned())).or_default().status;
        if status.id.is_empty() {
            from.clone_into(&mut status.id);
        }
        change(status);
    }

    pub(crate) fn acknowledged(&self, from: &str, kind: Kind) -> Option<u64> {
        let progress = self.progress.lock();
        progress.get(&(kind, from.to_owned()))?.status.acknowledged.map(|cursor| cursor.index)
    }

    async fn acknowledge(&self, from: &str, kind: Kind, payload: Bytes) -> Result<Bytes, Refusal> {
        let cursor = self.hear_cursor(from, kind, payload).await?;
        self.note(from, kind, |status| status.acknowledged = Some(cursor));
        let (applied, now_ms) = (self.replica.view().index(), (self.clock)());
        if let Some(known) = self.progress.lock().get_mut(&(kind, from.to_owned())) {
            known.has(cursor.index, applied, now_ms);
        }
        Ok(self.answer(self.admit(from, kind)?))
    }

    /// How far this cluster is, which is known to lead: at least as far as anybody who asks can have heard.
    async fn present(&self, from: &str, kind: Kind) -> Result<Bytes, Refusal> {
        self.replica.read_barrier().await.map_err(|err| Refusal::Busy(err.to_string()))?;
        let now_ms = (self.clock)();
        self.note(from, kind, |status| status.heard_at_ms = Some(now_ms));
        Ok(self.answer(self.admit(from, kind)?))
    }

    fn answer(&self, epoch: Epoch) -> Bytes {
        Answer { epoch, applied: self.replica.view().index(), clock_ms: (self.clock)() }.encode().into()
    }

    /// The cursor that the message carries, once it is known to be of this cluster's history.
    async fn hear_cursor(&self, from: &str, kind: Kind, payload: Bytes) -> Result<Cursor, Refusal> {
        let mut epoch = self.admit(from, kind)?;
        let CursorMessage(cursor) = CursorMessage::decode(&mut Reader::new(payload)).map_err(malformed)?;
        let now_ms = (self.clock)();
        self.note(from, kind, |status| status.heard_at_ms = Some(now_ms));
        credible(cursor.epoch, epoch)?;
        if cursor.epoch > epoch {
            epoch = self.epoch_once_known(from, kind, cursor.epoch).await?;
        }
        if cursor.epoch > epoch {
            return Err(self.hear(kind, Heard { epoch: cursor.epoch, ..Heard::default() }));
        }
        match self.check(&cursor) {
            // This member may only be behind.
            Err(Refusal::Forked(_)) => {
                let current = self.replica.read_barrier().await;
                current.map_err(|err| Refusal::Busy(err.to_string()))?;
                self.check(&cursor)?;
            }
            checked => checked?,
        }
        Ok(cursor)
    }

    /// The epoch here, once this member is not behind: it may have been another one of this cluster that told the secondary of
    /// `wanted`, and a member learns what its cluster is a moment after it has applied it.
    async fn epoch_once_known(&self, from: &str, kind: Kind, wanted: Epoch) -> Result<Epoch, Refusal> {
        self.replica.read_barrier().await.map_err(|err| Refusal::Busy(err.to_string()))?;
        let mut roles = self.roles.subscribe();
        let deadline = Instant::now() + ROLE_PATIENCE;
        loop {
            roles.borrow_and_update();
            let epoch = self.admit(from, kind)?;
            if epoch >= wanted || !matches!(timeout_at(deadline, roles.changed()).await, Ok(Ok(()))) {
                return Ok(epoch);
            }
        }
    }

    fn check(&self, cursor: &Cursor) -> Result<(), Refusal> {
        let view = self.replica.view();
        let history = History::load(view.as_ref()).map_err(|err| Refusal::Busy(err.to_string()))?;
        history.check(cursor, view.index(), self.replica.term_at(cursor.index))
    }

    /// Remembers a newer epoch; answers what its bringer is told.
    fn hear(&self, kind: Kind, news: Heard) -> Refusal {
        let epoch = news.epoch;
        self.heard.send_if_modified(|heard| {
            let before = heard.entry(kind).or_default();
            // An announcement says more than a cursor does.
            let is_news = (news.epoch, news.followed.is_some()) > (before.epoch, before.followed.is_some());
            if is_news {
                *before = news;
            }
            is_news
        });
        Refusal::Fenced(epoch)
    }

    fn announced(&self, from: &str, kind: Kind, payload: Bytes) -> Result<Bytes, Refusal> {
        let admitted = self.admit(from, kind);
        // One that is fenced already may still learn addresses, or of an epoch that is newer yet.
        let epoch = match admitted {
            Ok(epoch) => epoch,
            Err(Refusal::Fenced(_)) => self.own_epoch(kind),
            Err(refusal) => return Err(refusal),
        };
        let news = Announcement::decode(&mut Reader::new(payload)).map_err(malformed)?;
        credible(news.epoch, epoch)?;
        let now_ms = (self.clock)();
        self.note(from, kind, |status| status.heard_at_ms = Some(now_ms));
        match news.epoch.cmp(&epoch) {
            std::cmp::Ordering::Less => Err(Refusal::Fenced(epoch)),
            std::cmp::Ordering::Equal => Err(Refusal::Forked(format!(
                "two clusters are primaries in epoch {}: demote the one whose writes may go, then make it follow the other",
                epoch.0
            ))),
            std::cmp::Ordering::Greater => {
                // Whoever announces is told that it was heard, not that it is refused.
                let Announcement { epoch: newer, addresses, followed } = news;
                let _told = self.hear(kind, Heard { epoch: newer, addresses, followed: Some(followed) });
                Ok(self.answer(epoch))
            }
        }
    }

    fn own_epoch(&self, kind: Kind) -> Epoch {
        self.roles
            .borrow()
            .get(&kind)
            .and_then(Option::as_ref)
            .map_or(Epoch::default(), |primary| primary.epoch)
    }
}

/// Epochs by which another cluster may be ahead: one a change of roles, and roles change by hand. Defends the primary against
/// a secondary that would fence it at the end of all numbers.
const EPOCHS_AHEAD_MAX: u64 = 1 << 16;

fn credible(epoch: Epoch, own: Epoch) -> Result<(), Refusal> {
    if epoch.0.saturating_sub(own.0) <= EPOCHS_AHEAD_MAX {
        return Ok(());
    }
    Err(Refusal::Malformed(format!("epoch {} cannot be, since this cluster is at {}", epoch.0, own.0)))
}

pub(crate) fn malformed(problem: Malformed) -> Refusal {
    Refusal::Malformed(problem.to_string())
}
