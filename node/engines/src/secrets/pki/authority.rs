//! Certificates of authorities: roots made here, requests for intermediates, and intermediates of others signed.

use std::sync::Arc;

use arca_engine_api::{EngineError, Map, Response};
use zeroize::Zeroizing;

use super::call::Call;
use super::issuers::{self, Issuer};
use super::output::{self, Format};
use super::plan::{self, Plan, Signed, Source};
use super::private_key::{self, PrivateKey, Signer, kind_of};
use super::role::Role;
use super::sealing::{Authority, By, Sealing};
use super::x509::algorithm::Algorithm;
use super::x509::certificate::{self, Draft, colons};
use super::x509::extension::{self, Extension};
use super::x509::public_key::PublicKey;
use super::x509::request::{self, Csr};
use super::x509::{oid, time};
use super::{base64, config, crl, issue, keys, names, signers, store};
use crate::crypto::der;

const NO_URLS: &str = "This mount hasn't configured any authority information access (AIA) fields; this \
                       may make it harder for systems to find missing certificates in the chain or to \
                       validate revocation status of certificates. Consider updating /config/urls or the \
                       newly generated issuer with this information.";
const NO_SUBJECT: &str = "This issuer certificate was generated without a Subject; this makes it likely \
                          that issuing leaf certs with this certificate will cause TLS validation \
                          libraries to reject this certificate.";

/// The key a new authority signs with.
struct OwnKey {
    private: PrivateKey,
    /// Whether the caller gets to see it.
    is_exported: bool,
    /// The name to keep it under, if it is new.
    name: String,
}

async fn own_key(call: &Call<'_>) -> Result<OwnKey, EngineError> {
    let kind = call.request.param("exported");
    let is_cross_signing = call.request.route.id == "intermediate-cross-sign";
    let is_existing = kind == "existing" || is_cross_signing;
    if !is_existing && !matches!(kind, "internal" | "exported") {
        return Err(EngineError::invalid(
            "the \"exported\" path parameter must be \"internal\", \"exported\" or \"existing\"",
        ));
    }
    let name = call.text("key_name")?;
    if is_existing {
        let bits = call.fields().integer("key_bits")?.unwrap_or_default();
        if bits != 0 || !call.text("key_type")?.is_empty() {
            return Err(EngineError::invalid(
                "key_type and key_bits are of new keys; with an existing one they cannot be given",
            ));
        }
        let reference = call.text("key_ref")?;
        let reference = if reference.is_empty() { issuers::DEFAULT } else { &reference };
        let key = keys::required(call.ctx, reference)?;
        let private = signers::load(call.ctx, &key.id)?;
        return Ok(OwnKey { private, is_exported: false, name: String::new() });
    }
    keys::new_name(call.ctx, &name)?;
    let key_type = call.text("key_type")?;
    let key_type = if key_type.is_empty() { "rsa" } else { &key_type };
    let kind_wanted = kind_of(key_type, call.fields().integer("key_bits")?.unwrap_or_default())?;
    let private = private_key::generate(call.ctx, kind_wanted).await?;
    Ok(OwnKey { private, is_exported: kind == "exported", name })
}

/// No rules but what the request itself says.
fn open_role(call: &Call<'_>) -> Result<Role, EngineError> {
    let mut role = Role::without_rules();
    role.take_request(call.fields())?;
    role.use_csr_sans = false;
    role.use_csr_common_name = false;
    Ok(role)
}

/// What an authority's certificate says. User ids are for persons: an authority has none, neither by the request's own
/// fields nor out of a CSR whose subject is not taken as it is.
fn open_plan(
    call: &Call<'_>,
    role: &Role,
    source: Source<'_>,
    signed: Option<Signed<'_>>,
) -> Result<Plan, EngineError> {
    let mut plan = plan::make(call, role, source, signed)?;
    plan.subject.user_ids.clear();
    Ok(plan)
}

fn path_len(call: &Call<'_>) -> Result<Option<i64>, EngineError> {
    let asked = call.fields().integer("max_path_length")?;
    if asked.is_some_and(|len| !(-1..=255).contains(&len)) {
        return Err(EngineError::invalid("max_path_length must be between -1 and 255"));
    }
    Ok(asked)
}

fn authority(call: &Call<'_>, path_len_max: Option<u32>) -> Result<Authority, EngineError> {
    let fields = call.fields();
    let usage = fields.list("key_usage")?.map(|names| extension::key_usage_bits(&names));
    let mut purposes: Vec<Vec<u8>> = Vec::new();
    for name in fields.list("ext_key_usage")?.unwrap_or_default() {
        purposes.extend(extension::purpose(&name));
    }
    for text in fields.list("ext_key_usage_oids")?.unwrap_or_default() {
        purposes.push(oid::parse(&text).ok_or_else(|| {
            EngineError::invalid("ext_key_usage_oids has what could not be parsed as a valid oid")
        })?);
    }
    Ok(Authority {
        path_len_max,
        permitted_dns_domains: fields.list("permitted_dns_domains")?.unwrap_or_default(),
        // An authority that may not sign certificates is none.
        usage: usage.filter(|bits| *bits != 0).map(|bits| bits | extension::CA_USAGE),
        purposes,
    })
}

/// `root/generate`, `root/rotate`, `issuers/generate/root`.
pub(super) async fn generate_root(call: &Call<'_>) -> Result<Response, EngineError> {
    let format = Format::of(call)?;
    let mut name = call.text("issuer_name")?;
    issuers::new_name(call.ctx, &name)?;
    let is_rotation = call.request.route.id == "root-rotate";
    if name.is_empty() && is_rotation && issuers::resolve(call.ctx, "next")?.is_none() {
        "next".clone_into(&mut name);
    }
    let role = open_role(call)?;
    let plan = open_plan(call, &role, Source::Fields, None)?;
    let path_len_max = path_len(call)?.and_then(|len| u32::try_from(len).ok());
    let authority = authority(call, path_len_max)?;
    let own = own_key(call).await?;
    let signer = Signer::of(&own.private)?;
    let id = names::new_id(call.ctx.entropy)?;
    let urls = config::urls(call.ctx)?.filled(call.ctx, &id)?.ok_or_else(|| {
        EngineError::invalid(
            "unable to template AIA URLs as we lack local cluster address information; set config/cluster",
        )
    })?;
    let has_urls = !urls.is_empty();
    let sealing = Sealing {
        role: &role,
        plan: &plan,
        spki: signer.spki(),
        key_id: None,
        authority: Some(authority),
        verbatim: None,
    };
    let by = By { name: None, key_id: &[], signer: &signer, urls };
    let sealed = sealing.seal(call, &by)?;
    let (key, _) = keys::keep(call.ctx, &own.private, &own.name)?;
    let (issuer, _) = issuers::keep(call.ctx, id, &sealed.der, &name)?;
    let algorithm = Algorithm::of(signer.kind(), role.signature_bits, role.use_pss);
    let record = issuers::Record {
        revocation_signature_algorithm: algorithm.name().to_owned(),
        key_id: key.id.clone(),
        ..issuer.record.clone()
    };
    issuers::put(call.ctx, &record)?;
    store::put(call.ctx, &sealed.serial, &sealed.der)?;
    after_new_issuers(call, &[&record.id])?;

    let mut data = Map::new();
    put_own_key(call, format, &own, &mut data)?;
    let mut text = format.certificate(&sealed.der);
    output::put(&mut data, "issuing_ca", text.clone());
    if let (Format::PemBundle, Some(private)) = (format, data.get("private_key").and_then(|key| key.as_str()))
    {
        text = format!("{private}\n{text}");
    }
    output::put(&mut data, "certificate", text);
    output::put(&mut data, "expiration", time::seconds(plan.not_after));
    output::put(&mut data, "serial_number", colons(&sealed.serial));
    output::put(&mut data, "issuer_id", record.id);
    output::put(&mut data, "issuer_name", record.name);
    output::put(&mut data, "key_id", key.id.clone());
    output::put(&mut data, "key_name", key.name.clone());
    let mut warnings = plan.warnings.clone();
    warn(&mut warnings, &plan, has_urls, path_len_max)?;
    Ok(output::answer(data, warnings))
}

fn put_own_key(call: &Call<'_>, format: Format, own: &OwnKey, data: &mut Map) -> Result<(), EngineError> {
    if own.is_exported {
        let (text, type_name) = output::private_key(call, format, &own.private)?;
        output::put(data, "private_key", text);
        output::put(data, "private_key_type", type_name);
    }
    Ok(())
}

fn warn(
    warnings: &mut Vec<String>,
    plan: &Plan,
    has_urls: bool,
    path_len_max: Option<u32>,
) -> Result<(), EngineError> {
    if plan.subject.encode()?.len() <= 2 {
        warnings.push(NO_SUBJECT.to_owned());
    }
    if !has_urls {
        warnings.push(NO_URLS.to_owned());
    }
    if path_len_max == Some(0) {
        warnings.push(
            "Max path length of the certificate is zero. This certificate cannot be used to issue \
             intermediate CA certificates."
                .to_owned(),
        );
    }
    Ok(())
}

/// Chains, the default and the lists of revoked certificates, once issuers came.
pub(super) fn after_new_issuers(call: &Call<'_>, ids: &[&str]) -> Result<(), EngineError> {
    issuers::rebuild_chains(call.ctx)?;
    if config::follows_latest(call.ctx)? {
        let mut with_keys = Vec::new();
        for id in ids {
            with_keys.extend(issuers::find(call.ctx, id)?.filter(|issuer| !issuer.record.key_id.is_empty()));
        }
        if let [only] = with_keys.as_slice() {
            config::put_default_issuer(call.ctx, &only.record.id)?;
        }
    }
    crl::build_missing(call)
}

/// `intermediate/generate`, `intermediate/cross-sign`, `issuers/generate/intermediate`: a key and a request for it.
pub(super) async fn generate_intermediate(call: &Call<'_>) -> Result<Response, EngineError> {
    let format = Format::of(call)?;
    let role = open_role(call)?;
    let plan = open_plan(call, &role, Source::Fields, None)?;
    let own = own_key(call).await?;
    let signer = Signer::of(&own.private)?;
    let mut extensions = Vec::new();
    if call.fields().boolean("add_basic_constraints")?.unwrap_or_default() {
        extensions.push(extension::basic_constraints(true, None));
    }
    extensions.extend(plan.sans.encode()?.map(|value| Extension {
        oid: oid::SUBJECT_ALT_NAME.to_vec(),
        is_critical: false,
        value,
    }));
    let info = request::info(&plan.subject.encode()?, signer.spki(), &extensions);
    let algorithm = Algorithm::of(signer.kind(), role.signature_bits, role.use_pss);
    let signature = signer.sign(algorithm, &info, call.ctx.entropy)?;
    let csr = certificate::signed(&info, algorithm, &signature);
    let (key, _) = keys::keep(call.ctx, &own.private, &own.name)?;
    let mut data = Map::new();
    put_own_key(call, format, &own, &mut data)?;
    let mut text = if format == Format::Der { base64::encode(&csr) } else { issue::request_pem(&csr) };
    if let (Format::PemBundle, Some(private)) = (format, data.get("private_key").and_then(|key| key.as_str()))
    {
        text = format!("{private}\n{text}");
    }
    output::put(&mut data, "csr", text);
    output::put(&mut data, "key_id", key.id.clone());
    let mut warnings = Vec::new();
    if config::urls(call.ctx)?.is_empty() {
        warnings.push(NO_URLS.to_owned());
    }
    Ok(output::answer(data, warnings))
}

/// The path length of an authority behind `issuer`, and whether less than was asked for: one that went further would
/// issue certificates that nobody takes.
fn behind(issuer: &Issuer, asked: Option<i64>) -> Result<(Option<u32>, bool), EngineError> {
    if issuer.path_len_max == Some(0) {
        return Err(EngineError::invalid(
            "signing certificate has a max path length of zero, and cannot issue further CA certificates",
        ));
    }
    let asked_len = asked.and_then(|len| u32::try_from(len).ok());
    let Some(most) = issuer.path_len_max.map(|len| len - 1) else { return Ok((asked_len, false)) };
    let len = asked_len.unwrap_or(most).min(most);
    Ok((Some(len), asked.is_some() && asked_len != Some(len)))
}

/// `root/sign-intermediate`, `issuer/:ref/sign-intermediate`.
pub(super) fn sign_intermediate(call: &Call<'_>) -> Result<Response, EngineError> {
    let format = Format::of(call)?;
    let mut role = open_role(call)?;
    role.use_csr_common_name = call.text("common_name")?.is_empty();
    let (issuer, signer) = issuers::signing(call, &call.issuer_ref(issuers::DEFAULT)?, issuers::ISSUE)?;
    let csr = Csr::parse(&call.text("csr")?)?;
    issue::check_key(&role, &csr)?;
    let is_verbatim = call.fields().boolean("use_csr_values")?.unwrap_or_default();
    role.use_csr_sans = is_verbatim;
    // An intermediate may outlive who signs it: cross-signing and renewal need it.
    let signed = Signed { not_after: issuer.not_after, leaf_not_after_behavior: "permit" };
    let source = if is_verbatim { Source::Verbatim(&csr) } else { Source::Csr(&csr) };
    let plan = open_plan(call, &role, source, Some(signed))?;
    let (path_len_max, is_capped) = behind(&issuer, path_len(call)?)?;
    let urls = issuer.urls(call.ctx)?;
    let has_urls = !urls.is_empty();
    let sealing = Sealing {
        role: &role,
        plan: &plan,
        spki: &csr.spki,
        key_id: plan::subject_key_id(call)?,
        authority: Some(authority(call, path_len_max)?),
        verbatim: Some(&csr).filter(|_| is_verbatim),
    };
    let by = By { name: Some(&issuer.subject), key_id: &issuer.key_id, signer: &signer, urls };
    let sealed = sealing.seal(call, &by)?;
    store::put(call.ctx, &sealed.serial, &sealed.der)?;

    let mut chain = vec![format.certificate(&sealed.der)];
    chain.extend(issuer.chain(call.ctx)?.iter().map(|above| issue::output_issuer(format, above)));
    let text = if format == Format::PemBundle { chain.join("\n") } else { format.certificate(&sealed.der) };
    let mut data = Map::new();
    output::put(&mut data, "certificate", text);
    output::put(&mut data, "issuing_ca", issue::output_issuer(format, &issuer));
    output::put(&mut data, "ca_chain", chain);
    output::put(&mut data, "expiration", time::seconds(plan.not_after));
    output::put(&mut data, "serial_number", colons(&sealed.serial));
    let mut warnings = plan.warnings.clone();
    if issuer.not_after < plan.not_after {
        warnings.push(
            "The expiration time for the signed certificate is after the CA's expiration time. If the \
             new certificate is not treated as a root, validation paths with the certificate past the \
             issuing CA's expiration time will fail."
                .to_owned(),
        );
    }
    if is_capped {
        warnings.push(
            "The max path length asked for is beyond what the issuer allows; it is one less than the issuer's own."
                .to_owned(),
        );
    }
    warn(&mut warnings, &plan, has_urls, path_len_max)?;
    if is_verbatim {
        warnings.retain(|warning| warning != NO_SUBJECT);
    }
    Ok(output::answer(data, warnings))
}

/// `root/sign-self-issued`, `issuer/:ref/sign-self-issued`: another authority's own certificate, under our signature and
/// with a serial number of ours.
pub(super) fn sign_self_issued(call: &Call<'_>) -> Result<Response, EngineError> {
    let text = call.text("certificate")?;
    let (_, raw, rest) =
        der::first_pem(&text).ok_or_else(|| EngineError::invalid("certificate could not be PEM-decoded"))?;
    if der::first_pem(rest).is_some() {
        return Err(EngineError::invalid("more than one certificate found in PEM file, expected 1"));
    }
    let parsed = certificate::parse(&raw)?;
    let body = &parsed.tbs_certificate;
    if !parsed.is_ca() {
        return Err(EngineError::invalid("given certificate is not a CA certificate"));
    }
    if body.subject.as_raw() != body.issuer.as_raw() {
        return Err(EngineError::invalid("given certificate is not self-issued"));
    }
    let (issuer, signer) = issuers::signing(call, &call.issuer_ref(issuers::DEFAULT)?, issuers::ISSUE)?;
    behind(&issuer, None)?;
    let theirs = PublicKey::of(body.subject_pki.raw)?.kind;
    let must_match = call.fields().boolean("require_matching_certificate_algorithms")?.unwrap_or_default();
    if must_match && theirs.name() != issuer.kind.name() {
        return Err(EngineError::invalid(
            "signing certificate's public key algorithm does not match submitted certificate's, and \
             require_matching_certificate_algorithms is true",
        ));
    }
    let urls = issuer.urls(call.ctx)?;
    let ours =
        [oid::AUTHORITY_KEY_ID, oid::AUTHORITY_INFO_ACCESS, oid::CRL_DISTRIBUTION_POINTS, oid::FRESHEST_CRL];
    let mut extensions: Vec<Extension> = body
        .iter_extensions()
        .filter(|extension| !ours.contains(&extension.oid.as_bytes()))
        .map(|extension| Extension {
            oid: extension.oid.as_bytes().to_vec(),
            is_critical: extension.critical,
            value: extension.value.to_vec(),
        })
        .collect();
    extensions.extend(extension::authority_key_id(&issuer.key_id));
    extensions.extend(extension::authority_info_access(&urls.issuing_certificates, &urls.ocsp_servers));
    extensions.extend(extension::crl_distribution_points(&urls.crl_distribution_points));
    extensions.extend(extension::freshest_crl(&urls.delta_crl_distribution_points));
    // Whoever made the certificate chose its number: under our name it might be that of another of ours, and revoking one
    // would revoke both.
    let serial = certificate::new_serial(call.ctx.entropy)?;
    let draft = Draft {
        serial: serial.clone(),
        issuer: &issuer.subject,
        subject: body.subject.as_raw(),
        not_before: time::moment(&body.validity.not_before),
        not_after: time::moment(&body.validity.not_after),
        spki: body.subject_pki.raw,
        extensions,
    };
    let algorithm = Algorithm::of(signer.kind(), 0, false);
    let signed = draft.encode(algorithm)?;
    let signature = signer.sign(algorithm, &signed, call.ctx.entropy)?;
    let made = certificate::signed(&signed, algorithm, &signature);
    store::put(call.ctx, &serial, &made)?;
    let mut data = Map::new();
    output::put(&mut data, "certificate", certificate::pem(&made));
    output::put(&mut data, "issuing_ca", issuer.pem.clone());
    Ok(output::answer(data, Vec::new()))
}

/// `DELETE root`: every issuer and key goes; lists of revoked certificates stay.
pub(super) fn delete_root(call: &Call<'_>) -> Result<Response, EngineError> {
    for issuer in issuers::all(call.ctx)? {
        issuers::remove(call.ctx, &issuer)?;
    }
    config::put_default_issuer(call.ctx, "")?;
    keys::remove_all(call)?;
    Ok(Response::empty().with_warning(
        "DELETE /root deletes all keys and issuers; prefer the new DELETE /key/:key_ref and DELETE \
         /issuer/:issuer_ref for finer granularity, unless removal of all keys and issuers is desired.",
    ))
}

/// Certificates and keys from outside, as they come in PEM.
pub(super) struct Bundle {
    pub(super) certificates: Vec<Vec<u8>>,
    pub(super) keys: Vec<PrivateKey>,
}

/// Blocks of one bundle.
const BLOCKS_MAX: usize = 100;

impl Bundle {
    /// Takes it apart. Lists of revoked certificates and parameters of curves are passed over.
    pub(super) fn of(text: &str) -> Result<Self, EngineError> {
        let (mut certificates, mut keys) = (Vec::new(), Vec::new());
        let mut rest = text;
        let mut count = 0;
        while rest.contains("-----BEGIN ") {
            count += 1;
            let (label, block, behind) =
                der::first_pem(rest).filter(|_| count <= BLOCKS_MAX).ok_or_else(|| {
                    EngineError::Invalid(format!("error when parsing block {count}: invalid PEM data"))
                })?;
            rest = behind;
            let block = Zeroizing::new(block);
            match label {
                "CERTIFICATE" | "X509 CERTIFICATE" => certificates.push(block.to_vec()),
                "CRL" | "X509 CRL" | "EC PARAMS" | "EC PARAMETERS" => {}
                _ => keys.push(PrivateKey::in_pem(label, &block).ok_or_else(|| {
                    EngineError::Invalid(format!(
                        "error when parsing block {count}: neither certificate nor key"
                    ))
                })??),
            }
        }
        if certificates.is_empty() && keys.is_empty() {
            return Err(EngineError::invalid("error when parsing block 1: invalid PEM data"));
        }
        Ok(Self { certificates, keys })
    }
}

/// Imports a bundle and answers what came of it. `issuers/import/…`, `config/ca`, `intermediate/set-signed`.
pub(super) fn import(call: &Call<'_>) -> Result<Response, EngineError> {
    let (bundle, certificate) = (call.text("pem_bundle")?, call.text("certificate")?);
    if bundle.is_empty() && certificate.is_empty() {
        return Err(EngineError::invalid("'pem_bundle' and 'certificate' parameters were empty"));
    }
    if !bundle.is_empty() && !certificate.is_empty() {
        return Err(EngineError::invalid("'pem_bundle' and 'certificate' parameters were both provided"));
    }
    let takes_keys = matches!(call.request.route.id, "import-bundle" | "config-ca") && certificate.is_empty();
    let text = if bundle.is_empty() { certificate } else { bundle };
    if text.len() < 75 {
        return Err(EngineError::invalid(
            "provided data for import was too short; perhaps a path was passed to the API rather than \
             the contents of a PEM file",
        ));
    }
    let bundle = Bundle::of(&text)?;
    if !takes_keys && !bundle.keys.is_empty() {
        return Err(EngineError::invalid(
            "private keys found in the PEM bundle but not allowed by the path; use /issuers/import/bundle",
        ));
    }
    let (mut new_keys, mut old_keys, mut new_issuers, mut old_issuers) = (vec![], vec![], vec![], vec![]);
    for private in &bundle.keys {
        let (key, is_old) = keys::keep(call.ctx, private, "")?;
        if is_old { &mut old_keys } else { &mut new_keys }.push(key.id.clone());
    }
    let mut imported: Vec<Arc<Issuer>> = Vec::new();
    for (at, raw) in bundle.certificates.iter().enumerate() {
        let id = names::new_id(call.ctx.entropy)?;
        let (issuer, is_old) = issuers::keep(call.ctx, id, raw, "").map_err(|err| match err {
            EngineError::Invalid(text) => EngineError::Invalid(format!("Error parsing issuer {at}: {text}")),
            other => other,
        })?;
        if is_old { &mut old_issuers } else { &mut new_issuers }.push(issuer.record.id.clone());
        imported.push(issuer);
    }
    let ids: Vec<&str> = new_issuers.iter().map(String::as_str).collect();
    after_new_issuers(call, &ids)?;
    let mapping: Map = imported
        .iter()
        .map(|issuer| (issuer.record.id.clone(), issuer.record.key_id.clone().into()))
        .collect();
    let mut data = Map::new();
    output::put(&mut data, "mapping", mapping);
    output::put(&mut data, "imported_keys", output::ids(&new_keys));
    output::put(&mut data, "imported_issuers", output::ids(&new_issuers));
    output::put(&mut data, "existing_keys", output::ids(&old_keys));
    output::put(&mut data, "existing_issuers", output::ids(&old_issuers));
    let mut warnings = Vec::new();
    let default = config::default_issuer(call.ctx)?;
    if imported.iter().any(|issuer| issuer.record.id == default && issuer.record.key_id.is_empty()) {
        warnings.push(
            "The default issuer has no key associated with it. Some operations like issuing certificates \
             and signing CRLs will be unavailable with the requested default issuer until a key is \
             imported or the default issuer is changed."
                .to_owned(),
        );
    }
    if config::urls(call.ctx)?.is_empty() {
        warnings.push(NO_URLS.to_owned());
    }
    Ok(output::answer(data, warnings))
}
