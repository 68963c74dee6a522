//! What somebody asks for at `auth/token/create…`, and what parent, role and limits make of it. Pure: no storage.
//!
//! **Invariant:** without sudo a child's policies are among its parent's; `root` comes only from root; nothing given
//! here outlives what bounds it.

use std::collections::BTreeMap;
use std::time::Duration;

use arca_engine_api::{Fields, UnixMillis};

use super::entry::TokenType;
use super::lifetime::{self, Limits, Wish};
use super::roles::RoleRecord;
use super::{Cidr, TokenEntry, secret};
use crate::KernelError;
use crate::namespaces::Namespace;
use crate::policy::{DEFAULT, RESPONSE_WRAPPING, ROOT, canonical_names};

/// Most metadata entries, and longest name and value.
const METADATA_MAX: usize = 64;
const METADATA_KEY_MAX: usize = 128;
const METADATA_VALUE_MAX: usize = 512;
const DISPLAY_NAME_MAX: usize = 256;

/// The fields of a creation.
#[derive(Clone, Debug, Default)]
pub struct NewTokenSpec {
    /// Wanted id.
    pub id: Option<String>,
    /// Wanted policies; none at all means the parent's, or the role's.
    pub policies: Vec<String>,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
    /// Make it an orphan.
    pub is_orphan: bool,
    /// Leave out the `default` policy.
    pub no_default_policy: bool,
    /// Whether it can be renewed; yes unless said otherwise.
    pub is_renewable: bool,
    /// Wanted lifetime.
    pub ttl: Duration,
    /// Lifetime no renewal can pass.
    pub explicit_max_ttl: Duration,
    /// Period.
    pub period: Duration,
    /// Name for people.
    pub display_name: String,
    /// Uses.
    pub num_uses: u32,
    /// `service`, `batch` or empty.
    pub kind: String,
    /// Name of an identity alias, only with a role.
    pub entity_alias: String,
}

impl NewTokenSpec {
    /// Reads the fields.
    ///
    /// # Errors
    /// When one has the wrong type or a value that cannot be.
    pub fn parse(fields: Fields<'_>) -> Result<Self, KernelError> {
        let duration = |name: &str| -> Result<Duration, KernelError> {
            let is_negative = fields.string(name)?.is_some_and(|text| text.trim().starts_with('-'));
            if is_negative {
                return Err(KernelError::invalid(format!("{name} must be positive")));
            }
            Ok(fields.duration(name)?.unwrap_or_default())
        };
        let lease = duration("lease")?;
        let ttl = duration("ttl")?;
        let metadata = match fields.string_map("meta")? {
            Some(map) => map,
            None => fields.string_map("metadata")?.unwrap_or_default(),
        };
        check_metadata(&metadata)?;
        let num_uses = fields.integer("num_uses")?.unwrap_or_default();
        let num_uses =
            u32::try_from(num_uses).map_err(|_| KernelError::invalid("number of uses cannot be negative"))?;
        Ok(Self {
            id: fields.string("id")?.filter(|id| !id.is_empty()),
            policies: fields.list("policies")?.unwrap_or_default(),
            metadata,
            is_orphan: fields.boolean("no_parent")?.unwrap_or_default(),
            no_default_policy: fields.boolean("no_default_policy")?.unwrap_or_default(),
            is_renewable: fields.boolean("renewable")?.unwrap_or(true),
            ttl: if ttl.is_zero() { lease } else { ttl },
            explicit_max_ttl: duration("explicit_max_ttl")?,
            period: duration("period")?,
            display_name: fields.string("display_name")?.unwrap_or_default(),
            num_uses,
            kind: fields.string("type")?.unwrap_or_default(),
            entity_alias: fields.string("entity_alias")?.unwrap_or_default(),
        })
    }
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), KernelError> {
    let is_over =
        |(key, value): (&String, &String)| key.len() > METADATA_KEY_MAX || value.len() > METADATA_VALUE_MAX;
    if metadata.len() > METADATA_MAX || metadata.iter().any(is_over) {
        return Err(KernelError::invalid(format!(
            "token metadata is limited to {METADATA_MAX} entries with keys of {METADATA_KEY_MAX} and values of {METADATA_VALUE_MAX} bytes"
        )));
    }
    Ok(())
}

/// Who asks, where and how.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// The token that asks.
    pub parent: &'a TokenEntry,
    /// Whether it has sudo on the path it used, or is root.
    pub has_sudo: bool,
    /// Whether it used the path for orphans.
    pub wants_orphan: bool,
    /// The role it named.
    pub role: Option<&'a RoleRecord>,
    /// Namespace of the request.
    pub namespace: &'a Namespace,
    /// Lifetimes the token mount allows.
    pub limits: Limits,
}

/// A token that still lacks its id and handle, and what to warn of.
#[derive(Debug)]
pub struct Draft {
    /// The record so far.
    pub entry: TokenEntry,
    /// Wanted id.
    pub id: Option<String>,
    /// Warnings.
    pub warnings: Vec<String>,
}

impl Asker<'_> {
    /// What comes of a creation.
    ///
    /// # Errors
    /// When the asker may not have that, or the wishes contradict each other.
    pub fn draft(&self, spec: NewTokenSpec, now: UnixMillis) -> Result<Draft, KernelError> {
        self.check_parent()?;
        let policies = self.policies(&spec)?;
        let kind = self.kind(&spec)?;
        let num_uses = self.num_uses(&spec);
        let (period, explicit_max_ttl, mut warnings) = self.spans(&spec)?;
        self.check_id(&spec)?;
        if kind == TokenType::Batch {
            if policies.iter().any(|name| name == ROOT) {
                return Err(KernelError::invalid("batch tokens cannot be root tokens"));
            }
            if spec.id.is_some() {
                return Err(KernelError::invalid("batch tokens cannot have \"id\" set"));
            }
            batch_refuses(num_uses, period, explicit_max_ttl)?;
        }
        let is_orphan = self.is_orphan(&spec)?;
        let is_root = policies.iter().any(|name| name == ROOT);
        let wish = Wish { ttl: spec.ttl, period, explicit_max_ttl, ..Wish::default() };
        let granted = self.lifetime(&wish, is_root, now)?;
        let ttl = granted.as_ref().map(|granted| granted.ttl);
        let is_renewable = kind == TokenType::Service
            && self.role.map_or(spec.is_renewable, |role| role.is_renewable && spec.is_renewable);
        let parent = (!is_orphan).then_some(self.parent);
        let entry = TokenEntry {
            namespace_id: self.namespace.id.clone(),
            namespace_path: self.namespace.path.clone(),
            parent: parent.map(TokenEntry::reference),
            depth: parent.map_or(0, |parent| parent.depth + 1),
            policies,
            display_name: shown_name(&spec.display_name),
            metadata: spec.metadata,
            path: self.path(),
            created: now,
            expires: ttl.map(|ttl| now.after(ttl)),
            ttl: ttl.unwrap_or_default(),
            // What the role says is read from the role of that day, at each renewal.
            explicit_max_ttl: spec.explicit_max_ttl,
            period: spec.period,
            num_uses,
            kind,
            role: self.role.map(|role| role.name.clone()).unwrap_or_default(),
            bound_cidrs: self.cidrs(),
            entity_id: parent.map(|parent| parent.entity_id.clone()).unwrap_or_default(),
            entity_namespace_id: parent
                .map(TokenEntry::entity_namespace)
                .filter(|id| *id != self.namespace.id)
                .map(str::to_owned)
                .unwrap_or_default(),
            is_renewable: is_renewable && ttl.is_some(),
            ..TokenEntry::default()
        };
        warnings.extend(granted.into_iter().flat_map(|granted| granted.warnings));
        Ok(Draft { entry, id: spec.id, warnings })
    }

    fn check_parent(&self) -> Result<(), KernelError> {
        if self.parent.is_batch() {
            return Err(KernelError::invalid("batch tokens cannot create more tokens"));
        }
        if self.parent.num_uses > 0 {
            return Err(KernelError::invalid("restricted use token cannot generate child tokens"));
        }
        Ok(())
    }

    fn path(&self) -> String {
        match self.role {
            None if self.wants_orphan => "auth/token/create-orphan".to_owned(),
            None => "auth/token/create".to_owned(),
            Some(role) if role.path_suffix.is_empty() => format!("auth/token/create/{}", role.name),
            Some(role) => format!("auth/token/create/{}/{}", role.name, role.path_suffix),
        }
    }

    fn kind(&self, spec: &NewTokenSpec) -> Result<TokenType, KernelError> {
        let asked = match spec.kind.as_str() {
            "" | "default" => None,
            "service" => Some(TokenType::Service),
            "batch" => Some(TokenType::Batch),
            _ => return Err(KernelError::invalid("invalid 'token_type' value")),
        };
        let role = self.role.map_or("", |role| role.token_type.as_str());
        Ok(match role {
            "batch" => TokenType::Batch,
            "service" => TokenType::Service,
            "default-batch" => asked.unwrap_or(TokenType::Batch),
            _ => asked.unwrap_or(TokenType::Service),
        })
    }

    fn num_uses(&self, spec: &NewTokenSpec) -> u32 {
        match self.role.map_or(0, |role| role.num_uses) {
            0 => spec.num_uses,
            most if spec.num_uses == 0 => most,
            most => most.min(spec.num_uses),
        }
    }

    fn check_id(&self, spec: &NewTokenSpec) -> Result<(), KernelError> {
        let Some(id) = &spec.id else { return Ok(()) };
        if !self.has_sudo {
            return Err(KernelError::invalid("root or sudo privileges required to specify token id"));
        }
        secret::check_chosen_id(id).map_err(KernelError::Invalid)
    }

    fn is_orphan(&self, spec: &NewTokenSpec) -> Result<bool, KernelError> {
        if let Some(role) = self.role {
            return Ok(role.is_orphan); // A role decides, whatever is asked for.
        }
        if self.wants_orphan {
            return Ok(true);
        }
        if spec.is_orphan && !self.has_sudo {
            return Err(KernelError::invalid("root or sudo privileges required to create orphan token"));
        }
        Ok(spec.is_orphan)
    }

    /// Period and explicit maximum, and what to warn of.
    fn spans(&self, spec: &NewTokenSpec) -> Result<(Duration, Duration, Vec<String>), KernelError> {
        if !spec.period.is_zero() && !self.has_sudo {
            return Err(KernelError::invalid("root or sudo privileges required to create periodic token"));
        }
        let Some(role) = self.role else { return Ok((spec.period, spec.explicit_max_ttl, Vec::new())) };
        let mut warnings = Vec::new();
        let mut lesser = |what: &str, by_role: Duration, asked: Duration| {
            let span = lifetime::lesser(by_role, asked);
            if !by_role.is_zero() && !asked.is_zero() {
                let seconds = lifetime::seconds(span);
                warnings.push(format!(
                    "{what} specified both during creation call and in role; using the lesser value of {seconds} seconds"
                ));
            }
            span
        };
        let explicit_max_ttl = lesser("Explicit max TTL", role.explicit_max_ttl, spec.explicit_max_ttl);
        let period = lesser("Period", role.period, spec.period);
        Ok((period, explicit_max_ttl, warnings))
    }

    /// None for a root token that never ends.
    fn lifetime(
        &self,
        wish: &Wish,
        is_root: bool,
        now: UnixMillis,
    ) -> Result<Option<lifetime::Granted>, KernelError> {
        let says_nothing = wish.ttl.is_zero() && wish.period.is_zero() && wish.explicit_max_ttl.is_zero();
        if is_root && says_nothing {
            if self.parent.expires.is_some() {
                let text = "expiring root tokens cannot create non-expiring root tokens";
                return Err(KernelError::invalid(text));
            }
            return Ok(None);
        }
        lifetime::grant(wish, self.limits, now, now)
            .map(Some)
            .map_err(|_| KernelError::invalid(format!("a token lives at least {:?}", lifetime::TTL_MIN)))
    }

    /// A role says where its tokens may be used from; otherwise children are bound as their parent is.
    fn cidrs(&self) -> Vec<Cidr> {
        match self.role {
            Some(role) if !role.bound_cidrs.is_empty() => role.bound_cidrs.clone(),
            _ => self.parent.bound_cidrs.clone(),
        }
    }

    fn policies(&self, spec: &NewTokenSpec) -> Result<Vec<String>, KernelError> {
        let role = self.role.filter(|role| role.names_policies());
        let policies = match role {
            Some(role) => self.policies_by_role(role, spec)?,
            None => self.policies_by_parent(spec)?,
        };
        if policies.iter().any(|name| name == RESPONSE_WRAPPING) {
            return Err(KernelError::invalid(format!("cannot assign policy {RESPONSE_WRAPPING:?}")));
        }
        if policies.iter().any(|name| name == ROOT) {
            if !self.parent.is_root() {
                let text = "root tokens may not be created without parent token being root";
                return Err(KernelError::invalid(text));
            }
            return Ok(vec![ROOT.to_owned()]);
        }
        Ok(policies)
    }

    fn policies_by_parent(&self, spec: &NewTokenSpec) -> Result<Vec<String>, KernelError> {
        let parents = &self.parent.policies;
        let has = |name: &str| parents.iter().any(|own| own == name);
        let declines = spec.no_default_policy || self.role.is_some_and(|role| role.no_default_policy);
        if spec.policies.is_empty() {
            let mut policies = parents.clone();
            policies.retain(|name| !(declines && name == DEFAULT));
            return Ok(policies);
        }
        let wanted = canonical_names(spec.policies.iter().map(String::as_str))?;
        if !self.has_sudo && !wanted.iter().all(|name| has(name)) {
            // Asking for root gets the answer about root.
            if !wanted.iter().any(|name| name == ROOT) {
                return Err(KernelError::invalid("child policies must be subset of parent"));
            }
        }
        let gets_default = !declines && (self.has_sudo || has(DEFAULT));
        canonical_names(wanted.iter().map(String::as_str).chain(gets_default.then_some(DEFAULT)))
    }

    fn policies_by_role(&self, role: &RoleRecord, spec: &NewTokenSpec) -> Result<Vec<String>, KernelError> {
        let wanted = if !spec.policies.is_empty() {
            spec.policies.as_slice()
        } else if !role.allowed_policies.is_empty() {
            role.allowed_policies.as_slice()
        } else if role.allowed_policies_glob.is_empty() {
            self.parent.policies.as_slice()
        } else {
            &[]
        };
        let gets_default = !(spec.no_default_policy || role.no_default_policy || role.disallows(DEFAULT));
        let default = gets_default.then_some(DEFAULT);
        let policies = canonical_names(wanted.iter().map(String::as_str).chain(default))?;
        if let Some(name) = policies.iter().find(|name| role.disallows(name)) {
            return Err(KernelError::invalid(format!("token policy {name:?} is disallowed by this role")));
        }
        if role.limits_policies()
            && !policies.iter().all(|name| (gets_default && name == DEFAULT) || role.allows(name))
        {
            return Err(KernelError::invalid("token policies must be subset of the role's allowed policies"));
        }
        Ok(policies)
    }
}

/// # Errors
/// Names the field that a batch token cannot have.
pub(super) fn batch_refuses(
    num_uses: u32,
    period: Duration,
    explicit_max_ttl: Duration,
) -> Result<(), KernelError> {
    let fields = [
        ("explicit_max_ttl", !explicit_max_ttl.is_zero()),
        ("num_uses", num_uses > 0),
        ("period", !period.is_zero()),
    ];
    match fields.iter().find(|(_, is_set)| *is_set) {
        Some((name, _)) => Err(KernelError::invalid(format!("batch tokens cannot have {name:?} set"))),
        None => Ok(()),
    }
}

fn shown_name(wanted: &str) -> String {
    if wanted.is_empty() { "token".to_owned() } else { display_name(&format!("token-{wanted}")) }
}

/// A name for people, of characters that are safe anywhere.
pub(super) fn display_name(text: &str) -> String {
    let safe = |letter: char| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '-' };
    let name: String = text.chars().take(DISPLAY_NAME_MAX).map(safe).collect();
    name.trim_end_matches('-').to_owned()
}
