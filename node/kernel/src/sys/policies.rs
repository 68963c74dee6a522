//! `sys/policies/acl` and its older form `sys/policy`: the texts of policies.

use arca_engine_api::{
    EngineError, Field, FieldKind, Fields, Map, Method, Operation, Page, Request, Response, Route,
    RouteTable, UnixMillis,
};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::policy::{PolicyRecord, canonical_name};
use crate::rfc3339;

const LIST: &[Method] = &[Method::new(Operation::List, "Names of all policies.")];
const LIST_OR_READ: &[Method] = &[
    Method::new(Operation::List, "Names of all policies."),
    Method::new(Operation::Read, "Names of all policies."),
];
const ONE: &[Method] = &[
    Method::new(Operation::Read, "Show a policy."),
    Method::new(Operation::Update, "Write a policy."),
    Method::new(Operation::Delete, "Remove a policy."),
];
const PAGE_FIELDS: &[Field] = &[
    Field { name: "after", kind: FieldKind::String, summary: "Only names after this one." },
    Field { name: "limit", kind: FieldKind::Int, summary: "At most so many." },
];
const POLICY_FIELDS: &[Field] = &[
    Field {
        name: "policy",
        kind: FieldKind::String,
        summary: "The rules as HCL or JSON, plain or in base64.",
    },
    Field { name: "rules", kind: FieldKind::String, summary: "Old name of policy." },
    Field { name: "cas", kind: FieldKind::Int, summary: "Write only over this version; 0 or -1 for none." },
    Field { name: "cas_required", kind: FieldKind::Bool, summary: "Refuse writes without cas." },
    Field { name: "expiration", kind: FieldKind::String, summary: "Moment from which it grants nothing." },
    Field { name: "ttl", kind: FieldKind::Duration, summary: "Lifetime, in place of expiration." },
];

static ROUTES: &[Route] = &[
    Route::new("names", "policies/acl", LIST, PAGE_FIELDS, "All policies."),
    Route::new("detailed", "policies/detailed/acl", LIST, PAGE_FIELDS, "All policies with their texts."),
    Route::new("policy", "policies/acl/{name...}", ONE, POLICY_FIELDS, "One policy."),
    Route::new("old_names", "policy", LIST_OR_READ, PAGE_FIELDS, "All policies."),
    Route::new("old_policy", "policy/{name...}", ONE, POLICY_FIELDS, "One policy."),
];

/// These paths.
pub(crate) struct PolicyPaths {
    table: RouteTable,
}

impl PolicyPaths {
    pub(crate) fn new() -> Self {
        Self { table: RouteTable::new(ROUTES) }
    }
}

#[async_trait]
impl Builtin for PolicyPaths {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        match request.route.id {
            "names" => Ok(Response::list(names(ctx, request)?).into()),
            "detailed" => detailed(ctx, request),
            "old_names" => {
                let names = names(ctx, request)?;
                Ok(BuiltinAnswer::at_both_levels(Response::data(json!({"keys": names, "policies": names}))))
            }
            id => one(ctx, request, id == "old_policy"),
        }
    }
}

fn names(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Vec<String>, KernelError> {
    let page = page(request.fields())?;
    ctx.kernel.policies.list(ctx.tx, &ctx.namespace.id, &page)
}

/// `limit` of zero, below zero or `max` means all.
pub(super) fn page(fields: Fields<'_>) -> Result<Page, KernelError> {
    let limit = match fields.string("limit")?.as_deref() {
        None | Some("" | "max") => None,
        Some(_) => {
            fields.integer("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0)
        }
    };
    Ok(Page { after: fields.string("after")?.filter(|after| !after.is_empty()), limit })
}

fn detailed(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
    let names = names(ctx, request)?;
    let mut infos = Map::new();
    for name in &names {
        if let Some(record) = ctx.kernel.policies.get(ctx.tx, &ctx.namespace.id, name)? {
            infos.insert(name.clone(), shown(name, &record, "policy"));
        }
    }
    Ok(Response::data(json!({"keys": names, "key_info": infos})).into())
}

fn one(ctx: &BuiltinCtx<'_>, request: &Request, is_old: bool) -> Result<BuiltinAnswer, KernelError> {
    // The pipeline brought the path into this form; a name that still is not in it was never authorized.
    let name = request.param("name");
    if canonical_name(name)? != name {
        return Err(KernelError::invalid("policy names are lower-case, without blanks around them"));
    }
    match request.operation {
        Operation::Read => {
            let found = ctx.kernel.policies.get(ctx.tx, &ctx.namespace.id, name)?;
            let record = found.ok_or_else(|| KernelError::NotFound(String::new()))?;
            let text_key = if is_old { "rules" } else { "policy" };
            let response = Response::data(shown(name, &record, text_key));
            Ok(if is_old { BuiltinAnswer::at_both_levels(response) } else { response.into() })
        }
        Operation::Delete => {
            ctx.kernel.policies.delete(ctx.tx, &ctx.namespace.id, name)?;
            Ok(Response::empty().into())
        }
        _ => write(ctx, request, name),
    }
}

fn shown(name: &str, record: &PolicyRecord, text_key: &str) -> Value {
    let mut data = Map::new();
    data.insert("name".to_owned(), name.into());
    data.insert(text_key.to_owned(), record.text.as_str().into());
    data.insert("version".to_owned(), record.version.into());
    data.insert("cas_required".to_owned(), record.is_cas_required.into());
    for (key, moment) in [("modified", record.modified), ("expiration", record.expiration)] {
        if let Some(moment) = moment {
            data.insert(key.to_owned(), rfc3339::format(moment).into());
        }
    }
    Value::Object(data)
}

fn write(ctx: &BuiltinCtx<'_>, request: &Request, name: &str) -> Result<BuiltinAnswer, KernelError> {
    let fields = request.fields();
    let now = ctx.kernel.clock.now();
    let (text, is_old_name) = match fields.string("policy")?.filter(|text| !text.is_empty()) {
        Some(text) => (text, false),
        None => (fields.string("rules")?.unwrap_or_default(), true),
    };
    if text.is_empty() {
        return Err(KernelError::invalid("'policy' parameter not supplied or empty"));
    }
    let record = PolicyRecord {
        text: plain_text(text),
        modified: Some(now),
        is_cas_required: fields.boolean("cas_required")?.unwrap_or(false),
        expiration: expiration(fields, now)?,
        ..PolicyRecord::default()
    };
    ctx.kernel.policies.put(ctx.tx, &ctx.namespace.id, name, record, fields.integer("cas")?)?;
    let response = Response::empty();
    Ok(if is_old_name {
        response.with_warning("'rules' is deprecated, please use 'policy' instead")
    } else {
        response
    }
    .into())
}

/// Texts may come in base64; no policy is valid base64 by itself.
pub(super) fn plain_text(text: String) -> String {
    STANDARD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or(text)
}

fn expiration(fields: Fields<'_>, now: UnixMillis) -> Result<Option<UnixMillis>, EngineError> {
    let ttl = fields.duration("ttl")?.filter(|ttl| !ttl.is_zero());
    let moment = fields.string("expiration")?.filter(|text| !text.is_empty());
    match (moment, ttl) {
        (Some(_), Some(_)) => Err(EngineError::invalid("give expiration or ttl, not both")),
        (None, ttl) => Ok(ttl.map(|ttl| now.after(ttl))),
        (Some(text), None) => {
            let moment = rfc3339::parse(&text).filter(|moment| *moment > now);
            moment
                .map(Some)
                .ok_or_else(|| EngineError::invalid("expiration must be a moment ahead, in RFC 3339"))
        }
    }
}
