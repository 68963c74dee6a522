//! The side that copies: what comes is verified, merged with the secondary's own entries, and made a backup.

use std::collections::VecDeque;
use std::sync::Arc;

use arca_danger::Bug;
use arca_raft_storage::state::export::KEPT_CLASS;
use arca_raft_storage::state::{Composer, StateError};
use arca_raft_storage::{Key, SnapshotStream, Value};
use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::{EntriesHash, Entry, Message};
use crate::codec::Malformed;
use crate::link::{LinkError, PayloadStream};
use crate::pinned::Position;
use crate::progress::{Progress, Stage};
use crate::sieve::Sieve;

/// Most bytes of boot entries: they are held in memory.
const BOOT_BYTES_MAX: usize = 4 << 20;
/// Class of the entries that are there before anything can be opened.
const BOOT_CLASS: u8 = 0;

/// A copy that cannot be used. Nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The connection broke, or the other side ended it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What came is not a copy, or not a whole one.
    #[error("the copy is damaged: {0}")]
    Damaged(&'static str),
    /// What came cannot be stored.
    #[error(transparent)]
    State(#[from] StateError),
    /// The secondary's own entries do not go with it.
    #[error("own entry {0} of the secondary cannot be kept: {1}")]
    Own(usize, &'static str),
}

impl From<Malformed> for CopyError {
    fn from(malformed: Malformed) -> Self {
        Self::Damaged(malformed.0)
    }
}

/// A copy of which the beginning has come: where it is from, and the entries that open the rest.
pub struct Incoming {
    position: Position,
    boot: Vec<Entry>,
    entries: Entries,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Incoming {
    /// Takes in the beginning of a copy.
    ///
    /// # Errors
    /// When it is none, or the connection breaks.
    pub async fn begin(mut stream: PayloadStream, progress: Arc<Progress>) -> Result<Self, CopyError> {
        let Some(first) = stream.next().await else { return Err(CopyError::Damaged("it is empty")) };
        let Message::Head(position) = Message::decode(first?)? else {
            return Err(CopyError::Damaged("it has no beginning"));
        };
        progress.begin(Stage::Copy, 0, 0);
        let mut entries = Entries::new(stream, position, progress);
        let index = position.index + u64::from(arca_danger::is(Bug::CopyTooNew));
        let position = Position { index, ..position };
        let mut boot = Vec::new();
        let mut size = 0;
        while let Some((key, value)) = entries.next().await? {
            if key.first() != Some(&BOOT_CLASS) {
                entries.ahead.push_front((key, value));
                break;
            }
            size += key.len() + value.len();
            if size > BOOT_BYTES_MAX {
                return Err(CopyError::Damaged("too much at its beginning"));
            }
            boot.push((key, value));
        }
        Ok(Self { position, boot, entries })
    }

    /// Where in the history of the cluster that is copied the copy is.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The entries of class `boot`: with the key shares, they open the rest.
    #[must_use]
    pub fn boot(&self) -> &[Entry] {
        &self.boot
    }

    /// The copy as a backup for [`arca_raft_storage::Replica::import`], together with `own`: the entries that a copy does not
    /// hold and an import does not keep, ascending by key. None of them may pass `sieve`, and everything else must: so no
    /// key is in both. The stream ends with an error, and without its last frame, when the copy turns out damaged.
    ///
    /// # Errors
    /// When `own` is not as it has to be.
    pub fn into_import(
        self,
        sieve: Sieve,
        own: Vec<(Key, Value)>,
        cluster: &[u8],
    ) -> Result<SnapshotStream, CopyError> {
        check_own(&sieve, &own)?;
        let (composer, head) = Composer::new(cluster, self.position.index);
        let mut entries = self.entries;
        for entry in self.boot.into_iter().rev() {
            entries.ahead.push_front(entry);
        }
        let merge = Merge {
            entries,
            own: own.into(),
            sieve,
            composer: Some(composer),
            frames: VecDeque::from([head]),
        };
        let frames = stream::unfold(merge, |mut merge| async move {
            let frame = merge.next().await.transpose()?;
            if frame.is_err() {
                merge.composer = None;
                merge.frames.clear();
            }
            Some((frame.map_err(|err| err.to_string()), merge))
        });
        Ok(frames.boxed())
    }
}

fn check_own(sieve: &Sieve, own: &[(Key, Value)]) -> Result<(), CopyError> {
    let mut last: Option<&Key> = None;
    for (at, (key, _)) in own.iter().enumerate() {
        if last.is_some_and(|last| last >= key) {
            return Err(CopyError::Own(at, "keys do not ascend"));
        }
        if sieve.passes(key) {
            return Err(CopyError::Own(at, "the primary has a say in it"));
        }
        if key.first().is_none_or(|class| *class >= KEPT_CLASS) {
            return Err(CopyError::Own(at, "an import keeps it by itself"));
        }
        last = Some(key);
    }
    Ok(())
}

/// Entries as they come, verified.
struct Entries {
    stream: PayloadStream,
    ahead: VecDeque<Entry>,
    last_key: Bytes,
    hash: EntriesHash,
    progress: Arc<Progress>,
    counts: u64,
    is_over: bool,
}

/// Most reports of how much there is: for states of a few petabytes.
const COUNTS_MAX: u64 = 1 << 26;

impl Entries {
    fn new(stream: PayloadStream, position: Position, progress: Arc<Progress>) -> Self {
        let hash = EntriesHash::new(position);
        let (ahead, last_key) = (VecDeque::new(), Bytes::new());
        Self { stream, ahead, last_key, hash, progress, counts: 0, is_over: false }
    }

    /// `None` at the end of a copy that is whole.
    async fn next(&mut self) -> Result<Option<Entry>, CopyError> {
        loop {
            if let Some(entry) = self.ahead.pop_front() {
                return Ok(Some(entry));
            }
            if self.is_over {
                return Ok(None);
            }
            let Some(payload) = self.stream.next().await else {
                return Err(CopyError::Damaged("it ends early"));
            };
            self.take(Message::decode(payload?)?)?;
        }
    }

    fn take(&mut self, message: Message) -> Result<(), CopyError> {
        match message {
            Message::Head(_) => Err(CopyError::Damaged("it begins twice")),
            Message::Count { entries, bytes } => {
                self.counts += 1;
                if self.counts > COUNTS_MAX {
                    return Err(CopyError::Damaged("it is counted without end"));
                }
                self.progress.expect(entries, bytes);
                Ok(())
            }
            Message::Batch(entries) if entries.is_empty() => Err(CopyError::Damaged("an empty batch")),
            Message::Batch(entries) => {
                for (key, value) in &entries {
                    if *key <= self.last_key {
                        return Err(CopyError::Damaged("keys do not ascend"));
                    }
                    self.hash.add(key, value);
                    self.progress.add(1, (key.len() + value.len()) as u64);
                    self.last_key = key.clone();
                }
                self.ahead.extend(entries);
                Ok(())
            }
            end @ Message::End { .. } if end == self.hash.end() => {
                self.is_over = true;
                self.progress.end();
                Ok(())
            }
            Message::End { .. } => Err(CopyError::Damaged("number or hash of its entries do not match")),
        }
    }
}

struct Merge {
    entries: Entries,
    own: VecDeque<(Key, Value)>,
    sieve: Sieve,
    /// `None` once everything was given out.
    composer: Option<Composer>,
    frames: VecDeque<Bytes>,
}

impl Merge {
    async fn next(&mut self) -> Result<Option<Bytes>, CopyError> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(Some(frame));
            }
            let Some(composer) = &mut self.composer else { return Ok(None) };
            let entry = self.entries.next().await?;
            if entry.as_ref().is_some_and(|(key, _)| !self.sieve.passes(key)) {
                return Err(CopyError::Damaged("it holds what it should not"));
            }
            while let Some((key, value)) =
                self.own.pop_front_if(|(own, _)| entry.as_ref().is_none_or(|(key, _)| own.as_slice() < key))
            {
                self.frames.extend(composer.push(&key, &value)?);
            }
            match entry {
                Some((key, value)) => self.frames.extend(composer.push(&key, &value)?),
                None => self.frames.extend(self.composer.take().map_or_else(Vec::new, Composer::finish)),
            }
        }
    }
}
