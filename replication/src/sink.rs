//! The side that follows: takes segments from the primary and applies them here, exactly once.
//!
//! Runs on the active member. **Invariants.** What a segment writes and the cursor behind it are one write set, which is
//! refused if the cursor moved meanwhile: so nothing is applied twice or left out, whoever crashes. Nothing is applied
//! that does not follow what is applied, or is of an older epoch, or that a secondary must not take. Where following
//! would mean to guess, it stops and says why.
//! Read next: `following.rs` for one stream, [`crate::source`] for the other end.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arca_raft_storage::{KvError, ProposeError, Replica, ReplicaError, Version, Write, WriteSet, watch};
use async_trait::async_trait;
use tokio::time::sleep;

use crate::codec::Malformed;
use crate::cursor::Cursor;
use crate::following;
use crate::link::{Link, LinkError, Refusal};
use crate::record::{ForgetError, cursor_key, forget_cursor, load_cursor};
use crate::sieve::{Kind, Sieve};
use crate::source::Clock;
use crate::status::{SinkStatus, State, Tell};

/// Makes the state here that of the primary where following cannot: by comparing both.
#[async_trait]
pub trait Catchup: Debug + Send + Sync {
    /// Compares the two states, takes over what differs, and at last stores the cursor of the state that was compared with
    /// ([`Cursor::after_copy`]) in the record of that kind. The record holds an unknown cursor until then, so that a crash
    /// half-way begins anew. Answers what was stored.
    async fn catch_up(&self, link: &Arc<dyn Link>, tell: &Tell) -> Result<Cursor, CatchupError>;
}

/// Why a comparison did not come to its end. It is tried again, unless the other side refused for good.
#[derive(Debug, thiserror::Error)]
pub enum CatchupError {
    /// The other side's keys are not to be taken over.
    #[error("{0}")]
    Keys(String),
    /// The state here cannot be read.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The other side did not answer, or refused.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The other side sent what makes no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Something could not be written.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The state here could not be brought up to date.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

/// How a sink goes about it.
#[derive(Clone, Copy, Debug)]
pub struct SinkSettings {
    /// A write set takes no further segment beyond this.
    pub set_bytes: usize,
    /// Largest write set that this cluster takes; larger segments are cut.
    pub set_bytes_max: usize,
    /// Nothing more is received while so much waits to be committed.
    pub queue_bytes: usize,
    /// For a stream to begin, and for an answer.
    pub answer_timeout: Duration,
    /// A stream that was silent for so long is dead.
    pub silence: Duration,
    /// Between two acknowledgements while there is something new.
    pub acknowledge: Duration,
    /// Between two of them when there is not: they tell the primary that this secondary is there.
    pub presence: Duration,
    /// First pause before trying again; doubled up to the last.
    pub pause_min: Duration,
    /// Last pause.
    pub pause_max: Duration,
}

impl Default for SinkSettings {
    fn default() -> Self {
        Self {
            set_bytes: 1 << 20,
            set_bytes_max: (7 << 20) - 1024,
            queue_bytes: 4 << 20,
            answer_timeout: Duration::from_secs(10),
            silence: Duration::from_secs(5),
            acknowledge: Duration::from_millis(100),
            presence: Duration::from_secs(1),
            pause_min: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
        }
    }
}

/// Why a sink does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// This member does not lead its cluster: the one that does has to.
    NotLeader,
    /// The primary will not, for good: an operator has to decide.
    Refused(Refusal),
    /// Something is wrong here that trying again does not change.
    Failed(String),
}

/// Why a round ended.
#[derive(Debug)]
pub(crate) enum Break {
    /// It begins anew at once.
    Anew,
    /// It begins anew after a pause.
    Again(String),
    /// It is over.
    End(Ended),
}

impl From<Refusal> for Break {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            // The caller of a stream knows what to do about it.
            Refusal::Gone
            | Refusal::Forked(_)
            | Refusal::Replaced
            | Refusal::Fenced(_)
            | Refusal::NotPrimary
            | Refusal::Revoked => Self::End(Ended::Refused(refusal)),
            Refusal::Busy(_) | Refusal::Malformed(_) | Refusal::Unanswered(_) => {
                Self::Again(refusal.to_string())
            }
        }
    }
}

impl From<LinkError> for Break {
    fn from(err: LinkError) -> Self {
        match err {
            LinkError::Refused(refusal) => refusal.into(),
            LinkError::Unreachable(_) => Self::Again(err.to_string()),
        }
    }
}

impl From<Malformed> for Break {
    fn from(problem: Malformed) -> Self {
        Self::Again(format!("the primary sent what makes no sense: {problem}"))
    }
}

impl From<ProposeError> for Break {
    fn from(err: ProposeError) -> Self {
        match err {
            // The record says what became of it.
            ProposeError::Conflict | ProposeError::OutcomeUnknown => Self::Anew,
            ProposeError::NotLeader { .. } => Self::End(Ended::NotLeader),
            ProposeError::DiskFull => Self::Again(err.to_string()),
            ProposeError::Invalid(_) | ProposeError::TooLarge { .. } => {
                Self::End(Ended::Failed(err.to_string()))
            }
        }
    }
}

impl From<ForgetError> for Break {
    fn from(err: ForgetError) -> Self {
        match err {
            ForgetError::Kv(err) => err.into(),
            ForgetError::Propose(err) => err.into(),
        }
    }
}

impl From<KvError> for Break {
    fn from(err: KvError) -> Self {
        Self::End(Ended::Failed(err.to_string()))
    }
}

/// Follows the primary.
pub struct Sink {
    pub(crate) replica: Arc<dyn Replica>,
    pub(crate) sieve: Sieve,
    catchup: Arc<dyn Catchup>,
    pub(crate) clock: Clock,
    pub(crate) settings: SinkSettings,
    /// Largest write set, once a larger one was refused.
    pub(crate) set_bytes_max: AtomicUsize,
    /// The newest entry that somebody waits for.
    pub(crate) wanted: watch::Sender<u64>,
    pub(crate) tell: Tell,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("kind", &self.kind()).finish_non_exhaustive()
    }
}

impl Sink {
    /// One that takes what passes `sieve`, and nothing else whatever the primary sends.
    #[must_use]
    pub fn new(
        replica: Arc<dyn Replica>,
        sieve: Sieve,
        catchup: Arc<dyn Catchup>,
        settings: SinkSettings,
        clock: Clock,
    ) -> Self {
        let set_bytes_max = AtomicUsize::new(settings.set_bytes_max);
        let wanted = watch::Sender::new(0);
        Self { replica, sieve, catchup, clock, settings, set_bytes_max, wanted, tell: Tell::default() }
    }

    /// What the secondary is for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.sieve.kind
    }

    /// Somebody waits until the primary's entry `index` is applied here: that there was nothing in it for this secondary is
    /// written down at once then, not in a while.
    pub fn want(&self, index: u64) {
        self.wanted.send_if_modified(|wanted| {
            let is_news = index > *wanted;
            *wanted = index.max(*wanted);
            is_news
        });
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<SinkStatus> {
        self.tell.watch()
    }

    /// Follows until `stop`, or until it cannot go on. May be run again.
    pub async fn run(&self, link: Arc<dyn Link>, stop: impl Future<Output = ()> + Send) -> Ended {
        self.tell.begin();
        let ended = tokio::select! {
            biased;
            () = stop => Ended::Stopped,
            ended = self.work(&link) => ended,
        };
        self.tell.end(&ended);
        ended
    }

    async fn work(&self, link: &Arc<dyn Link>) -> Ended {
        let mut pause = self.settings.pause_min;
        loop {
            let before = self.tell.progress();
            let problem = match self.round(link).await {
                Break::Anew => None,
                Break::Again(problem) => Some(problem),
                Break::End(ended) => return ended,
            };
            if self.tell.progress() != before {
                pause = self.settings.pause_min;
            }
            if let Some(problem) = problem {
                tracing::debug!(kind = ?self.kind(), %problem, "following the primary is tried again");
                self.tell.lose(&problem);
                sleep(pause).await;
                pause = pause.saturating_mul(2).min(self.settings.pause_max);
            }
        }
    }

    /// From the record to the next reason to look at it again.
    async fn round(&self, link: &Arc<dyn Link>) -> Break {
        match self.try_round(link).await {
            Ok(never) => match never {},
            Err(reason) => reason,
        }
    }

    async fn try_round(&self, link: &Arc<dyn Link>) -> Result<std::convert::Infallible, Break> {
        if let Err(err) = self.replica.read_barrier().await {
            return Err(Break::Again(err.to_string()));
        }
        let (cursor, version) = load_cursor(self.replica.view().as_ref(), self.kind())?;
        self.tell.at(&cursor);
        if cursor.is_unknown() {
            return Err(self.catch_up(link).await);
        }
        match following::run(self, link, cursor, version).await {
            // From here on the state is not followed from, even if this member crashes half-way through a comparison.
            Break::End(Ended::Refused(Refusal::Gone)) => {
                forget_cursor(self.replica.as_ref(), self.kind()).await?;
                Err(Break::Anew)
            }
            reason => Err(reason),
        }
    }

    async fn catch_up(&self, link: &Arc<dyn Link>) -> Break {
        self.tell.state(State::MerkleDiff);
        match self.catchup.catch_up(link, &self.tell).await {
            Ok(cursor) if cursor.is_unknown() => Break::Again("the comparison came to nothing".to_owned()),
            Ok(cursor) => {
                self.tell.at(&cursor);
                Break::Anew
            }
            // The state that was compared with is gone: another one is.
            Err(CatchupError::Link(LinkError::Refused(Refusal::Gone))) => {
                Break::Again(Refusal::Gone.to_string())
            }
            Err(CatchupError::Keys(problem)) => Break::Again(problem),
            Err(CatchupError::Link(err)) => err.into(),
            Err(CatchupError::Malformed(problem)) => problem.into(),
            Err(CatchupError::Propose(err)) => err.into(),
            Err(CatchupError::Kv(err)) => err.into(),
            Err(CatchupError::Replica(err)) => Break::Again(err.to_string()),
        }
    }

    /// A write set that is refused unless the cursor is the one of `version`; it moves it if `cursor` says so.
    pub(crate) fn set(&self, version: Version, writes: Vec<Write>, cursor: Option<&Cursor>) -> WriteSet {
        let mut set = WriteSet { reads: vec![(cursor_key(self.kind()), version)], writes };
        if let Some(cursor) = cursor {
            set.writes.push(Write::Put(cursor_key(self.kind()), cursor.encode()));
        }
        set
    }

    pub(crate) fn set_bytes_max(&self) -> usize {
        self.set_bytes_max.load(Ordering::Relaxed)
    }
}
