//! Issued and revoked certificates, one entry per serial number.

use arca_engine_api::{Ctx, EngineError, StorageError, StorageExt as _, UnixMillis};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::names;
use super::x509::certificate::colons;

/// Version of what is stored of a certificate: this byte, then DER.
const LAYOUT: u8 = 1;
/// Bytes of a serial number that is looked for.
const SERIAL_LEN_MAX: usize = 64;

/// Where certificates lie, by serial numbers in hexadecimal.
pub(super) const CERTIFICATES: &str = "cert/";
/// Where revocations lie.
pub(super) const REVOKED: &str = "revoked/";
/// Marks the revocations of which no issuer is known.
pub(super) const ORPHANS: &str = "revoked-orphan/";

/// A revocation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revocation {
    pub(super) layout: u8,
    pub(super) at: UnixMillis,
    /// When the certificate ends by itself.
    pub(super) not_after: UnixMillis,
    /// The issuers it belongs to ([`super::issuers::Issuer::set`]).
    pub(super) set: String,
    /// One of them, at the time.
    pub(super) issuer_id: String,
}

/// A serial number as a caller writes it, without zeros before it.
pub(super) fn serial_in(text: &str) -> Option<Vec<u8>> {
    let bytes = names::from_hex(text)?;
    let digits = crate::crypto::der::trimmed(&bytes);
    (!digits.is_empty() && digits.len() <= SERIAL_LEN_MAX).then(|| digits.to_vec())
}

/// A serial number as it is shown.
pub(super) fn shown(hex: &str) -> String {
    names::from_hex(hex).map(|bytes| colons(&bytes)).unwrap_or_default()
}

fn key(folder: &str, serial: &[u8]) -> String {
    format!("{folder}{}", names::hex(serial))
}

pub(super) fn put(ctx: &Ctx<'_>, serial: &[u8], der: &[u8]) -> Result<(), EngineError> {
    let mut value = Zeroizing::new(Vec::with_capacity(der.len() + 1));
    value.push(LAYOUT);
    value.extend_from_slice(der);
    Ok(ctx.storage.put(&key(CERTIFICATES, serial), value)?)
}

/// The certificate of that serial number, in DER.
pub(super) fn find(ctx: &Ctx<'_>, serial: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
    let key = key(CERTIFICATES, serial);
    match ctx.storage.get(&key)? {
        None => Ok(None),
        Some(bytes) => match bytes.split_first() {
            Some((&LAYOUT, der)) => Ok(Some(der.to_vec())),
            _ => Err(StorageError::Damaged { key, reason: "an unknown layout".to_owned() }.into()),
        },
    }
}

pub(super) fn delete(ctx: &Ctx<'_>, serial: &[u8]) -> Result<(), EngineError> {
    Ok(ctx.storage.delete(&key(CERTIFICATES, serial))?)
}

pub(super) fn revocation(ctx: &Ctx<'_>, serial: &[u8]) -> Result<Option<Revocation>, EngineError> {
    let key = key(REVOKED, serial);
    let found = ctx.storage.get_record::<Revocation>(&key)?;
    if found.as_ref().is_some_and(|found| found.layout != LAYOUT) {
        return Err(StorageError::Damaged { key, reason: "an unknown layout".to_owned() }.into());
    }
    Ok(found)
}

pub(super) fn put_revocation(
    ctx: &Ctx<'_>,
    serial: &[u8],
    revocation: &Revocation,
) -> Result<(), EngineError> {
    ctx.storage.put_record(&key(REVOKED, serial), revocation)?;
    let orphan = key(ORPHANS, serial);
    if revocation.set.is_empty() {
        ctx.storage.put(&orphan, Zeroizing::new(vec![LAYOUT]))?;
    } else {
        ctx.storage.delete(&orphan)?;
    }
    Ok(())
}

pub(super) fn delete_revocation(ctx: &Ctx<'_>, serial: &[u8]) -> Result<(), EngineError> {
    ctx.storage.delete(&key(ORPHANS, serial))?;
    Ok(ctx.storage.delete(&key(REVOKED, serial))?)
}

/// A revocation of the layout in use.
pub(super) fn new_revocation(
    at: UnixMillis,
    not_after: UnixMillis,
    set: &str,
    issuer_id: &str,
) -> Revocation {
    Revocation { layout: LAYOUT, at, not_after, set: set.to_owned(), issuer_id: issuer_id.to_owned() }
}
