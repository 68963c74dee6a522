//! Roles: what may stand in the certificates that are issued under a name.
//!
//! Names are taken as they are, letter for letter: `Admin` and `admin` are two roles, in storage as in policies, so no
//! policy about one is missed by spelling it otherwise.

use arca_engine_api::{Cidr, Ctx, EngineError, Fields, Operation, Page, Response, StorageExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::Call;
use super::private_key::kind_of;
use super::x509::extension::{self, Policy};
use super::x509::san::OtherName;
use super::x509::{name, oid, time};
use super::{issuers, names};

/// A role as stored and, but for its layout, as shown. It holds no secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // They are the API's fields.
pub(super) struct Role {
    pub(super) layout: u8,
    pub(super) allow_any_name: bool,
    pub(super) allow_bare_domains: bool,
    pub(super) allow_glob_domains: bool,
    pub(super) allow_globs_in_identity_templates: bool,
    pub(super) allow_ip_sans: bool,
    pub(super) allow_localhost: bool,
    pub(super) allow_subdomains: bool,
    pub(super) allow_wildcard_certificates: bool,
    pub(super) allowed_domains: Vec<String>,
    pub(super) allowed_domains_template: bool,
    pub(super) allowed_ip_sans_cidr: Vec<String>,
    pub(super) allowed_other_sans: Vec<String>,
    pub(super) allowed_serial_numbers: Vec<String>,
    pub(super) allowed_uri_sans: Vec<String>,
    pub(super) allowed_uri_sans_template: bool,
    pub(super) allowed_user_ids: Vec<String>,
    pub(super) basic_constraints_valid_for_non_ca: bool,
    pub(super) client_flag: bool,
    pub(super) cn_validations: Vec<String>,
    pub(super) code_signing_flag: bool,
    pub(super) country: Vec<String>,
    pub(super) email_protection_flag: bool,
    pub(super) enforce_hostnames: bool,
    pub(super) ext_key_usage: Vec<String>,
    pub(super) ext_key_usage_oids: Vec<String>,
    pub(super) generate_lease: bool,
    pub(super) issuer_ref: String,
    pub(super) key_bits: i64,
    pub(super) key_type: String,
    pub(super) key_usage: Vec<String>,
    pub(super) locality: Vec<String>,
    /// Seconds.
    pub(super) max_ttl: u64,
    pub(super) no_store: bool,
    pub(super) not_after: String,
    pub(super) not_after_bound: String,
    pub(super) not_before: String,
    pub(super) not_before_bound: String,
    /// Seconds.
    pub(super) not_before_duration: u64,
    pub(super) organization: Vec<String>,
    pub(super) ou: Vec<String>,
    pub(super) policy_identifiers: Vec<String>,
    pub(super) postal_code: Vec<String>,
    pub(super) province: Vec<String>,
    pub(super) require_cn: bool,
    pub(super) server_flag: bool,
    pub(super) signature_bits: i64,
    pub(super) street_address: Vec<String>,
    /// Seconds.
    pub(super) ttl: u64,
    pub(super) use_csr_common_name: bool,
    pub(super) use_csr_sans: bool,
    pub(super) use_pss: bool,
}

const LAYOUT: u8 = 1;
/// Roles that are looked at when an issuer goes.
const REFERRING_MAX: usize = 1_000;

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

impl Default for Role {
    fn default() -> Self {
        Self {
            layout: LAYOUT,
            allow_any_name: false,
            allow_bare_domains: false,
            allow_glob_domains: false,
            allow_globs_in_identity_templates: false,
            allow_ip_sans: true,
            allow_localhost: true,
            allow_subdomains: false,
            allow_wildcard_certificates: true,
            allowed_domains: Vec::new(),
            allowed_domains_template: false,
            allowed_ip_sans_cidr: Vec::new(),
            allowed_other_sans: Vec::new(),
            allowed_serial_numbers: Vec::new(),
            allowed_uri_sans: Vec::new(),
            allowed_uri_sans_template: false,
            allowed_user_ids: Vec::new(),
            basic_constraints_valid_for_non_ca: false,
            client_flag: true,
            cn_validations: texts(&["email", "hostname"]),
            code_signing_flag: false,
            country: Vec::new(),
            email_protection_flag: false,
            enforce_hostnames: true,
            ext_key_usage: Vec::new(),
            ext_key_usage_oids: Vec::new(),
            generate_lease: false,
            issuer_ref: issuers::DEFAULT.to_owned(),
            key_bits: 0,
            key_type: "rsa".to_owned(),
            key_usage: texts(&["DigitalSignature", "KeyAgreement", "KeyEncipherment"]),
            locality: Vec::new(),
            max_ttl: 0,
            no_store: false,
            not_after: String::new(),
            not_after_bound: "permit".to_owned(),
            not_before: String::new(),
            not_before_bound: "permit".to_owned(),
            not_before_duration: 30,
            organization: Vec::new(),
            ou: Vec::new(),
            policy_identifiers: Vec::new(),
            postal_code: Vec::new(),
            province: Vec::new(),
            require_cn: true,
            server_flag: true,
            signature_bits: 0,
            street_address: Vec::new(),
            ttl: 0,
            use_csr_common_name: true,
            use_csr_sans: true,
            use_pss: false,
        }
    }
}

impl Role {
    /// What holds where no role does: any name, any key, nothing of the subject but what is asked for.
    pub(super) fn without_rules() -> Self {
        Self {
            allow_any_name: true,
            allowed_other_sans: texts(&["*"]),
            allowed_serial_numbers: texts(&["*"]),
            allowed_uri_sans: texts(&["*"]),
            allowed_user_ids: texts(&["*"]),
            client_flag: false,
            cn_validations: texts(&["disabled"]),
            enforce_hostnames: false,
            key_type: "any".to_owned(),
            require_cn: false,
            server_flag: false,
            ..Self::default()
        }
    }

    /// Takes over what the fields say about subject, validity and signature, for the paths without a role.
    pub(super) fn take_request(&mut self, fields: Fields<'_>) -> Result<(), EngineError> {
        for (field, slot) in [
            ("ou", &mut self.ou),
            ("organization", &mut self.organization),
            ("country", &mut self.country),
            ("locality", &mut self.locality),
            ("province", &mut self.province),
            ("street_address", &mut self.street_address),
            ("postal_code", &mut self.postal_code),
        ] {
            take(slot, fields.list(field)?);
        }
        take(&mut self.signature_bits, fields.integer("signature_bits")?);
        check_signature_bits(self.signature_bits)?;
        take(&mut self.use_pss, fields.boolean("use_pss")?);
        take(
            &mut self.not_before_duration,
            fields.duration("not_before_duration")?.map(|span| span.as_secs()),
        );
        Ok(())
    }

    fn take(&mut self, fields: Fields<'_>) -> Result<(), EngineError> {
        let before = self.key_type.clone();
        self.take_booleans(fields)?;
        self.take_lists(fields)?;
        for (field, slot) in [
            ("issuer_ref", &mut self.issuer_ref),
            ("key_type", &mut self.key_type),
            ("not_after", &mut self.not_after),
            ("not_after_bound", &mut self.not_after_bound),
            ("not_before", &mut self.not_before),
            ("not_before_bound", &mut self.not_before_bound),
        ] {
            take(slot, fields.string(field)?);
        }
        for (field, slot) in [
            ("max_ttl", &mut self.max_ttl),
            ("not_before_duration", &mut self.not_before_duration),
            ("ttl", &mut self.ttl),
        ] {
            take(slot, fields.duration(field)?.map(|span| span.as_secs()));
        }
        if self.key_type != before {
            self.key_bits = 0;
        }
        take(&mut self.key_bits, fields.integer("key_bits")?);
        take(&mut self.signature_bits, fields.integer("signature_bits")?);
        self.settle()
    }

    fn take_booleans(&mut self, fields: Fields<'_>) -> Result<(), EngineError> {
        for (field, slot) in [
            ("allow_any_name", &mut self.allow_any_name),
            ("allow_bare_domains", &mut self.allow_bare_domains),
            ("allow_glob_domains", &mut self.allow_glob_domains),
            ("allow_globs_in_identity_templates", &mut self.allow_globs_in_identity_templates),
            ("allow_ip_sans", &mut self.allow_ip_sans),
            ("allow_localhost", &mut self.allow_localhost),
            ("allow_subdomains", &mut self.allow_subdomains),
            ("allow_wildcard_certificates", &mut self.allow_wildcard_certificates),
            ("allowed_domains_template", &mut self.allowed_domains_template),
            ("allowed_uri_sans_template", &mut self.allowed_uri_sans_template),
            ("basic_constraints_valid_for_non_ca", &mut self.basic_constraints_valid_for_non_ca),
            ("client_flag", &mut self.client_flag),
            ("code_signing_flag", &mut self.code_signing_flag),
            ("email_protection_flag", &mut self.email_protection_flag),
            ("enforce_hostnames", &mut self.enforce_hostnames),
            ("generate_lease", &mut self.generate_lease),
            ("no_store", &mut self.no_store),
            ("require_cn", &mut self.require_cn),
            ("server_flag", &mut self.server_flag),
            ("use_csr_common_name", &mut self.use_csr_common_name),
            ("use_csr_sans", &mut self.use_csr_sans),
            ("use_pss", &mut self.use_pss),
        ] {
            take(slot, fields.boolean(field)?);
        }
        Ok(())
    }

    fn take_lists(&mut self, fields: Fields<'_>) -> Result<(), EngineError> {
        for (field, slot) in [
            ("allowed_domains", &mut self.allowed_domains),
            ("allowed_ip_sans_cidr", &mut self.allowed_ip_sans_cidr),
            ("allowed_other_sans", &mut self.allowed_other_sans),
            ("allowed_serial_numbers", &mut self.allowed_serial_numbers),
            ("allowed_uri_sans", &mut self.allowed_uri_sans),
            ("allowed_user_ids", &mut self.allowed_user_ids),
            ("cn_validations", &mut self.cn_validations),
            ("country", &mut self.country),
            ("ext_key_usage", &mut self.ext_key_usage),
            ("ext_key_usage_oids", &mut self.ext_key_usage_oids),
            ("key_usage", &mut self.key_usage),
            ("locality", &mut self.locality),
            ("organization", &mut self.organization),
            ("ou", &mut self.ou),
            ("postal_code", &mut self.postal_code),
            ("province", &mut self.province),
            ("street_address", &mut self.street_address),
        ] {
            take(slot, fields.list(field)?);
        }
        if let Some(value) = fields.raw("policy_identifiers") {
            self.policy_identifiers = policy_texts(value, fields)?;
        }
        Ok(())
    }

    /// Fills in what depends on other fields, and refuses what cannot be.
    fn settle(&mut self) -> Result<(), EngineError> {
        if self.issuer_ref.is_empty() {
            issuers::DEFAULT.clone_into(&mut self.issuer_ref);
        }
        if self.no_store {
            self.generate_lease = false;
        }
        if self.max_ttl > 0 && self.ttl > self.max_ttl {
            return Err(EngineError::invalid("\"ttl\" value must be less than \"max_ttl\" value"));
        }
        if self.key_type == "any" {
            if self.key_bits < 0 {
                return Err(EngineError::invalid("key_bits must not be negative"));
            }
        } else {
            let kind = kind_of(&self.key_type, self.key_bits)?;
            self.key_bits = i64::try_from(kind.bits()).unwrap_or_default();
        }
        check_signature_bits(self.signature_bits)?;
        self.cn_validations = cn_validations(&self.cn_validations)?;
        Cidr::parse_list(&self.allowed_ip_sans_cidr, "allowed_ip_sans_cidr")?;
        if self.allowed_other_sans != ["*"] {
            self.allowed_other_sans.iter().try_for_each(|text| OtherName::parse(text).map(drop))?;
        }
        for text in &self.ext_key_usage_oids {
            oid::parse(text).ok_or_else(|| {
                EngineError::invalid("ext_key_usage_oids has what could not be parsed as a valid oid")
            })?;
        }
        self.policies()?;
        for part in [
            &self.country,
            &self.locality,
            &self.organization,
            &self.ou,
            &self.postal_code,
            &self.province,
            &self.street_address,
        ] {
            part.iter().try_for_each(|value| name::check_text("a part of the subject", value))?;
        }
        self.check_bounds()
    }

    fn check_bounds(&self) -> Result<(), EngineError> {
        if !matches!(self.not_before_bound.as_str(), "permit" | "forbid" | "duration") {
            return Err(EngineError::invalid("not_before_bound is none of: permit, forbid, duration"));
        }
        if !matches!(self.not_after_bound.as_str(), "permit" | "forbid" | "ttl-limited") {
            time::parse("not_after_bound", &self.not_after_bound).map_err(|_| {
                EngineError::invalid(
                    "not_after_bound is none of: permit, forbid, ttl-limited, a moment in RFC 3339 text",
                )
            })?;
        }
        for (field, text) in [("not_before", &self.not_before), ("not_after", &self.not_after)] {
            if !text.is_empty() {
                time::parse(field, text)?;
            }
        }
        Ok(())
    }

    /// What the certificates are for.
    pub(super) fn purposes(&self) -> Vec<Vec<u8>> {
        let flags = [
            (self.server_flag, "serverauth"),
            (self.client_flag, "clientauth"),
            (self.code_signing_flag, "codesigning"),
            (self.email_protection_flag, "emailprotection"),
        ];
        let mut purposes = Vec::new();
        let flagged = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name);
        let found = flagged
            .chain(self.ext_key_usage.iter().map(String::as_str))
            .filter_map(extension::purpose)
            .chain(self.ext_key_usage_oids.iter().filter_map(|text| oid::parse(text)));
        for purpose in found {
            if !purposes.contains(&purpose) {
                purposes.push(purpose);
            }
        }
        purposes
    }

    /// The policies certificates are issued under.
    pub(super) fn policies(&self) -> Result<Vec<Policy>, EngineError> {
        self.policy_identifiers.iter().map(|text| policy(text)).collect()
    }

    fn shown(&self) -> Value {
        let mut shown = serde_json::to_value(self).unwrap_or_default();
        if let Some(map) = shown.as_object_mut() {
            map.remove("layout");
            map.insert("allow_token_displayname".to_owned(), Value::Bool(false));
        }
        shown
    }
}

fn take<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

fn check_signature_bits(bits: i64) -> Result<(), EngineError> {
    if matches!(bits, 0 | 256 | 384 | 512) {
        return Ok(());
    }
    Err(EngineError::Invalid(format!("unsupported signature bits: {bits}; must be 0, 256, 384 or 512")))
}

fn cn_validations(asked: &[String]) -> Result<Vec<String>, EngineError> {
    let mut taken: Vec<String> = asked.iter().map(|word| word.to_ascii_lowercase()).collect();
    taken.sort();
    if taken.is_empty() {
        return Ok(texts(&["email", "hostname"]));
    }
    let is_known = |word: &String| matches!(word.as_str(), "email" | "hostname" | "disabled");
    if !taken.iter().all(is_known) {
        return Err(EngineError::invalid("cn_validations is none of: email, hostname, disabled"));
    }
    if taken.len() > 1 && taken.iter().any(|word| word == "disabled") {
        return Err(EngineError::invalid("cn_validations value incorrect: disabled goes with nothing else"));
    }
    let asked_len = taken.len();
    taken.dedup();
    if taken.len() < asked_len {
        return Err(EngineError::invalid("cn_validations has a value twice"));
    }
    Ok(taken)
}

/// Each as one text: an identifier, or an object with `oid`, `cps` and `notice`.
fn policy_texts(value: &Value, fields: Fields<'_>) -> Result<Vec<String>, EngineError> {
    let objects = match value {
        Value::Array(items) => items.clone(),
        Value::String(text) if text.trim_start().starts_with('[') => serde_json::from_str::<Vec<Value>>(text)
            .map_err(|_| EngineError::invalid("policy_identifiers is no list"))?,
        _ => return Ok(fields.list("policy_identifiers")?.unwrap_or_default()),
    };
    let one = |item: &Value| match item {
        Value::Object(_) => Ok(item.to_string()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(EngineError::invalid("policy_identifiers has neither text nor object")),
    };
    objects.iter().map(one).collect()
}

fn policy(text: &str) -> Result<Policy, EngineError> {
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Written {
        oid: String,
        cps: String,
        notice: String,
    }
    let bad = || EngineError::invalid("policy_identifiers has what is no object identifier");
    let written: Written = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|_| bad())?
    } else {
        Written { oid: text.to_owned(), ..Written::default() }
    };
    if !written.cps.is_ascii() {
        return Err(EngineError::invalid("policy_identifiers has a cps that is not ASCII"));
    }
    Ok(Policy { oid: oid::parse(&written.oid).ok_or_else(bad)?, cps: written.cps, notice: written.notice })
}

fn key(name: &str) -> String {
    format!("role/{name}")
}

/// The role of that name.
pub(super) fn find(call: &Call<'_>, name: &str) -> Result<Option<std::sync::Arc<Role>>, EngineError> {
    if !names::is_name(name) {
        return Ok(None);
    }
    let role = call.ctx.storage.get_shared::<Role>(&key(name))?;
    if role.as_ref().is_some_and(|role| role.layout != LAYOUT) {
        return Err(EngineError::Bug("a role has an unknown layout".to_owned()));
    }
    Ok(role)
}

/// Reads, writes, patches or deletes a role.
pub(super) fn serve(call: &Call<'_>) -> Result<Response, EngineError> {
    let name = call.request.param("name");
    if !names::is_name(name) {
        return Err(EngineError::invalid(names::REFUSED));
    }
    let mut role = match call.request.operation {
        Operation::Read => {
            return find(call, name)?.map(|role| Response::data(role.shown())).ok_or(EngineError::NotFound);
        }
        Operation::Delete => {
            call.ctx.storage.delete(&key(name))?;
            return Ok(Response::empty());
        }
        Operation::Patch => find(call, name)?
            .map(|role| (*role).clone())
            .ok_or_else(|| EngineError::invalid("Unable to fetch role entry to patch"))?,
        _ => Role::default(),
    };
    let fields = call.request.fields();
    role.take(fields)?;
    call.ctx.storage.put_record(&key(name), &role)?;
    let mut response = Response::data(role.shown());
    if role.no_store && fields.boolean("generate_lease")? == Some(true) {
        response = response.with_warning(
            "mutually exclusive values no_store=true and generate_lease=true were both specified; \
             no_store=true takes priority",
        );
    }
    if role.generate_lease {
        response = response.with_warning(
            "it is encouraged to disable generate_lease and rely on PKI's native capabilities when \
             possible; this option can cause instance-wide issues with large numbers of issued \
             certificates",
        );
    }
    if issuers::resolve(call.ctx, &role.issuer_ref)?.is_none() {
        response = response.with_warning(if role.issuer_ref == issuers::DEFAULT {
            "Issuing Certificate was set to default, but no default issuing certificate (configurable at \
             /config/issuers) is currently set"
                .to_owned()
        } else {
            format!(
                "Issuing Certificate was set to {} but no issuing certificate currently has that name",
                role.issuer_ref
            )
        });
    }
    Ok(response)
}

/// How many of the first roles name an issuer by one of these references.
pub(super) fn referring(ctx: &Ctx<'_>, references: &[&str]) -> Result<usize, EngineError> {
    let page = Page { limit: Some(REFERRING_MAX), ..Page::default() };
    let mut found = 0;
    for name in ctx.storage.list("role/", &page)? {
        let role = ctx.storage.get_shared::<Role>(&key(&name))?;
        found += usize::from(role.is_some_and(|role| references.contains(&role.issuer_ref.as_str())));
    }
    Ok(found)
}

/// The names of the roles.
pub(super) fn list(call: &Call<'_>) -> Result<Response, EngineError> {
    Ok(Response::list(call.ctx.storage.list("role/", &call.page()?)?))
}
