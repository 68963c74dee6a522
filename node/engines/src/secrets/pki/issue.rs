//! Certificates under a role: with a key made here, or for a request.

use std::sync::Arc;

use arca_engine_api::{EngineError, LeaseGrant, Map, Response};
use serde_json::{Value, json};

use super::call::Call;
use super::issuers::{self, Issuer};
use super::output::{self, Format};
use super::plan::{self, Plan, Signed, Source};
use super::private_key::{self, PrivateKey, Signer, kind_of};
use super::role::{self, Role};
use super::sealing::{By, Sealed, Sealing};
use super::store;
use super::x509::certificate::colons;
use super::x509::request::Csr;
use super::x509::{oid, time};
use crate::crypto::der;

/// The role a request names.
fn role(call: &Call<'_>) -> Result<Arc<Role>, EngineError> {
    let name = call.request.param("role");
    role::find(call, name)?.ok_or_else(|| EngineError::Invalid(format!("unknown role: {name}")))
}

/// The issuer: the path's, else the role's. A caller who may use a role is not asked which issuer it uses.
fn issuer(call: &Call<'_>, role: &Role) -> Result<(Arc<Issuer>, Arc<Signer>), EngineError> {
    let in_path = call.request.param("issuer_ref");
    issuers::signing(call, if in_path.is_empty() { &role.issuer_ref } else { in_path }, issuers::ISSUE)
}

fn signed(issuer: &Issuer) -> Signed<'_> {
    Signed { not_after: issuer.not_after, leaf_not_after_behavior: &issuer.record.leaf_not_after_behavior }
}

fn by<'a>(call: &Call<'_>, issuer: &'a Issuer, signer: &'a Signer) -> Result<By<'a>, EngineError> {
    Ok(By { name: Some(&issuer.subject), key_id: &issuer.key_id, signer, urls: issuer.urls(call.ctx)? })
}

/// `issue/:role`: makes key and certificate.
pub(super) async fn issue(call: &Call<'_>) -> Result<Response, EngineError> {
    let role = role(call)?;
    let format = Format::of(call)?;
    let kind = if role.key_type == "any" {
        let key_type = call.text("key_type")?;
        if key_type.is_empty() || key_type == "any" {
            return Err(EngineError::invalid(
                "role key type \"any\" not allowed for issuing certificates, only signing; give key_type",
            ));
        }
        kind_of(&key_type, call.fields().integer("key_bits")?.unwrap_or_default())?
    } else {
        kind_of(&role.key_type, role.key_bits)?
    };
    let (issuer, signer) = issuer(call, &role)?;
    let plan = plan::make(call, &role, Source::Fields, Some(signed(&issuer)))?;
    let key = private_key::generate(call.ctx, kind).await?;
    let spki = key.spki()?;
    let sealing =
        Sealing { role: &role, plan: &plan, spki: &spki, key_id: None, authority: None, verbatim: None };
    let sealed = sealing.seal(call, &by(call, &issuer, &signer)?)?;
    finish(call, format, &Made { role: &role, plan: &plan, issuer: &issuer, sealed, key: Some(&key) })
}

/// `sign/:role`: a certificate for a request, by the role's rules.
pub(super) fn sign(call: &Call<'_>) -> Result<Response, EngineError> {
    let role = role(call)?;
    let format = Format::of(call)?;
    let csr = Csr::parse(&call.text("csr")?)?;
    check_key(&role, &csr)?;
    let (issuer, signer) = issuer(call, &role)?;
    let mut plan = plan::make(call, &role, Source::Csr(&csr), Some(signed(&issuer)))?;
    warn(call, &role, &csr, &mut plan)?;
    let sealing =
        Sealing { role: &role, plan: &plan, spki: &csr.spki, key_id: None, authority: None, verbatim: None };
    let sealed = sealing.seal(call, &by(call, &issuer, &signer)?)?;
    finish(call, format, &Made { role: &role, plan: &plan, issuer: &issuer, sealed, key: None })
}

/// `sign-verbatim(/:role)`: a certificate for a request, with whatever it asks for. Of the role only the times, the
/// issuer, whether it is stored and leased, and whether the certificate says that it is no authority's are taken.
pub(super) fn sign_verbatim(call: &Call<'_>) -> Result<Response, EngineError> {
    let role = verbatim_role(call)?;
    let format = Format::of(call)?;
    let csr = Csr::parse(&call.text("csr")?)?;
    check_key(&role, &csr)?;
    let (issuer, signer) = issuer(call, &role)?;
    let mut plan = plan::make(call, &role, Source::Verbatim(&csr), Some(signed(&issuer)))?;
    warn(call, &role, &csr, &mut plan)?;
    let sealing = Sealing {
        role: &role,
        plan: &plan,
        spki: &csr.spki,
        key_id: None,
        authority: None,
        verbatim: Some(&csr),
    };
    let sealed = sealing.seal(call, &by(call, &issuer, &signer)?)?;
    finish(call, format, &Made { role: &role, plan: &plan, issuer: &issuer, sealed, key: None })
}

fn verbatim_role(call: &Call<'_>) -> Result<Role, EngineError> {
    let fields = call.fields();
    let mut open = Role::without_rules();
    open.take_request(fields)?;
    if let Some(usages) = fields.list("key_usage")? {
        open.key_usage = usages;
    }
    open.ext_key_usage = fields.list("ext_key_usage")?.unwrap_or_default();
    open.ext_key_usage_oids = fields.list("ext_key_usage_oids")?.unwrap_or_default();
    if open.ext_key_usage_oids.iter().any(|text| oid::parse(text).is_none()) {
        return Err(EngineError::invalid("ext_key_usage_oids has what could not be parsed as a valid oid"));
    }
    let says_no_ca = fields.boolean("basic_constraints_valid_for_non_ca")?;
    open.basic_constraints_valid_for_non_ca = says_no_ca.unwrap_or_default();
    let in_path = call.request.param("role");
    let name = if in_path.is_empty() { call.text("role")? } else { in_path.to_owned() };
    if name.is_empty() {
        open.issuer_ref = call.issuer_ref(issuers::DEFAULT)?;
    } else {
        let role =
            role::find(call, &name)?.ok_or_else(|| EngineError::Invalid(format!("unknown role: {name}")))?;
        open.basic_constraints_valid_for_non_ca =
            says_no_ca.unwrap_or(role.basic_constraints_valid_for_non_ca);
        open.ttl = role.ttl;
        open.max_ttl = role.max_ttl;
        open.generate_lease = role.generate_lease;
        open.no_store = role.no_store;
        open.not_before_duration = role.not_before_duration;
        open.not_before.clone_from(&role.not_before);
        open.not_before_bound.clone_from(&role.not_before_bound);
        open.not_after.clone_from(&role.not_after);
        open.not_after_bound.clone_from(&role.not_after_bound);
        // Who may use the role is not asked which issuer it uses.
        open.issuer_ref.clone_from(&role.issuer_ref);
    }
    Ok(open)
}

/// Refuses a request whose key is of another kind, or smaller, than the role wants.
pub(super) fn check_key(role: &Role, csr: &Csr) -> Result<(), EngineError> {
    let kind = csr.public_key()?.kind;
    if role.key_type != "any" && kind.name() != role.key_type {
        return Err(EngineError::Invalid(format!("role requires keys of type {}", role.key_type)));
    }
    let bits = i64::try_from(kind.bits()).unwrap_or_default();
    let wanted = if role.key_type == "any" { 0 } else { role.key_bits };
    if kind.name() != "ed25519" && bits < wanted {
        return Err(EngineError::Invalid(format!(
            "role requires a minimum of a {wanted}-bit key, but CSR's key is {bits} bits"
        )));
    }
    if kind.name() == "rsa" && bits < 2_048 {
        return Err(EngineError::invalid("RSA keys < 2048 bits are unsafe and not supported"));
    }
    Ok(())
}

fn warn(call: &Call<'_>, role: &Role, csr: &Csr, plan: &mut Plan) -> Result<(), EngineError> {
    let asks_for_constraints = csr.extensions.iter().any(|extension| extension.oid == oid::BASIC_CONSTRAINTS);
    if asks_for_constraints && !role.basic_constraints_valid_for_non_ca {
        plan.warnings.push(
            "specified CSR contained a Basic Constraints extension that was ignored during issuance"
                .to_owned(),
        );
    }
    for (is_from_csr, field, setting) in [
        (role.use_csr_common_name, "common_name", "use_csr_common_name"),
        (role.use_csr_sans, "alt_names", "use_csr_sans"),
    ] {
        if is_from_csr && !call.text(field)?.is_empty() {
            plan.warnings.push(format!(
                "the {field} field was provided but the role is set with \"{setting}\" set to true"
            ));
        }
    }
    Ok(())
}

struct Made<'a> {
    role: &'a Role,
    plan: &'a Plan,
    issuer: &'a Issuer,
    sealed: Sealed,
    key: Option<&'a PrivateKey>,
}

/// Stores what was made, and answers it.
fn finish(call: &Call<'_>, format: Format, made: &Made<'_>) -> Result<Response, EngineError> {
    let serial = colons(&made.sealed.serial);
    if !made.role.no_store {
        store::put(call.ctx, &made.sealed.serial, &made.sealed.der)?;
    }
    let mut data = Map::new();
    output::put(&mut data, "not_before", time::seconds(made.plan.not_before));
    output::put(&mut data, "expiration", time::seconds(made.plan.not_after));
    output::put(&mut data, "serial_number", serial.clone());
    output::put(&mut data, "issuing_ca", output_issuer(format, made.issuer));
    let without_roots = call.fields().boolean("remove_roots_from_chain")?.unwrap_or_default();
    let mut chain = made.issuer.chain(call.ctx)?;
    chain.retain(|issuer| !(without_roots && issuer.is_root()));
    let chain: Vec<String> = chain.iter().map(|issuer| output_issuer(format, issuer)).collect();
    let mut certificate = format.certificate(&made.sealed.der);
    if let Some(key) = made.key {
        let (text, type_name) = output::private_key(call, format, key)?;
        if format == Format::PemBundle {
            certificate = format!("{text}\n{certificate}");
        }
        output::put(&mut data, "private_key", text);
        output::put(&mut data, "private_key_type", type_name);
    }
    if format == Format::PemBundle {
        for issuer in &chain {
            certificate.push('\n');
            certificate.push_str(issuer);
        }
    }
    output::put(&mut data, "certificate", certificate);
    if !chain.is_empty() {
        output::put(&mut data, "ca_chain", chain);
    }
    let mut response = output::answer(data, made.plan.warnings.clone());
    if made.role.generate_lease {
        let internal = json!({ "serial_number": serial });
        response.lease = Some(LeaseGrant {
            ttl: made.plan.not_after.since(call.now()),
            max_ttl: made.plan.not_after.since(call.now()),
            is_renewable: false,
            internal: if let Value::Object(map) = internal { map } else { Map::new() },
        });
    }
    Ok(response)
}

/// An issuer's certificate in the form asked for.
pub(super) fn output_issuer(format: Format, issuer: &Issuer) -> String {
    if format == Format::Der { super::base64::encode(&issuer.record.certificate) } else { issuer.pem.clone() }
}

/// PEM of a certificate request.
pub(super) fn request_pem(bytes: &[u8]) -> String {
    der::pem("CERTIFICATE REQUEST", bytes).trim_end().to_owned()
}
