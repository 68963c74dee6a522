//! The side that is copied from.

use std::sync::Arc;

use arca_raft_storage::KvError;
use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::{BATCH, BATCH_BYTES, EntriesHash, Message, V1, put_entry};
use crate::link::{LinkError, PayloadStream, Refusal};
use crate::pace::Pace;
use crate::pinned::Pinned;

/// While it is counted what there is, the sink hears of it after this many bytes.
const COUNT_BYTES: u64 = 64 << 20;

/// Everything that passes the sieve, no faster than `pace`. The state is read twice: first to know how much it is, so that
/// the sink can say how long it will take. Dropping the stream ends it.
#[must_use]
pub fn stream(pinned: Pinned, pace: Arc<Pace>) -> PayloadStream {
    let hash = EntriesHash::new(pinned.position());
    let source = Source { pinned, pace, hash, stage: Stage::Head, count: (0, 0) };
    stream::unfold(source, |mut source| async move {
        match source.next().await {
            Ok(payload) => Some((Ok(payload?), source)),
            Err(err) => {
                source.stage = Stage::Done;
                let refusal = Refusal::Busy(format!("the state cannot be read: {err}"));
                Some((Err(LinkError::Refused(refusal)), source))
            }
        }
    })
    .boxed()
}

struct Source {
    pinned: Pinned,
    pace: Arc<Pace>,
    hash: EntriesHash,
    stage: Stage,
    count: (u64, u64),
}

/// With the key to go on from.
enum Stage {
    Head,
    Count(Vec<u8>),
    Entries(Vec<u8>),
    End,
    Done,
}

impl Source {
    async fn next(&mut self) -> Result<Option<Bytes>, KvError> {
        loop {
            let payload = match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Head => {
                    self.stage = Stage::Count(Vec::new());
                    Some(Message::Head(self.pinned.position()).encode())
                }
                Stage::Count(start) => Some(self.count(start).await?),
                Stage::Entries(start) => self.batch(&start)?,
                Stage::End => Some(self.hash.end().encode()),
                Stage::Done => return Ok(None),
            };
            // Others get a turn between two slices.
            tokio::task::yield_now().await;
            if let Some(payload) = payload {
                self.pace.take(payload.len()).await;
                return Ok(Some(payload));
            }
        }
    }

    /// Counts on, for a while.
    async fn count(&mut self, start: Vec<u8>) -> Result<Bytes, KvError> {
        let (mut read, mut next) = (0, Some(start));
        while let Some(start) = next.take() {
            let (entries, bytes) = &mut self.count;
            let slice = self.pinned.slice(&start, &mut |key, value| {
                *entries += 1;
                *bytes += (key.len() + value.len()) as u64;
                true
            })?;
            next = slice.next;
            read += slice.read as u64;
            if read >= COUNT_BYTES {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.stage = next.map_or_else(|| Stage::Entries(Vec::new()), Stage::Count);
        Ok(Message::Count { entries: self.count.0, bytes: self.count.1 }.encode())
    }

    fn batch(&mut self, start: &[u8]) -> Result<Option<Bytes>, KvError> {
        let Self { pinned, hash, .. } = self;
        let mut out = vec![V1, BATCH];
        let empty = out.len();
        let slice = pinned.slice(start, &mut |key, value| {
            hash.add(key, value);
            put_entry(&mut out, key, value);
            out.len() < BATCH_BYTES
        })?;
        self.stage = slice.next.map_or(Stage::End, Stage::Entries);
        Ok((out.len() > empty).then(|| out.into()))
    }
}
