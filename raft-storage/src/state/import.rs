//! Replacing the whole state by a backup, on every member, through the log.
//!
//! The leader verifies the backup as it cuts it into commands ([`Uploader`]); every member stages them in its store,
//! out of sight, and at the commit builds a new store from them and switches to it in one step. What is staged is
//! part of the replicated state: it survives crashes, and reaches members that catch up by a snapshot.

use super::frame::{Decoder, Part};
use super::load::{self, Entries, Loader};
use super::meta::{self, Header, Meta, OWN_KEYS};
use super::{Mark, Scope, StateError};
use crate::Version;
use crate::codec;
use crate::command::Command;
use crate::kv::{Batch, Kv, KvDraft, KvError, KvHome, Visit};

const STAGED_HEAD: [u8; 2] = [OWN_KEYS[0], 0];
const STAGED_CHUNKS: [u8; 2] = [OWN_KEYS[0], 1];
const STAGED_END: [u8; 2] = [OWN_KEYS[0], 2];
const RECORD_V1: u8 = 1;

/// What one command of an import does.
pub(super) struct Step {
    pub(super) outcome: Result<(), String>,
    /// To be written with the applied log id, to the store that is current afterwards.
    pub(super) changes: Batch,
    /// The store to switch to. It holds the applied log id already.
    pub(super) promote: Option<Box<dyn KvDraft>>,
}

impl Step {
    fn done(changes: Batch) -> Self {
        Self { outcome: Ok(()), changes, promote: None }
    }

    fn refused(reason: impl Into<String>) -> Self {
        Self { outcome: Err(reason.into()), changes: Batch::default(), promote: None }
    }
}

/// The import being staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    import: u64,
    chunks: u64,
}

impl Head {
    fn read(kv: &dyn Kv) -> Result<Option<Self>, KvError> {
        let Some(bytes) = kv.get(&STAGED_HEAD)? else { return Ok(None) };
        let parse =
            |reader: &mut codec::Reader<'_>| Ok(Self { import: reader.varint()?, chunks: reader.varint()? });
        meta::record(&STAGED_HEAD, &bytes, parse).map(Some)
    }

    fn write(self, batch: &mut Batch) {
        let mut bytes = vec![RECORD_V1];
        codec::put_varint(&mut bytes, self.import);
        codec::put_varint(&mut bytes, self.chunks);
        batch.changes.push((STAGED_HEAD.to_vec(), Some(bytes)));
    }
}

fn chunk_key(seq: u64) -> Vec<u8> {
    [&STAGED_CHUNKS[..], &seq.to_be_bytes()].concat()
}

/// Decides what `command` does at `meta`, where it is applied.
pub(super) fn step(
    kv: &dyn Kv,
    home: &dyn KvHome,
    meta: &Meta,
    command: Command,
) -> Result<Step, StateError> {
    let head = Head::read(kv)?;
    match (command, head) {
        (Command::ImportBegin, _) => {
            let mut changes = forget(kv)?;
            Head { import: meta.index, chunks: 0 }.write(&mut changes);
            Ok(Step::done(changes))
        }
        (Command::ImportChunk { import, seq, bytes }, Some(head)) if head.import == import => {
            if head.chunks != seq {
                return Ok(Step::refused(format!("chunk {} of the import is next, not {seq}", head.chunks)));
            }
            let mut changes = Batch { changes: vec![(chunk_key(seq), Some(bytes))] };
            Head { import, chunks: seq + 1 }.write(&mut changes);
            Ok(Step::done(changes))
        }
        (Command::ImportCommit { import, chunks, digest }, Some(head)) if head.import == import => {
            if head.chunks != chunks {
                return Ok(Step::refused(format!(
                    "{} chunks of the import are staged, not {chunks}",
                    head.chunks
                )));
            }
            commit(kv, home, meta, head, &digest)
        }
        (Command::ImportAbort { import }, Some(head)) if head.import == import => Ok(Step::done(forget(kv)?)),
        _ => Ok(Step::refused("another import has begun, or this one is over")),
    }
}

/// Deletes everything staged.
fn forget(kv: &dyn Kv) -> Result<Batch, KvError> {
    let keys = meta::keys_between(kv.snapshot().as_ref(), &STAGED_HEAD, &STAGED_END)?;
    Ok(Batch { changes: keys.into_iter().map(|key| (key, None)).collect() })
}

fn commit(
    kv: &dyn Kv,
    home: &dyn KvHome,
    meta: &Meta,
    head: Head,
    digest: &[u8; 32],
) -> Result<Step, StateError> {
    let draft = home.draft()?;
    match build(kv, draft.as_ref(), meta, head, digest) {
        Ok(()) => Ok(Step { promote: Some(draft), ..Step::done(Batch::default()) }),
        // What was staged is not a backup: every member finds so, and goes on.
        Err(StateError::Damaged(reason)) => {
            Ok(Step { outcome: Err(reason), changes: forget(kv)?, promote: None })
        }
        Err(err) => Err(err),
    }
}

/// Fills `draft` with what was staged, what an import leaves alone, and how far `meta` is.
fn build(
    kv: &dyn Kv,
    draft: &dyn KvDraft,
    meta: &Meta,
    head: Head,
    digest: &[u8; 32],
) -> Result<(), StateError> {
    let snapshot = kv.snapshot();
    let mut loader = Loader::new(draft.kv().clone());
    let mut hasher = blake3::Hasher::new();
    let mut seq = 0;
    let mut outcome = Ok(());
    snapshot.visit(&STAGED_CHUNKS, Some(&STAGED_END), &mut |key, piece| {
        outcome = if key == chunk_key(seq) {
            hasher.update(piece);
            loader.push_backup(piece, Version(meta.index))
        } else {
            Err(meta::damaged(key, "a chunk of the import is missing before this one").into())
        };
        seq += 1;
        if outcome.is_ok() { Visit::Next } else { Visit::Stop }
    })?;
    outcome?;
    if seq != head.chunks {
        return Err(meta::damaged(&STAGED_HEAD, "the last chunks of the import are missing").into());
    }
    if hasher.finalize() != *digest {
        return Err(StateError::Damaged("the hash over everything staged does not match".to_owned()));
    }
    loader.keep(snapshot.as_ref())?;
    // With what it marks, and as durable: a store that is at this entry must know what the entry did.
    let mut mark = Batch::default();
    Mark::Replaced.write(meta.index, &mut mark);
    draft.kv().write(mark)?;
    loader.finish(meta)?;
    Ok(())
}

/// Cuts a backup into the commands that replace the state by it, verifying every byte on the way. The caller proposes
/// [`Command::ImportBegin`], makes an uploader with its index, then proposes what [`Self::push`] gives, and at last
/// what [`Self::finish`] gives; or, when it fails, [`Command::ImportAbort`].
#[derive(Debug)]
pub struct Uploader {
    decoder: Decoder,
    checked: Entries,
    header: Option<Header>,
    announced: Option<u64>,
    hasher: blake3::Hasher,
    import: u64,
    chunks: u64,
}

impl Uploader {
    /// `import` is the log index of the `ImportBegin`.
    #[must_use]
    pub fn new(import: u64) -> Self {
        Self {
            decoder: Decoder::default(),
            checked: Entries::default(),
            header: None,
            announced: None,
            hasher: blake3::Hasher::new(),
            import,
            chunks: 0,
        }
    }

    /// Takes the next bytes, in pieces of any size, and answers what to propose.
    ///
    /// # Errors
    /// When they are damaged, of a newer format, or not a backup.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Command>, StateError> {
        self.decoder.push(bytes);
        let mut commands = Vec::new();
        while let Some(part) = self.decoder.part()? {
            match part {
                Part::Header(Scope::Backup, header) => self.header = Some(header),
                Part::Header(Scope::Member, _) => {
                    return Err(StateError::Damaged(
                        "this is the state of a member, not a backup".to_owned(),
                    ));
                }
                Part::Data(piece) => {
                    self.checked.push(&piece, |key, stored| load::check_entry(Scope::Backup, key, stored))?;
                    self.hasher.update(&piece);
                    let (import, seq) = (self.import, self.chunks);
                    commands.push(Command::ImportChunk { import, seq, bytes: piece.to_vec() });
                    self.chunks += 1;
                }
                Part::Trailer { entries } => self.announced = Some(entries),
            }
        }
        Ok(commands)
    }

    /// Where the backup came from and how far it was, once known.
    #[must_use]
    pub const fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Verifies the whole, and answers the command that makes it visible.
    ///
    /// # Errors
    /// When it is damaged or cut off.
    pub fn finish(self) -> Result<Command, StateError> {
        self.decoder.finish()?;
        let found = self.checked.finish()?;
        if self.announced != Some(found) {
            return Err(StateError::Damaged(format!("{found} entries found, not as many as announced")));
        }
        let (import, chunks) = (self.import, self.chunks);
        Ok(Command::ImportCommit { import, chunks, digest: *self.hasher.finalize().as_bytes() })
    }
}
