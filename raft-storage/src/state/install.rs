//! Taking in a state from another member: filled beside the visible one, verified whole, then switched to.

use std::sync::Arc;

use super::frame::{Decoder, Part};
use super::load::Loader;
use super::meta::{Header, Meta};
use super::{Scope, StateError};
use crate::kv::{Kv, KvDraft, KvError};

/// Takes in one stream. Dropping it removes what it wrote.
#[derive(Debug)]
pub struct Receiver {
    decoder: Decoder,
    loader: Loader,
    header: Option<Header>,
    entries: Option<u64>,
    draft: Box<dyn KvDraft>,
}

impl Receiver {
    pub(super) fn new(draft: Box<dyn KvDraft>) -> Self {
        let loader = Loader::new(draft.kv().clone());
        Self { decoder: Decoder::default(), loader, header: None, entries: None, draft }
    }

    /// Takes the next bytes, in pieces of any size.
    ///
    /// # Errors
    /// When they are damaged, of a newer format, or the store fails. Start over then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.decoder.push(bytes);
        while let Some(part) = self.decoder.part()? {
            match part {
                Part::Header(Scope::Member, header) => self.header = Some(header),
                Part::Header(Scope::Backup, _) => {
                    return Err(StateError::Damaged(
                        "this is a backup, not the state of a member".to_owned(),
                    ));
                }
                Part::Data(piece) => self.loader.push(&piece)?,
                Part::Trailer { entries } => self.entries = Some(entries),
            }
        }
        Ok(())
    }

    /// The header, once it arrived: refuse a foreign cluster early.
    #[must_use]
    pub const fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Verifies the whole and makes it durable.
    ///
    /// # Errors
    /// When it is damaged or cut off, or the store fails.
    pub fn finish(self) -> Result<Staged, StateError> {
        self.decoder.finish()?;
        let (Some(header), Some(expected)) = (self.header, self.entries) else {
            return Err(StateError::Damaged("the stream ends early".to_owned()));
        };
        let found = self.loader.finish(&header.meta)?;
        if found != expected {
            return Err(StateError::Damaged(format!("{found} entries found, {expected} announced")));
        }
        self.draft.kv().flush()?;
        Ok(Staged { header, draft: self.draft })
    }
}

/// A state that is here, whole and durable, but not visible. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    header: Header,
    draft: Box<dyn KvDraft>,
}

impl Staged {
    /// Where it came from and how far it is.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    pub(super) const fn meta(&self) -> &Meta {
        &self.header.meta
    }

    pub(super) fn promote(self) -> Result<Arc<dyn Kv>, KvError> {
        self.draft.promote()
    }
}
