//! Issuers: certificates of authorities, the key each signs with, and how it may be used.
//!
//! An issuer is taken apart once for as long as its record stays the same; what is kept holds no secret.
//! Read next: [`super::chain`] for who signed whom, [`super::issuer_paths`] for the paths.

use std::sync::Arc;

use arca_engine_api::{Ctx, Decoded, EngineError, Page, StorageError, StorageExt as _, UnixMillis};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Certificate;

use super::call::Call;
use super::config::{self, Urls};
use super::keys::Key;
use super::private_key::Signer;
use super::x509::algorithm::Algorithm;
use super::x509::public_key::{Kind, PublicKey};
use super::x509::{certificate, time};
use super::{base64, chain, keys, names, store};

const LAYOUT: u8 = 1;
/// Issuers of a mount. Chains and CRLs look at all of them.
const ISSUERS_MAX: usize = 1_000;
/// Where it is remembered which issuers were revoked.
const TOMBSTONES: &str = "issuer-revoked/";
/// The reference to whatever is set as the default.
pub(super) const DEFAULT: &str = "default";

/// What an issuer may be used for, as it is written.
pub(super) const ISSUE: &str = "issuing-certificates";
pub(super) const SIGN_CRL: &str = "crl-signing";
pub(super) const SIGN_OCSP: &str = "ocsp-signing";
pub(super) const READ: &str = "read-only";
/// Every use.
pub(super) const USAGES: [&str; 4] = [SIGN_CRL, ISSUE, SIGN_OCSP, READ];

/// An issuer as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) layout: u8,
    pub(super) id: String,
    pub(super) name: String,
    /// The key it signs with; empty if only the certificate is here.
    pub(super) key_id: String,
    #[serde(with = "base64")]
    pub(super) certificate: Vec<u8>,
    /// The chain an operator chose, by ids, itself first; empty to find it.
    pub(super) manual_chain: Vec<String>,
    /// The chain in use, by ids, itself first.
    pub(super) chain: Vec<String>,
    pub(super) leaf_not_after_behavior: String,
    pub(super) usage: Vec<String>,
    pub(super) revocation_signature_algorithm: String,
    /// Its own URLs, instead of the mount's.
    pub(super) urls: Option<Urls>,
    pub(super) revoked_at: Option<UnixMillis>,
}

/// An issuer taken apart.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) record: Record,
    pub(super) pem: String,
    /// `Name`, as it stands in the certificate.
    pub(super) subject: Vec<u8>,
    /// `Name` of who signed it.
    pub(super) issuer: Vec<u8>,
    pub(super) spki: Vec<u8>,
    pub(super) kind: Kind,
    /// The id of its key that others' certificates name.
    pub(super) key_id: Vec<u8>,
    /// Digests of its name and its key, by each function that OCSP asks with.
    pub(super) ocsp_ids: [OcspId; 4],
    is_self_signed: bool,
    pub(super) serial: Vec<u8>,
    pub(super) not_after: UnixMillis,
    pub(super) path_len_max: Option<u32>,
    pub(super) may_sign_crls: bool,
    /// Names what all issuers with this name and key share: their list of revoked certificates.
    pub(super) set: String,
}

/// Name and key of an issuer as OCSP asks about them.
#[derive(Debug)]
pub(super) struct OcspId {
    pub(super) function: &'static digest::Algorithm,
    pub(super) name: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl OcspId {
    /// The functions, SHA-1 first: its digest of the key also names a responder.
    const FUNCTIONS: [&'static digest::Algorithm; 4] =
        [&digest::SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA256, &digest::SHA384, &digest::SHA512];

    fn all(name: &[u8], key: &[u8]) -> [Self; 4] {
        let by = |function, bytes| digest::digest(function, bytes).as_ref().to_vec();
        Self::FUNCTIONS.map(|function| Self { function, name: by(function, name), key: by(function, key) })
    }
}

/// Half of SHA-256 over the parts, each behind its length, in hexadecimal.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    names::hex(context.finish().as_ref().get(..16).unwrap_or_default())
}

/// What [`Issuer::set`] is of the issuer with this certificate.
pub(super) fn set_of(certificate: &X509Certificate<'_>) -> String {
    let body = &certificate.tbs_certificate;
    digest(&[body.subject.as_raw(), body.subject_pki.raw])
}

impl Issuer {
    fn of(record: Record) -> Result<Self, EngineError> {
        let parsed = certificate::parse(&record.certificate)?;
        let body = &parsed.tbs_certificate;
        let public = PublicKey::of(body.subject_pki.raw)?;
        let stated = body.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let constraints = body
            .basic_constraints()
            .map_err(|_| EngineError::invalid("the certificate's basic constraints are malformed"))?;
        let usage =
            body.key_usage().map_err(|_| EngineError::invalid("the certificate's key usage is malformed"))?;
        if !constraints.as_ref().is_some_and(|found| found.value.ca) {
            return Err(EngineError::invalid("unable to import certificate: it is no CA certificate"));
        }
        if usage.as_ref().is_some_and(|found| !found.value.key_cert_sign()) {
            return Err(EngineError::invalid(
                "unable to import certificate: its key usage does not allow it to sign certificates",
            ));
        }
        // One signed by an algorithm that nobody here verifies is what it says.
        let is_self_signed = body.subject.as_raw() == body.issuer.as_raw()
            && certificate::signature_of(&record.certificate)
                .is_none_or(|(algorithm, signature)| algorithm.verifies(&public, body.as_ref(), signature));
        Ok(Self {
            pem: certificate::pem(&record.certificate),
            subject: body.subject.as_raw().to_vec(),
            issuer: body.issuer.as_raw().to_vec(),
            spki: body.subject_pki.raw.to_vec(),
            kind: public.kind,
            key_id: stated.unwrap_or_else(|| public.id()),
            ocsp_ids: OcspId::all(body.subject.as_raw(), public.key),
            is_self_signed,
            serial: certificate::serial(&parsed),
            not_after: time::moment(&body.validity.not_after),
            path_len_max: constraints.and_then(|found| found.value.path_len_constraint),
            may_sign_crls: usage.is_none_or(|found| found.value.crl_sign()),
            set: set_of(&parsed),
            record,
        })
    }

    pub(super) fn may(&self, usage: &str) -> bool {
        self.record.usage.iter().any(|known| known == usage)
    }

    /// Whether it stands at the top, having signed itself. One of the same name may have been signed by an older key.
    pub(super) fn is_root(&self) -> bool {
        self.is_self_signed
    }

    /// How it signs lists of revoked certificates and OCSP answers.
    pub(super) fn revocation_algorithm(&self) -> Algorithm {
        Algorithm::named(&self.record.revocation_signature_algorithm)
            .filter(|algorithm| algorithm.fits(self.kind))
            .unwrap_or_else(|| Algorithm::of(self.kind, 0, false))
    }

    /// What goes into the certificates it signs.
    pub(super) fn urls(&self, ctx: &Ctx<'_>) -> Result<Urls, EngineError> {
        self.urls_if_known(ctx)?.ok_or_else(|| {
            EngineError::invalid(
                "unable to template AIA URLs as we lack local cluster address information; set config/cluster",
            )
        })
    }

    /// The URLs; `None` if a template among them cannot be filled in.
    pub(super) fn urls_if_known(&self, ctx: &Ctx<'_>) -> Result<Option<Urls>, EngineError> {
        match &self.record.urls {
            Some(urls) => urls.filled(ctx, &self.record.id),
            None => config::urls(ctx)?.filled(ctx, &self.record.id),
        }
    }

    /// Its chain, itself first.
    pub(super) fn chain(&self, ctx: &Ctx<'_>) -> Result<Vec<Arc<Self>>, EngineError> {
        self.record.chain.iter().filter_map(|id| find(ctx, id).transpose()).collect()
    }
}

fn record_key(id: &str) -> String {
    format!("issuer/{id}")
}

/// Where a revoked issuer is remembered, also when it is no longer here.
fn tombstone_key(certificate: &[u8]) -> String {
    format!("{TOMBSTONES}{}", digest(&[certificate]))
}

/// That an issuer was revoked. Clusters that share the mount have it, and put it on their own lists.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Tombstone {
    /// As it was stored first: the moment, and nothing to put on a list.
    Moment(UnixMillis),
    Certificate(RevokedIssuer),
}

/// A revoked issuer, there or deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokedIssuer {
    layout: u8,
    pub(super) at: UnixMillis,
    #[serde(with = "base64")]
    pub(super) certificate: Vec<u8>,
}

fn tombstone(ctx: &Ctx<'_>, key: &str) -> Result<Option<Tombstone>, EngineError> {
    let found = ctx.storage.get_record::<Tombstone>(key)?;
    if let Some(Tombstone::Certificate(RevokedIssuer { layout, .. })) = found
        && layout != LAYOUT
    {
        let reason = "an unknown layout".to_owned();
        return Err(StorageError::Damaged { key: key.to_owned(), reason }.into());
    }
    Ok(found)
}

/// Remembers that an issuer was revoked, also when it is deleted and comes again.
pub(super) fn remember_revoked(ctx: &Ctx<'_>, certificate: &[u8], at: UnixMillis) -> Result<(), EngineError> {
    let revoked = RevokedIssuer { layout: LAYOUT, at, certificate: certificate.to_vec() };
    Ok(ctx.storage.put_record(&tombstone_key(certificate), &Tombstone::Certificate(revoked))?)
}

/// Every issuer that was revoked, also those that are deleted.
pub(super) fn revoked(ctx: &Ctx<'_>) -> Result<Vec<RevokedIssuer>, EngineError> {
    let mut found = Vec::new();
    for name in ctx.storage.list(TOMBSTONES, &Page::default())? {
        if let Some(Tombstone::Certificate(revoked)) = tombstone(ctx, &format!("{TOMBSTONES}{name}"))? {
            found.push(revoked);
        }
    }
    for issuer in all(ctx)? {
        let is_new = found.iter().all(|known| known.certificate != issuer.record.certificate);
        if let Some(at) = issuer.record.revoked_at.filter(|_| is_new) {
            let certificate = issuer.record.certificate.clone();
            found.push(RevokedIssuer { layout: LAYOUT, at, certificate });
        }
    }
    Ok(found)
}

/// When a certificate that comes in as an issuer was revoked: as an issuer, or by the issuer that signed it.
fn revoked_at(ctx: &Ctx<'_>, issuer: &Issuer) -> Result<Option<UnixMillis>, EngineError> {
    let raw = &issuer.record.certificate;
    match tombstone(ctx, &tombstone_key(raw))? {
        Some(Tombstone::Moment(at) | Tombstone::Certificate(RevokedIssuer { at, .. })) => {
            return Ok(Some(at));
        }
        None => {}
    }
    Ok(store::revocation_of(ctx, &issuer.serial, raw)?.map(|revocation| revocation.at))
}

fn name_key(name: &str) -> String {
    format!("issuer-name/{name}")
}

/// The issuer of that id.
pub(super) fn find(ctx: &Ctx<'_>, id: &str) -> Result<Option<Arc<Issuer>>, EngineError> {
    if id.is_empty() {
        return Ok(None);
    }
    let key = record_key(id);
    let damaged = |reason: String| StorageError::Damaged { key: key.clone(), reason };
    let decode = |bytes: &[u8]| {
        let record: Record = serde_json::from_slice(bytes).map_err(|err| damaged(err.to_string()))?;
        if record.layout != LAYOUT {
            return Err(damaged("an unknown layout".to_owned()));
        }
        let issuer = Issuer::of(record).map_err(|err| damaged(err.to_string()))?;
        Ok(Arc::new(issuer) as Decoded)
    };
    let Some(decoded) = ctx.storage.decoded(&key, &decode)? else { return Ok(None) };
    decoded
        .downcast()
        .map(Some)
        .map_err(|_| EngineError::Bug("an issuer was decoded as something else".to_owned()))
}

/// The issuer a reference means: `default`, an id or a name.
pub(super) fn resolve(ctx: &Ctx<'_>, reference: &str) -> Result<Option<Arc<Issuer>>, EngineError> {
    if reference == DEFAULT {
        return find(ctx, &config::default_issuer(ctx)?);
    }
    if !names::is_name(reference) {
        return Ok(None);
    }
    if let Some(issuer) = find(ctx, reference)? {
        return Ok(Some(issuer));
    }
    match ctx.storage.get_record::<String>(&name_key(reference))? {
        Some(id) => find(ctx, &id),
        None => Ok(None),
    }
}

/// The issuer a reference means, or the caller's mistake.
pub(super) fn required(ctx: &Ctx<'_>, reference: &str) -> Result<Arc<Issuer>, EngineError> {
    resolve(ctx, reference)?.ok_or_else(|| {
        EngineError::Invalid(if reference == DEFAULT {
            "no default issuer currently configured".to_owned()
        } else {
            format!("unable to find PKI issuer for reference: {reference}")
        })
    })
}

/// An issuer that may be used so, with its key ready to sign.
pub(super) fn signing(
    call: &Call<'_>,
    reference: &str,
    usage: &str,
) -> Result<(Arc<Issuer>, Arc<Signer>), EngineError> {
    let issuer = resolve(call.ctx, reference)?.ok_or_else(|| {
        EngineError::Invalid(if reference == DEFAULT {
            "could not fetch the CA certificate (was one set?): no default issuer currently configured".to_owned()
        } else {
            format!(
                "could not fetch the CA certificate (was one set?): unable to find PKI issuer for reference: {reference}"
            )
        })
    })?;
    if !issuer.may(usage) {
        return Err(EngineError::Invalid(format!(
            "error while fetching issuer: this issuer lacks the usage {usage}"
        )));
    }
    let signer = signer(call, &issuer)?;
    Ok((issuer, signer))
}

/// The key of an issuer, ready to sign.
pub(super) fn signer(call: &Call<'_>, issuer: &Issuer) -> Result<Arc<Signer>, EngineError> {
    let key = keys::find(call.ctx, &issuer.record.key_id)?.ok_or_else(|| {
        EngineError::Invalid(format!(
            "unable to fetch corresponding key for issuer {}; unable to use this issuer for signing",
            issuer.record.id
        ))
    })?;
    call.signers.of(call.ctx, &key)
}

/// Every issuer.
pub(super) fn all(ctx: &Ctx<'_>) -> Result<Vec<Arc<Issuer>>, EngineError> {
    let ids = ctx.storage.list("issuer/", &Page::default())?;
    ids.iter().filter_map(|id| find(ctx, id).transpose()).collect()
}

/// Checks the name an issuer is to have; empty for none.
pub(super) fn new_name(ctx: &Ctx<'_>, name: &str) -> Result<(), EngineError> {
    if name.is_empty() {
        return Ok(());
    }
    if name == DEFAULT {
        return Err(EngineError::invalid("reserved keyword 'default' can not be used for a name"));
    }
    if !names::is_name(name) {
        return Err(EngineError::invalid(names::REFUSED));
    }
    if resolve(ctx, name)?.is_some() {
        return Err(EngineError::invalid("issuer name already in use"));
    }
    Ok(())
}

/// Stores a changed record.
pub(super) fn put(ctx: &Ctx<'_>, record: &Record) -> Result<(), EngineError> {
    Ok(ctx.storage.put_record(&record_key(&record.id), record)?)
}

/// Gives an issuer another name.
pub(super) fn rename(ctx: &Ctx<'_>, record: &mut Record, name: &str) -> Result<(), EngineError> {
    if record.name != name {
        new_name(ctx, name)?;
        if !record.name.is_empty() {
            ctx.storage.delete(&name_key(&record.name))?;
        }
        if !name.is_empty() {
            ctx.storage.put_record(&name_key(name), &record.id)?;
        }
        name.clone_into(&mut record.name);
    }
    Ok(())
}

/// Keeps the certificate of an authority under that id, unless it is there already. Says whether it was. Chains are to be
/// found anew.
pub(super) fn keep(
    ctx: &Ctx<'_>,
    id: String,
    der: &[u8],
    name: &str,
) -> Result<(Arc<Issuer>, bool), EngineError> {
    let present = all(ctx)?;
    if let Some(issuer) = present.iter().find(|issuer| issuer.record.certificate == der) {
        return Ok((Arc::clone(issuer), true));
    }
    if present.len() >= ISSUERS_MAX {
        return Err(EngineError::Invalid(format!("the mount has {ISSUERS_MAX} issuers already")));
    }
    new_name(ctx, name)?;
    let record = Record {
        layout: LAYOUT,
        id: id.clone(),
        name: String::new(),
        key_id: String::new(),
        certificate: der.to_vec(),
        manual_chain: Vec::new(),
        chain: vec![id],
        leaf_not_after_behavior: "err".to_owned(),
        usage: USAGES.map(str::to_owned).to_vec(),
        revocation_signature_algorithm: String::new(),
        urls: None,
        revoked_at: None,
    };
    let mut issuer = Issuer::of(record)?;
    if let Some(key) = keys::with_public(ctx, &issuer.spki)? {
        issuer.record.key_id.clone_from(&key.id);
    }
    if !issuer.may_sign_crls {
        issuer.record.usage.retain(|usage| usage != SIGN_CRL);
    }
    issuer.record.revoked_at = revoked_at(ctx, &issuer)?;
    if issuer.record.revoked_at.is_some() {
        issuer.record.usage.retain(|usage| usage != ISSUE);
    }
    rename(ctx, &mut issuer.record, name)?;
    put(ctx, &issuer.record)?;
    if find(ctx, &config::default_issuer(ctx)?)?.is_none() {
        config::put_default_issuer(ctx, &issuer.record.id)?;
    }
    Ok((Arc::new(issuer), false))
}

/// Lets issuers that came before their key sign with it.
pub(super) fn adopt(ctx: &Ctx<'_>, key: &Key) -> Result<(), EngineError> {
    for issuer in all(ctx)? {
        if issuer.record.key_id.is_empty() && issuer.spki == key.spki {
            put(ctx, &Record { key_id: key.id.clone(), ..issuer.record.clone() })?;
        }
    }
    Ok(())
}

/// Removes an issuer, not its key.
pub(super) fn remove(ctx: &Ctx<'_>, issuer: &Issuer) -> Result<(), EngineError> {
    ctx.storage.delete(&record_key(&issuer.record.id))?;
    if !issuer.record.name.is_empty() {
        ctx.storage.delete(&name_key(&issuer.record.name))?;
    }
    Ok(())
}

/// Finds all chains anew, as issuers came or went.
pub(super) fn rebuild_chains(ctx: &Ctx<'_>) -> Result<(), EngineError> {
    let present = all(ctx)?;
    for issuer in &present {
        let chain = chain::of(issuer, &present);
        if chain != issuer.record.chain {
            put(ctx, &Record { chain, ..issuer.record.clone() })?;
        }
    }
    Ok(())
}
