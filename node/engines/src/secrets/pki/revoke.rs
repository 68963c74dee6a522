//! Revocation: by serial number or certificate, with a right or with the certificate's own key, and by lease.
//!
//! A revocation is one entry and one addition to a list, in the same request; doing it again changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, LeaseRecord, Map, Page, Response, rfc3339};
use x509_parser::prelude::X509Certificate;

use super::call::Call;
use super::crl::{self, Kind};
use super::issuers::{self, Issuer};
use super::private_key::PrivateKey;
use super::store::{self, Revocation};
use super::x509::certificate::{self, colons};
use super::x509::public_key::PublicKey;
use super::x509::time;
use super::{crl_config, names, output};
use crate::crypto::der;

/// A certificate this close to its end is not worth an entry.
const ALMOST_EXPIRED: Duration = Duration::from_secs(2);

/// Revoked issuers that are put on lists at once: their entries fit one entry of the log.
const CAUGHT_UP_MAX: usize = 64;

/// `revoke` and `revoke-with-key`.
pub(super) fn serve(call: &Call<'_>) -> Result<Response, EngineError> {
    let (serial, text) = (call.text("serial_number")?, call.text("certificate")?);
    let needs_key = call.request.route.id == "revoke-with-key";
    if needs_key && call.text("private_key")?.is_empty() {
        return Err(EngineError::invalid("Must have private key to revoke via the /revoke-with-key path."));
    }
    let raw = match (serial.is_empty(), text.is_empty()) {
        (true, true) => {
            return Err(EngineError::invalid("The serial number or certificate to revoke must be provided."));
        }
        (false, false) => {
            return Err(EngineError::invalid(
                "Must provide either the certificate or the serial to revoke; not both.",
            ));
        }
        (false, true) => by_serial(call.ctx, &serial)?,
        (true, false) => by_certificate(&text)?,
    };
    let parsed = certificate::parse(&raw)?;
    let signer = signer(call.ctx, &parsed, &raw)?;
    let stored = store::find(call.ctx, &certificate::serial(&parsed))?;
    // Another one may lie there: two authorities that were imported both counted from one.
    if signer.is_none() && stored.as_ref().is_none_or(|stored| *stored != raw) {
        return Err(EngineError::invalid(
            "unable to verify signature on presented cert from any present issuer in this mount; \
             certificates from previous CAs will need to have their issuing CA and key re-imported if \
             revocation is necessary",
        ));
    }
    if needs_key {
        check_key(call, &parsed)?;
    }
    if stored.is_none() {
        store::put(call.ctx, &certificate::serial(&parsed), &raw)?;
    }
    revoke(call, &parsed, &raw, signer.as_deref())
}

fn by_serial(ctx: &Ctx<'_>, serial: &str) -> Result<Vec<u8>, EngineError> {
    let not_found = || EngineError::Invalid(format!("certificate with serial {serial} not found."));
    let digits = store::serial_in(serial).ok_or_else(not_found)?;
    store::find(ctx, &digits)?.ok_or_else(not_found)
}

fn by_certificate(text: &str) -> Result<Vec<u8>, EngineError> {
    if text.len() < 75 {
        return Err(EngineError::invalid(
            "provided certificate data was too short; perhaps a path was passed to the API rather than \
             the contents of a PEM file",
        ));
    }
    let (_, raw, _) =
        der::first_pem(text).ok_or_else(|| EngineError::invalid("certificate contains no PEM data"))?;
    Ok(raw)
}

/// The issuer of the mount that signed a certificate.
pub(super) fn signer(
    ctx: &Ctx<'_>,
    parsed: &X509Certificate<'_>,
    raw: &[u8],
) -> Result<Option<Arc<Issuer>>, EngineError> {
    for issuer in issuers::all(ctx)? {
        if issuer.subject == parsed.tbs_certificate.issuer.as_raw()
            && certificate::is_signed_by(parsed, raw, &PublicKey::of(&issuer.spki)?)
        {
            return Ok(Some(issuer));
        }
    }
    Ok(None)
}

/// Refuses who does not hold the certificate's own key.
fn check_key(call: &Call<'_>, parsed: &X509Certificate<'_>) -> Result<(), EngineError> {
    let text = zeroize::Zeroizing::new(call.text("private_key")?);
    let mut rest = text.as_str();
    while let Some((label, block, behind)) = der::first_pem(rest) {
        rest = behind;
        let block = zeroize::Zeroizing::new(block);
        let Some(key) = PrivateKey::in_pem(label, &block) else { continue };
        let (theirs, given) = (parsed.tbs_certificate.subject_pki.raw, key?.spki()?);
        let (theirs, given) = (PublicKey::of(theirs)?, PublicKey::of(&given)?);
        return if (theirs.kind, theirs.key) == (given.kind, given.key) {
            Ok(())
        } else if theirs.kind.name() == given.kind.name() {
            Err(EngineError::invalid("provided private key does not match certificate's public key"))
        } else {
            Err(EngineError::invalid(
                "provided private key type does not match certificate's public key type",
            ))
        };
    }
    Err(EngineError::invalid("provided key PEM block contained no data or failed to parse"))
}

fn answer(revocation: &Revocation) -> Response {
    let mut data = Map::new();
    output::put(&mut data, "revocation_time", time::seconds(revocation.at));
    output::put(&mut data, "revocation_time_rfc3339", rfc3339::format(revocation.at));
    output::put(&mut data, "state", "revoked");
    output::answer(data, Vec::new())
}

fn revoke(
    call: &Call<'_>,
    parsed: &X509Certificate<'_>,
    raw: &[u8],
    signer: Option<&Issuer>,
) -> Result<Response, EngineError> {
    let serial = certificate::serial(parsed);
    if let Some(issuer) = issuers::all(call.ctx)?.iter().find(|issuer| issuer.record.certificate == raw) {
        return Err(EngineError::Invalid(format!(
            "adding issuer (id: {}) to its own CRL is not allowed; revoke it by /issuer/:issuer_ref/revoke",
            issuer.record.id
        )));
    }
    let set = signer.map_or("", |issuer| issuer.set.as_str());
    if let Some(revocation) = store::revocation(call.ctx, set, &serial)? {
        return Ok(answer(&revocation));
    }
    let not_after = time::moment(&parsed.tbs_certificate.validity.not_after);
    let config = crl_config::of(call.ctx)?;
    if not_after < call.now().after(ALMOST_EXPIRED) && !config.allow_expired_cert_revocation {
        return Ok(Response::empty().with_warning(format!(
            "certificate with serial {} already expired; refusing to add to CRL. Enable \
             'AllowExpiredCertRevocation' to allow revoking expired certificates.",
            colons(&serial)
        )));
    }
    let revocation = record(call, &serial, raw, not_after, signer)?;
    let response = answer(&revocation);
    Ok(if signer.is_none() {
        response.with_warning(
            "No issuer of this mount signed the certificate, so it is in no list of revoked \
             certificates; import its issuer and tidy with tidy_revoked_cert_issuer_associations.",
        )
    } else if crl::is_signed(call.ctx, set)? {
        response
    } else {
        response.with_warning(UNSIGNED)
    })
}

/// What to say when a list has to wait.
const UNSIGNED: &str = "No issuer may sign the list of revoked certificates that this certificate belongs to; it is \
                        added as soon as one has its key and the usage crl-signing.";

/// Writes the revocation, and the list unless it is made by itself later.
fn record(
    call: &Call<'_>,
    serial: &[u8],
    raw: &[u8],
    not_after: arca_engine_api::UnixMillis,
    signer: Option<&Issuer>,
) -> Result<Revocation, EngineError> {
    let (set, id) = signer.map_or(("", ""), |issuer| (issuer.set.as_str(), issuer.record.id.as_str()));
    let revocation = store::new_revocation(call.now(), not_after, (set, id), raw);
    if !set.is_empty() {
        crl::add(call.ctx, set, serial, revocation.at)?;
    }
    store::put_revocation(call.ctx, serial, &revocation)?;
    if !set.is_empty() && !crl_config::of(call.ctx)?.auto_rebuild {
        crl::build(call, set, Kind::Complete)?;
    }
    Ok(revocation)
}

/// Puts an issuer on the list of the issuer above it, if that is in the mount as well.
/// Answers what is to be said about it.
pub(super) fn revoke_issuer(call: &Call<'_>, issuer: &Issuer) -> Result<Vec<String>, EngineError> {
    let raw = &issuer.record.certificate;
    let parsed = certificate::parse(raw)?;
    let Some(above) = signer(call.ctx, &parsed, raw)?.filter(|above| above.set != issuer.set) else {
        let mut warnings = Vec::new();
        if issuer.is_root() {
            warnings.push(
                "This issuer is a self-signed (potentially root) certificate. This means it may not be \
                 considered revoked if there is not an external, cross-signed variant of this \
                 certificate. This issuer's serial number will not appear on its own CRL."
                    .to_owned(),
            );
        }
        warnings.push(
            "This issuer lacks another parent issuer within the mount, so it is in no list of revoked \
             certificates of this mount. Revoke it where it was signed."
                .to_owned(),
        );
        return Ok(warnings);
    };
    if store::revocation(call.ctx, &above.set, &issuer.serial)?.is_none() {
        if store::find(call.ctx, &issuer.serial)?.is_none() {
            store::put(call.ctx, &issuer.serial, raw)?;
        }
        record(call, &issuer.serial, raw, issuer.not_after, Some(&above))?;
    }
    Ok(if crl::is_signed(call.ctx, &above.set)? { Vec::new() } else { vec![UNSIGNED.to_owned()] })
}

/// Puts issuers that were revoked on the lists they belong to, where those lack them. What every cluster is told of a
/// revoked issuer is that it is; its list, and what OCSP says, each has of its own, so where a shared mount's issuer was
/// revoked by another cluster this is what makes it known. Nothing is signed, and nothing shared is written.
pub(super) fn catch_up(call: &Call<'_>) -> Result<(), EngineError> {
    let mut added = 0;
    for revoked in issuers::revoked(call.ctx)? {
        if added >= CAUGHT_UP_MAX {
            break;
        }
        let raw = &revoked.certificate;
        let parsed = certificate::parse(raw)?;
        let (serial, not_after) =
            (certificate::serial(&parsed), time::moment(&parsed.tbs_certificate.validity.not_after));
        let is_listed =
            store::revocation_of(call.ctx, &serial, raw)?.is_some_and(|known| !known.set.is_empty());
        // What ended is not worth an entry; tidying took it away, perhaps.
        if is_listed || not_after < call.now().after(ALMOST_EXPIRED) {
            continue;
        }
        let own = issuers::set_of(&parsed);
        let Some(above) = signer(call.ctx, &parsed, raw)?.filter(|above| above.set != own) else { continue };
        if store::revocation(call.ctx, &above.set, &serial)?.is_some() {
            continue; // Another one has its serial number, and the list says it of both.
        }
        if crl::is_full(call.ctx, &above.set)? {
            continue; // Every revocation by request says so; that other lists are signed does not wait for it.
        }
        if store::find(call.ctx, &serial)?.is_none() {
            store::put(call.ctx, &serial, raw)?;
        }
        crl::add(call.ctx, &above.set, &serial, revoked.at)?;
        let by = (above.set.as_str(), above.record.id.as_str());
        store::put_revocation(call.ctx, &serial, &store::new_revocation(revoked.at, not_after, by, raw))?;
        added += 1;
    }
    Ok(())
}

/// Finds the issuer of a revocation that had none, and answers its set, whose list is to be signed.
pub(super) fn associate(
    call: &Call<'_>,
    serial: &[u8],
    revocation: &Revocation,
) -> Result<Option<String>, EngineError> {
    let Some(raw) = store::find(call.ctx, serial)? else { return Ok(None) };
    let parsed = certificate::parse(&raw)?;
    let Some(issuer) = signer(call.ctx, &parsed, &raw)? else { return Ok(None) };
    if store::revocation(call.ctx, &issuer.set, serial)?.is_none() {
        crl::add(call.ctx, &issuer.set, serial, revocation.at)?;
        let found =
            Revocation { set: issuer.set.clone(), issuer_id: issuer.record.id.clone(), ..revocation.clone() };
        store::put_revocation(call.ctx, serial, &found)?;
    }
    store::delete_revocation(call.ctx, "", serial)?;
    Ok(Some(issuer.set.clone()))
}

/// Signs the lists that something was added to, unless they are made by themselves later.
pub(super) fn sign_lists(call: &Call<'_>, sets: &BTreeSet<String>) -> Result<(), EngineError> {
    if crl_config::of(call.ctx)?.auto_rebuild {
        return Ok(());
    }
    sets.iter().try_for_each(|set| crl::build(call, set, Kind::Complete))
}

/// Undoes a lease: revokes the certificate that was issued under it, unless that ended or is gone.
pub(super) fn end_lease(call: &Call<'_>, lease: &LeaseRecord) -> Result<(), EngineError> {
    let serial = lease.internal.get("serial_number").and_then(|serial| serial.as_str()).unwrap_or_default();
    let Some(digits) = store::serial_in(serial) else {
        return Err(EngineError::Bug("a lease of a certificate has no serial number".to_owned()));
    };
    let Some(raw) = store::find(call.ctx, &digits)? else { return Ok(()) };
    let is_issuer = issuers::all(call.ctx)?.iter().any(|issuer| issuer.record.certificate == raw);
    if is_issuer {
        // It is an authority of this mount by now, and its lease is not what ends that.
        return Ok(());
    }
    let parsed = certificate::parse(&raw)?;
    let signer = signer(call.ctx, &parsed, &raw)?;
    revoke(call, &parsed, &raw, signer.as_deref()).map(drop)
}

/// What is said of a certificate, revoked or not.
pub(super) fn shown(ctx: &Ctx<'_>, serial: &[u8], der: &[u8]) -> Result<Map, EngineError> {
    let mut data = output::not_revoked();
    if let Some(revocation) = store::revocation_of(ctx, serial, der)? {
        output::put(&mut data, "revocation_time", time::seconds(revocation.at));
        output::put(&mut data, "revocation_time_rfc3339", rfc3339::format(revocation.at));
        if !revocation.issuer_id.is_empty() {
            output::put(&mut data, "issuer_id", revocation.issuer_id);
        }
    }
    Ok(data)
}

/// The serial numbers of a folder, as they are shown.
pub(super) fn list(call: &Call<'_>, folder: &str) -> Result<Response, EngineError> {
    Ok(Response::list(serials(call, folder)?.iter().map(|hex| store::shown(hex)).collect()))
}

/// The serial numbers of a page of a folder, in hexadecimal.
fn serials(call: &Call<'_>, folder: &str) -> Result<Vec<String>, EngineError> {
    let mut page = page(call)?;
    if folder == store::REVOKED {
        // Each is a folder itself.
        page.after = page.after.map(|after| after + "/");
    }
    let mut names = call.ctx.storage.list(folder, &page)?;
    for name in &mut names {
        name.truncate(name.trim_end_matches('/').len());
    }
    Ok(names)
}

/// Which part of the serial numbers is wanted.
pub(super) fn page(call: &Call<'_>) -> Result<Page, EngineError> {
    let mut page = call.page()?;
    page.after = page.after.map(|after| names::from_hex(&after).map_or(after, |bytes| names::hex(&bytes)));
    Ok(page)
}
