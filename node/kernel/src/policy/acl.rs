//! What several policies amount to for one caller, and the decision on a request.
//!
//! Rules on the same pattern are united (deny wins, restrictions add up); of different patterns only the one of
//! highest priority counts. **Invariant:** a set whose narrowing rule could not be filled in denies everything.
//! Read next: [`super::matching`] for priorities, [`super::parameters`] for fields.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{Field, Map, Operation, Request, UnixMillis};
use serde_json::{Value, json};

use super::matching::{Pattern, Patterns};
use super::parameters::Parameters;
use super::template::Unresolved;
use super::{Capabilities, Identity, Policy, ROOT, Rule};

/// What is asked.
#[derive(Clone, Copy)]
pub struct AclRequest<'a> {
    /// Create and update already told apart.
    pub operation: Operation,
    /// Canonical, with the namespace in front; a slash at the end of lists.
    pub path: &'a str,
    /// The fields, query string included.
    pub data: &'a Map,
    /// What the route knows of the fields.
    pub fields: &'a [Field],
    /// The wrapping asked for.
    pub wrap_ttl: Option<Duration>,
}

impl<'a> AclRequest<'a> {
    /// What `request` asks for, as `operation` on `path`.
    #[must_use]
    pub fn of(request: &'a Request, operation: Operation, path: &'a str) -> Self {
        let Request { data, wrap_ttl, route, .. } = request;
        Self { operation, path, data, fields: route.fields, wrap_ttl: *wrap_ttl }
    }
}

/// A policy that had a say, as the audit log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantingPolicy {
    /// Policy.
    pub name: Arc<str>,
    /// Namespace it is stored in.
    pub namespace_id: Arc<str>,
    /// Path of that namespace.
    pub namespace_path: Arc<str>,
    capabilities: Capabilities,
}

/// The decision.
#[derive(Clone, Debug, Default)]
pub struct AclDecision {
    /// Whether the request may go on.
    pub is_allowed: bool,
    /// By the root policy.
    pub is_root: bool,
    /// Whether protected paths are open too; true for root.
    pub has_sudo: bool,
    /// Most names a listing may return.
    pub pagination_limit: Option<u64>,
    needed: Capabilities,
    policies: Option<Arc<[GrantingPolicy]>>,
}

impl AclDecision {
    /// The policies that allowed the request; none if it was not.
    pub fn granting_policies(&self) -> impl Iterator<Item = &GrantingPolicy> {
        let listed = self.policies.as_deref().filter(|_| self.is_allowed).unwrap_or_default();
        listed.iter().filter(|policy| self.is_root || policy.capabilities.contains(self.needed))
    }

    /// Holds a listing to the rule's limit, by the `limit` field its handler reads.
    pub fn limit_page(&self, operation: Operation, data: &mut Map) {
        let Some(limit) = self.pagination_limit else { return };
        if matches!(operation, Operation::List | Operation::Scan) {
            let text = data
                .get("limit")
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            let asked = text.and_then(|text| text.trim().parse::<u64>().ok()).filter(|asked| *asked > 0);
            data.insert("limit".to_owned(), asked.map_or(limit, |asked| asked.min(limit)).into());
        }
    }
}

/// Rules on one pattern, united.
#[derive(Clone, Debug, Default)]
struct Grant {
    capabilities: Capabilities,
    parameters: Parameters,
    min_wrapping_ttl: Duration,
    max_wrapping_ttl: Duration,
    pagination_limit: Option<u64>,
    policies: Vec<GrantingPolicy>,
}

impl Grant {
    fn add(&mut self, rule: &Rule, policy: GrantingPolicy) {
        self.capabilities = self.capabilities.union(rule.capabilities);
        self.policies.push(policy);
        if self.capabilities.is_deny() {
            return;
        }
        self.min_wrapping_ttl = lesser(self.min_wrapping_ttl, rule.min_wrapping_ttl);
        self.max_wrapping_ttl = lesser(self.max_wrapping_ttl, rule.max_wrapping_ttl);
        self.pagination_limit = self.pagination_limit.into_iter().chain(rule.pagination_limit).min();
        self.parameters.merge(&rule.parameters);
    }

    fn allows_wrapping(&self, wrap_ttl: Option<Duration>) -> bool {
        let (min, max) = (self.min_wrapping_ttl, self.max_wrapping_ttl);
        let is_bound = !min.is_zero() || !max.is_zero();
        !is_bound || wrap_ttl.is_some_and(|ttl| ttl >= min && (max.is_zero() || ttl <= max))
    }
}

/// Zero stands for no rule.
fn lesser(left: Duration, right: Duration) -> Duration {
    if left.is_zero() {
        right
    } else if right.is_zero() {
        left
    } else {
        left.min(right)
    }
}

#[derive(Debug)]
struct Compiled {
    grant: Grant,
    policies: Arc<[GrantingPolicy]>,
}

#[derive(Debug)]
enum Kind {
    /// A narrowing rule is unknown: everything is denied.
    Refused,
    Root(Arc<[GrantingPolicy]>),
    Rules(Patterns<Compiled>),
}

/// A compiled set of policies.
#[derive(Debug)]
pub struct Acl {
    kind: Kind,
    namespace_path: Arc<str>,
    expires_at: Option<UnixMillis>,
}

/// Where policies are stored; their paths are relative to it.
#[derive(Clone, Copy, Debug)]
pub struct AclScope<'a> {
    /// Namespace id.
    pub namespace_id: &'a str,
    /// Namespace path: empty, or with a trailing slash.
    pub namespace_path: &'a str,
}

impl Acl {
    /// Unites `policies` for one caller. Rules that expired by `now` do not count.
    #[must_use]
    pub fn compile(
        scope: AclScope<'_>,
        policies: &[Arc<Policy>],
        identity: Option<&Identity>,
        now: UnixMillis,
    ) -> Self {
        let namespace_path: Arc<str> = scope.namespace_path.into();
        let namespace_id: Arc<str> = scope.namespace_id.into();
        let named = |name: &str, capabilities| GrantingPolicy {
            name: name.into(),
            namespace_id: Arc::clone(&namespace_id),
            namespace_path: Arc::clone(&namespace_path),
            capabilities,
        };
        if policies.iter().any(|policy| policy.name == ROOT) {
            // Root together with others is a token nobody may hold.
            let kind = if policies.len() == 1 {
                Kind::Root([named(ROOT, Capabilities::NONE)].into())
            } else {
                Kind::Refused
            };
            return Self { kind, namespace_path, expires_at: None };
        }
        let mut grants: BTreeMap<Pattern, Grant> = BTreeMap::new();
        let mut expires_at = None;
        for policy in policies {
            for rule in &policy.rules {
                if rule.expiration.is_some_and(|end| end <= now) {
                    continue;
                }
                expires_at = expires_at.into_iter().chain(rule.expiration).min();
                match pattern_of(rule, identity) {
                    Ok(Some(text)) => {
                        let pattern = Pattern::parse(&format!("{}{text}", scope.namespace_path));
                        grants.entry(pattern).or_default().add(rule, named(&policy.name, rule.capabilities));
                    }
                    Ok(None) => {}
                    Err(Refusal) => {
                        tracing::warn!(
                            policy = policy.name,
                            "a templated rule does not resolve: the caller is denied"
                        );
                        return Self { kind: Kind::Refused, namespace_path, expires_at };
                    }
                }
            }
        }
        let compiled = grants.into_iter().map(|(pattern, mut grant)| {
            let policies = std::mem::take(&mut grant.policies).into();
            (pattern, Compiled { grant, policies })
        });
        Self { kind: Kind::Rules(Patterns::new(compiled)), namespace_path, expires_at }
    }

    /// When a rule expires, so that the set must be compiled anew.
    #[must_use]
    pub const fn expires_at(&self) -> Option<UnixMillis> {
        self.expires_at
    }

    /// Whether everything is denied because a narrowing rule could not be filled in.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        matches!(self.kind, Kind::Refused)
    }

    /// Decides on a request.
    #[must_use]
    pub fn check(&self, request: AclRequest<'_>) -> AclDecision {
        let path = request.path.strip_prefix('/').unwrap_or(request.path);
        let rules = match &self.kind {
            Kind::Refused => return AclDecision::default(),
            Kind::Root(policies) => return self.root_decision(path, policies),
            Kind::Rules(rules) => rules,
        };
        let Some(needed) = Capabilities::needed_for(request.operation) else {
            return AclDecision { is_allowed: true, ..AclDecision::default() };
        };
        let is_listing = matches!(request.operation, Operation::List | Operation::Scan);
        let Some(found) = find(rules, path, is_listing) else { return AclDecision::default() };
        let grant = &found.grant;
        let carries_fields = matches!(
            request.operation,
            Operation::Create | Operation::Patch | Operation::Read | Operation::Update
        );
        let is_allowed = grant.capabilities.contains(needed)
            && grant.allows_wrapping(request.wrap_ttl)
            && (!carries_fields || grant.parameters.allow(request.data, request.fields));
        AclDecision {
            is_allowed,
            is_root: false,
            has_sudo: grant.capabilities.contains(Capabilities::SUDO),
            pagination_limit: grant.pagination_limit,
            needed,
            policies: Some(Arc::clone(&found.policies)),
        }
    }

    fn root_decision(&self, path: &str, policies: &Arc<[GrantingPolicy]>) -> AclDecision {
        let is_inside = path.starts_with(&*self.namespace_path);
        AclDecision {
            is_allowed: is_inside,
            is_root: is_inside,
            has_sudo: is_inside,
            policies: Some(Arc::clone(policies)),
            ..AclDecision::default()
        }
    }

    /// The words for a path, alphabetically; `["root"]` for root and `["deny"]` for none.
    #[must_use]
    pub fn capabilities(&self, path: &str) -> Vec<&'static str> {
        let path = path.strip_prefix('/').unwrap_or(path);
        match &self.kind {
            Kind::Root(_) if path.starts_with(&*self.namespace_path) => vec![ROOT],
            Kind::Rules(rules) => {
                find(rules, path, true).map_or(Capabilities::NONE, |found| found.grant.capabilities).words()
            }
            Kind::Refused | Kind::Root(_) => Capabilities::NONE.words(),
        }
    }

    /// Whether anything at or below a mount (full path, trailing slash) is granted: decides if it is shown at all.
    #[must_use]
    pub fn sees_mount(&self, mount: &str) -> bool {
        match &self.kind {
            Kind::Refused => false,
            Kind::Root(_) => mount.starts_with(&*self.namespace_path),
            Kind::Rules(rules) => {
                let grants = |one: &Compiled| !one.grant.capabilities.grants_nothing();
                // A folder denied as a whole stays hidden even if a broader pattern grants it.
                match find(rules, mount, true) {
                    Some(found) if grants(found) => true,
                    Some(found) if found.grant.capabilities.is_deny() => {
                        rules.iter().any(|(text, _, one)| {
                            text.starts_with(mount) && text.len() > mount.len() && grants(one)
                        })
                    }
                    _ => rules.any_below(mount, grants),
                }
            }
        }
    }

    /// `data` of `sys/internal/ui/resultant-acl`.
    #[must_use]
    pub fn resultant(&self) -> Map {
        let mut data = Map::new();
        data.insert("root".to_owned(), matches!(self.kind, Kind::Root(_)).into());
        if let Kind::Rules(rules) = &self.kind {
            let (mut exact, mut glob) = (Map::new(), Map::new());
            for (text, is_exact, compiled) in rules.iter() {
                let paths = if is_exact { &mut exact } else { &mut glob };
                let text = text.strip_prefix(&*self.namespace_path).unwrap_or(text);
                paths.insert(text.to_owned(), described(&compiled.grant));
            }
            data.insert("exact_paths".to_owned(), exact.into());
            data.insert("glob_paths".to_owned(), glob.into());
        }
        data
    }
}

struct Refusal;

/// The rule's pattern for this caller; `None` when the rule speaks of nobody.
fn pattern_of(rule: &Rule, identity: Option<&Identity>) -> Result<Option<String>, Refusal> {
    let Some(template) = &rule.template else { return Ok(Some(rule.pattern.clone())) };
    match template.render(identity) {
        Ok(text) if text.contains("+*") => Err(Refusal),
        Ok(text) => Ok(Some(text)),
        // A grant to nobody in particular is none; a denial left out could be the one that matters.
        Err(Unresolved::Missing) if !rule.capabilities.is_deny() => Ok(None),
        Err(Unresolved::Missing | Unresolved::Unsafe) => Err(Refusal),
    }
}

/// The rules that apply. A listed folder `a/b/` is also the path `a/b`: exactly named it counts before any pattern,
/// and when no pattern matches the folder. A pattern that denies `a/b` and outranks what matched `a/b/` denies the
/// listing as well (CVE-2026-12624, CVE-2026-63131).
fn find<'a>(rules: &'a Patterns<Compiled>, path: &str, is_listing: bool) -> Option<&'a Compiled> {
    if let Some(found) = rules.exact(path) {
        return Some(found);
    }
    let Some(bare) = path.strip_suffix('/').filter(|_| is_listing) else { return rules.best(path) };
    if let Some(found) = rules.exact(bare) {
        return Some(found);
    }
    match (rules.best_with_strength(path), rules.best_with_strength(bare)) {
        (Some((strength, _)), Some((other, denial)))
            if other > strength && denial.grant.capabilities.is_deny() =>
        {
            Some(denial)
        }
        (Some((_, found)), _) | (None, Some((_, found))) => Some(found),
        (None, None) => None,
    }
}

fn described(grant: &Grant) -> Value {
    let mut shown = Map::new();
    shown.insert("capabilities".to_owned(), json!(grant.capabilities.words()));
    for (name, ttl) in
        [("min_wrapping_ttl", grant.min_wrapping_ttl), ("max_wrapping_ttl", grant.max_wrapping_ttl)]
    {
        if !ttl.is_zero() {
            shown.insert(name.to_owned(), ttl.as_secs().into());
        }
    }
    let parameters = &grant.parameters;
    for (name, lists) in
        [("allowed_parameters", &parameters.allowed), ("denied_parameters", &parameters.denied)]
    {
        if !lists.is_empty() {
            shown.insert(name.to_owned(), json!(lists));
        }
    }
    if !parameters.required.is_empty() {
        shown.insert("required_parameters".to_owned(), json!(parameters.required));
    }
    if let Some(limit) = grant.pagination_limit {
        shown.insert("pagination_limit".to_owned(), limit.into());
    }
    Value::Object(shown)
}

#[cfg(test)]
#[path = "acl_tests.rs"]
mod tests;
