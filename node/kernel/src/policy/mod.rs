//! Who may do what: policies parsed once, compiled once per set, matched with Vault's exact priorities.
//!
//! [`parse`] turns text into a [`Policy`]; [`Acl`] is what several policies amount to for one caller; [`PolicyStore`]
//! keeps the texts and the compiled sets. **Invariant:** whatever cannot be decided (a template that does not
//! resolve, a stored text that does not parse) denies.
//! Read next: [`acl`] for a decision, [`matching`] for which rule applies.

pub mod acl;
pub mod capability;
pub mod matching;
pub mod parameters;
pub mod parse;
pub mod store;
pub mod template;
mod texts;

pub use acl::{Acl, AclDecision, AclRequest, GrantingPolicy};
pub use capability::Capabilities;
pub use parse::{Policy, Rule};
pub use store::{PolicyRecord, PolicyStore};
pub use template::{AliasView, GroupView, Identity, IdentityView};

use crate::KernelError;

/// Grants everything; never stored.
pub const ROOT: &str = "root";
/// Given to every token that does not decline it.
pub const DEFAULT: &str = "default";
/// Of wrapping tokens; never assigned by hand.
pub const RESPONSE_WRAPPING: &str = "response-wrapping";

/// Longest policy name, bytes.
const NAME_MAX: usize = 512;

/// The one form of a policy name that is stored, compared and shown: trimmed, lower-case.
///
/// # Errors
/// When it is empty, too long, or holds characters that a list of names or a path could not carry.
pub fn canonical_name(name: &str) -> Result<String, KernelError> {
    let name = name.trim().to_lowercase();
    let is_path = name.split('/').all(|segment| !matches!(segment.trim(), "" | "." | ".."));
    let is_plain = !name.chars().any(|letter| letter.is_control() || matches!(letter, ',' | '\\'));
    if !is_path || !is_plain || name.len() > NAME_MAX {
        return Err(KernelError::invalid("invalid policy name"));
    }
    Ok(name)
}

/// A set of policy names as tokens carry it: each in its one form, sorted, none twice.
///
/// # Errors
/// As [`canonical_name`].
pub fn canonical_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>, KernelError> {
    let mut names = names.into_iter().map(canonical_name).collect::<Result<Vec<_>, _>>()?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Folders below which a last slash means nothing: what stands there is a mount, an audit device or a prefix.
const SLASHED: [&str; 8] = [
    "sys/audit-hash/",
    "sys/audit/",
    "sys/auth/",
    "sys/leases/revoke-force/",
    "sys/leases/revoke-prefix/",
    "sys/mounts/",
    "sys/revoke-force/",
    "sys/revoke-prefix/",
];
/// Folders of names without blanks around them, in lower case.
const FOLDED: [&str; 3] = ["sys/config/auditing/request-headers/", "sys/policies/acl/", "sys/policy/"];

/// The path in the one form that its handler knows, if it is not in it: policies and audited headers by their names
/// in lower case, mounts, audit devices and prefixes without the last slash. Applied before anything looks at the path, so
/// that rules, audit and the handler decide on the same thing (CVE-2026-89322); `places` adds what engines say of names.
#[must_use]
pub fn canonical_path(path: &str) -> Option<String> {
    let below = |folders: &[&str]| {
        let at = folders.iter().find(|folder| path.starts_with(**folder))?.len();
        path.split_at_checked(at)
    };
    let (folder, name, wanted) = if let Some((folder, name)) = below(&FOLDED) {
        (folder, name, name.trim().to_lowercase())
    } else {
        let (folder, name) = below(&SLASHED)?;
        (folder, name, name.trim_end_matches('/').to_owned())
    };
    (wanted != name).then(|| format!("{folder}{wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, want: Option<&str>) {
        assert_eq!(canonical_name(name).ok().as_deref(), want, "name {name:?}");
    }

    #[test]
    fn names_have_one_form() {
        check(" Admin ", Some("admin"));
        check("ÄB", Some("äb"));
        check("team/app", Some("team/app"));
    }

    /// CVE-2026-105820: a name that climbs out of its namespace resolves to nothing.
    #[test]
    fn cve_2026_105820_names_cannot_climb() {
        for name in [
            "",
            " ",
            "../root-ns/admin",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "a,b",
            "a\u{0}",
            "a\nb",
            "a\\b",
            "./a",
        ] {
            check(name, None);
        }
        check(&"x".repeat(NAME_MAX + 1), None);
    }

    /// CVE-2026-89322: rule and handler see the same name.
    #[test]
    fn cve_2026_89322_paths_have_one_form() {
        assert_eq!(canonical_path("sys/policies/acl/ADMIN").as_deref(), Some("sys/policies/acl/admin"));
        assert_eq!(canonical_path("sys/policy/ Admin ").as_deref(), Some("sys/policy/admin"));
        assert_eq!(canonical_path("sys/policy/admin"), None);
        assert_eq!(canonical_path("secret/Admin"), None);
        let header = canonical_path("sys/config/auditing/request-headers/X-Trace");
        assert_eq!(header.as_deref(), Some("sys/config/auditing/request-headers/x-trace"));
        assert_eq!(canonical_path("sys/mounts/kv/").as_deref(), Some("sys/mounts/kv"));
        assert_eq!(canonical_path("sys/auth/Team/a/").as_deref(), Some("sys/auth/Team/a"));
        assert_eq!(canonical_path("sys/audit/file/").as_deref(), Some("sys/audit/file"));
        let prefix = canonical_path("sys/leases/revoke-prefix/aws/creds/");
        assert_eq!(prefix.as_deref(), Some("sys/leases/revoke-prefix/aws/creds"));
        for path in ["sys/mounts/kv/tune", "sys/mounts/", "sys/auth", "secret/kv/"] {
            assert_eq!(canonical_path(path), None, "{path}");
        }
    }
}
