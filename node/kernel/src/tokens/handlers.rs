//! What the paths of `auth/token/` do.
//!
//! Whoever names a token by itself or by its accessor reaches only tokens of the request's namespace or below it;
//! the `-self` paths mean the caller's token wherever it belongs.

use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{EngineError, Map, Operation, Page, Raw, Request, Response, RouteTable};
use async_trait::async_trait;
use serde_json::json;
use zeroize::Zeroizing;

use super::lifetime::{self, Limits};
use super::renew::{LoginRenewal, Renewal, check_renewable};
use super::roles::RoleRecord;
use super::spec::{Asker, NewTokenSpec};
use super::{NewToken, TokenEntry, TokenRef, TokenState, lookup, routes, secret};
use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::identity::{AliasOf, identity_policies};
use crate::leases::jobs::Work;
use crate::policy::{AclRequest, ROOT};
use crate::replication::EntityQuestion;

/// These paths.
pub(super) struct TokenPaths {
    table: RouteTable,
}

impl TokenPaths {
    pub(super) fn new() -> Self {
        Self { table: RouteTable::new(routes::ROUTES) }
    }
}

#[async_trait]
impl Builtin for TokenPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let call = Call { ctx, request, now: ctx.kernel.clock.now() };
        match request.route.id {
            "accessors" => call.accessors(),
            "create" => call.create(false),
            "create-orphan" => call.create(true),
            "lookup" => call.lookup(),
            "lookup-accessor" => call.by_accessor().and_then(|entry| call.looked_up(&entry, "")),
            "lookup-self" => call.lookup_self(),
            "renew" => call.renew().await,
            "renew-accessor" => {
                let entry = call.by_accessor()?;
                call.renew_entry(&entry, None).await
            }
            "renew-self" => call.renew_entry(call.caller()?, request.client_token.clone()).await,
            "revoke" => call.revoke(),
            "revoke-accessor" => call.revoke_accessor(),
            "revoke-orphan" => call.revoke_orphan(),
            "revoke-self" => call.revoke_self(),
            "role" => call.role(),
            "roles" => call.roles(),
            "tidy" => call.tidy(),
            other => Err(KernelError::Bug(format!("no handler for token route {other:?}"))),
        }
    }

    fn exists(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Option<bool>, KernelError> {
        if request.route.id != "role" {
            return Ok(None);
        }
        let role = ctx.kernel.tokens.role(ctx.tx, &ctx.namespace.id, request.param("role_name"))?;
        Ok(Some(role.is_some()))
    }
}

/// The part of a list that is wanted: `after` and `limit`.
pub(crate) fn page(request: &Request) -> Result<Page, KernelError> {
    let fields = request.fields();
    let limit = fields.string("limit")?.unwrap_or_default();
    let limit = match limit.trim() {
        "" | "max" => None,
        text => {
            let limit: i64 = text.parse().map_err(|_| KernelError::invalid("limit must be a number"))?;
            usize::try_from(limit).ok().filter(|limit| *limit > 0)
        }
    };
    Ok(Page { after: fields.string("after")?.filter(|after| !after.is_empty()), limit })
}

/// The answer to whoever wants a look after everything: the first begins it.
pub(crate) fn tidying(request: &Request, is_new: bool) -> BuiltinAnswer {
    if is_new {
        accepted(request, TIDY_STARTED)
    } else {
        Response::empty().with_warning(TIDY_UNDER_WAY).into()
    }
}

/// An answer of status 202.
fn accepted(request: &Request, text: &str) -> BuiltinAnswer {
    let body = json!({
        "request_id": request.id, "lease_id": "", "renewable": false, "lease_duration": 0, "data": null,
        "wrap_info": null, "warnings": [text], "auth": null,
    });
    let raw =
        Raw { status: 202, content_type: "application/json".to_owned(), body: body.to_string().into_bytes() };
    Response { raw: Some(raw), ..Response::default() }.into()
}

const TIDY_STARTED: &str = "Tidy operation successfully started. Any information from the operation will be printed to the server's logs.";
const TIDY_UNDER_WAY: &str = "Tidy operation already in progress.";

struct Call<'a> {
    ctx: &'a BuiltinCtx<'a>,
    request: &'a Request,
    now: arca_engine_api::UnixMillis,
}

impl Call<'_> {
    fn caller(&self) -> Result<&TokenEntry, KernelError> {
        self.ctx.token.ok_or(KernelError::Denied)
    }

    /// The token a field names; none when it is no good, or of a namespace this request has no business in.
    fn find(&self, token: &str) -> Result<Option<Arc<TokenEntry>>, KernelError> {
        let found = self.ctx.kernel.tokens.find(self.ctx.tx, token, self.now)?;
        Ok(found.filter(|entry| entry.namespace_path.starts_with(&self.ctx.namespace.path)))
    }

    fn token_field(&self) -> Result<Zeroizing<String>, KernelError> {
        Ok(Zeroizing::new(self.request.fields().string("token")?.unwrap_or_default()))
    }

    fn required_token(&self) -> Result<Zeroizing<String>, KernelError> {
        let token = self.token_field()?;
        if token.is_empty() { Err(KernelError::invalid("missing token ID")) } else { Ok(token) }
    }

    fn accessor_field(&self) -> Result<String, KernelError> {
        let accessor = self.request.fields().string("accessor")?.unwrap_or_default();
        if accessor.is_empty() { Err(KernelError::invalid("missing accessor")) } else { Ok(accessor) }
    }

    fn by_accessor(&self) -> Result<Arc<TokenEntry>, KernelError> {
        let accessor = self.accessor_field()?;
        let tokens = &self.ctx.kernel.tokens;
        let found = tokens.find_accessor(self.ctx.tx, &self.ctx.namespace.id, &accessor, self.now)?;
        found.ok_or_else(|| KernelError::invalid("invalid accessor"))
    }

    fn limits(&self) -> Result<Limits, KernelError> {
        self.ctx.kernel.token_limits(self.ctx.namespace)
    }

    fn accessors(&self) -> Result<BuiltinAnswer, KernelError> {
        let page = page(self.request)?;
        let keys = self.ctx.kernel.tokens.accessors(self.ctx.tx, &self.ctx.namespace.id, &page)?;
        Ok(Response::list(keys).into())
    }

    /// Whether the caller may do more than create: sudo on this path, or root.
    fn has_sudo(&self) -> bool {
        let path = format!("{}{}{}", self.ctx.namespace.path, self.request.mount_point, self.request.path);
        self.ctx
            .acl
            .is_some_and(|acl| acl.check(AclRequest::of(self.request, Operation::Update, &path)).has_sudo)
    }

    fn create(&self, wants_orphan: bool) -> Result<BuiltinAnswer, KernelError> {
        let (kernel, tx, namespace) = (self.ctx.kernel, self.ctx.tx, self.ctx.namespace);
        let parent = self.caller()?;
        let role = match self.request.param("role_name") {
            "" => None,
            name => {
                let role = kernel.tokens.role(tx, &namespace.id, name)?;
                Some(role.ok_or_else(|| KernelError::invalid("unknown role"))?)
            }
        };
        let spec = NewTokenSpec::parse(self.request.fields())?;
        let entity_id = self.entity_by_role(role.as_ref(), &spec.entity_alias)?;
        let asker = Asker {
            parent,
            has_sudo: self.has_sudo(),
            wants_orphan,
            role: role.as_ref(),
            namespace,
            limits: self.limits()?,
        };
        let mut draft = asker.draft(spec, self.now)?;
        if let Some(entity_id) = entity_id {
            draft.entry.entity_id = entity_id;
            draft.entry.entity_namespace_id.clear();
        }
        let mut token = kernel.tokens.issue(tx, kernel.entropy.as_ref(), draft.entry, draft.id.as_deref())?;
        token.identity_policies = kernel.identity_policies(tx, &token.entry)?;
        let mut response = Response { warnings: draft.warnings, ..Response::default() };
        for name in token.entry.policies.iter().filter(|name| *name != ROOT) {
            if kernel.policies.get(tx, &namespace.id, name)?.is_none() {
                response.warnings.push(format!("Policy {name:?} does not exist"));
            }
        }
        Ok(BuiltinAnswer { auth: Some(token), ..response.into() })
    }

    /// The entity of an alias of the token mount that a role allows to be asked for; none when none is asked for.
    fn entity_by_role(&self, role: Option<&RoleRecord>, alias: &str) -> Result<Option<String>, KernelError> {
        if alias.is_empty() {
            return Ok(None);
        }
        let role = role.ok_or_else(|| {
            KernelError::invalid("'entity_alias' is only allowed in combination with token role")
        })?;
        if !role.allows_alias(alias) {
            return Err(KernelError::invalid("invalid 'entity_alias' value"));
        }
        let (kernel, namespace) = (self.ctx.kernel, self.ctx.namespace);
        let router = kernel.mounts.router(&kernel.store)?;
        let mount = router.at(&format!("{}auth/token/", namespace.path));
        let mount = mount.ok_or_else(|| KernelError::Bug("there is no token mount".to_owned()))?;
        let wanted = AliasOf { mount_accessor: &mount.record.accessor, is_local: false, name: alias };
        let book = kernel.book(self.ctx.tx, &namespace.id);
        let was_shared = self.ctx.tx.writes_shared();
        let entity = book.find_or_make(wanted)?;
        book.save_entity(&entity)?;
        kernel.check_shared_known(self.ctx.tx, was_shared, || EntityQuestion {
            namespace_id: namespace.id.clone(),
            mount_accessor: wanted.mount_accessor.to_owned(),
            alias_name: alias.to_owned(),
            ..EntityQuestion::default()
        })?;
        Ok(Some(entity.id))
    }

    fn looked_up(&self, entry: &TokenEntry, presented: &str) -> Result<BuiltinAnswer, KernelError> {
        let mut data = lookup::data(entry, presented, self.now);
        if let Some(resolved) = self.ctx.kernel.identity_of(self.ctx.tx, entry)? {
            let policies = identity_policies(entry, &resolved);
            if !policies.is_empty() {
                data.insert("identity_policies".to_owned(), json!(policies));
            }
            data.insert("external_namespace_policies".to_owned(), json!({}));
        }
        Ok(Response { data: Some(data), ..Response::default() }.into())
    }

    fn lookup(&self) -> Result<BuiltinAnswer, KernelError> {
        let token = self.token_field()?;
        if token.is_empty() {
            return self.lookup_self();
        }
        let bad = || EngineError::Forbidden("bad token".to_owned());
        let entry = self.find(&token)?.ok_or_else(bad)?;
        self.looked_up(&entry, &token)
    }

    fn lookup_self(&self) -> Result<BuiltinAnswer, KernelError> {
        let presented = self.request.client_token.as_ref().map(|token| token.as_str()).unwrap_or_default();
        let caller = self.caller()?;
        if caller.num_uses == 0 {
            return self.looked_up(caller, presented);
        }
        // This request took a use; the record it staged says what is left.
        let current = self.ctx.kernel.tokens.load(self.ctx.tx, &caller.reference())?;
        self.looked_up(current.as_ref().unwrap_or(caller), presented)
    }

    async fn renew(&self) -> Result<BuiltinAnswer, KernelError> {
        let token = self.required_token()?;
        let entry = self.find(&token)?.ok_or_else(|| KernelError::invalid("token not found"))?;
        self.renew_entry(&entry, Some(Arc::new(token))).await
    }

    async fn renew_entry(
        &self,
        entry: &TokenEntry,
        presented: Option<Arc<Zeroizing<String>>>,
    ) -> Result<BuiltinAnswer, KernelError> {
        let (kernel, tx) = (self.ctx.kernel, self.ctx.tx);
        check_renewable(entry)?;
        let increment = increment(self.request)?;
        let (limits, login) = match &entry.login {
            None => (self.limits()?, None),
            Some(_) => {
                let (limits, login) = kernel.renew_login(tx, entry, increment).await?;
                (limits, Some(login))
            }
        };
        if let Some(groups) = login.as_ref().and_then(|login| login.group_aliases.as_ref()) {
            kernel.refresh_groups(tx, entry, groups)?;
        }
        let renewal = Renewal { increment, limits, login };
        let (entry, warnings) = kernel.tokens.renew(tx, &entry.reference(), renewal, self.now)?;
        let secret = presented.unwrap_or_default();
        let identity_policies = kernel.identity_policies(tx, &entry)?;
        let token = NewToken { secret, entry: Arc::new(entry), identity_policies };
        let response = Response { warnings, ..Response::default() };
        Ok(BuiltinAnswer { auth: Some(token), ..response.into() })
    }

    /// The stored token a revocation means, whether or not it is still good; batch tokens cannot be revoked.
    fn to_revoke(&self, token: &str) -> Result<Option<TokenRef>, KernelError> {
        let tokens = &self.ctx.kernel.tokens;
        let wanted = match secret::Presented::parse(token) {
            None => return Ok(None),
            Some(secret::Presented::Batch(_)) => {
                return Err(KernelError::invalid("batch tokens cannot be revoked"));
            }
            Some(secret::Presented::Service(token, namespace_id)) => {
                TokenRef { namespace_id: namespace_id.to_owned(), key: tokens.key_of(self.ctx.tx, &token)? }
            }
        };
        let entry = tokens.load(self.ctx.tx, &wanted)?;
        let is_ours = entry.is_some_and(|entry| {
            entry.state == TokenState::Live && entry.namespace_path.starts_with(&self.ctx.namespace.path)
        });
        Ok(is_ours.then_some(wanted))
    }

    fn revoke_tree(&self, wanted: TokenRef) -> Result<BuiltinAnswer, KernelError> {
        self.ctx.kernel.tokens.revoke_tree(self.ctx.tx, &wanted, self.now)?;
        Ok(taken_away_after(wanted))
    }

    fn revoke(&self) -> Result<BuiltinAnswer, KernelError> {
        let token = self.required_token()?;
        self.to_revoke(&token)?
            .map_or_else(|| Ok(Response::empty().into()), |wanted| self.revoke_tree(wanted))
    }

    fn revoke_orphan(&self) -> Result<BuiltinAnswer, KernelError> {
        let token = self.required_token()?;
        let wanted =
            self.to_revoke(&token)?.ok_or_else(|| KernelError::invalid("token to revoke not found"))?;
        self.ctx.kernel.tokens.revoke_alone(self.ctx.tx, &wanted, self.now)?;
        Ok(taken_away_after(wanted))
    }

    fn revoke_accessor(&self) -> Result<BuiltinAnswer, KernelError> {
        let accessor = self.accessor_field()?;
        let tokens = &self.ctx.kernel.tokens;
        let found = tokens.find_accessor(self.ctx.tx, &self.ctx.namespace.id, &accessor, self.now)?;
        match found {
            Some(entry) => self.revoke_tree(entry.reference()),
            None => Ok(Response::empty().with_warning("No token found with this accessor").into()),
        }
    }

    fn revoke_self(&self) -> Result<BuiltinAnswer, KernelError> {
        let caller = self.caller()?;
        if caller.is_batch() {
            return Err(KernelError::invalid("batch tokens cannot be revoked"));
        }
        self.revoke_tree(caller.reference())
    }

    fn role(&self) -> Result<BuiltinAnswer, KernelError> {
        let (tokens, tx, namespace_id) = (&self.ctx.kernel.tokens, self.ctx.tx, &self.ctx.namespace.id);
        let name = self.request.param("role_name");
        match self.request.operation {
            Operation::Read => {
                let role = tokens.role(tx, namespace_id, name)?;
                let role = role.ok_or_else(|| KernelError::NotFound(String::new()))?;
                return Ok(Response::data(role.to_data()).into());
            }
            Operation::Delete => tokens.delete_role(tx, namespace_id, name)?,
            _ => {
                let role = tokens.put_role(tx, namespace_id, name, self.request.fields())?;
                let warnings = role.warnings(self.request.fields(), self.limits()?);
                return Ok(Response { warnings, ..Response::empty() }.into());
            }
        }
        Ok(Response::empty().into())
    }

    fn roles(&self) -> Result<BuiltinAnswer, KernelError> {
        let page = page(self.request)?;
        let names = self.ctx.kernel.tokens.roles(self.ctx.tx, &self.ctx.namespace.id, &page)?;
        Ok(Response::list(names).into())
    }

    fn tidy(&self) -> Result<BuiltinAnswer, KernelError> {
        let kernel = self.ctx.kernel;
        let is_new = kernel.leases.begin_once(
            self.ctx.tx,
            &kernel.tokens,
            self.now,
            &self.ctx.namespace.id,
            Work::TidyTokens,
        )?;
        Ok(tidying(self.request, is_new))
    }
}

/// `increment`; zero stands for the usual.
pub(crate) fn increment(request: &Request) -> Result<Duration, KernelError> {
    Ok(request.fields().duration("increment")?.unwrap_or_default())
}

/// The answer to a revocation: once it is committed, what hung on the token goes as far as a moment allows.
fn taken_away_after(wanted: TokenRef) -> BuiltinAnswer {
    BuiltinAnswer::after(move |kernel| {
        Box::pin(async move {
            kernel.reap_soon(wanted).await;
            Ok(Response::empty())
        })
    })
}

impl LoginRenewal {
    /// What an auth method's answer says about a renewal.
    ///
    /// # Errors
    /// When the login would give other policies now.
    pub(crate) fn from_response(entry: &TokenEntry, response: Response) -> Result<Self, KernelError> {
        if let Some(login) = response.login {
            if !login.policies.is_empty() {
                let given = login.policies.iter().map(String::as_str);
                let default = (!login.no_default_policy).then_some(crate::policy::DEFAULT);
                if crate::policy::canonical_names(given.chain(default))? != entry.policies {
                    return Err(KernelError::invalid("policies have changed, not renewing"));
                }
            }
            let period = Some(login.period);
            return Ok(Self {
                ttl: login.ttl,
                max_ttl: Some(login.max_ttl),
                period,
                internal: login.internal,
                group_aliases: login.group_aliases,
            });
        }
        let grant = response.lease.unwrap_or_default();
        let ttl = if grant.ttl.is_zero() { Duration::ZERO } else { grant.ttl.max(lifetime::TTL_MIN) };
        let internal = Map::clone(&grant.internal);
        let max_ttl = Some(grant.max_ttl).filter(|span| !span.is_zero());
        Ok(Self { ttl, max_ttl, internal, ..Self::default() })
    }
}
