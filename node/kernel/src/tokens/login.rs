//! Tokens made by logins.

use arca_engine_api::{Entropy, Login, TokenKind, UnixMillis};

use super::entry::{LoginOrigin, TokenType};
use super::lifetime::{self, Limits, Wish};
use super::spec::{batch_refuses, display_name};
use super::{Cidr, NewToken, TokenEntry, TokenStore};
use crate::KernelError;
use crate::namespaces::Namespace;
use crate::policy::{DEFAULT, RESPONSE_WRAPPING, ROOT, canonical_names};
use crate::tx::Tx;

/// The auth mount a login came through, as far as tokens care.
#[derive(Clone, Debug, Default)]
pub struct LoginMount<'a> {
    /// Path, `auth/…/`, without the namespace.
    pub path: &'a str,
    /// Accessor.
    pub accessor: &'a str,
    /// Lifetimes it allows.
    pub limits: Limits,
    /// `token_type` of its tune, or empty.
    pub token_type: &'a str,
}

impl LoginMount<'_> {
    fn kind_for(&self, wanted: TokenKind) -> TokenType {
        match (self.token_type, wanted) {
            ("batch", _) => TokenType::Batch,
            ("service", _) => TokenType::Service,
            (_, TokenKind::Batch) => TokenType::Batch,
            (_, TokenKind::Service) => TokenType::Service,
            ("default-batch", TokenKind::Default | TokenKind::DefaultBatch) => TokenType::Batch,
            ("default-service", _) => TokenType::Service,
            (_, TokenKind::DefaultBatch) => TokenType::Batch,
            (_, TokenKind::Default | TokenKind::DefaultService) => TokenType::Service,
        }
    }
}

/// A login that succeeded, and where.
#[derive(Clone, Copy, Debug)]
pub struct LoginRequest<'a> {
    /// The mount.
    pub mount: &'a LoginMount<'a>,
    /// Namespace of the mount.
    pub namespace: &'a Namespace,
    /// Path of the request, without the namespace.
    pub path: &'a str,
    /// What the auth method says.
    pub login: &'a Login,
    /// Identity entity, or empty.
    pub entity_id: &'a str,
}

impl TokenStore {
    /// The token for a login, and warnings about it.
    ///
    /// # Errors
    /// When the method asks for what no login may have, or randomness or storage fails.
    pub fn create_from_login(
        &self,
        tx: &Tx,
        entropy: &dyn Entropy,
        now: UnixMillis,
        request: &LoginRequest<'_>,
    ) -> Result<(NewToken, Vec<String>), KernelError> {
        let (draft, warnings) = draft(now, request)?;
        Ok((self.issue(tx, entropy, draft, None)?, warnings))
    }
}

fn draft(now: UnixMillis, request: &LoginRequest<'_>) -> Result<(TokenEntry, Vec<String>), KernelError> {
    let LoginRequest { mount, namespace, path, login, entity_id } = *request;
    let kind = mount.kind_for(login.token_kind);
    if kind == TokenType::Batch {
        batch_refuses(login.num_uses, login.period, login.explicit_max_ttl)?;
    }
    let wish = Wish {
        ttl: login.ttl,
        max_ttl: login.max_ttl,
        period: login.period,
        explicit_max_ttl: login.explicit_max_ttl,
        ..Wish::default()
    };
    let granted = lifetime::grant(&wish, mount.limits, now, now)
        .map_err(|_| KernelError::invalid("the login's lifetime is too short for a token"))?;
    let name =
        format!("{}-{}", mount.path.trim_start_matches("auth/").trim_end_matches('/'), login.display_name);
    let origin = LoginOrigin {
        mount_accessor: mount.accessor.to_owned(),
        mount_path: mount.path.to_owned(),
        alias_name: login.alias_name.clone(),
        alias_metadata: login.alias_metadata.clone(),
        internal: if kind == TokenType::Batch { arca_engine_api::Map::new() } else { login.internal.clone() },
        ttl: login.ttl,
        max_ttl: login.max_ttl,
    };
    let draft = TokenEntry {
        namespace_id: namespace.id.clone(),
        namespace_path: namespace.path.clone(),
        policies: policies(login)?,
        display_name: display_name(&name),
        metadata: login.metadata.clone(),
        path: path.trim_end_matches('/').to_owned(),
        created: now,
        expires: Some(now.after(granted.ttl)),
        ttl: granted.ttl,
        explicit_max_ttl: login.explicit_max_ttl,
        period: login.period,
        num_uses: login.num_uses,
        kind,
        bound_cidrs: Cidr::parse_list(&login.bound_cidrs, "token_bound_cidrs")?,
        entity_id: entity_id.to_owned(),
        is_renewable: login.is_renewable && kind == TokenType::Service,
        login: Some(origin),
        ..TokenEntry::default()
    };
    Ok((draft, granted.warnings))
}

/// What the method gave, in its one form. No login makes a root token, and none a wrapping token.
fn policies(login: &Login) -> Result<Vec<String>, KernelError> {
    let given = login.policies.iter().map(String::as_str);
    let default = (!login.no_default_policy).then_some(DEFAULT);
    let policies = canonical_names(given.chain(default))?;
    if policies.iter().any(|name| name == ROOT) {
        return Err(KernelError::invalid("auth methods cannot create root tokens"));
    }
    if policies.iter().any(|name| name == RESPONSE_WRAPPING) {
        return Err(KernelError::invalid(format!("cannot assign policy {RESPONSE_WRAPPING:?}")));
    }
    Ok(policies)
}
