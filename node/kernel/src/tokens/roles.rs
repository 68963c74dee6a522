//! Token roles: what tokens made through `auth/token/create/<role>` may and must be.

use std::time::Duration;

use arca_barrier::Class;
use arca_engine_api::{Fields, Page};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::lifetime::{Limits, millis};
use super::{Cidr, TokenStore};
use crate::KernelError;
use crate::policy::canonical_names;
use crate::tx::Tx;

/// Longest role name, bytes.
const NAME_MAX: usize = 256;

/// A role. Stored at `<namespace id>/token/roles/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRecord {
    /// Name.
    pub name: String,
    /// Policies its tokens may have; none for no such limit.
    pub allowed_policies: Vec<String>,
    /// The same as patterns with `*`.
    pub allowed_policies_glob: Vec<String>,
    /// Policies its tokens may not have.
    pub disallowed_policies: Vec<String>,
    /// The same as patterns with `*`.
    pub disallowed_policies_glob: Vec<String>,
    /// Entity aliases that may be asked for.
    pub allowed_entity_aliases: Vec<String>,
    /// Its tokens have no parent.
    pub is_orphan: bool,
    /// Its tokens can be renewed.
    pub is_renewable: bool,
    /// End of its tokens' path, by which they can be revoked together.
    pub path_suffix: String,
    /// `default-service`, `default-batch`, `service` or `batch`.
    pub token_type: String,
    /// Period of its tokens; zero for none.
    #[serde(with = "millis")]
    pub period: Duration,
    /// Lifetime no renewal can pass; zero for none.
    #[serde(with = "millis")]
    pub explicit_max_ttl: Duration,
    /// Uses of its tokens; zero for no limit.
    pub num_uses: u32,
    /// Leave out the `default` policy.
    pub no_default_policy: bool,
    /// Where its tokens may be used from; empty for anywhere.
    pub bound_cidrs: Vec<Cidr>,
    /// `period` was written by its old name.
    #[serde(default)]
    pub has_old_period: bool,
    /// `explicit_max_ttl` was written by its old name.
    #[serde(default)]
    pub has_old_explicit_max_ttl: bool,
}

impl RoleRecord {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            allowed_policies: Vec::new(),
            allowed_policies_glob: Vec::new(),
            disallowed_policies: Vec::new(),
            disallowed_policies_glob: Vec::new(),
            allowed_entity_aliases: Vec::new(),
            is_orphan: false,
            is_renewable: true,
            path_suffix: String::new(),
            token_type: "default-service".to_owned(),
            period: Duration::ZERO,
            explicit_max_ttl: Duration::ZERO,
            num_uses: 0,
            no_default_policy: false,
            bound_cidrs: Vec::new(),
            has_old_period: false,
            has_old_explicit_max_ttl: false,
        }
    }

    /// Whether it says anything about policies; if not, the parent's bound them.
    #[must_use]
    pub fn names_policies(&self) -> bool {
        self.limits_policies()
            || !self.disallowed_policies.is_empty()
            || !self.disallowed_policies_glob.is_empty()
    }

    /// Whether only listed policies are allowed.
    #[must_use]
    pub fn limits_policies(&self) -> bool {
        !self.allowed_policies.is_empty() || !self.allowed_policies_glob.is_empty()
    }

    /// Whether a policy is listed as allowed.
    #[must_use]
    pub fn allows(&self, policy: &str) -> bool {
        self.allowed_policies.iter().any(|name| name == policy)
            || self.allowed_policies_glob.iter().any(|pattern| glob(&pattern.to_lowercase(), policy))
    }

    /// Whether a policy is listed as not allowed.
    #[must_use]
    pub fn disallows(&self, policy: &str) -> bool {
        self.disallowed_policies.iter().any(|name| name == policy)
            || self.disallowed_policies_glob.iter().any(|pattern| glob(&pattern.to_lowercase(), policy))
    }

    /// Whether an entity alias may be asked for.
    #[must_use]
    pub fn allows_alias(&self, alias: &str) -> bool {
        let alias = alias.to_lowercase();
        self.allowed_entity_aliases.iter().any(|pattern| glob(&pattern.to_lowercase(), &alias))
    }

    /// As clients read it.
    #[must_use]
    pub fn to_data(&self) -> Value {
        let (period, explicit_max_ttl) = (self.period.as_secs(), self.explicit_max_ttl.as_secs());
        let aliases = &self.allowed_entity_aliases;
        let mut data = json!({
            "allowed_entity_aliases": if aliases.is_empty() { Value::Null } else { json!(aliases) },
            "allowed_policies": self.allowed_policies,
            "allowed_policies_glob": self.allowed_policies_glob,
            "disallowed_policies": self.disallowed_policies,
            "disallowed_policies_glob": self.disallowed_policies_glob,
            "explicit_max_ttl": if self.has_old_explicit_max_ttl { explicit_max_ttl } else { 0 },
            "name": self.name,
            "orphan": self.is_orphan,
            "path_suffix": self.path_suffix,
            "period": if self.has_old_period { period } else { 0 },
            "renewable": self.is_renewable,
            "token_explicit_max_ttl": explicit_max_ttl,
            "token_no_default_policy": self.no_default_policy,
            "token_period": period,
            "token_type": self.token_type,
        });
        if let Some(data) = data.as_object_mut() {
            if !self.bound_cidrs.is_empty() {
                let shown: Vec<String> = self.bound_cidrs.iter().map(ToString::to_string).collect();
                data.insert("token_bound_cidrs".to_owned(), json!(shown));
                data.insert("bound_cidrs".to_owned(), json!(shown));
            }
            if self.num_uses > 0 {
                data.insert("token_num_uses".to_owned(), json!(self.num_uses));
            }
        }
        data
    }

    /// Takes what a write says; what it does not say stays.
    ///
    /// # Errors
    /// When a field cannot be so.
    pub fn update(&mut self, fields: Fields<'_>) -> Result<(), KernelError> {
        let policies = |name: &str, old: &mut Vec<String>| -> Result<(), KernelError> {
            if let Some(list) = fields.list(name)? {
                *old = canonical_names(list.iter().map(String::as_str))?;
            }
            Ok(())
        };
        policies("allowed_policies", &mut self.allowed_policies)?;
        policies("disallowed_policies", &mut self.disallowed_policies)?;
        let patterns = [
            ("allowed_policies_glob", &mut self.allowed_policies_glob),
            ("disallowed_policies_glob", &mut self.disallowed_policies_glob),
            ("allowed_entity_aliases", &mut self.allowed_entity_aliases),
        ];
        for (name, old) in patterns {
            if let Some(list) = fields.list(name)? {
                *old = canonical_patterns(&list);
            }
        }
        let flags = [
            ("orphan", &mut self.is_orphan),
            ("renewable", &mut self.is_renewable),
            ("token_no_default_policy", &mut self.no_default_policy),
        ];
        for (name, old) in flags {
            if let Some(flag) = fields.boolean(name)? {
                *old = flag;
            }
        }
        self.update_bounds(fields)?;
        if let Some(suffix) = fields.string("path_suffix")? {
            check_suffix(&suffix)?;
            self.path_suffix = suffix;
        }
        if let Some(kind) = fields.string("token_type")? {
            self.token_type = checked_type(&kind)?;
        }
        self.check()
    }

    /// What its writer should know of it.
    #[must_use]
    pub fn warnings(&self, written: Fields<'_>, limits: Limits) -> Vec<String> {
        let names = [
            ("token_period", "period"),
            ("token_explicit_max_ttl", "explicit_max_ttl"),
            ("token_bound_cidrs", "bound_cidrs"),
        ];
        let are_both = |(new, old): &(&str, &str)| written.has(new) && written.has(old);
        let text = |(new, old)| {
            format!("Both '{new}' and deprecated '{old}' value supplied, ignoring the deprecated value")
        };
        let mut warnings: Vec<String> = names.into_iter().filter(are_both).map(text).collect();
        let says_max = written.has("token_explicit_max_ttl") || written.has("explicit_max_ttl");
        if says_max && self.explicit_max_ttl > limits.max_ttl {
            warnings.push(format!(
                "Given explicit max TTL of {} is greater than system/mount allowed value of {} seconds; until this is \
                 fixed attempting to create tokens against this role will result in an error",
                self.explicit_max_ttl.as_secs(),
                limits.max_ttl.as_secs()
            ));
        }
        warnings
    }

    fn update_bounds(&mut self, fields: Fields<'_>) -> Result<(), KernelError> {
        if let Some(period) = fields.duration("token_period")? {
            (self.period, self.has_old_period) = (period, false);
        } else if let Some(period) = fields.duration("period")? {
            (self.period, self.has_old_period) = (period, true);
        }
        if let Some(max) = fields.duration("token_explicit_max_ttl")? {
            (self.explicit_max_ttl, self.has_old_explicit_max_ttl) = (max, false);
        } else if let Some(max) = fields.duration("explicit_max_ttl")? {
            (self.explicit_max_ttl, self.has_old_explicit_max_ttl) = (max, true);
        }
        if let Some(uses) = fields.integer("token_num_uses")? {
            self.num_uses = u32::try_from(uses)
                .map_err(|_| KernelError::invalid("'token_num_uses' cannot be negative"))?;
        }
        for name in ["token_bound_cidrs", "bound_cidrs"] {
            if let Some(list) = fields.bounds(name)? {
                self.bound_cidrs = Cidr::parse_list(&list, name)?;
                break;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), KernelError> {
        if self.token_type != "batch" {
            return Ok(());
        }
        if self.is_renewable {
            let text = "'token_type' cannot be 'batch' when role is set to generate renewable tokens";
            return Err(KernelError::invalid(text));
        }
        let bounds = [
            ("token_explicit_max_ttl", !self.explicit_max_ttl.is_zero()),
            ("token_num_uses", self.num_uses > 0),
            ("token_period", !self.period.is_zero()),
        ];
        match bounds.iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => Err(KernelError::invalid(format!(
                "'token_type' cannot be 'batch' or 'default_batch' when set to generate tokens with {name}"
            ))),
            None => Ok(()),
        }
    }
}

/// Patterns as the names they stand for are written: in lower case, sorted, each once. One of another case would never
/// match, so that what it forbids would be allowed.
fn canonical_patterns(patterns: &[String]) -> Vec<String> {
    let mut patterns: Vec<String> = patterns
        .iter()
        .map(|pattern| pattern.trim().to_lowercase())
        .filter(|text| !text.is_empty())
        .collect();
    patterns.sort_unstable();
    patterns.dedup();
    patterns
}

fn checked_type(kind: &str) -> Result<String, KernelError> {
    match kind {
        "" | "default" | "default-service" => Ok("default-service".to_owned()),
        "default-batch" | "service" | "batch" => Ok(kind.to_owned()),
        _ => Err(KernelError::invalid("invalid 'token_type' value")),
    }
}

/// Letters, digits, `_`, and inside also `-` and `.`; at least three, or none at all.
fn check_suffix(suffix: &str) -> Result<(), KernelError> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = suffix.as_bytes();
    let is_good = bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'-' | b'.'))
        && (3..=NAME_MAX).contains(&bytes.len())
        && bytes.first().is_some_and(|byte| is_word(*byte))
        && bytes.last().is_some_and(|byte| is_word(*byte));
    if suffix.is_empty() || is_good {
        return Ok(());
    }
    Err(KernelError::invalid("given role path suffix contains invalid characters; must match \\w[\\w-.]+\\w"))
}

/// Whether `text` matches a pattern in which each `*` stands for anything. Bounded by both lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else { return false };
    let Some(tail) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(tail)
}

fn path_of(namespace_id: &str, name: &str) -> String {
    format!("{namespace_id}/token/roles/{name}")
}

impl TokenStore {
    /// A role.
    ///
    /// # Errors
    /// When storage fails.
    pub fn role(&self, tx: &Tx, namespace_id: &str, name: &str) -> Result<Option<RoleRecord>, KernelError> {
        if name.is_empty() {
            return Ok(None);
        }
        Ok(tx.get_record(Class::Replicated, &path_of(namespace_id, name))?)
    }

    /// Writes a role: a new one, or what the fields say over the old one.
    ///
    /// # Errors
    /// When a field cannot be so, or storage fails.
    pub fn put_role(
        &self,
        tx: &Tx,
        namespace_id: &str,
        name: &str,
        fields: Fields<'_>,
    ) -> Result<RoleRecord, KernelError> {
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(KernelError::invalid("invalid role name"));
        }
        let mut role = self.role(tx, namespace_id, name)?.unwrap_or_else(|| RoleRecord::new(name));
        role.update(fields)?;
        tx.put_record(Class::Replicated, &path_of(namespace_id, name), &role)?;
        Ok(role)
    }

    /// Removes a role. Tokens made through it cannot be renewed any more.
    ///
    /// # Errors
    /// When storage fails.
    pub fn delete_role(&self, tx: &Tx, namespace_id: &str, name: &str) -> Result<(), KernelError> {
        Ok(tx.delete(Class::Replicated, &path_of(namespace_id, name))?)
    }

    /// Names of roles.
    ///
    /// # Errors
    /// When storage fails.
    pub fn roles(&self, tx: &Tx, namespace_id: &str, page: &Page) -> Result<Vec<String>, KernelError> {
        Ok(tx.list(Class::Replicated, &path_of(namespace_id, ""), page)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, want: bool) {
        assert_eq!(glob(pattern, text), want, "{text:?} by {pattern:?}");
    }

    #[test]
    fn stars_stand_for_anything() {
        check("a*", "abc", true);
        check("*c", "abc", true);
        check("a*c", "abc", true);
        check("a*b*c", "axbxc", true);
        check("*b*", "abc", true);
        check("*", "", true);
        check("abc", "abc", true);
        check("abc", "abcd", false);
        check("a*a", "a", false);
        check("a*c", "abd", false);
        check("", "a", false);
    }

    /// Roles that were written before patterns had one form.
    #[test]
    fn old_patterns_hold_whatever_their_case() {
        let old = RoleRecord {
            allowed_policies_glob: vec!["Team-*".to_owned()],
            disallowed_policies_glob: vec!["*-ADMIN".to_owned()],
            ..RoleRecord::new("r")
        };
        assert!(old.allows("team-a") && !old.allows("a"));
        assert!(old.disallows("db-admin") && !old.disallows("db"));
    }

    #[test]
    fn suffixes_cannot_climb() {
        for suffix in ["../x", "a b", "a/b", "-ab", "ab.", "ab", "é12"] {
            assert!(check_suffix(suffix).is_err(), "{suffix}");
        }
        assert!(check_suffix("team-a.1").is_ok());
    }
}
