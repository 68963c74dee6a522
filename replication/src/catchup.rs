//! What a sink does when it cannot follow: compares the two states, and tells how far it is.

use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::Replica;
use async_trait::async_trait;
use tokio::time::sleep;

use crate::codec::Malformed;
use crate::compare::{CompareError, Comparison, OwnRecords};
use crate::cursor::Cursor;
use crate::link::Link;
use crate::pace::Pace;
use crate::progress::{Figures, Progress, Stage};
use crate::sieve::Sieve;
use crate::sink::{Catchup, CatchupError};
use crate::status::{CatchupProgress, State, Tell};

/// How often it is told.
const TELL: Duration = Duration::from_millis(250);

/// Compares this secondary's state with its primary's.
#[derive(Debug)]
pub struct Comparing {
    replica: Arc<dyn Replica>,
    sieve: Sieve,
    pace: Arc<Pace>,
    own: Option<Arc<dyn OwnRecords>>,
}

impl Comparing {
    /// Of what passes `sieve`, no faster than `pace`.
    #[must_use]
    pub const fn new(replica: Arc<dyn Replica>, sieve: Sieve, pace: Arc<Pace>) -> Self {
        Self { replica, sieve, pace, own: None }
    }

    /// The same with what has to be written together with the primary's keys.
    #[must_use]
    pub fn with_own(self, own: Arc<dyn OwnRecords>) -> Self {
        Self { own: Some(own), ..self }
    }
}

#[async_trait]
impl Catchup for Comparing {
    async fn catch_up(&self, link: &Arc<dyn Link>, tell: &Tell) -> Result<Cursor, CatchupError> {
        let progress = Arc::new(Progress::default());
        let comparison = Comparison {
            link: Arc::clone(link),
            replica: Arc::clone(&self.replica),
            sieve: self.sieve.clone(),
            pace: Arc::clone(&self.pace),
            progress: Arc::clone(&progress),
            own: self.own.clone(),
        };
        tell.state(State::MerkleDiff);
        let telling = async {
            loop {
                pass_on(&progress.figures(), tell);
                sleep(TELL).await;
            }
        };
        let result = tokio::select! {
            biased;
            result = comparison.run() => result,
            never = telling => never,
        };
        pass_on(&progress.figures(), tell);
        Ok(result?)
    }
}

fn pass_on(figures: &Figures, tell: &Tell) {
    match figures.stage {
        Stage::Diff => tell.state(State::MerkleDiff),
        Stage::Sync => tell.state(State::MerkleSync),
        Stage::Copy | Stage::Idle => {}
    }
    tell.catchup(CatchupProgress {
        entries: figures.entries,
        entries_total: figures.entries_total,
        bytes: figures.bytes,
        bytes_total: figures.bytes_total,
        seconds_left: figures.left.map(|left| left.as_secs()),
    });
}

impl From<CompareError> for CatchupError {
    fn from(err: CompareError) -> Self {
        match err {
            CompareError::Differs => Malformed("the states still differ after they were compared").into(),
            CompareError::Keys(problem) => Self::Keys(problem),
            CompareError::Kv(err) => err.into(),
            CompareError::Link(err) => err.into(),
            CompareError::Malformed(problem) => problem.into(),
            CompareError::Propose(err) => err.into(),
            CompareError::Replica(err) => err.into(),
        }
    }
}
