//! The state machine's own records, and how every entry is stored.
//!
//! Keys from 0xF0 on are its own: `F0…` what an import has staged, `FF…` the applied log id and the membership.
//! Every other key is a caller's; its value is stored behind the version that wrote it, eight bytes, big endian.

use crate::codec::{self, Malformed, Reader};
use crate::kv::{Batch, Kv, KvError, KvSnapshot, Visit};
use crate::write_set::RESERVED_FROM;
use crate::{Version, Versioned};

/// Where keys of the state machine itself begin; callers' keys lie before it.
pub(super) const OWN_KEYS: [u8; 1] = [RESERVED_FROM];
/// Where the records of this member's progress begin: never part of an export, which states them in its header.
pub(super) const META_KEYS: [u8; 1] = [0xFF];
const APPLIED_KEY: [u8; 2] = [0xFF, b'a'];
const MEMBERSHIP_KEY: [u8; 2] = [0xFF, b'm'];
/// Version of both records.
const RECORD_V1: u8 = 1;
/// Longest log id and longest membership, as the glue encodes them.
pub(super) const OPAQUE_BYTES_MAX: usize = 512 << 10;
const VERSION_BYTES: usize = 8;

/// How far the state is. Log id and membership are opaque here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Log index of the last entry applied; zero before the first.
    pub index: u64,
    /// Its log id; empty before the first.
    pub log_id: Vec<u8>,
    /// The last membership applied; empty before the first.
    pub membership: Vec<u8>,
}

impl Meta {
    pub(super) fn read(kv: &dyn Kv) -> Result<Self, KvError> {
        let mut meta = Self::default();
        if let Some(bytes) = kv.get(&APPLIED_KEY)? {
            (meta.index, meta.log_id) = record(&APPLIED_KEY, &bytes, |reader| {
                Ok((reader.varint()?, reader.bytes(OPAQUE_BYTES_MAX)?.to_vec()))
            })?;
        }
        if let Some(bytes) = kv.get(&MEMBERSHIP_KEY)? {
            meta.membership =
                record(&MEMBERSHIP_KEY, &bytes, |reader| Ok(reader.bytes(OPAQUE_BYTES_MAX)?.to_vec()))?;
        }
        Ok(meta)
    }

    pub(super) fn write_applied(&self, batch: &mut Batch) {
        let mut bytes = vec![RECORD_V1];
        codec::put_varint(&mut bytes, self.index);
        codec::put_bytes(&mut bytes, &self.log_id);
        batch.changes.push((APPLIED_KEY.to_vec(), Some(bytes)));
    }

    pub(super) fn write_membership(&self, batch: &mut Batch) {
        let mut bytes = vec![RECORD_V1];
        codec::put_bytes(&mut bytes, &self.membership);
        batch.changes.push((MEMBERSHIP_KEY.to_vec(), Some(bytes)));
    }

    /// Whether anything was ever applied: indexes count from zero.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.log_id.is_empty()
    }

    pub(super) const fn is_after(&self, other: &Self) -> bool {
        !self.is_empty() && (other.is_empty() || self.index > other.index)
    }
}

/// Parses one of the records above: a version byte, then what `parse` reads, then nothing.
pub(super) fn record<T>(
    key: &[u8],
    bytes: &[u8],
    parse: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<T, KvError> {
    let mut reader = Reader::new(bytes);
    let version = reader.byte().map_err(|problem| damaged(key, problem.0))?;
    if version > RECORD_V1 {
        let what = format!("entry {}", hex(key));
        return Err(KvError::NewerFormat { what, found: version.into(), known: RECORD_V1.into() });
    }
    let parsed = parse(&mut reader).and_then(|value| reader.finish().map(|()| value));
    parsed.map_err(|problem| damaged(key, problem.0))
}

/// What precedes an exported state: where it came from and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// What the exporting cluster calls itself. Opaque here; whoever installs it decides whether it fits.
    pub cluster: Vec<u8>,
    /// How far the state is.
    pub meta: Meta,
}

/// A damaged entry, named by its key: names are sealed, so the key tells nothing.
pub(super) fn damaged(key: &[u8], problem: &str) -> KvError {
    KvError::Corrupt(format!("entry {}: {problem}", hex(key)))
}

fn hex(key: &[u8]) -> String {
    use std::fmt::Write as _;
    key.iter().fold(String::with_capacity(2 * key.len()), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// How a value is stored.
pub(super) fn stored(version: Version, value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(VERSION_BYTES + value.len());
    stored.extend_from_slice(&version.0.to_be_bytes());
    stored.extend_from_slice(value);
    stored
}

/// Splits what [`stored`] made.
pub(super) fn split<'a>(key: &[u8], stored: &'a [u8]) -> Result<(Version, &'a [u8]), KvError> {
    let (version, value) =
        stored.split_first_chunk::<VERSION_BYTES>().ok_or_else(|| damaged(key, "shorter than a version"))?;
    let version = Version(u64::from_be_bytes(*version));
    if version == Version::ABSENT {
        return Err(damaged(key, "has version zero"));
    }
    Ok((version, value))
}

/// Takes the version off without a second copy.
pub(super) fn versioned(key: &[u8], mut stored: Vec<u8>) -> Result<Versioned, KvError> {
    let (version, _) = split(key, &stored)?;
    stored.drain(..VERSION_BYTES);
    Ok(Versioned { value: stored, version })
}

pub(super) fn version_in(kv: &dyn Kv, key: &[u8]) -> Result<Version, KvError> {
    match kv.get(key)? {
        Some(stored) => Ok(split(key, &stored)?.0),
        None => Ok(Version::ABSENT),
    }
}

/// The keys in `start..end`, for deleting them.
pub(super) fn keys_between(
    snapshot: &dyn KvSnapshot,
    start: &[u8],
    end: &[u8],
) -> Result<Vec<Vec<u8>>, KvError> {
    let mut keys = Vec::new();
    snapshot.visit(start, Some(end), &mut |key, _| {
        keys.push(key.to_vec());
        Visit::Next
    })?;
    Ok(keys)
}
