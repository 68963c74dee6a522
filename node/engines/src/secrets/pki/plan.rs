//! What will stand in a certificate: subject, alternative names and validity, each judged by the role.
//!
//! **Security:** names are counted as soon as they are read, before anything is done with each: who asks for too many
//! costs no more than reading the request.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use arca_engine_api::{Caller, EngineError, UnixMillis};

use super::call::Call;
use super::names;
use super::role::Role;
use super::rules;
use super::x509::name::Name;
use super::x509::request::Csr;
use super::x509::san::{OtherName, Sans};
use super::x509::time;

/// Alternative names in one certificate.
const NAMES_MAX: usize = 1_000;

/// A certificate but for its key.
pub(super) struct Plan {
    pub(super) subject: Name,
    pub(super) sans: Sans,
    pub(super) not_before: UnixMillis,
    pub(super) not_after: UnixMillis,
    pub(super) warnings: Vec<String>,
}

/// How long the signer lives, and what is done about who would outlive it.
#[derive(Clone, Copy)]
pub(super) struct Signed<'a> {
    pub(super) not_after: UnixMillis,
    pub(super) leaf_not_after_behavior: &'a str,
}

/// Where names come from besides the request's fields.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// From nowhere.
    Fields,
    /// A CSR, as far as the role takes names from there.
    Csr(&'a Csr),
    /// A CSR that is taken as it is: a common name is no alternative name unless it says so.
    Verbatim(&'a Csr),
}

struct Maker<'a> {
    call: &'a Call<'a>,
    role: &'a Role,
    csr: Option<&'a Csr>,
    is_verbatim: bool,
    /// The CSR, if the role takes alternative names from there.
    csr_with_names: Option<&'a Csr>,
    caller: Option<&'a Caller>,
}

/// Plans a certificate. Without `signed` it signs itself.
pub(super) fn make(
    call: &Call<'_>,
    role: &Role,
    source: Source<'_>,
    signed: Option<Signed<'_>>,
) -> Result<Plan, EngineError> {
    let csr = match source {
        Source::Fields => None,
        Source::Csr(csr) | Source::Verbatim(csr) => Some(csr),
    };
    let maker = Maker {
        call,
        role,
        csr,
        is_verbatim: matches!(source, Source::Verbatim(_)),
        csr_with_names: csr.filter(|_| role.use_csr_sans),
        caller: call.request.caller.as_deref(),
    };
    let common_name = maker.common_name()?;
    let serial_number = maker.serial_number()?;
    let sans = maker.sans(&common_name)?;
    let user_ids = maker.user_ids()?;
    let mut warnings = Vec::new();
    let (not_before, not_after) = validity(call, role, signed, &mut warnings)?;
    let subject = Name {
        country: role.country.clone(),
        organization: role.organization.clone(),
        organizational_unit: role.ou.clone(),
        locality: role.locality.clone(),
        province: role.province.clone(),
        street_address: role.street_address.clone(),
        postal_code: role.postal_code.clone(),
        common_name,
        serial_number,
        user_ids,
    };
    Ok(Plan { subject, sans, not_before, not_after, warnings })
}

fn refused(what: &str, name: &str) -> EngineError {
    EngineError::Invalid(format!("{what} {name} not allowed by this role"))
}

/// The items in their order, each once.
fn unique<T: Clone + Ord>(mut list: Vec<T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
    list
}

fn check_count(count: usize) -> Result<(), EngineError> {
    if count > NAMES_MAX {
        return Err(EngineError::Invalid(format!("more than {NAMES_MAX} alternative names")));
    }
    Ok(())
}

impl Maker<'_> {
    fn common_name(&self) -> Result<String, EngineError> {
        let in_csr = self.csr.filter(|_| self.role.use_csr_common_name).map(|csr| csr.common_name.clone());
        let name = match in_csr.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => self.call.text("common_name")?,
        };
        if name.is_empty() {
            if self.role.require_cn {
                return Err(EngineError::invalid(
                    "the common_name field is required, or must be provided in a CSR with \
                     \"use_csr_common_name\" set to true, unless \"require_cn\" is set to false",
                ));
            }
        } else if !rules::allows_common_name(self.role, self.caller, &name)? {
            return Err(refused("common name", &name));
        }
        Ok(name)
    }

    fn serial_number(&self) -> Result<String, EngineError> {
        let mut serial = self.call.text("serial_number")?;
        if let Some(csr) = self.csr.filter(|_| serial.is_empty()) {
            serial.clone_from(&csr.subject_serial);
        }
        if !serial.is_empty() && !rules::allows_serial_number(self.role, &serial) {
            return Err(refused("serial_number", &serial));
        }
        Ok(serial)
    }

    fn user_ids(&self) -> Result<Vec<String>, EngineError> {
        let mut ids = self.listed("user_ids")?;
        if let Some(csr) = self.csr.filter(|_| ids.is_empty()) {
            ids.clone_from(&csr.user_ids);
        }
        match ids.iter().find(|id| !rules::allows_user_id(self.role, id)) {
            Some(id) => Err(EngineError::Invalid(format!("user_id {id} is not allowed by this role"))),
            None => Ok(ids),
        }
    }

    /// A list of the request's, not longer than is good.
    fn listed(&self, field: &str) -> Result<Vec<String>, EngineError> {
        let list = self.call.fields().list(field)?.unwrap_or_default();
        if list.len() > NAMES_MAX {
            return Err(EngineError::Invalid(format!("{field} has more than {NAMES_MAX} items")));
        }
        Ok(list)
    }

    fn sans(&self, common_name: &str) -> Result<Sans, EngineError> {
        let (mut dns, mut emails) = (Vec::new(), Vec::new());
        let asked = match self.csr_with_names {
            Some(csr) => {
                dns.clone_from(&csr.sans.dns);
                emails.clone_from(&csr.sans.emails);
                Vec::new()
            }
            None => self.listed("alt_names")?,
        };
        let is_asked_out = self.call.fields().boolean("exclude_cn_from_sans")?.unwrap_or_default();
        let is_excluded = self.is_verbatim || is_asked_out;
        if !is_excluded && common_name.contains('@') {
            emails.push(common_name.to_owned());
        } else if !is_excluded && rules::is_host_or_wildcard(common_name) && !is_address(common_name) {
            dns.push(common_name.to_owned());
        }
        for name in asked {
            if name.contains('@') {
                emails.push(name);
            } else {
                dns.push(name);
            }
        }
        check_count(dns.len() + emails.len())?;
        self.check_names(&dns, &emails)?;
        let sans = Sans {
            dns: unique(dns),
            emails: unique(emails),
            ips: self.addresses()?,
            uris: self.uris()?,
            others: self.others()?,
        };
        check_count(
            sans.dns.len() + sans.emails.len() + sans.ips.len() + sans.uris.len() + sans.others.len(),
        )?;
        Ok(sans)
    }

    fn check_names(&self, dns: &[String], emails: &[String]) -> Result<(), EngineError> {
        for name in dns {
            if !name.is_ascii() {
                return Err(EngineError::invalid(
                    "a host name is not ASCII; give international names in their ASCII form (xn--)",
                ));
            }
            // An address among host names would be a name nobody compares with an address, and a star that is part
            // of a label one that verifiers disagree about.
            let is_odd = name.contains('*') && !rules::is_host_or_wildcard(name);
            if is_odd || is_address(name) || !rules::allows_name(self.role, self.caller, name) {
                return Err(refused("subject alternate name", name));
            }
        }
        match emails.iter().find(|name| !rules::allows_name(self.role, self.caller, name)) {
            Some(name) => Err(refused("email address", name)),
            None => Ok(()),
        }
    }

    /// CVE-2026-115369: addresses out of a CSR are judged like those out of the request.
    fn addresses(&self) -> Result<Vec<IpAddr>, EngineError> {
        let (addresses, source) = match self.csr_with_names {
            Some(csr) => (csr.sans.ips.clone(), "CSR"),
            None => (self.asked_addresses()?, "the API"),
        };
        if !addresses.is_empty() && !self.role.allow_ip_sans {
            return Err(EngineError::Invalid(format!(
                "IP Subject Alternative Names are not allowed in this role, but was provided via {source}"
            )));
        }
        let ranges = rules::address_ranges(self.role)?;
        for address in &addresses {
            if !rules::allows_address(self.role, &ranges, *address) {
                return Err(EngineError::Invalid(format!(
                    "the IP address \"{address}\" is not allowed in this role"
                )));
            }
        }
        Ok(unique(addresses))
    }

    fn asked_addresses(&self) -> Result<Vec<IpAddr>, EngineError> {
        let texts = self.listed("ip_sans")?;
        texts
            .iter()
            .map(|text| {
                text.parse().map(|address: IpAddr| address.to_canonical()).map_err(|_| {
                    EngineError::Invalid(format!("the value {text:?} is not a valid IP address"))
                })
            })
            .collect()
    }

    fn uris(&self) -> Result<Vec<String>, EngineError> {
        let (uris, source) = match self.csr_with_names {
            Some(csr) => (csr.sans.uris.clone(), "CSR"),
            None => (self.listed("uri_sans")?, "the API"),
        };
        if !uris.is_empty() && self.role.allowed_uri_sans.is_empty() {
            return Err(EngineError::Invalid(format!(
                "URI Subject Alternative Names are not allowed in this role, but were provided via {source}"
            )));
        }
        for uri in &uris {
            if !rules::allows_uri(self.role, self.caller, uri) {
                return Err(EngineError::Invalid(format!(
                    "URI Subject Alternative Names were provided via {source} which are not valid for this role"
                )));
            }
            if uri.split_once(':').is_none_or(|(scheme, rest)| scheme.is_empty() || rest.is_empty()) {
                return Err(EngineError::invalid(
                    "a provided URI Subject Alternative Name is not a valid URI",
                ));
            }
        }
        Ok(unique(uris))
    }

    fn others(&self) -> Result<Vec<OtherName>, EngineError> {
        let texts = self.listed("other_sans")?;
        let mut others = texts.iter().map(|text| OtherName::parse(text)).collect::<Result<Vec<_>, _>>()?;
        if let Some(csr) = self.csr_with_names {
            others.extend(csr.sans.others.iter().cloned());
        }
        for other in &others {
            rules::check_other(self.role, other)?;
        }
        Ok(unique(others))
    }
}

fn is_address(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
}

fn validity(
    call: &Call<'_>,
    role: &Role,
    signed: Option<Signed<'_>>,
    warnings: &mut Vec<String>,
) -> Result<(UnixMillis, UnixMillis), EngineError> {
    let not_before = not_before(call, role)?;
    let mut not_after = not_after(call, role, warnings)?;
    if let Some(signed) = signed.filter(|signed| not_after > signed.not_after) {
        match signed.leaf_not_after_behavior {
            "permit" => {}
            "truncate" if not_after < call.now() => {
                return Err(EngineError::invalid(
                    "cannot satisfy request, as the NotAfter date is in the past",
                ));
            }
            "truncate" => not_after = signed.not_after,
            _ => {
                return Err(EngineError::Invalid(format!(
                    "cannot satisfy request, as TTL would result in notAfter of {} that is beyond the \
                     expiration of the CA certificate at {}",
                    rfc3339(not_after),
                    rfc3339(signed.not_after),
                )));
            }
        }
    }
    let is_bound_by_moment = !matches!(role.not_after_bound.as_str(), "permit" | "forbid" | "ttl-limited");
    if is_bound_by_moment && not_after > time::parse("not_after_bound", &role.not_after_bound)? {
        return Err(EngineError::Invalid(format!(
            "not_after_bound is set to {}. Cannot satisfy request as that would result in notAfter of {} that is beyond it",
            role.not_after_bound,
            rfc3339(not_after),
        )));
    }
    Ok((time::whole(not_before), time::whole(not_after)))
}

fn rfc3339(moment: UnixMillis) -> String {
    arca_engine_api::rfc3339::format(moment)
}

fn not_before(call: &Call<'_>, role: &Role) -> Result<UnixMillis, EngineError> {
    let earliest = UnixMillis(call.now().0.saturating_sub(role.not_before_duration.saturating_mul(1_000)));
    if !role.not_before.is_empty() {
        return time::parse("not_before", &role.not_before);
    }
    let asked = call.text("not_before")?;
    if asked.is_empty() {
        return Ok(earliest);
    }
    let asked = time::parse("not_before", &asked)?;
    match role.not_before_bound.as_str() {
        "permit" => Ok(asked),
        "duration" if asked >= time::whole(earliest) => Ok(asked),
        "duration" => Err(EngineError::Invalid(format!(
            "not_before_bound is set to duration. Cannot satisfy request as it would result in notBefore \
             of {} that is older than the allowed not_before_duration of {}",
            rfc3339(asked),
            duration_text(role.not_before_duration),
        ))),
        bound => Err(EngineError::Invalid(format!(
            "not_before_bound is set to {bound}. not_before cannot be provided."
        ))),
    }
}

fn not_after(call: &Call<'_>, role: &Role, warnings: &mut Vec<String>) -> Result<UnixMillis, EngineError> {
    // Whole seconds, as certificates have them: less than one is none, not a certificate that ended when it was made.
    let asked_ttl = Duration::from_secs(call.fields().duration("ttl")?.unwrap_or_default().as_secs());
    let asked = call.text("not_after")?;
    if !asked.is_empty() && role.not_after_bound == "forbid" {
        return Err(EngineError::invalid("not_after_bound is set to forbid. not_after cannot be provided."));
    }
    let moment = if role.not_after.is_empty() { &asked } else { &role.not_after };
    if !asked_ttl.is_zero() && !moment.is_empty() {
        return Err(EngineError::invalid(
            "Either ttl or not_after should be provided. Both should not be provided in the same request.",
        ));
    }
    let mount = call.ctx.mount;
    let first_set = |spans: [Duration; 3]| spans.into_iter().find(|span| !span.is_zero()).unwrap_or_default();
    let mut ttl = first_set([asked_ttl, Duration::from_secs(role.ttl), mount.default_lease_ttl]);
    let ttl_max = first_set([Duration::from_secs(role.max_ttl), mount.max_lease_ttl, Duration::ZERO]);
    if !ttl_max.is_zero() && ttl > ttl_max {
        if moment.is_empty() {
            warnings.push(format!(
                "TTL \"{}\" is longer than permitted maxTTL \"{}\", so maxTTL is being used",
                duration_text(ttl.as_secs()),
                duration_text(ttl_max.as_secs()),
            ));
        }
        ttl = ttl_max;
    }
    let by_ttl = call.now().after(ttl);
    if moment.is_empty() {
        return Ok(by_ttl);
    }
    let moment = time::parse("not_after", moment)?;
    if role.not_after_bound == "ttl-limited" && moment > by_ttl {
        return Err(EngineError::Invalid(format!(
            "not_after_bound is set to ttl-limited. Cannot satisfy request as that would result in \
             notAfter of {} that is beyond the TTL of {}",
            rfc3339(moment),
            duration_text(ttl.as_secs()),
        )));
    }
    Ok(moment)
}

/// A span as others write it: `87600h0m0s`.
pub(super) fn duration_text(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// The id a caller gives the subject's key, in hexadecimal.
pub(super) fn subject_key_id(call: &Call<'_>) -> Result<Option<Vec<u8>>, EngineError> {
    let text = call.text("skid")?;
    if text.is_empty() {
        return Ok(None);
    }
    names::from_hex(&text)
        .filter(|id| id.len() <= 64)
        .map(Some)
        .ok_or_else(|| EngineError::invalid("cannot parse requested SKID value as hex"))
}
