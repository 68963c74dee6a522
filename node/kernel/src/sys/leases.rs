//! `sys/leases/*`, also under the names it had before (`sys/renew`, `sys/revoke…`): one handler, one decision.
//!
//! A lease is reached only from the namespace it was granted in: its id proves nothing (CVE-2026-55774, CVE-2026-45808).
//! Token leases are the tokens themselves, seen by the path that made them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arca_barrier::Class;
use arca_engine_api::{
    Access, Effect, Field, FieldKind, Map, Method, Operation, Page, Raw, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::leases::jobs::{Progress, Work};
use crate::leases::{self, LeaseEntry, LeaseState};
use crate::policy::AclRequest;
use crate::tokens::handlers::{increment, page, tidying};
use crate::tokens::lifetime::seconds;
use crate::tokens::store::by_path_prefix;
use crate::tokens::{TokenEntry, TokenRef};
use crate::{KernelError, rfc3339};

/// Irrevocable leases shown or counted at most.
const IRREVOCABLE_MAX: usize = 10_000;

const LEASE_ID: Field = Field::new("lease_id", FieldKind::String, "Id of the lease.");
const URL_LEASE_ID: Field = Field::new("url_lease_id", FieldKind::String, "The same, in the path.");
const SYNC: Field = Field::new(
    "sync",
    FieldKind::Bool,
    "Answer only once it is revoked (default), or once that is recorded.",
);
const RENEW_FIELDS: &[Field] =
    &[LEASE_ID, URL_LEASE_ID, Field::new("increment", FieldKind::Duration, "Wanted lifetime from now.")];
const REVOKE_FIELDS: &[Field] = &[LEASE_ID, URL_LEASE_ID, SYNC];
const LOOKUP_FIELDS: &[Field] = &[
    LEASE_ID,
    Field::new("after", FieldKind::String, "Only names after this one."),
    Field::new("limit", FieldKind::Int, "At most so many."),
];
const COUNT_FIELDS: &[Field] = &[
    Field::new("type", FieldKind::String, "irrevocable."),
    Field::new("include_child_namespaces", FieldKind::Bool, "Accepted; counts are of this namespace."),
    Field::new("limit", FieldKind::String, "At most so many, or none for no such limit."),
];

const LOOKUP: &[Method] = &[
    Method::with_effect(Operation::Update, Effect::Reads, "Look at a lease."),
    Method::new(Operation::List, "Ids by path; needs sudo."),
];
const LIST: &[Method] = &[Method::new(Operation::List, "Ids by path.")];
const JOBS: &[Method] = &[
    Method::new(Operation::List, "What is under way, and how far it is."),
    Method::new(Operation::Read, "What is under way, and how far it is."),
];
const READ: &[Method] = &[Method::new(Operation::Read, "Leases that could not be revoked.")];
const UPDATE: &[Method] = &[Method::new(Operation::Update, "Act.")];

const fn route(
    id: &'static str,
    pattern: &'static str,
    access: Access,
    methods: &'static [Method],
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { id, pattern, access, methods, fields, takes_any_field: false, summary }
}

const RENEW_TEXT: &str = "A later end for a lease.";
const REVOKE_TEXT: &str = "The end of a lease.";
const PREFIX_TEXT: &str = "The end of all leases below a path.";
const FORCE_TEXT: &str = "The end of all leases below a path, even where undoing them fails.";

static ROUTES: &[Route] = &[
    route("irrevocable", "leases", Access::Sudo, READ, COUNT_FIELDS, "Leases that could not be revoked."),
    route(
        "count",
        "leases/count",
        Access::Token,
        READ,
        COUNT_FIELDS,
        "How many leases could not be revoked.",
    ),
    route("jobs", "leases/jobs", Access::Sudo, JOBS, &[], "Work on many leases that is under way."),
    route("lookup", "leases/lookup", Access::Token, LOOKUP, LOOKUP_FIELDS, "A lease, or the paths of all."),
    route("list", "leases/lookup/{prefix...}", Access::Sudo, LIST, LOOKUP_FIELDS, "Ids of leases by path."),
    route("renew", "leases/renew", Access::Token, UPDATE, RENEW_FIELDS, RENEW_TEXT),
    route("renew", "leases/renew/{url_lease_id...}", Access::Token, UPDATE, RENEW_FIELDS, RENEW_TEXT),
    route("revoke", "leases/revoke", Access::Token, UPDATE, REVOKE_FIELDS, REVOKE_TEXT),
    route("revoke", "leases/revoke/{url_lease_id...}", Access::Token, UPDATE, REVOKE_FIELDS, REVOKE_TEXT),
    route("prefix", "leases/revoke-prefix/{prefix...}", Access::Sudo, UPDATE, &[SYNC], PREFIX_TEXT),
    route("force", "leases/revoke-force/{prefix...}", Access::Sudo, UPDATE, &[], FORCE_TEXT),
    route("tidy", "leases/tidy", Access::Token, UPDATE, &[], "Looks for leases whose token is gone."),
    route("renew", "renew", Access::Token, UPDATE, RENEW_FIELDS, RENEW_TEXT),
    route("renew", "renew/{url_lease_id...}", Access::Token, UPDATE, RENEW_FIELDS, RENEW_TEXT),
    route("revoke", "revoke", Access::Token, UPDATE, REVOKE_FIELDS, REVOKE_TEXT),
    route("revoke", "revoke/{url_lease_id...}", Access::Token, UPDATE, REVOKE_FIELDS, REVOKE_TEXT),
    route("prefix", "revoke-prefix/{prefix...}", Access::Sudo, UPDATE, &[SYNC], PREFIX_TEXT),
    route("force", "revoke-force/{prefix...}", Access::Sudo, UPDATE, &[], FORCE_TEXT),
];

/// These paths.
pub(crate) struct LeasePaths {
    table: RouteTable,
}

impl LeasePaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for LeasePaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let call = Call { ctx, request, now: ctx.kernel.clock.now() };
        match request.route.id {
            "count" | "irrevocable" => call.irrevocable(),
            "jobs" => call.jobs(),
            "force" => call.revoke_prefix(true),
            "list" => call.list(request.param("prefix")),
            "lookup" if request.operation == Operation::List => call.list_all(),
            "lookup" => call.lookup(),
            "prefix" => call.revoke_prefix(false),
            "renew" => call.renew().await,
            "revoke" => call.revoke(),
            "tidy" => call.tidy(),
            other => Err(KernelError::Bug(format!("no handler for lease route {other:?}"))),
        }
    }
}

/// A lease id leads to one of two things.
enum Leased {
    Secret(Box<LeaseEntry>),
    Token(Arc<TokenEntry>),
}

/// A job's progress as clients see it.
fn shown(progress: &Progress) -> Value {
    let (prefix, is_forced) = match &progress.work {
        Work::EndLeases { prefix, is_forced, .. } => (prefix.as_str(), *is_forced),
        Work::RevokeTokens { prefix, .. } => (prefix.as_str(), false),
        Work::TidyLeases | Work::TidyTokens => ("", false),
    };
    json!({
        "work": progress.work.name(),
        "prefix": prefix,
        "force": is_forced,
        "start_time": rfc3339::format(progress.started),
        "ended": progress.ended,
        "state": if progress.is_marked { "undoing" } else { "ending" },
        "left": progress.left,
        "left_is_at_least": progress.is_left_more,
    })
}

/// The answer to a revocation that is recorded and will be done: status 202 and nothing else.
fn later() -> BuiltinAnswer {
    let raw = Raw { status: 202, content_type: "application/json".to_owned(), body: Vec::new() };
    Response { raw: Some(raw), ..Response::default() }.into()
}

struct Call<'a> {
    ctx: &'a BuiltinCtx<'a>,
    request: &'a Request,
    now: arca_engine_api::UnixMillis,
}

impl Call<'_> {
    fn namespace_id(&self) -> &str {
        &self.ctx.namespace.id
    }

    /// The lease that is meant. Policies are judged by the path: if it names a lease, a body cannot mean another.
    fn lease_id(&self) -> Result<String, KernelError> {
        let (fields, in_path) = (self.request.fields(), self.request.param("url_lease_id"));
        let said = [fields.string("lease_id")?, fields.string("url_lease_id")?];
        let mut said = said.into_iter().flatten().filter(|id| !id.is_empty());
        if in_path.is_empty() {
            return said.next().ok_or_else(|| KernelError::invalid("lease_id must be specified"));
        }
        if said.any(|id| id != in_path) {
            return Err(KernelError::invalid("lease_id is not the lease that the path names"));
        }
        Ok(in_path.to_owned())
    }

    fn find(&self, id: &str) -> Result<Option<Leased>, KernelError> {
        let (kernel, tx) = (self.ctx.kernel, self.ctx.tx);
        if let Some(lease) = kernel.leases.load(tx, self.namespace_id(), id)? {
            return Ok(Some(Leased::Secret(Box::new(lease))));
        }
        let Some(key) = leases::token_key_of(id) else { return Ok(None) };
        let wanted = TokenRef { namespace_id: self.namespace_id().to_owned(), key: key.to_owned() };
        let found = kernel.tokens.find_key(tx, &wanted, self.now)?;
        let found = found.filter(|entry| entry.has_lease() && entry.lease_id() == id);
        Ok(found.map(Leased::Token))
    }

    fn lookup(&self) -> Result<BuiltinAnswer, KernelError> {
        let id = self.lease_id()?;
        let moment = |moment: Option<_>| moment.map_or(Value::Null, |at| json!(rfc3339::format(at)));
        let data = match self.find(&id)?.ok_or_else(|| KernelError::invalid("invalid lease"))? {
            Leased::Secret(lease) => {
                let is_live = lease.state == LeaseState::Live;
                let ends = if is_live { lease.expires } else { lease.expires.min(self.now) };
                json!({
                    "id": id,
                    "path": lease.path,
                    "issue_time": rfc3339::format(lease.issued),
                    "expire_time": rfc3339::format(ends),
                    "last_renewal": moment(lease.last_renewed),
                    "renewable": lease.is_renewable && lease.is_good(self.now),
                    "ttl": seconds(ends.since(self.now)),
                })
            }
            Leased::Token(entry) => json!({
                "id": id,
                "path": entry.path,
                "issue_time": rfc3339::format(entry.created),
                "expire_time": moment(entry.expires),
                "last_renewal": moment(entry.last_renewed),
                "renewable": entry.is_renewable,
                "ttl": entry.time_left(self.now).map_or(0, seconds),
            }),
        };
        Ok(Response::data(data).into())
    }

    /// The list of everything shares a route with lookups, which need no sudo.
    fn list_all(&self) -> Result<BuiltinAnswer, KernelError> {
        let path = format!("{}{}{}", self.ctx.namespace.path, self.request.mount_point, self.request.path);
        let has_sudo = self
            .ctx
            .acl
            .is_some_and(|acl| acl.check(AclRequest::of(self.request, Operation::List, &path)).has_sudo);
        if has_sudo { self.list("") } else { Err(KernelError::Denied) }
    }

    fn list(&self, prefix: &str) -> Result<BuiltinAnswer, KernelError> {
        let prefix = prefix.trim_end_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let wanted = page(self.request)?;
        let all = Page { limit: wanted.limit, ..wanted.clone() };
        let mut keys = Vec::new();
        for folder in
            [leases::id_path(self.namespace_id(), &prefix), by_path_prefix(self.namespace_id(), &prefix)]
        {
            keys.extend(self.ctx.tx.list(Class::Local, &folder, &all)?);
        }
        keys.sort_unstable();
        keys.dedup();
        keys.truncate(wanted.limit.unwrap_or(usize::MAX));
        Ok(Response::list(keys).into())
    }

    async fn renew(&self) -> Result<BuiltinAnswer, KernelError> {
        let id = self.lease_id()?;
        let increment = increment(self.request)?;
        let lease = match self.find(&id)? {
            Some(Leased::Secret(lease)) => *lease,
            Some(Leased::Token(_)) => {
                return Err(KernelError::invalid("tokens cannot be renewed through this endpoint"));
            }
            None => return Err(KernelError::invalid("lease not found")),
        };
        let (lease, response) = self.ctx.kernel.renew_lease(self.ctx.tx, lease, increment).await?;
        Ok(BuiltinAnswer { lease: Some(lease), ..response.into() })
    }

    fn revoke(&self) -> Result<BuiltinAnswer, KernelError> {
        let id = self.lease_id()?;
        let (kernel, tx) = (self.ctx.kernel, self.ctx.tx);
        let is_sync = self.is_sync()?;
        let namespace_id = self.namespace_id().to_owned();
        let mut answer: BuiltinAnswer = match self.find(&id)? {
            None => Response::empty().into(),
            Some(Leased::Token(entry)) => {
                let wanted = entry.reference();
                kernel.tokens.revoke_tree(tx, &wanted, self.now)?;
                BuiltinAnswer::after(move |kernel| {
                    Box::pin(async move {
                        kernel.reap_soon(wanted).await;
                        Ok(Response::empty())
                    })
                })
            }
            Some(Leased::Secret(lease)) => {
                kernel.leases.end(tx, *lease, false, self.now)?;
                if !is_sync {
                    return Ok(later());
                }
                BuiltinAnswer::after(move |kernel| {
                    Box::pin(async move {
                        kernel.revoke_lease_now(&namespace_id, &id).await?;
                        Ok(Response::empty())
                    })
                })
            }
        };
        if !is_sync {
            answer.response = later().response;
        }
        Ok(answer)
    }

    /// Whoever revokes waits for it, unless it is said otherwise: then nothing that was revoked is seen any more.
    fn is_sync(&self) -> Result<bool, KernelError> {
        Ok(self.request.fields().boolean("sync")?.unwrap_or(true))
    }

    fn revoke_prefix(&self, is_forced: bool) -> Result<BuiltinAnswer, KernelError> {
        let prefix = self.request.param("prefix").trim_matches('/').to_owned();
        if prefix.is_empty() {
            return Err(KernelError::invalid("prefix must be specified"));
        }
        let (kernel, tx, namespace_id) = (self.ctx.kernel, self.ctx.tx, self.namespace_id().to_owned());
        let is_sync = is_forced || self.is_sync()?;
        match self.find(&prefix)? {
            Some(Leased::Secret(lease)) => kernel.leases.end(tx, *lease, is_forced, self.now)?,
            Some(Leased::Token(entry)) => kernel.tokens.revoke_tree(tx, &entry.reference(), self.now)?,
            None => {
                let work = Work::ending(&prefix, is_forced);
                kernel.leases.begin(
                    tx,
                    &kernel.tokens,
                    kernel.entropy.as_ref(),
                    self.now,
                    &namespace_id,
                    work,
                )?;
            }
        }
        if !is_sync {
            return Ok(later());
        }
        Ok(BuiltinAnswer::after(move |kernel| {
            Box::pin(async move {
                kernel.end_below(&namespace_id, &prefix, is_forced).await?;
                Ok(Response::empty())
            })
        }))
    }

    /// How many irrevocable leases are wanted; all are counted.
    fn irrevocable_limit(&self) -> Result<usize, KernelError> {
        let limit = self.request.fields().string("limit")?.unwrap_or_default();
        if self.request.route.id == "count" || limit.is_empty() || limit == "none" {
            return Ok(IRREVOCABLE_MAX);
        }
        let limit = limit.parse().ok().filter(|limit| *limit > 0);
        let limit: usize =
            limit.ok_or_else(|| KernelError::invalid("limit must be 'none' or a positive integer"))?;
        Ok(limit.min(IRREVOCABLE_MAX))
    }

    fn irrevocable(&self) -> Result<BuiltinAnswer, KernelError> {
        if self.request.fields().string("type")?.as_deref() != Some("irrevocable") {
            return Err(KernelError::NotFound(String::new()));
        }
        let kernel = self.ctx.kernel;
        let limit = self.irrevocable_limit()?;
        let found = kernel.leases.irrevocable(self.ctx.tx, self.namespace_id(), limit)?;
        let router = kernel.mounts.router(&kernel.store)?;
        let accessor = |lease: &LeaseEntry| {
            router.by_uuid(&lease.mount_uuid).map_or_else(String::new, |mount| mount.record.accessor.clone())
        };
        let found: Vec<LeaseEntry> =
            found.into_iter().filter(|lease| lease.state == LeaseState::Irrevocable).collect();
        let mut data = Map::new();
        data.insert("lease_count".to_owned(), json!(found.len()));
        if self.request.route.id == "count" {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for lease in &found {
                *counts.entry(accessor(lease)).or_default() += 1;
            }
            data.insert("counts".to_owned(), json!(counts));
        } else {
            let shown: Vec<Value> = found
                .iter()
                .map(|lease| json!({"lease_id": lease.id, "mount_id": accessor(lease), "error": lease.failure}))
                .collect();
            data.insert("leases".to_owned(), json!(shown));
        }
        Ok(Response { data: Some(data), ..Response::default() }.into())
    }

    fn jobs(&self) -> Result<BuiltinAnswer, KernelError> {
        let jobs = self.ctx.kernel.leases.jobs(self.ctx.tx, self.namespace_id())?;
        let keys: Vec<&String> = jobs.iter().map(|(id, _)| id).collect();
        let infos: Map = jobs.iter().map(|(id, progress)| (id.clone(), shown(progress))).collect();
        Ok(Response::data(json!({"keys": keys, "key_info": infos})).into())
    }

    fn tidy(&self) -> Result<BuiltinAnswer, KernelError> {
        let kernel = self.ctx.kernel;
        let (tx, work) = (self.ctx.tx, Work::TidyLeases);
        let is_new = kernel.leases.begin_once(tx, &kernel.tokens, self.now, self.namespace_id(), work)?;
        Ok(tidying(self.request, is_new))
    }
}
