//! What replication stores in the state: raw keys of class `Node`, which no backup holds, no secondary gets and no import
//! touches. A sealed name never begins with a size of zero, so they meet none.
//!
//! Values are indexes and random names, nothing secret. Format: `docs/formats/replication.md`.

use arca_raft_storage::{Key, KvError, ProposeError, ReadView, Replica, Version, Write, WriteSet};
use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_varint};
use crate::cursor::Cursor;
use crate::sieve::Kind;

/// What the keys of all of these begin with.
pub const RECORDS: [u8; 3] = [3, 0, 0];
/// Where the history of this cluster is.
pub const HISTORY_KEY: [u8; 4] = [3, 0, 0, b'h'];
const CURSOR: [u8; 4] = [3, 0, 0, b'c'];
/// Where what secondaries acknowledged is.
pub(crate) const ACKNOWLEDGED: [u8; 4] = [3, 0, 0, b'a'];
const V1: u8 = 1;

/// Where a secondary keeps how far it has followed its primary.
#[must_use]
pub fn cursor_key(kind: Kind) -> Key {
    [&CURSOR[..], &[kind.tag()]].concat()
}

/// The cursor of `kind` in `view`, and its version. Without one the state has yet to be copied or compared.
///
/// # Errors
/// When the store fails or the record is damaged.
pub fn load_cursor(view: &dyn ReadView, kind: Kind) -> Result<(Cursor, Version), KvError> {
    let Some(found) = view.get(&cursor_key(kind))? else { return Ok((Cursor::default(), Version::ABSENT)) };
    let mut reader = Reader::new(found.value.into());
    let cursor = Cursor::read(&mut reader).and_then(|cursor| reader.finish().map(|()| cursor));
    Ok((cursor.map_err(damaged("cursor"))?, found.version))
}

/// Has the secondary compare its state with its primary's before it follows again: what an operator's order comes to.
/// A cursor is only ever written by a set that lists the version it replaces: a sink that is at work would otherwise
/// overwrite it unseen, should both share an entry.
///
/// # Errors
/// When this member does not lead, the store fails or the outcome is unknown.
pub async fn forget_cursor(replica: &dyn Replica, kind: Kind) -> Result<(), ForgetError> {
    loop {
        let (cursor, version) = load_cursor(replica.view().as_ref(), kind)?;
        if cursor.is_unknown() {
            return Ok(());
        }
        let unknown = cursor.forgotten();
        let set = WriteSet {
            reads: vec![(cursor_key(kind), version)],
            writes: vec![Write::Put(cursor_key(kind), unknown.encode())],
        };
        match replica.propose(set).await {
            // A segment was applied in between.
            Err(ProposeError::Conflict) => {}
            proposed => return Ok(proposed.map(drop)?),
        }
    }
}

/// Why a cursor was not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The record cannot be read.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The record could not be written.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Where a primary keeps what a secondary has acknowledged.
pub(crate) fn acknowledged_key(kind: Kind, secondary: &str) -> Key {
    [&ACKNOWLEDGED[..], &[kind.tag()], secondary.as_bytes()].concat()
}

pub(crate) fn acknowledged_value(index: u64) -> Vec<u8> {
    let mut out = vec![V1];
    put_varint(&mut out, index);
    out
}

pub(crate) fn read_acknowledged(value: &[u8]) -> Result<u64, KvError> {
    let mut reader = Reader::new(Bytes::copy_from_slice(value));
    let read = |reader: &mut Reader| match reader.byte()? {
        V1 => reader.varint(),
        _ => Err(Malformed("of an unknown version")),
    };
    let index = read(&mut reader).and_then(|index| reader.finish().map(|()| index));
    index.map_err(damaged("acknowledgement"))
}

pub(crate) fn damaged(what: &'static str) -> impl FnOnce(Malformed) -> KvError {
    move |problem| KvError::Corrupt(format!("the {what} of replication: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These are in stores: the lines never change.
    #[test]
    fn golden_bytes() {
        assert_eq!(cursor_key(Kind::Dr), b"\x03\0\0c\x01");
        assert_eq!(cursor_key(Kind::Performance), b"\x03\0\0c\x02");
        assert_eq!(&HISTORY_KEY, b"\x03\0\0h");
        assert_eq!(acknowledged_key(Kind::Dr, "eu"), b"\x03\0\0a\x01eu");
        assert_eq!(acknowledged_value(300), [1, 0xac, 2]);
        assert_eq!(read_acknowledged(&[1, 0xac, 2]).unwrap(), 300);
        assert!(read_acknowledged(&[2, 0]).is_err() && read_acknowledged(&[1, 0, 0]).is_err());
    }
}
