//! The sink's end of a session: questions, each with the answer that goes with it.

use std::time::Duration;

use tokio::time::timeout;

use super::message::{Answer, LeafPairs, Purpose, Question, SessionId, Then};
use super::sink::CompareError;
use super::trie::{Hashes, Total};
use crate::codec::Malformed;
use crate::copy::Entry;
use crate::link::{Call, Link, LinkError};
use crate::pace::Pace;
use crate::pinned::Position;

/// For an answer, for which up to 64 MiB are read.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const OTHER: Malformed = Malformed("an answer to another question");

/// One session.
pub(super) struct Session<'a> {
    link: &'a dyn Link,
    pace: &'a Pace,
    id: SessionId,
    pub(super) hashes: Hashes,
    pub(super) position: Position,
}

impl<'a> Session<'a> {
    pub(super) async fn begin(
        link: &'a dyn Link,
        pace: &'a Pace,
        purpose: Purpose,
    ) -> Result<Self, CompareError> {
        match ask(link, pace, &Question::Begin(purpose)).await? {
            Answer::Begun { session, key, position } => {
                Ok(Self { link, pace, id: session, hashes: Hashes(key), position })
            }
            _ => Err(OTHER.into()),
        }
    }

    /// Depth and total, once everything was read there. Keeps the session, too.
    pub(super) async fn shape(&self) -> Result<Option<(u32, Total)>, CompareError> {
        match self.ask(&Question::Shape(self.id)).await? {
            Answer::Counting(_) => Ok(None),
            Answer::Shape { depth, total } if depth == total.depth() => Ok(Some((depth, total))),
            Answer::Shape { .. } => Err(Malformed("a shape that does not go with its size").into()),
            _ => Err(OTHER.into()),
        }
    }

    pub(super) async fn keys(&self, pairs: Vec<(u64, u64)>) -> Result<Vec<Entry>, CompareError> {
        match self.ask(&Question::Keys(self.id, pairs)).await? {
            Answer::Keys(entries) => Ok(entries),
            _ => Err(OTHER.into()),
        }
    }

    /// The first children of each node, `each` of them.
    pub(super) async fn children(
        &self,
        level: u32,
        nodes: Vec<u32>,
        each: usize,
    ) -> Result<Vec<u64>, CompareError> {
        let count = nodes.len() * each;
        match self.ask(&Question::Children { session: self.id, level, nodes }).await? {
            Answer::Children(sums) if sums.len() == count => Ok(sums),
            _ => Err(OTHER.into()),
        }
    }

    pub(super) async fn table(
        &self,
        part: u64,
        depth: u32,
        leaves: Vec<LeafPairs>,
    ) -> Result<(), CompareError> {
        match self.ask(&Question::Table { session: self.id, part, depth, leaves }).await? {
            Answer::Taken => Ok(()),
            _ => Err(OTHER.into()),
        }
    }

    pub(super) async fn differences(&self, from: &[u8]) -> Result<(Vec<Entry>, Then), CompareError> {
        match self.ask(&Question::Differences(self.id, from.to_vec().into())).await? {
            Answer::Differences(entries, then) => Ok((entries, then)),
            _ => Err(OTHER.into()),
        }
    }

    /// Best effort: a session that is not used ends by itself.
    pub(super) async fn end(self) {
        if let Err(err) = self.ask(&Question::End(self.id)).await {
            tracing::debug!(%err, "the end of a comparison was not heard");
        }
    }

    async fn ask(&self, question: &Question) -> Result<Answer, CompareError> {
        ask(self.link, self.pace, question).await
    }
}

async fn ask(link: &dyn Link, pace: &Pace, question: &Question) -> Result<Answer, CompareError> {
    let question = question.encode();
    let size = question.len();
    let answer = timeout(ANSWER_TIMEOUT, link.call(Call::Compare, question)).await;
    let answer = answer.map_err(|_| LinkError::Unreachable("no answer in time".to_owned()))??;
    pace.take(size + answer.len()).await;
    Ok(Answer::decode(answer)?)
}
