//! Issued and revoked certificates, one entry per serial number.

use arca_engine_api::{Ctx, EngineError, Page, StorageError, StorageExt as _, UnixMillis};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::x509::certificate::colons;
use super::{issuers, names};

/// Version of what is stored of a certificate: this byte, then DER.
const LAYOUT: u8 = 1;
/// Bytes of a serial number that is looked for.
const SERIAL_LEN_MAX: usize = 64;

/// Where certificates lie, by serial numbers in hexadecimal.
pub(super) const CERTIFICATES: &str = "cert/";
/// Where revocations lie: of each serial number one for every set of issuers that had it revoked.
pub(super) const REVOKED: &str = "revoked/";
/// Stands for the set of issuers where none is known.
const NO_SET: &str = "none";
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
    /// What names the certificate ([`super::issuers::digest`]): others may have its serial number.
    pub(super) certificate: String,
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

fn revoked_key(set: &str, serial: &[u8]) -> String {
    format!("{}/{}", key(REVOKED, serial), if set.is_empty() { NO_SET } else { set })
}

/// The revocation of a serial number by the issuers of a set, or, without one, by none that is known.
pub(super) fn revocation(ctx: &Ctx<'_>, set: &str, serial: &[u8]) -> Result<Option<Revocation>, EngineError> {
    let key = revoked_key(set, serial);
    let found = ctx.storage.get_record::<Revocation>(&key)?;
    if found.as_ref().is_some_and(|found| found.layout != LAYOUT) {
        return Err(StorageError::Damaged { key, reason: "an unknown layout".to_owned() }.into());
    }
    Ok(found)
}

/// The revocation of a certificate, whoever issued it.
pub(super) fn revocation_of(
    ctx: &Ctx<'_>,
    serial: &[u8],
    der: &[u8],
) -> Result<Option<Revocation>, EngineError> {
    let sets = ctx.storage.list(&format!("{}/", key(REVOKED, serial)), &Page::default())?;
    if sets.is_empty() {
        return Ok(None);
    }
    let certificate = issuers::digest(&[der]);
    for set in sets {
        let found = revocation(ctx, &set, serial)?;
        if found.as_ref().is_some_and(|found| found.certificate == certificate) {
            return Ok(found);
        }
    }
    Ok(None)
}

pub(super) fn put_revocation(
    ctx: &Ctx<'_>,
    serial: &[u8],
    revocation: &Revocation,
) -> Result<(), EngineError> {
    ctx.storage.put_record(&revoked_key(&revocation.set, serial), revocation)?;
    if revocation.set.is_empty() {
        ctx.storage.put(&key(ORPHANS, serial), Zeroizing::new(vec![LAYOUT]))?;
    }
    Ok(())
}

pub(super) fn delete_revocation(ctx: &Ctx<'_>, set: &str, serial: &[u8]) -> Result<(), EngineError> {
    if set.is_empty() {
        ctx.storage.delete(&key(ORPHANS, serial))?;
    }
    Ok(ctx.storage.delete(&revoked_key(set, serial))?)
}

/// A revocation of the layout in use, of the certificate that lies in `der`.
pub(super) fn new_revocation(
    at: UnixMillis,
    not_after: UnixMillis,
    (set, issuer_id): (&str, &str),
    der: &[u8],
) -> Revocation {
    let (set, issuer_id) = (set.to_owned(), issuer_id.to_owned());
    Revocation { layout: LAYOUT, at, not_after, set, issuer_id, certificate: issuers::digest(&[der]) }
}
