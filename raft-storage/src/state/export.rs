//! A whole state, read out in frames: for a member that is too far behind, and for backups.
//!
//! One mechanism for both, reading in key order from a snapshot of the store: it needs no room on disk, holds one
//! frame and one entry in memory, works over every [`crate::Kv`], and does not depend on RocksDB's file format.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::frame::{Encoder, PAYLOAD_BYTES_MAX};
use super::meta::{Header, META_KEYS};
use super::view::View;
use crate::kv::{KvError, Visit};
use crate::{SnapshotStream, codec};

/// Which entries. The bytes are in backups for ever: never renumber, never reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// Everything another member of the same cluster must have, staged entries included.
    Member = 1,
    /// What a backup holds: keys whose class byte is below [`KEPT_CLASS`].
    Backup = 2,
}

/// Class byte from which entries belong to this cluster alone: not in a backup, untouched by an import.
pub const KEPT_CLASS: u8 = 3;

impl Scope {
    pub(super) const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Member),
            2 => Some(Self::Backup),
            _ => None,
        }
    }

    /// The first key that is not in it.
    pub(super) const fn end(self) -> [u8; 1] {
        match self {
            Self::Member => META_KEYS,
            Self::Backup => [KEPT_CLASS],
        }
    }
}

#[derive(Debug)]
enum Stage {
    Header,
    Data,
    Trailer,
    Done,
}

/// Gives out the frames of one state, in order.
#[derive(Debug)]
pub struct Exporter {
    view: Arc<View>,
    scope: Scope,
    header: Header,
    encoder: Encoder,
    stage: Stage,
    /// Where to go on.
    next_key: Vec<u8>,
    /// Read but not given out yet.
    pending: Vec<u8>,
    is_read_out: bool,
    entries: u64,
}

impl Exporter {
    pub(super) fn new(view: Arc<View>, scope: Scope, cluster: &[u8]) -> Self {
        let header = Header { cluster: cluster.to_vec(), meta: view.meta().clone() };
        Self {
            view,
            scope,
            header,
            encoder: Encoder::default(),
            stage: Stage::Header,
            next_key: Vec::new(),
            pending: Vec::new(),
            is_read_out: false,
            entries: 0,
        }
    }

    /// How far the state is.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The same frames as a stream. Others get a turn between two frames.
    #[must_use]
    pub fn into_stream(self) -> SnapshotStream {
        stream::unfold(self, |mut exporter| async move {
            let frame = exporter.next()?.map_err(|err| err.to_string());
            tokio::task::yield_now().await;
            Some((frame, exporter))
        })
        .boxed()
    }

    fn data(&mut self) -> Result<Option<Bytes>, KvError> {
        if self.pending.len() < PAYLOAD_BYTES_MAX && !self.is_read_out {
            self.read_on()?;
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        let rest = self.pending.split_off(self.pending.len().min(PAYLOAD_BYTES_MAX));
        let payload = std::mem::replace(&mut self.pending, rest);
        Ok(Some(self.encoder.data(&payload)))
    }

    fn read_on(&mut self) -> Result<(), KvError> {
        let Self { view, scope, next_key, pending, entries, .. } = self;
        let mut last = None;
        view.snapshot().visit(&std::mem::take(next_key), Some(&scope.end()), &mut |key, value| {
            codec::put_bytes(pending, key);
            codec::put_bytes(pending, value);
            *entries += 1;
            if pending.len() < PAYLOAD_BYTES_MAX {
                return Visit::Next;
            }
            last = Some(key.to_vec());
            Visit::Stop
        })?;
        match last {
            Some(mut key) => {
                key.push(0);
                self.next_key = key;
            }
            None => self.is_read_out = true,
        }
        Ok(())
    }
}

impl Iterator for Exporter {
    type Item = Result<Bytes, KvError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.stage {
            Stage::Header => {
                self.stage = Stage::Data;
                Some(Ok(self.encoder.header(self.scope, &self.header)))
            }
            Stage::Data => match self.data() {
                Ok(Some(frame)) => Some(Ok(frame)),
                Ok(None) => {
                    self.stage = Stage::Trailer;
                    self.next()
                }
                Err(err) => {
                    self.stage = Stage::Done;
                    Some(Err(err))
                }
            },
            Stage::Trailer => {
                self.stage = Stage::Done;
                Some(Ok(self.encoder.trailer(self.entries)))
            }
            Stage::Done => None,
        }
    }
}
