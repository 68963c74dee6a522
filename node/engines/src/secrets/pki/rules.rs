//! Whether a role allows a name.
//!
//! **Security:** every name that gets into a certificate is judged here, whoever brought it: the request's fields, the
//! CSR, or the common name. A wildcard is judged by what is left without its first label, and only where subdomains are
//! allowed; a value that a template fills in cannot widen the rule it stands in.

use std::net::IpAddr;

use arca_engine_api::{Caller, Cidr, EngineError};

use super::role::Role;
use super::x509::san::OtherName;

/// Letters of a host name, and of one label of it.
const HOST_LEN_MAX: usize = 253;
const LABEL_LEN_MAX: usize = 63;

/// Whether `text` is what a pattern with any number of `*` stands for.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut here) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while here < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(letter) if text.get(here) == Some(letter) => {
                at += 1;
                here += 1;
            }
            _ => {
                // Let the last star take one letter more.
                let Some((starred, taken)) = star else { return false };
                star = Some((starred, taken + 1));
                at = starred + 1;
                here = taken + 1;
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|letter| *letter == b'*')
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && bytes.len() <= LABEL_LEN_MAX
}

/// Whether it is a host name without a wildcard.
pub(super) fn is_host(name: &str) -> bool {
    name.len() <= HOST_LEN_MAX && name.split('.').all(is_label)
}

/// Whether it is a host name, perhaps with `*` as its whole first label.
pub(super) fn is_host_or_wildcard(name: &str) -> bool {
    is_host(name.strip_prefix("*.").unwrap_or(name))
}

/// A first label with one star in it, of which the rest could be a label.
fn is_wild_label(label: &str) -> bool {
    let Some((before, after)) = label.split_once('*') else { return false };
    let is_part = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && part.len() < LABEL_LEN_MAX
    };
    is_part(before) && is_part(after) && !before.starts_with('-') && !after.ends_with('-')
}

/// A name taken apart.
struct Parts<'a> {
    whole: &'a str,
    /// What the rules compare: the host of a mail address, and of a wildcard all but its first label.
    reduced: &'a str,
    is_email: bool,
    wild_label: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (host, is_email) = match name.split_once('@') {
            Some((user, host)) if !user.is_empty() && !host.contains('@') => (host, true),
            Some(_) => return None,
            None => (name, false),
        };
        if !host.contains('*') {
            return Some(Self { whole: name, reduced: host, is_email, wild_label: None });
        }
        let (label, rest) = host.split_once('.').unwrap_or((host, ""));
        if is_email || rest.contains('*') || label.matches('*').count() != 1 {
            return None;
        }
        Some(Self { whole: name, reduced: rest, is_email, wild_label: Some(label) })
    }
}

/// Fills in a rule for who asks. `None` if it cannot be, or if what is filled in could widen it.
fn filled(rule: &str, caller: Option<&Caller>, may_have_stars: bool) -> Option<String> {
    let mut out = String::new();
    let mut rest = rule;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (name, after) = behind.split_once("}}")?;
        let value = match name.trim() {
            "identity.entity.id" => caller.map(|caller| caller.entity_id.as_str())?,
            name => {
                let key = name.strip_prefix("token.metadata.")?;
                caller?.metadata.get(key)?
            }
        };
        let is_safe = !value.is_empty()
            && value.chars().all(|letter| !letter.is_control() && !letter.is_whitespace())
            && !value.contains(['+', '/', ',', '{', '}'])
            && (may_have_stars || !value.contains('*'));
        is_safe.then_some(())?;
        out.push_str(before);
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

fn rules<'a>(
    role: &'a Role,
    list: &'a [String],
    is_template: bool,
    caller: Option<&'a Caller>,
) -> impl Iterator<Item = String> + 'a {
    let may_have_stars = role.allow_globs_in_identity_templates;
    list.iter().filter(|rule| !rule.is_empty()).filter_map(move |rule| {
        if is_template && rule.contains("{{") {
            filled(rule, caller, may_have_stars)
        } else {
            Some(rule.clone())
        }
    })
}

fn is_below(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.to_ascii_lowercase());
    name.strip_suffix(&domain).is_some_and(|front| front.ends_with('.') && front.len() > 1)
}

/// Whether the role allows a host or mail address.
pub(super) fn allows_name(role: &Role, caller: Option<&Caller>, name: &str) -> bool {
    let Some(parts) = Parts::of(name) else { return false };
    let is_wild = parts.wild_label.is_some();
    if is_wild && !role.allow_wildcard_certificates {
        return false;
    }
    if role.enforce_hostnames {
        let is_host = (is_wild && parts.reduced.is_empty()) || is_host(parts.reduced);
        if !is_host || !parts.wild_label.is_none_or(is_wild_label) {
            return false;
        }
    }
    if role.allow_any_name {
        return true;
    }
    if role.allow_localhost {
        for local in ["localhost", "localdomain"] {
            let is_itself = parts.reduced == local && (!is_wild || role.allow_subdomains);
            if is_itself || (role.allow_subdomains && is_below(parts.reduced, local)) {
                return true;
            }
        }
    }
    rules(role, &role.allowed_domains, role.allowed_domains_template, caller)
        .any(|domain| allows_domain(role, &parts, &domain))
}

fn allows_domain(role: &Role, parts: &Parts<'_>, domain: &str) -> bool {
    let is_wild = parts.wild_label.is_some();
    let is_bare = parts.whole.eq_ignore_ascii_case(domain)
        || (parts.is_email && parts.reduced.eq_ignore_ascii_case(domain));
    if role.allow_bare_domains && is_bare {
        return true;
    }
    if role.allow_subdomains
        && (is_below(parts.reduced, domain) || (is_wild && parts.reduced.eq_ignore_ascii_case(domain)))
    {
        return true;
    }
    role.allow_glob_domains
        && domain.contains('*')
        && glob(&domain.to_ascii_lowercase(), &parts.whole.to_ascii_lowercase())
}

/// Whether the role allows a common name: its kind, then the name.
/// An address is allowed there only where it would be as an alternative name.
pub(super) fn allows_common_name(
    role: &Role,
    caller: Option<&Caller>,
    name: &str,
) -> Result<bool, EngineError> {
    if role.cn_validations == ["disabled"] {
        return Ok(true);
    }
    let kind = if name.contains('@') { "email" } else { "hostname" };
    if !allows_name(role, caller, name) || !role.cn_validations.iter().any(|known| known == kind) {
        return Ok(false);
    }
    match name.parse() {
        Ok(address) => Ok(allows_address(role, &address_ranges(role)?, address)),
        Err(_) => Ok(true),
    }
}

/// The ranges that addresses have to lie in; none for anywhere.
pub(super) fn address_ranges(role: &Role) -> Result<Vec<Cidr>, EngineError> {
    Cidr::parse_list(&role.allowed_ip_sans_cidr, "allowed_ip_sans_cidr")
}

/// Whether the role, with its ranges, allows an address.
pub(super) fn allows_address(role: &Role, ranges: &[Cidr], address: IpAddr) -> bool {
    role.allow_ip_sans && Cidr::any_contains(ranges, Some(address))
}

/// Whether the role allows a URI.
pub(super) fn allows_uri(role: &Role, caller: Option<&Caller>, uri: &str) -> bool {
    rules(role, &role.allowed_uri_sans, role.allowed_uri_sans_template, caller).any(|rule| glob(&rule, uri))
}

/// Whether the role allows a serial number in the subject.
pub(super) fn allows_serial_number(role: &Role, serial: &str) -> bool {
    role.allowed_serial_numbers
        .iter()
        .any(|rule| rule == serial || (rule.contains('*') && glob(rule, serial)))
}

/// Whether the role allows a user id in the subject.
pub(super) fn allows_user_id(role: &Role, id: &str) -> bool {
    role.allowed_user_ids
        .iter()
        .any(|rule| rule.eq_ignore_ascii_case(id) || (rule.contains('*') && glob(rule, id)))
}

/// Refuses a name of another kind that the role does not allow.
pub(super) fn check_other(role: &Role, other: &OtherName) -> Result<(), EngineError> {
    if role.allowed_other_sans == ["*"] {
        return Ok(());
    }
    let mut is_known = false;
    for rule in &role.allowed_other_sans {
        let rule = OtherName::parse(rule)?;
        if rule.oid == other.oid {
            is_known = true;
            if glob(&rule.value, &other.value) {
                return Ok(());
            }
        }
    }
    Err(EngineError::Invalid(if is_known {
        format!("other SAN {} not allowed for OID {} by this role", other.value, other.oid)
    } else {
        format!("other SAN OID {} not allowed by this role", other.oid)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn role(domains: &[&str], flags: &str) -> Role {
        let mut role = Role { allow_localhost: false, ..Role::default() };
        role.allowed_domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
        for flag in flags.split_whitespace() {
            match flag {
                "bare" => role.allow_bare_domains = true,
                "sub" => role.allow_subdomains = true,
                "glob" => role.allow_glob_domains = true,
                "any" => role.allow_any_name = true,
                "local" => role.allow_localhost = true,
                "loose" => role.enforce_hostnames = false,
                "nowild" => role.allow_wildcard_certificates = false,
                "template" => role.allowed_domains_template = true,
                _ => panic!("{flag}"),
            }
        }
        role
    }

    #[track_caller]
    fn check(domain: &str, flags: &str, good: &str, bad: &str) {
        let role = role(&[domain], flags);
        for name in good.split_whitespace() {
            assert!(allows_name(&role, None, name), "{name} is to be allowed");
        }
        for name in bad.split_whitespace() {
            assert!(!allows_name(&role, None, name), "{name} is to be refused");
        }
    }

    #[test]
    fn domains() {
        check("a.test", "", "", "a.test x.a.test *.a.test");
        check("a.test", "bare", "a.test A.Test u@a.test", "x.a.test *.a.test xa.test");
        check(
            "a.test",
            "sub",
            "x.a.test y.x.a.test *.a.test *.x.a.test u@x.a.test x*y.a.test",
            "a.test xa.test .a.test x..a.test *.b.test x.*.a.test **.a.test u@a.test u@*.a.test *a.test",
        );
        check("a.test", "sub nowild", "x.a.test", "*.a.test x*.a.test");
        check("*.a.test", "glob", "x.a.test y.x.a.test *.a.test", "a.test x.b.test");
        check("*.a.test", "glob nowild", "x.a.test", "*.a.test");
        check("a.test", "any", "b.test *.b.test", "b_c.test -a.test a..b *.*.test @a.test a@b@c.test");
        check("a.test", "any nowild", "b.test", "*.b.test");
        check("a.test", "any loose", "b_c.test a..b", "**.a");
        check("a.test", "local", "localhost localdomain", "x.localhost *.localhost");
        check("a.test", "local sub", "x.localhost *.localdomain", "localhostx");
        check("a.test", "sub", "", &format!("{}.a.test {}a.test", "x".repeat(64), "x.".repeat(130)));
    }

    /// CVE-2022-25243: wildcards came out of roles that allow no subdomains.
    #[test]
    fn no_wildcard_without_subdomains() {
        for flags in ["", "bare", "local", "bare local", "bare loose", "glob", "bare glob loose local"] {
            check("d.test", flags, "", "*.d.test a.*.d.test *d.test x*.d.test *");
        }
    }

    #[test]
    fn stars_match_anything() {
        for (pattern, text, want) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "ab", false),
            ("*a*b*", "xxaxxb", true),
            ("spiffe://x/*", "spiffe://y/a", false),
            ("a", "aa", false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
        // Takes no longer than the product of the lengths.
        assert!(!glob(&"*a".repeat(500), &"a".repeat(400)));
    }

    /// CVE-2026-71543: a value filled into a template could widen the rule it stood in.
    #[test]
    fn what_fills_a_template_widens_nothing() {
        let caller = |id: &str| Caller {
            token_key: String::new(),
            accessor: String::new(),
            display_name: String::new(),
            entity_id: id.to_owned(),
            policies: Arc::from([]),
            metadata: Arc::new(BTreeMap::from([("team".to_owned(), "blue".to_owned())])),
            is_batch: false,
            is_root: false,
        };
        let role = role(&["{{identity.entity.id}}.a.test"], "template bare glob");
        assert!(allows_name(&role, Some(&caller("e1")), "e1.a.test"));
        assert!(!allows_name(&role, Some(&caller("e1")), "e2.a.test"));
        for id in ["*", "+", "a/b", "a,b", "", "x *", "{{identity.entity.id}}"] {
            for name in ["x.a.test", "*.a.test", ".a.test", "a.a.test", "b.a.test", "e1.a.test"] {
                assert!(!allows_name(&role, Some(&caller(id)), name), "{id} {name}");
            }
        }
        assert!(!allows_name(&role, None, ".a.test"));
        assert_eq!(filled("{{token.metadata.team}}.x", Some(&caller("e")), false).as_deref(), Some("blue.x"));
        assert_eq!(filled("{{identity.groups.x}}.x", Some(&caller("e")), false), None);
        assert_eq!(filled("{{identity.entity.id", Some(&caller("e")), false), None);
    }

    #[test]
    fn an_address_does_not_hide_in_a_common_name() {
        let open = role(&[], "any");
        let check = |role: &Role, name: &str, want: bool| {
            assert_eq!(allows_common_name(role, None, name).unwrap(), want, "{name}");
        };
        check(&open, "10.0.0.1", true);
        let ranged = Role { allowed_ip_sans_cidr: vec!["10.0.0.0/8".to_owned()], ..role(&[], "any") };
        check(&ranged, "10.0.0.1", true);
        check(&ranged, "192.0.2.1", false);
        check(&ranged, "a.test", true);
        let closed = Role { allow_ip_sans: false, ..open };
        check(&closed, "10.0.0.1", false);
        check(&closed, "a.test", true);
    }
}
